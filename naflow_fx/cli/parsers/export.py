"""The options of `naflow-fx export`. No heavy import in here."""

from __future__ import annotations

from naflow_fx.cli.parsers.base import Commands, command, named
from naflow_fx.cli.parsers.options import DEVICE_HELP, add_method_options, add_model_options

FORMATS = ("pt2", "aoti", "onnx")

TEXT = "write a network with its explainer as one file: PyTorch, compiled, or ONNX"
EXAMPLES = """\
formats, all with the signature (image [N, 3, H, W], target int64 [N], -1: the predicted class):
  pt2    torch.export: torch.export.load(FILE).module()(image, target), any device
  aoti   compiled by AOTInductor for --device, for Python and C++; can take minutes;
         machine code: `explain --artefact FILE --trusted`
  onnx   for onnxruntime and others; needs pip install 'naflow-fx[onnx]'

examples:
  naflow-fx export --format pt2 --out explainer.pt2
  naflow-fx export --format onnx --model resnet18 --layers 'layer4.*' --out explainer.onnx
  naflow-fx info explainer.onnx
  naflow-fx explain cat.jpg --artefact explainer.onnx
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = command(commands, "export", TEXT, EXAMPLES, "export:export")
    parser.add_argument("--format", required=True, choices=FORMATS, help="of the file, see below")
    parser.add_argument(
        "--out", type=named, required=True, metavar="FILE", help="ends in .pt2 (pt2, aoti) or .onnx"
    )
    parser.add_argument("--device", default="cpu", metavar="D", help=DEVICE_HELP)
    add_model_options(parser)
    add_method_options(parser)

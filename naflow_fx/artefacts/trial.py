"""A new file is run once: what can't run, or runs as another model, isn't left behind."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from naflow_fx.artefacts.formats import OPENERS, PROVIDERS
from naflow_fx.artefacts.metadata import Metadata
from naflow_fx.artefacts.program import plain_program
from naflow_fx.errors import ArtefactError, first_line, is_out_of_memory, required

RUNTIMES = {"pt2": "torch.export", "aoti": "AOTInductor", "onnx": "onnxruntime"}
CLOSE = 0.05  # of the largest output: arithmetic differs between the runtimes, models differ more


def run_once(
    path: Path, metadata: Metadata, program: fx.GraphModule, inputs: tuple[Tensor, ...]
) -> None:
    """Runs a new artefact on images of noise; ONNX models where there is an onnxruntime.

    inputs: as the program takes them, for their shapes; their numbers are drawn anew.

    Raises:
        ArtefactError: it can't be loaded or run, and why; or its outputs are not the program's.
    """
    device = inputs[0].device
    if metadata.kind == "onnx":
        try:
            onnxruntime = required("onnxruntime", extra="onnx", what="", error=ArtefactError)
        except ArtefactError:
            return
        if PROVIDERS.get(device.type) not in onnxruntime.get_available_providers():
            device = torch.device("cpu")
    given = [_noise(x) for x in inputs]
    try:
        run = OPENERS[metadata.kind](path, metadata, device)
        found = run([x.to(device) for x in given])
    except Exception as error:  # of many kinds: the runtimes' errors share no class
        if is_out_of_memory(error):
            raise
        runtime = RUNTIMES[metadata.kind]
        raise ArtefactError(f"{runtime} can't run the model: {first_line(error)}") from error
    with torch.no_grad():
        wanted = pytree.tree_leaves(plain_program(program)(*given))
    _compare(metadata, found, wanted)


def _noise(x: Tensor) -> Tensor:
    """Numbers from 0 to 1 for images; class indices stay."""
    if not x.is_floating_point():
        return x
    generator = torch.Generator().manual_seed(0)
    return torch.rand(x.shape, generator=generator).to(x)


def _compare(metadata: Metadata, found: list[Tensor], wanted: list[Tensor]) -> None:
    names = [value.name for value in metadata.outputs]
    if len(found) != len(names):
        raise _other(f"{len(found)} outputs", f"{len(names)}")
    for name, a, b in zip(names, found, wanted, strict=True):
        if a.shape != b.shape:
            raise _other(f"{name} of shape {list(a.shape)}", f"{list(b.shape)}")
        if name.partition(".")[0] != "output" or not b.is_floating_point():
            continue
        a, b = a.double().cpu().nan_to_num(), b.double().cpu().nan_to_num()
        if b.numel() and float((a - b).abs().max()) > CLOSE * float(b.abs().max()):
            off = float((a - b).abs().max())
            raise _other(f"{name} that differs by {off:.2g}", f"{float(b.abs().max()):.2g} at most")


def _other(what: str, wanted: str) -> ArtefactError:
    return ArtefactError(f"the file computes something else than the program: {what}; wanted "
                         f"{wanted}.  Its runtime or exporter is at fault: try another format, or "
                         "another release of it")  # fmt: skip

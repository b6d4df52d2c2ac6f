"""Print the layers and how each is explained, or draw them.

examples:
  naflow-fx inspect
  naflow-fx inspect --model resnet18 --layers 'layer4.*'
  naflow-fx inspect --photo cat.jpg                          with residuals and norm ratios
  naflow-fx inspect --model resnet50 --out resnet50.svg      svg, png and pdf need Graphviz
  naflow-fx inspect --model resnet50 --expand 'layer3.[01]' --out layer3.svg
  naflow-fx inspect --only blocks.2 --out block.png
  naflow-fx inspect --out inverse.html                       folding, in the browser
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from naflow_fx.cli.options import add_method_options, add_model_options
from naflow_fx.cli.parser import named, option
from naflow_fx.cli.setup import check_file, choose, open_subject
from naflow_fx.cli.tables import layer_table, text_of
from naflow_fx.errors import OptionError
from naflow_fx.view.terminal import say

if TYPE_CHECKING:
    from naflow_fx.flow import AttentionFlow

FORMATS = ("table", "svg", "png", "pdf", "dot", "json", "html")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    option(parser, "--format", "(default: as the name of --out ends; else table)", FORMATS)
    text = "where to write (default: the terminal; of html, inspect.html)"
    option(parser, "--out FILE", text, named)
    text = "a picture file to run, for residuals and norm ratios; on the best public weights"
    option(parser, "--photo PHOTO", text)
    text = "of pictures: blocks to draw layer by layer (default: as many as stay readable)"
    option(parser, "--expand GLOB...", text)
    option(parser, "--only BLOCK", "of pictures: one block alone")
    text = "write what names the network and its input, for --subject"
    option(parser, "--save-subject FILE.toml", text, named)
    add_model_options(parser, artefact=True)
    add_method_options(parser)


def inspect(args: argparse.Namespace) -> None:
    """Run the command; without --photo and --weights on random weights, nothing is fetched."""
    from naflow_fx.artefacts.artefact import Artefact
    from naflow_fx.files import write

    out = _checked(args)
    options, subject = choose(args), open_subject(args)
    image = subject.example() if args.photo is None else subject.inputs([args.photo])
    explainer = subject.explainer(image, pretrained=args.photo is not None, **options)
    if isinstance(explainer, Artefact):
        content = _layers(explainer(image), args).encode()
    else:
        if args.photo is not None:
            explainer(image)
        content = explainer.inspect().content(args.format, args.expand, args.only)
    if out is None:
        say(content.decode().rstrip("\n"))
    else:
        say(f"written: {write(out, content)}")
    if args.save_subject and subject.recipe is not None:
        subject.recipe.save(args.save_subject)
        say(f"written: {args.save_subject}, for --subject")


def _layers(flow: AttentionFlow, args: argparse.Namespace) -> str:
    """The layers of an artefact; without a photo those of a grey one, and no measures."""
    if args.format not in ("table", "txt"):
        raise OptionError(f"--format {args.format}: an artefact doesn't tell how its layers are "
                          "computed; inspect the network it was made of")  # fmt: skip
    if args.photo is None:
        flow.residual, flow.norm_ratio = {}, {}
    return text_of(layer_table({"": flow}))


def _checked(args: argparse.Namespace) -> Path | None:
    """Where to write, None for the terminal; OptionError for options that don't fit together."""
    from naflow_fx.inspection.graphs import DRAWN, kind_of

    out = None if args.out is None else check_file(args.out)
    if args.format is None:
        args.format = "table" if out is None else kind_of(out)
    if (args.expand or args.only) and args.format not in (*DRAWN, "dot"):
        raise OptionError("--expand and --only choose what a picture shows: add --format svg")
    if out is None and args.format in ("png", "pdf"):  # nothing for a terminal
        raise OptionError(f"--format {args.format}: add --out FILE")
    return Path("inspect.html") if out is None and args.format == "html" else out

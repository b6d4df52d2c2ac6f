"""`naflow-fx explain`: check everything, compile once, then explain and save photo by photo."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from naflow_fx.artefacts.artefact import Artefact
from naflow_fx.cli.setup import open_device
from naflow_fx.cli.source import Source, open_source
from naflow_fx.cli.tables import print_flow
from naflow_fx.explainer import Explainer
from naflow_fx.flow import AttentionFlow
from naflow_fx.flow_save import staging
from naflow_fx.models.preprocess import Preprocessing, open_photo

SHARPER = 2.0  # pictures have at most this many times the network's resolution


def explain(args: argparse.Namespace) -> None:
    """Run the command; NaflowError or OSError before anything is written if an input is wrong."""
    photos = [Path(photo) for photo in args.photos]
    places = _places(photos, Path(args.out))
    for photo in photos:
        open_photo(photo)
    source = open_source(args)
    target = source.target(args.target)
    device = open_device(args.device)
    for place in places:
        _check_writable(place)
    with progress(count=False) as bar, news_aside():
        bar.add_task(f"preparing {args.artefact or args.model}", total=None)
        example = source.preprocessing(open_photo(photos[0]))[None].to(device)
        explainer = source.make(example)
    for photo, place in zip(photos, places, strict=True):
        flow = _explain_one(photo, place, explainer, source, target, args)
        print_flow(flow, _shown(photo), place, source.class_names)


def _explain_one(
    photo: Path,
    place: Path,
    explainer: Explainer | Artefact,
    source: Source,
    target: int | None,
    args: argparse.Namespace,
) -> AttentionFlow:
    """Explain one photo and save its pictures; gives the flow, in main memory."""
    with progress() as bar:
        task = bar.add_task(_shown(photo), total=len(explainer.layers) + 1)
        image = open_photo(photo)
        tensor = source.preprocessing(image)[None].to(open_device(args.device))
        flow: AttentionFlow = explainer(tensor, target=target).detach().cpu()
        bar.advance(task)
        flow.save(
            place,
            [seen(source.preprocessing, image)],
            alpha=args.alpha,
            colormap=args.colormap,
            title=_shown(photo),
            class_names=source.class_names,
            info=_facts(photo, image, source, args),
            on_picture=lambda name: bar.advance(task),
        )
    return flow


def seen(preprocessing: Preprocessing, image: Image.Image) -> Image.Image:
    """The part of the photo that the network sees, as sharp as the photo has it (within limits)."""
    size = preprocessing.resize
    if not isinstance(size, int):
        return preprocessing.picture(image)
    factor = min(max(1.0, min(image.size) / size), SHARPER)
    larger = replace(
        preprocessing, resize=round(size * factor), crop=round(preprocessing.crop * factor)
    )
    return larger.picture(image)


def _shown(photo: Path) -> str:
    """The file's name as text that can be printed and stored, whatever its bytes are."""
    return os.fsencode(photo.name).decode("utf-8", "replace")


def _facts(
    photo: Path, image: Image.Image, source: Source, args: argparse.Namespace
) -> dict[str, Any]:
    """What flow.json says of the photo and the model."""
    digest = hashlib.sha256(photo.read_bytes()).hexdigest()
    return {
        "photo": {"file": _shown(photo), "sha256": digest, "size": [image.height, image.width]},
        **source.facts,
        "device": args.device,
    }


def _places(photos: Sequence[Path], out: Path) -> list[Path]:
    """A folder for each photo: its name without the ending, numbered where that is taken."""
    taken: set[str] = set()
    places: list[Path] = []
    for photo in photos:
        name, number = photo.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{photo.stem}-{number}"
        taken.add(name.casefold())
        places.append(out / name)
    return places


def _check_writable(place: Path) -> None:
    """Nothing if files can be made at `place`; else the FlowError or OSError that tells why not."""
    with staging(place) as stage:
        stage.mkdir()


@contextmanager
def news_aside() -> Iterator[None]:
    """Send what downloads print to stderr where that is a terminal, else nowhere."""
    with redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
        yield


def progress(count: bool = True) -> Progress:
    """A progress bar on stderr, gone when done; nothing at all unless stderr is a terminal."""
    columns: list[ProgressColumn]
    columns = [SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn()]
    columns += [MofNCompleteColumn()] if count else [TimeElapsedColumn()]
    terminal = sys.stderr.isatty()
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not terminal)

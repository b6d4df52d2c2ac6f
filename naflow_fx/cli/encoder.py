"""What the commands that compare share: the encoder, embeddings, the explanation of a pair."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

import naflow_fx
from naflow_fx.cli.setup import choose, drawn, facts_of, open_subject, shown
from naflow_fx.cli.tables import tell, waiting
from naflow_fx.errors import PhotoError
from naflow_fx.explainer import Explainer
from naflow_fx.models.preprocess import FORMATS, open_photo
from naflow_fx.options import open_device
from naflow_fx.pairs import PairFlow
from naflow_fx.pairs.embedding import embed, encoder_of
from naflow_fx.similarity import PENULTIMATE, Similarity
from naflow_fx.subjects.api import Photo
from naflow_fx.view.progress import progress

BLOCK = 16  # photos encoded at a time


class Encoder:
    """A network that is asked how much photos are alike, and why.

    Raises:
        NaflowError, OSError: something is wrong with a name, an option or a photo.
    """

    def __init__(self, args: argparse.Namespace, query: Path) -> None:
        """The network that the command line names; query: a photo, as an example of inputs."""
        self.args, self.subject = args, open_subject(args)
        at = args.at or (None if self.subject.embeds else PENULTIMATE)
        self.similarity = Similarity(args.metric, args.pool, at)
        choose(args)
        self.device = open_device(args.device)
        with waiting(f"preparing {self.subject.name}"):
            self.model = self.subject.build(self.device)
            self.embedder = encoder_of(self.model, self.inputs([query]), self.similarity)
        self.explainers: dict[int, Explainer] = {}  # those made so far, by shots

    def inputs(self, photos: Sequence[Photo]) -> Tensor:
        """[N, C, H, W] of photos, on the device."""
        return self.subject.inputs(photos, self.device)

    def embed(self, paths: Sequence[Path], task: str, wanted: int) -> dict[Path, Tensor]:
        """Pictures that can be used -> their embeddings [D]; at most `wanted`, the first ones.

        Those that can't be read are told on stderr, and where angles are asked for, those whose
        embeddings are all zero or not finite.
        """
        found: dict[Path, Tensor] = {}
        wrong: list[str] = []
        with progress() as bar:
            done = bar.add_task(task, total=len(paths))

            def readable() -> Iterator[tuple[Path, Tensor]]:
                for path in paths:
                    bar.advance(done)
                    try:
                        yield path, self.inputs([path])
                    except PhotoError as error:
                        wrong.append(str(error))

            photos = readable()
            while part := dict(islice(photos, min(BLOCK, wanted - len(found)))):
                rows = embed(self.embedder, torch.cat(list(part.values())))
                for path, row, length in zip(part, rows, rows.norm(dim=1), strict=True):
                    if length.isfinite() and (length > 0 or self.similarity.metric != "cosine"):
                        found[path] = row
                    else:
                        wrong.append(f"{path}: its embedding is all zero or not finite")
        tell(*(f"skipped: {message}" for message in wrong))
        return found

    def explainer(self, shots: int, example: Tensor) -> Explainer:
        """The explainer of pairs of a query and `shots` supports; made when first asked for."""
        if shots not in self.explainers:
            target = replace(self.similarity, shots=shots)
            with waiting(f"compiling {self.subject.name}"):
                made = naflow_fx.compile(self.model, example, target=target, **choose(self.args))
            self.explainers[shots] = made
        return self.explainers[shots]

    def explain(
        self,
        place: Path,
        query: Path,
        supports: Sequence[Path],
        names: Sequence[str],
        title: str,
        facts: dict[str, Any],
    ) -> PairFlow:
        """Explain one query with its supports and save the pictures; gives the flow.

        names: of the rows, the query's first. facts: entries of flow.json.
        """
        paths = [query, *supports]
        photos = [open_photo(path) for path in paths]
        images = self.inputs(photos)
        explainer = self.explainer(len(supports), images[:1])
        args, layers = self.args, drawn(self.args, explainer.layers)
        about = {
            "photos": list(map(facts_of, paths, photos)),
            **self.subject.facts,
            "metric": args.metric,
            "at": self.similarity.at,
            "pool": args.pool,
            "device": args.device,
            **facts,
        }
        with progress() as bar:
            task = bar.add_task(shown(query), total=len(layers) + 1)
            support = images[1:] if len(supports) == 1 else images[None, 1:]
            flow: PairFlow = explainer(images[:1], support).cpu()
            bar.advance(task)
            seen = self.subject.about(photos).photos
            flow.save(
                place, seen[:1], seen[1:],
                names=names, layers=layers, title=title,
                alpha=args.alpha, colormap=args.colormap, info=about,
                on_picture=lambda name: bar.advance(task),
            )  # fmt: skip
        return flow


def check_folder(folder: Path) -> None:
    """PhotoError if there is no such folder."""
    if not folder.is_dir():
        raise PhotoError(f"{folder}: no such folder; check the path")


def pictures_in(folder: Path, out: Path) -> list[Path]:
    """Files below a folder that are pictures by their name, in order.

    Hidden ones are left out, and those in `out`, where that is a folder in it: earlier results.
    """
    endings = {e for e, form in Image.registered_extensions().items() if form in FORMATS}
    found = (path for path in folder.rglob("*") if path.suffix.lower() in endings)
    names = {path: path.relative_to(folder).parts for path in found if path.is_file()}
    visible = sorted(p for p, parts in names.items() if not any(n.startswith(".") for n in parts))
    written = out.resolve()
    if folder.resolve() not in written.parents:
        return visible
    return [path for path in visible if written not in path.resolve().parents]

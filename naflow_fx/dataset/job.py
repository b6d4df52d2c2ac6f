"""RunJob: everything that decides the rows of a run; parts and batches of fixed positions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from naflow_fx.dataset.sources import Source
from naflow_fx.dataset.spec import ExplainerSpec
from naflow_fx.errors import DatasetError, check_positive, unfit

FORMAT = 1  # of the output folder; grows when the meaning of an entry changes
Target = int | Literal["label"] | None


@dataclass(frozen=True)
class RunJob:
    """What is to be computed, wherever that happens.

    Attributes:
        spec: the explainer.
        source: the photos.
        target: a class for all; "label": each photo's own; None: the predicted ones.
        device: "cpu", "cuda", ...
        batch_size: photos of one call of the explainer.
        part_size: photos of one file of results, a multiple of the batch.
        maps: globs of the layers whose maps are stored; None: of all that are computed.
    """

    spec: ExplainerSpec
    source: Source
    target: Target
    device: str
    batch_size: int
    part_size: int
    maps: tuple[str, ...] | None

    def __post_init__(self) -> None:
        given = {"batch_size": self.batch_size, "part_size": self.part_size}
        check_positive(DatasetError, "explain_dataset", **given)
        if self.part_size % self.batch_size:
            raise DatasetError(f"part_size={self.part_size}: wanted a multiple of batch_size="
                               f"{self.batch_size}, so that a run goes on at a whole "
                               "batch")  # fmt: skip
        if self.target == "label" and self.source.labels is None:
            raise DatasetError(f"target='label': {self.source.place} ({self.source.kind}) has no "
                               "labels; give a class, or None")  # fmt: skip
        if isinstance(self.target, bool) or not isinstance(self.target, (int, str, type(None))):
            wanted = ("None, a class or 'label'; other targets are compiled in, "
                      "ExplainerSpec(make=...)")  # fmt: skip
            raise unfit(DatasetError, "explain_dataset", wanted, target=self.target)

    def __len__(self) -> int:
        """Number of photos."""
        return len(self.source.ids)

    @property
    def parts(self) -> range:
        """Numbers of the parts."""
        return range(-(-len(self) // self.part_size))

    def positions(self, part: int) -> range:
        """Positions of a part's photos."""
        return range(len(self))[part * self.part_size : (part + 1) * self.part_size]

    def photos(self, parts: Iterable[int]) -> int:
        """Number of the photos in parts."""
        return sum(len(self.positions(part)) for part in parts)

    def batches(self, part: int) -> list[range]:
        """Positions of a part's batches; the last one of all may be shorter."""
        photos, size = self.positions(part), self.batch_size
        return [photos[start : start + size] for start in range(0, len(photos), size)]

    def to_json(self) -> dict[str, Any]:
        """What decides the rows, as plain data: not where the source lies, nor who computes."""
        labels = self.source.labels if self.target == "label" else None
        return {
            "format": FORMAT,
            "explainer": self.spec.to_json(),
            "target": self.target,
            "device": self.device.partition(":")[0],
            "batch_size": self.batch_size,
            "part_size": self.part_size,
            "maps": self.maps,
            "photos": len(self),
            "ids": digest(self.source.ids),
            "labels": None if labels is None else digest(map(str, labels)),
        }


def digest(texts: Any) -> str:
    """SHA-256 of texts in their order."""
    ended = (text.encode("utf-8", "backslashreplace") + b"\0" for text in texts)
    return hashlib.sha256(b"".join(ended)).hexdigest()


def job_hash(job: Any) -> str:
    """SHA-256 of a job's plain data."""
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Entries of plain data that differ, "batch_size: 8 there, 16 now"."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [line for key in {**old, **new}
                for line in differences(old.get(key), new.get(key), f"{name}.{key}".lstrip("."))
               ]  # fmt: skip
    if old == new:
        return []
    hashes = isinstance(old, str) and len(old) == 64
    return [f"{name} differ" if hashes else f"{name}: {old!r} there, {new!r} now"]

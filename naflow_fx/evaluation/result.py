"""Evaluation: what `nf.evaluate` gives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from naflow_fx.evaluation.curves import plot
from naflow_fx.evaluation.measured import Measured, Scores
from naflow_fx.files import write


class Evaluation(Measured):
    """What `nf.evaluate` found: the fields of `Measured`, and files of them."""

    @staticmethod
    def from_json(given: dict[str, Any]) -> Evaluation:
        """The result that `to_json` wrote."""
        scores = {
            method: {m: Scores(tuple(s["layers"]), np.asarray(s["values"], float))
                     for m, s in of_method.items()}
            for method, of_method in given["scores"].items()
        }  # fmt: skip
        share = None if given["share"] is None else np.asarray(given["share"], float)
        return Evaluation(given["dataset"], tuple(given["images"]),
                          np.asarray(given["groups"], np.int64), dict(given["depth"]), scores,
                          share, dict(given["facts"]))  # fmt: skip

    def save(self, path: str | Path) -> Path:
        """Writes the JSON."""
        return write(Path(path), json.dumps(self.to_json(), separators=(",", ":")) + "\n")

    def plot(self, path: str | Path, metrics: Sequence[str] | None = None) -> Path:
        """Writes depth curves as a picture; needs matplotlib (the extra "evaluate")."""
        return plot(self, path, metrics)

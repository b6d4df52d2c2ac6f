"""Means with percentile bootstrap intervals; what is drawn are groups (photos), not views."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES, LEVEL = 2000, 0.95  # draws of as many groups as there are, with replacement


class Estimate(NamedTuple):
    """A mean and its interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        """0.617 [0.581, 0.650]."""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def estimate(values: Array, groups: NDArray[np.int64]) -> Estimate:
    """Mean over groups and its 95 % percentile interval.

    Values of the same groups are drawn alike: the interval of a difference of two methods' values
    is that of a paired bootstrap.

    Args:
        values: [N], one an image.
        groups: [N]; images of one photo share a number.
    """
    _, place = np.unique(groups, return_inverse=True)
    means = np.bincount(place, weights=values) / np.bincount(place)  # every group counts the same
    draws = np.random.default_rng(0).integers(len(means), size=(RESAMPLES, len(means)))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(means[draws].mean(1), [tail, 100 - tail])
    return Estimate(float(means.mean()), float(low), float(high))

"""What the tests of the explainer share: one small ResNet, and what makes two flows the same."""

from __future__ import annotations

from functools import cache

import torch
from shelf import (
    images,
    network,
    relative_error,
)

import naflow_fx as nf

STEPS = nf.Inverse(steps=3, precision="float32")
SMALL = (3, 32, 32)


@cache
def resnet(dtype: torch.dtype = torch.float32) -> nf.Explainer:
    return nf.compile(network("resnet18", dtype), images(SMALL, 2, dtype), inverse=STEPS)


def assert_same_bytes(a: nf.AttentionFlow, b: nf.AttentionFlow) -> None:
    assert list(a.maps) == list(b.maps)
    for part in ("maps", "residual", "norm_ratio", "sigma_max", "bpfm", "importance"):
        for name, value in getattr(a, part).items():
            assert torch.equal(value, getattr(b, part)[name]), (part, name)
    assert torch.equal(a.score, b.score) and torch.equal(a.output, b.output)


def assert_near(a: nf.AttentionFlow, b: nf.AttentionFlow, tolerance: float) -> None:
    """Every map of every image within a share of its own largest value."""
    assert list(a.maps) == list(b.maps)
    for name in a.maps:
        for found, wanted in zip(a.maps[name], b.maps[name], strict=True):
            if wanted.any() or found.any():
                assert relative_error(found.double(), wanted.double()) < tolerance, name

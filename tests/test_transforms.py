"""Preprocessing in front of a network: torchvision's Normalize, in both of its forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.transforms.functional as functional
from against_hooks import largest_error
from shelf import class_one, images
from test_same_model import net
from torch import Tensor, nn
from torchvision import transforms
from torchvision.transforms import v2

import naflow_fx as nf

X = images((3, 12, 12))
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Called(nn.Module):
    """Calls the function."""

    def forward(self, x: Tensor) -> Any:
        return functional.normalize(x, MEAN, STD)


NORMALIZE: dict[str, nn.Module] = {
    "transforms": transforms.Normalize(MEAN, STD), "v2": v2.Normalize(MEAN, STD),
    "function": Called(), "resized": nn.Sequential(
        v2.Resize((12, 10), antialias=False), transforms.Normalize(MEAN, STD)),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMALIZE)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_normalize_in_front_of_a_network(name: str, dtype: torch.dtype) -> None:
    own = functional.normalize, v2.Normalize.forward, v2.Transform.forward
    model = nn.Sequential(NORMALIZE[name], net()).to(dtype).eval()
    error, sites = largest_error(model, X.to(dtype), class_one)
    assert error < (1e-9 if dtype == torch.float64 else 1e-4) and "1.conv" in sites
    flow = nf.compile(model, X.to(dtype))(X.to(dtype))
    torch.testing.assert_close(flow.output, model(X.to(dtype)).detach())
    assert own == (functional.normalize, v2.Normalize.forward, v2.Transform.forward)

"""torchvision's preprocessing inside a model: what its functions do, in a form that is traced."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor


@contextmanager
def traceable_transforms(dtype: torch.dtype) -> Iterator[None]:
    """While it lasts, Normalize is arithmetic for who traces; others get their own as ever.

    Its code asks whether a deviation is 0, which no graph can tell.  Those of `v2` hand on what
    is no tensor: for a proxy that is an error here, so that torch.export takes over.

    Args:
        dtype: of the images.
    """

    def normalize(tensor: Any, mean: Any, std: Any, inplace: bool = False) -> Any:
        m, s = (torch.as_tensor(x, dtype=dtype).reshape(-1, 1, 1) for x in (mean, std))
        return (tensor - m) / s

    def refuse(self: Any, *inputs: Any) -> Any:
        raise TypeError(f"torchvision.transforms.v2.{type(self).__name__} takes tensors only")

    functional = sys.modules.get("torchvision.transforms.functional")
    v2: Any = sys.modules.get("torchvision.transforms.v2")
    with ExitStack() as patches:
        for owner, name, made, kinds in (
            (functional, "normalize", normalize, (fx.Proxy, FakeTensor)),
            (v2 and v2.Normalize, "forward",
             lambda self, x: normalize(x, self.mean, self.std), (fx.Proxy, FakeTensor)),
            (v2 and v2.Transform, "forward", refuse, (fx.Proxy,)),
        ):  # fmt: skip
            if owner:
                found = _chosen(made, getattr(owner, name), kinds)
                patches.enter_context(patch.object(owner, name, found))
        yield


def _chosen(
    made: Callable[..., Any], own: Callable[..., Any], kinds: tuple[type, ...]
) -> Callable[..., Any]:
    """`made` where an argument is of those kinds, else `own`."""

    def chosen(*args: Any, **kwargs: Any) -> Any:
        traced = any(isinstance(x, kinds) for x in (*args, *kwargs.values()))
        return (made if traced else own)(*args, **kwargs)

    return chosen

"""The modes of torch that a compilation runs in, whatever its caller has switched on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def plain_modes(device: str) -> Iterator[None]:
    """No gradients, no inference mode, no autocast on the CPU and on that type of device.

    Inside autocast a compilation would fold constants in half precision, and its fake tensors
    would stay in autocast's cache of weights, where the caller's next calls find them.
    """
    with ExitStack() as modes:
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.no_grad())
        for kind in {"cpu", device}:
            modes.enter_context(torch.autocast(kind, enabled=False))
        yield

"""Torch's modes for a compilation, whatever its caller has switched on, and silent logs."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch

_LOGS = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "torch.export",
         "torch.export._trace", "torch._dynamo")  # fmt: skip


@contextmanager
def plain_modes(device: str) -> Iterator[None]:
    """No gradients, no inference mode, no autocast on the CPU and on that type of device.

    Inside autocast a compilation would fold constants in half precision, and its fake tensors
    would stay in autocast's cache of weights, where the caller's next calls find them.
    """
    cpu, other = (torch.autocast(kind, enabled=False) for kind in ("cpu", device))
    with torch.inference_mode(False), torch.no_grad(), cpu, other:
        yield


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Without torch's logs and printed graphs where a run or an export fails: an error says it.

    What other threads log meanwhile is left alone.
    """
    here = threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    with ExitStack() as patches:
        for log in map(logging.getLogger, _LOGS):
            log.addFilter(is_of_others)
            patches.callback(log.removeFilter, is_of_others)
        tracing = sys.modules.get("torch.export._trace")
        if tracing is not None:
            patches.enter_context(patch.object(tracing, "print", lambda *a, **k: None, create=True))
        yield

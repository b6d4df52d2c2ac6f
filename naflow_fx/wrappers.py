"""What torch puts around a network: taken off, for the network inside is what is explained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from naflow_fx.errors import TraceError


def unwrapped(model: Any) -> Any:
    """The network inside DataParallel, DistributedDataParallel, AveragedModel, torch.compile.

    Raises:
        TraceError: a ScriptModule, whose forward is no Python any more, the model or in it.
    """
    while isinstance(model, nn.Module) and (inner := inside(model)) is not None:
        model = inner
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"model.{path}" if path else "model"
            name = getattr(module, "original_name", type(module).__name__)
            raise TraceError(f"{where}: a ScriptModule ({name}), which can't be traced; give the "
                             "nn.Module that it was made from")  # fmt: skip
    return model


def inside(model: nn.Module) -> nn.Module | None:
    """What a wrapper calls; None if it is none."""
    from torch.optim.swa_utils import AveragedModel

    kinds = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
    found: Any = model.module if isinstance(model, kinds) else getattr(model, "_orig_mod", None)
    return found if isinstance(found, nn.Module) else None

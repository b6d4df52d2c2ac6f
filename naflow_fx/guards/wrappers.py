"""What torch puts around a network: taken off, for the network inside is what is explained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from naflow_fx.errors import TraceError

HOOKS = tuple(k for k, v in vars(nn.Module()).items() if "hook" in k and isinstance(v, dict))


def unwrapped(model: Any, hooked: bool = True) -> Any:
    """The network inside DataParallel, DistributedDataParallel, AveragedModel, torch.compile.

    Args:
        model: anything; what is no wrapper comes back.
        hooked: False: a wrapper with hooks stays on, so that what they do can be looked at.

    Raises:
        TraceError: a ScriptModule, whose forward is no Python any more, the model or in it.
    """
    while isinstance(model, nn.Module) and (inner := inside(model)) is not None:
        if hooks_of(model) and not hooked:
            break
        model = inner
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, torch.jit.ScriptModule):
            where = f"model.{path}" if path else "model"
            name = getattr(module, "original_name", type(module).__name__)
            raise TraceError(f"{where}: a ScriptModule ({name}), which can't be traced; give the "
                             "nn.Module that it was made from")  # fmt: skip
    return model


def hooks_of(module: nn.Module) -> list[Any]:
    """The hooks of a module that see a call of it."""
    kinds = [kind for kind in HOOKS if "state_dict" not in kind]
    return [hook for kind in kinds for hook in getattr(module, kind, {}).values() if callable(hook)]


def inside(model: nn.Module) -> nn.Module | None:
    """What a wrapper calls; None if it is none."""
    from torch.optim.swa_utils import AveragedModel

    kinds = (nn.DataParallel, nn.parallel.DistributedDataParallel, AveragedModel)
    found: Any = model.module if isinstance(model, kinds) else getattr(model, "_orig_mod", None)
    return found if isinstance(found, nn.Module) else None

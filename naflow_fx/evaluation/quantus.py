"""This library's maps for Quantus: an `explain_func` for its metrics.

Quantus 0.6: Smooth MPRT never calls the function that it is given, it explains by one of its own;
ROAD fails on colour images, whatever explains them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from naflow_fx.compiler import compile
from naflow_fx.errors import EvaluationError
from naflow_fx.evaluation.localisation import at_size
from naflow_fx.options import open_device

_latest: tuple[Any, Any] | None = None  # the key and the explainer of the last call


def quantus_explain_func(
    model: nn.Module,
    inputs: NDArray[Any] | Tensor,
    targets: NDArray[Any] | Tensor,
    *,
    layer: str | None = None,
    device: str | torch.device | None = None,
    **options: Any,
) -> NDArray[np.float32]:
    """Maps of one call site, as large as the inputs, [N, 1, H, W].

    ``quantus.PixelFlipping()(model, x, y, explain_func=nf.quantus_explain_func,
    explain_func_kwargs={"layer": "layer3.0.relu_1", "method": "layercam"}, ...)``.  The explainer
    is kept while the same model is asked, so that metrics that explain again and again compile
    once; where weights have changed it compiles again.

    Args:
        model: a torch model.
        inputs: [N, C, H, W].
        targets: int [N].
        layer: name of a call site; None: the last one that has space.
        device: where to compute; None: the model's.
        options: of `nf.compile`: `method`, `reduction`, `inverse`, ...

    Raises:
        EvaluationError: an option that `nf.compile` doesn't have, a device that isn't there.
    """
    own = next(model.parameters(), torch.zeros(()))
    where = own.device if device is None else open_device(device, EvaluationError)
    images = torch.as_tensor(inputs).to(where, own.dtype)
    classes = torch.as_tensor(targets).to(where, torch.int64).flatten()
    options = {k: v for k, v in options.items() if k not in QUANTUS_OWN}
    maps = _explainer(model, images[:1], layer, options)(images, classes).maps
    name = layer if layer in maps else next(reversed(maps))
    large = at_size(maps[name], tuple(images.shape[2:]))
    return large[:, None].cpu().numpy().astype(np.float32)


QUANTUS_OWN = ("softmax", "channel_first", "reduce_axes", "img_size", "nr_channels", "num_classes",
               "xai_lib", "xai_lib_kwargs")  # fmt: skip  # what Quantus may pass along


def _explainer(model: nn.Module, example: Tensor, layer: str | None, options: Any) -> Any:
    """The last call's explainer, which follows the weights of its model, or a new one."""
    global _latest
    key = (id(model), tuple(example.shape[1:]), layer, repr(sorted(options.items())))
    if _latest is None or _latest[0] != key:
        try:
            made = compile(model, example, layers=layer and [layer], **options)
        except TypeError as error:
            raise EvaluationError(f"quantus_explain_func: {error}; options are those of "
                                  "nf.compile, and layer=, device=") from error  # fmt: skip
        _latest = (key, made)
    return _latest[1]

"""Which opener makes a network of a reference."""

from __future__ import annotations

import re
from collections.abc import Callable

from naflow_fx.errors import ModelError
from naflow_fx.subjects.network import Network
from naflow_fx.subjects.recipe import Recipe

WEIGHTS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")


def open_network(recipe: Recipe) -> Network:
    """The network that a recipe's `model` names.

    Raises:
        ModelError: there is none, with what there is.
    """
    model = recipe.model
    if model.lower().endswith(WEIGHTS):
        raise ModelError(f"{model}: weights, without a network; give --model file.py:Name "
                         f"--weights {model}")  # fmt: skip
    return _opener(model)(recipe)


def is_reference(text: str) -> bool:
    """Whether a text names a network in a file, a package or a hub, not by a known name."""
    file = text.rpartition(":")[0] or text
    return (
        text.startswith(("timm/", "hf/"))
        or file.endswith((".py", ".pt2", ".onnx"))
        or re.fullmatch(r"[\w.]+:[\w.]+", text) is not None
    )


def _opener(model: str) -> Callable[[Recipe], Network]:
    from naflow_fx.subjects import code, hubs, onnx_models, programs, zoo

    for prefix, opener in ((hubs.TIMM, hubs.open_timm), (hubs.HF, hubs.open_transformers)):
        if model.startswith(prefix):
            return opener
    if model.endswith(".pt2"):
        return programs.open_exported
    if model.endswith(".onnx"):
        return onnx_models.open_onnx
    return code.open_code if ":" in model or model.endswith(".py") else zoo.open_named

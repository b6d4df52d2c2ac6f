"""Whether a model and examples can be compiled at all, asked before anything is traced."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from naflow_fx.errors import InputError, TraceError

_QUANTISED = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")


def check_suits(model: Any, examples: tuple[Tensor, ...]) -> None:
    """The model's weights have values, and the example is where they are.

    Raises:
        TraceError: a lazy, meta or quantised layer, by name.
        InputError: the example is on another device than the weights.
    """
    for path, module in model.named_modules() if isinstance(model, nn.Module) else ():
        name = f"{path or 'the model'} ({type(module).__name__})"
        own = [t for t in (*module._parameters.values(), *module._buffers.values())
               if t is not None]  # fmt: skip
        if any(is_lazy(t) for t in own):
            raise TraceError(f"{name} is lazy, its weights have no shape yet; call the model on "
                             "the example once, then compile")  # fmt: skip
        if any(t.is_meta for t in own):
            raise TraceError(f"{name} is on the meta device, its weights have no values; load "
                             "them (load_state_dict with assign=True), then compile")  # fmt: skip
        if type(module).__module__.startswith(_QUANTISED):
            raise TraceError(f"{name} is quantised, and integers have no gradient; give the "
                             "float model that it was made from")  # fmt: skip
        for t, x in itertools.product(own, examples):
            if t.dim() and x.device.type != t.device.type:  # a number may be anywhere
                raise InputError(
                    f"example_inputs: got a tensor on {x.device}; {name} is on "
                    f"{t.device}.  Use example.to({str(t.device)!r}), or "
                    f"model.to({str(x.device)!r})"
                )


def check_examples(examples: Any) -> tuple[Tensor, ...]:
    """The example inputs, one [N, C, ...space] per image input of the model.

    Raises:
        InputError: not floating point tensors of 3 to 5 dimensions.
    """
    given = examples if isinstance(examples, (list, tuple)) and examples else (examples,)
    return tuple(_check_example(example) for example in given)


def _check_example(example: Any) -> Tensor:
    if not isinstance(example, Tensor):
        raise InputError(
            f"example_inputs: got {type(example).__name__}; wanted a tensor [N, C, H, "
            "W], as the model takes it"
        )
    if not 3 <= example.dim() <= 5 or not example.is_floating_point() or 0 in example.shape:
        raise InputError(
            f"example_inputs: got {list(example.shape)} {example.dtype}; wanted a "
            "floating point [N, C, ...space] with one to three space "
            "dimensions"
        )
    if example.is_meta:
        raise InputError("example_inputs: got a tensor on the meta device, which has no values")
    return example.detach()

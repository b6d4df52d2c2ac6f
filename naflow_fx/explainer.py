"""Explainer: the generated GraphModule, and how a user calls it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from naflow_fx import keys
from naflow_fx.errors import InputError
from naflow_fx.flow import AttentionFlow
from naflow_fx.inspection import Inspection, inspect_graph
from naflow_fx.options import Options
from naflow_fx.targets import OfOneSample, Score, callables, class_indices

Build = Callable[[Score | None], fx.GraphModule]


class Explainer(nn.Module):
    """Explains a model's decisions: ``flow = explainer(images)``.

    Made by `naflow_fx.compile`.  It holds ONE generated `torch.fx.GraphModule`, which shares the
    model's tensors and can be read, printed, compiled and exported; moving the explainer leaves
    the model where it is.

    Attributes:
        graph_module: the program; ``(image, target: int64 [N])`` -> dictionary, or ``(image)``
            where a callable target was compiled in.
        layers: names of the call sites that are computed, in forward order.
        options: how it was compiled.
    """

    def __init__(
        self,
        graph_module: fx.GraphModule,
        build: Build,
        options: Options,
        example: Tensor,
        target: Score | None = None,
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.options = options
        self._build = build
        self._compiled_target = target
        self._shape, self._dtype = tuple(example.shape[1:]), example.dtype
        self._of_callables: dict[Any, fx.GraphModule] = {}

    @property
    def layers(self) -> list[str]:
        """Names of the computed call sites, in forward order."""
        return list(_result(self.graph_module)["maps"])

    def forward(self, images: Tensor, target: Any = None) -> AttentionFlow:
        """Maps of every call site for images [N, C, H, W].

        Args:
            images: as the model takes them, of the example's size; any batch size.
            target: None (the predicted class), an int, N ints, an int64 tensor [N], a callable
                of the model's output that returns [N], or N callables, each of ONE sample's
                output.

        Raises:
            InputError: images of another shape or dtype than compiled.
            TargetError: a target that doesn't fit.
        """
        self._check(images)
        with torch.no_grad():
            functions = None if target is None else callables(target, len(images))
            if isinstance(functions, list):
                return self._one_by_one(images, functions)
            if functions is not None:
                return self._flow(self._program(functions)(images))
            if self._compiled_target is not None and target is None:
                return self._flow(self.graph_module(images))
            if self._compiled_target is not None:
                program = self._program(None)
                return self._flow(program(images, self._classes(program, target, images)))
            indices = self._classes(self.graph_module, target, images)
            return self._flow(self.graph_module(images, indices))

    def attribute(self, inputs: Tensor, target: Any = None) -> AttentionFlow:
        """The same as calling the explainer, under the name that captum's users know."""
        flow: AttentionFlow = self(inputs, target)
        return flow

    def inspect(self) -> Inspection:
        """The table of the program: forward node, captures, inverse, importance; print it."""
        return inspect_graph(self.graph_module)

    def __enter__(self) -> Explainer:
        """Nothing to set up: there are no hooks."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to remove."""

    def _check(self, images: Any) -> None:
        wanted = f"[N, {', '.join(map(str, self._shape))}]"
        if not isinstance(images, Tensor):
            raise InputError(f"images: got {type(images).__name__}; wanted a tensor {wanted}")
        if images.dim() != len(self._shape) + 1 or tuple(images.shape[1:]) != self._shape:
            raise InputError(
                f"images: got {list(images.shape)}; this explainer was compiled for {wanted}.  "
                "Resize the images, or nf.compile(model, an example of their size)"
            )
        held = _held_dtype(self.graph_module)
        if held is not None and images.dtype != held and not torch.is_autocast_enabled():
            raise InputError(f"images: got {images.dtype}; this explainer computes in {held}.  "
                             f"Use images.to({held}), or explainer.to({images.dtype})")  # fmt: skip

    def _program(self, function: Score | None) -> fx.GraphModule:
        """The program of another target, made on first use and kept."""
        if function == self._compiled_target:
            return self.graph_module
        if function not in self._of_callables:
            self._of_callables[function] = self._build(function)
        return self._of_callables[function]

    def _classes(self, program: fx.GraphModule, target: Any, images: Tensor) -> Tensor:
        output = _result(program)["output"]
        shape = output.meta.get(keys.SHAPE, ()) if isinstance(output, fx.Node) else ()
        classes = shape[1] if len(shape) == 2 else None
        return class_indices(target, len(images), classes, images.device)

    def _one_by_one(self, images: Tensor, functions: list[Score]) -> AttentionFlow:
        """One program per callable, one image at a time: no image changes another's result."""
        flows = [
            self._program(OfOneSample(function))(images[i : i + 1])
            for i, function in enumerate(functions)
        ]
        return self._flow(_concatenate(flows))

    def _flow(self, result: dict[str, Any]) -> AttentionFlow:
        return AttentionFlow(
            maps=OrderedDict(result["maps"]),
            output=result["output"],
            score=result["score"],
            target=result["target"],
            residual=dict(result["residual"]),
            norm_ratio=dict(result["norm_ratio"]),
            bpfm=dict(result["bpfm"]),
            importance=dict(result["importance"]),
            input_size=tuple(self._shape[1:]),
            options=self.options.to_json(),
        )


def _held_dtype(gm: fx.GraphModule) -> torch.dtype | None:
    """The dtype of the model's own tensors."""
    own = (b for name, b in gm.named_buffers() if "folded_" not in name and b.is_floating_point())
    return next((b.dtype for b in own), None)


def _result(gm: fx.GraphModule) -> dict[str, Any]:
    """What the program returns, as nodes."""
    output = next(node for node in reversed(gm.graph.nodes) if node.op == "output")
    result: Any = output.args[0]
    return dict(result)


def _concatenate(parts: list[Any]) -> Any:
    """Results of single images -> the result of the batch."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts)
    if isinstance(first, dict):
        return {key: _concatenate([part[key] for part in parts]) for key in first}
    if isinstance(first, (list, tuple)):
        return type(first)(_concatenate(list(column)) for column in zip(*parts, strict=True))
    return first

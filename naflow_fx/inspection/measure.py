"""Shapes, dtypes and sizes of the tensors that a program captures, without computing them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.node import map_arg

from naflow_fx import keys
from naflow_fx.inspection.records import Captured
from naflow_fx.passes import _graph

BATCHES = (2, 3)  # what differs between them is the batch dimension


class Measure:
    """Asks nodes of a generated program for what they hold, once each."""

    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.known: dict[tuple[fx.Node, int], Any] = {}
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    def __call__(self, node: fx.Node) -> Captured:
        """What `node` holds: an activation, a capture or a folded constant."""
        with torch.no_grad(), self.mode:
            two, three = (self._value(node, batch) for batch in BATCHES)
        pairs = zip(two.shape, three.shape, strict=True)
        shape = tuple(int(a) if a == b else -1 for a, b in pairs)
        constant = _graph.is_constant(node)
        size = 0 if constant else two.numel() * two.element_size() // BATCHES[0]
        return Captured(node.name, size, str(two.dtype).removeprefix("torch."), shape, constant)

    def _value(self, node: fx.Node, batch: int) -> Any:
        """A fake tensor like the node's result (or a tuple of them) for a batch of that size."""
        if (node, batch) not in self.known:
            self.known[node, batch] = self._run(node, batch)
        return self.known[node, batch]

    def _run(self, node: fx.Node, batch: int) -> Any:
        if _graph.is_constant(node):
            return _fake(self.mode, _graph.attribute(self.gm, str(node.target)))
        if keys.SHAPE in node.meta:
            shape = [batch if size == -1 else size for size in node.meta[keys.SHAPE]]
            return torch.empty(shape, dtype=node.meta[keys.DTYPE])
        assert callable(node.target), node
        args, kwargs = map_arg((node.args, node.kwargs), lambda n: self._value(n, batch))
        return node.target(*args, **kwargs)


def _fake(mode: FakeTensorMode, value: Tensor) -> Tensor:
    return mode.from_tensor(value).to("cpu")

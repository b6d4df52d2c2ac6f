"""Memory: large tensors live while they are read.  Bytes of tensors, not of a process."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from shelf import images, network
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import naflow_fx as nf
from naflow_fx import keys


class Live(TorchDispatchMode):
    """Counts the bytes of tensors that operators made and somebody still holds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.holders: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.hold(tensor)
        return result

    def hold(self, tensor: Tensor) -> None:
        if tensor.is_mkldnn:  # a packed weight, which a first run has made
            return
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        self.now += 0 if self.holders.get(place) else size
        self.holders[place] = self.holders.get(place, 0) + 1
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor, self.drop, place, size)

    def drop(self, place: int, size: int) -> None:
        self.holders[place] -= 1
        self.now -= 0 if self.holders[place] else size


def peak(run: Callable[[], Any]) -> int:
    live = Live()
    with live:
        run()
    return live.peak


def test_all_maps_take_less_than_twice_the_memory_of_a_gradient() -> None:
    # At this size activations outweigh the last block's weights, which the solver holds scaled.
    model, x = network("resnet18", torch.float32), images((3, 128, 128), 4, dtype=torch.float32)
    explainer = nf.compile(model, x, inverse=nf.Inverse(precision="float32"))

    def gradient() -> None:  # without those of the weights: at this size they would be all
        frozen = model.eval().requires_grad_(False)
        given = x.clone().requires_grad_()
        torch.autograd.grad(frozen(given)[:, 0].sum(), given)

    whole = peak(gradient)
    explainer(x)  # packs the weights: constants, twice as large as these activations
    assert peak(lambda: explainer(x)) < 2 * whole
    layercam = nf.compile(model, x, method="layercam")
    assert peak(lambda: layercam(x)) < 2 * whole
    kept = nf.compile(model, x, keep=("bpfm", "importance"))
    assert peak(lambda: kept(x)) > 2 * whole  # what happens if nothing is let go


def test_maps_are_made_beside_what_they_read() -> None:
    model, x = network("resnet18", torch.float32), images((3, 64, 64), dtype=torch.float32)
    nodes = list(nf.compile(model, x).graph_module.graph.nodes)
    part = [node.meta.get(keys.PART) for node in nodes]
    order = {node: i for i, node in enumerate(nodes)}
    first = part.index("map", part.index("inverse"))
    assert first < len(part) - 1 - part[::-1].index("inverse")  # maps among the inverse's steps
    for node in nodes:
        if node.meta.get(keys.PART) == "importance":
            soonest = min(order[user] for user in node.users)
            between = {part[i] for i in range(order[node] + 1, soonest)}
            assert between <= {"importance"}, node

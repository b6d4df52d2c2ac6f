"""A backend of torch.compile that gives Inductor the solver's steps, and leaves the rest to ATen.

A step runs some hundred times and is compiled once for each shape (`krylov._compiled_once`); what
stands between the steps runs once, and most of it is convolutions, for which Inductor calls ATen
itself.  Left alone it costs g++ none of the time that its many kernels take.  Dynamo inlines a
region that is called once only: that one is left, too.  The convolutions of steps take weights that
are packed once a solve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.split_module import split_module

from naflow_fx.rules._packed import pack, packed_conv, packed_conv_transpose, packs

PACKED: dict[Any, Callable[..., Any]] = {
    torch.conv2d: packed_conv,
    torch.conv_transpose2d: packed_conv_transpose,
}


@dataclass(frozen=True)
class RegionalBackend:
    """Compiles each nested region of a graph by Inductor; a graph without any, whole.

    Attributes:
        options: Inductor's.
    """

    options: Mapping[str, Any]

    def __call__(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        """What runs in the place of a graph that Dynamo captured."""
        calls = gm.graph.find_nodes(
            op="call_function", target=torch.ops.higher_order.invoke_subgraph
        )
        if not calls:
            return self._compile(gm, inputs)
        made: dict[str, _Region] = {}
        packed: dict[tuple[Any, ...], fx.Node] = {}
        for call in calls:
            region, _, *operands = call.args
            if region.target not in made:
                made[region.target] = self._region(gm.get_submodule(region.target))
                gm.add_module(f"{region.target}_compiled", made[region.target])
            with gm.graph.inserting_before(call):
                for place, how in made[region.target].packings.items():
                    key = (operands[place], *how)
                    if key not in packed:
                        packed[key] = gm.graph.call_function(pack, key)
                    operands[place] = packed[key]
                again = gm.graph.call_module(f"{region.target}_compiled", tuple(operands))
            call.replace_all_uses_with(again)
            gm.graph.erase_node(call)
        gm.recompile()
        return gm.forward

    def _region(self, region: Any) -> _Region:
        """Its convolutions by oneDNN, with packed weights; what is between them, by Inductor."""
        convolutions, packings = _packable(region)
        if not convolutions:
            return _Region(self._compile(region, _examples(region)), {})
        part, parts = 0, {}
        for node in region.graph.nodes:
            part += node in convolutions
            parts[node] = part
            part += node in convolutions
        split = split_module(region, None, parts.__getitem__)  # type: ignore[arg-type]
        pieces: list[tuple[str, Any]] = list(split.named_children())
        for name, piece in pieces:
            if int(name.rpartition("_")[2]) % 2 == 0:
                setattr(split, name, _Region(self._compile(piece, _examples(piece)), {}))
        return _Region(split, packings)

    def _compile(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = torch._inductor.compile(gm, list(inputs), dict(self.options))
        return made


class _Region(nn.Module):
    """A compiled region, as a graph calls it.

    Attributes:
        packings: place of a weight among the operands -> what else `pack` takes.
    """

    def __init__(self, run: Callable[..., Any], packings: Mapping[int, tuple[Any, ...]]) -> None:
        super().__init__()
        self.run, self.packings = run, packings

    def forward(self, *operands: Any) -> Any:
        return self.run(*operands)


def _examples(gm: Any) -> list[Any]:
    return [node.meta["example_value"] for node in gm.graph.find_nodes(op="placeholder")]


def _packable(region: fx.GraphModule) -> tuple[set[fx.Node], dict[int, tuple[Any, ...]]]:
    """Convolutions by weights that nothing else takes, now of packed ones; how to pack these."""
    for node in region.graph.find_nodes(op="call_function", target=getattr):
        if not node.users:
            region.graph.erase_node(node)
    found: set[fx.Node] = set()
    packings = {}
    for place, weight in enumerate(region.graph.find_nodes(op="placeholder")):
        users = [node for node in weight.users if node.op == "call_function"]
        first, *others = {_how(node, weight) for node in users} or {None}
        alone = not others and len(users) == len(weight.users)
        if first is not None and alone and packs(weight.meta["example_value"]):
            packings[place] = first
            found.update(users)
    for node in found:
        node.target = PACKED[node.target]
    region.recompile()
    return found, packings


def _how(conv: fx.Node, weight: fx.Node) -> tuple[Any, ...] | None:
    """What `pack` takes; None of all but ungrouped convolutions that are called as conv.py does."""
    if conv.target not in PACKED or conv.kwargs or conv.args[1:3] != (weight, None):
        return None
    if conv.target is torch.conv2d and len(conv.args) == 7:
        stride, padding, dilation, groups = conv.args[3:]
    elif conv.target is torch.conv_transpose2d and len(conv.args) == 8:
        stride, padding, _, groups, dilation = conv.args[3:]
    else:
        return None
    transposed = conv.target is torch.conv_transpose2d
    return (padding, stride, dilation, transposed) if groups in (1,) else None

"""A backend of torch.compile that gives Inductor the solver's steps, and leaves the rest to ATen.

A step runs some hundred times and is compiled once for each shape (`krylov._compiled_once`); what
stands between the steps runs once, and most of it is convolutions, for which Inductor calls ATen
itself.  Left alone it costs g++ none of the time that its many kernels take.  Dynamo inlines a
region that is called once only: that one is left, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn


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
        made: dict[str, str] = {}
        for call in calls:
            region, _, *operands = call.args
            if region.target not in made:
                made[region.target] = name = f"{region.target}_compiled"
                gm.add_module(name, _Compiled(self._region(gm.get_submodule(region.target))))
            with gm.graph.inserting_before(call):
                again = gm.graph.call_module(made[region.target], tuple(operands))
            call.replace_all_uses_with(again)
            gm.graph.erase_node(call)
        gm.recompile()
        return gm.forward

    def _region(self, region: Any) -> Callable[..., Any]:
        inputs = [node.meta["example_value"] for node in region.graph.find_nodes(op="placeholder")]
        return self._compile(region, inputs)

    def _compile(self, gm: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        made: Callable[..., Any] = torch._inductor.compile(gm, list(inputs), dict(self.options))
        return made


class _Compiled(nn.Module):
    """A compiled region, as a graph calls it."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *operands: Any) -> Any:
        return self.run(*operands)

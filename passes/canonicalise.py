"""canonicalise: traced calls -> one small vocabulary, so that a node's target picks its rule."""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from naflow_fx import keys
from naflow_fx.errors import BY_ITSELF, GraphError, UnsupportedOperator, table
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._batch import batch_mixer
from naflow_fx.passes._fills import filled, filling
from naflow_fx.passes.annotate_values import BatchDependent, TensorValue
from naflow_fx.passes.remove_in_place import overwritten
from naflow_fx.rules import TABLE
from naflow_fx.rules.contract import Arguments, Rule, bind, parameters


def canonicalise(gm: fx.GraphModule) -> fx.GraphModule:
    """Modules, methods and functions become ``rule.forward(name=value, ...)`` nodes.

    Before: a graph with values (`annotate_values`), in-place operators resolved.
    After: inputs, constants (get_attr of detached tensors, folded where only parameters take
    part) and canonical nodes with `keys.RULE, SHAPE, DTYPE, ACTIVE`; eval mode baked in.  Shape
    arithmetic is gone: the image's size is a constant, the batch stays open.

    Raises:
        UnsupportedOperator: lists every node without a rule.
    """
    return _Canonicaliser(gm).run()


@dataclass
class _Pieces:
    """A call with several results; each piece is made when it is asked for."""

    node: fx.Node
    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    made: dict[int, fx.Node] = field(default_factory=dict)


class _Canonicaliser:
    def __init__(self, gm: fx.GraphModule) -> None:
        self.gm = gm
        self.graph = fx.Graph()
        self.env: dict[fx.Node, Any] = {}
        self.constants: dict[str, Tensor] = {}
        self.known: dict[int, fx.Node] = {}
        self.kept: list[Tensor] = []  # an id is a key only while its tensor lives
        self.offenders: list[tuple[str, str, str, str]] = []

    def run(self) -> fx.GraphModule:
        live = _live(self.gm.graph)
        for node in self.gm.graph.nodes:
            if node in live:
                self.env[node] = self._visit(node)
        if self.offenders:
            raise _refusal(self.offenders)
        made = _module.rebuild(self.constants, self.graph)
        made.meta = dict(self.gm.meta)
        return made

    def _visit(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return self._input(node)
        if node.op == "get_attr":
            return _graph.attribute(self.gm, str(node.target))
        if node.op == "output":
            self.graph.output(map_aggregate(node.args[0], self._node_argument))
            return None
        value = node.meta.get(keys.VALUE)
        if not _contains(value, TensorValue):
            return value
        args, kwargs = self._map(node.args), self._map(node.kwargs)
        fill = filling(node, args, kwargs)
        if fill is not None:
            return filled(self.gm, value, fill)
        if node.target is operator.getitem and isinstance(args[0], (tuple, list, dict)):
            return args[0][args[1]]
        if not any(_from_input(a) for a in (args, kwargs)):
            return self._fold(node, args, kwargs)
        return self._convert(node, args, kwargs)

    def _input(self, node: fx.Node) -> fx.Node:
        new = self.graph.placeholder(node.name)
        value = node.meta[keys.VALUE]
        self._annotate(new, node, value)
        new.meta[keys.ACTIVE] = value.dtype.is_floating_point  # class indices are not
        return new

    def _map(self, argument: Any) -> Any:
        """An argument with nodes replaced by what they became."""
        return map_aggregate(argument, lambda a: self.env[a] if isinstance(a, fx.Node) else a)

    def _fold(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """A node that depends on parameters alone, computed now, for a batch of one."""
        args, kwargs = (map_aggregate(a, _one_of_batch) for a in (args, kwargs))
        if any(_contains(a, BatchDependent) for a in (args, kwargs)):
            return self._offend(node, f"{_name(node.target)}: arithmetic with the batch size")
        if overwritten(self.gm, node) is not None:  # never a parameter of the user's model
            args = (args[0].clone(), *args[1:])
        with torch.no_grad():
            if node.op == "call_module":
                return _graph.attribute(self.gm, str(node.target))(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            assert callable(node.target)
            return node.target(*args, **kwargs)

    def _convert(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        source = args[0] if args else None
        if (
            isinstance(source, _Pieces)
            and node.target is operator.getitem
            and isinstance(args[1], int)
        ):
            return self._piece(source, args[1], str(node.meta.get(keys.SITE)))
        if isinstance(source, _Pieces) and node.target is operator.getitem:
            return self._whole(source)[args[1]]
        if isinstance(source, _Pieces) and node.target is getattr:
            return self._piece(source, ("values", "indices").index(args[1]),
                               str(node.meta.get(keys.SITE)))  # fmt: skip
        args, kwargs = (map_aggregate(a, self._whole) for a in (args, kwargs))
        if isinstance(node.meta[keys.VALUE], tuple):
            return _Pieces(node, node.target, args, kwargs)
        if node.op == "call_module":
            return self._module(node, args, kwargs, node.meta[keys.VALUE])
        target = node.target
        if target is getattr:  # x.T, x.mT
            target, args = args[1], args[:1]
        return self._function(node, target, args, kwargs, node.meta[keys.VALUE])

    def _whole(self, value: Any) -> Any:
        """All pieces of a call with several results, where it is used as one list."""
        if not isinstance(value, _Pieces):
            return value
        count, site = len(value.node.meta[keys.VALUE]), value.node.meta.get(keys.SITE)
        return tuple(self._piece(value, i, f"{site}.{i}") for i in range(count))

    def _piece(self, pieces: _Pieces, index: int, site: str) -> Any:
        """One result of a call, named after who asks for it first."""
        values = pieces.node.meta[keys.VALUE]
        index = index % len(values)
        if index not in pieces.made and pieces.node.op == "call_module":
            pieces.made[index] = self._module(
                pieces.node, pieces.args, pieces.kwargs, values[index],
                "" if index == 0 else site,
            )  # fmt: skip
        if index not in pieces.made:
            kwargs = pieces.kwargs | {"piece": index}
            pieces.made[index] = self._function(
                pieces.node, pieces.target, pieces.args, kwargs, values[index], site
            )
        return pieces.made[index]

    def _function(
        self, node: fx.Node, target: Any, args: Any, kwargs: Any, value: Any, site: str = ""
    ) -> Any:
        found = TABLE.targets.get(target)
        if found is None:
            return self._offend(node, _name(target))
        rule, adapter = found
        try:
            arguments = adapter(*args, **_with_dims(adapter, args, kwargs, value))
        except (TypeError, ValueError) as error:
            return self._offend(node, f"{_name(target)}: {error}")
        rule, arguments = _own_rule(rule, arguments)
        return self._create(node, rule, arguments, value, site=site)

    def _module(self, node: fx.Node, args: Any, kwargs: Any, value: Any, site: str = "") -> Any:
        module = _graph.attribute(self.gm, str(node.target))
        found = TABLE.of_module(module)
        if found is None:
            return self._offend(node, f"{type(module).__module__}.{type(module).__qualname__}")
        rule, adapter = found
        inputs = list(args) + list(kwargs.values())
        try:
            rule, arguments = _own_rule(rule, adapter(module))
            arguments |= dict(zip(rule.operands, inputs, strict=False))
        except (TypeError, ValueError) as error:
            return self._offend(node, f"{type(module).__qualname__}: {error}")
        return self._create(node, rule, arguments, value, str(node.target), site)

    def _create(
        self,
        node: fx.Node,
        rule: Rule,
        arguments: Arguments,
        value: Any,
        prefix: str = "",
        site: str = "",
    ) -> Any:
        arguments = dict(arguments) | (
            {"output_shape": value.shape} if "output_shape" in parameters(rule.forward) else {}
        )
        frozen = [k for k, v in arguments.items() if k not in rule.operands and _from_input(v)]
        if frozen:
            return self._offend(node, f"{rule.name}: {', '.join(frozen)} computed from the input")
        if _contains(arguments, BatchDependent):
            return self._offend(node, f"{rule.name}: arithmetic with the batch size")
        kwargs = {
            key: map_aggregate(v, partial(self._node_argument, name=f"{prefix}.{key}"))
            for key, v in bind(rule.forward, **arguments).items()
        }
        kwargs = _first_active(rule, kwargs)
        indices = rule.captures == ("index",) and not value.dtype.is_floating_point
        function: Any = rule.capture if indices else rule.forward  # one of a pool's two results
        mixed = "" if node.meta.get(keys.TARGET) else batch_mixer(rule, kwargs)
        if mixed:
            return self._offend(node, f"{rule.name}: {mixed}")
        name = (site or str(node.meta.get(keys.SITE, node.name))).replace(".", "_")
        new = self.graph.create_node("call_function", function, (), kwargs, name=name)
        self._annotate(new, node, value)
        if site:
            new.meta[keys.SITE] = site
        if indices:
            new.meta |= {keys.PART: "capture", keys.SOURCE: new.name}
        else:
            new.meta[keys.RULE] = rule.name
        new.meta[keys.ACTIVE] = value.dtype.is_floating_point
        return new

    def _node_argument(self, value: Any, name: str = "") -> Any:
        """Tensors become constants of the graph; batch-dependent numbers have no place in it."""
        if isinstance(value, fx.Node) and value.graph is self.gm.graph:
            return self._node_argument(self.env[value])
        if isinstance(value, _Pieces):
            return map_aggregate(self._whole(value), self._node_argument)
        if isinstance(value, Tensor):
            return self._constant(value, name.strip("."))
        return value

    def _constant(self, tensor: Tensor, name: str) -> fx.Node:
        if id(tensor) not in self.known:
            name = name if name and name not in self.constants else f"constant_{len(self.known)}"
            self.constants[name] = tensor.detach()
            with self.graph.inserting_before(next(iter(self.graph.nodes))):
                node = self.graph.get_attr(name)
            node.meta[keys.SHAPE], node.meta[keys.DTYPE] = tuple(tensor.shape), tensor.dtype
            self.known[id(tensor)] = node
            self.kept.append(tensor)
        return self.known[id(tensor)]

    def _annotate(self, new: fx.Node, node: fx.Node, value: Any) -> None:
        for key in (keys.SITE, keys.WHERE):
            if key in node.meta:
                new.meta[key] = node.meta[key]
        if isinstance(value, TensorValue):
            new.meta[keys.SHAPE], new.meta[keys.DTYPE] = value.shape, value.dtype
            new.meta[keys.MERGED] = value.merged

    def _offend(self, node: fx.Node, what: str) -> fx.Node:
        value = node.meta[keys.VALUE]
        shape = str(list(value.shape)) if isinstance(value, TensorValue) else ""
        row = (str(node.meta.get(keys.SITE)), what, shape, str(node.meta.get(keys.WHERE)))
        self.offenders.append(row)
        stand_in = self.graph.placeholder(f"unsupported_{len(self.offenders)}")
        self._annotate(stand_in, node, value)
        stand_in.meta[keys.ACTIVE] = True
        return stand_in


def _live(graph: fx.Graph) -> set[fx.Node]:
    """Inputs, and what the output needs: an operator that nobody reads needs no rule."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op in ("output", "placeholder") or any(user in found for user in node.users):
            found.add(node)
    return found


def _with_dims(adapter: Any, args: Any, kwargs: Any, value: Any) -> Any:
    """The arguments of a reduction to one number, its dimensions named where none is the batch."""
    source = args[0] if args else None
    shape = source.meta.get(keys.SHAPE, ()) if isinstance(source, fx.Node) else ()
    if not shape or -1 in shape or value.shape != () or "dim" not in parameters(adapter):
        return kwargs
    given = inspect.signature(adapter).bind_partial(*args, **kwargs).arguments
    named = given.get("dim") is not None or "axis" in kwargs
    return kwargs if named else kwargs | {"dim": tuple(range(len(shape)))}


def _own_rule(rule: Rule, found: Any) -> tuple[Rule, Arguments]:
    """An adapter may hand the call on to another rule: ``(its forward, its arguments)``."""
    return (TABLE.forwards[found[0]], found[1]) if isinstance(found, tuple) else (rule, found)


def _contains(argument: Any, kinds: type | tuple[type, ...]) -> bool:
    """Whether any leaf of a nested argument is of that kind."""
    found: list[bool] = []
    map_aggregate(argument, lambda a: found.append(isinstance(a, kinds)))
    return any(found)


def _from_input(argument: Any) -> bool:
    """Whether an argument was computed from the model's input."""
    return _contains(argument, (fx.Node, _Pieces))


def _one_of_batch(value: Any) -> Any:
    """1 for the batch size: what does not depend on the input is the same for every image."""
    return 1 if isinstance(value, BatchDependent) and value.is_size else value


def _first_active(rule: Rule, kwargs: Arguments) -> Arguments:
    """A product's activation is its input, the constant its gate, in whichever order written."""
    if rule.swap is None or _graph.is_active(kwargs[rule.operands[0]]):
        return kwargs
    return rule.swap(kwargs)


def _name(target: Any) -> str:
    if isinstance(target, str):
        return f"Tensor.{target}"
    module = getattr(target, "__module__", "") or ""
    return f"{module}.{getattr(target, '__name__', target)}".lstrip(".")


def _refusal(offenders: list[tuple[str, str, str, str]]) -> UnsupportedOperator:
    """All offenders, and what to do: nodes that mix a batch want another model, not a rule."""
    mixing = [" the batch" in what for _, what, _, _ in offenders]
    count = "1 node" if len(offenders) == 1 else f"{len(offenders)} nodes"
    batch = f"  {BY_ITSELF}.\n" if any(mixing) else ""
    if all(mixing):
        told = f"{table(offenders)}\n{batch}".rstrip()
        return UnsupportedOperator(
            f"{count} {'mixes' if len(offenders) == 1 else 'mix'} the images of a batch\n{told}"
        )
    known = ", ".join(sorted(rule.name for rule in TABLE))
    return UnsupportedOperator(
        f"{count} {'has' if len(offenders) == 1 else 'have'} no rule\n{table(offenders)}\n{batch}"
        f"Rules exist for: {known}.  To add one: nf.register, docs/operators.md."
    )


def check_canonical(gm: fx.GraphModule) -> None:
    """Inputs, constants and operators of the table, nothing else."""
    for node in gm.graph.nodes:
        known = node.op in ("placeholder", "get_attr", "output") or keys.RULE in node.meta
        known = known or node.meta.get(keys.PART) == "capture"  # the indices of a pool
        if not known:
            raise GraphError(f"{node.name}: {node.op} {node.target} is not canonical")

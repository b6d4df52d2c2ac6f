"""canonicalise: traced calls -> one small vocabulary, so that a node's target picks its rule."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from naflow_fx import keys
from naflow_fx.errors import BY_ITSELF, GraphError, UnsupportedOperator, table
from naflow_fx.passes import _graph, _module
from naflow_fx.passes._batch import mixes
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
    return _Canonicaliser(gm).canonical()


class _Pieces:
    """A call with several results; each is made when it is asked for, named after who asks first.

    Args:
        make: ``make(index, site)``: the canonical node of one result.
        count: how many there are.
        site: of the call.
    """

    def __init__(self, make: Callable[[int, str], Any], count: int, site: str) -> None:
        self.make, self.count, self.site = make, count, site
        self.made: dict[int, Any] = {}

    def piece(self, index: int, site: str) -> Any:
        """One result."""
        index %= self.count
        if index not in self.made:
            self.made[index] = self.make(index, site)
        return self.made[index]

    def whole(self) -> tuple[Any, ...]:
        """All results, where they are used as one list."""
        return tuple(self.piece(i, f"{self.site}.{i}") for i in range(self.count))


class _Canonicaliser(fx.Interpreter):
    """Runs a traced graph: on the canonical nodes that stand for what the input makes."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.gm, self.new = gm, fx.Graph()
        self.constants: dict[str, Tensor] = {}
        self.known: dict[int, tuple[Tensor, fx.Node]] = {}  # an id holds while its tensor lives
        self.offenders: list[tuple[str, str, str, str]] = []

    def canonical(self) -> fx.GraphModule:
        """The canonical graph."""
        # inputs, and what the output needs: an operator that nobody reads needs no rule
        needed = [self.graph.output_node(), *self.graph.find_nodes(op="placeholder")]
        live = _graph.reached(needed, lambda node: node.all_input_nodes)
        for node in self.graph.nodes:
            if node in live:
                self.env[node] = self.run_node(node)
        if self.offenders:
            raise _refusal(self.offenders)
        made = _module.rebuild(self.constants, self.new)
        made.meta = dict(self.gm.meta)
        return made

    def run_node(self, n: fx.Node) -> Any:
        """A canonical node, several results, or a value that the input has no part in."""
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        if n.op == "placeholder":
            return self._annotated(self.new.placeholder(n.name), n, n.meta[keys.VALUE])
        if n.op == "get_attr":
            return self.fetch_attr(str(n.target))
        if n.op == "output":
            return self.new.output(map_aggregate(args[0], self._argument))
        value = n.meta.get(keys.VALUE)
        if not _contains(value, TensorValue):
            return value
        fill = _filling(n, args, kwargs)
        if fill is not None:
            return self._filled(value, fill)
        if n.target is operator.getitem and isinstance(args[0], (tuple, list, dict)):
            return args[0][args[1]]
        if not _from_input((args, kwargs)):
            return self._fold(n, args, kwargs)
        return self._convert(n, args, kwargs)

    def _fold(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        """A node that depends on parameters alone, computed now, for a batch of one."""
        args, kwargs = (map_aggregate(a, _one_of_batch) for a in (args, kwargs))
        if _contains((args, kwargs), BatchDependent):
            return self._offend(node, f"{_name(node.target)}: arithmetic with the batch size")
        if overwritten(self.gm, node) is not None:  # never a parameter of the user's model
            args = (args[0].clone(), *args[1:])
        with torch.no_grad():
            return getattr(self, node.op)(node.target, args, kwargs)

    def _filled(self, value: Any, fill: float) -> Tensor:
        """A number in a value's shape, where the model's tensors are, for a batch of one."""
        own = next((t for t in (*self.gm.parameters(), *self.gm.buffers())), torch.empty(()))
        shape = tuple(1 if size == -1 else size for size in value.shape)
        return torch.full(shape, fill, dtype=value.dtype, device=own.device)

    def _convert(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        source, value, site = args[0] if args else None, node.meta[keys.VALUE], _site(node)
        if isinstance(source, _Pieces) and node.target in (operator.getitem, getattr):
            named = node.target is getattr
            index = ("values", "indices").index(args[1]) if named else args[1]
            whole = not isinstance(index, int)
            return source.whole()[index] if whole else source.piece(index, site)
        args, kwargs = (map_aggregate(a, _whole) for a in (args, kwargs))
        if not isinstance(value, tuple):
            return self._call(node, args, kwargs, value)

        def piece(index: int, site: str) -> Any:
            if node.op == "call_module":
                return self._call(node, args, kwargs, value[index], site if index else "")
            return self._call(node, args, kwargs | {"piece": index}, value[index], site)

        return _Pieces(piece, len(value), site)

    def _call(self, node: fx.Node, args: Any, kwargs: Any, value: Any, site: str = "") -> Any:
        """The canonical node of a call, or of one of its results, `value`."""
        module, target = _graph.module_of(self.gm, node), node.target
        if target is getattr:  # x.T, x.mT
            target, args = args[1], args[:1]
        found = TABLE.targets.get(target) if module is None else TABLE.of_module(module)
        if found is None:
            return self._offend(node, _name(target if module is None else type(module)))
        rule, adapter = found
        try:
            if module is None:
                arguments = adapter(*args, **_with_dims(adapter, args, kwargs, value))
            else:
                arguments = adapter(module)
            if isinstance(arguments, tuple):  # handed on: (another rule's forward, its arguments)
                rule, arguments = TABLE.forwards[arguments[0]], arguments[1]
            if module is not None:
                arguments |= dict(zip(rule.operands, (*args, *kwargs.values()), strict=False))
        except (TypeError, ValueError) as error:
            name = _name(target) if module is None else type(module).__qualname__
            return self._offend(node, f"{name}: {error}")
        return self._create(node, rule, dict(arguments), value, site)

    def _create(
        self, node: fx.Node, rule: Rule, arguments: Arguments, value: Any, site: str
    ) -> fx.Node:
        if "output_shape" in parameters(rule.forward):
            arguments["output_shape"] = value.shape
        frozen = [k for k, v in arguments.items() if k not in rule.operands and _from_input(v)]
        if frozen:
            return self._offend(node, f"{rule.name}: {', '.join(frozen)} computed from the input")
        if _contains(arguments, BatchDependent):
            return self._offend(node, f"{rule.name}: arithmetic with the batch size")
        prefix = f"{node.target}." if node.op == "call_module" else ""
        kwargs = {
            key: map_aggregate(v, partial(self._argument, name=prefix + key))
            for key, v in bind(rule.forward, **arguments).items()
        }
        if rule.swap is not None and not _graph.is_active(kwargs[rule.operands[0]]):
            kwargs = rule.swap(kwargs)  # an activation is the input, a constant its gate
        indices = rule.captures == ("index",) and not value.dtype.is_floating_point
        function: Any = rule.capture if indices else rule.forward  # one of a pool's two results
        mixed = "" if node.meta.get(keys.TARGET) else mixes(rule, kwargs, value.shape)
        if mixed:
            return self._offend(node, f"{rule.name}: {mixed}")
        name = (site or str(node.meta.get(keys.SITE, node.name))).replace(".", "_")
        new = self.new.create_node("call_function", function, (), kwargs, name=name)
        self._annotated(new, node, value)
        if site:
            new.meta[keys.SITE] = site
        new.meta |= _graph.marks("capture", new) if indices else {keys.RULE: rule.name}
        return new

    def _argument(self, value: Any, name: str = "") -> Any:
        """What the new graph has in a value's place: a tensor is a constant of it."""
        if isinstance(value, _Pieces):
            return map_aggregate(value.whole(), self._argument)
        return self._constant(value, name) if isinstance(value, Tensor) else value

    def _constant(self, tensor: Tensor, name: str) -> fx.Node:
        if id(tensor) not in self.known:
            name = name if name and name not in self.constants else f"constant_{len(self.known)}"
            self.constants[name] = tensor.detach()
            with self.new.inserting_before(next(iter(self.new.nodes))):
                node = self.new.get_attr(name)
            node.meta |= {keys.SHAPE: tuple(tensor.shape), keys.DTYPE: tensor.dtype}
            self.known[id(tensor)] = tensor, node
        return self.known[id(tensor)][1]

    def _annotated(self, new: fx.Node, node: fx.Node, value: Any) -> fx.Node:
        """The new node of an old one, with what is known of it."""
        new.meta |= {k: node.meta[k] for k in (keys.SITE, keys.WHERE) if k in node.meta}
        if isinstance(value, TensorValue):
            new.meta |= {keys.SHAPE: value.shape, keys.DTYPE: value.dtype}
            new.meta[keys.MERGED] = value.merged
            new.meta[keys.ACTIVE] = value.dtype.is_floating_point  # class indices are not
        return new

    def _offend(self, node: fx.Node, what: str) -> fx.Node:
        value = node.meta[keys.VALUE]
        shape = str(list(value.shape)) if isinstance(value, TensorValue) else ""
        self.offenders.append((_site(node), what, shape, str(node.meta.get(keys.WHERE))))
        stand_in = self.new.placeholder(f"unsupported_{len(self.offenders)}")
        self._annotated(stand_in, node, value).meta[keys.ACTIVE] = True
        return stand_in


_FILLS = {"zeros_like": 0, "ones_like": 1, "new_zeros": 0, "new_ones": 1}


def _filling(node: fx.Node, args: Any, kwargs: Any) -> float | None:
    """The number that a call fills a new tensor with, whatever its first argument holds."""
    name = _graph.operator_name(node)
    if name in ("full_like", "new_full", "new_tensor"):
        at = 2 if name == "new_full" else 1
        found = kwargs.get("fill_value", args[at] if len(args) > at else None)
        return found if isinstance(found, (int, float)) else None
    return _FILLS.get(name)


def _with_dims(adapter: Any, args: Any, kwargs: Any, value: Any) -> Any:
    """The arguments of a reduction to one number, its dimensions named where none is the batch."""
    shape = _graph.shape_of(args[0]) if args else ()
    if not shape or -1 in shape or value.shape != () or "dim" not in parameters(adapter):
        return kwargs
    given = inspect.signature(adapter).bind_partial(*args, **kwargs).arguments
    named = given.get("dim") is not None or "axis" in kwargs
    return kwargs if named else kwargs | {"dim": tuple(range(len(shape)))}


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


def _whole(value: Any) -> Any:
    return value.whole() if isinstance(value, _Pieces) else value


def _site(node: fx.Node) -> str:
    return str(node.meta.get(keys.SITE))


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
        made = keys.RULE in node.meta or node.meta.get(keys.PART) == "capture"  # a pool's indices
        if not made and node.op not in ("placeholder", "get_attr", "output"):
            raise GraphError(f"{node.name}: {node.op} {node.target} is not canonical")

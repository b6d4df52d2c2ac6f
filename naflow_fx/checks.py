"""What must hold after each pass; each check names the first offender."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.errors import GraphError, InputError, NaflowWarning, TargetError
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes.annotate_values import TensorValue
from naflow_fx.passes.find_flow import Flow, before, find_flow, score_of
from naflow_fx.rule import CHANNEL, CHANNEL_PART, COLLAPSED, MIXED, SPACE, SPACE_PART, TOKENS
from naflow_fx.targets import OfOneSample


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
            f"example_inputs: got {type(example).__name__}; wanted a tensor [N, C, "
            "H, W], as the model takes it"
        )
    if not 3 <= example.dim() <= 5 or not example.is_floating_point() or 0 in example.shape:
        raise InputError(
            f"example_inputs: got {list(example.shape)} {example.dtype}; wanted a "
            "floating point [N, C, ...space] with one to three space dimensions"
        )
    if example.is_meta:
        raise InputError("example_inputs: got a tensor on the meta device, which has no values")
    return example.detach()


def check_score(gm: fx.GraphModule) -> None:
    """The graph yields an output and a score."""
    result = _graph.output_node(gm.graph).args[0]
    if not isinstance(result, dict) or not {"output", "score"} <= set(result):
        raise GraphError(f"after add_score the graph yields {result!r}")


def check_values(gm: fx.GraphModule, target: Any) -> None:
    """The score is one number per sample; a target of ONE sample has the first's.

    Raises:
        TargetError: it is not, and what it is.
    """
    score = score_of(gm.graph)
    value = score.meta.get(keys.VALUE)
    shape = (1,) if isinstance(target, OfOneSample) else (-1,)
    given = any(node.name == "target" for node in gm.graph.nodes if node.op == "placeholder")
    if not isinstance(value, TensorValue) or value.shape != shape:
        found = list(value.shape) if isinstance(value, TensorValue) else value
        raise TargetError(
            f"target: the score has shape {found} (-1: batch); wanted one number per sample, [N].  "
            "Callables of ONE sample's output go to the call in a list, one per image"
        )
    if given and len(score.all_input_nodes[0].meta[keys.VALUE].shape) != 2:
        found = list(score.all_input_nodes[0].meta[keys.VALUE].shape)
        raise TargetError(
            f"target: the model returns {found} (-1: batch), not [N, classes]; give "
            "nf.compile a target= that makes one number per sample of it"
        )


def check_canonical(gm: fx.GraphModule) -> None:
    """Inputs, constants and operators of the table, nothing else."""
    for node in gm.graph.nodes:
        known = node.op in ("placeholder", "get_attr", "output") or keys.RULE in node.meta
        known = known or node.meta.get(keys.PART) == "capture"  # the indices of a pool
        if not known:
            raise GraphError(f"{node.name}: {node.op} {node.target} is not canonical")


def check_labels(gm: fx.GraphModule) -> None:
    """There is a cascade to explain, and the score has a gradient.

    Raises:
        GraphError: no spatial node leads to the score, or none by its gradient.
    """
    flow = find_flow(gm.graph)
    if not flow.features or not flow.inputs:
        raise GraphError(
            "no feature map leads from the input to the score: NAFlow explains convolutional "
            "networks, whose nodes keep batch, channel and space"
        )
    stop, dead = _behind_stops(gm.graph, flow)
    if stop and len(dead) == len(flow.sites):
        raise GraphError(f"{stop}: no call site has an importance.  Take it out of forward "
                         "(train its weights with requires_grad_(False) instead)")  # fmt: skip


def tell_limits(gm: fx.GraphModule) -> None:
    """Warns of call sites that no gradient reaches, and of layers without a map."""
    flow = find_flow(gm.graph)
    stop, dead = _behind_stops(gm.graph, flow)
    if stop:
        warnings.warn(f"{stop}: the maps of {len(dead)} call sites before it are zero, from "
                      f"{dead[0]} to {dead[-1]}", NaflowWarning, stacklevel=2)  # fmt: skip
    _tell_lost(gm.graph, flow)


def _behind_stops(graph: fx.Graph, flow: Flow) -> tuple[str, list[str]]:
    """Where detach or no_grad keep the score's gradient from the inputs, and the sites behind."""
    names = _graph.names(graph)
    stops, live, todo = [], set[str](), [score_of(graph)]
    while todo:
        node = todo.pop()
        is_stop = node.meta.get(keys.RULE) == "hold"
        if node.name not in live:
            live.add(node.name)
            stops += [node] if is_stop else []
            todo += [] if is_stop else _graph.operands(node)
    if live & set(flow.inputs) or not stops:
        return "", []
    last = max(stops, key=list(graph.nodes).index)
    place = f"{last.meta.get(keys.SITE)} ({last.meta.get(keys.WHERE)})"
    words = f"the score's gradient stops at {place}, in torch.no_grad() or at a detach()"
    return words, [names[name].meta[keys.SITE] for name in flow.sites if name not in live]


def _tell_lost(graph: fx.Graph, flow: Flow) -> None:
    """Layers without a map, because space could not be followed up to them, are told of."""
    names, sites = _graph.names(graph), set(flow.sites)
    reached = before([score_of(graph)], invertible=False)
    lost = [n for n in graph.nodes if n in reached and n.name not in sites and _is_lost(n)]
    if not lost:
        return
    leads = before(lost, invertible=False)
    first = next(n for n in graph.nodes
                 if n in leads and n.name not in sites
                 and any(x.name in sites for x in _graph.operands(n)))  # fmt: skip
    convolutions = sum(n.meta[keys.RULE] != "linear" for n in lost)
    layers = [f"{n} {kind}" for n, kind in ((convolutions, "convolutions"),
              (len(lost) - convolutions, "linear layers")) if n]  # fmt: skip
    warnings.warn(
        f"{' and '.join(layers)} have no map, from {names[lost[0].name].meta[keys.SITE]} on: at "
        f"{first.meta[keys.SITE]} ({first.meta.get(keys.WHERE)}), shape "
        f"{list(first.meta[keys.SHAPE])}, batch, channels and space can't be followed",
        NaflowWarning, stacklevel=2,
    )  # fmt: skip


def _is_lost(node: fx.Node) -> bool:
    """Whether a layer's dimensions are tokens, parts or mixtures; vectors and channels are not.

    Channels that stand twice (operands disagreed) and space beside a strip's one are lost, too.
    """
    if node.meta.get(keys.RULE) not in ("conv", "conv_transpose", "linear"):
        return False
    labels = node.meta[keys.LABELS]
    unclear = set(labels) & {TOKENS, SPACE_PART, CHANNEL_PART, MIXED}
    strip = SPACE in labels and COLLAPSED in labels
    return len(labels) > 2 and (bool(unclear) or strip or labels.count(CHANNEL) > 1)


def check_captured(gm: fx.GraphModule) -> None:
    """Every capture that a node names exists."""
    names = _graph.names(gm.graph)
    for node in gm.graph.nodes:
        for capture in node.meta.get(keys.CAPTURES, {}).values():
            for name in tree_leaves(capture):
                if name not in names:
                    raise GraphError(f"{node.name}: capture {name} is not in the graph")


def check_importance(gm: fx.GraphModule) -> None:
    """Every call site has Lambda, of its own shape's rank."""
    names = _graph.names(gm.graph)
    for name in find_flow(gm.graph).sites:
        if names[name].meta.get(keys.IMPORTANCE) not in names:
            raise GraphError(f"{name}: no importance was built")


def check_inverse(gm: fx.GraphModule, options: Options) -> None:
    """Every call site has Z, where the method needs it."""
    if options.method != "naflow" and "bpfm" not in options.keep:
        return
    names = _graph.names(gm.graph)
    for name in find_flow(gm.graph).sites:
        if names[name].meta.get(keys.BPFM) not in names:
            raise GraphError(f"{names[name].meta[keys.SITE]}: no inverse step reaches it")


def check_outputs(gm: fx.GraphModule) -> None:
    """The graph is sound and nothing in it is dead."""
    gm.graph.lint()
    for node in gm.graph.nodes:
        if not node.users and node.op not in ("placeholder", "output"):
            raise GraphError(f"{node.name}: nothing reads it")

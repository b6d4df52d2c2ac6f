"""What must hold after each pass; each check names the first offender."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from naflow_fx import keys
from naflow_fx.errors import GraphError, InputError, TargetError, TraceError
from naflow_fx.options import Options
from naflow_fx.passes import _graph
from naflow_fx.passes.annotate_values import TensorValue
from naflow_fx.passes.find_flow import find_flow, score_of
from naflow_fx.passes.trace import evaluated, module_of
from naflow_fx.records import plain


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
    return example.detach()


def check_score(gm: fx.GraphModule) -> None:
    """The graph yields an output and a score."""
    result = _graph.output_node(gm.graph).args[0]
    if not isinstance(result, dict) or not {"output", "score"} <= set(result):
        raise GraphError(f"after add_score the graph yields {result!r}")


def check_values(gm: fx.GraphModule) -> None:
    """The score is one number per sample.

    Raises:
        TargetError: it is not, and what it is.
    """
    score = score_of(gm.graph)
    value = score.meta.get(keys.VALUE)
    given = any(node.name == "target" for node in gm.graph.nodes if node.op == "placeholder")
    if not isinstance(value, TensorValue) or value.shape not in ((-1,), (1,)):
        shape = list(value.shape) if isinstance(value, TensorValue) else value
        raise TargetError(
            f"target: the score has shape {shape} (-1: batch); wanted one number per sample, [N].  "
            "Callables of ONE sample's output go to the call in a list, one per image"
        )
    if given and len(score.all_input_nodes[0].meta[keys.VALUE].shape) != 2:
        shape = list(score.all_input_nodes[0].meta[keys.VALUE].shape)
        raise TargetError(
            f"target: the model returns {shape} (-1: batch), not [N, classes]; give "
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
    """There is a cascade to explain.

    Raises:
        GraphError: no spatial node leads to the score.
    """
    flow = find_flow(gm.graph)
    if not flow.features or not flow.inputs:
        raise GraphError(
            "no feature map leads from the input to the score: NAFlow explains convolutional "
            "networks, whose nodes keep batch, channel and space"
        )


def check_forward_kept(gm: fx.GraphModule, job: Any) -> None:
    """The canonical graph computes what the model computes, on the example.

    Raises:
        TraceError: it does not: the model does something that tracing can't see.
    """
    model = job.model
    if isinstance(model, torch.export.ExportedProgram):
        model = module_of(model)
    elif isinstance(model, nn.Module):
        model = evaluated(model)
    images = [x[: 2 * job.rows].clone() for x in job.examples]
    classes = torch.full((len(images[0]),), -1, device=images[0].device)
    inputs = images if job.target is not None else [*images, classes]
    wanted = model(*(x.clone() for x in images))
    try:
        result = gm(*inputs)
    except RuntimeError as error:
        raise TraceError(
            f"the traced graph doesn't run on the example: {error}.  Usual cause: a constant made "
            "for the whole batch is joined to the images (a class token)"
        ) from error
    for a, b in zip(tree_leaves(plain(wanted)), tree_leaves(result["output"]), strict=True):
        if not isinstance(a, Tensor) or not a.is_floating_point():
            continue
        scale = a.double().abs().nan_to_num().max() if a.numel() else 1.0
        difference = (a.double() - b.double()).abs().nan_to_num().max()
        if difference > 1000 * torch.finfo(a.dtype).eps * scale:
            raise TraceError(
                f"the traced graph computes something else than the model (difference "
                f"{float(difference):.2g} at outputs of {float(scale):.2g}).  Usual causes: "
                "writing in place into a view, random numbers in eval mode, branches on tensor "
                "values"
            )
    if callable(job.target):
        _check_target_kept(job.target, wanted, result["score"])


def _check_target_kept(target: Any, output: Any, score: Tensor) -> None:
    """The traced target gives the score that the callable itself gives."""
    wanted = target(output)
    leaves = [x for x in (*tree_leaves(plain(output)), wanted) if isinstance(x, Tensor)]
    scale = max(float(x.double().abs().nan_to_num().max()) for x in leaves if x.numel())
    if (wanted.double() - score.double()).abs().nan_to_num().max() > 1e-2 * scale:
        raise TargetError(
            f"target: traced, the callable {target!r} gives another score than called "
            f"({score.tolist()} for {wanted.tolist()}).  Compute it from the output's values and "
            "shapes alone: while it is traced, isinstance and the like see no tensor"
        )


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

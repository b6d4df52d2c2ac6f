"""From an explainer to what artefacts hold: a clean program, example inputs, torch.export."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from naflow_fx.artefacts.formats import quiet
from naflow_fx.artefacts.metadata import MAPS, OUT, Kind, Metadata, Value
from naflow_fx.errors import ArtefactError, first_line
from naflow_fx.job import Job
from naflow_fx.similarity import Similarity
from naflow_fx.view.record import versions

if TYPE_CHECKING:
    from naflow_fx.models.preprocess import Preprocessing

BATCH = 2  # of the example: batches of 0 and 1 would be compiled as constants
ORIGINS = ("from_node", "nn_module_stack", "source_fn_stack", "stack_trace", "torch_fn")


def plain_program(gm: fx.GraphModule) -> fx.GraphModule:
    """The program with tensors as its only results, sharing all tensors with `gm`.

    What is None or empty is left out of the result; one image input is called ``image``.
    """
    graph = fx.Graph()
    places: dict[fx.Node, Any] = {}
    inputs = [node for node in gm.graph.nodes if node.op == "placeholder"]
    images = [node for node in inputs if node.name not in ("target", "query", "support")]
    for node in inputs:
        name = "image" if images == [node] else node.name
        places[node] = graph.placeholder(name)
    result: Any = graph.graph_copy(gm.graph, places)
    graph.output(_only_tensors(result))
    return fx.GraphModule(gm, graph, class_name="Explanation")


def _only_tensors(value: Any) -> Any:
    """The result without what is no tensor; in a list that lacks some, others keep their number."""
    if isinstance(value, (list, tuple)):
        if all(_has_tensor(part) for part in value):
            return type(value)(_only_tensors(part) for part in value)
        value = {str(i): part for i, part in enumerate(value)}
    if isinstance(value, dict):
        return {key: _only_tensors(part) for key, part in value.items() if _has_tensor(part)}
    return value


def _has_tensor(value: Any) -> bool:
    return any(isinstance(leaf, fx.Node) for leaf in pytree.tree_leaves(value))


def example_inputs(job: Job, like: Tensor) -> tuple[Tensor, ...]:
    """Images (and class indices) of a batch of two, of the dtype and on the device of `like`."""
    shapes = [tuple(x.shape[1:]) for x in job.examples]
    if isinstance(job.target, Similarity):
        shots = job.target.shots
        shapes = [shapes[0], (shots, *shapes[0]) if shots > 1 else shapes[0]]
    images = [like.new_zeros((BATCH, *shape)) for shape in shapes]
    if job.target is None:
        images.append(torch.full((BATCH,), -1, dtype=torch.int64, device=like.device))
    return tuple(images)


def exported_program(gm: fx.GraphModule, inputs: tuple[Tensor, ...]) -> ExportedProgram:
    """torch.export of the program, with an open batch.

    Strict where that goes: then equal steps of the solver stay one subgraph, called many times.

    Raises:
        ArtefactError: torch.export refuses the program, and why.
    """
    program, dynamic = plain_program(gm), ({0: Dim("batch", min=1)},) * len(inputs)
    with torch.no_grad(), warnings.catch_warnings(), quiet():
        warnings.simplefilter("ignore")
        for strict in (True, False):
            try:
                made = torch.export.export(program, inputs, dynamic_shapes=dynamic, strict=strict)
            except Exception as error:  # of many kinds: torch.export raises what its parts raise
                refused = error
            else:
                return _without_origins(made)
    raise ArtefactError(f"torch.export refuses the program: {first_line(refused)}") from refused


def _without_origins(exported: ExportedProgram) -> ExportedProgram:
    """The program without each node's tale of where it came from: half of a file, and our paths."""
    for part in exported.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            for key in ORIGINS:
                node.meta.pop(key, None)
    return exported


def describe(
    exported: ExportedProgram,
    job: Job,
    kind: Kind,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Metadata:
    """The metadata of an artefact, with what its user told: see `Explainer.export`."""
    inputs, outputs = signature(exported)
    examples: Any = exported.example_inputs
    device: torch.device = examples[0][0].device
    if kind == "onnx":  # where a name can stand for one value only
        taken = {value.name for value in inputs}
        outputs = tuple(replace(v, name=v.name + OUT * (v.name in taken)) for v in outputs)
    return Metadata(
        kind=kind,
        inputs=inputs,
        outputs=outputs,
        call_sites=tuple(v.name[len(MAPS) :] for v in outputs if v.name.startswith(MAPS)),
        target=_target(job.target),
        options=job.options.to_json(),
        device=device.type,
        preprocessing=None if preprocessing is None else dataclasses.asdict(preprocessing),
        class_names=None if class_names is None else tuple(map(str, class_names)),
        info=dict(info or {}),
        versions=versions(),
    )


def signature(exported: ExportedProgram) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Inputs and outputs in the order of the flat call, named by their place in the result."""
    found = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    spec = exported.call_spec.out_spec
    assert spec is not None
    result = pytree.tree_unflatten([object()] * spec.num_leaves, spec)
    places = [path for path, _ in pytree.tree_flatten_with_path(result)[0]]
    names = [".".join(str(_key(step)) for step in path) for path in places]
    graph = exported.graph_signature
    sizes = [size for name in graph.user_inputs for size in found[name].shape]
    shown = [str(size) for size in sizes if not isinstance(size, int)]
    inputs = [_value(name, found[name], shown) for name in graph.user_inputs]
    outputs = [
        _value(name, found[node], shown)
        for name, node in zip(names, graph.user_outputs, strict=True)
    ]
    return tuple(inputs), tuple(outputs)


def _key(step: Any) -> Any:
    """The key, or index, of one step into a result."""
    return getattr(step, "key", getattr(step, "idx", step))


def _value(name: Any, value: Any, symbols: list[str]) -> Value:
    """Name, shape with N for the batch, dtype."""
    sizes: list[int | str] = []
    for size in value.shape:
        text = str(size)
        for symbol in symbols:
            text = re.sub(rf"\b{symbol}\b", "N", text)
        sizes.append(size if isinstance(size, int) else text)
    return Value(str(name), tuple(sizes), str(value.dtype).removeprefix("torch."))


def _target(target: Any) -> dict[str, Any]:
    """What is explained, as plain data."""
    if target is None:
        return {"kind": "class"}
    if isinstance(target, Similarity):
        metric = target.metric if isinstance(target.metric, str) else _name(target.metric)
        return {"kind": "similarity", "metric": metric, "pool": target.pool, "at": target.at,
                "shots": target.shots}  # fmt: skip
    return {"kind": "function", "name": _name(target)}


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))

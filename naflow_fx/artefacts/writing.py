"""From an explainer to a file: a clean program, torch.export, what the file tells, one run."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from naflow_fx.artefacts import ENDINGS, check_name
from naflow_fx.artefacts.formats import OPENERS, PROVIDERS, WRITERS, quiet
from naflow_fx.artefacts.metadata import MAPS, OUT, Kind, Metadata, Value
from naflow_fx.errors import ArtefactError, first_line, is_out_of_memory, raised_as, required
from naflow_fx.files import replacing
from naflow_fx.job import Job
from naflow_fx.similarity import Similarity
from naflow_fx.view.record import versions

if TYPE_CHECKING:
    from naflow_fx.models.preprocess import Preprocessing

BATCH = 2  # of the example: batches of 0 and 1 would be compiled as constants
ORIGINS = ("from_node", "nn_module_stack", "source_fn_stack", "stack_trace", "torch_fn")
RUNTIMES = {"pt2": "torch.export", "aoti": "AOTInductor", "onnx": "onnxruntime"}
CLOSE = 0.05  # of the largest output: arithmetic differs between the runtimes, models differ more


def write(
    kind: Kind, path: str | Path, program: fx.GraphModule, job: Job, like: Tensor, **facts: Any
) -> Path:
    """Writes one artefact; `Explainer.export`, `package` and `to_onnx` document it.

    The file is run once, and appears whole or not at all.  `like`: any tensor of the program's
    dtype and device.
    """
    path = Path(path)
    check_name(path, ENDINGS[kind])
    with replacing(path) as made:
        inputs = example_inputs(job, like)
        exported = exported_program(program, inputs)
        metadata = describe(exported, job, kind, **facts)
        WRITERS[kind](exported, metadata, made)
        run_once(made, metadata, program, inputs)
    return path


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
    with torch.no_grad(), quiet():
        for strict in (True, False):
            try:
                made = torch.export.export(program, inputs, dynamic_shapes=dynamic, strict=strict)
                return _without_origins(made)
            except Exception as error:  # of many kinds: torch.export raises what its parts raise
                if is_out_of_memory(error):
                    raise
                refused = error
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
    if kind == "onnx":  # where a name can stand for one value only
        taken = {value.name for value in inputs}
        outputs = tuple(replace(v, name=v.name + OUT * (v.name in taken)) for v in outputs)
    return Metadata(
        kind,
        inputs,
        outputs,
        call_sites=tuple(v.name[len(MAPS) :] for v in outputs if v.name.startswith(MAPS)),
        target=_target(job.target),
        options=job.options.to_json(),
        device=examples[0][0].device.type,
        info=dict(info or {}),
        versions=versions(),
        preprocessing=None if preprocessing is None else dataclasses.asdict(preprocessing),
        class_names=None if class_names is None else tuple(map(str, class_names)),
    )


def signature(exported: ExportedProgram) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """Inputs and outputs in the order of the flat call, named by their place in the result."""
    found = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    spec, graph = exported.call_spec, exported.graph_signature
    result = pytree.tree_unflatten(list(graph.user_outputs), spec.out_spec)
    outputs, _ = pytree.tree_flatten_with_path(result)
    return (tuple(_value(name, found[name]) for name in graph.user_inputs),
            tuple(_value(".".join(map(_key, path)), found[name]) for path, name in outputs)
            )  # fmt: skip


def _key(step: Any) -> str:
    """The key, or index, of one step into a result."""
    return str(getattr(step, "key", getattr(step, "idx", step)))


def _value(name: Any, value: Any) -> Value:
    """Name, shape with N for the batch, the one size that is open, and dtype."""
    sizes = (size if isinstance(size, int) else re.sub(r"\bs\d+\b", "N", str(size))
             for size in value.shape)  # fmt: skip
    return Value(str(name), tuple(sizes), str(value.dtype).removeprefix("torch."))


def _target(target: Any) -> dict[str, Any]:
    """What is explained, as plain data."""
    if target is None:
        return {"kind": "class"}
    if isinstance(target, Similarity):
        metric = target.metric if isinstance(target.metric, str) else _name(target.metric)
        return {"kind": "similarity", **vars(target), "metric": metric}
    return {"kind": "function", "name": _name(target)}


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


def run_once(
    path: Path, metadata: Metadata, program: fx.GraphModule, inputs: tuple[Tensor, ...]
) -> None:
    """Runs a new artefact on images of noise; ONNX models where there is an onnxruntime.

    inputs: as the program takes them, for their shapes; their numbers are drawn anew.

    Raises:
        ArtefactError: it can't be loaded or run, and why; or its outputs are not the program's.
    """
    device = inputs[0].device
    if metadata.kind == "onnx":
        try:
            onnxruntime = required("onnxruntime", extra="onnx", what="", error=ArtefactError)
        except ArtefactError:
            return
        if PROVIDERS.get(device.type) not in onnxruntime.get_available_providers():
            device = torch.device("cpu")
    given = [_noise(x) for x in inputs]
    failed = ArtefactError(f"{RUNTIMES[metadata.kind]} can't run the model: …")
    with raised_as(failed, Exception):
        run = OPENERS[metadata.kind](path, metadata, device)
        found = run([x.to(device) for x in given])
    with torch.no_grad():
        wanted = pytree.tree_leaves(plain_program(program)(*given))
    _compare(metadata, found, wanted)


def _noise(x: Tensor) -> Tensor:
    """Numbers from 0 to 1 for images; class indices stay."""
    if not x.is_floating_point():
        return x
    generator = torch.Generator().manual_seed(0)
    return torch.rand(x.shape, generator=generator).to(x)


def _compare(metadata: Metadata, found: list[Tensor], wanted: list[Tensor]) -> None:
    """ArtefactError: other outputs, other shapes, or other numbers in the model's own output."""
    names = [value.name for value in metadata.outputs]
    if len(found) != len(names):
        raise _other(f"{len(found)} outputs", f"{len(names)}")
    for name, a, b in zip(names, found, wanted, strict=True):
        if a.shape != b.shape:
            raise _other(f"{name} of shape {list(a.shape)}", f"{list(b.shape)}")
        if name.partition(".")[0] == "output" and b.is_floating_point() and b.numel():
            a, b = a.double().cpu().nan_to_num(), b.double().cpu().nan_to_num()
            off, largest = float((a - b).abs().max()), float(b.abs().max())
            if off > CLOSE * largest:
                raise _other(f"{name} that differs by {off:.2g}", f"{largest:.2g} at most")


def _other(what: str, wanted: str) -> ArtefactError:
    return ArtefactError(f"the file computes something else than the program: {what}; wanted "
                         f"{wanted}.  Its runtime or exporter is at fault: try another format, or "
                         "another release of it")  # fmt: skip

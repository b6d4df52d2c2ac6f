"""annotate_values: what every traced node yields, static shapes with the batch left open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from naflow_fx import keys
from naflow_fx.errors import BY_ITSELF, TargetError, TraceError, first_line
from naflow_fx.passes import _graph, _module
from naflow_fx.passes.find_flow import score_of
from naflow_fx.passes.trace import fake_run, runs
from naflow_fx.rules import class_score
from naflow_fx.targets import OfOneSample


@dataclass(frozen=True)
class TensorValue:
    """A tensor: static shape (-1 where it depends on the batch size) and dtype.

    Attributes:
        merged: whether such a dimension is longer than the batch: several rows per image.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    merged: bool = False


@dataclass(frozen=True)
class BatchDependent:
    """A number that depends on the batch size; only a shape may use it.

    Attributes:
        is_size: whether it is the batch size itself.
    """

    is_size: bool = False


def annotate_values(
    gm: fx.GraphModule, examples: Sequence[Tensor], images_per_sample: int = 1
) -> fx.GraphModule:
    """Every node gets `keys.VALUE`.

    Before: a traced graph.  After: the same graph; a node's value is a `TensorValue`, a tuple,
    a plain constant, or `BatchDependent`.  Nothing is computed: fake tensors run it with
    batches of two and of three samples, of `images_per_sample` images each, and what differs
    depends on the batch.

    Raises:
        TraceError: the model doesn't run on inputs of the example's size, or for every batch.
        TargetError: a class is explained, and the output is not [N, classes].
    """
    new = _module.copy(gm)
    sizes = (2 * images_per_sample, 3 * images_per_sample)
    two, three = (run_fake(new, examples, size) for size in sizes)
    for node in new.graph.nodes:
        if node in two:
            node.meta[keys.VALUE] = _merge(two[node], three[node], sizes)
    return new


def check_values(gm: fx.GraphModule, target: Any) -> None:
    """The score is one number per sample; a target of ONE sample has the first's.

    Raises:
        TargetError: it is not, and what it is.
    """
    score = score_of(gm.graph)
    value = score.meta.get(keys.VALUE)
    shape = (1,) if isinstance(target, OfOneSample) else (-1,)
    if not isinstance(value, TensorValue) or value.shape != shape:
        found = value
        if isinstance(value, TensorValue):
            found = f"[{', '.join('N' if size == -1 else str(size) for size in value.shape)}]"
        column = "  Take its [:, 0]." if found == "[N, 1]" else ""
        raise TargetError(
            f"target: the score has shape {found}; wanted one number per sample, [N]."
            f"{column}  Callables of ONE sample's output go to the call in a list, one per image"
        )
    if score.target is class_score.forward:
        output = score.all_input_nodes[0].meta[keys.VALUE].shape
        if len(output) not in (1, 2):
            raise _no_classes(output)


def run_fake(gm: fx.GraphModule, examples: Sequence[Tensor], size: int) -> dict[fx.Node, Any]:
    """What every node yields on a batch of `size`, as fake tensors."""
    found, error = fake_run(gm, examples, size)
    if error is None:
        return found
    node = next((n for n in gm.graph.nodes if n not in found), None)
    if node is not None and node.target is class_score.forward:
        _refuse_output(found[node.all_input_nodes[0]], size)
    if node is not None and node.meta.get(keys.TARGET):
        _refuse_target(gm, found, error)
    place = f"{node.meta.get(keys.SITE)} ({node.meta.get(keys.WHERE)})" if node else "?"
    shapes = ", ".join(_shape(x.shape) for x in examples)
    raise TraceError(
        f"the model doesn't run on a batch of {size} of shape {shapes}: "
        f"at {place}: {_line(error)}\n  {_hint(gm, node, examples, size)}"
    ) from error


def _refuse_output(output: Tensor, size: int) -> None:
    if output.dim() and len(output) != size:
        raise TargetError(f"the model returns {list(output.shape)} for {size} images, not one row "
                          f"per image.  {BY_ITSELF}")  # fmt: skip
    raise _no_classes(output.shape)


def _no_classes(shape: Sequence[int]) -> TargetError:
    segment = "; of a segmentation, nf.targets.segment(class) (--target segment:CLASS)"
    hint = segment if len(shape) == 4 else ""
    return TargetError(
        f"target: the model returns {_shape(shape)}, not [N, classes]; give nf.compile a target= "
        f"that makes one number per sample of it{hint}"
    )


def _refuse_target(gm: fx.GraphModule, found: dict[Any, Any], error: Exception) -> None:
    """The model ran; what fails is the callable that is explained."""
    result: Any = gm.graph.output_node().args[0]
    output = map_aggregate(result["output"], lambda n: _described(found.get(n)))
    raise TargetError(
        f"target: the callable fails on the model's output: {_line(error)}\n"
        f"  It gets {output}, and returns one number per sample, [N]"
    ) from error


def _line(error: Exception) -> str:
    return first_line(error).replace("FakeTensor", "Tensor")


def _described(value: Any) -> str:
    return _shape(value.shape) if isinstance(value, Tensor) else f"[{value}]"


def _shape(shape: Sequence[int]) -> str:
    """A shape with the batch as N."""
    return f"[{', '.join(map(str, ('N', *shape[1:])))}]"


def _hint(gm: fx.GraphModule, at: fx.Node | None, examples: Sequence[Tensor], failed: int) -> str:
    """What to do about a model that doesn't run on a batch of `failed`."""
    dtype = examples[0].dtype
    weights = {p.dtype for p in gm.parameters() if p.is_floating_point()}
    if weights and dtype not in weights:
        own = next(iter(weights))
        return f"The example is {dtype}, the model's weights are {own}: use example.to({own})."
    for change, words in _OTHERWISE:
        if examples[0].dim() in (3, 4) and runs(gm, [change(x) for x in examples]):
            return words
    for node in at.all_input_nodes if at else ():
        kept = _graph.attribute(gm, str(node.target)) if node.op == "get_attr" else None
        if isinstance(kept, Tensor) and not isinstance(kept, nn.Parameter) and kept.dim() > 1:
            return (f"The model keeps a tensor {list(kept.shape)} that does not fit: one that an "
                    "earlier call left, or that was made for one batch size.  Give a model that "
                    "was not called yet, or make it anew in forward.")  # fmt: skip
    own_batch = len(examples[0])
    if own_batch == failed or not runs(gm, examples, own_batch):
        return "Give an example of the size that the model takes."
    return (
        f"It runs on the example's batch of {own_batch}, and must take any: in "
        "forward, x.shape[0] stays open where len(x) is a number.  For an "
        "ExportedProgram that is torch.export.export(model, (x,), "
        "dynamic_shapes=({0: torch.export.Dim.AUTO},))."
    )


_OTHERWISE: tuple[tuple[Callable[[Tensor], Tensor], str], ...] = (
    (lambda x: x[None], "The example has no batch dimension: use example[None]."),
    (lambda x: x.movedim(-1, 1), "Channels come first, [N, C, ...space]: use "
     "example.movedim(-1, 1), and the same for the images."),
)  # fmt: skip


def _merge(a: Any, b: Any, sizes: tuple[int, int]) -> Any:
    if isinstance(a, Tensor):
        shape = tuple(int(i) if i == j else -1 for i, j in zip(a.shape, b.shape, strict=True))
        merged = any(i > sizes[0] for i, j in zip(a.shape, b.shape, strict=True) if i != j)
        return TensorValue(shape, a.dtype, merged)
    if isinstance(a, (list, tuple)):
        return tuple(_merge(x, y, sizes) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return {key: _merge(a[key], b[key], sizes) for key in a}
    if isinstance(a, torch.SymInt):
        a, b = int(a), int(b)
    return a if a == b else BatchDependent(is_size=(a, b) == sizes)

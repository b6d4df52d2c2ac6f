"""annotate_values: what every traced node yields, static shapes with the batch left open."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode

from naflow_fx import keys
from naflow_fx.errors import TargetError, TraceError
from naflow_fx.passes import _graph
from naflow_fx.passes.trace import example_batch
from naflow_fx.rules import class_score


@dataclass(frozen=True)
class TensorValue:
    """A tensor: static shape (-1 where it depends on the batch size) and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class BatchDependent:
    """A number that depends on the batch size; only a shape may use it.

    Attributes:
        is_size: whether it is the batch size itself.
    """

    is_size: bool = False


def annotate_values(
    gm: fx.GraphModule, examples: Sequence[Tensor], rows: int = 1
) -> fx.GraphModule:
    """Every node gets `keys.VALUE`.

    Before: a traced graph.  After: the same graph; a node's value is a `TensorValue`, a tuple,
    a plain constant, or `BatchDependent`.  Nothing is computed: fake tensors run it with
    batches of two and of three samples, of `rows` images each, and what differs depends on the
    batch.

    Raises:
        TraceError: the model doesn't run on inputs of the example's size, or for every batch.
        TargetError: a class is explained, and the output is not [N, classes].
    """
    new = _graph.copy(gm)
    sizes = (2 * rows, 3 * rows)
    two, three = (run_fake(new, examples, size) for size in sizes)
    for node in new.graph.nodes:
        if node in two:
            node.meta[keys.VALUE] = _merge(two[node], three[node], sizes)
    return new


class _Recorder(fx.Interpreter):
    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self.at: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        self.at = n
        return super().run_node(n)


def run_fake(gm: fx.GraphModule, examples: Sequence[Tensor], size: int) -> dict[fx.Node, Any]:
    """What every node yields on a batch of `size`, as fake tensors."""
    recorder = _Recorder(gm)
    inputs = [example_batch(x, size) for x in examples]
    with torch.no_grad(), _own_words(), FakeTensorMode(allow_non_fake_inputs=True) as mode:
        try:
            recorder.run(*_inputs(gm, [mode.from_tensor(x) for x in inputs]))
        except Exception as error:
            node = recorder.at
            if node is not None and node.target is class_score.forward:
                _refuse_output(recorder.env[node.all_input_nodes[0]])
            place = f"{node.meta.get(keys.SITE)} ({node.meta.get(keys.WHERE)})" if node else "?"
            raise TraceError(
                f"the model doesn't run on a batch of {size} of shape {_shapes(inputs)}: "
                f"at {place}: {str(error).splitlines()[0]}\n  {_hint(gm, examples, size)}"
            ) from error
    return recorder.env


@contextmanager
def _own_words() -> Iterator[None]:
    """Without torch's hundred lines of log on a fake run that fails: the error says it in two.

    What other threads log meanwhile is left alone.
    """
    log, here = logging.getLogger("torch._subclasses.fake_tensor"), threading.get_ident()

    def is_of_others(record: logging.LogRecord) -> bool:
        return record.thread != here

    log.addFilter(is_of_others)
    try:
        yield
    finally:
        log.removeFilter(is_of_others)


def _refuse_output(output: Tensor) -> None:
    shape = ", ".join(map(str, ("N", *output.shape[1:])))
    raise TargetError(f"target: the model returns [{shape}], not [N, classes]; give nf.compile a "
                      "target= that makes one number per sample of it")  # fmt: skip


def _hint(gm: fx.GraphModule, examples: Sequence[Tensor], failed: int) -> str:
    """What to do about a model that doesn't run on a batch of `failed`."""
    own = len(examples[0])
    try:
        if own == failed:
            raise TraceError
        run_fake(gm, examples, own)
    except TraceError:
        return "Give an example of the size that the model takes."
    return (
        f"It runs on the example's batch of {own}, and must take any.  For an ExportedProgram that "
        "is torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))."
    )


def _inputs(gm: fx.GraphModule, images: list[Tensor]) -> list[Tensor]:
    """The images, and class indices where the graph takes them."""
    count = sum(node.op == "placeholder" for node in gm.graph.nodes)
    if count == len(images):
        return images
    classes = torch.zeros(len(images[0]), dtype=torch.int64, device=images[0].device)
    return [*images, classes]


def _shapes(images: list[Tensor]) -> str:
    return ", ".join(f"[N, {', '.join(map(str, x.shape[1:]))}]" for x in images)


def _merge(a: Any, b: Any, sizes: tuple[int, int]) -> Any:
    if isinstance(a, Tensor):
        shape = tuple(int(i) if i == j else -1 for i, j in zip(a.shape, b.shape, strict=True))
        return TensorValue(shape, a.dtype)
    if isinstance(a, (list, tuple)):
        return tuple(_merge(x, y, sizes) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return {key: _merge(a[key], b[key], sizes) for key in a}
    if isinstance(a, torch.SymInt):
        a, b = int(a), int(b)
    return a if a == b else BatchDependent(is_size=(a, b) == sizes)

"""Explainer: the generated GraphModule, and how a user calls it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_map

from naflow_fx import keys
from naflow_fx.errors import InputError
from naflow_fx.flow import TRUST, AttentionFlow
from naflow_fx.guards.records import like, pick
from naflow_fx.guards.weights import Place, Weights, place_of
from naflow_fx.guards.wrappers import unwrapped
from naflow_fx.inspection import Inspection, inspect_graph
from naflow_fx.job import Build, Job
from naflow_fx.options import Options
from naflow_fx.similarity import Similarity
from naflow_fx.targets import OfOneSample, Score, callables, class_indices

if TYPE_CHECKING:
    from naflow_fx.artefacts import Kind

Images = Tensor | Sequence[Tensor]

KEPT = 16  # programs of targets given with a call; each holds kernels of its own


class Explainer(nn.Module):
    """Explains a model's decisions: ``flow = explainer(images)``.

    Made by `naflow_fx.compile`.  It holds ONE generated `torch.fx.GraphModule`, which shares the
    model's tensors and can be read, printed, compiled and exported; moving the explainer leaves
    the model where it is.

    It follows its model: where weights have changed since the last call (training,
    `load_state_dict`, ``model.to()``, another head), the program is compiled again before it is
    used.  Write to weights under `torch.no_grad()`: torch keeps no account of what is written
    through ``p.data`` or numpy, which is seen where it reaches a tensor's first or last number.

    Attributes:
        graph_module: the program; ``(image, target: int64 [N])`` -> dictionary, or ``(image)``
            where a callable target was compiled in.
        layers: names of the call sites that are computed, in forward order.
        options: how it was compiled.
    """

    def __init__(self, graph_module: fx.GraphModule, job: Job, build: Build) -> None:
        super().__init__()
        self._build = build
        self._last: dict[str, Any] = {}
        self._hold(graph_module, job)

    def _hold(self, program: fx.GraphModule, job: Job) -> None:
        """This program of this job is what is called from now on."""
        self._modules["graph_module"] = program
        self._job, self._of_model = job, place_of(job.model)
        self._weights = Weights(unwrapped(job.model), program.meta.get(keys.READ, ()))
        self._shapes = [tuple(x.shape[1:]) for x in job.examples]
        build = self._build
        self._of_target = lru_cache(KEPT)(lambda target: build(replace(job, target=target)))

    @property
    def graph_module(self) -> fx.GraphModule:
        """The program, of the weights that the model has now."""
        if self._weights.changed():
            self._follow()
        return self._current

    @property
    def _current(self) -> fx.GraphModule:
        """The program as it is, for what has looked at the weights before."""
        found = self._modules["graph_module"]
        assert isinstance(found, fx.GraphModule)
        return found

    def _follow(self) -> None:
        """Compiles again; where the model has moved, the explainer moves along.

        Raises:
            What `naflow_fx.compile` raises; the next call tries again.
        """
        job, place = self._job, _place(self._current, self._job)
        now = place_of(job.model)
        if now is not None and now != self._of_model:
            job, place = replace(job, examples=tuple(x.to(*now) for x in job.examples)), now
        with torch.no_grad():
            self._hold(_at(place, self._build(job), job), job)

    @property
    def layers(self) -> list[str]:
        """Names of the computed call sites, in forward order."""
        return list(_result(self.graph_module)["maps"])

    @property
    def classes(self) -> int | None:
        """Number K of classes where the model's output is a row of scores [N, K]; else None."""
        return classes_of(self.graph_module, self.options.output)

    @property
    def options(self) -> Options:
        """How it was compiled."""
        return self._job.options

    def forward(self, images: Images, target: Any = None) -> AttentionFlow:
        """Maps of every call site for images [N, C, H, W].

        Args:
            images: as the model takes them, of the example's size; any batch size.  A tuple of
                them for a model of several image inputs.
            target: None (the predicted class), an int, N ints, an int64 tensor [N], a callable
                of the model's output that returns [N], or N callables, each of ONE sample's
                output.

        Raises:
            InputError: images of another shape or dtype than compiled.
            TargetError: a target that doesn't fit.
        """
        inputs = self._check(images)
        with torch.no_grad():
            found = self._job.target if target is None else callables(target, len(inputs[0]))
            if isinstance(found, list):
                return self._one_by_one(inputs, found)
            if found is not None:
                return self._flow(self._program(found)(*inputs))
            program = self._program(None)
            classes = classes_of(program, self.options.output)
            chosen = class_indices(target, len(inputs[0]), classes, inputs[0].device)
            return self._flow(program(*inputs, chosen))

    def attribute(self, inputs: Images, target: Any = None) -> AttentionFlow:
        """The same as calling the explainer, under the name that captum's users know."""
        flow: AttentionFlow = self(inputs, target)
        return flow

    def compiled(self, mode: str | None = None) -> Explainer:
        """The same explainer, its program compiled whole by torch.compile when first called.

        Args:
            mode: of torch.compile: "reduce-overhead" (CUDA graphs), "max-autotune", ...; None:
                "default".

        Raises:
            OptionError: no such mode.
        """
        from naflow_fx.artefacts.compiled import build_compiled, compiled

        device = self._like().device.type
        build = partial(build_compiled, self._build, device, mode)
        return type(self)(compiled(self._current, device, mode), self._job, build)

    def export(self, path: str | Path, **facts: Any) -> Path:
        """Writes a .pt2 of torch.export, any batch size; it runs without this package.

        Its signature is ``(image, target: int64 [N], -1: predicted) -> {"output", "score",
        "maps": {call site: [N, H, W]}, ...}``; without ``target`` where one was compiled in,
        ``(query, support)`` for a similarity.

        Args:
            path: ends in .pt2; its folder is made.
            facts: what the file is to tell: ``preprocessing=`` (a `models.Preprocessing`),
                ``class_names=`` and ``info=`` (a mapping of plain data).

        Raises:
            ArtefactError: torch.export refuses.  OSError: nothing is written.
        """
        return self._write("pt2", path, facts)

    def package(self, path: str | Path, **facts: Any) -> Path:
        """Writes an AOTInductor package for this explainer's device, for Python and C++.

        Signature and arguments are those of `export`.

        Raises:
            ArtefactError: no C++ compiler, or it can't be compiled.  OSError: nothing is written.
        """
        return self._write("aoti", path, facts)

    def to_onnx(self, path: str | Path, **facts: Any) -> Path:
        """Writes an ONNX model, its outputs named ``maps.layer1.0.conv1`` and the like.

        Signature and arguments are those of `export`; path ends in .onnx.  The solver multiplies
        in float32 there (``precision="float32"``).  Needs the extra ``naflow-fx[onnx]``.

        Raises:
            ArtefactError: ONNX can't express an operator, which it names, or packages are
                missing.  OSError: nothing is written.
        """
        return self._precise()._write("onnx", path, facts)

    def _precise(self) -> Explainer:
        """This explainer, or one of the same job whose solver keeps to float32."""
        inverse = replace(self.options.inverse, precision="float32")
        if inverse == self.options.inverse:
            return self
        job = replace(self._job, options=replace(self.options, inverse=inverse))
        return _load(type(self), job, self._build, *_place(self.graph_module, self._job))

    def _write(self, kind: Kind, path: str | Path, facts: dict[str, Any]) -> Path:
        from naflow_fx.artefacts.writing import write

        like = self._like()
        return write(kind, path, self._current, self._job, like, **facts)

    def inspect(self, flow: AttentionFlow | None = None) -> Inspection:
        """The program step by step: print it, or ask for JSON, a networkx graph, DOT or SVG.

        Args:
            flow: whose residuals, norm ratios and sigma_max it shows, means over its images;
                None: the last run's, if there was one.
        """
        run = self._last if flow is None else vars(flow)
        model = type(self._job.model).__name__
        return inspect_graph(self.graph_module, self.options, run, model)

    def _repr_html_(self) -> str:
        """What a notebook shows: the layers and how each is inverted, block by block."""
        from naflow_fx.view.notebook import of_explainer

        return of_explainer(self.inspect(), self.options.method)

    def __enter__(self) -> Explainer:
        """Nothing to set up: there are no hooks."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to remove."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Explainer:
        """A copy with tensors of its own; the model stays shared, for targets compiled later."""
        program = copy.deepcopy(self.graph_module, memo)
        return type(self)(program, self._job, self._build)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as the job, and compiled again when loaded: the model must be picklable."""
        place = _place(self.graph_module, self._job)
        return _load, (type(self), self._job, self._build, *place)

    def _check(self, images: Any) -> list[Tensor]:
        dtype = self._like().dtype
        given = list(images) if isinstance(images, (list, tuple)) else [images]
        if len(given) != len(self._shapes):
            raise InputError(f"images: got {len(given)}; the model takes {len(self._shapes)}, "
                             "a tuple of batches [N, ...], or one tensor")  # fmt: skip
        for x, shape in zip(given, self._shapes, strict=True):
            check_image("images", x, shape, dtype)
            if not len(x):
                raise InputError(f"images: got no image, {list(x.shape)}; wanted N >= 1")
        return given

    def _like(self) -> Tensor:
        """A tensor of the program's dtype and device; the program is of the weights as they are."""
        return _own(self.graph_module, self._job)

    def _program(self, target: Score | Similarity | None) -> fx.GraphModule:
        """The program of a target, made on first use and moved along; the last few are kept."""
        if target == self._job.target:
            return self._current
        return _at(_place(self._current, self._job), self._of_target(target), self._job)

    def _one_by_one(self, inputs: list[Tensor], functions: list[Score]) -> AttentionFlow:
        """One program per callable, one image at a time: no image changes another's result."""
        images = zip(*(torch.split(x, 1) for x in inputs), strict=True)
        results = [self._program(OfOneSample(function))(*image)
                   for function, image in zip(functions, images, strict=True)]  # fmt: skip
        return self._flow(tree_map(_joined, *results))

    def _flow(self, result: dict[str, Any]) -> AttentionFlow:
        output = like(self._current.meta.get(keys.FORM), result["output"])
        flow = AttentionFlow.of_result(
            {**result, "output": output}, self._shapes[0][1:], self.options.to_json()
        )
        self._last = {part: getattr(flow, part) for part in TRUST}
        return flow


def _load(kind: type[Explainer], job: Job, build: Build, *place: Any) -> Explainer:
    """A pickled explainer, compiled again."""
    with torch.no_grad():
        return kind(_at(place, build(job), job), job, build)


def _own(program: fx.GraphModule, job: Job) -> Tensor:
    """One of the model's own tensors in a program, of the example's dtype if any is; or this."""
    example = job.examples[0]
    own = [b for name, b in program.named_buffers()
           if "folded_" not in name and b.is_floating_point()]  # fmt: skip
    return next((b for b in own if b.dtype == example.dtype), own[0] if own else example)


def _place(program: fx.GraphModule, job: Job) -> Place:
    own = _own(program, job)
    return own.device, own.dtype


def _at(place: Place, program: fx.GraphModule, job: Job) -> fx.GraphModule:
    """A program on a device, in a dtype; as it is where it is there."""
    return program if _place(program, job) == place else program.to(*place)


def check_image(name: str, x: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """One image input against what was compiled."""
    wanted = f"[N, {', '.join(map(str, shape))}]"
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: got {type(x).__name__}; wanted a tensor {wanted}")
    if tuple(x.shape) == shape:
        raise InputError(f"{name}: got one image {list(x.shape)}, without a batch dimension; use "
                         f"{name}[None]")  # fmt: skip
    if tuple(x.shape[1:]) != shape:
        raise InputError(
            f"{name}: got {list(x.shape)}; this explainer was compiled for {wanted}.  "
            "Resize the images, or nf.compile(model, an example of their size)"
        )
    if x.dtype != dtype and not torch.is_autocast_enabled():
        raise InputError(f"{name}: got {x.dtype}; this explainer computes in {dtype}.  "
                         f"Use images.to({dtype}), or explainer.to({x.dtype})")  # fmt: skip


def _result(program: fx.GraphModule) -> Any:
    """What the program returns, as nodes."""
    return program.graph.output_node().args[0]


def classes_of(program: fx.GraphModule, which: Any) -> int | None:
    """Number of classes, where the explained output is a row of scores, or one number."""
    output = pick(_result(program)["output"], which)
    shape: Any = output.meta.get(keys.SHAPE, ()) if isinstance(output, fx.Node) else ()
    return {1: 1, 2: shape[-1]}.get(len(shape)) if shape else None


def _joined(*parts: Any) -> Any:
    """One entry of the results of single images, as it is in the batch's."""
    return torch.cat(parts) if isinstance(parts[0], Tensor) else parts[0]

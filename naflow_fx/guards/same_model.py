"""Whether the traced graph is the user's model: its outputs, gradients and batches, its hooks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from naflow_fx.errors import BY_ITSELF, TargetError, TraceError, raised_as
from naflow_fx.guards.records import pick, plain
from naflow_fx.guards.wrappers import hooks_of
from naflow_fx.job import Job
from naflow_fx.passes.copy_model import evaluated
from naflow_fx.passes.trace import module_of

HALF = (torch.float16, torch.bfloat16)
TF32 = 2.0**-10  # eps of its ten bits
Model = Callable[..., Any]


class _Answer(NamedTuple):
    """What a model makes of images: its floating point outputs, and d (some sum) / d images.

    `gradients` is None where autograd can't tell.
    """

    outputs: list[Tensor]
    gradients: list[Tensor] | None


def check_same_model(gm: fx.GraphModule, job: Job, compiled: Callable[[Job], Any]) -> None:
    """The canonical graph computes what the model computes, and has its gradients.

    Both run on the example and on random images of its range, in float32 at least: a rounded
    output hides what a graph leaves out.

    Args:
        gm: the canonical graph, with outputs ``{"output", "score", ...}``.
        job: its model, example and target.
        compiled: runs the passes up to here, with this check, on another job.

    Raises:
        TraceError: it doesn't, or the model mixes the images of a batch, draws random numbers,
            or has hooks that change what it computes.
    """
    exported = isinstance(job.model, torch.export.ExportedProgram)
    model = module_of(job.model) if exported else job.model
    first, second = (_images(job, seed) for seed in (1, 2))
    gpus = {x.device for x in first if x.is_cuda} if torch.cuda.is_available() else ()
    with torch.random.fork_rng(list(gpus)):
        if not exported:
            _check_hooks(model, first)
        precise = _in_float32(replace(job, model=model)) if first[0].dtype in HALF else None
        if precise is not None:
            compiled(precise)
            return
        twin = evaluated(model, torch.clone)
        wanted = _answer(twin, first)
        _check_batch(twin, wanted, first, second, job)
        normal = not any(t.is_inference() for t in (*gm.parameters(), *gm.buffers()))
        _compare(_answer(lambda *x: _run(gm, x, job)["output"], first, normal), wanted)
        if callable(job.target):
            _check_target(gm, twin, first, second, job)


def _images(job: Job, seed: int) -> list[Tensor]:
    """Of each input the example's first sample, and one at random in the example's range."""
    first = [x[: job.images_per_sample] for x in job.examples]
    return [torch.cat([x, _random(x, seed)]) for x in first]


def _random(x: Tensor, seed: int) -> Tensor:
    """Images between the smallest and the largest number of x; of order one if x is constant.

    Drawn by arithmetic, where x is: no generator is asked, and none is needed on that device.
    """
    count = torch.arange(x.numel(), device=x.device, dtype=torch.float32).reshape(x.shape)
    drawn = ((count * 12.9898 + seed).sin() * 43758.5453).frac().abs().to(x.dtype)
    low = torch.where(x.isfinite(), x, torch.inf).amin()
    high = torch.where(x.isfinite(), x, -torch.inf).amax()
    low, high = (torch.where(high > low, a, b) for a, b in ((low, -1.0), (high, 1.0)))
    return drawn * (high - low) + low


def _in_float32(job: Job) -> Job | None:
    """The same job in float32; None if the model insists on half precision."""
    twin = evaluated(job.model, lambda t: t.float() if t.dtype in HALF else t.clone())
    examples = tuple(x.float() for x in job.examples)
    try:
        with torch.enable_grad():
            _outputs(twin, [x[: job.images_per_sample].clone().requires_grad_() for x in examples])
    except Exception:
        return None
    return replace(job, model=twin, examples=examples)


def _run(gm: fx.GraphModule, images: Sequence[Tensor], job: Job) -> Any:
    classes = torch.full((len(images[0]),), -1, device=images[0].device)
    failed = TraceError("the traced graph doesn't run on the example: ….  Usual cause: a constant "
                        "made for the whole batch is joined to the images (a class token)"
                        )  # fmt: skip
    with raised_as(failed, RuntimeError):
        return gm(*images, *((classes,) if job.target is None else ()))


def _answer(model: Model, images: Sequence[Tensor], tracked: bool = True) -> _Answer:
    """What a model answers; without gradients where tensors were made in inference mode."""
    with torch.set_grad_enabled(tracked):
        inputs = [x.detach().clone().requires_grad_() for x in images]
        outputs = _outputs(model, inputs)
        return _Answer(outputs, _gradients(outputs, inputs) if tracked else None)


def _outputs(model: Model, inputs: Sequence[Tensor]) -> list[Tensor]:
    return _floating(model(*(x.clone() for x in inputs)))


def _floating(output: Any) -> list[Tensor]:
    """The floating point tensors of a model's output."""
    found = tree_leaves(plain(output))
    return [y for y in found if isinstance(y, Tensor) and y.is_floating_point()]


def _gradients(outputs: list[Tensor], inputs: list[Tensor]) -> list[Tensor] | None:
    """d sum(cos(i) y_i) / d inputs, a sum in which nothing cancels by symmetry."""
    terms = [(y * torch.arange(y.numel(), device=y.device).reshape(y.shape).cos().to(y)).sum()
             for y in outputs if y.requires_grad]  # fmt: skip
    if not terms:
        return [torch.zeros_like(x) for x in inputs]
    try:
        return list(torch.autograd.grad(sum(terms), inputs, materialize_grads=True))  # type: ignore[arg-type]
    except RuntimeError:  # something that backward needs was overwritten
        return None


def _own_functions(outputs: list[Tensor]) -> set[str]:
    """The torch.autograd.Functions, with a backward of their own, behind some tensors."""
    found, seen = set[str](), set[Any]()
    todo: list[Any] = [y.grad_fn for y in outputs]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [before for before, _ in node.next_functions]
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found.add(type(node).__name__.removesuffix("Backward"))
    return found


def _check_hooks(model: nn.Module, images: list[Tensor]) -> None:
    """Hooks that only look are fine; maps would not know of hooks that change something."""
    hooks = [f"{path or 'the model'}: {getattr(hook, '__qualname__', type(hook).__name__)}"
             for path, module in model.named_modules() for hook in hooks_of(module)]  # fmt: skip
    if not hooks:
        return
    with torch.compiler.set_stance("force_eager"):  # hooks of a compiled model, without compiling
        without, having = (_answer(evaluated(model, torch.clone, h), images) for h in (False, True))
    if _difference(without.outputs, having.outputs) or _gradient_error(without, having) > 1e-3:
        raise TraceError(
            f"a hook changes what the model computes: {'; '.join(hooks)}.  Maps can't "
            "follow hooks: remove it, or write into forward what it does"
        )


def _check_batch(
    model: Model, before: _Answer, first: list[Tensor], second: list[Tensor], job: Job
) -> None:
    """A sample's outputs are the same beside another image, and when asked again."""
    count = job.images_per_sample
    last = [torch.cat([b[count:], a[count:]]) for a, b in zip(first, second, strict=True)]
    for images, part in ((first, slice(None)), (second, slice(count)), (last, slice(count, None))):
        with torch.enable_grad():  # for a forward that puts hooks on gradients
            again = _outputs(model, [x.clone().requires_grad_() for x in images])
        a, b = ([y[part] for y in ys if y.dim() and len(y) == 2 * count]
                for ys in (before.outputs, again))  # fmt: skip
        if _difference(a, b):
            raise _unsteady(type(job.model).__name__, images is first)


def _unsteady(model: str, asked_again: bool) -> TraceError:
    if asked_again:
        return TraceError(f"{model} gives another output when it is asked again; it draws random "
                          "numbers in eval mode (dropout called without training=self.training, "
                          "noise), or keeps something of earlier calls")  # fmt: skip
    return TraceError(f"{model} mixes the images of a batch; one image's output changes with "
                      f"another's.  {BY_ITSELF}")  # fmt: skip


def _check_target(
    gm: fx.GraphModule, model: Model, first: list[Tensor], second: list[Tensor], job: Job
) -> None:
    """A callable scores every image by itself; traced, it gives what it gives when called."""
    score, other = (_run(gm, images, job)["score"].reshape(-1) for images in (first, second))
    if _difference([score[:1]], [other[:1]]):
        raise TargetError("target: one image's score changes with another's; wanted a callable "
                          "that computes nothing over the batch dimension")  # fmt: skip
    target: Any = job.target
    with torch.enable_grad():  # for a forward that puts hooks on gradients
        output = model(*(x.clone().requires_grad_().clone() for x in first))
        failed = TargetError(
            f"target: traced, the callable {target!r} gives a score; called, it fails: …"
        )
        with raised_as(failed, Exception):
            seen = output if job.options.output is None else pick(output, job.options.output)
            wanted = target(seen).detach().reshape(-1)
    largest = max((float(y.abs().max()) for y in _floating(output) if y.numel()), default=0.0)
    if _difference([wanted], [score], largest):
        raise TargetError(
            f"target: traced, the callable {target!r} gives another score than "
            f"called ({score.tolist()} for {wanted.tolist()}).  Compute it from the "
            "output's values and shapes alone: while it is traced, isinstance and "
            "the like see no tensor"
        )


def _compare(found: _Answer, wanted: _Answer) -> None:
    difference = _difference(wanted.outputs, found.outputs)
    if difference:
        raise TraceError(
            f"the traced graph computes something else than the model ({difference}). "
            " Usual causes: writing in place into a view, branches on tensor values, "
            "numbers that an earlier call left in the model"
        )
    error = _gradient_error(found, wanted)
    if error > 1e-2:
        functions = ", ".join(sorted(_own_functions(wanted.outputs)))
        cause = (
            f"a torch.autograd.Function with a backward of its own ({functions}); write what it "
            "does with torch's operators and detach()"
            if functions
            else "hooks on tensors that change gradients, writing in place into what detach() gives"
        )
        raise TraceError(
            "the traced graph computes what the model computes, but its gradient is "
            f"another one (relative difference {error:.2g} at the input).  Usual "
            f"cause: {cause}"
        )


def _difference(wanted: list[Tensor], found: list[Tensor], least: float = 0.0) -> str:
    """Where two lists of outputs differ by more than rounding; empty if they don't.

    `least`: the size of numbers that they were computed from, if these are larger.
    """
    if [y.numel() for y in wanted] != [y.numel() for y in found]:
        return f"outputs {[list(y.shape) for y in found]}, not {[list(y.shape) for y in wanted]}"
    for a, b in zip(wanted, found, strict=True):
        if not a.numel():
            continue
        if bool((a.isnan() != b.reshape(a.shape).isnan()).any()):
            return "values that are no numbers in other places"
        scale = max(float(a.double().abs().nan_to_num().max()), least)
        difference = (a.double() - b.double().reshape(a.shape)).abs().nan_to_num().max()
        if difference > _tolerance(a) * scale:
            return f"difference {float(difference):.2g} at outputs of {scale:.2g}"
    return ""


def _tolerance(y: Tensor) -> float:
    """Of outputs, as a share of the largest; on CUDA float32 may be multiplied in TF32."""
    if y.is_cuda and y.dtype == torch.float32:
        return 16 * TF32
    return torch.finfo(y.dtype).eps * (16 if y.dtype in HALF else 1000)


def _gradient_error(a: _Answer, b: _Answer) -> float:
    """|a - b| / max(|a|, |b|) of the gradients, the worst input's; 0 where autograd can't tell."""
    if a.gradients is None or b.gradients is None:
        return 0.0
    worst = 0.0
    for x, y in zip(a.gradients, b.gradients, strict=True):
        x, y = x.double().nan_to_num(), y.double().nan_to_num()
        worst = max(worst, float((x - y).norm() / max(x.norm(), y.norm(), torch.tensor(1e-300))))
    return worst

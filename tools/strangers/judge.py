"""One network's row: its importance against hooks on the network itself, or why there is none."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import naflow_fx as nf
from naflow_fx.errors import NaflowError, NaflowWarning, first_line

from .networks import Network

Recorded = dict[str, list[Tensor]]
LARGE = 60  # modules; networks above are explained by a method without an inverse
BOUND = 1e-9  # largest relative error of the importance


def judge(network: Network) -> dict[str, Any]:
    """The row of a network: a verdict, call sites, what is missing, the error, words.

    The verdict is "right", "refused" (by a `NaflowError`), "wrong" (the importance, or a map that
    is not finite), "silent" (a layer's site is missing, and no warning said so), "raw" (another
    error) or "unbuilt" (the package's own network doesn't run here).
    """
    try:
        model, x = network.build(), network.images()
        recorded, views, output = record(model, x)
    except Exception as error:
        return {"verdict": "unbuilt", "words": _named(error)}
    try:
        return _compared(model, x, recorded, views, output)
    except NaflowError as error:
        return {"verdict": "refused", "words": _named(error)}
    except Exception as error:
        return {"verdict": "raw", "words": _named(error)}


def _named(error: Exception) -> str:
    """An error's first line, or two where the first counts what the others name."""
    lines = [line.strip() for line in str(error).splitlines()[:2] if line.strip()]
    first = first_line(error) if "no rule" not in first_line(error) else ": ".join(lines)
    return f"{type(error).__name__}: {first[:300]}"


@contextmanager
def _exact_hardsigmoid() -> Iterator[None]:
    """torch's own derivative of it is a sixth in float32, also where all else is float64."""
    own = F.hardsigmoid
    F.hardsigmoid = lambda input, inplace=False: F.relu6(input + 3) / 6
    try:
        yield
    finally:
        F.hardsigmoid = own


def record(model: nn.Module, x: Tensor) -> tuple[Recorded, set[str], Any]:
    """What every call of every module returned, where that has space, and the model's output.

    Modules that return a view of another's values are named: they need no site of their own.

    A copy goes on from each module, so that what later works in place changes no record.  Where a
    module works in place, others may read the same tensor: it is recorded itself, and left out
    if it was written to again.
    """
    found: dict[str, list[tuple[Tensor, int]]] = {}
    views, viewed, versions = set[str](), dict[int, Tensor](), dict[str, dict[int, int]]()

    def keep(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
            if not (isinstance(output, Tensor) and output.is_floating_point()):
                return None
            same = any(output is x for x in tree_leaves(inputs))
            if same and output._version == versions[name][id(output)]:
                return None  # an identity, which exported programs don't have
            made = output if same else output.clone()
            made = made if made.requires_grad else made.requires_grad_()
            if _has_space(made, x) and ".parametrizations." not in f"{name}.":
                found.setdefault(name, []).append((made, made._version))
            back = output if same else made.clone()
            if output._is_view() or id(output) in viewed:
                views.add(name)
                viewed[id(back)] = back  # it stays, and so does its id
            return back

        return hook

    def note(name: str) -> Callable[..., Any]:
        def hook(module: nn.Module, inputs: Any) -> None:
            versions[name] = {
                id(t): t._version for t in tree_leaves(inputs) if isinstance(t, Tensor)
            }

        return hook

    named = [(name, m) for name, m in model.named_modules() if name]
    handles = [m.register_forward_pre_hook(note(name)) for name, m in named]
    handles += [m.register_forward_hook(keep(name)) for name, m in named]
    with _exact_hardsigmoid():
        output = model(x)
    for handle in handles:
        handle.remove()
    kept = {k: v for k, v in found.items() if all(t._version == before for t, before in v)}
    return {k: [t for t, _ in v] for k, v in kept.items()}, views, output


def _has_space(output: Tensor, x: Tensor) -> bool:
    """Whether an output looks like [N, C, ...space] of the input's rank, a signal's also as 2-d."""
    if x.dim() == 4:  # [N, C, 1] may be a channel gate's
        return output.dim() == 4 and min(output.shape[2:]) > 1
    ranks = (3, 4) if x.dim() == 3 else (5,)
    return output.dim() in ranks and output[0, 0].numel() > 1


def _compared(
    model: nn.Module, x: Tensor, recorded: Recorded, views: set[str], output: Any
) -> dict[str, Any]:
    path = _path(output)
    target = None if path == () and output.dim() == 2 else _Score(path, output)
    large = sum(1 for _ in model.modules()) > LARGE
    options: Any = {"method": "hirescam"} if large else {"inverse": nf.Inverse(steps=1)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        explainer = nf.compile(model, x, target=target, keep="importance", **options)
    flow = explainer(x)
    score = target(output) if target else output.gather(1, flow.target[:, None])[:, 0]
    wanted = _gradients(score, recorded)
    unfound, error = _against(model, wanted, flow.importance)
    missing = [name for name in unfound if name not in views]
    told = [str(w.message) for w in caught if isinstance(w.message, NaflowWarning)]
    finite = all(bool(m.isfinite().all()) for m in flow.maps.values())
    verdict = ("wrong" if error > BOUND or not finite else
               "silent" if missing and not told else "right")  # fmt: skip
    words = [*told] + ([] if finite else ["maps are not finite"])
    if missing and not told:
        words.append(f"missing: {', '.join(missing[:3])}")
    return {"verdict": verdict, "method": "hirescam" if large else "naflow",
            "sites": len(flow.importance), "hooked": len(wanted), "missing": len(missing),
            "error": error, "words": " ".join(words)}  # fmt: skip


class _Score:
    """[N] of an output: its predicted class's logit, or the mean of its first channel."""

    def __init__(self, path: tuple[Any, ...], output: Any) -> None:
        self.path, self.rank = path, 0
        self.rank = self._read(output).dim()

    def __call__(self, output: Any) -> Any:
        found = self._read(output)
        if self.rank < 3:
            return found.amax(1) if self.rank == 2 else found
        return found[:, 0].flatten(1).mean(1)

    def _read(self, output: Any) -> Any:
        for step in self.path:
            output = getattr(output, step) if isinstance(step, str) else output[step[0]]
        return output


def _path(output: Any) -> tuple[Any, ...]:
    """How the first tensor of an output is read: attributes as str, keys in a tuple of one."""
    if isinstance(output, Tensor):
        return ()
    if hasattr(output, "logits"):
        return ("logits",)
    key = next(iter(output)) if isinstance(output, Mapping) else 0
    return ((key,), *_path(output[key]))


def _gradients(score: Tensor, recorded: Recorded) -> dict[str, list[Tensor]]:
    """d score / d record, of those that the score depends on."""
    flat = [t for ts in recorded.values() for t in ts]
    grads = iter(torch.autograd.grad(score.sum(), flat, allow_unused=True))
    found = {name: [next(grads) for _ in ts] for name, ts in recorded.items()}
    return {k: v for k, v in found.items() if all(g is not None for g in v)}


def _paths(model: nn.Module) -> dict[str, list[str]]:
    """By a module's first path: all its paths."""
    paths: dict[int, list[str]] = {}
    for name, m in model.named_modules(remove_duplicate=False):
        paths.setdefault(id(m), []).append(name)
    return {found[0]: found for found in paths.values()}


def _against(
    model: nn.Module, wanted: dict[str, list[Tensor]], importance: Mapping[str, Tensor]
) -> tuple[list[str], float]:
    """Modules without a site, and the largest relative error of the others' importance.

    A module that is a call site has its path; one of several operators, or of several paths, has
    what it returned at one of the sites under them.
    """
    missing, worst, paths = [], 0.0, _paths(model)
    first = {id(m): name for name, m in model.named_modules()}
    for name, gradients in wanted.items():
        inside = [p for m in model.get_submodule(name).modules() for p in paths[first[id(m)]]]
        under = [g for site, g in importance.items()
                 if any(f"{site}.".startswith(f"{path}.") for path in inside)
                 or re.sub(r"_\d+$", "", site) in inside]  # fmt: skip
        for i, gradient in enumerate(gradients):
            own = importance.get(f"{name}_{i}" if i else name) if len(paths[name]) == 1 else None
            errors = [_error(g, gradient) for g in ([own] if own is not None else under)
                      if g.shape == gradient.shape]  # fmt: skip
            if not errors or (own is None and min(errors) > BOUND):
                missing.append(name)
            else:
                worst = max(worst, min(errors))
    return missing, worst


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm().clamp(min=1e-300))

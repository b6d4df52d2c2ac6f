"""Maps are those of the user's model, or an error names what it does that they can't follow."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from against_hooks import hooked, largest_error
from shelf import class_one, fill, images
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

import naflow_fx as nf
from naflow_fx.errors import GraphError, NaflowError, NaflowWarning, TraceError

X = images((3, 12, 12))
prune: Any = importlib.import_module("torch.nn.utils.prune")


class Net(nn.Module):
    """Two convolutions and a head; `body(self, x)` is what comes before the pooling."""

    def __init__(self, body: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.next = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.head, self.body = nn.Linear(8, 5), body

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self, x).mean((2, 3)))
        return logits


def net(body: Callable[[Any, Tensor], Tensor] = lambda s, x: s.next(s.conv(x).relu())) -> nn.Module:
    return fill(Net(body)).double().eval()


def refused(model: nn.Module, message: str | None, x: Tensor = X, kind: Any = TraceError) -> None:
    with pytest.raises(kind, match=message):
        nf.compile(model, x)


# What the model computes, in half precision, too.


def into_a_view(s: Any, x: Tensor) -> Tensor:
    h: Tensor = s.conv(x)
    h[:, :2] *= 3
    return h


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_the_trace_leaves_out_is_an_error_in_every_precision(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    refused(net(into_a_view).to(dtype), "computes something else", x)
    refused(net(lambda s, x: F.dropout(s.conv(x))).to(dtype), "draws random numbers", x)
    refused(net(lambda s, x: s.conv(x) + torch.rand(1, 8, 1, 1, dtype=x.dtype)).to(dtype), None, x)
    model = net().to(dtype)
    model.conv.register_forward_hook(lambda m, i, o: o * 2)  # type: ignore[union-attr]
    refused(model, "a hook changes .* conv: ", x)
    assert nf.compile(net().to(dtype), x)(x).maps["conv"].isfinite().all()


def test_an_example_of_zeros_hides_nothing() -> None:
    def scaled(s: Any, x: Tensor) -> Tensor:
        h: Tensor = s.conv(x)
        h[:, :] *= 3
        return h

    model = net(scaled)
    model.conv.bias = model.head.bias = None  # type: ignore[union-attr]
    refused(model, "computes something else", torch.zeros_like(X))


# Its gradients.


def detached(s: Any, x: Tensor) -> Tensor:
    h = s.conv(x).relu()
    out: Tensor = h + s.next(h).detach() * h
    return out


def by_data(s: Any, x: Tensor) -> Tensor:
    h = s.conv(x).relu()
    out: Tensor = h * s.next(h).data.sigmoid()
    return out


def in_a_block(s: Any, x: Tensor) -> Tensor:
    h = s.conv(x).relu()
    with torch.no_grad():
        size = h.shape[1]
        first, second = s.next(h).chunk(2, 1)
        second = second.tanh()
    assert size is not None
    out: Tensor = torch.cat([first, second], 1) * h
    return out


class Swish(torch.autograd.Function):
    """A function whose own backward is its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        out: Tensor = x * torch.sigmoid(x)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        out: Tensor = grad * s * (1 + x * (1 - s))
        return out


class Reversed(torch.autograd.Function):
    """Gradient reversal."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


BODIES = [detached, by_data, in_a_block, lambda s, x: s.next(Swish.apply(s.conv(x)))]


@pytest.mark.parametrize("body", BODIES, ids=["detach", "data", "no_grad", "function"])
def test_gradients_stop_where_autograds_do(body: Any) -> None:
    error, sites = largest_error(net(body), X, class_one)
    assert error < 1e-9 and "conv" in sites


def test_a_backward_of_its_own_is_refused_by_name() -> None:
    refused(net(lambda s, x: s.next(Reversed.apply(s.conv(x)))), r"gradient is .*\(Reversed\)")
    model = net()
    model.conv.register_full_backward_hook(  # type: ignore[union-attr]
        lambda m, i, o: tuple(g.abs() for g in i)  # type: ignore[attr-defined]
    )
    refused(model, "a hook changes")


class Quiet(nn.Module):
    """All of it without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Any:
        return self.net(x)


def overwritten(s: Any, x: Tensor) -> Tensor:
    h = s.conv(x)
    h.detach().relu_()
    out: Tensor = s.next(h)
    return out


def hooked_tensor(s: Any, x: Tensor) -> Tensor:
    h: Tensor = s.conv(x)
    if h.requires_grad:
        h.register_hook(lambda g: g * 2)  # type: ignore[no-untyped-call]
    return h


@pytest.mark.parametrize("body", [overwritten, hooked_tensor])
def test_other_gradients_are_refused(body: Any) -> None:
    refused(net(body), "its gradient is another one.*hooks on tensors")


def test_a_score_without_gradient_is_refused() -> None:
    refused(Quiet(), "no call site", kind=GraphError)


def test_call_sites_behind_the_last_stop_are_told_of() -> None:
    with pytest.warns(NaflowWarning, match="stops at detach .*2 call sites.* x to conv$"):
        flow = nf.compile(net(lambda s, x: s.next(s.conv(x).detach())), X)(X)
    assert not flow.maps["conv"].any() and flow.maps["next"].any()


# Hooks, patched forwards, computed weights: the layers as they run.


def equalised(module: Any) -> None:
    """Equalised learning rate, as StyleGAN's repositories write it."""
    weight = module.weight
    del module._parameters["weight"]
    module.register_parameter("weight_orig", nn.Parameter(weight.data))
    module.register_forward_pre_hook(lambda m, i: setattr(m, "weight", m.weight_orig * 0.3))


def old_weight_norm(module: nn.Module) -> None:
    with pytest.warns(FutureWarning):
        weight_norm(module)


class Same(nn.Conv2d):
    """A convolution with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(F.pad(x, (1, 1, 1, 1))) * 2
        return out


class Standardised(nn.Conv2d):
    """A convolution that overrides what torch's forward calls."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        centred = weight - weight.mean((1, 2, 3), keepdim=True)
        out: Tensor = super()._conv_forward(input, centred, bias)
        return out


class Constrained(nn.Conv2d):
    """A largest norm of each kernel, as EEGNet's code keeps it."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=0.5)
        return super().forward(x)


class Outside(nn.Module):
    """Computes the weight of the layer that it holds, as SAGAN's spectral norm does."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        module.register_parameter("weight_bar", module._parameters.pop("weight"))

    def forward(self, x: Tensor) -> Any:
        w: Any = self.module.weight_bar
        self.module.weight = w / w.flatten(1).norm()
        return self.module(x)


class Cosine(nn.Linear):
    """A linear layer of directions."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight)) * 4


def patched(model: Any) -> None:
    model.conv.forward = lambda x, own=model.conv.forward: own(x) * 3


def closed_over(model: Any) -> None:
    own = model.conv.forward
    model.conv.forward = lambda x: own(x) * 3


def of_a_notebook(model: Any) -> None:
    """What is a closure in a function is a global in a notebook."""
    names: dict[str, Any] = {"model": model}
    exec("own = model.conv.forward\nmodel.conv.forward = lambda x: own(x) * 3", names)


def patched_root(model: Any) -> None:
    own = model.forward
    model.forward = lambda x: own(x) * 3


def first_layer(make: Callable[[nn.Module], Any]) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        model.conv = make(model.conv)

    return change


def made_of(kind: Any, *sizes: int) -> Callable[[nn.Module], Any]:
    return lambda _: fill(kind(*sizes)).double()


CHANGES: dict[str, Callable[[Any], Any]] = {
    "pruned": lambda m: prune.l1_unstructured(m.conv, "weight", 0.5),
    "pruned twice": lambda m: [prune.random_structured(m.conv, n, 0.3, 0) for n in ("weight",) * 2],
    "pruned bias": lambda m: prune.l1_unstructured(m.conv, "bias", 0.5),
    "pruned globally": lambda m: prune.global_unstructured(
        [(m.conv, "weight"), (m.next, "weight")], prune.L1Unstructured, amount=0.4),
    "equalised": lambda m: equalised(m.conv),
    "old weight norm": lambda m: old_weight_norm(m.conv),
    "old spectral norm": lambda m: spectral_norm(m.conv),
    "weight norm": lambda m: parametrizations.weight_norm(m.conv),
    "spectral norm of a class": first_layer(
        lambda c: parametrizations.spectral_norm(made_of(Same, 3, 8, 3)(c))),
    "weight norm of a class": first_layer(
        lambda c: parametrizations.weight_norm(made_of(Standardised, 3, 8, 3)(c))),
    "a class": first_layer(made_of(Standardised, 3, 8, 3)),
    "constrained": first_layer(made_of(Constrained, 3, 8, 3)),
    "computed outside": lambda m: setattr(m, "conv", Outside(m.conv)),
    "cosine head": lambda m: setattr(
        m, "head", parametrizations.weight_norm(made_of(Cosine, 8, 5)(m.head))),
    "patched": patched, "patched, a closure": closed_over, "patched root": patched_root,
    "patched in a notebook": of_a_notebook,
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_layers_are_explained_as_they_run(change: str) -> None:
    model = net()
    CHANGES[change](model)
    model.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flow = nf.compile(model, X)(X)
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    torch.testing.assert_close(flow.output, model(X).detach())
    error, sites = largest_error(model, X, class_one)
    assert error < 1e-9 and "next" in sites


def test_hooks_that_look_see_nothing_fake_and_stay() -> None:
    model, seen, means = net(), list[Tensor](), list[float]()
    model.conv.register_forward_hook(lambda m, i, o: seen.append(o))  # type: ignore[union-attr]
    model.next.register_forward_hook(lambda m, i, o: means.append(float(o.detach().mean())))  # type: ignore[union-attr]
    flow = nf.compile(model, X)(X)
    assert seen == [] and means == []
    model(X)
    assert len(seen) == len(means) == 1
    torch.testing.assert_close(flow.output, model(X).detach())


# Autocast.


def rounded(s: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h: Tensor = s.conv(x)
    return h.float()


def precise(s: Any, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        h: Tensor = s.conv(x)
    return h


class Decorated(nn.Module):
    """All of it in autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net().float()

    @torch.autocast("cpu", dtype=torch.bfloat16)  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor) -> Any:
        return self.net(x)


def test_compiling_inside_autocast_is_compiling_outside() -> None:
    model, x = net().float(), X.float()
    wanted = nf.compile(model, x)(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        explainer = nf.compile(model, x)
        assert type(model(x)) is Tensor and model(x).dtype == torch.bfloat16
        assert explainer(x).output.dtype == torch.bfloat16
    found = explainer(x)
    assert all(torch.equal(found.maps[k], v) for k, v in wanted.maps.items())


def test_autocast_inside_forward_is_refused() -> None:
    refused(net(rounded).float(), r"autocast .* at conv \(test_same_model.py:\d+\)", X.float())
    refused(Decorated().eval(), "autocast .* at net.conv", X.float())
    error, _ = largest_error(net(precise), X, class_one)
    assert error < 1e-9


# The user's model stays as it was.


class Counting(nn.Module):
    """Writes to its own tensors whenever it is called, in eval mode, too."""

    calls: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("scale", torch.full((8, 1, 1), 2.0))
        self.kept: list[Any] = []

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.scale.clamp_(max=1.0)
        h = self.conv(x) * self.scale
        self.kept.append(h)
        logits: Tensor = self.head(h.mean((2, 3)))
        return logits


def test_a_model_that_writes_to_itself_is_not_written_to() -> None:
    model = Counting().double().eval()
    model.scale.fill_(2.0)
    before = copy.deepcopy(model.state_dict())
    flow = nf.compile(model, X)(X)
    assert model.kept == []
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    torch.testing.assert_close(flow.output, model(X).detach())
    nf.compile(model, X)  # what an earlier call left does not matter
    hooked(model, X, class_one)


class Kept:
    """Something of the user's own."""

    last: Any = None


class Remembers(nn.Module):
    """Keeps a tensor, then does what torch.fx can't follow."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.kept = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), Kept()

    def forward(self, x: Tensor) -> Any:
        h = self.conv(x) + (0.0 if self.kept.last is None else self.kept.last.mean() * 0)
        self.kept.last = h
        n, channels, _, _ = x.shape
        assert channels == 3
        return self.head(h.mean((2, 3)).view(n, 8))


def test_what_a_failed_trace_left_does_not_count() -> None:
    model = fill(Remembers()).double().eval()
    flow = nf.compile(model, X)(X)
    assert model.kept.last is None  # type: ignore[union-attr]
    torch.testing.assert_close(flow.output, model(X).detach())


class Overwrites(nn.Module):
    """Writes over what it is given, as some normalise."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: Tensor) -> Any:
        x -= 0.5
        return self.net(x)


def test_an_input_that_is_overwritten() -> None:
    model, x = Overwrites(), X.clone()
    flow = nf.compile(model, x, target=class_one)(x.clone())
    assert torch.equal(x, X)
    torch.testing.assert_close(flow.output, model(x.clone()).detach())


def test_every_error_here_is_one_of_ours() -> None:
    assert issubclass(TraceError, NaflowError) and issubclass(NaflowWarning, UserWarning)

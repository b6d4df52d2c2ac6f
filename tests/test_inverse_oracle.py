"""Z at every call site against a dense float64 oracle that knows nothing of rules and graphs.

The oracle: autograd's Jacobian J of what lies between two call sites, taken at the sample.  In a
piecewise linear network it is the captured map, c = y - J x, and a step from Z_y to Z_x is
``pinv(R J) R (Z_y - c)`` where the inverse is exact or undamped, and
``(J^T R J + damping sigma_max(R J)^2)^-1 J^T R (Z_y - c)`` where it is damped.  R selects the
output neurons that the features depend on, and those of the others that a ReLU cut though c alone
would have left them positive; what a fork's Z is worth inside its region has the former only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from shelf import Reference, class_one, fill, hazard, hazard_images, relative_error, score_of
from torch import Tensor, fx, nn

import naflow_fx as nf
from naflow_fx import keys
from naflow_fx.passes.find_flow import find_flow
from naflow_fx.rules import TABLE
from naflow_fx.solver import least_squares
from naflow_fx.solver.krylov import bidiagonal_least_squares

STEPS = 60  # at damping 0.1 the error shrinks by 0.54 a step; sigma_max takes longer
TOLERANCE = 5e-5
DAMPED = {"least squares", "damped diagonal"}
PIECEWISE_LINEAR = [
    "shared_conv", "reused_relu", "in_place", "pre_activation", "view_flatten", "nested_residual",
    "nested_concat", "inception", "dense_block", "doubled", "channel_shuffle", "two_heads",
    "two_pools", "padding_modes", "standardised_conv", "overwritten_copy",
]  # fmt: skip
VIEWS = {rule.name for rule in TABLE if rule.view}


class Flow:
    """The maps of one hazard and image, and the network's own values by call site."""

    def __init__(self, model: nn.Module, x: Tensor, name: str = "", **inverse: Any) -> None:
        self.inverse = nf.Inverse(**{"steps": STEPS, **inverse})
        self.explainer = nf.compile(
            model, x, target=score_of(name), keep=("bpfm", "importance"), inverse=self.inverse
        )
        self.flow = self.explainer(x)
        self.reference = Reference(model, x)
        graph = self.explainer.graph_module.graph
        self.nodes = {n.name: n for n in graph.nodes}
        self.features = [self.site(n.name) for n in find_flow(graph).features]
        self.rows = {row.layer: row for row in self.explainer.inspect().rows}

    def site(self, node: str) -> str:
        return str(self.nodes[node].meta[keys.SITE])

    def value(self, site: str) -> Tensor:
        """The forward activation; of the joined features: all of them, flattened."""
        if site == "features":
            return torch.cat([self.reference.values[f].flatten(1) for f in self.features], 1)
        return self.reference.values[site]

    def z(self, site: str) -> Tensor:
        return self.value(site).detach() if site == "features" else self.flow.bpfm[site]

    def jacobian(self, entry: str, exit: str) -> Tensor:
        """d exit / d entry, [q, p], of one image."""
        x, y = self.value(entry), self.value(exit)
        basis = torch.eye(y.numel(), dtype=y.dtype).reshape(-1, *y.shape)
        rows = torch.autograd.grad(
            y, x, basis, retain_graph=True, is_grads_batched=True, allow_unused=True
        )[0]
        if rows is None:  # another branch
            return torch.zeros(y.numel(), x.numel(), dtype=y.dtype)
        return rows.reshape(y.numel(), x.numel())

    def used(self, site: str) -> Tensor:
        """1 for neurons that a feature depends on, else 0, flat."""
        if site in (*self.features, "features"):
            return torch.ones_like(self.value(site).flatten().detach())
        parts = [self.jacobian(site, feature).abs().sum(0) for feature in self.features]
        return (torch.stack(parts).sum(0) > 0).double()

    def is_rectified(self, site: str) -> bool:
        """Whether a ReLU reads a call site, also through views."""
        read = [n for n in self.nodes.values() if n.meta.get(keys.SITE) == site]
        for node in read:  # which grows
            read += [user for user in node.users if user.meta.get(keys.RULE) in VIEWS]
        return any(user.meta.get(keys.RULE) == "relu" for n in read for user in n.users)

    def affine(self, entry: str, exit: str, v: Tensor) -> Tensor:
        """What the captured map makes of v at `entry`, flat."""
        x, y = self.value(entry).detach().flatten(), self.value(exit).detach().flatten()
        return y + self.jacobian(entry, exit) @ (v.flatten() - x)


def pinv(a: Tensor) -> Tensor:
    """A^+; singular values below 1e-10 of the largest count as 0."""
    found: Tensor = torch.linalg.pinv(a, rtol=1e-10)
    return found


def step(flow: Flow, entry: str, exit: str, damped: bool) -> Tensor:
    """The oracle of one inverse step, flat."""
    j, inverse = flow.jacobian(entry, exit), flow.inverse
    x, y = flow.value(entry).detach().flatten(), flow.value(exit).detach().flatten()
    b = flow.z(exit).flatten() - (y - j @ x)
    if not damped:
        return pinv(j) @ b
    rows = equations(flow, entry, exit)
    a, b = rows[:, None] * j, rows * b
    if inverse.damping == 0:
        return pinv(a) @ b
    shift = inverse.damping * torch.linalg.matrix_norm(a, 2) ** 2
    eye = torch.eye(a.shape[1], dtype=a.dtype)
    solved: Tensor = torch.linalg.solve(a.T @ a + shift * eye, a.T @ b)
    return solved


def equations(flow: Flow, entry: str, exit: str) -> Tensor:
    """R: which output neurons of the least squares between two call sites have an equation."""
    j = flow.jacobian(entry, exit)
    inputs, c = j.shape[1], flow.affine(entry, exit, torch.zeros(j.shape[1], dtype=j.dtype))
    kept = torch.ones(flow.value(exit).numel(), dtype=torch.float64)
    if flow.inverse.rows == "leading" and len(kept) > inputs:
        kept[inputs:] = 0
    if flow.inverse.rows != "used":
        return kept
    cut = flow.is_rectified(exit) & (flow.value(exit).detach().flatten() <= 0)
    return torch.where(cut & (c > 1e-9), 1, flow.used(exit))  # y - J x is 0 but for rounding


def exit_of(flow: Flow, site: str) -> str:
    """The call site at the output of the step that made Z of a site."""
    node = next(n for n in flow.nodes.values()
                if n.meta.get(keys.SITE) == site and keys.STEP in n.meta)  # fmt: skip
    last = node.meta[keys.STEP].operators[-1]
    return "features" if last == "features" else flow.site(last)


def region_of(flow: Flow, site: str) -> tuple[str, str]:
    found = re.fullmatch(r".* (\S+) -> (\S+)", flow.rows[site].region)
    assert found
    return found[1], found[2]


def oracle(flow: Flow, site: str) -> Tensor | None:
    """What Z of a site should be, from Z of the sites above it; None where Z starts."""
    kind = flow.rows[site].kind
    if kind in DAMPED or kind == "exact":
        exit = exit_of(flow, site)
        if exit not in (*flow.flow.bpfm, "features"):  # a view on the way: part of no site
            return None
        return step(flow, site, exit, kind in DAMPED)
    if kind == "propagated":
        entry, _ = region_of(flow, site)
        return flow.affine(entry, site, flow.flow.bpfm[entry]) * flow.used(site)
    return flow.value(site).detach().flatten() if kind == "start" else None


def image(name: str) -> Tensor:
    """One image, small where the network allows: the oracle is dense."""
    x = hazard_images(name, batch=1)
    return x if name == "view_flatten" else x[..., :8, :8]


def compare(flow: Flow, tolerance: float) -> dict[str, str]:
    """Checks every call site; returns the kinds that were."""
    checked = {}
    for site, row in flow.rows.items():
        wanted = oracle(flow, site)
        if wanted is not None:
            found = flow.flow.bpfm[site].flatten()
            assert relative_error(found, wanted) < tolerance, (site, row)
            checked[site] = row.kind
    assert "least squares" in checked.values()
    return checked


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_every_call_site_of_the_hazards(name: str) -> None:
    compare(Flow(hazard(name), image(name), name), TOLERANCE)


OPTIONS: dict[str, dict[str, Any]] = {
    "damping": {"damping": 0.01, "steps": 90},
    "all": {"rows": "all"},
    "leading": {"rows": "leading"},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["in_place", "nested_concat", "dense_block", "pre_activation"])
def test_options(name: str, option: str) -> None:
    compare(Flow(hazard(name), image(name), name, **OPTIONS[option]), TOLERANCE)


class Small(nn.Module):
    """Few enough numbers for an undamped inverse to converge: a residual block and a layer."""

    def __init__(self, channels: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, padding=1)
        self.conv, self.bn = nn.Conv2d(channels, channels, 1), nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(self.bn(self.conv(x)) + x)
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def test_without_damping_it_is_the_moore_penrose_inverse() -> None:
    x = image("in_place")[..., :4, :4]
    flow = Flow(fill(Small()).double(), x, damping=0, steps=4000)
    assert "least squares" in compare(flow, 1e-5).values()


def test_the_papers_equation_6_on_a_square_invertible_block() -> None:
    """x = W^-1 (z - b), W the layer as a dense matrix with as many outputs as inputs."""
    model = nn.Sequential(
        nn.Conv2d(3, 3, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    fill(model)
    model[0].weight.data[range(3), range(3), 1, 1] += 2  # type: ignore[index, operator]
    x = image("in_place")[..., :4, :4]
    flow = Flow(model.double(), x, damping=0, steps=2000)
    w = flow.jacobian("input", "0")
    assert w.shape[0] == w.shape[1] and torch.linalg.cond(w) < 1e3
    bias = flow.value("0").detach().flatten() - w @ x.flatten()
    wanted = torch.linalg.solve(w, flow.flow.bpfm["0"].flatten() - bias)
    assert relative_error(flow.flow.bpfm["input"].flatten(), wanted) < 1e-8


class TwoInputs(nn.Module):
    """Paths from two inputs that merge: no fork that could be solved."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = torch.relu(self.a(x) + self.b(y))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


def test_what_a_merge_of_inputs_leaves_for_each_branch() -> None:
    """Z of the sum less what the other branch computed."""
    x, y = image("in_place"), image("in_place")[:, :2].flip(3)
    model: Any = fill(TwoInputs()).double()
    flow = nf.compile(model, (x, y), keep="bpfm")((x, y))
    others: Any = {"a": model.b(y), "b": model.a(x)}
    for site, other in others.items():
        wanted = flow.bpfm["add"] - other.detach()
        torch.testing.assert_close(flow.bpfm[site], wanted)


def test_what_is_brought_back_in_a_region_agrees_with_its_fork() -> None:
    """Abandoned neurons are 0 inside, and only they: what a mask's own inverse gives."""
    flow = Flow(hazard("nested_residual"), image("nested_residual"))
    inside = [site for site, row in flow.rows.items() if row.kind == "propagated"]
    abandoned = 0
    for site in inside:
        used, z = flow.used(site) > 0, flow.flow.bpfm[site].flatten()
        assert not z[~used].any() and z[used].any()
        abandoned += int((~used).sum())
    assert len(inside) >= 4 and abandoned


def test_residual_and_norm_ratio_are_what_they_say() -> None:
    flow = Flow(hazard("in_place"), image("in_place"))
    for site, row in flow.rows.items():
        z, y = flow.flow.bpfm[site], flow.value(site).detach()
        torch.testing.assert_close(flow.flow.norm_ratio[site][0], z.norm() / y.norm())
        if row.kind == "start":
            assert float(flow.flow.residual[site]) == 0
            continue
        if row.kind == "propagated":  # that of the step that solved the outermost region
            solved = region_of(flow, site)[0]
            assert float(flow.flow.residual[site]) == float(flow.flow.residual[solved])
            continue
        exit = exit_of(flow, site)
        j, x = flow.jacobian(site, exit), y.flatten()
        b = flow.z(exit).flatten() - (flow.value(exit).detach().flatten() - j @ x)
        rows = equations(flow, site, exit) if row.kind in DAMPED else torch.ones_like(b)
        wanted = (rows * (j @ z.flatten() - b)).norm() / (rows * b).norm()
        torch.testing.assert_close(flow.flow.residual[site][0], wanted, rtol=1e-6, atol=1e-9)


def sigma_of(flow: Flow, site: str) -> float:
    """The largest singular value of the equations that the step of a site inverts."""
    exit = exit_of(flow, site)
    j = flow.jacobian(site, exit)
    return float(torch.linalg.matrix_norm(equations(flow, site, exit)[:, None] * j, 2))


@pytest.mark.parametrize(
    "name", ["nested_residual", "inception", "channel_shuffle", "nested_concat"]
)
def test_sigma_max_is_the_jacobians(name: str) -> None:
    """As near as the solver's steps come, from below."""
    many, few = (Flow(hazard(name), image(name), name, steps=steps) for steps in (STEPS, 3))
    damped = {site for site, row in many.rows.items() if row.kind in DAMPED}
    assert damped == set(many.flow.sigma_max)
    joint = [site for site in damped if "joint" in many.rows[site].equation]
    assert joint or name == "channel_shuffle"
    for site in damped:
        wanted = sigma_of(many, site)
        assert float(many.flow.sigma_max[site]) == pytest.approx(wanted, rel=1e-6)
        assert 0.5 * wanted < float(few.flow.sigma_max[site]) < wanted * (1 + 1e-12)


def test_sigma_max_is_each_images_own() -> None:
    x = hazard_images("nested_residual", batch=3)
    explainer = nf.compile(hazard("nested_residual"), x[:1])
    together, sites = explainer(x).sigma_max, set()
    for i in range(3):
        alone = explainer(x[i : i + 1]).sigma_max
        for site, values in together.items():
            assert values.shape == (3,) and values.dtype == x.dtype
            torch.testing.assert_close(values[i : i + 1], alone[site])
            sites |= {site} if values.unique().numel() == 3 else set()
    assert sites == {"relu", "x"}  # a region, a layer: of the equations that an image has


class Gated(nn.Module):
    """A damped diagonal of the image, then one of constants, written without their batch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.tensor([0.5, -3.0, 2.0, 1.0]).reshape(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.tanh(x * torch.sigmoid(x.mean((2, 3), keepdim=True)))
        out: Tensor = self.head(torch.tanh(x * self.scale).mean((2, 3)))
        return out


def test_sigma_max_of_a_damped_diagonal() -> None:
    x = hazard_images("in_place", batch=2)
    explainer = nf.compile(fill(Gated()).double(), x, keep="bpfm")
    flow, model = explainer(x), explainer._job.model
    gate = torch.relu(model.stem(x)).mean((2, 3)).sigmoid().amax(1)
    torch.testing.assert_close(flow.sigma_max["relu"], gate)
    scale: Any = model.scale.detach()
    assert (flow.sigma_max["tanh"] == scale.abs().max()).all()
    z = torch.atanh(flow.bpfm["tanh_1"])
    wanted = scale * z / (scale**2 + 0.1 * scale.abs().max() ** 2)
    torch.testing.assert_close(flow.bpfm["tanh"], wanted)


def test_without_damping_there_is_no_sigma_max() -> None:
    x = hazard_images("nested_residual")
    explainer = nf.compile(hazard("nested_residual"), x, inverse=nf.Inverse(damping=0, steps=9))
    assert explainer(x).sigma_max == {}
    assert all(node.sigma_max is None for node in explainer.inspect().nodes)


def test_a_planted_wrong_inverse_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle is no tautology: a solver that is off by a tenth fails it."""
    right = bidiagonal_least_squares
    monkeypatch.setattr(
        least_squares, "bidiagonal_least_squares", lambda p: (right(p)[0] * 1.1, right(p)[1])
    )
    with pytest.raises(AssertionError):
        compare(Flow(hazard("in_place"), image("in_place"), "in_place"), TOLERANCE)


def test_class_one_is_what_the_hazards_are_explained_for() -> None:
    assert score_of("in_place") is class_one


@pytest.mark.parametrize("dead", [0, 2])
def test_the_residual_of_an_exact_step_is_what_dead_channels_lose(dead: int) -> None:
    norm = nn.BatchNorm2d(6)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), norm, nn.ReLU(), nn.Conv2d(6, 5, 1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    )  # fmt: skip
    fill(model).double().eval()
    with torch.no_grad():
        norm.weight[:dead] = 0
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    explainer = nf.compile(model, x, keep="bpfm")
    flow = explainer(x)
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None
    c = norm.bias - mean * norm.weight * (var + norm.eps).rsqrt()
    wanted = (flow.bpfm["1"] - c[:, None, None].detach()).flatten(2)
    lost = wanted[:, :dead].norm(dim=(1, 2)) / wanted.norm(dim=(1, 2))
    torch.testing.assert_close(flow.residual["0"], lost, rtol=1e-6, atol=0.0)
    names = [node.name for node in explainer.graph_module.graph.nodes]
    assert ("_1_again" in names) == bool(dead)  # nothing is computed where nothing can be lost


BETWEEN: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": nn.Dropout(),
    "reshape": lambda x: x.flatten(2).reshape(x.shape),
    "permute": lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2),
    "pad and crop": lambda x: F.pad(F.pad(x, (1, 1)), (-1, -1)),
    "slice": lambda x: x[:, :, ...],
}


class Rectified(nn.Module):
    """Two convolutions, each with a ReLU, and something between each and its ReLU."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.head, self.between = nn.BatchNorm2d(6), nn.Linear(6, 5), between

    def forward(self, x: Tensor) -> Any:
        """[N, 3, H, W] -> [N, 5]."""
        x = self.between(self.first(x)).relu()
        x = self.between(self.norm(self.second(x))).relu()
        return self.head(F.max_pool2d(x, 2).mean((2, 3)))


@pytest.mark.parametrize("name", BETWEEN)
def test_a_view_in_front_of_a_relu_changes_no_map(name: str) -> None:
    """Its bound is one of what a chain or region ends in, too."""
    x = hazard_images("in_place")
    found, wanted = (
        nf.compile(fill(Rectified(between)).double().eval(), x)(x).maps
        for between in (BETWEEN[name], lambda x: x)
    )
    for site in ("x", "first", "second", "norm"):
        torch.testing.assert_close(found[site], wanted[site])


class Blinded(fx.Interpreter):
    """Runs a program whose inverse is given NaN in place of every forward activation."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        ends = {*(node.name for node in find_flow(gm.graph).features), "features"}
        gates = (n.kwargs["gate"] for n in gm.graph.nodes if n.meta.get(keys.RULE) == "mul")
        self.told = ends | {gate.name for gate in gates if isinstance(gate, fx.Node)}

    def run_node(self, n: fx.Node) -> Any:
        kept = dict(self.env)
        if n.meta.get(keys.PART) in ("use", "inverse"):
            for source in n.all_input_nodes:
                if keys.RULE in source.meta and source.name not in self.told:
                    self.env[source] = torch.full_like(self.env[source], torch.nan)
        value = super().run_node(n)
        self.env = kept
        return value


@pytest.mark.parametrize("name", [*PIECEWISE_LINEAR, "gate", "spatial_gate"])
def test_z_knows_activations_through_features_masks_and_gates_alone(name: str) -> None:
    """Section 3: Z comes from the decision's features, not from what a layer computed."""
    model, x = hazard(name), hazard_images(name)
    explainer = nf.compile(model, x, target=score_of(name), keep="bpfm")
    wanted = explainer(x).bpfm
    found = Blinded(explainer.graph_module).run(x)["bpfm"]
    for site, z in wanted.items():
        torch.testing.assert_close(found[site], z, rtol=0.0, atol=0.0)

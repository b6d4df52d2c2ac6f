"""The solver against closed formulas, and what it promises of rounding and of its groups."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shelf import fill, images, network, relative_error
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import options, solve
from naflow_fx.krylov import (
    Operator,
    Problem,
    bidiagonal_least_squares,
    conjugate_gradient_least_squares,
    largest_singular_value,
)

ROWS, COLUMNS, SAMPLES = 9, 7, 3


def matrices(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def problem(a: Tensor, b: Tensor, damping: float, steps: int) -> Problem:
    """Of matrices [N, q, p] and b [N, q]: every sample has an operator of its own."""
    operator = Operator(
        lambda v: (a @ v.unsqueeze(2)).squeeze(2), lambda w: (a.mT @ w.unsqueeze(2)).squeeze(2)
    )
    return Problem(operator, b, b.new_zeros(len(b), a.shape[2]), damping, steps)


def closed_form(a: Tensor, b: Tensor, damping: float) -> Tensor:
    if not damping:
        shortest: Tensor = (torch.linalg.pinv(a) @ b.unsqueeze(2)).squeeze(2)
        return shortest
    sigma = torch.linalg.matrix_norm(a, 2)[:, None, None]
    gram = a.mT @ a + damping * sigma**2 * torch.eye(a.shape[2], dtype=a.dtype)
    solved: Tensor = torch.linalg.solve(gram, (a.mT @ b.unsqueeze(2))).squeeze(2)
    return solved


A, B = matrices(SAMPLES, ROWS, COLUMNS), matrices(SAMPLES, ROWS, seed=1)


@pytest.mark.parametrize("damping", [1e-6, 0.01, 1.0])
@pytest.mark.parametrize("shape", [(9, 7), (7, 9), (8, 8)])
def test_bidiagonal_is_the_closed_form(damping: float, shape: tuple[int, int]) -> None:
    a, b = matrices(SAMPLES, *shape), matrices(SAMPLES, shape[0], seed=1)
    x, left, _ = bidiagonal_least_squares(problem(a, b, damping, 12))
    assert relative_error(x, closed_form(a, b, damping)) < 1e-8
    explicit = ((a @ x.unsqueeze(2)).squeeze(2) - b).norm(dim=1)
    assert torch.allclose(left, explicit, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("damping", [0.0, 0.01, 1.0])
def test_conjugate_gradients_are_the_closed_form(damping: float) -> None:
    for n in range(SAMPLES):
        a, b = A[n : n + 1], B[n : n + 1]
        sigma = torch.linalg.matrix_norm(a, 2) if damping else None
        x, left = conjugate_gradient_least_squares(problem(a, b, damping, 30), sigma)
        assert relative_error(x, closed_form(a, b, damping)) < 1e-8
        assert torch.allclose(left, ((a @ x.unsqueeze(2)).squeeze(2) - b).norm(dim=1))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_both_solvers_take_the_same_steps(steps: int) -> None:
    """Given the sigma_max that the bidiagonal one found, CGLS reaches the same vector."""
    p = problem(A[:1], B[:1], 0.01, steps)
    x, left, _ = bidiagonal_least_squares(p)
    normal = A[0].mT @ A[0]
    krylov = [A[0].mT @ B[0]]
    for _ in range(steps - 1):
        krylov.append(normal @ krylov[-1])
    basis = torch.linalg.qr(torch.stack(krylov, 1)).Q
    sigma = torch.linalg.matrix_norm(A[0] @ basis, 2)
    y, other = conjugate_gradient_least_squares(p, sigma)
    assert relative_error(x, y) < 1e-9
    assert torch.allclose(left, other)


def test_zero_has_the_solution_zero() -> None:
    """A sample of zeros, one out of A's range, and an operator that is 0: no NaN."""
    a, b = A.clone(), B.clone()
    b[0] = 0
    null = torch.linalg.svd(A[1]).U[:, -1]
    b[1] = null
    a[2] = 0
    for x, left, *_ in (
        bidiagonal_least_squares(problem(a, b, 0.01, 12)),
        conjugate_gradient_least_squares(problem(a, b, 0.01, 12), torch.ones(SAMPLES)),
        conjugate_gradient_least_squares(problem(a, b, 0.0, 12), None),
    ):
        assert x.isfinite().all()
        assert x.abs().max() < 1e-12
        assert torch.allclose(left, b.norm(dim=1))


def test_samples_do_not_see_each_other() -> None:
    together, _, _ = bidiagonal_least_squares(problem(A, B, 0.01, 5))
    loud = B.clone()
    loud[1] *= 1e8
    changed, _, _ = bidiagonal_least_squares(problem(A, loud, 0.01, 5))
    assert torch.allclose(changed[[0, 2]], together[[0, 2]], rtol=1e-12)


def test_rounding_does_not_build_up() -> None:
    """In float32, long after convergence: still the solution, no noise."""
    a, b = A.float(), B.float()
    wanted = closed_form(A, B, 0.01)
    x, _, _ = bidiagonal_least_squares(problem(a, b, 0.01, 60))
    assert relative_error(x.double(), wanted) < 1e-4
    x, _ = conjugate_gradient_least_squares(problem(a[:1], b[:1], 0.0, 500), None)
    assert relative_error(x.double(), closed_form(A[:1], B[:1], 0.0)) < 1e-3


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("known", [True, False])
def test_groups_are_solved_apart(groups: int, known: bool) -> None:
    """Two steps for all groups of a grouped convolution are two steps for each one alone."""
    weight = matrices(6, 6 // groups, 3, 3) * torch.logspace(0, -2, 6).double()[:, None, None, None]
    b = matrices(2, 6, 5, 5, seed=3)
    f = torch.nn.functional
    operator = Operator(
        lambda v: f.conv2d(v, weight, padding=1, groups=groups),
        lambda w: f.conv_transpose2d(w, weight, padding=1, groups=groups),
        groups,
    )
    whole = Problem(operator, b, torch.zeros_like(b), 0.0 if known else 1e-14, 2)
    run: Any = (
        (lambda p: conjugate_gradient_least_squares(p, None)) if known else bidiagonal_least_squares
    )
    found, left, *_ = run(whole)
    size = 6 // groups
    lefts = []
    for g in range(groups):
        rows = slice(g * size, (g + 1) * size)
        operator = Operator(
            lambda v, rows=rows: f.conv2d(v, weight[rows], padding=1),
            lambda w, rows=rows: f.conv_transpose2d(w, weight[rows], padding=1),
        )
        part = Problem(operator, b[:, rows], torch.zeros_like(b[:, rows]), whole.damping, 2)
        alone, rest, *_ = run(part)
        lefts.append(rest)
        assert relative_error(found[:, rows], alone) < 1e-6
    assert torch.allclose(left, torch.stack(lefts).norm(dim=0))


def test_sigma_max() -> None:
    for steps, tolerance in ((solve.POWER_STEPS, 1e-6), (3, 0.2)):
        found = largest_singular_value(
            lambda v: (A.mT @ (A @ v.unsqueeze(2))).squeeze(2), matrices(SAMPLES, COLUMNS), steps
        )
        wanted = torch.linalg.matrix_norm(A, 2)
        assert ((found - wanted).abs() / wanted).max() < tolerance
        assert (found <= wanted * (1 + 1e-6)).all()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))


def test_bfloat16_multiplies_and_nothing_more() -> None:
    """Weights are rounded inside the solver; maps stay near, dtypes and the output stay."""
    model, x = network("resnet18", torch.float32), images((3, 64, 64), 2, torch.float32)
    exact, fast = (
        nf.compile(model, x, inverse=nf.Inverse(precision=precision))
        for precision in ("float32", "bfloat16")
    )
    a, b = exact(x), fast(x)
    assert torch.equal(a.output, b.output)
    assert {m.dtype for m in b.maps.values()} == {torch.float32}
    different = 0
    for site, wanted in a.maps.items():
        assert cosine(b.maps[site], wanted) > 0.999, site
        different += not torch.equal(b.maps[site], wanted)
    assert different > 30
    low = [name for name, b in fast.named_buffers() if b.dtype == torch.bfloat16]
    assert len(low) >= 16


def test_bfloat16_is_for_float32_alone() -> None:
    model, x = network("resnet18"), images((3, 32, 32))
    exact, fast = (
        nf.compile(model, x, inverse=nf.Inverse(steps=2, precision=p))(x)
        for p in ("float32", "bfloat16")
    )
    for site, wanted in exact.maps.items():
        assert torch.equal(fast.maps[site], wanted)


@pytest.mark.parametrize(
    ("amx", "avx512", "wanted"),
    [(True, True, "bfloat16"), (False, True, "bfloat16"), (False, False, "float32")],
)
def test_auto_asks_the_device(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, wanted: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    chosen = options.on_device(options.PRESETS["paper"], torch.device("cpu"))
    assert chosen.inverse.precision == wanted
    explainer = nf.compile(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                           torch.randn(1, 3, 8, 8))  # fmt: skip
    assert explainer.options.inverse.precision == wanted


def test_steps_follow_the_reduction() -> None:
    for reduction, steps in options.STEPS.items():
        chosen = options.resolve("paper", reduction=reduction)
        assert chosen.steps == steps
        assert chosen.steps_apart <= chosen.steps_layer <= steps
        given = options.resolve("paper", reduction=reduction, inverse=nf.Inverse(steps=3))
        assert (given.steps, given.steps_layer, given.steps_apart) == (3, 3, 3)
        weighted = options.resolve(
            "paper", reduction=reduction, inverse=nf.Inverse(weight="importance")
        )
        assert (
            weighted.steps_apart <= weighted.steps_layer <= weighted.steps
            and weighted.steps >= steps
        )


def test_compiled_steps_are_told_apart() -> None:
    """Layers of equal shapes that compute something else: dilated, grouped, of other padding."""
    convolutions = [nn.Conv2d(8, 8, 3, padding=d, dilation=d, groups=g)
                    for d, g in ((1, 1), (2, 1), (1, 1), (2, 2), (1, 2))]  # fmt: skip
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3)]
    for layer in convolutions:
        layers += [nn.ReLU(), layer]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)]
    with torch.no_grad():
        model = fill(nn.Sequential(*layers, *head)).eval()
    x = images((3, 12, 12), 2, torch.float32)
    explainer = nf.compile(model, x, inverse=nf.Inverse(precision="float32", steps=3))
    program = torch.compile(explainer.graph_module, backend="eager", fullgraph=True)
    with torch.no_grad():
        maps = program(x, torch.tensor([0, 1]))["maps"]
    for name, wanted in explainer(x, torch.tensor([0, 1])).maps.items():
        assert torch.equal(maps[name], wanted), name

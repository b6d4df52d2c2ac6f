"""The solver against closed formulas, and what it promises of rounding and of its groups."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from shelf import fill, images, network, relative_error
from torch import Tensor, nn

import naflow_fx as nf
from naflow_fx import options
from naflow_fx.solver.krylov import (
    Problem,
    bidiagonal_least_squares,
    conjugate_gradient_least_squares,
)

ROWS, COLUMNS, SAMPLES = 9, 7, 3


def matrices(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def problem(a: Tensor, b: Tensor, damping: float, steps: int) -> Problem:
    """Of matrices [N, q, p] and b [N, q]: every sample has an operator of its own."""
    return Problem(
        lambda v: (a @ v.unsqueeze(2)).squeeze(2), lambda w: (a.mT @ w.unsqueeze(2)).squeeze(2),
        b, b.new_zeros(len(b), a.shape[2]), damping, steps,
    )  # fmt: skip


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
    x, sigma = bidiagonal_least_squares(problem(a, b, damping, 12))
    assert relative_error(x, closed_form(a, b, damping)) < 1e-8
    assert torch.allclose(sigma, torch.linalg.matrix_norm(a, 2))


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_equations_that_are_left_out(damping: float) -> None:
    """As if the rows were not there: a closed form of the others."""
    kept = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1, 0]).double()
    rows = torch.stack([kept, kept.flip(0), torch.ones(ROWS).double()])
    p = replace(problem(A, B * rows, damping, 30), rows=rows)
    x = bidiagonal_least_squares(p)[0] if damping else conjugate_gradient_least_squares(p)
    for n in range(SAMPLES):
        a, b = A[n : n + 1, rows[n] > 0], B[n : n + 1, rows[n] > 0]
        assert relative_error(x[n : n + 1], closed_form(a, b, damping)) < 1e-8


def test_conjugate_gradients_are_the_pseudo_inverse() -> None:
    x = conjugate_gradient_least_squares(problem(A, B, 0.0, 30))
    assert relative_error(x, closed_form(A, B, 0.0)) < 1e-8


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_the_solution_lies_in_the_krylov_space_of_its_steps(steps: int) -> None:
    x, sigma = bidiagonal_least_squares(problem(A[:1], B[:1], 0.01, steps))
    normal = A[0].mT @ A[0]
    krylov = [A[0].mT @ B[0]]
    for _ in range(steps - 1):
        krylov.append(normal @ krylov[-1])
    basis = torch.linalg.qr(torch.stack(krylov, 1)).Q
    assert relative_error(basis @ (basis.mT @ x[0]), x[0]) < 1e-9
    assert 0.5 < float(sigma / torch.linalg.matrix_norm(A[0], 2)) < 1.2


@pytest.mark.parametrize(("steps", "images", "backs"), [(1, 1, 1), (2, 1, 2), (3, 2, 3), (7, 6, 7)])
def test_a_step_costs_one_image_and_one_transpose(steps: int, images: int, backs: int) -> None:
    """But for the last one, whose image would only damp the last coefficient."""
    linear, transpose = Mock(side_effect=lambda v: v), Mock(side_effect=lambda w: w)
    bidiagonal_least_squares(Problem(linear, transpose, B, torch.zeros_like(B), 0.1, steps))
    assert (linear.call_count, transpose.call_count) == (images, backs)


def test_zero_has_the_solution_zero() -> None:
    """A sample of zeros, one out of A's range, and an operator that is 0: no NaN."""
    a, b = A.clone(), B.clone()
    b[0] = 0
    null = torch.linalg.svd(A[1]).U[:, -1]
    b[1] = null
    a[2] = 0
    for x in (
        bidiagonal_least_squares(problem(a, b, 0.01, 12))[0],
        conjugate_gradient_least_squares(problem(a, b, 0.0, 12)),
    ):
        assert x.isfinite().all()
        assert x.abs().max() < 1e-12


def test_samples_do_not_see_each_other() -> None:
    together, _ = bidiagonal_least_squares(problem(A, B, 0.01, 5))
    loud = B.clone()
    loud[1] *= 1e8
    changed, _ = bidiagonal_least_squares(problem(A, loud, 0.01, 5))
    assert torch.allclose(changed[[0, 2]], together[[0, 2]], rtol=1e-12)


def test_rounding_does_not_build_up() -> None:
    """In float32, long after convergence: still the solution, no noise."""
    a, b = A.float(), B.float()
    wanted = closed_form(A, B, 0.01)
    x, _ = bidiagonal_least_squares(problem(a, b, 0.01, 60))
    assert relative_error(x.double(), wanted) < 1e-4
    x = conjugate_gradient_least_squares(problem(a[:1], b[:1], 0.0, 500))
    assert relative_error(x.double(), closed_form(A[:1], B[:1], 0.0)) < 1e-3


@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("damping", [0.0, 1e-14])
def test_groups_are_solved_apart(groups: int, damping: float) -> None:
    """Two steps for all groups of a grouped convolution are two steps for each one alone."""
    weight = matrices(6, 6 // groups, 3, 3) * torch.logspace(0, -2, 6).double()[:, None, None, None]
    b = matrices(2, 6, 5, 5, seed=3)
    f = torch.nn.functional

    def solved(weight: Tensor, b: Tensor, groups: int) -> Tensor:
        p = Problem(
            lambda v: f.conv2d(v, weight, padding=1, groups=groups),
            lambda w: f.conv_transpose2d(w, weight, padding=1, groups=groups),
            b, torch.zeros_like(b), damping, steps=2, groups=groups,
        )  # fmt: skip
        return bidiagonal_least_squares(p)[0] if damping else conjugate_gradient_least_squares(p)

    found = solved(weight, b, groups)
    size = 6 // groups
    for g in range(groups):
        rows = slice(g * size, (g + 1) * size)
        assert relative_error(found[:, rows], solved(weight[rows], b[:, rows], 1)) < 1e-6


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
    chosen = options.on_device(options.Options(), torch.device("cpu"))
    assert chosen.inverse.precision == wanted
    explainer = nf.compile(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
                           torch.randn(1, 3, 8, 8))  # fmt: skip
    assert explainer.options.inverse.precision == wanted


def test_steps_follow_the_damping() -> None:
    counts = {d: nf.Inverse(damping=d).count for d in (10.0, 0.1, 0.01, 0.001)}
    assert counts == {10.0: 1, 0.1: 3, 0.01: 11, 0.001: 35}
    assert nf.Inverse(damping=0.1, steps=7).count == 7


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

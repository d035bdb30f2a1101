"""Potentials against autograd, the descent law of the `mm` diagonal, the weighted projection and the global weight."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from laws import belief_at, close, normal, same
from leader_nb import DDNM, Prior, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.equations import map_objective, modulated, modulation
from leader_nb.errors import InputError
from leader_nb.potentials import (
    HESSIANS,
    POTENTIALS,
    Charbonnier,
    EdgePotential,
    GMinus,
    GPlus,
    HuberTV,
    HyperLaplacian,
    Potential,
    Quadratic,
    derivative,
    frequencies,
    spread_squares,
)
from leader_nb.problem import Problem
from leader_nb.ucpm import UCPM

PENALTIES = [
    Quadratic(0.3),
    HuberTV(0.3, 0.2),
    Charbonnier(0.3, 0.2),
    HyperLaplacian(0.3, 0.2, 0.6),
    GPlus(0.3, 0.8, 0.8, 1e-2),
    GPlus(),
    GMinus(0.3, 1.0, 1.5, 1e-2),
    GMinus(),
]
SHAPES = [(2, 3, 6, 7), (1, 1, 2, 5), (2, 1, 4, 4)]
CONVEX = [Quadratic, HuberTV, Charbonnier]


@pytest.mark.parametrize("phi", PENALTIES, ids=repr)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_derivatives_are_autograds(phi: Potential, shape: tuple[int, ...]) -> None:
    """grad Phi, and the `exact` diagonal, which HyperLaplacian and PIRP may have negative."""
    x = 0.3 * normal(*shape)
    leaf = x.clone().requires_grad_()
    gradient, h = phi.gradient_and_hessian(x, "exact")
    close(gradient, torch.autograd.grad(phi(leaf).sum(), leaf)[0], "gradient", 1e-10)
    dense = torch.autograd.functional.hessian(lambda v: phi(v).sum(), x).view(x.numel(), x.numel())
    close(h.flatten(), dense.diagonal(), "exact diagonal", 1e-9)


@pytest.mark.parametrize("phi", PENALTIES, ids=repr)
def test_laws_of_potentials(phi: Potential) -> None:
    """One number per image; constants cost what zero does and have no gradient; sum of the gradient is 0; <grad, x> >= 0."""
    x = 0.3 * normal(3, 3, 6, 6)
    gradient = phi.gradient_and_hessian(x)[0]
    assert phi(x).shape == (3,)
    flat = torch.full_like(x, 0.7)
    close(phi(flat), phi(0 * flat), "Phi of a constant", 1e-12)
    assert phi.gradient_and_hessian(flat)[0].abs().max() < 1e-9
    close(gradient.sum((1, 2, 3)), torch.zeros(3, dtype=x.dtype), "sum of the gradient", 1e-9)
    assert ((gradient * x).sum((1, 2, 3)) * phi.mu > 0).all()
    for i in range(3):
        same(phi(x)[i : i + 1], phi(x[i : i + 1]), "Phi feels the batch")
        for kind in HESSIANS:
            for ours, alone in zip(
                phi.gradient_and_hessian(x, kind), phi.gradient_and_hessian(x[i : i + 1], kind), strict=True
            ):
                same(ours[i : i + 1], alone, f"{kind} feels the batch")


@pytest.mark.parametrize("phi", PENALTIES, ids=repr)
def test_weight_is_the_diagonal_of_the_half_quadratic_matrix(phi: Potential) -> None:
    """diag(D^T W D) with W held: the Hessian of 1/2 sum w(x) g(v)^2 in v; and mm bounds that matrix from above."""
    x = 0.3 * normal(1, 1, 4, 5)
    columns = torch.eye(20, dtype=torch.float64).view(20, 1, 4, 5)
    if isinstance(phi, GMinus):
        w = 2 * phi.welsch.first(phi._square(x))
        D = [derivative(columns, axis).flatten(1).T for axis in (-2, -1)]
        weights = [w.flatten(), w.flatten()]
    else:
        D = [g.flatten(1).T for g in phi.edges(columns)]
        weights = [phi.weight(g).flatten() for g in phi.edges(x)]
    dense = phi.mu * sum(d.T @ (v[:, None] * d) for d, v in zip(D, weights, strict=True))
    close(phi.hessian(x, "weight").flatten(), dense.diagonal(), "weight", 1e-10)
    gap = (phi.hessian(x, "mm").flatten().diag() - dense) / phi.mu
    assert torch.linalg.eigvalsh(gap).min() > -1e-9 * gap.abs().max()
    close(dense @ x.flatten(), phi.gradient(x).flatten(), "grad Phi = D^T W D x", 1e-10)


def test_penalties_by_hand() -> None:
    """One edge of 0.3, mu = 2."""
    x = torch.tensor([[0.0, 0.3]], dtype=torch.float64).view(1, 1, 1, 2)
    assert Quadratic(2.0)(x).item() == pytest.approx(0.09)
    assert Charbonnier(2.0, 0.4)(x).item() == pytest.approx(2 * 0.1)
    assert HyperLaplacian(2.0, 0.4, 1.0)(x).item() == pytest.approx(2 * 0.5)
    assert Charbonnier(2.0, 0.4).gradient(x).flatten().tolist() == pytest.approx([-1.2, 1.2])
    assert Quadratic(2.0).hessian(x, "mm").flatten().tolist() == [4.0, 4.0]


def test_huber_and_charbonnier_agree_in_the_limit() -> None:
    """delta -> 0: both are total variation."""
    x = normal(2, 1, 5, 5)
    close(HuberTV(1.0, 1e-9)(x), Charbonnier(1.0, 1e-9)(x), "total variation", 1e-7)
    close(HyperLaplacian(1.0, 1e-9, 1.0)(x), Charbonnier(1.0, 1e-9)(x), "a = 1", 1e-7)


def test_spectral_derivative() -> None:
    """Exact on a wave, antisymmetric, and the squares of its matrix."""
    n = 8
    place = torch.arange(n, dtype=torch.float64)
    wave = torch.sin(2 * torch.pi * place / n).view(1, 1, 1, n).expand(1, 1, 3, n)
    close(derivative(wave, -1), (2 * torch.pi / n) * torch.cos(2 * torch.pi * place / n).expand(1, 1, 3, n), "wave")
    matrix = derivative(torch.eye(n, dtype=torch.float64).view(n, 1, 1, n), -1).flatten(1).T
    close(matrix, -matrix.T, "antisymmetric")
    v = normal(1, 1, 1, n).abs()
    close(spread_squares(v, -1).flatten(), (matrix**2).T @ v.flatten(), "squares")
    assert frequencies(v, -1)[n // 2] == 0


# --- The descent law -----------------------------------------------------------------------------------------------


def trial(seed: int, kind: type) -> tuple[Tensor, Tensor, Potential]:
    """An image (noise, edges or a checkerboard), a map over four decades, a potential with a random weight and edge."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(4, dtype=torch.float64, generator=g)
    board = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64, generator=g)
    x = [x, x.sign(), 2.0 * board.view(1, 1, 6, 6) - 1 + 0.01 * x][seed % 3] * 10 ** (2 * u[0] - 2)
    cov = 10 ** (4 * torch.rand(x.shape, dtype=torch.float64, generator=g) * u[1] - 3)
    mu = float(10 ** (4 * u[2] - 3))
    edge = {"delta": float(10 ** (2 * u[3] - 2))} if kind in (HuberTV, Charbonnier, HyperLaplacian) else {}
    return x, cov, kind(mu=mu, **edge)


def rises(kind: type, hessian: str, count: int) -> int:
    """How often one step of Eq. 14 raises the objective of Eq. 11."""
    raised = 0
    for seed in range(count):
        x0, cov, phi = trial(seed, kind)
        gradient, h = phi.gradient_and_hessian(x0, hessian)
        after = modulated(x0, modulation(cov, h.clamp(min=0)), gradient)
        before, then = map_objective(x0, x0, cov, phi(x0)), map_objective(after, x0, cov, phi(after))
        raised += int((then > before + 1e-11 * before.abs()).any())
    return raised


@pytest.mark.parametrize("kind", POTENTIALS, ids=lambda k: k.__name__)
def test_mm_never_raises_the_objective(kind: type) -> None:
    """The descent law: 0 of 400 trials, checkerboards included; for the non-convex penalties too, with mu > 0."""
    assert rises(kind, "mm", 400) == 0


@pytest.mark.parametrize("kind", [k for k in POTENTIALS if issubclass(k, EdgePotential)], ids=lambda k: k.__name__)
def test_weight_does_not_raise_it_either(kind: type) -> None:
    """Half of `mm` may pass the lowest point of the parabolas, by less than would bring it back up: 0 of 400 trials."""
    assert rises(kind, "weight", 400) == 0


@pytest.mark.parametrize("kind", CONVEX, ids=lambda k: k.__name__)
def test_half_of_mm_is_not_enough(kind: type) -> None:
    """With the `weight` diagonal a checkerboard overshoots: neighbours move against each other."""
    board = ((torch.arange(6)[:, None] + torch.arange(6)) % 2).double().view(1, 1, 6, 6) * 0.01
    phi = kind(mu=1.0) if kind is Quadratic else kind(mu=1.0, delta=1.0)
    cov = torch.full_like(board, 1e9)
    gradient, h = phi.gradient_and_hessian(board, "weight")
    after = modulated(board, modulation(cov, h), gradient)
    assert phi(after) >= phi(board) * (1 - 1e-6)
    assert rises(kind, "exact", 300) >= (0 if kind is Quadratic else 10)


def test_a_negative_weight_sharpens(exact: Prior, samples: Tensor) -> None:
    """PIRP's G-: h < 0 counts as 0, so Lambda = cov, and the differences grow."""
    belief, cov = belief_at(exact, samples, 100), torch.full_like(samples, 0.01)
    phi = GMinus()
    assert (phi.hessian(belief.x0) < 0).all()
    after = UCPM(phi)(belief, cov, None)
    close(after.x0, belief.x0 - cov * phi.gradient(belief.x0), "Lambda = cov", 1e-12)
    assert (Quadratic(1.0)(after.x0) > Quadratic(1.0)(belief.x0)).all()


# --- UCPM's options ------------------------------------------------------------------------------------------------


def maps(x: Tensor) -> Tensor:
    return 0.01 + 0.1 * normal(*x.shape, seed=7).square()


def test_global_weight_is_the_maps_mean(exact: Prior, samples: Tensor) -> None:
    """The control: the step with each image's mean in place of its map; a constant map is its own control."""
    belief, cov = belief_at(exact, samples, 200), maps(samples)
    flat = cov.mean((1, 2, 3), keepdim=True).expand_as(cov)
    for phi in (HuberTV(0.3), Charbonnier(0.3)):
        control = UCPM(phi, weight="global")(belief, cov, None).x0
        close(control, UCPM(phi)(belief, flat, None).x0, "global", 1e-12)
        assert (control - UCPM(phi)(belief, cov, None).x0).abs().max() > 1e-3
        same(UCPM(phi, weight="global")(replace(belief, x0=belief.x0[2:3]), cov[2:3], None).x0, control[2:3], "feels its batch")


def posed(task: str, x: Tensor) -> Problem:
    return parse_task(task).measure(x)


def projections(task: str, exact: Prior, samples: Tensor) -> tuple[Problem, Tensor, Tensor, Tensor, Tensor]:
    """The problem, Lambda, the modulated v, its orthogonal projection, and what the weighted one gives."""
    problem, belief, cov = posed(task, samples), belief_at(exact, samples, 200), maps(samples)
    gradient, h = HuberTV(0.3).gradient_and_hessian(belief.x0, "mm")
    strength = modulation(cov, h)
    v = modulated(belief.x0, strength, gradient)
    orthogonal = problem.operator.pinv(problem.y) + problem.operator.null(v)
    weighted = UCPM(HuberTV(0.3), projection="weighted", iterations=60)(belief, cov, problem).x0
    return problem, strength, v, orthogonal, weighted


def test_the_weighted_projection_is_the_orthogonal_one_for_masks(exact: Prior, samples: Tensor) -> None:
    _, _, _, orthogonal, weighted = projections("inpaint70@0", exact, samples)
    close(weighted, orthogonal, "mask", 1e-10)


@pytest.mark.parametrize("task", ["pool4@0", "color@0"])
def test_the_weighted_projection_is_the_constrained_minimum(exact: Prior, samples: Tensor, task: str) -> None:
    """A x = y for both, and the weighted one is nearer to v in the metric of Lambda^-1 than any other such x."""
    problem, strength, v, orthogonal, weighted = projections(task, exact, samples)
    for x in (orthogonal, weighted):
        close(problem.operator(x), problem.y, "A x = y", 1e-8)

    def cost(x: Tensor) -> Tensor:
        return ((x - v).square() / strength).sum((1, 2, 3))

    assert (cost(weighted) < 0.9 * cost(orthogonal)).all()
    for seed in range(5):
        other = weighted + 0.1 * problem.operator.null(normal(*v.shape, seed=seed))
        assert (cost(weighted) <= cost(other)).all()


@pytest.mark.parametrize("options", [{"weight": "global"}, {"projection": "weighted"}], ids=str)
def test_options_on_the_loop(exact: Prior, samples: Tensor, options: dict[str, str]) -> None:
    """A restoration runs, keeps to the data, and differs from the plain one; with mu = 0 the weight has no effect."""
    problem, noise = posed("pool4@0", samples), noise_for(5)
    runs = [
        restore(problem, exact, DDNM(), grid=8, noise=noise, covariance=RunningSecant(), modulate=UCPM(HuberTV(0.5), **o)).image
        for o in ({}, options)
    ]
    close(problem.operator(runs[1]), problem.y, "data", 1e-9)
    assert not torch.equal(runs[0], runs[1])
    if "weight" in options:
        idle = UCPM(HuberTV(mu=0.0), **options)
        plain = restore(problem, exact, DDNM(), grid=8, noise=noise).image
        same(
            restore(problem, exact, DDNM(), grid=8, noise=noise, covariance=RunningSecant(), modulate=idle).image, plain, "idle"
        )


def test_bad_settings_are_refused() -> None:
    for make, message in (
        (lambda: UCPM(weight="Global"), "unknown weight 'Global': did you mean 'global'"),
        (lambda: UCPM(projection="oblique"), "unknown projection 'oblique'"),
        (lambda: Charbonnier(delta=0.0), "delta: got 0"),
        (lambda: HyperLaplacian(a=1.5), "a: got 1.5"),
        (lambda: GPlus(a=0.0), "a: got 0"),
        (lambda: GMinus(a=-1.0), "a: got -1"),
        (lambda: Quadratic().hessian(normal(1, 1, 2, 2), "MM"), "unknown hessian 'MM'"),
        (lambda: GMinus().hessian(normal(1, 1, 2, 2), "MM"), "unknown hessian 'MM'"),
    ):
        with pytest.raises(InputError, match=message):
            make()

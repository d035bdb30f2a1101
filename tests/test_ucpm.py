"""The potential's derivatives against autograd; the step of Eq. 14 against the objective of Eq. 11."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from laws import belief_at, close, normal, same, unchanged
from leader_nb import Prior, parse_task
from leader_nb.equations import map_objective
from leader_nb.errors import InputError
from leader_nb.ucpm import UCPM, HuberTV, differences, gather

PHI = HuberTV(mu=0.3, delta=0.2)
SHAPES = [(2, 3, 6, 7), (1, 1, 2, 5), (2, 1, 1, 4)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_is_autograd_of_phi(shape: tuple[int, ...]) -> None:
    x = (0.3 * normal(*shape)).requires_grad_()
    close(PHI.gradient(x.detach()), torch.autograd.grad(PHI(x).sum(), x)[0], "gradient", 1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_exact_hessian_is_the_diagonal_of_autograds(shape: tuple[int, ...]) -> None:
    x = 0.3 * normal(*shape)
    dense = torch.autograd.functional.hessian(lambda v: PHI(v).sum(), x).view(x.numel(), x.numel())
    close(PHI.hessian(x, "exact").flatten(), dense.diagonal(), "exact diagonal", 1e-12)


def test_phi_by_hand() -> None:
    """Edges of 0.1 (quadratic) and 1 (linear) at delta = 0.5, mu = 2: 2 (0.01 + 0.75) = 1.52."""
    x = torch.tensor([[0.0, 0.1, 1.1]], dtype=torch.float64).view(1, 1, 1, 3)
    assert HuberTV(2.0, 0.5)(x).tolist() == pytest.approx([1.52])
    assert HuberTV(2.0, 0.5).hessian(x, "exact").flatten().tolist() == pytest.approx([4, 4, 0])
    assert HuberTV(2.0, 0.5).hessian(x, "weight").flatten().tolist() == pytest.approx([4, 6, 2])
    same(HuberTV(2.0, 0.5).hessian(x, "mm"), 2 * HuberTV(2.0, 0.5).hessian(x, "weight"), "mm")


def test_gather_is_the_adjoint_of_differences() -> None:
    """<D x, g> = <x, D^T g>."""
    x, g = normal(2, 3, 5, 6), differences(normal(2, 3, 5, 6, seed=1))
    left = sum((d * e).sum() for d, e in zip(differences(x), g, strict=True))
    close(left, (x * gather(*g, sign=-1.0)).sum(), "adjoint")


def test_a_constant_costs_nothing() -> None:
    x = torch.full((2, 3, 5, 6), 0.7, dtype=torch.float64)
    assert not PHI(x).any() and not PHI.gradient(x).any()


def test_phi_is_per_image() -> None:
    x = normal(3, 3, 5, 6)
    close(PHI(x)[1], PHI(x[1:2])[0], "Phi", 1e-14)
    same(PHI.gradient(x)[1:2], PHI.gradient(x[1:2]), "gradient")
    same(PHI.hessian(x)[1:2], PHI.hessian(x[1:2]), "Hessian")
    for kind in ("mm", "weight", "exact"):
        g, h = PHI.gradient_and_hessian(x, kind)
        same(g, PHI.gradient(x), "gradient")
        same(h, PHI.hessian(x, kind), "Hessian")


# --- The step ------------------------------------------------------------------------------------------------------


def step(belief, x0: Tensor, cov: Tensor, potential: HuberTV, kind: str) -> Tensor:
    return UCPM(potential, kind)(replace(belief, x0=x0), cov, None).x0


def trial(seed: int) -> tuple[Tensor, Tensor, HuberTV]:
    """An image, a map and a potential: noise, edges or a checkerboard, maps and weights over four decades."""
    g = torch.Generator().manual_seed(seed)
    u = torch.rand(4, dtype=torch.float64, generator=g)
    board = (torch.arange(6)[:, None] + torch.arange(6)) % 2
    x = torch.randn(1, 1, 6, 6, dtype=torch.float64, generator=g)
    x = [x, x.sign(), 2.0 * board.view(1, 1, 6, 6) - 1 + 0.01 * x][seed % 3] * 10 ** (2 * u[0] - 2)
    cov = 10 ** (4 * torch.rand(x.shape, dtype=torch.float64, generator=g) * u[1] - 3)
    return x, cov, HuberTV(mu=float(10 ** (4 * u[2] - 3)), delta=float(10 ** (2 * u[3] - 2)))


def rises(belief, kind: str, count: int = 1000) -> int:
    """How often one step raises the objective of Eq. 11."""
    raised = 0
    for seed in range(count):
        x0, cov, phi = trial(seed)
        after = step(belief, x0, cov, phi, kind)
        before = map_objective(x0, x0, cov, phi(x0))
        raised += int((map_objective(after, x0, cov, phi(after)) > before * (1 + 1e-12)).any())
    return raised


@pytest.fixture
def belief(exact: Prior, samples: Tensor):
    return belief_at(exact, samples, 300)


def test_mm_never_raises_the_objective(belief) -> None:
    """J(x0 - Lambda grad Phi) <= J(x0) in 1000 of 1000 trials, checkerboards included."""
    assert rises(belief, "mm") == 0


def test_exact_sometimes_raises_it(belief) -> None:
    """The exact diagonal is no majoriser: about one in ten of the same trials rises."""
    assert rises(belief, "exact", 300) > 15


def test_weight_is_no_majoriser_on_a_checkerboard(belief) -> None:
    """Half the `mm` diagonal is too little where neighbours move against each other."""
    board = ((torch.arange(6)[:, None] + torch.arange(6)) % 2).double().view(1, 1, 6, 6) * 0.01
    for kind, rising in (("weight", True), ("mm", False)):
        phi = HuberTV(mu=1.0, delta=1.0)
        after = step(belief, board, torch.full_like(board, 1e9), phi, kind)
        assert (phi(after) >= phi(board) * (1 - 1e-6)).item() is rising, kind


@pytest.mark.parametrize("kind", ["mm", "weight", "exact"])
def test_the_step_is_eqs_14_and_15(belief, kind: str) -> None:
    """x0 - cov / (1 + h cov) grad Phi, with the Hessian diagonal of that kind."""
    for seed in range(30):
        x0, cov, phi = trial(seed)
        expected = x0 - cov * phi.gradient(x0) / (1 + cov * phi.hessian(x0, kind))
        close(step(belief, x0, cov, phi, kind), expected, "Eq. 14", 1e-12)


@pytest.mark.parametrize("kind", ["mm", "weight", "exact"])
def test_displacement_is_bounded(belief, kind: str) -> None:
    """|x - x0| <= cov |grad Phi| <= 4 mu cov, and <= |grad Phi| / h where h > 0."""
    for seed in range(50):
        x0, cov, phi = trial(seed)
        moved, gradient, h = (
            (step(belief, x0, cov, phi, kind) - x0).abs(),
            phi.gradient(x0).abs(),
            phi.hessian(x0, kind),
        )
        slack = 1 + 1e-12
        assert (h >= 0).all() and (gradient <= 4 * phi.mu * slack).all()
        assert (moved <= cov * gradient * slack + 1e-15).all() and (moved * h <= gradient * slack + 1e-15).all()


def test_a_certain_pixel_does_not_move(belief) -> None:
    x0, _, phi = trial(1)
    cov = torch.zeros_like(x0)
    cov[..., 2, 3] = 0.1
    moved = step(belief, x0, cov, phi, "mm") != x0
    assert moved[..., 2, 3].all() and moved.sum() == 1


def test_misspelt_settings_are_refused() -> None:
    with pytest.raises(InputError, match="unknown hessian 'MM': did you mean 'mm'"):
        UCPM(hessian="MM")
    with pytest.raises(InputError, match="delta: got 0"):
        HuberTV(delta=0)


@pytest.mark.parametrize("kind", ["mm", "weight", "exact"])
def test_mu_zero_moves_nothing(belief, kind: str) -> None:
    same(step(belief, belief.x0, 0.1 + 0 * belief.x0, HuberTV(mu=0.0), kind), belief.x0, "mu = 0")


def test_only_x0_changes(belief, samples: Tensor) -> None:
    """UCPM leaves eps, x_t and its arguments alone."""
    problem, cov = parse_task("sr4@0").measure(samples), 0.1 + 0 * samples
    with unchanged(belief.x0, belief.x_t, belief.eps, cov, problem):
        after = UCPM()(belief, cov, problem)
    assert not torch.equal(after.x0, belief.x0)
    same(after.eps, belief.eps, "eps")
    assert after.x_t is belief.x_t and after.prior is belief.prior

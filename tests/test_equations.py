"""The paper's equations against each other, autograd and arithmetic."""

from __future__ import annotations

import pytest
import torch

from laws import close, normal, unchanged
from leader_nb import equations as eq

ABAR = torch.tensor([0.9, 0.3, 1e-4], dtype=torch.float64).view(-1, 1, 1, 1)
X0, EPS, Z, COV = (normal(3, 2, 4, 5, seed=i) for i in range(4))
COV = COV.abs()


def test_eqs_2_and_5_are_inverse() -> None:
    """tweedie(diffuse(x0, eps), eps) = x0 and predicted_noise(diffuse(x0, eps), x0) = eps."""
    x_t = eq.diffuse(X0, EPS, ABAR)
    close(eq.tweedie(x_t, EPS, ABAR), X0, "Eq. 2")
    close(eq.predicted_noise(x_t, X0, ABAR), EPS, "Eq. 2 for eps")
    close(x_t[1], 0.3**0.5 * X0[1] + 0.7**0.5 * EPS[1], "Eq. 5")


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_eq_21_splits_a_variance_of_one_minus_abar(eta: float) -> None:
    """x_s = sqrt(abar) x0 + sigma sqrt(1 - eta^2) eps + eta sigma z; the squares of the weights sum to sigma^2."""
    x, injected = eq.ddim(X0, EPS, Z, ABAR, eta)
    sigma = (1 - ABAR).sqrt()
    close(injected, eta * sigma * Z, "injected")
    close(x, ABAR.sqrt() * X0 + sigma * (1 - eta**2) ** 0.5 * EPS + injected, "Eq. 21")
    weight = eq.ddim(0 * X0, torch.ones_like(X0), 0 * Z, ABAR, eta)[0]
    fresh = eq.ddim(0 * X0, 0 * EPS, torch.ones_like(X0), ABAR, eta)[0]
    close(weight**2 + fresh**2, (1 - ABAR).expand_as(X0), "variance")


def test_eq_21_ends_on_the_clean_image() -> None:
    x, injected = eq.ddim(X0, EPS, Z, torch.ones_like(ABAR), 0.85)
    assert torch.equal(x, X0) and not injected.any()


def test_eq_9_is_the_gradient_of_a_gaussian() -> None:
    """For x_t ~ N(sqrt(abar) x0, (1 - abar) I): the score of that density is -eps / sqrt(1 - abar)."""
    x_t = eq.diffuse(X0, EPS, ABAR).requires_grad_()
    log_density = -((x_t - ABAR.sqrt() * X0).square() / (2 * (1 - ABAR))).sum()
    close(torch.autograd.grad(log_density, x_t)[0], eq.score(EPS, ABAR), "Eq. 9")


def test_eq_10_on_a_gaussian_prior() -> None:
    """x0 ~ N(0, l I): F = 1 / (abar l + 1 - abar) gives sigma^2 l / (sigma^2 + l)."""
    variance, sigma2 = 0.25, (1 - ABAR) / ABAR
    fisher = 1 / (ABAR * variance + 1 - ABAR)
    close(eq.covariance_from_fisher(fisher, ABAR), sigma2 * variance / (sigma2 + variance), "Eq. 10", 1e-11)


def test_eqs_13_to_15_minimise_the_quadratic_model_of_eq_11() -> None:
    """x0 - Lambda g is the minimiser of sum (x - x0)^2 / (2 cov) + g (x - x0) + h (x - x0)^2 / 2."""
    g, h = normal(3, 2, 4, 5, seed=8), normal(3, 2, 4, 5, seed=9).abs()
    x = eq.modulated(X0, eq.modulation(COV, h), g).requires_grad_()
    model = (g * (x - X0) + h * (x - X0).square() / 2).flatten(1).sum(1)
    close(torch.autograd.grad(eq.map_objective(x, X0, COV, model).sum(), x)[0], 0 * X0, "stationary")


def test_eq_15_bounds() -> None:
    """0 <= Lambda <= min(cov, 1/h), rising in cov, falling in h, 0 at cov = 0 and cov at h = 0."""
    h = normal(3, 2, 4, 5, seed=9).abs()
    strength = eq.modulation(COV, h)
    assert (strength >= 0).all() and (strength <= COV).all() and (strength <= 1 / h).all()
    assert (eq.modulation(1.1 * COV, h) > strength).all() and (eq.modulation(COV, 1.1 * h) < strength).all()
    assert not eq.modulation(0 * COV, h).any() and torch.equal(eq.modulation(COV, 0 * h), COV)


def test_eq_17_is_a_mean_per_image() -> None:
    u = eq.uncertainty(COV)
    close(u, torch.stack([c.sum() / c.numel() for c in COV]), "Eq. 17", 1e-14)
    assert torch.equal(eq.uncertainty(COV[1:2])[0], u[1])


def test_eq_19_by_hand() -> None:
    """floor(6 (0.01 / U)): 0.6 -> 1, 2.4 -> 2, 6 -> 6, and its square root for rho = 2."""
    u = torch.tensor([0.1, 0.025, 0.0099999], dtype=torch.float64)
    assert eq.active_step(u, 0.01, 6.0, 1.0, 0.0).tolist() == [1, 2, 6]
    assert eq.active_step(u, 0.01, 6.0, 2.0, 0.0).tolist() == [1, 3, 6]
    assert eq.active_step(0 * u, 0.01, 6.0, 1.0, 0.01).tolist() == [6, 6, 6]
    assert eq.active_step(u, 0.0, 6.0, 1.0, 1e-8).tolist() == [1, 1, 1]


def test_nothing_is_changed_in_place() -> None:
    with unchanged(X0, EPS, Z, ABAR, COV):
        eq.tweedie(X0, EPS, ABAR), eq.predicted_noise(X0, EPS, ABAR), eq.diffuse(X0, EPS, ABAR)
        eq.ddim(X0, EPS, Z, ABAR, 0.85), eq.score(EPS, ABAR), eq.covariance_from_fisher(COV, ABAR)
        eq.map_objective(X0, EPS, COV, Z.flatten(1).sum(1)), eq.modulated(X0, eq.modulation(COV, COV), Z)
        eq.active_step(eq.uncertainty(COV), 0.01, 6.0, 1.0, 1e-8)

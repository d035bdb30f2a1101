"""Beliefs, their gradients and their tally; the Gaussian mixture against densities, quadrature and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from laws import belief_at, close, generator, normal, oracle, same, unchanged
from leader_nb import GaussianMixture, Prediction, Prior, Schedule, eps_prior, image_mixture
from leader_nb.equations import covariance_from_fisher, diffuse, score
from leader_nb.errors import InputError
from leader_nb.mixture import mixture_from_covariances
from leader_nb.priors import Meter

SMALL = image_mixture(4)  # 16 pixels: Jacobians and Hessians are cheap
SIGMAS = [0.05, 0.3, 1.0, 5.0, 100.0]


def spikes(std: float = 0.05) -> GaussianMixture:
    """Half a chance each of N(-1, std^2) and N(1, std^2): one pixel."""
    means = torch.tensor([[-1.0], [1.0]])
    return mixture_from_covariances(
        torch.tensor([0.5, 0.5]), means, torch.full((2, 1, 1), std**2, dtype=torch.float64), (1, 1, 1)
    )


def density(mixture: GaussianMixture, scale: Tensor, variance: Tensor):
    """log p of scale x0 + sqrt(variance) n for x0 ~ mixture, from torch.distributions; flat x (N,)."""
    covariances = torch.einsum("jnk,jk,jmk->jnm", mixture.bases, mixture.values, mixture.bases)
    eye = torch.eye(covariances.shape[1], dtype=torch.float64)
    parts = [
        MultivariateNormal(scale * m, scale**2 * c + variance * eye) for m, c in zip(mixture.means, covariances, strict=True)
    ]
    return lambda x: torch.logsumexp(mixture.log_weights + torch.stack([p.log_prob(x.flatten()) for p in parts]), 0)


def draw(mixture: GaussianMixture, sigma: float, seed: int = 0) -> Tensor:
    x0 = mixture.sample(1, generator(seed))[0]
    return x0 + sigma * normal(*x0.shape, seed=seed + 1)


# --- The mixture is exact ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", SIGMAS)
def test_eq_10_sigma_squared_jacobian_is_the_posterior_covariance(sigma: float) -> None:
    """Cov(x0 | x) = sigma^2 d E[x0 | x] / d x, and it is symmetric."""
    s, x = torch.tensor(sigma, dtype=torch.float64), draw(SMALL, sigma)
    jacobian = torch.autograd.functional.jacobian(lambda v: SMALL.mean(v, s), x).view(16, 16)
    exact = SMALL.covariance(x, s)
    assert (s**2 * jacobian - exact).abs().max() <= 1e-8 * exact.abs().max(), "Eq. 10"
    assert (exact - exact.T).abs().max() <= 1e-12 and (jacobian - jacobian.T).abs().max() <= 1e-10 * jacobian.abs().max()
    assert torch.linalg.eigvalsh(exact).min() > -1e-12 * exact.abs().max(), "a covariance is not negative"


@pytest.mark.parametrize("t", [0, 50, 200, 500, 900])
def test_eq_10_in_the_form_of_the_paper(t: int) -> None:
    """diag Cov = (1 - abar) / abar (1 - (1 - abar) F), F = - diag Hessian of log p_t; its gradient is the score."""
    belief = belief_at(SMALL.prior(), SMALL.sample(1, generator(t)), t)
    abar = belief.abar.reshape(())
    log_p = density(SMALL, abar.sqrt(), 1 - abar)
    fisher = -torch.autograd.functional.hessian(log_p, belief.x_t.flatten()).diagonal().view_as(belief.x_t)
    exact = SMALL.covariance(belief.xbar[0], belief.sigma.reshape(())).diagonal().view_as(fisher)
    cov = covariance_from_fisher(fisher, belief.abar)
    # 1 - (1 - abar) F cancels where sigma is small against the prior or large: its rounding is that of F times 1 / abar
    assert (cov - exact).abs().max() <= 1e-8 * exact.max() + 1e-11 * belief.sigma.square().max()
    gradient = torch.autograd.functional.jacobian(log_p, belief.x_t.flatten()).view_as(fisher)
    close(score(belief.eps, belief.abar), gradient, "Eq. 9", 1e-9)


def test_covariance_can_exceed_sigma_squared() -> None:
    """Between two spikes, Var = 0.98 > sigma^2 = 0.25: Cov <= sigma^2 I is no theorem."""
    variance = spikes().covariance(torch.zeros(1, 1, 1, dtype=torch.float64), torch.tensor(0.5).double()).item()
    shrunk = 0.05**2 * 0.25 / (0.05**2 + 0.25)
    assert variance == pytest.approx(shrunk + (0.25 / (0.05**2 + 0.25)) ** 2, rel=1e-12)  # means move to -+ 0.99
    assert variance > 0.98 - 1e-3


def test_fisher_information_equality() -> None:
    """E Cov = sigma^2 E (1 - eps^2) over x ~ p_sigma, by quadrature on two spikes: 0.071 at sigma = 0.5."""
    sigma = torch.tensor(0.5, dtype=torch.float64)
    grid = torch.linspace(-6, 6, 1201, dtype=torch.float64)
    log_p = density(spikes(), torch.tensor(1.0).double(), sigma**2)
    weight = torch.stack([log_p(x.view(1)) for x in grid]).exp() * (grid[1] - grid[0])
    points = grid.view(-1, 1, 1, 1)
    variance = torch.stack([spikes().covariance(x, sigma).squeeze() for x in points])
    eps = torch.stack([(x - spikes().mean(x, sigma)).squeeze() / sigma for x in points])
    assert weight.sum().item() == pytest.approx(1, abs=1e-10)
    left, right = (weight * variance).sum().item(), (weight * sigma**2 * (1 - eps**2)).sum().item()
    assert left == pytest.approx(right, rel=1e-9) and left == pytest.approx(0.0713, abs=3e-4)


def test_mean_is_the_posterior_mean() -> None:
    """Tweedie: E[x0 | x] = x + sigma^2 grad log p_sigma(x), with the density from torch.distributions."""
    for sigma in (0.1, 1.0, 10.0):
        s, x = torch.tensor(sigma, dtype=torch.float64), draw(SMALL, sigma)
        log_p = density(SMALL, torch.tensor(1.0).double(), s**2)
        gradient = torch.autograd.functional.jacobian(log_p, x)
        close(SMALL.mean(x, s), x + s**2 * gradient, f"Tweedie at {sigma}", 1e-9)


def test_sample_moments() -> None:
    """Mean and covariance of 20000 samples are those of the mixture, within 5 standard errors."""
    x = SMALL.sample(20000, generator(0)).flatten(1)
    weights = SMALL.log_weights.exp()
    mean = weights @ SMALL.means
    second = torch.einsum("j,jnk,jk,jmk->nm", weights, SMALL.bases, SMALL.values, SMALL.bases)
    cov = second + torch.einsum("j,jn,jm->nm", weights, SMALL.means, SMALL.means) - torch.outer(mean, mean)
    assert ((x.mean(0) - mean).abs() < 5 * (cov.diagonal() / 20000).sqrt()).all()
    assert ((x.T.cov() - cov).abs() < 5 * 2 * cov.diagonal().max() / 20000**0.5).all()


def test_image_mixture_is_what_it_says() -> None:
    """Weights 0.4, 0.3, 0.3; the deviations of the three components are a ramp right, a ramp down and a bump."""
    m = image_mixture(8)
    assert m.log_weights.exp().tolist() == pytest.approx([0.4, 0.3, 0.3])
    std = torch.einsum("jnk,jk,jnk->jn", m.bases, m.values, m.bases).sqrt().view(3, 8, 8)
    close(std[0], torch.linspace(0.15, 0.6, 8).double().expand(8, 8), "ramp right", 1e-7)
    close(std[1], std[0].T, "ramp down", 1e-12)
    assert std[2].argmax().item() in {27, 28, 35, 36}
    assert not m.means[2].any()
    grey = m.sample(3, generator(0))
    assert image_mixture(4, channels=3).sample(3, generator(0)).shape == (3, 3, 4, 4) and grey.shape == (3, 1, 8, 8)


def test_the_mixture_is_a_prior() -> None:
    """x0 = E[x0 | x_t / sqrt(abar)] image by image, each at its own time."""
    x = SMALL.sample(3, generator(0))
    t = torch.tensor([10, 400, 900])
    belief = SMALL.prior()(x, t)
    for i in range(3):
        same(belief.x0[i], SMALL.mean(belief.xbar[i], belief.sigma[i].reshape(())), "one image")


# --- Beliefs -------------------------------------------------------------------------------------------------------


def test_a_belief_is_consistent(exact: Prior, network: Prior, samples: Tensor) -> None:
    """x_t = sqrt(abar) x0 + sqrt(1 - abar) eps and xbar = x0 + sigma eps, whichever the network predicts."""
    as_eps = eps_prior(lambda x, t: network(x, t).eps)
    for prior in (exact, network, as_eps, oracle(samples[0])):
        for t in (0, 300, 999):
            belief = belief_at(prior, samples, t)
            close(diffuse(belief.x0, belief.eps, belief.abar), belief.x_t, "x_t")
            close(belief.x0 + belief.sigma * belief.eps, belief.xbar, "xbar")
            assert belief.x0.dtype == samples.dtype and not belief.x0.requires_grad


def test_eps_and_x0_networks_agree(network: Prior, samples: Tensor) -> None:
    belief = belief_at(network, samples, 300)
    close(belief_at(eps_prior(lambda x, t: network(x, t).eps), samples, 300).x0, belief.x0, "x0", 1e-10)


def test_six_channels_carry_a_variance(samples: Tensor) -> None:
    prior = eps_prior(lambda x, t: torch.cat([x, 7 + 0 * x], dim=1))
    belief = prior(samples, torch.full((5,), 10))
    same(belief.eps, samples, "eps")
    assert belief.variance is not None and (belief.variance == 7).all() and belief.variance.shape == samples.shape
    assert eps_prior(lambda x, t: x)(samples, torch.full((5,), 10)).variance is None


def test_a_prediction_must_hold_something(samples: Tensor) -> None:
    with pytest.raises(InputError, match="neither eps nor x0"):
        Prior(lambda x, t, schedule: Prediction())(samples, torch.zeros(5).long())


def test_a_network_takes_its_own_channels(network: Prior) -> None:
    with pytest.raises(InputError, match=r"1 channels; the prior 'tiny' takes 3"):
        network(normal(1, 1, 8, 8), torch.tensor([10]))


@pytest.mark.parametrize("name", ["mixture", "network"])
@pytest.mark.parametrize("kept", [True, False], ids=["graph kept", "graph rebuilt"])
def test_vjp_is_the_transposed_jacobian(name: str, kept: bool, network: Prior) -> None:
    """v^T (d x0 / d x_t) from autograd's full Jacobian, with and without a kept graph, twice."""
    prior, x = (SMALL.prior(), SMALL.sample(1, generator(0))) if name == "mixture" else (network, normal(1, 3, 4, 4))
    t = torch.tensor([300])
    belief = prior(x, t, gradient=kept)
    jacobian = torch.autograd.functional.jacobian(lambda v: prior.predict(v, t, prior.schedule).x0, x).view(
        x.numel(), x.numel()
    )
    assert jacobian.abs().max() > 1e-3
    for seed in (1, 2):
        v = normal(*x.shape, seed=seed)
        with unchanged(v, x):
            ours = belief.vjp(v)
        close(ours.flatten(), v.flatten() @ jacobian, "vjp", 1e-12)


def test_a_kept_graph_changes_no_value(network: Prior, samples: Tensor) -> None:
    t = torch.full((5,), 300)
    same(network(samples, t, gradient=True).x0, network(samples, t).x0, "gradient=True")


def test_the_meter_counts_calls_and_backward_passes(network: Prior, samples: Tensor) -> None:
    """One NFE for each call; a vjp costs one backward pass, and one NFE more if the graph was not kept."""
    meter = Meter.of(5)
    prior, t = network.metered(meter), torch.full((5,), 300)
    belief = prior(samples, t)
    assert (meter.nfe.tolist(), meter.backward.tolist()) == ([1] * 5, [0] * 5)
    belief.vjp(samples)
    assert (meter.nfe.tolist(), meter.backward.tolist()) == ([2] * 5, [1] * 5)
    kept = prior(samples, t, gradient=True)
    kept.vjp(samples), kept.vjp(samples)
    assert (meter.nfe.tolist(), meter.backward.tolist()) == ([3] * 5, [3] * 5)
    kept.evaluate(samples), kept.evaluate(samples, t - 1)
    assert (meter.nfe.tolist(), meter.backward.tolist()) == ([5] * 5, [3] * 5)


def test_rows_of_a_meter_count_for_their_images() -> None:
    meter = Meter.of(4)
    meter.rows(torch.tensor([3, 1])).count(nfe=1)
    meter.rows(torch.tensor([3, 1])).rows(torch.tensor([0])).count(backward=2)
    assert (meter.nfe.tolist(), meter.backward.tolist()) == ([0, 1, 0, 1], [0, 0, 0, 2])


def test_a_call_changes_nothing(exact: Prior, network: Prior, samples: Tensor) -> None:
    t = torch.full((5,), 300)
    for prior in (exact, network):
        with unchanged(samples, t):
            prior(samples, t), prior(samples, t, gradient=True)


def test_evaluate_asks_at_another_place(exact: Prior, samples: Tensor) -> None:
    belief = belief_at(exact, samples, 300)
    there = belief.evaluate(samples, torch.full((5,), 20))
    same(there.x0, exact(samples, torch.full((5,), 20)).x0, "evaluate")
    same(belief.evaluate(belief.x_t).x0, belief.x0, "evaluate at the same place")


def test_a_prior_may_have_its_own_schedule(samples: Tensor) -> None:
    schedule = Schedule(length=10)
    belief = oracle(samples[0])(samples, torch.full((5,), 9))
    other = Prior(oracle(samples[0]).predict, schedule)(samples, torch.full((5,), 9))
    assert other.abar.flatten()[0] == schedule.table()[10] and belief.abar.flatten()[0] == Schedule().table()[10]

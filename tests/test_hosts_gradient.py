"""DPS, DiffPIR, PIRP and SITCOM: golden scalars, dense re-implementations, identities between hosts, exact posteriors."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import belief_at, check_alone_as_in_a_batch, check_host, close, constant_noise, normal, same
from leader_nb import GaussianMixture, Prediction, Prior, Schedule, host, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.equations import diffuse
from leader_nb.errors import InputError
from leader_nb.noise import Noise, keyed_normal
from leader_nb.priors import Meter
from leader_nb.problem import Problem
from leader_nb.samplers import DDPG, DPS, IDPG, PIRP, PIRP_PLUS, SITCOM, DiffPIR, Sampler, Step
from leader_nb.samplers.defaults_gradient import TABLE, tuned
from leader_nb.samplers.diffpir import enlarged
from leader_nb.samplers.dps import REFERENCE, ancestral
from leader_nb.samplers.gradient_priors import Spatial, Spectral, spectral
from leader_nb.samplers.gradient_priors import weight as edge_weight
from leader_nb.schedule import fractional_grid, quadratic_grid, strided_grid, uniform_grid
from leader_nb.ucpm import UCPM, HuberTV
from test_hosts_spectral import EAGER, Dense, abar, at, dense_problem, per_image, posterior
from test_samplers import DOUBLE, NOISE_FREE, NOISY, diagonal, golden

NONE = Spectral()  # with lam = 0 its gradient does not matter
SETTINGS: list[Sampler] = [
    DPS(clip=False),
    DPS(scale=3.0, variant="scaled"),
    DiffPIR(variant="released"),
    DiffPIR(lam=20.0, zeta=1.0),
    PIRP(mode=0, zeta=0.0),
    PIRP(Spatial(), lam=0.01, inject=False, gamma=2.0),
    SITCOM(iterations=4, slack=0.05),
    SITCOM(iterations=3, variant="released", weight=0.1),
]
STRONG: dict[str, Any] = {"covariance": RunningSecant(), "modulate": UCPM(HuberTV(mu=3.0))}


def stepped(sampler: Sampler, problem: Problem, prior: Prior, x: Tensor, t: int, s: int, z: float | None = None) -> Step:
    """One step from images x noised to t, down to s, with the gradient where the host asks for it; each draw is z, if any."""
    noise = noise_for(len(x)) if z is None else constant_noise(z, len(x))
    target, start = torch.full((len(x),), s), belief_at(prior, x, t)
    belief = prior(start.x_t, start.t, sampler.needs_gradient)
    return sampler.step(belief, target, problem, noise.at(target, 0 * target), sampler.init(problem, noise)[1])


def still(x: Tensor) -> Prior:
    """A prior that always answers x, (C, H, W), and whose gradient is zero."""
    return Prior(lambda x_t, t, schedule: Prediction(x0=x.expand_as(x_t) + 0 * x_t), name="still")


def scaling(c: float) -> Prior:
    """x0 = c x_t."""
    return Prior(lambda x_t, t, schedule: Prediction(x0=c * x_t), name="scaling")


# --- The contract, with other settings, other clocks and mixed noise levels --------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0", "inpaint70@0.05"])
@pytest.mark.parametrize("sampler", SETTINGS, ids=repr)
def test_contract_of_the_other_settings(sampler: Sampler, task: str, exact: Prior, network: Prior, samples: Tensor) -> None:
    prior = exact if task == "gaussian@0" else network
    check_host(sampler, parse_task(task).measure(samples[:2], seed=2), prior, steps=4)


@pytest.mark.parametrize("sampler", [DPS(), DiffPIR(), PIRP(), PIRP_PLUS, SITCOM(iterations=3, slack=0.1)], ids=repr)
def test_each_image_has_its_own_noise_level(sampler: Sampler, exact: Prior, samples: Tensor) -> None:
    """Noise-free and noisy images share a batch; each is restored as it would be alone, by its own rules."""
    problem = per_image(parse_task("inpaint70@0.05").measure(samples[:3]), 0.0, 0.1, 0.8)
    result = check_alone_as_in_a_batch(sampler, problem, exact, grid=5)
    other = restore(per_image(problem, 0.0, 0.1, 0.1), exact, sampler, grid=5, noise=noise_for(3, seed=3))
    same(other.image[:2], result.image[:2], "the others do not feel it")
    knows = not isinstance(sampler, DPS)  # its rule has no noise level
    assert torch.equal(other.image[2], result.image[2]) is not knows, "the noise level"


@pytest.mark.parametrize("sampler", [DPS(), DiffPIR(), PIRP(), host("pirp+", 0.05), SITCOM(iterations=3)], ids=repr)
def test_float32_follows_float64(sampler: Sampler, exact: Prior, samples: Tensor) -> None:
    """All the way in float32, the same image to 2e-3, on the same noise. G+ held: else a curvature of 4e4 blows up rounding."""
    task = parse_task("gaussian@0.05")
    narrow, wide = (restore(task.measure(x), exact, sampler, grid=8).image for x in (samples[:2].float(), samples[:2]))
    assert narrow.dtype == torch.float32
    close(narrow.double(), wide, "float32", 2e-3)


def test_sitcom_where_each_image_has_its_own_clock(exact: Prior, samples: Tensor) -> None:
    contrasts = samples * torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0]).double().view(-1, 1, 1, 1)
    problem, sampler = parse_task("inpaint70@0.05").measure(contrasts), SITCOM(iterations=4, slack=0.1)
    result = check_alone_as_in_a_batch(sampler, problem, exact, grid=uniform_grid(12), **EAGER)
    assert len(set(result.times)) > 1, "every image went the same way: this tests nothing"
    assert result.backward.tolist() == [n - len(times) for n, times in zip(result.nfe.tolist(), result.times, strict=True)]


def test_default_grids() -> None:
    """DPS: 999 k / (T - 1) rounded; DiffPIR: 999 - floor(1000 sqrt(i / (T - 1))); SITCOM: 1000 i / T."""
    dps, quad = DPS().default_steps(100), DiffPIR().default_steps(100)
    assert dps[:5] == (999, 989, 979, 969, 959) and dps[-8:] == (71, 61, 50, 40, 30, 20, 10, 0) and len(set(dps)) == 100
    assert DPS().default_steps(1000) == tuple(range(999, -1, -1))
    assert quad[:6] == (999, 899, 857, 825, 798, 775) and quad[-8:] == (36, 30, 25, 20, 15, 10, 5, 0) and len(set(quad)) == 100
    assert SITCOM().default_steps(20) == tuple(range(950, -1, -50))
    assert PIRP().default_steps(100) == uniform_grid(100)
    for rule in (fractional_grid, quadratic_grid, strided_grid):
        for steps in (1, 2, 7, 100, 251, 502, 999, 1000):
            grid = rule(steps)
            assert len(grid) == steps and grid[0] <= 999 and grid[-1] >= 0 and all(a > b for a, b in pairwise(grid))
        for steps in (0, 1001):
            with pytest.raises(InputError, match=f"steps: got {steps}; give a whole number from 1 to 1000"):
                rule(steps)


def test_hosts_by_name() -> None:
    named = {"dps": DPS(variant="scaled"), "pirp+": replace(PIRP_PLUS, variant="held")}
    for name, want in {**named, "diffpir": DiffPIR(), "pirp": PIRP(), "sitcom": SITCOM()}.items():
        assert host(name, 0.0) == want and host(name, 0.05) == want


def test_mistakes_say_what_would_work(exact: Prior, samples: Tensor) -> None:
    for kind, known in ((DPS, "scaled"), (DiffPIR, "released"), (PIRP, "held"), (SITCOM, "released")):
        with pytest.raises(InputError, match=f"unknown variant '{known[:-1]}': did you mean '{known}'"):
            kind(variant=known[:-1])
    wrong: list[Callable[[], object]] = [lambda: DPS(scale=-1), lambda: DiffPIR(lam=0), lambda: DiffPIR(zeta=1.5)]
    wrong += [lambda: PIRP(zeta=-0.1), lambda: PIRP(mode=2), lambda: PIRP(gamma=-1)]
    for make in wrong:
        with pytest.raises(InputError, match=r"got .*; give"):
            make()
    with pytest.raises(InputError, match=r"iterations: got 0; give a whole number >= 1"):
        SITCOM(iterations=0)
    fixed = Prior(lambda x_t, t, schedule: Prediction(x0=samples[:1].expand_as(x_t)), name="fixed")
    for sampler in (DPS(), SITCOM()):
        with pytest.raises(InputError, match=r"prior: 'fixed' answers without a gradient, .*take a host .*DDRM or DiffPIR"):
            restore(parse_task("sr4@0").measure(samples[:1]), fixed, sampler, grid=2)


# --- Golden scalars: abar_t = 0.36, abar_s = 0.64, x_t = 1, eps = 0.5, s = 2, y = 1.5, z = 0.25 -----------------------


def golden_dps(sampler: DPS) -> Step:
    """eps(x) = x / 2 there, so that d x0 / d x = 1."""
    schedule, s = Schedule(beta_first=0.36, beta_last=0.4375, length=2), torch.zeros(1).long()
    prior = Prior(lambda x, t, schedule: Prediction(eps=x / 2), schedule)
    one = torch.ones(1, 1, 1, 1, dtype=DOUBLE)
    problem = Problem(1.5 * one, diagonal(2 * one), torch.zeros(1, dtype=DOUBLE))
    return sampler.step(prior(one, s + 1, True), s, problem, constant_noise(0.25).at(s, s), {})


def test_golden_dps() -> None:
    """beta = 0.4375, mean 0.96875, variance 0.24609375, x = 0.4927695927061527."""
    out = golden_dps(DPS(scale=0.3))
    assert out.x.item() == pytest.approx(0.4927695927061527, abs=1e-12)
    assert out.injected is not None and out.injected.item() == pytest.approx(0.25 * 0.24609375**0.5, abs=1e-12)
    assert golden_dps(DPS(scale=0.0)).x.item() == pytest.approx(0.96875 + 0.25 * 0.24609375**0.5, abs=1e-12)
    ours = golden_dps(DPS(scale=0.3 * REFERENCE**0.5, variant="scaled"))  # one raw time, one pixel
    assert ours.x.item() == pytest.approx(0.4927695927061527, abs=1e-12)


PLAIN = {"lam": 0.0, "gamma": 8.0, "ridge": 0.7, "zeta": 0.5}


@pytest.mark.parametrize(
    ("sampler", "sigma_y", "x0y", "x"),
    [
        (DiffPIR(lam=7.0, zeta=0.3), 0.1, 0.750613724038499, 1.0275405585352295),
        (DiffPIR(lam=7.0, zeta=0.3, variant="released"), 0.1, 0.750613724038499, 1.0275405585352295),
        (PIRP(lam=0.0, zeta=0.7, mode=0), 0.0, 0.7500062498437539, 0.9514380183948132),
        (PIRP(mode=0, **PLAIN), 0.1, 0.7293138194417533, 0.6979124537429914),
        (PIRP(mode=1, **PLAIN), 0.1, 0.8477390234359863, 0.7915919440958592),
        (PIRP(mode=0, inject=False, **PLAIN), 0.1, 0.7293138194417533, 0.5834510555534027),
        (SITCOM(iterations=1), 0.1, 1.0, 0.8 * 1.0 + 0.6 * 0.25),
    ],
)
def test_golden_scalars(sampler: Sampler, sigma_y: float, x0y: float, x: float) -> None:
    out = golden(sampler, 2.0, sigma_y)
    assert out.x.item() == pytest.approx(x, abs=1e-12) and out.x0y.item() == pytest.approx(x0y, abs=1e-12)


def test_golden_diffpir_rho_and_implied_noise() -> None:
    """rho = 0.00984375 and eps = 0.6870397069711257, taken out of x_s."""
    out = golden(DiffPIR(lam=7.0, zeta=0.3), 2.0, 0.1)
    assert out.injected is not None
    implied = (out.x - 0.8 * out.x0y - out.injected) / (0.6 * 0.7**0.5)
    assert implied.item() == pytest.approx(0.6870397069711257, abs=1e-12)
    rho = 2 * (1.5 - 2 * out.x0y.item()) / (out.x0y.item() - 1)  # stationarity: A (A x - y) + rho (x - x0) = 0
    assert rho == pytest.approx(0.00984375, abs=1e-12)


# --- Step by step against dense matrices, written from the papers' equations -------------------------------------------


def jacobian(mixture: GaussianMixture, x: Tensor, t: int) -> Tensor:
    """d x0 / d x_t = Cov(x0 | x_t) / (sigma^2 sqrt(abar)), in closed form: no autograd."""
    sigma = ((1 - abar(t)) / abar(t)).sqrt()
    return mixture.covariance((x / abar(t).sqrt()).view(mixture.shape), sigma) / (sigma**2 * abar(t).sqrt())


def dense_dps(p: Dense, host: DPS, mixture: GaussianMixture) -> list[Tensor]:
    x, xs = p.z("x_T", -2), []
    for t, s in p.moves:
        beta = 1 - abar(t) / abar(s)
        tilde = beta * (1 - abar(s)) / (1 - abar(t))
        raw = p.D(x, t)[0]
        x0 = raw.clamp(-1, 1)
        r = p.y - p.A @ x0
        slope = -jacobian(mixture, x, t).T @ ((raw.abs() <= 1) * (p.A.T @ r)) / r.norm()
        zeta = host.scale * ((t - s) * math.sqrt(len(x) / (3 * 256**2)) if host.variant == "scaled" else 1)
        c0, cx = beta * abar(s).sqrt() / (1 - abar(t)), (1 - abar(s)) * (1 - beta).sqrt() / (1 - abar(t))
        x = c0 * x0 + cx * x + tilde.sqrt() * p.z("step", s) - zeta * slope
        xs.append(x)
    return xs


def dense_diffpir(p: Dense, host: DiffPIR, mixture: GaussianMixture) -> list[Tensor]:
    x, xs, n = p.z("x_T", -2), [], p.A.shape[1]
    for t, s in p.moves:
        sigma = max(p.sigma_y / 2, 1e-3)  # on [0, 1]
        rho = host.lam * sigma**2 * abar(t) / (1 - abar(t))
        x0 = p.D(x, t)[0].clamp(-1, 1)
        x0 = torch.linalg.solve(p.A.T @ p.A + rho * torch.eye(n, dtype=DOUBLE), p.A.T @ p.y + rho * x0)
        eps = (x - abar(t).sqrt() * x0) / (1 - abar(t)).sqrt()
        if not (host.variant == "released" and s == -1):
            noise = (1 - host.zeta) ** 0.5 * eps + host.zeta**0.5 * p.z("step", s)
            x = abar(s).sqrt() * x0 + (1 - abar(s)).sqrt() * noise
        xs.append(x)
    return xs


def dense_pirp(p: Dense, host: PIRP, mixture: GaussianMixture) -> list[Tensor]:
    x, xs, m = p.z("x_T", -2), [], len(p.A)
    for t, s in p.moves:
        x0 = p.D(x, t)[0]
        delta = abar(s) ** host.gamma if p.sigma_y else torch.zeros((), dtype=DOUBLE)
        ridge = max(1e-4, host.ridge * p.sigma_y**2)
        r, ratio = p.A @ x0 - p.y, (1 - abar(s)) / (1 - abar(t))
        bp = p.A.T @ torch.linalg.solve(p.A @ p.A.T + ridge * torch.eye(m, dtype=DOUBLE), r)
        ls = host.scale * p.A.T @ r
        mu = ratio if host.mode else torch.ones(())
        mu_r = (1 - abar(t) / abar(s)) * ratio if isinstance(host.potential, Spatial) and not host.mode else 1.0
        leaf = x0.clone().requires_grad_()
        slope = torch.autograd.grad(host.potential(leaf.view(1, *mixture.shape)).sum(), leaf)[0]
        rate = torch.as_tensor(mu_r * host.lam)
        if isinstance(host.potential, Spatial) and host.variant == "held":
            rate = torch.minimum(rate, 1 / (2 * edge_weights(x0, host.potential, mixture.shape)))
        guided = x0 - mu * ((1 - delta) * bp + delta * ls) - rate * slope
        guided = x0 if p.sigma_y and s == -1 else guided
        eps = (x - abar(t).sqrt() * guided) / (1 - abar(t)).sqrt()
        noise = host.zeta**0.5 * p.z("step", s) + (1 - host.zeta) ** 0.5 * (delta if p.sigma_y else 1.0) * eps
        x = abar(s).sqrt() * guided + host.inject * (1 - abar(s)).sqrt() * noise
        xs.append(x)
    return xs


def edge_weights(x: Tensor, potential: Spatial, shape: tuple[int, int, int]) -> Tensor:
    """Sum of phi'(g) / g over the four differences of each pixel, with a matrix of all edges."""
    place = torch.arange(len(x)).view(shape)
    edges = torch.cat([torch.stack([place, place.roll(1, axis)], -1).view(-1, 2) for axis in (-2, -1)])
    D = torch.zeros(len(edges), len(x), dtype=DOUBLE)
    D[torch.arange(len(edges)), edges[:, 0]], D[torch.arange(len(edges)), edges[:, 1]] = 1.0, -1.0
    m, a, scale = (D @ x) ** 2 + 1e-6, potential.power, 2 * potential.width**2
    return D.abs().T @ (a / scale * m ** (a / 2 - 1) * torch.exp(-(m ** (a / 2)) / scale))


def dense_sitcom(p: Dense, host: SITCOM, mixture: GaussianMixture) -> list[Tensor]:
    """The inner loop by torch's own Adam, on closed-form gradients."""
    x, xs, seen = p.z("x_T", -2), [], p.A.abs().sum(1) > 0
    norm = host.variant == "released" and not p.sigma_y  # ||A D(v) - y||, not squared, and never at rest
    for t, s in p.moves:
        v = x.clone().requires_grad_()
        adam = torch.optim.Adam([v], lr=host.lr)
        for k in range(host.iterations):
            raw = p.D(v.detach(), t)[0]
            x0 = raw.clamp(-1, 1)
            r = p.A @ x0 - p.y
            settled = r[seen].square().mean().sqrt() < p.sigma_y + host.slack and not norm
            if settled or k == host.iterations - 1:
                break
            slope = jacobian(mixture, v.detach(), t).T @ ((raw.abs() <= 1) * (p.A.T @ r))
            slope = slope / r.norm() if norm else 2 * slope
            v.grad = slope + 2 * host.weight * (v.detach() - x)
            adam.step()
        x = abar(s).sqrt() * x0 + (1 - abar(s)).sqrt() * p.z("step", s)
        xs.append(x)
    return xs


DENSE: list[tuple[Sampler, Any, list[str]]] = [
    (host("dps", 0.05), dense_dps, ["sr4@0.05", "inpaint70@0", "color@0.05"]),
    (DPS(scale=0.1), dense_dps, ["gaussian@0.05"]),
    (DiffPIR(), dense_diffpir, ["sr4@0.05", "gaussian@0.05", "inpaint70@0", "color@0"]),
    (DiffPIR(lam=12.0, zeta=0.25), dense_diffpir, ["sr4@0.1"]),
    (PIRP(), dense_pirp, ["sr4@0.05", "gaussian@0.05", "inpaint70@0"]),
    (host("pirp+", 0.05), dense_pirp, ["sr4@0.05", "color@0"]),
    (PIRP_PLUS, dense_pirp, ["sr4@0.05"]),
    (PIRP(mode=0, gamma=2.0, lam=-0.02, scale=1.5), dense_pirp, ["sr4@0.05"]),
    (SITCOM(iterations=6), dense_sitcom, ["sr4@0.05", "inpaint70@0"]),
    (SITCOM(iterations=8, slack=0.03, weight=0.2, lr=0.05), dense_sitcom, ["gaussian@0.05", "inpaint70@0.05"]),
    (SITCOM(iterations=6, slack=0.3, variant="released"), dense_sitcom, ["inpaint70@0", "sr4@0.05"]),
    (SITCOM(iterations=5, weight=0.2, variant="released"), dense_sitcom, ["cs25@0"]),
]


@pytest.mark.parametrize(
    ("sampler", "rule", "task"),
    [(s, r, t) for s, r, tasks in DENSE for t in tasks],
    ids=lambda v: getattr(v, "__name__", repr(v)),
)
def test_agrees_with_dense_matrices(
    sampler: Sampler, rule: Any, task: str, exact: Prior, mixture: GaussianMixture, samples: Tensor
) -> None:
    """Every state of a run, to rounding: operators, spectra, gradients and noise units included."""
    problem, noise, states = parse_task(task).measure(samples[:2], seed=2), noise_for(2, seed=6), []
    restore(problem, exact, sampler, grid=6, noise=noise, on_state=states.append)
    for i in range(2):
        want = rule(dense_problem(problem, i, exact, noise, sampler.default_steps(6)), sampler, mixture)
        assert len(want) == len(states) == 6
        for state, x in zip(states, want, strict=True):
            close(state.x[i].flatten(), x, f"x at s = {state.s[i]}", 1e-7)


# --- Near the exact posterior --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0.05", "inpaint70@0"])
@pytest.mark.parametrize(
    ("sampler", "limit"),
    [
        (DPS(scale=2.0, variant="scaled"), 1.0),
        (DiffPIR(), 1.5),
        (PIRP(lam=-0.001), 2.0),
        (host("pirp+", 0.05), 1.2),
        (SITCOM(iterations=5, lr=0.05), 1.0),
    ],
    ids=repr,
)
def test_restorations_land_near_the_posterior(
    sampler: Sampler, limit: float, task: str, exact: Prior, mixture: GaussianMixture, samples: Tensor
) -> None:
    """Mean squared distance to E[x | y], over tr Cov(x | y): 1 for an exact sampler, 0 for the mean; for images that
    belong to other data it is far larger."""
    problem, noise = parse_task(task).measure(samples, seed=2), noise_for(5, seed=1)
    image = restore(problem, exact, sampler, grid=8 if isinstance(sampler, SITCOM) else 20, noise=noise).image.flatten(1)
    truth = [posterior(mixture, dense_problem(problem, i, exact, noise, ())) for i in range(5)]
    mean, trace = torch.stack([m for m, _ in truth]), torch.stack([c for _, c in truth])
    near, far = ((x - mean).square().sum(1).sum() / trace.sum() for x in (image, image.roll(1, 0)))
    assert near < limit and far > 1.3 * near, f"{near:.2f}, others' {far:.2f}"


# --- DPS -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "inpaint70@0", "color@0.05"])
def test_the_slope_is_that_of_the_distance_to_the_data(task: str, network: Prior, samples: Tensor) -> None:
    """Against central differences of ||y - A x0(x)|| in random directions; each image has a norm of its own."""
    problem, x, h = parse_task(task).measure(samples[:3]), belief_at(network, samples[:3], 300).x_t, 1e-5
    t, way = torch.full((3,), 300), normal(3, 3, 8, 8, seed=5)

    def distance(x: Tensor) -> Tensor:
        return torch.stack([r.norm() for r in problem.operator(network(x, t).x0) - problem.y])

    belief = network(x, t, True)
    slope = DPS(clip=False).slope(belief, belief.x0, problem)
    change = (distance(x + h * way) - distance(x - h * way)) / (2 * h)
    close((slope * way).flatten(1).sum(1), change, "slope", 1e-7)


def test_dps_does_not_pull_on_clipped_pixels(samples: Tensor) -> None:
    """x0 = 2 x_t: where |x0| > 1 there is no slope, elsewhere 2 A^T r / ||r||, with r taken from the clipped x0."""
    problem, x, t = parse_task("denoise@0.1").measure(samples), samples, torch.full((5,), 300)
    belief = scaling(2.0)(x, t, True)
    inside = belief.x0.abs() <= 1
    assert inside.any() and not inside.all()
    r = belief.x0.clamp(-1, 1) - problem.y
    want = 2 * r / torch.stack([e.norm() for e in r]).view(-1, 1, 1, 1) * inside
    close(DPS().slope(belief, belief.x0.clamp(-1, 1), problem), want, "slope", 1e-12)


def test_dps_at_scale_zero_is_the_ancestral_chain(exact: Prior, samples: Tensor) -> None:
    """With the respaced betas, 1 - beta_k = abar_k / abar_(k-1): the data leave no trace."""
    problem, other = (parse_task("sr4@0.05").measure(samples[:2], seed=i) for i in (1, 2))
    sampler, noise = DPS(scale=0.0, clip=False), noise_for(2)
    times = (*sampler.default_steps(8), -1)
    x = noise("x_T", samples[:2])
    kept = torch.stack([abar(t) for t in reversed(times)])
    beta = {t: 1 - a / b for t, a, b in zip(reversed(times[:-1]), kept[1:], kept[:-1], strict=True)}
    assert torch.tensor([1 - b for b in beta.values()]).prod().item() == pytest.approx(abar(times[0]).item(), rel=1e-9)
    for t, s in pairwise(times):
        x0 = exact(x, torch.full((2,), t)).x0
        a, b = abar(t), abar(s)
        mean = (b.sqrt() * beta[t] * x0 + (1 - b) * (1 - beta[t]).sqrt() * x) / (1 - a)
        target = torch.full((2,), s)
        x = mean + (beta[t] * (1 - b) / (1 - a)).sqrt() * noise.at(target, 0 * target)("step", x)
    result = restore(problem, exact, sampler, grid=8, noise=noise)
    close(result.image, x, "ancestral")
    same(restore(other, exact, sampler, grid=8, noise=noise).image, result.image, "the data")


@pytest.mark.parametrize(("t", "s"), [(990, 600), (400, 399), (50, 0), (0, -1), (300, 300)])
def test_the_step_is_the_gaussian_posterior(t: int, s: int, exact: Prior, samples: Tensor) -> None:
    """q(x_s | x_t, x0) by Bayes' rule from q(x_s | x0) and q(x_t | x_s), any t >= s, self-steps included."""
    belief = belief_at(exact, samples, t)
    mean, variance = ancestral(belief, belief.x0, torch.full((5,), s))
    a, b = abar(t), abar(s)
    alpha = a / b
    precision = 1 / (1 - b) + alpha / (1 - alpha)  # infinite at s = -1 and for self-steps
    if torch.isfinite(precision):
        want = (b.sqrt() * belief.x0 / (1 - b) + alpha.sqrt() * belief.x_t / (1 - alpha)) / precision
        close(variance, (1 / precision).expand_as(variance), "variance", 1e-12)
    else:
        want = belief.x0 if s == -1 else belief.x_t
        assert not variance.any()
    close(mean, want, "mean", 1e-10)


def test_a_learned_variance_lies_between_its_bounds(exact: Prior, samples: Tensor) -> None:
    """v = beta^f tilde^(1 - f) with f = (head + 1) / 2: tilde at head -1, beta at head 1, no noise at the last step."""
    for s in (700, 250, -1):
        belief, target = belief_at(exact, samples, 800 if s == 700 else 300), torch.full((5,), s)
        beta = 1 - belief.abar / abar(s)
        tilde = beta * (1 - abar(s)) / (1 - belief.abar)
        for head in (-1.0, 0.0, 1.0):
            _, variance = ancestral(replace(belief, variance=torch.full_like(samples, head)), belief.x0, target)
            want = beta ** ((head + 1) / 2) * tilde ** ((1 - head) / 2) if s >= 0 else 0 * beta
            close(variance, want.expand_as(variance), f"head {head}", 1e-12)


def test_a_variance_head_carries_no_graph(samples: Tensor) -> None:
    """A network with six outputs on a host with gradients: states stay plain tensors."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        return Prediction(x0=0.9 * x_t, variance=torch.tanh(x_t))

    result = restore(parse_task("sr4@0.05").measure(samples[:2]), Prior(predict), DPS(), grid=3)
    assert not result.image.requires_grad and torch.isfinite(result.image).all()


@pytest.mark.parametrize("task", NOISE_FREE)
def test_dps_with_an_oracle_returns_the_image(task: str, samples: Tensor) -> None:
    """x0 = x* and y = A x*: no residual, no slope (not even NaN from 0 / 0), and the last mean is x0."""
    x = samples[:1].clamp(-1, 1)
    close(restore(parse_task(task).measure(x), still(x[0]), DPS(), grid=6).image, x, "oracle")
    belief = scaling(1.0)(x, torch.full((1,), 300), True)
    exactly = parse_task("denoise@0").measure(x)
    assert not DPS().slope(belief, belief.x0, exactly).any()


def test_doubling_the_problem_doubles_the_pull(exact: Prior, samples: Tensor) -> None:
    """y -> 2 y, A -> 2 A."""
    mask = parse_task("inpaint70@0.05").measure(samples)
    double = replace(mask, y=2 * mask.y, operator=replace(mask.operator, s=2 * mask.operator.s))
    once, twice = (stepped(DPS(), problem, exact, samples, 300, 250) for problem in (mask, double))
    none = stepped(DPS(scale=0.0), mask, exact, samples, 300, 250)
    close(twice.x - none.x, 2 * (once.x - none.x), "the pull")
    assert (once.x - none.x).abs().max() > 1e-3


def test_the_pull_of_a_run_does_not_depend_on_the_number_of_steps(exact: Prior, samples: Tensor) -> None:
    """sum zeta = 1000 scale sqrt(N / N_ref) on every grid that begins at 999, with skips too, if scaled; else T scale."""
    size = (samples[0].numel() / REFERENCE) ** 0.5
    for steps in (1, 10, 100):
        times = (*DPS().default_steps(steps), -1)
        total = {"correct": 0.0, "scaled": 0.0}
        for t, s in pairwise(times):
            for variant in total:
                total[variant] += DPS(0.3, variant).zeta(belief_at(exact, samples[:1], t), torch.tensor([s])).item()
        assert total["scaled"] == pytest.approx(300 * size) and total["correct"] == pytest.approx(0.3 * steps)


def test_dps_takes_its_gradient_from_the_raw_x0_at_the_modulated_residual(exact: Prior, samples: Tensor) -> None:
    """The rule of the docstring: J belongs to the raw D(x_t), the residual and the clipping to the modulated x0."""
    problem, start = parse_task("inpaint70@0.05").measure(samples), belief_at(exact, samples, 200)
    raw = exact(start.x_t, start.t, True)
    moved = replace(raw, x0=raw.x0 + 0.2 * normal(*samples.shape, seed=8))
    x0, s, noise = moved.x0.clamp(-1, 1), torch.full((5,), 150), noise_for(5)
    r = problem.operator(x0) - problem.y
    v = problem.operator.T(r) / torch.stack([e.norm() for e in r]).view(-1, 1, 1, 1) * (moved.x0.abs() <= 1)
    mean, variance = ancestral(raw, x0, s)
    z = noise.at(s, 0 * s)("step", samples)
    out = DPS().step(moved, s, problem, noise.at(s, 0 * s), {})
    close(out.x, mean + variance.sqrt() * z - DPS().zeta(raw, s) * raw.vjp(v), "x", 1e-12)
    states: list[Any] = []
    restore(problem, exact, DPS(), grid=5, on_state=states.append, **STRONG)  # the loop hands it the modulated one
    assert any((state.x0y - state.belief.x0.clamp(-1, 1)).abs().max() > 1e-4 for state in states)


def test_dps_costs_one_call_and_one_backward_pass_a_step(exact: Prior, samples: Tensor) -> None:
    result = restore(parse_task("sr4@0.05").measure(samples[:3]), exact, DPS(), grid=7)
    assert result.nfe.tolist() == result.backward.tolist() == [7, 7, 7]


# --- DiffPIR -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted({*NOISY, *NOISE_FREE}))
def test_diffpir_solves_its_proximal_problem(task: str, exact: Prior, samples: Tensor) -> None:
    """A^T (A x - y) + rho (x - clip x0) = 0, and the dense solution, from strong data to a strong prior."""
    problem = parse_task(task).measure(samples[:2], seed=2)
    A, n = problem.operator, samples[0].numel()
    for t, lam in ((990, 7.0), (300, 7.0), (20, 3.0), (0, 25.0)):
        sampler, belief = DiffPIR(lam=lam), belief_at(exact, samples[:2], t)
        rho, x0 = sampler.rho(belief, problem), belief.x0.clamp(-1, 1)
        x = stepped(sampler, problem, exact, samples[:2], t, -1).x0y
        close(A.T(A(x)) + rho * x, A.T(A.on_measured(problem.y)) + rho * x0, f"stationary at {t}", 1e-9)
        p = dense_problem(problem, 0, exact, noise_for(2), ())
        right = p.A.T @ p.y + rho[0].item() * x0[0].flatten()
        want = torch.linalg.solve(p.A.T @ p.A + rho[0].item() * torch.eye(n, dtype=DOUBLE), right)
        if rho[0] > 1e-6:  # below, the dense system is singular to rounding
            close(x[0].flatten(), want, f"dense at {t}", 1e-7)


def test_rho_in_its_units(exact: Prior, samples: Tensor) -> None:
    """lam = 7, sigma = 0.05 for [0, 1] images: 5e-6 at t = 899, ..., 2.8 at t = 20; no noise counts as sigma = 0.001."""
    problem = parse_task("denoise@0.05").measure(samples[:1])
    for t, want in ((899, 5e-6), (500, 1.5e-3), (200, 0.033), (100, 0.149), (20, 2.8)):
        assert DiffPIR().rho(belief_at(exact, samples[:1], t), problem).item() == pytest.approx(want, rel=0.06)
    belief = belief_at(exact, samples[:1], 200)
    free, noisy = (DiffPIR().rho(belief, per_image(problem, level)).item() for level in (0.0, 0.1))
    assert free == pytest.approx(noisy / 50**2)


def test_diffpir_between_the_prior_and_the_data(exact: Prior, samples: Tensor) -> None:
    """rho -> infinity leaves the clipped x0; rho -> 0 with A A^T = 1 is DDNM's projection."""
    problem = parse_task("inpaint70@0").measure(samples)
    x0 = belief_at(exact, samples, 300).x0.clamp(-1, 1)
    close(stepped(DiffPIR(lam=1e15), problem, exact, samples, 300, 250).x0y, x0, "rho -> infinity", 1e-6)
    projected = problem.operator.pinv(problem.y) + problem.operator.null(x0)
    close(stepped(DiffPIR(lam=1e-9), problem, exact, samples, 300, 250).x0y, projected, "rho -> 0", 1e-9)


def test_diffpir_at_the_ends_of_zeta(exact: Prior, samples: Tensor) -> None:
    """zeta = 1: x_s knows x_t by x0y alone; zeta = 0: no draw after x_T matters, at 0.3 they do."""
    problem = parse_task("sr4@0.05").measure(samples)
    belief = belief_at(exact, samples, 300)
    s, noise = torch.full((5,), 250), noise_for(5)
    other = replace(belief, x_t=belief.x_t + 1)  # x0 as it was
    for zeta, alike in ((1.0, True), (0.3, False)):
        carry = DiffPIR(zeta=zeta).init(problem, noise)[1]
        first, second = (DiffPIR(zeta=zeta).step(b, s, problem, noise.at(s, 0 * s), carry) for b in (belief, other))
        assert torch.allclose(first.x, second.x, atol=1e-12) is alike
    for zeta in (0.0, 0.3):
        runs = [restore(problem, exact, DiffPIR(zeta=zeta), grid=5, noise=one_start(seed)).image for seed in (1, 2)]
        assert torch.equal(*runs) is (zeta == 0)


def one_start(seed: int) -> Noise:
    """Noise of `seed`, but x_T of seed 0."""

    def source(key: tuple, shape: tuple[int, ...]) -> Tensor:
        return keyed_normal((0, *key[1:]) if key[2] == "x_T" else key, shape)

    return replace(noise_for(5, seed), source=source)


def test_diffpir_with_an_oracle(samples: Tensor) -> None:
    """Ours returns x*; the released run stops at t = 0, sqrt(abar_0) x* and noise of rms 0.01."""
    x = samples[:1].clamp(-1, 1)
    problem = parse_task("gaussian@0").measure(x)
    close(restore(problem, still(x[0]), DiffPIR(), grid=20).image, x, "oracle")
    released = restore(problem, still(x[0]), DiffPIR(variant="released"), grid=20).image
    left = (released - abar(0).sqrt() * x).square().mean().sqrt()
    assert 0.008 < left < 0.012, f"{left:.4f}"


def test_the_released_diffpir_wastes_its_last_call(exact: Prior, samples: Tensor) -> None:
    """It returns x at the last time of the grid, and counts T calls all the same."""
    states: list[Any] = []
    problem = parse_task("sr4@0.05").measure(samples[:2])
    result = restore(problem, exact, DiffPIR(variant="released"), grid=6, on_state=states.append)
    same(result.image, states[-1].belief.x_t, "x at t = 0")
    same(result.image, states[-2].x, "x at t = 0")
    assert result.nfe.tolist() == [6, 6]


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "color@0.05"])
def test_the_released_diffpir_begins_at_the_measurement(task: str, samples: Tensor) -> None:
    """x_T = sqrt(abar_999) y, enlarged, + sqrt(1 - abar_999) z; ours is z."""
    problem, noise = parse_task(task).measure(samples), noise_for(5)
    z, guess = noise("x_T", samples), enlarged(problem)
    same(DiffPIR().init(problem, noise)[0], z, "z")
    close(DiffPIR(variant="released").init(problem, noise)[0], diffuse(guess, z, abar(999)), "released", 1e-12)
    assert guess.shape == samples.shape
    assert (guess - samples).square().mean() < samples.square().mean(), "it should look like the image"
    if task == "gaussian@0.05":
        same(guess, problem.y, "y as it is")


@pytest.mark.parametrize("t", [700, 100, 20])
def test_diffpir_is_ddpg_with_its_ridge(t: int, exact: Prior, samples: Tensor) -> None:
    """The prox is a back-projection with ridge rho: DDPG noise-free (ridge 1e-4, delta = 0, w = 1), the same zeta."""
    problem, s = parse_task("gaussian@0").measure(samples / 4), t - 10
    belief = belief_at(exact, samples / 4, t)
    assert (belief.x0.abs() < 1).all(), "no clipping"
    lam = 4e-4 * (belief.sigma[0].item() / 2e-3) ** 2  # rho = 1e-4
    ours, theirs = (at(h, problem, exact, samples / 4, t, s) for h in (DiffPIR(lam, 0.4), DDPG(mode=0, zeta=0.4)))
    for name in ("x0y", "x", "injected"):
        close(getattr(ours, name), getattr(theirs, name), name)


# --- PIRP ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "inpaint70@0", "color@0"])
def test_without_its_potential_pirp_is_ddpg_or_idpg(task: str, exact: Prior, samples: Tensor) -> None:
    problem = parse_task(task).measure(samples[:2])
    pairs: list[tuple[Sampler, Sampler]] = [
        (PIRP(lam=0.0), DDPG(mode=1)),
        (PIRP(Spatial(), lam=0.0, mode=0, zeta=0.2, gamma=3.0), DDPG(mode=0, zeta=0.2, gamma=3.0)),
        (replace(PIRP_PLUS, lam=0.0), IDPG(gamma=16.0, ridge=0.2)),
    ]
    for ours, theirs in pairs:
        one, other = (restore(problem, exact, sampler, grid=6).image for sampler in (ours, theirs))
        close(one, other, f"{theirs}")


@pytest.mark.parametrize("potential", [Spectral(), Spatial(), Spectral(0.9, 0.7), Spatial(1.5, 2.0)], ids=repr)
def test_the_potentials(potential: Spectral | Spatial) -> None:
    """Gradient = autograd, per image; zero for a constant; sums to zero; <grad Phi, x> >= 0; shifts do not matter."""
    for scale in (1e-3, 0.3, 3.0):
        x = (scale * normal(3, 3, 8, 7)).requires_grad_()
        slope = potential.gradient(x.detach())
        close(slope, torch.autograd.grad(potential(x).sum(), x)[0], "gradient", 1e-9)
        y = x.detach()
        assert potential(y).shape == (3,) and (potential(y) >= 0).all()
        close(slope.sum((1, 2, 3)), torch.zeros(3, dtype=DOUBLE), "sum", 1e-9 * max(1, slope.abs().max().item()))
        assert ((slope * y).flatten(1).sum(1) >= 0).all(), "<grad Phi, x>"
        close(potential.gradient(y.roll(3, -1) + 0.5), slope.roll(3, -1), "shift", 1e-8)
        same(potential.gradient(y[1:2]), slope[1:2], "an image alone")
    assert potential.gradient(torch.ones(1, 3, 8, 8, dtype=DOUBLE)).abs().max() < 1e-12


def test_g_minus_sharpens_and_g_plus_smooths(samples: Tensor) -> None:
    """A step down lam Phi: contrast between neighbours rises for lam < 0 and falls for lam > 0."""

    def contrast(x: Tensor) -> Tensor:
        return (x - x.roll(1, -1)).square().mean() + (x - x.roll(1, -2)).square().mean()

    small = 1e-3
    assert contrast(samples + small * Spectral().gradient(samples)) > contrast(samples)
    assert contrast(samples - small * Spatial().gradient(samples)) < contrast(samples)
    assert PIRP().lam < 0 < PIRP_PLUS.lam


@pytest.mark.parametrize("rate", [1e-7, 1e-3, 0.2, 1.3, 1e6])
def test_g_plus_descends_at_every_rate(rate: float) -> None:
    """Phi never rises, on flat, smooth and rough images; a plain step of the published size raises it on the first two."""
    for scale in (1e-5, 1e-3, 0.1, 1.0):
        x, phi = scale * normal(3, 3, 9, 8), Spatial()
        there = x - phi.pull(x, torch.tensor(rate, dtype=DOUBLE))
        assert (phi(there) <= phi(x)).all() and not torch.equal(there, x)
        plain = x - rate * phi.gradient(x)
        if rate < 1 / (4 * 4e4):
            same(there, plain, "a small rate is taken as it is")
        elif rate > 0.1 and scale < 0.01:
            assert (phi(plain) > phi(x)).all() and (plain - x).abs().max() > 100 * (there - x).abs().max()


def test_g_plus_leaves_the_images_and_held_it_does_not(exact: Prior, samples: Tensor) -> None:
    """The first step at the published lam: from a flat x0 to a checkerboard, against a little smoothing."""
    problem = parse_task("sr4@0.05").measure(samples)
    plain, with_, without = (
        stepped(one, problem, exact, samples, 990, 980).x0y
        for one in (PIRP_PLUS, host("pirp+", 0.05), replace(PIRP_PLUS, lam=0.0))
    )
    assert (plain - without).abs().max() > 2 > 1 > (with_ - without).abs().max() > 0


def test_how_far_pirp_goes_down_its_potential(exact: Prior, samples: Tensor) -> None:
    """mu_r = 1, but beta m in mode 0 of G+: the difference that lam makes to x0y."""
    problem, t, s = parse_task("sr4@0").measure(samples), 400, 350
    x0, m = belief_at(exact, samples, t).x0, (1 - abar(s)) / (1 - abar(t))
    for potential, mode, want in (
        (Spectral(), 0, 1.0),
        (Spectral(), 1, 1.0),
        (Spatial(), 1, 1.0),
        (Spatial(), 0, ((1 - abar(t) / abar(s)) * m).item()),
    ):
        hosts = (PIRP(potential, lam, mode=mode) for lam in (0.1, 0.0))
        with_, without = (stepped(one, problem, exact, samples, t, s) for one in hosts)
        close(without.x0y - with_.x0y, 0.1 * want * potential.gradient(x0), f"{potential}, mode {mode}", 1e-9)


def test_pirp_keeps_its_potential_and_leader_adds_to_it(exact: Prior, samples: Tensor) -> None:
    """The rule of the docstring: guidance and grad Phi are taken at the modulated x0."""
    problem, s, noise = parse_task("sr4@0").measure(samples), torch.full((5,), 350), noise_for(5)
    raw = belief_at(exact, samples, 400)
    moved = replace(raw, x0=raw.x0 + 0.1 * normal(*samples.shape, seed=3))
    out = PIRP().step(moved, s, problem, noise.at(s, 0 * s), {})
    m = (1 - abar(350)) / (1 - abar(400))
    to_data = problem.operator.pinv(problem.y - problem.operator(moved.x0), 1e-4)
    close(out.x0y, moved.x0 + m * to_data + 0.09 * Spectral().gradient(moved.x0), "x0y", 1e-12)
    led, none = (restore(problem, exact, PIRP(lam=lam), grid=5, **STRONG).image for lam in (-0.09, 0.0))
    plain = restore(problem, exact, PIRP(), grid=5).image
    assert (led - plain).abs().max() > 1e-4 and (led - none).abs().max() > 1e-4, "both act"


@pytest.mark.parametrize("sampler", [PIRP(), PIRP_PLUS], ids=["G-", "G+"])
def test_pirp_ends_on_x0_if_noisy(sampler: Sampler, exact: Prior, samples: Tensor) -> None:
    for task, unguided in (("sr4@0.05", True), ("sr4@0", False)):
        states: list[Any] = []
        result = restore(parse_task(task).measure(samples[:2]), exact, sampler, grid=5, on_state=states.append)
        assert torch.equal(result.image, states[-1].belief.x0) is unguided


# --- SITCOM --------------------------------------------------------------------------------------------------------


def test_sitcom_with_one_call_is_plain_renoising(exact: Prior, samples: Tensor) -> None:
    """x0' = clip D(x_t), T calls, no backward pass."""
    problem, noise, states = parse_task("sr4@0.05").measure(samples[:2]), noise_for(2), []
    result = restore(problem, exact, SITCOM(iterations=1), grid=5, noise=noise, on_state=states.append)
    for state in states:
        x0 = state.belief.x0.clamp(-1, 1)
        same(state.x0y, x0, "x0'")
        close(state.x, diffuse(x0, noise.at(state.s, 0 * state.s)("step", x0), Schedule().abar(state.s, x0)), "x", 1e-12)
    assert result.nfe.tolist() == [5, 5] and result.backward.tolist() == [0, 0]


def test_sitcom_counts_its_calls(exact: Prior, samples: Tensor) -> None:
    """Where nothing stops it, K calls and K - 1 backward passes a step."""
    problem = parse_task("inpaint70@0").measure(samples[:2])
    result = restore(problem, exact, SITCOM(iterations=4, lr=1e-4, slack=0.0), grid=3)
    assert result.nfe.tolist() == [12, 12] and result.backward.tolist() == [9, 9]


def test_an_image_that_agrees_with_its_data_costs_nothing_more(exact: Prior, samples: Tensor) -> None:
    """Three images, of which one stops at once, one on the way and one never: calls are made, and charged, for the others."""
    sizes: list[int] = []

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        sizes.append(len(x_t))
        return exact.predict(x_t, t, schedule)

    problem = per_image(parse_task("inpaint70@0").measure(samples[:3]), 9.0, 0.25, 0.0)
    meter, sampler = Meter.of(3), SITCOM(iterations=30, slack=0.0)
    belief = Prior(predict, meter=meter)(belief_at(exact, samples[1:4], 50).x_t, torch.full((3,), 50), True)
    x0 = sampler.consistent(belief, problem)
    calls = meter.nfe.tolist()
    assert calls[0] == 1 < calls[1] < calls[2] == 30, f"{calls}"
    assert meter.backward.tolist() == [n - 1 for n in calls]
    assert sizes == [3] + [2] * (calls[1] - 1) + [1] * (30 - calls[1])
    left = problem.residual(x0)
    assert left[1] < 0.25 and left[2] > 0
    same(x0[0], belief.x0[0].clamp(-1, 1), "it stopped at its first answer")


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "inpaint70@0.05"])
def test_the_inner_loop_approaches_the_data(task: str, exact: Prior, samples: Tensor) -> None:
    """The residual falls, to the stopping rule where there are calls enough."""
    problem = parse_task(task).measure(samples[:2])
    for t, enough in ((600, False), (50, True)):
        start = belief_at(exact, samples[:2].flip(0), t)
        x0 = SITCOM(iterations=120).consistent(exact(start.x_t, start.t, True), problem)
        before, after = problem.residual(start.x0.clamp(-1, 1)), problem.residual(x0)
        assert (after < 0.95 * before).all() and (before > 0.101).all(), f"{before.tolist()}, {after.tolist()}"
        assert not enough or (after < 0.101).all(), f"at t = {t}: {after.tolist()}"


def test_the_inner_problem_against_least_squares(samples: Tensor) -> None:
    """D = c x and A = 1: v* = argmin |c v - y|^2 + weight |v - x|^2 = (c y + weight x) / (c^2 + weight)."""
    y = samples[:2].clamp(-0.75, 0.75)
    problem, c = parse_task("denoise@0").measure(y), 0.8
    x = (y + 0.3 * normal(2, 3, 8, 8)).clamp(-1.2, 1.2)  # |c x| < 1: a clipped pixel has no slope and stays
    for weight in (0.0, 0.5):
        belief = scaling(c)(x, torch.full((2,), 300), True)
        x0 = SITCOM(iterations=1500, lr=0.003, weight=weight, slack=0.0).consistent(belief, problem)
        close(x0, (c * (c * y + weight * x) / (c**2 + weight)).clamp(-1, 1), "x0'", 2e-3)


def test_sitcom_stops_at_the_noise_of_each_image(exact: Prior, samples: Tensor) -> None:
    """sigma_y + slack, in [-1, 1] units, over the measured slots only."""
    sampler, x0 = SITCOM(slack=1e-3), samples[:2]
    for task in ("inpaint70@0", "color@0", "gaussian@0"):
        clean = parse_task(task).measure(x0)
        for level, inside in ((0.0999, True), (0.1015, False)):
            off = clean.operator.on_measured(torch.ones_like(clean.y))
            problem = per_image(replace(clean, y=clean.y + level * off), 0.1, 0.2)
            assert sampler.unsettled(x0, problem).tolist() == [not inside, False], f"{task} at {level}"


@pytest.mark.parametrize("iterations", [1, 5])
def test_leader_acts_on_sitcoms_own_x0(iterations: int, exact: Prior, samples: Tensor) -> None:
    """The rule of the docstring: UCPM moves x0', after the inner loop and before the noise; the loop sees the raw D(v)."""
    problem, noise = parse_task("sr4@0.05").measure(samples[:2]), noise_for(2)
    modulate, sampler = UCPM(HuberTV(mu=3.0)), SITCOM(iterations=iterations, lr=0.1)
    plain_states, states = [], []
    restore(problem, exact, sampler, grid=4, noise=noise, on_state=plain_states.append)
    result = restore(problem, exact, sampler, grid=4, noise=noise, on_state=states.append, **{**STRONG, "modulate": modulate})
    plain, led = plain_states[0], states[0]  # the first step begins alike
    own = plain.x0y
    assert led.cov is not None and torch.equal(own, led.belief.x0.clamp(-1, 1)) is (iterations == 1), "the inner loop"
    want = modulate(replace(led.belief, x0=own), led.cov, problem).x0
    close(led.x0y, want, "x0'", 1e-12)
    assert (want - own).abs().max() > 1e-3
    target = Schedule().abar(led.s, own)
    close(led.x, diffuse(want, noise.at(led.s, 0 * led.s)("step", own), target), "x", 1e-12)
    same(result.image, states[-1].x0y, "the result")


def test_the_released_sitcom_without_noise(exact: Prior, samples: Tensor) -> None:
    """No stop, and the gradient of the norm rather than of its square: Adam's path differs; with noise the two agree."""
    for level, agree in ((0.0, False), (0.1, True)):
        problem = per_image(parse_task("sr4@0").measure(samples[:2]), level, level)
        runs = [restore(problem, exact, SITCOM(iterations=4, variant=v), grid=3) for v in ("correct", "released")]
        assert torch.equal(runs[0].image, runs[1].image) is agree
    settled = per_image(parse_task("denoise@0").measure(samples[:2]), 0.0, 0.0)
    belief = scaling(1.0)(samples[:2].clamp(-1, 1), torch.full((2,), 300), True)
    slope = SITCOM(variant="released").slope(belief.x0 + 0.1, settled)
    close(slope.flatten(1).norm(dim=1), torch.ones(2, dtype=DOUBLE), "the norm's gradient has length 1", 0.3)
    assert SITCOM(variant="released").unsettled(belief.x0, settled).all()
    assert SITCOM(variant="released").slope(settled.y, settled).isfinite().all()


# --- Published settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05", "inpaint70@0", "pool4@0.05", "color@0"])
def test_published_settings_build_their_host(task: str) -> None:
    kinds: dict[str, Callable[..., Sampler]] = {"dps": DPS, "diffpir": DiffPIR, "pirp": PIRP, "pirp+": PIRP, "sitcom": SITCOM}
    for images in ("photographs", "faces"):
        for name, kind in kinds.items():
            kind(**tuned(name, task, images))  # no unknown setting
    assert all(row.host in kinds for row in TABLE)


def test_published_settings() -> None:
    assert tuned("diffpir", "gaussian@0.05", "faces") == {"lam": 7.0, "zeta": 0.3}
    assert tuned("diffpir", "sr4@0.05") == {"lam": 9.0, "zeta": 0.5}
    assert tuned("dps", "inpaint70@0.05", "faces")["scale"] > tuned("dps", "gaussian@0.05", "faces")["scale"]
    assert tuned("sitcom", "sr4@0.05") == {} and tuned("pirp", "color@0") == {}
    with pytest.raises(InputError, match="unknown host 'dpss': did you mean 'dps'"):
        tuned("dpss", "sr4@0.05")
    with pytest.raises(InputError, match="unknown images 'face'"):
        tuned("dps", "sr4@0.05", "face")


def test_g_minus_is_flat_beyond_its_clamp() -> None:
    """m > 100: phi is held there, so the gradient of the clamped potential has no weight; a clamped weight would still pull."""
    x, phi = (6 * normal(2, 3, 8, 8)).requires_grad_(), Spectral()
    down, right = spectral(x.detach(), -2), spectral(x.detach(), -1)
    m = down.square() + right.square() + 2e-4
    assert 0.1 < (m > 100).double().mean() < 0.9
    slope = phi.gradient(x.detach())
    close(slope, torch.autograd.grad(phi(x).sum(), x)[0], "gradient of the clamped potential", 1e-9)
    w = edge_weight(m.clamp(max=100), phi.power, phi.width)
    pulling = -(spectral(w * down, -2) + spectral(w * right, -1))
    assert (pulling - slope).abs().max() > 1e-3
    m_kept = (m <= 100).double()
    kept = -(spectral(m_kept * w * down, -2) + spectral(m_kept * w * right, -1))
    close(slope, kept, "the weight is 0 beyond it", 1e-12)

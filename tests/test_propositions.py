"""The two propositions: where they hold exactly, what is left where they do not, and worlds in which each bound fails."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from laws import check_covariance, close, generator, normal
from leader_nb import (
    DDNM,
    DDPG,
    DDRM,
    DPS,
    IDPG,
    DDNMPlus,
    DiffPIR,
    GaussianMixture,
    Prior,
    ProjDiff,
    Schedule,
    image_mixture,
    leader,
    noise_for,
    parse_task,
    restore,
    trajectory,
)
from leader_nb.covariance import RunningSecant
from leader_nb.errors import InputError
from leader_nb.mixture import mixture_from_covariances
from leader_nb.operators import inpainting
from leader_nb.problem import Problem
from leader_nb.propositions import (
    ErrorGrowth,
    MixtureMap,
    consistency,
    ddim_walk,
    error_growth,
    flow,
    jacobian,
    left_over,
    noise_in,
    steepest,
    step_matrix,
    walk_of,
)
from leader_nb.schedule import uniform_grid
from leader_nb.steps import SATP, ErrorControlled, Uniform
from leader_nb.tasks import DEGRADATIONS, VARIANTS
from leader_nb.ucpm import UCPM, HuberTV

RULES = {"all": Uniform(), "SATP": SATP(), "SATP, more": SATP(budget=0.05), "error": ErrorControlled(1e-3)}


def scalar(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def rms(x: Tensor) -> Tensor:
    return x.flatten(1).square().mean(1).sqrt()


def component(mixture: GaussianMixture, j: int) -> GaussianMixture:
    """One of the Gaussians, alone."""
    parts = (mixture.means[j : j + 1], mixture.bases[j : j + 1], mixture.values[j : j + 1])
    return GaussianMixture(torch.zeros(1, dtype=torch.float64), *parts, mixture.shape)


def pair(weight: float, place: float, spread: float) -> GaussianMixture:
    """One pixel: N(-place, spread^2) with `weight`, N(place, spread^2) otherwise."""
    means, variances = torch.tensor([[-place], [place]]), torch.full((2, 1, 1), spread**2)
    return mixture_from_covariances(torch.tensor([weight, 1 - weight]).double(), means.double(), variances.double(), (1, 1, 1))


def levels(steps: int) -> Tensor:
    """sigma_bar on the usual grid and at the clean image, falling, (steps + 1,)."""
    return Schedule().sigma(torch.tensor([*uniform_grid(steps), -1]), normal(1)).flatten()


def nothing(batch: int, shape: tuple[int, int, int]) -> Problem:
    """A = 0."""
    lost = inpainting(torch.zeros(1, 1, *shape[1:]), shape, normal(1))
    return Problem(torch.zeros(batch, *shape, dtype=torch.float64), lost, torch.zeros(batch, dtype=torch.float64))


def quantiles(mixture: GaussianMixture, count: int, sigma: Tensor) -> Tensor:
    """Starts that cover a one-pixel world at high noise, (count, 1, 1, 1)."""
    q = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return (torch.special.ndtri(q) * (sigma**2 + 1).sqrt()).view(-1, 1, 1, 1)


GAUSSIAN = component(image_mixture(8), 0)
SPLIT = pair(0.3, 0.7, 0.05)  # two far peaks: not log-concave below noise 0.7
CLOSE = pair(0.3, 0.04, 0.05)  # two peaks nearer than their widths: log-concave


@cache
def grown(rule: str, seed: int = 0, gaussian: bool = True) -> ErrorGrowth:
    """A run of the loop with a step rule, without fresh noise or measurement."""
    world = GAUSSIAN if gaussian else image_mixture(8)
    run = trajectory(
        nothing(1, world.shape),
        world.prior(),
        DDNM(eta_ddim=0.0),
        noise=noise_for(1, seed),
        covariance=MixtureMap(world),
        steps=RULES[rule],
    )
    return error_growth(world, walk_of(run))


# --- Proposition 4.1 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degradation", [*DEGRADATIONS, *VARIANTS])
def test_41_holds_for_every_operator(degradation: str, network: Prior) -> None:
    """Noise-free and with the Moore-Penrose inverse: y = A x0y at every step and at the end, whatever map and potential say."""
    side = 32 if degradation == "blockcs25" else 16
    truth = normal(1, 3, side, side, seed=1).clamp(-1, 1)
    problem = parse_task(f"{degradation}@0").measure(truth)
    found = consistency(trajectory(problem, network, DDNM(), grid=4, **leader()), problem, truth)
    assert found.data.max() < 1e-12 and found.final.max() < 1e-12 and found.truth.max() < 1e-12
    assert found.prior.min() > 1e-3, "the prior agreed with the data by itself: nothing was tested"


@pytest.mark.parametrize("host", [DDNMPlus(), DDRM(), ProjDiff()], ids=repr)
def test_41_holds_for_hosts_that_end_on_the_data(host, network: Prior) -> None:
    problem = parse_task("sr4@0").measure(normal(2, 3, 16, 16).clamp(-1, 1))
    found = consistency(trajectory(problem, network, host, grid=5, **leader(modulate=UCPM(HuberTV(mu=1.0)))), problem)
    assert found.data.max() < 1e-12 and found.final.max() < 1e-12


@pytest.mark.parametrize("degradation", ["gaussian", "motion", "sr4", "color", "inpaint70"])
def test_a_ridge_leaves_its_closed_form(degradation: str, network: Prior) -> None:
    """ridge / (s^2 + ridge) of each component of y - A x0, where x0 is what UCPM made of the prior's."""
    problem = parse_task(f"{degradation}@0").measure(normal(2, 3, 16, 16).clamp(-1, 1))
    plugins = leader(modulate=UCPM(), steps=None)  # our likelihood would leave no residual for the ridge
    for state in trajectory(problem, network, IDPG(), grid=4, **plugins):
        x0 = plugins["modulate"](state.belief, state.cov, problem).x0
        expected = left_over(problem, x0, 1e-4)
        close(problem.y - problem.operator(state.x0y), expected, "left over", 1e-12)
        assert problem.residual(state.x0y).min() > 1e-9, "a ridge that leaves nothing was not tested"


def test_a_ridge_as_large_as_the_spectrum_leaves_half() -> None:
    problem = parse_task("inpaint50@0").measure(normal(2, 3, 8, 8))
    x0 = normal(2, 3, 8, 8, seed=5)
    close(rms(left_over(problem, x0, 1.0)), rms(problem.y - problem.operator(x0)) / 2, "half")
    assert not left_over(problem, x0).any()


def test_noise_within_the_range_is_fitted(network: Prior) -> None:
    """y = A x0y still, but A x0y is off the truth by the noise."""
    truth = normal(2, 3, 16, 16).clamp(-1, 1)
    problem = parse_task("inpaint50@0.05").measure(truth)
    found = consistency(trajectory(problem, network, DDNM(), grid=4), problem, truth)
    assert found.data.max() < 1e-12
    noise = problem.operator.measured_rms(problem.y - problem.operator(truth))
    close(found.truth, noise.expand_as(found.truth), "the noise is fitted, all of it", 1e-12)
    assert (noise - 0.1).abs().max() < 0.02


def test_noise_outside_the_range_stays(network: Prior) -> None:
    """(I - A A^+) y, at every step the same, where a spectrum was cut."""
    problem = parse_task("gaussian-short@0.05").measure(normal(2, 3, 16, 16).clamp(-1, 1))
    found = consistency(trajectory(problem, network, DDNM(), grid=4), problem)
    outside = problem.operator.measured_rms(left_over(problem, normal(2, 3, 16, 16, seed=7)))
    assert outside.min() > 1e-3
    close(found.data, outside.expand_as(found.data), "noise outside the range", 1e-9)


@pytest.mark.parametrize("host", [DDNMPlus(), DDPG(), DiffPIR(), DPS(scale=0.1)], ids=repr)
def test_hosts_for_noise_do_not_end_on_the_data(host, network: Prior) -> None:
    """4.1 does not hold for them, by design: they stop near the noise level."""
    problem = parse_task("inpaint50@0.05").measure(normal(2, 3, 16, 16).clamp(-1, 1))
    assert consistency(trajectory(problem, network, host, grid=8), problem).final.min() > 1e-3


def test_consistency_follows_every_clock(exact: Prior, mixture: GaussianMixture, samples: Tensor) -> None:
    problem = parse_task("inpaint50@0").measure(samples[:3])
    plugins = {"covariance": MixtureMap(mixture), "steps": SATP(budget=0.05)}
    result = restore(problem, exact, DDNM(), grid=40, **plugins)
    found = consistency(trajectory(problem, exact, DDNM(), grid=40, **plugins), problem)
    assert found.truth is None and len(set(result.nfe.tolist())) > 1, "all images took equally long"
    for i, times in enumerate(result.times):
        assert tuple(t for t in found.t[:, i].tolist() if t >= 0) == times
        assert found.data[:, i].isnan().tolist() == [t < 0 for t in found.t[:, i].tolist()]
    states = trajectory(problem, exact, DDNM(), grid=3)
    consistency(states, problem)
    with pytest.raises(InputError, match="states"):
        consistency(states, problem)


# --- The equation ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_slope_and_jacobian_are_the_mixture_s(sigma: float) -> None:
    mixture, level = image_mixture(6), scalar(sigma)
    x = mixture.sample(3, generator(0)) + sigma * normal(3, 1, 6, 6)
    mean = torch.stack([mixture.mean(image, level) for image in x])
    close(noise_in(mixture, x, level), (x - mean) / sigma, "slope", 1e-8)
    J = torch.stack([mixture.covariance(image, level) for image in x]) / sigma**2
    close(jacobian(mixture, x, level), J, "Jacobian", 1e-8)
    by_autograd = torch.autograd.functional.jacobian(lambda v: v - sigma * noise_in(mixture, v, level), x[:1])
    close(J[0], by_autograd.view(36, 36), "Jacobian of the answer", 1e-8)


def test_flow_of_one_gaussian_named_twice_is_the_closed_form() -> None:
    """The numerical solution against the analytic one."""
    twice = GaussianMixture(
        *(torch.cat([v, v]) for v in (GAUSSIAN.log_weights - math.log(2), GAUSSIAN.means, GAUSSIAN.bases, GAUSSIAN.values)),
        GAUSSIAN.shape,
    )
    for a, b in ((140.0, 100.0), (1.0, 0.9), (0.05, 0.01), (0.01, 0.0), (3.0, 0.0)):
        x = (0.3 + a) * normal(2, 1, 8, 8)
        close(flow(twice, x, scalar(a), scalar(b)), flow(GAUSSIAN, x, scalar(a), scalar(b)), f"flow {a} to {b}", 1e-7)


def test_flow_keeps_quantiles() -> None:
    """In one dimension an order-preserving map between densities is their quantile map: checked without any solver."""

    def share_below(x: Tensor, sigma: float) -> Tensor:
        width = (0.05**2 + sigma**2) ** 0.5
        return 0.3 * torch.special.ndtr((x + 0.7) / width) + 0.7 * torch.special.ndtr((x - 0.7) / width)

    x = torch.linspace(-6, 6, 41, dtype=torch.float64).view(-1, 1, 1, 1)
    for end in (0.5, 0.1, 0.0):
        close(share_below(flow(SPLIT, x, scalar(2.0), scalar(end)), end), share_below(x, 2.0), f"quantiles at {end}", 1e-6)


def test_a_mixture_without_width_cannot_be_followed_to_the_end() -> None:
    with pytest.raises(InputError, match="zero variances"):
        flow(pair(0.5, 0.7, 0.0), normal(1, 1, 1, 1), scalar(1.0), scalar(0.0))


@pytest.mark.parametrize("rule", RULES)
def test_the_loop_walks_the_equation(rule: str) -> None:
    """DDNM without fresh noise and with A = 0 is Euler's method, at the levels the rule chose."""
    walk = grown(rule).walk
    again = ddim_walk(GAUSSIAN, walk.x[0], walk.sigmas)
    close(again.x, walk.x, "walk", 1e-9)
    assert walk.spans.sum() == 100 and (walk.spans >= 1).all()
    assert (len(walk.spans) == 100) == (rule == "all")


def test_the_exact_map_is_a_plug_in(mixture: GaussianMixture, exact: Prior, samples: Tensor) -> None:
    check_covariance(MixtureMap(mixture), exact, samples[:2])


# --- Proposition 4.2: bounds that hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_errors_on_a_gaussian_follow_the_recursion_exactly(rule: str) -> None:
    """e' = (r I + (1 - r) J) e + local error, as vectors; everything is linear."""
    walk = grown(rule).walk
    e, exact = torch.zeros(64, dtype=torch.float64), walk.x[0]
    for k, (sigma, to) in enumerate(itertools.pairwise(walk.sigmas)):
        J = jacobian(GAUSSIAN, exact, sigma)[0]
        step = exact + (to - sigma) * noise_in(GAUSSIAN, exact, sigma)
        exact = flow(GAUSSIAN, exact, sigma, to)
        e = (to / sigma) * e + (1 - to / sigma) * (J @ e) + (step - exact).flatten()
        close(e, (walk.x[k + 1] - exact).flatten(), f"recursion at step {k}", 1e-9)
    assert e.abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rule", RULES)
def test_on_a_gaussian_the_error_is_at_most_the_sum_of_local_errors(rule: str, seed: int) -> None:
    g = grown(rule, seed)
    assert (g.growth <= 1 + 1e-12).all() and (g.lipschitz <= 1 + 1e-12).all()
    assert (g.error[-1] <= g.carried).all() and (g.carried <= g.summed).all() and (g.summed <= g.stepwise).all()
    assert g.error[-1] > 0.1 * g.summed, "the bound is not of the size of the error"
    for clock in ("steps", "sigma", "relative"):
        assert (g.groenwall(clock) >= g.stepwise.log10() - 1e-9).all(), clock


@pytest.mark.parametrize("steps", [20, 50])
def test_log_concave_is_enough(steps: int) -> None:
    """Two Gaussians nearer than their widths are log-concave: no exponential, though J differs from place to place."""
    g = error_growth(CLOSE, ddim_walk(CLOSE, quantiles(CLOSE, 60, levels(steps)[0]), levels(steps)), everywhere=True)
    assert (g.growth < 1).all() and (g.error[-1] <= g.summed).all()
    assert (g.error[-1] > 0.5 * g.summed).any()


def test_rates_of_the_clocks_by_hand() -> None:
    """Eq. 23 for one step of known constants: (C B / L)(exp(L T) - 1) with C B = local / length."""
    walk = ddim_walk(GAUSSIAN, normal(1, 1, 8, 8), torch.tensor([1.0, 0.4], dtype=torch.float64))
    g = error_growth(GAUSSIAN, walk)
    L = g.lipschitz[0, 0].item()
    for clock, length, rate in (("sigma", 0.6, L), ("steps", 1.0, 0.6 * L), ("relative", 0.6, L)):
        bound = g.local[0, 0].item() / length / rate * math.expm1(rate * length)
        assert g.groenwall(clock).item() == pytest.approx(math.log10(bound), abs=1e-12)
    assert g.stepwise.item() == g.carried.item() == g.summed.item() == g.error[-1].item()


def test_steepest_bounds_every_jacobian_and_is_met() -> None:
    for sigma in (0.05, 0.3, 2.0):
        top = steepest(SPLIT, scalar(sigma)).item()
        seen = jacobian(SPLIT, torch.linspace(-8, 8, 80001, dtype=torch.float64).view(-1, 1, 1, 1), scalar(sigma))
        assert top * (1 - 1e-3) < seen.max() <= top * (1 + 1e-12)


# --- Proposition 4.2: bounds that fail, or say nothing ---------------------------------------------------------------


@cache
def split(steps: int) -> ErrorGrowth:
    walk = ddim_walk(SPLIT, quantiles(SPLIT, 1000, levels(steps)[0]), levels(steps))
    return error_growth(SPLIT, walk, everywhere=True)


def test_two_peaks_break_the_sum() -> None:
    """Not log-concave: a start near the watershed ends on the other peak, far beyond the sum of its local errors."""
    g = split(20)
    ratio = g.error[-1] / g.summed
    assert ratio.max() > 3 and g.error[-1].max() > 1
    assert 0 < (ratio > 1).double().mean() < 0.05, "only starts near the watershed"
    assert g.growth.max() > 5


def test_bounds_with_an_exponential_hold_there_and_are_vacuous() -> None:
    g = split(20)
    assert (g.error[-1] <= g.carried).all() and (g.carried <= g.stepwise).all()
    assert (g.groenwall() > 20).all(), "more than twenty orders of magnitude: no pixel is wrong by 1e20"
    assert g.error[-1].max() < 2


def test_constants_seen_on_the_way_can_be_too_small() -> None:
    """Why `everywhere` is there: three places between x_k and x*_k may all miss the steep one."""
    near = (split(20).error[-1] / split(20).summed).argmax()
    walk = split(20).walk
    one = replace(walk, x=walk.x[:, near : near + 1])
    guess, bound = error_growth(SPLIT, one, points=2), error_growth(SPLIT, one, everywhere=True)
    assert (guess.growth <= bound.growth * (1 + 1e-12)).all() and guess.carried < bound.carried


def test_a_budget_of_zero_does_not_give_an_error_of_zero() -> None:
    """Eq. 23 says C B (...) = 0. But the shortest step is 1, so that C grows like 1 / B and is no constant."""
    runs = {}
    for budget in (1e-6, 1e-5, 0.0):
        rule = SATP(budget=budget)
        run = trajectory(
            nothing(1, GAUSSIAN.shape),
            GAUSSIAN.prior(),
            DDNM(eta_ddim=0.0),
            noise=noise_for(1, 0),
            covariance=MixtureMap(GAUSSIAN),
            steps=rule,
        )
        runs[budget] = error_growth(GAUSSIAN, walk_of(run))
    assert runs[0.0].error[-1] == grown("all").error[-1] > 1e-3
    C = {b: (g.local[:, 0] / g.walk.spans).max() / b for b, g in runs.items() if b}
    assert C[1e-6] == pytest.approx(10 * C[1e-5].item(), rel=1e-9)


def refinement(eta: float, strides: tuple[int, ...]) -> list[float]:
    """Mean distance to the run with a tenth of the last stride; draws are keyed by the time they lead to, so shared."""
    problem = parse_task("inpaint50@0").measure(GAUSSIAN.sample(2, generator(0)))
    prior = GAUSSIAN.prior()
    images = [restore(problem, prior, DDNM(eta), grid=range(990, -1, -s), noise=noise_for(2, 0)).image for s in strides]
    return [rms(image - images[-1]).mean().item() for image in images[:-1]]


def test_without_fresh_noise_runs_converge() -> None:
    coarse, middle, fine = refinement(0.0, (90, 30, 10, 2))
    assert fine < middle / 2 < coarse / 3


def test_with_fresh_noise_there_is_nothing_to_converge_to() -> None:
    """eta = 0.85 of the noise is drawn anew at every step, however short: more steps give another picture."""
    coarse, middle, fine = refinement(0.85, (90, 30, 10, 2))
    assert fine > 0.5 * coarse > 0.05


def test_a_projection_breaks_what_a_gaussian_promised() -> None:
    """DDNM's own noise goes stale: its step can enlarge errors. Noise taken anew from the projected x0 cannot."""
    operator = parse_task("inpaint50@0").operator((1, 8, 8), normal(1))
    seen = torch.diag((operator.s > 0).double().flatten())
    worst = {True: 0.0, False: 0.0}
    for sigma, to in itertools.pairwise(levels(100)):
        J = jacobian(GAUSSIAN, GAUSSIAN.means.view(1, 1, 8, 8), sigma)[0]
        for stale in worst:
            norm = torch.linalg.matrix_norm(step_matrix(J, to / sigma, seen, stale), 2)
            worst[stale] = max(worst[stale], norm.item())
    assert worst[True] > 1.005 and worst[False] <= 1 + 1e-12


@pytest.mark.parametrize(("host", "stale"), [(DDNM(0.0), True), (DDPG(zeta=0.0, mode=0), False)], ids=["DDNM", "DDPG"])
def test_step_matrix_is_the_host_s(host, stale: bool) -> None:
    """On a Gaussian a step is affine, so that its matrix can be read off. DDPG's ridge of 1e-4 is left out of ours."""
    problem = parse_task("inpaint50@0").measure(GAUSSIAN.sample(1, generator(0)))
    prior, t, s = GAUSSIAN.prior(), torch.tensor([400]), torch.tensor([300])
    abar, abar_s = prior.schedule.abar(t, problem.y), prior.schedule.abar(s, problem.y)
    noise = noise_for(1, 0)
    _, carry = host.init(problem, noise)

    def step(xbar: Tensor) -> Tensor:
        return host.step(prior(abar.sqrt() * xbar, t), s, problem, noise.at(s, 0 * s), carry).x / abar_s.sqrt()

    start = normal(1, 1, 8, 8)
    columns = [(step(start + e.view(1, 1, 8, 8)) - step(start)).flatten() for e in torch.eye(64, dtype=torch.float64)]
    sigma, to = (prior.schedule.sigma(v, problem.y).reshape(()) for v in (t, s))
    seen = torch.diag((problem.operator.s > 0).double().flatten())
    J = jacobian(GAUSSIAN, start, sigma)[0]
    close(torch.stack(columns, 1), step_matrix(J, to / sigma, seen, stale), "step matrix", 1e-9 if stale else 2e-4)


def test_a_running_map_skips_elsewhere() -> None:
    """SATP takes U_t as known: without fresh noise the running secant sees another, and other steps are left out."""
    run = trajectory(
        nothing(1, GAUSSIAN.shape),
        GAUSSIAN.prior(),
        DDNM(eta_ddim=0.0),
        noise=noise_for(1, 0),
        covariance=RunningSecant(),
        steps=SATP(),
    )
    assert walk_of(run).spans.tolist() != grown("SATP").walk.spans.tolist()


def test_skipping_costs_accuracy_where_satp_skips() -> None:
    """With fewer calls than SATP, the error-controlled rule stays nearer to the exact solution: Gaussian and mixture."""
    for gaussian in (True, False):
        satp, error = grown("SATP", 0, gaussian), grown("error", 0, gaussian)
        assert len(error.local) < len(satp.local) and error.error[-1] < 0.7 * satp.error[-1]


# --- Mistakes ----------------------------------------------------------------------------------------------------------


def test_mistakes_are_named() -> None:
    x = normal(1, 1, 8, 8)
    with pytest.raises(InputError, match="sigmas"):
        ddim_walk(GAUSSIAN, x, torch.tensor([0.1, 0.2], dtype=torch.float64))
    with pytest.raises(InputError, match="clock"):
        grown("all").groenwall("hours")
    with pytest.raises(InputError, match="components"):
        steepest(image_mixture(4), scalar(1.0))
    run = trajectory(nothing(1, GAUSSIAN.shape), GAUSSIAN.prior(), DDNM(0.0), grid=2)
    with pytest.raises(InputError, match="image"):
        walk_of(run, image=3)

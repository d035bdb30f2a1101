"""The hosts: golden scalars, exact identities, and the contract of every host on every task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from itertools import pairwise
from math import inf, nan
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from laws import (
    belief_at,
    check_data_consistency,
    check_ddim,
    check_host,
    close,
    constant_noise,
    oracle,
    same,
)
from leader_nb import DDNM, SAMPLERS, TASKS, DDNMPlus, Prediction, Prior, Schedule, host, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant, ScoreSquared
from leader_nb.errors import InputError
from leader_nb.mixture import GaussianMixture
from leader_nb.noise import keyed_normal
from leader_nb.operators import Mask
from leader_nb.problem import Problem
from leader_nb.samplers import DDPG, DDRM, DPS, IDPG, PIRP, SITCOM, DiffPIR, ProjDiff, Sampler, Step
from leader_nb.samplers.null_eta import NullEta
from leader_nb.samplers.pirp import Spatial, Spectral
from leader_nb.samplers.warm import WarmStart, warm_start
from leader_nb.schedule import uniform_grid
from leader_nb.steps import SATP
from leader_nb.ucpm import UCPM, HuberTV

NOISE_FREE = ["sr4@0", "gaussian@0", "motion@0", "cs25@0", "inpaint70@0", "denoise@0", "color@0", "pool4@0"]
NOISY = [
    *("sr4@0.05", "gaussian@0.05", "motion@0.05", "cs25@0.05"),
    *("inpaint70@0.05", "denoise@0.1", "color@0.05", "pool4@0.05"),
]
PROJECTING = [DDNM(), DDNM(eta_ddim=0.0), DDNM(eta_ddim=1.0)]
S0, S1 = torch.zeros(1).long(), torch.ones(1).long()
DOUBLE = torch.float64


def diagonal(s: Tensor) -> Mask:
    """A = diag(s) on images shaped like s, (1, C, H, W)."""
    return Mask(s, torch.ones_like(s, dtype=torch.bool), tuple(s.shape[1:]))


def brief(sampler: Sampler) -> Sampler:
    """The same host; SITCOM with three inner calls at most, to save time."""
    return replace(sampler, iterations=3) if isinstance(sampler, SITCOM) else sampler


# --- Every host on every task --------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted({*TASKS, *NOISE_FREE, *NOISY}))
@pytest.mark.parametrize("name", SAMPLERS)
def test_contract(name: str, task: str, exact: Prior, samples: Tensor) -> None:
    """NFE = T, the host's own grid, seeds, batch independence, mu = B = 0 is the host, and pure steps."""
    problem = parse_task(task).measure(samples[:3], seed=2)
    check_host(brief(host(name, parse_task(task).sigma)), problem, exact, steps=5)


def test_contract_of_the_other_settings(network: Prior, samples: Tensor) -> None:
    """Likewise for the released DDNM+ and other eta, with a network."""
    for sampler in (DDNMPlus(variant="released"), DDNMPlus(eta_ddim=1.0), DDNM(eta_ddim=1.0)):
        check_host(sampler, parse_task("sr4@0.05").measure(samples[:2]), network, steps=4)


def test_host_by_name() -> None:
    """`ddnm` on a noisy measurement means DDNM+."""
    assert isinstance(host("ddnm", 0.0), DDNM) and isinstance(host("ddnm", 0.05), DDNMPlus)
    assert isinstance(host("ddnm+", 0.0), DDNMPlus)
    with pytest.raises(InputError, match="unknown host 'ddnnm': did you mean 'ddnm'"):
        host("ddnnm", 0.0)


# --- Constants are checked where a host is made ---------------------------------------------------------------------

SHARE, POSITIVE = (-0.1, 1.5, nan, inf, "0.5", None), (0, -1, nan, inf, "1", None)
NOT_NEGATIVE, FINITE = (-1, nan, inf, -inf, "1", None), (nan, inf, -inf, "1", None)
GUIDANCE = {"gamma": NOT_NEGATIVE, "ridge": NOT_NEGATIVE, "scale": NOT_NEGATIVE}
WRONG_CONSTANTS: dict[Callable[..., object], dict[str, tuple]] = {
    DDNM: {"eta_ddim": SHARE},
    DDNMPlus: {"eta_ddim": SHARE, "variant": ("plain", None)},
    DDRM: {"eta_ddim": SHARE, "eta_b": (*SHARE, 3), "start": (-1, 1000, 5000, 500.0, nan, None), "variant": ("plain", None)},
    IDPG: GUIDANCE,
    DDPG: GUIDANCE | {"zeta": SHARE, "mode": (3, -1, 0.5, "0", nan)},
    ProjDiff: {"lr": POSITIVE, "form": ("round", None)},
    DPS: {"scale": NOT_NEGATIVE, "variant": ("plain", None)},
    DiffPIR: {"lam": POSITIVE, "zeta": SHARE, "variant": ("plain", None)},
    PIRP: GUIDANCE
    | {"lam": FINITE, "zeta": SHARE, "mode": (2, None), "potential": ("G+", None, Spatial), "variant": ("plain", None)},
    Spatial: {"power": POSITIVE, "width": POSITIVE},
    Spectral: {"power": POSITIVE, "width": POSITIVE},
    SITCOM: {"iterations": (0, -1, 1.5, 3.0, nan, inf, "3", None), "lr": POSITIVE, "weight": NOT_NEGATIVE}
    | {"slack": NOT_NEGATIVE, "variant": ("plain", None)},
    partial(WarmStart, DDNM()): {"abar": SHARE},
    partial(warm_start, DDNM(), steps=5): {"sigma": POSITIVE},
    partial(NullEta, DDNM()): {"eta_null": SHARE},
    partial(NullEta, eta_null=0.5): {"sampler": ("ddnm", DDNM, None)},
}
FREE = {"inject", "clip"}  # yes or no


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [(make, name, value) for make, fields_ in WRONG_CONSTANTS.items() for name, values in fields_.items() for value in values],
    ids=lambda v: str(getattr(v, "__name__", v)),
)
def test_constants_that_make_no_sense_are_refused(make: Callable[..., object], name: str, value: object) -> None:
    """One line that names the constant, says what was given and what would work."""
    with pytest.raises(InputError, match=rf"\A({name}: got [^\n]+; give [^\n]+|unknown {name} [^\n]+)\Z") as caught:
        make(**{name: value})
    assert (value.__name__ if isinstance(value, type) else repr(value)) in str(caught.value)


def test_every_constant_of_every_host_is_in_that_list() -> None:
    for name in SAMPLERS:
        kind = type(host(name, 0.0))
        assert {f.name for f in fields(kind)} - FREE == set(WRONG_CONSTANTS[kind]), kind.__name__


def test_the_ends_of_the_ranges_are_taken() -> None:
    """Numbers of numpy too."""
    for eta in (0, 1, 0.0, 1.0, np.float32(0.5)):
        assert DDNM(eta).eta_ddim == eta and DDRM(eta, eta, start=0).start == 0 and DDPG(zeta=eta, gamma=0, ridge=0, scale=0)
        assert DiffPIR(zeta=eta) and PIRP(zeta=eta, lam=0.0, mode=0)
    assert DDRM(start=999).start == 999 and SITCOM(iterations=np.int64(1), slack=0, weight=0) and DPS(scale=0)
    assert PIRP(lam=-0.09) and PIRP(Spatial(), lam=1.3) and WarmStart(DDNM(), 0.0) and WarmStart(DDNM(), 1.0)


# --- Golden scalars: abar_t = 0.36, abar_s = 0.64, x_t = 1, eps = 0.5, s = 2, y = 1.5, z = 0.25 -----------------------


def golden(sampler: Sampler, s: float, sigma_y: float) -> Step:
    schedule = Schedule(beta_first=0.36, beta_last=0.4375, length=2)  # abar = 0.64, 0.36
    prior = Prior(lambda x, t, schedule: Prediction(eps=torch.full_like(x, 0.5)), schedule)
    problem = Problem(
        torch.full((1, 1, 1, 1), 1.5, dtype=DOUBLE),
        diagonal(torch.full((1, 1, 1, 1), s, dtype=DOUBLE)),
        torch.tensor([sigma_y], dtype=DOUBLE),
    )
    noise = constant_noise(0.25)
    _, carry = sampler.init(problem, noise)
    belief = prior(torch.ones(1, 1, 1, 1, dtype=DOUBLE), S1)
    assert belief.x0.item() == pytest.approx(1, abs=1e-12)
    return sampler.step(belief, S0, problem, noise.at(S0, S0), carry)


@pytest.mark.parametrize(
    ("sampler", "s", "sigma_y", "x0y", "x"),
    [
        (DDNM(), 2.0, 0.0, 0.75, 0.8855348062927912),
        (DDNM(), 0.0, 0.0, 1.0, 1.0855348062927912),
        (DDNMPlus(), 0.0, 1.0, 1.0, 1.0855348062927912),
        (DDNMPlus(), 2.0, 1.0, 0.75, 0.7118033988749896),
        (DDNMPlus(), 2.0, 2.0, None, 0.8484825968536045),
        (DDNMPlus(variant="released"), 2.0, 1.0, 0.75, 0.7118033988749896),
        (DDNMPlus(variant="released"), 2.0, 2.0, None, 0.8484825968536045),
    ],
)
def test_golden_scalars(sampler: Sampler, s: float, sigma_y: float, x0y: float | None, x: float) -> None:
    out = golden(sampler, s, sigma_y)
    assert out.x.item() == pytest.approx(x, abs=1e-12)
    assert x0y is None or out.x0y.item() == pytest.approx(x0y, abs=1e-12)


# --- DDNM ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", NOISE_FREE)
@pytest.mark.parametrize("sampler", PROJECTING, ids=repr)
def test_ddnm_agrees_with_the_data_at_every_step(
    sampler: Sampler, task: str, exact: Prior, network: Prior, samples: Tensor
) -> None:
    """A x0y = y, noise-free, whatever the denoiser; in float32 to 1e-4."""
    problem = parse_task(task).measure(samples[:2])
    check_data_consistency(sampler, problem, exact, grid=6)
    check_data_consistency(sampler, problem, network, grid=6)
    check_data_consistency(sampler, parse_task(task).measure(samples[:2].float()), exact, 1e-4, grid=6)


@pytest.mark.parametrize("task", NOISE_FREE)
@pytest.mark.parametrize("covariance", [RunningSecant(), ScoreSquared(clip=False)], ids=repr)
def test_leader_leaves_the_data_alone(task: str, covariance, exact: Prior, samples: Tensor) -> None:
    """A x0y = y under any modulation and any skipping: the projection comes last. For noise-free projection hosts."""
    problem = parse_task(task).measure(samples[:2])
    plugins = {"covariance": covariance, "modulate": UCPM(HuberTV(mu=3.0)), "steps": SATP(budget=0.1)}
    check_data_consistency(DDNM(), problem, exact, grid=12, **plugins)
    plain, led = (restore(problem, exact, DDNM(), grid=12, **options) for options in ({}, plugins))
    settled = problem.operator.rank == samples[0].numel()  # nothing is left to the prior
    assert settled or not torch.equal(plain.image, led.image), "LEADer did nothing"


@pytest.mark.parametrize("task", NOISE_FREE)
def test_ddnm_with_an_oracle_returns_the_image(task: str, samples: Tensor) -> None:
    problem = parse_task(task).measure(samples[:1])
    close(restore(problem, oracle(samples[0]), DDNM(), grid=6).image, samples[:1], "oracle")


def test_ddnm_without_data_is_ddim(exact: Prior, samples: Tensor) -> None:
    """A = 0."""
    nothing = diagonal(torch.zeros(1, *samples.shape[1:], dtype=DOUBLE))
    problem = Problem(0 * samples, nothing, torch.zeros(5, dtype=DOUBLE))
    for eta in (0.0, 0.85, 1.0):
        check_ddim(DDNM(eta_ddim=eta), exact, samples.shape, eta, problem)


@pytest.mark.parametrize(
    ("task", "sampler"), [("sr4@0", DDNM()), ("inpaint70@0", DDNM()), ("sr4@0.05", DDNMPlus()), ("sr4@0.05", DDRM())]
)
def test_another_eta_in_the_null_space_moves_nothing_else(task: str, sampler: Any, exact: Prior, samples: Tensor) -> None:
    """One step; the same eta is the host itself."""
    problem, noise = parse_task(task).measure(samples[:2], seed=1), noise_for(2)
    times = torch.tensor([360, 360])
    _, carry = sampler.init(problem, noise)

    def stepped(s: Any) -> Tensor:
        belief = exact(torch.randn(samples[:2].shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(2)), times + 40)
        return s.step(belief, times, problem, noise.at(times, 0 * times), carry).x

    close(stepped(NullEta(sampler, 0.85)), stepped(sampler), "the same eta", 1e-12)
    moved = stepped(NullEta(sampler, 0.3)) - stepped(sampler)
    close(problem.operator.null(moved), moved, "only in the null space", 1e-12)
    assert moved.abs().max() > 0.01


def test_null_eta_without_data_is_ddim(exact: Prior, samples: Tensor) -> None:
    """A = 0: all is null space, and its states have the variance of DDIM with that eta."""
    nothing = diagonal(torch.zeros(1, *samples.shape[1:], dtype=DOUBLE))
    problem = Problem(0 * samples, nothing, torch.zeros(5, dtype=DOUBLE))
    for eta in (0.0, 0.5, 1.0):
        check_ddim(NullEta(DDNM(), eta), exact, samples.shape, eta, problem)


@pytest.mark.parametrize("task", ["sr4@0", "cs25@0.05"])
def test_null_eta_keeps_the_contract(task: str, exact: Prior, samples: Tensor) -> None:
    sigma = parse_task(task).sigma
    check_host(NullEta(host("ddnm", sigma), 1.0), parse_task(task).measure(samples[:3], seed=2), exact, steps=5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_null_eta_needs_a_host_with_both_noises(eta: float) -> None:
    with pytest.raises(InputError, match=rf"\Aeta_ddim: got {eta}; give a host"):
        NullEta(DDNM(eta), 0.5)


def variances(eta: float, value: float, grid: tuple[int, ...]) -> list[float]:
    """Of the states of DDNM without data, from N(0, 1), under the prior N(0, value): each step is linear in x_t and z."""
    weights, means, bases, values = ([0.0], [[0.0]], [[[1.0]]], [[value]])
    parts = (torch.tensor(v, dtype=DOUBLE) for v in (weights, means, bases, values))
    prior = GaussianMixture(*parts, (1, 1, 1)).prior()
    blind = Mask(torch.zeros(1, 1, 1, 1, dtype=DOUBLE), torch.ones(1, 1, 1, 1).bool(), (1, 1, 1))
    problem = Problem(torch.zeros(2, 1, 1, 1, dtype=DOUBLE), blind, torch.zeros(2, dtype=DOUBLE))
    x = torch.tensor([1.0, 0.0], dtype=DOUBLE).view(2, 1, 1, 1)  # the first image has x_t = 1, z = 0, the other x_t = 0, z = 1
    noise = replace(noise_for(2), source=lambda key, shape: torch.full(shape, float(key[1])))
    carry, found = DDNM(eta).init(problem, noise)[1], [1.0]
    for t, s in pairwise((*grid, -1)):
        out = DDNM(eta).step(prior(x, torch.tensor([t, t])), torch.tensor([s, s]), problem, noise, carry).x.flatten()
        found.append((out[0] ** 2 * found[-1] + out[1] ** 2).item())
    return found


@pytest.mark.parametrize(("eta", "value"), [(0.0, 0.1), (0.5, 1.0), (0.85, 0.1), (1.0, 1.0)])
def test_a_constant_share_of_fresh_noise_loses_variance(eta: float, value: float) -> None:
    """On a Gaussian, in the limit of many steps, the state has not the variance V of x_t, but v, for every eta above 0:

        v / V = (1 + q) / (1 + p + (1 - p) q),     q = sqrt(1 - eta^2),   V = abar c + 1 - abar,   p = abar c / V

    From V, each step loses (1 - q)^2 abar Var(x0 | x_t), however short it is: the old noise makes up for what the guess, an
    average, lacks of x0, and fresh noise does not. The result has (1 + q) / 2 of the prior's variance c.
    """
    q, found = (1 - eta**2) ** 0.5, variances(eta, value, tuple(range(990, -1, -1)))
    assert found[-1] / value == pytest.approx((1 + q) / 2, abs=0.02)
    for t in (700, 400, 200):
        a = Schedule().table()[t + 1].item()
        whole = a * value + 1 - a
        p = a * value / whole
        assert found[990 - t] / whole == pytest.approx((1 + q) / (1 + p + (1 - p) * q), abs=0.02), f"t = {t}"
    assert variances(eta, value, uniform_grid(50))[-1] < found[-1], "few steps lose more"


@pytest.mark.parametrize("task", NOISE_FREE)
def test_ddnm_leaves_the_null_space_to_the_prior(task: str, exact: Prior, samples: Tensor) -> None:
    """P_N x0y = P_N x0."""
    problem = parse_task(task).measure(samples)
    belief = belief_at(exact, samples.flip(0), 400)
    _, carry = DDNM().init(problem, noise_for(5))
    out = DDNM().step(belief, torch.full((5,), 300), problem, noise_for(5), carry)
    close(problem.operator.null(out.x0y), problem.operator.null(belief.x0), "null space")


def test_ddnm_at_eta_zero_forgets_the_seed_after_x_t(exact: Prior, samples: Tensor) -> None:
    """Two seeds that share x_T end on the same image if eta = 0, and do not if eta > 0."""
    problem = parse_task("sr4@0").measure(samples[:2])

    def source(key: tuple, shape: tuple[int, ...]) -> Tensor:
        return keyed_normal((0, *key[1:]) if key[2] == "x_T" else key, shape)

    for eta in (0.0, 0.85):
        first, second = (
            restore(problem, exact, DDNM(eta), grid=6, noise=replace(noise_for(2, seed), source=source)).image
            for seed in (1, 2)
        )
        assert torch.equal(first, second) is (eta == 0)


# --- DDNM+ ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    """What x_s is made of, slot by slot, for A = diag(s): a x0 + a lambda (y / s - x0) + d1 z + d2 eps."""

    lam: Tensor
    d1: Tensor
    d2: Tensor


def response(sampler: DDNMPlus, s: Tensor, sigma_y: float, time: int) -> Response:
    """The coefficients, read off by giving y, z or eps the value 1 and all else 0."""
    prior = Prior(lambda x, t, schedule: Prediction(x0=0 * x))

    def x_s(y: float, z: float, eps: float) -> Tensor:
        problem = Problem(torch.full_like(s, y), diagonal(s), torch.tensor([sigma_y], dtype=DOUBLE))
        noise, target = constant_noise(z), torch.tensor([time])
        belief = replace(prior(0 * s, target + 100), told=torch.full_like(s, eps))
        return sampler.step(belief, target, problem, noise.at(target, S0), sampler.init(problem, noise)[1]).x

    root = Schedule().abar(torch.tensor([time]), s).sqrt()
    return Response(x_s(1, 0, 0) * s / root, x_s(0, 1, 0), x_s(0, 0, 1))


SPECTRUM = torch.tensor([0.0, 0.03, 0.1215, 0.2, 0.25, 0.5, 1.0, 2.0], dtype=DOUBLE).view(1, 1, 1, 8)


@pytest.mark.parametrize("sigma_y", [0.02, 0.1, 1.0])
@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85, 1.0])
def test_ddnm_plus_injects_exactly_the_missing_variance(eta: float, sigma_y: float) -> None:
    """a^2 lambda^2 sigma_y^2 / s^2 + d1^2 + d2^2 = sigma_s^2 in all three cases, and 0 <= lambda <= 1."""
    seen = set()
    for time in (0, 10, 50, 100, 200, 400, 800):
        r = response(DDNMPlus(eta), SPECTRUM, sigma_y, time)
        abar = Schedule().abar(torch.tensor([time]), SPECTRUM)
        measured = SPECTRUM > 0
        passed = torch.where(measured, abar * r.lam**2 * sigma_y**2 / SPECTRUM.clamp(min=1e-9) ** 2, 0.0)
        close(passed + r.d1**2 + r.d2**2, (1 - abar).expand_as(SPECTRUM), f"variance at t = {time}", 1e-12)
        assert (r.lam >= 0).all() and (r.lam <= 1 + 1e-12).all()
        assert not r.d2[measured].any() and (r.d2[~measured] - (1 - eta**2) ** 0.5 * (1 - abar).sqrt()).abs().max() < 1e-12
        seen |= set((r.lam[measured] > 1 - 1e-12).tolist())
    assert seen == {True, False} or (eta == 0 and seen), "both rules should have been met"


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_ddnm_plus_trusts_data_until_its_noise_is_reached(eta: float) -> None:
    """lambda is 1 while sigma_s > a sigma_y / s, and falls from sqrt(1 - eta^2) on below."""
    abar = Schedule().abar(torch.tensor([100]), SPECTRUM)
    switch = ((1 - abar) / abar).sqrt().item() * 0.5  # sigma_y at which s = 0.5 changes over
    half = torch.full((1, 1, 1, 1), 0.5, dtype=DOUBLE)
    above = response(DDNMPlus(eta), half, switch * (1 - 1e-9), 100)
    below = response(DDNMPlus(eta), half, switch * (1 + 1e-9), 100)
    assert above.lam.item() == pytest.approx(1, abs=1e-12) and above.d1.item() == pytest.approx(0, abs=1e-4)
    assert below.lam.item() == pytest.approx((1 - eta**2) ** 0.5, abs=1e-8)
    further = response(DDNMPlus(eta), half, 2 * switch, 100)
    assert further.lam.item() == pytest.approx((1 - eta**2) ** 0.5 / 2, abs=1e-12)


@pytest.mark.parametrize("task", NOISY)
@pytest.mark.parametrize("variant", ["correct", "released"])
def test_ddnm_plus_returns_the_last_x0(task: str, variant: str, exact: Prior, samples: Tensor) -> None:
    """sigma_y > 0: the result is x0 given x at t = 0, uncorrected."""
    last = []
    problem = parse_task(task).measure(samples[:2])
    result = restore(problem, exact, DDNMPlus(variant=variant), grid=6, on_state=last.append)
    same(result.image, last[-1].belief.x0, "output")
    same(last[-1].x0y, last[-1].belief.x0, "x0y")


def test_ddnm_plus_on_denoising_is_the_scalar_formula(exact: Prior, samples: Tensor) -> None:
    """A = I, s = 1: written out with one lambda and one d1."""
    sigma_y, eta = 0.2, 0.85
    problem = parse_task("denoise@0.1").measure(samples)
    _, carry = DDNMPlus(eta).init(problem, noise_for(5))
    for t, s in ((500, 450), (60, 20), (20, 10)):
        belief, target = belief_at(exact, samples, t), torch.full((5,), s)
        noise = noise_for(5).at(target, 0 * target)
        out = DDNMPlus(eta).step(belief, target, problem, noise, carry)
        abar = Schedule().table()[s + 1]
        a, spread = abar.sqrt(), (1 - abar).sqrt()
        if spread >= a * sigma_y:
            lam, d1 = 1.0, (spread**2 - a**2 * sigma_y**2).sqrt()
        else:
            lam, d1 = spread * (1 - eta**2) ** 0.5 / (a * sigma_y), eta * spread
        x0y = belief.x0 + lam * (problem.y - belief.x0)
        close(out.x0y, x0y, f"x0y at {t}", 1e-12)
        close(out.x, a * x0y + d1 * noise("step", samples), f"x at {t}", 1e-12)
        close(out.injected, d1 * noise("step", samples), f"injected at {t}", 1e-12)


@pytest.mark.parametrize("task", NOISE_FREE)
def test_ddnm_plus_without_noise_at_eta_one_is_ddnm(task: str, exact: Prior, samples: Tensor) -> None:
    """sigma_y = 0 and eta = 1: the same step; at eta = 0.85 DDNM+ draws afresh what DDNM keeps of eps."""
    problem, noise = parse_task(task).measure(samples), noise_for(5)
    belief, target = belief_at(exact, samples, 300), torch.full((5,), 250)

    def step(sampler: Sampler) -> Step:
        return sampler.step(belief, target, problem, noise, sampler.init(problem, noise)[1])

    for eta in (1.0, 0.85):
        close(step(DDNMPlus(eta)).x0y, step(DDNM(eta)).x0y, "x0y")
    close(step(DDNMPlus(1.0)).x, step(DDNM(1.0)).x, "x at eta = 1")
    assert (step(DDNMPlus(0.85)).x - step(DDNM(0.85)).x).abs().max() > 1e-3


@pytest.mark.parametrize("task", NOISY)
def test_the_released_variant_differs_only_where_it_must(task: str, exact: Prior, samples: Tensor) -> None:
    """It forgets V^T on eps: no difference where V = I (denoising, inpainting) or where every slot is measured."""
    problem, noise = parse_task(task).measure(samples), noise_for(5)
    belief, target = belief_at(exact, samples, 300), torch.full((5,), 250)
    op = problem.operator
    ours, theirs = (
        host.step(belief, target, problem, noise, host.init(problem, noise)[1])
        for host in (DDNMPlus(), DDNMPlus(variant="released"))
    )
    same(ours.x0y, theirs.x0y, "x0y")
    same(ours.injected, theirs.injected, "injected")
    harmless = isinstance(op, Mask) or not (op.s == 0).any()
    assert torch.equal(ours.x, theirs.x) is harmless
    if not harmless:
        rotated = op.null(ours.x - theirs.x)
        close(rotated, ours.x - theirs.x, "the difference lies in the null space")
        kept = (1 - 0.85**2) ** 0.5 * (1 - belief.schedule.abar(target, samples)).sqrt() * op.null(belief.eps)
        assert rotated.norm() > 0.5 * kept.norm(), "it should scramble eps, a relative error near sqrt 2"


def test_misspelt_variants_are_refused() -> None:
    with pytest.raises(InputError, match="unknown variant 'relased': did you mean 'released'"):
        DDNMPlus(variant="relased")


def test_injected_noise_is_what_z_adds(exact: Prior, samples: Tensor) -> None:
    """x(z) - x(0) = injected, for both hosts."""
    for task, sampler in (("sr4@0", DDNM()), ("sr4@0.05", DDNMPlus()), ("gaussian@0.05", DDNMPlus())):
        problem, belief = parse_task(task).measure(samples), belief_at(exact, samples, 300)
        target = torch.full((5,), 250)
        _, carry = sampler.init(problem, noise_for(5))
        with_z, without = (
            sampler.step(belief, target, problem, n.at(target, 0 * target), carry)
            for n in (noise_for(5), constant_noise(0.0, 5))
        )
        close(with_z.x - without.x, with_z.injected, "injected")
        assert not without.injected.any()

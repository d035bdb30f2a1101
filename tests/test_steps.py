"""Step rules: the step length from the map, its guards, and the network calls SATP costs on a known image model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from laws import belief_at, check_alone_as_in_a_batch, check_data_consistency, check_step_rule, normal, same
from leader_nb import (
    DDNM,
    DDPG,
    DPS,
    PIRP,
    PIRP_PLUS,
    Prior,
    Schedule,
    host,
    leader,
    noise_for,
    parse_task,
    restore,
    restore_many,
    trajectory,
)
from leader_nb.covariance import PyramidSecant, RunningSecant
from leader_nb.equations import ddim
from leader_nb.errors import InputError
from leader_nb.noise import keyed_normal
from leader_nb.samplers import Sampler
from leader_nb.samplers.warm import WarmStart
from leader_nb.schedule import uniform_grid
from leader_nb.start import MeasuredStart
from leader_nb.steps import SATP, ErrorControlled, LateStart, PIControlled, TimeTravel, Uniform

SIGMAS = Schedule().sigma(torch.tensor([-1, *reversed(uniform_grid(100))]), normal(1)).flatten()
BAD = [float("nan"), float("inf"), -float("inf"), -1.0, 0.0, -0.0, 1e-12, 1e-300]
GUARD = math.ceil(0.1 * 100)


def maps(*u: float) -> Tensor:
    """Constant maps, (B, 1, 2, 2), with mean u."""
    return torch.tensor(u, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


def steps(rule: SATP | ErrorControlled, k: int, *u: float) -> list[int]:
    """The lengths of the steps from position k of 100, one for each u."""
    there, _ = rule.next(torch.full((len(u),), k), maps(*u), rule.init(SIGMAS, len(u)))
    return (k - there).tolist()


@pytest.mark.parametrize(
    "rule",
    [Uniform(), SATP(), SATP(budget=0.0), SATP(budget=1e9, longest=1.0), SATP(rho=2.0), SATP(trust_below=0.5)],
    ids=repr,
)
def test_laws(rule) -> None:
    """k' < k, not below 0, each image by its own map, for good maps and bad."""
    check_step_rule(rule, torch.cat([maps(1e-4, 0.01, 0.3), maps(*BAD), normal(3, 1, 2, 2)]))


def test_uniform_is_one_at_a_time() -> None:
    assert Uniform().next(torch.tensor([5, 1]), None, {})[0].tolist() == [4, 0]


def test_eq_19_in_the_grid() -> None:
    """eta B / U = 0.06 / U, floored, at least 1 and at most a tenth of the grid."""
    assert steps(SATP(), 50, 0.1, 0.06 / 1.99, 0.06 / 2.01, 0.06 / 9.5, 0.06 / 10.5, 0.06 / 500) == [1, 1, 2, 9, 10, 10]
    assert steps(SATP(), 3, 1e-4) == [3], "never below the clean image"


def test_budget_zero_is_the_host() -> None:
    assert steps(SATP(budget=0.0), 50, 1e-9, 1e-6, 1.0, *BAD) == [1] * (3 + len(BAD))


@given(u=st.floats(1e-9, 10), budget=st.floats(0, 10), more=st.floats(1, 100), rho=st.floats(1, 4), k=st.integers(1, 100))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_step_never_shrinks_when_it_should_not(u: float, budget: float, more: float, rho: float, k: int) -> None:
    """It does not fall when the budget or eta grows, nor when U falls."""
    (short,) = steps(SATP(budget=budget, rho=rho), k, u)
    assert steps(SATP(budget=budget * more, rho=rho), k, u)[0] >= short
    assert steps(SATP(budget=budget, rho=rho, eta_skip=6.0 * more), k, u)[0] >= short
    assert steps(SATP(budget=budget, rho=rho), k, u / more)[0] >= short
    assert 1 <= short <= min(k, GUARD)


@pytest.mark.parametrize("budget", [0.01, 1e6, float("inf")])
def test_a_bad_map_never_skips_more_than_the_guard(budget: float) -> None:
    """NaN, infinite, negative or zero U: a single step. Tiny U: at most the guard."""
    lengths = steps(SATP(budget=budget), 50, *BAD)
    assert lengths[:6] == [1] * 6 and all(1 <= n <= GUARD for n in lengths)
    spoiled = maps(0.001).clone()
    spoiled[0, 0, 0, 0] = float("nan")
    assert 50 - SATP(budget=budget).next(torch.tensor([50]), spoiled, SATP().init(SIGMAS, 1))[0].item() == 1


def test_u_min_is_a_floor() -> None:
    """Below u_min, U counts as u_min: 0.06 / 0.01 = 6 (0.0599 avoids the edge)."""
    rule = SATP(u_min=0.0099, longest=1.0)
    assert steps(rule, 90, 1e-12, 1e-5, 0.0099) == [6, 6, 6] and steps(rule, 90, 0.02) == [2]


@pytest.mark.parametrize(("longest", "expected"), [(0.1, 10), (0.05, 5), (0.015, 2), (1.0, 50)])
def test_longest_is_a_share_of_the_grid(longest: float, expected: int) -> None:
    assert steps(SATP(budget=1e9, longest=longest), 50, 0.1) == [expected]


def test_the_first_step_is_never_skipped() -> None:
    rule = SATP(budget=1e9)
    assert steps(rule, 100, 0.1) == [1] and steps(rule, 99, 0.1) == [GUARD]


def test_high_noise_is_not_trusted() -> None:
    """Above trust_below every step is a single one; at and below it, Eq. 19."""
    rule = SATP(budget=1e9, trust_below=1.0)
    last = int((SIGMAS <= 1.0).sum()) - 1
    assert SIGMAS[last] <= 1 < SIGMAS[last + 1] and 20 < last < 30
    assert steps(rule, last + 1, 0.1) == [1] and steps(rule, last, 0.1) == [GUARD]
    assert steps(SATP(budget=1e9, trust_below=SIGMAS[last].item()), last, 0.1) == [GUARD]


@pytest.mark.parametrize(
    "bad",
    [{"budget": -1.0}, {"eta_skip": 0.0}, {"rho": 0.5}, {"longest": 0.0}, {"longest": 1.1}, {"u_min": -1.0}, {"epsilon": -1.0}]
    + [{name: math.nan} for name in ("budget", "eta_skip", "rho", "longest", "u_min", "epsilon")],
    ids=str,
)
def test_bad_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"\ASATP: got [^\n]*\Z"):
        SATP(**bad)


# --- Error control -------------------------------------------------------------------------------------------------


def local_error(cov: float, here: int, there: int) -> float:
    """(sigma - sigma')^2 cov / (2 sigma^3) of a step between two positions of the grid."""
    sigma, target = SIGMAS[here].item(), SIGMAS[there].item()
    return (sigma - target) ** 2 * cov / (2 * sigma**3)


@pytest.mark.parametrize("rule", [ErrorControlled(), ErrorControlled(0.0), ErrorControlled(1e9, longest=1.0)], ids=repr)
def test_laws_of_error_control(rule: ErrorControlled) -> None:
    """k' < k, not below 0, each image by its own map, for good maps and bad."""
    check_step_rule(rule, torch.cat([maps(1e-4, 0.01, 0.3), maps(*BAD), normal(3, 1, 2, 2)]))


@given(st.integers(1, 99), st.floats(-6, 0), st.floats(-7, -1))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_the_longest_step_under_the_tolerance(k: int, log_cov: float, log_tolerance: float) -> None:
    """The step taken errs by less than the tolerance and the next longer one does not, a single step excepted."""
    cov, tolerance = 10**log_cov, 10**log_tolerance
    (length,) = steps(ErrorControlled(tolerance, longest=1.0), k, cov)
    assert length == 1 or local_error(cov, k, k - length) < tolerance * (1 + 1e-9)
    assert length == k or local_error(cov, k, k - length - 1) > tolerance * (1 - 1e-9)


@given(k=st.integers(1, 100), cov=st.floats(1e-9, 10), tolerance=st.floats(0, 1), more=st.floats(1, 100))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_error_control_is_monotone(k: int, cov: float, tolerance: float, more: float) -> None:
    """The step does not shrink when the tolerance grows or the map falls, and never passes the guard."""
    (short,) = steps(ErrorControlled(tolerance), k, cov)
    assert steps(ErrorControlled(tolerance * more), k, cov)[0] >= short
    assert steps(ErrorControlled(tolerance), k, cov / more)[0] >= short
    assert 1 <= short <= min(k, GUARD)


def test_a_map_counts_by_its_root_mean_square() -> None:
    half = torch.tensor([0.0, 0.2], dtype=torch.float64).repeat(2).view(1, 1, 2, 2)
    rule = ErrorControlled(1e-3, longest=1.0)
    for k in (30, 60):
        there, _ = rule.next(torch.tensor([k]), half, rule.init(SIGMAS, 1))
        assert [k - there.item()] == steps(rule, k, 0.2 / 2**0.5) != steps(rule, k, 0.1)


def test_tolerance_zero_is_the_host() -> None:
    assert steps(ErrorControlled(0.0), 50, 1e-9, 1e-6, 1.0, *BAD) == [1] * (3 + len(BAD))


def test_bad_maps_do_not_pass_the_guard_of_error_control() -> None:
    """NaN and infinities: a single step; zero and tiny maps: at most the guard; the first step is never skipped."""
    nan, inf, minus, *rest = steps(ErrorControlled(), 50, *BAD)
    assert (nan, inf, minus) == (1, 1, 1) and all(1 <= n <= GUARD for n in rest)
    assert steps(ErrorControlled(1e9), 100, 0.1) == [1] and steps(ErrorControlled(1e9), 99, 0.1) == [GUARD]


def test_error_control_does_not_feel_the_grid() -> None:
    """On a grid ten times finer a step ends at the same noise level, to within one cell of the coarse grid."""
    fine = Schedule().sigma(torch.tensor([-1, *range(0, 991)]), normal(1)).flatten()
    same_level = [0, *range(1, 992, 10)]  # positions of the fine grid, one for each of the coarse one
    rule = ErrorControlled(1e-3, longest=1.0)
    lengths = set()
    for k in (90, 60, 40, 25, 15):
        for cov in (0.02, 0.2):
            coarse = k - steps(rule, k, cov)[0]
            there, _ = rule.next(torch.tensor([same_level[k]]), maps(cov), rule.init(fine, 1))
            single = coarse == k - 1  # the coarse grid may have to step further than the tolerance
            assert same_level[max(coarse - 1, 0)] <= there.item() and (single or there.item() <= same_level[coarse])
            lengths.add(k - coarse)
    assert len(lengths) > 2, "steps of several lengths were tried"


@pytest.mark.parametrize("k", [5, 10, 20, 30, 50, 75, 90])
def test_the_error_it_controls_is_that_of_ddim(k: int) -> None:
    """On N(0, l I) with its exact map, one DDIM step errs by the estimate times rms(eps) <= 1, to 12 %."""
    variance, sigma, there = 0.25, SIGMAS[k].item(), SIGMAS[k - 1].item()
    scale = (variance + sigma**2) ** 0.5  # |x| at sigma along the exact trajectory; there |eps| = sigma / scale
    true = abs((variance + there**2) ** 0.5 - (scale + (there - sigma) * sigma / scale))
    assert true == pytest.approx(local_error(variance * sigma**2 / scale**2, k, k - 1) * sigma / scale, rel=0.12)


@pytest.mark.parametrize("bad", [{"tolerance": -1.0}, {"tolerance": math.nan}, {"longest": 0.0}, {"longest": 1.1}], ids=str)
def test_bad_settings_of_error_control_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"\AErrorControlled: got [^\n]*\Z"):
        ErrorControlled(**bad)


# --- The network calls it costs on a Gaussian image model ----------------------------------------------------------


def spectrum(power: float, n: int = 64) -> Tensor:
    """Eigenvalues of a Gaussian image model with a 1 / f^power spectrum and a variance of 0.25 per pixel, (n, n)."""
    f = torch.fft.fftfreq(n, dtype=torch.float64)
    r = (f[:, None] ** 2 + f**2).sqrt()
    r[0, 0] = 1 / (2 * n)
    return 0.25 * r**-power / (r**-power).mean()


def literal_step(budget: float, eta: float, power: float, k: int) -> int:
    """Eq. 19 in plain numbers, on the model's mean posterior variance at k."""
    lam, square = spectrum(power), SIGMAS[k].item() ** 2
    return max(1, int(eta * budget / ((lam * square / (lam + square)).mean().item() + 1e-8)))


def literal(budget: float, eta: float, power: float) -> int:
    """Network calls of Eq. 19 without guards."""
    k, count = 100, 0
    while k > 0:
        k, count = k - literal_step(budget, eta, power, k), count + 1
    return count


def calls(rule: SATP, power: float) -> int:
    """Evaluations on the way down from k = 100, with U the mean posterior variance of the model."""
    k, memo, count = torch.tensor([100]), rule.init(SIGMAS, 1), 0
    while k > 0:
        square = SIGMAS[k] ** 2
        cov = (spectrum(power) * square / (spectrum(power) + square)).view(1, 1, 64, 64)
        k, memo = rule.next(k, cov, memo)
        count += 1
    return count


def test_mean_variance_of_the_model() -> None:
    """U at k = 100, 75, 50, 25, 10, 5, 2, 1 of the 1 / f^2 model."""
    lam = spectrum(2.0)
    u = [(lam * SIGMAS[k] ** 2 / (lam + SIGMAS[k] ** 2)).mean().item() for k in (100, 75, 50, 25, 10, 5, 2, 1)]
    assert u == pytest.approx([0.25, 0.23, 0.16, 0.093, 0.040, 0.015, 0.0021, 1e-4], rel=0.03)


@pytest.mark.parametrize(
    ("power", "eta", "expected"),
    [
        (2.0, 7.0, [100, 99, 97, 95, 65, 29]),
        (2.4, 5.35, [100, 99, 97, 94, 60, 29]),
        (2.4, 3.0, [100, 100, 98, 97, 78, 57]),
        (2.0, 10.0, [100, 99, 96, 92, 36, 18]),
    ],
)
def test_network_calls_for_each_budget(power: float, eta: float, expected: list[int]) -> None:
    """NFE at B = 0, 0.001, 0.005, 0.01, 0.05, 0.1 by Eq. 19; SATP never skips the first step, and may need one more.

    The numbers fit the run times of the paper's Table 3 for eta of 5 to 7.
    """
    budgets = (0.0, 0.001, 0.005, 0.01, 0.05, 0.1)
    assert [literal(b, eta, power) for b in budgets] == expected
    for budget, count in zip(budgets, expected, strict=True):
        extra = calls(SATP(budget=budget, eta_skip=eta, longest=1.0), power) - count
        skips_first = literal_step(budget, eta, power, 100) > 1
        assert extra == 0 or (extra == 1 and skips_first), f"B = {budget}: {extra} more"


# --- PI control ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", [PIControlled(), PIControlled(0.0), PIControlled(1e9, longest=1.0), PIControlled(1e-3, 0.5, 0.0)], ids=repr
)
def test_laws_of_pi_control(rule: PIControlled) -> None:
    """k' < k, not below 0, each image by its own map and memory, for good maps and bad."""
    check_step_rule(rule, torch.cat([maps(1e-4, 0.01, 0.3), maps(*BAD), normal(3, 1, 2, 2)]))


def walk(rule: PIControlled | ErrorControlled, cov_of: Callable[[float], float]) -> list[int]:
    """The positions visited when the map at noise sigma is cov_of(sigma)."""
    k, memo, seen = torch.tensor([100]), rule.init(SIGMAS, 1), [100]
    while k > 0:
        k, memo = rule.next(k, maps(cov_of(SIGMAS[k].item())), memo)
        seen.append(k.item())
    return seen


def gaussian_cov(sigma: float) -> float:
    return 0.1 * sigma**2 / (0.1 + sigma**2)


def test_tolerance_zero_walks_every_step() -> None:
    assert walk(PIControlled(0.0), gaussian_cov) == list(range(100, -1, -1))


def test_the_integral_alone_is_error_control() -> None:
    """Powers 1/2 and 0: r^2 cov / (2 sigma) = tolerance whatever came before; the same walk while steps are longer than one."""
    for tolerance in (1e-4, 1e-3):
        pi = walk(PIControlled(tolerance, 0.5, 0.0, longest=1.0), gaussian_cov)
        assert pi == walk(ErrorControlled(tolerance, longest=1.0), gaussian_cov)


def test_pi_control_saves_more_with_more_tolerance_and_keeps_its_guards() -> None:
    calls = [len(walk(PIControlled(t), gaussian_cov)) - 1 for t in (0.0, 1e-5, 1e-4, 1e-3, 1e-2)]
    assert calls == sorted(calls, reverse=True) and calls[0] == 100 and calls[-1] < 60
    seen = walk(PIControlled(1e9), gaussian_cov)
    assert seen[1] == 99 and all(1 <= a - b <= GUARD for a, b in itertools.pairwise(seen))


def test_a_noisy_map_moves_pi_control_less() -> None:
    """Maps wrong by a factor of 4 up or down, at random: step lengths vary less than half as much as under error control.

    The customary powers of ODE solvers would make them vary more.
    """

    def roughness(rule: PIControlled | ErrorControlled, seed: int) -> float:
        wrong = torch.Generator().manual_seed(seed)
        seen = walk(rule, lambda s: gaussian_cov(s) * 4 ** (2 * torch.rand(1, generator=wrong).item() - 1))
        ratio = torch.tensor([(SIGMAS[b] / SIGMAS[a]).log().item() for a, b in itertools.pairwise(seen) if b > 30])
        return ((ratio[1:] / ratio[:-1]).log().abs()).mean().item()

    calm, plain, customary = (
        sum(roughness(rule, seed) for seed in range(5))
        for rule in (PIControlled(3e-5, longest=1.0), ErrorControlled(3e-5, longest=1.0), PIControlled(3e-5, 0.35, 0.2, 1.0))
    )
    assert calm < plain / 2 < customary / 2


def test_a_bad_map_is_a_single_step_and_leaves_the_memory_alone() -> None:
    rule = PIControlled(1e-2)
    k, memo = rule.next(torch.tensor([80]), maps(0.05), rule.init(SIGMAS, 1))
    for bad in (float("nan"), float("inf"), 0.0):
        there, after = rule.next(k, maps(bad), memo)
        assert there == k - 1 and all(torch.equal(after[n], memo[n]) for n in memo)


@pytest.mark.parametrize(
    "bad",
    [
        {"tolerance": -1.0},
        {"tolerance": math.nan},
        {"integral": 0.0},
        {"proportional": -0.1},
        {"longest": 0.0},
        {"longest": 2.0},
    ],
    ids=str,
)
def test_bad_pi_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"\APIControlled: got [^\n]*\Z"):
        PIControlled(**bad)


# --- Time travel ---------------------------------------------------------------------------------------------------

TRAVELS = [(10, 2, 2), (100, 1, 3), (100, 10, 3), (7, 3, 4), (12, 5, 1), (5, 10, 3), (6, 6, 2), (9, 2, 3)]


def clock(T: int, length: int, repeat: int) -> list[int]:
    """DDNM's list of times, unit moves up and down, by the rule of its code: T - 1, ..., -1."""
    left, t, times = dict.fromkeys(range(0, T - length, length), repeat - 1), T, []
    while t >= 1:
        t -= 1
        times.append(t)
        if left.get(t, 0) > 0:
            left[t] -= 1
            times += range(t + 1, t + length + 1)
            t += length
    return [*times, -1]


def visited(rule: TimeTravel, T: int, batch: int = 1) -> list[int]:
    """The positions at which the network is asked, from T down to the clean image."""
    k, memo, seen = torch.full((batch,), T), rule.init(torch.arange(T + 1.0), batch), []
    while (k > 0).any():
        seen.append(int(k[0]))
        k, memo = rule.next(k, None, memo)
        assert (k == k[0]).all()
    return [*seen, int(k[0])]


def test_the_clock_of_time_travel() -> None:
    """T = 10, l = 2, r = 2, as DDNM's code walks it."""
    assert clock(10, 2, 2) == [9, 8, 7, 6, 7, 8, 7, 6, 5, 4, 5, 6, 5, 4, 3, 2, 3, 4, 3, 2, 1, 0, 1, 2, 1, 0, -1]


@pytest.mark.parametrize(("T", "length", "repeat"), TRAVELS)
def test_time_travel_asks_where_ddnms_clock_goes_down(T: int, length: int, repeat: int) -> None:
    """A time j of the clock that is left downwards is a network call at position j + 1; the count is the formula's."""
    times = clock(T, length, repeat)
    asked = [a + 1 for a, b in itertools.pairwise(times) if b < a]
    assert visited(TimeTravel(length, repeat), T, 2) == [*asked, 0]
    assert len(asked) == T + (repeat - 1) * length * max(0, math.ceil((T - length) / length))


def test_network_calls_of_time_travel() -> None:
    calls = {(length, r): len(visited(TimeTravel(length, r), 100)) - 1 for length, r in ((1, 3), (10, 3), (10, 1))}
    assert calls == {(1, 3): 298, (10, 3): 280, (10, 1): 100}


def test_time_travel_keeps_a_count_for_each_image() -> None:
    """Two images, one a round behind the other, as in a queue: neither feels the other, nothing is changed in place."""
    rule, T = TimeTravel(2, 3), 9
    alone = visited(rule, T)
    k, memo, here = torch.tensor([T, T]), rule.init(torch.arange(T + 1.0), 2), [[T], [T]]
    for turn in range(2 * len(alone)):
        row = turn % 2 if turn > 2 else 0
        if k[row] > 0:
            before = memo["made"].clone()
            there, part = rule.next(k[row : row + 1], None, {"made": memo["made"][row : row + 1]})
            assert torch.equal(memo["made"], before)
            memo, k = {"made": memo["made"].clone()}, k.clone()
            memo["made"][row], k[row] = part["made"][0], there[0]
            here[row].append(int(there))
    assert here[0] == alone[: len(here[0])] and here[1] == alone[: len(here[1])] and min(map(len, here)) > T


@pytest.mark.parametrize("task", ["sr4@0", "pool4@0", "inpaint70@0", "cs25@0"])
def test_ddnm_travels_on_the_data(task: str, exact: Prior, samples: Tensor) -> None:
    """At every step, up or down, and in the result; each step costs one call, and each visit has draws of its own."""
    drawn: list[tuple] = []
    source = lambda key, shape: drawn.append(key) or keyed_normal(key, shape)
    noise = replace(noise_for(2), source=source)
    problem, rule = parse_task(task).measure(samples[:2]), TimeTravel(2, 2)
    check_data_consistency(DDNM(), problem, exact, grid=10, steps=rule, noise=noise)
    assert len(set(drawn)) == len(drawn) and any(visit > 0 for *_, visit in drawn)
    result = restore(problem, exact, DDNM(), grid=10, steps=rule)
    assert result.nfe.tolist() == [18, 18]
    positions = [(-1, *reversed(uniform_grid(10))).index(t) for t in result.times[0]]
    assert positions == visited(rule, 10)[:-1]
    other = restore(problem, exact, DDNM(), grid=10, noise=noise_for(2))
    assert not torch.equal(result.image, other.image)


def test_time_travel_up_is_the_hosts_own_step(exact: Prior, samples: Tensor) -> None:
    """From the corrected x0 to the higher level, with DDNM's share of predicted noise; the network is next asked there."""
    problem, noise, states = parse_task("inpaint70@0").measure(samples[:2]), noise_for(2), []
    restore(problem, exact, DDNM(), grid=10, steps=TimeTravel(2, 2), noise=noise, on_state=states.append)
    up, after = next((a, b) for a, b in itertools.pairwise(states) if b.t[0] > a.t[0])
    assert torch.equal(up.s, after.t) and torch.equal(up.x, after.belief.x_t)
    z = noise.at(up.s, torch.ones(2).long())("step", up.x)  # the second visit there
    want, _ = ddim(up.x0y, up.belief.eps, z, exact.schedule.abar(up.s, up.x), DDNM().eta_ddim)
    same(up.x, want, "the step up")


@pytest.mark.parametrize("name", ["ddnm", "ddrm", "idpg", "diffpir", "projdiff"])
def test_hosts_that_may_travel(name: str, exact: Prior, samples: Tensor) -> None:
    """Alone as in a batch, in a queue as alone, near the image; without repeats it is the host, bit for bit."""
    problem, sampler = parse_task("pool4@0.05").measure(samples[:2]), host(name, 0.05)
    options = {"grid": uniform_grid(8), "steps": TimeTravel(2, 2)}
    result = check_alone_as_in_a_batch(sampler, problem, exact, **options)
    for r in restore_many([problem], exact, sampler, batch=1, seed=3, **options):
        same(r.image[0], result.image[r.number], "in a queue")
    assert result.image.abs().max() < 4 and (result.image - samples[:2]).square().mean() < samples.square().mean()
    plain, idle = (restore(problem, exact, sampler, grid=8, steps=rule) for rule in (None, TimeTravel(2, 1)))
    same(idle.image, plain.image, "repeat = 1 is no travel")


@pytest.mark.parametrize("sampler", [DDPG(), DDPG(mode=2), WarmStart(DDPG(), 0.5), DPS(), PIRP(), PIRP_PLUS], ids=repr)
def test_hosts_that_cannot_go_back_are_refused(sampler: Sampler, exact: Prior, samples: Tensor) -> None:
    problem = parse_task("sr4@0.05").measure(samples[:1])
    for refuse in (trajectory, restore_many):
        queue = [problem] if refuse is restore_many else problem
        with pytest.raises(InputError, match=r"\Asteps: TimeTravel goes back [^\n]*, such as DDNM, [^\n]*\Z"):
            refuse(queue, exact, sampler, grid=4, steps=TimeTravel(1, 2))
    restore(problem, exact, sampler, grid=3, steps=TimeTravel(1, 1))
    restore(problem, exact, DDPG(mode=0), grid=3, steps=TimeTravel(1, 2))


@pytest.mark.parametrize("estimator", [RunningSecant(), PyramidSecant()], ids=repr)
def test_maps_that_follow_the_walk_start_afresh_where_it_returns(estimator, exact: Prior, samples: Tensor) -> None:
    """Bayes' rule has no way up: the map is that of a first step, for the image that returned, and not for the other."""
    down, up = (belief_at(exact, samples[:2], t) for t in (300, 500))
    _, memory = estimator.update(belief_at(exact, samples[:2], 400), None, {})
    again, _ = estimator.update(up, None, memory)
    same(again, estimator.update(up, None, {})[0], "afresh")
    assert not torch.equal(estimator.update(down, None, memory)[0], estimator.update(down, None, {})[0])
    mixed = exact(torch.cat([up.x_t[:1], down.x_t[1:]]), torch.tensor([500, 300]))
    cov, _ = estimator.update(mixed, None, memory)
    same(cov[:1], again[:1], "the one that returned")
    same(cov[1:], estimator.update(down, None, memory)[0][1:], "the other")
    problem = parse_task("sr4@0").measure(samples[:2])
    options = leader(steps=TimeTravel(2, 2), covariance=estimator)
    check_data_consistency(DDNM(), problem, exact, grid=10, **options)


@pytest.mark.parametrize("bad", [{"length": 0}, {"repeat": 0}, {"length": -2}, {"length": math.nan}], ids=str)
def test_bad_travels_are_refused(bad: dict[str, int]) -> None:
    with pytest.raises(InputError, match=r"\ATimeTravel: got [^\n]*\Z"):
        TimeTravel(**bad)


def test_a_late_start_has_nowhere_to_go_back_to(samples: Tensor) -> None:
    for make in (lambda then: LateStart(samples, 1.0, then), lambda then: MeasuredStart(then=then)):
        with pytest.raises(InputError, match=r"\Athen: a walk that begins late"):
            make(TimeTravel())
        make(TimeTravel(repeat=1))

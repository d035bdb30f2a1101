"""Step rules: the step length from the map, its guards, and the network calls SATP costs on a known image model."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from laws import check_step_rule, normal
from leader_nb import Schedule
from leader_nb.errors import InputError
from leader_nb.schedule import uniform_grid
from leader_nb.steps import SATP, ErrorControlled, PIControlled, Uniform

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
    "bad", [{"budget": -1.0}, {"eta_skip": 0.0}, {"rho": 0.5}, {"longest": 0.0}, {"longest": 1.1}], ids=str
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


@pytest.mark.parametrize("bad", [{"tolerance": -1.0}, {"longest": 0.0}, {"longest": 1.1}], ids=str)
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
    "bad", [{"tolerance": -1.0}, {"integral": 0.0}, {"proportional": -0.1}, {"longest": 0.0}, {"longest": 2.0}], ids=str
)
def test_bad_pi_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"\APIControlled: got [^\n]*\Z"):
        PIControlled(**bad)

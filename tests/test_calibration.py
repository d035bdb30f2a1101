"""The exact posterior of a mixture, and what is said of draws: an honest sampler passes, others fail by what they do."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from laws import close, generator, normal
from leader_nb import DDNM, DDRM, GaussianMixture, Schedule, image_mixture, noise_for, parse_task, restore
from leader_nb.calibration import Ancestral, Exact, blind, covered, pose, ranks, score, told
from leader_nb.errors import InputError
from leader_nb.metrics import bootstrap_interval
from leader_nb.mixture import mixture_from_covariances
from leader_nb.samplers import Sampler

SMALL = image_mixture(4, contrast=0.5)
NOISY = ("inpaint70@0.025", "pool2@0.05", "gaussian@0.05", "denoise@0.1")
FREE = ("inpaint70@0", "pool2@0")
RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
WHITE = 0.09  # the variance of every pixel of `white`


def white() -> GaussianMixture:
    """One Gaussian with independent pixels: every sampler that is linear in slots has a closed form on it."""
    return mixture_from_covariances(torch.ones(1), torch.zeros(1, 16), WHITE * torch.eye(16)[None], (1, 4, 4))


def log_density(mixture: GaussianMixture, x: Tensor) -> Tensor:
    """log p(x) for flat images (B, N)."""
    full = (mixture.bases * mixture.values[:, None]) @ mixture.bases.mT
    each = [MultivariateNormal(m, (c + c.T) / 2).log_prob(x) for m, c in zip(mixture.means, full, strict=True)]
    return (torch.stack(each) + mixture.log_weights[:, None]).logsumexp(0)


@pytest.mark.parametrize("task", NOISY)
def test_the_posterior_is_bayes_rule(task: str) -> None:
    """log p(x | y) - log p(x) - log p(y | x) is the same for all x."""
    problem = parse_task(task).measure(SMALL.sample(1, generator(0)))
    posterior, x = SMALL.posterior(problem), SMALL.sample(9, generator(1))
    apart = problem.operator.on_measured(problem.operator(x) - problem.y)
    likelihood = -apart.square().flatten(1).sum(1) / (2 * problem.sigma_y**2)
    constant = log_density(posterior, x.flatten(1)) - log_density(SMALL, x.flatten(1)) - likelihood
    close(constant, constant[:1].expand(9), f"Bayes on {task}", 1e-8)


@pytest.mark.parametrize("task", FREE)
def test_without_noise_the_posterior_is_the_limit_of_little_noise(task: str) -> None:
    problem = parse_task(task).measure(SMALL.sample(1, generator(0)))
    sharp, soft = (SMALL.posterior(replace(problem, sigma_y=torch.tensor([s]).double())) for s in (0.0, 1e-5))
    close(sharp.log_weights, soft.log_weights, "weights", 1e-6)
    for a, b in zip(sharp.moments(), soft.moments(), strict=True):
        close(a, b, "moments", 1e-6)
    draws = sharp.sample(5, generator(2))
    close(problem.operator(draws), problem.y.expand(5, -1, -1, -1), "draws explain the measurement", 1e-6)


def test_moments_are_those_of_draws() -> None:
    mean, covariance = SMALL.moments()
    x = SMALL.sample(40000, generator(0)).flatten(1)
    close(x.mean(0), mean, "mean", 0.01)
    close(x.T.cov(), covariance, "covariance", 0.01)


def test_one_measurement_at_a_time() -> None:
    problem = parse_task("pool2@0.05").measure(SMALL.sample(2, generator(0)))
    with pytest.raises(InputError, match="give one measurement"):
        SMALL.posterior(problem)


def test_denoising_together_is_denoising_one_by_one() -> None:
    x, t = normal(4, 1, 4, 4), torch.tensor([900, 400, 100, 5])
    close(SMALL.prior(together=True)(x, t).x0, SMALL.prior()(x, t).x0, "together", 1e-12)


@pytest.mark.parametrize("task", ("pool2@0.05", "inpaint70@0"))
def test_a_prior_that_was_told_is_the_posteriors_own(task: str) -> None:
    exact = pose(SMALL, parse_task(task), 3)
    x, t = normal(6, 1, 4, 4), torch.tensor([900, 900, 400, 400, 50, 50])
    own = [p.prior()(x[2 * i : 2 * i + 2], t[2 * i : 2 * i + 2]).x0 for i, p in enumerate(exact.posteriors)]
    close(told(exact, 2)(x, t).x0, torch.cat(own), "told", 1e-10)


def test_reverse_steps_with_drawn_images_are_exact() -> None:
    """Three steps, and the posterior all the same; with means in place of draws they lose most of the spread."""
    exact = pose(SMALL, parse_task("pool2@0.05"), 60)
    problem = blind(exact.repeated(39))
    spreads, coverage = {}, {}
    for name, drawn in (("drawn", generator(0)), ("mean", None)):
        prior = told(exact, 39, drawn)
        image = restore(problem, prior, Ancestral(), grid=3, noise=noise_for(len(problem), 1)).image
        found = means(score(image.view(60, 39, 1, 4, 4), exact))
        spreads[name], coverage[name] = found["spread"], found["coverage"]
    assert abs(spreads["drawn"] - 1) < 0.03 and abs(coverage["drawn"] - 0.9) < 0.03
    assert spreads["mean"] < 0.5 and coverage["mean"] < 0.8


# --- Scores --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=("inpaint70@0", "inpaint70@0.025", "pool2@0.05", "gaussian@0.05"))
def exact(request: pytest.FixtureRequest) -> Exact:
    return pose(SMALL, parse_task(request.param), 80, seed=2)


def means(scores: dict[str, Tensor]) -> dict[str, float]:
    return {name: value.mean().item() for name, value in scores.items()}


def test_an_honest_sampler_passes(exact: Exact) -> None:
    scores = score(exact.draws(39, seed=1), exact)
    found, interval = means(scores), bootstrap_interval(scores["coverage"], level=0.999)
    assert interval.low <= 0.9 <= interval.high
    assert abs(found["bias2"]) < 0.01 and abs(found["spread"] - 1) < 0.03 and found["kinds"] < 0.1
    for part in ("seen", "unseen"):
        assert math.isnan(found[part]) or abs(found[part] - 1) < 0.05


@pytest.mark.parametrize("factor", (0.7, 1.4))
def test_shrunken_and_swollen_draws_fail(exact: Exact, factor: float) -> None:
    honest = exact.draws(39, seed=1)
    scores = score(exact.mean[:, None] + factor * (honest - exact.mean[:, None]), exact)
    found, interval = means(scores), bootstrap_interval(scores["coverage"], level=0.999)
    assert abs(found["spread"] - factor**2) < 0.05
    assert interval.high < 0.88 if factor < 1 else interval.low > 0.92
    assert found["crps"] > means(score(honest, exact))["crps"]


def test_a_shift_is_a_bias(exact: Exact) -> None:
    """Half a posterior deviation, everywhere: bias^2 is a quarter, and the spread does not change."""
    shifted = exact.draws(39, seed=1) + 0.5 * exact.variance.clamp(min=0).sqrt()[:, None]
    found = means(score(shifted, exact))
    assert abs(found["bias2"] - 0.25) < 0.03 and abs(found["spread"] - 1) < 0.03 and found["coverage"] < 0.89


def test_the_posterior_mean_is_no_sample(exact: Exact) -> None:
    found = means(score(exact.mean[:, None].expand(-1, 19, -1, -1, -1), exact))
    assert found["bias2"] < 1e-20 and found["spread"] == 0 and found["coverage"] == 0


def test_only_one_kind_of_picture_shows(exact: Exact) -> None:
    """Draws of the likeliest component alone: the distance is the weight of the others."""
    weights = torch.stack([p.log_weights.exp() for p in exact.posteriors])
    best = [
        replace(p, log_weights=torch.where(p.log_weights == p.log_weights.max(), 0.0, -torch.inf)) for p in exact.posteriors
    ]
    draws = torch.stack([p.sample(39, generator(i)) for i, p in enumerate(best)])
    lost = (1 - weights.max(1).values).mean()
    assert abs(means(score(draws, exact))["kinds"] - lost.item()) < 0.05


def test_what_was_measured_without_noise_counts_nowhere() -> None:
    exact = pose(SMALL, parse_task("inpaint70@0"), 4)
    known = exact.problem.operator.s > 0
    assert torch.equal(~exact.open, known)
    wrong = exact.draws(19) + known[:, None]
    fine, broken = score(exact.draws(19), exact), score(wrong, exact)
    assert fine["seen"].isnan().all()
    for name in ("spread", "unseen", "coverage", "crps"):
        close(broken[name], fine[name], name)
    assert (broken["residual"] > 0.9).all() and (fine["residual"] < 1e-6).all()


def test_ranks_of_an_honest_sampler_are_uniform() -> None:
    """Chi squared over the ranks of one pixel, which are independent between measurements."""
    exact = pose(white(), parse_task("denoise@0.1"), 2000)
    shares = torch.bincount(ranks(exact.draws(19), exact)[:, 0, 1, 1], minlength=20)
    assert ((shares - 100.0) ** 2 / 100).sum() < 45  # 19 degrees of freedom: once in a thousand


def test_draws_that_have_no_such_interval_are_refused() -> None:
    exact = pose(SMALL, parse_task("pool2@0.05"), 2)
    with pytest.raises(InputError, match="19, 39, 59"):
        covered(exact.draws(20), exact)
    with pytest.raises(InputError, match="at least 2 draws"):
        score(exact.draws(19)[:1], exact)


# --- Closed forms: white pixels, where a sampler is a recursion of numbers -----------------------------------------


def predicted(host: DDNM | DDRM, sigma_y: float, measured: bool, steps: int) -> tuple[float, float]:
    """(gain g, variance v) of one pixel of x0 given its measurement: mean g y, for s = 1 where it is measured.

    From the hosts' own rules for a slot: DDNM's A^+ y or Eq. 21; DDRM's three cases with eta_b = 1.
    """
    schedule, like = Schedule(), torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    times = host.default_steps(steps)
    eta, calm = host.eta_ddim, (1 - host.eta_ddim**2) ** 0.5
    gain, variance = 0.0, 1.0
    if measured and isinstance(host, DDRM):
        start = schedule.sigma(torch.tensor([host.start]), like).item()
        gain, variance = 1 / start, 1 - (sigma_y / start) ** 2
    for t, s in zip(times, (*times[1:], -1), strict=True):
        abar, abar_s = (schedule.abar(torch.tensor([u]), like).item() for u in (t, s))
        sigma = ((1 - abar_s) / abar_s) ** 0.5
        to_x0 = abar**0.5 * WHITE / (abar * WHITE + 1 - abar)  # x0 = to_x0 x_t
        to_eps = (1 - abar**0.5 * to_x0) / (1 - abar) ** 0.5
        if not measured:
            keep, pull, fresh = to_x0 + calm * sigma * to_eps, 0.0, eta * sigma
        elif isinstance(host, DDNM):
            keep, pull, fresh = calm * sigma * to_eps, 1.0, eta * sigma
        elif sigma >= sigma_y:
            keep, pull, fresh = 0.0, 1.0, (sigma**2 - sigma_y**2) ** 0.5
        else:
            pull = calm * sigma / sigma_y
            keep, fresh = to_x0 * (1 - pull), eta * sigma
        gain, variance = abar_s**0.5 * (keep * gain + pull), abar_s * (keep**2 * variance + fresh**2)
    return gain, variance


@pytest.mark.parametrize(
    "host, task",
    [(DDNM(), "inpaint50@0"), (DDNM(eta_ddim=0.3), "inpaint50@0"), (DDRM(), "inpaint50@0.1"), (DDRM(0.4), "inpaint50@0.1")],
    ids=str,
)
def test_scores_of_a_host_are_its_closed_form(host: Sampler, task: str) -> None:
    """On white pixels: the spread where data are, where none are, and the bias, all known from the recursion."""
    assert isinstance(host, (DDNM, DDRM))
    measurements, draws, steps = 8, 399, 12
    exact = pose(white(), parse_task(task), measurements)
    prior, problem = exact.mixture.prior(together=True), exact.repeated(draws)
    image = restore(problem, prior, host, grid=steps, noise=noise_for(len(problem), 5)).image
    scores = score(image.view(measurements, draws, 1, 4, 4), exact)
    sigma_y = exact.problem.sigma_y[0].item()
    gain, variance = predicted(host, sigma_y, True, steps)
    unseen = predicted(host, sigma_y, False, steps)[1] / WHITE
    shrunk = WHITE / (WHITE + sigma_y**2)  # the posterior: mean shrunk y, variance shrunk sigma_y^2
    assert scores["unseen"].mean().item() == pytest.approx(unseen, rel=0.03)
    y = exact.problem.y * (exact.problem.operator.s > 0)
    assert scores["bias2"].mean().item() == pytest.approx(
        ((gain - shrunk) ** 2 * y.square().flatten(1).sum(1) / exact.trace).mean().item(), abs=0.01
    )
    if sigma_y:
        assert scores["seen"].mean().item() == pytest.approx(variance / (shrunk * sigma_y**2), rel=0.03)
    else:
        assert scores["residual"].max().item() < 1e-10 and gain == pytest.approx(1) and variance < 1e-12


# --- The committed table -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """benchmarks/oracle_table.py."""
    spec = importlib.util.spec_from_file_location("oracle_table", RESULTS.parent / "oracle_table.py")
    assert spec is not None and spec.loader is not None
    sys.modules["oracle_table"] = module = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    rows = pd.read_csv(RESULTS / "oracle_table.csv", keep_default_na=False, na_values=[""])
    return rows.set_index(["method", "setting", "task"])


def test_the_committed_table_is_whole(maker: ModuleType, table: pd.DataFrame) -> None:
    """Every reference and method on every task, with intervals around their means; the honest row is honest."""
    own = table.xs("own", level="setting")
    assert set(own.index) == {(m, t) for m in maker.METHODS for t in maker.TASKS}
    for name in ("bias", "spread", "coverage"):
        assert (table[f"{name}_low"] <= table[name] + 1e-9).all() and (table[name] <= table[f"{name}_high"] + 1e-9).all()
    honest, point = own.loc["exact posterior"], own.loc["posterior mean"]
    assert (abs(honest["spread"] - 1) < 0.04).all() and (abs(honest["coverage"] - 0.9) < 0.02).all()
    assert (honest["bias"] < 0.1).all() and (point[["spread", "coverage"]] == 0).all().all()


def test_committed_rows_have_todays_constants(maker: ModuleType, table: pd.DataFrame) -> None:
    for (name, setting, task), row in table.iterrows():
        way = maker.method(name, parse_task(task).sigma)
        if setting == "own" and way.sampler is not None:
            assert row["constants"].startswith(repr(way.sampler)), f"{name} on {task}: {row['constants']}"


@pytest.mark.parametrize("name, task", [("exact posterior", "pool4@0.025"), ("ddnm", "inpaint70@0")])
def test_committed_rows_are_made_again(maker: ModuleType, table: pd.DataFrame, name: str, task: str) -> None:
    row = table.loc[(name, "own", task)]
    exact = pose(maker.world(), parse_task(task), int(row["measurements"]), int(row["seed"]))
    samples, calls = maker.draw(maker.method(name, parse_task(task).sigma), exact, int(row["draws"]), int(row["seed"]))
    fresh = maker.summary(score(samples, exact))
    assert calls == row["nfe"]
    for column in ("bias", "spread", "coverage", "crps", "residual", "kinds"):
        assert fresh[column] == pytest.approx(row[column], abs=2e-3), column

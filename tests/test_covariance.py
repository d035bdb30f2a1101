"""Estimators of the variance map against the exact one of a Gaussian mixture."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from laws import belief_at, check_covariance, close, generator, normal, same
from leader_nb import DDNM, GaussianMixture, Prior, image_mixture, noise_for, parse_task, trajectory
from leader_nb.covariance import Isotropic, PyramidWiener, RunningSecant, ScoreSquared, box, clipped, isotropic
from leader_nb.errors import InputError
from leader_nb.loop import State
from leader_nb.mixture import mixture_from_covariances
from leader_nb.priors import Belief

ESTIMATORS = [
    Isotropic(),
    ScoreSquared(),
    ScoreSquared(clip=False),
    RunningSecant(),
    RunningSecant(window=3),
    RunningSecant(still=PyramidWiener()),
]


def exact_map(mixture: GaussianMixture, belief: Belief) -> Tensor:
    """diag Cov(x0 | x_t), image by image."""
    rows = zip(belief.xbar, belief.sigma, strict=True)
    return torch.stack([mixture.covariance(x, s.reshape(())).diagonal().view(x.shape) for x, s in rows])


def gaussian(variance: float, size: int = 8) -> GaussianMixture:
    """x0 ~ N(0, variance I)."""
    eye = torch.eye(size**2, dtype=torch.float64)
    return mixture_from_covariances(torch.ones(1), torch.zeros(1, size**2), variance * eye[None], (1, size, size))


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
def test_laws(estimator, exact: Prior, network: Prior, samples: Tensor) -> None:
    """The image's shape, finite, positive unless unclipped, no network call, image by image, nothing changed."""
    for prior in (exact, network):
        check_covariance(estimator, prior, samples, positive=estimator != ScoreSquared(clip=False))


@pytest.mark.parametrize("estimator", [ScoreSquared(), RunningSecant()], ids=repr)
def test_clipped_maps_stay_in_their_bounds(estimator, exact: Prior, samples: Tensor) -> None:
    """1e-3 sigma^2 / (1 + sigma^2) <= cov <= min(sigma^2, 1)."""
    memory: dict[str, Tensor] = {}
    for t in range(990, -1, -90):
        belief = belief_at(exact, samples, t)
        cov, memory = estimator.update(belief, None, memory)
        square = belief.sigma**2
        assert (cov >= 1e-3 * square / (1 + square)).all() and (cov <= square.clamp(max=1)).all(), t


def test_clipped() -> None:
    cov = torch.tensor([-1.0, float("inf"), 1e-9, 0.2, 3.0])
    assert clipped(cov, torch.tensor(0.5)).tolist() == pytest.approx([2e-4, 0.25, 2e-4, 0.2, 0.25])
    assert clipped(cov, torch.tensor(2.0)).tolist() == pytest.approx([8e-4, 1.0, 8e-4, 0.2, 1.0])


def test_box_is_a_mean_over_a_mirrored_window() -> None:
    x = normal(2, 3, 6, 7)
    out = box(x, 3)
    close(out[..., 2, 3], x[..., 1:4, 2:5].mean((2, 3)), "inside")
    close(out[..., 0, 0], x[..., [1, 0, 1], :][..., [1, 0, 1]].mean((2, 3)), "corner")
    same(box(x, 1), x, "window of one")


# --- E0 and E1 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0.25, 1.0])
def test_e0_is_exact_on_an_isotropic_gaussian(variance: float) -> None:
    mixture = gaussian(variance)
    for t in (10, 300, 900):
        belief = belief_at(mixture.prior(), mixture.sample(2, generator(0)), t)
        cov, memory = Isotropic(variance).update(belief, None, {})
        close(cov, exact_map(mixture, belief), f"E0 at t = {t}")
        assert memory == {} and cov.flatten()[0] == isotropic(belief.sigma, variance).flatten()[0]


def test_e1_is_sigma_squared_times_one_minus_eps_squared(exact: Prior, samples: Tensor) -> None:
    for t in (20, 300, 700):
        belief = belief_at(exact, samples, t)
        cov, _ = ScoreSquared(clip=False).update(belief, None, {})
        close(cov, belief.sigma**2 * (1 - belief.eps**2), "E1", 1e-12)


def test_e1_is_right_on_average(mixture: GaussianMixture) -> None:
    """Over images and noise, E1 is an unbiased estimate of Tr Cov: within 4 standard errors of 400 draws."""
    x = mixture.sample(400, generator(0))
    for t in (60, 150):
        belief = belief_at(mixture.prior(), x, t)
        cov, _ = ScoreSquared(clip=False).update(belief, None, {})
        gap = (cov - exact_map(mixture, belief)).flatten(1).mean(1)
        assert gap.mean().abs() < 4 * gap.std() / 400**0.5
        assert gap.mean().abs() < 0.05 * belief.sigma[0].square().item()


def test_e1_has_negative_values_unless_clipped(mixture: GaussianMixture) -> None:
    """A third of its pixels at high noise (E eps^2 = 1: P(|eps| > 1) is 0.32), none once clipped."""
    belief = belief_at(mixture.prior(), mixture.sample(20, generator(0)), 800)
    raw, clip = (ScoreSquared(clip=c).update(belief, None, {})[0] for c in (False, True))
    assert 0.25 < (raw < 0).double().mean() < 0.4 and (clip > 0).all()


# --- E10 -----------------------------------------------------------------------------------------------------------


def ddnm_run(mixture: GaussianMixture, images: int, task: str = "pool4@0", grid: int = 100) -> dict[int, tuple[State, Tensor]]:
    """Position k -> (state, exact map) along a DDNM run with eta = 0.85 that carries E10 with it."""
    problem = parse_task(task).measure(mixture.sample(images, generator(3)))
    states = trajectory(
        problem, mixture.prior(), DDNM(), grid=grid, covariance=RunningSecant(), noise=noise_for(images, seed=1)
    )
    watched = {40, 30, 25, 20, 15, 12, 8}
    run = {k: (s, exact_map(mixture, s.belief)) for s in states if (k := s.k[0].item()) in watched}
    assert run.keys() == watched
    return run


def test_e10_follows_the_exact_map_in_a_ddnm_run() -> None:
    """16 x 16, 4 x 4 pooling, eta = 0.85, sigma from 2 to 0.2: trace within 25 %, correlation over 0.4, none < 0."""
    for k, (state, exact_cov) in ddnm_run(image_mixture(16), images=6).items():
        ours = state.cov.flatten(1)
        exact_cov = exact_cov.flatten(1)
        ratio = (ours.mean(1) / exact_cov.mean(1)).median().item()
        correlation = torch.stack([torch.stack(p).corrcoef()[0, 1] for p in zip(ours, exact_cov, strict=True)]).median().item()
        assert 0.75 < ratio < 1.25, f"k = {k}: trace ratio {ratio:.2f}"
        assert correlation > 0.4, f"k = {k}: correlation {correlation:.2f}"
        assert (ours > 0).all()


def test_e10_beats_the_maps_that_see_less() -> None:
    """In the same run its error per pixel is below that of E1 at every k, and of E0 at k <= 25."""
    run = ddnm_run(image_mixture(16), images=4)
    for k, (state, exact_cov) in run.items():
        error = {
            e: (e.update(state.belief, None, {})[0] - exact_cov).square().mean().item() for e in (ScoreSquared(), Isotropic())
        }
        ours = (state.cov - exact_cov).square().mean().item()
        assert ours < error[ScoreSquared()], f"k = {k}"
        assert k > 25 or ours < error[Isotropic()], f"k = {k}"


def test_e10_by_hand(exact: Prior, samples: Tensor) -> None:
    """The geometric mean of Bayes' prediction and of the slope seen, clipped; in a window of one pixel."""
    before, after = belief_at(exact, samples, 300), belief_at(exact, samples, 200)
    first, memory = RunningSecant(window=1).update(before, None, {})
    cov, _ = RunningSecant(window=1).update(after, None, memory)
    precision = 1 / first + after.sigma**-2 - before.sigma**-2
    mean = (before.x0 / first + (after.sigma**-2 - before.sigma**-2) * before.xbar) / precision
    slope = (after.x0 - mean) / (after.xbar - before.xbar)
    expected = (clipped(after.sigma**2 * slope, after.sigma) / precision).sqrt()
    close(cov, clipped(expected, after.sigma), "E10", 1e-9)


def test_e10_is_exact_on_its_own_gaussian() -> None:
    """On N(0, 0.25 I), where it starts, it stays sigma^2 l / (sigma^2 + l) all the way, whatever the steps."""
    mixture = gaussian(0.25)
    memory: dict[str, Tensor] = {}
    for t in (990, 700, 690, 400, 250, 100, 30, 0):
        belief = belief_at(mixture.prior(), mixture.sample(2, generator(t)), t)
        cov, memory = RunningSecant().update(belief, None, memory)
        close(cov / exact_map(mixture, belief), torch.ones_like(cov), f"E10 at t = {t}", 1e-6)


def test_e10_finds_a_variance_it_does_not_know() -> None:
    """On N(0, 0.04 I) it starts from 0.25, six times too much; each step brings it closer, and eight to within 5 %."""
    mixture = gaussian(0.04)
    memory: dict[str, Tensor] = {}
    errors = []
    for t in range(400, 0, -25):
        belief = belief_at(mixture.prior(), mixture.sample(2, generator(t)), t)
        cov, memory = RunningSecant().update(belief, None, memory)
        errors.append((cov / exact_map(mixture, belief)).log().abs().max().item())
    assert errors[0] > 1.7 and errors[8] < 0.05 and all(b < a for a, b in pairwise(errors))


def test_an_invalid_row_starts_afresh(exact: Prior, samples: Tensor) -> None:
    """Where `valid` is false, or the memory holds NaN, an image's map is its first one; its neighbours keep theirs."""
    estimator, before, after = RunningSecant(), belief_at(exact, samples, 300), belief_at(exact, samples, 200)
    _, memory = estimator.update(before, None, {})
    expected, _ = estimator.update(after, None, memory)
    first, _ = estimator.update(after, None, {})
    broken = {name: value.clone() for name, value in memory.items()}
    broken["valid"][1] = False
    for name in ("cov", "x0", "xbar", "sigma"):
        broken[name][1] = 0  # as a slot that was never filled
    broken["cov"][3] = float("nan")
    broken["valid"][4] = False  # as a slot that another image has left
    cov, memory = estimator.update(after, None, broken)
    same(cov[1], first[1], "invalid row")
    same(cov[[3, 4]], first[[3, 4]], "row with NaN, row of another image")
    same(cov[[0, 2]], expected[[0, 2]], "other rows")
    assert not torch.equal(expected[4], first[4])
    assert memory["valid"].all()


@pytest.mark.parametrize("window", [0, 4, -1])
def test_windows_have_a_centre(window: int) -> None:
    with pytest.raises(InputError, match="window: got"):
        RunningSecant(window=window)


def test_e10_stands_still_where_nothing_moves(exact: Prior, samples: Tensor) -> None:
    """The same state twice (0 / 0 in the secant) gives a finite map."""
    belief = belief_at(exact, samples, 300)
    _, memory = RunningSecant().update(belief, None, {})
    cov, _ = RunningSecant().update(belief, None, memory)
    assert torch.isfinite(cov).all() and (cov > 0).all()

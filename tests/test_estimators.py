"""Every estimator of the variance map: exact where it claims to be, its cost, its guards, and E14 in restorations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import belief_at, check_covariance, close, generator, normal, same
from leader_nb import (
    DDNM,
    GaussianMixture,
    Prediction,
    Prior,
    Schedule,
    host,
    image_mixture,
    leader,
    noise_for,
    parse_task,
    restore,
    trajectory,
)
from leader_nb.covariance import (
    ESTIMATORS,
    Analytic,
    DifferenceProbes,
    ForwardProbes,
    Hutchinson,
    Isotropic,
    MinusSlope,
    NoiseReuse,
    PyramidSecant,
    PyramidWiener,
    RowSums,
    RunningSecant,
    ScoreSquared,
    SecondMoment,
    VarianceHead,
    fit_head,
    measure_table,
)
from leader_nb.covariance.pyramid import SLOPES, analyse, bands, depth, painted, pixels, wiener
from leader_nb.errors import InputError
from leader_nb.mixture import mixture_from_covariances
from leader_nb.priors import Belief
from leader_nb.tree import Tree

TABLE = ((0.1, 0.005), (1.0, 0.1), (10.0, 0.25))
FREE = {
    "E1w": ScoreSquared(window=5),
    "E2": Analytic(TABLE),
    "E3": SecondMoment(lambda b: b.eps**2 + 0.3),
    "E11": NoiseReuse(),
    "E12": MinusSlope(),
    "E14": PyramidSecant(),
    "E15": PyramidWiener(),
}
PROBES = {
    "E5": (Hutchinson(2), 1, 2),
    "E6": (ForwardProbes(2), 2, 0),
    "E7": (DifferenceProbes(2), 2, 0),
    "E8": (RowSums(), 1, 1),
}


def exact_map(mixture: GaussianMixture, belief: Belief) -> Tensor:
    """diag Cov(x0 | x_t), image by image."""
    rows = zip(belief.xbar, belief.sigma, strict=True)
    return torch.stack([mixture.covariance(x, s.reshape(())).diagonal().view(x.shape) for x, s in rows])


def white(variance: float, size: int = 8) -> GaussianMixture:
    """x0 ~ N(0, variance I)."""
    eye = torch.eye(size**2, dtype=torch.float64)
    return mixture_from_covariances(torch.ones(1), torch.zeros(1, size**2), variance * eye[None], (1, size, size))


def uneven(size: int = 4) -> GaussianMixture:
    """One Gaussian with independent pixels of unlike variances."""
    variances = torch.linspace(0.05, 0.6, size**2, dtype=torch.float64).diag()
    return mixture_from_covariances(torch.ones(1), torch.zeros(1, size**2), variances[None], (1, size, size))


# --- Laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FREE)
def test_laws_of_the_free_ones(name: str, exact: Prior, network: Prior, samples: Tensor) -> None:
    """Shape, finite, positive, no call, image by image bit for bit, nothing changed in place."""
    for prior in (exact, network):
        check_covariance(FREE[name], prior, samples)


@pytest.mark.parametrize("name", PROBES)
def test_laws_of_the_probes(name: str, exact: Prior, network: Prior, samples: Tensor) -> None:
    """The same, at their stated price."""
    estimator, nfe, backward = PROBES[name]
    for prior in (exact, network):
        check_covariance(estimator, prior, samples, positive=False, nfe=nfe, backward=backward)
        check_covariance(replace(estimator, clip=True), prior, samples, nfe=nfe, backward=backward)


def test_the_table_of_estimators() -> None:
    """Every number of the book once; each is made without arguments but the two that need a table or a head."""
    assert list(ESTIMATORS) == ["E0", "E1", "E2", "E3", "E4", "E5", "E6", "E7", "E8", "E10", "E11", "E12", "E14", "E15"]
    needs: dict[str, tuple[Any, ...]] = {"E2": (TABLE,), "E3": (FREE["E3"].head,)}
    for name, make in ESTIMATORS.items():
        assert callable(make(*needs.get(name, ())).update), name


def test_a_kept_graph_saves_the_call(exact: Prior, samples: Tensor) -> None:
    from leader_nb.priors import Meter

    t, meter = torch.full((5,), 300), Meter.of(5)
    for estimator in (Hutchinson(), RowSums()):
        kept = exact(samples, t, gradient=True)
        estimator.update(replace(kept, prior=exact.metered(meter)), None, {})
    assert meter.nfe.tolist() == [0] * 5 and meter.backward.tolist() == [2] * 5


# --- E2 to E4 ------------------------------------------------------------------------------------------------------


def test_e2_is_its_table() -> None:
    """At a level of the table its value; between levels, log-log in variance / sigma^2; beyond, the ratio is held."""
    mixture = white(0.25)
    for t in (3, 150, 420, 980):
        belief = belief_at(mixture.prior(), mixture.sample(2, generator(0)), t)
        sigma = belief.sigma[0].item()
        cov, memory = Analytic(((sigma / 2, 1.0), (sigma, 0.1), (sigma * 2, 1.0))).update(belief, None, {})
        close(cov, torch.full_like(cov, 0.1), "at a level")
        cov, _ = Analytic(((sigma / 2, 0.25 * sigma**2 * 0.1), (sigma * 2, 4 * sigma**2 * 0.4))).update(belief, None, {})
        close(cov, torch.full_like(cov, 0.2 * sigma**2), "half way: the geometric mean of the ratios")
        cov, _ = Analytic(((sigma * 2, 4 * sigma**2 * 0.4),)).update(belief, None, {})
        close(cov, torch.full_like(cov, 0.4 * sigma**2), "beyond")
        assert memory == {}


@pytest.mark.parametrize("measure", ["score", "error"])
def test_measured_tables_have_the_mean_variance(mixture: GaussianMixture, measure: str) -> None:
    """Within 4 standard errors and 5 % of the mean exact trace, over 300 images."""
    x, times = mixture.sample(300, generator(0)), (20, 60, 150)
    for (sigma, variance), t in zip(measure_table(mixture.prior(), x, times, measure), times, strict=True):
        belief = belief_at(mixture.prior(), x[:100], t)
        assert sigma == pytest.approx(belief.sigma[0].item())
        assert variance == pytest.approx(exact_map(mixture, belief).mean().item(), rel=0.05), f"t = {t}"


@pytest.mark.parametrize("table", [(), ((1.0, 0.1), (0.5, 0.1)), ((1.0, -0.1),), ((0.0, 0.1),)], ids=str)
def test_bad_tables_are_refused(table: tuple) -> None:
    with pytest.raises(InputError, match=r"\Atable: got"):
        Analytic(table)
    with pytest.raises(InputError, match="unknown measure 'mse'"):
        measure_table(white(0.25).prior(), torch.zeros(1, 1, 8, 8), (3,), "mse")


def test_e3_is_exact_with_the_exact_head(mixture: GaussianMixture, samples: Tensor) -> None:
    """h = E[eps^2 | x_t] = eps^2 + Cov / sigma^2 (Eq. 8.2 of the notes)."""
    head = SecondMoment(lambda b: b.eps**2 + exact_map(mixture, b) / b.sigma**2)
    for t in (30, 200, 600):
        belief = belief_at(mixture.prior(), samples, t)
        close(head.update(belief, None, {})[0], exact_map(mixture, belief), f"E3 at t = {t}")


def test_a_head_learns_a_gaussian() -> None:
    """On N(0, 0.09 I) the head's map is sigma^2 l / (sigma^2 + l) within 15 % at its levels, 25 % between and beyond."""
    mixture = white(0.09)
    head = SecondMoment(fit_head(mixture.prior(), mixture.sample(400, generator(0)), (60, 150, 300)))
    for t in (50, 60, 100, 150, 300):
        belief = belief_at(mixture.prior(), mixture.sample(2, generator(1)), t)
        ratio = head.update(belief, None, {})[0] / exact_map(mixture, belief)
        assert (ratio - 1).abs().max() < (0.15 if t in (60, 150, 300) else 0.25), f"t = {t}: {ratio.min()} {ratio.max()}"


def test_a_broken_head_is_not_believed(exact: Prior, samples: Tensor) -> None:
    def head(b: Belief) -> Tensor:
        return torch.full_like(b.eps, float("nan")).index_fill(0, torch.tensor([0]), 2.0)

    cov, _ = SecondMoment(head).update(belief_at(exact, samples, 200), None, {})
    assert torch.isfinite(cov).all() and (cov > 0).all()


def with_head(mixture: GaussianMixture) -> Prior:
    """The mixture as a network of six channels: its head says the exact reverse variance betatilde + c^2 Cov."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        said = mixture.prior().predict(x_t, t, schedule)
        sigma, one = schedule.sigma(t, x_t), x_t.new_empty(0)
        abar, before = schedule.abar(t, one), schedule.abar(t - 1, one)
        beta = 1 - abar / before
        tilde, c = (1 - before) / (1 - abar) * beta, before.sqrt() * beta / (1 - abar)
        floor_t = t.clamp(min=1)
        a, b = schedule.abar(floor_t, one), schedule.abar(floor_t - 1, one)
        floor = (1 - b) / (1 - a) * (1 - a / b)
        rows = zip(x_t / abar.sqrt(), sigma, strict=True)
        cov = torch.stack([mixture.covariance(x, s.reshape(())).diagonal().view(x.shape) for x, s in rows])
        f = ((tilde + c**2 * cov).log() - floor.log()) / (beta.log() - floor.log())
        return Prediction(x0=said.x0, variance=2 * f - 1)

    return Prior(predict)


def test_e4_is_exact_at_the_schedules_own_stride(mixture: GaussianMixture, samples: Tensor) -> None:
    """Fed with the exact reverse variance it returns the exact map; without a head it says what to do."""
    prior = with_head(mixture)
    for t in (1, 10, 80, 400):
        belief = belief_at(prior, samples, t)
        cov, _ = VarianceHead(trust_below=100).update(belief, None, {})
        close(cov, exact_map(mixture, belief), f"E4 at t = {t}", 1e-6)
    check_covariance(VarianceHead(), prior, samples)
    with pytest.raises(InputError, match="VarianceHead needs a prior with a variance head"):
        VarianceHead().update(belief_at(mixture.prior(), samples, 10), None, {})


def test_e4_is_not_trusted_at_high_noise(mixture: GaussianMixture, samples: Tensor) -> None:
    belief = belief_at(with_head(mixture), samples, 200)
    assert belief.sigma[0] > 0.2
    same(VarianceHead().update(belief, None, {})[0], Isotropic(1.0).update(belief, None, {})[0], "above the gate")
    wild = replace(belief_at(with_head(mixture), samples, 5), variance=torch.full_like(samples, -1e6))
    cov, _ = VarianceHead().update(wild, None, {})
    assert torch.isfinite(cov).all() and (cov > 0).all()


# --- E5 to E8 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("estimator", [Hutchinson(), ForwardProbes(), DifferenceProbes(), RowSums()], ids=repr)
def test_probes_are_exact_where_pixels_are_independent(estimator) -> None:
    """v_i^2 = 1: with a diagonal covariance a single probe gives the whole diagonal, and row sums are it."""
    mixture = uneven()
    for t in (30, 300, 800):
        belief = belief_at(mixture.prior(), mixture.sample(2, generator(t)), t)
        close(estimator.update(belief, None, {})[0], exact_map(mixture, belief), f"t = {t}", 1e-8)


def test_forward_and_backward_probes_agree(mixture: GaussianMixture, samples: Tensor) -> None:
    """J is symmetric for the exact posterior mean, so E5 = E6 probe by probe; E7 tends to both as its step shrinks."""
    belief = belief_at(mixture.prior(), samples, 200)
    backward, forward = (e.update(belief, None, {})[0] for e in (Hutchinson(3), ForwardProbes(3)))
    close(forward, backward, "E6 = E5")
    gaps = [(DifferenceProbes(3, step=s).update(belief, None, {})[0] - backward).abs().max().item() for s in (1e-1, 1e-2, 1e-3)]
    assert gaps[2] < gaps[1] / 5 < gaps[0] / 25


def test_hutchinson_is_unbiased(mixture: GaussianMixture, samples: Tensor) -> None:
    """The mean of 200 probes is within 5 of its own standard errors at every pixel, and the trace within 3 %."""
    belief = belief_at(mixture.prior(), samples[:2], 200)
    exact = exact_map(mixture, belief)
    single = torch.stack([Hutchinson(seed=i).update(belief, None, {})[0] for i in range(200)])
    error = single.std(0) / 200**0.5
    assert ((single.mean(0) - exact).abs() < 5 * error + 1e-12).all()
    assert (single.mean() / exact.mean()).item() == pytest.approx(1, abs=0.03)


def test_e8_is_the_row_sums(mixture: GaussianMixture, samples: Tensor) -> None:
    """Exactly Cov 1, which on images is far more than the diagonal."""
    belief = belief_at(mixture.prior(), samples, 300)
    rows = zip(belief.xbar, belief.sigma, strict=True)
    sums = torch.stack([mixture.covariance(x, s.reshape(())).sum(1).view(x.shape) for x, s in rows])
    cov, _ = RowSums().update(belief, None, {})
    close(cov, sums, "row sums", 1e-8)
    assert cov.mean() > 3 * exact_map(mixture, belief).mean()


@pytest.mark.parametrize("make", [Hutchinson, ForwardProbes, DifferenceProbes], ids=lambda m: m.__name__)
def test_bad_probes_are_refused(make: Callable[..., object]) -> None:
    with pytest.raises(InputError, match="probes: got 0"):
        make(0)
    with pytest.raises(InputError, match="window: got 4"):
        make(1, 4)
    with pytest.raises(InputError, match="step: got 0"):
        DifferenceProbes(step=0)


# --- E11 and E12 ---------------------------------------------------------------------------------------------------


def pushed(mixture: GaussianMixture, t: int, seed: int = 0) -> tuple[Belief, Belief, Tensor]:
    """Two beliefs at one noise level, the second with fresh noise added to its state, and that noise."""
    before = belief_at(mixture.prior(), mixture.sample(2, generator(seed)), t)
    injected = 0.5 * (1 - before.abar).sqrt() * normal(*before.x_t.shape, seed=seed + 1)
    return before, mixture.prior()(before.x_t + injected, before.t), injected


@pytest.mark.parametrize("window", [1, 5])
def test_e11_is_exact_where_pixels_are_alike_and_only_noise_moves(window: int) -> None:
    mixture = white(0.09)
    before, after, injected = pushed(mixture, 200)
    _, memory = NoiseReuse(window).update(before, None, {})
    cov, _ = NoiseReuse(window).update(after, injected, memory)
    close(cov, exact_map(mixture, after), "E11", 1e-8)


def test_e11_has_the_right_trace_on_average(mixture: GaussianMixture) -> None:
    """At sigma = 0.3, over 60 draws of noise, unclipped pixels or not: within 8 %."""
    ratios = []
    for seed in range(60):
        before, after, injected = pushed(mixture, 90, seed)
        _, memory = NoiseReuse().update(before, None, {})
        ratios.append((NoiseReuse().update(after, injected, memory)[0].mean() / exact_map(mixture, after).mean()).item())
    assert torch.tensor(ratios).mean().item() == pytest.approx(1, abs=0.08)


def test_e11_without_noise_keeps_its_map() -> None:
    """No noise injected: the prior variance found so far is carried to the new sigma; at first it is E0."""
    mixture = white(0.09)
    before, after, injected = pushed(mixture, 200)
    first, memory = NoiseReuse().update(before, None, {})
    close(first, Isotropic().update(before, None, {})[0], "first")
    _, memory = NoiseReuse().update(after, injected, memory)
    later = belief_at(mixture.prior(), mixture.sample(2, generator(5)), 100)
    for nothing in (None, torch.zeros_like(later.x0)):
        close(NoiseReuse().update(later, nothing, memory)[0], exact_map(mixture, later), "kept", 1e-8)


def ode_pair(mixture: GaussianMixture, t: int) -> tuple[Belief, Belief]:
    """Two ends of one short DDIM step without noise."""
    before = belief_at(mixture.prior(), mixture.sample(2, generator(0)), t)
    schedule, s = before.schedule, before.t - 1
    abar = schedule.abar(s, before.x0)
    return before, mixture.prior()(abar.sqrt() * before.x0 + (1 - abar).sqrt() * before.eps, s)


def test_e12_is_minus_the_slope_of_the_ode() -> None:
    """On a Gaussian with unlike pixels and a short step: the exact map to 1 %; the naive secant has the other sign."""
    mixture = uneven()
    for t in (200, 500):
        before, after = ode_pair(mixture, t)
        _, memory = MinusSlope(1).update(before, None, {})
        cov, _ = MinusSlope(1).update(after, None, memory)
        close(cov / exact_map(mixture, after), torch.ones_like(cov), f"E12 at t = {t}", 0.01)
        naive = after.sigma**2 * (after.x0 - before.x0) / (after.xbar - before.xbar)
        assert (naive < 0).all()


@pytest.mark.parametrize("estimator", [NoiseReuse(), MinusSlope(), PyramidSecant()], ids=repr)
def test_an_invalid_row_starts_afresh(estimator, exact: Prior, samples: Tensor) -> None:
    """Where `valid` is false an image's map is its first one, whatever its memory holds; its neighbours keep theirs."""
    before, after, injected = belief_at(exact, samples, 300), belief_at(exact, samples, 200), 0.1 * normal(*samples.shape)
    _, memory = estimator.update(before, None, {})
    expected, _ = estimator.update(after, injected, memory)
    first, _ = estimator.update(after, None, {})
    broken = {name: value.clone() for name, value in memory.items()}
    broken["valid"][[1, 3]] = False
    for value in broken.values():
        if value.is_floating_point():
            value[1] = 0  # as a slot that was never filled
            value[3] = float("nan")
    cov, after_memory = estimator.update(after, injected, broken)
    same(cov[[1, 3]], first[[1, 3]], "invalid rows")
    same(cov[[0, 2, 4]], expected[[0, 2, 4]], "other rows")
    assert not torch.equal(expected[1], first[1])
    assert after_memory["valid"].all() and all(torch.isfinite(v).all() for v in after_memory.values())


@pytest.mark.parametrize("estimator", [NoiseReuse(), MinusSlope(), PyramidSecant()], ids=repr)
def test_standing_still_and_infinities_give_finite_maps(estimator, exact: Prior, samples: Tensor) -> None:
    belief = belief_at(exact, samples, 300)
    _, memory = estimator.update(belief, None, {})
    cov, memory = estimator.update(belief, torch.zeros_like(samples), memory)
    assert torch.isfinite(cov).all() and (cov > 0).all()
    wild = replace(belief, x0=belief.x0.clone())
    wild.x0[0, 0, 0, 0] = float("inf")
    cov, _ = estimator.update(wild, normal(*samples.shape), memory)
    assert torch.isfinite(cov).all() and (cov > 0).all()


# --- E14 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 1, 8, 12), (2, 3, 7, 6), (1, 2, 6, 6), (1, 3, 3, 2)], ids=str)
def test_the_pyramid_is_orthonormal(shape: tuple[int, ...]) -> None:
    """Lengths are kept and the map is onto: W^T W = W W^T = I."""
    count = shape[1] * shape[2] * shape[3]
    W = analyse(torch.eye(count, dtype=torch.float64).view(count, *shape[1:])).flatten(1).T
    close(W @ W.T, torch.eye(count, dtype=torch.float64), "orthonormal", 1e-12)
    assert sum(b[0].numel() for level in bands(normal(*shape)) for b in level) == count


def test_depth_stops_at_two_pixels_and_at_odd_sides() -> None:
    sides = {(16, 16): 3, (8, 12): 2, (7, 6): 0, (6, 6): 1, (2, 2): 0, (64, 96): 5}
    assert {s: depth(torch.zeros(1, 1, *s)) for s in sides} == sides


def test_pixel_variances_are_those_of_the_coefficients() -> None:
    """Constant within each level: exactly diag(W^T D W). Otherwise the trace is exact, and the map smooth."""
    x = normal(1, 3, 8, 8)
    levels = torch.tensor([[5.0, 2.0, 0.5]], dtype=torch.float64)
    D = painted(levels, x)
    W = analyse(torch.eye(192, dtype=torch.float64).view(192, 3, 8, 8)).flatten(1).T
    close(pixels(D).flatten(), torch.einsum("ki,k,ki->i", W, D.flatten(), W), "diagonal", 1e-12)
    wild = normal(2, 3, 16, 16).square()
    close(pixels(wild).sum((1, 2, 3)), wild.sum((1, 2, 3)), "trace", 1e-12)


def watched_run(
    mixture: GaussianMixture, task: str, images: int, estimators: dict[str, Any]
) -> list[tuple[float, Tensor, dict]]:
    """(sigma, exact map, maps) at a few noise levels between 0.1 and 3 of a restoration with eta = 0.85."""
    spec = parse_task(task)
    problem = spec.measure(mixture.sample(images, generator(3)))
    followers = Followers(estimators)
    states = trajectory(
        problem, mixture.prior(), host("ddnm", spec.sigma), covariance=followers, noise=noise_for(images, seed=1)
    )
    found = []
    for state in states:
        if state.k[0].item() in {46, 40, 33, 26, 18, 12, 6, 4}:
            found.append((state.belief.sigma[0].item(), exact_map(mixture, state.belief), dict(followers.maps)))
    assert len(found) == 8 and 2.5 < found[0][0] < 3 and 0.1 < found[-1][0] < 0.12
    return found


class Followers:
    """Several estimators beside one run."""

    def __init__(self, estimators: dict[str, Any]) -> None:
        self.estimators, self.maps = estimators, {}
        self.memories: dict[str, Tree] = {name: {} for name in estimators}

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        for name, estimator in self.estimators.items():
            self.maps[name], self.memories[name] = estimator.update(belief, injected, self.memories[name])
        return belief.x0, memory


def trace_ratio(ours: Tensor, exact: Tensor) -> float:
    return (ours.flatten(1).mean(1) / exact.flatten(1).mean(1)).median().item()


def likeness(ours: Tensor, exact: Tensor) -> float:
    pairs = zip(ours.flatten(1), exact.flatten(1), strict=True)
    return torch.stack([torch.stack(p).corrcoef()[0, 1] for p in pairs]).median().item()


@pytest.mark.parametrize(("task", "images"), [("inpaint70@0", 16), ("gaussian@0.05", 8)])
def test_e14_follows_the_exact_map_in_restorations(task: str, images: int) -> None:
    """0.1 < sigma < 3: median trace within 0.8 to 1.25, correlation over 0.7, above E10's at high noise."""
    found = watched_run(image_mixture(16), task, images, {"E10": RunningSecant(), "E14": PyramidSecant()})
    for sigma, exact, maps in found:
        ratio, alike = trace_ratio(maps["E14"], exact), likeness(maps["E14"], exact)
        assert 0.8 < ratio < 1.25, f"sigma {sigma:.2f}: trace ratio {ratio:.2f}"
        assert alike > 0.7, f"sigma {sigma:.2f}: correlation {alike:.2f}"
        assert sigma < 1.8 or alike > likeness(maps["E10"], exact) + 0.05, f"sigma {sigma:.2f}"
        assert (maps["E14"] > 0).all()


def test_e14_in_colour() -> None:
    """3 x 8 x 8 images, where little can be pooled: trace within 30 %, correlation over 0.6."""
    for sigma, exact, maps in watched_run(image_mixture(8, channels=3), "sr4@0", 10, {"E14": PyramidSecant()}):
        ratio, alike = trace_ratio(maps["E14"], exact), likeness(maps["E14"], exact)
        assert 0.7 < ratio < 1.3 and alike > 0.6, f"sigma {sigma:.2f}: {ratio:.2f}, {alike:.2f}"


def test_e14_takes_odd_sizes_and_single_precision() -> None:
    prior = Prior(lambda x_t, t, schedule: Prediction(x0=0.5 * x_t))
    for shape in ((2, 3, 7, 6), (1, 1, 9, 9), (1, 2, 2, 5), (2, 3, 1, 4)):
        memory: Tree = {}
        for t in (990, 700, 400, 50, 0):
            belief = prior(normal(*shape, seed=t).float(), torch.full((shape[0],), t))
            cov, memory = PyramidSecant().update(belief, None, memory)
            assert cov.shape == shape and cov.dtype == torch.float32 and torch.isfinite(cov).all() and (cov > 0).all()


def test_e14_on_the_loop_changes_nothing_of_the_host(mixture: GaussianMixture, samples: Tensor) -> None:
    problem = parse_task("inpaint70@0").measure(samples)
    plain = restore(problem, mixture.prior(), DDNM(), grid=10)
    same(restore(problem, mixture.prior(), DDNM(), grid=10, covariance=PyramidSecant()).image, plain.image, "host")


@pytest.mark.parametrize(
    "bad", [{"own": 1.1}, {"keep": -0.1}, {"keep_local": 2.0}, {"weight": 0.0}, {"variance": 0.0}], ids=str
)
def test_bad_settings_of_e14_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"\APyramidSecant: got [^\n]*\Z"):
        PyramidSecant(**bad)


# --- E15, and E10 where nothing is injected ------------------------------------------------------------------------

EITHER = RunningSecant(still=PyramidWiener())


def test_e15_by_hand() -> None:
    """Coefficients of the energy that a Wiener filter with prior variance l answers with: the map is s^2 l / (l + s^2)."""
    belief = belief_at(white(0.25).prior(), normal(2, 1, 8, 8), 300)
    sigma = belief.sigma[0].item()
    transform = analyse(torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)).flatten(1)  # row i: the transform of pixel i
    for prior in (0.01, 0.25, 1.0):
        size = prior / (prior + sigma**2) ** 0.5
        x0 = (transform @ (size * normal(2, 64).sign()).T).T.view(2, 1, 8, 8)
        close(wiener(analyse(x0), belief.sigma, 0.3), torch.full_like(x0, prior), f"l = {prior}", 1e-10)
        cov, memory = PyramidWiener().update(replace(belief, x0=x0), None, {})
        close(cov, torch.full_like(x0, sigma**2 * prior / (prior + sigma**2)), f"map for l = {prior}", 1e-10)
        assert memory == {}
    flat, _ = PyramidWiener().update(replace(belief, x0=torch.zeros_like(belief.x0)), None, {})
    close(flat, torch.full_like(flat, max(SLOPES[0] * sigma**2, 1e-3 * sigma**2 / (1 + sigma**2))), "an answer of zero")
    with pytest.raises(InputError, match=r"own: got 1\.5"):
        PyramidWiener(own=1.5)


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05"])
def test_the_running_map_inside_idpg(task: str) -> None:
    """IDPG injects nothing. 0.1 <= sigma <= 1: E15 in E10's place has the level within 0.7 to 1.3 and correlates above 0.7;
    E10 alone is a third too large at least, more than twice from sigma 0.3 up, and correlates below 0.2."""
    mixture, spec = image_mixture(16), parse_task(task)
    problem = spec.measure(mixture.sample(6, generator(3)))
    followers = Followers({"before": RunningSecant(), "after": EITHER})
    seen = []
    for state in trajectory(problem, mixture.prior(), host("idpg", spec.sigma), covariance=followers):
        if state.k[0].item() in {28, 12, 4}:
            seen.append((state.belief.sigma[0].item(), exact_map(mixture, state.belief), dict(followers.maps)))
    assert len(seen) == 3 and 0.9 < seen[0][0] < 1.2 and 0.1 < seen[-1][0] < 0.12
    for sigma, exact, maps in seen:
        before, after = ((trace_ratio(maps[name], exact), likeness(maps[name], exact)) for name in ("before", "after"))
        assert before[0] > (2 if sigma > 0.2 else 1.3) and before[1] < 0.2, f"sigma {sigma:.2f}, E10: {before}"
        assert 0.7 < after[0] < 1.3 and after[1] > 0.7, f"sigma {sigma:.2f}, with E15: {after}"


@pytest.mark.parametrize("name", ["ddnm", "ddrm", "ddpg", "projdiff", "diffpir", "pirp", "dps"])
@pytest.mark.parametrize("task", ["sr4@0", "sr4@0.05"])
def test_hosts_that_inject_noise_feel_nothing_of_e15(name: str, task: str, exact: Prior, samples: Tensor) -> None:
    """To the last bit: image, map, calls."""
    spec = parse_task(task)
    problem, sampler = spec.measure(samples[:2]), host(name, spec.sigma)
    ours, plain = (
        restore(problem, exact, sampler, grid=5, **leader(covariance=covariance)) for covariance in (EITHER, RunningSecant())
    )
    same(ours.image, plain.image, "image")
    same(ours.cov, plain.cov, "map")
    assert ours.times == plain.times


def test_e15_speaks_for_the_images_that_stood_still(exact: Prior, samples: Tensor) -> None:
    """Noise in images 0 and 3 of five; image 4 is new. None stands for no noise at all; at first there is no step to judge."""
    mixed, before, after = EITHER, belief_at(exact, samples, 300), belief_at(exact, samples, 200)
    first, memory = mixed.update(before, None, {})
    same(first, RunningSecant().update(before, None, {})[0], "first map")
    memory = {**memory, "valid": torch.tensor([True, True, True, True, False])}
    injected = normal(*samples.shape) * torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0]).view(-1, 1, 1, 1)
    secant, still = RunningSecant().update(after, injected, memory)[0], PyramidWiener().update(after, None, {})[0]
    cov, kept = mixed.update(after, injected, memory)
    same(cov[[0, 3, 4]], secant[[0, 3, 4]], "injected, and new")
    same(cov[[1, 2]], still[[1, 2]], "still")
    same(kept["cov"], cov, "what the next step starts from")
    same(mixed.update(after, None, memory)[0][:4], still[:4], "None")
    assert not torch.equal(secant[1], still[1])

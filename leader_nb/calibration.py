"""How honest are samples? Draws of a sampler against the exact posterior of a Gaussian mixture, and against the truth.

For each of M measurements there are S draws. Their mean should be the posterior's mean, their spread its spread, and the truth
should be as likely to lie anywhere among them as any one of them: its rank, pixel by pixel, is uniform on 0..S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.mixture import GaussianMixture
from leader_nb.noise import Noise
from leader_nb.operators import inpainting
from leader_nb.priors import Belief, Prediction, Prior
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, standard_normal
from leader_nb.samplers.dps import ancestral
from leader_nb.schedule import Schedule, uniform_grid
from leader_nb.tasks import Task
from leader_nb.tree import Tree

DETERMINED = 1e-9  # a variance below this, in [-1, 1] units squared, counts as none


@dataclass(frozen=True, eq=False)
class Exact:
    """What is true of M measurements of images of a mixture: the images behind them, and the posterior of each.

    truth, mean, variance  (M, C, H, W);  slots (M, C, H, W): posterior variance of each spectral slot of A
    seen (1 or M, C, H, W) bool: slots where the measurement outweighs the prior, s^2 times the prior's variance > sigma_y^2
    """

    mixture: GaussianMixture
    problem: Problem
    truth: Tensor
    posteriors: tuple[GaussianMixture, ...]
    mean: Tensor
    variance: Tensor
    slots: Tensor
    seen: Tensor

    @property
    def trace(self) -> Tensor:
        """Trace of the posterior covariance, (M,): the least mean squared error, summed over pixels."""
        return self.variance.flatten(1).sum(1)

    @property
    def open(self) -> Tensor:
        """Pixels that the measurement does not determine, (M, C, H, W) bool."""
        return self.variance > DETERMINED

    def repeated(self, count: int) -> Problem:
        """The problem with every measurement `count` times, for as many draws: (M count) rows, a measurement's together."""
        return self.problem.rows(torch.arange(len(self.problem)).repeat_interleave(count))

    def draws(self, count: int, seed: int = 0) -> Tensor:
        """`count` draws of each posterior, (M, count, C, H, W): what an honest sampler does."""
        generator = torch.Generator().manual_seed(seed)
        return torch.stack([posterior.sample(count, generator) for posterior in self.posteriors])


def pose(mixture: GaussianMixture, task: Task, count: int, seed: int = 0) -> Exact:
    """`count` images drawn from the mixture and measured, and everything that is true of them."""
    truth = mixture.sample(count, torch.Generator().manual_seed(seed))
    problem = task.measure(truth, seed=seed)
    posteriors = tuple(mixture.posterior(problem.rows(torch.tensor([i]))) for i in range(count))
    moments = [posterior.moments() for posterior in posteriors]
    mean = torch.stack([m for m, _ in moments]).view_as(truth)
    variance = torch.stack([c.diagonal() for _, c in moments]).view_as(truth)
    slots = torch.stack([slot_variance(problem.rows(torch.tensor([i])), c) for i, (_, c) in enumerate(moments)])
    s, before = problem.operator.s, slot_variance(problem, mixture.moments()[1])
    seen = (s > 0) & (s**2 * before > problem.noise_level**2)
    return Exact(mixture, problem, truth, posteriors, mean, variance, slots, seen)


def told(exact: Exact, count: int, drawn: torch.Generator | None = None) -> Prior:
    """A prior that has seen the measurements: E[x0 | x_t, y] for `count` draws of each, in the order of `Exact.repeated`.

    A diffusion with it samples the posteriors without a data step, so that only its steps are left to err. With a generator
    `drawn` it answers with a draw of p(x0 | x_t, y) instead of its mean: then reverse steps of any length are exact.
    """
    stack = [torch.stack([getattr(p, name) for p in exact.posteriors]) for name in ("log_weights", "means", "bases", "values")]
    log_weights, means, bases, values = stack  # (M, J), (M, J, N), (M, J, N, N), (M, J, N)

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        x = (x_t / schedule.abar(t, x_t).sqrt()).view(len(means), 1, count, -1)
        noise = schedule.sigma(t, x_t).view(len(means), 1, count, 1) ** 2
        total = values[:, :, None] + noise
        d = (x - means[:, :, None]) @ bases  # (M, J, count, N)
        rho = (log_weights[:, :, None] - 0.5 * (total.log() + d**2 / total).sum(3)).softmax(1)  # (M, J, count)
        d = values[:, :, None] / total * d
        if drawn is not None:
            z = torch.randn(d.shape, dtype=d.dtype, generator=drawn)
            d = d + (values[:, :, None] * noise / total).sqrt() * z
            which = torch.multinomial(rho.mT.flatten(0, 1), 1, generator=drawn).view(len(means), count)
            rho = torch.nn.functional.one_hot(which, rho.shape[1]).mT.to(d)
        mu = means[:, :, None] + d @ bases.mT
        return Prediction(x0=(rho[..., None] * mu).sum(1).view_as(x_t))

    return Prior(predict, name="told")


def blind(problem: Problem) -> Problem:
    """As many images, of which nothing was measured: for hosts with a prior that was :func:`told`."""
    shape, like = problem.operator.image_shape, problem.y
    nothing = inpainting(torch.zeros(1, 1, *shape[1:]), shape, like)
    return Problem(like.new_zeros(len(problem), *shape), nothing, torch.zeros(len(problem), dtype=torch.float64))


@dataclass(frozen=True)
class Ancestral:
    """The diffusion's own reverse step q(x_s | x_t, x0) (Ho et al. 2020), which knows nothing of a measurement."""

    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        mean, variance = ancestral(b, b.x0, s)
        return Step(b.x0, mean + variance.sqrt() * noise("step", b.x0), carry)


def slot_variance(problem: Problem, covariance: Tensor) -> Tensor:
    """The diagonal of V^T C V for a covariance C (N, N) of images, (C, H, W)."""
    values, basis = torch.linalg.eigh(covariance)
    factor = (basis * values.clamp(min=0).sqrt()).T.reshape(-1, *problem.operator.image_shape)
    return problem.operator.rows(torch.tensor([0])).Vt(factor).abs().square().sum(0)


def score(samples: Tensor, exact: Exact) -> dict[str, Tensor]:
    """What draws (M, S, C, H, W) are worth, one number for each measurement, (M,):

    bias2      |mean of draws - posterior mean|^2 / trace, less what S draws err by chance: 0 is right, below 0 is chance
    spread     trace of their covariance / trace of the posterior's: 1 is right
    seen       the same for spectral slots that were seen alone; NaN where the posterior has no variance there
    unseen     the same for the other slots; NaN where there are none
    coverage   share of pixels whose true value lies in the central 90 % of the draws: 0.9 is right
    kinds      distance in [0, 1] of the draws' shares of the mixture's components from the posterior's (total variation)
    crps       mean over pixels of E|x - truth| - E|x - x'| / 2: a proper score, the lower the better
    residual   root mean square of A x - y over the draws, in [-1, 1] units

    Pixels that the measurement determines count in none of spread, coverage and crps.
    """
    check_draws(samples, exact)
    spread = samples.var(1)
    chance = spread.flatten(1).sum(1) / samples.shape[1]
    return {
        "bias2": ((samples.mean(1) - exact.mean).square().flatten(1).sum(1) - chance) / exact.trace,
        "spread": masked_ratio(spread, exact.variance, exact.open),
        **slot_ratios(samples, exact),
        "coverage": covered(samples, exact),
        "kinds": kind_distance(samples, exact),
        "crps": crps(samples, exact),
        "residual": residual(samples, exact),
    }


def check_draws(samples: Tensor, exact: Exact) -> None:
    wanted = (len(exact.truth), *exact.truth.shape[1:])
    if samples.ndim != 5 or (len(samples), *samples.shape[2:]) != wanted or samples.shape[1] < 2:
        raise InputError(f"samples: got shape {tuple(samples.shape)}; give {wanted[:1]} x at least 2 draws x {wanted[1:]}")


def masked_ratio(found: Tensor, right: Tensor, mask: Tensor) -> Tensor:
    """Sum of `found` over sum of `right` where `mask` holds, image by image, (M,); NaN where nothing is right to find."""
    mask = mask.expand_as(right)
    below = (right * mask).flatten(1).sum(1)
    ratio = (found * mask).flatten(1).sum(1) / below
    return torch.where(below > DETERMINED, ratio, torch.nan)


def slot_ratios(samples: Tensor, exact: Exact) -> dict[str, Tensor]:
    """`seen` and `unseen` of :func:`score`."""
    count = samples.shape[1]
    apart = exact.repeated(count).operator.Vt((samples - samples.mean(1, keepdim=True)).flatten(0, 1))
    found = apart.abs().square().view(samples.shape).sum(1) / (count - 1)
    return {name: masked_ratio(found, exact.slots, m) for name, m in {"seen": exact.seen, "unseen": ~exact.seen}.items()}


def ranks(samples: Tensor, exact: Exact) -> Tensor:
    """How many of the S draws lie below the truth, (M, C, H, W), 0 to S: uniform for an honest sampler, at open pixels."""
    return (samples < exact.truth[:, None]).sum(1)


def covered(samples: Tensor, exact: Exact, level: float = 0.9) -> Tensor:
    """Share of the open pixels of each measurement whose truth ranks in the middle `level` of its draws, (M,).

    The middle leaves out a = (1 - level) (S + 1) / 2 ranks at either end: a whole number, or no interval has that level.
    """
    count = samples.shape[1]
    left = (1 - level) * (count + 1) / 2
    if abs(left - round(left)) > 1e-9 or round(left) < 1:
        raise InputError(f"samples: {count} draws have no interval of {level:g}; for 0.9 give 19, 39, 59, ... of them")
    rank, a = ranks(samples, exact), round(left)
    inside = (rank >= a) & (rank <= count - a)
    return torch.stack([hit[o].double().mean() for hit, o in zip(inside, exact.open, strict=True)])


def kind_distance(samples: Tensor, exact: Exact) -> Tensor:
    """`kinds` of :func:`score`: half the sum of |share among the draws - weight in the posterior| over components."""
    shares = exact.mixture.shares(samples.flatten(0, 1)).view(*samples.shape[:2], -1).mean(1)
    weights = torch.stack([p.log_weights.exp() for p in exact.posteriors])
    return (shares - weights).abs().sum(1) / 2


def crps(samples: Tensor, exact: Exact) -> Tensor:
    """The continuous ranked probability score of the draws at open pixels, without the bias of a finite S, (M,)."""
    count = samples.shape[1]
    place = 2 * torch.arange(1, count + 1, dtype=samples.dtype) - count - 1
    among = torch.einsum("s,mschw->mchw", place, samples.sort(1).values) * 2 / (count * (count - 1))  # E|x - x'|
    each = (samples - exact.truth[:, None]).abs().mean(1) - among / 2
    return torch.stack([c[o].mean() for c, o in zip(each, exact.open, strict=True)])


def residual(samples: Tensor, exact: Exact) -> Tensor:
    """`residual` of :func:`score`."""
    each = exact.repeated(samples.shape[1]).residual(samples.flatten(0, 1)).view(samples.shape[:2])
    return each.square().mean(1).sqrt()

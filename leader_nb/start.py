"""Where to begin: the noise level above which a walk decides little that the measurement has not decided already.

The noisy steps of a walk settle the directions of x0 in which it is still open. Let Cov(x0 | y) have eigenvalues l, and begin
at noise level sigma with the posterior mean plus noise. For a Gaussian the walk multiplies the deviation along each
eigenvector by sqrt(l / (l + sigma^2)), so that it ends with the variance

    l sigma^2 / (l + sigma^2),    short of l by the share    l / (l + sigma^2).

The share is largest for the widest direction, l_max. A start that may lose no more than a given `share` of any of them is

    sigma*^2 = l_max (1 - share) / share.

Cov(x0 | y) follows from A and sigma_y under a Gaussian model of photographs, :class:`PowerSpectrum`, and is the
same for every y; the posterior mean is linear in y (:func:`posterior_mean`). No network is asked for either.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.operators import Operator
from leader_nb.operators.pixelwise import COLOUR_AXES
from leader_nb.priors import Prior
from leader_nb.problem import Problem
from leader_nb.schedule import spread
from leader_nb.steps import LateStart, StepRule, Uniform, after_start, check_then
from leader_nb.tree import Tree

FLOOR = 0.05  # measurements count as no better than this, in [-1, 1] units: a fortieth of the range of pixels


@dataclass(frozen=True)
class PowerSpectrum:
    """Photographs as a stationary Gaussian: along each colour axis, power N b k^-p at each of the N frequencies.

    k is in cycles per picture, 1/2 for the mean, so that (b, p) do not depend on the number of pixels. Axes: grey, red
    against green, yellow against blue; of an image with one channel, grey. The defaults are those of 80 training
    photographs at 64 x 64 (:func:`measure_spectrum`), in squares of [-1, 1] units.
    """

    grey: tuple[float, float] = (0.03478, 2.449)
    red_green: tuple[float, float] = (0.00276, 2.824)
    yellow_blue: tuple[float, float] = (0.00649, 2.84)

    def powers(self, shape: tuple[int, int, int]) -> Tensor:
        """Eigenvalues of Cov(x0) for (C, H, W) images, (1, C, H, W) float64."""
        axes = {1: (self.grey,), 3: (self.grey, self.red_green, self.yellow_blue)}.get(shape[0])
        if axes is None:
            raise InputError(f"shape: got {shape[0]} channels; the model of photographs knows 1 and 3")
        k = frequencies(shape[1], shape[2])
        return torch.stack([shape[1] * shape[2] * b * k**-p for b, p in axes])[None]


def frequencies(height: int, width: int) -> Tensor:
    """k in cycles per picture at each place of a two-dimensional Fourier transform, 1/2 at the mean, (H, W) float64."""
    fy, fx = (torch.fft.fftfreq(n, dtype=torch.float64) for n in (height, width))
    k = (fy[:, None].square() + fx.square()).sqrt() * (height * width) ** 0.5
    k[0, 0] = 0.5
    return k


def spectral(x: Tensor, powers: Tensor) -> Tensor:
    """The matrix with eigenvalues `powers` (1, C, H, W) on colour axes and frequencies, times x (B, C, H, W).

    One colour axis at a time, so that the complex numbers of one are all that is held.
    """
    axes = torch.tensor(COLOUR_AXES, dtype=torch.float64).to(x) if x.shape[1] == 3 else torch.eye(x.shape[1]).to(x)
    c = (axes.T @ x.flatten(2)).view_as(x)
    for plane, power in zip(c.unbind(1), powers.unbind(1), strict=True):
        plane.copy_(torch.fft.ifft2(torch.fft.fft2(plane).mul_(power)).real)
    return (axes @ c.flatten(2)).view_as(x)


def measure_spectrum(images: Tensor) -> PowerSpectrum:
    """(b, p) by least squares of log power on log k, octave by octave; images (B, 3, H, W), never the ones to be judged on."""
    if images.ndim != 4 or images.shape[1] != 3 or min(images.shape[-2:]) < 8:
        raise InputError(f"images: got shape {tuple(images.shape)}; give (B, 3, H, W) of at least 8 pixels a side")
    axes = torch.einsum("ji,bjhw->bihw", torch.tensor(COLOUR_AXES, dtype=torch.float64), images.double().cpu())
    power = torch.fft.fft2(axes - axes.mean((0, 2, 3), keepdim=True), norm="ortho").abs().square().mean(0)
    k = frequencies(*images.shape[-2:])
    octave = k.log2().ceil()
    inside = [octave == o for o in octave.unique() if o < octave.max()]  # the last holds only the corners
    x = torch.stack([k[part].log().mean() for part in inside])
    fits = []
    for plane in power / k.numel():
        y = torch.stack([plane[part].mean().log() for part in inside])
        p = -((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
        fits.append((round((y.mean() + p * x.mean()).exp().item(), 5), round(p.item(), 3)))
    return PowerSpectrum(*fits)


def widest(operator: Operator, sigma_y: float, powers: Tensor, rounds: int = 100, accuracy: float = 0.03) -> float:
    """l_max, the largest eigenvalue of Cov(x0 | y), from below; for the first image of the operator.

    Its inverse is the least <v, Q v> / <v, v> of Q = C^-1 + A^T A / sigma_y^2, C with the eigenvalues `powers` (1, C, H, W).
    Locally optimal conjugate gradients (Knyazev 2001) from a draw of C in the null space, where there is one. Two directions
    are searched at a time: the residual preconditioned with Q for a constant A^T A, good for masks and blurs, and with C
    inside the null space, good where that is wide. Ends when eight rounds gain less than `accuracy`; a round takes a dozen
    Fourier transforms at most, three A and three A^T. No network call; nine float64 image buffers.
    """
    A = operator.rows(torch.tensor([0]))
    powers, blind = powers.to(A.s.device), bool((A.s == 0).any())
    precision, similar = inverse_covariance(A, sigma_y, powers)

    def unseen(v: Tensor) -> Tensor:
        return A.null(v.to(A.s.dtype)).double()

    def searches(r: Tensor) -> list[Tensor]:
        return [spectral(r, similar), *([unseen(spectral(unseen(r), powers))] if blind else [])]

    def first() -> list[Tensor]:
        draw = torch.randn(A.image_shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        v = spectral(draw[None].to(powers), powers)
        return [unseen(v) if blind else v]

    return 1 / least(precision, searches, first(), rounds, accuracy)


def inverse_covariance(A: Operator, sigma_y: float, powers: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """(Q, M) for one image: v -> Q v, Q = C^-1 + A^T A / sigma_y^2 the inverse of Cov(x0 | y), and the eigenvalues of M.

    M is the inverse of Q for a constant A^T A of the same mean: a preconditioner, exact for denoising.
    """
    noise = max(sigma_y, FLOOR) ** 2
    gain = A.s.double().square().expand(1, *A.image_shape).mean()

    def precision(v: Tensor) -> Tensor:
        seen = A.T(A(v.to(A.s.dtype)))
        return spectral(v, 1 / powers).add_(seen, alpha=1 / noise)

    return precision, 1 / (1 / powers + gain / noise)


def least(
    Q: Callable[[Tensor], Tensor], searches: Callable[[Tensor], list[Tensor]], basis: list[Tensor], rounds: int, accuracy: float
) -> float:
    """The smallest eigenvalue of Q, from above: the best of span(v, last move, searches of the residual), round after round.

    `basis` is [v] at first, changed in place, and holds four vectors at most; of Q only their inner products are kept.
    """
    basis[0] /= basis[0].norm()
    bends, found = inner([Q(basis[0])], basis), []
    for _ in range(rounds):
        value, weights = lowest(inner(basis, basis), bends)
        found.append(value)
        if len(found) > 8 and found[-9] < (1 + accuracy) * found[-1]:
            break
        bends = move(basis, weights, bends)
        known = len(basis)
        basis += [d.div_(d.norm()) for d in searches(Q(basis[0]).sub_(basis[0], alpha=value)) if d.norm() > 0]
        if len(basis) == known:
            break
        rows = torch.cat([inner([Q(d)], basis) for d in basis[known:]])
        bends = torch.cat([torch.cat([bends, rows[:, :known].T], 1), rows])
    return found[-1]


def inner(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """<a, b> for all a of `left` and b of `right`."""
    return torch.stack([torch.stack([a.flatten() @ b.flatten() for b in right]) for a in left])


def lowest(lengths: Tensor, bends: Tensor) -> tuple[float, Tensor]:
    """The least w^T bends w / w^T lengths w, and its w; directions that have become parallel count once."""
    values, turn = torch.linalg.eigh(lengths)
    good = values > 1e-10 * values[-1]
    root = turn[:, good] / values[good].sqrt()
    values, vectors = torch.linalg.eigh(root.T @ bends @ root)
    return values[0].item(), root @ vectors[:, 0]


def move(basis: list[Tensor], weights: Tensor, bends: Tensor) -> Tensor:
    """`basis` becomes [v, step], v = sum w_i b_i and step its part without b_0, of length 1; returns their `bends`."""
    (first, *others), turn = weights.tolist(), weights[:, None]
    basis[0] *= first
    if others:
        for b, w in zip(basis[1:], others, strict=True):
            b *= w
        step = basis[1]
        for b in basis[2:]:
            step += b
        basis[0] += step
        if (length := step.norm()) > 0:
            step /= length
            turn = torch.stack([weights, torch.cat([weights.new_zeros(1), weights[1:] / length])], 1)
    del basis[turn.shape[1] :]
    return turn.T @ bends @ turn


def posterior_mean(problem: Problem, powers: Tensor, rounds: int = 1000, accuracy: float = 1e-4) -> Tensor:
    """E(x0 | y) under N(0, C), C with the eigenvalues `powers` (1, C, H, W): the x of Q x = A^T y / sigma_y^2.

    By conjugate gradients with the preconditioner of :func:`inverse_covariance`, image by image, until the residual is a share
    `accuracy` of the right side, both measured with it; warns where `rounds` end before. Sees FLOOR where sigma_y is less.
    (B, C, H, W) in the operator's dtype. A round takes an A, an A^T and four Fourier transforms; a few dozen rounds do.
    """
    images = [problem.rows(torch.tensor([i])) for i in range(len(problem))]
    return torch.cat([_mean(one, powers.to(problem.y.device), rounds, accuracy) for one in images])


def _mean(problem: Problem, powers: Tensor, rounds: int, accuracy: float) -> Tensor:
    """The same of one image."""
    A, sigma_y = problem.operator, problem.sigma_y.item()
    precision, similar = inverse_covariance(A, sigma_y, powers)
    residual = A.T(problem.y).double().div_(max(sigma_y, FLOOR) ** 2)
    x, direction = torch.zeros_like(residual), spectral(residual, similar)
    power = residual.flatten() @ direction.flatten()
    enough = accuracy**2 * power
    for _ in range(rounds):
        if power <= enough:
            break
        bent = precision(direction)
        length = (power / (direction.flatten() @ bent.flatten())).item()
        x.add_(direction, alpha=length)
        residual.sub_(bent, alpha=length)
        del bent
        better = spectral(residual, similar)
        before, power = power, residual.flatten() @ better.flatten()
        direction.mul_(power / before).add_(better)
    if power > enough:
        missing = (power / enough).sqrt().item()
        warnings.warn(
            f"the mean of the start is {missing:.0f} times less accurate than asked for after {rounds} rounds", stacklevel=2
        )
    return x.to(A.s.dtype)


@dataclass(frozen=True)
class GaussianMean:
    """The mean that a :class:`MeasuredStart` begins with, as a restoration of its own: no network call, no noise.

    The control of every start: a walk is worth its calls where it ends nearer to the photograph than it began.
    """

    spectrum: PowerSpectrum = field(default_factory=PowerSpectrum)
    needs_gradient: ClassVar[bool] = False

    def __call__(self, problem: Problem) -> Tensor:
        return posterior_mean(problem, self.spectrum.powers(problem.operator.image_shape))


@dataclass(frozen=True)
class MeasuredStart:
    """A step rule that begins each image where its measurement allows: at sigma*, with the posterior mean plus noise.

    Both under the Gaussian model of photographs, `spectrum`. `share` of its variance is what the widest direction left open
    by the measurement may lose; `then` takes the steps from there on, one position at a time unless told otherwise. Costs no
    network call; images that share A and sigma_y share the search for sigma*, which takes as long as a few calls of a small
    network for an image of 64 x 64 pixels.
    """

    share: float = 0.2
    then: StepRule = field(default_factory=Uniform)
    spectrum: PowerSpectrum = field(default_factory=PowerSpectrum)

    def __post_init__(self) -> None:
        check_then(self.then)
        if not 0 < self.share < 1:
            raise InputError(f"share: got {self.share}; give a number between 0 and 1, the share of variance that may be lost")

    @property
    def needs_map(self) -> bool:
        return self.then.needs_map

    def for_problem(self, problem: Problem) -> LateStart:
        """The rule with the mean and the noise level of each image of `problem`."""
        powers = self.spectrum.powers(problem.operator.image_shape)
        known: dict[tuple[float, int], float] = {}
        levels = []
        for i, sigma_y in enumerate(problem.sigma_y.tolist()):
            alike = all(getattr(problem.operator, name).shape[0] == 1 for name in problem.operator.batched)
            key = (sigma_y, -1 if alike else i)
            if key not in known:
                known[key] = widest(problem.operator.rows(torch.tensor([i])), sigma_y, powers)
            levels.append((known[key] * (1 - self.share) / self.share) ** 0.5)
        return LateStart(posterior_mean(problem, powers), torch.tensor(levels, dtype=torch.float64), self.then)

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        raise InputError("steps: a MeasuredStart has to see the measurement first; call its for_problem(problem)")

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        return after_start(self.then, k, cov, memo)


def start_within(
    prior: Prior, steps: int, then: StepRule | None = None, share: float = 0.2, spectrum: PowerSpectrum | None = None
) -> dict[str, Any]:
    """`grid` and `steps` of :func:`leader_nb.restore`, for a prior that does not take every noise level:

        restore(problem, prior, host, **start_within(prior, 20))

    The grid has `steps` raw times, from the highest that the prior takes to its lowest. A host begins at the first of them
    whose noise is no higher than :class:`MeasuredStart` asks for: where the range ends below that, at its top, with the
    posterior mean plus as much noise as belongs there. `then`, with LEADer: `**leader() | start_within(prior, 20, then=rule)`.
    """
    times = range(prior.schedule.length) if prior.times is None else prior.times
    return {"grid": spread(steps, times), "steps": MeasuredStart(share, then or Uniform(), spectrum or PowerSpectrum())}


def measured_start(
    problem: Problem, share: float = 0.2, then: StepRule | None = None, spectrum: PowerSpectrum | None = None
) -> LateStart:
    """The :class:`MeasuredStart` of one problem, whose `sigma` and `mean` can be looked at."""
    return MeasuredStart(share, then or Uniform(), spectrum or PowerSpectrum()).for_problem(problem)

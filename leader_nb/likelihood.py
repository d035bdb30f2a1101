"""The uncertainty map inside the likelihood: a data step that moves each pixel as far as the prior is unsure of it.

Ours, not the paper's (its Eq. 20 projects orthogonally). It is the place where the *shape* of the map matters by construction:
on a noise-free measurement a constant map gives the orthogonal projection, that is the host itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import image_by_image

Modulate = Callable[[Belief, Tensor, Problem], Belief]


@dataclass(frozen=True)
class MapLikelihood:
    """x0 <- x0 + W A^T (A W A^T + sigma_y^2 I)^-1 (y - A x0), the mean of N(x0, W) given y, with W = diag(cov^power).

    Solved by `iterations` of conjugate gradients, preconditioned with the same system for the mean of W, which a spectrum
    inverts at once: a constant map needs one. `power` below 1 trusts the map's shape less; W keeps the mean of cov. Costs no
    network call and about six image buffers. The host's own data step follows and settles what is left of the residual.
    """

    power: float = 1.0
    iterations: int = 5

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise InputError(f"iterations: got {self.iterations}; give at least 1")
        if not 0 <= self.power <= 2:
            raise InputError(f"power: got {self.power}; give 0 (a constant map) to 2")

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        w = scaled(cov, self.power)
        return replace(belief, x0=belief.x0 + w * problem.operator.T(self._solve(belief.x0, w, problem)))

    def _solve(self, x0: Tensor, w: Tensor, problem: Problem) -> Tensor:
        """u with (A W A^T + sigma_y^2 I) u = y - A x0, measurement-shaped."""
        A, noise = problem.operator, problem.noise_level**2
        gain = A.s**2 * means(w) + noise
        inverse = torch.where(A.s > 0, 1 / torch.where(A.s > 0, gain, 1.0), 0.0)
        residual = problem.y - A(x0)
        u = torch.zeros_like(residual)
        z = direction = A.U(inverse * A.Ut(residual))
        power = dots(residual, z)
        for _ in range(self.iterations):
            image = A(w * A.T(direction)) + noise * direction
            length = ratio(power, dots(direction, image))
            u, residual = u + length * direction, residual - length * image
            z = A.U(inverse * A.Ut(residual))
            power, before = dots(residual, z), power
            direction = z + ratio(power, before) * direction
        return u


@dataclass(frozen=True)
class Chain:
    """Several modulations, one after the other; each sees the same map."""

    parts: tuple[Modulate, ...]

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        for part in self.parts:
            belief = part(belief, cov, problem)
        return belief


def scaled(cov: Tensor, power: float) -> Tensor:
    """cov^power, scaled to the mean of cov, image by image."""
    shaped = image_by_image(lambda c: c**power, cov)
    return shaped * (means(cov) / means(shaped))


def means(x: Tensor) -> Tensor:
    """(B, 1, 1, 1), summed image by image so that an image's result never depends on its batch."""
    return torch.stack([image.mean() for image in x]).view(-1, 1, 1, 1)


def dots(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of each image, (B, 1, 1, 1)."""
    return torch.stack([(p * q).sum() for p, q in zip(a, b, strict=True)]).view(-1, 1, 1, 1)


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """a / b, zero where b is not above zero: a system already solved takes no step."""
    return torch.where(b > 0, a / torch.where(b > 0, b, 1.0), 0.0)

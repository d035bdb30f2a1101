"""DPS: diffusion posterior sampling (Chung, Kim, McCann, Klasky & Ye, ICLR 2023), for every operator, noisy or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.errors import unknown
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_not_negative, image_by_image, standard_normal
from leader_nb.schedule import fractional_grid
from leader_nb.tree import Tree

VARIANTS = ("correct", "scaled")
REFERENCE = 3 * 256 * 256  # the image on which the published scales were found


@dataclass(frozen=True)
class DPS:
    """Walk down the prior's own chain, pulled to the data along the gradient of its distance, taken through the network:

        x_s = c_0 x0 + c_x x_t + sqrt(v) z - zeta grad_{x_t} ||y - A x0||,      x0 clipped to [-1, 1]

        alpha = abar / abar_s,  beta = 1 - alpha,   c_0 = sqrt(abar_s) beta / (1 - abar),
        v = beta (1 - abar_s) / (1 - abar),         c_x = sqrt(alpha) (1 - abar_s) / (1 - abar)

    A network with a variance head gives v = beta^f v^(1 - f) instead, f = (head + 1) / 2. The norm is each image's own, and
    not squared, so zeta = `scale` is the length of the pull. The published scales are for 1000 steps and 256 x 256 pixels, and
    suit no other number of either. `variant="scaled"`, beyond the paper and what `host("dps", ...)` is, counts `scale` for one
    raw time of a 3 x 256 x 256 image: zeta = scale (t - s) sqrt(C H W / (3 * 256^2)) keeps the pull of a whole run per
    pixel, whatever the number of steps, the skips and the size. 0.6 is the published 0.3 for noise that is doubled, as ours is.
    A plug-in that modulates x0 moves the residual; the gradient is still the raw x0's: J^T A^T r / ||r||, J = d x0 / d x_t.
    x0y is the clipped x0, before the pull. One backward pass a step. The paper's zeta' is scale / 2.
    """

    scale: float = 0.6
    variant: str = "correct"
    clip: bool = True
    needs_gradient: ClassVar[bool] = True
    default_steps = staticmethod(fractional_grid)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        check_not_negative("scale", self.scale, "the length of the pull (published: 0.3 to 1)")

    @property
    def falls(self) -> bool:
        return True  # the prior's own chain has a negative variance on the way up

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        x0 = b.x0.clamp(-1, 1) if self.clip else b.x0
        mean, variance = ancestral(b, x0, s)
        injected = noise("step", x0).mul_(variance.sqrt())
        x = mean.add_(injected)
        x -= self.zeta(b, s) * self.slope(b, x0, problem)
        return Step(x0, x, carry, injected)

    def zeta(self, b: Belief, s: Tensor) -> Tensor:
        """The length of the pull, (B, 1, 1, 1)."""
        span = (b.t.to(s) - s).to(b.x0).view(-1, 1, 1, 1)
        size = (b.x0[0].numel() / REFERENCE) ** 0.5
        return self.scale * (span * size if self.variant == "scaled" else torch.ones_like(span))

    def slope(self, b: Belief, x0: Tensor, problem: Problem) -> Tensor:
        """grad_{x_t} ||y - A x0||, (B, C, H, W); zero where x0 agrees with the data or is clipped."""
        A = problem.operator
        r = A.on_measured(A(x0) - problem.y)
        length = image_by_image(torch.linalg.vector_norm, r).view(-1, 1, 1, 1)
        kept = x0.clone().eq_(b.x0)  # 1, or 0 where clipped, in the dtype of x0: to convert a comparison takes longer
        pull = A.T(r)
        pull /= torch.where(length > 0, length, 1.0)
        pull *= kept
        return b.vjp(pull)


def ancestral(b: Belief, x0: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (B, C, H, W) and variance of q(x_s | x_t, x0), the variance as the network learned it if it did; 0 at s = -1."""
    abar_s = b.schedule.abar(s, x0)
    alpha = b.abar / abar_s
    share = (1 - abar_s) / (1 - b.abar)
    variance = (1 - alpha) * share
    if b.variance is not None:
        least = torch.finfo(x0.dtype).tiny
        low, high = variance.clamp(min=least), (1 - alpha).clamp(min=least)
        learned = image_by_image(lambda v, low, high: high ** ((v + 1) / 2) * low ** ((1 - v) / 2), b.variance, low, high)
        variance = torch.where(variance > 0, learned, 0.0)
    mean = abar_s.sqrt() * (1 - alpha) / (1 - b.abar) * x0
    mean += alpha.sqrt() * share * b.x_t
    return mean, variance

"""DiffPIR: denoising diffusion models for plug-and-play image restoration (Zhu et al., NTIRE 2023), for every operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.equations import diffuse
from leader_nb.errors import unknown
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_positive, check_share, renoised, standard_normal
from leader_nb.schedule import Schedule, quadratic_grid
from leader_nb.tree import Tree

VARIANTS = ("correct", "released")
LEAST_NOISE = 2e-3  # sigma_y below this counts as this, in [-1, 1] units; it keeps rho above 0


@dataclass(frozen=True)
class DiffPIR:
    """Alternate the prior with a proximal step to the data, and add back part of the noise that the answer implies:

        x0y = argmin_x ||y - A x||^2 + rho ||x - x0||^2,    rho = lam sigma_y^2 / (4 sigma_bar^2),    x0 clipped to [-1, 1]
        eps = (x_t - sqrt(abar) x0y) / sqrt(1 - abar)
        x_s = sqrt(abar_s) x0y + sqrt(1 - abar_s) (sqrt(1 - zeta) eps + sqrt(zeta) z)

    The 4 is there because `lam` was published for sigma on [0, 1] beside sigma_bar on [-1, 1]. The result is the last x0y.
    `variant="released"` begins at the measurement, enlarged and noised to t = 999, and leaves out the last step: it returns x
    at the grid's last time, with its noise, and the last network call is in vain.
    """

    lam: float = 7.0
    zeta: float = 0.3
    variant: str = "correct"
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(quadratic_grid)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        check_positive("lam", self.lam, "the weight of the prior (published: 3 to 25)")
        check_share("zeta", self.zeta, "the share of fresh noise")

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        z, carry = standard_normal(problem, noise), {"seen": problem.operator.read(problem.y)}
        if self.variant == "correct":
            return z, carry
        return diffuse(enlarged(problem), z, Schedule().abar(torch.tensor([999]), z)), carry

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        abar_s = b.schedule.abar(s, b.x0)
        x0y = problem.operator.towards(b.x0.clamp(-1, 1), carry["seen"], self.rho(b, problem))
        x, injected = renoised(b, x0y, abar_s, noise, self.zeta)
        return Step(x0y, torch.where(abar_s == 1, b.x_t, x) if self.variant == "released" else x, carry, injected)

    def rho(self, b: Belief, problem: Problem) -> Tensor:
        """The weight of the prior against the data, (B, 1, 1, 1)."""
        return self.lam / 4 * (problem.noise_level.clamp(min=LEAST_NOISE) / b.sigma) ** 2


def enlarged(problem: Problem) -> Tensor:
    """y in the shape of the image, by bicubic interpolation; a grey one is repeated for each channel."""
    channels, height, width = problem.operator.image_shape
    y = problem.y
    if y.shape[2:] != (height, width):
        y = F.interpolate(y, (height, width), mode="bicubic", align_corners=False)
    return y if y.shape[1] == channels else y.mean(1, keepdim=True).expand(-1, channels, -1, -1)

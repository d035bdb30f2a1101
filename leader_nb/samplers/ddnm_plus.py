"""DDNM+: DDNM for noisy measurements (Wang, Yu & Zhang, ICLR 2023, Sec. 3.3), for every operator with a spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.errors import unknown
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_share, standard_normal
from leader_nb.schedule import uniform_grid
from leader_nb.tree import Tree

VARIANTS = ("correct", "released")


@dataclass(frozen=True)
class DDNMPlus:
    """Per spectral slot, correct as far as the measurement's noise allows, and add only the noise that is missing:

        x0y = x0 + V lambda V^T A^+ (y - A x0)
        x_s = a x0y + V (d1 V^T z + d2 V^T eps),      a = sqrt(abar_s),  sigma_s = sqrt(1 - abar_s),  r = a sigma_y / s_i

        sigma_s >= r       lambda = 1                                d1 = sqrt(sigma_s^2 - r^2)    d2 = 0
        sigma_s <  r       lambda = sigma_s sqrt(1 - eta^2) / r      d1 = eta sigma_s              d2 = 0
        s_i = 0            (no data)                                 d1 = eta sigma_s              d2 = sqrt(1 - eta^2) sigma_s

    The same step as DDRM with eta_b = 1. Where sigma_y > 0, the last step leaves x0 uncorrected. `variant="released"` adds
    d2 eps without first taking V^T eps, as the published code does for all operators but denoising and inpainting.
    """

    eta_ddim: float = 0.85
    variant: str = "correct"
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        check_share("eta_ddim", self.eta_ddim, "the share of fresh noise")

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {"seen": problem.operator.read(problem.y)}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        A, abar_s = problem.operator, b.schedule.abar(s, b.x0)
        keep, fresh, old = self._weights(A.s, problem.noise_level, abar_s)
        x0y = A.corrected(b.x0, carry["seen"], keep * A.gain())
        injected = A.weighted(noise("step", b.x0), fresh)
        rest = A.V(old * b.eps.to(A.Vt(b.eps).dtype)) if self.variant == "released" else A.weighted(b.eps, old)
        return Step(x0y, abar_s.sqrt() * x0y + injected + rest, carry, injected)

    def _weights(self, s: Tensor, sigma_y: Tensor, abar_s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(lambda, d1, d2) per slot."""
        spread = (1 - abar_s).sqrt()
        r = torch.where(s > 0, abar_s.sqrt() * sigma_y / torch.where(s > 0, s, 1.0), torch.zeros_like(s))
        trust = spread >= r
        calm = (1 - self.eta_ddim**2) ** 0.5
        keep = torch.where(trust & (spread > 0), 1.0, spread * calm / torch.where(r > 0, r, 1.0))
        keep = torch.where((spread == 0) & (sigma_y == 0), torch.ones_like(keep), keep)
        fresh = torch.where((s > 0) & trust, (spread**2 - r**2).clamp(min=0).sqrt(), self.eta_ddim * spread)
        return keep, fresh, torch.where(s > 0, 0.0, calm * spread)

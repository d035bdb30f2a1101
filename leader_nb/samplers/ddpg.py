"""DDPG: denoising diffusion with preconditioned guidance (Garber & Tirer, CVPR 2024), for every operator, noisy or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.errors import InputError, kind_of
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_share, renoised, standard_normal
from leader_nb.samplers.idpg import check_guidance, guidance, traversal, unguided
from leader_nb.schedule import uniform_grid
from leader_nb.tree import Tree

MODES = (None, 0, 1, 2)


@dataclass(frozen=True)
class DDPG:
    """IDPG's guidance with a step size, and a share zeta of fresh noise beside the noise that x0y implies:

        x0y = x0 + mu_bp (1 - delta) A^T (A A^T + ridge' I)^-1 (y - A x0) + mu_ls delta scale A^T (y - A x0)
        eps = (x_t - sqrt(abar) x0y) / sqrt(1 - abar)
        x_s = sqrt(abar_s) x0y + sqrt(1 - abar_s) (sqrt(zeta) z + sqrt(1 - zeta) w eps),    w = 1 if sigma_y = 0 else delta

    delta and ridge' as in :class:`IDPG`. With m = (1 - abar_s) / (1 - abar), `mode` says what the steps (mu_bp, mu_ls) are:
    0: (1, 1);  1: (m, m);  2: (1, m);  None: 0 without noise, 1 with noise, as the released scripts have it.
    Where sigma_y > 0, w keeps noise out of early steps on purpose, and the last step leaves x0 as it is.
    """

    gamma: float = 8.0
    zeta: float = 0.5
    ridge: float = 0.7
    mode: int | None = None
    scale: float = 1.0
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        check_guidance(self.gamma, self.ridge, self.scale)
        check_share("zeta", self.zeta, "the share of fresh noise")
        if self.mode not in MODES:
            raise InputError(f"mode: got {kind_of(self.mode)}; give 0, 1, 2 or None, the step sizes")

    @property
    def falls(self) -> bool:
        return self.mode != 0  # m is a step size, and above 1 on the way up

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        abar_s = b.schedule.abar(s, b.x0)
        back_projection, least_squares = guidance(b.x0, problem, self.ridge)
        delta, (mu_bp, mu_ls) = traversal(abar_s, problem, self.gamma), self._steps(b, abar_s, problem)
        x0y = b.x0 + mu_bp * (1 - delta) * back_projection + mu_ls * delta * self.scale * least_squares
        x0y = torch.where(unguided(abar_s, problem), b.x0, x0y)
        w = torch.where(problem.noise_level > 0, delta, 1.0)
        x, injected = renoised(b, x0y, abar_s, noise, self.zeta, w)
        return Step(x0y, x, carry, injected)

    def _steps(self, b: Belief, abar_s: Tensor, problem: Problem) -> tuple[Tensor, Tensor]:
        """(mu_bp, mu_ls), (B, 1, 1, 1) each."""
        m, one = (1 - abar_s) / (1 - b.abar), torch.ones_like(abar_s)
        if self.mode is None:
            m = torch.where(problem.noise_level > 0, m, one)
        return one if self.mode in (0, 2) else m, one if self.mode == 0 else m

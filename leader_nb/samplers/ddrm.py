"""DDRM: denoising diffusion restoration models (Kawar, Elad, Ermon & Song, NeurIPS 2022), noisy or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.errors import unknown
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_share, check_whole, standard_normal
from leader_nb.schedule import Schedule, uniform_grid
from leader_nb.tree import Tree

VARIANTS = ("correct", "released")


@dataclass(frozen=True)
class DDRM:
    """Diffuse each spectral slot from what was measured there, as soon as x is noisier than the measurement:

        x_s = a V (mean + spread z),   a = sqrt(abar_s),   sigma = sigma_bar(s),   u = V^T x0,   ybar = U^T y / s_i

        sigma >= sigma_y / s_i    (1 - eta_b) u + eta_b ybar                           sqrt(sigma^2 - (eta_b sigma_y / s_i)^2)
        sigma <  sigma_y / s_i    u + sqrt(1 - eta^2) sigma (ybar - u) s_i / sigma_y   eta sigma
        s_i = 0                   u + sqrt(1 - eta^2) sigma V^T eps                    eta sigma

    x0y is V of the mean without eps. The first state is drawn likewise, around ybar, at raw time `start`, and scaled to
    unit variance. With eta_b = 1 each step is one of DDNM+. `variant="released"`: the first rule asks for >, so that a
    noise-free run ends on x0, off the data; and a slot that was measured with s_i = 0 follows the second rule.
    Why `start` stands here: `init` alone needs a noise level, that of x_T, and it sees neither grid nor prior. A grid that
    begins elsewhere, or a prior on other betas, wants the time of its first level on the published table.
    """

    eta_ddim: float = 0.85
    eta_b: float = 1.0
    start: int = 990
    variant: str = "correct"
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        check_share("eta_ddim", self.eta_ddim, "the share of fresh noise")
        check_share("eta_b", self.eta_b, "how far a slot that is trusted moves to its measurement")
        check_whole("start", self.start, 0, Schedule().length - 1, "the raw time of the first state")

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        A, z = problem.operator, standard_normal(problem, noise)
        sigma, r = Schedule().sigma(torch.tensor([self.start]), z), problem.noise_level * A.gain()
        trust, seen = (A.s > 0) & (sigma >= r), A.read(problem.y)
        spread = torch.where(trust, (sigma**2 - r**2).clamp(min=0).sqrt(), sigma)
        mean = A.corrected(torch.zeros_like(z), seen, torch.where(trust, A.gain(), 0.0))
        return (mean + A.weighted(z, spread)) / sigma, {"seen": seen}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        A, a, sigma = problem.operator, b.schedule.abar(s, b.x0).sqrt(), b.schedule.sigma(s, b.x0)
        pull, kept, spread = self._weights(problem, sigma)
        x0y = A.corrected(b.x0, carry["seen"], pull)
        injected = a * A.weighted(noise("step", b.x0), spread)
        return Step(x0y, a * (x0y + A.weighted(b.eps, kept)) + injected, carry, injected)

    def _weights(self, problem: Problem, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Per slot: the weight of U^T (y - A x0) in x0y, of V^T eps and of V^T z."""
        A, sigma_y, calm = problem.operator, problem.noise_level, (1 - self.eta_ddim**2) ** 0.5 * sigma
        r = sigma_y * A.gain()
        if self.variant == "correct":
            first, measured = (A.s > 0) & (sigma >= r), A.s > 0
        else:
            first, measured = A.s * sigma > sigma_y, A.measured & (A.s * sigma < sigma_y)
        slow = torch.where(measured, calm / torch.where(sigma_y > 0, sigma_y, 1.0), 0.0)
        spread = torch.where(first, (sigma**2 - (self.eta_b * r) ** 2).clamp(min=0).sqrt(), self.eta_ddim * sigma)
        return torch.where(first, self.eta_b * A.gain(), slow), torch.where(first | measured, 0.0, calm), spread

"""DDNM: the denoising diffusion null-space model (Wang, Yu & Zhang, ICLR 2023), for measurements without noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from leader_nb.equations import ddim
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_share, standard_normal
from leader_nb.schedule import uniform_grid
from leader_nb.tree import Tree


@dataclass(frozen=True)
class DDNM:
    """Replace what A can see by what was seen, keep the rest (Eqs. 3 and 20), and step (Eq. 21):

        x0y = A^+ y + (I - A^+ A) x0
        x_s = sqrt(abar_s) x0y + sqrt(1 - abar_s) (eta z + sqrt(1 - eta^2) eps)

    `eps` is the network's own, not recomputed from x0y. On a noisy measurement it fits the noise: use :class:`DDNMPlus`.
    """

    eta_ddim: float = 0.85
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        check_share("eta_ddim", self.eta_ddim, "the share of fresh noise")

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {"seen": problem.operator.pinv(problem.y)}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        x0y = carry["seen"] + problem.operator.null(b.x0)
        x, injected = ddim(x0y, b.eps, noise("step", x0y), b.schedule.abar(s, x0y), self.eta_ddim)
        return Step(x0y, x, carry, injected)

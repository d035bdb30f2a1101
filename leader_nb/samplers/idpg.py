"""IDPG: iterative denoising with preconditioned guidance (Garber & Tirer, CVPR 2024), for every operator, noisy or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_not_negative, image_by_image, standard_normal
from leader_nb.schedule import uniform_grid
from leader_nb.tree import Tree

LEAST_RIDGE = 1e-4  # keeps the back-projection of a noise-free measurement bounded


@dataclass(frozen=True)
class IDPG:
    """Guide x0 by back-projection while x is noisy, by least squares when it is nearly clean; add no noise:

        x0y = x0 + (1 - delta) A^T (A A^T + ridge' I)^-1 (y - A x0) + delta scale A^T (y - A x0)
        x_s = sqrt(abar_s) x0y

        sigma_y > 0:   delta = abar_s^gamma,   ridge' = max(ridge sigma_y^2, 1e-4)
        sigma_y = 0:   delta = 0,              ridge' = 1e-4

    Chance enters by x_T alone. Where sigma_y > 0, the last step leaves x0 as it is. `gamma` and `ridge` (the paper's eta)
    want tuning for each task, see :func:`leader_nb.samplers.defaults_spectral.tuned`.
    """

    gamma: float = 8.0
    ridge: float = 0.7
    scale: float = 1.0
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        check_guidance(self.gamma, self.ridge, self.scale)

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        abar_s = b.schedule.abar(s, b.x0)
        back_projection, least_squares = guidance(b.x0, problem, self.ridge)
        delta = traversal(abar_s, problem, self.gamma)
        x0y = b.x0 + (1 - delta) * back_projection + delta * self.scale * least_squares
        x0y = torch.where(unguided(abar_s, problem), b.x0, x0y)
        return Step(x0y, abar_s.sqrt() * x0y, carry)


def guidance(x0: Tensor, problem: Problem, ridge: float) -> tuple[Tensor, Tensor]:
    """The two ways to the data: A^T (A A^T + max(ridge sigma_y^2, 1e-4) I)^-1 r and A^T r, with r = y - A x0."""
    r, floor = problem.y - problem.operator(x0), (ridge * problem.noise_level**2).clamp(min=LEAST_RIDGE)
    return problem.operator.pinv(r, floor), problem.operator.T(r)


def traversal(abar_s: Tensor, problem: Problem, gamma: float) -> Tensor:
    """delta = abar_s^gamma, the share of least squares; 0 for a measurement without noise."""
    return torch.where(problem.noise_level > 0, image_by_image(lambda a: a**gamma, abar_s), 0.0)


def unguided(abar_s: Tensor, problem: Problem) -> Tensor:
    """Where the result is x0 itself: the last step, if the measurement is noisy."""
    return (abar_s == 1) & (problem.noise_level > 0)


def check_guidance(gamma: float, ridge: float, scale: float) -> None:
    """Raises `InputError` for constants that :func:`guidance` and :func:`traversal` cannot use."""
    check_not_negative("gamma", gamma, "how late least squares take over (8 is the released default)")
    check_not_negative("ridge", ridge, "the paper's eta (0.7 is the released default)")
    check_not_negative("scale", scale, "the weight of least squares (1 by default)")

"""SITCOM: step-wise triple-consistent diffusion sampling (Alkhouri et al., ICML 2025), for every operator, noisy or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.equations import diffuse
from leader_nb.errors import unknown
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.adam import started, stepped
from leader_nb.samplers.base import Step, check_not_negative, check_positive, check_whole, image_by_image, standard_normal
from leader_nb.schedule import strided_grid
from leader_nb.tree import Tree, put, rows

VARIANTS = ("correct", "released")


@dataclass(frozen=True)
class SITCOM:
    """Look for an input near x_t whose denoised image agrees with the data, and noise that image afresh:

        v*  = argmin_v ||A clip(D_t(v)) - y||^2 + weight ||v - x_t||^2,      Adam from v = x_t, at most `iterations` calls
        x0' = clip(D_t(v*))
        x_s = sqrt(abar_s) x0' + sqrt(1 - abar_s) z

    An image stops as soon as rms(A x0' - y) < sigma_y + slack (in [-1, 1] units), and costs nothing from then on. x0' is the
    network's answer at its last call, which needs no backward pass; so each step costs 1 to `iterations` calls and one
    backward pass less. The result is the last x0'. A plug-in that modulates x0 acts on x0', once the inner loop has ended and
    before the noise; the inner loop itself sees the raw D_t(v).
    `variant="released"`: without noise, the norm is not squared and nothing stops before the last iteration. (The released
    demo also picks the iterate that is nearest to the true image, and adds a projection for inpainting: not followed.)
    """

    iterations: int = 30
    lr: float = 0.02
    weight: float = 0.0
    slack: float = 1e-3
    variant: str = "correct"
    needs_gradient: ClassVar[bool] = True
    default_steps = staticmethod(strided_grid)

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        check_whole("iterations", self.iterations, 1, why="the calls of a step at most")
        check_positive("lr", self.lr, "Adam's step")
        check_not_negative("weight", self.weight, "how strongly v is held at x_t")
        check_not_negative("slack", self.slack, "added to sigma_y where the inner loop may end")

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        x0y = b.improved(self.consistent(b, problem))
        z, abar_s = noise("step", x0y), b.schedule.abar(s, x0y)
        return Step(x0y, diffuse(x0y, z, abar_s), carry, (1 - abar_s).sqrt() * z)

    def consistent(self, b: Belief, problem: Problem) -> Tensor:
        """x0' (B, C, H, W), by the inner loop; images leave it one by one."""
        found: Tree = {"x0": b.unmodulated.clamp(-1, 1)}
        left, at, adam = torch.arange(len(b.x_t)), b, started(b.x_t)
        for k in range(1, self.iterations):
            going = self.unsettled(rows(found, left)["x0"], problem.rows(left)).nonzero().flatten().cpu()
            if not len(going):
                break
            slope = at.vjp(self.slope(at.unmodulated, problem.rows(left)), going)[going]
            left, adam = left[going], rows(adam, going)
            adam = stepped(adam, slope + 2 * self.weight * (adam["x"] - b.x_t[left]), k, self.lr)
            at = b.prior.rows(left)(adam["x"], b.t[left], True)
            found = put(found, left, {"x0": at.unmodulated.clamp(-1, 1)})
        return found["x0"]

    def unsettled(self, x0: Tensor, problem: Problem) -> Tensor:
        """Which images (B,) have yet to meet the data."""
        sigma_y = problem.sigma_y.to(x0)
        far = problem.residual(x0) >= sigma_y + self.slack
        return far | (sigma_y == 0) if self.variant == "released" else far

    def slope(self, x0: Tensor, problem: Problem) -> Tensor:
        """The gradient of ||A clip(x0) - y||^2 with respect to x0."""
        r = problem.operator.on_measured(problem.operator(x0.clamp(-1, 1)) - problem.y)
        slope = 2 * problem.operator.T(r) * (x0.abs() <= 1)
        if self.variant == "correct":
            return slope
        length = image_by_image(torch.Tensor.norm, r).view(-1, 1, 1, 1)
        return torch.where(problem.noise_level > 0, slope, slope / (2 * torch.where(length > 0, length, 1.0)))

"""Start a host in the middle of the schedule, from the measurement: for priors that cannot take pure noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import DefaultSteps, Falls, Sampler, Step, check_positive, check_share
from leader_nb.schedule import Schedule
from leader_nb.tree import Tree


@dataclass(frozen=True)
class WarmStart:
    """`sampler`, begun at x_t = sqrt(abar) A^+ y + sqrt(1 - abar) z instead of at noise; `abar` is that of its first time.

    A^+ y stands in for the clean image, so the noise has to be high enough to hide the difference: no noise is, after a blur
    of a noisy picture, whose A^+ y has lost all likeness. :func:`leader_nb.start.start_within` has no such limit. Give the
    loop a grid that begins at the same time: :func:`warm_start` makes both.
    """

    sampler: Sampler
    abar: float

    def __post_init__(self) -> None:
        check_share("abar", self.abar, "that of the first time")

    @property
    def needs_gradient(self) -> bool:
        return self.sampler.needs_gradient

    @property
    def falls(self) -> bool:
        return isinstance(self.sampler, Falls) and self.sampler.falls

    @property
    def default_steps(self) -> DefaultSteps:
        return self.sampler.default_steps

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        z, carry = self.sampler.init(problem, noise)
        return self.abar**0.5 * problem.operator.pinv(problem.y) + (1 - self.abar) ** 0.5 * z, carry

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        return self.sampler.step(b, s, problem, noise, carry)


def warm_start(
    sampler: Sampler, sigma: float, steps: int, schedule: Schedule | None = None
) -> tuple[WarmStart, tuple[int, ...]]:
    """(host, grid): `sampler` begun at noise level `sigma` (sigma_bar, for images in [-1, 1]), and its falling times."""
    schedule = schedule or Schedule()
    check_positive("sigma", sigma, "the noise level to begin at")
    top = schedule.nearest_time(sigma)
    if not 1 <= steps <= top + 1:
        raise InputError(f"steps: got {steps}; give 1 to {top + 1}, the times from sigma_bar {sigma:g} down")
    grid = tuple(round(top * (1 - i / max(1, steps - 1))) for i in range(steps))
    return WarmStart(sampler, float(schedule.table()[top + 1])), grid

"""EquS and EquS+ (WACV 2026): show the network every other step in a mirror, as a plug-in on any host."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from leader_nb.equations import predicted_noise
from leader_nb.errors import InputError, unknown
from leader_nb.priors import Prediction, Prior, complete
from leader_nb.schedule import Schedule

VARIANTS = ("correct", "released")


@dataclass(frozen=True)
class EquS:
    """At an image's second, fourth, ... step the prior is g^-1 D(g x_t), with g the flip of left and right:

        eps = g^-1 eps(g x_t),   x0 = g^-1 x0(g x_t)

    What a host asks of the prior within the step (inner calls, gradients) goes the same way. No call, no backward pass more;
    with a prior that commutes with g it is the host itself. The count is of steps taken, image by image, so that skipping
    keeps the alternation. `variant="released"` leaves eps in the mirror, g^-1 missing, as the published code does.
    """

    variant: str = "correct"

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)

    def __call__(self, prior: Prior, count: Tensor) -> Prior:
        """The prior of a turn, for images that have taken `count` (B,) steps."""
        return mirrored(prior, count % 2 == 1, self.variant)


def mirrored(prior: Prior, where: Tensor, variant: str = "correct") -> Prior:
    """`prior`, looking at those images of the batch for which `where` (B,) is true in a mirror."""

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        seen = flip(x_t, where)
        said = prior.predict(seen, t, schedule)
        if variant == "released":
            abar = schedule.abar(t, x_t)
            eps, x0 = complete(said, seen, abar)
            eps = predicted_noise(seen.detach(), x0.detach(), abar) if eps is None else eps
            return Prediction(eps, flip(x0, where), said.variance)
        back = [None if part is None else flip(part, where) for part in (said.eps, said.x0, said.variance)]
        return Prediction(*back)

    return replace(prior, predict=predict, part=lambda index: mirrored(prior.rows(index), where[index], variant))


def flip(x: Tensor, where: Tensor) -> Tensor:
    """x (B, C, H, W), left and right exchanged for those images for which `where` (B,) is true."""
    return torch.where(where.to(x.device).view(-1, 1, 1, 1), x.flip(-1), x)


def equs_plus(steps: int = 100, variant: str = "correct") -> dict[str, Any]:
    """EquS on its own grid, as keywords: `restore(problem, prior, DDNM(), **equs_plus(100))`."""
    return {"equivariance": EquS(variant), "grid": root_grid(steps, variant)}


def root_grid(steps: int, variant: str = "correct") -> tuple[int, ...]:
    """EquS+'s times 999 (1 - j / (T - 1))^2, dense at the clean end: T = 100 gives 999, 978, 959, ..., 2, 1, 0.

    Never twice the same: the last ones are spread so that they fall at every step. "released": rounded down as floats, from
    998, and the last ones repeat (3, 2, 1, 0, 0, 0, 0), which makes steps that stay at their time.
    """
    if variant not in VARIANTS:
        raise unknown("variant", variant, VARIANTS)
    if not 2 <= steps <= 1000:
        raise InputError(f"steps: got {steps}; give a whole number from 2 to 1000")
    if variant == "released":
        return tuple(int((math.sqrt(999) * (1 - j / (steps - 1))) ** 2) for j in range(steps))
    left = range(steps - 1, -1, -1)
    return tuple(max(n, 999 * n**2 // (steps - 1) ** 2) for n in left)

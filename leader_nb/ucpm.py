"""UCPM, uncertainty-calibrated prior modulation (Eqs. 11-15): the map decides where a hand-made prior intervenes.

The paper only says that Phi collects "gradient and structural priors"; the potential here is our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.equations import modulated, modulation
from leader_nb.errors import InputError, unknown
from leader_nb.priors import Belief
from leader_nb.problem import Problem

HESSIANS = ("mm", "weight", "exact")


@dataclass(frozen=True)
class HuberTV:
    """Phi(x) = mu sum_edges phi(g), phi quadratic for |g| <= delta and linear beyond; forward differences, no wrap.

    `mu` is the weight, `delta` the size of a step that counts as an edge, both for images in [-1, 1].
    """

    mu: float = 0.03
    delta: float = 0.03

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise InputError(f"delta: got {self.delta}; give a number > 0, the step in [-1, 1] that counts as an edge")

    def __call__(self, x: Tensor) -> Tensor:
        """Phi(x), (B,)."""
        g = torch.stack(differences(x)).abs()
        phi = torch.where(g <= self.delta, g**2 / (2 * self.delta), g - self.delta / 2)
        return self.mu * phi.transpose(0, 1).flatten(1).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        """grad Phi(x), (B, C, H, W)."""
        return self.mu * gather(*((g / self.delta).clamp(-1, 1) for g in differences(x)), sign=-1.0)

    def hessian(self, x: Tensor, kind: str = "mm") -> Tensor:
        """A diagonal for the Hessian: `exact`, `weight` (half-quadratic) or `mm`, twice `weight`, which majorises Phi.

        Only `mm` guarantees that the step of Eq. 14 never raises the objective of Eq. 11.
        """
        slopes = differences(x)
        if kind == "exact":
            return self.mu * gather(*((g.abs() <= self.delta).to(x) / self.delta for g in slopes), sign=1.0, inside=True)
        weight = self.mu * gather(*(1 / g.abs().clamp(min=self.delta) for g in slopes), sign=1.0, inside=True)
        return 2 * weight if kind == "mm" else weight

    def gradient_and_hessian(self, x: Tensor, kind: str = "mm") -> tuple[Tensor, Tensor]:
        """Both at once, sharing the differences."""
        return self.gradient(x), self.hessian(x, kind)


def differences(x: Tensor) -> tuple[Tensor, Tensor]:
    """Forward differences down and to the right, (B, C, H, W) each, zero at the far border."""
    return (
        F.pad(x[..., 1:, :] - x[..., :-1, :], (0, 0, 0, 1)),
        F.pad(x[..., :, 1:] - x[..., :, :-1], (0, 1, 0, 0)),
    )


def gather(down: Tensor, right: Tensor, *, sign: float, inside: bool = False) -> Tensor:
    """Sum over the edges of each pixel: its outgoing values times `sign`, plus its incoming ones.

    With sign -1 this is the adjoint of :func:`differences`. `inside` drops the edges that leave the image.
    """
    if inside:
        down, right = F.pad(down[..., :-1, :], (0, 0, 0, 1)), F.pad(right[..., :, :-1], (0, 1, 0, 0))
    total = sign * (down + right)
    total[..., 1:, :] += down[..., :-1, :]
    total[..., :, 1:] += right[..., :, :-1]
    return total


@dataclass(frozen=True)
class UCPM:
    """x0 <- x0 - Lambda grad Phi(x0) with Lambda = cov / (1 + h cov) (Eqs. 14-15), before the host's data step (Eq. 20)."""

    potential: HuberTV = HuberTV()
    hessian: str = "mm"

    def __post_init__(self) -> None:
        if self.hessian not in HESSIANS:
            raise unknown("hessian", self.hessian, HESSIANS)

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        gradient, h = self.potential.gradient_and_hessian(belief.x0, self.hessian)
        return replace(belief, x0=modulated(belief.x0, modulation(cov, h.clamp(min=0)), gradient))

"""UCPM, uncertainty-calibrated prior modulation (Eqs. 11-15): the map decides where a hand-made prior intervenes.

The paper only says that Phi collects "gradient and structural priors"; the potentials, in :mod:`leader_nb.potentials`, are
our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from leader_nb.equations import modulated, modulation
from leader_nb.errors import unknown
from leader_nb.likelihood import MapLikelihood, means
from leader_nb.potentials import (
    HESSIANS,
    POTENTIALS,
    Charbonnier,
    GMinus,
    GPlus,
    HuberTV,
    HyperLaplacian,
    Potential,
    Quadratic,
    differences,
    gather,
)
from leader_nb.priors import Belief
from leader_nb.problem import Problem

PROJECTIONS = ("orthogonal", "weighted")
WEIGHTS = ("map", "global")
DEFAULT = HuberTV()


@dataclass(frozen=True)
class UCPM:
    """x0 <- x0 - Lambda grad Phi(x0) with Lambda = cov / (1 + h cov) (Eqs. 14-15), before the host's data step (Eq. 20).

    `weight` = "global" is the control for ablations: the map is replaced by its mean over each image, so that potential and
    average strength stay and only the map's shape is gone.
    `projection` = "orthogonal" leaves the data to the host, whose A^+ y + P_N x is the least change; "weighted" first adds
    Lambda A^T (A Lambda A^T + sigma_y^2 I)^-1 (y - A x), the constrained minimum of Eq. 13's quadratic model, which moves a
    pixel as far as Lambda lets it (`iterations` of conjugate gradients). For masks the two are one.
    """

    potential: Potential = DEFAULT
    hessian: str = "mm"
    weight: str = "map"
    projection: str = "orthogonal"
    iterations: int = 10

    def __post_init__(self) -> None:
        for kind, name, choices in (
            ("hessian", self.hessian, HESSIANS),
            ("weight", self.weight, WEIGHTS),
            ("projection", self.projection, PROJECTIONS),
        ):
            if name not in choices:
                raise unknown(kind, name, choices)

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        cov = means(cov).expand_as(cov) if self.weight == "global" else cov
        gradient, h = self.potential.gradient_and_hessian(belief.x0, self.hessian)
        strength = modulation(cov, h.clamp(min=0))
        belief = replace(belief, x0=modulated(belief.x0, strength, gradient))
        if self.projection == "orthogonal":
            return belief
        return MapLikelihood(iterations=self.iterations)(belief, strength, problem)


__all__ = [
    "HESSIANS",
    "POTENTIALS",
    "UCPM",
    "Charbonnier",
    "GMinus",
    "GPlus",
    "HuberTV",
    "HyperLaplacian",
    "Quadratic",
    "differences",
    "gather",
]

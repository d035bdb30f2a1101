"""PIRP: parameterized restoration with a diffusion prior and a gradient prior (Yang, Zhang, Zhang & Zeng, KBS 2026).

Its code was not found under that name; this follows FDGR, which has its modes G+ and G- and is most probably the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.errors import InputError, kind_of, unknown
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_finite, check_share, renoised, standard_normal
from leader_nb.samplers.gradient_priors import G_MINUS, Spatial, Spectral
from leader_nb.samplers.idpg import check_guidance, guidance, traversal, unguided
from leader_nb.schedule import uniform_grid
from leader_nb.tree import Tree

VARIANTS = ("correct", "held")


@dataclass(frozen=True)
class PIRP:
    """DDPG's guidance and a step down a gradient prior Phi, all three from the same x0:

        x0y = x0 + mu (1 - delta) A^T (A A^T + ridge' I)^-1 (y - A x0) + mu delta scale A^T (y - A x0) - mu_r lam grad Phi(x0)
        eps = (x_t - sqrt(abar) x0y) / sqrt(1 - abar)
        x_s = sqrt(abar_s) x0y + sqrt(1 - abar_s) (sqrt(zeta) z + sqrt(1 - zeta) w eps),    w = 1 if sigma_y = 0 else delta

    delta and ridge' as in IDPG. With m = (1 - abar_s) / (1 - abar), `mode` 0: mu = 1, and mu_r = 1 for G- but beta m for G+,
    beta = 1 - abar / abar_s;  1: mu = m, mu_r = 1. `inject=False` drops both noises from x_s. `lam=0` is DDPG (or IDPG).
    As it stands it is G-, whose lam < 0 *sharpens*; G+ smooths, and is :data:`PIRP_PLUS`. Its published lam is thousands of
    times beyond the rate at which an explicit step descends: it overshoots into a checkerboard. `variant="held"`, beyond the
    paper and what `host("pirp+", ...)` is, holds the rate of each pixel back, as `Spatial.pull` says (in G- there is nothing
    to hold, and both variants are the same). Where sigma_y > 0, the last step leaves x0 as it is. A plug-in that modulates x0
    comes first and adds to Phi, which stays: here x0 is the modulated one.
    """

    potential: Spectral | Spatial = G_MINUS
    lam: float = -0.09
    gamma: float = 8.0
    zeta: float = 0.5
    ridge: float = 0.7
    scale: float = 1.0
    mode: int = 1
    inject: bool = True
    variant: str = "correct"
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        check_guidance(self.gamma, self.ridge, self.scale)
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        if isinstance(self.potential, type) or not all(hasattr(self.potential, n) for n in ("gradient", "pull", "damped")):
            raise InputError(f"potential: got {kind_of(self.potential)}; give Spectral() for G-, or Spatial() for G+")
        check_finite("lam", self.lam, "the weight of the potential (below 0 it sharpens; published: -0.09 for G-, 1.3 for G+)")
        check_share("zeta", self.zeta, "the share of fresh noise")
        if self.mode not in (0, 1):
            raise InputError(f"mode: got {kind_of(self.mode)}; give 0 or 1, the step sizes")

    @property
    def falls(self) -> bool:
        return self.mode == 1 or self.potential.damped  # m is a step size, and above 1 on the way up

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        abar_s = b.schedule.abar(s, b.x0)
        back_projection, least_squares = guidance(b.x0, problem, self.ridge)
        delta, (mu, mu_r) = traversal(abar_s, problem, self.gamma), self._steps(b, abar_s)
        to_data = (1 - delta) * back_projection + delta * self.scale * least_squares
        x0y = b.x0 + mu * to_data - self._pull(b.x0, mu_r * self.lam)
        x0y = torch.where(unguided(abar_s, problem), b.x0, x0y)
        if not self.inject:
            return Step(x0y, abar_s.sqrt() * x0y, carry)
        w = torch.where(problem.noise_level > 0, delta, 1.0)
        x, injected = renoised(b, x0y, abar_s, noise, self.zeta, w)
        return Step(x0y, x, carry, injected)

    def _pull(self, x0: Tensor, rate: Tensor) -> Tensor:
        return self.potential.pull(x0, rate) if self.variant == "held" else rate * self.potential.gradient(x0)

    def _steps(self, b: Belief, abar_s: Tensor) -> tuple[Tensor, Tensor]:
        """(mu, mu_r), (B, 1, 1, 1) each."""
        m, one = (1 - abar_s) / (1 - b.abar), torch.ones_like(abar_s)
        if self.mode == 1:
            return m, one
        return one, (1 - b.abar / abar_s) * m if self.potential.damped else one


# Without injected noise the prior is shown a state cleaner than its time says. An exact one shrinks what the data do not fix
# towards its mean; a learned one may blow it up (photo-small does, on inpainting, at any lam): inject=True is calm there.
PIRP_PLUS = PIRP(Spatial(), lam=1.3, gamma=16.0, ridge=0.2, mode=0, inject=False)  # G+, FDGR's quick start

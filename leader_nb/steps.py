"""Step controllers: which grid position comes next. Position k = T is the noisiest, 0 is the clean image.

Each has `init(sigmas, batch) -> memo`, with sigmas (T + 1,) the noise level sigma_bar at each position, and
`next(k, cov, memo) -> (k', memo)`, with k, k' (B,): every image has its own clock. A rule with `needs_map` runs only
beside a covariance estimator; for the others cov may be None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.equations import active_step, uncertainty
from leader_nb.errors import InputError
from leader_nb.tree import Tree


@dataclass(frozen=True)
class Uniform:
    """One position at a time: the host's own pace."""

    needs_map: ClassVar[bool] = False

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        return {}

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        return k - 1, memo


@dataclass(frozen=True)
class SATP:
    """State-aware trajectory pruning (Eqs. 17-19): the smaller the mean variance U, the longer the step.

    `budget` is B, `eta_skip` the paper's eta (unpublished; 6 reproduces its run times), `rho` the order, `epsilon` its
    guard. Our guards: a U that is not finite or not positive gives a single step, and one below `u_min` counts as `u_min`;
    a step is at most a share `longest` of the grid; the first step, and any at a noise level sigma_bar above
    `trust_below` (where the estimators of U are off), is a single one.
    """

    budget: float = 0.01
    eta_skip: float = 6.0
    rho: float = 1.0
    epsilon: float = 1e-8
    u_min: float = 1e-6
    longest: float = 0.1
    trust_below: float = math.inf
    needs_map: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.budget < 0 or self.eta_skip <= 0 or self.rho < 1 or not 0 < self.longest <= 1:
            raise InputError(f"SATP: got {self}; needs budget >= 0, eta_skip > 0, rho >= 1 and 0 < longest <= 1")

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        return {"sigmas": sigmas.expand(batch, -1)}

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        assert cov is not None  # the loop sees to it
        u = uncertainty(cov).to(k.device)
        step = active_step(u.clamp(min=self.u_min), self.budget, self.eta_skip, self.rho, self.epsilon)
        step = torch.where(torch.isfinite(u) & (u > 0), step, torch.ones_like(step))
        length = memo["sigmas"].shape[1] - 1
        step = step.clamp(max=math.ceil(self.longest * length)).long()
        sigma = memo["sigmas"].gather(1, k[:, None]).flatten()
        trusted = (k < length) & (sigma <= self.trust_below)
        return (k - torch.where(trusted, step, 1)).clamp(min=0), memo


@dataclass(frozen=True)
class ErrorControlled:
    """The longest step whose local error stays under `tolerance`: what SATP means to do, with the units put right.

    Along the probability-flow ODE the curvature is Cov eps / sigma^3 (Gaussian prior), so a DDIM step from sigma to sigma'
    errs by (sigma - sigma')^2 rms(cov) / (2 sigma^3), with rms(eps) taken as 1. Where Eq. 17 compares U across noise levels
    as if they were alike, this rule skips at the noisy end, where steps are idle, and walks the clean end step by step.
    `tolerance` is in pixel units of [-1, 1] images; refining the grid does not change where the steps fall. A step is at
    most a share `longest` of the grid, and a single one where the map is not finite, and at the start.
    """

    tolerance: float = 1e-4
    longest: float = 0.1
    needs_map: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.tolerance < 0 or not 0 < self.longest <= 1:
            raise InputError(f"ErrorControlled: got {self}; needs tolerance >= 0 and 0 < longest <= 1")

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        return {"sigmas": sigmas.expand(batch, -1)}

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        if cov is None:
            raise InputError("steps: the rule needs an uncertainty map; give a covariance estimator, such as RunningSecant()")
        sigmas = memo["sigmas"]
        length = sigmas.shape[1] - 1
        spread = uncertainty(cov.square()).double().sqrt().to(k.device)[:, None]
        sigma = sigmas.gather(1, k[:, None])
        error = (sigma - sigmas).square() * spread / (2 * sigma**3)  # (B, T + 1), of a step to each position
        place = torch.arange(length + 1, device=k.device)
        reach = (k[:, None] - math.ceil(self.longest * length)).clamp(min=0)
        allowed = (error < self.tolerance) & (place >= reach) & (k[:, None] < length)
        single = place == k[:, None] - 1
        return torch.where(allowed | single, place, length + 1).min(dim=1).values, memo

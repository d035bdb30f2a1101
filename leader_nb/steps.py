"""Step controllers: which grid position comes next. Position k = T is the noisiest, 0 is the clean image.

Each has `init(sigmas, batch) -> memo`, with sigmas (T + 1,) the noise level sigma_bar at each position, and
`next(k, cov, memo) -> (k', memo)`, with k, k' (B,): every image has its own clock. A rule with `needs_map` runs only
beside a covariance estimator; for the others cov may be None. A rule may also choose where a walk begins (:class:`Begins`),
ask for the measurement before (:class:`NeedsProblem`), and go back up (:class:`Returns`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from leader_nb.equations import active_step, uncertainty
from leader_nb.errors import InputError
from leader_nb.problem import Problem
from leader_nb.tree import Tree


class StepRule(Protocol):
    """The contract above, for type checkers."""

    @property
    def needs_map(self) -> bool: ...

    def init(self, sigmas: Tensor, batch: int) -> Tree: ...

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]: ...


@runtime_checkable
class NeedsProblem(StepRule, Protocol):
    """A step rule that looks at the measurement first: `for_problem` is asked for the rule whose `init` and `begin` count."""

    def for_problem(self, problem: Problem) -> StepRule: ...


@runtime_checkable
class Begins(StepRule, Protocol):
    """A step rule that begins below the top: (x, k) from the host's first state z (B, C, H, W), all but pure noise."""

    def begin(self, z: Tensor, sigmas: Tensor, memo: Tree) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Returns(StepRule, Protocol):
    """A step rule that goes back to higher noise, where `returns`; hosts that cannot are `leader_nb.samplers.base.Falls`."""

    @property
    def returns(self) -> bool: ...


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
        good = self.budget >= 0 and self.eta_skip > 0 and self.rho >= 1 and 0 < self.longest <= 1  # none holds for a NaN
        if not (good and self.epsilon >= 0 and self.u_min >= 0):
            raise InputError(
                f"SATP: got {self}; needs budget, epsilon and u_min >= 0, eta_skip > 0, rho >= 1 and 0 < longest <= 1"
            )

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
        if not (self.tolerance >= 0 and 0 < self.longest <= 1):
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


@dataclass(frozen=True)
class PIControlled:
    """Error control with a memory: a proportional-integral controller of the step, as in ODE solvers (Gustafsson 1991).

    With r = 1 - sigma' / sigma the relative length of a step, its error is about r^2 rms(cov) / (2 sigma), the estimate of
    :class:`ErrorControlled`. The next length follows from how the last one would fare here, and from the trend:

        r <- r (tolerance / e)^integral (e_before / e)^proportional,     e = r^2 rms(cov) / (2 sigma)

    A noisy map then moves the step by a small power, and not at once; the powers of ODE solvers (0.35 and 0.2) would pass
    more of the noise on than :class:`ErrorControlled` does. Powers 1/2 and 0 make it that rule, but for the clean end.
    Steps are whole positions, at most a share `longest` of the grid; the first is a single one, and so is any where the map
    is not finite or not positive, which leaves the memory alone.
    The length is not let below half a single step, so that it can grow again soon. Nothing is ever taken back: that would
    cost the call it saves.
    """

    tolerance: float = 1e-4
    integral: float = 0.15
    proportional: float = 0.05
    longest: float = 0.1
    needs_map: ClassVar[bool] = True

    def __post_init__(self) -> None:
        shares = 0 < self.longest <= 1 and 0 < self.integral <= 1 and 0 <= self.proportional <= 1
        if not (self.tolerance >= 0 and shares):
            raise InputError(
                f"PIControlled: got {self}; needs tolerance >= 0, 0 < longest <= 1, 0 < integral <= 1, 0 <= proportional <= 1"
            )

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        single = (1 - sigmas[-2] / sigmas[-1]).expand(batch)
        return {"sigmas": sigmas.expand(batch, -1), "length": single, "error": torch.full_like(single, self.tolerance)}

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        assert cov is not None  # the loop sees to it
        sigmas = memo["sigmas"]
        last = sigmas.shape[1] - 1
        spread = uncertainty(cov.square()).double().sqrt().to(k.device)
        sigma = sigmas.gather(1, k[:, None]).flatten()
        error = memo["length"] ** 2 * spread / (2 * sigma)
        good = torch.isfinite(error) & (error > 0)
        error = torch.where(good, error, 1.0)
        single = 1 - sigmas.gather(1, k[:, None] - 1).flatten() / sigma
        wanted = memo["length"] * image_power(self.tolerance / error, self.integral)
        wanted = wanted * image_power(memo["error"] / error, self.proportional)
        wanted = torch.minimum(torch.maximum(wanted, single / 2), torch.ones_like(single))
        place = torch.arange(last + 1, device=k.device)
        reach = (k[:, None] - math.ceil(self.longest * last)).clamp(min=0)
        trusted = (good & (k < last))[:, None]
        allowed = (1 - sigmas / sigma[:, None] <= wanted[:, None]) & (place >= reach) & (place < k[:, None]) & trusted
        there = torch.where(allowed | (place == k[:, None] - 1), place, last + 1).min(dim=1).values
        taken = {"length": torch.where(good, wanted, memo["length"]), "error": torch.where(good, error, memo["error"])}
        return there, {**memo, **taken}


@dataclass(frozen=True)
class TimeTravel:
    """DDNM's time travel: on arriving at times 0, l, 2l, ... of the grid, go `length` l of them back up, until `repeat` r walks
    have led down from there; then on. Repairs what was decided too early, for more network calls:

        NFE = T + (r - 1) l ceil((T - l) / l)        for T steps: 298 for (T, l, r) = (100, 1, 3), 280 for (100, 10, 3)

    With j = k - 1 the number of a position's time (j = T - 1 the noisiest, -1 the clean image), a step that would arrive at a
    multiple j < T - l goes to j + l at once: it is the host's own step to a noise level above its own, from its corrected x0,
    and the network is next asked there. DDNM's released code makes the same moves but for the state: it noises x0 *before*
    the correction, afresh (sqrt(abar) x0 + sqrt(1 - abar) z), where DDNM's step keeps a share of the predicted noise.
    Each visit has draws of its own. Needs no map. Published for DDNM (all its settings have r = 1, no travel). Hosts whose
    step divides by the noise that is left assume that it falls, and are refused. Estimators that follow the walk
    (:class:`leader_nb.covariance.RunningSecant`) assume so too: their map starts afresh at each return.
    """

    length: int = 10
    repeat: int = 3
    needs_map: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (self.length >= 1 and self.repeat >= 1):
            raise InputError(f"TimeTravel: got {self}; needs length >= 1 and repeat >= 1 (1: no travel)")

    @property
    def returns(self) -> bool:
        return self.repeat > 1

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        return {"made": torch.zeros(batch, len(sigmas), dtype=torch.long)}  # returns from each position, by image

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        made, there = memo["made"], k - 1
        j, last = there - 1, made.shape[1] - 1
        left = made.gather(1, there[:, None]).flatten() < self.repeat - 1
        back = (j >= 0) & (j % self.length == 0) & (j < last - self.length) & left
        made = made.scatter_add(1, there[:, None], back[:, None].long())
        return torch.where(back, there + self.length, there), {**memo, "made": made}


@dataclass(frozen=True, eq=False)
class LateStart:
    """Begins at noise level `sigma` with x = sqrt(abar) mean + sqrt(1 - abar) z; `then` takes it from there.

    `mean` (B, C, H, W) is what is expected of x0, or one image for all; `sigma` (B,) a noise level sigma_bar for each image, or
    one number for all. The walk begins at the noisiest position at or below it, and takes the first step singly, since no map
    is known yet. :func:`leader_nb.start.measured_start` finds both from the measurement.
    """

    mean: Tensor
    sigma: Tensor | float
    then: StepRule = field(default_factory=Uniform)

    def __post_init__(self) -> None:
        check_then(self.then)
        levels = torch.as_tensor(self.sigma)
        if levels.ndim > 1 or not bool((levels > 0).all()):
            raise InputError("sigma: give one noise level above 0 for each image, (B,), or one number for all")

    @property
    def needs_map(self) -> bool:
        return self.then.needs_map

    def init(self, sigmas: Tensor, batch: int) -> Tree:
        levels = torch.as_tensor(self.sigma, dtype=torch.float64).cpu().flatten()
        if len(levels) not in (1, batch):
            raise InputError(f"sigma: it has {len(levels)} noise levels for {batch} images; give one each")
        if len(self.mean) not in (1, batch):
            raise InputError(f"mean: it has {len(self.mean)} images, the problem {batch}; give one each, or one for all")
        place = torch.searchsorted(sigmas.contiguous(), levels.expand(batch).contiguous(), right=True) - 1
        return {**self.then.init(sigmas, batch), "start": place.clamp(1, len(sigmas) - 1)}

    def begin(self, z: Tensor, sigmas: Tensor, memo: Tree) -> tuple[Tensor, Tensor]:
        sigma = sigmas[memo["start"]].to(z).view(-1, 1, 1, 1)
        return (self.mean.to(z) + sigma * z) / (1 + sigma**2).sqrt(), memo["start"]

    def next(self, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
        return after_start(self.then, k, cov, memo)


def check_then(then: StepRule) -> None:
    """Raises `InputError` for a rule that would go back above a start below the top."""
    if isinstance(then, Returns) and then.returns:
        raise InputError(
            "then: a walk that begins late has nowhere to go back to; give Uniform(), or take steps=TimeTravel() alone"
        )


def after_start(then: StepRule, k: Tensor, cov: Tensor | None, memo: Tree) -> tuple[Tensor, Tree]:
    """One position from the start in `memo`, and from there on as `then` says."""
    there, after = then.next(k, cov, memo)
    return torch.where(k == memo["start"], k - 1, there), {**memo, **after}


def image_power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent for x (B,), one image at a time: a vector's last entries round differently."""
    return torch.stack([v**exponent for v in x])

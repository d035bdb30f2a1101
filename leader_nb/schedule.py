"""The variance-preserving noise schedule and the grids of time that samplers walk down.

Raw training times are t = 0..999; t = -1 is the clean image, with abar(-1) = 1. This module is the one place that adds 1.
Grids are described for a schedule of 1000 times; on another length they keep their spacing, in shares of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from leader_nb.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) eps, with linear betas (Ho et al. 2020), or with those listed in `betas`."""

    beta_first: float = 1e-4
    beta_last: float = 0.02
    length: int = 1000
    betas: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.betas and (self.beta_first, self.beta_last, self.length) != (self.betas[0], self.betas[-1], len(self.betas)):
            raise InputError("betas: the first, the last and the length do not fit them; use Schedule.from_betas(betas)")

    @classmethod
    def from_betas(cls, betas: Tensor) -> Schedule:
        """The schedule with these betas (length,), each between 0 and 1: abar_t is the product of 1 - beta up to t."""
        values = tuple(betas.double().tolist())
        if not values or not all(0 < beta < 1 for beta in values):
            raise InputError(
                "betas: give each between 0 and 1; a schedule that ends in pure noise (zero SNR) has no sigma there"
            )
        return cls(values[0], values[-1], len(values), values)

    def abar(self, t: Tensor, like: Tensor) -> Tensor:
        """abar(t) for times t (B,), looked up in float64 -> (B, 1, 1, 1) in the dtype and on the device of `like`."""
        return self.table(like.device)[t.to(like.device) + 1].to(like.dtype).view(-1, 1, 1, 1)

    def sigma(self, t: Tensor, like: Tensor) -> Tensor:
        """sigma_bar(t) = sqrt((1 - abar) / abar), the noise level of x_t / sqrt(abar) -> (B, 1, 1, 1)."""
        return _levels(self, str(like.device))[t.to(like.device) + 1].to(like.dtype).view(-1, 1, 1, 1)

    def table(self, device: torch.device | str = "cpu") -> Tensor:
        """(length + 1,) float64: abar at t = -1, 0, ..., length - 1."""
        return _table(self, str(device))

    def nearest_time(self, sigma: float) -> int:
        """The raw time whose sigma_bar is nearest to `sigma` on a log scale."""
        abar = self.table()[1:]
        return int(((1 - abar) / abar).sqrt().log().sub(torch.tensor(sigma).double().log()).abs().argmin())


@lru_cache(maxsize=32)
def _table(schedule: Schedule, device: str) -> Tensor:
    if schedule.betas:
        betas = torch.tensor(schedule.betas, dtype=torch.float64)
    else:
        betas = torch.linspace(schedule.beta_first, schedule.beta_last, schedule.length, dtype=torch.float64)
    abar = torch.cumprod(1 - betas, dim=0)
    return torch.cat([torch.ones(1, dtype=torch.float64), abar]).to(device)


@lru_cache(maxsize=32)
def _levels(schedule: Schedule, device: str) -> Tensor:
    """(length + 1,) float64: sigma_bar at the same times."""
    abar = _table(schedule, device)
    return ((1 - abar) / abar).sqrt()


def uniform_grid(steps: int, schedule: Schedule | None = None) -> tuple[int, ...]:
    """`steps` raw times from 990 (from T - 1 if that is higher) down to 0: T = 100 gives 990, 980, ..., 0."""
    length = _length(steps, schedule)
    top = max(990 * length // 1000, steps - 1)
    return tuple(int(v) for v in torch.linspace(top, 0, steps, dtype=torch.float64).round().tolist())


def _length(steps: int, schedule: Schedule | None) -> int:
    """How many times the schedule has; refuses more steps than that."""
    length = (schedule or Schedule()).length
    if not 1 <= steps <= length:
        raise InputError(f"steps: got {steps}; give a whole number from 1 to {length}")
    return length


def fractional_grid(steps: int, schedule: Schedule | None = None) -> tuple[int, ...]:
    """`steps` raw times from 999 down to 0, evenly spaced and rounded: T = 100 gives 999, 989, 979, 969, ..., 10, 0."""
    top = max(1, _length(steps, schedule) - 1)
    return tuple(round(top - i * top / max(1, steps - 1)) for i in range(steps))


def quadratic_grid(steps: int, schedule: Schedule | None = None) -> tuple[int, ...]:
    """`steps` raw times 999 - 1000 sqrt(i / (T - 1)), dense at the clean end: T = 100 gives 999, 899, 857, ..., 10, 5, 0.

    Never twice the same: for T > 250 the rounded times are spread so that they fall at every step.
    """
    length = _length(steps, schedule)
    roots = (math.isqrt(i * length**2 // max(1, steps - 1)) for i in range(steps))
    return tuple(max(steps - 1 - i, length - 1 - root) for i, root in enumerate(roots))


def strided_grid(steps: int, schedule: Schedule | None = None) -> tuple[int, ...]:
    """`steps` raw times i 1000 / T from the last: T = 20 gives 950, 900, ..., 50, 0."""
    length = _length(steps, schedule)
    return tuple(i * length // steps for i in reversed(range(steps)))


def log_snr_grid(steps: int, schedule: Schedule | None = None) -> tuple[int, ...]:
    """`steps` raw times at even distances of log sigma_bar, that is of the log signal-to-noise ratio, from T = 990 to 0.

    A constant ratio from one noise level to the next. Times fall at every step: where the raw times are coarser than the
    ratio, at the clean end, they are walked one by one.
    """
    schedule = schedule or Schedule()
    top = uniform_grid(steps, schedule)[0]
    table = ((1 - schedule.table()[1:]) / schedule.table()[1:]).log() / 2
    levels = torch.linspace(table[top].item(), table[0].item(), steps, dtype=torch.float64)
    nearest = [int((table[: top + 1] - level).abs().argmin()) for level in levels]
    times: list[int] = []
    for i, time in enumerate(nearest):  # the floor leaves a time for every later step
        times.append(max(steps - 1 - i, min(time, times[-1] - 1)) if times else top)
    return tuple(times)


def least_noisy_grid(count: int, steps: int = 100, schedule: Schedule | None = None) -> tuple[int, ...]:
    """The last `count` times of `uniform_grid(steps)`: the host's pace, begun where its noisiest steps are done.

    x_T ~ N(0, I) stands in for the state there, so the measurement has to settle what those steps would have. A control
    for step rules: it saves as many calls without a map.
    """
    grid = uniform_grid(steps, schedule)
    if not 1 <= count <= steps:
        raise InputError(f"count: got {count}; give a whole number from 1 to {steps}, the steps of the whole grid")
    return grid[steps - count :]


def spread(steps: int, times: range) -> tuple[int, ...]:
    """`steps` of the raw `times`, evenly spaced, from the highest to the lowest; the highest alone for one step."""
    if not 1 <= steps <= len(times):
        raise InputError(f"steps: got {steps}; give 1 to {len(times)}, for the times {times[0]} to {times[-1]}")
    return tuple(int(v) for v in torch.linspace(times[-1], times[0], steps, dtype=torch.float64).round().tolist())


def check_grid(grid: int | tuple[int, ...], schedule: Schedule) -> tuple[int, ...]:
    """A grid as raw times in descending order; an integer T asks for `uniform_grid(T)`."""
    if isinstance(grid, int):
        return uniform_grid(grid, schedule)
    times = tuple(grid)
    known = all(is_whole(t) and 0 <= t < schedule.length for t in times)
    if not times or not known or list(times) != sorted(times, reverse=True):
        raise InputError(f"grid: got {times[:4]}...; give whole times from {schedule.length - 1} to 0, never rising")
    return tuple(int(t) for t in times)


def is_whole(t: object) -> bool:
    """Whether `t` is one of the times a network is trained at: a number without a fraction."""
    try:
        return int(t) == t  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return False

"""What hosts share: the contract of a step, how a state is started, and how one is noised again.

A host is a frozen dataclass with

    init(problem, noise) -> (x_T, carry)                       the starting state, (B, C, H, W)
    step(belief, s, problem, noise, carry) -> Step             one move from belief.t to the raw times s (B,); s = -1 is clean
    default_steps(T, schedule) -> tuple of T raw times of that schedule, falling

and knows nothing of LEADer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from leader_nb.equations import predicted_noise
from leader_nb.errors import InputError, kind_of
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.schedule import Schedule
from leader_nb.tree import Tree

DefaultSteps = Callable[[int, Schedule], tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Step:
    """x0y: the clean image given x_t and y;  x: the next state (at s = -1, the result);  injected: fresh noise in x."""

    x0y: Tensor
    x: Tensor
    carry: Tree
    injected: Tensor | None = None


class Sampler(Protocol):
    """The contract above, for type checkers."""

    needs_gradient: ClassVar[bool]

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]: ...

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step: ...

    @property
    def default_steps(self) -> DefaultSteps: ...


@runtime_checkable
class Falls(Protocol):
    """A host whose step, where `falls`, goes to lower noise (or stays) alone: it divides by the noise left. No time travel."""

    @property
    def falls(self) -> bool: ...


def image_by_image(f: Callable[..., Tensor], *batches: Tensor) -> Tensor:
    """f of each image's own tensors. For norms, and for powers and exponentials of images: the last few numbers of a tensor
    may be rounded otherwise than the rest, and which are last depends on the batch."""
    return torch.stack([f(*image) for image in zip(*batches, strict=True)])


def standard_normal(problem: Problem, noise: Noise) -> Tensor:
    """x_T ~ N(0, I) in the shape of the image, its draw keyed by its own role."""
    return noise("x_T", problem.y.new_empty(len(problem), *problem.operator.image_shape))


def renoised(
    b: Belief, x0y: Tensor, abar_s: Tensor, noise: Noise, zeta: float, w: Tensor | float = 1.0
) -> tuple[Tensor, Tensor]:
    """(x_s, the fresh noise in it): a share zeta of the noise is fresh, the rest is what x0y implies, times w:

    eps = (x_t - sqrt(abar) x0y) / sqrt(1 - abar)
    x_s = sqrt(abar_s) x0y + sqrt(1 - abar_s) (sqrt(zeta) z + sqrt(1 - zeta) w eps)
    """
    spread = (1 - abar_s).sqrt()
    injected = noise("step", x0y).mul_(spread * zeta**0.5)
    implied = predicted_noise(b.x_t, x0y, b.abar).mul_(spread * (1 - zeta) ** 0.5 * w)
    x = abar_s.sqrt() * x0y
    x += implied
    x += injected
    return x, injected


# Constants of a host, checked where it is made: each raises `InputError` for what is not such a number. `why` ends the message.


def check_share(name: str, value: object, why: str = "") -> None:
    """A number from 0 to 1."""
    if not 0 <= _number(value) <= 1:
        raise _refused(name, value, "a number from 0 to 1", why)


def check_positive(name: str, value: object, why: str = "") -> None:
    """A finite number > 0."""
    if not 0 < _number(value) < math.inf:
        raise _refused(name, value, "a number > 0", why)


def check_not_negative(name: str, value: object, why: str = "") -> None:
    """A finite number >= 0."""
    if not 0 <= _number(value) < math.inf:
        raise _refused(name, value, "a number >= 0", why)


def check_finite(name: str, value: object, why: str = "") -> None:
    """A finite number of either sign."""
    if not math.isfinite(_number(value)):
        raise _refused(name, value, "a finite number", why)


def check_whole(name: str, value: object, low: int, high: float = math.inf, why: str = "") -> None:
    """A whole number from `low` to `high`."""
    if not isinstance(value, Integral) or not low <= _number(value) <= high:
        span = f">= {low}" if high == math.inf else f"from {low} to {high}"
        raise _refused(name, value, f"a whole number {span}", why)


def _number(value: object) -> float:
    """The value, or NaN where it is no number."""
    return float(value) if isinstance(value, Real) else math.nan


def _refused(name: str, value: object, wanted: str, why: str) -> InputError:
    return InputError(f"{name}: got {kind_of(value)}; give {wanted}{', ' * bool(why)}{why}")

"""The problem: y = A x + sigma_y z, on images in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leader_nb.errors import InputError, kind_of
from leader_nb.noise import Noise
from leader_nb.operators.base import Operator


@dataclass(frozen=True, eq=False)
class Problem:
    """A measurement y (B, c, h, w) of images (B, C, H, W), its operator, and its noise level.

    `sigma_y` is (B,) float64 in [-1, 1] units: the user's sigma (for [0, 1] images), doubled once by :func:`measure`.
    """

    y: Tensor
    operator: Operator
    sigma_y: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.operator, Operator):
            raise InputError(
                f"operator: got {kind_of(self.operator)}; give an Operator, such as the one of task.operator(shape, y)"
            )
        check_floating("y", self.y)
        if not isinstance(self.sigma_y, Tensor):
            raise InputError(
                f"sigma_y: got {kind_of(self.sigma_y)}; give a tensor (B,), twice the sigma of images in [0, 1], such as"
                " torch.full((len(y),), 2 * sigma, dtype=torch.float64), or let measure(operator, x, sigma, noise) do it"
            )
        if not torch.isfinite(self.y).all():
            raise InputError("y: the measurement holds NaN or infinite values; mask them out before restoring")
        expected = self.operator.measurement_shape
        if self.y.ndim != 4 or tuple(self.y.shape[1:]) != expected:
            raise InputError(f"y: got shape {tuple(self.y.shape)}; this operator measures (B, {', '.join(map(str, expected))})")
        if self.sigma_y.shape != (len(self.y),) or not ((self.sigma_y >= 0) & (self.sigma_y < torch.inf)).all():
            raise InputError(f"sigma_y: got {self.sigma_y.tolist()}; give one non-negative number per image ({len(self.y)})")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def noise_level(self) -> Tensor:
        """sigma_y as (B, 1, 1, 1) in the dtype of y."""
        return self.sigma_y.to(self.y).view(-1, 1, 1, 1)

    def rows(self, index: Tensor) -> Problem:
        """The problems of some images of the batch."""
        return replace(self, y=self.y[index], operator=self.operator.rows(index), sigma_y=self.sigma_y[index])

    def fits(self, other: Problem) -> bool:
        """Whether images of the two can share a batch."""
        alike = self.y.dtype == other.y.dtype and self.y.device == other.y.device
        return alike and self.operator.fits(other.operator)

    def joined(self, other: Problem) -> Problem:
        """The images of both, in order, which must fit."""
        operator = self.operator.joined(other.operator, (len(self), len(other)))
        y, sigma_y = torch.cat([self.y, other.y]), torch.cat([self.sigma_y, other.sigma_y])
        return replace(self, y=y, operator=operator, sigma_y=sigma_y)

    def residual(self, x: Tensor) -> Tensor:
        """Root mean square of A x - y over the measured slots, (B,), in [-1, 1] units."""
        return self.operator.measured_rms(self.operator(x) - self.y)


def measure(operator: Operator, x: Tensor, sigma: float, noise: Noise) -> Problem:
    """Degrade images x (B, C, H, W) in [-1, 1] with noise of standard deviation `sigma` for images in [0, 1].

    x may leave [-1, 1], as draws of a mixture do; :meth:`leader_nb.Task.measure` refuses pixels from 0 to 255.
    """
    check_pictures(x)
    if tuple(x.shape[1:]) != tuple(operator.image_shape):
        raise InputError(f"x: got shape {tuple(x.shape)}; this operator takes (B, {', '.join(map(str, operator.image_shape))})")
    if not (isinstance(sigma, (int, float)) and 0 <= sigma < float("inf")):
        raise InputError(f"sigma: got {sigma}; give a number >= 0, the noise level for images in [0, 1]")
    clean = operator(x)
    sigma_y = torch.full((len(x),), 2.0 * sigma, dtype=torch.float64)
    y = clean + 2.0 * sigma * operator.on_measured(noise("measurement", clean)) if sigma else clean
    return Problem(y, operator, sigma_y)


def check_pictures(x: object) -> None:
    """Raises `InputError` for what is not a batch of images (B, C, H, W) of floating point numbers."""
    x = check_floating("x", x)
    if x.ndim != 4:
        hint = {2: "x[None, None] for one of one channel", 3: "x[None] for one"}.get(x.ndim, "torch.zeros(1, 3, 64, 64)")
        raise InputError(f"x: got shape {tuple(x.shape)}; give images (B, C, H, W), such as {hint}")


def check_floating(name: str, x: object) -> Tensor:
    """x, a tensor of real floating point numbers. Raises `InputError` for anything else."""
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: got {kind_of(x)}; give a tensor (B, C, H, W), such as torch.as_tensor({name})")
    if not x.is_floating_point():
        raise InputError(f"{name}: got {x.dtype}; give floating point in [-1, 1]: {name}.float() / 127.5 - 1 for bytes")
    return x

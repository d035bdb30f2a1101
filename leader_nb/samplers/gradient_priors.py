"""The gradient priors of PIRP: G-, with spectral derivatives, and G+, with differences of neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.samplers.base import check_positive, image_by_image


@dataclass(frozen=True)
class Spectral:
    """G-: Phi = sum phi(|grad x|), phi(g) = 1 - exp(-m^(a/2) / (2 width^2)), m = g^2 + 2e-4, with spectral derivatives.

    phi is bounded, so strong edges feel nothing. Where m > 100 it is held at its value there, so the weight is 0: the gradient
    of the clamped potential, as autograd has it. The released code clamps m inside the weight alone, and still pulls on such
    edges. Periodic; B images at once, Phi (B,), gradient (B, C, H, W).
    """

    power: float = 0.5
    width: float = 1.5
    damped: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive("power", self.power)
        check_positive("width", self.width)

    def __call__(self, x: Tensor) -> Tensor:
        m = spectral(x, -2).square() + spectral(x, -1).square() + 2e-4
        return welsch(m.clamp(max=100), self.power, self.width).flatten(1).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        down, right = spectral(x, -2), spectral(x, -1)
        m = down.square() + right.square() + 2e-4
        w = weight(m, self.power, self.width) * (m <= 100)
        return -(spectral(w * down, -2) + spectral(w * right, -1))

    def pull(self, x: Tensor, rate: Tensor) -> Tensor:
        """rate grad Phi(x). Every derivative sees every pixel, and the published rate is negative: nothing to hold."""
        return rate * self.gradient(x)


@dataclass(frozen=True)
class Spatial:
    """G+: the same phi of each difference of neighbours, down and to the right alone, m = g^2 + 1e-6. Periodic.

    phi is sharp at 0: with w(g) = phi'(g) / g, w(0) is 3e4 (at the constants below), and an explicit step descends only at
    rates under 1 / (4 w(0)). :meth:`pull` holds the rate of each pixel under the bound of its own differences instead.
    """

    power: float = 0.2
    width: float = 0.8
    damped: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("power", self.power)
        check_positive("width", self.width)

    def __call__(self, x: Tensor) -> Tensor:
        slopes = torch.stack([x - x.roll(1, axis) for axis in (-2, -1)], dim=1)
        return welsch(slopes.square() + 1e-6, self.power, self.width).flatten(1).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        return self._slope(x)[0]

    def pull(self, x: Tensor, rate: Tensor) -> Tensor:
        """grad Phi(x) times the rate, or 1 / (2 sum w) where that is less, w the weights of a pixel's four differences.

        phi lies under the parabola of curvature w that touches it at g, and (a - b)^2 <= 2 a^2 + 2 b^2, so Phi(x - pull)
        <= Phi(x) at every rate above 0. The bound moves a pixel half way to the weighted mean of its neighbours.
        """
        slope, total = self._slope(x)
        return torch.minimum(rate, 1 / (2 * total)) * slope

    def _slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """grad Phi(x), and the sum of the four weights at each pixel."""
        slope, total = torch.zeros_like(x), torch.zeros_like(x)
        for axis in (-2, -1):
            g = x - x.roll(1, axis)
            w = weight(g.square() + 1e-6, self.power, self.width)
            slope, total = slope + w * g - (w * g).roll(-1, axis), total + w + w.roll(-1, axis)
        return slope, total


G_MINUS = Spectral()


def welsch(m: Tensor, power: float, width: float) -> Tensor:
    """1 - exp(-m^(a/2) / (2 width^2))."""
    return image_by_image(lambda m: 1 - torch.exp(-(m ** (power / 2)) / (2 * width**2)), m)


def weight(m: Tensor, power: float, width: float) -> Tensor:
    """phi'(g) / g for m = g^2 + epsilon: twice the derivative of :func:`welsch`."""
    scale = 2 * width**2
    return image_by_image(lambda m: power / scale * m ** (power / 2 - 1) * torch.exp(-(m ** (power / 2)) / scale), m)


def spectral(x: Tensor, axis: int) -> Tensor:
    """The derivative along an axis, 2 pi i f in Fourier space, periodic; its adjoint is minus itself."""
    f = torch.fft.fftfreq(x.shape[axis], dtype=x.dtype, device=x.device).view((-1, 1) if axis == -2 else (-1,))
    return torch.fft.ifft(2j * torch.pi * f * torch.fft.fft(x, dim=axis), dim=axis).real

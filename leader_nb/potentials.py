"""Potentials Phi(x) for UCPM: a penalty on differences between neighbours, its gradient, and diagonals of its Hessian.

With w(g) = phi'(g) / g and phi(sqrt u) concave, as for every penalty here, phi lies below the parabola with curvature w(g)
that touches it at g, and the parabolas' matrix D^T W D below twice its own diagonal (each edge joins two pixels). So the
diagonal `mm` = 2 sum w bounds the curvature from above and, for mu > 0, a step of Eq. 14 never raises the objective of Eq. 11:
the descent law. `weight` is half of it: its step may pass the lowest point of the parabolas, but not so far that the objective
rises (the change is at most -sum_i a_i g_i^2 / (a_i + h_i)^2 / 2 with a = 1 / cov). `exact` is the diagonal of the Hessian.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.errors import InputError, unknown

HESSIANS = ("mm", "weight", "exact")


class Potential(Protocol):
    """What UCPM needs of a potential."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def gradient_and_hessian(self, x: Tensor, kind: str = "mm") -> tuple[Tensor, Tensor]: ...


@dataclass(frozen=True)
class EdgePotential(ABC):
    """Phi(x) = mu sum_edges phi(g), g the forward differences of each channel down and to the right, no wrap.

    `mu` is the weight, for images in [-1, 1]. A penalty is three functions of g: phi, its weight w = phi' / g, and phi''.
    """

    mu: float = 0.03

    @abstractmethod
    def phi(self, g: Tensor) -> Tensor: ...

    @abstractmethod
    def weight(self, g: Tensor) -> Tensor: ...

    @abstractmethod
    def bend(self, g: Tensor) -> Tensor: ...

    def slope(self, g: Tensor) -> Tensor:
        """phi'(g)."""
        return self.weight(g) * g

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return differences(x)

    def collect(self, down: Tensor, right: Tensor, sign: float) -> Tensor:
        """Over the edges of each pixel: `sign` times the outgoing values plus the incoming ones."""
        return gather(down, right, sign=sign, inside=sign > 0)

    def __call__(self, x: Tensor) -> Tensor:
        """Phi(x), (B,)."""
        down, right = self.edges(x)
        shared = self.collect(self.phi(down), self.phi(right), 1.0) / 2  # each edge has two ends
        return self.mu * torch.stack([image.sum() for image in shared])

    def gradient(self, x: Tensor) -> Tensor:
        """grad Phi(x), (B, C, H, W)."""
        down, right = self.edges(x)
        return self.mu * self.collect(self.slope(down), self.slope(right), -1.0)

    def hessian(self, x: Tensor, kind: str = "mm") -> Tensor:
        """A diagonal for the Hessian, one of HESSIANS: see the head of this module."""
        return self._diagonal(*self.edges(x), kind)

    def gradient_and_hessian(self, x: Tensor, kind: str = "mm") -> tuple[Tensor, Tensor]:
        """Both at once, sharing the differences."""
        down, right = self.edges(x)
        return self.mu * self.collect(self.slope(down), self.slope(right), -1.0), self._diagonal(down, right, kind)

    def _diagonal(self, down: Tensor, right: Tensor, kind: str) -> Tensor:
        if kind not in HESSIANS:
            raise unknown("hessian", kind, HESSIANS)
        if kind == "exact":
            return self.mu * self.collect(self.bend(down), self.bend(right), 1.0)
        weight = self.mu * self.collect(self.weight(down), self.weight(right), 1.0)
        return 2 * weight if kind == "mm" else weight


def by_image(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """function(x), image by image: powers and exponentials round differently at different places of a tensor."""
    return torch.stack([function(image) for image in x])


def power(x: Tensor, exponent: float) -> Tensor:
    """x^exponent, image by image."""
    return by_image(lambda image: image**exponent, x)


def check_delta(delta: float) -> None:
    if not delta > 0:
        raise InputError(f"delta: got {delta}; give a number > 0, the step in [-1, 1] that counts as an edge")


def check_exponent(a: float, top: float) -> None:
    if not 0 < a <= top:
        raise InputError(f"a: got {a}; give an exponent above 0, at most {top:g}")


@dataclass(frozen=True)
class Quadratic(EdgePotential):
    """phi(g) = g^2 / 2: Tikhonov's smoothness, which spares no edge. Convex."""

    def phi(self, g: Tensor) -> Tensor:
        return g**2 / 2

    def weight(self, g: Tensor) -> Tensor:
        return torch.ones_like(g)

    def bend(self, g: Tensor) -> Tensor:
        return torch.ones_like(g)


@dataclass(frozen=True)
class HuberTV(EdgePotential):
    """phi quadratic for |g| <= delta and linear beyond, g^2 / (2 delta) and |g| - delta / 2. Convex.

    `mu` is the weight, `delta` the size of a step that counts as an edge, both for images in [-1, 1].
    """

    delta: float = 0.03

    def __post_init__(self) -> None:
        check_delta(self.delta)

    def phi(self, g: Tensor) -> Tensor:
        g = g.abs()
        return torch.where(g <= self.delta, g**2 / (2 * self.delta), g - self.delta / 2)

    def slope(self, g: Tensor) -> Tensor:
        return (g / self.delta).clamp(-1, 1)

    def weight(self, g: Tensor) -> Tensor:
        return 1 / g.abs().clamp(min=self.delta)

    def bend(self, g: Tensor) -> Tensor:
        return (g.abs() <= self.delta).to(g) / self.delta


@dataclass(frozen=True)
class Charbonnier(EdgePotential):
    """phi(g) = sqrt(g^2 + delta^2) - delta: total variation without a corner. Convex."""

    delta: float = 0.03

    def __post_init__(self) -> None:
        check_delta(self.delta)

    def phi(self, g: Tensor) -> Tensor:
        return (g**2 + self.delta**2).sqrt() - self.delta

    def weight(self, g: Tensor) -> Tensor:
        return (g**2 + self.delta**2).rsqrt()

    def bend(self, g: Tensor) -> Tensor:
        return self.delta**2 * self.weight(g) ** 3


@dataclass(frozen=True)
class HyperLaplacian(EdgePotential):
    """phi(g) = (g^2 + delta^2)^(a/2), 0 < a <= 1: the heavy tails of photographs (Krishnan & Fergus 2009). Not convex below 1.

    phi'' is negative at edges, so `exact` can be negative; UCPM takes zero instead.
    """

    delta: float = 0.03
    a: float = 0.8

    def __post_init__(self) -> None:
        check_delta(self.delta)
        check_exponent(self.a, 1.0)

    def phi(self, g: Tensor) -> Tensor:
        return power(g**2 + self.delta**2, self.a / 2)

    def weight(self, g: Tensor) -> Tensor:
        return self.a * power(g**2 + self.delta**2, self.a / 2 - 1)

    def bend(self, g: Tensor) -> Tensor:
        m = g**2 + self.delta**2
        return self.a * power(m, self.a / 2 - 1) * (1 + (self.a - 2) * g**2 / m)


@dataclass(frozen=True)
class Welsch:
    """phi(m) = 1 - exp(-m^(a/2) / (2 s^2)) of a squared difference m: bounded, so that a strong edge costs no more.

    `first` and `second` are its derivatives in m; the weight of a difference is w = 2 phi'(m).
    """

    a: float
    s: float

    def value(self, m: Tensor) -> Tensor:
        return 1 - self._outer(m)

    def first(self, m: Tensor) -> Tensor:
        return self._outer(m) * (self.a / (4 * self.s**2)) * power(m, self.a / 2 - 1)

    def second(self, m: Tensor) -> Tensor:
        k = self.a / (4 * self.s**2) * power(m, self.a / 2 - 1)
        return self._outer(m) * (k * (self.a / 2 - 1) / m - k**2)

    def _outer(self, m: Tensor) -> Tensor:
        return by_image(torch.exp, -power(m, self.a / 2) / (2 * self.s**2))


@dataclass(frozen=True)
class GPlus(EdgePotential):
    """G+ of PIRP (after the code believed to be its own): Welsch's penalty on differences that wrap around. Not convex.

    phi(g) = 1 - exp(-(g^2 + epsilon)^(a/2) / (2 s^2)). With these constants w(0) is about 4e4, so a plain gradient step
    needs a tiny weight; the step of Eq. 14 does not.
    """

    mu: float = 1.3
    a: float = 0.2
    s: float = 0.8
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        check_exponent(self.a, 2.0)

    @property
    def welsch(self) -> Welsch:
        return Welsch(self.a, self.s)

    def phi(self, g: Tensor) -> Tensor:
        return self.welsch.value(g**2 + self.epsilon)

    def weight(self, g: Tensor) -> Tensor:
        return 2 * self.welsch.first(g**2 + self.epsilon)

    def bend(self, g: Tensor) -> Tensor:
        return self.weight(g) + 4 * g**2 * self.welsch.second(g**2 + self.epsilon)

    def edges(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x.roll(-1, -2) - x, x.roll(-1, -1) - x

    def collect(self, down: Tensor, right: Tensor, sign: float) -> Tensor:
        return sign * (down + right) + down.roll(1, -2) + right.roll(1, -1)


@dataclass(frozen=True)
class GMinus:
    """G- of PIRP: Welsch's penalty on |grad x|^2, with spectral derivatives 2 pi i f that see all pixels. Not convex.

    Phi(x) = mu sum phi(m), m = g_u^2 + g_v^2 + 2 epsilon. PIRP's weight is *negative*: grad Phi then sharpens, every
    curvature is negative, and UCPM, which never takes h below 0, moves each pixel by cov times the gradient.
    The Nyquist frequency of an even side has no real derivative and is left out.
    """

    mu: float = -0.09
    a: float = 0.5
    s: float = 1.5
    epsilon: float = 1e-4

    def __post_init__(self) -> None:
        check_exponent(self.a, 2.0)

    @property
    def welsch(self) -> Welsch:
        return Welsch(self.a, self.s)

    def __call__(self, x: Tensor) -> Tensor:
        """Phi(x), (B,)."""
        return self.mu * torch.stack([image.sum() for image in self.welsch.value(self._square(x))])

    def gradient(self, x: Tensor) -> Tensor:
        """-mu div(w grad x), (B, C, H, W)."""
        w = 2 * self.welsch.first(self._square(x))
        return -self.mu * (derivative(w * derivative(x, -2), -2) + derivative(w * derivative(x, -1), -1))

    def hessian(self, x: Tensor, kind: str = "mm") -> Tensor:
        """`exact` and `weight` as in the head of this module; `mm` is max(w) times the largest squared frequency.

        Spectral derivatives join every pixel of a row or a column, so no local sum of weights bounds them.
        """
        if kind not in HESSIANS:
            raise unknown("hessian", kind, HESSIANS)
        m = self._square(x)
        w = 2 * self.welsch.first(m)
        if kind == "mm":
            top = sum(frequencies(x, axis).square().max() for axis in (-2, -1))
            return (self.mu * top * w.flatten(1).amax(1).view(-1, 1, 1, 1)).expand_as(x)
        bend = 4 * self.welsch.second(m) if kind == "exact" else torch.zeros_like(m)
        down, right = (spread_squares(w + bend * derivative(x, axis) ** 2, axis) for axis in (-2, -1))
        return self.mu * (down + right)

    def gradient_and_hessian(self, x: Tensor, kind: str = "mm") -> tuple[Tensor, Tensor]:
        return self.gradient(x), self.hessian(x, kind)

    def _square(self, x: Tensor) -> Tensor:
        return derivative(x, -2) ** 2 + derivative(x, -1) ** 2 + 2 * self.epsilon


POTENTIALS: tuple[type, ...] = (Quadratic, HuberTV, Charbonnier, HyperLaplacian, GPlus, GMinus)


# --- Differences ---------------------------------------------------------------------------------------------------


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
        total = F.pad(down[..., :-1, :], (0, 0, 0, 1))
        total += F.pad(right[..., :, :-1], (0, 1, 0, 0))
    else:
        total = down + right
    total *= sign
    total[..., 1:, :] += down[..., :-1, :]
    total[..., :, 1:] += right[..., :, :-1]
    return total


def frequencies(x: Tensor, axis: int) -> Tensor:
    """2 pi f along an axis, zero at the Nyquist frequency, shaped to multiply a spectrum along it."""
    n = x.shape[axis]
    f = 2 * torch.pi * torch.fft.fftfreq(n, dtype=x.dtype, device=x.device)
    if n % 2 == 0:
        f[n // 2] = 0
    return f.view(-1, 1) if axis == -2 else f


def derivative(x: Tensor, axis: int) -> Tensor:
    """The spectral derivative along an axis, per pixel; its adjoint is its negative."""
    return torch.fft.ifft(1j * frequencies(x, axis) * torch.fft.fft(x, dim=axis), dim=axis).real


def spread_squares(v: Tensor, axis: int) -> Tensor:
    """sum_j b_ji^2 v_j with b the matrix of :func:`derivative`: the diagonal of b^T diag(v) b."""
    kernel = torch.fft.ifft(1j * frequencies(v, axis).flatten()).real ** 2
    spectrum = torch.fft.fft(kernel).conj()  # correlation; the squared kernel is even
    spectrum = spectrum.view(-1, 1) if axis == -2 else spectrum
    return torch.fft.ifft(spectrum * torch.fft.fft(v, dim=axis), dim=axis).real

"""Circular blur: diagonal in the unitary Fourier basis, with the kernel's phase in U and its modulus as the spectrum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.operators.base import RANK_TOLERANCE, Operator, truncate


@dataclass(frozen=True, eq=False, repr=False)
class Convolution(Operator):
    """y = k * x, periodic. The full fft2 keeps every slot; real images have Hermitian spectra, so results are real."""

    phase: Tensor  # (1 or B, 1, H, W) complex, modulus 1
    kernel: Tensor  # (1 or B, p, q) float64, as it was given
    batched: ClassVar[tuple[str, ...]] = ("s", "measured", "phase", "kernel")

    def V(self, c: Tensor) -> Tensor:
        return torch.fft.ifft2(c, norm="ortho").real

    def Vt(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def U(self, c: Tensor) -> Tensor:
        return torch.fft.ifft2(self.phase * c, norm="ortho").real

    def Ut(self, y: Tensor) -> Tensor:
        return self.phase.conj() * torch.fft.fft2(y, norm="ortho")

    # What stays among real images needs half of the plane only: the other half mirrors it.

    def __call__(self, x: Tensor) -> Tensor:
        return self.image(self.half(self.phase) * self.half(self.s) * spectrum(x))

    def T(self, y: Tensor) -> Tensor:
        return self.image(self.half(self.phase).conj() * self.half(self.s) * spectrum(y))

    def pinv(self, y: Tensor, ridge: float | Tensor = 0.0) -> Tensor:
        return self.image(self.half(self.phase).conj() * self.half(self.gain(ridge)) * spectrum(y))

    def corrected(self, x: Tensor, seen: Tensor, weight: Tensor) -> Tensor:
        phase = self.half(self.phase)
        residual = seen - phase * self.half(self.s) * spectrum(x)
        return x + self.image(phase.conj() * self.half(weight) * residual)

    def weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        return self.image(self.half(weight) * spectrum(x))

    def read(self, y: Tensor) -> Tensor:
        return spectrum(y)

    def null(self, x: Tensor) -> Tensor:
        return self.image(self.half(self.s == 0).to(x.dtype) * spectrum(x))

    def on_measured(self, z: Tensor) -> Tensor:
        return z  # every slot is measured

    def half(self, c: Tensor) -> Tensor:
        """The columns of a spectrum (..., H, W) that `rfft2` has."""
        return c[..., : self.image_shape[2] // 2 + 1]

    def image(self, c: Tensor) -> Tensor:
        """The real images of half spectra."""
        return plane_safe(lambda c: torch.fft.irfft2(c, s=self.image_shape[1:]), c)


def plane_safe(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """A transform of a batch; of grey images one by one, since the bits of a lone plane are not those of one among several."""
    return f(x) if x.shape[1] > 1 else torch.stack([f(image) for image in x])


def spectrum(x: Tensor) -> Tensor:
    """Half of the plane, (B, C, H, W // 2 + 1)."""
    return plane_safe(torch.fft.rfft2, x)


def convolution(kernel: Tensor, shape: tuple[int, int, int], like: Tensor, tolerance: float = RANK_TOLERANCE) -> Convolution:
    """Circular convolution with `kernel` (p, q) or one per image (B, p, q), p and q odd, centred.

    Frequencies where |k| is below `tolerance` times its maximum are taken out of A: they count as its null space.
    """
    if kernel.ndim not in (2, 3) or not all(side % 2 for side in kernel.shape[-2:]):
        raise InputError(
            f"kernel: got shape {tuple(kernel.shape)}; give (p, q), or (B, p, q) for B images, with p and q odd: an even side"
            " has no centre, and a row or column of zeros makes it odd"
        )
    kernel = kernel.double().reshape(-1, *kernel.shape[-2:])
    padded = torch.zeros(len(kernel), *shape[1:], dtype=torch.float64)
    down, across = (side // 2 for side in kernel.shape[-2:])
    for i in range(kernel.shape[-2]):
        for j in range(kernel.shape[-1]):  # wrap taps that a small image cannot hold
            padded[:, (i - down) % shape[1], (j - across) % shape[2]] += kernel[:, i, j]
    transform = torch.fft.fft2(padded)[:, None]
    modulus = transform.abs()
    s = truncate(modulus, tolerance)
    phase = torch.where(s > 0, transform / modulus.clamp(min=1e-300), torch.ones_like(transform))  # lost: any will do
    complex_dtype = torch.complex128 if like.dtype == torch.float64 else torch.complex64
    s = s.to(like.device, like.dtype)
    phase, kernel, everywhere = phase.to(like.device, complex_dtype), kernel.to(like.device), torch.ones_like(s).bool()
    return Convolution(s, everywhere, shape, phase, kernel, tolerance=tolerance)


def gaussian_kernel(taps: int = 5, std: float = 10.0) -> Tensor:
    """(taps, taps) float64, sums to 1: the paper's Gaussian blur, which at 5 taps and std 10 is nearly a box."""
    line = gaussian_line(taps, std)
    return torch.outer(line, line)


def gaussian_line(taps: int, std: float) -> Tensor:
    """(taps,) float64, sums to 1: a Gaussian at whole offsets, taps odd; std in pixels."""
    x = torch.arange(taps, dtype=torch.float64) - taps // 2
    line = torch.exp(-(x**2) / (2 * std**2))
    return line / line.sum()


def wide_gaussian_line(side: int) -> Tensor:
    """The Gaussian of std 3 pixels on a 256 pixel image, cut at 4 std (25 taps), scaled to an image of `side` pixels."""
    std = 3.0 * side / 256
    return gaussian_line(2 * int(4 * std + 0.5) + 1, std)


def uniform_kernel(taps: int = 9) -> Tensor:
    """(taps, taps) float64: the mean of a square."""
    return torch.full((taps, taps), 1.0 / taps**2, dtype=torch.float64)


def anisotropic_kernel() -> Tensor:
    """(9, 9) float64: a Gaussian of std 1 down and std 20 (nearly a box) across."""
    return torch.outer(gaussian_line(9, 1.0), gaussian_line(9, 20.0))

"""Circular blur: diagonal in the unitary Fourier basis, with the kernel's phase in U and its modulus as the spectrum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.operators.base import Operator, truncate


@dataclass(frozen=True, eq=False)
class Convolution(Operator):
    """y = k * x, periodic. The full fft2 keeps every slot; real images have Hermitian spectra, so results are real."""

    phase: Tensor  # (1 or B, 1, H, W) complex, modulus 1
    batched: ClassVar[tuple[str, ...]] = ("s", "measured", "phase")

    def V(self, c: Tensor) -> Tensor:
        return torch.fft.ifft2(c, norm="ortho").real

    def Vt(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def U(self, c: Tensor) -> Tensor:
        return torch.fft.ifft2(self.phase * c, norm="ortho").real

    def Ut(self, y: Tensor) -> Tensor:
        return self.phase.conj() * torch.fft.fft2(y, norm="ortho")


def convolution(kernel: Tensor, shape: tuple[int, int, int], like: Tensor) -> Convolution:
    """Circular convolution with `kernel` (q, q) or one per image (B, q, q), q odd, centred."""
    kernel = kernel.double().reshape(-1, *kernel.shape[-2:])
    padded = torch.zeros(len(kernel), *shape[1:], dtype=torch.float64)
    half = kernel.shape[-1] // 2
    for i in range(kernel.shape[-2]):
        for j in range(kernel.shape[-1]):  # wrap taps that a small image cannot hold
            padded[:, (i - half) % shape[1], (j - half) % shape[2]] += kernel[:, i, j]
    spectrum = torch.fft.fft2(padded)[:, None]
    modulus = spectrum.abs()
    s = truncate(modulus)
    phase = torch.where(s > 0, spectrum / modulus.clamp(min=1e-300), torch.ones_like(spectrum))  # lost: any will do
    complex_dtype = torch.complex128 if like.dtype == torch.float64 else torch.complex64
    s = s.to(like.device, like.dtype)
    return Convolution(s, torch.ones_like(s, dtype=torch.bool), shape, phase.to(like.device, complex_dtype))


def gaussian_kernel(taps: int = 5, std: float = 10.0) -> Tensor:
    """(taps, taps) float64, sums to 1: the paper's Gaussian blur, which at 5 taps and std 10 is nearly a box."""
    x = torch.arange(taps, dtype=torch.float64) - taps // 2
    line = torch.exp(-(x**2) / (2 * std**2))
    return torch.outer(line, line) / line.sum() ** 2

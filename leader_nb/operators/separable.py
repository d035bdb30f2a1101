"""Separable operators Y = A_h X A_w^T, diagonalised by two small SVDs: bicubic and average-pool downsampling."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.operators.base import Operator, truncate


@dataclass(frozen=True, eq=False)
class Separable(Operator):
    """With A_1 = U_1 diag(s_1) V_1^T on each side, the spectrum is the outer product of the two, kept as an image."""

    u_h: Tensor  # (h, h)
    u_w: Tensor  # (w, w)
    v_h: Tensor  # (H, H)
    v_w: Tensor  # (W, W)

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        return (self.image_shape[0], len(self.u_h), len(self.u_w))

    def V(self, c: Tensor) -> Tensor:
        return sandwich(self.v_h, c, self.v_w)

    def Vt(self, x: Tensor) -> Tensor:
        return sandwich(self.v_h.T, x, self.v_w.T)

    def U(self, c: Tensor) -> Tensor:
        return sandwich(self.u_h, c[..., : len(self.u_h), : len(self.u_w)], self.u_w)

    def Ut(self, y: Tensor) -> Tensor:
        _, height, width = self.image_shape
        c = sandwich(self.u_h.T, y, self.u_w.T)
        return F.pad(c, (0, width - len(self.u_w), 0, height - len(self.u_h)))


def sandwich(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """left @ x @ right^T for each channel of each image, as batched products of one size (batch-independent bits)."""
    flat = x.reshape(-1, *x.shape[-2:])
    n = len(flat)
    half = torch.bmm(left.expand(n, *left.shape), flat)
    return torch.bmm(half, right.T.expand(n, *right.T.shape)).view(*x.shape[:-2], len(left), len(right))


def separable(a_h: Tensor, a_w: Tensor, channels: int, like: Tensor) -> Separable:
    """The operator X -> a_h X a_w^T with a_h (h, H) and a_w (w, W) in float64."""
    u_h, s_h, vt_h = torch.linalg.svd(a_h, full_matrices=True)
    u_w, s_w, vt_w = torch.linalg.svd(a_w, full_matrices=True)
    shape = (channels, a_h.shape[1], a_w.shape[1])
    s = torch.zeros(1, 1, *shape[1:], dtype=torch.float64)
    s[..., : len(s_h), : len(s_w)] = torch.outer(s_h, s_w)
    measured = torch.zeros_like(s, dtype=torch.bool)
    measured[..., : a_h.shape[0], : a_w.shape[0]] = True
    matrices = (m.to(like.device, like.dtype) for m in (u_h, u_w, vt_h.T.contiguous(), vt_w.T.contiguous()))
    return Separable(truncate(s).to(like.device, like.dtype), measured.to(like.device), shape, *matrices)


def bicubic(shape: tuple[int, int, int], factor: int, like: Tensor) -> Separable:
    """Antialiased bicubic downsampling with half-pixel alignment and mirrored borders, (C, H, W) -> (C, H/f, W/f)."""
    _check_multiple(shape, factor)
    return separable(bicubic_matrix(shape[1], factor), bicubic_matrix(shape[2], factor), shape[0], like)


def average_pool(shape: tuple[int, int, int], factor: int, like: Tensor) -> Separable:
    """The mean of each factor x factor patch, (C, H, W) -> (C, H/f, W/f)."""
    _check_multiple(shape, factor)
    rows = [torch.eye(n // factor, dtype=torch.float64).repeat_interleave(factor, 1) / factor for n in shape[1:]]
    return separable(rows[0], rows[1], shape[0], like)


def bicubic_matrix(size: int, factor: int) -> Tensor:
    """(size / f, size) float64: 4 f taps of the Keys kernel (a = -1/2), out-of-range pixels mirrored, rows sum to 1."""
    taps = 4 * factor
    offsets = torch.arange(taps, dtype=torch.float64) - taps / 2 + 0.5
    weights = keys(offsets / factor)
    weights = weights / weights.sum()
    matrix = torch.zeros(size // factor, size, dtype=torch.float64)
    first = factor // 2 - taps // 2
    for row in range(size // factor):
        for k in range(taps):
            j = (row * factor + first + k) % (2 * size)
            matrix[row, min(j, 2 * size - 1 - j)] += weights[k]
    return matrix


def keys(u: Tensor) -> Tensor:
    """The cubic convolution kernel with parameter -1/2 (Keys 1981)."""
    u = u.abs()
    near = 1.5 * u**3 - 2.5 * u**2 + 1
    far = -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
    return torch.where(u <= 1, near, torch.where(u < 2, far, torch.zeros_like(u)))


def _check_multiple(shape: tuple[int, int, int], factor: int) -> None:
    if shape[1] % factor or shape[2] % factor:
        raise InputError(f"image: sides {shape[1]} x {shape[2]} are not multiples of {factor}; crop or pad the image first")

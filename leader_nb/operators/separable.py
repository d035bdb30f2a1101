"""Separable operators Y = A_h X A_w^T, diagonalised by two small SVDs: downsampling, and blur with any border."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.errors import InputError, unknown
from leader_nb.operators.base import RANK_TOLERANCE, Operator, truncate

BORDERS = ("zero", "circular", "reflect", "symmetric")


@dataclass(frozen=True, eq=False, repr=False)
class Separable(Operator):
    """With A_1 = U_1 diag(s_1) V_1^T on each side, the spectrum is the outer product of the two, kept as an image.

    `floor`: values of s_1 below it were set to zero before the product, as the released blurs do.
    """

    u_h: Tensor  # (h, h)
    u_w: Tensor  # (w, w)
    v_h: Tensor  # (H, H)
    v_w: Tensor  # (W, W)
    floor: float = field(default=0.0, kw_only=True)

    @property
    def cutoff(self) -> str:
        """How the rank was decided, in words."""
        return f"s of either axis below {self.floor:g} set to 0" if self.floor else super().cutoff

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

    # A has as many rows as y: what it does to an image takes their slots only, the corner of the spectrum where s may be > 0.

    def __call__(self, x: Tensor) -> Tensor:
        return sandwich(self.u_h, self.corner(self.s) * self.seen(x), self.u_w)

    def T(self, y: Tensor) -> Tensor:
        return self.shown(self.corner(self.s) * sandwich(self.u_h.T, y, self.u_w.T))

    def pinv(self, y: Tensor, ridge: float | Tensor = 0.0) -> Tensor:
        return self.shown(self.corner(self.gain(ridge)) * sandwich(self.u_h.T, y, self.u_w.T))

    def corrected(self, x: Tensor, seen: Tensor, weight: Tensor) -> Tensor:
        residual = seen - self.corner(self.s) * self.seen(x)
        return x + self.shown(self.corner(weight) * residual)

    def weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        if len(self.u_h) == len(self.v_h) and len(self.u_w) == len(self.v_w):
            return super().weighted(x, weight)
        rest = weight[..., -1:, -1:]  # outside the corner all slots have s = 0, and one weight
        return rest * x + self.shown((self.corner(weight) - rest) * self.seen(x))

    def read(self, y: Tensor) -> Tensor:
        return sandwich(self.u_h.T, y, self.u_w.T)

    def null(self, x: Tensor) -> Tensor:
        return x - self.shown(self.corner(self.s).sign() * self.seen(x))

    def on_measured(self, z: Tensor) -> Tensor:
        return z  # every slot of y is measured

    def corner(self, c: Tensor) -> Tensor:
        return c[..., : len(self.u_h), : len(self.u_w)]

    def seen(self, x: Tensor) -> Tensor:
        """The corner of V^T x."""
        return sandwich(self.v_h[:, : len(self.u_h)].T, x, self.v_w[:, : len(self.u_w)].T)

    def shown(self, c: Tensor) -> Tensor:
        """V of a spectrum that is zero outside its corner."""
        return sandwich(self.v_h[:, : len(self.u_h)], c, self.v_w[:, : len(self.u_w)])


def sandwich(left: Tensor, x: Tensor, right: Tensor) -> Tensor:
    """left @ x @ right^T for each channel of each image, as batched products of one size (batch-independent bits)."""
    flat = x.reshape(-1, *x.shape[-2:])
    n = len(flat)
    half = torch.bmm(left.expand(n, *left.shape), flat)
    return torch.bmm(half, right.T.expand(n, *right.T.shape)).view(*x.shape[:-2], len(left), len(right))


def separable(a_h: Tensor, a_w: Tensor, channels: int, like: Tensor, floor: float = 0.0) -> Separable:
    """The operator X -> a_h X a_w^T with a_h (h, H) and a_w (w, W) in float64; `floor` as in :class:`Separable`."""
    u_h, s_h, vt_h = torch.linalg.svd(a_h, full_matrices=True)
    u_w, s_w, vt_w = torch.linalg.svd(a_w, full_matrices=True)
    shape = (channels, a_h.shape[1], a_w.shape[1])
    s = torch.zeros(1, 1, *shape[1:], dtype=torch.float64)
    s[..., : len(s_h), : len(s_w)] = torch.outer(s_h * (s_h >= floor), s_w * (s_w >= floor))
    measured = torch.zeros_like(s, dtype=torch.bool)
    measured[..., : a_h.shape[0], : a_w.shape[0]] = True
    matrices = (m.to(like.device, like.dtype) for m in (u_h, u_w, vt_h.T.contiguous(), vt_w.T.contiguous()))
    s = truncate(s).to(like.device, like.dtype)
    return Separable(s, measured.to(like.device), shape, *matrices, tolerance=RANK_TOLERANCE, floor=floor)


def bicubic(shape: tuple[int, int, int], factor: int, like: Tensor) -> Separable:
    """Antialiased bicubic downsampling with half-pixel alignment and mirrored borders, (C, H, W) -> (C, H/f, W/f)."""
    _check_multiple(shape, factor)
    return separable(bicubic_matrix(shape[1], factor), bicubic_matrix(shape[2], factor), shape[0], like)


def circular_bicubic(shape: tuple[int, int, int], factor: int, like: Tensor) -> Separable:
    """Bicubic downsampling as released Fourier codes have it: taps centred on pixel f p, periodic borders.

    It looks half a patch further up and left than :func:`bicubic`, and is another operator, not an approximation of it.
    """
    _check_multiple(shape, factor)
    offsets = torch.arange(-2 * factor, 2 * factor + 1, dtype=torch.float64)
    taps = keys(offsets / factor)
    rows = [border_matrix(n, taps / taps.sum(), -2 * factor, "circular")[::factor] for n in shape[1:]]
    return separable(rows[0], rows[1], shape[0], like)


def blur(
    taps: Tensor, shape: tuple[int, int, int], like: Tensor, border: str, first: int | None = None, floor: float = 0.0
) -> Separable:
    """The same line of `taps` down and across, with a border that a Fourier transform cannot have.

    `first` is the offset of the first tap, by default that of a centred line; `floor` as in :class:`Separable`.
    """
    first = -(len(taps) // 2) if first is None else first
    a_h, a_w = (border_matrix(n, taps, first, border) for n in shape[1:])
    return separable(a_h, a_w, shape[0], like, floor)


def border_matrix(size: int, taps: Tensor, first: int, border: str) -> Tensor:
    """(size, size) float64 with y_p = sum_o taps_o x_(p + o), o = first, first + 1, ...; beyond its ends, a b c is:

    zero        0 0 | a b c | 0 0     circular    b c | a b c | a b
    reflect     c b | a b c | b a     symmetric   b a | a b c | c b
    """
    if border not in BORDERS:
        raise unknown("border", border, BORDERS)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    place = torch.arange(size)
    for o, tap in enumerate(taps.double(), first):
        j = place + o
        if border == "zero":
            inside = (j >= 0) & (j < size)
            matrix[place[inside], j[inside]] += tap
            continue
        period = {"circular": size, "reflect": max(1, 2 * size - 2), "symmetric": 2 * size}[border]
        j = j % period
        turned = {"circular": j, "reflect": period - j, "symmetric": period - 1 - j}[border]
        matrix[place, torch.where(j < size, j, turned)] += tap
    return matrix


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

"""Compressed sensing: random Walsh-Hadamard coefficients of the image, or random projections of its patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.noise import keyed_normal
from leader_nb.operators.base import Operator

BLOCK = 32  # side of a patch in block compressed sensing


@dataclass(frozen=True, eq=False, repr=False)
class Hadamard(Operator):
    """y = the measured coefficients of H x / sqrt(N) in their places, zeros elsewhere: V = V^T = the transform, U = I.

    H is Sylvester's matrix on the N = H W pixels of a channel, row by row. A A^T = I on measured slots.
    """

    @property
    def reach(self) -> float:
        """The mean coefficient of a white image is sqrt(N)."""
        return math.sqrt(self.image_shape[1] * self.image_shape[2])

    def preview(self, y: Tensor) -> Tensor:
        """A^T y = A^+ y: the image with every coefficient that was not measured taken as zero."""
        return self.T(y)

    def V(self, c: Tensor) -> Tensor:
        return walsh_hadamard(c)

    def Vt(self, x: Tensor) -> Tensor:
        return walsh_hadamard(x)

    def U(self, c: Tensor) -> Tensor:
        return c

    def Ut(self, y: Tensor) -> Tensor:
        return y


def walsh_hadamard(x: Tensor) -> Tensor:
    """H x / sqrt(N) over the last two axes (..., H, W), N = H W a power of two; its own inverse.

    log2 N rounds of sums and differences (p, q) -> (p + q, p - q) of neighbours at distance 1, 2, 4, ..., N / 2.
    """
    flat, distance = x.flatten(-2), 1
    size = flat.shape[-1]
    while distance < size:
        pairs = flat.unflatten(-1, (size // (2 * distance), 2, distance))
        p, q = pairs.unbind(-2)
        flat = torch.stack([p + q, p - q], dim=-2).flatten(-3)
        distance *= 2
    return (flat / size**0.5).view(x.shape)


def hadamard(keep: Tensor, shape: tuple[int, int, int], like: Tensor) -> Hadamard:
    """Measure the Walsh-Hadamard coefficients where `keep` (1 or B, 1 or C, H, W) is true; sides are powers of two."""
    if any(side & (side - 1) for side in shape[1:]):
        low, high = ([f(side) for side in shape[1:]] for f in (power_below, power_above))
        raise InputError(
            f"image: sides {shape[1]} x {shape[2]} are not powers of two, which the Walsh-Hadamard transform needs;"
            f" crop to {low[0]} x {low[1]}, or resize to {high[0]} x {high[1]}"
        )
    keep = keep.to(like.device).bool()
    return Hadamard(keep.to(like.dtype), keep, shape)


def power_below(side: int) -> int:
    """The largest power of two that is at most `side`."""
    return 1 << (max(1, side).bit_length() - 1)


def power_above(side: int) -> int:
    """The smallest power of two that is at least `side`."""
    return 1 << (max(1, side) - 1).bit_length()


def random_slots(shape: tuple[int, int, int], percent: int, seed: int, ids: Sequence[int]) -> Tensor:
    """(len(ids), 1, H, W) bool: `percent` of the coefficients, the mean (slot 0) always among them.

    Drawn on the CPU from (seed, id), so that every device measures the same ones; alike in all channels.
    """
    size = shape[1] * shape[2]
    keep = torch.zeros(len(ids), size, dtype=torch.bool)
    for row, image in zip(keep, ids, strict=True):
        order = keyed_normal((seed, image, "slots"), (size - 1,)).argsort() + 1
        row[order[: max(0, round(size * percent / 100) - 1)]] = True
        row[0] = True
    return keep.view(len(ids), 1, *shape[1:])


# --- patches --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class BlockProjection(Operator):
    """Each patch of each channel is turned by an orthogonal matrix, whose first coefficients are measured: U = I.

    Coefficient k of a patch has its slot at (k // side, k % side) of that patch.
    """

    basis: Tensor  # (n, n), rows are the vectors that a patch of n pixels is projected on

    @property
    def reach(self) -> float:
        """|<v, x>| <= sqrt(n) for a unit vector v of n numbers."""
        return math.sqrt(len(self.basis))

    def preview(self, y: Tensor) -> Tensor:
        """A^T y = A^+ y."""
        return self.T(y)

    def V(self, c: Tensor) -> Tensor:
        return self._turned(self.basis.T, c)

    def Vt(self, x: Tensor) -> Tensor:
        return self._turned(self.basis, x)

    def U(self, c: Tensor) -> Tensor:
        return c

    def Ut(self, y: Tensor) -> Tensor:
        return y

    def _turned(self, matrix: Tensor, x: Tensor) -> Tensor:
        """`matrix` on every patch; one product for each image, so that images of a batch do not feel one another."""
        side = math.isqrt(len(matrix))
        patches = x.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))  # (B, C, H / side, side, W / side, side)
        columns = patches.permute(0, 3, 5, 1, 2, 4).reshape(len(x), len(matrix), -1)
        turned = torch.stack([matrix @ c for c in columns])
        again = turned.view(len(x), side, side, x.shape[1], x.shape[2] // side, x.shape[3] // side)
        return again.permute(0, 3, 4, 1, 5, 2).reshape(x.shape)


def block_projection(shape: tuple[int, int, int], percent: int, like: Tensor, seed: int = 0) -> BlockProjection:
    """`percent` of the coefficients of each 32 x 32 patch in a random orthonormal basis, one for all patches and images."""
    if shape[1] % BLOCK or shape[2] % BLOCK:
        raise InputError(f"image: sides {shape[1]} x {shape[2]} are not multiples of {BLOCK}; crop or pad the image first")
    q, r = torch.linalg.qr(keyed_normal((seed, "blocks"), (BLOCK**2, BLOCK**2)).double())
    basis = (q * r.diagonal().sign()).T.contiguous()  # signs fixed, so that every LAPACK gives the same basis
    patch = (torch.arange(BLOCK**2) < round(BLOCK**2 * percent / 100)).view(BLOCK, BLOCK)
    keep = patch.repeat(shape[1] // BLOCK, shape[2] // BLOCK)[None, None].to(like.device)
    return BlockProjection(keep.to(like.dtype), keep, shape, basis.to(like.device, like.dtype))

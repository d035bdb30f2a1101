"""Operators that act pixel by pixel: denoising, inpainting, colour to grey."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.operators.base import Operator


@dataclass(frozen=True, eq=False, repr=False)
class Mask(Operator):
    """Keep the pixels where `s` is 1 and lose the others: U = V = I. A mask of ones is plain denoising."""

    def V(self, c: Tensor) -> Tensor:
        return c

    def Vt(self, x: Tensor) -> Tensor:
        return x

    def U(self, c: Tensor) -> Tensor:
        return c

    def Ut(self, y: Tensor) -> Tensor:
        return y


@dataclass(frozen=True, eq=False, repr=False)
class Grey(Operator):
    """y = (r + g + b) / 3: a rotation of the colour axes, of which only the grey one (s = 1 / sqrt 3) is kept."""

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        return (1, *self.image_shape[1:])

    def V(self, c: Tensor) -> Tensor:
        return torch.stack([_mix(row, c) for row in COLOUR_AXES], dim=1)

    def Vt(self, x: Tensor) -> Tensor:
        return torch.stack([_mix(column, x) for column in zip(*COLOUR_AXES, strict=True)], dim=1)

    def U(self, c: Tensor) -> Tensor:
        return c[:, :1]

    def Ut(self, y: Tensor) -> Tensor:
        return torch.cat([y, torch.zeros_like(y), torch.zeros_like(y)], dim=1)


def _mix(weights: tuple[float, ...], x: Tensor) -> Tensor:
    """Weighted sum of three channels, written out: a matrix product would let images of a batch feel one another."""
    return weights[0] * x[:, 0] + weights[1] * x[:, 1] + weights[2] * x[:, 2]


# Columns: grey, red against green, yellow against blue; an orthogonal matrix.
COLOUR_AXES = (
    (3**-0.5, 2**-0.5, 6**-0.5),
    (3**-0.5, -(2**-0.5), 6**-0.5),
    (3**-0.5, 0.0, -2 * 6**-0.5),
)


def denoising(shape: tuple[int, int, int], like: Tensor) -> Mask:
    """A = I on images of `shape` (C, H, W)."""
    ones = torch.ones((1, 1, *shape[1:]), dtype=like.dtype, device=like.device)
    return Mask(ones, ones.bool(), shape)


def inpainting(keep: Tensor, shape: tuple[int, int, int], like: Tensor) -> Mask:
    """Keep the pixels where `keep` (1 or B, 1 or C, H, W) is true."""
    keep = keep.to(like.device).bool()
    return Mask(keep.to(like.dtype), keep, shape)


def grey(shape: tuple[int, int, int], like: Tensor) -> Grey:
    """Colour (3, H, W) to grey (1, H, W)."""
    if shape[0] != 3:
        raise InputError(
            f"image: it has {shape[0]} channel{'s' * (shape[0] != 1)}; colour to grey takes 3 (red, green, blue): give colour"
            " images, or another degradation, such as denoise or sr4"
        )
    s = torch.zeros((1, 3, 1, 1), dtype=like.dtype, device=like.device)
    s[:, 0] = 3**-0.5
    s = s.expand(1, 3, *shape[1:]).contiguous()
    return Grey(s, s > 0, shape)

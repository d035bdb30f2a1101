"""What the published U-Nets share: 32-group norms, times as waves, attention over pixels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 32  # of every GroupNorm: the widths of a network must be multiples of it


class RowLinear(nn.Linear):
    """A linear layer as a 1x1 convolution: unlike `nn.Linear`, it gives each image of a batch the bits it has alone."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, in) -> (B, out, 1, 1)."""
        return F.conv2d(x.reshape(*x.shape[:2], 1, 1), self.weight[:, :, None, None], self.bias)


def waves(t: Tensor, width: int, shift: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(sin, cos), (B, width / 2) each, of t w_i with w_i = 10000^(-i / (width / 2 - shift)), for raw times t (B,).

    Computed in float32, as the networks were trained, or in float64 where `dtype` is that; returned in `dtype`.
    """
    half = width // 2
    exact = torch.promote_types(dtype, torch.float32)
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=exact, device=t.device) / (half - shift))
    angle = t.to(exact)[:, None] * frequencies
    return angle.sin().to(dtype), angle.cos().to(dtype)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v for channels-first q, k, v (B, heads, D, pixels) -> (B, heads, D, pixels).

    Contiguous: a convolution takes another path, and gives other bits, for some strides that only a single image has.
    """
    return F.scaled_dot_product_attention(q.mT, k.mT, v.mT).mT.contiguous()

"""What the estimators share: the isotropic guess, the clip, and means over a window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.errors import InputError


def isotropic(sigma: Tensor, variance: float | Tensor) -> Tensor:
    """sigma^2 lambda / (sigma^2 + lambda)."""
    return sigma**2 * variance / (sigma**2 + variance)


def clipped(cov: Tensor, sigma: Tensor) -> Tensor:
    """`cov` within [1e-3 sigma^2 / (1 + sigma^2), min(sigma^2, 1)]; a modelling choice, since Cov <= sigma^2 I can fail."""
    square = sigma**2
    return cov.clamp(min=1e-3 * square / (1 + square), max=square.clamp(max=1.0))


def settled(cov: Tensor, sigma: Tensor, fallback: Tensor, valid: Tensor | None = None) -> Tensor:
    """`cov` clipped; the clipped `fallback` where it is not finite, and for whole images that are not `valid` (B,)."""
    good = torch.isfinite(cov)
    if valid is not None:
        good = good & valid.view(-1, 1, 1, 1)
    return torch.where(good, clipped(cov, sigma), clipped(fallback, sigma))


def everyone(x: Tensor) -> Tensor:
    """The `valid` flag (B,) of a memory that has just been written for every image of x."""
    return torch.ones(len(x), dtype=torch.bool, device=x.device)


def check_window(window: int) -> None:
    if window < 1 or window % 2 == 0:
        raise InputError(f"window: got {window}; give an odd number of pixels")


def box(x: Tensor, window: int) -> Tensor:
    """The mean over a window x window neighbourhood, borders mirrored, (B, C, H, W).

    Shifted sums, first of rows and then of columns: several times faster on a CPU than a pooling layer.
    """
    half, (height, width) = window // 2, x.shape[-2:]
    padded = F.pad(x, (half,) * 4, mode="reflect")
    rows = padded[..., :height, :].clone()
    for i in range(1, window):
        rows += padded[..., i : i + height, :]
    del padded
    total = rows[..., :width].clone()
    for i in range(1, window):
        total += rows[..., i : i + width]
    return total.div_(window**2)

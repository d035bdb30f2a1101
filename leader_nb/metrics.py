"""How good a restoration is: PSNR, SSIM, LPIPS, the data residual, and an honest interval for a mean.

Images are (B, C, H, W) in [-1, 1]; both pictures are clamped there first. Every metric looks at one image at a time, so
a value never depends on what shares the batch, and returns a tensor (B,) on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from leader_nb.data import as_image
from leader_nb.errors import InputError, unknown
from leader_nb.lpips_weights import load_lpips

SSIM_WINDOW = 11  # pixels
SSIM_STRIP = 64  # rows of the map computed at a time
LPIPS_MIN_SIDE = {"alex": 31, "vgg": 16}  # the smallest side that leaves each trunk's last layer one value


def psnr(x: Tensor, reference: Tensor) -> Tensor:
    """Peak signal-to-noise ratio 10 log10(1 / MSE) in dB, (B,) float64; infinite for equal images.

    On [0, 1] RGB over all channels and pixels, no rounding and no border crop, as in the code of DDRM, DDNM and DDPG.
    """
    pairs = _pairs(x, reference, min_side=1)
    return torch.stack([-10 * torch.log10((a - b).square().mean()) for a, b in pairs])


def ssim(x: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity (Wang et al. 2004), (B,) float64, at most 1.

    Gaussian window of 11 pixels and std 1.5, on [0, 1] per channel, averaged over the positions where the window lies
    inside the image, as in the authors' code and in scikit-image. (torchmetrics by itself averages over a reflected
    border too: up to 0.03 apart on 48 pixels.) Raises `InputError` for sides under 11 pixels.
    """
    pairs = _pairs(x, reference, min_side=SSIM_WINDOW)
    return torch.stack([_ssim(a, b) for a, b in pairs])


def _ssim(a: Tensor, b: Tensor) -> Tensor:
    # in strips, because a float64 convolution takes 5 kB of memory for each pixel; the windows are the same
    border, rows = SSIM_WINDOW // 2, range(0, a.shape[-2] - SSIM_WINDOW + 1, SSIM_STRIP)
    strips = [slice(r, r + SSIM_STRIP + SSIM_WINDOW - 1) for r in rows]
    maps = [
        structural_similarity_index_measure(
            a[..., strip, :], b[..., strip, :], data_range=1.0, sigma=1.5, return_full_image=True
        )[1]
        for strip in strips
    ]
    return torch.cat([m[..., border:-border, border:-border] for m in maps], dim=-2).mean()


def lpips_distance(x: Tensor, reference: Tensor, net: str = "alex") -> Tensor:
    """Learned perceptual distance (Zhang et al. 2018, version 0.1), (B,) float32, at least 0; runs on x's device.

    `net` is "alex" (the default here and in DDPG) or "vgg" (DPS, DiffPIR); their values do not compare. The pretrained
    weights are fetched on first use (see `lpips_weights`). Grey images are repeated to three channels. Raises
    `InputError` for sides under 31 (alex) or 16 (vgg) pixels, and `WeightsError` where no weights can be had.
    """
    if net not in LPIPS_MIN_SIDE:
        raise unknown("LPIPS net", net, LPIPS_MIN_SIDE)
    pairs = _pairs(x, reference, min_side=LPIPS_MIN_SIDE[net])
    device = torch.as_tensor(x).device
    model = load_lpips(net, device)
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        values = [model(*(t.mul(2).sub(1).float().expand(-1, 3, -1, -1).to(device) for t in pair)) for pair in pairs]
    return torch.cat(values).flatten().cpu()


def residual(y: Tensor, Ax: Tensor, mask: Tensor | None = None) -> Tensor:
    """Root mean square of y - A x over what was measured, (B,) float64, in the units of y.

    `mask`: 1 where a value was measured and 0 elsewhere, of y's shape or one that broadcasts to it; None for all.
    Compare it with sigma_y: far below means the noise was fitted, far above that the data were not.
    """
    if y.shape != Ax.shape or y.ndim < 2:
        raise InputError(f"residual: y has shape {tuple(y.shape)}, Ax {tuple(Ax.shape)}; give two equal shapes (B, ...)")
    weight = torch.ones_like(y, dtype=torch.float64, device="cpu")
    if mask is not None:
        weight = weight * _mask(mask, y)
    squares = (y.detach().cpu() - Ax.detach().cpu()).abs().double().square()
    squares = torch.where(weight > 0, squares, 0.0)  # a slot that was never measured may hold anything, NaN included
    if not torch.isfinite(squares).all():
        raise InputError("residual: y or Ax holds NaN or infinite values where it was measured; mask them out")
    return (squares.flatten(1).sum(1) / weight.flatten(1).sum(1)).sqrt()


def _mask(mask: Tensor, y: Tensor) -> Tensor:
    mask = mask.detach().cpu().double()
    try:
        mask = mask.expand(y.shape)
    except RuntimeError:
        raise InputError(f"mask: shape {tuple(mask.shape)} does not broadcast to y's {tuple(y.shape)}") from None
    if not ((mask == 0) | (mask == 1)).all():
        raise InputError("mask: give only 0 and 1 (or booleans), 1 where a value was measured")
    if not mask.flatten(1).any(1).all():
        raise InputError("mask: an image has no measured value at all; give each at least one 1")
    return mask


class Interval(NamedTuple):
    """A mean and the ends of its confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: Sequence[float] | np.ndarray | Tensor,
    groups: Sequence[object] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean of `values` (n,) with a percentile bootstrap interval (Efron and Tibshirani 1993, section 13.3).

    `groups` (n,) names what each value belongs to, usually its photograph: whole groups are resampled, because crops
    of one photo are no independent evidence. Without groups every value is its own. With few groups the interval is too
    narrow (10 groups at level 0.95 cover about 0.90). Raises `InputError` for fewer than 2 groups or values not finite.
    """
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    _check_bootstrap(array, groups, level, resamples)
    names = list(range(len(array))) if groups is None else [str(g) for g in groups]
    _, index = np.unique(names, return_inverse=True)
    totals, counts = np.bincount(index, array), np.bincount(index)
    if len(totals) < 2:
        raise InputError(f"groups: all {len(array)} values belong to one group; give at least 2 groups")
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):  # one at a time: memory stays small for any number of groups
        drawn = rng.integers(0, len(totals), len(totals))
        means[i] = totals[drawn].sum() / counts[drawn].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(array.mean()), float(low), float(high))


def _check_bootstrap(array: np.ndarray, groups: Sequence[object] | None, level: float, resamples: int) -> None:
    if array.ndim != 1 or len(array) < 2:
        raise InputError(f"values: got shape {array.shape}; give at least 2 numbers in one row")
    if not np.isfinite(array).all():
        raise InputError(f"values: {int((~np.isfinite(array)).sum())} are NaN or infinite; leave those out and say so")
    if groups is not None and len(groups) != len(array):
        raise InputError(f"groups: got {len(groups)} names for {len(array)} values; give one for each")
    if not 0 < level < 1:
        raise InputError(f"level={level}: give a probability between 0 and 1, for instance 0.95")
    if resamples < 100:
        raise InputError(f"resamples={resamples}: give at least 100, for instance 2000")


def _image(name: str, value: Tensor, tolerance: float) -> Tensor:
    grey = isinstance(value, Tensor | np.ndarray) and value.ndim == 4 and value.shape[1] == 1
    return as_image(value, name, 1 if grey else 3, tolerance)


def _pairs(x: Tensor, reference: Tensor, min_side: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Checks both batches now, then yields pairs (1, C, H, W) float64 in [0, 1] on the CPU."""
    # a restoration may overshoot by any amount; a reference that does is on another scale
    x, reference = _image("x", x, float("inf")), _image("reference", reference, 0.5)
    if x.shape != reference.shape:
        raise InputError(f"x has shape {tuple(x.shape)}, reference {tuple(reference.shape)}; give two equal shapes")
    if min(x.shape[-2:]) < min_side:
        raise InputError(f"x is {x.shape[-2]} x {x.shape[-1]} pixels; this metric needs at least {min_side} a side")
    a, b = (t.detach().cpu().double().clamp(-1, 1).add(1).div(2) for t in (x, reference))
    return zip(a[:, None], b[:, None], strict=True)

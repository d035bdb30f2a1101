"""E14 and E15: maps from a Haar pyramid, where the covariance of images is nearly diagonal. No network call, no training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.covariance.common import box, clipped, everyone, isotropic, settled
from leader_nb.errors import InputError
from leader_nb.priors import Belief
from leader_nb.tree import Tree

START = 30.0  # coefficients that a scale of 1 is worth at first
SLOPES = (1e-4, 0.9999)  # d x0 / d xbar of a coefficient is kept between these


@dataclass(frozen=True)
class PyramidSecant:
    """E14: what E10 does to pixels, done to Haar coefficients, with the shape of the map read off x0 itself (ours).

    A secant reveals J = d x0 / d xbar only as far as other coefficients keep still. Neighbouring pixels move together;
    wavelet coefficients, and luma against chroma, hardly do. Per coefficient, all slopes at the current sigma:

        shape   g = l / (l + sigma^2), l the prior variance for which a Wiener filter answers with the energy e seen in x0:
                e = l^2 / (l + sigma^2);  e mixes the coefficient's own (`own`) with the mean of its 3 x 3 neighbours
        drift   Bayes' rule moves x0 to the new sigma at the old place; d = xbar - xbar', r = x0 - (x0' moved)
        scale   a = sum(d r g) / sum(d d g g) over a level of the pyramid and over past steps, forgetting a share 1 - `keep`
        local   q = (w + sum(d r)) / (w + sum(d d a g)) over 3 x 3 neighbours and past steps: seen over predicted slope,
                drawn towards 1 by `weight` w
        slope   J = a g q,   cov of the coefficient = sigma^2 J

    and a pixel's variance is the sum of those of its coefficients, weighed with the squared entries of the (orthonormal)
    transform, interpolated linearly between them. The first map is that of a 1 / f^2 Gaussian with pixel variance
    `variance`. Sides ought to be multiples of a power of two: an odd side ends the pyramid. No NFE, no backward pass, six
    image buffers. Where the noise has risen, the map starts afresh. Needs a host that injects noise, like E10.
    """

    variance: float = 0.25
    own: float = 0.7
    keep: float = 0.9
    keep_local: float = 0.85
    weight: float = 4.0

    def __post_init__(self) -> None:
        if not all(0 <= v <= 1 for v in (self.own, self.keep, self.keep_local)) or self.weight <= 0 or self.variance <= 0:
            raise InputError(f"PyramidSecant: got {self}; needs shares from 0 to 1, weight > 0 and variance > 0")

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        sigma, x0, xbar = belief.sigma, analyse(belief.x0), analyse(belief.xbar)
        prior = wiener(x0, sigma, self.own)
        lam = spectrum(x0, self.variance)
        first = (lam / (lam + sigma**2)).clamp(*SLOPES)
        slope, sums = first, fresh(x0)
        if memory:
            seen, after = self._advance(x0, xbar, prior, sigma, memory)
            fell = (sigma <= memory["sigma"]).flatten()
            good = torch.stack([torch.isfinite(row).all() for row in seen]) & memory["valid"] & fell
            slope = torch.where(good.view(-1, 1, 1, 1), seen, first)
            sums = {name: torch.where(good.view(-1, *[1] * (v.ndim - 1)), after[name], v) for name, v in sums.items()}
        cov = clipped(sigma**2 * pixels(slope), sigma)
        state = {"slope": slope, "prior": prior, "x0": x0, "xbar": xbar, "sigma": sigma, "valid": everyone(cov)}
        return cov, state | sums

    def _advance(self, x0: Tensor, xbar: Tensor, prior: Tensor, sigma: Tensor, memory: Tree) -> tuple[Tensor, Tree]:
        """The slopes of all coefficients, and the sums over past steps."""
        cov, kappa = memory["sigma"] ** 2 * memory["slope"], sigma**-2 - memory["sigma"] ** -2
        mean = (memory["x0"] / cov + kappa * memory["xbar"]) / (1 / cov + kappa)  # drift
        moved = xbar - memory["xbar"]
        unit = painted(level_means(moved**2), moved)
        unit = torch.where(unit > 0, unit, 1.0)
        cross, power = moved * (x0 - mean) / unit, moved**2 / unit
        shape = (memory["prior"] / (memory["prior"] + sigma**2)).clamp(1e-6, SLOPES[1])  # before this step: no peeking
        size, count = level_means(shape**2), level_counts(shape)
        hits = self.keep * memory["hits"] + count * level_means(cross * shape) / size
        tries = self.keep * memory["tries"] + count * level_means(power * shape**2) / size
        scale = painted((hits / tries).clamp(0.02, 3.0), shape)
        predicted = scale * shape
        usual = painted(level_means(predicted), shape)
        seen = self.keep_local * memory["seen"] + pooled(cross) / usual
        expected = self.keep_local * memory["expected"] + pooled(power * predicted) / usual
        local = ((seen + self.weight) / (expected + self.weight)).clamp(0.1, 10.0)
        slope = (scale * prior / (prior + sigma**2) * local).clamp(*SLOPES)
        return slope, {"hits": hits, "tries": tries, "seen": seen, "expected": expected}


@dataclass(frozen=True)
class PyramidWiener:
    """E15: the shape of E14 without its secants: what a Wiener filter that gives this answer would be unsure of (ours).

    With a prior variance l of its own for each Haar coefficient, x0 = g xbar and the variance is sigma^2 g, where
    g = l / (l + sigma^2). The energy of the answer, E x0^2 = l^2 / (l + sigma^2) = e, gives l back; e mixes the
    coefficient's own (a share `own`) with the mean of its 3 x 3 neighbours. It looks at one state alone, so that a host may
    inject noise or not; nothing checks its level, as the secants of E14 do. No NFE, no backward pass, three image buffers,
    no memory.
    """

    own: float = 0.7

    def __post_init__(self) -> None:
        if not 0 <= self.own <= 1:
            raise InputError(f"own: got {self.own}; give a share from 0 to 1")

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        sigma = belief.sigma
        prior = wiener(analyse(belief.x0), sigma, self.own)
        cov = sigma**2 * pixels((prior / (prior + sigma**2)).clamp(*SLOPES))
        return settled(cov, sigma, isotropic(sigma, 0.25).expand_as(cov)), memory


def wiener(x0: Tensor, sigma: Tensor, own: float) -> Tensor:
    """l of each coefficient, the positive root of l^2 = e (l + sigma^2)."""
    energy = own * x0**2 + (1 - own) * pooled(x0**2)
    return (energy + (energy**2 + 4 * energy * sigma**2).sqrt()) / 2


def fresh(x: Tensor) -> Tree:
    """Sums of an image that has not moved yet."""
    start = x.new_full((len(x), depth(x) + 1), START)
    return {"hits": start, "tries": start, "seen": torch.zeros_like(x), "expected": torch.zeros_like(x)}


# --- The transform: an orthonormal Haar pyramid, packed into the shape of the image, coarse in the upper left corner ---


def depth(x: Tensor) -> int:
    """How often both sides can be halved; the coarsest level keeps at least 2 x 2 coefficients."""
    height, width = x.shape[-2:]
    levels = 0
    while height % 2 == 0 and width % 2 == 0 and min(height, width) >= 4:
        height, width, levels = height // 2, width // 2, levels + 1
    return levels


def analyse(x: Tensor) -> Tensor:
    """Coefficients of x (B, C, H, W), the same shape; three channels are turned into luma and two differences first."""
    x = turned(x)
    out = x.clone()
    for _ in range(depth(x)):
        a, b, c, d = x[..., 0::2, 0::2], x[..., 0::2, 1::2], x[..., 1::2, 0::2], x[..., 1::2, 1::2]
        height, width = a.shape[-2:]
        out[..., :height, width : 2 * width] = (a - b + c - d) / 2
        out[..., height : 2 * height, :width] = (a + b - c - d) / 2
        out[..., height : 2 * height, width : 2 * width] = (a - b - c + d) / 2
        x = (a + b + c + d) / 2
        out[..., :height, :width] = x
    return out


def turned(x: Tensor) -> Tensor:
    """RGB -> (r + g + b) / sqrt 3, (r - b) / sqrt 2, (r - 2 g + b) / sqrt 6; other numbers of channels stay."""
    if x.shape[1] != 3:
        return x
    r, g, b = x.unbind(1)
    return torch.stack([(r + g + b) / 3**0.5, (r - b) / 2**0.5, (r - 2 * g + b) / 6**0.5], dim=1)


def pixels(variance: Tensor) -> Tensor:
    """The variance of every pixel, from those of independent coefficients; linear between the centres of their supports."""
    levels = bands(variance)
    total = levels[0][0]
    for level in levels[1:]:
        total = F.interpolate((total + sum(level)) / 4, scale_factor=2, mode="bilinear", align_corners=False)
    if total.shape[1] != 3:
        return total
    luma, ends, middle = total.unbind(1)
    outer = luma / 3 + ends / 2 + middle / 6
    return torch.stack([outer, luma / 3 + 2 * middle / 3, outer], dim=1)


def bands(packed: Tensor) -> list[list[Tensor]]:
    """Views, coarse to fine: the mean, then three details per level, (B, C, h, w) each."""
    height, width = packed.shape[-2:]
    levels = []
    for _ in range(depth(packed)):
        h, w = height // 2, width // 2
        levels.append([packed[..., :h, w:width], packed[..., h:height, :w], packed[..., h:height, w:width]])
        height, width = h, w
    return [[packed[..., :height, :width]], *levels[::-1]]


def level_means(packed: Tensor) -> Tensor:
    """The mean over each level and all channels, (B, levels), image by image so that none feels its batch."""
    levels = [torch.stack([torch.stack([image.mean() for image in band]) for band in level]) for level in bands(packed)]
    return torch.stack([level.mean(0) for level in levels], dim=1)


def level_counts(packed: Tensor) -> Tensor:
    """Number of coefficients in each level, (levels,)."""
    return packed.new_tensor([sum(band[0].numel() for band in level) for level in bands(packed)])


def painted(values: Tensor, like: Tensor) -> Tensor:
    """Level values (B, levels) on the coefficients of their level, (B, C, H, W)."""
    out = torch.empty_like(like)
    for i, level in enumerate(bands(out)):
        for band in level:
            band[:] = values[:, i].view(-1, 1, 1, 1)
    return out


def pooled(packed: Tensor) -> Tensor:
    """The mean over 3 x 3 neighbours within each band."""
    out = torch.empty_like(packed)
    for source, target in zip(bands(packed), bands(out), strict=True):
        for a, b in zip(source, target, strict=True):
            b[:] = box(a, 3 if min(a.shape[-2:]) > 1 else 1)
    return out


def spectrum(x: Tensor, variance: float) -> Tensor:
    """Prior variances of coefficients that fall with the square of the scale, as 1 / f^2 does; `variance` for each pixel."""
    levels = depth(x)
    rise = [4.0 ** (levels + 1), *(4.0**level for level in range(levels, 0, -1))]
    pixel = rise[0] / 4**levels + sum(3 * r / 4**level for r, level in zip(rise[1:], range(levels, 0, -1), strict=True))
    return painted(x.new_tensor(rise).expand(len(x), -1) * variance / pixel, x)

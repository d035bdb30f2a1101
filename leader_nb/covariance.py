"""Estimators of the diagonal of Cov(x0 | x_t), as images: where the prior is unsure, for no extra network call.

Each has `update(belief, injected, memory) -> (cov, memory)`: `injected` is the fresh noise inside x_t (None at first),
`memory` a tree of (B, ...) tensors with a `valid` flag per image; an empty tree starts afresh. Numbers E0, E1, E10 are
the book's. The paper does not say how it obtains the diagonal of F: all of these are readings of it, or reconstructions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.equations import covariance_from_fisher, score
from leader_nb.errors import InputError
from leader_nb.priors import Belief
from leader_nb.tree import Tree


@dataclass(frozen=True)
class Isotropic:
    """E0: sigma^2 lambda / (sigma^2 + lambda), the posterior variance under N(0, lambda I); blind to the image."""

    variance: float = 0.25

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        return isotropic(belief.sigma, self.variance).expand_as(belief.x0), memory


@dataclass(frozen=True)
class ScoreSquared:
    """E1: Eq. 10 with diag F read as score * score, that is sigma^2 (1 - eps^2): the literal observed Fisher.

    Right on average over images and noise, but wild pixel by pixel: a third of its values are negative at high noise.
    With `clip` they are brought into [1e-3 sigma^2 / (1 + sigma^2), min(sigma^2, 1)].
    """

    clip: bool = True

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        cov = covariance_from_fisher(score(belief.eps, belief.abar).square(), belief.abar)
        return clipped(cov, belief.sigma) if self.clip else cov, memory


@dataclass(frozen=True)
class RunningSecant:
    """E10: a windowed, diagonal Free Hunch (after Rissanen, Heinonen & Solin 2025); needs a host that injects noise.

    Carries (cov, x0, xbar, sigma) along. Bayes' rule moves them exactly to the new noise level at the old place; what
    x0 then does between the old place and the new one reveals d x0 / d xbar = cov / sigma^2, a slope that is fitted in
    a `window` x `window` neighbourhood and mixed half and half, geometrically, with the prediction. No NFE, no backward
    pass, about five image buffers.
    """

    window: int = 5
    variance: float = 0.25

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise InputError(f"window: got {self.window}; give an odd number of pixels")

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        sigma, xbar = belief.sigma, belief.xbar
        first = isotropic(sigma, self.variance).expand_as(belief.x0)
        cov = self._advance(belief, memory, sigma, xbar, first) if memory else clipped(first, sigma)
        valid = torch.ones(len(cov), dtype=torch.bool, device=cov.device)
        return cov, {"cov": cov, "x0": belief.x0, "xbar": xbar, "sigma": sigma, "valid": valid}

    def _advance(self, belief: Belief, memory: Tree, sigma: Tensor, xbar: Tensor, first: Tensor) -> Tensor:
        kappa = sigma**-2 - memory["sigma"] ** -2
        predicted = 1 / (1 / memory["cov"] + kappa)
        mean = predicted * torch.addcmul(memory["x0"] / memory["cov"], kappa, memory["xbar"])
        moved = xbar - memory["xbar"]
        cross = box(moved * (belief.x0 - mean), self.window)
        secant = clipped(sigma**2 * cross.div_(box(moved * moved, self.window)), sigma)
        cov = clipped(secant.mul_(predicted).sqrt_(), sigma)
        valid = memory["valid"].view(-1, 1, 1, 1) & torch.isfinite(cov)
        return torch.where(valid, cov, clipped(first, sigma))


def isotropic(sigma: Tensor, variance: float) -> Tensor:
    """sigma^2 lambda / (sigma^2 + lambda)."""
    return sigma**2 * variance / (sigma**2 + variance)


def clipped(cov: Tensor, sigma: Tensor) -> Tensor:
    """`cov` within [1e-3 sigma^2 / (1 + sigma^2), min(sigma^2, 1)]; a modelling choice, since Cov <= sigma^2 I can fail."""
    square = sigma**2
    return cov.clamp(min=1e-3 * square / (1 + square), max=square.clamp(max=1.0))


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

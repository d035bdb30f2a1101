"""Maps that do not look at the image: one number for each noise level (E0, E2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.covariance.common import isotropic
from leader_nb.equations import diffuse
from leader_nb.errors import InputError, unknown
from leader_nb.noise import noise_for
from leader_nb.priors import Belief, Prior
from leader_nb.tree import Tree

MEASURES = ("score", "error")


@dataclass(frozen=True)
class Isotropic:
    """E0: sigma^2 lambda / (sigma^2 + lambda), the posterior variance under N(0, lambda I); blind to the image.

    lambda = 1 is the choice of PiGDM (Song et al. 2023). Cost: none; no memory.
    """

    variance: float = 0.25

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        return isotropic(belief.sigma, self.variance).expand_as(belief.x0), memory


@dataclass(frozen=True)
class Analytic:
    """E2: sigma^2 (1 - Gamma), Gamma = E ||eps||^2 / N, from a table made once per prior (Analytic-DPM, Bao et al. 2022).

    `table` holds (sigma, variance) pairs, sigma rising; between them variance / sigma^2 is interpolated, both axes
    logarithmic, and beyond the ends that ratio is held. Make one with :func:`measure_table`. The same number for every
    pixel and image. Cost: none in a run (one NFE per image and level for the table); no memory.
    """

    table: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        levels = [s for s, _ in self.table]
        if not levels or levels != sorted(set(levels)) or not all(s > 0 and v > 0 for s, v in self.table):
            raise InputError(f"table: got {self.table[:3]}...; give pairs (sigma, variance) above 0, sigma rising")

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        ratio = torch.stack([self._ratio(s) for s in belief.sigma.flatten()]).view_as(belief.sigma)
        return (belief.sigma**2 * ratio).expand_as(belief.x0), memory

    def _ratio(self, sigma: Tensor) -> Tensor:
        """variance / sigma^2 at one noise level."""
        x = torch.tensor([math.log(s) for s, _ in self.table], dtype=torch.float64)
        y = torch.tensor([math.log(v / s**2) for s, v in self.table], dtype=torch.float64)
        return interpolate(sigma.double().cpu().log(), x, y).exp().to(sigma)


def interpolate(at: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Piecewise linear through (x_i, y_i), x rising, at one place; constant beyond the ends. y may be (K, ...)."""
    if len(x) == 1:
        return y[0]
    right = int(torch.searchsorted(x, at).clamp(1, len(x) - 1))
    part = ((at - x[right - 1]) / (x[right] - x[right - 1])).clamp(0, 1)
    return y[right - 1] + part * (y[right] - y[right - 1])


def noisy(prior: Prior, x: Tensor, t: int, seed: int = 0) -> tuple[Belief, Tensor]:
    """The belief about x (B, C, H, W) after diffusion to raw time t, and the noise that was added."""
    times = torch.full((len(x),), t)
    eps = noise_for(len(x), seed)(f"calibration {t}", x)
    return prior(diffuse(x, eps, prior.schedule.abar(times, x)), times), eps


def measure_table(
    prior: Prior, images: Tensor, times: Sequence[int], measure: str = "error", seed: int = 0
) -> tuple[tuple[float, float], ...]:
    """The table of E2 from images (B, C, H, W), never the ones to be judged on; one NFE per image and raw time.

    `measure` is "score", sigma^2 (1 - mean eps^2), which drowns in noise at high sigma, or "error", mean (x0 - x_true)^2
    (Peng et al. 2024). For an exact posterior mean both have the same expectation, mean Tr Cov / N.
    """
    if measure not in MEASURES:
        raise unknown("measure", measure, MEASURES)
    pairs = []
    for t in times:
        belief, _ = noisy(prior, images, t, seed)
        square = belief.sigma[0].item() ** 2
        error = (belief.x0 - images).double().square().mean().item()
        variance = error if measure == "error" else square * (1 - belief.eps.double().square().mean().item())
        pairs.append((square**0.5, max(variance, 1e-6 * square / (1 + square))))
    return tuple(sorted(pairs))

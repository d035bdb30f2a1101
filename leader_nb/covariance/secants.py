"""Maps from how the answer moved while the sampler walked: no network call beside the sampler's own (E10, E11, E12)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from leader_nb.covariance.common import box, check_window, clipped, everyone, isotropic, settled
from leader_nb.priors import Belief
from leader_nb.tree import Tree


class Still(Protocol):
    """An estimator that looks at one state alone, such as :class:`leader_nb.covariance.PyramidWiener`."""

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]: ...


@dataclass(frozen=True)
class RunningSecant:
    """E10: a windowed, diagonal Free Hunch (after Rissanen, Heinonen & Solin 2025); needs a host that injects noise.

    Carries (cov, x0, xbar, sigma) along. Bayes' rule moves them exactly to the new noise level at the old place; what
    x0 then does between the old place and the new one reveals d x0 / d xbar = cov / sigma^2, a slope that is fitted in
    a `window` x `window` neighbourhood and mixed half and half, geometrically, with the prediction. No NFE, no backward
    pass, about five image buffers. Bayes' rule goes down only: where the noise has risen, the map starts afresh.

    Where a step injected nothing, what moved the state is the prior and the data, and the secant measures those: inside IDPG
    its map is several times too large, and says nothing of where. `still` is the estimator that speaks in that case, image
    by image; without one (None) the secant does. Steps that inject noise are the same to the last bit with it.
    """

    window: int = 5
    variance: float = 0.25
    still: Still | None = None

    def __post_init__(self) -> None:
        check_window(self.window)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        sigma, xbar = belief.sigma, belief.xbar
        first = clipped(isotropic(sigma, self.variance), sigma)
        cov = self._advance(belief, memory, sigma, xbar, first) if memory else first.expand_as(belief.x0).contiguous()
        if memory and self.still is not None:
            cov = self._unmoved(cov, belief, injected, memory["valid"])
        return cov, {"cov": cov, "x0": belief.x0, "xbar": xbar, "sigma": sigma, "valid": everyone(cov)}

    def _advance(self, belief: Belief, memory: Tree, sigma: Tensor, xbar: Tensor, first: Tensor) -> Tensor:
        kappa = sigma**-2 - memory["sigma"] ** -2
        predicted = 1 / (1 / memory["cov"] + kappa)
        mean = predicted * torch.addcmul(memory["x0"] / memory["cov"], kappa, memory["xbar"])
        moved = xbar - memory["xbar"]
        cross = box((belief.x0 - mean).mul_(moved), self.window)
        del mean
        secant = clipped(sigma**2 * cross.div_(box(moved.square_(), self.window)), sigma)
        del moved, cross
        cov = clipped(secant.mul_(predicted).sqrt_(), sigma)
        fell = sigma <= memory["sigma"]
        valid = memory["valid"].view(-1, 1, 1, 1) & fell & torch.isfinite(cov)
        return torch.where(valid, cov, first)

    def _unmoved(self, cov: Tensor, belief: Belief, injected: Tensor | None, valid: Tensor) -> Tensor:
        """The map of `still` for the images whose last step injected nothing."""
        alone = valid if injected is None else valid & ~injected.flatten(1).any(1)
        if self.still is None or not bool(alone.any()):
            return cov
        other, _ = self.still.update(belief, None, {})
        return torch.where(alone.view(-1, 1, 1, 1), clipped(other, belief.sigma), cov)


@dataclass(frozen=True)
class NoiseReuse:
    """E11: sigma^2 G[n (x0 - x0')] / G[n n]: Hutchinson's estimate with the sampler's own fresh noise n as the probe.

    n is the noise inside xbar that the last step injected, x0' the answer before it, G the mean over a `window` x `window`
    neighbourhood. Unbiased as far as x0' and the rest of the step know nothing of n; noisy, since each step gives a single
    probe. Where no noise was injected, the last map is kept, its slope moved to the new sigma; at first, E0 for `variance`.
    No NFE, no backward pass, two image buffers.
    """

    window: int = 5
    variance: float = 0.25

    def __post_init__(self) -> None:
        check_window(self.window)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        sigma = belief.sigma
        first = isotropic(sigma, self.variance).expand_as(belief.x0)
        cov = clipped(first, sigma)
        if memory:
            valid = memory["valid"]
            kept = settled(isotropic(sigma, memory["prior"]), sigma, first, valid)
            noise = torch.zeros_like(belief.x0) if injected is None else injected / belief.abar.sqrt()
            slope = box(noise * (belief.x0 - memory["x0"]), self.window) / box(noise * noise, self.window)
            cov = settled(sigma**2 * slope, sigma, kept, valid)
        return cov, {"x0": belief.x0, "prior": prior_variance(cov, sigma), "valid": everyone(cov)}


@dataclass(frozen=True)
class MinusSlope:
    """E12: -sigma^2 G[dxbar dx0] / G[dxbar dxbar], for walks without fresh noise (eta = 0) and without a measurement.

    Along the probability-flow ODE d xbar = eps d sigma, and for a Gaussian prior d x0 = -J d xbar: the answer moves against
    the state, because the drift in sigma outweighs the slope. Exact there for short steps; a data step that shifts the
    state damages it. At first, and where nothing moved, E0 for `variance`. No NFE, no backward pass, two image buffers.
    """

    window: int = 5
    variance: float = 0.25

    def __post_init__(self) -> None:
        check_window(self.window)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        sigma, xbar = belief.sigma, belief.xbar
        first = isotropic(sigma, self.variance).expand_as(belief.x0)
        cov = clipped(first, sigma)
        if memory:
            moved = xbar - memory["xbar"]
            slope = -box(moved * (belief.x0 - memory["x0"]), self.window) / box(moved * moved, self.window)
            cov = settled(sigma**2 * slope, sigma, first, memory["valid"])
        return cov, {"x0": belief.x0, "xbar": xbar, "valid": everyone(cov)}


def prior_variance(cov: Tensor, sigma: Tensor) -> Tensor:
    """lambda with sigma^2 lambda / (sigma^2 + lambda) = cov: what a Gaussian prior would have had to be."""
    square = sigma**2
    return cov * square / (square - cov).clamp(min=1e-6 * square)

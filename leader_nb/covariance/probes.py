"""Maps that ask the network again: references, too dear for every step (E5 to E8).

Probes are random signs, a function of (seed, the state x_t, the number of the probe): the same for an image in any batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.covariance.common import box, check_window, clipped
from leader_nb.errors import InputError
from leader_nb.noise import Noise
from leader_nb.priors import Belief, complete
from leader_nb.tree import Tree


@dataclass(frozen=True)
class Hutchinson:
    """E5: sigma^2 mean_j v_j * (J^T v_j), J = d x0 / d xbar, over random signs v_j (Hutchinson 1990). Unbiased.

    Costs m = `probes` backward passes, and one NFE unless the belief kept its graph, whose activations stay in memory.
    """

    probes: int = 1
    window: int = 1
    clip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_probes(self.probes, self.window)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        kept = with_graph(belief)
        return finish(self, belief, probed(belief, lambda v: belief.abar.sqrt() * kept.vjp(v), self.probes, self.seed)), memory


@dataclass(frozen=True)
class ForwardProbes:
    """E6: sigma^2 mean_j v_j * (J v_j), forward-mode derivatives (Pearlmutter 1994). Unbiased, and for the exact posterior
    mean, whose J is symmetric, the same number as E5.

    Costs m = `probes` dual passes, counted as one NFE each; no backward pass, twice the activations.
    """

    probes: int = 1
    window: int = 1
    clip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_probes(self.probes, self.window)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        if belief.prior.meter is not None:
            belief.prior.meter.count(nfe=self.probes)

        def answer(xbar: Tensor) -> Tensor:
            x_t = belief.abar.sqrt() * xbar
            return complete(belief.prior.predict(x_t, belief.t, belief.schedule), x_t, belief.abar)[1]

        def product(v: Tensor) -> Tensor:
            return torch.func.jvp(answer, (belief.xbar.detach(),), (v,))[1].detach()

        return finish(self, belief, probed(belief, product, self.probes, self.seed)), memory


@dataclass(frozen=True)
class DifferenceProbes:
    """E7: sigma^2 mean_j v_j * (x0(xbar + delta v_j) - x0(xbar)) / delta with delta = `step` sigma (as in CA-DPS, 2024).

    Costs m = `probes` NFE, no backward pass, two image buffers; its bias is of order `step`.
    """

    probes: int = 1
    window: int = 1
    clip: bool = False
    seed: int = 0
    step: float = 0.1

    def __post_init__(self) -> None:
        check_probes(self.probes, self.window)
        if not self.step > 0:
            raise InputError(f"step: got {self.step}; give a share of sigma above 0, such as 0.1")

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        delta = self.step * belief.sigma

        def product(v: Tensor) -> Tensor:
            return (belief.evaluate(belief.x_t + belief.abar.sqrt() * delta * v).x0 - belief.x0) / delta

        return finish(self, belief, probed(belief, product, self.probes, self.seed)), memory


@dataclass(frozen=True)
class RowSums:
    """E8: sigma^2 J^T 1, the row sums of the covariance in place of its diagonal (TMPD, Boys et al. 2024).

    The diagonal where pixels are independent given x_t; where they move together, too large by the sum of what they share.
    Costs one backward pass, and one NFE unless the belief kept its graph.
    """

    clip: bool = False

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        cov = belief.sigma**2 * belief.abar.sqrt() * with_graph(belief).vjp(torch.ones_like(belief.x0))
        return clipped(cov, belief.sigma) if self.clip else cov, memory


def check_probes(probes: int, window: int) -> None:
    check_window(window)
    if probes < 1:
        raise InputError(f"probes: got {probes}; give at least 1")


def probed(belief: Belief, product: Callable[[Tensor], Tensor], count: int, seed: int) -> Tensor:
    """sigma^2 times the mean of v * product(v) over `count` probes v."""
    total = torch.zeros_like(belief.x0)
    for i in range(count):
        v = signs(belief, seed, i)
        total = total + v * product(v)
    return belief.sigma**2 * total / count


def finish(rule: Hutchinson | ForwardProbes | DifferenceProbes, belief: Belief, cov: Tensor) -> Tensor:
    """The map averaged over the window, and clipped, as the rule says."""
    cov = box(cov, rule.window) if rule.window > 1 else cov
    return clipped(cov, belief.sigma) if rule.clip else cov


def with_graph(belief: Belief) -> Belief:
    """The belief with its graph kept: itself, or one more NFE."""
    return belief if belief.graph is not None else belief.evaluate(belief.x_t, gradient=True)


def signs(belief: Belief, seed: int, number: int) -> Tensor:
    """Random signs shaped like x0, keyed for each image by its own state."""
    ids = [hashlib.blake2b(x.double().cpu().contiguous().numpy().tobytes(), digest_size=8).digest() for x in belief.x_t]
    noise = Noise(seed, tuple(int.from_bytes(i, "little") for i in ids))
    return torch.where(noise(f"probe {number}", belief.x0) < 0, -1.0, 1.0).to(belief.x0)

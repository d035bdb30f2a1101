"""Controls: what an uncertainty map must beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from leader_nb.equations import uncertainty
from leader_nb.loop import Covariance, Modulate
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.tree import Tree


@dataclass(frozen=True)
class Flat:
    """The map of `estimator`, replaced by its mean over each image: one weight for all pixels, of the same size on average.

    The estimator keeps its own memory, and runs as it would without this wrapper. Everything sees the flat map, a step rule
    too: one that reads the root mean square (:class:`leader_nb.steps.ErrorControlled`) takes longer steps for it.
    """

    estimator: Covariance

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        cov, memory = self.estimator.update(belief, injected, memory)
        return flattened(cov), memory


@dataclass(frozen=True)
class FlatModulation:
    """`modulate` with the mean of the map; the step rule still sees the map itself, so that the calls are nearly the same."""

    modulate: Modulate

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        return self.modulate(belief, flattened(cov), problem)


def flattened(cov: Tensor) -> Tensor:
    """The mean over each image, in the shape of the map."""
    return uncertainty(cov).view(-1, 1, 1, 1).expand_as(cov)

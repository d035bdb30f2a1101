"""Controls: what an uncertainty map must beat."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from leader_nb.equations import uncertainty
from leader_nb.loop import Covariance
from leader_nb.priors import Belief
from leader_nb.tree import Tree


@dataclass(frozen=True)
class Flat:
    """The map of `estimator`, replaced by its mean over each image: one weight for all pixels, of the same size on average.

    The estimator keeps its own memory, and runs as it would without this wrapper.
    """

    estimator: Covariance

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        cov, memory = self.estimator.update(belief, injected, memory)
        return uncertainty(cov).view(-1, 1, 1, 1).expand_as(cov), memory

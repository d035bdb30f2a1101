"""Memory counted tensor by tensor: what a restoration holds beside its network, the same on every machine."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leader_nb.loop import restore
from leader_nb.noise import noise_for
from leader_nb.priors import Prediction, Prior
from leader_nb.problem import Problem
from leader_nb.samplers import Sampler
from leader_nb.schedule import Schedule


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside hold at any moment; a storage is dropped when the last tensor on it is."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        old = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.watch(tensor.untyped_storage(), old)
        return out

    def watch(self, storage: torch.UntypedStorage, old: set[int]) -> None:
        key = storage._cdata
        if key not in self.live and key not in old:
            self.live[key] = storage.nbytes()
            weakref.finalize(storage, self.live.pop, key, None)
            self.peak = max(self.peak, sum(self.live.values()))


def peak_images(problem: Problem, sampler: Sampler, steps: int, plugins: dict[str, Any]) -> float:
    """Peak memory of a restoration whose prior needs none of its own, in images (batches of them, in the dtype of y).

    A host that differentiates its prior gets one more image, since something must depend on x; a real network's
    activations, which such a host keeps, are not counted.
    """
    answer = problem.y.new_zeros(len(problem), *problem.operator.image_shape)

    def predict(x: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        return Prediction(x0=answer.add(x, alpha=0.0) if x.requires_grad else answer)

    with PeakMemory() as memory:
        restore(problem, Prior(predict), sampler, grid=steps, noise=noise_for(len(problem)), **plugins)
    return memory.peak / (answer.numel() * answer.element_size())

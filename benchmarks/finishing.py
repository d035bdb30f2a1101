"""Plain smoothing of a finished picture, with the measurement put back after each step: what UCPM has to beat (`ablations.py`).

UCPM takes one step of Eq. 14 at every call of the network, and the host's data step follows each. The same without a walk is

    x <- x - Lambda grad Phi(x)                          a step of Eq. 14, with a fixed variance for each pixel
    x <- x + w A^T (w A A^T + sigma_y^2 I)^-1 (y - A x)     the mean of N(x, w I) given y

again and again on the picture that the bare host has made, without one more call. Without noise the second line is
A^+ y + P_N x for every w: what A sees becomes what was seen. With noise w says how far to trust y, which the picture has seen
before; n steps share one variance, w = (mean squared error of the answers) / n, so that together they weigh y about once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from leader_nb.equations import modulated, modulation
from leader_nb.likelihood import means
from leader_nb.loop import Result, State
from leader_nb.potentials import Potential
from leader_nb.problem import Problem

TIMES = (1, 5, 10, 26)  # UCPM takes 15 to 27 steps
GAIN = 0.003  # dB of score: a search goes on while a further strength gains as much


def moved(potential: Potential, x0: Tensor, cov: Tensor) -> Tensor:
    """One step of Eq. 14, with `mm`."""
    gradient, h = potential.gradient_and_hessian(x0)
    return modulated(x0, modulation(cov, h.clamp(min=0)), gradient)


def put_back(x: Tensor, problem: Problem, variance: float) -> Tensor:
    """The mean of N(x, variance I) given y; without noise A^+ y + P_N x, whatever the variance."""
    return problem.operator.prox(x, problem.y, problem.noise_level**2 / variance)


@dataclass(frozen=True)
class Walk:
    """A restoration that can be finished: image, calls (B,), and maps (B, C, H, W) that might say where to smooth.

    "last map" is the estimator's at the last call; "earlier map" that of the first call at or below noise level 0.3; "true
    error" the squared error of `image`, mean over 5 x 5 pixels, which nobody can have.
    """

    image: Tensor
    nfe: Tensor
    maps: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Finish:
    """`times` steps of smoothing, the measurement put back after each if `back`; no network call.

    `variance` is that of every pixel; `weight` names a map of the walk that takes its shape from there, at the same mean
    over each image ("" for none). `error` is the mean squared error of the answers, which the data steps share.
    """

    potential: Potential
    times: int
    variance: float
    error: float
    weight: str = ""
    back: bool = True

    def __call__(self, walk: Walk, problem: Problem) -> Tensor:
        x, cov = walk.image, walk.image.new_tensor(self.variance)
        if self.weight:
            cov = self.variance * walk.maps[self.weight] / means(walk.maps[self.weight])
        for _ in range(self.times):
            x = moved(self.potential, x, cov)
            x = put_back(x, problem, self.error / self.times) if self.back else x
        return x


@dataclass
class Watch:
    """`on_state` of a restoration: keeps the first map of each image at or below noise level `sigma`."""

    sigma: float
    maps: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, state: State) -> None:
        if state.cov is None:
            return
        for i, sigma, cov in zip(state.index.tolist(), state.belief.sigma.flatten().tolist(), state.cov, strict=True):
            if sigma <= self.sigma:
                self.maps.setdefault(i, cov)

    def stacked(self) -> Tensor:
        return torch.stack([self.maps[i] for i in sorted(self.maps)])


def walk_from(result: Result, watch: Watch, error: Tensor) -> Walk:
    maps = {"true error": error}
    if result.cov is not None:
        maps |= {"last map": result.cov, "earlier map": watch.stacked()}
    return Walk(result.image, result.nfe, maps)


def climb(scores: Callable[[], dict[int, float]], first: Sequence[int]) -> Iterator[int]:
    """Levels of strength: `first`, then outwards while the best is the outermost and gains GAIN over its neighbour.

    Where `first` has gaps, those beside the best are filled. `scores` has the mean score of every level that was tried, and is
    asked again after each.
    """
    yield from first
    while True:
        found = scores()
        best = max(found, key=lambda level: found[level])
        untried = [best + side for side in (1, -1) if best + side not in found]
        inside = [level for level in untried if min(found) < level < max(found)]
        beyond = [level for level in untried if level not in inside]
        gaining = [level for level in beyond if found[best] - found.get(2 * best - level, -torch.inf) >= GAIN]
        if not inside + gaining:
            return
        yield (inside + gaining)[0]

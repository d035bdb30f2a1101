"""Maps from the network's output at one state: the score squared, and heads that were trained (E1, E3, E4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.covariance.common import box, check_window, clipped, isotropic, settled
from leader_nb.covariance.tables import interpolate, noisy
from leader_nb.equations import covariance_from_fisher, score
from leader_nb.errors import InputError
from leader_nb.priors import Belief, Prior
from leader_nb.tree import Tree


@dataclass(frozen=True)
class ScoreSquared:
    """E1: Eq. 10 with diag F read as score * score, that is sigma^2 (1 - eps^2): the literal observed Fisher.

    Right on average over images and noise, but wild pixel by pixel: a third of its values are negative at high noise.
    With `clip` they are brought into [1e-3 sigma^2 / (1 + sigma^2), min(sigma^2, 1)]; a `window` above 1 averages eps^2
    over that many pixels a side first (E1w). No NFE, no backward pass, one image buffer, no memory.
    """

    clip: bool = True
    window: int = 1

    def __post_init__(self) -> None:
        check_window(self.window)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        fisher = score(belief.eps, belief.abar).square()
        fisher = box(fisher, self.window) if self.window > 1 else fisher
        cov = covariance_from_fisher(fisher, belief.abar)
        return clipped(cov, belief.sigma) if self.clip else cov, memory


@dataclass(frozen=True, eq=False)
class SecondMoment:
    """E3: sigma^2 (h - eps^2), h = E[eps^2 | x_t] pixel by pixel from a trained `head` (SN-DPM, Bao et al. 2022b).

    Exact where the head is: the variance of the noise that is inside x_t. The head maps a belief to h, (B, C, H, W);
    :func:`fit_head` trains a small one. No NFE beside the head's own, no backward pass, one image buffer, no memory.
    """

    head: Callable[[Belief], Tensor]

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        cov = belief.sigma**2 * (self.head(belief) - belief.eps**2)
        return settled(cov, belief.sigma, isotropic(belief.sigma, 0.25).expand_as(cov)), memory


@dataclass(frozen=True, eq=False)
class LocalHead:
    """h = eps^2 + sum_i w_i f_i: a few `features` of the answer, with `weights` (K, 3) for each of the `levels` (K,).

    The levels are log sigma, rising; between them the weights are interpolated, beyond them held.
    """

    levels: Tensor
    weights: Tensor

    def __call__(self, belief: Belief) -> Tensor:
        places = belief.sigma.double().cpu().log().flatten()
        w = torch.stack([interpolate(p, self.levels, self.weights) for p in places]).to(belief.x0)  # (B, 3)
        f = features(belief)
        slope = sum(w[:, i].view(-1, 1, 1, 1) * f[i] for i in range(len(f)))
        return belief.eps**2 + slope


def features(belief: Belief) -> tuple[Tensor, Tensor, Tensor]:
    """1, g / (g + sigma) and its square, (B, C, H, W): g the root mean square step to the neighbours in 3 x 3 pixels."""
    x = belief.x0
    down, right = torch.diff(x, dim=-2, append=x[..., -1:, :]), torch.diff(x, dim=-1, append=x[..., -1:])
    g = box((down**2 + right**2).mean(1, keepdim=True), 3).sqrt().expand_as(x)
    edge = g / (g + belief.sigma)
    return torch.ones_like(x), edge, edge**2


def fit_head(prior: Prior, images: Tensor, times: Sequence[int], ridge: float = 1e-3, seed: int = 0) -> LocalHead:
    """Least squares of (true eps)^2 - eps^2 on the features, one fit for each raw time; one NFE per image and time.

    The true noise is known because we add it. Train on images that are not to be judged on.
    """
    levels, weights = [], []
    for t in sorted(times):
        belief, eps = noisy(prior, images, t, seed)
        f = torch.stack([v.double().flatten() for v in features(belief)])  # (3, M)
        target = (eps.square() - belief.eps.square()).double().flatten()
        gram = f @ f.T / f.shape[1] + ridge * torch.diag(torch.tensor([0.0, 1.0, 1.0], dtype=f.dtype, device=f.device))
        weights.append(torch.linalg.solve(gram, f @ target / f.shape[1]).cpu())
        levels.append(belief.sigma[0].double().log().cpu().reshape(()))
    return LocalHead(torch.stack(levels), torch.stack(weights))


@dataclass(frozen=True)
class VarianceHead:
    """E4: (v - betatilde) / c^2, from a network that learned its reverse variance v (Nichol & Dhariwal 2021; Peng 2024).

    log v = f log beta + (1 - f) log betatilde, f = (o + 1) / 2 with o the raw head, at the schedule's own stride of one.
    c = sqrt(abar_{t-1}) beta / (1 - abar_t) is tiny at high noise, so above `trust_below` the isotropic map for `variance`
    is taken instead. No NFE, no backward pass, one image buffer, no memory.
    """

    trust_below: float = 0.2
    variance: float = 1.0

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        if belief.variance is None:
            raise InputError("covariance: VarianceHead needs a prior with a variance head (six channels), such as imagenet-256")
        beta, tilde, floor, c = reverse_process(belief)
        fraction = (belief.variance.double() + 1) / 2
        v = (fraction * beta.log() + (1 - fraction) * floor.log()).exp()
        cov = ((v - tilde) / c**2).to(belief.x0.dtype)
        plain = isotropic(belief.sigma, self.variance).expand_as(belief.x0)
        return torch.where(belief.sigma < self.trust_below, settled(cov, belief.sigma, plain), plain), memory


def reverse_process(belief: Belief) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """beta, betatilde, the value its logarithm uses (that of t = 1 at t = 0, where betatilde = 0), and c; (B, 1, 1, 1)."""
    schedule, like = belief.schedule, belief.x0.new_empty(0).double()

    def pair(t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        abar, before = schedule.abar(t, like), schedule.abar(t - 1, like)
        beta = 1 - abar / before
        return beta, (1 - before) / (1 - abar) * beta, before.sqrt() * beta / (1 - abar)

    beta, tilde, c = pair(belief.t)
    return beta, tilde, pair(belief.t.clamp(min=1))[1], c

"""The map that has seen the measurement: what y leaves open of Cov(x0 | x_t).

Every estimator of this package says how unsure the prior is of x0 given x_t. It knows nothing of y, and is no larger where A
does not look. With Sigma = Cov(x0 | x_t) and a Gaussian, the covariance given y as well is

    Sigma - Sigma A^T (A Sigma A^T + sigma_y^2 I)^-1 A Sigma,

of which :func:`left_open` takes the diagonal, with Sigma a diagonal too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.likelihood import Modulate, means
from leader_nb.operators.pixelwise import Mask
from leader_nb.operators.separable import Separable, sandwich
from leader_nb.priors import Belief
from leader_nb.problem import Problem


def left_open(cov: Tensor, problem: Problem) -> Tensor:
    """The variance of each pixel that is left once y is known, (B, C, H, W), for a prior variance `cov` of the same shape.

    With A = U diag(s) V^T and a flat map w the posterior is w V diag(f) V^T, f = sigma_y^2 / (s^2 w + sigma_y^2), and 1 where
    s = 0. The result is cov_i diag(V diag(f) V^T)_i with w the mean of `cov`: exact for flat maps. For a mask V = I, each
    pixel stands alone, w is its own variance, and the result is exact for every map. For operators that are neither
    masks nor separable the diagonal is replaced by its mean, which for a convolution it equals. No network call.
    """
    A, noise = problem.operator, problem.noise_level**2
    alone = isinstance(A, Mask)
    gain = A.s.square() * (cov if alone else means(cov)) + noise
    share = torch.where(A.s > 0, noise / torch.where(gain > 0, gain, 1.0), 1.0)
    if isinstance(A, Separable):
        share = sandwich(A.v_h.square(), share, A.v_w.square())
    elif not alone:
        share = means(share)
    return cov * share


@dataclass(frozen=True)
class LeftOpen:
    """`modulate` with what the measurement leaves open of the map, :func:`left_open`.

    Meant for UCPM. On a noise-free mask it changes nothing that is kept: pixels that were measured do not move, and a host
    puts those back anyway. Not for :class:`leader_nb.likelihood.MapLikelihood`, which would count y twice.
    """

    modulate: Modulate

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        return self.modulate(belief, left_open(cov, problem), problem)

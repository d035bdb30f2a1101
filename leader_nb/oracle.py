"""What a prior says about its own uncertainty, computed exactly: the whole Jacobian, for images small enough.

Cov(x0 | x_t) = sigma_bar^2 d x0 / d xbar with xbar = x_t / sqrt(abar) (Eq. 10 in another form). The estimators of
:mod:`leader_nb.covariance` can be held against this on a real network, as they can on a Gaussian mixture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.priors import Prior


@dataclass(frozen=True, eq=False)
class ExactCovariance:
    """sigma_bar^2 d x0 / d xbar, exactly as the prior has it: neither clipped nor made symmetric.

    diagonal (B, C, H, W): the uncertainty map;  full (B, N, N) with N = C H W: row i is that of pixel i, or None
    """

    diagonal: Tensor
    full: Tensor | None = None

    @property
    def negative(self) -> Tensor:
        """Share of pixels with a negative variance, (B,): 0 for an exact posterior mean."""
        return (self.diagonal < 0).flatten(1).double().mean(1)

    @property
    def asymmetry(self) -> Tensor:
        """|M - M^T| / (2 |M|) in the Frobenius norm, (B,): 0 for an exact posterior mean, 1 for an antisymmetric matrix."""
        if self.full is None:
            raise InputError("asymmetry: only the diagonal was kept; call exact_covariance with full=True")
        return torch.stack([(m - m.T).norm() / (2 * m.norm()) for m in self.full])


def exact_covariance(prior: Prior, x_t: Tensor, t: Tensor, full: bool = False, chunk: int = 64) -> ExactCovariance:
    """Cov(x0 | x_t) of each image x_t (B, C, H, W) at raw times t (B,), one vector-Jacobian product for each pixel.

    `chunk` pixels are done at a time, each with its own copy of the image: memory is that of a gradient for `chunk`
    images, and of N^2 numbers for each image with `full`. Costs N network calls and N backward passes per image.
    """
    if chunk < 1:
        raise InputError(f"chunk: got {chunk}; give at least 1 pixel at a time")
    if t.shape != (len(x_t),):
        raise InputError(f"t: got shape {tuple(t.shape)} for {len(x_t)} images; give one raw time each")
    pixels = x_t[0].numel()
    if prior.meter is not None:
        prior.meter.count(nfe=pixels, backward=pixels)
    free = replace(prior, meter=None)  # a chunk is a batch of its own, whose rows the meter does not know
    diagonal = torch.empty_like(x_t)
    whole = x_t.new_empty(len(x_t), pixels, pixels) if full else None
    for i, (image, time) in enumerate(zip(x_t, t, strict=True)):
        for rows in torch.arange(pixels, device=x_t.device).split(chunk):
            block = _rows(free, image, time, rows)
            diagonal[i].view(-1)[rows] = block[torch.arange(len(rows)), rows]
            if whole is not None:
                whole[i, rows] = block
    return ExactCovariance(diagonal, whole)


def _rows(prior: Prior, image: Tensor, time: Tensor, rows: Tensor) -> Tensor:
    """Some rows of the covariance of one image (C, H, W), (len(rows), N): copy j of it is differentiated at pixel rows[j]."""
    count = len(rows)
    belief = prior(image.expand(count, *image.shape), time.expand(count), gradient=True)
    seeds = torch.zeros_like(belief.x0).flatten(1)
    seeds[torch.arange(count), rows] = 1
    gradient = belief.vjp(seeds.view_as(belief.x0))  # d x0_i / d x_t
    return (belief.sigma**2 * belief.abar.sqrt() * gradient).flatten(1)

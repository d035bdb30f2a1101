"""The paper's equations, one function each, on (B, C, H, W) images with (B, 1, 1, 1) coefficients.

Numbers in docstrings are those of the LEADer paper. Covariances are diagonals, kept in the shape of the image.
Sums of images are finished in the memory of their first term: the same bits, and a buffer less for each further term.
"""

from __future__ import annotations

import torch
from torch import Tensor


def tweedie(x_t: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """Eq. 2: x0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar), the posterior mean E[x0 | x_t]."""
    return (x_t - (1 - abar).sqrt() * eps).div_(abar.sqrt())


def predicted_noise(x_t: Tensor, x0: Tensor, abar: Tensor) -> Tensor:
    """Eq. 2 solved for eps = (x_t - sqrt(abar) x0) / sqrt(1 - abar)."""
    return (x_t - abar.sqrt() * x0).div_((1 - abar).sqrt())


def diffuse(x0: Tensor, eps: Tensor, abar: Tensor) -> Tensor:
    """Eq. 5: x_t = sqrt(abar) x0 + sqrt(1 - abar) eps."""
    x_t = abar.sqrt() * x0
    x_t += (1 - abar).sqrt() * eps
    return x_t


def ddim(x0: Tensor, eps: Tensor, z: Tensor, abar_s: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """Eqs. 7 and 21 with sigma_s = eta sqrt(1 - abar_s): the next state x_s, and the fresh noise inside it."""
    spread = (1 - abar_s).sqrt()
    injected = spread * eta * z
    x = abar_s.sqrt() * x0
    x += spread * (1 - eta**2) ** 0.5 * eps
    x += injected
    return x, injected


def score(eps: Tensor, abar: Tensor) -> Tensor:
    """Eq. 9 read backwards: grad log p_t(x_t) = -eps / sqrt(1 - abar)."""
    return -eps / (1 - abar).sqrt()


def covariance_from_fisher(fisher: Tensor, abar: Tensor) -> Tensor:
    """Eq. 10: Sigma = (1 - abar) / abar (I - (1 - abar) F), on diagonals."""
    return (1 - abar) / abar * (1 - (1 - abar) * fisher)


def map_objective(x: Tensor, x0: Tensor, cov: Tensor, potential: Tensor) -> Tensor:
    """Eq. 11 with a diagonal Sigma: J(x) = sum (x - x0)^2 / (2 cov) + Phi(x); `potential` is Phi(x), (B,) -> (B,)."""
    return ((x - x0).square() / (2 * cov)).flatten(1).sum(1) + potential


def modulation(cov: Tensor, hessian: Tensor) -> Tensor:
    """Eq. 15 on diagonals, in the form that needs no inverse: Lambda = cov / (1 + h cov)."""
    return cov / (1 + hessian * cov)


def modulated(x0: Tensor, strength: Tensor, gradient: Tensor) -> Tensor:
    """Eq. 14: x0 - Lambda grad Phi(x0)."""
    return x0 - strength * gradient


def uncertainty(cov: Tensor) -> Tensor:
    """Eq. 17: U = Tr(Sigma) / N, one number per image, (B,). Image by image, so that no image feels its batch."""
    return torch.stack([c.mean() for c in cov])


def active_step(u: Tensor, budget: float, eta_skip: float, rho: float, epsilon: float) -> Tensor:
    """Eq. 19: max(1, floor(eta (B / (U + epsilon))^(1/rho))), in float64, (B,)."""
    return (eta_skip * (budget / (u.double() + epsilon)) ** (1 / rho)).floor().clamp(min=1)

"""A Gaussian mixture over images: the prior whose mean, noise and covariance are exact (spec of the oracle in the book)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.priors import Prediction, Prior
from leader_nb.schedule import Schedule


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """x0 ~ sum_j w_j N(m_j, V_j diag(l_j) V_j^T), float64.

    log_weights (J,);  means (J, N);  bases (J, N, N) with eigenvectors in columns;  values (J, N);  shape (C, H, W)
    """

    log_weights: Tensor
    means: Tensor
    bases: Tensor
    values: Tensor
    shape: tuple[int, int, int]

    def prior(self, schedule: Schedule | None = None) -> Prior:
        """The mixture as a prior on the schedule."""

        def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
            xbar = x_t / schedule.abar(t, x_t).sqrt()
            rows = zip(xbar, schedule.sigma(t, x_t), strict=True)
            return Prediction(x0=torch.stack([self.mean(x, s.reshape(())) for x, s in rows]))

        return Prior(predict, schedule or Schedule(), name="mixture")

    def components(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """For one image x = x0 + sigma n (C, H, W): responsibilities (J,) and component means (J, N)."""
        total = self.values + sigma**2  # (J, N)
        d = torch.einsum("jnk,jn->jk", self.bases, x.reshape(1, -1) - self.means)
        log_rho = self.log_weights - 0.5 * total.log().sum(1) - 0.5 * (d**2 / total).sum(1)
        mu = self.means + torch.einsum("jnk,jk->jn", self.bases, self.values / total * d)
        return log_rho.softmax(0), mu

    def mean(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for one image, (C, H, W)."""
        rho, mu = self.components(x, sigma)
        return (rho @ mu).view(x.shape)

    def covariance(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Cov(x0 | x) for one image, (N, N): the right-hand side of Eq. 10, in closed form."""
        rho, mu = self.components(x, sigma)
        shrunk = self.values * sigma**2 / (self.values + sigma**2)
        inner = torch.einsum("j,jnk,jk,jmk->nm", rho, self.bases, shrunk, self.bases)
        d = mu - rho @ mu
        return inner + torch.einsum("j,jn,jm->nm", rho, d, d)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` exact samples, (count, C, H, W)."""
        which = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        z = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=generator)
        x = self.means[which] + torch.einsum("bnk,bk->bn", self.bases[which], self.values[which].sqrt() * z)
        return x.view(count, *self.shape)


def mixture_from_covariances(
    weights: Tensor, means: Tensor, covariances: Tensor, shape: tuple[int, int, int]
) -> GaussianMixture:
    """weights (J,), means (J, N), covariances (J, N, N) -> mixture."""
    values, bases = torch.linalg.eigh(covariances.double())
    return GaussianMixture(weights.double().log(), means.double(), bases, values.clamp(min=0), shape)


def image_mixture(size: int = 16, channels: int = 1) -> GaussianMixture:
    """Three components on size x size images: 1/f^2 correlations under smooth maps of standard deviation.

    Means are a horizontal wave, a vertical wave and zero; deviations a horizontal ramp, a vertical ramp and a bump.
    """
    axis = torch.linspace(0, 1, size, dtype=torch.float64)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    ramp_x, ramp_y = 0.15 + 0.45 * x, 0.15 + 0.45 * y
    bump = 0.1 + 0.5 * torch.exp(-((x - 0.5) ** 2 + (y - 0.5) ** 2) / 0.08)
    means = torch.stack([0.3 * torch.sin(2 * torch.pi * x), 0.3 * torch.cos(2 * torch.pi * y), torch.zeros_like(x)])
    correlation = _correlation(size)
    deviations = torch.stack([ramp_x, ramp_y, bump]).flatten(1)
    covariances = deviations[:, :, None] * correlation * deviations[:, None, :]
    if channels > 1:
        covariances = torch.stack([torch.block_diag(*[c] * channels) for c in covariances])
    flat = means.flatten(1).repeat(1, channels)
    return mixture_from_covariances(torch.tensor([0.4, 0.3, 0.3]), flat, covariances, (channels, size, size))


def _correlation(size: int) -> Tensor:
    """Unit-diagonal circulant correlation of a 1/f^2 spectrum, (N, N)."""
    f = torch.fft.fftfreq(size, dtype=torch.float64)
    r = torch.sqrt(f[:, None] ** 2 + f[None, :] ** 2)
    r[0, 0] = 1 / (2 * size)
    kernel = torch.fft.ifft2(r**-2).real
    kernel = kernel / kernel[0, 0]
    i = torch.arange(size)
    shift = (i[:, None] - i[None, :]) % size
    return kernel[shift[:, None, :, None], shift[None, :, None, :]].reshape(size * size, size * size)

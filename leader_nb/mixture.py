"""A Gaussian mixture over images: the prior whose mean, noise and covariance are exact (spec of the oracle in the book)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.priors import Prediction, Prior
from leader_nb.problem import Problem
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

    def prior(self, schedule: Schedule | None = None, together: bool = False) -> Prior:
        """The mixture as a prior on the schedule.

        `together` denoises a batch in a few matrix products, many times faster for many small images; the last bits of an
        image then depend on what shares its batch.
        """

        def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
            xbar, sigma = x_t / schedule.abar(t, x_t).sqrt(), schedule.sigma(t, x_t)
            if together:
                return Prediction(x0=self.means_of(xbar, sigma.view(-1, 1)))
            return Prediction(x0=torch.stack([self.mean(x, s.reshape(())) for x, s in zip(xbar, sigma, strict=True)]))

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

    def means_of(self, x: Tensor, sigma: Tensor) -> Tensor:
        """E[x0 | x] for a batch (B, C, H, W) at noise sigma (B, 1)."""
        rho, mu = self._batch(x, sigma)
        return (rho[:, :, None] * mu).sum(0).view_as(x)

    def shares(self, x: Tensor) -> Tensor:
        """How likely it is that each clean image x (B, C, H, W) came from each component, (B, J)."""
        return self._batch(x, x.new_zeros(len(x), 1))[0].T

    def _batch(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`components` for a batch: responsibilities (J, B) and component means (J, B, N)."""
        log_rho, mu = [], []
        for log_weight, mean, basis, values in zip(self.log_weights, self.means, self.bases, self.values, strict=True):
            total, d = values + sigma**2, (x.flatten(1) - mean) @ basis  # (B, N)
            log_rho.append(log_weight - 0.5 * (total.log() + d**2 / total).sum(1))
            mu.append(mean + (values / total * d) @ basis.T)
        return torch.stack(log_rho).softmax(0), torch.stack(mu)

    def covariance(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Cov(x0 | x) for one image, (N, N): the right-hand side of Eq. 10, in closed form."""
        rho, mu = self.components(x, sigma)
        shrunk = self.values * sigma**2 / (self.values + sigma**2)
        inner = torch.einsum("j,jnk,jk,jmk->nm", rho, self.bases, shrunk, self.bases)
        d = mu - rho @ mu
        return inner + torch.einsum("j,jn,jm->nm", rho, d, d)

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (N,) and covariance (N, N) of the mixture itself."""
        weights = self.log_weights.exp()
        mean = weights @ self.means
        apart = self.means - mean
        return mean, torch.einsum("j,jnm->nm", weights, self._covariances()) + (weights * apart.T) @ apart

    def posterior(self, problem: Problem) -> GaussianMixture:
        """p(x0 | y) for one measurement y = A x0 + sigma_y z: a mixture again, of as many components.

        With H the rows of A in the basis of its singular vectors, the zero ones left out, G_j = H C_j H^T + sigma_y^2 I and
        r_j = U^T y - H m_j:    C_j - C_j H^T G_j^-1 H C_j,   m_j + C_j H^T G_j^-1 r_j,   w_j N(r_j; 0, G_j) up to a factor.
        Where sigma_y = 0, H C_j H^T must be regular. Costs O(J N^3): for small images.
        """
        if len(problem) != 1 or problem.operator.image_shape != self.shape:
            given = f"{len(problem)} of images {problem.operator.image_shape}"
            raise InputError(f"problem: got {given}; give one measurement (problem.rows) of an image {self.shape}")
        rows, seen = spectral_rows(problem)
        c = self._covariances()  # (J, N, N)
        r = seen - self.means @ rows.T  # (J, R)
        noise = problem.sigma_y.double() ** 2 * torch.eye(len(rows), dtype=torch.float64)
        root = torch.linalg.cholesky(rows @ c @ rows.T + noise)
        half = torch.linalg.solve_triangular(root, rows @ c, upper=False)  # (J, R, N)
        white = torch.linalg.solve_triangular(root, r[:, :, None], upper=False)
        log_weights = self.log_weights - root.diagonal(dim1=1, dim2=2).log().sum(1) - 0.5 * white.square().sum((1, 2))
        means = self.means + (half.mT @ white)[:, :, 0]
        return mixture_from_covariances(log_weights.softmax(0), means, c - half.mT @ half, self.shape)

    def _covariances(self) -> Tensor:
        return (self.bases * self.values[:, None]) @ self.bases.mT

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """`count` exact samples, (count, C, H, W)."""
        which = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        z = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=generator)
        x = self.means[which] + torch.einsum("bnk,bk->bn", self.bases[which], self.values[which].sqrt() * z)
        return x.view(count, *self.shape)


def spectral_rows(problem: Problem) -> tuple[Tensor, Tensor]:
    """(H, U^T y) of one measurement: A = U H with orthonormal columns in U, only what A can see; (R, N) and (R,)."""
    basis = torch.eye(math.prod(problem.operator.image_shape), dtype=problem.y.dtype).view(-1, *problem.operator.image_shape)
    U, s, Vt = torch.linalg.svd(problem.operator(basis).flatten(1).T.double(), full_matrices=False)
    kept = s > 1e-7 * s.max()
    return s[kept, None] * Vt[kept], problem.y.flatten().double() @ U[:, kept]


def mixture_from_covariances(
    weights: Tensor, means: Tensor, covariances: Tensor, shape: tuple[int, int, int]
) -> GaussianMixture:
    """weights (J,), means (J, N), covariances (J, N, N) -> mixture."""
    values, bases = torch.linalg.eigh(covariances.double())
    return GaussianMixture(weights.double().log(), means.double(), bases, values.clamp(min=0), shape)


def image_mixture(size: int = 16, channels: int = 1, contrast: float = 1.0) -> GaussianMixture:
    """Three components on size x size images: 1/f^2 correlations under smooth maps of standard deviation.

    Means are a horizontal wave, a vertical wave and zero; deviations a horizontal ramp, a vertical ramp and a bump. All are
    multiplied by `contrast`: at 1, one pixel in forty lies outside [-1, 1]; at 0.5, one in five thousand or fewer.
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
    flat, weights = contrast * means.flatten(1).repeat(1, channels), torch.tensor([0.4, 0.3, 0.3])
    return mixture_from_covariances(weights, flat, contrast**2 * covariances, (channels, size, size))


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

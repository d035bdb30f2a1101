"""PIRP: parameterized restoration with a diffusion prior and a gradient prior (Yang, Zhang, Zhang & Zeng, KBS 2026).

Its code was not found under that name; this follows FDGR, which has its modes G+ and G- and is most probably the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from leader_nb.equations import predicted_noise
from leader_nb.errors import InputError, kind_of, unknown
from leader_nb.noise import Noise
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers.base import Step, check_finite, check_positive, check_share, image_by_image, standard_normal
from leader_nb.samplers.idpg import check_guidance, guidance, traversal, unguided
from leader_nb.schedule import uniform_grid
from leader_nb.tree import Tree

VARIANTS = ("correct", "held")


@dataclass(frozen=True)
class Spectral:
    """G-: Phi = sum phi(|grad x|), phi(g) = 1 - exp(-m^(a/2) / (2 width^2)), m = g^2 + 2e-4, with spectral derivatives.

    phi is bounded, so strong edges feel nothing. Where m > 100 it is held at its value there, so the weight is 0: the gradient
    of the clamped potential, as autograd has it. The released code clamps m inside the weight alone, and still pulls on such
    edges. Periodic; B images at once, Phi (B,), gradient (B, C, H, W).
    """

    power: float = 0.5
    width: float = 1.5
    damped: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive("power", self.power)
        check_positive("width", self.width)

    def __call__(self, x: Tensor) -> Tensor:
        m = spectral(x, -2).square() + spectral(x, -1).square() + 2e-4
        return welsch(m.clamp(max=100), self.power, self.width).flatten(1).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        down, right = spectral(x, -2), spectral(x, -1)
        m = down.square() + right.square() + 2e-4
        w = weight(m, self.power, self.width) * (m <= 100)
        return -(spectral(w * down, -2) + spectral(w * right, -1))

    def pull(self, x: Tensor, rate: Tensor) -> Tensor:
        """rate grad Phi(x). Every derivative sees every pixel, and the published rate is negative: nothing to hold."""
        return rate * self.gradient(x)


@dataclass(frozen=True)
class Spatial:
    """G+: the same phi of each difference of neighbours, down and to the right alone, m = g^2 + 1e-6. Periodic.

    phi is sharp at 0: with w(g) = phi'(g) / g, w(0) is 3e4 (at the constants below), and an explicit step descends only at
    rates under 1 / (4 w(0)). :meth:`pull` holds the rate of each pixel under the bound of its own differences instead.
    """

    power: float = 0.2
    width: float = 0.8
    damped: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive("power", self.power)
        check_positive("width", self.width)

    def __call__(self, x: Tensor) -> Tensor:
        slopes = torch.stack([x - x.roll(1, axis) for axis in (-2, -1)], dim=1)
        return welsch(slopes.square() + 1e-6, self.power, self.width).flatten(1).sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        return self._slope(x)[0]

    def pull(self, x: Tensor, rate: Tensor) -> Tensor:
        """grad Phi(x) times the rate, or 1 / (2 sum w) where that is less, w the weights of a pixel's four differences.

        phi lies under the parabola of curvature w that touches it at g, and (a - b)^2 <= 2 a^2 + 2 b^2, so Phi(x - pull)
        <= Phi(x) at every rate above 0. The bound moves a pixel half way to the weighted mean of its neighbours.
        """
        slope, total = self._slope(x)
        return torch.minimum(rate, 1 / (2 * total)) * slope

    def _slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """grad Phi(x), and the sum of the four weights at each pixel."""
        slope, total = torch.zeros_like(x), torch.zeros_like(x)
        for axis in (-2, -1):
            g = x - x.roll(1, axis)
            w = weight(g.square() + 1e-6, self.power, self.width)
            slope, total = slope + w * g - (w * g).roll(-1, axis), total + w + w.roll(-1, axis)
        return slope, total


@dataclass(frozen=True)
class PIRP:
    """DDPG's guidance and a step down a gradient prior Phi, all three from the same x0:

        x0y = x0 + mu (1 - delta) A^T (A A^T + ridge' I)^-1 (y - A x0) + mu delta scale A^T (y - A x0) - mu_r lam grad Phi(x0)
        eps = (x_t - sqrt(abar) x0y) / sqrt(1 - abar)
        x_s = sqrt(abar_s) x0y + sqrt(1 - abar_s) (sqrt(zeta) z + sqrt(1 - zeta) w eps),    w = 1 if sigma_y = 0 else delta

    delta and ridge' as in IDPG. With m = (1 - abar_s) / (1 - abar), `mode` 0: mu = 1, and mu_r = 1 for G- but beta m for G+,
    beta = 1 - abar / abar_s;  1: mu = m, mu_r = 1. `inject=False` drops both noises from x_s. `lam=0` is DDPG (or IDPG).
    As it stands it is G-, whose lam < 0 *sharpens*; G+ smooths, and is :data:`PIRP_PLUS`. Its published lam is thousands of
    times beyond the rate at which an explicit step descends: it overshoots into a checkerboard. `variant="held"`, beyond the
    paper and what `host("pirp+", ...)` is, holds the rate of each pixel back, see :meth:`Spatial.pull` (in G- there is nothing
    to hold, and both variants are the same). Where sigma_y > 0, the last step leaves x0 as it is. A plug-in that modulates x0
    comes first and adds to Phi, which stays: here x0 is the modulated one.
    """

    potential: Spectral | Spatial = Spectral()
    lam: float = -0.09
    gamma: float = 8.0
    zeta: float = 0.5
    ridge: float = 0.7
    scale: float = 1.0
    mode: int = 1
    inject: bool = True
    variant: str = "correct"
    needs_gradient: ClassVar[bool] = False
    default_steps = staticmethod(uniform_grid)

    def __post_init__(self) -> None:
        check_guidance(self.gamma, self.ridge, self.scale)
        if self.variant not in VARIANTS:
            raise unknown("variant", self.variant, VARIANTS)
        if isinstance(self.potential, type) or not all(hasattr(self.potential, n) for n in ("gradient", "pull", "damped")):
            raise InputError(f"potential: got {kind_of(self.potential)}; give Spectral() for G-, or Spatial() for G+")
        check_finite("lam", self.lam, "the weight of the potential (below 0 it sharpens; published: -0.09 for G-, 1.3 for G+)")
        check_share("zeta", self.zeta, "the share of fresh noise")
        if self.mode not in (0, 1):
            raise InputError(f"mode: got {kind_of(self.mode)}; give 0 or 1, the step sizes")

    @property
    def falls(self) -> bool:
        return self.mode == 1 or self.potential.damped  # m is a step size, and above 1 on the way up

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return standard_normal(problem, noise), {}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        abar_s = b.schedule.abar(s, b.x0)
        back_projection, least_squares = guidance(b.x0, problem, self.ridge)
        delta, (mu, mu_r) = traversal(abar_s, problem, self.gamma), self._steps(b, abar_s)
        to_data = (1 - delta) * back_projection + delta * self.scale * least_squares
        x0y = b.x0 + mu * to_data - self._pull(b.x0, mu_r * self.lam)
        x0y = torch.where(unguided(abar_s, problem), b.x0, x0y)
        if not self.inject:
            return Step(x0y, abar_s.sqrt() * x0y, carry)
        w, spread = torch.where(problem.noise_level > 0, delta, 1.0), (1 - abar_s).sqrt()
        injected = spread * self.zeta**0.5 * noise("step", b.x0)
        implied = spread * (1 - self.zeta) ** 0.5 * w * predicted_noise(b.x_t, x0y, b.abar)
        x = abar_s.sqrt() * x0y
        x += implied
        x += injected
        return Step(x0y, x, carry, injected)

    def _pull(self, x0: Tensor, rate: Tensor) -> Tensor:
        return self.potential.pull(x0, rate) if self.variant == "held" else rate * self.potential.gradient(x0)

    def _steps(self, b: Belief, abar_s: Tensor) -> tuple[Tensor, Tensor]:
        """(mu, mu_r), (B, 1, 1, 1) each."""
        m, one = (1 - abar_s) / (1 - b.abar), torch.ones_like(abar_s)
        if self.mode == 1:
            return m, one
        return one, (1 - b.abar / abar_s) * m if self.potential.damped else one


# Without injected noise the prior is shown a state cleaner than its time says. An exact one shrinks what the data do not fix
# towards its mean; a learned one may blow it up (photo-small does, on inpainting, at any lam): inject=True is calm there.
PIRP_PLUS = PIRP(Spatial(), lam=1.3, gamma=16.0, ridge=0.2, mode=0, inject=False)  # G+, FDGR's quick start


def welsch(m: Tensor, power: float, width: float) -> Tensor:
    """1 - exp(-m^(a/2) / (2 width^2))."""
    return image_by_image(lambda m: 1 - torch.exp(-(m ** (power / 2)) / (2 * width**2)), m)


def weight(m: Tensor, power: float, width: float) -> Tensor:
    """phi'(g) / g for m = g^2 + epsilon: twice the derivative of :func:`welsch`."""
    scale = 2 * width**2
    return image_by_image(lambda m: power / scale * m ** (power / 2 - 1) * torch.exp(-(m ** (power / 2)) / scale), m)


def spectral(x: Tensor, axis: int) -> Tensor:
    """The derivative along an axis, 2 pi i f in Fourier space, periodic; its adjoint is minus itself."""
    f = torch.fft.fftfreq(x.shape[axis], dtype=x.dtype, device=x.device).view((-1, 1) if axis == -2 else (-1,))
    return torch.fft.ifft(2j * torch.pi * f * torch.fft.fft(x, dim=axis), dim=axis).real

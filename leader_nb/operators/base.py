"""The operator contract: A = U diag(s) V^T with a spectrum in the shape of the image.

An author writes U, Ut, V, Vt and the spectrum; everything a sampler uses is derived here, once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-5  # singular values below this share of the largest are set to zero, in A itself


@dataclass(frozen=True, eq=False)
class Operator(ABC):
    """A linear degradation of images (B, C, H, W).

    s         (1 or B, 1 or C, H, W), real, >= 0: singular values; zero on the null space
    measured  the same shape, bool: slots that a measurement has (noise and residuals live only there)
    V, Vt     orthogonal (unitary for convolutions): spectral image <-> image
    U, Ut     spectral image <-> measurement; U Ut = identity on measurements, zero outside `measured`
    """

    s: Tensor
    measured: Tensor
    image_shape: tuple[int, int, int]
    batched: ClassVar[tuple[str, ...]] = ("s", "measured")

    @abstractmethod
    def V(self, c: Tensor) -> Tensor: ...

    @abstractmethod
    def Vt(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def U(self, c: Tensor) -> Tensor: ...

    @abstractmethod
    def Ut(self, y: Tensor) -> Tensor: ...

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of y."""
        return self.image_shape

    def __call__(self, x: Tensor) -> Tensor:
        """A x."""
        return self.U(self.s * self.Vt(x))

    def T(self, y: Tensor) -> Tensor:
        """A^T y, the adjoint."""
        return self.V(self.s * self.Ut(y))

    def pinv(self, y: Tensor, ridge: float | Tensor = 0.0) -> Tensor:
        """A^T (A A^T + ridge I)^-1 y; with ridge 0 the Moore-Penrose inverse A^+ y."""
        return self.V(self.gain(ridge) * self.Ut(y))

    def gain(self, ridge: float | Tensor = 0.0) -> Tensor:
        """s / (s^2 + ridge), zero on the null space: the spectrum of :meth:`pinv`."""
        safe = torch.where(self.s > 0, self.s, torch.ones_like(self.s))
        return torch.where(self.s > 0, self.s / (safe**2 + ridge), torch.zeros_like(self.s))

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """argmin_v ||A v - y||^2 + rho ||v - x||^2, written as a correction of x, which stays accurate for small rho."""
        return x + self.V(self.gain(rho) * (self.Ut(y) - self.s * self.Vt(x)))

    def null(self, x: Tensor) -> Tensor:
        """P_N x = (I - A^+ A) x, the part of x that A cannot see."""
        return self.V((self.s == 0) * self.Vt(x))

    def on_measured(self, z: Tensor) -> Tensor:
        """The part of a measurement-shaped z that lies on measured slots."""
        return self.U(self.measured * self.Ut(z))

    def measured_rms(self, r: Tensor) -> Tensor:
        """Root mean square of a measurement-shaped r (B, c, h, w) over measured slots, (B,)."""
        power = (self.measured * self.Ut(r)).abs().square()
        slots = self.measured.expand(power.shape).flatten(1).sum(1)
        return (torch.stack([p.sum() for p in power]) / slots).sqrt()

    def rows(self, index: Tensor) -> Self:
        """The operator of some images of the batch; fields with one row serve every image."""
        fields = {name: getattr(self, name) for name in self.batched}
        return replace(self, **{name: f if len(f) == 1 else f[index.to(f.device)] for name, f in fields.items()})

    @property
    def rank(self) -> int:
        """Number of non-zero singular values of the first image's operator, of prod(image_shape)."""
        return int((self.s[0] > 0).expand(self.image_shape).sum())


def truncate(s: Tensor, tolerance: float = RANK_TOLERANCE) -> Tensor:
    """The spectrum with values below tolerance * max(s), of the same image, set to zero."""
    return torch.where(s > tolerance * s.amax(dim=(1, 2, 3), keepdim=True), s, torch.zeros_like(s))

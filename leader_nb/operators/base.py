"""The operator contract: A = U diag(s) V^T with a spectrum in the shape of the image.

An author writes U, Ut, V, Vt and the spectrum; everything a sampler uses is derived here, once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

RANK_TOLERANCE = 1e-5  # the default of `tolerance`


@dataclass(frozen=True, eq=False, repr=False)
class Operator(ABC):
    """A linear degradation of images (B, C, H, W).

    s          (1 or B, 1 or C, H, W), real, >= 0: singular values; zero on the null space
    measured   the same shape, bool: slots that a measurement has (noise and residuals live only there)
    tolerance  singular values below this share of the largest were set to zero, in A itself; 0 where none had to be
    V, Vt      orthogonal (unitary for convolutions): spectral image <-> image
    U, Ut      spectral image <-> measurement; U Ut = identity on measurements, zero outside `measured`
    """

    s: Tensor
    measured: Tensor
    image_shape: tuple[int, int, int]
    tolerance: float = field(default=0.0, kw_only=True)
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

    @property
    def reach(self) -> float:
        """A bound of |A x| for |x| <= 1: 2 is more than blurs, masks and the overshoot of bicubic weights come to."""
        return 2.0

    def preview(self, y: Tensor) -> Tensor:
        """A measurement as a picture; y itself wherever it looks like one."""
        return y

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
        return self.s / (self.s.square() + ridge + (1 - self.s.sign()))  # 1 where s = 0, so that 0 is divided by no zero

    def prox(self, x: Tensor, y: Tensor, rho: float | Tensor) -> Tensor:
        """argmin_v ||A v - y||^2 + rho ||v - x||^2, written as a correction of x, which stays accurate for small rho."""
        return self.towards(x, self.read(y), rho)

    def towards(self, x: Tensor, seen: Tensor, rho: float | Tensor) -> Tensor:
        """:meth:`prox` for a y that was read before: `seen` is `read(y)`, which a walk needs only once."""
        return self.corrected(x, seen, self.gain(rho))

    def corrected(self, x: Tensor, seen: Tensor, weight: Tensor) -> Tensor:
        """x + V weight (U^T y - s V^T x) for a y that was read.

        `weight`, (1 or B, 1 or C, H, W), is real, 0 where s = 0, and in an image a function of s and `measured` alone.
        """
        residual = seen - self.s * self.Vt(x)
        residual *= weight
        return x + self.V(residual)

    def weighted(self, x: Tensor, weight: Tensor) -> Tensor:
        """V weight V^T x, for a real `weight`, (1 or B, 1 or C, H, W), in an image a function of s and `measured` alone."""
        return self.V(weight * self.Vt(x))

    def read(self, y: Tensor) -> Tensor:
        """U^T y, (B, ...), in the form that :meth:`towards` and :meth:`corrected` take."""
        return self.Ut(y)

    def null(self, x: Tensor) -> Tensor:
        """P_N x = (I - A^+ A) x, the part of x that A cannot see."""
        return self.V((self.s == 0) * self.Vt(x))

    def on_measured(self, z: Tensor) -> Tensor:
        """The part of a measurement-shaped z that lies on measured slots."""
        c = self.Ut(z)
        return self.U(self.measured.to(c.real.dtype) * c)  # converted before it is spread over the channels

    def measured_rms(self, r: Tensor) -> Tensor:
        """Root mean square of a measurement-shaped r (B, c, h, w) over measured slots, (B,)."""
        power = (self.measured * self.Ut(r)).abs().square()
        slots = self.measured.expand(power.shape).flatten(1).sum(1)
        return (torch.stack([p.sum() for p in power]) / slots).sqrt()

    def rows(self, index: Tensor) -> Self:
        """The operator of some images of the batch; fields with one row serve every image."""
        fields = {name: getattr(self, name) for name in self.batched}
        return replace(self, **{name: f if len(f) == 1 else f[index.to(f.device)] for name, f in fields.items()})

    def fits(self, other: Operator) -> bool:
        """Whether images of the two can share a batch: what does not belong to one image must be equal."""
        if type(self) is not type(other):
            return False
        return all(_alike(getattr(self, f.name), getattr(other, f.name), f.name in self.batched) for f in fields(self))

    def joined(self, other: Self, counts: tuple[int, int]) -> Self:
        """The operator of `counts[0]` images of this one, followed by `counts[1]` of `other`, which must fit."""
        merged = {name: _stacked((getattr(self, name), getattr(other, name)), counts) for name in self.batched}
        return replace(self, **merged)  # type: ignore[arg-type]

    @property
    def rank(self) -> int:
        """Number of non-zero singular values of the first image's operator, of prod(image_shape)."""
        return int((self.s[0] > 0).expand(self.image_shape).sum())

    @property
    def cutoff(self) -> str:
        """How the rank was decided, in words."""
        return f"s below {self.tolerance:g} of the largest set to 0" if self.tolerance else "s known exactly"

    def __repr__(self) -> str:
        """Shapes, rank, range of s and the rank tolerance, of the first image's operator."""
        kept, size = self.s[0][self.s[0] > 0], math.prod(self.image_shape)
        spread = f"s from {kept.min():.2g} to {kept.max():.2g}" if len(kept) else "A = 0"
        shapes = f"{self.image_shape} -> {self.measurement_shape}"
        return f"{type(self).__name__}: {shapes}, rank {self.rank} of {size}, {spread} ({self.cutoff})"


def truncate(s: Tensor, tolerance: float = RANK_TOLERANCE) -> Tensor:
    """The spectrum with values below tolerance * max(s), of the same image, set to zero."""
    return torch.where(s > tolerance * s.amax(dim=(1, 2, 3), keepdim=True), s, torch.zeros_like(s))


def _alike(a: object, b: object, per_image: bool) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return bool(a == b)
    if a.dtype != b.dtype or a.device != b.device:
        return False
    return a.shape[1:] == b.shape[1:] if per_image else a is b or torch.equal(a, b)


def _stacked(pair: tuple[Tensor, Tensor], counts: tuple[int, int]) -> Tensor:
    """Rows of both, in order; one row goes on serving every image where both have the same."""
    a, b = pair
    if len(a) == len(b) == 1 and (a is b or torch.equal(a, b)):
        return a
    return torch.cat([f.expand(count, *f.shape[1:]) for f, count in zip(pair, counts, strict=True)])

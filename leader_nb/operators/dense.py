"""Any linear degradation given as a matrix: for small images, since its SVD is as large as the square of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.operators.base import Operator, truncate

TOLERANCE = 1e-3  # rank tolerance of a matrix, whose noise is not known


@dataclass(frozen=True, eq=False, repr=False)
class Dense(Operator):
    """y = M x on the pixels of an image, channel by channel and row by row; slot i of the spectrum is pixel i."""

    u: Tensor  # (m, m)
    v: Tensor  # (n, n)

    @property
    def measurement_shape(self) -> tuple[int, int, int]:
        return (1, 1, len(self.u))

    @property
    def reach(self) -> float:
        """|<row, x>| <= s_max sqrt(n)."""
        return float(self.s.max()) * len(self.v) ** 0.5

    def preview(self, y: Tensor) -> Tensor:
        """A^+ y: rows of a matrix are no picture."""
        return self.pinv(y)

    def V(self, c: Tensor) -> Tensor:
        return product(self.v, c.flatten(1)).view(c.shape)

    def Vt(self, x: Tensor) -> Tensor:
        return product(self.v.T, x.flatten(1)).view(x.shape)

    def U(self, c: Tensor) -> Tensor:
        return product(self.u, c.flatten(1)[:, : len(self.u)]).view(-1, *self.measurement_shape)

    def Ut(self, y: Tensor) -> Tensor:
        c = product(self.u.T, y.flatten(1))
        return F.pad(c, (0, len(self.v) - len(self.u))).view(-1, *self.image_shape)


def product(matrix: Tensor, x: Tensor) -> Tensor:
    """matrix @ row for each row of x (B, n): one product for each image, so that images do not feel one another."""
    return torch.stack([matrix @ row.clone() for row in x])  # copied: the last bits may depend on where memory begins


def dense(matrix: Tensor, shape: tuple[int, int, int], like: Tensor, tolerance: float = TOLERANCE) -> Dense:
    """The operator of `matrix` (m, n), m <= n = C H W. Singular values below `tolerance` of the largest become zero."""
    size = shape[0] * shape[1] * shape[2]
    if matrix.ndim != 2 or matrix.shape[1] != size or not 1 <= len(matrix) <= size:
        raise InputError(f"matrix: got shape {tuple(matrix.shape)}; give (m, {size}) with m from 1 to {size}, for {shape}")
    u, values, vt = torch.linalg.svd(matrix.double(), full_matrices=True)
    measured = (torch.arange(size) < len(matrix)).view(1, *shape).to(like.device)
    s = truncate(F.pad(values, (0, size - len(values))).view(1, *shape), tolerance).to(like.device, like.dtype)
    bases = (b.to(like.device, like.dtype) for b in (u, vt.T.contiguous()))
    return Dense(s, measured, shape, *bases, tolerance=tolerance)

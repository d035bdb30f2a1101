"""A fully convolutional U-Net denoiser D(x, sigma), preconditioned as in EDM (Karras et al. 2022, Table 1).

Normalisation is per pixel: statistics taken over an image would tie the result to its size. Time enters through 1x1
convolutions, which (unlike `nn.Linear`) give each image of a batch the bits it would have alone.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIGMA_DATA = 0.5  # standard deviation of photographs in [-1, 1]


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a :class:`UNet`; `stride` is what the sides of its input are padded to a multiple of."""

    channels: int = 3
    widths: tuple[int, ...] = (64, 128, 192)
    blocks: int = 2
    embedding: int = 128
    patch: int = 2

    @property
    def stride(self) -> int:
        return self.patch * 2 ** (len(self.widths) - 1)

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


class Conv(nn.Module):
    """A convolution whose weight is stored as the matrix (out, in * k * k), the form the Muon optimiser works on."""

    def __init__(self, cin: int, cout: int, kernel: int = 3, stride: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        fan_in = cin * kernel**2
        self.shape, self.stride, self.padding = (cout, cin, kernel, kernel), stride, (kernel - 1) // 2
        self.weight = nn.Parameter(torch.randn(cout, fan_in) * gain / math.sqrt(fan_in))
        self.bias = nn.Parameter(torch.zeros(cout))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.view(self.shape), self.bias, self.stride, self.padding)


class Block(nn.Module):
    """x + conv(silu(film(conv(silu(norm(x)))))): a pre-activated residual block modulated by the noise level."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = Conv(width, width, gain=math.sqrt(2.0))
        self.conv2 = Conv(width, width, gain=0.1)

    def forward(self, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        h = torch.addcmul(shift, self.conv1(F.silu(pixel_norm(x))), scale)
        return x + self.conv2(F.silu(h))


def pixel_norm(x: Tensor) -> Tensor:
    """Each pixel's channels divided by their root mean square: local, so that no size or neighbour in the batch matters."""
    return F.rms_norm(x.permute(0, 2, 3, 1), (x.shape[1],), eps=1e-4).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """F(x, c_noise): the bare network, on inputs whose sides are multiples of `config.stride`."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        w, n = config.widths, config.blocks
        pixels = config.channels * config.patch**2
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.logspace(-1, 1, config.embedding // 2) * math.pi, persistent=False)
        self.embed = nn.Sequential(
            Conv(config.embedding, config.embedding, 1), nn.SiLU(), Conv(config.embedding, config.embedding, 1)
        )
        self.film = Conv(config.embedding, 2 * sum(self._film_widths(config)), 1, gain=0.1)
        self.head = Conv(pixels, w[0])
        self.encoder = nn.ModuleList(Block(c) for c in w[:-1] for _ in range(n))
        self.down = nn.ModuleList(Conv(4 * a, b, 1) for a, b in pairwise(w))
        self.middle = nn.ModuleList(Block(w[-1]) for _ in range(2 * n))
        self.up = nn.ModuleList(Conv(b, 4 * a, 1) for a, b in pairwise(w))
        self.decoder = nn.ModuleList(Block(c) for c in w[:-1] for _ in range(n))
        self.tail = Conv(w[0], pixels, gain=0.0)

    @staticmethod
    def _film_widths(config: UNetConfig) -> list[int]:
        w, n = config.widths, config.blocks
        outer = [c for c in w[:-1] for _ in range(n)]
        return outer + [w[-1]] * (2 * n) + outer[::-1]  # the order in which forward consumes them

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        """x: (B, C, H, W); c_noise: (B,) -> (B, C, H, W)."""
        n, levels = self.config.blocks, len(self.config.widths) - 1
        angle = c_noise.view(-1, 1, 1, 1) * self.frequencies.view(1, -1, 1, 1)
        film = self.film(F.silu(self.embed(torch.cat([angle.cos(), angle.sin()], dim=1))))
        modulation = iter(film.split([2 * c for c in self._film_widths(self.config)], dim=1))

        def run(blocks: nn.ModuleList, h: Tensor) -> Tensor:
            for block in blocks:
                scale, shift = next(modulation).chunk(2, dim=1)
                h = block(h, scale + 1, shift)
            return h

        h = self.head(F.pixel_unshuffle(x, self.config.patch))
        skips = []
        for i in range(levels):
            h = run(self.encoder[i * n : (i + 1) * n], h)
            skips.append(h)
            h = self.down[i](F.pixel_unshuffle(h, 2))
        h = run(self.middle, h)
        for i in range(levels):  # decoder blocks are stored from fine to coarse but run from coarse to fine
            j = levels - 1 - i
            h = F.pixel_shuffle(self.up[j](h), 2) + skips[j]
            h = run(self.decoder[j * n : (j + 1) * n], h)
        return F.pixel_shuffle(self.tail(F.silu(h)), self.config.patch)


class Denoiser(nn.Module):
    """D(x, sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4), an estimate of E[x0 | x0 + sigma n = x].

    Works on any image at least `minimum` pixels on each side: it is padded by reflection and cropped back.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        self.net = UNet(config)

    @property
    def minimum(self) -> int:
        return self.config.stride

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x: (B, C, H, W) = x0 + sigma n with x0 in [-1, 1]; sigma: (B,) > 0 -> x0 estimate (B, C, H, W)."""
        c_skip, c_out, c_in = preconditioning(sigma.view(-1, 1, 1, 1))
        height, width = x.shape[-2:]
        padded = F.pad(c_in * x, (0, -width % self.config.stride, 0, -height % self.config.stride), mode="reflect")
        out = self.net(padded, sigma.log() / 4)[..., :height, :width]
        return c_skip * x + c_out * out


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(c_skip, c_out, c_in) of EDM: unit-variance input and target for the bare network at every noise level."""
    total = sigma**2 + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA / total.sqrt(), 1 / total.sqrt()

"""The ADM networks of Dhariwal & Nichol (2021): ImageNet 256, unconditional, and FFHQ 256 (of DPS).

Modules named as in the checkpoints: nothing is converted. (`diffusers.UNet2DModel` is the same function
once the packed weights of every attention are taken apart: `tests/test_published.py` holds the two against each other.)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leader_nb.networks.published.layers import GROUPS, RowLinear, attend, waves


@dataclass(frozen=True)
class ADMConfig:
    """Shape of an :class:`ADMNet`; the defaults are ImageNet 256. `attention`: the levels with attention, 0 the finest.

    `head`: channels of an attention head. The sides of an image are multiples of `stride`; there is no fixed `size`.
    """

    channels: int = 3
    width: int = 256
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (3, 4, 5)
    head: int = 64
    size: int | None = None

    @property
    def stride(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


FFHQ = ADMConfig(width=128, blocks=1, attention=(4,))


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=1e-5)


def resample(x: Tensor, change: str) -> Tensor:
    """Twice the side by repeating pixels ("up"), half of it by averaging 2 x 2 ("down"), or as it is ("")."""
    if change == "up":
        return F.interpolate(x, scale_factor=2.0, mode="nearest")
    return F.avg_pool2d(x, 2) if change == "down" else x


class ResBlock(nn.Module):
    """skip(x) + conv(silu(norm(h) (1 + scale) + shift)), h = conv(silu(norm(x))); both branches resampled alike."""

    def __init__(self, cin: int, cout: int, embedding: int, change: str = "") -> None:
        super().__init__()
        self.change = change
        self.in_layers = nn.Sequential(norm(cin), nn.SiLU(), nn.Conv2d(cin, cout, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), RowLinear(embedding, 2 * cout))
        self.out_layers = nn.Sequential(norm(cout), nn.SiLU(), nn.Identity(), nn.Conv2d(cout, cout, 3, padding=1))
        self.skip_connection = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        before, conv = self.in_layers[:-1], self.in_layers[-1]
        h = conv(resample(before(x), self.change))
        scale, shift = self.emb_layers(emb).chunk(2, dim=1)
        h = self.out_layers[0](h) * (1 + scale) + shift
        return self.skip_connection(resample(x, self.change)) + self.out_layers[1:](h)


class Attention(nn.Module):
    """x + W_o softmax(q k^T / sqrt(D)) v for heads of D channels; the rows of `qkv` are packed per head as q, k, v."""

    def __init__(self, width: int, head: int) -> None:
        super().__init__()
        self.heads = width // head
        self.norm, self.qkv, self.proj_out = norm(width), nn.Conv1d(width, 3 * width, 1), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.qkv(self.norm(x).flatten(2))  # (B, 3 C, pixels)
        q, k, v = tokens.unflatten(1, (self.heads, 3, -1)).unbind(2)  # (B, heads, D, pixels) each
        return x + self.proj_out(attend(q, k, v).flatten(1, 2)).view(x.shape)


class Stage(nn.Sequential):
    """Modules in a row, of which the residual blocks also see the embedded time."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:  # type: ignore[override]
        for module in self:
            x = module(x, emb) if isinstance(module, ResBlock) else module(x)
        return x


class ADMNet(nn.Module):
    """eps(x_t, t) and the variance head's raw output, (B, 2 C, H, W) together, for raw times t (B,)."""

    def __init__(self, config: ADMConfig = ADMConfig()) -> None:
        super().__init__()
        self.config = config
        w, embedding, last = config.width, 4 * config.width, len(config.multipliers) - 1
        self.time_embed = nn.Sequential(RowLinear(w, embedding), nn.SiLU(), RowLinear(embedding, embedding))

        def stage(cin: int, cout: int, level: int, *tail: nn.Module) -> Stage:
            attention = [Attention(cout, config.head)] if level in config.attention else []
            return Stage(ResBlock(cin, cout, embedding), *attention, *tail)

        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(config.channels, w, 3, padding=1))])
        skips, width = [w], w
        for level, multiplier in enumerate(config.multipliers):
            for _ in range(config.blocks):
                self.input_blocks.append(stage(width, w * multiplier, level))
                width = w * multiplier
                skips.append(width)
            if level < last:
                self.input_blocks.append(Stage(ResBlock(width, width, embedding, "down")))
                skips.append(width)
        self.middle_block = Stage(
            ResBlock(width, width, embedding), Attention(width, config.head), ResBlock(width, width, embedding)
        )
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(config.multipliers))):
            for i in range(config.blocks + 1):
                cin, width = width + skips.pop(), w * multiplier
                up = [ResBlock(width, width, embedding, "up")] if level and i == config.blocks else []
                self.output_blocks.append(stage(cin, width, level, *up))
        self.out = nn.Sequential(norm(width), nn.SiLU(), nn.Conv2d(width, 2 * config.channels, 3, padding=1))

    def embed(self, t: Tensor) -> Tensor:
        """(B, 4 width, 1, 1) from raw times t (B,); cosines first."""
        sin, cos = waves(t, self.config.width, 0, next(self.parameters()).dtype)
        return self.time_embed(torch.cat([cos, sin], dim=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, C, H, W), t: (B,) -> (B, 2 C, H, W)."""
        emb, h = self.embed(t), x
        skips = []
        for block in self.input_blocks:
            h = block(h, emb)
            skips.append(h)
        h = self.middle_block(h, emb)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), emb)
        return self.out(h)

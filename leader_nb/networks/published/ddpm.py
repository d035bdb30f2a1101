"""The CelebA-HQ 256 network of Ho et al. (2020), in the PyTorch layout that SDEdit, DDRM, DDNM and DDPG load.

Modules named as in the checkpoint: nothing is converted, and a tensor that does not fit is shown under its own name.
`diffusers.UNet2DModel` is the same function (`tests/test_published.py` holds the two against each other), but it embeds
times with `nn.Linear`, which lets an image's result depend on what shares its batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leader_nb.networks.published.layers import GROUPS, RowLinear, attend, waves


@dataclass(frozen=True)
class DDPMConfig:
    """Shape of a :class:`DDPMNet`. `size`: the side, in pixels, that it takes; `attention`: levels that have one."""

    channels: int = 3
    width: int = 128
    multipliers: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (4,)
    size: int | None = 256

    @property
    def stride(self) -> int:
        return 2 ** (len(self.multipliers) - 1)


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=1e-6)


class Block(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x))) + W silu(temb)))), with a 1x1 shortcut where the width changes."""

    def __init__(self, cin: int, cout: int, embedding: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = norm(cin), nn.Conv2d(cin, cout, 3, padding=1)
        self.temb_proj = RowLinear(embedding, cout)
        self.norm2, self.conv2 = norm(cout), nn.Conv2d(cout, cout, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(cin, cout, 1) if cin != cout else nn.Identity()

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x))) + self.temb_proj(F.silu(temb))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """x + W_o softmax(q k^T / sqrt(C)) v: one head over all channels, every pixel a token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (part(h).flatten(2)[:, None] for part in (self.q, self.k, self.v))
        return x + self.proj_out(attend(q, k, v).reshape(x.shape))


class Down(nn.Module):
    """Halves the sides: zeros on the right and below, then a 3x3 convolution of stride 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    """Doubles the sides: every pixel four times, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, from `widths_in` channels each to `width`; the attentions may be absent."""

    downsample: Down  # on all levels but the coarsest, on the way down
    upsample: Up  # on all levels but the finest, on the way up

    def __init__(self, widths_in: list[int], width: int, embedding: int, attention: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(cin, width, embedding) for cin in widths_in)
        self.attn = nn.ModuleList(Attention(width) for _ in widths_in if attention)

    def run(self, i: int, h: Tensor, temb: Tensor) -> Tensor:
        h = self.block[i](h, temb)
        return self.attn[i](h) if len(self.attn) else h


class Embedding(nn.Module):
    """Two linear layers on the waves of the time."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.dense = nn.ModuleList([RowLinear(width, embedding), RowLinear(embedding, embedding)])

    def forward(self, h: Tensor) -> Tensor:
        """h: (B, width) -> (B, embedding, 1, 1)."""
        return self.dense[1](F.silu(self.dense[0](h)))


class Middle(nn.Module):
    """Block, attention, block at the coarsest level."""

    def __init__(self, width: int, embedding: int) -> None:
        super().__init__()
        self.block_1, self.attn_1 = Block(width, width, embedding), Attention(width)
        self.block_2 = Block(width, width, embedding)

    def forward(self, h: Tensor, temb: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(h, temb)), temb)


class DDPMNet(nn.Module):
    """eps(x_t, t), (B, C, H, W), for raw times t (B,). Levels are numbered from 0, the finest, on both ways."""

    def __init__(self, config: DDPMConfig = DDPMConfig()) -> None:
        super().__init__()
        self.config = config
        w, embedding = config.width, 4 * config.width
        self.temb = Embedding(w, embedding)
        self.conv_in = nn.Conv2d(config.channels, w, 3, padding=1)
        skips, last = [w], len(config.multipliers) - 1
        width = w
        self.down, up = nn.ModuleList(), []
        for i, multiplier in enumerate(config.multipliers):
            widths_in, width = [width] + [w * multiplier] * (config.blocks - 1), w * multiplier
            level = Level(widths_in, width, embedding, i in config.attention)
            skips += [width] * config.blocks
            if i < last:
                level.downsample = Down(width)
                skips.append(width)
            self.down.append(level)
        self.mid = Middle(width, embedding)
        for i, multiplier in reversed(list(enumerate(config.multipliers))):
            before = [width] + [w * multiplier] * config.blocks
            width = w * multiplier
            level = Level([b + skips.pop() for b in before], width, embedding, i in config.attention)
            if i > 0:
                level.upsample = Up(width)
            up.append(level)
        self.up = nn.ModuleList(reversed(up))
        self.norm_out, self.conv_out = norm(width), nn.Conv2d(width, config.channels, 3, padding=1)

    def embed(self, t: Tensor) -> Tensor:
        """(B, 4 width, 1, 1) from raw times t (B,); sines first."""
        return self.temb(torch.cat(waves(t, self.config.width, 1, self.conv_in.weight.dtype), dim=1))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """x: (B, C, H, W), t: (B,) -> (B, C, H, W)."""
        temb, h = self.embed(t), self.conv_in(x)
        skips, last = [h], len(self.down) - 1
        for level, part in enumerate(cast(Iterable[Level], self.down)):
            for i in range(self.config.blocks):
                h = part.run(i, h, temb)
                skips.append(h)
            if level < last:
                h = part.downsample(h)
                skips.append(h)
        h = self.mid(h, temb)
        for level, part in reversed(list(enumerate(cast(Iterable[Level], self.up)))):
            for i in range(self.config.blocks + 1):
                h = part.run(i, torch.cat([h, skips.pop()], dim=1), temb)
            if level > 0:
                h = part.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))

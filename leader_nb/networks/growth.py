"""A deeper network that starts as the same function: training goes on from where a smaller one ended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.networks.unet import Block, Denoiser, UNet


@torch.no_grad()
def grown(small: Denoiser, blocks: int) -> Denoiser:
    """`small` with `blocks` residual blocks per level, computing what `small` computes.

    The old blocks come first in each level; the new ones end in a convolution of zeros, so that each is the identity until
    it is trained. All else is copied. The new weights depend on torch's global seed.

    Raises InputError where `blocks` is less than `small` has.
    """
    if blocks < small.config.blocks:
        raise InputError(
            f"blocks: got {blocks}; the weights to start from have {small.config.blocks}, and none can be left out"
        )
    large = Denoiser(replace(small.config, blocks=blocks)).to(small.net.tail.weight)
    ours, theirs = large.net, small.net
    for part in ("embed", "head", "down", "up", "tail"):
        getattr(ours, part).load_state_dict(getattr(theirs, part).state_dict())
    start = dict(zip(_places(small.config.blocks, theirs), _blocks(theirs), strict=True))
    for place, (block, rows) in zip(_places(blocks, ours), _blocks(ours), strict=True):
        if place not in start:
            block.conv2.weight.zero_()
            continue
        old, old_rows = start[place]
        block.load_state_dict(old.state_dict())
        for new_row, old_row in zip(_film(ours, rows), _film(theirs, old_rows), strict=True):
            new_row.copy_(old_row)
    return large


def _places(blocks: int, net: UNet) -> Iterator[tuple[int, int]]:
    """(stage, number within it) of every block, in the order of the forward pass; the middle stage holds twice as many."""
    levels = len(net.config.widths) - 1
    for stage in range(2 * levels + 1):
        yield from ((stage, i) for i in range(2 * blocks if stage == levels else blocks))


def _blocks(net: UNet) -> Iterator[tuple[Block, slice]]:
    """Every block in the order of the forward pass, with its rows of the modulation."""
    n, levels = net.config.blocks, len(net.config.widths) - 1
    decoder = [net.decoder[j * n + i] for j in reversed(range(levels)) for i in range(n)]
    first = 0
    for block in [*net.encoder, *net.middle, *decoder]:
        assert isinstance(block, Block)
        width = 2 * block.conv1.shape[0]
        yield block, slice(first, first + width)
        first += width


def _film(net: UNet, rows: slice) -> tuple[Tensor, Tensor]:
    return net.film.weight[rows], net.film.bias[rows]

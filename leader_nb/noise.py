"""Noise as a function: z(seed, image id, role, target time, visit), so that runs which skip steps share their draws.

Draws are made on the CPU in float32 and then moved, so a seed means the same noise on every device and dtype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from leader_nb.errors import InputError

Source = Callable[[tuple, tuple[int, ...]], Tensor]


def keyed_normal(key: tuple, shape: tuple[int, ...]) -> Tensor:
    """Standard normals of `shape`, a pure function of `key` (a tuple of integers and strings)."""
    return keyed_normals([key], shape)[0]


def keyed_normals(keys: Sequence[tuple], shape: tuple[int, ...]) -> Tensor:
    """One :func:`keyed_normal` for each key, drawn in place, (len(keys), *shape)."""
    draws, generator = torch.empty(len(keys), *shape), torch.Generator()
    for draw, key in zip(draws, keys, strict=True):
        digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
        draw.normal_(generator=generator.manual_seed(int.from_bytes(digest, "little") >> 1))
    return draws


@dataclass(frozen=True)
class Noise:
    """Noise for a batch: `ids` name its images (an image keeps its id, and so its noise, in any batch).

    `source(key, shape)` may be replaced to inject noise of your own, for comparisons.
    """

    seed: int = 0
    ids: tuple[int, ...] = (0,)
    source: Source = keyed_normal
    times: tuple[int, ...] | None = None
    visits: tuple[int, ...] | None = None

    def at(self, times: Tensor, visits: Tensor) -> Noise:
        """The noise of one step: target times and how often each image has been there before, both (B,)."""
        return replace(self, times=tuple(times.tolist()), visits=tuple(visits.tolist()))

    def rows(self, index: Tensor) -> Noise:
        """The noise of some images of the batch."""
        return replace(self, ids=tuple(self.ids[i] for i in index.tolist()))

    def __call__(self, role: str, like: Tensor) -> Tensor:
        """Standard normals shaped like `like` (B, ...); `role` keeps draws for different purposes independent."""
        if len(self.ids) != len(like):
            raise InputError(f"noise: it has {len(self.ids)} image ids, the batch has {len(like)} images; give one id each")
        times = self.times or (None,) * len(self.ids)
        visits = self.visits or (0,) * len(self.ids)
        keys = [(self.seed, i, role, t, v) for i, t, v in zip(self.ids, times, visits, strict=True)]
        shape = tuple(like.shape[1:])
        if self.source is keyed_normal:
            return keyed_normals(keys, shape).to(like)
        return torch.stack([self.source(key, shape) for key in keys]).to(like)


def noise_for(batch: int, seed: int = 0, ids: Sequence[int] | None = None) -> Noise:
    """The noise of a batch whose images are numbered 0, 1, ... unless `ids` says otherwise."""
    return Noise(int(seed), tuple(int(i) for i in ids) if ids is not None else tuple(range(batch)))

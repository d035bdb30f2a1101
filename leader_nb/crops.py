"""Photographs for the big table: one central crop each, from a folder or from the built-in ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor

from leader_nb.data import BUILTIN_PHOTOS, builtin_photo, load_image
from leader_nb.errors import InputError, unknown
from leader_nb.train import image_files

FRAME = 4  # a crop shows this many times its side of the photograph, reduced: the smallest scale the prior trained at
SPLITS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Photo:
    """A photograph: `pixels` (3, size, size) in [-1, 1], and the name that keys its noise and its mask."""

    name: str
    pixels: Tensor

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.pixels.cpu().contiguous().numpy().tobytes()).hexdigest()

    @property
    def id(self) -> int:
        """Its number for :class:`leader_nb.Noise`: the same in any selection of photographs."""
        return int(hashlib.sha256(self.name.encode()).hexdigest()[:12], 16)


def photographs(images: str | Path, size: int, n: int | None = None, split: str = "test") -> list[Photo]:
    """The first `n` photographs (all, by default) of a folder's `split`, or built-in ones: "builtin", "astronaut,coffee".

    Of each, the central square of FRAME * size pixels (or all of the shorter side, where that is less) is reduced to
    `size` by an antialiased bicubic: enough of the scene to see what it is, at a scale at which the priors were trained.
    A folder without a photos.csv has no splits and is taken whole.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if Path(images).is_dir():
        files = image_files(images, split)
        found = len(files)
        whole: Iterator[tuple[str, Tensor]] = ((path.name, load_image(path, 0)) for path in files)
    else:
        names = builtin_names(str(images))
        found = len(names)
        whole = ((name, builtin_photo(name, 0)) for name in names)
    if n is not None and not 1 <= n <= found:
        raise InputError(f"n: got {n}; give 1 to {found}, the number of photographs there")
    return [Photo(name, centre(name, image, size)) for name, image in islice(whole, n)]


def builtin_names(text: str) -> tuple[str, ...]:
    """`astronaut,coffee` -> ("astronaut", "coffee"); `builtin` -> all of BUILTIN_PHOTOS."""
    names = BUILTIN_PHOTOS if text == "builtin" else tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    if not set(names) <= set(BUILTIN_PHOTOS):
        choices = ", ".join(BUILTIN_PHOTOS)
        raise InputError(f"images: no folder at {text}; give one, or photographs that are built in: builtin, or {choices}")
    return names


def centre(name: str, image: Tensor, size: int) -> Tensor:
    """The central square of (1, 3, H, W), reduced to (3, size, size) and never enlarged."""
    height, width = image.shape[-2:]
    side = min(height, width, FRAME * size)
    if not 1 <= size <= side:
        raise InputError(f"size: got {size}; {name} has {width} x {height} pixels, give 1 to {min(height, width)}")
    top, left = (height - side) // 2, (width - side) // 2
    square = image[..., top : top + side, left : left + side]
    if side != size:
        square = F.interpolate(square, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return square[0].clamp(-1, 1)

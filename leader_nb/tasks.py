"""Tasks: a degradation and its noise, spelled `sr4@0.05`: a frozen value that builds its operator for any image size."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.errors import InputError, unknown
from leader_nb.noise import Noise, keyed_normal, noise_for
from leader_nb.operators import (
    Operator,
    average_pool,
    bicubic,
    convolution,
    denoising,
    gaussian_kernel,
    grey,
    inpainting,
)
from leader_nb.problem import Problem, measure

Shape = tuple[int, int, int]
DEGRADATIONS: tuple[str, ...] = ("sr4", "gaussian", "inpaint70", "denoise", "color", "pool4")
TASKS: tuple[str, ...] = ("sr4@0", "sr4@0.05", "gaussian@0.05", "inpaint70@0", "denoise@0.1", "color@0", "pool4@0.05")


@dataclass(frozen=True)
class Task:
    """`degradation` is one of DEGRADATIONS (srN, poolN and inpaintP take other numbers too); `sigma` for [0, 1] images."""

    degradation: str
    sigma: float

    def __str__(self) -> str:
        return f"{self.degradation}@{self.sigma:g}"

    @property
    def multiple(self) -> int:
        """What the sides of an image must be a multiple of."""
        kind, number = split(self.degradation)
        return number if kind in {"sr", "pool"} else 1

    def operator(self, shape: Shape, like: Tensor, seed: int = 0, ids: Sequence[int] = (0,)) -> Operator:
        """The operator on (C, H, W) images in the dtype of `like`; masks are drawn per image from (seed, id)."""
        kind, number = split(self.degradation)
        return BUILDERS[kind](shape, number, like, seed, tuple(ids))

    def measure(self, x: Tensor, seed: int = 0, ids: Sequence[int] | None = None, noise: Noise | None = None) -> Problem:
        """Degrade x (B, C, H, W) in [-1, 1]; image i has the mask and the noise of (seed, ids[i])."""
        noise = noise or noise_for(len(x), seed, ids)
        channels, height, width = x.shape[1:]
        return measure(self.operator((channels, height, width), x, seed, noise.ids), x, self.sigma, noise)


def parse_task(text: str) -> Task:
    """`sr4@0.05` -> Task("sr4", 0.05); a name without @ has no noise."""
    name, _, level = text.partition("@")
    try:
        sigma = float(level) if level else 0.0
    except ValueError:
        raise InputError(f"task: {text!r} has noise {level!r}; write a number after @, as in sr4@0.05") from None
    if not 0 <= sigma <= 10:
        raise InputError(f"task: {text!r} has sigma {sigma:g}; give a number from 0 to 10, the noise for images in [0, 1]")
    split(name)
    return Task(name, sigma)


def split(name: str) -> tuple[str, int]:
    """`inpaint70` -> ("inpaint", 70), refusing what no builder knows and numbers that make no sense."""
    match = re.fullmatch(r"([a-z]+)(\d*)", name)
    kind = match[1] if match else name
    if kind not in BUILDERS or (kind in LIMITS) != bool(match and match[2]):
        raise unknown("task", name, DEGRADATIONS)
    number = int(match[2]) if match and match[2] else 0
    if kind in LIMITS and not LIMITS[kind][0] <= number <= LIMITS[kind][1]:
        low, high = LIMITS[kind]
        raise InputError(f"task: {name!r} is out of range; give {kind}{low} to {kind}{high}")
    return kind, number


def random_mask(shape: Shape, percent: int, like: Tensor, seed: int, ids: Sequence[int]) -> Operator:
    """Lose `percent` of the pixels of each image, all channels alike: exactly that many, at places keyed by (seed, id)."""
    lost = round(shape[1] * shape[2] * percent / 100)
    keep = torch.ones(len(ids), 1, shape[1] * shape[2], dtype=torch.bool)
    for row, image in zip(keep, ids, strict=True):
        order = keyed_normal((seed, image, "mask"), (shape[1] * shape[2],)).argsort()
        row[0, order[:lost]] = False
    return inpainting(keep.view(len(ids), 1, *shape[1:]), shape, like)


LIMITS: dict[str, tuple[int, int]] = {"sr": (2, 8), "pool": (2, 8), "inpaint": (1, 99)}
BUILDERS: dict[str, Callable[[Shape, int, Tensor, int, Sequence[int]], Operator]] = {
    "sr": lambda shape, n, like, seed, ids: bicubic(shape, n, like),
    "pool": lambda shape, n, like, seed, ids: average_pool(shape, n, like),
    "gaussian": lambda shape, n, like, seed, ids: convolution(gaussian_kernel(), shape, like),
    "inpaint": lambda shape, n, like, seed, ids: random_mask(shape, n, like, seed, ids),
    "denoise": lambda shape, n, like, seed, ids: denoising(shape, like),
    "color": lambda shape, n, like, seed, ids: grey(shape, like),
}

"""Tasks: a degradation and its noise, spelled `sr4@0.05`: a frozen value that builds its operator for any image size."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leader_nb.errors import InputError, kind_of, unknown
from leader_nb.noise import Noise, keyed_normal, noise_for
from leader_nb.operators import (
    Operator,
    anisotropic_kernel,
    average_pool,
    bicubic,
    block_projection,
    blur,
    circular_bicubic,
    convolution,
    denoising,
    gaussian_kernel,
    grey,
    hadamard,
    inpainting,
    motion_kernel,
    random_slots,
    uniform_kernel,
    wide_gaussian_line,
)
from leader_nb.operators.convolution import gaussian_line
from leader_nb.operators.hadamard import BLOCK, power_above, power_below
from leader_nb.operators.motion import COUNT, drawn_number
from leader_nb.problem import Problem, check_floating, check_pictures, measure

Shape = tuple[int, int, int]
DEGRADATIONS: tuple[str, ...] = ("sr4", "gaussian", "motion", "inpaint70", "cs25", "denoise", "color", "pool4")
VARIANTS: tuple[str, ...] = (  # what other codes call Gaussian blur and so on, and rarer degradations
    "gaussian-wide",  # std 3 on 256 pixels, circular (DiffPIR)
    "gaussian-reflect",  # the same, borders mirrored (DPS)
    "gaussian-zero",  # 5 taps, zeros outside, s of either axis below 0.03 dropped (DDPG by SVD)
    "gaussian-short",  # the same without its last tap (DDRM, DDNM); their mixed-up channels are not copied
    "sr-circular4",  # bicubic with periodic borders (DDPG by FFT)
    "uniform",
    "anisotropic",
    "blockcs25",
)
TASKS: tuple[str, ...] = (
    "sr4@0",
    "sr4@0.05",
    "gaussian@0.05",
    "motion@0.05",
    "inpaint70@0",
    "cs25@0.05",
    "denoise@0.1",
    "color@0",
    "pool4@0.05",
)

FARTHEST = 10.0  # |x| up to here is taken for an image in [-1, 1] that leaves it, as normal draws and bright spots do


@dataclass(frozen=True)
class Task:
    """`degradation`: one of DEGRADATIONS or VARIANTS, or with another number (see LIMITS); `sigma` for [0, 1] images.

    `motion` gives each image a camera path keyed by (seed, id), `motion3` gives all of them the third; paths and the wide
    Gaussians scale with the shorter side of the image, short kernels do not.
    """

    degradation: str
    sigma: float

    def __str__(self) -> str:
        return f"{self.degradation}@{self.sigma:g}"

    @property
    def multiple(self) -> int:
        """What the sides of an image must be a multiple of."""
        kind, number = split(self.degradation)
        return {"sr": number, "sr-circular": number, "pool": number, "blockcs": BLOCK}.get(kind, 1)

    @property
    def dense(self) -> bool:
        """Whether the operator holds matrices as large as the square of a side."""
        return split(self.degradation)[0] in {"sr", "sr-circular", "pool", *BORDERED}

    def sides_near(self, side: int) -> tuple[int, int]:
        """The largest side up to `side`, and the smallest from it on, that the operator can take: equal where it can."""
        if split(self.degradation)[0] == "cs":
            return power_below(side), power_above(side)
        return side // self.multiple * self.multiple, -(-side // self.multiple) * self.multiple

    def operator(self, shape: Shape, like: Tensor, seed: int = 0, ids: Sequence[int] = (0,)) -> Operator:
        """The operator on (C, H, W) images in the dtype of `like`; masks, slots and paths are those of (seed, id)."""
        check_floating("like", like)
        kind, number = split(self.degradation)
        return BUILDERS[kind](shape, number, like, seed, tuple(ids))

    def measure(self, x: Tensor, seed: int = 0, ids: Sequence[int] | None = None, noise: Noise | None = None) -> Problem:
        """Degrade x (B, C, H, W) in [-1, 1]; image i has the mask (or the like) and the noise of (seed, ids[i]).

        Refuses |x| above FARTHEST, which means pixels from 0 to 255; :func:`leader_nb.measure` takes any range.
        """
        check_pictures(x)
        largest = x.abs().max().item() if x.numel() else 0.0
        if FARTHEST < largest < float("inf"):  # what is not finite is refused with the measurement
            raise InputError(f"x: |x| reaches {largest:g}; images are in [-1, 1]: use x / 127.5 - 1 for pixels from 0 to 255")
        noise = noise or noise_for(len(x), seed, ids)
        channels, height, width = x.shape[1:]
        return measure(self.operator((channels, height, width), x, seed, noise.ids), x, self.sigma, noise)


def parse_task(text: str) -> Task:
    """`sr4@0.05` -> Task("sr4", 0.05); a name without @ has no noise."""
    if not isinstance(text, str):
        raise InputError(f"task: got {kind_of(text)}; give a string such as 'sr4@0.05'")
    name, _, level = text.partition("@")
    try:
        sigma = float(level) if level else 0.0
    except ValueError:
        raise InputError(f"task: {text!r} has noise {level!r}; write a number after @, as in sr4@0.05") from None
    if not 0 <= sigma <= 10:
        raise InputError(f"task: {text!r} has sigma {sigma:g}; give a number from 0 to 10, the noise for images in [0, 1]")
    split(name)
    return Task(name, sigma)


def as_task(task: object) -> Task:
    """A task as it is, or as it is spelled."""
    return task if isinstance(task, Task) else parse_task(str(task))


def split(name: str) -> tuple[str, int]:
    """`inpaint70` -> ("inpaint", 70), refusing what no builder knows and numbers that make no sense; 0 where there is none."""
    match = re.fullmatch(r"([a-z]+(?:-[a-z]+)*)(\d*)", name)
    kind = match[1] if match else name
    numbered = bool(match and match[2])
    if kind not in BUILDERS or (numbered if kind not in LIMITS else not numbered and kind != "motion"):
        raise unknown("task", name, (*DEGRADATIONS, *VARIANTS))
    number = int(match[2]) if match and match[2] else 0
    if numbered and not LIMITS[kind][0] <= number <= LIMITS[kind][1]:
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


def motion_blur(shape: Shape, number: int, like: Tensor, seed: int, ids: Sequence[int]) -> Operator:
    """Blur along camera path `number`, or with 0 along one of each image's own, keyed by (seed, id)."""
    chosen = [number] if number else [drawn_number(seed, image) for image in ids]
    return convolution(torch.stack([motion_kernel(n, shape) for n in chosen]), shape, like)


def wide_gaussian(shape: Shape, like: Tensor, border: str = "circular") -> Operator:
    """Gaussian blur of std 3 pixels on 256."""
    line = wide_gaussian_line(min(shape[1:]))
    if border == "circular":
        return convolution(torch.outer(line, line), shape, like)
    return blur(line, shape, like, border)


def dark_gaussian(taps: int, shape: Shape, like: Tensor) -> Operator:
    """The first `taps` of the paper's five, with zeros outside the image, as released codes have it for their SVD."""
    return blur(gaussian_line(5, 10.0)[:taps], shape, like, "zero", first=-2, floor=0.03)


BORDERED = ("gaussian-reflect", "gaussian-zero", "gaussian-short")
LIMITS: dict[str, tuple[int, int]] = {
    "sr": (2, 8),
    "sr-circular": (2, 8),
    "pool": (2, 8),
    "inpaint": (1, 99),
    "cs": (1, 99),
    "blockcs": (1, 99),
    "motion": (1, COUNT),
}
BUILDERS: dict[str, Callable[[Shape, int, Tensor, int, Sequence[int]], Operator]] = {
    "sr": lambda shape, n, like, seed, ids: bicubic(shape, n, like),
    "sr-circular": lambda shape, n, like, seed, ids: circular_bicubic(shape, n, like),
    "pool": lambda shape, n, like, seed, ids: average_pool(shape, n, like),
    "gaussian": lambda shape, n, like, seed, ids: convolution(gaussian_kernel(), shape, like),
    "gaussian-wide": lambda shape, n, like, seed, ids: wide_gaussian(shape, like),
    "gaussian-reflect": lambda shape, n, like, seed, ids: wide_gaussian(shape, like, "reflect"),
    "gaussian-zero": lambda shape, n, like, seed, ids: dark_gaussian(5, shape, like),
    "gaussian-short": lambda shape, n, like, seed, ids: dark_gaussian(4, shape, like),
    "uniform": lambda shape, n, like, seed, ids: convolution(uniform_kernel(), shape, like),
    "anisotropic": lambda shape, n, like, seed, ids: convolution(anisotropic_kernel(), shape, like),
    "motion": motion_blur,
    "inpaint": lambda shape, n, like, seed, ids: random_mask(shape, n, like, seed, ids),
    "cs": lambda shape, n, like, seed, ids: hadamard(random_slots(shape, n, seed, ids), shape, like),
    "blockcs": lambda shape, n, like, seed, ids: block_projection(shape, n, like, seed),
    "denoise": lambda shape, n, like, seed, ids: denoising(shape, like),
    "color": lambda shape, n, like, seed, ids: grey(shape, like),
}

"""How much memory a run needs, asked before anything is allocated, and what size would fit where it is too much.

What is meant is how much the process grows: its peak resident set on a CPU, in float32, one image at a time unless said.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from PIL import Image

from leader_nb.data import BUILTIN_PHOTOS, MIN_SIDE
from leader_nb.errors import InputError
from leader_nb.networks import UNetConfig
from leader_nb.networks.files import load_denoiser
from leader_nb.networks.published import PUBLISHED, skeleton
from leader_nb.tasks import Task
from leader_nb.train import image_files
from leader_nb.zoo import prior_path

# Measured at 128 to 1024 px. photo-small took at most 955 bytes per pixel in the loop, 1180 with metrics and plates (at 512
# px), and 3565 (photo-base 6265) in a call whose gradient is taken.
BUFFERS = 14  # activations of the finest level alive at once: 896 bytes per pixel of photo-small
KEPT = 6.5  # activations of every residual block that its gradient needs
# Of the published networks, activations are counted tensor by tensor (see `PUBLISHED`); what convolutions work in comes on
# top. With FIXED for what does not grow with the image, at most 1.31 times the count was measured (celebahq-256).
WORKSPACE = 1.4
BESIDES = 300  # bytes per pixel for what is not the network: the loop, the metrics in float64, the pictures
PHOTO = 48  # bytes per pixel of a photograph while a folder of them is read: crops, their stack, and its conversion
DENSE = 40  # bytes per (side squared) for the two SVDs of a downsampling operator
FIXED = 100e6  # bytes at any size: the plate, LPIPS, convolutions' rearranged weights
SHARE = 0.9  # of the free memory that a run may plan with


@dataclass(frozen=True)
class Footprint:
    """What a network takes: `call` and `kept`, bytes for each pixel of an image, without a gradient and with one.

    Its images' sides are padded to multiples of `stride`. They have to be multiples of `multiple`, and `size` where that is
    given. `weights`: bytes of its parameters.
    """

    call: float
    kept: float
    stride: int
    multiple: int = 1
    size: int | None = None
    weights: float = 0.0

    @classmethod
    def of_unet(cls, config: UNetConfig) -> Footprint:
        """By the shape of the network: the finest level counts for a call, every block for a gradient."""
        call = BUFFERS * 4 * config.widths[0] / config.patch**2
        blocks = sum(2 * config.blocks * width / (config.patch**2 * 4**i) for i, width in enumerate(config.widths))
        return cls(call, call + KEPT * 4 * blocks, config.stride)

    @classmethod
    def of_prior(cls, name: str) -> Footprint:
        """Of a prior by its name, or its file. The weights of a published network are not read."""
        if name not in PUBLISHED:
            return cls.of_unet(load_denoiser(prior_path(name))[0].config)
        known, config = PUBLISHED[name], skeleton(name).config
        call, kept = (WORKSPACE * counted for counted in (known.call, known.kept))
        return cls(call, kept, config.stride, config.stride, config.size, 4 * known.parameters)

    def per_pixel(self, gradient: bool) -> float:
        """Bytes for each pixel of an image in a restoration, by a host that takes a gradient or by one that does not."""
        return (self.kept if gradient else self.call) + BESIDES

    def check_sides(self, height: int, width: int, name: str, argument: str = "size") -> None:
        """Raises `InputError`, under the name of the `argument`, for an image that the network called `name` cannot take."""
        given = f"{argument}: got {width} x {height} pixels"
        if self.size is not None and (height, width) != (self.size, self.size):
            raise InputError(f"{given}; the prior {name!r} takes {self.size} x {self.size} and nothing else")
        if height % self.multiple or width % self.multiple:
            near = max(1, round(min(height, width) / self.multiple)) * self.multiple
            raise InputError(f"{given}; the prior {name!r} needs multiples of {self.multiple}: give --size {near}")


def free_memory(device: torch.device | str = "cpu") -> int:
    """Bytes free on a device; on the CPU also within the limit of a container, which the system's own count ignores."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no such files outside a container, and "max" where it has no limit
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{n}").read_text()) for n in ("max", "current"))
        free = min(free, limit - used)
    return max(free, 0)


def bytes_needed(height: int, width: int, per_pixel: float, dense: bool = True) -> float:
    """What a run of this size adds to the process at its peak; `dense`: see :class:`leader_nb.tasks.Task`."""
    return FIXED + per_pixel * height * width + dense * DENSE * (height**2 + width**2)


def require_weights(footprint: Footprint, name: str, device: torch.device | str) -> None:
    """Refuses to read weights that do not fit."""
    allowed = SHARE * free_memory(device)
    if footprint.weights > allowed:
        raise InputError(
            f"prior: the weights of {name!r} need {footprint.weights / 1e9:.1f} GB of memory, {allowed / 1e9:.1f} GB may be"
            " used; free some memory first, or take a smaller prior"
        )


def require_run(
    height: int,
    width: int,
    tasks: Sequence[Task],
    footprint: Footprint,
    device: torch.device | str,
    gradient: bool = False,
    whole: bool = False,
    batch: int = 1,
) -> None:
    """Refuses images that do not fit, and says what size would: one that every task and the network can take.

    `gradient`: whether a host takes one; `whole`: whether the image can be shrunk to another shape; `batch`: images at a time.
    """
    dense, per_pixel = any(task.dense for task in tasks), batch * footprint.per_pixel(gradient)
    needed, allowed = bytes_needed(height, width, per_pixel, dense), SHARE * free_memory(device)
    if needed <= allowed:
        return
    step = math.lcm(footprint.stride, *(task.multiple for task in tasks))
    room = max(allowed - FIXED, 0)
    shrink = math.sqrt(room / (needed - FIXED))
    square = math.sqrt(room / (bytes_needed(1, 1, per_pixel, dense) - FIXED))
    h, w, square = (side_below(int(side) // step * step, step, tasks) for side in (height * shrink, width * shrink, square))
    advice = f"shrink it to {w} x {h}, or give --size {square}" if whole else f"give --size {square}"
    if min(square, h, w) < (footprint.size or MIN_SIDE):
        advice = "free some memory first"
    if batch > 1:
        advice += ", or a smaller --batch"
    raise InputError(
        f"size: {width} x {height} pixels{f', {batch} at a time,' if batch > 1 else ''} need about {needed / 1e9:.1f} GB of"
        f" memory, {allowed / 1e9:.1f} GB may be used; {advice}"
    )


def side_below(side: int, step: int, tasks: Sequence[Task]) -> int:
    """The largest side up to `side`, a multiple of `step`, that every task can take; 0 where there is none."""
    while side > 0 and (nearest := min([task.sides_near(side)[0] for task in tasks], default=side)) < side:
        side = nearest // step * step
    return side


def require_report(images: str | Path, size: int, footprint: Footprint, device: torch.device | str) -> None:
    """Refuses a report on crops that do not fit, one call at a time beside all of them, and says what size would."""
    count = larger(images, size)
    per_pixel = footprint.call + BESIDES
    needed, allowed = FIXED + (per_pixel + count * PHOTO) * size**2, SHARE * min(free_memory(device), free_memory("cpu"))
    if needed <= allowed or not count:  # a folder without such images is refused where it is read
        return
    fits = int(math.sqrt(max(allowed - FIXED, 0) / (per_pixel + count * PHOTO))) // footprint.stride * footprint.stride
    advice = f"give --size {fits}" if fits >= (footprint.size or MIN_SIDE) else "free some memory first"
    raise InputError(
        f"size: {count} photographs of {size} x {size} pixels need about {needed / 1e9:.1f} GB of memory,"
        f" {allowed / 1e9:.1f} GB may be used; {advice}"
    )


def larger(images: str | Path, size: int) -> int:
    """How many photographs of a folder (of its test split) have `size` pixels a side; of built-in ones, how many there are."""
    if not Path(images).is_dir():
        return len(BUILTIN_PHOTOS)
    count = 0
    for path in image_files(images, "test"):
        with contextlib.suppress(OSError, SyntaxError), Image.open(path) as picture:  # what cannot be read is named later
            count += min(picture.size) >= size
    return count

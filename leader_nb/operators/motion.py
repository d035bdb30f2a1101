"""Motion blur: the paths that a shaken camera draws, stored as data, and their kernels for an image of any size."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from leader_nb.errors import InputError
from leader_nb.noise import keyed_normal

PATHS = Path(__file__).with_name("motion.safetensors")
COUNT, INSTANTS, SEED = 8, 512, 2024
RADIUS, REFERENCE = 30, 256  # kernels are 61 x 61 on an image of 256 pixels
MEMORY = 0.15  # correlation time of the tremor, as a share of the exposure


def random_path(number: int, seed: int = SEED) -> Tensor:
    """Where the image of a point is at INSTANTS equal instants of an exposure: (INSTANTS, 2) float64, (down, across).

    The recipe: velocity = drift + tremor. The drift is one normal draw in the plane; the tremor is a stationary
    Ornstein-Uhlenbeck process (variance 1 on each axis, correlation time MEMORY), so that the hand has inertia and speed
    varies: where it is slow, the path is bright. The path is the sum of the velocities, with its mean at the origin and its
    farthest coordinate at 12 + 2 `number` pixels of a 256 pixel image. Draws are keyed by (seed, number).
    """
    draws = keyed_normal((seed, number, "motion"), (INSTANTS + 1, 2)).double()
    keep = math.exp(-1 / (MEMORY * INSTANTS))
    velocity = [draws[0]]
    for draw in draws[1:INSTANTS]:
        velocity.append(keep * velocity[-1] + math.sqrt(1 - keep**2) * draw)
    path = (torch.stack(velocity) + draws[INSTANTS]).cumsum(0)
    path = path - path.mean(0)
    return path * (12 + 2 * number) / path.abs().max()


@lru_cache(maxsize=1)
def stored_paths() -> Tensor:
    """The paths of the package, (COUNT, INSTANTS, 2) float64: number 1 is the shortest, number COUNT the longest."""
    return safetensors.torch.load_file(PATHS)["paths"].double()


def motion_kernel(number: int, shape: tuple[int, int, int]) -> Tensor:
    """Kernel `number` (1 to COUNT) for images (C, H, W): (q, q) float64, sums to 1, its centre of mass in the middle.

    It scales with the shorter side of the image: q = 61 at 256 pixels. Each instant gives its light to the four pixels
    around it in bilinear shares, which keeps the sum and the centre of mass.
    """
    if not 1 <= number <= COUNT:
        raise InputError(f"kernel: got {number}; give 1 (the shortest) to {COUNT} (the longest)")
    scale = min(shape[1:]) / REFERENCE
    radius = math.ceil(RADIUS * scale)
    place = stored_paths()[number - 1] * scale + radius
    corner = place.floor()
    kernel = torch.zeros(2 * radius + 1, 2 * radius + 1, dtype=torch.float64)
    for down in (0, 1):
        for across in (0, 1):
            pixel = corner + torch.tensor([down, across])
            light = (1 - (place - pixel).abs()).prod(1)
            kernel.index_put_((pixel[:, 0].long(), pixel[:, 1].long()), light, accumulate=True)
    return kernel / INSTANTS


def drawn_number(seed: int, image: int) -> int:
    """Which kernel image `image` has, from 1 to COUNT, each as likely as the others."""
    return 1 + int(keyed_normal((seed, image, "kernel"), (COUNT,)).argmax())

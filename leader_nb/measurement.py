"""A measurement on disk: y as numbers, with what it takes to restore it again. (A PNG would clip and quantise y.)"""

from __future__ import annotations

import json
import math
import operator
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from leader_nb.data import atomic_write, no_file
from leader_nb.errors import InputError, one_line

VERSION = 1
KEY = "leader_nb.measurement"  # the metadata entry that says what the file is; its value is JSON


@dataclass(frozen=True, eq=False)
class Measurement:
    """y = A x + noise and its recipe.

    y        (1, c, h, w) floating point, image-shaped, in the units of an image in [-1, 1]
    task     how the problem is spelled, for instance "sr4@0.05": the operator, and sigma after the @
    sigma    standard deviation of the noise for images in [0, 1] (before the one doubling)
    seed     of the operator's own draws (masks, kernels) and of the noise
    shape    (C, H, W) of the clean image
    tensors  what else belongs to it, such as the mask that was drawn
    notes    free text by name, such as who measured it
    """

    y: Tensor
    task: str
    sigma: float
    seed: int
    shape: tuple[int, int, int]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_tensor("y", self.y)
        if self.y.ndim != 4 or self.y.shape[0] != 1 or not self.y.is_floating_point():
            given = f"{self.y.dtype} of shape {tuple(self.y.shape)}"
            raise InputError(f"y: got {given}; give one measurement as floats (1, c, h, w)")
        object.__setattr__(self, "sigma", _sigma(self.sigma))
        object.__setattr__(self, "seed", _integer("seed", self.seed, 0))
        object.__setattr__(self, "shape", _shape(self.shape))
        _check_task(self.task, self.sigma)
        for name, tensor in self.tensors.items():
            if name == "y" or not name:
                raise InputError(f"tensors: the name {name!r} is taken; choose another, such as 'mask'")
            _check_tensor(f"tensors[{name!r}]", tensor)
        if not isinstance(self.notes, Mapping) or not all(isinstance(s, str) for pair in self.notes.items() for s in pair):
            raise InputError("notes: names and values must be strings; turn them into text with str()")


def save_measurement(
    path: str | os.PathLike[str],
    y: Tensor,
    task: str,
    sigma: float,
    seed: int,
    shape: tuple[int, int, int],
    tensors: Mapping[str, Tensor] | None = None,
    notes: Mapping[str, str] | None = None,
) -> None:
    """Write a :class:`Measurement` as one safetensors file, whole or not at all.

    Raises `InputError` where a field is not what :class:`Measurement` asks for, or the folder cannot be written.
    """
    m = Measurement(y, task, sigma, seed, shape, dict(tensors or {}), dict(notes or {}))
    header = {"version": VERSION, "task": m.task, "sigma": m.sigma, "seed": m.seed}
    header |= {"shape": list(m.shape), "notes": dict(m.notes)}
    # safetensors wants every tensor to own contiguous memory
    arrays = {name: t.detach().cpu().contiguous().clone() for name, t in {"y": m.y, **m.tensors}.items()}
    content = safetensors.torch.save(arrays, metadata={KEY: json.dumps(header)})
    atomic_write(path, lambda file: file.write(content))


def load_measurement(path: str | os.PathLike[str]) -> Measurement:
    """Read what :func:`save_measurement` wrote; tensors on the CPU in the dtype they were saved in.

    Raises `InputError` where the file is missing, cut short, of another kind or version, lacks a field, or holds NaN.
    """
    path = Path(path)
    if not path.is_file():
        raise no_file(path, "measurement")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # copied, because a slice of a mapped file would change or fail when the file is replaced
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is cut short or no safetensors file ({one_line(error)}); copy it again") from None
    try:
        return Measurement(y=_y(tensors), tensors=tensors, **_header(metadata))
    except InputError as error:
        raise InputError(f"{path} is no sound measurement: {error}") from None


def _y(tensors: dict[str, Tensor]) -> Tensor:
    if "y" not in tensors:
        raise InputError(
            f"it has no tensor y (only {', '.join(list(tensors)[:3]) or 'nothing'}); save it with save_measurement"
        )
    return tensors.pop("y")


def _header(metadata: Mapping[str, str]) -> dict[str, Any]:
    if KEY not in metadata:
        raise InputError(f"its metadata lack {KEY!r}; save it with save_measurement")
    try:
        header = json.loads(metadata[KEY])
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise InputError(f"its metadata {KEY!r} are not a JSON object; save it with save_measurement")
    version = header.get("version")
    if version != VERSION:
        raise InputError(f"it has version {version!r}, this package reads {VERSION}; save it again or use the right release")
    wanted = ("task", "sigma", "seed", "shape", "notes")
    if missing := [name for name in wanted if name not in header]:
        raise InputError(f"its metadata lack {', '.join(missing)}; save it with save_measurement")
    return {name: header[name] for name in wanted}


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name}: got {type(tensor).__name__}; give a tensor")
    if tensor.numel() == 0:
        raise InputError(f"{name}: got the empty shape {tuple(tensor.shape)}; give at least one value")
    if not torch.isfinite(tensor).all():
        raise InputError(f"{name}: {int((~torch.isfinite(tensor)).sum())} values are NaN or infinite; mask them out first")


def _sigma(sigma: object) -> float:
    try:
        value = float(sigma)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f"sigma={sigma!r}: give a number of at least 0, for instance 0.05 (for images in [0, 1])")
    return value


def _integer(name: str, given: object, low: int) -> int:
    try:
        value = -1 if isinstance(given, bool) else operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        value = -1
    if not low <= value < 2**63:
        raise InputError(f"{name}={given!r}: give an integer of at least {low}")
    return value


def _shape(shape: object) -> tuple[int, int, int]:
    if not isinstance(shape, tuple | list | torch.Size) or len(shape) != 3:
        raise InputError(f"shape={shape!r}: give (C, H, W) of the clean image, for instance (3, 256, 256)")
    c, h, w = (_integer(f"shape[{i}]", side, 1) for i, side in enumerate(shape))
    return c, h, w


def _check_task(task: object, sigma: float) -> None:
    name, at, level = task.partition("@") if isinstance(task, str) else ("", "", "")
    try:
        spelled = float(level)
    except ValueError:
        spelled = math.nan
    if not (name and at) or any(c.isspace() for c in name) or math.isnan(spelled):
        raise InputError(f"task={task!r}: spell it operator@sigma, for instance 'sr4@0.05'")
    if not math.isclose(spelled, sigma, rel_tol=1e-5, abs_tol=1e-12):
        raise InputError(f"task={task!r} says sigma {spelled:g}, but sigma={sigma:g}; make them agree")

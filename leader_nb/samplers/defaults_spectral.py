"""Settings that DDRM, IDPG, DDPG and ProjDiff were published with, task by task: `DDPG(**tuned("ddpg", "sr4@0.05"))`.

Read from the released scripts of tirer-lab/DDPG (fcd17382) and weigerzan/ProjDiff (ff5609c9), for 100 steps on 256 x 256
images, sigma for [0, 1] images; they were tuned for the networks of those papers. DDRM has one setting for every task.

Super-resolution is bicubic ("sr") for DDPG and IDPG, and average pooling ("pool") for ProjDiff. Neither published the other:
`tuned("projdiff", "sr4@0.05")` is what was found for average pooling, the nearest there is, and not for bicubic weights.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from leader_nb.errors import unknown

IMAGES = ("photographs", "faces")  # ImageNet, CelebA-HQ
NEIGHBOURS = {"pool": "sr", "sr": "pool"}  # whose settings a degradation takes where it has none of its own


@dataclass(frozen=True)
class Tuned:
    """`values`: what `host` takes for the degradation `kind` at noise `sigma` on such `images`."""

    host: str
    images: str
    kind: str
    sigma: float
    values: tuple[tuple[str, float], ...]


def _ddpg(images: str, kind: str, sigma: float, gamma: float, zeta: float, ridge: float, mode: int) -> Tuned:
    return Tuned("ddpg", images, kind, sigma, (("gamma", gamma), ("zeta", zeta), ("ridge", ridge), ("mode", mode)))


def _idpg(images: str, kind: str, sigma: float, gamma: float, ridge: float) -> Tuned:
    return Tuned("idpg", images, kind, sigma, (("gamma", gamma), ("ridge", ridge)))


def _noise_free(host: str, images: str, kind: str, name: str, value: float) -> Tuned:
    return Tuned(host, images, kind, 0.0, ((name, value),))


TABLE: tuple[Tuned, ...] = (
    _noise_free("ddpg", "faces", "sr", "zeta", 0.7),
    _noise_free("ddpg", "faces", "gaussian", "zeta", 1.0),
    _noise_free("ddpg", "photographs", "sr", "zeta", 0.7),
    _noise_free("ddpg", "photographs", "gaussian", "zeta", 1.0),
    _ddpg("faces", "sr", 0.01, 300, 1.0, 1.0, 0),
    _ddpg("faces", "gaussian", 0.01, 11, 0.6, 1.0, 0),
    _ddpg("faces", "motion", 0.01, 50, 0.5, 6.0, 0),
    _ddpg("faces", "sr", 0.05, 10, 0.8, 0.3, 1),
    _ddpg("faces", "gaussian", 0.05, 8, 0.5, 0.7, 1),
    _ddpg("faces", "motion", 0.05, 5, 0.6, 0.6, 1),
    _ddpg("faces", "gaussian", 0.1, 5, 0.6, 0.7, 1),
    _ddpg("faces", "motion", 0.1, 5, 0.6, 0.6, 1),
    _ddpg("photographs", "sr", 0.05, 6, 1.0, 0.3, 1),
    _ddpg("photographs", "gaussian", 0.05, 10, 0.4, 0.7, 1),
    _ddpg("photographs", "motion", 0.05, 6, 0.6, 0.7, 1),
    _ddpg("photographs", "motion", 0.1, 3, 0.6, 0.4, 1),
    _idpg("faces", "sr", 0.01, 300, 0.0),
    _idpg("faces", "gaussian", 0.01, 100, 7.0),
    _idpg("faces", "motion", 0.01, 90, 7.0),
    _idpg("faces", "sr", 0.05, 16, 0.2),
    _idpg("faces", "gaussian", 0.05, 8, 0.6),
    _idpg("faces", "motion", 0.05, 12, 0.9),
    _idpg("faces", "gaussian", 0.1, 6, 0.6),
    _idpg("faces", "motion", 0.1, 14, 1.0),
    _idpg("photographs", "sr", 0.05, 30, 0.2),
    _idpg("photographs", "gaussian", 0.05, 11, 0.6),
    _idpg("photographs", "motion", 0.05, 14, 0.8),
    _idpg("photographs", "motion", 0.1, 11, 0.6),
    _noise_free("projdiff", "faces", "pool", "lr", 0.7),
    _noise_free("projdiff", "faces", "inpaint", "lr", 1.1),
    _noise_free("projdiff", "faces", "gaussian", "lr", 0.8),
    _noise_free("projdiff", "photographs", "pool", "lr", 1.7),
    _noise_free("projdiff", "photographs", "inpaint", "lr", 1.1),
    _noise_free("projdiff", "photographs", "gaussian", "lr", 0.9),
    Tuned("projdiff", "faces", "pool", 0.05, (("lr", 0.4),)),
    Tuned("projdiff", "faces", "inpaint", 0.05, (("lr", 1.1),)),
    Tuned("projdiff", "faces", "gaussian", 0.05, (("lr", 0.1),)),
    Tuned("projdiff", "photographs", "pool", 0.05, (("lr", 0.5),)),
    Tuned("projdiff", "photographs", "inpaint", 0.05, (("lr", 1.0),)),
    Tuned("projdiff", "photographs", "gaussian", 0.05, (("lr", 0.1),)),
)
HOSTS = ("ddrm", "idpg", "ddpg", "projdiff")


def tuned(host: str, task: object, images: str = "photographs") -> dict[str, float]:
    """The settings of `host` (one of HOSTS) for a task such as "sr4@0.05": those of the nearest published noise level.

    Empty where none was published: the dataclass's own then hold. Noise-free and noisy settings never stand in for one another;
    average pooling and bicubic downsampling do (:func:`stand_in` says where).
    """
    if host not in HOSTS:
        raise unknown("host", host, HOSTS)
    return nearest_settings(TABLE, host, task, images)


def nearest_settings(table: tuple[Tuned, ...], host: str, task: object, images: str) -> dict[str, float]:
    """The values of the row of `table` that fits best, or none."""
    row = nearest_row(table, host, task, images)
    return dict(row.values) if row else {}


def nearest_row(table: tuple[Tuned, ...], host: str, task: object, images: str) -> Tuned | None:
    check_image_kind(images)
    return nearest([r for r in table if (r.host, r.images) == (host, images)], task)


def stand_in(table: tuple[Tuned, ...], host: str, task: object, images: str) -> str:
    """The kind of degradation whose settings `task` takes for want of its own ("pool" for ProjDiff on sr4), or ""."""
    row = nearest_row(table, host, task, images)
    return row.kind if row and row.kind != kind_and_noise(task)[0] else ""


def check_image_kind(images: str) -> None:
    if images not in IMAGES:
        raise unknown("images", images, IMAGES)


class ForTask(Protocol):
    """A row of constants for the degradation `kind` at noise `sigma`."""

    @property
    def kind(self) -> str: ...

    @property
    def sigma(self) -> float: ...


Row = TypeVar("Row", bound=ForTask)


def nearest(rows: Sequence[Row], task: object) -> Row | None:
    """The row for a task such as "sr4@0.05" with the nearest noise level; noise-free and noisy never stand for one another.

    Where the degradation has no such row, its neighbour's.
    """
    kind, sigma = kind_and_noise(task)
    alike = [r for r in rows if (r.sigma > 0) == (sigma > 0)]
    found = [r for r in alike if r.kind == kind] or [r for r in alike if r.kind == NEIGHBOURS.get(kind)]
    return min(found, key=lambda r: abs(r.sigma - sigma), default=None)


def kind_and_noise(task: object) -> tuple[str, float]:
    """("sr", 0.05) for "sr4@0.05"."""
    name, _, level = str(task).partition("@")
    return re.sub(r"\d+$", "", name), float(level or 0)

"""Settings of DPS, DiffPIR, PIRP and SITCOM, task by task: `DiffPIR(**tuned("diffpir", "sr4@0.05"))`.

DPS: published (DPS2022/diffusion-posterior-sampling effbde73, FFHQ, 1000 steps) are 0.3 for sr, gaussian and motion, 0.5 for
inpaint, at a noise that is not doubled; our units are, and so are the scales. For photographs the repository has none.
DiffPIR: deblurring as its driver runs it (yuanzhi-zhu/DiffPIR 111d26e8), sr with the zeta of its sweep, and for photographs
as advised in its issue 43; the paper's table is not in the repository.
PIRP and SITCOM were published with one setting for every task, which is the class's own.
"""

from __future__ import annotations

from leader_nb.errors import unknown
from leader_nb.samplers.defaults_spectral import Tuned, nearest_settings


def _dps(images: str, kind: str, sigma: float, scale: float) -> Tuned:
    return Tuned("dps", images, kind, sigma, (("scale", scale),))


def _diffpir(images: str, kind: str, lam: float, zeta: float) -> Tuned:
    return Tuned("diffpir", images, kind, 0.05, (("lam", lam), ("zeta", zeta)))


TABLE: tuple[Tuned, ...] = (
    _dps("faces", "sr", 0.05, 0.6),
    _dps("faces", "gaussian", 0.05, 0.6),
    _dps("faces", "motion", 0.05, 0.6),
    _dps("faces", "inpaint", 0.05, 1.0),
    _diffpir("faces", "sr", 7.0, 0.25),
    _diffpir("faces", "gaussian", 7.0, 0.3),
    _diffpir("faces", "motion", 7.0, 0.3),
    _diffpir("photographs", "sr", 9.0, 0.5),
    _diffpir("photographs", "gaussian", 7.0, 0.3),
    _diffpir("photographs", "motion", 7.0, 0.3),
)
HOSTS = ("dps", "diffpir", "pirp", "pirp+", "sitcom")


def tuned(host: str, task: object, images: str = "photographs") -> dict[str, float]:
    """The settings of `host` (one of HOSTS) for a task such as "sr4@0.05": those of the nearest noise level, or none.

    Empty where there are none: the dataclass's own then hold. Noise-free and noisy settings never stand in for one another.
    """
    if host not in HOSTS:
        raise unknown("host", host, HOSTS)
    return nearest_settings(TABLE, host, task, images)

"""Restoration methods, one short class each."""

import math
from collections.abc import Callable
from dataclasses import replace

from leader_nb.errors import InputError, unknown
from leader_nb.samplers.base import Sampler, Step, check_not_negative
from leader_nb.samplers.ddnm import DDNM
from leader_nb.samplers.ddnm_plus import DDNMPlus
from leader_nb.samplers.ddpg import DDPG
from leader_nb.samplers.ddrm import DDRM
from leader_nb.samplers.defaults_spectral import IMAGES, check_image_kind
from leader_nb.samplers.diffpir import DiffPIR
from leader_nb.samplers.dps import DPS
from leader_nb.samplers.idpg import IDPG
from leader_nb.samplers.pirp import PIRP, PIRP_PLUS
from leader_nb.samplers.projdiff import ProjDiff
from leader_nb.samplers.settings import SETTINGS, constants
from leader_nb.samplers.sitcom import SITCOM
from leader_nb.tasks import as_task

HOSTS: dict[str, Callable[[], Sampler]] = {
    "ddnm": DDNM,
    "ddnm+": DDNMPlus,
    "ddrm": DDRM,
    "idpg": IDPG,
    "ddpg": DDPG,
    "projdiff": ProjDiff,
    "dps": lambda: DPS(variant="scaled"),
    "diffpir": DiffPIR,
    "pirp": PIRP,
    "pirp+": lambda: replace(PIRP_PLUS, variant="held"),
    "sitcom": SITCOM,
}
SAMPLERS: tuple[str, ...] = tuple(HOSTS)


def host(name: str, sigma: float, task: object = None, images: str = "photographs") -> Sampler:
    """The sampler called `name` (one of SAMPLERS) for noise `sigma`: "ddnm" at sigma > 0 means DDNM+.

    The classes follow their papers' equations as they stand. Two hosts are, by name, a variant that suits any number of steps
    and any size, where the published constants do not: "dps" is DPS(variant="scaled"), "pirp+" PIRP_PLUS with variant="held".
    "ddpg:published" has the constants that DDPG was published with for the likes of `task` ("sr4@0.05") on the kind of
    `images` that the prior knows ("photographs", as ImageNet's, or "faces", as CelebA-HQ's; it matters to no other name),
    "ddpg:tuned" those we found for the prior photo-small; the class's own, where there are none. ("projdiff:published" has on
    sr4 what was published for average pooling.) See :mod:`leader_nb.samplers.settings`. A `task` has the noise `sigma`.
    """
    base, settings = parse_host(name)
    check_not_negative("sigma", sigma, "the noise level for images in [0, 1]")
    check_image_kind(images)
    method = "ddnm+" if base == "ddnm" and sigma > 0 else base
    sampler = HOSTS[method]()
    if task is not None:
        check_noise(task, sigma)
    if not settings:
        return sampler
    if task is None:
        raise InputError(
            f"task: {name!r} has other constants for each task; give one, such as host({name!r}, {sigma:g}, 'sr4@0.05')"
        )
    return replace(sampler, **constants(method, task, settings, images))  # type: ignore[type-var]


def check_noise(task: object, sigma: float) -> None:
    """Raises `InputError` for a task that is none, or whose noise is not `sigma`."""
    known = as_task(task)
    if not math.isclose(known.sigma, sigma, rel_tol=1e-5):
        raise InputError(
            f"sigma: got {sigma:g}, and the noise of task {str(known)!r} is {known.sigma:g}; give both the same, for images in"
            " [0, 1] (sigma_y of a Problem is twice as much)"
        )


def parse_host(name: str) -> tuple[str, str]:
    """ "ddpg:tuned" -> ("ddpg", "tuned"), "ddpg" -> ("ddpg", ""). Raises `InputError` for what is not known."""
    base, colon, settings = name.partition(":") if isinstance(name, str) else (name, "", "")
    if base not in SAMPLERS:
        raise unknown("host", base, SAMPLERS)
    if colon and settings not in SETTINGS:
        raise unknown("constants of the host", settings, SETTINGS)
    return base, settings


__all__ = [
    "DDNM",
    "DDPG",
    "DDRM",
    "DPS",
    "IDPG",
    "IMAGES",
    "PIRP",
    "PIRP_PLUS",
    "SAMPLERS",
    "SETTINGS",
    "SITCOM",
    "DDNMPlus",
    "DiffPIR",
    "ProjDiff",
    "Sampler",
    "Step",
    "check_image_kind",
    "constants",
    "host",
    "parse_host",
]

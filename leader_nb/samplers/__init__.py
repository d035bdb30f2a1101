"""Restoration methods, one short class each."""

from collections.abc import Callable
from dataclasses import replace

from leader_nb.errors import InputError, unknown
from leader_nb.samplers.base import Sampler, Step
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
    "ddpg:tuned" those we found for the prior photo-small; the class's own, where there are none. See
    :mod:`leader_nb.samplers.settings`.
    """
    base, settings = parse_host(name)
    check_image_kind(images)
    method = "ddnm+" if base == "ddnm" and sigma > 0 else base
    sampler = HOSTS[method]()
    if not settings:
        return sampler
    if task is None:
        raise InputError(
            f"task: {name!r} has other constants for each task; give one, such as host({name!r}, {sigma:g}, 'sr4@0.05')"
        )
    return replace(sampler, **constants(method, task, settings, images))  # type: ignore[type-var]


def parse_host(name: str) -> tuple[str, str]:
    """ "ddpg:tuned" -> ("ddpg", "tuned"), "ddpg" -> ("ddpg", ""). Raises `InputError` for what is not known."""
    base, colon, settings = name.partition(":")
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

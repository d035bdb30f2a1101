"""Restoration methods, one short class each."""

from collections.abc import Callable

from leader_nb.errors import unknown
from leader_nb.samplers.base import Sampler, Step
from leader_nb.samplers.ddnm import DDNM
from leader_nb.samplers.ddnm_plus import DDNMPlus
from leader_nb.samplers.ddpg import DDPG
from leader_nb.samplers.ddrm import DDRM
from leader_nb.samplers.diffpir import DiffPIR
from leader_nb.samplers.dps import DPS
from leader_nb.samplers.idpg import IDPG
from leader_nb.samplers.pirp import PIRP, PIRP_PLUS
from leader_nb.samplers.projdiff import ProjDiff
from leader_nb.samplers.sitcom import SITCOM

HOSTS: dict[str, Callable[[], Sampler]] = {
    "ddnm": DDNM,
    "ddnm+": DDNMPlus,
    "ddrm": DDRM,
    "idpg": IDPG,
    "ddpg": DDPG,
    "projdiff": ProjDiff,
    "dps": DPS,
    "diffpir": DiffPIR,
    "pirp": PIRP,
    "pirp+": lambda: PIRP_PLUS,
    "sitcom": SITCOM,
}
SAMPLERS: tuple[str, ...] = tuple(HOSTS)


def host(name: str, sigma: float) -> Sampler:
    """The sampler called `name` (one of SAMPLERS) for noise `sigma`: "ddnm" at sigma > 0 means DDNM+."""
    if name not in SAMPLERS:
        raise unknown("host", name, SAMPLERS)
    return HOSTS["ddnm+" if name == "ddnm" and sigma > 0 else name]()


__all__ = [
    "DDNM",
    "DDPG",
    "DDRM",
    "DPS",
    "IDPG",
    "PIRP",
    "PIRP_PLUS",
    "SAMPLERS",
    "SITCOM",
    "DDNMPlus",
    "DiffPIR",
    "ProjDiff",
    "Sampler",
    "Step",
    "host",
]

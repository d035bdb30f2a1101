"""Restoration methods, one short class each."""

from leader_nb.errors import unknown
from leader_nb.samplers.base import Sampler, Step
from leader_nb.samplers.ddnm import DDNM
from leader_nb.samplers.ddnm_plus import DDNMPlus

SAMPLERS: tuple[str, ...] = ("ddnm", "ddnm+")


def host(name: str, sigma: float) -> Sampler:
    """The sampler called `name` (one of SAMPLERS) for noise `sigma`: "ddnm" at sigma > 0 means DDNM+."""
    if name not in SAMPLERS:
        raise unknown("host", name, SAMPLERS)
    return DDNM() if name == "ddnm" and sigma == 0 else DDNMPlus()


__all__ = ["DDNM", "SAMPLERS", "DDNMPlus", "Sampler", "Step", "host"]

"""How much a start may lose, by host and task, found by `benchmarks/shares.py`: data only, see :func:`start_for`."""

from __future__ import annotations

from dataclasses import dataclass

from leader_nb.samplers.defaults_spectral import nearest
from leader_nb.start import MeasuredStart


@dataclass(frozen=True)
class TunedStart:
    """On `host`, for the degradation `kind` at noise `sigma`: the share of :class:`leader_nb.start.MeasuredStart`."""

    host: str
    kind: str
    sigma: float
    share: float


TABLE: tuple[TunedStart, ...] = (
    TunedStart("ddnm", "sr", 0, 0.8),
    TunedStart("ddnm", "sr", 0.05, 0.8),
    TunedStart("ddnm", "gaussian", 0.05, 0.5),
    TunedStart("ddnm", "motion", 0.05, 0.2),
    TunedStart("ddnm", "inpaint", 0, 0.9),
    TunedStart("ddnm", "cs", 0.05, 0.9),
    TunedStart("ddpg", "sr", 0, 0.8),
    TunedStart("ddpg", "sr", 0.05, 0.9),
    TunedStart("ddpg", "gaussian", 0.05, 0.2),
    TunedStart("ddpg", "motion", 0.05, 0.2),
    TunedStart("ddpg", "inpaint", 0, 0.9),
    TunedStart("ddpg", "cs", 0.05, 0.9),
    TunedStart("projdiff", "sr", 0, 0.8),
    TunedStart("projdiff", "sr", 0.05, 0.8),
    TunedStart("projdiff", "gaussian", 0.05, 0.9),
    TunedStart("projdiff", "motion", 0.05, 0.9),
    TunedStart("projdiff", "inpaint", 0, 0.9),
    TunedStart("projdiff", "cs", 0.05, 0.9),
    TunedStart("pirp", "sr", 0, 0.9),
    TunedStart("pirp", "sr", 0.05, 0.9),
    TunedStart("pirp", "gaussian", 0.05, 0.9),
    TunedStart("pirp", "motion", 0.05, 0.9),
    TunedStart("pirp", "inpaint", 0, 0.9),
    TunedStart("pirp", "cs", 0.05, 0.9),
    TunedStart("ddrm", "sr", 0, 0.8),
    TunedStart("ddrm", "sr", 0.05, 0.8),
    TunedStart("ddrm", "gaussian", 0.05, 0.5),
    TunedStart("ddrm", "motion", 0.05, 0.2),
    TunedStart("diffpir", "sr", 0, 0.8),
    TunedStart("diffpir", "sr", 0.05, 0.5),
    TunedStart("diffpir", "gaussian", 0.05, 0.8),
    TunedStart("diffpir", "motion", 0.05, 0.9),
    TunedStart("diffpir", "inpaint", 0, 0.9),
    TunedStart("diffpir", "cs", 0.05, 0.9),
    TunedStart("idpg", "sr", 0, 0.9),
    TunedStart("idpg", "sr", 0.05, 0.9),
    TunedStart("idpg", "gaussian", 0.05, 0.2),
    TunedStart("idpg", "motion", 0.05, 0.8),
    TunedStart("ddrm", "inpaint", 0, 0.9),
    TunedStart("ddrm", "cs", 0.05, 0.9),
)


def start_for(host: str, task: object) -> MeasuredStart:
    """The measured start whose share suits `host` on the likes of `task` ("sr4@0.05"), photographs and photo-small.

    Chosen on training photographs by PSNR and LPIPS together; the share of 0.2 where nothing was searched.
    """
    row = nearest([row for row in TABLE if row.host == host], task)
    return MeasuredStart(row.share) if row else MeasuredStart()

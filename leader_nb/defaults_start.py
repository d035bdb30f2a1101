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


TABLE: tuple[TunedStart, ...] = ()


def start_for(host: str, task: object) -> MeasuredStart:
    """The measured start whose share suits `host` on the likes of `task` ("sr4@0.05"), photographs and photo-small.

    Chosen on training photographs by PSNR and LPIPS together; the share of 0.2 where nothing was searched.
    """
    row = nearest([row for row in TABLE if row.host == host], task)
    return MeasuredStart(row.share) if row else MeasuredStart()

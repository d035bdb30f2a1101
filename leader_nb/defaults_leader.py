"""LEADer's constants by host and task, and those of its flat control, found by `benchmarks/tune.py`: data only.

See :func:`leader_nb.presets.leader_for`.
"""

from __future__ import annotations

from dataclasses import dataclass

from leader_nb.samplers.defaults_spectral import nearest


@dataclass(frozen=True)
class TunedLeader:
    """On `host`, for the degradation `kind` at noise `sigma`: the step rule's tolerance (0: none) and the modulation's name."""

    host: str
    kind: str
    sigma: float
    tolerance: float
    modulate: str


TABLE: tuple[TunedLeader, ...] = (
    TunedLeader("ddnm", "sr", 0.05, 0.0003, "both"),
    TunedLeader("ddnm", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("ddnm", "sr", 0, 0.0003, "both"),
    TunedLeader("ddrm", "sr", 0.05, 0.0003, "both"),
    TunedLeader("ddrm", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("ddrm", "sr", 0, 0.0003, "none"),
    TunedLeader("idpg", "sr", 0.05, 0.0003, "none"),
    TunedLeader("idpg", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("idpg", "sr", 0, 0.0003, "both"),
    TunedLeader("ddpg", "sr", 0.05, 1e-05, "both"),
    TunedLeader("ddpg", "gaussian", 0.05, 3e-05, "ucpm"),
    TunedLeader("ddpg", "sr", 0, 0.0003, "both"),
    TunedLeader("projdiff", "sr", 0.05, 0.0003, "none"),
    TunedLeader("projdiff", "gaussian", 0.05, 0.0003, "none"),
    TunedLeader("projdiff", "sr", 0, 0.0003, "both"),
    TunedLeader("dps", "sr", 0.05, 0.0003, "none"),
    TunedLeader("dps", "gaussian", 0.05, 0.0001, "both"),
    TunedLeader("dps", "sr", 0, 0.0001, "both"),
    TunedLeader("diffpir", "sr", 0.05, 0.0001, "both"),
    TunedLeader("diffpir", "gaussian", 0.05, 0, "ucpm"),
    TunedLeader("diffpir", "sr", 0, 1e-05, "both"),
    TunedLeader("pirp", "sr", 0.05, 0.0001, "map"),
    TunedLeader("pirp", "gaussian", 0.05, 1e-05, "both"),
    TunedLeader("pirp", "sr", 0, 0.0003, "both"),
    TunedLeader("pirp+", "sr", 0.05, 0.0003, "both"),
    TunedLeader("pirp+", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("pirp+", "sr", 0, 0.0003, "both"),
    TunedLeader("sitcom", "sr", 0.05, 0.0001, "both"),
    TunedLeader("sitcom", "gaussian", 0.05, 0.0001, "both"),
    TunedLeader("sitcom", "sr", 0, 0.0001, "both"),
)


FLAT: tuple[TunedLeader, ...] = (
    TunedLeader("ddnm", "sr", 0.05, 0.0003, "both"),
    TunedLeader("ddnm", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("ddnm", "sr", 0, 0.0003, "both"),
    TunedLeader("ddrm", "sr", 0.05, 0.0003, "both"),
    TunedLeader("ddrm", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("ddrm", "sr", 0, 0.0003, "both"),
    TunedLeader("idpg", "sr", 0.05, 0.0003, "none"),
    TunedLeader("idpg", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("idpg", "sr", 0, 0.0003, "both"),
    TunedLeader("ddpg", "sr", 0.05, 1e-05, "both"),
    TunedLeader("ddpg", "gaussian", 0.05, 3e-05, "both"),
    TunedLeader("ddpg", "sr", 0, 3e-05, "ucpm"),
    TunedLeader("projdiff", "sr", 0.05, 0.0003, "both"),
    TunedLeader("projdiff", "gaussian", 0.05, 0.0003, "none"),
    TunedLeader("projdiff", "sr", 0, 0.0003, "both"),
    TunedLeader("dps", "sr", 0.05, 0.0001, "both"),
    TunedLeader("dps", "gaussian", 0.05, 0.0001, "both"),
    TunedLeader("dps", "sr", 0, 1e-05, "both"),
    TunedLeader("diffpir", "sr", 0.05, 3e-05, "ucpm"),
    TunedLeader("diffpir", "gaussian", 0.05, 0, "ucpm"),
    TunedLeader("diffpir", "sr", 0, 0.0003, "none"),
    TunedLeader("pirp", "sr", 0.05, 1e-05, "both"),
    TunedLeader("pirp", "gaussian", 0.05, 1e-05, "both"),
    TunedLeader("pirp", "sr", 0, 0.0003, "both"),
    TunedLeader("pirp+", "sr", 0.05, 0.0003, "both"),
    TunedLeader("pirp+", "gaussian", 0.05, 0.0003, "both"),
    TunedLeader("pirp+", "sr", 0, 0.0003, "both"),
    TunedLeader("sitcom", "sr", 0.05, 0.0001, "both"),
    TunedLeader("sitcom", "gaussian", 0.05, 0.0001, "both"),
    TunedLeader("sitcom", "sr", 0, 0.0001, "both"),
)


def tuned_leader(host: str, task: object, flat: bool = False) -> tuple[float, str] | None:
    """(tolerance, modulation) for a task such as "sr4@0.05", by the nearest noise level; None where nothing was searched.

    `flat`: the control's, whose map is its own mean over the image.
    """
    row = nearest([row for row in (FLAT if flat else TABLE) if row.host == host], task)
    return (row.tolerance, row.modulate) if row else None

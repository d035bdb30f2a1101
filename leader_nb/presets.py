"""LEADer as one keyword group: `restore(problem, prior, DDNM(), **leader())`."""

from __future__ import annotations

from typing import Any

from leader_nb.covariance import RunningSecant, ScoreSquared
from leader_nb.errors import unknown
from leader_nb.steps import SATP
from leader_nb.ucpm import UCPM, HuberTV

PRESETS = ("calibrated", "paper")


def leader(preset: str = "calibrated", **overrides: Any) -> dict[str, Any]:
    """The plug-ins of LEADer: `covariance`, `modulate` and `steps` for :func:`leader_nb.restore`.

    "calibrated": our running estimate of the variance map (E10). "paper": the literal reading, diag F = score * score (E1).
    Potential, weights and eta are not published; ours are stated in :class:`UCPM` and :class:`SATP`. `overrides` replace
    a plug-in; None switches it off.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    covariance = RunningSecant() if preset == "calibrated" else ScoreSquared()
    steps = SATP(trust_below=1.0) if preset == "calibrated" else SATP()
    plugins: dict[str, Any] = {"covariance": covariance, "modulate": UCPM(HuberTV()), "steps": steps}
    for name in overrides:
        if name not in plugins:
            raise unknown("plug-in", name, tuple(plugins))
    return plugins | overrides

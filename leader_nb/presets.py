"""LEADer as one keyword group: `restore(problem, prior, DDNM(), **leader())`."""

from __future__ import annotations

from typing import Any

from leader_nb.covariance import RunningSecant, ScoreSquared
from leader_nb.errors import unknown
from leader_nb.steps import SATP, ErrorControlled
from leader_nb.ucpm import UCPM, HuberTV

PRESETS = ("calibrated", "paper")


def leader(preset: str = "calibrated", **overrides: Any) -> dict[str, Any]:
    """The plug-ins of LEADer: `covariance`, `modulate` and `steps` for :func:`leader_nb.restore`.

    "calibrated": our running estimate of the variance map (E10) and the error-controlled step rule, chosen on training
    photographs (`benchmarks/step_rules.py`). "paper": the literal reading, diag F = score * score (E1) and Eq. 19 as it
    stands (SATP). Potential, weights and eta are not published; ours are stated in :class:`UCPM` and :class:`SATP`.
    `overrides` replace a plug-in; None switches it off.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    covariance, steps = (RunningSecant(), ErrorControlled()) if preset == "calibrated" else (ScoreSquared(), SATP())
    plugins: dict[str, Any] = {"covariance": covariance, "modulate": UCPM(HuberTV()), "steps": steps}
    for name in overrides:
        if name not in plugins:
            raise unknown("plug-in", name, tuple(plugins))
    return plugins | overrides

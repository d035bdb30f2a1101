"""LEADer as one keyword group: `restore(problem, prior, DDNM(), **leader())`."""

from __future__ import annotations

from typing import Any

from leader_nb.controls import Flat
from leader_nb.covariance import PyramidWiener, RunningSecant, ScoreSquared
from leader_nb.defaults_leader import tuned_leader
from leader_nb.errors import unknown
from leader_nb.likelihood import Chain, MapLikelihood, Modulate
from leader_nb.start import MeasuredStart
from leader_nb.steps import SATP, ErrorControlled
from leader_nb.ucpm import UCPM, HuberTV

PRESETS = ("calibrated", "paper", "start")
MODULATIONS: dict[str, Modulate | None] = {
    "both": Chain((UCPM(HuberTV(mu=0.05)), MapLikelihood())),
    "map": MapLikelihood(),
    "ucpm": UCPM(HuberTV(mu=0.05)),
    "none": None,
}


def leader(preset: str = "calibrated", **overrides: Any) -> dict[str, Any]:
    """The plug-ins of LEADer: `covariance`, `modulate` and `steps` for :func:`leader_nb.restore`.

    "paper": the literal reading, diag F = score * score (E1), UCPM (Eqs. 11-15), and Eq. 19 as it stands (SATP). For H_Phi
    of Eq. 15 it takes twice the majoriser's weight (`mm`), a diagonal that is our choice: the paper does not say which.
    "calibrated": our running estimate of the map (E10), UCPM followed by the map inside the likelihood, and the
    error-controlled step rule; constants chosen on training photographs (`benchmarks/step_rules.py`). E10 reads its map off
    fresh noise; where the host injects none (IDPG, PIRP G+, DDNM at eta 0) E15 speaks in its place, image by image
    (chapter 8, `benchmarks/no_noise.py`). `covariance=RunningSecant()` is E10 everywhere: without noise its map is several
    times too large there and has no shape, and it once ruined a training photograph.
    "start": map and modulation of "calibrated", but begun where the measurement allows and from there on at the host's own
    pace (:class:`leader_nb.start.MeasuredStart`; chosen in `benchmarks/presets.py`).
    Potential, weights and eta are not published; ours are stated in :class:`UCPM` and :class:`SATP`.
    `overrides` replace a plug-in; None switches it off.
    """
    if preset not in PRESETS:
        raise unknown("preset", preset, PRESETS)
    presets: dict[str, dict[str, Any]] = {
        "calibrated": {
            "covariance": RunningSecant(still=PyramidWiener()),
            "modulate": MODULATIONS["both"],
            "steps": ErrorControlled(),
        },
        "paper": {"covariance": ScoreSquared(), "modulate": UCPM(), "steps": SATP()},
    }
    presets["start"] = presets["calibrated"] | {"steps": MeasuredStart()}
    plugins = presets[preset]
    for name in overrides:
        if name not in plugins:
            raise unknown("plug-in", name, tuple(plugins))
    return plugins | overrides


def leader_for(host: str, task: object, flat: bool = False) -> dict[str, Any]:
    """`leader()` with the step rule and the modulation that suit `host` on the likes of `task` ("sr4@0.05").

    Found by `benchmarks/tune.py` for photo-small on training photographs, with as many network calls as the constants of
    the host; the plug-ins of `leader()` where nothing was searched. `flat`: the control, whose map is its mean over the
    image for all that read it, with constants of a search of its own.
    """
    found = tuned_leader(host, task, flat)
    plugins = leader()
    if found is not None:
        tolerance, modulate = found
        plugins |= {"steps": ErrorControlled(tolerance) if tolerance else None, "modulate": MODULATIONS[modulate]}
    return plugins | {"covariance": Flat(plugins["covariance"])} if flat else plugins

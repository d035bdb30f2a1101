"""Constants found by `benchmarks/tune.py` for the prior photo-small: `tuned("ddpg", "sr4@0.05")`.

Searched were sr4@0, sr4@0.05 and gaussian@0.05, on eight training photographs (64 x 64, 100 steps), with 4,800 network calls
for each host and task, which is six settings for most, three for DPS and, at 20 steps, one for SITCOM, its own: a start, and
no optimum. Where one of these tasks is not listed, nothing that was tried was better beyond chance, and the class's own
constants hold. No other task was searched: those take the row of the same degradation with the nearest noise, or the class's
own. The trials are benchmarks/results/tuning.csv, and a test holds this table to them.
"""

from __future__ import annotations

from leader_nb.samplers.defaults_spectral import Tuned, nearest_settings

TABLE: tuple[Tuned, ...] = (
    Tuned("ddnm+", "photographs", "sr", 0.05, (("eta_ddim", 0.7),)),
    Tuned("idpg", "photographs", "sr", 0.05, (("gamma", 30), ("ridge", 0.2))),
    Tuned("ddpg", "photographs", "sr", 0.05, (("gamma", 30), ("ridge", 2), ("zeta", 0.5))),
    Tuned("ddpg", "photographs", "gaussian", 0.05, (("gamma", 30), ("ridge", 2), ("zeta", 0.5))),
    Tuned("projdiff", "photographs", "gaussian", 0.05, (("lr", 0.1),)),
    Tuned("dps", "photographs", "sr", 0.05, (("scale", 2),)),
    Tuned("dps", "photographs", "sr", 0, (("scale", 2),)),
    Tuned("diffpir", "photographs", "sr", 0, (("lam", 0.3), ("zeta", 0.5))),
    Tuned("pirp", "photographs", "sr", 0.05, (("lam", -0.01), ("gamma", 8), ("ridge", 0.4), ("zeta", 0.9))),
    Tuned("pirp", "photographs", "gaussian", 0.05, (("lam", -0.01), ("gamma", 2), ("ridge", 0.2), ("zeta", 0.1))),
    Tuned("pirp", "photographs", "sr", 0, (("lam", -0.01), ("zeta", 0.9))),
    Tuned("pirp+", "photographs", "gaussian", 0.05, (("lam", 4), ("gamma", 16), ("ridge", 1))),
    Tuned("pirp+", "photographs", "sr", 0, (("lam", 4),)),
)


def tuned(host: str, task: object) -> dict[str, float]:
    """The settings of `host` for a task such as "sr4@0.05", by the nearest noise level; empty where the class's own hold."""
    return nearest_settings(TABLE, host, task, "photographs")

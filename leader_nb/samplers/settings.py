"""The constants of a host on a task: those it was published with, or those we found for our prior.

constants("ddpg", "sr4@0.05", "published")   # the same as host("ddpg:published", 0.05, "sr4@0.05") has
"""

from __future__ import annotations

from leader_nb.errors import unknown
from leader_nb.samplers import defaults_gradient, defaults_spectral, defaults_tuned

SETTINGS = ("published", "tuned")


def constants(host: str, task: object, settings: str, images: str = "photographs") -> dict[str, float]:
    """What `host` takes for `task` by `settings`, one of SETTINGS; empty where nothing else than the class's own is known.

    "published": from the papers and their released scripts, for their networks, by kind of `images` ("photographs", "faces").
    "tuned": from `benchmarks/tune.py`, for photo-small, 64 x 64 training photographs and 100 steps.
    """
    if settings not in SETTINGS:
        raise unknown("settings", settings, SETTINGS)
    if settings == "tuned":
        return defaults_tuned.tuned(host, task)
    for table in (defaults_spectral, defaults_gradient):
        if host in table.HOSTS:
            return table.tuned(host, task, images)
    return {}

"""The constants of a host on a task: those it was published with, or those we found for our prior.

constants("ddpg", "sr4@0.05", "published")   # the same as host("ddpg:published", 0.05, "sr4@0.05") has
"""

from __future__ import annotations

from leader_nb.errors import unknown
from leader_nb.samplers import defaults_gradient, defaults_spectral, defaults_tuned
from leader_nb.tasks import as_task

SETTINGS = ("published", "tuned")


def constants(host: str, task: object, settings: str, images: str = "photographs") -> dict[str, float]:
    """What `host` takes for `task` by `settings`, one of SETTINGS; empty where nothing else than the class's own is known.

    "published": from the papers and their released scripts, for their networks, by kind of `images` ("photographs", "faces").
    On sr4, ProjDiff has what was published for average pooling; on pool4, others what was for bicubic (:func:`stands_in`).
    "tuned": from `benchmarks/tune.py`, for photo-small, 64 x 64 training photographs and 100 steps.
    """
    if settings not in SETTINGS:
        raise unknown("settings", settings, SETTINGS)
    as_task(task)
    if settings == "tuned":
        return defaults_tuned.tuned(host, task)
    for table in (defaults_spectral, defaults_gradient):
        if host in table.HOSTS:
            return table.tuned(host, task, images)
    return {}


def stands_in(host: str, task: object, images: str = "photographs") -> str:
    """The degradation whose published constants `host` takes on `task` for want of its own: "pool" for ProjDiff on sr4."""
    found = (defaults_spectral.stand_in(t.TABLE, host, task, images) for t in (defaults_spectral, defaults_gradient))
    return next(filter(None, found), "")

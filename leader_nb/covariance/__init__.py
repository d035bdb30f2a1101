"""Estimators of the diagonal of Cov(x0 | x_t), as images: where the prior is unsure.

Each has `update(belief, injected, memory) -> (cov, memory)`: `injected` is the fresh noise inside x_t (None at first),
`memory` a tree of (B, ...) tensors with a `valid` flag per image; an empty tree starts afresh. Numbers E0 to E15 are the
book's. The paper does not say how it obtains the diagonal of F: all of these are readings of it, or reconstructions.

`benchmarks/estimators.py` holds each against the exact map. E9, the full Free Hunch, is left out: its memory grows with
every step. E13 needs a second network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from leader_nb.covariance.common import box, clipped, isotropic
from leader_nb.covariance.probes import DifferenceProbes, ForwardProbes, Hutchinson, RowSums
from leader_nb.covariance.pyramid import PyramidSecant, PyramidWiener
from leader_nb.covariance.score import LocalHead, ScoreSquared, SecondMoment, VarianceHead, fit_head
from leader_nb.covariance.secants import MinusSlope, NoiseReuse, RunningSecant
from leader_nb.covariance.tables import Analytic, Isotropic, measure_table

ESTIMATORS: dict[str, Callable[..., Any]] = {
    "E0": Isotropic,
    "E1": ScoreSquared,
    "E2": Analytic,  # needs a table, from measure_table
    "E3": SecondMoment,  # needs a head, from fit_head
    "E4": VarianceHead,
    "E5": Hutchinson,
    "E6": ForwardProbes,
    "E7": DifferenceProbes,
    "E8": RowSums,
    "E10": RunningSecant,
    "E11": NoiseReuse,
    "E12": MinusSlope,
    "E14": PyramidSecant,
    "E15": PyramidWiener,
}

__all__ = [
    "ESTIMATORS",
    "Analytic",
    "DifferenceProbes",
    "ForwardProbes",
    "Hutchinson",
    "Isotropic",
    "LocalHead",
    "MinusSlope",
    "NoiseReuse",
    "PyramidSecant",
    "PyramidWiener",
    "RowSums",
    "RunningSecant",
    "ScoreSquared",
    "SecondMoment",
    "VarianceHead",
    "box",
    "clipped",
    "fit_head",
    "isotropic",
    "measure_table",
]

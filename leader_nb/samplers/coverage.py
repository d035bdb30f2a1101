"""Which host does which task: where the LEADer paper has it, where only we do, and what each host asks of the prior.

    coverage()                                      # a tidy table: one row for each host and task
    coverage(("sr4@0", "motion@0.05"), hosts=("ddrm", "dps"))
    matrix(coverage())                              # the same, tasks x hosts

Every operator of the package has a spectrum, and mathematics allows every host on every task: the N/A of the paper are
conventions. Circular motion blur has an exact spectrum, so that DDRM, DDNM and ProjDiff can do it; the Hadamard
transform is orthogonal and differentiable, so that DPS, DiffPIR and SITCOM can do compressed sensing. What a host cannot do
lies in the prior (DPS and SITCOM need its gradient) or in a setting of its own (`ProjDiff(form="flat")`, which says so).
That a host runs does not say that it ends well: with the prior photo-small some pairs diverge, and are marked.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from leader_nb.errors import unknown
from leader_nb.samplers import SAMPLERS, host
from leader_nb.tasks import TASKS, Task, as_task, split

PAPER, BEYOND, NO = "paper", "beyond the paper", "no"

# Columns of the LEADer paper's Table 1 (its other tables have no other pair), as (degradation, whether there is noise).
CLEAN_SR, SR, GAUSSIAN, MOTION, CS = ("sr4", False), ("sr4", True), ("gaussian", True), ("motion", True), ("cs25", True)
# Its rows; what is missing in one is N/A there. SITCOM's is for ImageNet alone; with noise its DDNM is our DDNM+. A host that
# is not here, as any of yours, is not in the paper.
IN_PAPER: dict[str, tuple[tuple[str, bool], ...]] = {
    "ddrm": (CLEAN_SR, SR, GAUSSIAN, CS),
    "dps": (CLEAN_SR, SR, GAUSSIAN, MOTION),
    "diffpir": (CLEAN_SR, SR, GAUSSIAN, MOTION),
    "idpg": (CLEAN_SR, SR, GAUSSIAN, MOTION, CS),
    "ddnm": (CLEAN_SR, SR, GAUSSIAN, CS),
    "ddnm+": (SR, GAUSSIAN, CS),
    "ddpg": (CLEAN_SR, SR, GAUSSIAN, MOTION, CS),
    "projdiff": (CLEAN_SR, SR, GAUSSIAN, CS),
    "pirp": (CLEAN_SR, SR, GAUSSIAN, MOTION, CS),
    "sitcom": (CLEAN_SR, SR, GAUSSIAN, MOTION),
}
# The same four degradations in the code that a host was released with. Broken: operator and correction do not belong together.
RELEASED: dict[str, dict[str, str]] = {
    "ddrm": {"sr": "yes", "gaussian": "yes", "motion": "no", "cs": "yes"},
    "ddnm": {"sr": "yes", "gaussian": "yes", "motion": "no", "cs": "yes"},
    "ddnm+": {"sr": "no", "gaussian": "broken", "motion": "no", "cs": "yes"},
    "dps": {"sr": "yes", "gaussian": "yes", "motion": "yes", "cs": "no"},
    "diffpir": {"sr": "yes", "gaussian": "yes", "motion": "yes", "cs": "no"},
    "idpg": {"sr": "yes", "gaussian": "yes", "motion": "yes", "cs": "untuned"},
    "ddpg": {"sr": "yes", "gaussian": "yes", "motion": "yes", "cs": "untuned"},
    "projdiff": {"sr": "no", "gaussian": "yes", "motion": "no", "cs": "no"},
    "sitcom": {"sr": "yes", "gaussian": "yes", "motion": "yes"},
}

# Pairs that diverge with the prior photo-small, of TASKS: seen on some photographs or all, alone or with LEADer
# (benchmarks/protocol.md, third and fourth round; on color@0 with the built-in photographs). Neither host injects noise, so the
# network is shown a state that is cleaner than its time says, and may blow up what the data leave open.
DIVERGES: dict[str, tuple[str, ...]] = {
    "idpg": ("cs25@0.05", "inpaint70@0", "color@0"),
    "pirp+": ("cs25@0.05", "inpaint70@0", "color@0"),
}


def coverage(tasks: Sequence[Task | str] = TASKS, hosts: Sequence[str] = SAMPLERS, gradient: bool = True) -> pd.DataFrame:
    """One row for each host and task, with the columns

    status     "paper", "beyond the paper", or "no"; `gradient=False`: with a prior that answers without one
    runs       the class that does it: "ddnm" is DDNMPlus where there is noise
    released   whether the host's own code has the degradation: yes, no, untuned, broken; empty where we do not know
    needs      "gradient" where the prior has to be differentiated, else empty
    diverges   "photo-small" where that prior was seen to diverge, else empty
    """
    rows = []
    for name in hosts:
        if name not in SAMPLERS:
            raise unknown("host", name, SAMPLERS)
        for task in map(as_task, tasks):
            sampler, kind = host(name, task.sigma), split(task.degradation)[0]
            there = (task.degradation, task.sigma > 0) in IN_PAPER.get(name, ())
            status = NO if sampler.needs_gradient and not gradient else PAPER if there else BEYOND
            released, needs = RELEASED.get(name, {}).get(kind, ""), "gradient" if sampler.needs_gradient else ""
            diverges = "photo-small" if str(task) in DIVERGES.get(name, ()) else ""
            rows.append((name, str(task), status, type(sampler).__name__, released, needs, diverges))
    return pd.DataFrame(rows, columns=["host", "task", "status", "runs", "released", "needs", "diverges"])


def matrix(found: pd.DataFrame, column: str = "status") -> pd.DataFrame:
    """A column of :func:`coverage`, one row a task and one column a host, in their order."""
    return found.pivot(index="task", columns="host", values=column).loc[found["task"].unique(), found["host"].unique()]


def words(found: pd.DataFrame) -> pd.DataFrame:
    """:func:`matrix` in short words, with a star where the prior photo-small diverges."""
    stars = matrix(found, "diverges").map(lambda prior: "*" if prior else "")
    return matrix(found).replace({BEYOND: "beyond"}) + stars

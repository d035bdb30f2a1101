"""Which host does which task: where the LEADer paper has it, where only we do, and what each host asks of the prior.

    coverage()                                      # a tidy table: one row for each host and task
    coverage(("sr4@0", "motion@0.05"), hosts=("ddrm", "dps"))
    matrix(coverage())                              # the same, tasks x hosts

Every operator of the package has a spectrum, and every host runs on every task: the N/A of the paper are conventions, as far
as mathematics goes. Circular motion blur has an exact spectrum, so that DDRM, DDNM and ProjDiff can do it; the Hadamard
transform is orthogonal and differentiable, so that DPS, DiffPIR and SITCOM can do compressed sensing. What a host cannot do
lies in the prior (DPS and SITCOM need its gradient) or in a setting of its own (`ProjDiff(form="flat")`, which says so).
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


def coverage(tasks: Sequence[Task | str] = TASKS, hosts: Sequence[str] = SAMPLERS, gradient: bool = True) -> pd.DataFrame:
    """One row for each host and task, with the columns

    status     "paper", "beyond the paper", or "no"; `gradient=False`: with a prior that answers without one
    runs       the class that does it: "ddnm" is DDNMPlus where there is noise
    released   whether the host's own code has the degradation: yes, no, untuned, broken; empty where we do not know
    needs      "gradient" where the prior has to be differentiated, else empty
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
            rows.append((name, str(task), status, type(sampler).__name__, released, needs))
    return pd.DataFrame(rows, columns=["host", "task", "status", "runs", "released", "needs"])


def matrix(found: pd.DataFrame) -> pd.DataFrame:
    """`status` of :func:`coverage`, one row a task and one column a host, in their order."""
    return found.pivot(index="task", columns="host", values="status").loc[found["task"].unique(), found["host"].unique()]

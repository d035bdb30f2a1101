"""Which host does which task: every cell that is said to be possible runs, every other is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from leader_nb import SAMPLERS, Prediction, Prior, cli, host, load_prior, noise_for, parse_task, restore
from leader_nb.data import BUILTIN_PHOTOS, builtin_photo
from leader_nb.errors import Diverged, InputError
from leader_nb.samplers.coverage import BEYOND, DIVERGES, IN_PAPER, NO, PAPER, RELEASED, coverage, matrix
from leader_nb.tasks import DEGRADATIONS, TASKS
from test_samplers import brief

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
EVERY = [f"{kind}@{sigma}" for kind in DEGRADATIONS for sigma in (0, 0.05)]


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_possible_runs(name: str, exact: Prior, samples: Tensor) -> None:
    """On every degradation, with and without noise, by the class that the table names."""
    found = coverage(EVERY, (name,))
    assert len(found) == 2 * len(DEGRADATIONS) and set(found["status"]) <= {PAPER, BEYOND}
    for row in found.itertuples():
        task = parse_task(row.task)
        sampler = brief(host(name, task.sigma))
        assert type(sampler).__name__ == row.runs
        result = restore(task.measure(samples[:1]), exact, sampler, grid=2)
        assert torch.isfinite(result.image).all() and result.image.shape == samples[:1].shape
        assert bool(result.backward.any()) is (row.needs == "gradient")


def test_what_is_impossible_is_refused(exact: Prior, samples: Tensor) -> None:
    """With a prior that gives no gradient; the message names hosts that can, and those do."""
    still = Prior(lambda x, t, schedule: Prediction(x0=exact.predict(x, t, schedule).x0.detach()), name="still")
    found = coverage(("sr4@0.05",), gradient=False)
    assert sorted(found.loc[found["status"] == NO, "host"]) == ["dps", "sitcom"]
    assert (coverage(("sr4@0.05",))["status"] != NO).all()
    problem = parse_task("sr4@0.05").measure(samples[:1])
    for row in found.itertuples():
        if row.status != NO:
            restore(problem, still, host(row.host, 0.05), grid=1)
            continue
        with pytest.raises(InputError, match=r"\Aprior: 'still' answers without a gradient") as caught:
            restore(problem, still, host(row.host, 0.05), grid=1)
        named = re.findall(r"DDNM\+|DDRM|DiffPIR", str(caught.value))
        can = found.loc[found["status"] != NO, "host"].tolist()
        assert named and all(word.lower() in can for word in named)


def test_a_setting_that_cannot_do_a_task_names_what_can(samples: Tensor, exact: Prior) -> None:
    problem = parse_task("sr4@0.05").measure(samples[:1])
    with pytest.raises(InputError, match=r"\Aform: 'flat' needs [^\n]*; use ProjDiff\(form='general'\), or DDRM or DDNM\+\Z"):
        restore(problem, exact, replace(host("projdiff", 0.05), form="flat"), grid=1)


def test_the_paper() -> None:
    """Its N/A: motion blur for DDRM, DDNM and ProjDiff; compressed sensing for DPS, DiffPIR and SITCOM; and no more."""
    five = ("sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05", "cs25@0.05")
    found = coverage(five)
    beyond = found[(found["status"] == BEYOND) & found["host"].isin(IN_PAPER) & (found["host"] != "ddnm+")]
    assert sorted(zip(beyond["host"], beyond["task"], strict=True)) == [
        ("ddnm", "motion@0.05"),
        ("ddrm", "motion@0.05"),
        ("diffpir", "cs25@0.05"),
        ("dps", "cs25@0.05"),
        ("projdiff", "motion@0.05"),
        ("sitcom", "cs25@0.05"),
    ]
    others = coverage([task for task in (*TASKS, *EVERY) if task not in five])
    assert set(others["status"]) == {BEYOND} == set(coverage(five, ("pirp+",))["status"])
    assert {*IN_PAPER, *RELEASED} <= set(SAMPLERS)


def test_the_released_codes() -> None:
    found = coverage(("sr4@0.05", "gaussian@0.05", "motion@0.05", "cs25@0.05", "color@0")).set_index(["host", "task"])[
        "released"
    ]
    assert (
        found["ddnm+", "sr4@0.05"] == "no" and found["ddnm", "motion@0.05"] == "no" and found["ddpg", "cs25@0.05"] == "untuned"
    )
    assert (found[:, "color@0"] == "").all() and (found["pirp"] == "").all()


def test_the_matrix_keeps_the_order() -> None:
    tasks, hosts = ("motion@0.05", "cs25@0.05", "sr4@0"), ("sitcom", "ddnm")
    words = matrix(coverage(tasks, hosts))
    assert tuple(words.index) == tasks and tuple(words.columns) == hosts
    assert words.loc["motion@0.05"].tolist() == [PAPER, BEYOND] and words.loc["cs25@0.05"].tolist() == [BEYOND, PAPER]


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="unknown host 'ddnn': did you mean 'ddnm'"):
        coverage(hosts=("ddnn",))
    with pytest.raises(InputError, match="unknown task 'motoin'"):
        coverage(("motoin@0",))


def diverged(name: str, task: str) -> bool:
    """Whether a restoration of one photograph leaves the range of pictures, -1 to 1, by far."""
    given = parse_task(task)
    problem = given.measure(builtin_photo(BUILTIN_PHOTOS[3], 64), seed=0)
    noise = noise_for(1, ids=(3,))
    try:
        image = restore(problem, load_prior("photo-small"), host(name, given.sigma), grid=50, noise=noise).image
    except Diverged:
        return True
    return image.abs().max().item() > 100


@pytest.mark.slow
@pytest.mark.parametrize("name", DIVERGES)
def test_the_stars_are_where_photo_small_diverges(name: str) -> None:
    """On the fourth photograph; the same host ends well where no star is, and so does one that injects noise where one is."""
    assert all(diverged(name, task) for task in DIVERGES[name])
    assert not diverged(name, "sr4@0.05") and not diverged("ddpg", "inpaint70@0")


def test_the_stars_agree_with_the_tables() -> None:
    """What is in `table_diverged.csv` has a star; nothing that has one is in the table, with its host's own constants."""
    kept, lost = (pd.read_csv(RESULTS / f"{name}.csv", usecols=["host", "task"]) for name in ("table", "table_diverged"))
    stars = {(name, task) for name, tasks in DIVERGES.items() for task in tasks}
    assert set(lost.itertuples(index=False, name=None)) <= stars
    assert not stars & set(kept.itertuples(index=False, name=None))
    found = coverage(hosts=("ddnm", *DIVERGES))
    assert set(found.loc[found["diverges"] == "photo-small", ["host", "task"]].itertuples(index=False, name=None)) == stars


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["hosts"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(SAMPLERS) and [line.split()[0] for line in lines[1 : len(TASKS) + 1]] == list(TASKS)
    motion = dict(zip(SAMPLERS, next(line for line in lines if line.startswith("motion")).split()[1:], strict=True))
    assert motion["ddrm"] == "beyond" and motion["ddpg"] == "paper"
    assert "dps, sitcom" in lines[-1]
    mask = dict(zip(SAMPLERS, next(line for line in lines if line.startswith("inpaint70@0 ")).split()[1:], strict=True))
    assert mask["idpg"] == "beyond*" and mask["ddpg"] == "beyond" and any(line.startswith("*: ") for line in lines)
    lent = [line for line in lines if "published for average pooling" in line]
    assert len(lent) == 1 and lent[0].startswith("On sr4 ") and lent[0].endswith(": projdiff:published.")
    assert any(line.startswith("On pool4 ") and "bicubic" in line and "ddpg:published" in line for line in lines)
    assert cli.main(["hosts", "--tasks", "cs10@0,sr2@0.1"]) == 0 and "cs10@0 " in (out := capsys.readouterr().out)
    assert "projdiff:published" in out, "sr2 is bicubic too"
    assert cli.main(["hosts", "--tasks", "gaussian@0.05"]) == 0 and "nearest" not in capsys.readouterr().out
    assert cli.main(["hosts", "--tasks", "srr@0"]) == 2 and capsys.readouterr().err.startswith("leader-nb: unknown task")

"""The starts of benchmarks/starts.py: one level, one number of calls, and what is begun with; and its committed table."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import torch
from torch import Tensor

from laws import normal, same
from leader_nb import DDNM, IDPG, host, noise_for, parse_task, restore
from leader_nb.metrics import psnr
from leader_nb.mixture import image_mixture
from leader_nb.problem import Problem
from leader_nb.samplers import Sampler
from leader_nb.schedule import Schedule, uniform_grid
from leader_nb.start import MeasuredStart
from leader_nb.summary import WORST_LPIPS, WORST_PSNR

ROOT = Path(__file__).parent.parent
SIZE = 8
SIGMAS = Schedule().sigma(torch.tensor([-1, *reversed(uniform_grid(100))]), normal(1)).flatten()


@pytest.fixture(scope="module")
def starts() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_starts", ROOT / "benchmarks" / "starts.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


def photographs() -> Tensor:
    return 0.3 * normal(3, 1, SIZE, SIZE, seed=1)


def problem_of(task: str) -> Problem:
    return parse_task(task).measure(photographs())


@pytest.mark.parametrize("task", ["inpaint70@0", "sr2@0.05", "gaussian@0.05"])
def test_all_begin_at_one_level_with_what_they_say(starts: ModuleType, task: str) -> None:
    problem, z = problem_of(task), normal(3, 1, SIZE, SIZE, seed=2)
    found = starts.rules(problem)
    assert found.pop("host") is None
    assert ("y" in found) == task.startswith("gaussian"), "y is a start where it is a blurred picture, and there alone"
    begun = {name: rule.begin(z, SIGMAS, rule.init(SIGMAS, 3)) for name, rule in found.items()}
    place = begun["measured"][1]
    assert all(torch.equal(k, place) for _, k in begun.values()) and bool((place < 100).all())
    sigma = SIGMAS[place].view(-1, 1, 1, 1)
    means = {"pinv": problem.operator.pinv(problem.y), "y": problem.y, "measured": found["measured"].mean}
    for name, (x, _) in begun.items():
        same(x, z if name == "noise" else (means[name] + sigma * z) / (1 + sigma**2).sqrt(), name)
    assert not torch.allclose(means["pinv"], means["measured"], atol=1e-2)


def ran(starts: ModuleType, monkeypatch: pytest.MonkeyPatch, task: str, sampler: Sampler) -> pd.DataFrame:
    """The rows of a cell on 8 x 8 pictures, too small for LPIPS: minus a hundredth of PSNR in its place."""
    monkeypatch.setattr(starts, "lpips_distance", lambda a, b: -psnr(a, b) / 100)
    return starts.cell(problem_of(task), image_mixture(SIZE).prior(), sampler, photographs()).set_index("start")


def test_a_cell_is_the_measured_start_its_rivals_and_the_host(starts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    problem, prior, x, sampler = problem_of("inpaint70@0"), image_mixture(SIZE).prior(), photographs(), DDNM(eta_ddim=0.0)
    table = ran(starts, monkeypatch, "inpaint70@0", sampler)
    assert list(table.index) == ["host", "noise", "pinv", "measured"] and (table["n"] == 3).all()
    for name, steps in (("host", None), ("measured", MeasuredStart())):
        result = restore(problem, prior, sampler, noise=noise_for(3), steps=steps)
        assert table.loc[name, "psnr"] == psnr(result.image, x).mean().item()
        assert table.loc[name, "nfe"] == result.nfe.double().mean().item()
    assert table["nfe"].drop("host").nunique() == 1 and table.loc["host", "nfe"] == 100
    for name, row in table.iterrows():
        assert row["d_psnr"] == pytest.approx(row["psnr"] - table.loc["host", "psnr"]), name
        assert row["m_psnr"] == pytest.approx(table.loc["measured", "psnr"] - row["psnr"]), name
        assert row["d_psnr_low"] <= row["d_psnr"] <= row["d_psnr_high"], name
    assert table.loc["measured", "apart"] == 0 and (table["apart"].drop("measured") > 1e-3).all()


def test_a_host_that_adds_no_noise_forgets_its_start(starts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """IDPG ends at one picture from anywhere; DDNM that keeps all of its noise does not, so that the column can tell."""
    idpg = ran(starts, monkeypatch, "inpaint70@0", IDPG())
    ddnm = ran(starts, monkeypatch, "inpaint70@0", DDNM(eta_ddim=0.0))
    assert idpg["apart"].max() < 1e-4 < 1e-3 < ddnm["apart"].drop("measured").min()


def test_an_image_that_diverged_is_counted_and_left_out(starts: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "lpips_distance", lambda a, b: -psnr(a, b) / 100)
    x = photographs()
    image = x + 0.1
    alone = starts.scored(image, x)["psnr"]
    image[1] = torch.nan
    values = starts.scored(image, x)["psnr"]
    assert values.isnan().tolist() == [False, True, False] and torch.equal(values[[0, 2]], alone[[0, 2]])
    row = starts.paired("d", {"psnr": values - alone.mean()})
    assert row["d_psnr"] == pytest.approx((values - alone.mean()).nanmean().item()) and row["d_psnr_low"] <= row["d_psnr_high"]


def test_committed_rows_are_whole_and_agree_with_one_another(starts: ModuleType) -> None:
    table = pd.read_csv(ROOT / "benchmarks" / "results" / "starts.csv")
    assert set(zip(table["host"], table["task"], strict=True)) == {(h, t) for h in starts.HOSTS for t in starts.TASKS}
    for (name, task), cell in table.groupby(["host", "task"]):
        blur = task.startswith(("gaussian", "motion"))
        assert tuple(cell["start"]) == tuple(s for s in starts.STARTS if s != "y" or blur), (name, task)
        assert cell["n"].nunique() == 1
        late = cell[cell["start"] != "host"]
        assert late["nfe"].nunique() == 1 and late["nfe"].iloc[0] < cell["nfe"].iloc[0], (name, task)
        assert (cell.loc[cell["start"] == "measured", ["apart", "m_psnr", "m_lpips"]] == 0).all(axis=None)
        host(name, parse_task(task).sigma, task)  # it exists
    fine = (table["d_psnr_low"] >= WORST_PSNR) & (table["d_lpips_high"] <= WORST_LPIPS) & (table["failed"] == 0)
    assert (fine == table["no_loss"]).all()
    told = table.dropna(subset=["d_psnr", "m_psnr"])  # empty where the host's own walk diverged
    assert (told["d_psnr_low"] <= told["d_psnr"]).all() and (told["m_psnr"] <= told["m_psnr_high"]).all()
    diverged = table[table["d_psnr"].isna()].groupby(["host", "task"])["failed"].max()
    assert (diverged > 0).all(), "only where a walk diverged may a difference be empty"

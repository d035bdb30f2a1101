"""Committed rows of the big table, made again: those of built-in photographs by computing them, all by their makers."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from leader_nb.crops import photographs
from leader_nb.data import BUILTIN_PHOTOS
from leader_nb.defaults_leader import tuned_leader
from leader_nb.experiments import CONTROLS, METHODS, PLUGINS, Experiment, Lab, restored
from leader_nb.lpips_weights import WeightsError, load_lpips
from leader_nb.metrics import Interval, bootstrap_interval
from leader_nb.store import Store
from leader_nb.summary import summarise
from leader_nb.zoo import PRIORS, prior_hash

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
FOLDERS = tuple(folder for folder in (RESULTS, RESULTS / "builtin") if (folder / "table.csv").exists())
# Rounding differs between processors, grows along a hundred steps, and may tip the step rule by a call.
TOLERANCE = {"psnr": 0.1, "lpips": 0.01, "ssim": 0.01, "residual": 0.005, "nfe": 2, "backward": 0}


def committed() -> pd.DataFrame:
    """Every committed row that gave a result, whatever its photograph."""
    if not FOLDERS:
        pytest.skip("no table is committed in benchmarks/results")
    rows = pd.concat([Store(folder).read() for folder in FOLDERS], ignore_index=True)
    return rows[rows["error"] == ""]


def sample(rows: pd.DataFrame) -> pd.DataFrame:
    """One row of a built-in photograph for each plug-in and each control, of another cell and photograph each time."""
    found = rows[rows["image"].isin(BUILTIN_PHOTOS) & (rows["device"] == "cpu")]
    found = found.sort_values(["image", "task", "host"])
    groups = (group for _, group in found.groupby(found["plugin"].where(~found["host"].isin(CONTROLS), found["host"])))
    return pd.concat([found.iloc[:0], *(group.iloc[[(3 * i + 1) % len(group)]] for i, group in enumerate(groups))])


def constants(text: str) -> Counter[str]:
    """The classes in a wording such as `covariance=RunningSecant(window=5)`, and the constants with their values."""
    return Counter(re.findall(r"\w+=[^=(),]+|\w+(?=\()", text))


def test_a_few_committed_rows_are_computed_again() -> None:
    rows = sample(committed())
    if rows.empty:
        pytest.skip("the committed tables have no rows of built-in photographs")
    for row in rows.itertuples():
        columns = TOLERANCE if has_lpips() else {name: gap for name, gap in TOLERANCE.items() if name != "lpips"}
        score = tuple(n for n in ("psnr", "lpips", "ssim") if n in columns and pd.notna(getattr(row, n)))
        counts = int(row.steps), int(row.seed), 1
        made = Experiment((row.host,), (row.task,), (row.plugin,), *counts, row.prior, row.device, score)
        (fresh,) = restored(Lab.of(made), made.cells[0], photographs(row.image, int(row.size)))
        assert fresh["error"] == ""
        for name in (*score, "residual", "nfe", "backward"):
            gap = abs(fresh[name] - getattr(row, name))
            assert gap <= columns[name], f"{row.host} {row.task} {row.plugin} {row.image}: {name} is off by {gap:.3g}"


def has_lpips() -> bool:
    try:
        load_lpips("alex")
    except WeightsError:
        return False
    return True


def test_committed_rows_have_todays_constants() -> None:
    """A row that the present presets, hosts or weights would not give has to be made again, or taken out."""
    rows = committed()
    known = rows["host"].isin(METHODS) & rows["plugin"].isin(PLUGINS)
    assert known.all(), f"unknown: {rows.loc[~known, ['host', 'plugin']].drop_duplicates().to_dict('records')}"
    for (name, task, plugin), cell in rows.groupby(["host", "task", "plugin"]):
        here = Experiment((name,), (task,), (plugin,)).cells[0]
        today = constants(f"{here.sampler!r}, {here.wording}")
        for wording in set(cell["sampler"] + ", " + cell["options"]):  # a constant that is new here is no contradiction
            changed = constants(wording) - today
            assert not changed, f"{name} {task} {plugin}: made with {', '.join(changed)}, which is otherwise today"
    shipped = rows[rows["prior"].isin(PRIORS)].groupby("prior")["weights"].unique()
    for name, hashes in shipped.items():
        assert list(hashes) == [prior_hash(name)], f"{name}: other weights"


def test_the_readme_says_what_the_rows_say() -> None:
    """Calls saved by the measured start, pairs without loss, and the calls of DDNM on lost pixels with its share tuned."""
    means = summarise(Store(RESULTS).read())
    starts = means[means["plugin"] == "start"]
    saved = (-100 * starts["d_nfe"] / starts["base_nfe"]).groupby(starts["host"]).mean()
    lossless = sum(value is True for value in starts["no_loss"])
    holes = means[(means["host"] == "ddnm") & (means["task"] == "inpaint70@0") & (means["plugin"] == "start-tuned")].iloc[0]
    text = " ".join((RESULTS.parent.parent / "README.md").read_text().split())
    assert f"{saved.min():.0f} to {saved.max():.0f} % fewer calls" in text
    assert f"lost in {lossless} of {len(starts)} pairs" in text
    assert f"with {holes['nfe']:.0f} calls where it took {holes['base_nfe']:.0f}" in text
    searched = summarise(pd.read_csv(RESULTS / "table_tuned.csv", keep_default_na=False).astype({"error": "str"}))
    kept = searched.loc[searched["plugin"] == "leader-tuned", "no_loss"]
    assert f"{sum(value is True for value in kept)} of {len(kept)} pairs of host and task pass" in text
    gaps = map_less_searched_flat()
    assert f"surely lower in {sum(g.high < 0 for g in gaps)} of the {len(gaps)} pairs" in text
    assert sum(g.low > 0 for g in gaps) == 1 and "surely higher in one" in text


def test_the_readme_says_what_the_larger_rows_say() -> None:
    """LEADer's change of LPIPS with DDNM, mean over the tasks, at 128 x 128 and at 64."""
    large = summarise(pd.read_csv(RESULTS / "table_128.csv", keep_default_na=False).astype({"error": "str"}))
    change = []
    for means in (large, summarise(Store(RESULTS).read())):
        led = means[(means["host"] == "ddnm") & (means["plugin"] == "leader")]
        change.append((-100 * led["d_lpips"] / led["base_lpips"]).mean())
    text = " ".join((RESULTS.parent.parent / "README.md").read_text().split())
    assert f"in LPIPS is {change[0]:.0f} % there for {change[1]:.0f} % at 64" in text
    assert f"run for {' and '.join(h.upper() for h in dict.fromkeys(large['host']))} and with" in text


def map_less_searched_flat() -> list[Interval]:
    """LPIPS of LEADer searched less that of its searched flat control, for each pair in which LEADer uses its map."""
    rows = pd.read_csv(RESULTS / "table_tuned.csv").pivot_table(
        index=["host", "task", "image"], columns="plugin", values="lpips"
    )
    found = (rows["leader-tuned"] - rows["global-searched"]).groupby(level=["host", "task"])
    mapped = {key: tuned_leader(key[0].removesuffix(":tuned"), key[1])[1] != "none" for key, _ in found}  # type: ignore[index]
    return [bootstrap_interval(gap.to_numpy()) for key, gap in found if mapped[key]]


def test_the_script_of_the_big_table_has_every_committed_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make table` makes the cells that are committed, all of them and no others, of as many photographs."""
    monkeypatch.syspath_prepend(str(RESULTS.parent.parent / "scripts"))
    parts = list(importlib.import_module("big_table").PARTS.values())
    for name in {part.table for part in parts}:
        rows = pd.read_csv(RESULTS / f"{name}.csv", keep_default_na=False)
        mine = [part for part in parts if part.table == name]
        said = {(*cell, part.size, part.steps) for part in mine for cell in part.cells}
        counts = rows.groupby(["host", "task", "plugin", "size", "steps"])["image"].nunique()
        there = set(counts.index)
        assert there == said, (
            f"{name}: not in the script {sorted(there - said)[:5]}, not in the table {sorted(said - there)[:5]}"
        )
        assert (counts == (mine[0].count or 23)).all(), name

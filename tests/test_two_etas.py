"""benchmarks/two_etas.py: what is tried, how a setting is chosen, and what its summary says."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from leader_nb import DDNM, DDNMPlus, parse_task
from leader_nb.samplers.null_eta import NullEta

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def etas() -> Iterator[ModuleType]:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_two_etas", FOLDER / "two_etas.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(FOLDER))


def table_of(etas: ModuleType, gains: dict, split: str = "train") -> pd.DataFrame:
    """Every photograph of every task moves from 25 dB and LPIPS 0.2 by what `gains` has for the setting."""
    rows = []
    for setting, (psnr, lpips) in {etas.HOST: (0.0, 0.0), **gains}.items():
        for task in etas.SIX:
            for photo in range(3):
                scores = {"psnr": 25.0 + psnr, "lpips": 0.2 + lpips, "nfe": 100 if setting == etas.HOST else 40}
                rows.append({"split": split, "task": task, **setting._asdict(), "photo": photo, **scores})
    return pd.DataFrame(rows)


def test_the_usual_setting_is_the_host(etas: ModuleType) -> None:
    assert etas.sampler_of(etas.HOST, parse_task("sr4@0")) == DDNM()
    assert etas.sampler_of(etas.Setting("start", 0.7, 0.7), parse_task("sr4@0.05")) == DDNMPlus(0.7)
    assert etas.sampler_of(etas.Setting("start", 0.7, 0.9), parse_task("sr4@0.05")) == NullEta(DDNMPlus(0.7), 0.9)
    assert len(etas.TRIED) == len(set(etas.TRIED)) == 41


def test_both_rules_choose(etas: ModuleType) -> None:
    """`score` weighs both measures; `goal` asks for LPIPS lower by an eighth, here by 0.0256, and then for PSNR."""
    settings = [s for s in etas.TRIED if s.plugin == "start"]
    a, b, c = settings[3], settings[7], settings[11]

    def choices(**gains: tuple[float, float]) -> list:
        moves = dict.fromkeys(settings, (-1.0, 0.0)) | {a: gains["a"], b: gains["b"], c: gains["c"]}
        return [etas.chosen(table_of(etas, moves), "start", rule) for rule in etas.RULES]

    assert choices(a=(0.1, -0.04), b=(0.3, -0.026), c=(0.5, -0.01)) == [a, b]
    assert choices(a=(0.1, -0.04), b=(0.0, -0.026), c=(0.7, -0.01)) == [c, a]
    assert choices(a=(0.1, -0.02), b=(0.0, -0.025), c=(0.6, 0.0)) == [c, c], "none has LPIPS enough: PSNR alone"


def test_the_committed_table_is_that_of_its_photographs(etas: ModuleType) -> None:
    """What the test photographs saw is what the training ones choose; the README's numbers are the table's."""
    photos, table = etas.read(etas.FOLDER / "two_etas_photos.csv"), pd.read_csv(etas.FOLDER / "two_etas.csv")
    seen = photos[photos["split"] == "test"][etas.COLUMNS].drop_duplicates()
    assert set(seen.itertuples(index=False, name=None)) == {tuple(s) for s in etas.judged(photos)}
    test = photos[(photos["split"] == "test")]
    pd.testing.assert_frame_equal(etas.summary(test), table[table["split"] == "test"].reset_index(drop=True), check_dtype=False)
    mean = table[(table["split"] == "test") & (table["task"] == "six tasks")].set_index(etas.COLUMNS)
    start = mean.loc[tuple(etas.chosen(photos, "start", "score"))]
    readme = " ".join((FOLDER.parent / "README.md").read_text().split())
    assert f"has {start['psnr_percent']:+.1f} % of PSNR and {start['lpips_percent']:.1f} % of LPIPS without LEADer" in readme
    led = [mean.loc[tuple(etas.chosen(photos, "leader-start", rule))] for rule in etas.RULES]
    more = sorted(round(-row["over_start_lpips"]) for row in led)
    assert f"lowers LPIPS by another {more[0]} to {more[1]} %" in readme
    assert all(row["over_flat_lpips_low"] < 0 < row["over_flat_lpips_high"] for row in led), "the flat map does as much"


def test_the_summary_is_in_percent(etas: ModuleType) -> None:
    setting = etas.Setting("start", 0.75, 0.95)
    found = etas.summary(table_of(etas, {setting: (0.5, -0.02)}, "test")).set_index(["plugin", "task"]).loc["start"]
    assert set(found.index) == {"six tasks", *etas.SIX}
    for task in found.index:
        assert found.loc[task, "psnr_percent"] == pytest.approx(2.0) and found.loc[task, "lpips_percent"] == pytest.approx(
            -10.0
        )
    assert found.loc["six tasks", "nfe_percent"] == pytest.approx(-60.0)
    assert found["score"].to_numpy() == pytest.approx(0.5 + etas.RATE * 0.02, abs=1e-5)

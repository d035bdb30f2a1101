"""benchmarks/restore_many.py: its arithmetic, and what the committed table claims."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "benchmarks" / "results" / "restore_many.csv"
SETTINGS = {"task": "inpaint70@0", "count": 4, "size": 16, "batch": 2, "steps": 10, "rounds": 2, "clock": "cpu"}


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("restore_many_script", ROOT / "benchmarks" / "restore_many.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def arguments(script, **changes) -> argparse.Namespace:
    rest = {"budget": 0.02, "threads": 1, "load": 0.0, "prior": "photo-small"}
    return argparse.Namespace(**{**SETTINGS, **rest, **changes})


def test_realised_time(script) -> None:
    """Half of the calls in 60 % of the time of the idle rule: 0.8 of what was saved. Medians and quartiles over rounds."""
    rows = []
    for turn, seconds in enumerate((6.0, 6.0, 7.0)):
        for variant in script.variants(0.02):
            idle = variant not in script.IDLE
            took = {"seconds": 10.0 if idle else seconds, "nfe": 10.0 if idle else 5.0, "nfe_least": 4, "nfe_most": 7}
            rows.append({"round": turn, "variant": variant} | took)
    found = script.summary(pd.DataFrame(rows), arguments(script)).set_index("variant")
    assert list(found.index) == list(script.variants(0.02)) and set(script.IDLE.values()) < set(found.index)
    for variant in script.IDLE:
        row = found.loc[variant]
        assert row["calls_saved"] == 0.5 and row["realised"] == pytest.approx(0.8) == row["over_host"]
        assert row["realised_q25"] == pytest.approx(0.7) and row["realised_q75"] == pytest.approx(0.8)
        assert row["seconds"] == 6 and row["seconds_q75"] == 6.5
    assert found["realised"].isna().sum() == len(found) - len(script.IDLE)


def test_it_runs(script) -> None:
    """Very small: the idle rules take every step, the large budget does not, and everyone restores every image."""
    args = arguments(script, count=2, rounds=1, steps=6, budget=1e3)
    found = script.summary(script.measure(args), args).set_index("variant")
    idle = found.loc[["host", *script.IDLE.values()]]
    assert (idle["nfe_least"] == 6).all() and (idle["nfe_most"] == 6).all()
    assert found.loc["SATP, half", "nfe"] <= 6 and (found["seconds"] > 0).all()


def test_the_committed_table_keeps_its_claim() -> None:
    """At least 0.9 of the calls that a rule saves come back as time, where images go their own ways."""
    found = pd.read_csv(TABLE).set_index("variant")
    made = found.iloc[0]
    assert made["count"] >= 16 and made["batch"] >= 8 and made["rounds"] >= 3
    half = found.loc["SATP, half"]
    assert 0.35 <= half["calls_saved"] <= 0.65 and half["nfe_most"] - half["nfe_least"] >= 5
    for variant in ("error-controlled", "SATP, half"):
        row = found.loc[variant]
        assert row["calls_saved"] > 0.2 and row["realised"] >= 0.9, f"{variant}: {row['realised']} of {row['calls_saved']}"
        assert row["realised_q25"] <= row["realised"] <= row["realised_q75"]

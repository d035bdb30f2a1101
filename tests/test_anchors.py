"""The benchmarks beside FFDNet: which photographs, which priors, and paired intervals. FFDNet itself is not needed."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from laws import normal
from leader_nb import Prior
from leader_nb.adapters import prior_from_denoiser
from leader_nb.errors import InputError
from leader_nb.metrics import bootstrap_interval
from leader_nb.prior_report import CentreCrops

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
denoising, zero_shot = import_module("denoising_anchor"), import_module("zero_shot_anchor")


def shrinking(factor: float) -> Prior:
    """D(x, sigma) = factor * x, at every noise level."""
    return prior_from_denoiser(lambda x, sigma: factor * x, (0.0, 200.0), pixels=(-1.0, 1.0), name="shrinking")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three photographs, one too small, and a table that calls two of the larger the test split."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, side in enumerate((48, 48, 40, 16)):
        pixels = np.random.default_rng(i).integers(0, 256, (side, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{i}.png")
    (tmp_path / "photos.csv").write_text("file,split\n0.png,test\n1.png,train\n2.png,test\n3.png,test\n")
    return photos


@pytest.fixture
def anchored(monkeypatch: pytest.MonkeyPatch) -> None:
    """FFDNet and the priors replaced by denoisers that cost nothing."""
    made = {"photo-small": shrinking(0.98), "photo-base": shrinking(0.96)}
    monkeypatch.setattr(denoising, "load_prior", lambda name: made[Path(name).stem])
    monkeypatch.setattr(denoising, "ffdnet", lambda: lambda x, sigma: 0.9 * x)
    monkeypatch.setattr(zero_shot, "ffdnet_prior", lambda: shrinking(0.9))
    monkeypatch.setattr(zero_shot, "lpips_distance", lambda a, b: (a - b).abs().mean((1, 2, 3)))


def run(module, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    module.main()


def test_photographs_of_both_kinds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = denoising.photographs([str(folder), "coffee,china"], 32)
    assert {kind: crops.names for kind, crops in sets.items()} == {"test": ("0.png", "2.png"), "builtin": ("coffee", "china")}
    assert "test: left out, with fewer than 32 x 32 px: 3.png" in capsys.readouterr().out
    (folder.parent / "photos.csv").unlink()
    assert list(denoising.photographs([str(folder)], 32)) == ["folder"]
    with pytest.raises(InputError, match="coffee,flower is the second of kind 'builtin'"):
        denoising.photographs(["coffee,china", "coffee,flower"], 32)
    with pytest.raises(InputError, match="give at least 2"):
        denoising.photographs([str(folder)], 44) and denoising.photographs(["coffee"], 32)


def test_priors_by_name(anchored: None) -> None:
    assert list(denoising.priors_of("photo-small,photo-base")) == ["photo-small", "photo-base"]
    assert list(denoising.priors_of("runs/mine/photo-base.safetensors")) == ["photo-base"], "no path in the table"


def test_the_denoising_table(folder: Path, tmp_path: Path, anchored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "table.csv"
    arguments = ("--images", str(folder), "builtin", "--size", "32", "--sigmas", "25,75", "--out", str(out))
    run(denoising, monkeypatch, *arguments, "--no-bias")
    table = pd.read_csv(out)
    assert len(table) == 2 * 2 * 3 and list(table.photographs.unique()) == ["test", "builtin"]
    assert set(table.denoiser) == {"ffdnet", "photo-small", "photo-base"} and (table["size"] == 32).all()
    assert table[table.photographs == "builtin"].images.eq(6).all() and table[table.photographs == "test"].images.eq(2).all()
    own = table.denoiser == "ffdnet"
    assert table[own].gain.isna().all() and table[~own].gain.notna().all()
    assert (table[~own].gain_low <= table[~own].gain).all() and (table[~own].gain <= table[~own].gain_high).all()
    for _, part in table.groupby(["photographs", "sigma"]):
        means = part.set_index("denoiser").psnr
        for row in part[part.denoiser != "ffdnet"].itertuples():
            assert row.gain == pytest.approx(means[row.denoiser] - means["ffdnet"], abs=2e-4)
    assert not list(tmp_path.glob("bias_*.csv"))
    assert out.read_text().splitlines()[1].startswith("test,32,25,ffdnet,")
    monkeypatch.setattr(denoising, "BIAS_SIZE", 32)
    monkeypatch.setattr(denoising, "SIGMAS", (0.1, 10))
    run(denoising, monkeypatch, "--images", "coffee,china", *arguments[3:], "--prior", "photo-small")
    assert not list(tmp_path.glob("bias_*.csv")), "the bias is that on a folder, and nothing less"
    run(denoising, monkeypatch, *arguments, "--prior", "photo-small")
    assert [p.name for p in tmp_path.glob("bias_*.csv")] == ["bias_photo-small.csv"]


def test_the_zero_shot_table(folder: Path, tmp_path: Path, anchored: None, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "zero.csv"
    run(zero_shot, monkeypatch, "--images", str(folder), "--size", "32", "--steps", "3", "--out", str(out))
    table, means = pd.read_csv(out), pd.read_csv(tmp_path / "zero_summary.csv")
    assert list(table.columns) == ["photographs", "task", "denoiser", "size", "steps", "photo", "psnr", "lpips"]
    assert len(table) == 2 * 3 * 2 and (table["size"] == 32).all() and (table.steps == 3).all()
    assert len(means) == 2 * 2 * 3
    chosen = means[(means.task == "sr4@0") & (means.measure == "psnr") & (means.denoiser == "photo-base")].iloc[0]
    part = table[table.task == "sr4@0"].set_index("denoiser").psnr
    gain = part["photo-base"].mean() - part["ffdnet"].mean()
    assert chosen["mean"] == pytest.approx(part["photo-base"].mean(), abs=1e-3) and chosen.gain == pytest.approx(gain, abs=1e-3)


def test_the_defaults_are_those_of_the_committed_table(monkeypatch: pytest.MonkeyPatch, anchored: None) -> None:
    asked: list[int] = []
    crops = CentreCrops(torch.zeros(2, 3, 8, 8), ("a", "b"), ())
    monkeypatch.setattr(zero_shot, "photographs", lambda images, size: asked.append(size) or {"test": crops})
    monkeypatch.setattr(zero_shot, "rows_of", lambda *a: asked.append(a[-1]) or [])
    monkeypatch.setattr(zero_shot, "summary", lambda table: pytest.fail("enough"))
    with pytest.raises(pytest.fail.Exception, match="enough"):
        run(zero_shot, monkeypatch, "--images", "x", "--out", "table.csv")
    assert set(asked) == {96, 40}


def test_gains_are_paired(anchored: None) -> None:
    """Photographs differ by ten decibels, the denoisers by a tenth: only pairs can tell."""
    levels, noise = 25 + 10 * normal(12), 0.02 * normal(12, seed=1)
    rows = [
        {"photographs": "test", "task": "t", "size": 8, "steps": 2, "photo": i, "denoiser": name, "psnr": v, "lpips": -v}
        for name, values in (("ffdnet", levels), ("ours", levels + 0.1 + noise))
        for i, v in enumerate(values.tolist())
    ]
    means = zero_shot.summary(pd.DataFrame(rows))
    ours = means[(means.denoiser == "ours") & (means.measure == "psnr")].iloc[0]
    assert tuple(ours[["gain", "gain_low", "gain_high"]]) == pytest.approx(tuple(bootstrap_interval(0.1 + noise)))
    assert ours.gain_low > 0 and ours.high - ours.low > 1
    lpips = means[(means.denoiser == "ours") & (means.measure == "lpips")].iloc[0]
    assert lpips.gain_high < 0 and lpips.gain == pytest.approx(-ours.gain)

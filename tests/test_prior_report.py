"""The report on a prior: its numbers against an exact denoiser, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from laws import normal
from leader_nb.cli import main
from leader_nb.errors import InputError
from leader_nb.mixture import image_mixture
from leader_nb.prior_report import bias, centre_crops, denoiser_of, prior_report
from leader_nb.priors import Prediction, Prior
from leader_nb.schedule import Schedule


def gaussian_prior(variance: float) -> Prior:
    """E[x0 | x_t] under N(0, variance I), exact at every noise level."""

    def predict(x_t: torch.Tensor, t: torch.Tensor, schedule: Schedule) -> Prediction:
        abar = schedule.abar(t, x_t)
        return Prediction(x0=abar.sqrt() * variance * x_t / (abar * variance + 1 - abar))

    return Prior(predict, name="gaussian")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four 40 x 50 images of white Gaussian noise of deviation 0.25 (of 1), which no clipping touches."""
    for i in range(4):
        pixels = np.random.default_rng(i).normal(0.5, 0.125, (40, 50, 3)).clip(0, 1)
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_psnr_is_that_of_the_wiener_filter(folder: Path) -> None:
    """MSE = v s^2 / (v + s^2) for images of variance v (both in [0, 1] units), known in closed form."""
    report = prior_report(gaussian_prior(0.0625), folder, [25, 75], size=32)
    assert report["images"] == 4 and report["files"] == ["0.png", "1.png", "2.png", "3.png"]
    for level in (25, 75):
        v, s2 = 0.125**2, (level / 255) ** 2
        low, high = report["ci"][str(level)]
        assert report["psnr"][str(level)] == pytest.approx(-10 * np.log10(v * s2 / (v + s2)), abs=0.15)
        assert low <= report["psnr"][str(level)] <= high < low + 1
    assert report["speed"]["megapixels_per_second"] == pytest.approx(32**2 / 1e6 / report["speed"]["seconds_per_image"])


def test_bias_is_none_for_an_exact_prior_and_seen_for_a_wrong_one() -> None:
    images = 0.25 * normal(16, 3, 32, 32).float()
    for row in bias(gaussian_prior(0.0625), images, [0.1, 1.0]):
        assert abs(row["dc"]) < 0.005 and abs(row["scale"]) < 0.02
        assert row["dc_low"] < row["dc"] < row["dc_high"] and row["scale_low"] < row["scale"] < row["scale_high"]
    shrinks = bias(gaussian_prior(0.01), images, [0.3])[0]
    assert shrinks["scale_low"] > 0.2


def test_the_denoiser_of_a_prior_is_its_posterior_mean() -> None:
    mixture = image_mixture(4)
    x = normal(2, 1, 4, 4)
    t = torch.full((2,), mixture.prior().schedule.nearest_time(0.5))
    expected = mixture.prior()(x * mixture.prior().schedule.abar(t, x).sqrt(), t).x0
    assert torch.equal(denoiser_of(mixture.prior())(x, 0.5), expected)


def test_centre_crops(folder: Path) -> None:
    crops, names = centre_crops(folder, 30)
    pixels = np.asarray(Image.open(folder / "2.png"))[5:35, 10:40]
    assert crops.shape == (4, 3, 30, 30) and names[2] == "2.png"
    assert np.allclose(crops[2].permute(1, 2, 0).numpy(), pixels / 127.5 - 1, atol=1e-6)
    with pytest.raises(InputError, match="60 x 60"):
        centre_crops(folder, 60)


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    arguments = ["prior-report", "--prior", "photo-small", "--images", str(folder), "--size", "32", "--device", "cpu"]
    assert main([*arguments, "--sigmas", "25", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert set(report) >= {"psnr", "ci", "images", "speed", "sha256"} and set(report["psnr"]) == {"25"}
    assert f"{report['psnr']['25']:.2f} dB" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sigmas", "ten"], "sigmas: got 'ten'"),
        (["--sigmas", "-5"], "sigmas: got -5"),
        (["--size", "600"], "600 x 600"),
        (["--images", "nowhere"], "no folder at nowhere"),
        (["--prior", "photo-smal"], "did you mean 'photo-small'"),
        (["--json", "nowhere/x.json", "--size", "16", "--sigmas", "25"], "there is no folder nowhere"),
    ],
)
def test_bad_input(folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--images", str(folder)] if "--images" not in arguments else []
    assert main(["prior-report", *given, "--device", "cpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_photograph_is_named(folder: Path) -> None:
    (folder / "9.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match=r"9\.png cannot be read"):
        centre_crops(folder, 16)

"""The report on a prior: its numbers against an exact denoiser, and bad input."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from laws import normal
from leader_nb import cli
from leader_nb import prior_report as module
from leader_nb.cli import main
from leader_nb.data import builtin_photo
from leader_nb.errors import InputError
from leader_nb.metrics import bootstrap_interval
from leader_nb.mixture import image_mixture
from leader_nb.prior_report import (
    bias,
    centre_crops,
    colour,
    compare_denoisers,
    denoise_each,
    denoiser_of,
    prior_report,
    timed,
)
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


# --- photographs --------------------------------------------------------------------------------------------------


def test_centre_crops(folder: Path) -> None:
    crops, names, left_out = centre_crops(folder, 30)
    pixels = np.asarray(Image.open(folder / "2.png"))[5:35, 10:40]
    assert crops.shape == (4, 3, 30, 30) and names[2] == "2.png" and left_out == ()
    assert np.allclose(crops[2].permute(1, 2, 0).numpy(), pixels / 127.5 - 1, atol=1e-6)
    with pytest.raises(InputError, match="60 x 60"):
        centre_crops(folder, 60)


def test_crops_of_photographs_that_are_built_in() -> None:
    crops, names, _ = centre_crops("coffee, astronaut", 64)
    assert names == ("coffee", "astronaut")
    whole = builtin_photo("astronaut", 0)  # 512 x 512
    assert torch.equal(crops[1], whole[0, :, 224:288, 224:288]), "at their own resolution"
    assert len(centre_crops("builtin", 256).names) == 6
    with pytest.raises(InputError, match="no folder at coffe; give one, or photographs that are built in"):
        centre_crops("coffe", 64)


def test_photographs_that_are_too_small_are_left_out_and_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (60, 20)).save(folder / "low.png")
    Image.new("RGB", (20, 60)).save(folder / "narrow.png")
    report = prior_report(gaussian_prior(0.0625), folder, [25], size=32)
    assert report["left_out"] == ["low.png", "narrow.png"] and report["images"] == 4
    main(["prior-report", "--images", str(folder), "--size", "32", "--sigmas", "25", "--device", "cpu"])
    assert "left out, with fewer than 32 x 32 px: low.png, narrow.png" in capsys.readouterr().out


# --- comparisons and time -----------------------------------------------------------------------------------------


def test_gains_are_paired_by_photograph() -> None:
    """Both denoisers suffer alike from a hard photograph: the interval of their difference does not know it."""
    images = 0.25 * normal(6, 3, 16, 16).float() * torch.tensor([0.2, 0.5, 1, 2, 1, 0.3]).view(-1, 1, 1, 1)
    rivals = {"raw": lambda x, sigma: x, "half": lambda x, sigma: 0.99 * x, "other": lambda x, sigma: 0.5 * x}
    rows = {row["denoiser"]: row for row in compare_denoisers(rivals, images, [25], anchor="raw")}
    assert np.isnan([rows["raw"][name] for name in ("gain", "gain_low", "gain_high")]).all()
    each = [denoise_each(rivals[name], images, 25).psnr for name in ("other", "raw")]
    expected = bootstrap_interval(each[0] - each[1])
    assert tuple(rows["other"][name] for name in ("gain", "gain_low", "gain_high")) == tuple(expected)
    assert expected.mean == pytest.approx(rows["other"]["psnr"] - rows["raw"]["psnr"])
    widths = {name: rows["half"][f"{name}high"] - rows["half"][f"{name}low"] for name in ("", "gain_")}
    assert widths["gain_"] < widths[""], rows["half"]
    assert "gain" not in compare_denoisers(rivals, images, [25])[0]


def test_only_the_call_is_timed_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow noise, slow PSNR and a slow first call do not show; sleeping takes no processor time."""
    calls = []

    def denoise(x: torch.Tensor, sigma: float) -> torch.Tensor:
        time.sleep(0.01 if calls else 0.3)
        calls.append(sigma)
        return x

    slow = lambda name, original: lambda *a: (time.sleep(0.1), original(*a))[1]
    monkeypatch.setattr(module, "psnr", slow("psnr", module.psnr))
    monkeypatch.setattr(module, "noise_for", slow("noise", module.noise_for))
    row = compare_denoisers({"sleepy": denoise}, torch.zeros(3, 3, 8, 8), [25])[0]
    assert len(calls) == 4
    assert 0.01 <= row["seconds_per_image"] < 0.08 and row["cpu_seconds_per_image"] < row["seconds_per_image"]


def test_a_gpu_is_idle_before_and_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clocks are read around the work, not around its queueing."""
    order: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: order.append("wait"))
    monkeypatch.setattr(time, "perf_counter", lambda: float(order.append("clock") or len(order)))

    class OnGPU:
        device = torch.device("cuda:0")

    timed(lambda x, sigma: order.append("call"), OnGPU(), 1.0)
    assert order == ["wait", "clock", "call", "wait", "clock"]


def test_the_report_counts_its_calls(folder: Path) -> None:
    speed = prior_report(gaussian_prior(0.0625), folder, [25, 50], size=32)["speed"]
    assert speed["calls"] == 8 and speed["cpu_seconds_per_image"] > 0


# --- colour -------------------------------------------------------------------------------------------------------


def flat(*rgb: float) -> torch.Tensor:
    """A noiseless image (1, 3, 8, 8) of one colour, given in [0, 1]."""
    return torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, 8, 8) * 2 - 1


def test_saturation_is_that_of_hsv() -> None:
    grey, red, pink, black = flat(0.4, 0.4, 0.4), flat(1, 0, 0), flat(0.8, 0.4, 0.4), flat(0, 0, 0)
    found = colour(torch.cat([grey, red, pink, black])).saturation
    assert torch.allclose(found, torch.tensor([0, 1, 0.5, 0.0]).double(), atol=1e-6)
    half = torch.cat([flat(0.01, 0, 0), flat(1, 1, 1)], dim=-1)
    assert colour(half).saturation.item() == pytest.approx(0.01 / 1.01, rel=1e-4), "dark colours count for little"


def test_correlation_of_channels() -> None:
    grey = 0.3 * normal(1, 1, 64, 64).clamp(-3, 3)
    own = 0.3 * normal(1, 3, 64, 64, seed=1).clamp(-3, 3)
    mixed = (0.8 * grey + 0.6 * own) * 0.9
    images = torch.cat([grey.expand(1, 3, 64, 64), own, mixed])
    found = colour(images).correlation
    assert found[0].item() == pytest.approx(1)
    assert abs(found[1].item()) < 0.05 and found[2].item() == pytest.approx(0.64, abs=0.05)
    negative = torch.cat([grey, -grey, torch.zeros_like(grey)], dim=1)
    assert torch.isnan(colour(negative).correlation), "a constant channel correlates with nothing"
    assert torch.isnan(colour(flat(0.3, 0.3, 0.3).float()).correlation)
    left = torch.corrcoef(own[0].flatten(1))
    assert found[1].item() == pytest.approx(((left.sum() - 3) / 6).item())


def test_colour_looks_at_each_image_alone_and_clamps() -> None:
    images = normal(3, 3, 16, 16)
    together, clamped = colour(images), colour(images.clamp(-1, 1))
    for i in range(3):
        assert torch.equal(colour(images[i : i + 1]).correlation[0], together.correlation[i])
    assert torch.equal(together.saturation, clamped.saturation)
    with pytest.raises(InputError, match=r"colour images \(n, 3, H, W\)"):
        colour(images[:, :1])


def test_photographs_are_between_grey_and_independent_channels() -> None:
    found = colour(centre_crops("builtin", 128).pixels)
    assert (found.correlation > 0.2).all() and (found.saturation > 0.1).all() and (found.saturation < 0.9).all()


# --- the command line ---------------------------------------------------------------------------------------------


def test_command_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    arguments = ["prior-report", "--prior", "photo-small", "--images", str(folder), "--size", "32", "--device", "cpu"]
    assert main([*arguments, "--sigmas", "25", "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert set(report) >= {"psnr", "ci", "images", "speed", "sha256"} and set(report["psnr"]) == {"25"}
    printed = capsys.readouterr().out
    assert f"{report['psnr']['25']:.2f} dB" in printed and "left out" not in printed


def test_command_line_with_photographs_that_are_built_in(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    arguments = ["prior-report", "--images", "coffee,china", "--size", "32", "--device", "cpu", "--sigmas", "25"]
    assert main([*arguments, "--json", str(out)]) == 0
    report = json.loads(out.read_text())
    assert report["files"] == ["coffee", "china"] and report["images"] == 2


BAD = [
    (["--sigmas", "ten"], "sigmas: got 'ten'"),
    (["--sigmas", "-5"], "sigmas: got -5"),
    (["--sigmas", "0"], "sigmas: got 0; photo-small knows noise of 1.28 to "),
    (["--sigmas", "25,1.2"], "sigmas: got 1.2; photo-small knows noise of 1.28 to "),
    (["--sigmas", "25000"], "sigmas: got 25000; photo-small knows noise of 1.28 to 20"),
    (["--sigmas", "nan"], "sigmas: got nan"),
    (["--sigmas", ""], "sigmas: got ''"),
    (["--size", "600"], "600 x 600"),
    (["--size", "0"], "size: got 0; photo-small takes 8 pixels a side or more"),
    (["--size", "4"], "size: got 4; photo-small takes 8 pixels"),
    (["--size", "-8"], "size: got -8; photo-small takes 8 pixels"),
    (["--seed", "-1"], "seed: got -1; give 0 to 2^63 - 1"),
    (["--images", "nowhere"], "no folder at nowhere"),
    (["--images", "astronaut"], "images: only astronaut of astronaut has 256 x 256 pixels; give at least 2"),
    (["--images", "astronaut,coffe"], "no folder at astronaut,coffe"),
    (["--prior", "photo-smal"], "did you mean 'photo-small'"),
    (["--json", "nowhere/x.json"], "there is no folder nowhere"),
    (["--json", "."], "it is a folder"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=lambda value: value if isinstance(value, str) else " ".join(value))
def test_bad_input_is_found_before_any_work(
    folder: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "denoise_each", lambda *a: pytest.fail("the network was called"))
    given = ["--images", str(folder)] if "--images" not in arguments else []
    assert main(["prior-report", *given, "--device", "cpu", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_one_usable_photograph_is_not_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.new("RGB", (60, 60)).save(folder / "large.png")
    assert main(["prior-report", "--images", str(folder), "--size", "56", "--device", "cpu"]) == 2
    assert f"images: only large.png of {folder} has 56 x 56 pixels; give at least 2" in capsys.readouterr().err


def test_a_folder_that_may_not_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leader_nb.data.os.access", lambda path, mode: False)
    monkeypatch.setattr(cli, "load_prior", lambda *a: pytest.fail("it began"))
    assert main(["prior-report", "--images", str(folder), "--json", str(folder / "x.json")]) == 2


def test_the_lowest_level_is_taken_and_the_one_below_is_not(folder: Path) -> None:
    """It is the schedule's first: below it, the nearest time would have denoised too much."""
    prior = gaussian_prior(0.0625)
    level = 127.5 * prior.schedule.sigma(torch.tensor([0]), torch.zeros(1).double()).item()
    assert prior_report(prior, folder, [level], size=32)["images"] == 4
    with pytest.raises(InputError, match="sigmas: got"):
        prior_report(prior, folder, [0.999 * level], size=32)


def test_a_damaged_photograph_is_named(folder: Path) -> None:
    (folder / "9.png").write_bytes(b"\x89PNG nothing")
    with pytest.raises(InputError, match=r"9\.png cannot be read"):
        centre_crops(folder, 16)

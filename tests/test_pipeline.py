"""A photograph goes in, six files come out: what they hold, that they repeat, and what is refused before any work."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from conftest import TINY
from leader_nb import memory, pipeline, plates
from leader_nb.data import load_image
from leader_nb.errors import InputError
from leader_nb.measurement import load_measurement, save_measurement
from leader_nb.networks import Denoiser, UNetConfig
from leader_nb.networks.files import save_denoiser
from leader_nb.networks.published import PUBLISHED, ADMConfig, ADMNet
from leader_nb.pipeline import FILES, Case, Config, Engine
from leader_nb.priors import Prediction
from leader_nb.zoo import prior_hash, prior_path

TASKS = ["sr4@0.05", "gaussian@0.05", "inpaint70@0", "denoise@0.1", "color@0"]


def one_error(match: str):
    return pytest.raises(InputError, match=rf"\A[^\n]*{match}[^\n]*\Z")


@pytest.fixture(scope="module")
def prior_file(tmp_path_factory: pytest.TempPathFactory, tiny: Denoiser) -> str:
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_denoiser(path, tiny, {}, torch.float32)
    return str(path)


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    """LPIPS has its own tests; here a number must come back without fetching its weights."""
    monkeypatch.setitem(pipeline.METRICS, "lpips", lambda x, reference: (x - reference).square().mean(dim=(1, 2, 3)))


def engine(prior_file: str, **options) -> Engine:
    return pipeline.load_engine(Config(**{"prior": prior_file, "steps": 4} | options))


def picture(path: Path, width: int = 40, height: int = 32) -> Path:
    """A smooth colour picture."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    pixels = np.stack([x, y, (1 + np.sin(9 * x * y)) / 2], -1)
    Image.fromarray((255 * pixels).astype(np.uint8)).save(path)
    return path


def restored(case: Case, engine: Engine, folder: Path) -> dict:
    folder.mkdir(exist_ok=True)
    return pipeline.save(pipeline.run(case, engine), engine, folder)


# --- what comes out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leader", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_six_files_and_restores_again_from_its_measurement(
    task: str, leader: bool, prior_file: str, tmp_path: Path
) -> None:
    e = engine(prior_file, leader=leader, seed=3)
    report = restored(pipeline.photograph(picture(tmp_path / "p.png"), task, 32, e), e, tmp_path / "a")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(FILES)
    again = restored(pipeline.recalled(tmp_path / "a" / FILES[0], e), e, tmp_path / "b")
    for name in ("measurement.safetensors", "degraded.png", "restored.png", "uncertainty.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert again["psnr"] is again["ssim"] is again["lpips"] is None and again["baseline"]["psnr"] is None
    assert again["residual"] == report["residual"] and again["times"] == report["times"]
    assert again.keys() == report.keys()


@pytest.mark.parametrize("task", TASKS)
def test_a_whole_photograph_keeps_its_own_size(task: str, prior_file: str, tmp_path: Path) -> None:
    """Sides that are multiples of nothing are padded inside; files and metrics are of the photograph."""
    e = engine(prior_file)
    report = restored(pipeline.photograph(picture(tmp_path / "p.png", 37, 26), task, 0, e), e, tmp_path / "a")
    for name in ("restored.png", "uncertainty.png"):
        with Image.open(tmp_path / "a" / name) as image:
            assert image.size == (37, 26)
    factor = 4 if task.startswith("sr4") else 1
    with Image.open(tmp_path / "a" / "degraded.png") as image:
        assert image.size == (math.ceil(37 / factor), math.ceil(26 / factor))
    assert report["image"] == {"width": 37, "height": 26, "padded": [40, 28] if factor == 4 else [37, 26]}
    x, reference = load_image(tmp_path / "a" / "restored.png", 0), load_image(tmp_path / "p.png", 0)
    assert report["psnr"] == pytest.approx(float(pipeline.metrics.psnr(x, reference)), abs=0.05)
    restored(pipeline.recalled(tmp_path / "a" / FILES[0], e), e, tmp_path / "b")
    assert (tmp_path / "a" / "restored.png").read_bytes() == (tmp_path / "b" / "restored.png").read_bytes()


def test_the_report(prior_file: str, tmp_path: Path) -> None:
    e = engine(prior_file, leader=True, seed=5)
    report = restored(pipeline.photograph(picture(tmp_path / "p.png"), "sr4@0.05", 32, e), e, tmp_path)
    text = (tmp_path / "report.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == report
    assert str(tmp_path) not in text, "a report must not name folders of this machine"
    assert report["task"] == "sr4@0.05" and report["leader"] is True and report["host"] == "ddnm"
    assert report["residual_expected"] == pytest.approx(0.1) and report["seeds"] == {"measurement": 5, "restoration": 5}
    assert report["nfe"] == len(report["times"]) and report["backward"] == 0 and report["seconds"] > 0
    assert report["prior"] == {"name": "tiny", "sha256": pipeline.sha256(prior_file)}
    assert report["plugins"]["covariance"].startswith("RunningSecant") and report["machine"]["threads"] >= 1
    assert report["versions"]["torch"] == torch.__version__ and report["config"]["steps"] == 4
    assert {"psnr", "ssim", "lpips"} <= report.keys() and report["baseline"]["psnr"] > 0


def test_without_leader_only_the_map_is_computed(prior_file: str, tmp_path: Path) -> None:
    """Bit for bit the host alone."""
    e = engine(prior_file)
    case = pipeline.photograph(picture(tmp_path / "p.png"), "gaussian@0.05", 32, e)
    outcome = pipeline.run(case, e)
    alone = pipeline.restore(case.problem, e.prior, outcome.sampler, grid=4, noise=pipeline.noise_for(1, 0))
    assert torch.equal(outcome.result.image, alone.image) and outcome.result.nfe.tolist() == [4]


def test_the_map_shown_is_the_visited_one_nearest_to_its_level(prior_file: str, tmp_path: Path) -> None:
    e = engine(prior_file, steps=50)
    outcome = pipeline.run(pipeline.photograph(picture(tmp_path / "p.png"), "denoise@0.1", 16, e), e)
    sigmas = e.prior.schedule.sigma(torch.tensor(outcome.result.times[0]), torch.zeros(1).double()).flatten()
    nearest = sigmas[(sigmas / pipeline.MAP_SIGMA).log().abs().argmin()]
    assert outcome.map_sigma == pytest.approx(float(nearest)) and outcome.deviation.shape == (16, 16)
    assert 0 < outcome.deviation.max() <= outcome.map_sigma / 2 + 1e-6, "a standard deviation above the noise level's"


def test_the_paper_preset(prior_file: str, tmp_path: Path) -> None:
    e = engine(prior_file, leader=True, preset="paper")
    report = restored(pipeline.photograph(picture(tmp_path / "p.png"), "gaussian@0.05", 32, e), e, tmp_path)
    assert report["plugins"]["covariance"].startswith("ScoreSquared")


def test_lost_pixels_are_black_and_their_mask_is_kept(prior_file: str, tmp_path: Path) -> None:
    e = engine(prior_file)
    restored(pipeline.photograph(picture(tmp_path / "p.png"), "inpaint70@0", 32, e), e, tmp_path)
    mask = load_file(tmp_path / FILES[0])["mask"]
    assert mask.sum() == round(0.3 * 32 * 32)
    assert (load_image(tmp_path / "degraded.png", 0).sum(1, keepdim=True)[~mask] == -3).all()


def test_an_enlarged_photograph_is_remarked_on(prior_file: str, tmp_path: Path) -> None:
    e = engine(prior_file)
    case = pipeline.photograph(picture(tmp_path / "p.png", 20, 12), "denoise@0.1", 32, e)
    assert "12 px and was enlarged to 32" in case.notes[0]


# --- metrics that cannot be had -------------------------------------------------------------------------------------


def test_a_metric_that_fails_loses_nothing(prior_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        raise InputError("no LPIPS weights")

    monkeypatch.setitem(pipeline.METRICS, "lpips", offline)
    e = engine(prior_file)
    report = restored(pipeline.photograph(picture(tmp_path / "p.png"), "sr4@0.05", 32, e), e, tmp_path)
    assert report["lpips"] is None and report["psnr"] is not None
    assert report["notes"] == ["lpips: not available (no LPIPS weights)"] and all((tmp_path / n).is_file() for n in FILES)


def test_stopped_during_the_metrics_the_restoration_is_there(
    prior_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And an older report, which would not belong to it, is gone."""

    def stop(x: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        raise KeyboardInterrupt

    e = engine(prior_file)
    case = pipeline.photograph(picture(tmp_path / "p.png"), "sr4@0.05", 32, e)
    restored(case, e, tmp_path)
    monkeypatch.setitem(pipeline.METRICS, "lpips", stop)
    with pytest.raises(KeyboardInterrupt):
        restored(case, e, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"p.png", *FILES[:4]}


def test_a_tiny_picture_has_no_ssim_and_an_exact_one_no_finite_psnr(prior_file: str, tmp_path: Path) -> None:
    e = engine(prior_file, steps=1)
    report = restored(pipeline.photograph(picture(tmp_path / "p.png", 8, 8), "denoise@0", 0, e), e, tmp_path)
    assert report["ssim"] is None and report["psnr"] is None
    assert any(n.startswith("ssim: not available") for n in report["notes"])
    assert any(n.startswith("psnr of restored: not finite") for n in report["notes"])


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "ddnnm"}, "unknown host 'ddnnm': did you mean 'ddnm'"),
        ({"preset": "papers"}, "unknown preset 'papers': did you mean 'paper'"),
        ({"steps": 0}, "steps: got 0; give a whole number from 1 to 1000"),
        ({"steps": 1001}, "steps: got 1001"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with one_error(message):
        Config(**options)


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "no GPU"), ("toaster", "not one PyTorch knows"), ("meta", "does not work")],
)
def test_bad_devices(device: str, message: str, prior_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with one_error(message):
        engine(prior_file, device=device)


def test_bad_priors(prior_file: str, tmp_path: Path, tiny: Denoiser) -> None:
    content, path = Path(prior_file).read_bytes(), tmp_path / "w.safetensors"
    path.write_bytes(content[: len(content) // 2])
    with one_error("not a complete safetensors file"):
        engine(str(path))
    path.write_bytes(b"GIF89a" * 100)
    with one_error("not a complete safetensors file"):
        engine(str(path))
    save_measurement(path, torch.zeros(1, 3, 8, 8), "denoise@0", 0.0, 0, (3, 8, 8))
    with one_error("no network configuration"):
        engine(str(path))
    path.write_bytes(content.replace(b'blocks\\": 1', b'blocks\\": 2'))
    with one_error("does not fit its own configuration"):
        engine(str(path))
    broken = Denoiser(TINY)
    broken.net.head.bias.data[0] = math.nan
    save_denoiser(path, broken, {}, torch.float32)
    with one_error("not finite"):
        engine(str(path))
    with one_error("no file at"):
        engine(str(tmp_path / "missing.safetensors"))
    with one_error("unknown prior 'photo-smal': did you mean 'photo-small'"):
        engine("photo-smal")


@pytest.mark.parametrize("config", ['{"blocks": "two"}', "[]", "{", '{"colour": 1}', '{"widths": [0, 0]}', '{"patch": 0}'])
def test_foreign_configurations(config: str, tiny: Denoiser, tmp_path: Path) -> None:
    save_file(dict(tiny.state_dict()), tmp_path / "w.safetensors", {"config": config})
    with one_error("w.safetensors"):
        engine(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (-4, "size: got -4; give at least 8, or 0"),
        (4, "size: got 4; give at least 8"),
        (30, "30 is not a multiple of 4, which sr4 needs; give 28 or 32"),
        (9, "9 is not a multiple of 4, which sr4 needs; give 8 or 12"),
        (400_000, "400000 x 400000 pixels need about .* GB of memory, .* give --size"),
    ],
)
def test_bad_sizes(size: int, message: str, prior_file: str, tmp_path: Path) -> None:
    with one_error(message):
        pipeline.photograph(picture(tmp_path / "p.png"), "sr4@0.05", size, engine(prior_file))


def test_the_size_that_is_advised_fits(prior_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    e, task = engine(prior_file), pipeline.parse_task("sr4@0")
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * 10**8)
    with one_error("shrink it to") as caught:
        pipeline.require_memory(900, 1600, task, e, whole=True)
    width, height, square = map(int, re.search(r"to (\d+) x (\d+), or give --size (\d+)", str(caught.value)).groups())
    pipeline.require_memory(height, width, task, e)
    pipeline.require_memory(square, square, task, e)
    assert square % 4 == 0 and square >= 0.9 * math.sqrt(width * height)
    with one_error("pixels need"):
        pipeline.require_memory(height + 16, width + 16, task, e)
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    with one_error("free some memory first"):
        pipeline.require_memory(16, 16, task, e)


def test_a_gradient_needs_more_memory(prior_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = pipeline.parse_task("color@0")
    needed = memory.bytes_needed(640, 640, engine(prior_file).network.per_pixel(gradient=False))
    monkeypatch.setattr(memory, "free_memory", lambda device: int(needed / memory.SHARE))
    pipeline.require_memory(640, 640, task, engine(prior_file, host="ddrm"))
    for host in ("dps", "sitcom"):
        with one_error("640 x 640 pixels need"):
            pipeline.require_memory(640, 640, task, engine(prior_file, host=host))


@pytest.mark.parametrize(("blocks", "call", "gradient"), [(2, 773, 3565), (4, 773, 6265)])
def test_the_estimate_holds_what_was_measured(blocks: int, call: int, gradient: int) -> None:
    """Bytes per pixel of one call of photo-small and photo-base, resident, at 256 x 256; by no more than half too much."""
    footprint = memory.Footprint.of_unet(UNetConfig(blocks=blocks))
    assert call <= footprint.call <= 1.5 * call and gradient <= footprint.kept <= 1.5 * gradient


@pytest.mark.parametrize(
    ("name", "side", "call", "gradient"),
    [("celebahq-256", 256, 496e6, 2362e6), ("ffhq-256", 256, 349e6, None), ("imagenet-256", 128, 241e6, None)],
)
def test_the_estimate_of_the_published_networks_holds(name: str, side: int, call: float, gradient: float | None) -> None:
    """Bytes by which a process grew in one call, with weights of a constant, and in one whose gradient was taken."""
    footprint = memory.Footprint.of_prior(name)
    for bytes_per_pixel, measured in ((footprint.call, call), (footprint.kept, gradient)):
        if measured is not None:
            assert measured <= memory.FIXED + bytes_per_pixel * side**2 <= 1.8 * measured
    assert footprint.weights == 4 * PUBLISHED[name].parameters and footprint.multiple == footprint.stride == 32


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """`ffhq-256` made tiny, in the cache, for sides that are multiples of 8."""
    config = ADMConfig(width=32, multipliers=(1, 1, 1, 1), blocks=1, attention=(), head=32)
    torch.manual_seed(0)
    state = ADMNet(config).state_dict()
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path / "cache"))
    torch.save(state, prior_path("ffhq-256"))
    tiny = replace(PUBLISHED["ffhq-256"], build=lambda: ADMNet(config), parameters=sum(v.numel() for v in state.values()))
    monkeypatch.setitem(PUBLISHED, "ffhq-256", tiny)
    return "ffhq-256"


def test_a_published_network_restores(published: str, no_lpips: None, tmp_path: Path) -> None:
    """By its name, as any other prior; what it cannot take is refused before it is asked."""
    e = engine(published)
    report = restored(pipeline.photograph(picture(tmp_path / "p.png"), "sr4@0.05", 32, e), e, tmp_path / "a")
    assert report["prior"] == {"name": published, "sha256": prior_hash(published)} and report["nfe"] == 4
    assert restored(pipeline.recalled(tmp_path / "a" / FILES[0], e), e, tmp_path / "b")["residual"] == report["residual"]
    with one_error("size: got 36 x 36 pixels; the prior 'ffhq-256' needs multiples of 8: give --size 32"):
        pipeline.photograph(tmp_path / "p.png", "sr4@0.05", 36, e)
    with one_error("photo: got 36 x 32 pixels; the prior 'ffhq-256' needs multiples of 8"):
        pipeline.photograph(picture(tmp_path / "q.png", 35, 30), "sr4@0.05", 0, e)
    with one_error("weights: those of 'celebahq-256' are not at .*; run leader-nb weights fetch celebahq-256"):
        engine("celebahq-256")
    faces = replace(e, network=memory.Footprint.of_prior("celebahq-256"))
    with one_error("takes 256 x 256 and nothing else"):
        pipeline.photograph(tmp_path / "p.png", "sr4@0.05", 128, faces)


def test_weights_that_do_not_fit_are_not_read(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 10**9)
    engine(published)
    with one_error("the weights of 'imagenet-256' need 2.2 GB of memory, 0.9 GB may be used; free some memory first"):
        engine("imagenet-256")
    faces = replace(engine(published), network=memory.Footprint.of_prior("celebahq-256"))
    monkeypatch.setattr(memory, "free_memory", lambda device: 4 * 10**8)
    with one_error("256 x 256 pixels need about 0.5 GB of memory, 0.4 GB may be used; free some memory first"):
        pipeline.check_size(256, pipeline.parse_task("sr4@0"), faces)


def test_free_memory() -> None:
    assert 0 < memory.free_memory() <= psutil.virtual_memory().total


def test_a_photograph_below_the_minimum_of_the_network(prior_file: str, tmp_path: Path) -> None:
    deep = Denoiser(type(TINY)(widths=(4, 4, 4, 4, 4), blocks=1, embedding=8))
    save_denoiser(tmp_path / "deep.safetensors", deep, {}, torch.float32)
    e = engine(str(tmp_path / "deep.safetensors"))
    with one_error("size: got 16; give at least 32"):
        pipeline.photograph(picture(tmp_path / "p.png"), "denoise@0.1", 16, e)
    with one_error("shorter side is 20 px; the prior needs at least 32"):
        pipeline.photograph(picture(tmp_path / "p.png", 90, 20), "denoise@0.1", 0, e)


def test_a_prior_for_other_images(tmp_path: Path) -> None:
    save_denoiser(tmp_path / "grey.safetensors", Denoiser(type(TINY)(channels=1, widths=(4, 4))), {}, torch.float32)
    with one_error("takes 1 channels; photographs need 3"):
        engine(str(tmp_path / "grey.safetensors"))


def test_a_result_that_is_not_finite(prior_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    e = engine(prior_file)
    case = pipeline.photograph(picture(tmp_path / "p.png"), "denoise@0.1", 16, e)
    broken = replace(e.prior, predict=lambda x, t, s: Prediction(x0=x * math.nan))
    with one_error("restoration: not finite"):
        pipeline.run(case, replace(e, prior=broken))


GOOD = {"task": "inpaint70@0.05", "sigma": 0.05, "seed": 0, "shape": (3, 16, 16)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(1, 3, 8, 8)}, r"y: got shape \(1, 3, 8, 8\)"),
        ({"y": torch.full((1, 3, 16, 16), 200.0)}, "y has values up to 200"),
        ({"task": "impaint70@0.05"}, "unknown task 'impaint70'"),
        ({"task": "sr4@0.05", "shape": (3, 18, 18)}, "not multiples of 4"),
        ({"shape": (1, 16, 16)}, "takes 3 channels"),
        ({"shape": (3, 4, 4)}, "takes 3 channels and sides of"),
        ({"shape": (3, 10**7, 10**7)}, "GB of memory"),
        ({"tensors": {"mask": torch.ones(1, 1, 8, 8)}}, "mask of shape"),
        ({"tensors": {"mask": torch.zeros(1, 1, 16, 16)}}, "mask of shape"),
        ({"tensors": {"mask": torch.ones(16, 16)}}, "mask of shape"),
        ({"task": "denoise@0.05", "tensors": {"mask": torch.ones(1, 1, 16, 16)}}, "does not fit denoise@0.05"),
        ({"notes": {"height": "16", "width": "wide"}}, "not whole numbers"),
        ({"notes": {"height": "16", "width": "12"}}, "does not fit its shape"),
        ({"task": "denoise@11", "sigma": 11}, "has sigma 11"),
    ],
)
def test_bad_measurements(change: dict, message: str, prior_file: str, tmp_path: Path) -> None:
    save_measurement(tmp_path / "m.safetensors", **{"y": torch.zeros(1, 3, 16, 16)} | GOOD | change)
    with one_error(f"measurement: m.safetensors: .*{message}"):
        pipeline.recalled(tmp_path / "m.safetensors", engine(prior_file))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_measurements_of_other_precision(dtype: torch.dtype, prior_file: str, tmp_path: Path) -> None:
    save_measurement(tmp_path / "m.safetensors", torch.zeros(1, 3, 16, 16, dtype=dtype), **GOOD)
    e = engine(prior_file, steps=1)
    assert pipeline.run(pipeline.recalled(tmp_path / "m.safetensors", e), e).image.dtype == torch.float32
    assert load_measurement(tmp_path / "m.safetensors").y.dtype == dtype


# --- the folder -----------------------------------------------------------------------------------------------------


def test_the_folder_is_tried_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "taken" / "report.json").mkdir(parents=True)
    cases = {
        tmp_path / "file": "is a file",
        tmp_path / "file" / "below": "cannot write",
        Path("/proc/none/here"): "cannot write",
        tmp_path / ("x" * 300): "cannot write",
        tmp_path / "taken": "is a folder, where a file would go",
    }
    for folder, message in cases.items():
        with one_error(message), pipeline.output_folder(folder):
            pytest.fail("the body ran")


def test_a_folder_made_for_nothing_is_unmade(tmp_path: Path) -> None:
    def stopped(folder: Path, results: int) -> None:
        with pipeline.output_folder(folder) as made:
            assert made.is_dir() and not list(made.iterdir())
            for i in range(results):
                (made / f"result{i}").write_text("")
            raise KeyboardInterrupt

    for results in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            stopped(tmp_path / "a" / "b", results)
        assert (tmp_path / "a").exists() == (results == 1)
    assert (tmp_path / "a" / "b" / "result0").exists()


# --- pictures -------------------------------------------------------------------------------------------------------


def test_the_map_is_painted_with_its_scale_in_the_file(prior_file: str, tmp_path: Path) -> None:
    e = engine(prior_file)
    report = restored(pipeline.photograph(picture(tmp_path / "p.png"), "denoise@0.1", 32, e), e, tmp_path)
    with Image.open(tmp_path / "uncertainty.png") as image:
        assert image.size == (32, 32) and image.mode == "RGB" and "sigma_bar" in image.text["quantity"]
        assert [float(image.text["low"]), float(image.text["high"])] == report["uncertainty"]["shown_from_to"]
        assert float(image.text["maximum"]) == pytest.approx(report["uncertainty"]["maximum"], rel=1e-4)


@pytest.mark.parametrize("largest", [1e-6, 0.0099, 0.01, 0.1234, 1.0, 7.3, 0.0])
def test_the_scale_ends_at_a_round_number(largest: float) -> None:
    high = plates.nice_ceiling(np.full((4, 4), largest))
    assert largest <= high <= max(1.5 * largest, 1e-9) or (largest == 0 and high == 1)
    assert len(f"{high:g}".replace("0.", "").strip("0").split("e")[0].replace(".", "")) <= 2


@pytest.mark.parametrize(("height", "width"), [(8, 8), (64, 64), (300, 40), (40, 300), (700, 900)])
@pytest.mark.parametrize("count", [3, 4])
def test_plates_of_any_shape(height: int, width: int, count: int, tmp_path: Path) -> None:
    pixels = np.zeros((height, width, 3))
    maps = plates.Panel("Uncertainty", "deviation", np.linspace(0, 1, height * width).reshape(height, width), 0.5)
    figure = plates.plate([plates.Panel("Title", "caption\nsecond", pixels)] * (count - 1) + [maps], "Heading", "Details")
    with (tmp_path / "plate.png").open("wb") as file:
        plates.save_plate(figure, file)
    with Image.open(tmp_path / "plate.png") as image:
        assert 800 <= image.width <= 3000 and 150 <= image.height <= 1000


def test_small_pictures_are_drawn_in_whole_blocks(tmp_path: Path) -> None:
    """A low resolution beside a high one fills the same frame, each of its pixels a square of one colour."""
    checks = np.indices((8, 8)).sum(0)[..., None].repeat(3, -1) % 2.0
    figure = plates.plate([plates.Panel("A", "", np.zeros((32, 32, 3))), plates.Panel("B", "", checks)], "H", "S")
    with (tmp_path / "plate.png").open("wb") as file:
        plates.save_plate(figure, file)
    with Image.open(tmp_path / "plate.png") as image:
        drawn = np.asarray(image.convert("L"))
    zoom = round(plates.PANEL / 32) * 32
    right = drawn[plates.HEADING + plates.TITLE :][:zoom, -plates.EDGE - zoom : -plates.EDGE]
    blocks = right.reshape(8, zoom // 8, 8, zoom // 8)
    assert (blocks.min((1, 3)) == blocks.max((1, 3))).all() and set(np.unique(right)) == {0, 255}

"""The command line: every kind of picture in, every mistake one line out, and never a traceback."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from leader_nb import cli, memory, pipeline
from leader_nb.data import BUILTIN_PHOTOS, builtin_photo, save_image
from leader_nb.measurement import save_measurement
from leader_nb.networks import Denoiser
from leader_nb.networks.files import save_denoiser
from leader_nb.pipeline import FILES

ROOT = Path(__file__).parent.parent
X, Y = np.meshgrid(np.linspace(0, 1, 40), np.linspace(0, 1, 36))
RAMP = np.stack([X, Y, (1 + np.sin(9 * X * Y)) / 2], -1)  # (36, 40, 3) in [0, 1]
BYTES = (255 * RAMP).astype(np.uint8)


@pytest.fixture(scope="module")
def prior_file(tmp_path_factory: pytest.TempPathFactory, tiny: Denoiser) -> str:
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_denoiser(path, tiny, {}, torch.float32)
    return str(path)


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipeline.METRICS, "lpips", lambda x, reference: (x - reference).square().mean(dim=(1, 2, 3)))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(BYTES).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def refused(capsys: pytest.CaptureFixture[str], message: str, *arguments: object, status: int = 2) -> str:
    """The command ends with `status`, one line on stderr that matches `message` and is returned, and nothing on stdout."""
    assert cli.main([str(a) for a in arguments]) == status
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(rf"leader-nb: [^\n]*{message}[^\n]*\n", err), err
    return err


# --- every kind of picture ------------------------------------------------------------------------------------------


def write_pictures(folder: Path) -> dict[str, Path]:
    rgb, deep = Image.fromarray(BYTES), (65535 * RAMP[..., 0]).astype(np.uint16)
    pictures = {
        "rgb.png": rgb,
        "grey.png": rgb.convert("L"),
        "rgba.png": Image.fromarray(np.dstack([BYTES, BYTES[..., 0]])),
        "grey_alpha.png": rgb.convert("LA"),
        "palette.gif": rgb.convert("P"),
        "bilevel.png": rgb.convert("1"),
        "deep.png": Image.fromarray(deep),
        "deep.tif": Image.fromarray(deep),
        "float.tif": Image.fromarray(RAMP[..., 0].astype(np.float32)),
        "cmyk.jpg": rgb.convert("CMYK"),
        "cmyk.tif": rgb.convert("CMYK"),
        "ycc.jpg": rgb,
        "lossless.webp": rgb,
    }
    for name, picture in pictures.items():
        picture.save(folder / name)
    return {name: folder / name for name in pictures}


def test_every_kind_of_picture(prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, (name, path) in enumerate(write_pictures(tmp_path).items()):
        task, size = ("sr4@0.05", "32") if i % 2 else ("color@0", "0")
        out = tmp_path / f"out-{name}"
        arguments = [str(path), "--task", task, "--steps", "2", "--size", size, "--prior", prior_file, "--out", str(out)]
        assert cli.main(["restore", *arguments]) == 0, (name, capsys.readouterr().err)
        assert sorted(p.name for p in out.iterdir()) == sorted(FILES)
        with Image.open(out / "restored.png") as image:
            assert image.mode == "RGB" and image.size == ((32, 32) if size == "32" else (40, 36))
    assert capsys.readouterr().err == "", "nothing is written to stderr where nothing is wrong"


def test_restore_and_restore_again(photo: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed travels in the measurement: the second command need not name it."""
    options = ["--steps", "6", "--prior", prior_file, "--leader"]
    first = ["restore", str(photo), "--task", "inpaint70@0", "--size", "32", "--seed", "7", "--out", str(tmp_path / "a")]
    assert cli.main([*first, *options]) == 0
    assert re.search(r"PSNR \d+\.\d\d dB .*least squares.*\nresidual .* network calls .*\nwritten to", capsys.readouterr().out)
    again = ["restore", "--measurement", str(tmp_path / "a" / FILES[0]), "--out", str(tmp_path / "b")]
    assert cli.main([*again, *options]) == 0
    assert "note: no reference" in capsys.readouterr().out
    assert (tmp_path / "a" / "restored.png").read_bytes() == (tmp_path / "b" / "restored.png").read_bytes()
    assert cli.main([*again[:-1], str(tmp_path / "c"), *options, "--seed", "8"]) == 0
    assert (tmp_path / "a" / "restored.png").read_bytes() != (tmp_path / "c" / "restored.png").read_bytes()
    report = json.loads((tmp_path / "c" / "report.json").read_text())
    assert report["seeds"] == {"measurement": 7, "restoration": 8} and report["psnr"] is None


def test_an_old_result_is_replaced(photo: Path, prior_file: str, tmp_path: Path) -> None:
    for task in ("color@0", "inpaint70@0"):
        options = ["--steps", "2", "--size", "16", "--prior", prior_file, "--out", str(tmp_path / "out")]
        assert cli.main(["restore", str(photo), "--task", task, *options]) == 0
        assert json.loads((tmp_path / "out" / "report.json").read_text())["task"] == task
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(FILES), "a temporary file was left"


@pytest.mark.slow
def test_the_prior_that_is_shipped(tmp_path: Path) -> None:
    """Five steps of the real network already beat least squares on denoising, with and without LEADer."""
    save_image(builtin_photo("chelsea", 64), tmp_path / "chelsea.png")
    for extra in ([], ["--leader"], ["--leader", "--preset", "paper"]):
        options = ["--task", "denoise@0.1", "--size", "64", "--steps", "10", "--out", str(tmp_path / "out"), *extra]
        assert cli.main(["restore", str(tmp_path / "chelsea.png"), *options]) == 0
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["psnr"] > report["baseline"]["psnr"] + 2, extra


# --- mistakes: the photograph ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "is empty"),
        ("text.png", b"this is no picture", "is no picture"),
        ("cut.png", None, "damaged or cut short"),
        ("cut.jpg", None, "cannot be opened as a picture|damaged or cut short"),
        ("fake.jpg", b"\xff\xd8\xff\xe0" + bytes(200), "picture"),
    ],
)
def test_damaged_photographs(
    name: str, content: bytes | None, message: str, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is None:
        Image.fromarray(BYTES).save(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    refused(capsys, f"(?:{message})", "restore", path, "--task", "color@0", "--prior", prior_file, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_photographs_that_are_not_there(
    photo: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rest = ("--task", "color@0", "--prior", prior_file, "--out", tmp_path / "out")
    refused(capsys, "did you mean 'photo.png'", "restore", tmp_path / "foto.png", *rest)
    refused(capsys, "nor a folder", "restore", tmp_path / "none" / "photo.png", *rest)
    refused(capsys, "is a folder", "restore", tmp_path, *rest)


def test_published_constants_for_a_kind_of_images(
    photo: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """DDPG's gamma on SR x4 at 0.05 is 6 for photographs and 10 for faces."""
    options = ["--task", "sr4@0.05", "--steps", "2", "--size", "16", "--prior", prior_file, "--host", "ddpg:published"]
    for kind, gamma in (("photographs", "gamma=6"), ("faces", "gamma=10")):
        arguments = [str(photo), *options, "--image-kind", kind, "--out", str(tmp_path / kind)]
        assert cli.main(["restore", *arguments]) == 0, capsys.readouterr().err
        assert gamma in (tmp_path / kind / "report.json").read_text()
    capsys.readouterr()
    wrong = ["--image-kind", "face", "--out", tmp_path / "out"]
    for command in (["restore", photo, *options], ["demo", *options[:2]], ["table", "--images", tmp_path]):
        refused(capsys, "unknown images 'face': did you mean 'faces'", *command, *wrong)


def test_pixels_that_are_no_image(prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = ("--task", "color@0", "--prior", prior_file, "--out", tmp_path / "out")
    for value, message in ((math.nan, "NaN or infinite"), (7.0, "rescale it to 0 to 1")):
        pixels = RAMP[..., 0].astype(np.float32)
        pixels[3, 4] = value
        Image.fromarray(pixels).save(tmp_path / "float.tif")
        refused(capsys, message, "restore", tmp_path / "float.tif", *rest)


def test_photographs_of_a_wrong_size(photo: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(BYTES[:5]).save(tmp_path / "thin.png")
    rest = ("--task", "sr4@0.05", "--prior", prior_file, "--out", tmp_path / "out")
    refused(capsys, "at least 8 pixels a side", "restore", tmp_path / "thin.png", *rest)
    refused(capsys, "size: got -1; give at least", "restore", photo, *rest, "--size", "-1")
    refused(capsys, "size: got 4; give at least", "restore", photo, *rest, "--size", "4")
    refused(capsys, "not a multiple of 4, which sr4 needs; give 128 or 132", "restore", photo, *rest, "--size", "130")
    refused(capsys, "need about .* GB of memory, .* give --size", "restore", photo, *rest, "--size", "1000000")


def test_a_whole_photograph_too_large_for_the_memory(
    photo: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(BYTES).resize((400, 360)).save(photo)
    monkeypatch.setattr(memory, "free_memory", lambda device: 15 * 10**7)
    rest = ("--task", "color@0", "--prior", prior_file, "--size", "0", "--out", tmp_path / "out")
    refused(capsys, r"400 x 360 pixels need .* shrink it to \d+ x \d+, or give --size \d+", "restore", photo, *rest)


def test_the_memory_of_a_report_and_of_a_table(
    photo: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is read, with a size that is then accepted; a gradient and a batch count."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(BYTES).resize((700, 600)).save(folder / name)
    monkeypatch.setattr(memory, "free_memory", lambda device: 15 * 10**7)
    given = ("--images", folder, "--prior", prior_file)
    said = refused(capsys, "2 photographs of 600 x 600 pixels need .* give --size", "prior-report", *given, "--size", "600")
    fits = int(said.split("--size ")[1])
    report = ("prior-report", *given, "--sigmas", "25", "--device", "cpu", "--size")
    assert 100 < fits < 600 and cli.main([str(part) for part in (*report, fits)]) == 0
    capsys.readouterr()
    refused(capsys, "no image in .* 9000 x 9000", *report, "9000")
    table = ("table", *given, "--out", tmp_path / "out", "--tasks", "color@0,sr4@0", "--hosts")
    said = refused(capsys, "500 x 500 pixels, 8 at a time, need .* give --size", *table, "ddnm", "--size", "500")
    assert "or a smaller --batch" in said and not (tmp_path / "out").exists()
    one = int(refused(capsys, "500 x 500 pixels need", *table, "ddnm", "--size", "500", "--batch", "1").split("--size ")[1])
    slope = int(refused(capsys, "pixels need", *table, "ddnm,dps", "--size", "500", "--batch", "1").split("--size ")[1])
    assert slope < one < 500 and one % 4 == slope % 4 == 0
    monkeypatch.setattr(memory, "free_memory", lambda device: 1000)
    for command in (report, (*table, "ddnm", "--size")):
        refused(capsys, "free some memory first", *command, "32")
    refused(capsys, "the weights of 'imagenet-256' need 2.2 GB", *table, "ddnm", "--prior", "imagenet-256")


# --- mistakes: the options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "sr4@-0.05"], "sigma -0.05; give a number from 0 to 10"),
        (["--task", "sr4@nan"], "sigma nan"),
        (["--task", "sr4@lots"], "write a number after @"),
        (["--task", "gausian@0.05"], "unknown task 'gausian': did you mean 'gaussian'"),
        (["--task", "sr9@0.05"], "out of range; give sr2 to sr8"),
        (["--task", "xyz"], "unknown task 'xyz': choose one of"),
        ([], "task: missing; give one"),
        (["--task", "color@0", "--host", "DDNNM"], "unknown host 'DDNNM': did you mean 'ddnm'"),
        (["--task", "color@0", "--steps", "0"], "steps: got 0"),
        (["--task", "color@0", "--steps", "1001"], "steps: got 1001; give a whole number from 1 to 1000"),
        (["--task", "color@0", "--steps", "ten"], "--steps"),
        (["--task", "color@0", "--seed", "-1"], "seed: got -1"),
        (["--task", "color@0", "--device", "cuda"], "no GPU here; use --device cpu or auto"),
        (["--task", "color@0", "--device", "toaster"], "not one PyTorch knows"),
        (["--task", "color@0", "--prior", "photo-smal"], "unknown prior 'photo-smal': did you mean 'photo-small'"),
        (["--task", "color@0", "--prior", "none.safetensors"], "no file at none.safetensors"),
        (["--task", "color@0", "--preset", "paper"], "preset: it belongs to LEADer; add --leader"),
        (["--task", "color@0", "--leader", "--preset", "papr"], "unknown preset 'papr': did you mean 'paper'"),
        (["--task", "color@0", "--measurement", "m.safetensors"], "got both"),
        (["--task", "color@0", "--colour", "red"], "--colour"),
        (["--task", "color@0", "second.png"], "second.png"),
        (["--task"], "--task"),
    ],
)
def test_bad_options(
    options: list[str],
    message: str,
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(capsys, message, "restore", photo, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_bad_calls(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "got neither", "restore", "--out", tmp_path / "out")
    refused(capsys, "--out", "restore", photo, "--task", "color@0")
    refused(capsys, "restor", "restor", photo)
    refused(capsys, "--verson", "--verson")
    measurement = ("restore", "--measurement", tmp_path / "m.safetensors", "--out", tmp_path / "out")
    refused(capsys, "leave out --task and --size", *measurement, "--task", "color@0")
    refused(capsys, "leave out --task and --size", *measurement, "--size", "64")
    refused(capsys, "there is no measurement", *measurement)


def test_bad_output_folders(photo: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ("restore", photo, "--task", "color@0", "--prior", prior_file, "--out")
    refused(capsys, "out: .*photo.png is a file; give a folder", *first, photo)
    refused(capsys, "out: cannot write in .*; give another folder", *first, photo / "below")
    refused(capsys, "out: cannot write in .*; give another folder", *first, "/proc/none")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_folder_without_permission(photo: Path, prior_file: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    rest = ("--task", "color@0", "--prior", prior_file, "--out", tmp_path / "locked" / "out")
    refused(capsys, "out: cannot write in", "restore", photo, *rest)


def test_bad_weights(photo: Path, prior_file: str, tmp_path: Path, tiny: Denoiser, capsys: pytest.CaptureFixture[str]) -> None:
    path, rest = tmp_path / "w.safetensors", ("--task", "color@0", "--out", tmp_path / "out")
    content = Path(prior_file).read_bytes()
    for damaged, message in (
        (content[:-100], "not a complete"),
        (b"", "not a complete"),
        (photo.read_bytes(), "not a complete"),
    ):
        path.write_bytes(damaged)
        refused(capsys, message, "restore", photo, "--prior", path, *rest)
    broken = Denoiser(tiny.config)
    broken.net.tail.weight.data[0, 0] = math.inf
    save_denoiser(path, broken, {}, torch.float32)
    refused(capsys, "not finite", "restore", photo, "--prior", path, *rest)


def test_bad_measurements(prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    first = ("restore", "--measurement", path, "--prior", prior_file, "--out", tmp_path / "out")
    save_measurement(path, torch.zeros(1, 3, 16, 16), "denoise@0.1", 0.1, 0, (3, 16, 16))
    content = path.read_bytes()
    changes = {
        "cut short": content[:-50],
        "NaN or infinite": content[:-4] + np.float32(math.nan).tobytes(),
        "units|for images in": content[:-4] + np.float32(255).tobytes(),
        "got torch.int32": content.replace(b'"F32"', b'"I32"'),
        r"got shape \(1, 3, 16, 16\)": content.replace(b"[3, 16, 16]", b"[3, 16, 17]"),
        "sigma=": content.replace(b'sigma\\": 0.1', b'sigma\\": -.1').replace(b"-.1", b"-99"),
        "no tensor y": Path(prior_file).read_bytes(),
    }
    for message, changed in changes.items():
        path.write_bytes(changed)
        refused(capsys, f"(?:{message})", *first)


# --- what is not the user's fault -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "status"),
    [
        (MemoryError(), "memory: .* smaller --size", 2),
        (torch.OutOfMemoryError("CUDA out of memory"), "memory: .* smaller --size", 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory: .* smaller --size", 2),
        (ZeroDivisionError("two\nlines"), "unexpected ZeroDivisionError: two lines; LEADER_NB_DEBUG=1", 1),
        (KeyboardInterrupt(), "interrupted", 130),
    ],
)
def test_mishaps(
    error: BaseException,
    message: str,
    status: int,
    photo: Path,
    prior_file: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(pipeline, "restore", fail)
    rest = ("--task", "color@0", "--size", "16", "--prior", prior_file, "--out", tmp_path / "out")
    refused(capsys, message, "restore", photo, *rest, status=status)
    assert not (tmp_path / "out").exists()


def test_a_debugger_gets_the_traceback(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADER_NB_DEBUG", "1")
    monkeypatch.setattr(pipeline, "load_engine", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["restore", str(photo), "--task", "color@0", "--out", str(tmp_path / "out")])


def start(*arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "leader_nb.cli", *map(str, arguments)]
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background job is born deaf to Ctrl-C
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return subprocess.Popen(command, **pipes, preexec_fn=listen)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a child")
def test_ctrl_c(photo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start("restore", photo, "--task", "sr4@0.05", "--size", "128", "--steps", "1000", "--out", out)
    for _ in range(1200):
        if out.exists():
            break
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, stdout, stderr) == (130, "", "leader-nb: interrupted\n")
    assert not out.exists(), "an empty folder was left"


@pytest.mark.slow
def test_as_a_program(tmp_path: Path) -> None:
    process = start("restore", tmp_path / "none.png", "--task", "sr4@0.05", "--out", tmp_path / "out")
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 2 and stdout == "" and re.fullmatch(r"leader-nb: there is no image .*\n", stderr), stderr


# --- the other commands ---------------------------------------------------------------------------------------------


def test_help_version_and_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out == "leader-nb 0.1.0\n"
    assert cli.main(["tasks"]) == 0
    listed = capsys.readouterr().out
    for name in ("sr4@0.05", "ddnm+", "photo-small", "calibrated"):
        assert name in listed
    assert cli.main([]) == 0 and "restore" in capsys.readouterr().out
    for command in ("restore", "demo", "train", "tasks"):
        assert cli.main([command, "--help"]) == 0 and "Usage" in capsys.readouterr().out


def test_demo(prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    options = ["--size", "32", "--steps", "5", "--prior", prior_file, "--photo", "coffee", "--out", str(out)]
    assert cli.main(["demo", *options]) == 0
    shown, stderr = capsys.readouterr()
    assert stderr == "" and "coffee, 32 x 32 px, sr4@0.05" in shown
    rows = [line for line in shown.splitlines() if line.startswith(("least squares", "ddnm "))]
    assert len(rows) == 3 and len({len(row) for row in rows}) == 1, shown
    assert rows[0].split()[-3:] == ["-", "-", "-"] and rows[1].split()[-2] == "5"
    for name in ("host", "leader"):
        assert sorted(p.name for p in (out / name).iterdir()) == sorted(FILES)
    assert (out / "host" / "degraded.png").read_bytes() == (out / "leader" / "degraded.png").read_bytes()


def test_bad_demos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(capsys, "unknown photo 'astronaute': did you mean 'astronaut'", "demo", "--photo", "astronaute", "--out", tmp_path)
    refused(capsys, "not a multiple of 4", "demo", "--size", "33", "--out", tmp_path / "out")
    refused(capsys, "steps: got 0", "demo", "--steps", "0", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in BUILTIN_PHOTOS[:3]:
        save_image(builtin_photo(name, 64), tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def test_train_continue_and_restore(photos: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net = ["--widths", "8,8", "--blocks", "1", "--batch", "2", "--crop", "16", "--save-every", "2", "--device", "cpu"]
    first = ["train", "--images", str(photos), "--out", str(tmp_path / "net"), *net]
    assert cli.main([*first, "--steps", "2"]) == 0, capsys.readouterr().err
    assert cli.main([*first, "--steps", "4"]) == 0, capsys.readouterr().err
    assert [row["step"] for row in json.loads((tmp_path / "net" / "history.json").read_text())] == [2, 4]
    path = tmp_path / "net" / "denoiser.safetensors"
    assert f"--prior {path}" in capsys.readouterr().out
    rest = ["--task", "sr4@0.05", "--size", "32", "--steps", "2", "--out", str(tmp_path / "out"), "--prior", str(path)]
    assert cli.main(["restore", str(photo), *rest]) == 0
    assert json.loads((tmp_path / "out" / "report.json").read_text())["prior"]["name"] == "denoiser"
    capsys.readouterr()
    other = ["8,12" if a == "8,8" else a for a in first]
    assert cli.main([*other, "--steps", "6"]) == 2
    assert "give another folder" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "0"], "steps: got 0"),
        (["--minutes", "-1"], "minutes: got -1"),
        (["--minutes", "nan"], "minutes: got nan"),
        (["--batch", "0"], "batch: got 0"),
        (["--crop", "2"], "crop: got 2; give at least 8"),
        (["--crop", "65"], "fewer than 2 images hold a crop"),
        (["--lr", "0"], "lr: got 0"),
        (["--seed", "-2"], "seed: got -2"),
        (["--blocks", "0"], "blocks: got 0"),
        (["--widths", "64;128"], "widths: got '64;128'"),
        (["--widths", "64,-1"], "widths: got '64,-1'"),
        (["--save-every", "0"], "save-every: got 0"),
        (["--device", "cuda"], "no GPU"),
        (["--images", "nowhere"], "no folder at nowhere"),
    ],
)
def test_bad_training(
    options: list[str],
    message: str,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    defaults = {"--images": str(photos), "--out": str(tmp_path / "net"), "--steps": "1", "--batch": "1"}
    given = [a for pair in (defaults | dict(zip(options[::2], options[1::2], strict=True))).items() for a in pair]
    assert cli.main(["train", *given]) == 2
    out, err = capsys.readouterr()
    assert (
        out == "" and re.fullmatch(rf"leader-nb: [^\n]*{re.escape(message)}[^\n]*\n", err) and not (tmp_path / "net").exists()
    )


def test_training_on_a_damaged_folder(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = ("train", "--images", photos, "--out", tmp_path / "net", "--steps", "1", "--crop", "16", "--batch", "1")
    cut = photos / "cut.png"
    cut.write_bytes((photos / "china.png").read_bytes()[:5000])
    refused(capsys, "cut.png cannot be read .*; take it out", *first)
    cut.write_bytes(b"no picture at all")
    refused(capsys, "cut.png cannot be read .*; take it out", *first)
    for path in photos.iterdir():
        path.unlink()
    refused(capsys, "has no images to use", *first)

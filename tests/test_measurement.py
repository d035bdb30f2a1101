"""A measurement survives the disk, and a file that is none is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from leader_nb.errors import InputError
from leader_nb.measurement import KEY, Measurement, load_measurement, save_measurement

Y = torch.randn(1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
GOOD = {"y": Y, "task": "sr4@0.05", "sigma": 0.05, "seed": 7, "shape": (3, 16, 20)}
HEADER = {"version": 1, "task": "sr4@0.05", "sigma": 0.05, "seed": 7, "shape": [3, 16, 20], "notes": {}}


def one_error(match: str):
    return pytest.raises(InputError, match=rf"\A[^\n]*{match}[^\n]*\Z")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    mask = torch.arange(20).reshape(1, 1, 4, 5) % 2 == 0
    tensors = {"mask": mask, "kernel": torch.ones(5, dtype=torch.float64), "strided": Y[..., ::2]}
    path = tmp_path / "m.safetensors"
    save_measurement(path, **{**GOOD, "y": Y.to(dtype)}, tensors=tensors, notes={"author": "Zoë\n"})
    m = load_measurement(path)
    assert torch.equal(m.y, Y.to(dtype)) and m.y.dtype == dtype
    assert (m.task, m.sigma, m.seed, m.shape) == ("sr4@0.05", 0.05, 7, (3, 16, 20))
    assert set(m.tensors) == set(tensors) and all(torch.equal(m.tensors[k], tensors[k]) for k in tensors)
    assert m.notes == {"author": "Zoë\n"} and list(tmp_path.iterdir()) == [path]


def test_shared_and_tracked_tensors_can_be_saved(tmp_path: Path) -> None:
    y = Y.clone().requires_grad_()
    save_measurement(tmp_path / "m.safetensors", **{**GOOD, "y": y}, tensors={"same": y, "part": y[:, :1]})
    m = load_measurement(tmp_path / "m.safetensors")
    assert torch.equal(m.tensors["part"], m.y[:, :1]) and not m.y.requires_grad


def test_loaded_tensors_do_not_follow_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_measurement(path, **GOOD)
    m = load_measurement(path)
    path.write_bytes(b"\0" * path.stat().st_size)
    assert torch.equal(m.y, Y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": Y[0]}, "y: got torch.float32 of shape"),
        ({"y": Y.repeat(2, 1, 1, 1)}, "give one measurement"),
        ({"y": Y.long()}, "as floats"),
        ({"y": Y.numpy()}, "y: got ndarray; give a tensor"),
        ({"y": Y / 0 * 0}, "60 values are NaN"),
        ({"y": Y[..., :0]}, "y: got the empty shape"),
        ({"sigma": -0.1}, "sigma=-0.1"),
        ({"sigma": float("nan")}, "sigma=nan"),
        ({"sigma": None}, "sigma=None"),
        ({"sigma": 0.1}, "says sigma 0.05, but sigma=0.1"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"seed": True}, "seed=True"),
        ({"shape": (16, 16)}, "shape=.16, 16."),
        ({"shape": (3, 0, 16)}, r"shape\[1\]=0"),
        ({"task": "sr4"}, "spell it operator@sigma"),
        ({"task": "@0.05"}, "spell it operator@sigma"),
        ({"task": "sr 4@0.05"}, "spell it operator@sigma"),
        ({"task": 4}, "spell it operator@sigma"),
        ({"tensors": {"y": Y}}, "'y' is taken"),
        ({"tensors": {"mask": [1]}}, r"tensors\['mask'\]: got list"),
        ({"tensors": {"mask": Y / 0}}, "NaN or infinite"),
        ({"notes": {"a": 1}}, "must be strings"),
    ],
)
def test_bad_fields(tmp_path: Path, change: dict, message: str) -> None:
    with one_error(message):
        save_measurement(tmp_path / "m.safetensors", **{**GOOD, **change})
    assert not list(tmp_path.iterdir())


def test_every_length_of_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_measurement(path, **GOOD)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with one_error("cut short or no safetensors file"):
            load_measurement(path)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({"y": Y}, None, "metadata lack 'leader_nb.measurement'"),
        ({"x": Y}, {KEY: json.dumps(HEADER)}, "has no tensor y .only x."),
        ({"y": Y}, {KEY: "{"}, "not a JSON object"),
        ({"y": Y}, {KEY: "[]"}, "not a JSON object"),
        ({"y": Y}, {KEY: json.dumps({**HEADER, "version": 2})}, "has version 2, this package reads 1"),
        ({"y": Y}, {KEY: "{}"}, "has version None"),
        ({"y": Y}, {KEY: json.dumps({"version": 1, "task": "sr4@0.05"})}, "lack sigma, seed, shape, notes"),
        ({"y": Y}, {KEY: json.dumps({**HEADER, "shape": None})}, "shape=None"),
        ({"y": Y}, {KEY: json.dumps({**HEADER, "notes": None})}, "must be strings"),
        ({"y": Y / 0}, {KEY: json.dumps(HEADER)}, "values are NaN or infinite"),
        ({"y": Y, "mask": Y / 0}, {KEY: json.dumps(HEADER)}, "mask.*NaN or infinite"),
    ],
)
def test_bad_files(tmp_path: Path, tensors: dict, metadata: dict | None, message: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(safetensors.torch.save(tensors, metadata=metadata))
    with one_error(f"m.safetensors is no sound measurement: .*{message}"):
        load_measurement(tmp_path / "m.safetensors")


def test_unknown_header_fields_are_left_alone(tmp_path: Path) -> None:
    content = safetensors.torch.save({"y": Y}, metadata={KEY: json.dumps({**HEADER, "later": 1}), "other": "x"})
    (tmp_path / "m.safetensors").write_bytes(content)
    assert load_measurement(tmp_path / "m.safetensors").seed == 7


def test_missing_folder_and_foreign_files(tmp_path: Path) -> None:
    save_measurement(tmp_path / "m.safetensors", **GOOD)
    with one_error("did you mean 'm.safetensors'"):
        load_measurement(tmp_path / "n.safetensors")
    with one_error("is a folder"):
        load_measurement(tmp_path)
    with one_error("there is no folder"):
        save_measurement(tmp_path / "no" / "m.safetensors", **GOOD)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with one_error("no safetensors file"):
        load_measurement(tmp_path / "x.png")


def test_is_frozen_and_compared_by_identity() -> None:
    m, n = Measurement(**GOOD), Measurement(**GOOD)
    assert m != n
    with pytest.raises(AttributeError):
        m.seed = 1  # type: ignore[misc]
    assert Measurement(**{**GOOD, "sigma": 0, "task": "inpaint70@0"}).sigma == 0.0

"""The big table: its rows are what the library computes, nothing is computed twice, and nothing is lost."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from laws import check_covariance, normal
from leader_nb import Noise, Prior, experiments, host, leader, noise_for, parse_task, restore, sources
from leader_nb.buffers import peak_images
from leader_nb.cli import main
from leader_nb.controls import Flat, FlatModulation
from leader_nb.covariance import RunningSecant
from leader_nb.crops import Photo, photographs
from leader_nb.data import BUILTIN_PHOTOS, builtin_photo
from leader_nb.errors import InputError
from leader_nb.experiments import METHODS, PLUGINS, Cell, Experiment, Lab, Shares, available, missing, run
from leader_nb.metrics import bootstrap_interval, psnr
from leader_nb.networks import Denoiser
from leader_nb.networks.files import save_denoiser
from leader_nb.samplers import DDNM, HOSTS, SAMPLERS, DDNMPlus
from leader_nb.start import measured_start
from leader_nb.store import COLUMNS, IDENTITY, Store, as_rows
from leader_nb.summary import markdown_1, report, summarise, table_1, table_2
from leader_nb.tasks import TASKS

ROOT = Path(__file__).parent.parent
SMALL = Experiment(("ddnm",), ("inpaint70@0", "denoise@0.1"), ("none", "leader"), steps=6, batch=2, score=("psnr",))


@pytest.fixture
def photos(samples: torch.Tensor) -> list[Photo]:
    """Five draws of the mixture, 8 x 8."""
    return [Photo(f"draw {i}", x.clamp(-1, 1)) for i, x in enumerate(samples)]


@pytest.fixture
def lab(exact: Prior) -> Lab:
    return Lab(SMALL, exact, "mixture", "0" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(cell, photograph) of everything that is restored from now on."""
    seen: list[tuple[str, str]] = []
    inner = experiments.restored

    def watched(lab: Lab, cell: Cell, photos: Sequence[Photo]) -> list[dict]:
        seen.extend((str(cell), photo.name) for photo in photos)
        return inner(lab, cell, photos)

    monkeypatch.setattr(experiments, "restored", watched)
    return seen


# --- rows -----------------------------------------------------------------------------------------------------------


def test_a_row_is_what_the_library_computes(lab: Lab, photos: list[Photo], store: Store) -> None:
    rows = run(lab, photos, store)
    assert len(rows) == 2 * 2 * 5 and (rows["error"] == "").all() and list(rows.columns) == list(COLUMNS)
    for task in SMALL.tasks:
        parsed, photo = parse_task(task), photos[3]
        problem = parsed.measure(photo.pixels[None], 0, [photo.id])
        sampler = DDNM() if parsed.sigma == 0 else DDNMPlus()
        for plugin, options in {"none": {}, "leader": leader()}.items():
            result = restore(problem, lab.prior, sampler, grid=6, noise=noise_for(1, 0, [photo.id]), **options)
            row = rows[(rows["task"] == task) & (rows["plugin"] == plugin) & (rows["image"] == photo.name)].iloc[0]
            assert row["psnr"] == psnr(result.image, photo.pixels[None]).item(), "alone as in its batch, to the last bit"
            assert (row["nfe"], row["backward"]) == (result.nfe.item(), 0)
            assert row["residual"] == problem.residual(result.image).item() and row["sampler"] == repr(sampler)
    facts = rows[["host", "size", "steps", "seed", "prior", "weights", "leader_nb", "torch"]].drop_duplicates()
    assert facts.iloc[0].tolist()[:6] == ["ddnm", 8, 6, 0, "mixture", "0" * 64] and len(facts) == 1
    assert rows["key"].is_unique and rows["lpips"].isna().all() and (rows["buffers"] > 3).all()
    assert sorted(rows["batch"].unique()) == [1, 2] and (rows["seconds"] > 0).all() and (rows["cpu_seconds"] > 0).all()


def test_csv_and_parquet_hold_the_same(lab: Lab, photos: list[Photo], store: Store) -> None:
    rows = run(lab, photos[:1], store)
    pd.testing.assert_frame_equal(store.read(), rows)
    pd.testing.assert_frame_equal(pd.read_parquet(store.folder / "table.parquet"), rows)


def test_shares_add_up_to_the_time_of_the_batch(exact: Prior, samples: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that skips steps pays for fewer turns, and the turns it misses cost the others more."""
    problem, clock = parse_task("inpaint70@0").measure(samples), Shares(len(samples), torch.device("cpu"))
    result = restore(problem, exact, DDNM(), grid=30, on_state=clock, **leader())
    assert 0.5 * result.seconds < clock.wall.sum() <= 1.05 * result.seconds
    assert clock.cpu.sum() > 0 and (clock.wall > 0).all()
    tick = iter((0.0, 2.0, 5.0)).__next__
    monkeypatch.setattr(experiments, "time", SimpleNamespace(perf_counter=tick, process_time=time.process_time))
    shares = Shares(2, torch.device("cpu"))
    for index in ([0, 1], [0]):
        shares(replace_index(index))
    assert shares.wall.tolist() == [1.0 + 3.0, 1.0]


def replace_index(index: list[int]) -> experiments.State:
    empty = torch.empty(0)
    return experiments.State(torch.tensor(index), empty, empty, empty, None, None, empty, empty)  # type: ignore[arg-type]


def test_the_grid_runs_every_method_once() -> None:
    cells = Experiment(SAMPLERS, ("sr4@0", "sr4@0.05"), ("none",)).cells
    names = [str(cell) for cell in cells]
    assert "ddnm sr4@0.05 none" in names and "ddnm+ sr4@0.05 none" not in names, "on noise they are one method"
    assert "ddnm sr4@0 none" in names and "ddnm+ sr4@0 none" in names and len(set(names)) == len(names)
    assert [cell.host for cell in cells] == sorted((c.host for c in cells), key=SAMPLERS.index)
    assert {cell.host for cell in cells} == set(SAMPLERS)


def test_plugins(lab: Lab, photos: list[Photo], store: Store) -> None:
    """All of them run; the control has the host's steps, and mu = 0 or none of them at all would be the host."""
    experiment = replace(SMALL, plugins=available(), tasks=("denoise@0.1",))
    rows = run(replace(lab, experiment=experiment), photos[:2], store).set_index(["plugin", "image"])["psnr"]
    assert set(rows.index.levels[0]) == set(available()) and rows.notna().all()
    assert rows["leader"]["draw 0"] != rows["global"]["draw 0"] != rows["none"]["draw 0"]
    if "equs" not in available():
        with pytest.raises(InputError, match=r"needs leader_nb\.equivariance"):
            replace(SMALL, plugins=("equs",)).cells  # noqa: B018


def test_the_control_is_the_mean_that_a_start_begins_with(lab: Lab, photos: list[Photo], store: Store) -> None:
    """One row for each task and photograph, whatever the plug-ins: no call, no map, and the mean of `measured_start`."""
    experiment = replace(SMALL, hosts=("mean", "ddnm"), tasks=("pool4@0", "denoise@0.1"))
    rows = run(replace(lab, experiment=experiment), photos[:2], store)
    mine = rows[rows["host"] == "mean"]
    assert len(mine) == 4 and (mine["plugin"] == "none").all() and (mine["error"] == "").all()
    assert (mine[["nfe", "backward"]] == 0).all().all() and (mine["buffers"] > 1).all() and (mine["seconds"] > 0).all()
    for _, row in mine.iterrows():
        photo = next(p for p in photos if p.name == row["image"])
        problem = parse_task(row["task"]).measure(photo.pixels[None], 0, [photo.id])
        assert row["psnr"] == psnr(measured_start(problem).mean, photo.pixels[None]).item()
    means = summarise(rows)
    assert means.loc[means["host"] == "mean", "no_loss"].isna().all(), "it is compared with no host"
    assert list(means["host"].unique()) == ["ddnm", "mean"]


def test_flat_is_the_mean_of_the_map(exact: Prior, samples: torch.Tensor) -> None:
    seen: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    problem = parse_task("inpaint70@0").measure(samples)
    for flat, maps in seen.items():
        estimator = Flat(RunningSecant()) if flat else RunningSecant()
        restore(problem, exact, DDNM(), grid=6, covariance=estimator, on_state=lambda s, maps=maps: maps.append(s.cov))
    for cov, mean in zip(seen[False], seen[True], strict=True):
        torch.testing.assert_close(mean, cov.mean((1, 2, 3), keepdim=True).expand_as(cov), rtol=1e-12, atol=0)
    check_covariance(Flat(RunningSecant()), exact, samples)


def test_flat_modulation_leaves_the_map_to_the_step_rule(exact: Prior, samples: torch.Tensor) -> None:
    """Without a step rule it is the flat map's restoration, bit for bit, while the map itself stays what it was."""
    problem = parse_task("inpaint70@0").measure(samples)
    plain = leader(steps=None)
    flat = restore(problem, exact, DDNM(), grid=6, **plain | {"covariance": Flat(plain["covariance"])})
    same = restore(problem, exact, DDNM(), grid=6, **plain | {"modulate": FlatModulation(plain["modulate"])})
    assert torch.equal(flat.image, same.image) and not torch.equal(flat.cov, same.cov)


def test_buffers_count_the_images_that_are_held() -> None:
    """DDNM on a mask holds y, its mask and a handful of images; LEADer's map and memory come on top."""
    problem = parse_task("inpaint70@0").measure(normal(1, 3, 16, 16))
    host, with_leader = (peak_images(problem, DDNM(), 4, options) for options in ({}, leader()))
    assert 4 < host < 20 < 5 + with_leader and with_leader > host + 3
    double = parse_task("inpaint70@0").measure(normal(1, 3, 32, 32))
    assert peak_images(double, DDNM(), 4, {}) == pytest.approx(host, rel=0.1)


# --- photographs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four photographs of 100 x 60 pixels, a disc whose place is known; the first is for training."""
    for i in range(4):
        y, x = np.mgrid[:60, :100]
        pixels = np.where((x - 49.5) ** 2 + (y - 29.5) ** 2 < 15**2, 200, 20 * i).astype(np.uint8)
        Image.fromarray(np.dstack([pixels] * 3)).save(tmp_path / f"{i}.png")
    table = "file,split\n" + "".join(f"{i}.png,{'train' if i == 0 else 'test'}\n" for i in range(4))
    (tmp_path / "photos.csv").write_text(table)
    return tmp_path


def test_crops_are_central_and_reduced(folder: Path) -> None:
    photos = photographs(folder, 12)
    assert [p.name for p in photos] == ["1.png", "2.png", "3.png"] and photos[0].pixels.shape == (3, 12, 12)
    disc = photos[1].pixels[0] > 0  # a square of 48 pixels reduced to 12: the disc of radius 15 has one of 3.75
    assert disc.sum() == pytest.approx(np.pi * 3.75**2, rel=0.15) and torch.equal(disc, disc.flip(0).flip(1))
    assert torch.equal(photographs(folder, 60)[0].pixels, photographs(folder, 60)[0].pixels.clamp(-1, 1))
    exact = torch.from_numpy(np.asarray(Image.open(folder / "1.png"))[:, 20:80].copy()).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(photographs(folder, 60)[0].pixels, exact, atol=1e-6, rtol=0)
    assert [p.name for p in photographs(folder, 8, split="train")] == ["0.png"]
    assert [p.name for p in photographs(folder, 8, n=2)] == ["1.png", "2.png"]
    with pytest.raises(InputError, match=r"1\.png has 100 x 60 pixels, give 1 to 60"):
        photographs(folder, 61)
    with pytest.raises(InputError, match="n: got 4; give 1 to 3"):
        photographs(folder, 8, n=4)


def test_built_in_photographs_and_their_noise() -> None:
    """A photograph keeps its noise in any selection, and no two share it."""
    all_of = photographs("builtin", 32)
    assert tuple(p.name for p in all_of) == BUILTIN_PHOTOS and len({p.id for p in all_of}) == len(all_of)
    (coffee,) = photographs("coffee", 32)
    assert coffee.id == all_of[BUILTIN_PHOTOS.index("coffee")].id
    assert torch.equal(coffee.pixels, all_of[BUILTIN_PHOTOS.index("coffee")].pixels)
    assert coffee.sha256 != all_of[0].sha256 and builtin_photo("coffee", 0).shape[-1] > 4 * 32
    with pytest.raises(InputError, match=r"no folder at astronaut,cofee; give one, or .* astronaut, chelsea"):
        photographs("astronaut,cofee", 32)


# --- nothing twice --------------------------------------------------------------------------------------------------


def test_what_is_there_is_not_computed_again(
    lab: Lab, photos: list[Photo], store: Store, computed: list[tuple[str, str]]
) -> None:
    first = run(lab, photos[:2], store)
    assert len(computed) == 8
    computed.clear()
    pd.testing.assert_frame_equal(run(lab, photos[:2], store), first)
    assert computed == []
    more = run(replace(lab, experiment=replace(SMALL, plugins=("none", "leader", "modulate"))), photos[:3], store)
    assert len(computed) == 2 * (2 + 3) and len(more) == 18 and set(computed).isdisjoint({("ddnm denoise@0.1 none", "draw 0")})
    other = replace(SMALL, seed=1, tasks=("denoise@0.1",), plugins=("none",))
    assert len(run(replace(lab, experiment=other), photos[:1], store)) == 19, "another seed is another row"


@pytest.mark.parametrize("change", ["pixels", "weights", "version", "constants", "source", "metrics"])
def test_what_a_row_depends_on_makes_it_stale(
    change: str, lab: Lab, photos: list[Photo], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(lab, photos[:1], store)
    one = photos[:1]
    if change == "pixels":
        one = [Photo(photos[0].name, photos[0].pixels.flip(-1))]
    elif change == "weights":
        lab = replace(lab, weights="1" * 64)
    elif change == "version":
        lab = replace(lab, versions={**lab.versions, "leader_nb": "9.9"})
    elif change == "metrics":
        lab = replace(lab, experiment=replace(SMALL, score=("psnr", "ssim")))
    elif change == "constants":
        monkeypatch.setattr(experiments, "host", lambda name, sigma, task, images: DDNM(eta_ddim=0.5))
        lab = replace(lab, experiment=replace(SMALL))
    else:
        monkeypatch.setattr(experiments, "source_hash", lambda modules: "f" * 64)
        lab = replace(lab, experiment=replace(SMALL))
    assert sum(len(group) for _, group in missing(lab, one, store)) == 4
    kept = sum(len(group) for _, group in missing(lab, one, store, keep_old=True))
    assert kept == (0 if change in ("version", "source") else 4)


def test_a_newer_row_takes_the_place_of_the_old_one(lab: Lab, photos: list[Photo], store: Store) -> None:
    run(lab, photos[:1], store)
    rows = run(replace(lab, weights="1" * 64), photos[:1], store)
    assert len(rows) == 4 and set(rows["weights"]) == {"1" * 64}


def test_source_hash_sees_code_and_not_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "a": '"""Words."""\nfrom leader_nb.b import f\n',
        "b": "import leader_nb.c\n\ndef f(x):\n    return x + 1\n",
        "c": "Y = 1\n",
        "d": "Z = 1\n",
    }
    monkeypatch.setattr(sources, "ROOT", tmp_path)

    def hashed(**changes: str) -> str:
        for cached in (sources.tree, sources.code, sources.closure):
            cached.cache_clear()
        for name, text in (files | changes).items():
            (tmp_path / f"{name}.py").write_text(text)
        return sources.source_hash(["leader_nb.a"])

    plain = hashed()
    assert plain == hashed(b='import leader_nb.c  # so\n\ndef f(x):\n    """Adds."""\n    return (x + 1)\n'), "words"
    assert plain == hashed(d="Z = 2\n"), "nobody imports it"
    assert plain != hashed(c="Y = 2\n") and plain != hashed(b=files["b"].replace("x + 1", "x + 2"))
    for cached in (sources.tree, sources.code, sources.closure):
        cached.cache_clear()


def test_a_cell_depends_on_its_own_method_only() -> None:
    plain, with_leader = Experiment(("ddnm",), ("sr4@0",)).cells
    modules = sources.closure(frozenset({*experiments.CODE, *sources.modules_of(plain.sampler)}))
    assert {"leader_nb.samplers.ddnm", "leader_nb.loop", "leader_nb.networks.unet", "leader_nb.operators.base"} <= modules
    assert not modules & {"leader_nb.samplers.ddnm_plus", "leader_nb.ucpm", "leader_nb.cli", "leader_nb.experiments"}
    assert "leader_nb.ucpm" in sources.modules_of(with_leader.options) and plain.source != with_leader.source


# --- nothing lost ---------------------------------------------------------------------------------------------------


def test_an_error_costs_its_own_row_only(
    lab: Lab, photos: list[Photo], store: Store, monkeypatch: pytest.MonkeyPatch, computed: list[tuple[str, str]]
) -> None:
    inner, bad = experiments.noise_for, photos[1].id

    def sabotaged(batch: int, seed: int = 0, ids: Sequence[int] = ()) -> Noise:
        if bad in ids:
            raise RuntimeError("out of\nluck")
        return inner(batch, seed, ids)

    monkeypatch.setattr(experiments, "noise_for", sabotaged)
    rows = run(lab, photos, store)
    failed = rows[rows["error"] != ""]
    assert len(rows) == 20 and len(failed) == 4 and set(failed["image"]) == {"draw 1"}
    assert set(failed["error"]) == {"RuntimeError: out of luck"} and failed[["psnr", "nfe", "seconds"]].isna().all().all()
    monkeypatch.setattr(experiments, "noise_for", inner)
    computed.clear()
    rows = run(lab, photos, store)
    assert {name for _, name in computed} == {"draw 1"} and len(computed) == 4, "rows that failed are tried again"
    assert len(rows) == 20 and (rows["error"] == "").all()


def test_a_result_that_is_not_finite_is_an_error(lab: Lab, photos: list[Photo], store: Store) -> None:
    poisoned = replace(lab.prior, predict=lambda x, t, s: replace(lab.prior.predict(x, t, s), x0=x * float("nan")))
    rows = run(replace(lab, prior=poisoned), photos[:1], store)
    assert rows["error"].str.contains("finite").all() and rows["psnr"].isna().all()


def test_a_kill_while_writing_leaves_the_old_table(
    lab: Lab, photos: list[Photo], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = run(lab, photos[:1], store)

    def killed(*paths: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("leader_nb.data.os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            run(lab, photos[:2], store)
    pd.testing.assert_frame_equal(store.read(), rows)
    assert len(run(lab, photos[:2], store)) == 8


@pytest.fixture(scope="module")
def prior_file(tmp_path_factory: pytest.TempPathFactory, tiny: Denoiser) -> str:
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_denoiser(path, tiny, {}, torch.float32)
    return str(path)


def test_a_run_that_is_killed_goes_on_where_it_was(prior_file: str, tmp_path: Path) -> None:
    arguments = ["table", "--images", "builtin", "--hosts", "ddnm", "--tasks", "color@0,sr4@0.05", "--plugins", "none,leader"]
    arguments += ["--steps", "40", "--size", "32", "--batch", "1", "--metrics", "psnr", "--prior", prior_file]
    out, fresh = tmp_path / "out", tmp_path / "fresh"
    command = [sys.executable, "-m", "leader_nb.cli", *arguments, "--out", str(out)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    end = time.monotonic() + 240
    while not (out / "table.csv").exists():
        assert process.poll() is None and time.monotonic() < end, "it ended before its first row"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = Store(out).read()
    assert 0 < len(left) < 24, "the kill came too late to say anything"
    for folder in (out, fresh):
        assert main([*arguments, "--out", str(folder)]) == 0
    first, second = Store(out).read(), Store(fresh).read()
    assert len(first) == 24 and set(left["date"]) <= set(first["date"]) and first[IDENTITY].equals(second[IDENTITY])
    np.testing.assert_allclose(first["psnr"], second["psnr"], atol=1e-3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:-40], "cut short"),
        (lambda text: text[: text.rindex(",")] + "\n", "row 4 has no key"),
        (lambda text: text.replace("ddnm,", "", 1), "row 1 has no key|parse|convert|cast"),
        (lambda text: text.replace("host,", "hosts,", 1), "its columns are hosts, task"),
        (lambda text: text + text.splitlines()[1] + "\n", "row 5 repeats"),
        (lambda text: re.sub(r"draw 0,[-\d.]+", "draw 0,much", text, count=1), "much"),
        (lambda text: "\x00\x01\n", "no columns"),
    ],
)
def test_a_damaged_table_is_refused(damage, message: str, lab: Lab, photos: list[Photo], store: Store) -> None:
    run(lab, photos[:1], store)
    store.path.write_text(damage(store.path.read_text()))
    before = store.path.read_bytes()
    with pytest.raises(InputError, match=rf"table\.csv is damaged or no table of ours \(.*({message}).*\); move it away"):
        run(lab, photos[:2], store)
    assert store.path.read_bytes() == before, "it was written over"


def test_two_writers_lose_nothing(lab: Lab, photos: list[Photo], store: Store) -> None:
    first, second = (run(lab, [p], Store(store.folder / name)) for p, name in zip(photos, "ab", strict=False))
    store.append(first.to_dict("records"))
    Store(store.folder).append(second.to_dict("records"))
    store.append(first.to_dict("records"))
    assert len(store.read()) == 8


# --- the summary ----------------------------------------------------------------------------------------------------


def made_up(plugin: str, task: str, values: Sequence[tuple[float, float, float]], **others: object) -> list[dict[str, object]]:
    """Rows of (psnr, lpips, cpu_seconds), one for each photograph."""
    fixed: dict[str, object] = {
        "host": "ddnm",
        "task": task,
        "plugin": plugin,
        "prior": "p",
        "size": 8,
        "steps": 100,
        "seed": 0,
    }
    fixed |= {"device": "cpu", "weights": "w"}
    return [
        fixed | {"image": f"{i}.jpg", "psnr": p, "lpips": q, "cpu_seconds": s, "nfe": 100} | others
        for i, (p, q, s) in enumerate(values)
    ]


HOST = [(20.0, 0.30, 4.0), (22.0, 0.20, 4.0), (27.0, 0.10, 4.0)]
BETTER = [(21.0, 0.28, 3.0), (22.5, 0.20, 3.0), (27.3, 0.09, 3.0)]


def test_summary_by_hand() -> None:
    rows = as_rows(made_up("none", "sr4@0", HOST) + made_up("leader", "sr4@0", BETTER, nfe=90))
    means = summarise(rows).set_index("plugin")
    host, with_leader = means.loc["none"], means.loc["leader"]
    assert host["psnr"] == pytest.approx(23) and host["psnr_std"] == pytest.approx(np.sqrt((9 + 1 + 16) / 3))
    assert host["n"] == 3 and host["failed"] == 0 and pd.isna(host["no_loss"]) and pd.isna(host["pairs"])
    assert with_leader["d_psnr"] == pytest.approx((1 + 0.5 + 0.3) / 3) and with_leader["pairs"] == 3
    assert with_leader["d_lpips"] == pytest.approx(-0.01) and with_leader["d_nfe"] == -10
    assert with_leader["d_time"] / with_leader["base_time"] == pytest.approx(-0.25)
    _, low, high = bootstrap_interval([1.0, 0.5, 0.3], groups=["0.jpg", "1.jpg", "2.jpg"])
    assert (with_leader["d_psnr_low"], with_leader["d_psnr_high"]) == pytest.approx((low, high)) and 0.3 <= low < high <= 1
    assert with_leader["no_loss"] is True or with_leader["no_loss"] == True  # noqa: E712  # an object column
    assert pd.isna(with_leader["d_ssim"]), "what was not measured is not made up"


@pytest.mark.parametrize(
    ("psnr_gap", "lpips_gap", "expected"),
    [(-0.049, 0.0, True), (-0.051, 0.0, False), (0.0, 0.0029, True), (0.0, 0.0031, False), (1.0, 0.01, False)],
)
def test_no_loss_has_two_margins(psnr_gap: float, lpips_gap: float, expected: bool) -> None:
    worse = [(p + psnr_gap, q + lpips_gap, s) for p, q, s in HOST]
    means = summarise(as_rows(made_up("none", "sr4@0", HOST) + made_up("leader", "sr4@0", worse)))
    assert means["no_loss"].iloc[1] == expected


def test_summary_pairs_photographs() -> None:
    """Rows without a partner count for the mean and not for the difference; a failure is no success; seeds of one photo
    are no independent evidence."""
    rows = made_up("none", "sr4@0", HOST) + made_up("leader", "sr4@0", BETTER[:2])
    means = summarise(as_rows(rows)).iloc[1]
    assert means["pairs"] == 2 and means["d_psnr"] == pytest.approx(0.75) and means["no_loss"] == True  # noqa: E712
    broken = [
        row | {"psnr": None, "lpips": None, "error": "RuntimeError: no"} for row in made_up("leader", "sr4@0", BETTER)[2:]
    ]
    broken = [row | {"image": "2.jpg"} for row in broken]
    means = summarise(as_rows(rows + broken)).iloc[1]
    assert (means["n"], means["failed"], means["pairs"]) == (2, 1, 2) and means["no_loss"] == False  # noqa: E712
    alone = summarise(as_rows(made_up("none", "sr4@0", HOST[:1]) + made_up("leader", "sr4@0", BETTER[:1]))).iloc[1]
    assert alone["d_psnr"] == 1 and pd.isna(alone["d_psnr_low"]) and pd.isna(alone["no_loss"])
    other = made_up("leader", "sr4@0", BETTER, weights="another prior")
    assert summarise(as_rows(made_up("none", "sr4@0", HOST) + other)).iloc[1]["pairs"] == 0
    with pytest.raises(InputError, match="no rows"):
        summarise(as_rows([]))


def test_table_1_is_laid_out_like_the_paper() -> None:
    """The average change is that of the paper: +2.382 % for the PSNR of its DDNM row, from its own numbers."""
    published = {
        "sr4@0": (31.64, 32.73),
        "sr4@0.05": (29.19, 29.69),
        "gaussian@0.05": (30.60, 30.86),
        "cs25@0.05": (26.14, 27.06),
    }
    rows = [
        row
        for task, pair in published.items()
        for plugin, value in zip(("none", "leader"), pair, strict=True)
        for row in made_up(plugin, task, [(value - 1, 0.1, 2.0), (value + 1, 0.3, 2.0)])
    ]
    table = table_1(as_rows(rows))
    assert table.index.tolist() == [("ddnm", "none"), ("ddnm", "leader")]
    assert table.loc[("ddnm", "leader"), ("Avg. Δ", "PSNR")] == pytest.approx(2.382, abs=5e-4)
    assert table.loc[("ddnm", "none"), ("cs25@0.05", "PSNR")] == pytest.approx(26.14)
    assert table.loc[("ddnm", "none"), ("cs25@0.05", "PSNR std")] == pytest.approx(1)
    text = markdown_1(table)
    assert "31.64 ± 1.00" in text and "| + LEADer " in text and "+2.38 %" in text and len(text.splitlines()) == 4
    with pytest.raises(InputError, match=r"several values of steps \(50, 100\)"):
        table_1(as_rows(rows + made_up("none", "sr4@0", HOST, steps=50)))


def test_table_2_is_the_ablation() -> None:
    rows = [row for p in ("none", "modulate", "steps", "leader") for row in made_up(p, "sr4@0", HOST)]
    rows += made_up("none", "sr4@0", BETTER, steps=93)
    table = table_2(as_rows(rows))
    assert table.index.names == ["Modulation", "Steps", "T"] and len(table) == 5
    assert table.loc[(False, False, 93), ("sr4@0", "PSNR")] == pytest.approx(np.mean([21, 22.5, 27.3]))
    assert table.loc[(True, True, 100), ("sr4@0", "Time")] == 4
    text = report(as_rows(rows))
    assert "## Ablation on ddnm" in text and "| ✓          | ×     | 100 |" in text and "made by different" not in text
    mixed = made_up("leader", "sr4@0", HOST)
    mixed[0]["source"] = "other code"
    assert "compute them again: ddnm sr4@0 leader." in report(as_rows(made_up("none", "sr4@0", HOST) + mixed))


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.fixture
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(experiments.METRICS, "lpips", lambda x, reference: (x - reference).square().mean(dim=(1, 2, 3)))
    monkeypatch.setattr(experiments, "load_lpips", lambda *names: None)


def test_every_host_and_every_task(
    no_lpips: None, folder: Path, prior_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--hosts all and --tasks all, on a folder, into one table; what a host cannot do is a row that says so."""
    out = tmp_path / "out"
    fixed = ["table", "--images", str(folder), "--steps", "2", "--size", "32", "--n", "2", "--prior", prior_file]
    fixed += ["--plugins", "none,leader", "--out", str(out)]
    assert main([*fixed, "--hosts", "all", "--tasks", "color@0"]) == 0
    assert "rows; 0 are there already" in capsys.readouterr().out
    assert main([*fixed, "--hosts", "ddnm", "--tasks", "all"]) == 0
    printed, rows = capsys.readouterr().out, Store(out).read()
    assert f"= {4 * len(TASKS)} rows; 4 are there already" in printed and f"written to {out / 'table.csv'}" in printed
    assert set(rows["host"]) == set(METHODS) and set(rows["task"]) == set(TASKS) and set(rows["image"]) == {"1.png", "2.png"}
    good = rows[rows["error"] == ""]
    assert len(good) > 0.7 * len(rows) and good[["psnr", "lpips", "ssim", "residual", "nfe"]].notna().all().all()
    assert good[["host", "plugin"]].drop_duplicates().shape[0] == 2 * len(SAMPLERS) + 1
    assert (good.loc[good["host"] == "mean", ["nfe", "backward"]] == 0).all().all(), "the control makes no call"
    assert main(["table", "--summary", str(out)]) == 0
    text = capsys.readouterr().out
    assert "2 steps, 2 photographs" in text and "no loss" in text and all(task in text for task in TASKS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hosts", "ddpgg"], "unknown host 'ddpgg': did you mean 'ddpg'"),
        (["--tasks", "sr4@x"], "task: 'sr4@x'"),
        (["--tasks", "sr44"], "task: 'sr44' is out of range"),
        (["--plugins", "none,leeder"], "unknown plug-in 'leeder': did you mean 'leader'"),
        (["--plugins", ","], "plugins: got ','; give names with commas, or all: none, "),
        (["--metrics", "psrn"], "unknown metric 'psrn': did you mean 'psnr'"),
        (["--steps", "0"], "steps: got 0"),
        (["--seed", "-1"], "seed: got -1"),
        (["--batch", "0"], "batch: got 0"),
        (["--n", "9"], "n: got 9; give 1 to 3"),
        (["--split", "val"], "unknown split 'val'"),
        (["--size", "400"], "size: got 400; 1.png has 100 x 60"),
        (["--size", "30", "--tasks", "sr4@0", "--metrics", "psnr"], "size: 30 is not a multiple of 4, which sr4@0 needs"),
        (["--size", "16"], "size: got 16; the prior and the metrics need at least 31"),
        (["--prior", "photo-smal"], "unknown prior 'photo-smal'"),
        (["--images", "nowhere"], "images: no folder at nowhere; give one, or"),
        (["--out", "{folder}/1.png"], "is a file; give a folder"),
        (["--device", "gpu7"], "device: 'gpu7'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, folder: Path, tmp_path: Path, no_lpips: None, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"--images": str(folder), "--out": str(tmp_path / "out"), "--hosts": "ddnm", "--tasks": "color@0", "--size": "32"}
    changes = dict(zip(arguments[::2], (value.format(folder=folder) for value in arguments[1::2]), strict=True))
    assert main(["table", *(part for pair in (given | changes).items() for part in pair)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(rf"leader-nb: [^\n]*{re.escape(message)}[^\n]*\n", err), err
    assert not (tmp_path / "out").exists(), "a folder was left"


def test_a_summary_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        (["--summary", str(tmp_path)], "there is no table.csv in"),
        (["--summary", str(tmp_path), "--out", "x"], "summary: it only reads"),
        (["--out", str(tmp_path)], "images: missing; give --images and --out, or --summary DIR"),
    ):
        assert main(["table", *arguments]) == 2
        assert re.fullmatch(rf"leader-nb: [^\n]*{message}[^\n]*\n", capsys.readouterr().err)
    (tmp_path / "table.csv").write_text("rubbish\n")
    assert main(["table", "--summary", str(tmp_path)]) == 2
    assert "is damaged or no table of ours" in capsys.readouterr().err


# --- the search over constants --------------------------------------------------------------------------------------


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch, no_lpips: None):
    spec = importlib.util.spec_from_file_location("tune", ROOT / "benchmarks" / "tune.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tune", module)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_tuning_sees_training_photographs_only_and_keeps_to_its_budget(
    tune, folder: Path, prior_file: str, tmp_path: Path, computed: list[tuple[str, str]]
) -> None:
    (folder / "photos.csv").write_text("file,split\n" + "".join(f"{i}.png,{'test' if i == 3 else 'train'}\n" for i in range(4)))
    out = tmp_path / "tuned"
    arguments = ["--images", str(folder), "--out", str(out), "--hosts", "ddnm,projdiff", "--tasks", "color@0", "--steps", "3"]
    arguments += ["--size", "32", "--count", "3", "--prior", prior_file, "--budget"]
    tune.main([*arguments, "20"])  # a setting costs 3 photographs x 3 calls (ProjDiff 4), with LEADer the same or less
    trials, rows = pd.read_csv(out / "trials.csv"), Store(out).read()
    assert set(rows["image"]) == {"0.png", "1.png", "2.png"}, "a test photograph"
    assert trials[trials["plugin"] == "none"].groupby("host").size().to_dict() == {"ddnm": 3, "projdiff": 2}
    spent = trials.groupby(["host", "plugin"])["calls"].agg(["sum", "last"])
    assert ((spent["sum"] >= 20) & (spent["sum"] - spent["last"] < 20)).all(), "the budget is spent, and not twice"
    for _, cell in trials[trials["plugin"] == "none"].groupby("host"):
        own = cell.iloc[0]
        assert own["constants"] == "its own" and own["d_score"] == 0 and not own["better"]
        np.testing.assert_allclose(cell["score"], cell["psnr"] - 0.05 / 0.003 * cell["lpips"], rtol=1e-4)
        np.testing.assert_allclose(cell["d_score"], cell["score"] - own["score"], atol=1e-3)
    assert set(tune.winners(trials)["plugin"]) == {"none", "leader", "flat"} and len(tune.winners(trials)) == 6
    assert trials[["seed", "size", "steps"]].drop_duplicates().values.tolist() == [[0, 32, 3]]
    assert not trials[list(tune.PROVENANCE)].isna().any(axis=None) and trials["weights"].nunique() == 1
    for _, cell in rows[rows["plugin"].str.contains("modulate=both")].groupby(["host", "image"]):
        assert cell["plugin"].str.endswith("flat").any() and not cell["plugin"].str.endswith("flat").all()
    computed.clear()
    tune.main([*arguments, "20"])
    assert computed == [] and pd.read_csv(out / "trials.csv").equals(trials)
    (folder / "photos.csv").unlink()
    with pytest.raises(InputError, match=r"no photos\.csv"):
        tune.main([*arguments, "20"])


def test_the_winner_is_better_beyond_chance_or_the_first(tune) -> None:
    """A host keeps its constants unless the interval says otherwise; LEADer takes the fewest calls that cost no score."""
    host = pd.DataFrame({"plugin": "none", "score": [1.0, 3.0, 2.0], "better": [False, False, True], "d_score": [0, 2, 1]})
    assert tune.winner(host).name == 2 and tune.winner(host[:2]).name == 0
    ours = pd.DataFrame({"plugin": "leader", "score": [1.0, 3.0, 2.0], "d_score": [-1.0, 1.0, 0.0], "calls": [50, 90, 70]})
    assert tune.winner(ours).name == 2 and tune.winner(ours.assign(calls=[50, 73, 70])).name == 1
    assert tune.winner(ours.assign(d_score=-1.0)).name == 1


def test_the_search_changes_constants_that_exist(tune) -> None:
    for name, space in tune.SPACE.items():
        sampler = HOSTS[name]()
        tried = list(tune.settings(name, sampler, 0))
        assert tried[0] == {} and len({str(t) for t in tried}) == len(tried) > 3
        for constants in tried:
            assert type(replace(sampler, **constants)) is type(sampler) and set(constants) in (set(), set(space))


def test_the_search_turns_no_dial_that_does_nothing(tune, samples: torch.Tensor, exact: Prior) -> None:
    """Without noise the guidance of IDPG and its kin is back-projection: gamma, ridge and scale change no bit."""
    problem, prior = parse_task("sr4@0").measure(samples), exact
    for name in ("idpg", "ddpg", "pirp", "pirp+"):
        idle = set(tune.SPACE[name]) - set(tune.dials(name, 0.0))
        assert {"gamma", "ridge"} <= idle and tune.dials(name, 0.05) == tune.SPACE[name]
        turned = replace(host(name, 0.0), **{constant: tune.SPACE[name][constant][0] for constant in idle})
        assert torch.equal(
            restore(problem, prior, turned, grid=3).image, restore(problem, prior, host(name, 0.0), grid=3).image
        )
    assert tune.dials("dps", 0.0) == tune.SPACE["dps"], "its scale is no guidance of that kind"


def test_public_names_are_usable() -> None:
    assert set(available()) <= set(PLUGINS) and Experiment(plugins=available()).cells

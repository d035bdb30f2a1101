"""Constants of a host by task: published, tuned, or the class's own."""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from torch import Tensor

from leader_nb import DDPG, SAMPLERS, defaults_leader, defaults_start, host, image_mixture, parse_task, restore
from leader_nb.defaults_leader import tuned_leader
from leader_nb.errors import InputError
from leader_nb.experiments import Experiment
from leader_nb.pipeline import Config
from leader_nb.samplers import (
    HOSTS,
    IMAGES,
    SETTINGS,
    constants,
    defaults_gradient,
    defaults_spectral,
    defaults_tuned,
    parse_host,
)
from leader_nb.samplers.settings import stands_in
from leader_nb.start import MeasuredStart
from leader_nb.tasks import TASKS
from leader_nb.zoo import prior_hash

ROOT = Path(__file__).parent.parent


@pytest.fixture
def tune_script(monkeypatch: pytest.MonkeyPatch):
    spec = importlib.util.spec_from_file_location("tune", ROOT / "benchmarks" / "tune.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tune", module)
    spec.loader.exec_module(module)
    return module


def test_a_suffix_picks_the_constants() -> None:
    """DDPG on SR x4 at 0.05 for photographs: gamma 6, zeta 1, ridge 0.3, mode 1 (tirer-lab/DDPG)."""
    published = host("ddpg:published", 0.05, "sr4@0.05")
    assert published == DDPG(gamma=6, zeta=1.0, ridge=0.3, mode=1) != host("ddpg", 0.05) == DDPG()
    assert host("ddpg:published", 0.05, parse_task("sr4@0.05")) == published
    assert host("sitcom:published", 0.05, "sr4@0.05") == host("sitcom", 0.05), "nothing but its own is known"


def test_published_constants_are_of_a_kind_of_images() -> None:
    """DDPG on SR x4 at 0.05: for faces gamma 10, zeta 0.8, ridge 0.3, mode 1. What is tuned or its own does not ask."""
    faces = host("ddpg:published", 0.05, "sr4@0.05", images="faces")
    assert faces == DDPG(gamma=10, zeta=0.8, ridge=0.3, mode=1) != host("ddpg:published", 0.05, "sr4@0.05")
    for name in ("ddpg", "ddpg:tuned"):
        assert host(name, 0.05, "sr4@0.05", images="faces") == host(name, 0.05, "sr4@0.05")
    cells = [Experiment(("ddpg:published",), ("sr4@0.05",), ("none",), images=kind).cells for kind in IMAGES]
    assert [cell.sampler for (cell,) in cells] == [host("ddpg:published", 0.05, "sr4@0.05"), faces]


def test_a_kind_of_images_that_is_not_known_is_refused() -> None:
    for refuse in (
        lambda: host("ddpg", 0.05, images="face"),
        lambda: host("ddpg:tuned", 0.05, "sr4@0.05", images="face"),
        lambda: Experiment(images="face"),
        lambda: Config(images="face"),
    ):
        with pytest.raises(
            InputError, match=r"\Aunknown images 'face': did you mean 'faces'\? choose one of photographs, faces\Z"
        ):
            refuse()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", HOSTS)
def test_every_host_takes_its_constants_on_every_task(name: str, settings: str) -> None:
    for task in TASKS:
        sampler = host(f"{name}:{settings}", parse_task(task).sigma, task)
        assert type(sampler) is type(host(name, parse_task(task).sigma))


@pytest.mark.parametrize(("module", "settings"), [(defaults_spectral, "published"), (defaults_gradient, "published")])
def test_every_row_of_a_table_is_reached(module, settings: str) -> None:
    for row in module.TABLE:
        kind = {"sr": "sr4", "pool": "pool4", "inpaint": "inpaint70"}.get(row.kind, row.kind)
        task = f"{kind}@{row.sigma:g}"
        assert constants(row.host, task, settings, row.images) == dict(row.values) and not stands_in(row.host, task, row.images)


def test_tuned_constants_are_of_our_prior_and_differ_from_the_own() -> None:
    for row in defaults_tuned.TABLE:
        kind = {"sr": "sr4", "inpaint": "inpaint70"}.get(row.kind, row.kind)
        tuned = host(f"{row.host}:tuned", row.sigma, f"{kind}@{row.sigma:g}")
        assert tuned != host(row.host, row.sigma)
        assert all(getattr(tuned, constant) == value for constant, value in row.values)


WRONG = [("ddpq:tuned", "unknown host "), ("ddpg:best", "unknown constants of the host "), ("ddpg:", "unknown constants")]
WRONG += [(None, "unknown host None: choose one of ddnm, ")]  # type: ignore[list-item]


def test_average_pooling_and_bicubic_stand_in_for_one_another_and_say_so() -> None:
    """ProjDiff was published with average pooling, DDPG with bicubic weights; for the other they say whose they are."""
    assert constants("projdiff", "pool4@0.05", "published") == {"lr": 0.5} == constants("projdiff", "sr4@0.05", "published")
    assert stands_in("projdiff", "sr4@0.05") == stands_in("projdiff", "sr4@0", "faces") == "pool"
    assert stands_in("ddpg", "pool4@0.05") == "sr" == stands_in("dps", "pool4@0.05", "faces")
    for host_name, task in (("projdiff", "pool4@0"), ("projdiff", "gaussian@0.05"), ("ddpg", "sr4@0.05"), ("sitcom", "sr4@0")):
        assert stands_in(host_name, task) == ""
    assert constants("ddpg", "pool4@0.05", "published") == constants("ddpg", "sr4@0.05", "published") != {}


def test_the_task_of_the_constants_has_the_noise_of_the_host() -> None:
    """Neither is a task that is none taken for one without constants, nor noise for none."""
    for name in ("ddpg:tuned", "ddpg:published", "ddpg"):
        with pytest.raises(InputError, match=r"\Aunknown task 'foo'[^\n]*\Z"):
            host(name, 0.05, "foo")
        with pytest.raises(
            InputError, match=r"\Asigma: got 0\.05, and the noise of task 'sr4@0' is 0; give both the same[^\n]*\Z"
        ):
            host(name, 0.05, "sr4@0")
        with pytest.raises(InputError, match=r"\Asigma: got 0\.1, and [^\n]* is 0\.05;[^\n]* twice as much\)\Z"):
            host(name, 0.1, parse_task("sr4@0.05"))
        assert host(name, 0.1 + 0.2, "sr4@0.3") == host(name, 0.3, "sr4@0.3"), "rounding is forgiven"
    with pytest.raises(InputError, match="unknown task 'foo'"):
        constants("ddpg", "foo@0.05", "published")
    for sigma in (-0.1, float("nan"), None, "0.05"):
        with pytest.raises(InputError, match=r"\Asigma: got [^\n]*; give a number >= 0, [^\n]*\Z"):
            host("ddnm", sigma)  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "message"), WRONG)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    for refuse in (lambda: parse_host(name), lambda: host(name, 0.0), lambda: Experiment((name,)), lambda: Config(host=name)):
        with pytest.raises(InputError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
            refuse()
    with pytest.raises(InputError, match=r"\Atask: 'ddpg:tuned' has"):
        host("ddpg:tuned", 0.05)


def test_the_big_table_runs_both_side_by_side_and_once_where_they_agree() -> None:
    cells = Experiment(("ddpg", "ddpg:published"), ("sr4@0.05", "denoise@0.1"), ("none",)).cells
    assert [str(cell) for cell in cells] == ["ddpg sr4@0.05 none", "ddpg denoise@0.1 none", "ddpg:published sr4@0.05 none"]


def test_the_tables_are_the_winners_of_the_committed_trials(tune_script) -> None:
    """defaults_tuned and defaults_leader hold what benchmarks/tune.py's rules make of benchmarks/results/tuning.csv."""
    trials = pd.read_csv(ROOT / "benchmarks" / "results" / "tuning.csv")
    best = tune_script.winners(trials)
    for row in best.itertuples():
        if row.plugin == "none":
            own = host(row.host, parse_task(row.task).sigma)
            changes = {} if row.constants == "its own" else dict(pair.split("=") for pair in row.constants.split(", "))
            expected = replace(own, **{name: float(value) for name, value in changes.items()})
            assert host(f"{row.host}:tuned", parse_task(row.task).sigma, row.task) == expected
        else:
            found = dict(pair.split("=") for pair in row.constants.partition(" | ")[2].split(", "))
            flat = row.plugin == "flat"
            assert tuned_leader(row.host, row.task, flat) == (float(found["tolerance"]), found["modulate"])
    counts = best["plugin"].value_counts()
    assert counts["none"] == counts["leader"] == counts["flat"] == len(best[["host", "task"]].drop_duplicates())
    assert len(defaults_leader.TABLE) == len(defaults_leader.FLAT) == counts["leader"], "no row that was not searched"
    assert trials["weights"].eq(prior_hash("photo-small")).all() and (trials["seed"] == 0).all()


def test_every_host_was_searched_with_one_budget(tune_script) -> None:
    """Host, LEADer and flat control on three tasks: none began a setting after 4,800 calls or stopped before with one left."""
    trials = pd.read_csv(ROOT / "benchmarks" / "results" / "tuning.csv")
    assert set(trials["host"]) == set(HOSTS) - {"ddnm+"}  # which is ddnm where there is noise
    for (name, task, plugin), tried in trials.groupby(["host", "task", "plugin"]):
        spent = tried["calls"].cumsum()
        assert (spent.iloc[:-1] < 4800).all()
        sigma = parse_task(task).sigma
        all_there = len(list(tune_script.settings(tune_script.method(name, sigma), host(name, sigma), 0, task)))
        assert spent.iloc[-1] >= 4800 or (plugin == "none" and len(tried) == all_there)
    assert (
        trials.groupby(["host", "task"])["plugin"].nunique().eq(3).all()
        and trials.groupby("host")["task"].nunique().eq(3).all()
    )


def test_shares_of_the_start() -> None:
    """Every row is of a host and a share that exist, and agrees with the committed search; elsewhere it is the usual one."""
    found = pd.read_csv(Path(__file__).parent.parent / "benchmarks" / "results" / "shares.csv")
    for row in defaults_start.TABLE:
        task = next(t for t in found["task"].unique() if re.fullmatch(rf"{row.kind}\d*@{row.sigma:g}", t))
        tried = found[(found["host"] == row.host) & (found["task"] == task) & (found["share"] == row.share)]
        assert row.host in SAMPLERS and len(tried) == 1
        assert tried["d_score"].item() >= 0 or row.share == found.loc[found["share"] > 0, "share"].min()
        assert defaults_start.start_for(row.host, task) == MeasuredStart(row.share)
    assert defaults_start.start_for("ddnm", "denoise@0.1") == MeasuredStart()


@pytest.mark.parametrize("given", [0.05, None, b"sr4@0.05", ["sr4@0.05"]], ids=repr)
def test_a_task_is_spelled_in_a_string(given: object) -> None:
    with pytest.raises(InputError, match=r"\Atask: got [^\n]*; give a string such as 'sr4@0\.05'\Z"):
        parse_task(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.0, 0.05])
@pytest.mark.parametrize("name", sorted(set(HOSTS) - {"ddnm+"}))
def test_no_dial_of_the_search_is_idle(name: str, sigma: float, samples: Tensor, tune_script) -> None:
    """Each constant that the search turns changes the restoration, at the noise at which it is turned."""
    problem, prior = parse_task(f"sr2@{sigma:g}").measure(samples[:1].clamp(-1, 1)), image_mixture(8, channels=3).prior()
    dials = tune_script.dials(tune_script.method(name, sigma), sigma)
    for dial, values in dials.items():
        few = {} if name != "sitcom" else {"iterations": 3}  # two hold v at x_t by nothing yet
        low, high = (
            restore(problem, prior, replace(host(name, sigma), **few | {dial: value}), grid=20).image
            for value in (values[0], values[-1])
        )
        assert (low - high).abs().max() > 1e-6, f"{name} at {sigma}: {dial} does nothing"

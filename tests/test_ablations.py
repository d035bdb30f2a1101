"""The trials of benchmarks/ablations.py: strengths that move a picture alike, an order that can be changed, and its summary."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch

from laws import close, normal, same
from leader_nb import DDNM, DDNMPlus, MapLikelihood, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.likelihood import means
from leader_nb.mixture import image_mixture
from leader_nb.potentials import POTENTIALS
from leader_nb.samplers import Sampler
from leader_nb.tree import rows
from leader_nb.ucpm import UCPM, HuberTV

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def finishing(ablations: ModuleType) -> ModuleType:
    return sys.modules[ablations.Finish.__module__]


@pytest.fixture(scope="module")
def ablations() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_ablations", FOLDER / "ablations.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.mark.parametrize("kind", POTENTIALS, ids=lambda k: k.__name__)
def test_matched_potentials_move_a_picture_as_far(ablations: ModuleType, kind: type) -> None:
    x0, cov = 0.4 * normal(2, 3, 16, 16), torch.tensor(0.01, dtype=torch.float64)
    size = ablations.step_size(HuberTV(0.1), x0, cov)
    mu = ablations.matched(kind, size, x0, cov)
    assert mu * kind().mu > 0, "the sign of the potential's own weight is kept"
    assert ablations.step_size(kind(mu=mu), x0, cov) == pytest.approx(size, rel=1e-3)


@pytest.mark.parametrize("host", [DDNM(), DDNMPlus()])
@pytest.mark.parametrize("s", [360, -1])
def test_after_is_the_modulated_answer_in_the_next_state(ablations: ModuleType, host: Sampler, s: int) -> None:
    """With no weight it is the host. Else x0y is modulated, and the noise in the next state stays what it was."""
    task = "sr4@0.05" if isinstance(host, DDNMPlus) else "sr4@0"
    problem, prior, noise = (
        parse_task(task).measure(0.3 * normal(2, 1, 8, 8, seed=1)),
        image_mixture(8).prior(),
        noise_for(2, 0),
    )
    belief = prior(normal(2, 1, 8, 8, seed=2), torch.tensor([400, 400]))
    belief = replace(belief, variance=torch.full_like(belief.x0, 0.05))
    where, carry = torch.tensor([s, s]), host.init(problem, noise)[1]
    step = lambda sampler: sampler.step(belief, where, problem, noise.at(where, torch.zeros(2)), carry)
    bare, idle, moved = (step(h) for h in (host, *(ablations.After(host, UCPM(HuberTV(mu))) for mu in (0.0, 0.3))))
    close(idle.x, bare.x, "no weight", 1e-14)
    expected = UCPM(HuberTV(0.3))(replace(belief, x0=bare.x0y), belief.variance, problem).x0
    same(moved.x0y, expected, "modulated answer")
    assert (moved.x0y - bare.x0y).abs().max() > 1e-3
    a = belief.schedule.abar(where, belief.x0).sqrt()
    close(moved.x - a * moved.x0y, bare.x - a * bare.x0y, "noise", 1e-12)


def test_the_true_error_is_a_map_of_the_answer(ablations: ModuleType) -> None:
    truth = 0.3 * normal(1, 3, 8, 8)
    belief = image_mixture(8, 3).prior()(normal(1, 3, 8, 8, seed=2), torch.tensor([400]))
    cov, _ = ablations.SquaredError(truth).update(belief, None, {})
    close(cov[0, 0, 4, 4], (belief.x0 - truth)[0, 0, 2:7, 2:7].square().mean(), "window", 1e-12)
    exact, _ = ablations.SquaredError(belief.x0).update(belief, None, {})
    assert exact.max() < 1e-3 * belief.sigma**2, "no error, no variance but the floor's"


def test_the_true_error_follows_the_images_that_are_left(ablations: ModuleType) -> None:
    """Images begin at different noise levels and leave the batch one by one."""
    truth, prior, x = 0.3 * normal(3, 3, 8, 8), image_mixture(8, 3).prior(), normal(3, 3, 8, 8, seed=2)
    estimator, left = ablations.SquaredError(truth), torch.tensor([0, 2])
    _, memory = estimator.update(prior(x, torch.full((3,), 400)), None, {})
    some = prior(x[left], torch.full((2,), 400))
    found, _ = estimator.update(some, None, rows(memory, left))
    expected, _ = ablations.SquaredError(truth[left]).update(some, None, {})
    close(found, expected, "rows", 1e-12)


def test_the_summary_takes_the_best_strength_and_pairs_by_photograph(ablations: ModuleType) -> None:
    row = {"task": "t", "part": "p", "potential": "", "hessian": "", "mu": 0.1, "base": "host", "nfe": 5}
    rows = []
    for variant, level, weight, control, gain in (
        ("host", 0, "", "", 0.0),
        ("P, result", 0, "result", "", 0.1),
        ("P, map", 0, "map", "P, result", 0.5),
        ("P, map", 1, "map", "P, result", 0.2),
    ):
        for photo in range(4):
            scores = {"psnr": 20 + photo + gain, "lpips": 0.2, "score": 16 + photo + gain}
            names = {"variant": variant, "level": level, "weight": weight, "control": control, "photo": photo}
            rows.append(row | names | scores)
    table = ablations.summary(pd.DataFrame(rows)).set_index("variant")
    assert table.loc["P, map", "level"] == 0
    assert table.loc["P, map", "d_psnr"] == pytest.approx(0.5) and table.loc["P, map", "d_psnr_low"] == pytest.approx(0.5)
    assert table.loc["P, map", "c_score"] == pytest.approx(0.4)
    assert np.isnan(table.loc["P, result", "c_score"])


def test_other_hessians_are_compared_at_the_same_strength(ablations: ModuleType) -> None:
    """Else a map with more strengths than they would win by that."""
    row = {"task": "t", "potential": "", "mu": 0.1, "base": "host", "nfe": 5, "lpips": 0.2}
    rows = []
    for variant, part, level, hessian, weight, control, gain in (
        ("host", "host", 0, "", "", "", 0.0),
        ("P, map", "potentials", 2, "mm", "map", "", 0.3),
        ("P, map", "potentials", 3, "mm", "map", "", 0.7),
        ("P, exact", "controls", 2, "exact", "map", "P, map", 0.4),
        ("P, flat", "controls", 2, "mm", "flat", "P, map", 0.2),
    ):
        names = {"variant": variant, "part": part, "level": level, "hessian": hessian, "weight": weight, "control": control}
        rows += [row | names | {"photo": i, "psnr": 20 + i + gain, "score": 16 + i + gain} for i in range(3)]
    table = ablations.summary(pd.DataFrame(rows)).set_index("variant")
    assert table.loc["P, exact", "c_psnr"] == pytest.approx(0.1), "less the map at level 2"
    assert table.loc["P, flat", "c_psnr"] == pytest.approx(-0.5), "less the map at its best"


def test_the_average_is_over_the_tasks_and_needs_all_of_them(ablations: ModuleType) -> None:
    rows = []
    for i, task in enumerate(ablations.SIX):
        for label in ("none", "leader-start"):
            for eta, gain in (("0.85", 0.0), ("1", 0.01 * (i - 1))):
                row = {"task": task, "part": "eta", "variant": f"eta {eta}, {label}", "level": 0, "nfe": 100}
                rows += [row | {"photo": p, "psnr": (20 + p) * (1 + gain), "lpips": 0.2, "score": 16.0} for p in range(3)]
    table = pd.DataFrame(rows)
    found = {row["variant"]: row for row in ablations.averages(table)}
    ends = lambda name: [found[f"{name}, none"][f"psnr_percent{end}"] for end in ("", "_low", "_high")]
    assert ends("eta 0.85") == pytest.approx([0.0] * 3)
    assert ends("eta 1") == pytest.approx([1.5] * 3), "the mean of -1 to 4 %"
    assert ends("eta 1 where better") == pytest.approx([10 / 6] * 3), "without the first task, which loses"
    assert ends("eta 1 without noise") == pytest.approx([(-1 + 3) / 6] * 3), "sr4@0 and inpaint70@0"
    assert not list(ablations.averages(table[table["task"] != ablations.SIX[0]]))


def test_percent_is_of_the_means(ablations: ModuleType) -> None:
    base = np.array([0.1, 0.3])
    mean, low, high = ablations.percent(np.array([0.05, 0.3]), base)
    assert mean == pytest.approx(-12.5) and low == pytest.approx(-50) and high == pytest.approx(0)


# --- Plain smoothing with the measurement put back --------------------------------------------------------------------


@pytest.mark.parametrize("task", ["inpaint70@0", "sr4@0", "gaussian@0.05"])
def test_put_back_is_the_mean_given_the_measurement(finishing: ModuleType, task: str) -> None:
    """Without noise the range/null step of DDNM for every variance; else the map likelihood with a flat map."""
    problem, x = parse_task(task).measure(0.3 * normal(2, 3, 16, 16, seed=1)), normal(2, 3, 16, 16, seed=2)
    found = finishing.put_back(x, problem, 0.02)
    belief = replace(image_mixture(16, 3).prior()(x, torch.tensor([400, 400])), x0=x)
    close(found, MapLikelihood()(belief, torch.full_like(x, 0.02), problem).x0, "conditional mean", 1e-9)
    if not problem.sigma_y.any():
        close(found, problem.operator.pinv(problem.y) + problem.operator.null(x), "range and null space", 1e-9)
        close(finishing.put_back(x, problem, 5.0), found, "any variance", 1e-9)


def test_finishing_smooths_what_the_measurement_leaves_open(finishing: ModuleType) -> None:
    problem = parse_task("inpaint70@0").measure(0.3 * normal(2, 3, 16, 16, seed=1))
    x = problem.operator.pinv(problem.y) + problem.operator.null(0.3 * normal(2, 3, 16, 16, seed=2))
    bumps = 1 + normal(2, 3, 16, 16, seed=3).abs()
    walk = finishing.Walk(x, torch.zeros(2), {"flat": torch.full_like(x, 7.0), "bumps": bumps, "more": 10 * bumps})
    finish = lambda mu=0.3, times=5, **other: finishing.Finish(HuberTV(mu), times, 0.02, 0.01, **other)(walk, problem)
    close(finish(mu=0.0), x, "no weight, no change", 1e-12)
    assert problem.residual(finish()).max() < 1e-12 < problem.residual(finish(back=False)).min()
    phi = HuberTV()
    assert (phi(finish(times=5)) < phi(finish(times=1))).all() and (phi(finish(times=1)) < phi(x)).all()
    close(finish(weight="flat"), finish(), "only the shape of a map counts", 1e-12)
    close(finish(weight="more"), finish(weight="bumps"), "and not its level", 1e-12)
    assert (finish(weight="bumps") - finish()).abs().max() > 1e-4


def test_a_walk_keeps_the_map_of_its_noise_level(ablations: ModuleType, finishing: ModuleType) -> None:
    problem, states = parse_task("inpaint70@0").measure(0.3 * normal(2, 1, 8, 8, seed=1)), []
    watch = finishing.Watch(0.3)
    both = lambda state: (states.append(state), watch(state))
    prior = image_mixture(8).prior()
    result = restore(problem, prior, DDNM(), grid=20, noise=noise_for(2, 0), covariance=RunningSecant(), on_state=both)
    walk = finishing.walk_from(result, watch, torch.ones_like(result.image))
    late = next(s for s in states if s.belief.sigma.max() <= 0.3)
    same(walk.maps["earlier map"], late.cov, "the first at or below the level")
    same(walk.maps["last map"], states[-1].cov, "the last")
    assert (means(walk.maps["earlier map"]) > means(walk.maps["last map"])).all()


@pytest.mark.parametrize(
    ("peak", "first", "expected"),
    [
        (4, (0, 1, 2), [0, 1, 2, 3, 4, 5]),
        (1, (0, 1, 2), [0, 1, 2]),
        (-2, (0, 1, 2), [0, 1, 2, -1, -2, -3]),
        (2, (3,), [3, 4, 2, 1]),
        (3, (0, 1, 2, 4, 6), [0, 1, 2, 4, 6, 3]),
        (5, (0, 1, 2, 4, 6), [0, 1, 2, 4, 6, 5]),
    ],
)
def test_a_search_goes_on_until_the_score_falls(finishing: ModuleType, peak: int, first: tuple, expected: list) -> None:
    tried: list[int] = []
    score = lambda level: -0.01 * (level - peak) ** 2
    for level in finishing.climb(lambda: {t: score(t) for t in tried}, first):
        assert len(tried) < 9, "does not end"
        tried.append(level)
    assert tried == expected


def test_a_search_ends_on_a_plateau(finishing: ModuleType) -> None:
    tried: list[int] = []
    for level in finishing.climb(lambda: {t: 1 - 10.0**-t for t in tried}, (0, 1, 2)):
        tried.append(level)
    assert tried == [0, 1, 2, 3, 4], "3 gains more than GAIN, 4 less"


def test_strengths_go_on_beyond_the_matched_ones(ablations: ModuleType) -> None:
    assert [ablations.huber_strength(level) for level in range(-2, 6)] == [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]
    mus = {("P", 0): -0.5, ("P", 1): -1.0, ("P", 2): -2.0}
    found = [ablations.strength(mus, "P", level) for level in (-1, 0, 1, 2, 4)]
    assert found == pytest.approx([-0.5 / 3, -0.5, -1.0, -2.0, -20.0])

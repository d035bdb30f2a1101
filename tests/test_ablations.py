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
from leader_nb import DDNM, DDNMPlus, noise_for, parse_task
from leader_nb.mixture import image_mixture
from leader_nb.potentials import POTENTIALS
from leader_nb.samplers import Sampler
from leader_nb.ucpm import UCPM, HuberTV

FOLDER = Path(__file__).parent.parent / "benchmarks"


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


def test_percent_is_of_the_means(ablations: ModuleType) -> None:
    base = np.array([0.1, 0.3])
    mean, low, high = ablations.percent(np.array([0.05, 0.3]), base)
    assert mean == pytest.approx(-12.5) and low == pytest.approx(-50) and high == pytest.approx(0)

"""The corrections of benchmarks/places.py: without a map, or with a flat one, they are the host; on a Gaussian, the step of
second order errs by the third power of its length."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from laws import close, normal, same
from leader_nb import DDNM, DDPG, DDNMPlus, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.mixture import GaussianMixture, image_mixture, mixture_from_covariances
from leader_nb.noise import Noise
from leader_nb.operators import inpainting
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers import Sampler
from leader_nb.ucpm import UCPM, HuberTV

ROOT = Path(__file__).parent.parent
SIZE = 8


@pytest.fixture(scope="module")
def places() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_places", ROOT / "benchmarks" / "places.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look for their annotations
    spec.loader.exec_module(module)
    return module


def problem_of(task: str) -> Problem:
    return parse_task(task).measure(0.3 * normal(2, 1, SIZE, SIZE, seed=1))


def one_step(sampler: Sampler, problem: Problem, cov: Tensor, seed: int = 2) -> Tensor:
    """x after a step from t = 400 to 360 of a host that was told `cov`."""
    prior, noise = image_mixture(SIZE).prior(), noise_for(2, 0)
    belief = replace(prior(normal(2, 1, SIZE, SIZE, seed=seed), torch.tensor([400, 400])), variance=cov)
    _, carry = sampler.init(problem, noise)
    return sampler.step(belief, torch.tensor([360, 360]), problem, noise.at(torch.tensor([360, 360]), torch.zeros(2)), carry).x


@pytest.mark.parametrize(("task", "host"), [("sr4@0", DDNM()), ("sr4@0.05", DDNMPlus()), ("sr4@0.05", DDPG())])
def test_no_map_is_the_host(places: ModuleType, task: str, host: Sampler) -> None:
    """A map of zeros bends nothing, and the first step has no last answer; a map above zero does change the step."""
    problem, zero = problem_of(task), torch.zeros(2, 1, SIZE, SIZE, dtype=torch.float64)
    bare = one_step(host, problem, zero)
    same(one_step(places.SecondOrder(host), problem, zero), bare, "zero map")
    same(one_step(places.LastAnswers(host), problem, zero), bare, "no last answer")
    assert not torch.equal(one_step(places.SecondOrder(host), problem, zero + 0.1), bare)


@pytest.mark.parametrize(("task", "host"), [("sr4@0", DDNM()), ("sr4@0.05", DDNMPlus())])
def test_noise_of_a_flat_map_is_the_hosts(places: ModuleType, task: str, host: Sampler) -> None:
    problem, flat = problem_of(task), torch.full((2, 1, SIZE, SIZE), 0.02, dtype=torch.float64)
    close(one_step(places.MappedNoise(host), problem, flat), one_step(host, problem, flat), "flat map", 1e-12)
    uneven = flat * (1 + normal(*flat.shape).abs())
    assert (one_step(places.MappedNoise(host), problem, uneven) - one_step(host, problem, flat)).abs().max() > 0.01


@pytest.mark.parametrize("power", [0.5, 1.0, -1.0])
def test_shares_keep_their_mean_and_follow_the_map(places: ModuleType, power: float) -> None:
    cov = (2 * normal(3, 1, SIZE, SIZE)).exp()
    found = places.shares(cov, 0.7225, power)
    close(found.mean((1, 2, 3)), torch.full((3,), 0.7225, dtype=torch.float64), "mean", 1e-12)
    assert bool(((found > 0) & (found < 1)).all())
    order = cov[0].flatten().argsort(descending=power < 0)
    assert bool((found[0].flatten()[order].diff() >= 0).all())


def test_potentials_of_a_flat_map_are_their_controls(places: ModuleType) -> None:
    problem, tv = problem_of("sr4@0"), HuberTV(0.1)
    belief = image_mixture(SIZE).prior()(normal(2, 1, SIZE, SIZE), torch.tensor([300, 300]))
    flat = torch.full_like(belief.x0, 0.05)
    usual = UCPM(tv)(belief, flat, problem).x0
    close(places.Width(tv)(belief, flat, problem).x0, usual, "width", 1e-12)
    close(places.Inverse(UCPM(tv))(belief, flat, problem).x0, usual, "inverse", 1e-12)
    same(places.Signed(tv)(belief, flat, problem).x0, belief.x0, "signed")
    uneven = flat * (1 + normal(*flat.shape).abs())
    for modulate in (places.Width(tv), places.Inverse(UCPM(tv)), places.Signed(tv)):
        assert not torch.equal(modulate(belief, uneven, problem).x0, modulate(belief, flat, problem).x0)


# --- the step of second order ---------------------------------------------------------------------------------------


def gaussian(diagonal: bool) -> GaussianMixture:
    """One component of 16 pixels, with or without correlations."""
    root = 0.4 * normal(16, 16, seed=5)
    cov = torch.diag(0.02 + root[0].square()) if diagonal else root @ root.T / 4
    return mixture_from_covariances(torch.ones(1), 0.2 * normal(1, 16), cov[None], (1, 4, 4))


def exact(prior: GaussianMixture, x: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """x(target) = m + (C + target^2)^(1/2) (C + sigma^2)^(-1/2) (x - m)."""
    basis, values = prior.bases[0], prior.values[0]
    stretch = ((values + target**2) / (values + sigma**2)).sqrt()
    return (prior.means[0] + basis @ (stretch * (basis.T @ (x.flatten() - prior.means[0])))).view_as(x)


def test_the_curve_is_followed(places: ModuleType) -> None:
    prior, x, (a, b) = gaussian(False), normal(1, 1, 4, 4), torch.tensor([1.3, 0.4], dtype=torch.float64)
    close(places.along(prior, x, a, b, 64), exact(prior, x[0], a, b)[None], "curve", 1e-4)


def test_the_whole_matrix_takes_the_second_order_away(places: ModuleType) -> None:
    """Half a step leaves a quarter of the error of a straight one, and an eighth of the bent one's."""
    prior, x, sigma = gaussian(False), normal(1, 1, 4, 4), torch.tensor(0.6, dtype=torch.float64)
    before = (torch.zeros_like(x), torch.tensor(torch.inf).double())
    bends = places.bends(prior, x, sigma, before)
    close(bends["true curvature"], bends["whole matrix"], "x'' of a Gaussian", 1e-5)
    straight, bent = [], []
    for target in (sigma - 0.02, sigma - 0.01):
        missing = exact(prior, x[0], sigma, target) - x - (target - sigma) * (x - places.answer(prior, x, sigma)) / sigma
        straight.append(missing.norm().item())
        bent.append((missing - places.bend(bends["whole matrix"], sigma, target)).norm().item())
    assert straight[0] / straight[1] == pytest.approx(4, abs=0.2)
    assert bent[0] / bent[1] == pytest.approx(8, abs=0.4)


@pytest.mark.parametrize("eta", [0.0, 0.85])
def test_the_host_takes_the_step(places: ModuleType, eta: float) -> None:
    """Nothing measured, pixels independent, the exact map: beyond its fresh noise, the error falls with the third power."""
    prior, noise = gaussian(True), Noise(source=lambda key, shape: torch.zeros(shape))
    nothing = inpainting(torch.zeros(1, 1, 4, 4, dtype=torch.bool), (1, 4, 4), normal(1))
    problem = Problem(nothing(normal(1, 1, 4, 4)), nothing, torch.zeros(1, dtype=torch.float64))
    sampler, oracle = places.SecondOrder(DDNM(eta_ddim=eta)), prior.prior()
    lengths, errors = [], []
    for t in (306, 304) if eta == 0 else (301,):
        belief: Belief = oracle(normal(1, 1, 4, 4), torch.tensor([t]))
        cov, s = prior.covariance(belief.xbar[0], belief.sigma.reshape(())).diagonal(), torch.tensor([300])
        _, carry = sampler.init(problem, noise)
        step = sampler.step(replace(belief, variance=cov.view(1, 1, 4, 4)), s, problem, noise, carry)
        target, abar = (1 - eta**2) ** 0.5 * oracle.schedule.sigma(s, belief.x0), oracle.schedule.abar(s, belief.x0)
        truth = exact(prior, belief.xbar[0], belief.sigma.reshape(()), target.reshape(()))
        lengths.append((belief.sigma - target).item())
        errors.append((step.x / abar.sqrt() - truth).norm().item())
        straight = DDNM(eta_ddim=eta).step(belief, s, problem, noise, carry).x / abar.sqrt()
        assert errors[-1] < 0.5 * (straight - truth).norm().item()
    if eta == 0:
        assert math.log(errors[0] / errors[1]) / math.log(lengths[0] / lengths[1]) == pytest.approx(3, abs=0.3)


def test_the_trials_run(places: ModuleType) -> None:
    """Every variant, on a mixture, in three steps; names are unique and controls come before what they control."""
    problem, prior, seen = problem_of("sr4@0.05"), image_mixture(SIZE).prior(together=True), []
    for variant in places.variants({1, 2, 3, 4}):
        seen.append(variant.name)
        assert variant.base in seen and variant.control in seen
        plugins: dict[str, Any] = variant.plugins
        result = restore(problem, prior, variant.sampler(DDNMPlus()), grid=3, **plugins)
        assert bool(torch.isfinite(result.image).all()) and result.nfe.tolist() == [3, 3]
    assert len(seen) == len(set(seen)) and {v.plugins.get("covariance") for v in places.variants({3})} == {
        None,
        RunningSecant(),
    }


def test_the_table_is_that_of_its_photographs(places: ModuleType) -> None:
    """The rows of one host, and one row with frontiers."""
    folder = ROOT / "benchmarks" / "results"
    photos, table = pd.read_csv(folder / "places_photos.csv"), pd.read_csv(folder / "places.csv")
    found = places.summary(photos[photos["host"] == "ddpg"])
    committed = table[table["host"] == "ddpg"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, committed, check_dtype=False, atol=2e-5)
    cell = photos[(photos["host"] == "ddnm") & (photos["task"] == "sr4@0.05") & (photos["grid"] == 100)]
    row = places.row_of(cell[cell["variant"] == "noise, power 1"], cell)
    there = table[(table["host"] == "ddnm") & (table["task"] == "sr4@0.05") & (table["variant"] == "noise, power 1")].iloc[0]
    assert all(there[name] == pytest.approx(value, abs=2e-5) for name, value in row.items())
    assert (table["n"] == 12).all() and len(table) == len(photos) / 12

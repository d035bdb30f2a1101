"""The map inside the likelihood: dense solutions, the constant map, and the laws of a plug-in."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from laws import belief_at, close, normal, same
from leader_nb import DDNM, Chain, MapLikelihood, noise_for, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.errors import InputError
from leader_nb.likelihood import scaled
from leader_nb.mixture import image_mixture
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.ucpm import UCPM

TASKS = ("sr4@0.05", "gaussian@0.1", "inpaint70@0.05", "color@0.05", "pool4@0", "sr4@0", "denoise@0.1")


def setup(task: str, batch: int = 2) -> tuple[Problem, Tensor, Tensor]:
    """A problem on 8 x 8 colour images, an x0 and a map that varies by a factor of hundred."""
    problem = parse_task(task).measure(0.4 * normal(batch, 3, 8, 8))
    return problem, 0.4 * normal(batch, 3, 8, 8, seed=1), 10 ** normal(batch, 3, 8, 8, seed=2).clamp(-1, 1) / 20


def at(x0: Tensor) -> Belief:
    """A belief in x0; what it was noised from plays no part."""
    prior = image_mixture(x0.shape[-1], x0.shape[1]).prior()
    return replace(belief_at(prior, x0, 300), x0=x0)


def dense(problem: Problem, x0: Tensor, w: Tensor) -> Tensor:
    """x0 + W A^T (A W A^T + sigma_y^2 I)^+ (y - A x0), with matrices, image by image."""
    out = []
    basis = torch.eye(x0[0].numel(), dtype=x0.dtype).view(-1, *x0.shape[1:])
    for i in range(len(x0)):
        one = problem.rows(torch.tensor([i]))
        A = torch.cat([one.operator(e[None]).flatten(1) for e in basis]).T
        seen = torch.linalg.matrix_rank(A) < len(A)
        system = A * w[i].flatten() @ A.T + one.sigma_y.item() ** 2 * (A @ torch.linalg.pinv(A) if seen else torch.eye(len(A)))
        step = w[i].flatten() * (
            A.T @ (torch.linalg.pinv(system, rcond=1e-12) @ (one.y - one.operator(x0[i : i + 1])).flatten())
        )
        out.append(x0[i] + step.view_as(x0[i]))
    return torch.stack(out)


@pytest.mark.parametrize("task", TASKS)
def test_it_is_the_dense_posterior_mean(task: str) -> None:
    problem, x0, cov = setup(task)
    got = MapLikelihood(iterations=150)(at(x0), cov, problem).x0
    close(got, dense(problem, x0, cov), f"map likelihood on {task}", 1e-6)


@pytest.mark.parametrize("task", TASKS)
def test_a_constant_map_takes_one_iteration(task: str) -> None:
    """Then it is the spectral prox, and without noise the orthogonal projection of the host."""
    problem, x0, _ = setup(task)
    got = MapLikelihood(iterations=1)(at(x0), torch.full_like(x0, 0.3), problem).x0
    close(got, problem.operator.prox(x0, problem.y, problem.noise_level**2 / 0.3), "constant map", 1e-10)
    if not problem.sigma_y.any():
        close(got, problem.operator.pinv(problem.y) + problem.operator.null(x0), "projection", 1e-10)


def test_unsure_pixels_move_most() -> None:
    """Four pixels, one average: the correction is shared out in proportion to the variance."""
    problem = parse_task("pool4@0").measure(torch.ones(1, 1, 4, 4, dtype=torch.float64))
    cov = torch.arange(1, 17, dtype=torch.float64).view(1, 1, 4, 4) / 100
    x0 = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    got = MapLikelihood(iterations=30)(at(x0), cov, problem).x0
    close(got, cov / cov.mean(), "shares", 1e-10)


def test_noise_free_restorations_explain_the_measurement() -> None:
    problem = parse_task("pool4@0").measure(0.3 * normal(2, 1, 8, 8))
    plugins = {"covariance": RunningSecant(), "modulate": Chain((UCPM(), MapLikelihood()))}
    assert problem.residual(restore(problem, image_mixture(8).prior(), DDNM(), grid=20, **plugins).image).max() < 1e-10


def test_power_zero_on_a_noise_free_measurement_is_the_host() -> None:
    problem, prior = parse_task("pool4@0").measure(0.3 * normal(2, 1, 8, 8)), image_mixture(8).prior()
    plugins = {"covariance": RunningSecant(), "modulate": MapLikelihood(power=0.0)}
    with_it, without = (restore(problem, prior, DDNM(), grid=20, **p).image for p in (plugins, {}))
    close(with_it, without, "constant map", 1e-10)


def test_an_image_does_not_depend_on_its_batch() -> None:
    problem, x0, cov = setup("sr4@0.05", batch=3)
    step = MapLikelihood()
    together = step(at(x0), cov, problem).x0
    for i in range(3):
        row = torch.tensor([i])
        alone = step(at(x0[row]), cov[row], problem.rows(row)).x0
        same(alone, together[row], "batch of one")


@pytest.mark.parametrize("power", [0.3, 1.5])
def test_a_power_of_the_map_does_not_depend_on_the_batch_at_odd_sizes(power: float) -> None:
    """A vector's last entries may round differently; at 3 x 7 x 9 they are another image's in another batch."""
    for dtype, seed in product((torch.float32, torch.float64), range(10)):
        cov = normal(3, 3, 7, 9, seed=seed).abs().to(dtype) + 1e-3
        together = scaled(cov, power)
        for i in range(3):
            same(scaled(cov[i : i + 1], power), together[i : i + 1], f"image {i}, seed {seed}")


def test_a_measurement_already_explained_moves_nothing() -> None:
    problem, x0, cov = setup("sr4@0")
    explained = replace(problem, y=problem.operator(x0))
    got = MapLikelihood()(at(x0), cov, explained).x0
    close(got, x0, "no residual", 1e-12)


def test_chain_runs_in_order() -> None:
    problem, x0, cov = setup("sr4@0.05")
    belief, first, second = at(x0), UCPM(), MapLikelihood()
    same(Chain((first, second))(belief, cov, problem).x0, second(first(belief, cov, problem), cov, problem).x0, "chain")
    assert restore(problem, image_mixture(8, 3).prior(), DDNM(), grid=4, noise=noise_for(2)).image.isfinite().all()


@pytest.mark.parametrize("options", [{"iterations": 0}, {"power": -1.0}, {"power": 3.0}])
def test_bad_input(options: dict) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        MapLikelihood(**options)

"""What a measurement leaves open: against dense matrices, and where it must change nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from laws import close, normal, same
from leader_nb import DDNM, noise_for, parse_task, restore
from leader_nb.conditioning import LeftOpen, left_open
from leader_nb.covariance import RunningSecant
from leader_nb.mixture import image_mixture
from leader_nb.problem import Problem
from leader_nb.ucpm import UCPM, HuberTV

NOISY = ("sr4@0.05", "pool4@0.05", "gaussian@0.1", "inpaint70@0.05", "denoise@0.1")


def dense(problem: Problem, cov: Tensor) -> Tensor:
    """diag(Sigma - Sigma A^T (A Sigma A^T + sigma_y^2 I)^+ A Sigma), image by image."""
    basis, out = torch.eye(cov[0].numel(), dtype=cov.dtype).view(-1, *cov.shape[1:]), []
    for i in range(len(cov)):
        one = problem.rows(torch.tensor([i]))
        A = torch.cat([one.operator(e[None]).flatten(1) for e in basis]).T
        sigma = torch.diag(cov[i].flatten())
        system = A @ sigma @ A.T + one.sigma_y.item() ** 2 * torch.eye(len(A), dtype=A.dtype)
        left = sigma - sigma @ A.T @ torch.linalg.pinv(system, rtol=1e-12) @ A @ sigma
        out.append(left.diagonal().view_as(cov[i]))
    return torch.stack(out)


def problem_of(task: str) -> Problem:
    return parse_task(task).measure(0.4 * normal(2, 3, 8, 8))


def uneven() -> Tensor:
    return 10 ** normal(2, 3, 8, 8, seed=2).clamp(-1, 1) / 20


@pytest.mark.parametrize("task", (*NOISY, "sr4@0", "pool4@0", "inpaint70@0"))
def test_of_a_flat_map_it_is_the_dense_diagonal(task: str) -> None:
    problem, flat = problem_of(task), torch.tensor([0.3, 0.02], dtype=torch.float64).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    close(left_open(flat, problem), dense(problem, flat), task, 1e-8)


@pytest.mark.parametrize("task", ["inpaint70@0.05", "inpaint70@0", "denoise@0.1"])
def test_of_a_mask_it_is_the_dense_diagonal_for_any_map(task: str) -> None:
    problem = problem_of(task)
    close(left_open(uneven(), problem), dense(problem, uneven()), task, 1e-9)


@pytest.mark.parametrize("task", [*NOISY, "cs25@0.05", "color@0"])
def test_it_lies_between_nothing_and_the_map(task: str) -> None:
    size = 32 if task.startswith("cs") else 8
    problem = parse_task(task).measure(0.4 * normal(2, 3, size, size))
    cov = 0.02 + normal(2, 3, size, size).square()
    left = left_open(cov, problem)
    assert bool(((left >= -1e-12) & (left <= cov * (1 + 1e-9))).all())
    assert (left.mean() < 0.999 * cov.mean()).item(), "the measurement says nothing"


def test_more_noise_leaves_more_open() -> None:
    low, high = (left_open(uneven(), problem_of(task)) for task in ("sr4@0.01", "sr4@0.2"))
    assert bool((low < high).all())


def test_an_image_does_not_depend_on_its_batch() -> None:
    problem, cov = problem_of("sr4@0.05"), uneven()
    row = torch.tensor([1])
    same(left_open(cov[row], problem.rows(row)), left_open(cov, problem)[row], "batch of one")


@pytest.mark.parametrize("task", ["inpaint70@0", "sr4@0"])
def test_in_ucpm_it_changes_nothing_on_a_noise_free_mask(task: str) -> None:
    """There measured pixels are put back by the host; where pixels are mixed it does change the result."""
    problem, prior = parse_task(task).measure(0.3 * normal(2, 1, 8, 8)), image_mixture(8).prior()
    smooth = UCPM(HuberTV(0.5))
    plain, told = (
        restore(problem, prior, DDNM(), grid=10, noise=noise_for(2), covariance=RunningSecant(), modulate=m).image
        for m in (smooth, LeftOpen(smooth))
    )
    gap = (plain - told).abs().max().item()
    assert (gap < 1e-12) == (task == "inpaint70@0"), gap

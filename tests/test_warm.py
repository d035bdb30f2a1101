"""Hosts that begin at the measurement."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from laws import normal, same
from leader_nb import DDNM, leader, noise_for, parse_task, restore
from leader_nb.errors import InputError
from leader_nb.mixture import image_mixture
from leader_nb.samplers.warm import WarmStart, warm_start
from leader_nb.schedule import Schedule

PROBLEM = parse_task("pool4@0").measure(0.3 * normal(3, 1, 8, 8))
PRIOR = image_mixture(8).prior()


def test_it_begins_at_the_diffused_measurement() -> None:
    host, grid = warm_start(DDNM(), 0.5, 10)
    abar = Schedule().table()[grid[0] + 1]
    x, carry = host.init(PROBLEM, noise_for(3))
    z, _ = DDNM().init(PROBLEM, noise_for(3))
    assert torch.allclose(x, abar.sqrt() * PROBLEM.operator.pinv(PROBLEM.y) + (1 - abar).sqrt() * z, atol=1e-14)
    assert ((1 - abar) / abar).sqrt().item() == pytest.approx(0.5, rel=0.01)
    assert len(grid) == 10 and grid[-1] == 0 and list(grid) == sorted(grid, reverse=True)
    assert torch.equal(carry["seen"], PROBLEM.operator.pinv(PROBLEM.y))


def test_at_no_signal_it_is_the_host() -> None:
    same(
        restore(PROBLEM, PRIOR, WarmStart(DDNM(), 0.0), grid=8).image,
        restore(PROBLEM, PRIOR, DDNM(), grid=8).image,
        "no signal at the start",
    )


def test_it_runs_with_leader_and_explains_the_measurement() -> None:
    host, grid = warm_start(DDNM(), 0.5, 12)
    result = restore(PROBLEM, PRIOR, host, grid=grid, **leader())
    assert PROBLEM.residual(result.image).max() < 1e-12 and (result.nfe <= 12).all()


def test_an_image_does_not_depend_on_its_batch() -> None:
    host, grid = warm_start(DDNM(), 0.5, 6)
    together = restore(PROBLEM, PRIOR, host, grid=grid).image
    for i in range(3):
        rows = PROBLEM.rows(torch.tensor([i]))
        same(
            restore(rows, PRIOR, host, grid=grid, noise=replace(noise_for(1), ids=(i,))).image,
            together[i : i + 1],
            "batch of one",
        )


@pytest.mark.parametrize(
    ("sigma", "steps", "message"), [(0.0, 5, "sigma"), (-1, 5, "sigma"), (0.5, 0, "steps"), (0.01, 50, "steps")]
)
def test_bad_input(sigma: float, steps: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        warm_start(DDNM(), sigma, steps)

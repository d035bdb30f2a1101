"""The schedule against published values, and the grids."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from laws import close, normal, same
from leader_nb.errors import InputError
from leader_nb.schedule import Schedule, check_grid, least_noisy_grid, log_snr_grid, uniform_grid

TIMES = torch.tensor([0, 10, 20, 50, 100, 200, 300, 500, 900, 990, 999])
ABAR = [
    0.9999,
    0.997806,
    0.993735,
    0.969951,
    0.895141,
    0.656347,
    0.394011,
    0.0777967,
    2.70244e-4,
    4.83705e-5,
    4.03583e-5,
]
SIGMA = [0.01, 0.04689, 0.0794, 0.17601, 0.34226, 0.72359, 1.24016, 3.44297, 60.82, 143.78, 157.41]


def test_golden_table() -> None:
    """abar and sigma_bar to the digits that are printed."""
    like = normal(1)
    abar, sigma = Schedule().abar(TIMES, like), Schedule().sigma(TIMES, like)
    torch.testing.assert_close(abar.flatten(), torch.tensor(ABAR, dtype=like.dtype), rtol=2e-6, atol=1e-9)
    torch.testing.assert_close(sigma.flatten(), torch.tensor(SIGMA, dtype=like.dtype), rtol=1e-4, atol=0)


def test_abar_is_the_running_product_of_one_minus_beta() -> None:
    abar = Schedule().table()
    betas = 1e-4 + (0.02 - 1e-4) * torch.arange(1000, dtype=torch.float64) / 999
    close(abar[1:] / abar[:-1], 1 - betas, "abar_t / abar_{t-1} = 1 - beta_t", 1e-13)


def test_clean_image_is_time_minus_one() -> None:
    minus_one = torch.tensor([-1])
    assert Schedule().abar(minus_one, normal(1)).item() == 1 and Schedule().sigma(minus_one, normal(1)).item() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_lookups_are_float64_cast_once(dtype: torch.dtype) -> None:
    """(B,) times -> (B, 1, 1, 1) in the dtype of the image; sigma is not computed from a rounded abar."""
    like = torch.empty(0, dtype=dtype)
    exact = Schedule().table()[TIMES + 1]
    same(Schedule().abar(TIMES, like), exact.to(dtype).view(-1, 1, 1, 1), "abar")
    same(Schedule().sigma(TIMES, like), ((1 - exact) / exact).sqrt().to(dtype).view(-1, 1, 1, 1), "sigma")


def test_nearest_time_inverts_sigma() -> None:
    """nearest_time(sigma_bar(t)) = t for every t, and is nearest on a log scale in between."""
    sigma = Schedule().sigma(torch.arange(1000), normal(1)).flatten()
    assert [Schedule().nearest_time(s) for s in sigma[::37].tolist()] == list(range(0, 1000, 37))
    between = (sigma[500] * sigma[501]).sqrt().item()
    assert (Schedule().nearest_time(between * 0.9999), Schedule().nearest_time(between * 1.0001)) == (500, 501)
    assert (Schedule().nearest_time(1e-9), Schedule().nearest_time(1e9)) == (0, 999)


def test_common_grid() -> None:
    assert uniform_grid(100) == tuple(range(990, -1, -10))
    assert uniform_grid(20) == tuple(round(990 * k / 19) for k in range(19, -1, -1))
    assert uniform_grid(1) == (990,) and uniform_grid(2) == (990, 0) and uniform_grid(1000) == tuple(range(999, -1, -1))


def test_every_grid_falls_without_repeats_to_zero() -> None:
    for steps in range(1, 1001):
        grid = uniform_grid(steps)
        assert len(grid) == steps and all(a > b for a, b in itertools.pairwise(grid)), steps
        assert steps == 1 or grid[-1] == 0


def test_short_schedules_have_grids() -> None:
    schedule = Schedule(length=50)
    assert uniform_grid(50, schedule) == tuple(range(49, -1, -1)) and check_grid(5, schedule)[0] == 49


@pytest.mark.parametrize(
    "grid", [0, -1, 1001, (), (10, 20), (1000, 0), (5, -1), (9.5, 0), (math.nan, 0), (math.inf, 0), ("9", 0)]
)
def test_bad_grids_are_refused(grid: int | tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\A[^\n]*(steps|grid): got"):
        check_grid(grid, Schedule())


def test_log_snr_grid_has_even_ratios() -> None:
    """T = 20: from 990 to 0, and each noise level the same multiple of the next, as far as whole times allow."""
    grid = torch.tensor(log_snr_grid(20))
    assert grid[0] == 990 and grid[-1] == 0 and len(grid) == 20
    steps = Schedule().sigma(grid, torch.zeros(0).double()).flatten().log().diff()
    ideal = steps.sum() / 19
    assert (steps[:15] / ideal - 1).abs().max() < 0.05 and (steps < 0).all()


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 100, 400, 1000])
def test_log_snr_grids_fall_without_repeats(steps: int) -> None:
    grid = log_snr_grid(steps)
    assert len(grid) == steps and all(a > b for a, b in itertools.pairwise(grid)) and grid[0] == uniform_grid(steps)[0]
    assert steps == 1 or grid[-1] == 0
    assert check_grid(grid, Schedule()) == grid


def test_log_snr_grid_of_a_short_schedule() -> None:
    grid = log_snr_grid(10, Schedule(length=50))
    assert grid[0] == 49 and grid[-1] == 0 and all(a > b for a, b in itertools.pairwise(grid))


def test_least_noisy_grid_is_the_end_of_the_uniform_one() -> None:
    assert least_noisy_grid(3) == (20, 10, 0) and least_noisy_grid(100) == uniform_grid(100)
    assert least_noisy_grid(5, 20) == uniform_grid(20)[-5:]
    for count in (0, 101, -1):
        with pytest.raises(InputError, match=r"\Acount: got"):
            least_noisy_grid(count)

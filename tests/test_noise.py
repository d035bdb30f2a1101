"""Noise is a function of its key, and measurements carry the noise they say."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from laws import close, normal, same, unchanged
from leader_nb.errors import InputError
from leader_nb.noise import Noise, keyed_normal, noise_for
from leader_nb.operators import denoising
from leader_nb.problem import Problem, measure
from leader_nb.tasks import FARTHEST, TASKS, parse_task

LIKE = normal(3, 2, 4, 4)


def at(noise: Noise, t: int, visit: int = 0) -> Noise:
    return noise.at(torch.full((len(noise.ids),), t), torch.full((len(noise.ids),), visit))


def test_a_key_gives_one_draw_whatever_came_before() -> None:
    first = keyed_normal((0, 1, "step", 5, 0), (2, 3))
    torch.manual_seed(5)
    torch.randn(7)
    same(keyed_normal((0, 1, "step", 5, 0), (2, 3)), first, "pure")


@pytest.mark.parametrize("shape", [(1,), (3, 5), (17,), (1, 2, 8), (3, 7, 11), (3, 20, 12)])
def test_a_batch_of_draws_is_the_draws_one_by_one(shape: tuple[int, ...]) -> None:
    """Written into one tensor, with one generator: the bits of a generator and a tensor for each."""
    noise = at(noise_for(4, seed=2), 5)
    keys = [(2, i, "step", 5, 0) for i in range(4)]
    apart = []
    for key in keys:
        seed = int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "little") >> 1
        apart.append(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))
    same(noise("step", torch.empty(4, *shape)), torch.stack(apart), "batch")
    same(keyed_normal(keys[3], shape), apart[3], "alone")


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    keyed_normal((0,), (100,))
    same(torch.randn(3), expected, "global generator")


def test_every_part_of_the_key_matters() -> None:
    """Seed, id, role, target time and visit: change one and every value changes."""
    base = at(noise_for(3, seed=0), 500)("step", LIKE)
    others = [
        at(noise_for(3, seed=1), 500)("step", LIKE),
        at(noise_for(3, seed=0, ids=(3, 4, 5)), 500)("step", LIKE),
        at(noise_for(3, seed=0), 500)("x_T", LIKE),
        at(noise_for(3, seed=0), 490)("step", LIKE),
        at(noise_for(3, seed=0), 500, visit=1)("step", LIKE),
        noise_for(3, seed=0)("step", LIKE),
    ]
    assert all((other != base).all() for other in others)
    assert len({tuple(row.flatten().tolist()) for row in base}) == 3


def test_an_image_keeps_its_noise_in_any_batch() -> None:
    noise = noise_for(3, seed=2)
    index = torch.tensor([2, 0])
    same(at(noise.rows(index), 10)("step", LIKE[index]), at(noise, 10)("step", LIKE)[index], "rows")
    same(noise_for(1, 2, ids=[2])("step", LIKE[:1]), noise("step", LIKE)[2:], "ids")


def test_every_dtype_has_the_same_noise() -> None:
    same(noise_for(3)("step", LIKE.float()).double(), noise_for(3)("step", LIKE), "float32 and float64")


def test_numbers_from_numpy_are_numbers() -> None:
    """Seeds and ids read from a table are the ids they look like."""
    ours = noise_for(3, seed=np.int64(4), ids=np.arange(3))
    same(ours("step", LIKE), noise_for(3, seed=4)("step", LIKE), "numpy ids")


def test_draws_are_standard_normal() -> None:
    z = torch.cat([keyed_normal((s, "moments"), (4000,)) for s in range(25)]).double()
    assert abs(z.mean()) < 5 / 1e5**0.5 and abs(z.var() - 1) < 5 * (2 / 1e5) ** 0.5 and abs(z.pow(4).mean() - 3) < 0.16


def test_one_id_for_each_image() -> None:
    with pytest.raises(InputError, match="2 image ids, the batch has 3 images"):
        noise_for(2)("step", LIKE)


def test_noise_can_be_replaced() -> None:
    """`source(key, shape)` sees (seed, id, role, time, visit)."""
    keys = []
    noise = Noise(7, (3, 9), source=lambda key, shape: keys.append(key) or torch.zeros(shape))
    at(noise, 40, visit=1)("step", LIKE[:2])
    assert keys == [(7, 3, "step", 40, 1), (7, 9, "step", 40, 1)]


# --- y = A x + sigma_y z -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TASKS)
def test_a_measurement_is_the_image_degraded_plus_its_noise(text: str) -> None:
    """y - A x is twice sigma times keyed normals on measured slots, and zero elsewhere; sigma_y is doubled once."""
    task, x = parse_task(text), normal(3, 3, 8, 8)
    problem = task.measure(x, seed=4)
    op = problem.operator
    z = op.on_measured(noise_for(3, seed=4)("measurement", op(x)))
    close(problem.y, op(x) + 2 * task.sigma * z, "y", 1e-13)
    assert problem.sigma_y.tolist() == [2 * task.sigma] * 3 and problem.sigma_y.dtype == torch.float64
    if task.sigma == 0:
        same(problem.y, op(x), "no noise")


def test_noise_has_its_standard_deviation() -> None:
    """sigma = 0.05 for [0, 1] images is 0.1 for [-1, 1], also in the residual."""
    x = torch.zeros(2, 3, 64, 64, dtype=torch.float64)
    problem = parse_task("inpaint70@0.05").measure(x)
    assert problem.y[problem.y != 0].std().item() == pytest.approx(0.1, rel=0.042)
    assert problem.residual(x).tolist() == pytest.approx([0.1, 0.1], rel=0.06)  # 5 / sqrt(2 n)
    assert not problem.y[~problem.operator.measured.expand_as(problem.y)].any()


@pytest.mark.parametrize("text", TASKS)
def test_an_image_keeps_its_measurement_in_any_batch(text: str) -> None:
    """Mask and noise of image i are those of (seed, id), whoever is measured with it."""
    task, x = parse_task(text), normal(3, 3, 8, 8)
    full, index = task.measure(x, seed=4), torch.tensor([2, 0])
    part = task.measure(x[index], seed=4, ids=index.tolist())
    same(part.y, full.y[index], "y")
    same(full.rows(index).y, part.y, "rows")
    same(full.rows(index).residual(x[index]), full.residual(x)[index], "residual")


def test_measuring_changes_nothing() -> None:
    x = normal(2, 3, 8, 8)
    with unchanged(x):
        parse_task("sr4@0.05").measure(x)


BYTES = (127.5 * (1 + normal(2, 3, 8, 8).clamp(-1, 1))).to(torch.uint8)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (BYTES, r"x: got torch\.uint8; give floating point in \[-1, 1\]: x\.float\(\) / 127\.5 - 1 for bytes"),
        (BYTES.long(), r"x: got torch\.int64; "),
        (BYTES.bool(), r"x: got torch\.bool; "),
        (normal(2, 3, 8, 8) + 0j, r"x: got torch\.complex128; "),
        (normal(3, 8, 8), r"x: got shape \(3, 8, 8\); give images \(B, C, H, W\), such as x\[None\] for one"),
        (normal(8, 8), r"x: got shape \(8, 8\); give images \(B, C, H, W\), such as x\[None, None\] for one of one channel"),
        (normal(1, 2, 3, 8, 8), r"x: got shape \(1, 2, 3, 8, 8\); "),
        (BYTES.numpy(), r"x: got a value of type ndarray; give a tensor \(B, C, H, W\)"),
        (None, r"x: got None; "),
    ],
    ids=lambda value: str(getattr(value, "dtype", "")) + str(tuple(getattr(value, "shape", ""))),
)
def test_what_is_no_batch_of_images_is_refused(x: object, message: str) -> None:
    """Before an operator is built in its type, which would round the spectrum to whole numbers."""
    for text in ("gaussian@0.05", "inpaint70@0", "sr4@0.05"):
        with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
            parse_task(text).measure(x)
    with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
        measure(denoising((3, 8, 8), LIKE), x, 0.05, noise_for(2))


def test_an_operator_is_built_in_floating_point() -> None:
    with pytest.raises(InputError, match=r"\Alike: got torch\.uint8; [^\n]*\Z"):
        parse_task("gaussian@0").operator((3, 8, 8), BYTES)


@pytest.mark.parametrize("text", ["gaussian@0.05", "inpaint70@0", "cs25@0.05"])
def test_pixels_up_to_255_are_refused_and_their_remedy_works(text: str) -> None:
    """Draws that leave [-1, 1] are not: normals and mixtures are measured too. What the operator is given is free."""
    task, x = parse_task(text), BYTES.double()
    for wrong, largest in ((x, x.max()), (-x, x.max()), (2 * x / 255 * FARTHEST, 2 * x.max() / 255 * FARTHEST)):
        said = f"{largest.item():g}"
        with pytest.raises(
            InputError, match=rf"\Ax: \|x\| reaches {said}; images are in \[-1, 1\]: use x / 127\.5 - 1 [^\n]*\Z"
        ):
            task.measure(wrong)
    assert task.measure(x / 127.5 - 1).residual(x / 127.5 - 1).max() < 0.2
    for fine in (5 * normal(2, 3, 8, 8).clamp(-2, 2), torch.full((1, 3, 8, 8), FARTHEST)):
        assert len(task.measure(fine)) == len(fine)
    same(measure(denoising((3, 8, 8), x), x, 0.0, noise_for(2)).y, x, "any range")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_images_that_are_not_finite_are_refused_as_that(value: float) -> None:
    """Not as being out of range, also where NaN hides a number that is."""
    x = normal(2, 3, 8, 8)
    x[1, 0, 2, 2] = value
    for text in ("gaussian@0.05", "inpaint70@0", "denoise@0"):
        with pytest.raises(InputError, match=r"\A[xy]: [^\n]*NaN or infinite[^\n]*\Z"):
            parse_task(text).measure(x)


def test_images_of_another_size_than_the_operator_are_refused() -> None:
    with pytest.raises(InputError, match=r"\Ax: got shape \(2, 3, 8, 8\); this operator takes \(B, 3, 8, 4\)\Z"):
        measure(denoising((3, 8, 4), LIKE), normal(2, 3, 8, 8), 0.0, noise_for(2))


@pytest.mark.parametrize("sigma", [-0.1, float("nan"), float("inf"), "0.1", None])
def test_bad_sigmas_are_refused(sigma: object) -> None:
    with pytest.raises(InputError, match=r"\Asigma: got [^\n]*\Z"):
        measure(denoising((2, 4, 4), LIKE), LIKE, sigma, noise_for(3))


def test_bad_measurements_are_refused() -> None:
    """Wrong shape, values that are not finite, one sigma too few or below zero: one line each."""
    op, sigma = denoising((2, 4, 4), LIKE), torch.zeros(3, dtype=torch.float64)
    holes = LIKE.clone()
    holes[1, 0, 2, 2] = float("nan")
    for y, s, name in [
        (holes, sigma, "y"),
        (LIKE[:, :1], sigma, "y"),
        (LIKE, sigma[:2], "sigma_y"),
        (LIKE, sigma - 1, "sigma_y"),
        (LIKE, sigma + float("nan"), "sigma_y"),
        (LIKE, sigma + float("inf"), "sigma_y"),
        (LIKE, 0.1, "sigma_y"),
        (LIKE, [0.1, 0.1, 0.1], "sigma_y"),
        (LIKE.to(torch.uint8), sigma, "y"),
        (LIKE.numpy(), sigma, "y"),
    ]:
        with pytest.raises(InputError, match=rf"\A{name}: [^\n]*\Z"):
            Problem(y, op, s)
    with pytest.raises(InputError, match=r"\Aoperator: got None; [^\n]*\Z"):
        Problem(LIKE, None, sigma)  # type: ignore[arg-type]

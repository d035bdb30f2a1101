"""Motion blur, compressed sensing, the blurs of other codes, matrices; what is saved of them; and how a rank is told."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from laws import (
    check_constant_gain,
    check_data_consistency,
    check_dense,
    check_grey_in_grey_out,
    check_operator,
    close,
    normal,
    same,
)
from leader_nb import DDNM, Prior, cli, parse_task, pipeline
from leader_nb.data import save_image
from leader_nb.errors import InputError
from leader_nb.measurement import load_measurement, save_measurement
from leader_nb.networks import Denoiser
from leader_nb.networks.files import save_denoiser
from leader_nb.operators import (
    BlockProjection,
    Operator,
    bicubic,
    blur,
    circular_bicubic,
    convolution,
    dense,
    gaussian_kernel,
    motion_kernel,
    walsh_hadamard,
)
from leader_nb.operators.convolution import gaussian_line, wide_gaussian_line
from leader_nb.operators.hadamard import hadamard, power_above, power_below
from leader_nb.operators.motion import COUNT, PATHS, drawn_number, random_path, stored_paths
from leader_nb.operators.separable import BORDERS, border_matrix
from leader_nb.tasks import TASKS, VARIANTS, Task

LIKE = normal(0)
BLURS = ["motion", "motion8", "gaussian-wide", "gaussian-reflect", "uniform", "anisotropic"]
SMALL = [*BLURS, "gaussian-zero", "gaussian-short", "sr-circular4", "sr-circular2", "cs25", "cs60"]


def build(name: str, shape: tuple[int, int, int], seed: int = 5, ids: tuple[int, ...] = (0, 1, 2), like=LIKE) -> Operator:
    return Task(name, 0.0).operator(shape, like, seed, ids)


# --- The laws ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 16, 8), (1, 32, 64)], ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_laws(name: str, shape: tuple[int, int, int]) -> None:
    """Linear, adjoint, Penrose, isometries, slots, null space, prox, rows, purity."""
    check_operator(build(name, shape))


@pytest.mark.parametrize("name", SMALL)
def test_dense(name: str) -> None:
    check_dense(build(name, (3, 8, 8)))
    check_dense(build(name, (1, 16, 8)))


def test_laws_of_patches() -> None:
    """32 x 32 patches, and by the dense matrix with patches of 4 x 4."""
    check_operator(build("blockcs25", (1, 32, 64)))
    basis = torch.linalg.qr(normal(16, 16)).Q
    keep = (torch.arange(16) < 5).view(4, 4).repeat(2, 3)[None, None]
    op = BlockProjection(keep.double(), keep, (2, 8, 12), basis)
    check_operator(op)
    check_dense(op)
    x = normal(1, 2, 8, 12)
    close(op.Vt(x)[0, 1, 4:, 8:].flatten(), basis @ x[0, 1, 4:, 8:].flatten(), "the last patch of the second channel")


@pytest.mark.parametrize("rows", [1, 20, 48])
def test_laws_of_a_matrix(rows: int) -> None:
    matrix = normal(rows, 48)
    matrix[rows // 2 :] = matrix[0] * normal(rows - rows // 2)[:, None]  # rank rows // 2, or 1
    op = dense(matrix, (3, 4, 4), LIKE)
    assert op.rank == max(1, rows // 2) and op.measurement_shape == (1, 1, rows)
    check_operator(op)
    check_dense(op)
    x = normal(2, 3, 4, 4)
    close(op(x).flatten(1), x.flatten(1) @ matrix.T, "M x")


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 32, 48), (1, 256, 256)], ids=str)
@pytest.mark.parametrize("name", [*BLURS, "sr-circular4"])
def test_constant_gain(name: str, shape: tuple[int, int, int]) -> None:
    """A 1 = 1, also where borders are mirrored: there only to the rank tolerance, as a constant is no singular vector."""
    op = build(name, shape, ids=(0,))
    if name == "gaussian-reflect":
        ones = torch.ones(1, *shape, dtype=torch.float64)
        close(op(ones), ones, "constant gain", op.tolerance)
    else:
        check_constant_gain(op)


@pytest.mark.parametrize("name", [*SMALL, "blockcs25"])
def test_grey_in_grey_out(name: str) -> None:
    check_grey_in_grey_out(build(name, (3, 32, 32)))


@pytest.mark.parametrize("name", ["motion", "cs25", "gaussian-zero"])
def test_float32_is_float64_rounded(name: str) -> None:
    op, exact = build(name, (3, 32, 32), like=LIKE.float()), build(name, (3, 32, 32))
    x = normal(3, 3, 32, 32)
    close(op(x.float()).double(), exact(x), "A in float32", 1e-5)
    close(op.T(op(x.float())).double(), exact.T(exact(x)), "A^T A in float32", 1e-5)


@pytest.mark.parametrize("task", ["motion@0", "cs25@0", "gaussian-zero@0", "sr-circular4@0"])
def test_ddnm_agrees_with_the_data(task: str, exact: Prior, samples: torch.Tensor) -> None:
    check_data_consistency(DDNM(), parse_task(task).measure(samples[:2]), exact, grid=4)


# --- Walsh-Hadamard ------------------------------------------------------------------------------------------------


def sylvester(size: int) -> torch.Tensor:
    """[[H, H], [H, -H]] from [[1]]."""
    h = torch.ones(1, 1, dtype=torch.float64)
    while len(h) < size:
        h = torch.cat([torch.cat([h, h], 1), torch.cat([h, -h], 1)])
    return h


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 16), (8, 4), (16, 32)])
def test_the_fast_transform_is_sylvesters_matrix(shape: tuple[int, int]) -> None:
    """Rows of pixels one after the other, divided by sqrt N."""
    x, size = normal(2, 3, *shape), shape[0] * shape[1]
    close(walsh_hadamard(x).flatten(2), x.flatten(2) @ sylvester(size) / size**0.5, "H x / sqrt N", 1e-13)


def test_the_transform_is_its_own_inverse_and_feels_no_batch() -> None:
    x = normal(3, 3, 32, 16)
    close(walsh_hadamard(walsh_hadamard(x)), x, "H H = N", 1e-13)
    close(walsh_hadamard(x).square().sum(), x.square().sum(), "energy", 1e-13)
    same(walsh_hadamard(x)[1:2], walsh_hadamard(x[1:2]), "alone")
    big = normal(1, 1, 256, 256)
    close(walsh_hadamard(walsh_hadamard(big.float())).double(), big, "float32 at 256 x 256", 1e-6)


def test_a_quarter_of_the_coefficients() -> None:
    """256 x 256: 16384 of 65536 in each channel, s = 1; A A^T y = y; A+ = A^T."""
    op = build("cs25", (3, 256, 256), ids=(0,))
    assert op.rank == 49152 == 3 * int(op.measured.sum())
    y = op.on_measured(normal(1, 3, 256, 256))
    close(op(op.T(y)), y, "A A^T = I", 1e-12)
    same(op.pinv(y), op.T(y), "A+ = A^T")


@pytest.mark.parametrize(("percent", "size", "kept"), [(25, 8, 16), (1, 8, 1), (99, 8, 63), (50, 64, 2048), (10, 16, 26)])
def test_slots_keep_their_share_and_the_mean(percent: int, size: int, kept: int) -> None:
    """round(P % of N), the mean among them whatever the seed, alike in all channels, keyed by (seed, id)."""
    for seed in range(40):
        measured = build(f"cs{percent}", (3, size, size), seed, (0, 1)).measured
        assert measured.shape == (2, 1, size, size) and measured.flatten(1).sum(1).tolist() == [kept] * 2
        assert measured[:, 0, 0, 0].all()
    assert percent in (1, 99) or not torch.equal(measured[0], measured[1])
    same(build(f"cs{percent}", (3, size, size), 39, (1,)).measured[0], measured[1], "an image keeps its slots")


def test_every_slot_has_its_chance() -> None:
    """Over 400 images each of 63 slots is kept with probability 15 / 63."""
    often = build("cs25", (1, 8, 8), ids=tuple(range(400))).measured.double().mean(0).flatten()[1:]
    expected = 15 / 63
    assert (often - expected).abs().max() < 4.5 * math.sqrt(expected * (1 - expected) / 400)


def test_devices_and_types_measure_the_same_slots() -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    reference = build("cs25", (3, 16, 16))
    x = normal(3, 3, 16, 16).float()
    for device in devices:
        op = build("cs25", (3, 16, 16), like=x.to(device))
        same(op.measured.cpu(), reference.measured, f"slots on {device}")
        close(op(x.to(device)).cpu().double(), reference(x.double()), f"A x on {device}", 1e-6)


def test_a_flat_image_is_its_mean_coefficient() -> None:
    op = build("cs25", (3, 16, 8))
    flat = torch.full((3, 3, 16, 8), 0.3, dtype=torch.float64)
    y = op(flat)
    close(y[..., 0, 0], torch.full((3, 3), 0.3 * math.sqrt(128), dtype=torch.float64), "sqrt N times the mean", 1e-13)
    close(op.pinv(y), flat, "A+ A x = x", 1e-13)
    assert op.reach >= y.abs().max()


@pytest.mark.parametrize(("sides", "low", "high"), [((24, 32), "16 x 32", "32 x 32"), ((100, 7), "64 x 4", "128 x 8")])
def test_sides_must_be_powers_of_two(sides: tuple[int, int], low: str, high: str) -> None:
    message = rf"\Aimage: sides {sides[0]} x {sides[1]} are not powers of two[^\n]*crop to {low}, or resize to {high}\Z"
    with pytest.raises(InputError, match=message):
        build("cs25", (3, *sides))


def test_patches_must_fit() -> None:
    with pytest.raises(InputError, match=r"\Aimage: sides 48 x 64 are not multiples of 32[^\n]*\Z"):
        build("blockcs25", (3, 48, 64))


def test_powers_of_two() -> None:
    for side in range(1, 300):
        low, high = power_below(side), power_above(side)
        assert low <= side <= high and low & (low - 1) == high & (high - 1) == 0 and 2 * low > side and high < 2 * side


# --- Motion --------------------------------------------------------------------------------------------------------


def test_the_stored_paths_are_those_of_the_recipe() -> None:
    made = torch.stack([random_path(n) for n in range(1, COUNT + 1)])
    close(stored_paths(), made, "paths", 1e-6)
    assert stored_paths().shape == (8, 512, 2)
    assert not torch.allclose(random_path(1, seed=1), random_path(1)), "the seed changes nothing"
    close(made.mean(1), torch.zeros(8, 2, dtype=torch.float64), "centred", 1e-12)
    assert made.abs().amax((1, 2)).tolist() == pytest.approx([12 + 2 * n for n in range(1, 9)])
    with safetensors.safe_open(PATHS, framework="pt") as file:
        assert file.metadata()["seed"] == "2024"


@pytest.mark.parametrize("number", range(1, COUNT + 1))
@pytest.mark.parametrize("side", [8, 64, 256, 400])
def test_kernels_are_light_around_a_centre(number: int, side: int) -> None:
    """Not negative, sum 1, centre of mass in the middle, so that nothing shifts; 61 x 61 at 256."""
    k = motion_kernel(number, (3, side, side + 5))
    q, at = len(k), torch.arange(len(k)).double() - len(k) // 2
    assert k.shape == (q, q) and q == 2 * math.ceil(30 * side / 256) + 1 and (side != 256 or q == 61)
    assert (k >= 0).all() and k.sum().item() == pytest.approx(1, abs=1e-12)
    assert (k.sum(1) @ at).abs() < 1e-6 and (k.sum(0) @ at).abs() < 1e-6


@pytest.mark.parametrize("number", [1, 4, 8])
def test_kernels_scale_with_the_image(number: int) -> None:
    """The second moments are those of the path, times the scale squared, and at most a quarter of a pixel squared more."""
    for side in (16, 64, 256, 1024):
        k, scale = motion_kernel(number, (3, side, side)), side / 256
        at = torch.arange(len(k)).double() - len(k) // 2
        for axis in (0, 1):
            spread, path = k.sum(1 - axis) @ at**2, (stored_paths()[number - 1, :, axis] * scale).square().mean()
            assert 0 <= spread - path <= 0.25, (side, axis, spread, path)


def test_kernels_differ() -> None:
    kernels = torch.stack([motion_kernel(n, (1, 256, 256)).flatten() for n in range(1, COUNT + 1)])
    alike = F.normalize(kernels, dim=1) @ F.normalize(kernels, dim=1).T - torch.eye(COUNT)
    assert alike.max() < 0.6
    at = torch.arange(61).double() - 30
    extent = [float((k.view(61, 61).sum(0) @ at**2 + k.view(61, 61).sum(1) @ at**2).sqrt()) for k in kernels]
    assert min(extent) > 5 and extent[-1] > 1.5 * extent[0], extent


def test_an_impulse_shows_the_kernel() -> None:
    """A is a convolution with the kernel upright, no correlation."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    x[..., 20, 30] = 1
    k = motion_kernel(8, (1, 64, 64))
    half = len(k) // 2
    y = build("motion8", (1, 64, 64))(x)
    close(y[0, 0, 20 - half : 21 + half, 30 - half : 31 + half], k, "impulse", 1e-13)


def test_each_image_has_a_path_of_its_own() -> None:
    """Keyed by (seed, id), all eight of them drawn; a number fixes it for all."""
    numbers = [drawn_number(5, i) for i in range(64)]
    assert set(numbers) == set(range(1, COUNT + 1))
    op = build("motion", (3, 64, 64), ids=tuple(range(64)))
    for i in (0, 7, 63):
        same(op.kernel[i], motion_kernel(numbers[i], (3, 64, 64)), "its kernel")
    assert [drawn_number(6, i) for i in range(64)] != numbers
    assert build("motion3", (3, 64, 64)).kernel.shape[0] == 1
    same(build("motion3", (3, 64, 64)).kernel[0], motion_kernel(3, (3, 64, 64)), "the third")


@pytest.mark.parametrize(
    "name", ["motion0", "motion9", "cs", "cs0", "cs100", "uniform3", "gaussian-wid", "blockcs", "sr-circular9"]
)
def test_names_that_make_no_sense(name: str) -> None:
    with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
        parse_task(name)
    with pytest.raises(InputError, match=r"did you mean 'gaussian-wide'"):
        parse_task("gaussian-wid@0.1")


def test_a_kernel_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"\Akernel: got 9; give 1 .* to 8 [^\n]*\Z"):
        motion_kernel(9, (3, 64, 64))


# --- The blurs of other codes: numbers of the published operators at 256 x 256 ----------------------------------------


def axis_values(taps: torch.Tensor) -> torch.Tensor:
    return torch.linalg.svdvals(border_matrix(256, taps, -2, "zero"))


def test_circular_gaussian_spectrum() -> None:
    """min |k| = 3.5e-5, and 17.5 % of the frequencies below 0.01."""
    s = build("gaussian", (1, 256, 256)).s
    assert s.min().item() == pytest.approx(3.5e-5, rel=0.02) and (s < 0.01).double().mean().item() == pytest.approx(
        0.175, abs=5e-4
    )


def test_four_taps_with_dark_borders() -> None:
    """Row sum 0.802, gain 0.643 at the centre, 15 of 256 values below 0.03: 11.4 % of the spectrum; the rest from 9.7e-4."""
    op, taps = build("gaussian-short", (1, 256, 256)), gaussian_line(5, 10.0)[:4]
    assert taps.sum().item() == pytest.approx(0.802, abs=5e-4) and int((axis_values(taps) < 0.03).sum()) == 15
    untouched = blur(taps, (1, 256, 256), LIKE, "zero", first=-2)(torch.ones(1, 1, 256, 256, dtype=torch.float64))
    assert untouched[0, 0, 128, 128].item() == pytest.approx(0.643, abs=5e-4)
    assert (op.s == 0).double().mean().item() == pytest.approx(0.114, abs=5e-4)
    assert op.s[op.s > 0].min().item() == pytest.approx(9.7e-4, rel=0.01)


def test_five_taps_with_dark_borders() -> None:
    """Row sum 1, and 16 of 256 values below 0.03."""
    assert int((axis_values(gaussian_line(5, 10.0)) < 0.03).sum()) == 16
    assert build("gaussian-zero", (1, 256, 256)).rank == 240**2


def test_the_wide_gaussian_has_25_taps() -> None:
    """std 3, cut at 4 std; on smaller images it shrinks with them."""
    line = wide_gaussian_line(256)
    at = torch.arange(len(line)).double() - len(line) // 2
    assert len(line) == 25 and (line @ at**2).sqrt().item() == pytest.approx(3, abs=0.01)
    assert len(wide_gaussian_line(64)) == 7 and len(wide_gaussian_line(512)) == 49


def test_reflection_does_not_repeat_the_edge() -> None:
    x, line = normal(2, 1, 64, 48), wide_gaussian_line(48)
    half = len(line) // 2
    expected = F.conv2d(F.pad(x, (half,) * 4, mode="reflect"), torch.outer(line, line)[None, None])
    close(build("gaussian-reflect", (1, 64, 48))(x), expected, "reflect", 1e-12)


@pytest.mark.parametrize("border", BORDERS)
def test_borders_are_numpys(border: str) -> None:
    """y_p = sum_o taps_o x_(p + o) on a padded line; taps are not symmetric."""
    x, taps = np.arange(1.0, 8.0), torch.tensor([0.1, 0.2, 0.3, 0.5, 0.7], dtype=torch.float64)
    modes = {"zero": "constant", "circular": "wrap"}
    padded = np.pad(x, 2, mode=modes.get(border, border))
    y = border_matrix(7, taps, -2, border) @ torch.from_numpy(x)
    np.testing.assert_allclose(y.numpy(), np.correlate(padded, taps.numpy(), "valid"), rtol=1e-13)


def test_borders_have_names() -> None:
    with pytest.raises(InputError, match="unknown border 'reflct': did you mean 'reflect'"):
        border_matrix(8, torch.ones(3), -1, "reflct")


def test_a_circular_border_is_the_convolution() -> None:
    x, line = normal(1, 3, 16, 24), gaussian_line(5, 10.0)
    close(blur(line, (3, 16, 24), LIKE, "circular")(x), convolution(gaussian_kernel(), (3, 16, 24), LIKE)(x), "circular", 1e-12)


def test_circular_bicubic_looks_elsewhere() -> None:
    """13 taps that are not zero around pixel 4 p; far from the half-pixel aligned one on white noise."""
    x = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    x[..., 32, :] = 1
    column = circular_bicubic((1, 64, 64), 4, LIKE)(x)[0, 0, :, 0]
    assert column[8] == column.max() and column[7].item() == pytest.approx(column[9].item(), abs=1e-12), "centred on pixel 32"
    one = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    taps = [
        float(circular_bicubic((1, 64, 64), 4, LIKE)(one.index_fill(2, torch.tensor([j]), 1.0))[0, 0, 8, 0]) for j in range(64)
    ]
    assert sum(abs(t) > 1e-9 for t in taps) == 13
    noise = normal(1, 1, 64, 64)
    gap = circular_bicubic((1, 64, 64), 4, LIKE)(noise) - bicubic((1, 64, 64), 4, LIKE)(noise)
    assert gap.square().mean() > 0.2 * bicubic((1, 64, 64), 4, LIKE)(noise).square().mean()


# --- How a rank is told --------------------------------------------------------------------------------------------


def test_an_operator_says_its_rank_and_tolerance() -> None:
    box = convolution(torch.ones(3, 3) / 9, (3, 12, 12), LIKE)  # zero at two of the twelve frequencies of each axis
    assert box.rank == 3 * 10**2
    assert repr(box).startswith("Convolution: (3, 12, 12) -> (3, 12, 12), rank 300 of 432, s from 0.")
    assert repr(box).endswith("(s below 1e-05 of the largest set to 0)") and box.tolerance == 1e-5
    assert "rank 172800 of 196608" in repr(build("gaussian-zero", (3, 256, 256)))
    assert repr(build("gaussian-zero", (3, 32, 32))).endswith("(s of either axis below 0.03 set to 0)")
    assert repr(build("cs25", (3, 16, 16))).endswith("rank 192 of 768, s from 1 to 1 (s known exactly)")
    assert "(s below 0.001 of the largest" in repr(dense(normal(4, 48), (3, 4, 4), LIKE))
    assert "A = 0" in repr(hadamard(torch.zeros(1, 1, 8, 8), (3, 8, 8), LIKE))


def test_a_tolerance_may_be_chosen() -> None:
    """What falls below it leaves A itself, so the laws hold at any tolerance."""
    kernel = gaussian_kernel()
    strict, loose = (convolution(kernel, (1, 32, 32), LIKE, tolerance=t) for t in (1e-5, 0.05))
    assert loose.rank < strict.rank and loose.tolerance == 0.05 and "below 0.05" in repr(loose)
    assert loose.s[loose.s > 0].min() >= 0.05 * loose.s.max()
    check_operator(loose)
    check_dense(convolution(kernel, (1, 16, 16), LIKE, tolerance=0.05))


@pytest.mark.parametrize("matrix", [torch.ones(3), torch.ones(3, 47), torch.ones(49, 48)])
def test_matrices_must_fit(matrix: torch.Tensor) -> None:
    with pytest.raises(InputError, match=r"\Amatrix: got shape [^\n]* give \(m, 48\) with m from 1 to 48[^\n]*\Z"):
        dense(matrix, (3, 4, 4), LIKE)


# --- Batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["motion", "cs25", "inpaint70", "sr4", "gaussian"])
def test_operators_of_images_are_put_together(name: str) -> None:
    """Joined, they do to each image what each does alone, bit for bit."""
    both, x = build(name, (3, 16, 16)), normal(3, 3, 16, 16)
    parts = [build(name, (3, 16, 16), ids=(i,)) for i in range(3)]
    assert parts[0].fits(parts[1])
    op = parts[0].joined(parts[1], (1, 1)).joined(parts[2], (2, 1))
    assert len(op.s) == len(both.s)
    same(op(x), both(x), "A")
    same(op.prox(x, op(x), 0.1), both.prox(x, both(x), 0.1), "prox")


def test_operators_that_do_not_fit() -> None:
    op = build("sr4", (3, 16, 16))
    others = [build("pool4", (3, 16, 16)), build("sr4", (3, 16, 8)), build("gaussian", (3, 16, 16))]
    assert op.fits(build("sr4", (3, 16, 16))) and not any(op.fits(other) for other in others)
    assert not op.fits(build("sr4", (3, 16, 16), like=LIKE.float()))
    loose = convolution(gaussian_kernel(), (3, 16, 16), LIKE, tolerance=0.05)
    assert not loose.fits(build("gaussian", (3, 16, 16))), "their rank tolerances differ"


# --- Files and the command line ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prior_file(tmp_path_factory: pytest.TempPathFactory, tiny: Denoiser) -> str:
    path = tmp_path_factory.mktemp("prior") / "tiny.safetensors"
    save_denoiser(path, tiny, {}, torch.float32)
    return str(path)


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = torch.meshgrid(torch.linspace(-1, 1, 48), torch.linspace(-1, 1, 40), indexing="ij")
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    save_image(torch.stack([x, y, (4 * x * y).sin()])[None], path)
    return path


@pytest.fixture(autouse=True)
def no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipeline.METRICS, "lpips", lambda x, reference: (x - reference).square().mean(dim=(1, 2, 3)))


def engine(prior_file: str) -> pipeline.Engine:
    return pipeline.load_engine(pipeline.Config(prior=prior_file, steps=3, seed=3))


@pytest.mark.parametrize(
    "task", ["motion@0.05", "motion2@0", "cs25@0.05", "blockcs25@0.05", *(f"{v}@0.05" for v in VARIANTS[:-1])]
)
def test_a_measurement_is_restored_again_from_its_file(task: str, prior_file: str, photo: Path, tmp_path: Path) -> None:
    e = engine(prior_file)
    case = pipeline.photograph(photo, task, 32, e)
    report = pipeline.save(pipeline.run(case, e), e, tmp_path)
    assert report["operator"] == repr(case.problem.operator) and "rank" in report["operator"]
    again = pipeline.recalled(tmp_path / pipeline.FILES[0], e)
    same(again.problem.y, case.problem.y, "y")
    same(again.problem.operator.s, case.problem.operator.s, "spectrum")
    x = normal(1, 3, 32, 32).float()
    same(again.problem.operator(x), case.problem.operator(x), "A")
    same(pipeline.run(again, e).image, pipeline.run(case, e).image, "restored")


@pytest.mark.parametrize(("task", "name"), [("motion@0.05", "kernel"), ("cs25@0.05", "slots")])
def test_the_file_says_what_was_drawn(task: str, name: str, prior_file: str, photo: Path, tmp_path: Path) -> None:
    """Kernel and slots come from the file, not from the seed beside them."""
    e = engine(prior_file)
    case = pipeline.photograph(photo, task, 32, e)
    pipeline.remember(replace(case, seed=99), tmp_path / "m.safetensors")
    assert set(load_measurement(tmp_path / "m.safetensors").tensors) == {name}
    same(pipeline.recalled(tmp_path / "m.safetensors", e).problem.operator.s, case.problem.operator.s, "spectrum")


@pytest.mark.parametrize(
    ("task", "tensors"),
    [
        ("motion@0.05", {"kernel": torch.ones(3, 3) / 9}),
        ("motion@0.05", {"kernel": torch.ones(1, 4, 4) / 16}),
        ("motion@0.05", {"kernel": torch.ones(1, 3, 5) / 15}),
        ("motion@0.05", {"kernel": torch.ones(1, 3, 3)}),
        ("motion@0.05", {"kernel": torch.zeros(1, 3, 3)}),
        ("gaussian@0.05", {"kernel": torch.ones(1, 3, 3) / 9}),
        ("cs25@0.05", {"slots": torch.ones(1, 1, 16, 32)}),
        ("cs25@0.05", {"slots": torch.zeros(1, 1, 32, 32)}),
        ("cs25@0.05", {"mask": torch.ones(1, 1, 32, 32)}),
    ],
)
def test_a_file_that_contradicts_itself(task: str, tensors: dict, prior_file: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_measurement(path, torch.zeros(1, 3, 32, 32), task, 0.05, 0, (3, 32, 32), tensors)
    with pytest.raises(InputError, match=r"\Ameasurement: m.safetensors: [^\n]*does not fit[^\n]*\Z"):
        pipeline.recalled(path, engine(prior_file))


def test_large_coefficients_are_allowed_where_they_can_be(prior_file: str, tmp_path: Path) -> None:
    """The mean of a white 32 x 32 image is 32; no blur gives that."""
    y = torch.zeros(1, 3, 32, 32)
    y[..., 0, 0] = 32
    for task, fine in (("cs25@0.05", True), ("motion@0.05", False)):
        save_measurement(tmp_path / "m.safetensors", y, task, 0.05, 0, (3, 32, 32))
        if fine:
            pipeline.recalled(tmp_path / "m.safetensors", engine(prior_file))
        else:
            with pytest.raises(InputError, match=r"y has values up to 32, beyond 2\.8"):
                pipeline.recalled(tmp_path / "m.safetensors", engine(prior_file))


@pytest.mark.parametrize("task", ["cs25@0", "blockcs25@0"])
def test_coefficients_are_shown_as_the_image_they_make(task: str, prior_file: str, photo: Path) -> None:
    """A^T y: the right mean, and nearer to the photograph than grey is."""
    case = pipeline.photograph(photo, task, 32, engine(prior_file))
    preview, x = case.preview, case.reference
    assert preview.shape == x.shape
    same(preview, case.problem.operator.T(case.problem.y), "A^T y")
    assert not task.startswith("cs") or torch.allclose(preview.mean((2, 3)), x.mean((2, 3)), atol=1e-5)
    assert (preview - x).square().mean() < x.square().mean()
    assert not torch.equal(preview, case.problem.y)


def test_the_command_line_takes_them(prior_file: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for task in ("motion@0.05", "cs25@0.05"):
        options = ["--prior", prior_file, "--steps", "2", "--size", "32", "--out", str(tmp_path / task)]
        assert cli.main(["restore", str(photo), "--task", task, *options]) == 0
        assert json.loads((tmp_path / task / "report.json").read_text())["task"] == task
    assert cli.main(["tasks"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("motion@0.05", "cs25@0.05", "gaussian-reflect", "cs1 to cs99", "motion1 to motion8"))


@pytest.mark.parametrize(
    ("size", "message"),
    [("36", "size: 36 is not a power of two, which cs25 needs; give 32 or 64"), ("0", "crop to 32 x 32, or resize to 64 x 64")],
)
def test_the_command_line_names_sizes_that_work(
    size: str, message: str, prior_file: str, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--prior", prior_file, "--steps", "2", "--size", size, "--out", str(tmp_path / "out")]
    assert cli.main(["restore", str(photo), "--task", "cs25@0.05", *options]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_new_tasks_are_public() -> None:
    assert {"motion@0.05", "cs25@0.05"} <= set(TASKS)
    assert all(str(parse_task(f"{name}@0.05")) == f"{name}@0.05" for name in VARIANTS)

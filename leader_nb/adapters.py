"""Networks of other libraries as priors: diffusers' UNet2DModel, and any denoiser D(x, sigma).

With a foreign network the last digits of an image may depend on what shares its batch: most have `nn.Linear` inside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from leader_nb.errors import InputError, one_line, unknown
from leader_nb.networks.published.models import check_image
from leader_nb.priors import Prediction, Prior
from leader_nb.schedule import Schedule, spread

BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")

# --- schedules ----------------------------------------------------------------------------------------------------


def schedule_from_diffusers(config: Mapping[str, Any]) -> Schedule:
    """The schedule in a diffusers scheduler's configuration: linear, scaled, cosine, or with betas of its own."""
    if config.get("beta_schedule") is None:
        kind = config.get("_class_name", "this")
        raise InputError(f"scheduler: {kind} has no beta_schedule; one of discrete, variance-preserving times is needed")
    try:
        scheduler = library().DDPMScheduler(**{name: config[name] for name in BETAS if name in config})
    except (NotImplementedError, ValueError, TypeError) as error:
        raise InputError(f"scheduler: {one_line(error)}") from None
    own = scheduler.config
    if own.beta_schedule == "linear" and own.trained_betas is None and not own.rescale_betas_zero_snr:
        return Schedule(own.beta_start, own.beta_end, own.num_train_timesteps)
    return Schedule.from_betas(scheduler.betas)


# --- diffusers ----------------------------------------------------------------------------------------------------


def library() -> Any:
    """diffusers, which is optional. Raises `InputError` where it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise InputError("diffusers is not installed: pip install 'leader_nb[published]'") from None
    return diffusers


def prior_from_diffusers(source: Any, scheduler: Any = None, device: str | torch.device = "cpu", name: str = "") -> Prior:
    """An unconditional diffusers UNet2DModel as a prior, on the schedule that it was trained with.

    `source`: a model, a folder written by `save_pretrained` (of a model, or of a pipeline, with `unet` and `scheduler`
    inside), or an id "owner/name" of the Hugging Face Hub, fetched into its cache on first use. `scheduler`: a diffusers
    scheduler or its configuration; by default the folder's own. Epsilon, v and sample prediction; more channels out than
    in carry a variance.
    """
    if not isinstance(source, nn.Module | str | Path):
        raise InputError(f"source: got {source!r}; give a UNet2DModel, a folder, or an id of the Hugging Face Hub")
    name = name or ("diffusers" if isinstance(source, nn.Module) else Path(source).name)
    source = source if isinstance(source, nn.Module) else local_folder(source)
    model: Any = source if isinstance(source, nn.Module) else read_unet(source)
    config = scheduler if scheduler is not None else read_scheduler(source)
    config = getattr(config, "config", config)
    if not isinstance(config, Mapping):
        raise InputError(f"scheduler: got {config!r}; give a scheduler of diffusers, such as DDPMScheduler(), or its config")
    check_unet(model, name)
    said = meaning(config.get("prediction_type", "epsilon"))
    model = model.to(device).eval().requires_grad_(False)
    channels, stride = model.config.in_channels, 2 ** (len(model.config.block_out_channels) - 1)

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        check_image(x_t, name, channels, stride)
        out = model(x_t.to(model.dtype), t.to(x_t.device)).sample
        variance = out[:, channels:] if out.shape[1] > channels else None
        return said(out[:, :channels].to(x_t.dtype), x_t, schedule.abar(t, x_t), variance)

    return Prior(predict, schedule_from_diffusers(config), minimum=stride, name=name)


def check_unet(model: nn.Module, name: str) -> None:
    """Raises `InputError` for what is no UNet2DModel (compiled or not), needs a class label, or has channels of no meaning."""
    if not isinstance(getattr(model, "_orig_mod", model), library().UNet2DModel):
        raise InputError(f"model: {name!r} is of type {type(model).__name__}; give diffusers' UNet2DModel, or take eps_prior")
    config: Any = model.config
    if config.class_embed_type is not None or config.num_class_embeds is not None:
        raise InputError(f"model: {name!r} wants a class label; give an unconditional UNet2DModel")
    if config.out_channels not in (config.in_channels, 2 * config.in_channels):
        raise InputError(
            f"model: {name!r} makes {config.out_channels} channels of {config.in_channels}; as many are needed, or twice as"
            " many with a variance. A model that sees a picture beside x_t is no unconditional one"
        )


Meaning = Callable[[Tensor, Tensor, Tensor, Tensor | None], Prediction]


def meaning(prediction_type: str) -> Meaning:
    """What a network's output says, given (output, x_t, abar, variance): noise, clean image, or v."""
    readings: dict[str, Meaning] = {
        "epsilon": lambda out, x_t, abar, variance: Prediction(eps=out, variance=variance),
        "sample": lambda out, x_t, abar, variance: Prediction(x0=out, variance=variance),
        "v_prediction": lambda out, x_t, abar, variance: Prediction(  # v = sqrt(abar) eps - sqrt(1 - abar) x0
            x0=abar.sqrt() * x_t - (1 - abar).sqrt() * out, variance=variance
        ),
    }
    if prediction_type not in readings:
        raise unknown("prediction type", prediction_type, readings)
    return readings[prediction_type]


CONFIGS = ("config.json", "scheduler_config.json", "unet/config.json", "scheduler/scheduler_config.json")
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")  # the first that the repository has


def local_folder(source: str | Path) -> Path:
    """The folder `source`; where there is none, the copy of the Hub's "owner/name" in Hugging Face's cache.

    Of a repository only the U-Net, in one file, and the configurations are fetched; a copy in the cache needs no network.
    """
    folder = Path(source)
    if folder.is_dir() or not isinstance(source, str) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source):
        return folder
    library()  # huggingface_hub comes with it
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(source, allow_patterns=list(CONFIGS)))
        unet_folder(folder)
        for file in WEIGHTS:
            folder = Path(snapshot_download(source, allow_patterns=[*CONFIGS, file, f"unet/{file}"]))
            if any(folder.rglob(file)):
                break
    except InputError:
        raise
    except Exception as error:  # offline, no such repository, no permission, a full disk: each of another kind
        raise InputError(
            f"{source!r} is no folder here, nor could it be had from the Hugging Face Hub ({one_line(error)[:160]}): give a "
            "folder written by save_pretrained, or fetch it once where there is a network"
        ) from None
    return folder


def unet_folder(folder: Path) -> Path:
    """Where in `folder` the U-Net is: there, or in its subfolder `unet`. Raises `InputError` for another kind of network."""
    place = folder / "unet" if (folder / "unet").is_dir() else folder
    kind = read_json(place / "config.json").get("_class_name")
    if kind != "UNet2DModel":
        raise InputError(f"{place} holds a {kind}; an unconditional UNet2DModel is needed")
    return place


def read_unet(folder: Path) -> Any:
    """The UNet2DModel in `folder`, or in its subfolder `unet`. Raises `InputError` where it is not whole."""
    place = unet_folder(folder)
    try:
        model, info = library().UNet2DModel.from_pretrained(
            place, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except Exception as error:  # diffusers, torch and safetensors each raise their own kinds
        raise InputError(f"{place}: its weights cannot be read ({one_line(error)})") from None
    if wrong := [*info["missing_keys"], *info["unexpected_keys"]]:
        raise InputError(f"{place}: its weights do not fit its configuration; first mismatches: {', '.join(wrong[:3])}")
    return model


def read_scheduler(source: Any) -> dict[str, Any]:
    """The scheduler's configuration in a folder, or in its subfolder `scheduler`."""
    if not isinstance(source, nn.Module):
        for place in (Path(source) / "scheduler", Path(source)):
            if (place / "scheduler_config.json").is_file():
                return read_json(place / "scheduler_config.json")
    where = "a model alone" if isinstance(source, nn.Module) else f"{source}"
    raise InputError(f"scheduler: {where} has no scheduler_config.json; give one, as scheduler=DDPMScheduler()")


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(f"there is no {path}: give a folder written by save_pretrained") from None
    except ValueError as error:
        raise InputError(f"{path} is damaged ({one_line(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it holds no object")
    return content


# --- denoisers ----------------------------------------------------------------------------------------------------

UNIT = (0.0, 1.0)  # black and white, where nobody says otherwise
LOUD = 2.0  # noise above so many times the range of pixels is taken for a slip of units, unless `pixels` are given


def prior_from_denoiser(
    fn: Callable[[Tensor, Tensor], Tensor],
    sigma_range: tuple[float, float],
    *,
    pixels: tuple[float, float] | None = None,
    schedule: Schedule | None = None,
    name: str = "denoiser",
) -> Prior:
    """Any denoiser D(x, sigma) (FFDNet, DRUNet, those of deepinv) as a prior: x0 = D(x_t / sqrt(abar), sigma_bar).

    `fn` takes images (B, C, H, W) with black and white at the two `pixels`, and sigma (B,) in the same units; so is
    `sigma_range`, the lowest and highest noise it was trained for. At other times, not in `times`, the prior refuses: begin
    by :func:`leader_nb.start.start_within`.

    `pixels` are (0, 1) by default. A range that goes above LOUD is then refused, since it is mostly 75 for 75 / 255; where
    such noise is meant (photo-small takes noise of 78 on pixels from 0 to 1), say so by giving `pixels`.
    """
    if not callable(fn):
        raise InputError(f"fn: got {fn!r}; give a function of a noisy image and its noise level")
    schedule, given = schedule or Schedule(), UNIT if pixels is None else pixels
    times, (low, high), (black, white) = times_within(sigma_range, given, schedule), sigma_range, given
    if pixels is None and high > LOUD:
        raise InputError(
            f"sigma_range: got noise up to {high:g} for pixels from 0 to 1; of noise counted in 255, give {high:g} / 255,"
            " and of a denoiser whose pixels are not from 0 to 1, give them, as pixels=(0, 255). If it is meant, give"
            " pixels=(0, 1)"
        )
    unit = (white - black) / 2  # of fn's units, in our images from -1 to 1
    dtype = next((p.dtype for p in fn.parameters()), None) if isinstance(fn, nn.Module) else None

    def predict(x_t: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        if outside := [time for time in t.tolist() if time not in times]:
            sigma = float(schedule.sigma(torch.tensor(outside[:1]), x_t)) * unit
            raise InputError(
                f"grid: at time {outside[0]} the noise is {sigma:.4g}; {name!r} takes {low:g} to {high:g}, that is the times"
                f" {times[0]} to {times[-1]}: give restore(..., **start_within(prior, steps)), from leader_nb.start"
            )
        x = (x_t / schedule.abar(t, x_t).sqrt() + 1) * unit + black
        out = fn(x.to(dtype or x.dtype), (schedule.sigma(t, x_t).flatten() * unit).to(dtype or x.dtype))
        if not isinstance(out, Tensor) or out.shape != x_t.shape:
            what = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
            raise InputError(f"{name!r}: it returned {what} for images {tuple(x_t.shape)}; a tensor of that shape is needed")
        return Prediction(x0=(out.to(x_t.dtype) - black) / unit - 1)

    return Prior(predict, schedule, name=name, times=times)


def times_within(
    sigma_range: tuple[float, float], pixels: tuple[float, float] = UNIT, schedule: Schedule | None = None
) -> range:
    """The raw times whose noise lies in `sigma_range` (in units in which black and white are the two `pixels`)."""
    low, high, black, white = *pair("sigma_range", sigma_range), *pair("pixels", pixels)
    if not 0 <= low < high or not black < white:
        raise InputError(f"sigma_range={sigma_range}, pixels={pixels}: give 0 <= lowest < highest, and black < white")
    abar = (schedule or Schedule()).table()[1:]
    sigma = ((1 - abar) / abar).sqrt() * (white - black) / 2
    fits = ((sigma >= low * (1 - 1e-6)) & (sigma <= high * (1 + 1e-6))).nonzero().flatten().tolist()
    if not fits:
        raise InputError(f"sigma_range={sigma_range}: the schedule only has noise from {sigma[0]:.4g} to {sigma[-1]:.4g}")
    return range(fits[0], fits[-1] + 1)


def pair(name: str, value: Any) -> tuple[float, float]:
    """`value` as two numbers. Raises `InputError` under `name` for anything else."""
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError):
        example = {"sigma_range": "the lowest and the highest noise, (0, 75 / 255)"}.get(name, "black and white, (0, 1)")
        raise InputError(f"{name}: got {value!r}; give two numbers, such as {example}") from None
    return low, high


def grid_within(
    steps: int,
    sigma_range: tuple[float, float],
    pixels: tuple[float, float] = UNIT,
    schedule: Schedule | None = None,
) -> tuple[int, ...]:
    """A `grid=` of the loop: `steps` raw times, evenly spaced, from the highest a denoiser can take to its lowest.

    The first is where a host has to start. x_t is mostly image at that time, so that a host which starts from pure
    noise starts from something else: :func:`leader_nb.start.start_within` gives this grid and a start that fits it.
    """
    return spread(steps, times_within(sigma_range, pixels, schedule))

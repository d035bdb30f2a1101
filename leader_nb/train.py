"""Train a denoiser on photographs, or on digits: resumable, checkpointed, with an exponential moving average.

The loss is EDM's (Karras et al. 2022, Eq. 108): E ||D(x0 + sigma n; sigma) - x0||^2 / c_out(sigma)^2, with sigma drawn
log-normally where restoration happens and, one time in five (`wide`), log-uniformly over the whole range the schedule needs.

A :class:`Teacher`, another denoiser that is better or was trained on more, may replace part of the target x0 by its estimate.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from leader_nb.digits import digits
from leader_nb.errors import InputError, one_line
from leader_nb.networks import Denoiser, UNetConfig
from leader_nb.networks.files import load_denoiser, save_denoiser
from leader_nb.networks.growth import grown
from leader_nb.networks.unet import preconditioning
from leader_nb.zoo import prior_path

SCALES = (1.0, 0.7, 0.5, 0.35, 0.25)
SIGMA_RANGE = (0.002, 160.0)
PHOTO_NOISE = (-1.5, 1.1)  # mean and deviation of log sigma, four times in five
DIGITS = "digits"  # in place of a folder; write ./digits for a folder of that name
CHECK_SIGMAS = (15, 25, 50)  # of 255


@dataclass(frozen=True)
class TrainConfig:
    """One training run; `minutes` (if not 0) ends it earlier than `steps`, and the learning rate follows the nearer.

    `images` is a folder, or "digits"; `noise` the mean and the deviation of log sigma, and `wide` the share of the levels drawn
    log-uniformly instead. `start` names weights to begin from: a built-in prior or a .safetensors file with the widths of
    `network` and at most its blocks.
    """

    images: str
    out: str
    network: UNetConfig = field(default_factory=UNetConfig)
    steps: int = 20000
    minutes: float = 0.0
    batch: int = 16
    crop: int = 64
    mirror: bool = True
    noise: tuple[float, float] = PHOTO_NOISE
    wide: float = 0.2
    start: str = ""
    lr: float = 2e-3
    warmup: int = 200
    cooldown: float = 0.6
    ema: float = 0.999
    seed: int = 0
    device: str = "cpu"
    bf16: bool = True
    save_every: int = 500


def digits_config(out: str, **changes: Any) -> TrainConfig:
    """The recipe of the prior called digits: whole images, never mirrored, noise that hides shapes as well as edges."""
    network = UNetConfig(channels=1, widths=(32, 64, 128), blocks=1, embedding=64)
    base = TrainConfig(DIGITS, out, network, steps=2800, batch=64, crop=32, mirror=False, noise=(-0.5, 1.2))
    return replace(base, **({"lr": 4e-3, "warmup": 100, "ema": 0.998, "save_every": 400} | changes))


@dataclass(frozen=True)
class Teacher:
    """A denoiser to learn from: `denoise(x, sigma)` takes (B, C, H, W) and (B,) on [-1, 1] images and returns x0 estimates.

    At the levels it knows (`sigma_range`) the target is share T(x; sigma) + (1 - share) x0. A squared error to this mixture has
    the gradient of share ||D - T||^2 + (1 - share) ||D - x0||^2, without most of the randomness of x0 given x: fewer steps
    do. With share 1 the student inherits every bias of its teacher; below, x0 keeps pulling it to the posterior mean.
    """

    denoise: Callable[[Tensor, Tensor], Tensor]
    sigma_range: tuple[float, float]
    share: float = 0.8

    def __post_init__(self) -> None:
        low, high = self.sigma_range
        if not 0 < low < high:
            raise InputError(f"sigma_range: got {self.sigma_range}; give two rising positive noise levels of [-1, 1] images")
        if not 0 <= self.share <= 1:
            raise InputError(f"share: got {self.share:g}; it is the teacher's part of the target, from 0 to 1")

    @torch.no_grad()
    def target(self, x: Tensor, x0: Tensor, sigma: Tensor) -> Tensor:
        """What D(x; sigma) shall be: `x0` (B, C, H, W) outside of the range, the mixture inside."""
        known = (sigma >= self.sigma_range[0]) & (sigma <= self.sigma_range[1])
        if not known.any():
            return x0
        mixed = x0.clone()
        mixed[known] = torch.lerp(x0[known], self.denoise(x[known], sigma[known]).to(x0), self.share)
        return mixed


@dataclass
class TrainState:
    """Everything a killed run needs to go on exactly: networks, optimisers, generator, clock, history."""

    model: Denoiser
    ema: Denoiser
    optimizers: list[torch.optim.Optimizer]
    rng: np.random.Generator
    step: int = 0
    elapsed: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)

    def pack(self) -> dict[str, object]:
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "rng": json.dumps(self.rng.bit_generator.state),
            "step": self.step,
            "elapsed": self.elapsed,
            "history": json.dumps(self.history),
        }

    def unpack(self, saved: dict) -> None:
        self.model.load_state_dict(saved["model"])
        self.ema.load_state_dict(saved["ema"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.rng.bit_generator.state = json.loads(saved["rng"])
        self.step, self.elapsed, self.history = saved["step"], saved["elapsed"], json.loads(saved["history"])


SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"}


def image_files(images: str | Path, split: str | None = None) -> list[Path]:
    """The image files of a folder; with `split`, only those a `photos.csv` (columns file, split) in or beside it gives it.

    A folder without such a table is taken whole.
    """
    folder = Path(images)
    if not folder.is_dir():
        raise InputError(f"images: no folder at {folder}")
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    tables = [t for t in (folder / "photos.csv", folder.parent / "photos.csv") if t.is_file()]
    if split and tables:
        with open(tables[0], newline="") as file:
            wanted = {row["file"] for row in csv.DictReader(file) if row["split"] == split}
        files = [p for p in files if p.name in wanted]
    if not files:
        raise InputError(f"images: {folder} has no images to use; give a folder of .jpg or .png files")
    return files


def pyramid(path: Path, crop: int) -> list[np.ndarray]:
    """One photograph at every scale whose shorter side still holds a crop: uint8 arrays (h, w, 3)."""
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise InputError(f"images: {path} cannot be read ({one_line(error)}); take it out") from None
    sizes = [(round(rgb.width * s), round(rgb.height * s)) for s in SCALES]
    return [np.asarray(rgb.resize(s, Image.Resampling.LANCZOS)) for s in sizes if min(s) >= crop]


def training_images(config: TrainConfig) -> list[list[np.ndarray]]:
    """What to train on: for each image that holds a crop, its scales, uint8 arrays (h, w, C)."""
    if config.images == DIGITS:
        pixels = ((digits("train").images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        levels = [[image] if min(image.shape[:2]) >= config.crop else [] for image in pixels]
    else:
        files = tqdm(image_files(config.images, "train"), desc="photos", leave=False, disable=None)
        levels = [pyramid(path, config.crop) for path in files]
    usable = [scales for scales in levels if scales]
    if len(usable) < 2:
        raise InputError(f"crop: fewer than 2 images hold a crop of {config.crop} px; use smaller --crop or larger images")
    if (channels := usable[0][0].shape[2]) != config.network.channels:
        raise InputError(f"network: it takes {config.network.channels} channels, these images have {channels}")
    return usable


def draw_crops(photos: list[list[np.ndarray]], config: TrainConfig, rng: np.random.Generator) -> Tensor:
    """(batch, C, crop, crop) in [-1, 1]: a photograph, a scale and a place at random; with `mirror`, half are mirrored."""
    crops = []
    for _ in range(config.batch):
        levels = photos[rng.integers(len(photos))]
        image = levels[rng.integers(len(levels))]
        top, left = (rng.integers(side - config.crop + 1) for side in image.shape[:2])
        crop = image[top : top + config.crop, left : left + config.crop]
        crops.append(crop[:, ::-1] if config.mirror and rng.random() < 0.5 else crop)
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1


def draw_sigma(count: int, rng: np.random.Generator, noise: tuple[float, float] = PHOTO_NOISE, share: float = 0.2) -> Tensor:
    """(count,) noise levels for [-1, 1] images: log-normal by `noise` (mean, deviation), a `share` of them log-uniform."""
    usual = np.exp(rng.normal(*noise, count))
    low, high = np.log(SIGMA_RANGE)
    wide = np.exp(rng.uniform(low, high, count))
    return torch.from_numpy(np.where(rng.random(count) < share, wide, usual)).float().clamp(*SIGMA_RANGE)


def edm_loss(model: Denoiser, x0: Tensor, sigma: Tensor, noise: Tensor, teacher: Teacher | None = None) -> Tensor:
    """Mean over the batch of ||D(x0 + sigma n; sigma) - x0||^2 / (c_out^2 N); a `teacher` replaces part of x0."""
    s = sigma.view(-1, 1, 1, 1)
    x = x0 + s * noise
    error = model(x, sigma) - (teacher.target(x, x0, sigma) if teacher else x0)
    return (error / preconditioning(s)[1]).square().mean()


def make_optimizers(model: Denoiser, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the weight matrices inside the network, Adam for its ends and its biases."""
    ends = ("net.head", "net.tail")
    inner = [p for n, p in model.named_parameters() if p.ndim == 2 and not n.startswith(ends)]
    outer = [p for n, p in model.named_parameters() if p.ndim != 2 or n.startswith(ends)]
    muon = torch.optim.Muon(inner, lr=config.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(outer, lr=config.lr, weight_decay=0.0, betas=(0.9, 0.99))]


def learning_rate(progress: float, step: int, config: TrainConfig) -> float:
    """Warm up, hold, then fall linearly to zero over the last `cooldown` of the run."""
    return config.lr * min(1.0, (step + 1) / config.warmup) * min(1.0, (1 - progress) / config.cooldown)


def build_state(config: TrainConfig) -> TrainState:
    torch.manual_seed(config.seed)
    model = first_network(config).to(config.device)
    ema = copy.deepcopy(model).requires_grad_(False)
    return TrainState(model, ema, make_optimizers(model, config), np.random.default_rng(config.seed))


def first_network(config: TrainConfig) -> Denoiser:
    """A fresh network, or the one `config.start` names, grown to the number of blocks asked for."""
    if not config.start:
        return Denoiser(config.network)
    small, _ = load_denoiser(prior_path(config.start))
    if replace(small.config, blocks=config.network.blocks) != config.network:
        raise InputError(
            f"start: {config.start} has widths {small.config.widths} and {small.config.channels} channels; training asks for "
            f"{config.network.widths} and {config.network.channels}"
        )
    return grown(small, config.network.blocks).requires_grad_(True)


def train_step(state: TrainState, photos: list[list[np.ndarray]], config: TrainConfig, teacher: Teacher | None = None) -> float:
    """One optimisation step on one batch; returns its loss."""
    x0 = draw_crops(photos, config, state.rng).to(config.device)
    sigma = draw_sigma(config.batch, state.rng, config.noise, config.wide).to(config.device)
    noise = torch.from_numpy(state.rng.standard_normal(x0.shape, dtype=np.float32)).to(config.device)
    with torch.autocast(torch.device(config.device).type, torch.bfloat16, enabled=config.bf16):
        loss = edm_loss(state.model, x0, sigma, noise, teacher)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    for optimizer in state.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    decay = min(config.ema, (state.step + 1) / (state.step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(state.ema.parameters()), list(state.model.parameters()), 1 - decay)
    return loss.item()


@torch.no_grad()
def validation_psnr(model: Denoiser, images: Tensor, level: int) -> float:
    """Mean PSNR in dB of denoising `images` (B, C, H, W) at sigma = level / 255 of [0, 1], with fixed noise."""
    sigma = 2 * level / 255
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(level)).to(images)
    out = model(images + sigma * noise, torch.full((len(images),), sigma, device=images.device))
    mse = ((out.clamp(-1, 1) - images) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * mse.log10()).mean().item()


def validation_images(photos: list[list[np.ndarray]], size: int = 128) -> Tensor:
    """Centre crops (n, C, size, size) of the held-out photographs, at the first scale."""
    crops = []
    for levels in photos:
        h, w = levels[0].shape[:2]
        top, left = max(0, (h - size) // 2), max(0, (w - size) // 2)
        crops.append(levels[0][top : top + size, left : left + size])
    size = min(min(c.shape[:2]) for c in crops)
    return torch.from_numpy(np.stack([c[:size, :size] for c in crops])).permute(0, 3, 1, 2).float() / 127.5 - 1


def save_checkpoint(path: Path, state: TrainState) -> None:
    partial = path.with_name(path.name + ".part")
    torch.save(state.pack(), partial)
    os.replace(partial, path)


def train(config: TrainConfig, teacher: Teacher | None = None) -> Path:
    """Train (or resume) to the end; returns the path of the weights, `out`/denoiser.safetensors.

    One image in twelve is held out for validation. `out` also gets checkpoint.pt and history.json. A `teacher` runs on the
    device of `config`, under its autocast.
    """
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    usable = training_images(config)
    held_out, photos = usable[::12], [p for i, p in enumerate(usable) if i % 12]
    state = build_state(config)
    if (out / "checkpoint.pt").is_file():
        state.unpack(torch.load(out / "checkpoint.pt", weights_only=True, map_location=config.device))
    check = validation_images(held_out).to(config.device)
    for _ in run(state, photos, check, config, teacher):
        save_checkpoint(out / "checkpoint.pt", state)
        (out / "history.json").write_text(json.dumps(state.history))
    recipe = json.dumps({k: v for k, v in asdict(config).items() if k not in {"images", "out"}})
    path = out / "denoiser.safetensors"
    save_denoiser(path, state.ema, {"recipe": recipe, "steps": str(state.step)}, torch.float16)
    return path


def run(
    state: TrainState, photos: list[list[np.ndarray]], check: Tensor, config: TrainConfig, teacher: Teacher | None = None
) -> Iterator[dict[str, float]]:
    """Train to the end, yielding a row of history every `save_every` steps (the moments to save at)."""
    losses: list[float] = []
    last = time.perf_counter()
    with tqdm(total=config.steps, initial=state.step, desc="train", mininterval=5, disable=None) as bar:
        while (progress := _progress(state, config)) < 1:
            for optimizer in state.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(progress, state.step, config)
            losses.append(train_step(state, photos, config, teacher))
            if not math.isfinite(losses[-1]):
                raise FloatingPointError(f"loss is {losses[-1]} at step {state.step}; lower --lr and resume")
            now = time.perf_counter()
            state.step, state.elapsed, last = state.step + 1, state.elapsed + now - last, now
            bar.update()
            if state.step % config.save_every == 0 or _progress(state, config) >= 1:
                row = {"step": state.step, "minutes": state.elapsed / 60, "loss": sum(losses) / len(losses)}
                row |= {f"psnr{s}": validation_psnr(state.ema, check, s) for s in CHECK_SIGMAS}
                losses.clear()
                state.history.append(row)
                bar.set_postfix(loss=f"{row['loss']:.4f}", psnr25=f"{row['psnr25']:.2f}")
                yield row


def _progress(state: TrainState, config: TrainConfig) -> float:
    by_time = state.elapsed / 60 / config.minutes if config.minutes else 0.0
    return max(state.step / config.steps, by_time)

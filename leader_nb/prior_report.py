"""How good a prior is as a denoiser: PSNR over noise levels and bias, with intervals bootstrapped by photograph."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from leader_nb.errors import InputError, one_line
from leader_nb.metrics import bootstrap_interval, psnr
from leader_nb.noise import noise_for
from leader_nb.priors import Prior
from leader_nb.train import image_files

Denoise = Callable[[Tensor, float], Tensor]  # (x (B, 3, H, W) in [-1, 1] plus noise, sigma in [-1, 1] units) -> x0


def centre_crops(images: str | Path, size: int = 256, split: str | None = None) -> tuple[Tensor, list[str]]:
    """The central size x size pixels of every image of a folder that has them, (n, 3, size, size) in [-1, 1], and names."""
    crops, names = [], []
    for path in image_files(images, split):
        try:
            with Image.open(path) as image:
                rgb = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise InputError(f"images: {path} cannot be read ({one_line(error)}); take it out") from None
        top, left = (rgb.shape[0] - size) // 2, (rgb.shape[1] - size) // 2
        if top >= 0 and left >= 0:
            crops.append(torch.from_numpy(rgb[top : top + size, left : left + size].copy()))
            names.append(path.name)
    if not crops:
        raise InputError(f"images: no image in {images} has {size} x {size} pixels; use a smaller size")
    return torch.stack(crops).permute(0, 3, 1, 2).float() / 127.5 - 1, names


def denoiser_of(prior: Prior) -> Denoise:
    """D(x, sigma) from a prior on its schedule, at the raw time whose sigma_bar is nearest (within 0.5 % of a step)."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        t = torch.full((len(x),), prior.schedule.nearest_time(sigma))
        return prior(x * prior.schedule.abar(t, x).sqrt(), t).x0

    return denoise


def denoising_psnr(denoise: Denoise, images: Tensor, level: float, seed: int = 0) -> Tensor:
    """PSNR (n,) of denoising each image at sigma = level / 255 of [0, 1]; noise keyed by image, so methods share it."""
    sigma, out = 2 * level / 255, []
    for i, image in enumerate(images):
        clean = image[None]
        z = noise_for(1, seed, [i])(f"denoise {level:g}", clean)
        out.append(psnr(denoise(clean + sigma * z, sigma), clean))
    return torch.cat(out)


def compare_denoisers(
    denoisers: dict[str, Denoise], images: Tensor, levels: Sequence[float], seed: int = 0
) -> list[dict[str, object]]:
    """One row per level and denoiser: mean PSNR in dB, its 95 % interval over photographs, seconds per image."""
    rows: list[dict[str, object]] = []
    for level in levels:
        for name, denoise in denoisers.items():
            start = time.perf_counter()
            values = denoising_psnr(denoise, images, level, seed)
            seconds = (time.perf_counter() - start) / len(images)
            row = {"sigma": level, "denoiser": name, "psnr": values.mean().item()}
            row |= dict(zip(("low", "high"), bootstrap_interval(values)[1:], strict=True))
            rows.append(row | {"images": len(images), "seconds_per_image": seconds})
    return rows


def bias(prior: Prior, images: Tensor, sigmas: Sequence[float], seed: int = 0) -> list[dict[str, float]]:
    """Per sigma_bar: RMSE of x0, bias of its mean (`dc`) and of its scale, with 95 % intervals over photographs.

    `dc` is the mean of x0_hat - x0 over all pixels; `scale` is <x0, x0_hat> / <x0_hat, x0_hat> - 1. Both are zero for an
    exact posterior mean, up to the choice of photographs: at high noise x0_hat is the average photograph of the training
    set, and a few others differ from it by chance, which the intervals show.
    """
    denoise, rows = denoiser_of(prior), []
    for sigma in sigmas:
        noise = noise_for(len(images), seed)(f"bias {sigma:g}", images)
        out = torch.cat([denoise(x[None] + sigma * z[None], sigma) for x, z in zip(images, noise, strict=True)])
        sums = _per_image(images * out, out * out, out - images, (out - images).square())
        row = {"sigma": float(sigma), "rmse": float(np.sqrt(sums[:, 3].mean()))}
        for name, statistic in STATISTICS.items():
            value, low, high = _resampled(statistic, sums)
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return rows


STATISTICS: dict[str, Callable[[np.ndarray], float]] = {
    "dc": lambda mean: float(mean[2]),
    "scale": lambda mean: float(mean[0] / mean[1] - 1),
}


def _per_image(*maps: Tensor) -> np.ndarray:
    """(n, number of maps): the mean of each map (n, C, H, W) over each image."""
    return torch.stack([m.double().flatten(1).mean(1) for m in maps], dim=1).cpu().numpy()


def _resampled(statistic: Callable[[np.ndarray], float], sums: np.ndarray, resamples: int = 2000) -> tuple[float, float, float]:
    """(value, low, high): a statistic of per-image means, and its 95 % percentile interval over resampled images."""
    rng = np.random.default_rng(0)
    draws = [statistic(sums[rng.integers(0, len(sums), len(sums))].mean(0)) for _ in range(resamples)]
    low, high = np.quantile(draws, [0.025, 0.975])
    return statistic(sums.mean(0)), float(low), float(high)


def prior_report(
    prior: Prior,
    images: str | Path,
    levels: Sequence[float],
    size: int = 256,
    seed: int = 0,
    device: str | torch.device = "cpu",
    split: str | None = "test",
) -> dict[str, Any]:
    """Denoising PSNR on the size x size centre crops of a folder (of its test split, where a photos.csv has one).

    `psnr` in dB and `ci`, its 95 % interval over photographs, by level (sigma of 255, as text); `images`: how many;
    `speed`: seconds per image and megapixels per second of one network call on one image, median over levels.
    """
    for level in levels:
        if not 0 < level <= 255 * 20:
            raise InputError(f"sigmas: got {level:g}; give noise levels of 255, above 0, such as 15,25,50,75")
    crops, names = centre_crops(images, size, split)
    rows = compare_denoisers({"prior": denoiser_of(prior)}, crops.to(device), levels, seed)
    seconds = float(np.median([row["seconds_per_image"] for row in rows]))
    return {
        "prior": prior.name,
        "psnr": {f"{row['sigma']:g}": row["psnr"] for row in rows},
        "ci": {f"{row['sigma']:g}": [row["low"], row["high"]] for row in rows},
        "images": len(crops),
        "files": names,
        "size": size,
        "seed": seed,
        "speed": {"seconds_per_image": seconds, "megapixels_per_second": size**2 / 1e6 / seconds},
    }

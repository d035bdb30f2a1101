"""How good a prior is as a denoiser: PSNR and bias over noise levels, with intervals by photograph; speed; colour of images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from leader_nb.crops import builtin_names
from leader_nb.data import builtin_photo
from leader_nb.errors import InputError, one_line
from leader_nb.metrics import bootstrap_interval, psnr
from leader_nb.noise import noise_for
from leader_nb.priors import Prior
from leader_nb.train import image_files

Denoise = Callable[[Tensor, float], Tensor]  # (x (B, 3, H, W) in [-1, 1] plus noise, sigma in [-1, 1] units) -> x0


class CentreCrops(NamedTuple):
    """`pixels` (n, 3, size, size) in [-1, 1], their `names`, and the photographs `left_out` because they are smaller."""

    pixels: Tensor
    names: tuple[str, ...]
    left_out: tuple[str, ...]


def centre_crops(images: str | Path, size: int = 256, split: str | None = None, least: int = 1) -> CentreCrops:
    """The central size x size pixels, as they are, of every photograph that has them.

    `images` is a folder (`split` picks a part of it, where a photos.csv says which), or names photographs that are built in:
    "builtin", "astronaut,coffee". Raises `InputError` for fewer than `least` crops.
    """
    kept, left_out = {}, []
    for name, rgb in _photographs(images, split):
        top, left = (rgb.shape[-2] - size) // 2, (rgb.shape[-1] - size) // 2
        if min(top, left) < 0:
            left_out.append(name)
        else:
            kept[name] = rgb[:, top : top + size, left : left + size].clone()
    if not kept:
        raise InputError(f"images: no image in {images} has {size} x {size} pixels; use a smaller size")
    if len(kept) < least:
        raise InputError(f"images: only {next(iter(kept))} of {images} has {size} x {size} pixels; give at least {least} such")
    return CentreCrops(torch.stack([*kept.values()]), tuple(kept), tuple(left_out))


def _photographs(images: str | Path, split: str | None) -> Iterator[tuple[str, Tensor]]:
    """(name, pixels (3, H, W) in [-1, 1]) of each photograph of a folder, or of those that are built in."""
    if not Path(images).is_dir():
        yield from ((name, builtin_photo(name, 0)[0]) for name in builtin_names(str(images)))
        return
    for path in image_files(images, split):
        try:
            with Image.open(path) as image:
                rgb = np.array(image.convert("RGB"))
        except (OSError, SyntaxError) as error:
            raise InputError(f"images: {path} cannot be read ({one_line(error)}); take it out") from None
        yield path.name, torch.from_numpy(rgb).permute(2, 0, 1).float() / 127.5 - 1


def denoiser_of(prior: Prior) -> Denoise:
    """D(x, sigma) from a prior on its schedule, at the raw time whose sigma_bar is nearest (within 0.5 % of a step)."""

    def denoise(x: Tensor, sigma: float) -> Tensor:
        t = torch.full((len(x),), prior.schedule.nearest_time(sigma))
        return prior(x * prior.schedule.abar(t, x).sqrt(), t).x0

    return denoise


class Seconds(NamedTuple):
    """Of calls of a network: by the clock on the wall, and of processors (all threads together)."""

    wall: float
    cpu: float


def timed(denoise: Denoise, x: Tensor, sigma: float) -> tuple[Tensor, Seconds]:
    """(x0, seconds) of one call and nothing else; on a GPU, from an idle device to an idle device."""
    _settle(x.device)
    start = time.perf_counter(), time.process_time()
    out = denoise(x, sigma)
    _settle(x.device)
    return out, Seconds(time.perf_counter() - start[0], time.process_time() - start[1])


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def median_seconds(calls: Sequence[Seconds]) -> Seconds:
    """The median of each clock over calls."""
    return Seconds(*(float(np.median(clock)) for clock in zip(*calls, strict=True)))


class Denoised(NamedTuple):
    """`psnr` (n,) in dB, and the `seconds` that each of the n calls took."""

    psnr: Tensor
    seconds: list[Seconds]


def denoise_each(denoise: Denoise, images: Tensor, level: float, seed: int = 0) -> Denoised:
    """Denoises each image at sigma = level / 255 of [0, 1]; noise keyed by image, so methods share it."""
    sigma, values, seconds = 2 * level / 255, [], []
    for i, image in enumerate(images):
        clean = image[None]
        noisy = clean + sigma * noise_for(1, seed, [i])(f"denoise {level:g}", clean)
        if not i:
            denoise(noisy, sigma)  # a warm-up: the first call of a size also pays for what later ones find ready
        x0, one = timed(denoise, noisy, sigma)
        values.append(psnr(x0, clean))
        seconds.append(one)
    return Denoised(torch.cat(values), seconds)


def compare_denoisers(
    denoisers: dict[str, Denoise], images: Tensor, levels: Sequence[float], seed: int = 0, anchor: str | None = None
) -> list[dict[str, object]]:
    """One row per level and denoiser: mean PSNR in dB and its 95 % interval over photographs, seconds of a call (medians).

    With `anchor`, one of the denoisers, also `gain`: the PSNR above the anchor's, with the interval of the differences
    photograph by photograph (`gain_low`, `gain_high`); NaN in the anchor's own row.
    """
    rows: list[dict[str, object]] = []
    for level in levels:
        found = {name: denoise_each(denoise, images, level, seed) for name, denoise in denoisers.items()}
        for name, (values, seconds) in found.items():
            row: dict[str, object] = {"sigma": level, "denoiser": name}
            row |= dict(zip(("psnr", "low", "high"), bootstrap_interval(values), strict=True))
            if anchor is not None:
                gain = (math.nan,) * 3 if name == anchor else bootstrap_interval(values - found[anchor].psnr)
                row |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
            wall, cpu = median_seconds(seconds)
            rows.append(row | {"images": len(images), "seconds_per_image": wall, "cpu_seconds_per_image": cpu})
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
    """Denoising PSNR on size x size centre crops: of a folder (its test split, where a photos.csv has one) or built-in ones.

    `psnr` in dB and `ci`, its 95 % interval over photographs, by level (sigma of 255, as text); `images`: how many;
    `files`: which, and `left_out`, which were too small; `speed`: of one network call on one image, the median over `calls`
    calls after a warm-up, by the clock and of processors (all threads together), and megapixels per second by the clock.
    """
    check_report(prior, levels, size, seed)
    crops = centre_crops(images, size, split, least=2)
    pixels, denoise = crops.pixels.to(device), denoiser_of(prior)
    found = {f"{level:g}": denoise_each(denoise, pixels, level, seed) for level in levels}
    means = {level: bootstrap_interval(values) for level, (values, _) in found.items()}
    calls = [seconds for one in found.values() for seconds in one.seconds]
    wall, cpu = median_seconds(calls)
    speed = {"seconds_per_image": wall, "cpu_seconds_per_image": cpu, "megapixels_per_second": size**2 / 1e6 / wall}
    return {
        "prior": prior.name,
        "psnr": {level: interval.mean for level, interval in means.items()},
        "ci": {level: [interval.low, interval.high] for level, interval in means.items()},
        "images": len(crops.names),
        "files": list(crops.names),
        "left_out": list(crops.left_out),
        "size": size,
        "seed": seed,
        "speed": speed | {"calls": len(calls)},
    }


def check_report(prior: Prior, levels: Sequence[float], size: int, seed: int) -> None:
    """Raises `InputError` for crops that the prior cannot take, noise levels that its schedule has not, and a bad seed."""
    if size < prior.minimum:
        raise InputError(f"size: got {size}; {prior.name} takes {prior.minimum} pixels a side or more")
    if not 0 <= seed < 2**63:
        raise InputError(f"seed: got {seed}; give 0 to 2^63 - 1")
    if not levels:
        raise InputError("sigmas: got none; give noise levels of 255, such as 15,25,50,75")
    ends = torch.tensor([0, prior.schedule.length - 1])
    low, high = (127.5 * prior.schedule.sigma(ends, torch.zeros(1).double()).flatten()).tolist()
    for level in levels:
        if not low <= level <= high:
            inside = f"{math.ceil(100 * low) / 100:g} to {math.floor(high):d}"
            raise InputError(f"sigmas: got {level:g}; {prior.name} knows noise of {inside} (of 255), such as 15,25,50,75")


class Colour(NamedTuple):
    """Of each image, (n,) float64: `correlation` of its channels, -1/2 to 1, and `saturation`, 0 (grey) to 1."""

    correlation: Tensor
    saturation: Tensor


def colour(images: Tensor) -> Colour:
    """How colourful images (n, 3, H, W) in [-1, 1] are; out-of-range values are clamped first.

    `correlation` is the mean over the pairs RG, RB, GB of Pearson's correlation over pixels: 1 for grey images, near 0 for
    channels that know nothing of each other, NaN where a channel is constant. `saturation` is sum(max - min) / sum(max), the
    largest and the least of R, G, B in [0, 1] summed over pixels: the mean of HSV's saturation weighted by its value, so
    that the noise of dark pixels does not count; 0 for a black image.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise InputError(f"images: got shape {tuple(images.shape)}; give colour images (n, 3, H, W)")
    pixels = images.detach().cpu().double().clamp(-1, 1).add(1).div(2).flatten(2)  # (n, 3, HW)
    centred = pixels - pixels.mean(2, keepdim=True)
    covariance = centred @ centred.mT
    spread = covariance.diagonal(dim1=1, dim2=2).sqrt()  # (n, 3)
    spread = torch.where(spread > 1e-9 * pixels.shape[2] ** 0.5, spread, math.nan)  # below this it is rounding
    pairs = torch.tensor([[0, 0, 1], [1, 2, 2]])
    correlation = (covariance[:, *pairs] / (spread[:, pairs[0]] * spread[:, pairs[1]])).mean(1)
    brightest = pixels.amax(1)
    chroma = (brightest - pixels.amin(1)).sum(1)
    return Colour(correlation, chroma / brightest.sum(1).clamp(min=1e-12))

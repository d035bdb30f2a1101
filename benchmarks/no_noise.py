"""What does LEADer gain on a host that injects no noise, and does its map know where the answer is wrong?

    python benchmarks/no_noise.py --images DIR [--photos 6] [--tasks sr4@0.05 sr4@0]

IDPG, 100 steps, on photographs of the training split (the whole square reduced to 64 pixels): the bare host, the modulation of
the calibrated preset with the running secant (E10), which reads fresh noise that is not there, and the preset as it is, with
E15 wherever a step injected nothing.
One row per task, variant and photograph: PSNR, LPIPS, calls; and at the first state at or below each of LEVELS, `ratio` = the
mean of the map / the mean squared error of the prior's answer, and `rank` = Spearman's correlation of the two, pixel by pixel.
A task and variant that the table has is skipped.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from leader_nb import leader, load_prior, noise_for, parse_task, restore
from leader_nb.covariance import PyramidWiener, RunningSecant
from leader_nb.data import load_image
from leader_nb.loop import State
from leader_nb.metrics import lpips_distance, psnr
from leader_nb.samplers import IDPG
from leader_nb.train import image_files

LEVELS = (1.0, 0.3, 0.1)
VARIANTS = {
    "none": {},
    "E10": leader(covariance=RunningSecant()),
    "E10, E15 where still": leader(covariance=RunningSecant(still=PyramidWiener())),
}


def spearman(a: Tensor, b: Tensor) -> float:
    """The correlation of ranks."""
    ranks = torch.stack([v.flatten().argsort().argsort().double() for v in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def made(task: str, variant: str, names: list[str], x: Tensor) -> list[dict[str, object]]:
    """One row per photograph."""
    rows: list[dict[str, object]] = [{"task": task, "variant": variant, "photo": name} for name in names]

    def look(state: State) -> None:
        if state.cov is None:
            return
        for j, i in enumerate(state.index.tolist()):
            for level in LEVELS:
                if f"ratio {level:g}" not in rows[i] and state.belief.sigma[j].item() <= level:
                    error = (state.belief.unmodulated[j] - x[i]).square()
                    rows[i][f"ratio {level:g}"] = (state.cov[j].mean() / error.mean()).item()
                    rows[i][f"rank {level:g}"] = spearman(state.cov[j], error)

    problem = parse_task(task).measure(x)
    found = restore(problem, load_prior("photo-small"), IDPG(), noise=noise_for(len(x)), on_state=look, **VARIANTS[variant])
    for row, p, d, calls in zip(rows, psnr(found.image, x), lpips_distance(found.image, x), found.nfe, strict=True):
        row.update(psnr=p.item(), lpips=d.item(), calls=int(calls))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of photographs; its photos.csv says which are train")
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--tasks", nargs="+", default=["sr4@0.05", "sr4@0"])
    parser.add_argument("--out", default="benchmarks/results/no_noise.csv")
    args = parser.parse_args()
    files, out = image_files(args.images, "train"), Path(args.out)
    files = [files[i] for i in torch.linspace(0, len(files) - 1, args.photos).long().tolist()]
    x = torch.cat([load_image(f, 64) for f in files])
    table = pd.read_csv(out) if out.is_file() else pd.DataFrame(columns=["task", "variant"])
    for task in args.tasks:
        for variant in VARIANTS:
            if ((table["task"] == task) & (table["variant"] == variant)).any():
                continue
            rows = pd.DataFrame(made(task, variant, [f.stem for f in files], x)).round(4)
            table = pd.concat([table, rows], ignore_index=True) if len(table) else rows
            table.to_csv(out, index=False)
            print(rows.drop(columns=["task", "variant", "photo"]).mean().round(3).to_dict(), task, variant, flush=True)


if __name__ == "__main__":
    main()

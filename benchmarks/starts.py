"""What does the mean of a measured start add? Each host begun at one and the same noise level from three states.

    python benchmarks/starts.py --images DIR [--hosts ...] [--tasks ...] [--count 12] [--out FILE.csv]

All on training photographs, bare hosts, the noise level of `MeasuredStart()`, and so equally many calls:

    noise     z, the host's own first state, put where the start begins: what a grid does that leaves out its noisiest times
    pinv      sqrt(abar) A^+ y + sqrt(1 - abar) z
    y         sqrt(abar) y + sqrt(1 - abar) z, on blurs, where y is a picture and A^+ amplifies its noise
    measured  sqrt(abar) m + sqrt(1 - abar) z with the Gaussian posterior mean m: `MeasuredStart()` itself
    host      z at the top, and the whole walk

The same z and the same fresh noise in all of them. Rows that are there are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leader_nb import host, load_prior, parse_task, restore
from leader_nb.data import load_image
from leader_nb.errors import Diverged
from leader_nb.loop import Result
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.problem import Problem
from leader_nb.start import measured_start
from leader_nb.steps import LateStart, StepRule
from leader_nb.summary import WORST_LPIPS, WORST_PSNR
from leader_nb.train import image_files
from leader_nb.tree import Tree
from leader_nb.zoo import add_device

HOSTS = ("ddnm", "ddrm", "ddpg", "projdiff", "diffpir", "pirp", "dps", "idpg", "pirp+")
TASKS = ("sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05", "inpaint70@0", "cs25@0.05")
STARTS = ("host", "noise", "pinv", "y", "measured")
FILE = Path(__file__).parent / "results" / "starts.csv"


class PureNoise(LateStart):
    """The host's first state, unchanged, at the position where the start begins; its mean is not looked at."""

    def begin(self, z: Tensor, sigmas: Tensor, memo: Tree) -> tuple[Tensor, Tensor]:
        return z, memo["start"]


def rules(problem: Problem) -> dict[str, StepRule | None]:
    """A step rule for each of `STARTS` (y on blurs alone): None for the whole walk, others at the measured start's level."""
    measured, seen, A = measured_start(problem), problem.operator.pinv(problem.y), problem.operator
    found: dict[str, StepRule | None]
    found = {"host": None, "noise": PureNoise(measured.mean, measured.sigma), "pinv": LateStart(seen, measured.sigma)}
    if problem.y.shape == seen.shape and bool((A.s > 0).all()):
        found["y"] = LateStart(problem.y, measured.sigma)
    return found | {"measured": measured}


def attempted(problem: Problem, prior: Any, sampler: Any, steps: StepRule | None) -> Result:
    """The result, with NaN for images that diverged."""
    try:
        return restore(problem, prior, sampler, steps=steps)
    except Diverged as error:
        return error.result


def scored(image: Tensor, x: Tensor) -> dict[str, Tensor]:
    """PSNR and LPIPS of each image, (B,); NaN for one that diverged."""
    good = torch.isfinite(image).flatten(1).all(1)
    values = {name: torch.full((len(x),), torch.nan, dtype=torch.float64) for name in ("psnr", "lpips")}
    if bool(good.any()):
        values["psnr"][good.cpu()] = psnr(image[good], x[good]).double()
        values["lpips"][good.cpu()] = lpips_distance(image[good], x[good]).double()
    return values


def paired(prefix: str, gaps: dict[str, Tensor]) -> dict[str, float]:
    """Mean and 95 % interval of each measure's differences, over the photographs that both restored."""
    row: dict[str, float] = {}
    for measure, gap in gaps.items():
        names = (f"{prefix}_{measure}{end}" for end in ("", "_low", "_high"))
        kept = gap[torch.isfinite(gap)]
        row |= dict(zip(names, bootstrap_interval(kept) if len(kept) > 1 else (torch.nan,) * 3, strict=True))
    return row


def cell(problem: Problem, prior: Any, sampler: Any, x: Tensor) -> pd.DataFrame:
    """One row for each start.

    d_psnr, d_lpips   less the host's whole walk;   m_psnr, m_lpips   the measured start's less this one's
    apart   root mean square difference to the measured start's picture, in [-1, 1] units: 0 where the start is forgotten
    """
    found = {name: attempted(problem, prior, sampler, rule) for name, rule in rules(problem).items()}
    scores = {name: scored(result.image, x) for name, result in found.items()}
    rows = []
    for name, result in found.items():
        mine = scores[name]
        row: dict[str, Any] = {"start": name, "n": len(x), "failed": int(mine["psnr"].isnan().sum())}
        row |= {"nfe": result.nfe.float().mean().item()} | {m: v.nanmean().item() for m, v in mine.items()}
        row |= paired("d", {m: v - scores["host"][m] for m, v in mine.items()})
        row["no_loss"] = row["d_psnr_low"] >= WORST_PSNR and row["d_lpips_high"] <= WORST_LPIPS and not row["failed"]
        row |= paired("m", {m: scores["measured"][m] - v for m, v in mine.items()})
        gap = (result.image - found["measured"].image).square().flatten(1).mean(1).sqrt()
        rows.append(row | {"apart": gap.nanmean().item()})
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--hosts", nargs="+", default=HOSTS)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", type=Path, default=FILE)
    add_device(parser)
    args = parser.parse_args()
    files = image_files(args.images, "train")
    chosen = files[:: max(1, len(files) // args.count)][: args.count]
    x = torch.cat([load_image(f, args.size) for f in chosen]).to(args.device)
    prior = load_prior(device=args.device)
    for host_name in args.hosts:
        for task_name in args.tasks:
            done = pd.read_csv(args.out) if args.out.is_file() else pd.DataFrame(columns=["host", "task"])
            if not ((done["host"] == host_name) & (done["task"] == task_name)).any():
                task = parse_task(task_name)
                table = cell(task.measure(x), prior, host(host_name, task.sigma, task), x)
                table.insert(0, "host", host_name)
                table.insert(1, "task", task_name)
                table.round(5).replace(-0.0, 0.0).to_csv(args.out, mode="a", header=not args.out.is_file(), index=False)
                print(table.iloc[:, :9].to_string(index=False, header=False), flush=True)


if __name__ == "__main__":
    main()

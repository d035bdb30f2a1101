"""What belongs in the preset that begins at the measured start? Training photographs only, so that the test ones stay unseen.

    python benchmarks/presets.py --images DIR [--hosts ddnm ddpg projdiff] [--tasks ...] [--count 12] [--out FILE.csv]

Every variant runs on the same photographs with the same noise. One row for each host, task and variant, with differences to
the bare host paired by photograph; rows that are in the table already are not made again.
"""

from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leader_nb import host, leader, load_prior, parse_task, restore
from leader_nb.covariance import PyramidSecant, RunningSecant
from leader_nb.data import load_image
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.presets import MODULATIONS
from leader_nb.start import MeasuredStart
from leader_nb.summary import WORST_LPIPS, WORST_PSNR
from leader_nb.train import image_files
from leader_nb.zoo import add_device

HOSTS = ("ddnm", "ddpg", "projdiff")
TASKS = ("inpaint70@0", "sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05", "cs25@0.05")
ESTIMATORS = {"E10": RunningSecant(), "E14": PyramidSecant()}


def variants() -> dict[str, dict[str, Any]]:
    """Name -> plug-ins. `start`: the measured start; `map`, `both`: the modulation after it."""
    start = MeasuredStart()
    table: dict[str, dict[str, Any]] = {"host": {}, "leader": leader(), "start": {"steps": start}}
    for (number, estimator), modulation in product(ESTIMATORS.items(), ("map", "both")):
        table[f"start {modulation} {number}"] = {
            "covariance": estimator,
            "steps": start,
            "modulate": MODULATIONS[modulation],
        }
    table.pop("start map E14")  # nothing that the other three do not say
    return table | {"leader E14": leader(covariance=PyramidSecant())}


def compared(scores: tuple[Tensor, Tensor], base: tuple[Tensor, Tensor]) -> dict[str, object]:
    """Means, paired differences with their intervals, and whether they are within the margins."""
    row: dict[str, object] = {}
    ends = []
    for metric, value, reference in zip(("psnr", "lpips"), scores, base, strict=True):
        mean, low, high = bootstrap_interval(value - reference)
        row |= {metric: value.mean().item(), f"d_{metric}": mean, f"d_{metric}_low": low, f"d_{metric}_high": high}
        ends.append((low, high))
    return row | {"no_loss": ends[0][0] >= WORST_PSNR and ends[1][1] <= WORST_LPIPS}


def cell(host_name: str, task_name: str, x: Tensor, done: set[str], out: Path) -> None:
    """The variants of one host on one task that are not `done`, appended to the table."""
    task, prior = parse_task(task_name), load_prior(device=x.device)
    problem, sampler = task.measure(x), host(host_name, task.sigma, task)
    base: tuple[Tensor, Tensor] | None = None
    for name, plugins in variants().items():
        if name in done and name != "host":
            continue
        result = restore(problem, prior, sampler, **plugins)
        scores = psnr(result.image, x), lpips_distance(result.image, x)
        base = base or scores
        if name in done:
            continue
        row = {"host": host_name, "task": task_name, "variant": name, "n": len(x), "nfe": result.nfe.float().mean().item()}
        table = pd.DataFrame([row | compared(scores, base)]).round(5)
        table.to_csv(out, mode="a", header=not out.is_file(), index=False)
        print(table.to_string(index=False, header=False), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--hosts", nargs="+", default=HOSTS)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", default="benchmarks/results/presets.csv")
    add_device(parser)
    args = parser.parse_args()
    files = image_files(args.images, "train")
    chosen = files[:: max(1, len(files) // args.count)][: args.count]
    x, out = torch.cat([load_image(f, args.size) for f in chosen]).to(args.device), Path(args.out)
    for host_name in args.hosts:
        for task_name in args.tasks:
            table = pd.read_csv(out) if out.is_file() else pd.DataFrame(columns=["host", "task", "variant"])
            done = set(table[(table["host"] == host_name) & (table["task"] == task_name)]["variant"])
            if not set(variants()) <= done:
                cell(host_name, task_name, x, done, out)


if __name__ == "__main__":
    main()

"""How much may a start lose, host by host and task by task? The share of `MeasuredStart`, on training photographs only.

    python benchmarks/shares.py --images DIR [--hosts ...] [--tasks ...] [--count 12] [--out FILE.csv]
    python benchmarks/shares.py --table        # the rows for leader_nb/defaults_start.py

Measure and rule are those of `tune.py`: score = PSNR - RATE LPIPS, and of the shares that score no lower than the bare host on
average, the best among those within 5 % of the fewest calls; 0.2 where none does. Rows that are there are not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from tune import CLOSE, RATE

from leader_nb import host, load_prior, parse_task, restore
from leader_nb.data import load_image
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.start import MeasuredStart
from leader_nb.train import image_files
from leader_nb.zoo import add_device

HOSTS = ("ddnm", "ddpg", "projdiff", "pirp", "ddrm", "idpg", "diffpir")
TASKS = ("sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05", "inpaint70@0", "cs25@0.05")
SHARES = (0.2, 0.5, 0.7, 0.8, 0.9)
FILE = Path(__file__).parent / "results" / "shares.csv"


def cell(host_name: str, task_name: str, x: Tensor) -> pd.DataFrame:
    """One row for the bare host (share 0) and one for each share."""
    task, prior = parse_task(task_name), load_prior(device=x.device)
    problem, sampler = task.measure(x), host(host_name, task.sigma, task)
    rows, base = [], x.new_empty(0)
    for share in (0.0, *SHARES):
        result = restore(problem, prior, sampler, steps=MeasuredStart(share) if share else None)
        scores = psnr(result.image, x), lpips_distance(result.image, x)
        score = scores[0] - RATE * scores[1]
        base = base if share else score
        row = {"host": host_name, "task": task_name, "share": share, "n": len(x), "nfe": result.nfe.float().mean().item()}
        row |= {"psnr": scores[0].mean().item(), "lpips": scores[1].mean().item()}
        row |= dict(zip(("d_score", "d_score_low", "d_score_high"), bootstrap_interval(score - base), strict=True))
        rows.append(row)
    return pd.DataFrame(rows).round(5)


def winners(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each host and task."""
    found = []
    for _, group in table[table["share"] > 0].groupby(["host", "task"], sort=False):
        harmless = group[group["d_score"] >= 0]
        cheap = (
            harmless[harmless["nfe"] <= CLOSE * harmless["nfe"].min()] if len(harmless) else group[group["share"] == SHARES[0]]
        )
        found.append(cheap.loc[cheap["d_score"].idxmax()])
    return pd.DataFrame(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images")
    parser.add_argument("--hosts", nargs="+", default=HOSTS)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path, default=FILE)
    add_device(parser)
    args = parser.parse_args()
    if args.table:
        for row in winners(pd.read_csv(args.out)).itertuples():
            kind, _, sigma = str(row.task).partition("@")
            print(f'    TunedStart("{row.host}", "{kind.rstrip("0123456789")}", {float(sigma):g}, {row.share:g}),')
        return
    files = image_files(args.images, "train")
    chosen = files[:: max(1, len(files) // args.count)][: args.count]
    x = torch.cat([load_image(f, args.size) for f in chosen]).to(args.device)
    for host_name in args.hosts:
        for task_name in args.tasks:
            done = pd.read_csv(args.out) if args.out.is_file() else pd.DataFrame(columns=["host", "task"])
            if not ((done["host"] == host_name) & (done["task"] == task_name)).any():
                table = cell(host_name, task_name, x)
                table.to_csv(args.out, mode="a", header=not args.out.is_file(), index=False)
                print(table.to_string(index=False, header=False), flush=True)


if __name__ == "__main__":
    main()

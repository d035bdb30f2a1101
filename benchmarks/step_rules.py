"""Which step rule, and how much modulation? Measured on training photographs only, so that the test ones stay unseen.

    python benchmarks/step_rules.py --images DIR [--tasks inpaint70@0 sr4@0.05 ...] [--count 10] [--out FILE.csv]

Every variant runs on the same photographs with the same noise; differences to the host are paired, with intervals
bootstrapped by photograph.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leader_nb import host, leader, load_prior, parse_task, restore
from leader_nb.data import load_image
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.steps import SATP, ErrorControlled
from leader_nb.train import image_files
from leader_nb.ucpm import UCPM, HuberTV

TASKS = ("inpaint70@0", "sr4@0", "sr4@0.05", "gaussian@0.05", "color@0")


def variants() -> dict[str, dict[str, Any]]:
    """Name -> plug-ins."""
    table: dict[str, dict[str, Any]] = {"host": {}, "leader": leader(), "leader paper": leader("paper")}
    table |= {f"UCPM mu={mu:g}": leader(steps=None, modulate=UCPM(HuberTV(mu))) for mu in (0.03, 0.1)}
    table |= {f"error {tol:g}": leader(modulate=None, steps=ErrorControlled(tol)) for tol in (5e-5, 1e-4, 2e-4, 3e-4, 1e-3)}
    table["SATP"] = leader(modulate=None, steps=SATP())
    table["SATP below 1"] = leader(modulate=None, steps=SATP(trust_below=1.0))
    return table


def rows(task_name: str, x: Tensor, steps: int) -> list[dict[str, object]]:
    """One row per variant: paired differences to the host in PSNR (dB) and LPIPS, and the calls made."""
    task, prior = parse_task(task_name), load_prior()
    problem, sampler = task.measure(x), host("ddnm", task.sigma)
    table: list[dict[str, object]] = []
    base: tuple[Tensor, Tensor] | None = None
    for name, plugins in variants().items():
        result = restore(problem, prior, sampler, grid=steps, **plugins)
        scores = psnr(result.image, x), lpips_distance(result.image, x)
        base = base or scores
        row: dict[str, object] = {"task": task_name, "variant": name, "nfe": result.nfe.float().mean().item()}
        for metric, value, reference in zip(("psnr", "lpips"), scores, base, strict=True):
            mean, low, high = bootstrap_interval(value - reference)
            row |= {metric: value.mean().item(), f"d_{metric}": mean, f"d_{metric}_low": low, f"d_{metric}_high": high}
        table.append(row)
        print(f"{task_name:14} {name:14} {row['nfe']:6.1f} calls  {row['d_psnr']:+.3f} dB  {row['d_lpips']:+.4f}", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", default="benchmarks/results/step_rules.csv")
    args = parser.parse_args()
    files = image_files(args.images, "train")
    chosen = files[:: max(1, len(files) // args.count)][: args.count]
    x = torch.cat([load_image(f, args.size) for f in chosen])
    table = pd.DataFrame([row for task in args.tasks for row in rows(task, x, args.steps)])
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    table.round(5).to_csv(args.out, index=False)


if __name__ == "__main__":
    main()

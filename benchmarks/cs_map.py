"""Why does the shape of the map hurt DDNM+ on compressed sensing at 128 x 128? Training photographs only.

    python benchmarks/cs_map.py --images DIR [--size 128] [--count 12] [--task cs25@0.05] [--out FILE.csv]

The map inside the likelihood alone (no UCPM, every step taken), and the same with one thing changed: eight times the rounds of
its solver; its shape only below a noise level of one, or only above; the true squared error for a map; its mean for a map.
One row per photograph and variant, and the differences to `flat` on the screen.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ablations import SquaredError
from torch import Tensor

from leader_nb import host, load_prior, parse_task, restore
from leader_nb.controls import FlatModulation, flattened
from leader_nb.covariance import RunningSecant
from leader_nb.data import load_image
from leader_nb.likelihood import MapLikelihood
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.train import image_files
from leader_nb.zoo import add_device

HALF = 1.0  # the noise level between the halves


@dataclass(frozen=True)
class Half:
    """The map inside the likelihood, its shape only on one side of the noise level HALF; on the other its mean."""

    above: bool

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        shaped = (belief.sigma > HALF) == self.above
        return MapLikelihood()(belief, torch.where(shaped, cov, flattened(cov)), problem)


def variants(x: Tensor) -> dict[str, dict[str, Any]]:
    """Name -> plug-ins."""
    mapped = lambda modulate: {"covariance": RunningSecant(), "modulate": modulate}
    return {
        "host": {},
        "flat": mapped(FlatModulation(MapLikelihood())),
        "map": mapped(MapLikelihood()),
        "map, 40 rounds": mapped(MapLikelihood(iterations=40)),
        "map below 1": mapped(Half(above=False)),
        "map above 1": mapped(Half(above=True)),
        "true squared error": {"covariance": SquaredError(x), "modulate": MapLikelihood()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--task", default="cs25@0.05")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cs_map.csv")
    add_device(parser)
    args = parser.parse_args()
    files = image_files(args.images, "train")
    files = files[:: max(1, len(files) // args.count)][: args.count]
    x = torch.cat([load_image(f, args.size) for f in files]).to(args.device)
    task, prior = parse_task(args.task), load_prior(device=x.device)
    problem, sampler, rows = task.measure(x), host("ddnm", task.sigma), []
    for name, plugins in variants(x).items():
        image = restore(problem, prior, sampler, **plugins).image
        scores = {"psnr": psnr(image, x), "lpips": lpips_distance(image, x)}
        part = {metric: [round(v, 5) for v in values.tolist()] for metric, values in scores.items()}
        rows.append(pd.DataFrame({"task": args.task, "size": args.size, "variant": name, "photo": range(len(x)), **part}))
        pd.concat(rows).to_csv(args.out, index=False)
        print(name, *(f"{metric} {v.mean():.4f}" for metric, v in scores.items()), flush=True)
    wide = pd.concat(rows).pivot(index="photo", columns="variant", values=["psnr", "lpips"])
    for name, metric in ((n, m) for n in variants(x) for m in ("psnr", "lpips")):
        gap = bootstrap_interval((wide[metric, name] - wide[metric, "flat"]).to_numpy())
        print(f"{name} - flat, {metric}: {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]")


if __name__ == "__main__":
    main()

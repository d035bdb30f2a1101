"""The true error of every single step, for the grids and rules of equal_nfe.py, where an oracle has it.

    python benchmarks/local_errors.py [--images 4] [--levels 10 25 50]

On a Gaussian mixture of 16 x 16 images, whose score is exact, the curve without fresh noise and without a measurement is
walked in steps of one raw time. A step of a grid is taken from that curve in one go, and its distance to where the curve
goes is its error (root mean square, in [-1, 1] units of x_t / sqrt(abar)). Rules see the exact variances.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from equal_nfe import FOLDER, GRIDS, RULES, rule_of, setting
from torch import Tensor

from leader_nb import image_mixture, noise_for
from leader_nb.mixture import GaussianMixture
from leader_nb.schedule import Schedule, uniform_grid

SCHEDULE = Schedule()
SIGMAS = ((1 - SCHEDULE.table()) / SCHEDULE.table()).sqrt()  # at raw times -1, 0, ..., 999
GRID = uniform_grid(100)


def curve(mixture: GaussianMixture, start: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """Raw time -> (xbar, x0) along the curve of one image, from time 999 down."""
    places, xbar = {}, start * SIGMAS[1000]
    for t in range(999, -1, -1):
        x0 = mixture.mean(xbar, SIGMAS[t + 1])
        places[t] = xbar, x0
        xbar = x0 + SIGMAS[t] / SIGMAS[t + 1] * (xbar - x0)
    return {**places, -1: (xbar, xbar)}


def visited(family: str, level: int, table: Tensor) -> list[tuple[int, ...]]:
    """The times that each image visits; `table` (2, 101, B) holds U and rms(cov) at each position."""
    if family in GRIDS:
        return [GRIDS[family](level)] * table.shape[2]
    rule, maps, out = rule_of(family, setting(family, level, table)), table[0 if family == "SATP" else 1], []
    sigmas = SIGMAS[torch.tensor([-1, *reversed(GRID)]) + 1]
    for image in maps.T:
        k, memo, times = torch.tensor([100]), rule.init(sigmas, 1), []
        while k > 0:
            times.append(GRID[100 - int(k)])
            k, memo = rule.next(k, image[k].view(1, 1, 1, 1), memo)
        out.append(tuple(times))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--levels", nargs="+", type=int, default=(10, 25, 50))
    parser.add_argument("--out", default=str(FOLDER / "local_errors.csv"))
    args = parser.parse_args()
    mixture = image_mixture(16)
    starts = noise_for(args.images, 0)("start", torch.zeros(args.images, 1, 16, 16, dtype=torch.float64))
    curves = [curve(mixture, start) for start in starts]
    table = torch.zeros(2, 101, args.images, dtype=torch.float64)
    for i, places in enumerate(curves):
        for k, t in zip(range(100, 0, -1), GRID, strict=True):
            diagonal = mixture.covariance(places[t][0], SIGMAS[t + 1]).diagonal()
            table[0, k, i], table[1, k, i] = diagonal.mean(), diagonal.square().mean().sqrt()
    rows = []
    for level in args.levels:
        for family in (*GRIDS, *RULES):
            for i, times in enumerate(visited(family, level, table)):
                for t, s in zip(times, (*times[1:], -1), strict=True):
                    (xbar, x0), there = curves[i][t], curves[i][s][0]
                    error = (x0 + SIGMAS[s + 1] / SIGMAS[t + 1] * (xbar - x0) - there).square().mean().sqrt().item()
                    row = {"family": family, "level": level, "image": i, "t": t, "s": s}
                    rows.append({**row, "sigma": f"{SIGMAS[t + 1].item():.4g}", "error": f"{error:.4g}"})
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(args.out, index=False)


if __name__ == "__main__":
    main()

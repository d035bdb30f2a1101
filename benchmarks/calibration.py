"""Does the map say where a restoration is wrong? Calibration inside restorations, beside repeated sampling.

    python benchmarks/calibration.py --images DIR [--fit 6] [--size 64] [--out benchmarks/results]

One run of DDNM or DDNM+ (100 steps, eta = 0.85) per photograph and task; every free estimator watches it and changes nothing.
A prediction is a map of variances, judged by the squared error it foretells, pixel by pixel (means over channels), where the
measurement leaves something open:

    target "x0"     the map at noise level `sigma` against (x0|t - x)^2 at that state
    target "final"  the map read at one level, times the share of it that the measurement leaves open, against (xhat - x)^2
    target "own"    repeated sampling against the squared error of its own restoration, the mean of its runs

"edges" is a control that knows nothing of diffusion: the local mean square step between neighbours in the restoration.
"probes" are 16 of Hutchinson's, smoothed: the network's own covariance as far as it can be had at that price. They are asked
at three levels, and paid for at the one where they are read. `--probes` makes their rows alone and leaves the others.
"repeat 8x100" is the variance over 8 whole runs: 8 times the network calls of the run it judges; `--long` says for which tasks.
"repeat 8x12" has 8 runs of 12 steps, 96 calls: as many as the single run, an eighth of the other. `calls` counts them, the
judged run's own 100 included.

The level at which an estimator is read (the best rank correlation) and a factor for its scale (mean squared error / mean map)
are chosen per task on `--fit` training photographs; everything else is measured on the test photographs. `score` is the
interval score of the scaled map: the width of its nominal 90 % interval, plus 20 times what a value lies outside (Gneiting and
Raftery 2007), which only the true quantiles make smallest; `gain` is the share of the flat map's that it saves. "bent" stands
for factor * map^power in place of factor * map, both numbers from the same training photographs. Intervals are for 95 %,
bootstrapped by photograph.

Two tables: calibration.csv, and calibration_bins.csv with ten equal bins of scaled predictions.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leader_nb import Prior, Problem, host, load_prior, noise_for, parse_task, restore
from leader_nb.covariance import (
    Analytic,
    Hutchinson,
    NoiseReuse,
    PyramidSecant,
    RunningSecant,
    ScoreSquared,
    SecondMoment,
    box,
    fit_head,
    measure_table,
)
from leader_nb.data import load_image
from leader_nb.metrics import bootstrap_interval, psnr
from leader_nb.operators.pixelwise import Mask
from leader_nb.priors import Belief
from leader_nb.samplers import Sampler
from leader_nb.train import image_files
from leader_nb.tree import Tree
from leader_nb.zoo import add_device

TASKS = ("inpaint70@0", "sr4@0", "gaussian@0.05", "sr4@0.05")
LONG = ("inpaint70@0", "sr4@0.05")
LEVELS = (3.0, 2.0, 1.4, 1.0, 0.6, 0.3, 0.15, 0.1)
PROBES, PROBED = 16, (0.3, 0.15, 0.1)  # how many of the dear probes, and where they are asked: near where free maps are best
TABLE_TIMES = (20, 60, 100, 150, 200, 250, 300, 350, 400, 450, 500)
RUNS, STEPS, SHORT = 8, 100, 12
FLAT = "flat (E2)"
FINAL = 0.0  # `sigma` of a prediction that is made from finished restorations
NORMAL_90 = 1.6449  # 90 % of a normal distribution lies within so many standard deviations


@dataclass
class Watch:
    """The free estimators beside one run, their maps and the answers kept at LEVELS."""

    free: dict[str, Any]
    times: dict[int, float]
    maps: dict[tuple[str, float], Tensor] = field(default_factory=dict)
    answers: dict[float, Tensor] = field(default_factory=dict)
    memories: dict[str, Tree] = field(default_factory=dict)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        level = self.times.get(belief.t[0].item())
        for name, estimator in self.free.items():
            cov, self.memories[name] = estimator.update(belief, injected, self.memories.get(name, {}))
            if level:
                self.maps[name, level] = cov
        if level:
            self.answers[level] = belief.x0
        if level in PROBED:
            self.maps["probes", level] = Hutchinson(PROBES, window=5, clip=True).update(belief, None, {})[0]
        return belief.x0, memory


@dataclass(frozen=True, eq=False)
class Prediction:
    """Maps of variances, and the squared errors that they foretell."""

    variance: Tensor  # (n, C, H, W)
    squared: Tensor  # (n, C, H, W)
    open: Tensor  # (n, H, W) bool: pixels that the measurement does not settle

    def rows(self) -> list[tuple[Tensor, Tensor]]:
        """(map, squared error) of each photograph, over open pixels, means over channels."""
        pairs = zip(self.variance.mean(1), self.squared.mean(1), self.open, strict=True)
        return [(v[o].double().cpu(), e[o].double().cpu()) for v, e, o in pairs]

    def ranks(self) -> list[float]:
        """Spearman's rank correlation for each photograph; 0 for a map that says the same everywhere."""
        return [spearman(v, e) for v, e in self.rows()]

    def factor(self) -> float:
        """What the map has to be multiplied with to have the mean of the squared error."""
        return (torch.cat([e for _, e in self.rows()]).mean() / torch.cat([v for v, _ in self.rows()]).mean()).item()

    def law(self) -> tuple[float, float]:
        """(power, factor) with mean squared error ~ factor * map^power: a straight line through ten bins on two log axes.

        The power is that line's slope; the factor then gives the mean of the squared error. A flat map keeps power 1.
        """
        bins = [b for b in bins_of(self, 1.0, resamples=2) if b["measured"] > 0]
        x, y = (np.log([b[name] for b in bins]) for name in ("predicted", "measured"))
        power = float(np.polyfit(x, y, 1)[0]) if len(bins) > 2 else 1.0
        return power, self.bent(power, 1.0).factor()

    def bent(self, power: float, factor: float) -> Prediction:
        """The same with factor * map^power as the map."""
        return replace(self, variance=factor * self.variance**power)

    def coverage(self, factor: float) -> list[float]:
        """Share of values (pixel and channel) inside their nominal 90 % interval, for each photograph."""
        inside = self.squared <= NORMAL_90**2 * factor * self.variance
        return [i[:, o].double().mean().item() for i, o in zip(inside, self.open, strict=True)]

    def scores(self, factor: float) -> list[float]:
        """The mean interval score of each photograph, in [-1, 1] units."""
        half = NORMAL_90 * (factor * self.variance).sqrt()
        score = 2 * half + 20 * (self.squared.sqrt() - half).clamp(min=0)
        return [v[:, o].double().mean().item() for v, o in zip(score, self.open, strict=True)]


def spearman(a: Tensor, b: Tensor) -> float:
    """Pearson's correlation of average ranks; 0 where one of them is constant."""
    ranks = np.stack([pd.Series(v.numpy()).rank().to_numpy() for v in (a, b)])
    return float(np.corrcoef(ranks)[0, 1]) if ranks.std(axis=1).min() > 0 else 0.0


def left_open(problem: Problem, cov: Tensor) -> Tensor:
    """The share of each variance that the measurement leaves, (n, C, H, W), for a prior covariance w I, w the mean of `cov`.

    V diag(sigma_y^2 / (s^2 w + sigma_y^2)) V^T, 1 where s = 0: its diagonal for masks, the mean of its diagonal for others.
    """
    w, s, noise = cov.mean((1, 2, 3), keepdim=True), problem.operator.s, problem.noise_level**2
    share = torch.where(s > 0, noise / (s**2 * w + noise).clamp(min=1e-12), 1.0)
    if not isinstance(problem.operator, Mask):
        share = share.expand(len(cov), *s.shape[1:]).mean((1, 2, 3), keepdim=True)
    return share.expand_as(cov)


def estimators(prior: Prior, training: Tensor) -> dict[str, Any]:
    """The free ones; the table and the head are fitted on training photographs."""
    flat, head = measure_table(prior, training, TABLE_TIMES), fit_head(prior, training, TABLE_TIMES)
    score = {"score squared (E1)": ScoreSquared(), "score squared, 5x5 (E1w)": ScoreSquared(window=5)}
    secants = {"running secant (E10)": RunningSecant(), "pyramid secant (E14)": PyramidSecant()}
    others = {"noise reuse (E11)": NoiseReuse(), "trained head (E3)": SecondMoment(head)}
    return {FLAT: Analytic(flat)} | score | secants | others


def predictions(
    task: str, prior: Prior, x: Tensor, free: dict[str, Any], repeats: tuple[int, ...] = (SHORT, STEPS)
) -> tuple[dict[tuple[str, str, float], Prediction], dict[str, float]]:
    """(target, predictor, level) -> prediction for photographs x, and the PSNR of each restoration.

    `repeats`: the steps of the repeated runs, SHORT or STEPS.
    """
    spec = parse_task(task)
    problem, sampler = spec.measure(x), host("ddnm", spec.sigma)
    watch = Watch(free, {min(990, 10 * round(prior.schedule.nearest_time(v) / 10)): v for v in LEVELS})
    first = restore(problem, prior, sampler, noise=noise_for(len(x), seed=1), covariance=watch).image
    again = {}
    for steps in repeats:
        known = [first] if steps == STEPS else []
        more = repeated(problem, prior, sampler, steps, range(1 + len(known), RUNS + 1))
        again[f"repeat {RUNS}x{steps}"] = torch.stack([*known, *more])
    everywhere = torch.ones_like(x[:, 0], dtype=torch.bool)
    closed = problem.operator.s[:, 0] > 0 if isinstance(problem.operator, Mask) and not spec.sigma else ~everywhere
    found = {}
    for (name, level), cov in watch.maps.items():
        cov = cov.float()
        found["x0", name, level] = Prediction(cov, (watch.answers[level] - x).square(), everywhere)
        found["final", name, level] = Prediction(cov * left_open(problem, cov), (first - x).square(), ~closed)
    found["final", "edges", FINAL] = Prediction(edges(first), (first - x).square(), ~closed)
    for name, images in again.items():
        found["final", name, FINAL] = Prediction(images.var(0), (first - x).square(), ~closed)
        found["own", name, FINAL] = Prediction(images.var(0), (images.mean(0) - x).square(), ~closed)
    images = {"one run": first} | {name: images.mean(0) for name, images in again.items()}
    return found, {name: psnr(image, x).mean().item() for name, image in images.items()}


def repeated(problem: Problem, prior: Prior, sampler: Sampler, steps: int, seeds: range) -> list[Tensor]:
    """Restorations that differ in their noise alone."""
    return [restore(problem, prior, sampler, grid=steps, noise=noise_for(len(problem), seed=s)).image for s in seeds]


def edges(x: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels of the squared steps to the right and lower neighbours, (n, C, H, W)."""
    down, right = torch.diff(x, dim=-2, append=x[..., -1:, :]), torch.diff(x, dim=-1, append=x[..., -1:])
    return box(down**2 + right**2, 3) + 1e-8


def calls(name: str, target: str) -> tuple[int, int]:
    """Network calls and backward passes for the map and the restoration that it judges."""
    runs = {f"repeat {RUNS}x{STEPS}": RUNS * STEPS, f"repeat {RUNS}x{SHORT}": RUNS * SHORT + STEPS * (target == "final")}
    return (STEPS + 1, PROBES) if name == "probes" else (runs.get(name, STEPS), 0)


def chosen(fitted: dict[tuple[str, str, float], Prediction]) -> list[tuple[str, str, float]]:
    """All of "x0"; for the other targets each predictor at the level where its mean rank correlation is best.

    Where all levels are alike (a flat map has no ranks) it is the one whose scale needs the smallest correction.
    """
    best: dict[tuple[str, str], tuple[float, float, float]] = {}
    for (target, name, level), p in fitted.items():
        merit = (round(float(np.mean(p.ranks())), 3), -abs(math.log(p.factor())), level)
        if target != "x0" and merit > best.get((target, name), (-2.0, 0.0, 0.0)):
            best[target, name] = merit
    return [k for k in fitted if k[0] == "x0" or best[k[:2]][2] == k[2]]


def row_of(p: Prediction, fit: Prediction, flat: list[float] | None = None) -> dict[str, float]:
    """The measures of a prediction, each with its interval; factor and power come from `fit`, the same on other photographs.

    `flat` are the scores of the flat map on the same errors.
    """
    factor, (power, bend) = fit.factor(), fit.law()
    bent, scores = p.bent(power, bend), p.scores(factor)
    row = {"factor": factor, "power": power, "ratio": 1 / p.factor()}
    measures = {"rank": p.ranks(), "coverage": p.coverage(1.0), "scaled_coverage": p.coverage(factor)}
    measures |= {"bent_coverage": bent.coverage(1.0), "score": scores}
    if flat:
        for name, found in (("gain", scores), ("bent_gain", bent.scores(1.0))):
            measures[name] = [(a - b) / float(np.mean(flat)) for a, b in zip(flat, found, strict=True)]
    for name, values in measures.items():
        mean, low, high = bootstrap_interval(values)
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    return row


def bins_of(
    p: Prediction, factor: float, law: tuple[float, float] = (1.0, 1.0), count: int = 10, resamples: int = 1000
) -> list[dict[str, float]]:
    """Ten equal bins of the predictions of all photographs: their mean once scaled by `factor`, their mean once bent by
    `law` (power, factor), and the mean squared error with its interval."""
    pairs = p.rows()
    ends = np.quantile(torch.cat([v for v, _ in pairs]).numpy(), np.linspace(0, 1, count + 1)[1:-1])
    totals = np.zeros((4, len(pairs), count))  # of predictions, bent ones, squared errors and pixels
    for i, (v, e) in enumerate(pairs):
        where, weights = np.searchsorted(ends, v.numpy()), (factor * v, law[1] * v ** law[0], e, torch.ones_like(e))
        totals[:, i] = [np.bincount(where, w.numpy(), count) for w in weights]
    drawn = np.random.default_rng(0).integers(0, len(pairs), (resamples, len(pairs)))
    totals = totals[..., totals[3].sum(0) > 0]  # a map of few values fills few bins
    errors, pixels = totals[2:, drawn].sum(2)  # (resamples, bins)
    means = np.divide(errors, pixels, out=np.full_like(errors, np.nan), where=pixels > 0)
    low, high = np.nanquantile(means, [0.025, 0.975], axis=0)
    said, bent, seen, size = totals.sum(1)
    names = ("predicted", "bent", "measured", "low", "high", "pixels")
    columns = (said / size, bent / size, seen / size, low, high, size)
    return [{"bin": b} | dict(zip(names, row, strict=True)) for b, row in enumerate(zip(*columns, strict=True))]


def task_rows(
    task: str, prior: Prior, fit: Tensor, test: Tensor, free: dict[str, Any], repeats: tuple[int, ...]
) -> tuple[list, list]:
    """The rows of both tables for a task."""
    start = time.process_time()
    fitted, _ = predictions(task, prior, fit, free, repeats)
    keys = chosen(fitted)
    judged, quality = predictions(task, prior, test, free, repeats)
    table, bins = [], []
    base = next(k for k in keys if k[:2] == ("final", FLAT))
    flat = judged[base].scores(fitted[base].factor())
    for target, name, level in keys:
        p, fit_p = judged[target, name, level], fitted[target, name, level]
        head = {"task": task, "target": target, "predictor": name, "sigma": level}
        nfe, backward = calls(name, target)
        said = quality[name if target == "own" else "one run"] if target != "x0" else float("nan")
        head_of_row = head | {"photos": len(test), "calls": nfe, "backward": backward, "psnr": said}
        table.append(head_of_row | row_of(p, fit_p, flat if target == "final" else None))
        if target != "x0":
            bins += [head | b for b in bins_of(p, fit_p.factor(), fit_p.law())]
    print(f"{task}: {time.process_time() - start:.0f} s of CPU", flush=True)
    return table, bins


def with_probes(old: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """The table with the probes of `made` in place of its own, at the end of their task."""
    made = made[made["predictor"] == "probes"]
    table = pd.concat([old[(old["predictor"] != "probes") | ~old["task"].isin(made["task"])], made], ignore_index=True)
    return table.iloc[table["task"].map(list(old["task"].unique()).index).argsort(kind="stable")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="folder of photographs; photos.csv in or beside it says which are test")
    parser.add_argument("--fit", type=int, default=6, help="training photographs that levels and factors are chosen on")
    parser.add_argument("--count", type=int, default=0, help="test photographs; 0 takes all")
    parser.add_argument("--judge", default="test", choices=("train", "test"), help="train: other training photographs")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--long", nargs="+", default=LONG, help="tasks for which 8 whole runs are made as well")
    parser.add_argument("--probes", action="store_true", help="the rows of the probes alone, into the tables that are there")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--out", default="benchmarks/results")
    add_device(parser)
    args = parser.parse_args()
    prior, training = load_prior(device=args.device), image_files(args.images, "train")
    every = len(training) // args.fit
    others = training[every // 2 :: every] if args.judge == "train" else image_files(args.images, "test")
    chosen_files = training[::every][: args.fit], others[: args.count or None], training[1::8]
    fit, test, more = (torch.cat([load_image(f, args.size) for f in files]).to(args.device) for files in chosen_files)
    free = estimators(prior, more)
    free = {FLAT: free[FLAT]} if args.probes else free
    files = [Path(args.out) / f"calibration{end}.csv" for end in ("", "_bins")]
    old = [pd.read_csv(file) for file in files] if args.probes else []
    table, bins = [], []
    for task in args.tasks:
        repeats = () if args.probes else (SHORT, STEPS) if task in args.long else (SHORT,)
        found, counted = task_rows(task, prior, fit, test, free, repeats)
        table, bins = table + found, bins + counted
        made = [pd.DataFrame(table).round(4), pd.DataFrame(bins).round(7)]
        for i, file in enumerate(files):
            (with_probes(old[i], made[i]) if args.probes else made[i]).to_csv(file, index=False)
    frame = pd.DataFrame(table)
    print(frame[frame.target != "x0"].round(3).to_string())


if __name__ == "__main__":
    main()

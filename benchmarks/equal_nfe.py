"""Grids and step rules at equal numbers of network calls, on DDNM (DDNM+ where there is noise).

    python benchmarks/equal_nfe.py --images DIR [--tasks ...] [--levels 25 50 10]           # training photographs
    python benchmarks/equal_nfe.py --images DIR --families "start 0.5" --levels 100 25 50     # the measured start
    python benchmarks/equal_nfe.py --images DIR --families mean --levels 0                    # its control, which makes no call
    python benchmarks/equal_nfe.py --images DIR --split test --count 23 ...                   # the final check
    python benchmarks/equal_nfe.py --summary                                                  # the table again

Appends one row per photograph to equal_nfe_photos.csv and leaves alone what is there; then writes equal_nfe.csv, one row for
each task, family and level, with differences paired by photograph. Settings of the rules are found without restoring
anything: the maps of the host's own walk are recorded, and the rule is walked over them until it makes that many calls.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leader_nb import host, load_prior, parse_task, restore
from leader_nb.covariance import RunningSecant
from leader_nb.data import load_image
from leader_nb.loop import Result
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.noise import noise_for
from leader_nb.problem import Problem
from leader_nb.schedule import Schedule, least_noisy_grid, log_snr_grid, quadratic_grid, uniform_grid
from leader_nb.start import GaussianMean, MeasuredStart, measured_start
from leader_nb.steps import SATP, ErrorControlled, LateStart, PIControlled, StepRule
from leader_nb.summary import WORST_LPIPS, WORST_PSNR
from leader_nb.train import image_files
from leader_nb.zoo import add_device

FOLDER = Path(__file__).parent / "results"
TASKS = ("inpaint70@0", "sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05", "color@0", "cs25@0.05")
LEVELS = (25, 50, 10)
RULES = ("SATP", "error", "PI")
GRIDS: dict[str, Callable[[int], tuple[int, ...]]] = {
    "uniform": uniform_grid,
    "log-SNR": log_snr_grid,
    "quadratic": quadratic_grid,
    "least noisy": least_noisy_grid,
}
BOTH = "start 0.2 + error"  # the measured start, then error control
MEAN = "mean"  # what a start begins with, and not a call more
LONGEST = 0.3  # of the grid, for every rule: a tenth, their default, would forbid ten calls
STARTS = {f"start {share}": share for share in (0.05, 0.2, 0.5, 0.8)}  # the share of variance that may be lost


def rule_of(family: str, value: float, start: LateStart | None = None) -> StepRule:
    """A step rule with its budget or tolerance; from the `start` on, if there is one."""
    rule: StepRule = PIControlled(value, longest=LONGEST)
    if family == "SATP":
        rule = SATP(budget=value, longest=LONGEST)
    elif family in ("error", BOTH):
        rule = ErrorControlled(value, LONGEST)
    return replace(start, then=rule) if start else rule


def maps_of_the_host(problem: Problem, prior: Any, sampler: Any, noise: Any) -> tuple[Any, Tensor]:
    """(result, table): the host's 100 steps, and U and rms(cov) of each image at each position, (2, 101, B)."""
    table = torch.full((2, 101, len(problem)), math.nan, dtype=torch.float64)

    def note(state: Any) -> None:
        for i, k, cov in zip(state.index.tolist(), state.k.tolist(), state.cov.double(), strict=True):
            table[0, k, i], table[1, k, i] = cov.mean(), cov.square().mean().sqrt()

    result = restore(problem, prior, sampler, noise=noise, covariance=RunningSecant(), on_state=note)
    return result, table


def walked(rule: StepRule, maps: Tensor) -> float:
    """How many calls the rule makes over recorded maps (101, B), mean over images."""
    sigmas = Schedule().sigma(torch.tensor([-1, *reversed(uniform_grid(100))]), maps.new_empty(0)).flatten()
    batch = maps.shape[1]
    memo, calls = rule.init(sigmas, batch), torch.zeros(batch)
    k = memo["start"] if isinstance(rule, LateStart) else torch.full((batch,), 100)
    while bool((k > 0).any()):
        cov = maps.gather(0, k[None]).view(batch, 1, 1, 1)
        there, memo = rule.next(k.clamp(min=1), cov, memo)
        calls, k = calls + (k > 0), torch.where(k > 0, there, 0)
    return calls.mean().item()


def setting(family: str, level: int, table: Tensor, start: LateStart | None = None) -> float:
    """The budget or tolerance with which a rule makes `level` calls, by bisection of its logarithm."""
    low, high = -8.0, 3.0
    maps = table[0 if family == "SATP" else 1]
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if walked(rule_of(family, 10**middle, start), maps) > level else (low, middle)
    return 10**middle


def plugins_of(family: str, level: int, problem: Problem, table: Tensor | None) -> tuple[float, dict[str, Any]]:
    """(setting, keywords of `restore`)."""
    if family in GRIDS:
        return level, {"grid": GRIDS[family](level)}
    if family in STARTS:
        options = late(problem, level, STARTS[family])
        return options["grid"], options
    assert table is not None  # the host was run before
    start = measured_start(problem) if family == BOTH else None
    value = float(f"{setting(family, level, table, start):.3g}")
    return value, {"covariance": RunningSecant(), "steps": rule_of(family, value, start)}


def late(problem: Problem, level: int, share: float) -> dict[str, Any]:
    """The measured start over the uniform grid that makes it `level` calls; at level 100 over the host's own grid."""
    rule = MeasuredStart(share)
    begin = torch.as_tensor(rule.for_problem(problem).sigma)[:, None]
    for steps in range(level, 1000):
        times = torch.tensor(uniform_grid(steps))
        sigmas = Schedule().sigma(times, begin.new_empty(0)).flatten()[1:]
        calls = (sigmas <= begin).sum(1).double().mean().item()
        if level == 100 or calls >= level - 0.5:
            break
    return {"grid": steps, "steps": rule}


def scored(result: Any, x: Tensor, names: list[str], row: dict[str, Any]) -> pd.DataFrame:
    """One row per photograph."""
    quality = zip(
        names, result.nfe.tolist(), psnr(result.image, x).tolist(), lpips_distance(result.image, x).tolist(), strict=True
    )
    rows = [{**row, "photo": n, "nfe": c, "psnr": round(p, 4), "lpips": round(q, 5)} for n, c, p, q in quality]
    return pd.DataFrame(rows)


class Work:
    """Photographs, prior and what is known of each task; the maps of a host's walk are kept in `cache` between runs."""

    def __init__(self, args: argparse.Namespace) -> None:
        files = image_files(args.images, args.split)
        chosen = files[:: max(1, len(files) // args.count)][: args.count]
        self.x, self.names = torch.cat([load_image(f, args.size) for f in chosen]).to(args.device), [f.name for f in chosen]
        self.prior, self.split, self.cache = load_prior(args.prior, args.device), args.split, Path(args.cache)
        self.cache.mkdir(parents=True, exist_ok=True)

    def restored(self, task_name: str, family: str, level: int) -> tuple[float, Any]:
        """(setting, result) of one family at one level."""
        task = parse_task(task_name)
        problem, sampler, noise = task.measure(self.x), host("ddnm", task.sigma), noise_for(len(self.x))
        maps = self.cache / f"{self.split}-{task_name}-{len(self.x)}.pt"
        if family == "host":
            result, table = maps_of_the_host(problem, self.prior, sampler, noise)
            torch.save(table, maps)
            return level, result
        if family == MEAN:
            none = torch.zeros(len(self.x), dtype=torch.long)
            return level, Result(GaussianMean()(problem), None, none, none, 0.0)
        if family == "another seed":
            return level, restore(problem, self.prior, sampler, noise=noise_for(len(self.x), 1))
        value, options = plugins_of(family, level, problem, torch.load(maps) if family in (*RULES, BOTH) else None)
        return value, restore(problem, self.prior, sampler, noise=noise, **options)


def compute(args: argparse.Namespace, file: Path) -> None:
    """Compute what the file of photographs lacks, level by level, and append it."""
    work = Work(args)
    jobs = [(task, "host", 100) for task in args.tasks] + [(task, "another seed", 100) for task in args.reseeded]
    jobs += [(task, family, level) for level in args.levels for task in args.tasks for family in args.families]
    for task, family, level in jobs:
        row = {"split": args.split, "task": task, "family": family, "level": level}
        done = pd.read_csv(file) if file.is_file() else pd.DataFrame(columns=[*row, "photo"])
        same = (done[list(row)] == list(row.values())).all(axis=1)
        if set(work.names) <= set(done[same]["photo"]):
            continue
        value, result = work.restored(task, family, level)
        rows = scored(result, work.x, work.names, {**row, "setting": value})
        rows.to_csv(file, mode="a", header=not file.is_file(), index=False)
        print(f"{task:14} {family:12} {level:4} {result.nfe.float().mean():6.1f} calls {rows.psnr.mean():.3f}", flush=True)


# --- The table ---------------------------------------------------------------------------------------------------


def at_calls(rows: pd.DataFrame, calls: float, score: str) -> pd.Series:
    """A grid's score of each photograph at a number of calls, interpolated in log calls between its levels."""
    wide = rows.pivot_table(index="photo", columns="nfe", values=score)
    levels = np.log(wide.columns.to_numpy(float))
    return pd.Series([np.interp(math.log(calls), levels, v) for v in wide.to_numpy()], index=wide.index)


def difference(mine: pd.DataFrame, other: pd.DataFrame, calls: float) -> dict[str, float]:
    """Mean and interval of PSNR and LPIPS, mine minus the other's at equal calls, paired by photograph."""
    row = {}
    for score in ("psnr", "lpips"):
        gap = mine.set_index("photo")[score] - at_calls(other, calls, score)
        for name, value in zip(
            (f"d_{score}", f"d_{score}_low", f"d_{score}_high"), bootstrap_interval(gap.to_numpy()), strict=True
        ):
            row[name] = value
    return row


def verdict(d: dict[str, float]) -> str:
    """How one fares against another, from the intervals of its PSNR and LPIPS minus the other's.

    held        both bad ends are within the margins
    dominated   a good end is beyond its margin, and the other measure is no better on average
    trade       a good end is beyond its margin, and the other measure is better on average
    open        none of these: the intervals are too wide to tell
    """
    if d["d_psnr_low"] >= WORST_PSNR and d["d_lpips_high"] <= WORST_LPIPS:
        return "held"
    less, worse = d["d_psnr_high"] < WORST_PSNR, d["d_lpips_low"] > WORST_LPIPS
    if not (less or worse):
        return "open"
    return "trade" if (less and d["d_lpips"] < 0) or (worse and d["d_psnr"] > 0) else "dominated"


def summary(photos: pd.DataFrame) -> pd.DataFrame:
    """One row per split, task, family and level: means, differences to the host, and the verdict against each grid."""
    out = []
    for (split, task), part in photos.groupby(["split", "task"], sort=False):
        whole = part[part.family == "host"]
        grids = {g: part[part.family == g] for g in GRIDS}
        grids |= {g: pd.concat([grids[g], whole]) for g in ("uniform", "least noisy")}  # with all 100 steps they are the host
        for (family, level), mine in part[part.family != "host"].groupby(["family", "level"], sort=False):
            calls = mine.nfe.mean()
            row = {"split": split, "task": task, "family": family, "level": level}
            row |= {"setting": mine.setting.iloc[0], "n": len(mine)}
            row |= {"nfe": calls, "psnr": mine.psnr.mean(), "lpips": mine.lpips.mean()}
            to_host = difference(mine, whole, 100)
            row |= to_host | {"no_loss": verdict(to_host) == "held"}
            for g, rows in grids.items():
                fits = g != family and family != "another seed" and len(rows) and rows.nfe.min() <= calls <= rows.nfe.max() + 3
                row[f"against {g}"] = verdict(difference(mine, rows, calls)) if fits else ""
            out.append(row)
    return pd.DataFrame(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images")
    parser.add_argument("--split", default="train")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--prior", default="photo-small")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument(
        "--reseeded", nargs="*", default=("color@0", "cs25@0.05"), help="tasks whose host runs with a second seed"
    )
    parser.add_argument("--families", nargs="+", default=(*GRIDS, *RULES))
    parser.add_argument("--levels", nargs="+", type=int, default=LEVELS)
    parser.add_argument("--cache", default="_build/equal_nfe")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--out", default=str(FOLDER / "equal_nfe.csv"))
    add_device(parser)
    args = parser.parse_args()
    out = Path(args.out)
    photos = out.with_name(f"{out.stem}_photos.csv")
    if not args.summary:
        compute(args, photos)
    summary(pd.read_csv(photos)).round(5).to_csv(out, index=False)


if __name__ == "__main__":
    main()

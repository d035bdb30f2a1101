"""Do the network calls that a step rule saves come back as time?

    python benchmarks/restore_many.py --threads 1 --clock cpu --task inpaint70@0     # the committed table
    python benchmarks/restore_many.py --count 4 --batch 2 --steps 20 --rounds 2 --out /tmp/try.csv   # a try

A queue of different photographs is restored by `restore_many`: by the host, by LEADer whose rule is idle (tolerance or
budget 0: every step is taken), and by LEADer as it is, with the error-controlled rule of its preset, with the paper's SATP,
and with a SATP on the calibrated map whose budget (`--budget`) is so large that images make about half of the calls, each its
own number. `realised` is the share of time saved over the share of calls saved, both against the idle rule, which costs the
same per call. `over_host` is the same against the bare host, where LEADer has to earn its own overhead first. Variants take
turns within a round, forth and back; ratios are taken within a round, and reported are medians and quartiles over rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from leader_nb import Prior, Problem, host, leader, load_prior, parse_task, restore_many
from leader_nb.data import BUILTIN_PHOTOS, builtin_photo
from leader_nb.steps import SATP, ErrorControlled

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
IDLE = {"error-controlled": "error-controlled, idle", "SATP": "SATP, idle", "SATP, half": "SATP, half, idle"}
QUARTILES = {"q25": 0.25, "q75": 0.75}


def variants(budget: float) -> dict[str, dict[str, Any]]:
    """LEADer's keywords by the name of the variant. The last two read the calibrated map: the paper's is too much the same for
    all images to send them different ways."""
    return {
        "host": {},
        "error-controlled, idle": leader(steps=ErrorControlled(tolerance=0.0)),
        "error-controlled": leader(),
        "SATP, idle": leader("paper", steps=SATP(budget=0.0)),
        "SATP": leader("paper"),
        "SATP, half, idle": leader(steps=SATP(budget=0.0)),
        "SATP, half": leader(steps=SATP(budget=budget)),
    }


def images(count: int, size: int) -> torch.Tensor:
    """Photographs and their flips, (count, 3, size, size)."""
    photos = [builtin_photo(name, size) for name in BUILTIN_PHOTOS]
    turned = [f(p) for f in (lambda p: p, lambda p: p.flip(3), lambda p: p.flip(2), lambda p: p.flip(2, 3)) for p in photos]
    return torch.cat((turned * -(-count // len(turned)))[:count])


def queued(problem: Problem, prior: Prior, args: argparse.Namespace, plugins: dict[str, Any]) -> torch.Tensor:
    """Calls of each image."""
    sampler = host("ddnm", parse_task(args.task).sigma)
    results = restore_many([problem], prior, sampler, batch=args.batch, grid=args.steps, progress=False, **plugins)
    return torch.cat([r.nfe for r in sorted(results, key=lambda r: r.number)])


def measure(args: argparse.Namespace) -> pd.DataFrame:
    """One row per round and variant: seconds and calls."""
    methods = variants(args.budget)
    prior, problem = load_prior(args.prior), parse_task(args.task).measure(images(args.count, args.size))
    queued(problem, prior, argparse.Namespace(**vars(args) | {"steps": 3}), methods["error-controlled"])  # warms up
    table = []
    for turn in range(args.rounds):
        for variant in list(methods)[:: -1 if turn % 2 else 1]:
            start = CLOCKS[args.clock]()
            calls = queued(problem, prior, args, methods[variant])
            row: dict[str, object] = {"round": turn, "variant": variant, "seconds": CLOCKS[args.clock]() - start}
            row |= {"nfe": calls.double().mean().item(), "nfe_least": int(calls.min()), "nfe_most": int(calls.max())}
            table.append(row)
            print(f"round {turn}  {variant:24} {row['seconds']:6.1f} s  {row['nfe']:5.1f} calls", flush=True)
    return pd.DataFrame(table)


def summary(table: pd.DataFrame, args: argparse.Namespace) -> pd.DataFrame:
    """Medians and quartiles over rounds; shares of time and calls saved are taken within a round."""
    rounds = table.set_index(["variant", "round"])
    rows = []
    for variant in variants(args.budget):
        mine, idle, bare = rounds.loc[variant], rounds.loc[IDLE.get(variant, variant)], rounds.loc["host"]
        row: dict[str, object] = {"task": args.task, "variant": variant} | mine.median().to_dict()
        row |= spread("seconds", mine["seconds"])
        if variant in IDLE:
            for name, base in {"realised": idle, "over_host": bare}.items():
                saved = 1 - mine["nfe"] / base["nfe"]
                shares = (1 - mine["seconds"] / base["seconds"]) / saved.where(saved > 0)
                row |= {"calls_saved": saved.median(), name: shares.median()} | spread(name, shares)
        rows.append(row)
    names = ("count", "size", "batch", "steps", "rounds", "budget", "clock", "threads", "load", "prior")
    return pd.DataFrame(rows).assign(**{name: getattr(args, name) for name in names}).round(4)


def spread(name: str, values: pd.Series) -> dict[str, float]:
    return {f"{name}_{q}": values.quantile(share) for q, share in QUARTILES.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="sr4@0.05")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--budget", type=float, default=0.02, help="of the variant `SATP, half`")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--prior", default="photo-small")
    parser.add_argument("--out", default="benchmarks/results/restore_many.csv")
    args = parser.parse_args()
    args.load = round(os.getloadavg()[0], 1)
    torch.set_num_threads(args.threads)
    table = summary(measure(args), args)
    print(table.iloc[:, :14].to_string(index=False))
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(args.out, index=False)


if __name__ == "__main__":
    main()

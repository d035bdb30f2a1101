"""Time per step outside the network: DDRM, DPS and DiffPIR, ours against deepinv's.

    python benchmarks/outside_network.py [--size 64] [--batch 8] [--steps 50] [--rounds 15]

The network is replaced by a stand-in that costs nothing: it answers with its input scaled (or, where nothing is
differentiated, with the same image each time), so what is left is the host, the operator, the noise and the loop. Both
sides get the same measurement, in float32, with operators of their own; each makes as many calls as there are steps. They
take turns in one process, on one thread, in processor time, since others may share the machine; the ratio is taken within a
round. Medians over rounds, with 95 % intervals by bootstrap. Needs `pip install "leader_nb[compare]"`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deepinv
import numpy as np
import pandas as pd
import torch
from torch import Tensor

import leader_nb
from leader_nb import Prediction, Prior, Schedule, parse_task, restore
from leader_nb.problem import Problem
from leader_nb.samplers import DDRM, DPS, DiffPIR, Sampler
from leader_nb.schedule import quadratic_grid, uniform_grid

GOAL = 0.8  # ours / theirs
CASES = (("ddrm", "inpaint70@0.05"), ("ddrm", "gaussian@0.05"), ("diffpir", "inpaint70@0.05"), ("diffpir", "gaussian@0.05"))
CASES += (("dps", "inpaint70@0.05"), ("dps", "gaussian@0.05"), ("dps", "sr4@0.05"))
HOSTS: dict[str, Sampler] = {"ddrm": DDRM(), "diffpir": DiffPIR(), "dps": DPS(variant="scaled")}


def measured(task: str, size: int, batch: int) -> Problem:
    """Random images under one operator: deepinv's DDRM takes a single mask for a batch."""
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    problem = parse_task(task).measure(images)
    operator = problem.operator.rows(torch.zeros(1, dtype=torch.long)) if len(problem.operator.s) > 1 else problem.operator
    return Problem(operator(images), operator, problem.sigma_y)


def ours(host: str, problem: Problem, steps: int) -> Callable[[], object]:
    answer = torch.zeros(len(problem), *problem.operator.image_shape)

    def predict(x: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        return Prediction(x0=0.5 * x if x.requires_grad else answer)

    return lambda: restore(problem, Prior(predict), HOSTS[host], grid=steps)


def their_physics(problem: Problem, task: str) -> Any:
    """deepinv's own operator for the task, with noise for images in [0, 1]."""
    shape, noise = problem.operator.image_shape, deepinv.physics.GaussianNoise(float(problem.sigma_y[0]) / 2)
    if task.startswith("inpaint"):
        mask = problem.operator.s[0].expand(shape).contiguous()
        return deepinv.physics.Inpainting(img_size=shape, mask=mask, noise_model=noise)
    if task.startswith("gaussian"):
        taps = problem.operator.kernel[None].float()  # type: ignore[attr-defined]
        return deepinv.physics.BlurFFT(img_size=shape, filter=taps, noise_model=noise)
    return deepinv.physics.DownsamplingMatlab(factor=4, noise_model=noise)


def theirs(host: str, problem: Problem, task: str, steps: int) -> Callable[[], object]:
    physics = their_physics(problem, task)
    white = torch.ones(len(problem), *problem.operator.image_shape)
    y, answer = (problem.y + problem.operator(white)) / 2, white / 2

    def denoiser(x: Tensor, sigma: object) -> Tensor:
        return 0.5 * x if x.requires_grad else answer

    if host == "ddrm":
        table = Schedule().table()[1:]
        levels = [float(((1 - table[t]) / table[t]).sqrt()) for t in uniform_grid(steps)]
        sampler = deepinv.sampling.DDRM(denoiser, sigmas=levels)
    elif host == "diffpir":
        sampler = deepinv.sampling.DiffPIR(denoiser, deepinv.optim.data_fidelity.L2(), max_iter=len(quadratic_grid(steps)))
    else:  # one network call for each of the steps between steps + 1 times
        made = deepinv.sampling.DPS(denoiser, num_steps=steps + 1, dtype=torch.float32)
        return lambda: made(y, physics, x_init=tuple(white.shape))
    return lambda: sampler(y, physics)


def interval(values: pd.Series, draws: int = 2000) -> tuple[float, float]:
    """Of the median, 95 %, bootstrapped over rounds."""
    picks = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(np.median(values.to_numpy()[picks], axis=1), [0.025, 0.975])
    return float(low), float(high)


def compared(host: str, task: str, args: argparse.Namespace) -> dict[str, object]:
    problem = measured(task, args.size, args.batch)
    works = {"ours": ours(host, problem, args.steps), "theirs": theirs(host, problem, task, args.steps)}
    rounds = []
    for turn in range(args.rounds + 1):
        found = {}
        for name in works if turn % 2 else reversed(works):
            start = time.process_time()
            works[name]()
            found[name] = (time.process_time() - start) / args.steps * 1e3
        rounds.append(found)
    timed = pd.DataFrame(rounds[1:])  # the first round warms up
    timed["ratio"] = timed["ours"] / timed["theirs"]
    row: dict[str, object] = {"host": host, "task": task}
    for name, unit in (("ours", "ours_ms"), ("theirs", "deepinv_ms"), ("ratio", "ratio")):
        low, high = interval(timed[name])
        row |= {unit: timed[name].median(), f"{unit}_low": low, f"{unit}_high": high}
    return {**row, "within": bool(timed["ratio"].median() <= GOAL)}


def provenance(args: argparse.Namespace) -> dict[str, object]:
    return {
        "made_by": "benchmarks/outside_network.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **{name: getattr(args, name) for name in ("size", "batch", "steps", "rounds")},
        "clock": "cpu",
        "threads": torch.get_num_threads(),
        "load_before": args.load,
        "leader_nb": leader_nb.__version__,
        "deepinv": deepinv.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", default="benchmarks/results/outside_network.json")
    args = parser.parse_args()
    args.load = round(os.getloadavg()[0], 1)
    torch.set_num_threads(1)
    rows = []
    for host, task in CASES:
        rows.append(compared(host, task, args))
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).round(4)
    print(table.to_string(index=False))
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out.with_suffix(".csv"), index=False)
    out.write_text(json.dumps({"provenance": provenance(args), "rows": table.to_dict("records")}, indent=1) + "\n")


if __name__ == "__main__":
    main()

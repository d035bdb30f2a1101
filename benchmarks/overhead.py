"""What the loop and LEADer cost beside the network.

    python benchmarks/overhead.py [--size 64] [--batch 8] [--steps 10] [--rounds 7] [--threads N]

For every host: wall time of `restore` over T bare forward passes of the network, the same with LEADer at budget or
tolerance 0 (equal NFE), and the image buffers that LEADer adds. Runs alternate, so that a busy machine disturbs all
alike; each ratio is taken within a round and its median over rounds is reported, with the quartiles. `--clock cpu`
counts processor seconds instead, which others on the machine disturb less; use one thread with it.
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

import pandas as pd
import torch
from torch import Tensor

import leader_nb
from leader_nb import SAMPLERS, Prior, host, leader, load_prior, parse_task, restore
from leader_nb.buffers import peak_images
from leader_nb.steps import SATP, ErrorControlled
from leader_nb.zoo import PRIORS, prior_hash

TASK_OF = {"ddnm": "sr4@0"}  # the others are timed on a noisy measurement
NOISY = "sr4@0.05"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
VARIANTS: dict[str, dict[str, Any]] = {
    "host": {},
    "leader": leader(steps=ErrorControlled(tolerance=0.0)),
    "leader-paper": leader("paper", steps=SATP(budget=0.0)),
}


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    work()
    return clock() - start


@torch.no_grad()
def forward_passes(prior: Prior, x: Tensor, times: tuple[int, ...]) -> None:
    """The network alone, at every time of the grid."""
    for t in times:
        prior.predict(x, torch.full((len(x),), t), prior.schedule)


def measure_host(name: str, prior: Prior, args: argparse.Namespace) -> list[dict[str, object]]:
    """One row per variant of one host."""
    task = parse_task(TASK_OF.get(name, NOISY))
    sampler = host(name, task.sigma)
    images = torch.rand(args.batch, 3, args.size, args.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    problem, times = task.measure(images), sampler.default_steps(args.steps)

    def run(variant: str) -> None:
        result = restore(problem, prior, sampler, grid=args.steps, **VARIANTS[variant])
        assert result.nfe.tolist() == [args.steps] * args.batch, "the variants must cost the same calls"

    rounds = []
    for turn in range(args.rounds + 1):
        order = [*VARIANTS, "bare"] if turn % 2 else ["bare", *reversed(VARIANTS)]
        works = {v: (lambda v=v: run(v)) for v in VARIANTS} | {"bare": lambda: forward_passes(prior, images, times)}
        rounds.append({name: seconds(works[name], CLOCKS[args.clock]) for name in order})
    timed = pd.DataFrame(rounds[1:])  # the first round warms up
    peaks = {v: peak_images(problem, sampler, args.steps, plugins) for v, plugins in VARIANTS.items()}
    return [row(name, str(task), variant, timed, peaks, args.steps) for variant in VARIANTS]


def row(name: str, task: str, variant: str, timed: pd.DataFrame, peaks: dict[str, float], steps: int) -> dict[str, object]:
    over_network = timed[variant] / timed["bare"]
    over_host = timed[variant] / timed["host"]
    return {
        "host": name,
        "task": task,
        "variant": variant,
        "nfe": steps,
        "seconds": timed[variant].median(),
        "bare_seconds": timed["bare"].median(),
        "over_network": over_network.median(),
        "over_network_q25": over_network.quantile(0.25),
        "over_network_q75": over_network.quantile(0.75),
        "over_host": over_host.median(),
        "over_host_q25": over_host.quantile(0.25),
        "over_host_q75": over_host.quantile(0.75),
        "extra_ms_per_step": (timed[variant] - timed["host"]).median() / steps * 1e3,
        "peak_images": peaks[variant],
        "extra_images": peaks[variant] - peaks["host"],
    }


def provenance(args: argparse.Namespace) -> dict[str, object]:
    return {
        "made_by": "benchmarks/overhead.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "size": args.size,
        "batch": args.batch,
        "rounds": args.rounds,
        "clock": args.clock,
        "threads": torch.get_num_threads(),
        "load_before": args.load,
        "prior": args.prior,
        "prior_sha256": prior_hash(args.prior),
        "leader_nb": leader_nb.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--prior", default=PRIORS[0])
    parser.add_argument("--out", default="benchmarks/results/overhead.json")
    args = parser.parse_args()
    args.load = round(os.getloadavg()[0], 1)
    torch.set_num_threads(args.threads)
    prior = load_prior(args.prior)
    rows = [r for name in SAMPLERS for r in measure_host(name, prior, args)]
    table = pd.DataFrame(rows).round(4)
    print(table.drop(columns=["task", "nfe"]).to_string(index=False))
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out.with_suffix(".csv"), index=False)
    out.write_text(json.dumps({"provenance": provenance(args), "rows": table.to_dict("records")}, indent=1) + "\n")


if __name__ == "__main__":
    main()

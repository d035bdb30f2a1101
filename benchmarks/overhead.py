"""What the loop and LEADer cost beside the network.

    python benchmarks/overhead.py [--size 64] [--batch 8] [--steps 10] [--rounds 7] [--threads N] [--hosts dps,sitcom]

For every host: wall time of `restore` over the bare network, the same with LEADer at budget or tolerance 0 (equal calls),
and the image buffers that LEADer adds. "Bare" is a replay of the calls that the host made, each on as many images and with
autograd where the host asked for it, and of its backward passes; these are timed again without any, so that their share is
known. Runs alternate, so that a busy machine disturbs all alike; each ratio is taken within a round and its median over
rounds is reported, with the quartiles. `--clock cpu` counts processor seconds instead, which others on the machine disturb
less; use one thread with it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import leader_nb
from leader_nb import SAMPLERS, Prediction, Prior, Schedule, host, leader, load_prior, parse_task, restore
from leader_nb.buffers import peak_images
from leader_nb.steps import SATP, ErrorControlled
from leader_nb.zoo import PRIORS, add_device, prior_hash

TASK_OF = {"ddnm": "sr4@0", "sitcom": "sr4@0"}  # SITCOM would stop early on noise, and in another place with LEADer
NOISY = "sr4@0.05"
SETTINGS: dict[str, dict[str, Any]] = {"sitcom": {"iterations": 2}}  # 30 calls a step would say no more
GOAL, BUFFERS = 1.05, 8.0  # of a host over the bare network; of LEADer in images
Call = tuple[str, int, bool]  # ("forward" or "backward", images, under autograd)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
VARIANTS: dict[str, dict[str, Any]] = {
    "host": {},
    "leader": leader(steps=ErrorControlled(tolerance=0.0)),
    "leader-paper": leader("paper", steps=SATP(budget=0.0)),
}


def seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    """Until the device is done with it."""
    start = clock()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return clock() - start


def taped(prior: Prior, tape: list[Call]) -> Prior:
    """The same prior; what it is asked, and what is differentiated, goes on the tape."""

    def predict(x: Tensor, t: Tensor, schedule: Schedule) -> Prediction:
        said = prior.predict(x, t, schedule)
        tape.append(("forward", len(x), x.requires_grad))
        if said.x0 is not None and said.x0.requires_grad:
            said.x0.register_hook(lambda g: tape.append(("backward", len(g), True)))
        return said

    return replace(prior, predict=predict)


def replay(prior: Prior, x: Tensor, tape: Sequence[Call], backward: bool = True) -> None:
    """The network alone, call by call; with `backward` off, no call is under autograd either."""
    last: tuple[Tensor, Tensor] | None = None
    for kind, count, gradient in tape:
        if kind == "forward":
            leaf = x[:count].detach().requires_grad_(gradient and backward)
            with torch.set_grad_enabled(gradient and backward):
                x0 = prior.predict(leaf, torch.full((count,), 500), prior.schedule).x0
            last = (leaf, x0)
        elif backward:
            leaf, x0 = last
            torch.autograd.grad(x0, leaf, torch.ones_like(x0), retain_graph=True)


def measure_host(name: str, prior: Prior, args: argparse.Namespace) -> list[dict[str, object]]:
    """One row per variant of one host."""
    task = parse_task(TASK_OF.get(name, NOISY))
    sampler = replace(host(name, task.sigma), **SETTINGS.get(name, {}))
    images = torch.rand(args.batch, 3, args.size, args.size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images = images.to(args.device)
    problem, tapes = task.measure(images), {}
    for variant, plugins in VARIANTS.items():  # warms up, too
        tapes[variant] = []
        restore(problem, taped(prior, tapes[variant]), sampler, grid=args.steps, **plugins)
    tape = tapes["host"]
    assert all(other == tape for other in tapes.values()), f"{name}: the variants must cost the same calls"
    works: dict[str, Callable[[], object]] = {
        **{v: (lambda v=v: restore(problem, prior, sampler, grid=args.steps, **VARIANTS[v])) for v in VARIANTS},
        "bare": lambda: replay(prior, images, tape),
        "forward": lambda: replay(prior, images, tape, backward=False),
    }
    if not sampler.needs_gradient:
        del works["forward"]
    rounds = []
    for turn in range(args.rounds):
        order = works if turn % 2 else reversed(works)
        rounds.append({work: seconds(works[work], CLOCKS[args.clock]) for work in order})
    timed = pd.DataFrame(rounds)
    timed["forward"] = timed.get("forward", timed["bare"])
    peaks = {v: peak_images(problem, sampler, args.steps, plugins) for v, plugins in VARIANTS.items()}
    return [row(name, str(task), variant, timed, peaks, tape, args.steps) for variant in VARIANTS]


def row(
    name: str, task: str, variant: str, timed: pd.DataFrame, peaks: dict[str, float], tape: list[Call], steps: int
) -> dict[str, object]:
    over_network = timed[variant] / timed["bare"]
    over_host = timed[variant] / timed["host"]
    extra = peaks[variant] - peaks["host"]
    return {
        "host": name,
        "task": task,
        "variant": variant,
        "nfe": sum(kind == "forward" for kind, _, _ in tape),
        "backward": sum(kind == "backward" for kind, _, _ in tape),
        "seconds": timed[variant].median(),
        "bare_seconds": timed["bare"].median(),
        "backward_seconds": (timed["bare"] - timed["forward"]).median(),
        "over_network": over_network.median(),
        "over_network_q25": over_network.quantile(0.25),
        "over_network_q75": over_network.quantile(0.75),
        "over_host": over_host.median(),
        "over_host_q25": over_host.quantile(0.25),
        "over_host_q75": over_host.quantile(0.75),
        "extra_ms_per_step": (timed[variant] - timed["host"]).median() / steps * 1e3,
        "peak_images": peaks[variant],
        "extra_images": extra,
        "within": bool(over_network.median() <= GOAL if variant == "host" else extra <= BUFFERS + 0.01),
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
        "device": str(args.device),
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
    parser.add_argument("--hosts", default=",".join(SAMPLERS))
    parser.add_argument("--prior", default=PRIORS[0])
    parser.add_argument("--out", default="benchmarks/results/overhead.json")
    add_device(parser)
    args = parser.parse_args()
    args.load = round(os.getloadavg()[0], 1)
    torch.set_num_threads(args.threads)
    prior = load_prior(args.prior, args.device)
    rows: list[dict[str, object]] = []
    for name in args.hosts.split(","):
        rows += measure_host(name, prior, args)
        print(name, [r["over_network"] for r in rows[-len(VARIANTS) :]], flush=True)
    table = pd.DataFrame(rows).round(4)
    print(table.drop(columns=["task", "nfe"]).to_string(index=False))
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(out.with_suffix(".csv"), index=False)
    made = {"provenance": provenance(args), "rows": table.to_dict("records")}
    out.with_suffix(".json").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()

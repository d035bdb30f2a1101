"""Do hosts sample the posterior? Their draws against the exact posterior of a Gaussian mixture, host by host, task by task.

    python benchmarks/oracle_table.py [--tasks pool4@0.025 ...] [--methods ddnm dps ...] [--measurements 64] [--draws 19]
    python benchmarks/oracle_table.py --tune       # adds rows with constants chosen on other measurements

Pictures are drawn from `image_mixture(8, contrast=0.5)`, measured, and restored `draws` times each, every draw with noise of
its own; `leader_nb.calibration` says what is compared. The denoiser is exact, so what is wrong in a row is the host's doing,
or that of its steps: the references "told" take as many with a denoiser that has seen y. `--tune` tries the constants in
DIALS on 16 other measurements and keeps those with the best CRPS. Rows that are in the table already and were not asked for
are kept. One core, float64.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

import leader_nb
from leader_nb import DDNM, SAMPLERS, GaussianMixture, host, image_mixture, leader, noise_for, parse_task, restore
from leader_nb.calibration import Ancestral, Exact, blind, pose, ranks, score, told
from leader_nb.metrics import bootstrap_interval
from leader_nb.samplers import HOSTS, Sampler
from leader_nb.schedule import log_snr_grid

TASKS = ("inpaint70@0", "inpaint70@0.025", "pool4@0.025", "gaussian@0.025")


GUIDED: dict[str, Sampler] = {  # walks of a denoiser that has seen y: what steps alone do to the spread
    "told, x0 drawn": Ancestral(),
    "told, 400 even steps": Ancestral(),
    "told, even steps": Ancestral(),
    "told, ancestral": Ancestral(),
    "told, eta 0": DDNM(eta_ddim=0.0),
    "told, eta 0.85": DDNM(),
}
GRIDS: dict[str, int | tuple[int, ...]] = {  # even steps: in log sigma_bar; SITCOM's as published; elsewhere 100 in t
    "told, x0 drawn": 10,
    "told, 400 even steps": log_snr_grid(400),
    "told, even steps": log_snr_grid(100),
    "sitcom": 20,
}
REFERENCES = ("exact posterior", "posterior mean", *GUIDED)
PLUGINS = ("leader", "leader-paper")
METHODS = (*REFERENCES, *SAMPLERS, *PLUGINS)
ETAS: dict[str, tuple[Any, ...]] = {"eta_ddim": (0.0, 0.5, 0.85, 1.0)}
DIALS: dict[str, dict[str, tuple[Any, ...]]] = {  # what --tune tries, all combinations
    "ddnm": ETAS,
    "ddnm+": ETAS,
    "ddrm": {"eta_ddim": (0.5, 0.85, 1.0), "eta_b": (0.7, 1.0)},
    "ddpg": {"gamma": (2.0, 8.0), "zeta": (0.3, 0.6, 1.0)},
    "projdiff": {"lr": (0.1, 0.25, 0.5, 1.0)},
    "dps": {"scale": (0.1, 0.3, 1.0, 3.0, 10.0)},
    "diffpir": {"lam": (1.0, 4.0, 16.0), "zeta": (0.3, 1.0)},
    "pirp": {"lam": (-0.09, 0.0), "zeta": (0.3, 1.0)},
    "sitcom": {"iterations": (2, 5, 30)},
}
TUNING = {"count": 16, "draws": 19, "seed": 1000}
INTERVALS = ("bias2", "spread", "coverage")
POINTS = ("seen", "unseen", "kinds", "crps", "residual")
KEYS = ["task", "method", "setting"]


@dataclass(frozen=True)
class Method:
    """One way to draw: a host with its constants and plug-ins, or a reference (no sampler)."""

    name: str
    setting: str = "own"
    sampler: Sampler | None = None
    plugin: str = ""

    @property
    def options(self) -> dict[str, Any]:
        presets: dict[str, Callable[[], dict[str, Any]]] = {"leader": leader, "leader-paper": lambda: leader("paper")}
        return {"grid": GRIDS.get(self.name, 100), **(presets[self.plugin]() if self.plugin else {})}


def method(name: str, sigma: float) -> Method:
    """By its name; LEADer goes on DDNM, or where there is noise on DDNM+."""
    if name in REFERENCES:
        return Method(name, sampler=GUIDED.get(name))
    return Method(name, sampler=host("ddnm", sigma), plugin=name) if name in PLUGINS else Method(name, sampler=HOSTS[name]())


def draw(way: Method, exact: Exact, count: int, seed: int) -> tuple[Tensor, float]:
    """(draws (M, count, C, H, W), network calls for each)."""
    shape = (len(exact.truth), count, *exact.truth.shape[1:])
    if way.name == "exact posterior":
        return exact.draws(count, seed), 0.0
    if way.name == "posterior mean":
        return exact.mean[:, None].expand(shape), 0.0
    problem, prior = exact.repeated(count), exact.mixture.prior(together=True)
    if way.name in GUIDED:
        drawn = torch.Generator().manual_seed(seed) if "drawn" in way.name else None
        problem, prior = blind(problem), told(exact, count, drawn)
    result = restore(problem, prior, way.sampler, noise=noise_for(len(problem), seed), **way.options)
    return result.image.view(shape), result.nfe.double().mean().item()


def tuned(way: Method, exact: Exact, seed: int) -> Method:
    """The same host with the combination of its DIALS that has the lowest CRPS."""
    found: list[tuple[float, Sampler]] = []
    for values in product(*DIALS[way.name].values()):
        sampler: Any = replace(way.sampler, **dict(zip(DIALS[way.name], values, strict=True)))  # type: ignore[type-var]
        samples, _ = draw(replace(way, sampler=sampler), exact, TUNING["draws"], seed)
        found.append((score(samples, exact)["crps"].nan_to_num(torch.inf).mean().item(), sampler))
    return replace(way, setting="tuned", sampler=min(found, key=lambda pair: pair[0])[1])


def ways(names: list[str], task: str, tune: bool, seed: int) -> Iterator[Method]:
    """The rows asked for: with the hosts' own constants, or tuned."""
    every = [method(name, parse_task(task).sigma) for name in names]
    if not tune:
        yield from every
        return
    elsewhere = pose(world(), parse_task(task), TUNING["count"], TUNING["seed"] + seed)
    yield from (tuned(way, elsewhere, seed) for way in every if way.name in DIALS)


def world() -> GaussianMixture:
    return image_mixture(8, contrast=0.5)


def summary(scores: dict[str, Tensor]) -> dict[str, float]:
    """Means over measurements, with intervals bootstrapped over them where a claim is made; the bias as a root."""
    row: dict[str, float] = {}
    for name in INTERVALS:
        row |= {name + end: v for end, v in zip(("", "_low", "_high"), bootstrap_interval(scores[name]), strict=True)}
    for end in ("", "_low", "_high"):
        row["bias" + end] = max(0.0, row.pop("bias2" + end)) ** 0.5
    return row | {name: scores[name].mean().item() for name in POINTS}


def rows(way: Method, task: str, exact: Exact, args: argparse.Namespace) -> tuple[dict[str, object], list[dict[str, object]]]:
    """(the row of the table, the shares of the truth's ranks in twenty bins, or one a rank where there are fewer)."""
    start = time.process_time()
    samples, calls = draw(way, exact, args.draws, args.seed)
    constants = "" if way.sampler is None else repr(way.sampler) + (f" + {way.plugin}" if way.plugin else "")
    keys: dict[str, object] = dict(zip(KEYS, (task, way.name, way.setting), strict=True))
    row = keys | summary(score(samples, exact)) | {"nfe": calls}
    row |= {"measurements": len(exact.truth), "draws": args.draws, "seed": args.seed, "constants": constants}
    bins = min(20, args.draws + 1)
    place = ranks(samples, exact)[exact.open] * bins // (args.draws + 1)
    shares = torch.bincount(place, minlength=bins).double() / len(place)
    print(
        f"{task:16} {way.name:16} {way.setting:6} bias {row['bias']:.2f}  spread {row['spread']:.2f}"
        f"  coverage {row['coverage']:.3f}  kinds {row['kinds']:.2f}  {time.process_time() - start:.0f} s  {constants}",
        flush=True,
    )
    return row, [keys | {"bin": i, "share": share} for i, share in enumerate(shares.tolist())]


def merged(path: Path, new: list[dict[str, object]]) -> pd.DataFrame:
    """The table at `path` with its rows replaced where there are new ones, in the order of TASKS and METHODS."""
    fresh = pd.DataFrame(new)
    if path.exists():
        old = pd.read_csv(path, keep_default_na=False, na_values=[""])
        again = old.set_index(KEYS).index.isin(fresh.set_index(KEYS).index)
        fresh = pd.concat([old[~again], fresh], ignore_index=True)
    order = [fresh["task"].map(TASKS.index), fresh["method"].map(METHODS.index)]
    return fresh.assign(_task=order[0], _method=order[1]).sort_values(["_task", "_method"], kind="stable").iloc[:, :-2]


def provenance(args: argparse.Namespace) -> dict[str, object]:
    return {
        "made_by": "benchmarks/oracle_table.py",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "mixture": "image_mixture(8, contrast=0.5)",
        "seed": args.seed,
        "tuning": TUNING,
        "threads": torch.get_num_threads(),
        "leader_nb": leader_nb.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--measurements", type=int, default=64)
    parser.add_argument("--draws", type=int, default=19, help="19, 39, 59, ...: others have no interval of 90 %%")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--out", default="benchmarks/results/oracle_table.csv")
    args = parser.parse_args()
    out = Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    for task in args.tasks:
        exact = pose(world(), parse_task(task), args.measurements, args.seed)
        for way in ways(args.methods, task, args.tune, args.seed):
            row, shares = rows(way, task, exact, args)
            for path, new in ((out, [row]), (out.with_name(out.stem + "_ranks.csv"), shares)):
                merged(path, new).round(4).to_csv(path, index=False)
    out.with_suffix(".json").write_text(json.dumps(provenance(args), indent=1) + "\n")


if __name__ == "__main__":
    main()

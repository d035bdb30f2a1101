"""The constants of the hosts, searched on training photographs only, with the same budget for every host.

    python benchmarks/tune.py --images DIR --out FOLDER [--hosts ddpg,projdiff] [--tasks sr4@0.05] [--budget 6400]

For each host and task: its own constants first, then those it was published with for such a task (if they differ), then
random settings out of SPACE, until the budget is spent. The budget is in network calls, summed over the photographs; a
backward pass counts as one more. (6400 = 8 settings x 8 photographs x 100 calls.) A host whose steps cost more tries fewer
settings; the first one always runs.

The measure is score = PSNR - RATE LPIPS, in dB, with RATE the ratio of the two margins of "no loss" in the big table. A
setting counts as better only where the 95 % interval of its paired difference to the host's own constants, bootstrapped by
photograph, lies above zero; many settings are tried, so even that is a hint and no proof.

Photographs come from the train split of a photos.csv, which must exist: a test photograph cannot get in. Every row is kept
(FOLDER/table.csv, where the plug-in column holds the constants), so a run that was stopped goes on; FOLDER/trials.csv has
one row for each setting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from leader_nb import SAMPLERS, host, parse_task
from leader_nb.crops import Photo, centre
from leader_nb.data import atomic_write, load_image
from leader_nb.errors import InputError, one_line
from leader_nb.experiments import Cell, Experiment, Lab, attempt, batches, chosen
from leader_nb.metrics import bootstrap_interval
from leader_nb.samplers import Sampler, defaults_gradient, defaults_spectral
from leader_nb.store import Store
from leader_nb.summary import WORST_LPIPS, WORST_PSNR
from leader_nb.train import image_files
from leader_nb.zoo import PRIORS

RATE = -WORST_PSNR / WORST_LPIPS  # dB that one unit of LPIPS is worth
ETAS = (0.0, 0.5, 0.7, 0.85, 1.0)
GUIDANCE: dict[str, tuple[float, ...]] = {"gamma": (2.0, 4.0, 8.0, 16.0), "ridge": (0.2, 0.4, 0.7, 1.0)}
ZETAS = (0.1, 0.3, 0.5, 0.7, 0.9)
SPACE: dict[str, dict[str, tuple[float, ...]]] = {
    "ddnm": {"eta_ddim": ETAS},
    "ddnm+": {"eta_ddim": ETAS},
    "ddrm": {"eta_ddim": ETAS, "eta_b": (0.7, 0.85, 1.0)},
    "idpg": {**GUIDANCE, "scale": (0.5, 1.0)},
    "ddpg": {**GUIDANCE, "zeta": ZETAS},
    "projdiff": {"lr": (0.1, 0.25, 0.5, 0.75, 1.0, 1.5)},
    "dps": {"scale": (0.1, 0.3, 0.6, 1.0, 2.0)},
    "diffpir": {"lam": (1.0, 3.0, 7.0, 15.0, 30.0), "zeta": ZETAS},
    "pirp": {"lam": (-0.3, -0.09, -0.03), **GUIDANCE, "zeta": ZETAS},
    "pirp+": {"lam": (0.3, 1.3, 4.0), **GUIDANCE, "zeta": ZETAS},
    "sitcom": {"lr": (0.01, 0.02, 0.05), "iterations": (10, 20, 30), "weight": (0.0, 0.01, 0.1)},
}


def training_photos(images: str, size: int, count: int, seed: int) -> list[Photo]:
    """`count` photographs of the train split, drawn by `seed`."""
    if not any((place / "photos.csv").is_file() for place in (Path(images), Path(images).parent)):
        raise InputError(f"images: no photos.csv in or beside {images}; it must say which photographs are for training")
    files = image_files(images, "train")
    if not 1 <= count <= len(files):
        raise InputError(f"count: got {count}; give 1 to {len(files)}, the photographs for training")
    drawn = np.random.default_rng(seed).permutation(len(files))[:count]
    return [Photo(files[i].name, centre(files[i].name, load_image(files[i], 0), size)) for i in sorted(drawn)]


def settings(name: str, sampler: Sampler, seed: int, task: str = "") -> Iterator[dict[str, float]]:
    """The constants to try: none changed, the published ones for `task`, then those of SPACE in an order drawn by `seed`."""
    yield {}
    known = published(name, task)
    if any(getattr(sampler, constant) != value for constant, value in known.items()):
        yield known
    space = SPACE.get(name, {})
    every = [dict(zip(space, values, strict=True)) for values in product(*space.values())] if space else []
    for i in np.random.default_rng(seed).permutation(len(every)):
        if any(getattr(sampler, constant) != value for constant, value in every[i].items()) and every[i] != known:
            yield every[i]


def published(name: str, task: str) -> dict[str, float]:
    """What `name` was published with for such a task, if anything."""
    for table in (defaults_spectral, defaults_gradient):
        if name in table.HOSTS:
            return table.tuned(name, task)
    return {}


def trial_rows(lab: Lab, cell: Cell, photos: Sequence[Photo], store: Store) -> pd.DataFrame:
    """The rows of one setting, computed where they are missing."""
    keys = {lab.key(cell, photo, cell.source, lab.versions["leader_nb"]): photo for photo in photos}
    rows = store.read()
    there = set(rows.loc[rows["error"] == "", "key"])
    for batch in batches([photo for key, photo in keys.items() if key not in there], lab.experiment.batch):
        store.append(attempt(lab, cell, batch))
    rows = store.read()
    return rows[rows["key"].isin(keys)].sort_values("image", ignore_index=True)


def search(lab: Lab, name: str, task_name: str, photos: Sequence[Photo], store: Store, budget: int) -> list[dict[str, object]]:
    """The trials of one host on one task, best first."""
    task, trials, spent = parse_task(task_name), [], 0
    sampler = host(name, task.sigma)
    base: pd.Series | None = None
    for constants in settings(method(name, task.sigma), sampler, lab.experiment.seed, task_name):
        if spent >= budget:
            break
        label = ", ".join(f"{constant}={value:g}" for constant, value in constants.items()) or "its own"
        rows = trial_rows(lab, Cell(name, replace(sampler, **constants), task, label, {}), photos, store)  # type: ignore[type-var]
        good = rows[rows["error"] == ""].set_index("image")
        score = good["psnr"] - RATE * good["lpips"]
        base = score if base is None else base
        cost = int(good["nfe"].sum() + good["backward"].sum()) or len(photos) * lab.experiment.steps
        spent += cost
        trials.append({"host": name, "task": task_name, "constants": label, **summed_up(good, score, base), "calls": cost})
        print(f"{name:9} {task_name:14} {label:40} {trials[-1]['score']:8.3f} dB  {spent} of {budget} calls", flush=True)
    return sorted(trials, key=lambda trial: -float(str(trial["score"])) if trial["score"] == trial["score"] else np.inf)


def method(name: str, sigma: float) -> str:
    """The key of SPACE: what `ddnm` means on a noisy task is `ddnm+`."""
    return "ddnm+" if name == "ddnm" and sigma > 0 else name


def summed_up(good: pd.DataFrame, score: pd.Series, base: pd.Series) -> dict[str, object]:
    """Means over the photographs, and the paired difference to the host's own constants with its interval."""
    gap = (score - base).dropna()
    ends = bootstrap_interval(gap.to_numpy())[1:] if len(gap) > 1 else (np.nan, np.nan)
    row = {"photos": len(good), "score": score.mean(), "psnr": good["psnr"].mean(), "lpips": good["lpips"].mean()}
    row |= {"d_score": gap.mean(), "d_score_low": ends[0], "d_score_high": ends[1], "better": bool(ends[0] > 0)}
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--hosts", default="all")
    parser.add_argument("--tasks", default="sr4@0,sr4@0.05,gaussian@0.05")
    parser.add_argument("--budget", type=int, default=6400, help="network calls for each host and task")
    parser.add_argument("--count", type=int, default=8, help="photographs")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", default=PRIORS[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    hosts, tasks = chosen("hosts", args.hosts, SAMPLERS), chosen("tasks", args.tasks, ())
    lab = Lab.of(Experiment(hosts, tasks, ("none",), args.steps, args.seed, prior=args.prior, score=("psnr", "lpips")))
    photos = training_photos(args.images, args.size, args.count, args.seed)
    lab.check(photos)
    trials: list[dict[str, object]] = []
    for cell in lab.experiment.cells:
        trials += search(lab, cell.host, str(cell.task), photos, Store(args.out), args.budget)
        table = pd.DataFrame(trials).to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
        atomic_write(args.out / "trials.csv", lambda file, table=table: file.write(table))  # type: ignore[misc]


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"tune: {one_line(error)}")

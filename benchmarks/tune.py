"""The constants of the hosts, searched on training photographs only, with the same budget for every host.

    python benchmarks/tune.py --images DIR --out FOLDER [--hosts ddpg,projdiff] [--tasks sr4@0.05] [--budget 4800]

For each host and task: its own constants first, then those it was published with for such a task (if they differ), then
random settings out of SPACE, until the budget is spent. The budget is in network calls, summed over the photographs; a
backward pass counts as one more. (4800 = 6 settings x 8 photographs x 100 calls.) A host whose steps cost more tries fewer
settings; the first one always runs. Dials that do nothing without noise are not turned there (`dials`).

Then LEADer on the host so found, with the same budget for LEADER: the modulation of the preset, one of its halves or
none, and the tolerance of the step rule (0: no step is skipped). Then, again with the same budget, the control `flat`:
the same space, with every map replaced by its mean over the image before anything reads it.

The measure is score = PSNR - RATE LPIPS, in dB, with RATE the ratio of the two margins of "no loss" in the big table. A
setting counts as better only where the 95 % interval of its paired difference to the host's own constants, bootstrapped by
photograph, lies above zero; many settings are tried, so even that is a hint and no proof. The host's winner is the best of
those, else its own constants. LEADer's winner is, of the settings that score no lower than the host and are within 5 % of
the fewest calls among those, the one with the best score; where none scores as high, the best of all. (`winners`; the
package has them in leader_nb/samplers/defaults_tuned.py and leader_nb/defaults_leader.py.)

Photographs come from the train split of a photos.csv, which must exist: a test photograph cannot get in. Every row is kept
(FOLDER/table.csv, where the plug-in column holds the constants), so a run that was stopped goes on; FOLDER/trials.csv has
one row for each setting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from leader_nb import SAMPLERS, host, leader, parse_task
from leader_nb.controls import Flat
from leader_nb.crops import Photo, centre
from leader_nb.data import atomic_write, load_image
from leader_nb.errors import InputError, one_line
from leader_nb.experiments import Cell, Experiment, Lab, attempt, batches, chosen
from leader_nb.metrics import bootstrap_interval
from leader_nb.presets import MODULATIONS
from leader_nb.samplers import Sampler, defaults_gradient, defaults_spectral
from leader_nb.steps import ErrorControlled
from leader_nb.store import Store
from leader_nb.summary import WORST_LPIPS, WORST_PSNR
from leader_nb.train import image_files
from leader_nb.zoo import PRIORS, add_device

RATE = -WORST_PSNR / WORST_LPIPS  # dB that one unit of LPIPS is worth
CLOSE = 1.05  # settings of LEADer within this factor of the fewest calls count as equally cheap
ETAS = (0.0, 0.5, 0.7, 0.85, 1.0)
GUIDANCE: dict[str, tuple[float, ...]] = {"gamma": (2.0, 4.0, 8.0, 16.0, 30.0), "ridge": (0.2, 0.4, 0.7, 1.0, 2.0)}
IDLE = ("gamma", "ridge", "scale")  # what guidance does not read where there is no noise
ZETAS = (0.1, 0.3, 0.5, 0.7, 0.9)
SPACE: dict[str, dict[str, tuple[float, ...]]] = {
    "ddnm": {"eta_ddim": ETAS},
    "ddnm+": {"eta_ddim": ETAS},
    "ddrm": {"eta_ddim": ETAS, "eta_b": (0.7, 0.85, 1.0)},
    "idpg": {**GUIDANCE, "scale": (0.5, 1.0)},
    "ddpg": {**GUIDANCE, "zeta": ZETAS},
    "projdiff": {"lr": (0.05, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5)},
    "dps": {"scale": (0.3, 0.6, 1.0, 2.0, 4.0, 8.0)},
    "diffpir": {"lam": (0.3, 1.0, 3.0, 7.0, 15.0, 30.0), "zeta": ZETAS},
    "pirp": {"lam": (-0.3, -0.09, -0.03, -0.01), **GUIDANCE, "zeta": ZETAS},
    "pirp+": {"lam": (0.1, 0.3, 1.3, 4.0), **GUIDANCE},  # no noise is injected, so zeta would do nothing
    "sitcom": {"lr": (0.01, 0.02, 0.05), "iterations": (10, 20, 30), "weight": (0.0, 0.01, 0.1)},
}

PROVENANCE = ("seed", "size", "steps", "prior", "weights", "leader_nb", "torch")  # of a row, the same for all of a trial
FLAT = ", flat"  # the name of a control's cell ends so, since a row's key has its name

LEADER: dict[str, tuple[float | str, ...]] = {"tolerance": (0.0, 1e-5, 3e-5, 1e-4, 3e-4), "modulate": tuple(MODULATIONS)}


@dataclass(frozen=True, eq=False)
class Trial:
    """One setting: `row` for trials.csv, `score` of each photograph."""

    cell: Cell
    row: dict[str, object]
    score: pd.Series


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
    space = dials(name, parse_task(task).sigma if task else np.inf)
    every = [dict(zip(space, values, strict=True)) for values in product(*space.values())] if space else []
    for i in np.random.default_rng(seed).permutation(len(every)):
        if any(getattr(sampler, constant) != value for constant, value in every[i].items()) and every[i] != known:
            yield every[i]


def dials(name: str, sigma: float) -> dict[str, tuple[float, ...]]:
    """SPACE without what has no effect: with no noise, guidance is the back-projection alone."""
    space = SPACE.get(name, {})
    idle = IDLE if sigma == 0 and set(GUIDANCE) <= set(space) else ()
    return {constant: values for constant, values in space.items() if constant not in idle}


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


def search(lab: Lab, name: str, task_name: str, photos: Sequence[Photo], store: Store, budget: int) -> list[Trial]:
    """The trials of one host on one task, then those of LEADer on it, then those of its flat control."""
    task = parse_task(task_name)
    sampler, seed = host(name, task.sigma), lab.experiment.seed
    bare = (
        Cell(name, replace(sampler, **constants), task, worded(constants), {})  # type: ignore[type-var]
        for constants in settings(method(name, task.sigma), sampler, seed, task_name)
    )
    trials = tried(lab, "none", bare, photos, store, budget, None)
    best = trials[int(winner(pd.DataFrame([trial.row for trial in trials])).name)]  # type: ignore[call-overload]
    for plugin in ("leader", "flat"):
        trials += tried(lab, plugin, leader_cells(best.cell, seed, plugin), photos, store, budget, best.score)
    return trials


def tried(
    lab: Lab, plugin: str, cells: Iterable[Cell], photos: Sequence[Photo], store: Store, budget: int, base: pd.Series | None
) -> list[Trial]:
    """Cells computed one after another until `budget` is spent, compared with `base`, or with the first."""
    trials: list[Trial] = []
    spent = 0
    for cell in cells:
        if spent >= budget:
            break
        rows = trial_rows(lab, cell, photos, store)
        good = rows[rows["error"] == ""].set_index("image")
        score = good["psnr"] - RATE * good["lpips"]
        base = score if base is None else base
        cost = int(good["nfe"].sum() + good["backward"].sum()) or len(photos) * lab.experiment.steps
        spent += cost
        names = {"host": cell.host, "task": str(cell.task), "plugin": plugin, "constants": cell.plugin.removesuffix(FLAT)}
        row = names | summed_up(good, score, base) | {"calls": cost} | {name: rows[name].iloc[0] for name in PROVENANCE}
        trials.append(Trial(cell, row, score))
        print(f"{cell.host:9} {cell.task!s:14} {cell.plugin:52} {score.mean():8.3f} dB  {spent} of {budget} calls", flush=True)
    return trials


def leader_cells(best: Cell, seed: int, plugin: str = "leader") -> Iterator[Cell]:
    """LEADer on the host of `best`, or its control: the preset's constants first, then LEADER's in an order drawn by `seed`."""
    every = [dict(zip(LEADER, values, strict=True)) for values in product(*LEADER.values())]
    drawn = [every[i] for i in np.random.default_rng(seed).permutation(len(every))]
    own: dict[str, float | str] = {"tolerance": ErrorControlled().tolerance, "modulate": "both"}
    for constants in (own, *(c for c in drawn if c != own and c != {"tolerance": 0.0, "modulate": "none"})):
        rule = ErrorControlled(float(constants["tolerance"])) if constants["tolerance"] else None
        options = leader(steps=rule, modulate=MODULATIONS[str(constants["modulate"])])
        if plugin == "flat":
            options |= {"covariance": Flat(options["covariance"])}
        end = FLAT if plugin == "flat" else ""
        yield replace(best, plugin=f"{best.plugin} | {worded(constants)}{end}", options=options)


def worded(constants: Mapping[str, float | str]) -> str:
    return ", ".join(f"{k}={v if isinstance(v, str) else format(v, 'g')}" for k, v in constants.items()) or "its own"


def winner(trials: pd.DataFrame) -> pd.Series:
    """The row of the setting that is taken, of the trials of one host, task and plug-in in the order they were made."""
    if trials["plugin"].iloc[0] == "none":
        better = trials[trials["better"]]
        return better.loc[better["score"].idxmax()] if len(better) else trials.iloc[0]
    harmless = trials[trials["d_score"] >= 0]
    cheap = harmless[harmless["calls"] <= CLOSE * harmless["calls"].min()] if len(harmless) else trials
    return cheap.loc[cheap["score"].idxmax()]


def winners(trials: pd.DataFrame) -> pd.DataFrame:
    """One row for each host, task and plug-in."""
    return pd.DataFrame([winner(group) for _, group in trials.groupby(["host", "task", "plugin"], sort=False)])


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
    parser.add_argument("--budget", type=int, default=4800, help="network calls for each host and task")
    parser.add_argument("--count", type=int, default=8, help="photographs")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", default=PRIORS[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    add_device(parser)
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    hosts, tasks = chosen("hosts", args.hosts, SAMPLERS), chosen("tasks", args.tasks, ())
    lab = Lab.of(
        Experiment(
            hosts, tasks, ("none",), args.steps, args.seed, prior=args.prior, device=str(args.device), score=("psnr", "lpips")
        )
    )
    photos = training_photos(args.images, args.size, args.count, args.seed)
    lab.check(photos)
    trials: list[dict[str, object]] = []
    for cell in lab.experiment.cells:
        trials += [t.row for t in search(lab, cell.host, str(cell.task), photos, Store(args.out), args.budget)]
        table = pd.DataFrame(trials).to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()
        atomic_write(args.out / "trials.csv", lambda file, table=table: file.write(table))  # type: ignore[misc]


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        sys.exit(f"tune: {one_line(error)}")

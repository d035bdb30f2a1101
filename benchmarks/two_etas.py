"""One eta for what A sees, another for its null space: how far does the host's own fresh noise go, without any map?

    python benchmarks/two_etas.py --images DIR [--folder FOLDER] [--count 12]
    python benchmarks/two_etas.py                     # two_etas.csv from its photographs

DDNM, or DDNM+ where there is noise, on the six tasks of the big table, 100 positions, eta in ETAS for what A sees and in
NULL_ETAS for the rest (`leader_nb.samplers.null_eta`), begun at the measured start, with and without the modulation of LEADer.
Training photographs choose, for each of the two, by two rules (`chosen`); then the test photographs judge what was chosen,
beside the host as it is. Appends one row per photograph to two_etas_photos.csv and leaves alone what is there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from ablations import SIX, change, ends_of, named
from torch import Tensor
from tune import RATE

from leader_nb import Problem, host, leader, load_prior, parse_task, restore
from leader_nb.controls import Flat
from leader_nb.data import load_image
from leader_nb.metrics import lpips_distance, psnr
from leader_nb.samplers import Sampler
from leader_nb.samplers.null_eta import NullEta
from leader_nb.start import MeasuredStart
from leader_nb.tasks import Task
from leader_nb.train import image_files
from leader_nb.zoo import add_device

FOLDER = Path(__file__).parent / "results"
USUAL = 0.85
ETAS, NULL_ETAS = (0.6, 0.7, 0.75, 0.8, 0.85), (0.85, 0.9, 0.95, 1.0)
LEADER = leader("start")
PLUGINS: dict[str, dict[str, Any]] = {
    "none": {},
    "start": {"steps": MeasuredStart()},
    "leader-start": LEADER,
    "flat-start": LEADER | {"covariance": Flat(LEADER["covariance"])},
}
GOAL = -12.8  # the paper's change of LPIPS in percent, averaged over its tasks
RULES = ("score", "goal")


class Setting(NamedTuple):
    plugin: str
    eta: float = USUAL
    eta_null: float = USUAL


HOST = Setting("none")
TRIED = [HOST, *(Setting(*s) for s in product(("start", "leader-start"), ETAS, NULL_ETAS))]
COLUMNS = list(Setting._fields)


def sampler_of(setting: Setting, task: Task) -> Sampler:
    usual = replace(host("ddnm", task.sigma), eta_ddim=setting.eta)  # type: ignore[call-arg]
    return usual if setting.eta_null == setting.eta else NullEta(usual, setting.eta_null)


def cell(split: str, name: str, problem: Problem, x: Tensor, settings: Iterable[Setting], out: Path) -> None:
    """The settings of one task that are not in the table, one row per photograph."""
    table = read(out)
    here = table[(table["split"] == split) & (table["task"] == name)]
    there = set(here[COLUMNS].itertuples(index=False, name=None))
    prior = load_prior(device=x.device)
    for setting in dict.fromkeys(s for s in settings if tuple(s) not in there):
        result = restore(problem, prior, sampler_of(setting, parse_task(name)), **PLUGINS[setting.plugin])
        scores = {"psnr": psnr(result.image, x), "lpips": lpips_distance(result.image, x)}
        row: dict[str, Any] = {"split": split, "task": name, **setting._asdict()}
        row |= {"photo": range(len(x)), "nfe": result.nfe.tolist()}
        row |= {metric: [round(v, 5) for v in values.tolist()] for metric, values in scores.items()}
        pd.DataFrame(row).to_csv(out, mode="a", header=not out.is_file(), index=False)
        print(split, name, *setting, *(f"{metric} {v.mean():.4f}" for metric, v in scores.items()), flush=True)


def read(out: Path) -> pd.DataFrame:
    return pd.read_csv(out) if out.is_file() else pd.DataFrame(columns=["split", "task", *COLUMNS])


def changes(
    table: pd.DataFrame, split: str, setting: Setting, base: Setting = HOST, tasks: tuple[str, ...] = SIX
) -> dict[str, np.ndarray]:
    """Changes in percent against `base`, mean over `tasks`: (1 + draws,), the first of the photographs as they are.

    `score` is no percentage but the mean difference of PSNR - RATE LPIPS.
    """
    found: dict[str, list[np.ndarray]] = {"psnr": [], "lpips": [], "nfe": [], "score": []}
    for task in tasks:
        part, other = of(table, split, task, setting), of(table, split, task, base)
        for metric in ("psnr", "lpips", "nfe"):
            found[metric].append(change(part[metric].to_numpy(), other[metric].to_numpy()))
        found["score"].append(np.array([gain(part, other)]))
    return {metric: np.mean(values, axis=0) for metric, values in found.items()}


def chosen(table: pd.DataFrame, plugin: str, rule: str) -> Setting:
    """The setting of a plug-in that training photographs choose.

    score   the highest mean of PSNR - RATE LPIPS
    goal    the highest PSNR among those whose LPIPS falls by the paper's share (all, should there be none)
    """
    found = {s: changes(table, "train", s) for s in TRIED if s.plugin == plugin}
    if rule == "score":
        return max(found, key=lambda s: found[s]["score"][0])
    enough = [s for s in found if found[s]["lpips"][0] <= GOAL] or list(found)
    return max(enough, key=lambda s: found[s]["psnr"][0])


def judged(table: pd.DataFrame) -> list[Setting]:
    """What the test photographs see: host and plug-ins as they are, every choice, and its controls.

    Of LEADer's choices these are the same etas without LEADer, and with every map flattened.
    """
    usual = [Setting("start"), Setting("leader-start")]
    picked = [chosen(table, plugin, rule) for plugin in ("start", "leader-start") for rule in RULES]
    controls = [s._replace(plugin=p) for s in (*usual, *picked) if s.plugin == "leader-start" for p in ("start", "flat-start")]
    return list(dict.fromkeys([HOST, *usual, *picked, *controls]))


def of(table: pd.DataFrame, split: str, task: str, setting: Setting) -> pd.DataFrame:
    """The photographs of a cell, in order."""
    here = table[(table["split"] == split) & (table["task"] == task)]
    return here[(here[COLUMNS] == list(setting)).all(axis=1)].sort_values("photo")


def row_of(table: pd.DataFrame, split: str, task: str, setting: Setting) -> dict[str, Any]:
    """One task of the summary."""
    part, found = of(table, split, task, setting), changes(table, split, setting, tasks=(task,))
    row: dict[str, Any] = {"split": split, "task": task, **setting._asdict(), "score": found["score"][0]}
    row |= {name: part[name].mean() for name in ("psnr", "lpips", "nfe")}
    return row | named("psnr_percent", ends_of(found["psnr"])) | named("lpips_percent", ends_of(found["lpips"]))


def gain(part: pd.DataFrame, base: pd.DataFrame) -> float:
    """The mean difference of PSNR - RATE LPIPS."""
    difference = part[["psnr", "lpips"]].to_numpy() - base[["psnr", "lpips"]].to_numpy()
    return float((difference @ [1, -RATE]).mean())


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """One row for each split, task and setting, and `six tasks`; changes in percent, intervals bootstrapped by photograph.

    `over_start_` and `over_flat_`: of `six tasks` with LEADer, against `start` and `flat-start` with the same etas.
    """
    rows = []
    for (split, *setting), part in table.groupby(["split", *COLUMNS], sort=False):
        s = Setting(*setting)
        row: dict[str, Any] = {"split": split, "task": "six tasks", **s._asdict(), "n": part["photo"].nunique()}
        if set(part["task"]) == set(SIX):
            found = changes(table, split, s)
            row |= {"score": found["score"][0], "nfe_percent": found["nfe"][0]}
            row |= named("psnr_percent", ends_of(found["psnr"])) | named("lpips_percent", ends_of(found["lpips"]))
            for label in ("start", "flat") if s.plugin == "leader-start" else ():
                other = s._replace(plugin="start" if label == "start" else "flat-start")
                if len(of(table, split, SIX[-1], other)):
                    over = changes(table, split, s, other)
                    row |= {f"over_{label}_{k}": v for m in ("psnr", "lpips") for k, v in named(m, ends_of(over[m])).items()}
            rows.append(row)
        rows += [row_of(table, split, task, s) | {"n": len(here)} for task, here in part.groupby("task", sort=False)]
    return pd.DataFrame(rows).round(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images")
    parser.add_argument("--count", type=int, default=12, help="photographs to choose on; all test photographs judge")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--splits", nargs="+", default=("train", "test"), choices=("train", "test"))
    add_device(parser)
    args = parser.parse_args()
    out = args.folder / "two_etas_photos.csv"
    for split in args.splits if args.images else ():
        files = image_files(args.images, split)
        files = files[:: max(1, len(files) // args.count)][: args.count] if split == "train" else files
        x = torch.cat([load_image(f, 64) for f in files]).to(args.device)
        settings = TRIED if split == "train" else judged(read(out))
        for name in SIX:
            cell(split, name, parse_task(name).measure(x), x, settings, out)
    table = read(out)
    if table.empty:
        parser.error(f"{out} has no rows; make them with --images DIR")
    summary(table).to_csv(args.folder / "two_etas.csv", index=False)
    for plugin, rule in product(("start", "leader-start"), RULES):
        print(plugin, rule, chosen(table, plugin, rule))


if __name__ == "__main__":
    main()

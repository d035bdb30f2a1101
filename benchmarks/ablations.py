"""What does each piece of UCPM add? Potentials, Hessians, the map, what y leaves open of it; and what LPIPS still lacks.

    python benchmarks/ablations.py --images DIR [--tasks ...] [--parts potentials controls goal] [--count 12]
    python benchmarks/ablations.py                 # ablations.csv from its photographs

potentials  every potential of leader_nb.potentials with the map, and as plain smoothing: one step on the finished restoration
controls    at the strength that suits the map best: a flat map of the same mean, the other diagonals of the Hessian, and for
            Huber total variation the part of the map that y leaves open
goal        LEADer's modulation with one thing changed at a time: estimator, potential, order, host, prior

Strengths are made comparable: a potential gets three weights mu, for which one step moves the answers at noise level 0.3 by as
much (root mean square, flat map of the true mean squared error) as Huber total variation with mu = 0.03, 0.1 and 0.3. Plain
smoothing gets the same three weights with a map RESULT times as large. Of three strengths the best is taken by PSNR - RATE
LPIPS (`tune.py`) on the photographs that are reported: an advantage that the map and plain smoothing share, and a flat map has
not.

Training photographs only. All begin at the measured start with a share of 0.5: DDNM(+) then makes a quarter of the calls or
so, at next to no loss on these tasks (lab notebook, entry 9), and four times as much can be tried. Appends one row per
photograph to ablations_photos.csv and leaves alone what is there; then writes ablations.csv, one row for each setting, its
differences paired by photograph.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from places import Told, told_of
from torch import Tensor
from tune import RATE

from leader_nb import host, load_prior, parse_task, restore
from leader_nb.conditioning import LeftOpen
from leader_nb.covariance import PyramidSecant, RunningSecant, ScoreSquared, box, clipped
from leader_nb.covariance.tables import noisy
from leader_nb.data import load_image
from leader_nb.equations import modulated, modulation
from leader_nb.likelihood import Chain, MapLikelihood
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.noise import Noise
from leader_nb.potentials import POTENTIALS, Potential
from leader_nb.presets import MODULATIONS
from leader_nb.priors import Belief, Prior
from leader_nb.problem import Problem
from leader_nb.samplers import Sampler, Step
from leader_nb.start import MeasuredStart
from leader_nb.train import image_files
from leader_nb.tree import Tree
from leader_nb.ucpm import UCPM, GMinus, HuberTV, Quadratic

FOLDER = Path(__file__).parent / "results"
TASKS = ("inpaint70@0", "sr4@0", "gaussian@0.05")
PARTS = ("potentials", "controls", "goal")
STRENGTHS = (0.03, 0.1, 0.3)  # mu of Huber total variation, which the other potentials are matched with
LEVEL = 0.3  # the noise level where they are matched
RESULT = 3.0  # steps of plain smoothing, in those of UCPM: it takes one, where UCPM takes one at every call
SHARE = 0.5
SETTING = ["task", "part", "variant", "potential", "hessian", "weight"]  # what the three strengths of a setting share
METRICS = ("psnr", "lpips", "score")


# --- Strengths that can be compared ---------------------------------------------------------------------------------


def step_size(potential: Potential, x0: Tensor, cov: Tensor) -> float:
    """Root mean square of Lambda grad Phi."""
    return moved(potential, x0, cov).sub(x0).square().mean().sqrt().item()


def moved(potential: Potential, x0: Tensor, cov: Tensor) -> Tensor:
    """One step of Eq. 14, with `mm`."""
    gradient, h = potential.gradient_and_hessian(x0)
    return modulated(x0, modulation(cov, h.clamp(min=0)), gradient)


def matched(kind: type, size: float, x0: Tensor, cov: Tensor) -> float:
    """mu, with the sign of the potential's own, for which one step has this size; by bisection of log mu."""
    sign, low, high = math.copysign(1.0, kind().mu), -6.0, 5.0
    for _ in range(50):
        middle = (low + high) / 2
        small = step_size(kind(mu=sign * 10**middle), x0, cov) < size
        low, high = (middle, high) if small else (low, middle)
    return sign * 10**low


@lru_cache(maxsize=1)
def weights(images: str, count: int) -> tuple[dict[tuple[str, int], float], float]:
    """(potential, strength) -> mu, and the mean squared error of the answers that they were matched on."""
    x, prior = photographs(images, count), load_prior()
    x0 = noisy(prior, x, prior.schedule.nearest_time(LEVEL))[0].x0
    cov = (x0 - x).square().mean()
    found = {}
    for level, mu in enumerate(STRENGTHS):
        size = step_size(HuberTV(mu), x0, cov)
        found |= {(kind.__name__, level): matched(kind, size, x0, cov) for kind in POTENTIALS}
    return found, cov.item()


@lru_cache(maxsize=1)
def photographs(images: str, count: int) -> Tensor:
    files = image_files(images, "train")
    return torch.cat([load_image(f, 64) for f in files[:: max(1, len(files) // count)][:count]])


# --- Trials ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SquaredError:
    """A map that no estimator can have: the true squared error of the answer, mean over 5 x 5 pixels."""

    truth: Tensor

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        return clipped(box((belief.x0 - self.truth).square(), 5), belief.sigma), memory


@dataclass(frozen=True)
class After:
    """DDNM or DDNM+ with `modulate` behind the data step, not before it; the map travels in the belief (:class:`Told`).

    Both hosts put sqrt(abar_s) x0y into the next state, so that moving x0y moves that.
    """

    host: Sampler
    modulate: UCPM
    needs_gradient: ClassVar[bool] = False

    @property
    def default_steps(self) -> Callable[[int], tuple[int, ...]]:
        return self.host.default_steps

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return self.host.init(problem, noise)

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        step = self.host.step(b, s, problem, noise, carry)
        x0y = self.modulate(replace(b, x0=step.x0y), told_of(b), problem).x0
        return replace(step, x0y=x0y, x=step.x + b.schedule.abar(s, x0y).sqrt() * (x0y - step.x0y))


@dataclass(frozen=True)
class Variant:
    """One setting at one strength. `base`: its bare host; `control`: what it has to beat, at the control's best strength."""

    part: str
    name: str
    control: str = ""
    base: str = "host"
    names: tuple[str, str, str] = ("", "", "")  # potential, Hessian, weight
    level: int = 0
    mu: float = 0.0
    plugins: dict[str, Any] = field(default_factory=dict)
    sampler: str = "ddnm"
    wrap: Callable[[Any], Any] = lambda s: s
    prior: str = "photo-small"
    finish: Callable[[Tensor], Tensor] | None = None  # of the bare host's picture, in place of a restoration


def ucpm(modulate: Any) -> dict[str, Any]:
    return {"covariance": RunningSecant(), "modulate": modulate}


def potentials(mus: dict[tuple[str, int], float], cov: float) -> Iterator[Variant]:
    for kind, level in product(POTENTIALS, range(len(STRENGTHS))):
        name = kind.__name__
        mu = mus[name, level]
        phi = kind(mu=mu)
        smooth = lambda x, phi=phi: moved(phi, x, torch.tensor(RESULT * cov))
        for label, other in (("map", {"plugins": ucpm(UCPM(phi))}), ("result", {"finish": smooth})):
            control = f"{name}, result" if label == "map" else ""
            yield Variant("potentials", f"{name}, {label}", control, "host", (name, "mm", label), level, mu, **other)


def controls(mus: dict[tuple[str, int], float], best: dict[str, int]) -> Iterator[Variant]:
    """At the strength that suits the map best, in the table: flat maps, other Hessians, the map that has seen y."""
    for kind in POTENTIALS:
        name = kind.__name__
        level = best[name]
        mu = mus[name, level]
        phi = kind(mu=mu)
        trials = {("mm", "flat"): UCPM(phi, weight="global")}
        trials |= {(hessian, "map"): UCPM(phi, hessian) for hessian in ("weight", "exact")}
        if kind is HuberTV:
            trials["mm", "left open"] = LeftOpen(UCPM(phi))
        trials.pop({Quadratic: ("exact", "map"), GMinus: ("weight", "map")}.get(kind, ("", "")), None)  # no other than others
        for (hessian, weight), modulate in trials.items():
            label = weight if hessian == "mm" else hessian
            names, plugins = (name, hessian, weight), ucpm(modulate)
            yield Variant("controls", f"{name}, {label}", f"{name}, map", "host", names, level, mu, plugins)


def goal(mus: dict[tuple[str, int], float], x: Tensor) -> Iterator[Variant]:
    """LEADer's modulation, and the same with one thing changed."""
    both, first = MODULATIONS["both"], HuberTV(0.05)
    make = lambda name, plugins, control="leader", **other: Variant("goal", name, control, plugins=plugins, **other)
    yield make("leader", ucpm(both), "")
    for name, estimator in (("E1", ScoreSquared()), ("E14", PyramidSecant()), ("true squared error", SquaredError(x))):
        yield make(f"estimator: {name}", {"covariance": estimator, "modulate": both})
    yield make("potential: none", ucpm(MapLikelihood()))
    sharpen = UCPM(GMinus(mu=mus["GMinus", 1]))
    yield make("potential: GMinus", ucpm(Chain((sharpen, MapLikelihood()))))
    yield make("order: UCPM before the data step", ucpm(UCPM(first)), "")
    after = lambda s: After(s, UCPM(first))
    yield make("order: UCPM after it", ucpm(Told()), "order: UCPM before the data step", wrap=after)
    for name in ("ddpg", "projdiff"):
        yield make(f"{name}, host", {}, "", base=f"{name}, host", sampler=name)
        yield make(f"host: {name}", ucpm(both), "", base=f"{name}, host", sampler=name)
    yield make("photo-base, host", {}, "", base="photo-base, host", prior="photo-base")
    yield make("prior: photo-base", ucpm(both), "", base="photo-base, host", prior="photo-base")


def variants(parts: list[str], table: pd.DataFrame, task: str, images: str, count: int) -> Iterator[Variant]:
    """The bare host first. The controls need the best strengths, from the rows of the potentials."""
    mus, cov = weights(images, count)
    yield Variant("host", "host")
    if "potentials" in parts:
        yield from potentials(mus, cov)
    if "goal" in parts:
        yield from goal(mus, photographs(images, count))
    if "controls" in parts:
        here = table[(table["task"] == task) & (table["weight"] == "map") & (table["hessian"] == "mm")]
        score = here.groupby(["potential", "level"])["score"].mean()
        yield from controls(mus, {str(name): int(s.droplevel(0).idxmax()) for name, s in score.groupby("potential")})


# --- Rows -----------------------------------------------------------------------------------------------------------


def read(out: Path) -> pd.DataFrame:
    if not out.is_file():
        return pd.DataFrame(columns=[*SETTING, "level", "score"])
    return pd.read_csv(out, keep_default_na=False)


def run(variant: Variant, task_name: str, x: Tensor, bare: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
    """(pictures, network calls)."""
    if variant.finish is not None:
        return variant.finish(bare()), torch.zeros(len(x))
    task = parse_task(task_name)
    sampler, prior = variant.wrap(host(variant.sampler, task.sigma, task)), prior_of(variant.prior)
    result = restore(problem_of(task_name, x), prior, sampler, steps=start_of(task_name, x), **variant.plugins)
    return result.image, result.nfe


@lru_cache(maxsize=2)
def prior_of(name: str) -> Prior:
    return load_prior(name)


@lru_cache(maxsize=1)
def problem_of(task: str, x: Tensor) -> Problem:
    return parse_task(task).measure(x)


@lru_cache(maxsize=1)
def start_of(task: str, x: Tensor) -> Any:
    return MeasuredStart(SHARE).for_problem(problem_of(task, x))


def cell(task: str, parts: list[str], images: str, count: int, out: Path) -> None:
    """All variants of one task that are not in the table, one row per photograph."""
    x = photographs(images, count)
    for part in [p for p in PARTS if p in parts]:  # one after another: `controls` reads what `potentials` wrote
        pictures: list[Tensor] = []

        def bare(pictures: list[Tensor] = pictures) -> Tensor:
            if not pictures:
                pictures.append(run(Variant("host", "host"), task, x, bare)[0])
            return pictures[0]

        for variant in variants([part], read(out), task, images, count):
            table = read(out)  # again: another process may work on another part
            if ((table["task"] == task) & (table["variant"] == variant.name) & (table["level"] == variant.level)).any():
                continue
            image, nfe = run(variant, task, x, bare)
            append(variant, task, image, x, nfe, out)


def append(variant: Variant, task: str, image: Tensor, x: Tensor, nfe: Tensor, out: Path) -> None:
    scores = {"psnr": psnr(image, x), "lpips": lpips_distance(image, x)}
    scores["score"] = scores["psnr"] - RATE * scores["lpips"]
    potential, hessian, weight = variant.names
    row: dict[str, Any] = {"task": task, "part": variant.part, "variant": variant.name, "potential": potential}
    row |= {"hessian": hessian, "weight": weight, "level": variant.level, "mu": float(f"{variant.mu:.4g}")}
    row |= {"base": variant.base, "control": variant.control, "photo": range(len(x)), "nfe": nfe.int().tolist()}
    row |= {name: [round(v, 5) for v in value.tolist()] for name, value in scores.items()}
    pd.DataFrame(row).to_csv(out, mode="a", header=not out.is_file(), index=False)
    print(task, variant.name, variant.level, *(f"{name} {v.mean():.4f}" for name, v in scores.items()), flush=True)


# --- Summary --------------------------------------------------------------------------------------------------------


def best(table: pd.DataFrame, task: str, variant: str) -> pd.DataFrame:
    """The photographs of a variant at its best strength, in order."""
    here = table[(table["task"] == task) & (table["variant"] == variant)]
    return here[here["level"] == here.groupby("level")["score"].mean().idxmax()].sort_values("photo")


def percent(values: np.ndarray, base: np.ndarray, draws: int = 2000) -> tuple[float, float, float]:
    """100 (mean of values / mean of base - 1) with its interval, bootstrapped by photograph."""
    pick = np.vstack([np.arange(len(base)), np.random.default_rng(0).integers(len(base), size=(draws, len(base)))])
    ratios = 100 * (values[pick].mean(1) / base[pick].mean(1) - 1)
    return (ratios[0], *np.quantile(ratios[1:], (0.025, 0.975)))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """ablations.csv: each setting at its best strength. d_ is the difference to the bare host, c_ that to `control`."""
    rows = []
    for setting, _ in table.groupby(SETTING, sort=False):
        row: dict[str, Any] = dict(zip(SETTING, setting, strict=True))
        part = best(table, row["task"], row["variant"])
        row |= {name: part[name].iloc[0] for name in ("level", "mu", "base", "control")}
        row |= {"n": len(part), "nfe": part["nfe"].mean()}
        for prefix, other in (("d", row["base"]), ("c", row["control"])):
            reference = best(table, row["task"], other) if other else None
            for metric in METRICS:
                row[metric] = part[metric].mean()
                gaps = part[metric].to_numpy() - reference[metric].to_numpy() if reference is not None else None
                ends = bootstrap_interval(gaps) if gaps is not None else (np.nan,) * 3
                row |= dict(zip((f"{prefix}_{metric}{end}" for end in ("", "_low", "_high")), ends, strict=True))
        base = best(table, row["task"], row["base"])
        ends = percent(part["lpips"].to_numpy(), base["lpips"].to_numpy())
        rows.append(row | dict(zip((f"lpips_percent{end}" for end in ("", "_low", "_high")), ends, strict=True)))
    return pd.DataFrame(rows).round(5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images")
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    out = args.folder / "ablations_photos.csv"
    if args.images:
        for task in args.tasks:
            cell(task, list(args.parts), args.images, args.count, out)
    summary(read(out)).to_csv(args.folder / "ablations.csv", index=False)


if __name__ == "__main__":
    main()

"""What does each piece of UCPM add? Potentials, Hessians, the map, what y leaves open of it; and what LPIPS still lacks.

    python benchmarks/ablations.py --images DIR [--tasks ...] [--parts potentials controls goal] [--count 12]
    python benchmarks/ablations.py                 # ablations.csv from its photographs

potentials  every potential of leader_nb.potentials with the map, and the first control: one step of plain smoothing on the
            finished restoration, three strengths, no data put back
finishing   the matched control: 1 to 26 steps of plain smoothing on the finished restoration, the data put back after each;
            and the two halves of that alone
controls    a flat map of the same mean, the other diagonals of the Hessian, and for Huber total variation the part of the map
            that y leaves open
goal        LEADer's modulation with one thing changed at a time: estimator, potential, order, host, prior
walks       the same finishing after the presets and after strong UCPM; and with a map for a weight, in place of one number
eta         DDNM(+) with all of its noise fresh (eta 1), with and without `leader-start`, on the six tasks of the table

Strengths are made comparable: a potential gets three weights mu, for which one step moves the answers at noise level 0.3 by as
much (root mean square, flat map of the true mean squared error) as Huber total variation with mu = 0.03, 0.1 and 0.3. Beyond
these, all weights grow and shrink as Huber's does, 3.3 or 3 times at a step, for as long as the score gains
(`finishing.climb`); of two that are not convex two strong steps are tried in any case. Smoothing of the finished picture gets
the same weights with a map RESULT times as large. Of all strengths the best is taken by PSNR - RATE LPIPS (`tune.py`) on the
photographs that are reported: an advantage that all of them share.

Training photographs only. All but `walks` and `eta` begin at the measured start with a share of 0.5: DDNM(+) then makes a
quarter of the calls or so, at next to no loss on these tasks (lab notebook, entry 9), and four times as much can be tried.
Appends one row per photograph to ablations_photos.csv and leaves alone what is there; then writes ablations.csv, one row for
each setting, its differences paired by photograph.
"""

from __future__ import annotations

import argparse
import fcntl
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from finishing import TIMES, Finish, Walk, Watch, climb, moved, walk_from
from places import Told, told_of
from torch import Tensor
from tune import RATE

from leader_nb import host, leader, load_prior, parse_task, restore
from leader_nb.conditioning import LeftOpen
from leader_nb.covariance import PyramidSecant, RunningSecant, ScoreSquared, box, clipped
from leader_nb.covariance.tables import noisy
from leader_nb.data import load_image
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
from leader_nb.ucpm import UCPM, GMinus, GPlus, HuberTV, HyperLaplacian, Quadratic

FOLDER = Path(__file__).parent / "results"
TASKS = ("inpaint70@0", "sr4@0", "gaussian@0.05")
SIX = ("sr4@0", "sr4@0.05", "gaussian@0.05", "motion@0.05", "inpaint70@0", "cs25@0.05")  # those of the table, for `eta`
PARTS = ("potentials", "finishing", "controls", "goal", "walks", "eta")
# Without --tasks. On a mask the likelihood does what the host does, which leaves `goal` little to ask.
ASKED = dict.fromkeys(PARTS, TASKS) | {"goal": TASKS[1:], "eta": SIX}
STRENGTHS = (0.03, 0.1, 0.3)  # mu of Huber total variation, which the other potentials are matched with
LEVEL = 0.3  # the noise level where they are matched
RESULT = 3.0  # a step of plain smoothing, in those of UCPM at LEVEL
SHARE = 0.5
SETTING = ["task", "part", "variant", "potential", "hessian", "weight"]  # what the three strengths of a setting share
METRICS = ("psnr", "lpips", "score")
PERCENT = ("psnr", "lpips", "nfe")  # of which the change in percent is written down too


# --- Strengths that can be compared ---------------------------------------------------------------------------------


def step_size(potential: Potential, x0: Tensor, cov: Tensor) -> float:
    """Root mean square of Lambda grad Phi."""
    return moved(potential, x0, cov).sub(x0).square().mean().sqrt().item()


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


def huber_strength(level: int) -> float:
    """mu of Huber total variation: 0.03, 0.1, 0.3 at levels 0, 1, 2, and so on in both directions."""
    return float(f"{1 if level % 2 else 3}e{(level - 3) // 2 if level % 2 else level // 2 - 2}")


def strength(mus: dict[tuple[str, int], float], name: str, level: int) -> float:
    """mu of a potential at any level: matched inside STRENGTHS, and beyond as many times its last as Huber's is."""
    edge = min(max(level, 0), len(STRENGTHS) - 1)
    return mus[name, edge] * huber_strength(level) / huber_strength(edge)


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
        truth = memory.get("truth", self.truth)  # in memory it loses the images that are done, as the belief does
        return clipped(box((belief.x0 - truth).square(), 5), belief.sigma), memory | {"truth": truth}


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
    walk: str = "host"  # that `finish` begins with
    finish: Callable[[Walk, Problem], Tensor] | None = None  # in place of a restoration


def ucpm(modulate: Any) -> dict[str, Any]:
    return {"covariance": RunningSecant(), "modulate": modulate}


NOT_CONVEX = (HyperLaplacian, GPlus)  # whose score need not have one peak: a strong step sharpens edges


def first_levels(kind: type) -> tuple[int, ...]:
    """Where the search for the best strength begins."""
    return (*range(len(STRENGTHS)), 4, 6) if kind in NOT_CONVEX else tuple(range(len(STRENGTHS)))


Scores = Callable[[str], dict[int, float]]  # of a variant, the mean score of each level that was tried


def along(make: Callable[[int], Variant], scores: Scores, first: Sequence[int]) -> Iterator[Variant]:
    """One variant at the levels `first`, and at further ones while the score gains."""
    name = make(first[0]).name
    return (make(level) for level in climb(lambda: scores(name), first))


def potentials(mus: dict[tuple[str, int], float], cov: float, scores: Scores) -> Iterator[Variant]:
    for kind in POTENTIALS:
        name = kind.__name__

        def make(level: int, kind: type = kind, name: str = name) -> Variant:
            phi = kind(mu=strength(mus, name, level))
            names = (name, "mm", "map")
            return Variant("potentials", f"{name}, map", f"{name}, result", "host", names, level, phi.mu, ucpm(UCPM(phi)))

        yield from along(make, scores, first_levels(kind))
        for level in range(len(STRENGTHS)):
            phi = kind(mu=mus[name, level])
            once, names = Finish(phi, 1, RESULT * cov, cov, back=False), (name, "mm", "result")
            yield Variant("potentials", f"{name}, result", "", "host", names, level, phi.mu, finish=once)


def finishing(mus: dict[tuple[str, int], float], cov: float, scores: Scores) -> Iterator[Variant]:
    """The matched control of every potential; for Huber total variation also with fewer steps, and each half alone."""
    trials = [(kind, TIMES[-1], True) for kind in POTENTIALS if kind is not HuberTV]
    trials += [(HuberTV, times, back) for back in (True, False) for times in TIMES]
    for kind, times, back in trials:
        name = kind.__name__

        def make(level: int, kind: type = kind, name: str = name, times: int = times, back: bool = back) -> Variant:
            phi = kind(mu=strength(mus, name, level))
            label, finish = f"{times} steps{'' if back else ', no data'}", Finish(phi, times, RESULT * cov, cov, back=back)
            names = (name, "mm", "put back" if back else "no data")
            return Variant("finishing", f"{name}, {label}", f"{name}, map", "host", names, level, phi.mu, finish=finish)

        yield from along(make, scores, first_levels(kind))
    for times in TIMES:
        idle = Finish(HuberTV(0.0), times, RESULT * cov, cov)
        yield Variant("finishing", f"data alone, {times} steps", "", "host", ("", "", "put back"), finish=idle)


def controls(mus: dict[tuple[str, int], float], scores: Scores) -> Iterator[Variant]:
    """A flat map, at the matched strengths and on to the one that suits the map best; other Hessians and the map that has seen
    y at one strength.

    That is the best of the three that are matched, and the summary compares them there.
    """
    for kind in POTENTIALS:
        name = kind.__name__
        trials: dict[tuple[str, str], Callable[[Potential], Any]] = {("mm", "flat"): lambda phi: UCPM(phi, weight="global")}
        trials |= {(hessian, "map"): lambda phi, hessian=hessian: UCPM(phi, hessian) for hessian in ("weight", "exact")}
        if kind is HuberTV:
            trials["mm", "left open"] = lambda phi: LeftOpen(UCPM(phi))
        trials.pop({Quadratic: ("exact", "map"), GMinus: ("weight", "map")}.get(kind, ("", "")), None)  # no other than others
        found = scores(f"{name}, map")
        best = max(found, key=lambda level: found[level])
        matched_best = max(range(len(STRENGTHS)), key=lambda level: found[level])
        flat_levels = sorted({*range(len(STRENGTHS)), *(level for level in found if 0 <= level <= best or best <= level <= 0)})
        for names, modulate in trials.items():

            def make(level: int, kind: type = kind, names: Any = names, modulate: Any = modulate) -> Variant:
                name, (hessian, weight) = kind.__name__, names
                label, phi = weight if hessian == "mm" else hessian, kind(mu=strength(mus, kind.__name__, level))
                plugins = ucpm(modulate(phi))
                return Variant("controls", f"{name}, {label}", f"{name}, map", "host", (name, *names), level, phi.mu, plugins)

            yield from along(make, scores, flat_levels) if names == ("mm", "flat") else (make(matched_best),)


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


@dataclass(frozen=True)
class Begun:
    """What is finished: DDNM(+) with this share of fresh noise, and plug-ins whose covariance gives the maps."""

    plugins: Callable[[], dict[str, Any]] = dict
    eta: float = 0.85
    maps: bool = True  # try them as weights


WALKS = {
    "none": Begun(lambda: {"covariance": leader()["covariance"], "steps": None}),
    "leader": Begun(leader),
    "start": Begun(lambda: leader("start") | {"modulate": None}),
    "leader-start": Begun(lambda: leader("start")),
    "strong UCPM": Begun(lambda: ucpm(UCPM(HuberTV(1.0)))),
    "eta 1": Begun(eta=1.0, maps=False),
    "eta 1, strong UCPM": Begun(lambda: ucpm(UCPM(HuberTV(1.0))), eta=1.0, maps=False),
}
MAPS = ("last map", "earlier map", "true error")


def walks(mus: dict[tuple[str, int], float], cov: float, scores: Scores) -> Iterator[Variant]:
    """Each walk, its picture finished with one number for a weight, and with maps of the same mean."""
    for walk in WALKS:
        base, control = f"walk: {walk}", "" if walk == "none" else "none, finished"
        yield Variant("walks", base, "walk: none", base, walk=walk, finish=lambda found, _: found.image)
        for weight in ("", *(MAPS if WALKS[walk].maps else ())):
            name = f"{walk}, finished{weight and ', ' + weight}"

            def make(level: int, walk: str = walk, weight: str = weight, name: str = name, control: str = control) -> Variant:
                phi = HuberTV(strength(mus, "HuberTV", level))
                finish = Finish(phi, TIMES[-1], RESULT * cov, cov, weight)
                against, names = f"{walk}, finished" if weight else control, ("HuberTV", "mm", weight or "put back")
                return Variant("walks", name, against, f"walk: {walk}", names, level, phi.mu, walk=walk, finish=finish)

            yield from along(make, scores, first_levels(HuberTV))


def eta() -> Iterator[Variant]:
    """DDNM(+) as it is and with eta 1, from the top and with `leader-start`, with 100 positions each."""
    for value in (0.85, 1.0):
        for label, plugins in (("none", {"steps": None}), ("leader-start", leader("start"))):
            wrap = lambda s, value=value: replace(s, eta_ddim=value)
            control = "" if label == "none" else f"eta {value:g}, none"
            yield Variant("eta", f"eta {value:g}, {label}", control, "eta 0.85, none", plugins=plugins, wrap=wrap)


def variants(part: str, scores: Scores, task: str, images: str, count: int) -> Iterator[Variant]:
    """The bare host first, but for `walks` and `eta`, which have their own. The controls need the best strength of the map."""
    mus, cov = weights(images, count)
    if part not in ("walks", "eta"):
        yield Variant("host", "host")
    yield from {
        "potentials": lambda: potentials(mus, cov, scores),
        "finishing": lambda: finishing(mus, cov, scores),
        "controls": lambda: controls(mus, scores),
        "goal": lambda: goal(mus, photographs(images, count)),
        "walks": lambda: walks(mus, cov, scores),
        "eta": eta,
    }[part]()


# --- Rows -----------------------------------------------------------------------------------------------------------


def read(out: Path) -> pd.DataFrame:
    if not out.is_file():
        return pd.DataFrame(columns=[*SETTING, "level", "score"])
    with out.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)  # another process may be in the middle of its rows
        return pd.read_csv(file, keep_default_na=False)


def run(variant: Variant, task_name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """(pictures, network calls of the walk they come from)."""
    if variant.finish is not None:
        walk = walk_of(task_name, variant.walk, x)
        return variant.finish(walk, problem_of(task_name, x)), walk.nfe
    task = parse_task(task_name)
    sampler, prior = variant.wrap(host(variant.sampler, task.sigma, task)), prior_of(variant.prior)
    result = restore(problem_of(task_name, x), prior, sampler, **begun(task_name, x, variant.plugins))
    return result.image, result.nfe


def begun(task_name: str, x: Tensor, plugins: dict[str, Any]) -> dict[str, Any]:
    """`plugins` with the start of this script, where they have no step rule of their own."""
    return plugins if "steps" in plugins else plugins | {"steps": start_of(task_name, x)}


@lru_cache(maxsize=4)
def walk_of(task_name: str, name: str, x: Tensor) -> Walk:
    """A walk of DDNM(+) and its maps: one of WALKS, or "host", as in the other parts."""
    walk, watch = WALKS.get(name, Begun()), Watch(LEVEL)
    sampler = replace(host("ddnm", parse_task(task_name).sigma), eta_ddim=walk.eta)  # type: ignore[call-arg]
    plugins = begun(task_name, x, walk.plugins())
    result = restore(problem_of(task_name, x), prior_of("photo-small"), sampler, on_state=watch, **plugins)
    return walk_from(result, watch, box((result.image - x).square(), 5))


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

    def scores(name: str) -> dict[int, float]:
        table = read(out)  # again: what comes next depends on it, and another process may work on another part
        here = table[(table["task"] == task) & (table["variant"] == name)]
        return {int(level): score for level, score in here.groupby("level")["score"].mean().items()}

    for part in [p for p in PARTS if p in parts]:  # one after another: `controls` reads what `potentials` wrote
        for variant in variants(part, scores, task, images, count):
            if variant.level not in scores(variant.name):
                append(variant, task, *run(variant, task, x), x, out)


def append(variant: Variant, task: str, image: Tensor, nfe: Tensor, x: Tensor, out: Path) -> None:
    scores = {"psnr": psnr(image, x), "lpips": lpips_distance(image, x)}
    scores["score"] = scores["psnr"] - RATE * scores["lpips"]
    potential, hessian, weight = variant.names
    row: dict[str, Any] = {"task": task, "part": variant.part, "variant": variant.name, "potential": potential}
    row |= {"hessian": hessian, "weight": weight, "level": variant.level, "mu": float(f"{variant.mu:.4g}")}
    row |= {"base": variant.base, "control": variant.control, "photo": range(len(x)), "nfe": nfe.int().tolist()}
    row |= {name: [round(v, 5) for v in value.tolist()] for name, value in scores.items()}
    with out.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(pd.DataFrame(row).to_csv(header=file.tell() == 0, index=False))
    print(task, variant.name, variant.level, *(f"{name} {v.mean():.4f}" for name, v in scores.items()), flush=True)


# --- Summary --------------------------------------------------------------------------------------------------------


def best(table: pd.DataFrame, task: str, variant: str, level: int | None = None) -> pd.DataFrame:
    """The photographs of a variant in order, at a strength, or at its best one."""
    here = table[(table["task"] == task) & (table["variant"] == variant)]
    level = here.groupby("level")["score"].mean().idxmax() if level is None else level
    return here[here["level"] == level].sort_values("photo")


def change(values: np.ndarray, base: np.ndarray, draws: int = 2000) -> np.ndarray:
    """100 (mean of values / mean of base - 1), and the same of `draws` draws of photographs, (1 + draws,)."""
    pick = np.vstack([np.arange(len(base)), np.random.default_rng(0).integers(len(base), size=(draws, len(base)))])
    return 100 * (values[pick].mean(1) / base[pick].mean(1) - 1)


def percent(values: np.ndarray, base: np.ndarray) -> tuple[float, float, float]:
    """The change of a mean in percent with its interval, bootstrapped by photograph."""
    return ends_of(change(values, base))


def ends_of(changes: np.ndarray) -> tuple[float, float, float]:
    return (changes[0], *np.quantile(changes[1:], (0.025, 0.975)))


def named(name: str, ends: Sequence[float]) -> dict[str, float]:
    return dict(zip((f"{name}{end}" for end in ("", "_low", "_high")), ends, strict=True))


def reference(table: pd.DataFrame, row: dict[str, Any], other: str) -> pd.DataFrame | None:
    """What a setting is compared with: at its own best strength, but for other Hessians and `left open` at the same."""
    alike = row["part"] == "controls" and row["weight"] != "flat" and other == row["control"]
    return best(table, row["task"], other, row["level"] if alike else None) if other else None


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """ablations.csv: each setting at its best strength. d_ is the difference to the bare host, c_ that to `control`."""
    rows = []
    for setting, _ in table.groupby(SETTING, sort=False):
        row: dict[str, Any] = dict(zip(SETTING, setting, strict=True))
        part = best(table, row["task"], row["variant"])
        row |= {name: part[name].iloc[0] for name in ("level", "mu", "base", "control")}
        row |= {"n": len(part), "nfe": part["nfe"].mean()}
        for prefix, other in (("d", row["base"]), ("c", row["control"])):
            against = reference(table, row, other)
            for metric in METRICS:
                row[metric] = part[metric].mean()
                gaps = part[metric].to_numpy() - against[metric].to_numpy() if against is not None else None
                row |= named(f"{prefix}_{metric}", bootstrap_interval(gaps) if gaps is not None else (np.nan,) * 3)
        base = best(table, row["task"], row["base"])
        for metric in PERCENT:
            row |= named(f"{metric}_percent", percent(part[metric].to_numpy(), base[metric].to_numpy()))
        rows.append(row)
    return pd.DataFrame([*rows, *averages(table)]).round(5)


def averages(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """For `eta` the measure of the goal: the mean over the six tasks of the change in percent, where all six are there.

    Two rows mix the two values of eta: 1 where there is no noise, and 1 where it raises PSNR on these photographs.
    """
    table = table[table["part"] == "eta"]
    if set(table["task"]) != set(SIX):
        return
    mean = table.groupby(["variant", "task"])["psnr"].mean()
    both = lambda label: (f"eta 0.85, {label}", f"eta 1, {label}")
    choices = {name: dict.fromkeys(SIX, name) for name in mean.index.unique("variant")}
    for label in ("none", "leader-start"):
        low, high = both(label)
        choices[f"eta 1 without noise, {label}"] = {t: high if t.endswith("@0") else low for t in SIX}
        choices[f"eta 1 where better, {label}"] = {t: high if mean[high, t] > mean[low, t] else low for t in SIX}
    for name, choice in choices.items():
        row: dict[str, Any] = {"task": "six tasks", "part": "eta", "variant": name, "base": both("none")[0]}
        for metric in PERCENT:
            pairs = ((best(table, task, v)[metric].to_numpy() for v in (choice[task], row["base"])) for task in SIX)
            row |= named(f"{metric}_percent", ends_of(np.mean([change(*pair) for pair in pairs], axis=0)))
        yield row | {"n": table["photo"].nunique()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images")
    parser.add_argument("--tasks", nargs="+", help="for every part; else each part has those of the committed table")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    args = parser.parse_args()
    out = args.folder / "ablations_photos.csv"
    if args.images:
        for task in args.tasks or SIX:
            cell(task, [part for part in args.parts if args.tasks or task in ASKED[part]], args.images, args.count, out)
    summary(read(out)).to_csv(args.folder / "ablations.csv", index=False)


if __name__ == "__main__":
    main()

"""How near is each estimator of the variance map to the exact one, inside restorations?

    python benchmarks/estimators.py --train DIR [--priors mixture photo digits] [--hosts ddnm ddpg projdiff idpg]

All estimators watch the same runs of 100 steps and change nothing in them: runs of DDNM and DDNM+ (eta = 0.85), and of other
hosts, where only the estimators that call no network sit in. Three judges:

    mixture   Gaussian mixtures (1 x 16 x 16, and 3 x 8 x 8), whose covariance is known
    digits    the digit network on digits it never saw (1 x 32 x 32), its whole Jacobian taken: `oracle.exact_covariance`
    photo     the photo network on the middles (3 x 32 x 32) of photographs at 128 pixels: those of scikit-image and
              scikit-learn, then the test split of `--train`. Hutchinson probes stand in for the Jacobian, and their noise
              bounds any correlation: `reliability` is the correlation of two halves of the probes, stepped up to all of
              them; `correlation_corrected` is correlation / sqrt(reliability). Beside them PIXELS exact values for each
              image, a row of the Jacobian each, at random places: `correlation_pixels` and `trace_ratio_pixels`

One row per prior, host, task, estimator and bin of sigma: medians over images of trace ratio, correlation and relative error,
and the mean share of negative values. `correlation_5x5` is that of the maps averaged over channels and blocks of 5 x 5 pixels,
for the networks; `truth_negative` is the share of the judge's own values below zero, which no exact posterior mean would have.
E2 and E3 are fitted on samples of the mixtures, on training digits, and on the training photographs of `--train`, without
which they sit out. "E5" is one probe and "E5 m=8 5x5" the mean of eight, both averaged over 5 x 5 pixels; "E5 m=8" are eight
as they come. "E3*E14" and "E10*E14" are geometric means of two maps, an idea that was tried and not kept. E4 needs a network
with a variance head, which none of the priors has; tests/test_estimators.py has its closed form.

What would more evidence do? For the photo network alone: m backward passes at a step in "E5 m=64 5x5", "Haar m=8" and "Haar
m=64" (see `HaarProbes`); and four times as many steps, hence secants, in the host "ddnm, 400 steps", which E14 watches as it
is and as "E14 long", whose memory spans the same noise levels as at 100 steps.

A cell (prior, host, task) of which the table has all that was asked for, of as many images, is skipped, and each is written
when it is done: after a kill, start again. `--only` scores some estimators and leaves the rows of the others, at little cost
where `--cache` has what the judges said. estimators_summary.csv, written beside the table, says where the goals are met (see
`summary`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from leader_nb import DDNM, GaussianMixture, Prior, Problem, host, image_mixture, load_prior, noise_for, parse_task, trajectory
from leader_nb.covariance import (
    Analytic,
    DifferenceProbes,
    ForwardProbes,
    Hutchinson,
    Isotropic,
    MinusSlope,
    NoiseReuse,
    PyramidSecant,
    PyramidWiener,
    RowSums,
    RunningSecant,
    ScoreSquared,
    SecondMoment,
    fit_head,
    measure_table,
)
from leader_nb.covariance.common import clipped
from leader_nb.covariance.probes import probed as probe_mean
from leader_nb.covariance.probes import with_graph
from leader_nb.covariance.pyramid import SLOPES, analyse, pixels
from leader_nb.data import BUILTIN_PHOTOS, builtin_photo, load_image
from leader_nb.digits import digits
from leader_nb.operators import inpainting
from leader_nb.oracle import exact_covariance
from leader_nb.priors import Belief, Meter
from leader_nb.samplers import Sampler
from leader_nb.schedule import uniform_grid
from leader_nb.train import image_files
from leader_nb.tree import Tree
from leader_nb.zoo import add_device

PRIORS = ("mixture", "photo", "digits")
MEASURED = ("sr4@0.05", "motion@0.05", "cs25@0.05", "sr4@0", "gaussian@0.05", "inpaint70@0")  # those of protocol.md
TASKS = ("none", "none, eta 0", *MEASURED)
FINER = "ddnm, 400 steps"
HOSTS = ("ddnm", "ddpg", "projdiff", "idpg", FINER)
NETWORK_MORE = ("sr4@0.05", "inpaint70@0")  # with hosts other than DDNM and DDNM+
LEVELS = (3.0, 2.0, 1.4, 1.0, 0.6, 0.3, 0.15, 0.1)  # centres of the bins, on a log scale
NETWORK_LEVELS = (3.0, 2.0, 1.0, 0.3, 0.1)  # dearer to judge
RATIOS, CORRELATION = (0.8, 1.25), 0.7  # the goals, for 0.1 <= sigma <= 3
PIXELS = 64  # exact values for each image and level of the photo network
CALIBRATION = (20, 60, 100, 150, 200, 250, 300, 350, 400, 450, 500)  # raw times of the tables of E2 and E3


@dataclass(frozen=True, eq=False)
class Truth:
    """The judge's map, its reliability (B,), and what is known exactly of it: `values` (B, n) at the flat `places` (B, n)."""

    diagonal: Tensor
    reliability: Tensor
    places: Tensor | None = None
    values: Tensor | None = None


@dataclass
class Watch:
    """Estimators beside a run: those with memory see every step, the dear ones only the `levels`."""

    free: dict[str, Any]
    dear: dict[str, Any]
    levels: set[int]
    truth: Any
    seen: list[tuple[Belief, Truth, dict[str, Tensor]]] = field(default_factory=list)
    memories: dict[str, Tree] = field(default_factory=dict)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        belief = replace(belief, prior=belief.prior.metered(Meter.of(len(belief.x0))))
        maps = {}
        for name, estimator in self.free.items():
            maps[name], self.memories[name] = estimator.update(belief, injected, self.memories.get(name, {}))
        if belief.t[0].item() in self.levels:
            maps |= {name: estimator.update(belief, injected, {})[0] for name, estimator in self.dear.items()}
            self.seen.append((belief, self.truth(belief), maps))
        return belief.x0, memory


def free(table: Any = None, head: Any = None) -> dict[str, Any]:
    """The estimators that call no network."""
    known = {"E0": Isotropic(), "E1": ScoreSquared(clip=False), "E1w": ScoreSquared(clip=False, window=5)}
    known |= {"E2": Analytic(table)} if table else {}
    known |= {"E3": SecondMoment(head), "E3*E14": Blend(SecondMoment(head), PyramidSecant())} if head else {}
    known |= {"E10*E14": Blend(RunningSecant(), PyramidSecant())}
    return known | {
        "E10": RunningSecant(),
        "E11": NoiseReuse(),
        "E12": MinusSlope(),
        "E14": PyramidSecant(),
        "E15": PyramidWiener(),
    }


def finer() -> dict[str, Any]:
    """E14 where steps are four times as many: with its own memory, and with one that is as long in noise levels."""
    usual = PyramidSecant()
    return {"E14": usual, "E14 long": replace(usual, keep=usual.keep**0.25, keep_local=usual.keep_local**0.25)}


@dataclass(frozen=True)
class Blend:
    """The geometric mean of two maps."""

    first: Any
    second: Any

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        a, one = self.first.update(belief, injected, memory.get("first", {}))
        b, two = self.second.update(belief, injected, memory.get("second", {}))
        return (a * b).sqrt(), {"first": one, "second": two}


@dataclass(frozen=True)
class HaarProbes:
    """The form of E14 with other evidence: the slope of each Haar coefficient is the mean of `probes` random signs v on it,
    v * (H J^T H^T v), in place of a Wiener filter's and of the secants. H is orthonormal, and pixels are E14's."""

    probes: int

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        kept = with_graph(belief)
        back = torch.func.vjp(analyse, belief.x0)[1]

        def product(v: Tensor) -> Tensor:
            return analyse(belief.abar.sqrt() * kept.vjp(back(v)[0]))

        slope = probe_mean(belief, product, self.probes, seed=0) / belief.sigma**2
        return clipped(belief.sigma**2 * pixels(slope.clamp(*SLOPES)), belief.sigma), memory


def dear(every: bool = True) -> dict[str, Any]:
    """The ones that do call it; without `every` only three, for the networks, where they are dear."""
    probes: dict[str, Any] = {"E5": Hutchinson(1, 5), "E5 m=8": Hutchinson(8), "E5 m=8 5x5": Hutchinson(8, 5)}
    return probes | ({"E6": ForwardProbes(1, 5), "E7": DifferenceProbes(1, 5), "E8": RowSums()} if every else {})


def more() -> dict[str, Any]:
    """What more evidence at one step would do, in windows and in the form of E14: for the photo network."""
    return {"E5 m=64 5x5": Hutchinson(64, 5), "Haar m=8": HaarProbes(8), "Haar m=64": HaarProbes(64)}


def picked(estimators: dict[str, Any], only: Sequence[str] | None) -> dict[str, Any]:
    """Those whose names are in `only`; all, without it."""
    return {name: e for name, e in estimators.items() if only is None or name in only}


def kept(truth: Any, folder: str | None, cell: str) -> Any:
    """`truth`, or what it said about this cell before: the dear part of the work, and a file for each noise level."""

    def told(belief: Belief) -> Truth:
        if folder is None:
            return truth(belief)
        file = Path(folder) / f"{cell}, {len(belief.x0)} images, t {int(belief.t[0])}.pt"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"x_t": belief.x_t, **vars(truth(belief))}, file)
        found = torch.load(file)
        if not torch.equal(found.pop("x_t"), belief.x_t):
            raise SystemExit(f"{file}: it is about other states; delete it, or give another --cache")
        return Truth(**found)

    return told


def jacobian(belief: Belief) -> Truth:
    """The diagonal of the network's own covariance."""
    found = exact_covariance(replace(belief.prior, meter=None), belief.x_t, belief.t)
    return Truth(found.diagonal, torch.ones(len(belief.x0)).to(found.diagonal))


def exact(mixture: GaussianMixture) -> Any:
    """belief -> the exact map."""

    def truth(belief: Belief) -> Truth:
        rows = zip(belief.xbar, belief.sigma, strict=True)
        maps = [mixture.covariance(x, s.reshape(())).diagonal().view(x.shape) for x, s in rows]
        return Truth(torch.stack(maps), torch.ones(len(maps)).to(belief.x0))

    return truth


def probed(probes: int, chunk: int = 32) -> Any:
    """belief -> the mean of many Hutchinson probes, its reliability, and some exact values."""

    def products(belief: Belief, i: int, v: Tensor) -> Tensor:
        """J^T v of image i for a few v at once, times sigma^2."""
        x, prior = belief.x_t[i], replace(belief.prior, meter=None)
        kept = prior(x.expand(len(v), *x.shape), belief.t[i].expand(len(v)), gradient=True)
        return belief.sigma[i] ** 2 * belief.abar[i].sqrt() * kept.vjp(v)

    def one(belief: Belief, i: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        x, shape = belief.x_t[i], belief.x_t[i].shape
        halves = [torch.zeros_like(x), torch.zeros_like(x)]
        for j in range(max(2, probes // chunk)):
            v = torch.randn(chunk, *shape, generator=generator).sign().to(x)
            halves[j % 2] += (v * products(belief, i, v)).sum(0)
        r = torch.corrcoef(torch.stack([half.flatten() for half in halves]))[0, 1].clamp(min=0.05)
        places = torch.randperm(shape.numel(), generator=generator)[:PIXELS]
        seeds = torch.eye(shape.numel())[places].view(-1, *shape).to(x)
        values = (
            torch.cat([products(belief, i, v) for v in seeds.split(chunk)]).flatten(1).gather(1, places[:, None].to(x.device))
        )
        return sum(halves) / (max(2, probes // chunk) * chunk), 2 * r / (1 + r), places, values.flatten()

    def truth(belief: Belief) -> Truth:
        generator = torch.Generator().manual_seed(0)
        found = [one(belief, i, generator) for i in range(len(belief.x0))]
        return Truth(*(torch.stack(part) for part in zip(*found, strict=True)))

    return truth


def rows(name: str, host_name: str, task: str, prior: Prior, x: Tensor, watch: Watch) -> list[dict[str, object]]:
    """Run, and one row per estimator and level."""
    problem, sampler = posed(task, x, paced(host_name)[0])
    noise = noise_for(len(x), seed=1)
    for state in trajectory(problem, prior, sampler, grid=paced(host_name)[1], noise=noise, covariance=watch):
        if state.t[0].item() <= min(watch.levels):
            break
    table: list[dict[str, object]] = []
    for belief, truth, maps in watch.seen:
        sigma = belief.sigma[0].item()
        level = min(LEVELS, key=lambda v: abs(torch.tensor(sigma / v).log().item()))
        for estimator, found in maps.items():
            key = {"prior": name, "host": host_name, "task": task, "estimator": estimator, "sigma": level, "images": len(x)}
            table.append(key | scores(found.double(), truth.diagonal.double(), truth.reliability.double()))
            table[-1] |= {} if truth.values is None else sampled(found.double(), truth)
    return table


def paced(host_name: str) -> tuple[str, int]:
    """A host's own name and its number of steps: "ddnm, 400 steps"."""
    name, _, steps = host_name.partition(", ")
    return name, int(steps.split()[0]) if steps else 100


def posed(task: str, x: Tensor, host_name: str) -> tuple[Problem, Sampler]:
    """The problem and its host; "none" measures nothing, and is DDNM's alone."""
    if not task.startswith("none"):
        spec = parse_task(task)
        return spec.measure(x), host(host_name, spec.sigma)
    operator = inpainting(torch.zeros(1, 1, *x.shape[2:], dtype=torch.bool), tuple(x.shape[1:]), x)
    sampler = DDNM(eta_ddim=0.0) if task.endswith("eta 0") else DDNM()
    return Problem(operator(x), operator, torch.zeros(len(x), dtype=torch.float64)), sampler


def scores(found: Tensor, truth: Tensor, reliability: Tensor) -> dict[str, float]:
    """Medians over images; the corrected correlation is that of the map with a truth free of probe noise."""
    a, b = found.flatten(1), truth.flatten(1)
    likeness = alike(a, b)
    return {
        "trace_ratio": (a.mean(1) / b.mean(1)).median().item(),
        "correlation": likeness.median().item(),
        "correlation_corrected": (likeness / reliability.sqrt()).median().item(),
        "relative_error": ((a - b).square().mean(1) / b.square().mean(1)).sqrt().median().item(),
        "negative": (a <= 0).double().mean().item(),
        "reliability": reliability.median().item(),
        "correlation_5x5": coarse(found, truth),
        "truth_negative": (b <= 0).double().mean().item(),
    }


def sampled(found: Tensor, truth: Truth) -> dict[str, float]:
    """The same of a sample of exact values: medians over images of the correlation, and of the ratio of the sums."""
    assert truth.places is not None and truth.values is not None
    a, b = found.flatten(1).gather(1, truth.places), truth.values.double()
    ratio = (a.mean(1) / b.mean(1)).median().item()
    return {"correlation_pixels": alike(a, b).median().item(), "trace_ratio_pixels": ratio}


def alike(a: Tensor, b: Tensor) -> Tensor:
    """The correlation of each row of a and b, (B,); 0 for a constant map, which has no shape."""
    found = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)])
    return torch.where(a.std(1) > 1e-9 * a.abs().mean(1), found, 0.0)


def coarse(found: Tensor, truth: Tensor) -> float:
    """The median correlation of block means, for images of at least 30 pixels a side."""
    if min(found.shape[-2:]) < 30:
        return float("nan")
    a, b = (F.avg_pool2d(v.mean(1, keepdim=True), 5).flatten(1) for v in (found, truth))
    return alike(a, b).median().item()


def times(prior: Prior, levels: Sequence[float] = LEVELS, steps: int = 100) -> set[int]:
    """The times of the grid nearest to the levels."""
    grid, wanted = uniform_grid(steps, prior.schedule), [prior.schedule.nearest_time(level) for level in levels]
    return {min(grid, key=lambda t: abs(t - time)) for time in wanted}


Cells = Iterator[tuple[str, str, str, Watch, Callable[[], list[dict[str, object]]]]]  # prior, host, task, what makes its rows


def mixture_cells(name: str, mixture: GaussianMixture, images: int, args: argparse.Namespace) -> Cells:
    prior, training = mixture.prior(), mixture.sample(200, torch.Generator().manual_seed(9))
    tools = measure_table(prior, training, CALIBRATION), fit_head(prior, training, CALIBRATION)
    x = mixture.sample(images, torch.Generator().manual_seed(3))
    for host_name in [h for h in args.hosts if h != FINER]:
        for task in TASKS if host_name == "ddnm" else MEASURED:
            paid = dear() if host_name == "ddnm" and task != "none, eta 0" else {}
            watch = Watch(picked(free(*tools), args.only), picked(paid, args.only), times(prior), exact(mixture))
            yield name, host_name, task, watch, partial(rows, name, host_name, task, prior, x, watch)


def network_cells(name: str, x: Tensor, training: Tensor | None, truth: Any, args: argparse.Namespace) -> Cells:
    """The cells of a trained prior on images x; E2 and E3 are fitted on `training`."""
    prior, x, photo = load_prior(name, args.device), x.to(args.device), name == "photo-small"
    training = None if training is None else training.to(args.device)
    tools = () if training is None else [make(prior, training, CALIBRATION) for make in (measure_table, fit_head)]
    for host_name in [h for h in args.hosts if photo or h != FINER]:
        paid = dear(every=False) | (more() if photo else {}) if host_name == "ddnm" else {}
        unpaid = finer() if host_name == FINER else free(*tools)
        levels = times(prior, NETWORK_LEVELS, paced(host_name)[1])
        for task in MEASURED if host_name == "ddnm" else NETWORK_MORE:
            judge = kept(truth, args.cache, f"{name}, {host_name}, {task}")
            watch = Watch(picked(unpaid, args.only), picked(paid, args.only), levels, judge)
            yield name, host_name, task, watch, partial(rows, name, host_name, task, prior, x, watch)


def photo_cells(args: argparse.Namespace) -> Cells:
    middle, count, folder = slice(48, 80), args.images, args.train
    training = torch.cat([load_image(f, 128) for f in image_files(folder, "train")[1::4]]) if folder else None
    training = None if training is None else training[..., middle, middle]
    photos = [builtin_photo(name, 128) for name in BUILTIN_PHOTOS[:count]]
    more = image_files(folder, "test")[: count - len(photos)] if folder else []
    x = torch.cat([*photos, *(load_image(f, 128) for f in more)])[..., middle, middle]
    return network_cells("photo-small", x, training, probed(args.probes), args)


def digit_cells(args: argparse.Namespace) -> Cells:
    unseen = digits("test").images
    x = unseen[torch.linspace(0, len(unseen) - 1, args.images).long()]
    return network_cells("digits", x, digits("train").images[::45], jacobian, args)


def merged(kept: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """The table with the rows that were just made in place of those it had of the same estimators, and those of the same
    cell that are of another number of images."""
    if not len(kept):
        return made
    cell = ["prior", "host", "task"]
    same, counted = (in_both(kept, made, [*cell, *more]) for more in (["estimator"], ["images"]))
    return pd.concat([kept[~same & (counted | ~in_both(kept, made, cell))], made], ignore_index=True)


def in_both(kept: pd.DataFrame, made: pd.DataFrame, key: list[str]) -> np.ndarray:
    """Which rows of `kept` have a row of `made` with the same key."""
    return kept.merge(made[key].drop_duplicates(), on=key, how="left", indicator=True)["_merge"].to_numpy() == "both"


def has(table: pd.DataFrame, prior: str, host_name: str, task: str, images: int, names: Iterable[str]) -> bool:
    """Whether the table has that cell, of as many images, with all those estimators."""
    if not len(table):
        return False
    cell = table[(table["prior"] == prior) & (table["host"] == host_name) & (table["task"] == task)]
    return bool((cell["images"] == images).all()) and set(names) <= set(cell["estimator"])


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per prior, estimator and level: medians over the tasks of DDNM and DDNM+ (with fresh noise), and the goals.

    `level_met`: trace ratio within RATIOS;  `shape_met`, `shape_5x5_met`: correlation (corrected) above CORRELATION
    """
    chosen = frame[(frame["host"] == "ddnm") & (frame["task"] != "none, eta 0") & frame["sigma"].between(0.1, 3.0)]
    columns = ["trace_ratio", "correlation_corrected", "correlation_5x5", "relative_error", "negative", "truth_negative"]
    table = chosen.groupby(["prior", "estimator", "sigma"], sort=False)[columns].median().reset_index()
    table["level_met"] = table["trace_ratio"].between(*RATIOS)
    table["shape_met"] = table["correlation_corrected"] > CORRELATION
    table["shape_5x5_met"] = table["correlation_5x5"] > CORRELATION
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", nargs="+", default=PRIORS, choices=PRIORS)
    parser.add_argument("--hosts", nargs="+", default=HOSTS, choices=HOSTS)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--images", type=int, default=16, help="images of each prior; without --train at most 6 photographs")
    parser.add_argument("--probes", type=int, default=64)
    parser.add_argument("--train", help="folder of photographs: E2 and E3 learn on its train split, its test split is judged")
    parser.add_argument("--cache", help="folder for what the judges of the networks said, to score other estimators later")
    parser.add_argument("--only", nargs="+", help="score these estimators alone; the rows of others stay")
    parser.add_argument("--out", default="benchmarks/results/estimators.csv")
    add_device(parser)
    args = parser.parse_args()
    out = Path(args.out)
    table = pd.read_csv(out) if out.is_file() else pd.DataFrame()
    out.parent.mkdir(parents=True, exist_ok=True)
    for prior, host_name, task, watch, make in cells(args):
        if task not in args.tasks or has(table, prior, host_name, task, args.images, [*watch.free, *watch.dear]):
            continue
        start = time.process_time()
        table = merged(table, pd.DataFrame(make()).round(4))
        table.to_csv(out, index=False)
        print(f"{prior}, {host_name}, {task}: {time.process_time() - start:.0f} s of CPU", flush=True)
    found = summary(table)
    found.round(4).to_csv(out.with_name(f"{out.stem}_summary.csv"), index=False)
    wide = found.pivot_table(index=["prior", "estimator"], columns="sigma", values=["trace_ratio", "correlation_corrected"])
    print(wide.round(2).to_string())


def cells(args: argparse.Namespace) -> Cells:
    """All the cells that were asked for."""
    if "photo" in args.priors:
        yield from photo_cells(args)
    if "digits" in args.priors:
        yield from digit_cells(args)
    if "mixture" in args.priors:
        yield from mixture_cells("mixture 1x16x16", image_mixture(16), args.images, args)
        yield from mixture_cells("mixture 3x8x8", image_mixture(8, channels=3), args.images, args)


if __name__ == "__main__":
    main()

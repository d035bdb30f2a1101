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
which they sit out. "E3*E14" and "E10*E14" are geometric means of two maps, an idea that was tried and not kept. E4 needs a
network with a variance head, which none of the priors has; tests/test_estimators.py has its closed form.

A cell (prior, host, task) of which the table has as many images is skipped, and each is written when it is done: after a kill,
start again. estimators_summary.csv, written beside the table, says where the goals are met (see `summary`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

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
from leader_nb.data import BUILTIN_PHOTOS, builtin_photo, load_image
from leader_nb.digits import digits
from leader_nb.operators import inpainting
from leader_nb.oracle import exact_covariance
from leader_nb.priors import Belief, Meter
from leader_nb.samplers import Sampler
from leader_nb.train import image_files
from leader_nb.tree import Tree
from leader_nb.zoo import add_device

PRIORS = ("mixture", "photo", "digits")
MEASURED = ("sr4@0.05", "motion@0.05", "cs25@0.05", "sr4@0", "gaussian@0.05", "inpaint70@0")  # those of protocol.md
TASKS = ("none", "none, eta 0", *MEASURED)
HOSTS = ("ddnm", "ddpg", "projdiff", "idpg")
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


@dataclass(frozen=True)
class Blend:
    """The geometric mean of two maps."""

    first: Any
    second: Any

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        a, one = self.first.update(belief, injected, memory.get("first", {}))
        b, two = self.second.update(belief, injected, memory.get("second", {}))
        return (a * b).sqrt(), {"first": one, "second": two}


def dear(every: bool = True) -> dict[str, Any]:
    """The ones that do; without `every` only two, for the networks, where they are dear."""
    probes: dict[str, Any] = {"E5": Hutchinson(1, 5), "E5 m=8": Hutchinson(8)}
    return probes | ({"E6": ForwardProbes(1, 5), "E7": DifferenceProbes(1, 5), "E8": RowSums()} if every else {})


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
    problem, sampler = posed(task, x, host_name)
    noise = noise_for(len(x), seed=1)
    for state in trajectory(problem, prior, sampler, noise=noise, covariance=watch):
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


def times(prior: Prior, levels: Sequence[float] = LEVELS) -> set[int]:
    """The times of the 100-step grid nearest to the levels."""
    return {min(990, 10 * round(prior.schedule.nearest_time(level) / 10)) for level in levels}


Cells = Iterator[tuple[str, str, str, Callable[[], list[dict[str, object]]]]]  # prior, host, task, and what makes its rows


def mixture_cells(name: str, mixture: GaussianMixture, images: int, hosts: Sequence[str]) -> Cells:
    prior, training = mixture.prior(), mixture.sample(200, torch.Generator().manual_seed(9))
    tools = measure_table(prior, training, CALIBRATION), fit_head(prior, training, CALIBRATION)
    x = mixture.sample(images, torch.Generator().manual_seed(3))
    for host_name in hosts:
        for task in TASKS if host_name == "ddnm" else MEASURED:
            paid = dear() if host_name == "ddnm" and task != "none, eta 0" else {}
            watch = Watch(free(*tools), paid, times(prior), exact(mixture))
            yield name, host_name, task, partial(rows, name, host_name, task, prior, x, watch)


def network_cells(name: str, x: Tensor, training: Tensor | None, truth: Any, args: argparse.Namespace) -> Cells:
    """The cells of a trained prior on images x; E2 and E3 are fitted on `training`."""
    prior, x, cache, hosts = load_prior(name, args.device), x.to(args.device), args.cache, args.hosts
    training = None if training is None else training.to(args.device)
    tools = () if training is None else [make(prior, training, CALIBRATION) for make in (measure_table, fit_head)]
    for host_name in hosts:
        paid = dear(every=False) if host_name == "ddnm" else {}
        for task in MEASURED if host_name == "ddnm" else NETWORK_MORE:
            watch = Watch(free(*tools), paid, times(prior, NETWORK_LEVELS), kept(truth, cache, f"{name}, {host_name}, {task}"))
            yield name, host_name, task, partial(rows, name, host_name, task, prior, x, watch)


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
    """The table with the rows of a cell that was just made in place of those it had."""
    if not len(kept):
        return made
    key = ["prior", "host", "task"]
    old = kept.merge(made[key].drop_duplicates(), on=key, how="left", indicator=True)["_merge"].to_numpy() == "both"
    return pd.concat([kept[~old], made], ignore_index=True)


def has(table: pd.DataFrame, prior: str, host_name: str, task: str, images: int) -> bool:
    """Whether the table has that cell, of as many images."""
    if not len(table):
        return False
    cell = table[(table["prior"] == prior) & (table["host"] == host_name) & (table["task"] == task)]
    return len(cell) > 0 and bool((cell["images"] == images).all())


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
    parser.add_argument("--out", default="benchmarks/results/estimators.csv")
    add_device(parser)
    args = parser.parse_args()
    out = Path(args.out)
    table = pd.read_csv(out) if out.is_file() else pd.DataFrame()
    out.parent.mkdir(parents=True, exist_ok=True)
    for prior, host_name, task, make in cells(args):
        if task not in args.tasks or has(table, prior, host_name, task, args.images):
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
        yield from mixture_cells("mixture 1x16x16", image_mixture(16), args.images, args.hosts)
        yield from mixture_cells("mixture 3x8x8", image_mixture(8, channels=3), args.images, args.hosts)


if __name__ == "__main__":
    main()

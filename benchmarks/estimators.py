"""How near is each estimator of the variance map to the exact one, inside restorations?

    python benchmarks/estimators.py [--priors mixture photo digits] [--images 16] [--photos 6] [--digits 8] [--train DIR]

All estimators watch the same runs of DDNM and DDNM+ (100 steps, eta = 0.85) and change nothing in them. Three judges:

    mixture   Gaussian mixtures (1 x 16 x 16, and 3 x 8 x 8), whose covariance is known
    digits    the digit network on digits it never saw (1 x 32 x 32), its whole Jacobian taken: `oracle.exact_covariance`
    photo     the photo network on the middles (3 x 32 x 32) of scikit-image's and scikit-learn's photographs at 128 pixels;
              Hutchinson probes in place of the Jacobian. Their noise bounds any correlation: `reliability` is the correlation
              of two halves of the probes, stepped up to all of them; `correlation_corrected` is correlation / sqrt(reliability)

One row per prior, task, estimator and bin of sigma: medians over images of trace ratio, correlation and relative error, and
the mean share of negative values. `correlation_5x5` is that of the maps averaged over channels and blocks of 5 x 5 pixels, for
the networks; `truth_negative` is the share of the judge's own values below zero, which no exact posterior mean would have.
E2 and E3 are fitted on samples of the mixtures, on training digits, and on the photographs of `--train`, without which they
sit out. "E3*E14" and "E10*E14" are geometric means of two maps, an idea that was tried and not kept. E4 needs a network with a
variance head, which none of the priors has; tests/test_estimators.py has its closed form. `--priors` makes some of the rows
again and keeps the others; estimators_summary.csv, written beside the table, says where the goals are met (see `summary`).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
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
TASKS = ("none", "none, eta 0", "inpaint70@0", "sr4@0", "sr4@0.05", "gaussian@0.05")
NETWORK_TASKS = ("inpaint70@0", "sr4@0", "gaussian@0.05")
LEVELS = (3.0, 2.0, 1.4, 1.0, 0.6, 0.3, 0.15, 0.1)  # centres of the bins, on a log scale
NETWORK_LEVELS = (3.0, 2.0, 1.0, 0.6, 0.3, 0.1)  # dearer to judge
RATIOS, CORRELATION = (0.8, 1.25), 0.7  # the goals, for 0.1 <= sigma <= 3
CALIBRATION = (20, 60, 100, 150, 200, 250, 300, 350, 400, 450, 500)  # raw times of the tables of E2 and E3


@dataclass
class Watch:
    """Estimators beside a run: those with memory see every step, the dear ones only the `levels`."""

    free: dict[str, Any]
    dear: dict[str, Any]
    levels: set[int]
    truth: Any
    seen: list[tuple[Belief, Tensor, Tensor, dict[str, Tensor]]] = field(default_factory=list)
    memories: dict[str, Tree] = field(default_factory=dict)

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        belief = replace(belief, prior=belief.prior.metered(Meter.of(len(belief.x0))))
        maps = {}
        for name, estimator in self.free.items():
            maps[name], self.memories[name] = estimator.update(belief, injected, self.memories.get(name, {}))
        if belief.t[0].item() in self.levels:
            maps |= {name: estimator.update(belief, injected, {})[0] for name, estimator in self.dear.items()}
            self.seen.append((belief, *self.truth(belief), maps))
        return belief.x0, memory


def free(table: Any = None, head: Any = None) -> dict[str, Any]:
    """The estimators that call no network."""
    known = {"E0": Isotropic(), "E1": ScoreSquared(clip=False), "E1w": ScoreSquared(clip=False, window=5)}
    known |= {"E2": Analytic(table)} if table else {}
    known |= {"E3": SecondMoment(head), "E3*E14": Blend(SecondMoment(head), PyramidSecant())} if head else {}
    known |= {"E10*E14": Blend(RunningSecant(), PyramidSecant())}
    return known | {"E10": RunningSecant(), "E11": NoiseReuse(), "E12": MinusSlope(), "E14": PyramidSecant()}


@dataclass(frozen=True)
class Blend:
    """The geometric mean of two maps."""

    first: Any
    second: Any

    def update(self, belief: Belief, injected: Tensor | None, memory: Tree) -> tuple[Tensor, Tree]:
        a, one = self.first.update(belief, injected, memory.get("first", {}))
        b, two = self.second.update(belief, injected, memory.get("second", {}))
        return (a * b).sqrt(), {"first": one, "second": two}


def dear() -> dict[str, Any]:
    """The ones that do."""
    probes = {"E5": Hutchinson(1, 5), "E5 m=8": Hutchinson(8), "E6": ForwardProbes(1, 5), "E7": DifferenceProbes(1, 5)}
    return probes | {"E8": RowSums()}


def jacobian(belief: Belief) -> tuple[Tensor, Tensor]:
    """belief -> (the diagonal of the network's own covariance, reliability 1)."""
    found = exact_covariance(replace(belief.prior, meter=None), belief.x_t, belief.t)
    return found.diagonal, torch.ones(len(belief.x0)).to(found.diagonal)


def exact(mixture: GaussianMixture) -> Any:
    """belief -> (exact map, reliability 1)."""

    def truth(belief: Belief) -> tuple[Tensor, Tensor]:
        rows = zip(belief.xbar, belief.sigma, strict=True)
        maps = [mixture.covariance(x, s.reshape(())).diagonal().view(x.shape) for x, s in rows]
        return torch.stack(maps), torch.ones(len(maps)).to(belief.x0)

    return truth


def probed(probes: int, chunk: int = 32) -> Any:
    """belief -> (mean of many Hutchinson probes, its reliability)."""

    def one(belief: Belief, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, scale = belief.x_t[i], belief.sigma[i] ** 2 * belief.abar[i].sqrt()
        halves = [torch.zeros_like(x), torch.zeros_like(x)]
        prior = replace(belief.prior, meter=None)
        for j in range(max(2, probes // chunk)):
            kept = prior(x.expand(chunk, *x.shape), belief.t[i].expand(chunk), gradient=True)
            v = torch.randn(chunk, *x.shape, generator=generator).sign().to(x)
            halves[j % 2] += scale * (v * kept.vjp(v)).sum(0)
        r = torch.corrcoef(torch.stack([half.flatten() for half in halves]))[0, 1].clamp(min=0.05)
        return sum(halves) / (max(2, probes // chunk) * chunk), 2 * r / (1 + r)

    def truth(belief: Belief) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        pairs = [one(belief, i, generator) for i in range(len(belief.x0))]
        return torch.stack([p for p, _ in pairs]), torch.stack([r for _, r in pairs])

    return truth


def rows(name: str, task: str, prior: Prior, x: Tensor, watch: Watch) -> list[dict[str, object]]:
    """Run, and one row per estimator and level."""
    problem, sampler = posed(task, x)
    noise = noise_for(len(x), seed=1)
    for state in trajectory(problem, prior, sampler, noise=noise, covariance=watch):
        if state.t[0].item() <= min(watch.levels):
            break
    table: list[dict[str, object]] = []
    for belief, truth, reliability, maps in watch.seen:
        sigma = belief.sigma[0].item()
        level = min(LEVELS, key=lambda v: abs(torch.tensor(sigma / v).log().item()))
        for estimator, found in maps.items():
            table.append({"prior": name, "task": task, "estimator": estimator, "sigma": level, "images": len(x)})
            table[-1] |= scores(found.double(), truth.double(), reliability.double())
    return table


def posed(task: str, x: Tensor) -> tuple[Problem, Sampler]:
    """The problem and its host; "none" measures nothing."""
    if not task.startswith("none"):
        spec = parse_task(task)
        return spec.measure(x), host("ddnm", spec.sigma)
    operator = inpainting(torch.zeros(1, 1, *x.shape[2:], dtype=torch.bool), tuple(x.shape[1:]), x)
    sampler = DDNM(eta_ddim=0.0) if task.endswith("eta 0") else DDNM()
    return Problem(operator(x), operator, torch.zeros(len(x), dtype=torch.float64)), sampler


def scores(found: Tensor, truth: Tensor, reliability: Tensor) -> dict[str, float]:
    """Medians over images; the corrected correlation is that of the map with a truth free of probe noise."""
    a, b = found.flatten(1), truth.flatten(1)
    alike = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)])
    alike = torch.where(a.std(1) > 1e-9 * a.abs().mean(1), alike, 0.0)  # a constant map has no shape
    return {
        "trace_ratio": (a.mean(1) / b.mean(1)).median().item(),
        "correlation": alike.median().item(),
        "correlation_corrected": (alike / reliability.sqrt()).median().item(),
        "relative_error": ((a - b).square().mean(1) / b.square().mean(1)).sqrt().median().item(),
        "negative": (a <= 0).double().mean().item(),
        "reliability": reliability.median().item(),
        "correlation_5x5": coarse(found, truth),
        "truth_negative": (b <= 0).double().mean().item(),
    }


def coarse(found: Tensor, truth: Tensor) -> float:
    """The median correlation of block means, for images of at least 30 pixels a side."""
    if min(found.shape[-2:]) < 30:
        return float("nan")
    a, b = (F.avg_pool2d(v.mean(1, keepdim=True), 5).flatten(1) for v in (found, truth))
    alike = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(a, b, strict=True)])
    return torch.where(a.std(1) > 1e-9 * a.abs().mean(1), alike, 0.0).median().item()


def times(prior: Prior, levels: Sequence[float] = LEVELS) -> set[int]:
    """The times of the 100-step grid nearest to the levels."""
    return {min(990, 10 * round(prior.schedule.nearest_time(level) / 10)) for level in levels}


def mixture_rows(name: str, mixture: GaussianMixture, images: int) -> list[dict[str, object]]:
    prior, table = mixture.prior(), []
    training = mixture.sample(200, torch.Generator().manual_seed(9))
    tools = measure_table(prior, training, CALIBRATION), fit_head(prior, training, CALIBRATION)
    x = mixture.sample(images, torch.Generator().manual_seed(3))
    for task in TASKS:
        start = time.perf_counter()
        table += rows(name, task, prior, x, Watch(free(*tools), dear(), times(prior), exact(mixture)))
        print(f"{name}, {task}: {time.perf_counter() - start:.0f} s", flush=True)
    return table


def network_rows(name: str, x: Tensor, training: Tensor | None, truth: Any) -> list[dict[str, object]]:
    """The rows of a trained prior on images x, and on their device; E2 and E3 are fitted on `training`."""
    prior, table = load_prior(name, x.device), []
    training = None if training is None else training.to(x.device)
    tools = () if training is None else [make(prior, training, CALIBRATION) for make in (measure_table, fit_head)]
    for task in NETWORK_TASKS:
        start = time.process_time()
        table += rows(name, task, prior, x, Watch(free(*tools), dear(), times(prior, NETWORK_LEVELS), truth))
        print(f"{name}, {task}: {time.process_time() - start:.0f} s of CPU", flush=True)
    return table


def photo_rows(count: int, probes: int, train: str | None, device: torch.device) -> list[dict[str, object]]:
    middle = slice(48, 80)
    training = torch.cat([load_image(f, 128) for f in image_files(train, "train")[1::4]]) if train else None
    training = None if training is None else training[..., middle, middle]
    x = torch.cat([builtin_photo(name, 128) for name in BUILTIN_PHOTOS[:count]])[..., middle, middle]
    return network_rows("photo-small", x.to(device), training, probed(probes))


def digit_rows(count: int, device: torch.device) -> list[dict[str, object]]:
    unseen = digits("test").images
    x = unseen[torch.linspace(0, len(unseen) - 1, count).long()]
    return network_rows("digits", x.to(device), digits("train").images[::45], jacobian)


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per prior, estimator and level: medians over tasks (no step rule without fresh noise), and the goals.

    `level_met`: trace ratio within RATIOS;  `shape_met`, `shape_5x5_met`: correlation (corrected) above CORRELATION
    """
    chosen = frame[(frame["task"] != "none, eta 0") & frame["sigma"].between(0.1, 3.0)]
    columns = ["trace_ratio", "correlation_corrected", "correlation_5x5", "relative_error", "negative", "truth_negative"]
    table = chosen.groupby(["prior", "estimator", "sigma"], sort=False)[columns].median().reset_index()
    table["level_met"] = table["trace_ratio"].between(*RATIOS)
    table["shape_met"] = table["correlation_corrected"] > CORRELATION
    table["shape_5x5_met"] = table["correlation_5x5"] > CORRELATION
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", nargs="+", default=PRIORS, choices=PRIORS, help="make these rows, keep the others")
    parser.add_argument("--images", type=int, default=16, help="images of each mixture")
    parser.add_argument("--photos", type=int, default=6, help="photographs, at most 6")
    parser.add_argument("--digits", type=int, default=8, help="digits")
    parser.add_argument("--probes", type=int, default=128)
    parser.add_argument("--train", help="folder of photographs to calibrate E2 and E3 on; its photos.csv says which are train")
    parser.add_argument("--out", default="benchmarks/results/estimators.csv")
    add_device(parser)
    args = parser.parse_args()
    table: list[dict[str, object]] = []
    if "mixture" in args.priors:
        table += mixture_rows("mixture 1x16x16", image_mixture(16), args.images)
        table += mixture_rows("mixture 3x8x8", image_mixture(8, channels=3), args.images)
    table += photo_rows(args.photos, args.probes, args.train, args.device) if "photo" in args.priors else []
    table += digit_rows(args.digits, args.device) if "digits" in args.priors else []
    frame, out = pd.DataFrame(table).round(4), Path(args.out)
    if out.is_file():
        kept = pd.read_csv(out)
        frame = pd.concat([kept[~kept["prior"].isin(frame["prior"])], frame], ignore_index=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(out, index=False)
    found = summary(frame)
    found.round(4).to_csv(out.with_name(f"{out.stem}_summary.csv"), index=False)
    wide = found.pivot_table(index=["prior", "estimator"], columns="sigma", values=["trace_ratio", "correlation_corrected"])
    print(wide.round(2).to_string())


if __name__ == "__main__":
    main()

"""How near is each estimator of the variance map to the exact one, inside restorations?

    python benchmarks/estimators.py [--images 16] [--photos 3] [--probes 128] [--train DIR] [--out FILE.csv]

All estimators watch the same runs of DDNM and DDNM+ (100 steps, eta = 0.85) and change nothing in them. On the Gaussian
mixture (1 x 16 x 16, and 3 x 8 x 8) the exact map is known; on 32 x 32 crops of scikit-image's photographs it is replaced by
Hutchinson probes of the photo network, whose own noise bounds any correlation: `reliability` is the correlation of two
halves of the probes, stepped up to all of them, and `correlation_corrected` is correlation / sqrt(reliability).
One row per prior, task, estimator and bin of sigma: medians over images of trace ratio, correlation and relative error, and
the mean share of negative values. With `--train` (a folder of photographs that were trained on) E2 and E3 run on photographs
too. E4 needs a network with a variance head, which neither prior has; tests/test_estimators.py has its closed form.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
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
from leader_nb.data import load_image, photo_crops
from leader_nb.operators import inpainting
from leader_nb.priors import Belief, Meter
from leader_nb.samplers import Sampler
from leader_nb.train import image_files
from leader_nb.tree import Tree

TASKS = ("none", "none, eta 0", "inpaint70@0", "sr4@0", "sr4@0.05", "gaussian@0.05")
PHOTO_TASKS = ("inpaint70@0", "sr4@0", "gaussian@0.05")
LEVELS = (3.0, 2.0, 1.4, 1.0, 0.6, 0.3, 0.15, 0.1)  # centres of the bins, on a log scale
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
    known |= {"E3": SecondMoment(head)} if head else {}
    return known | {"E10": RunningSecant(), "E11": NoiseReuse(), "E12": MinusSlope(), "E14": PyramidSecant()}


def dear() -> dict[str, Any]:
    """The ones that do."""
    probes = {"E5": Hutchinson(1, 5), "E5 m=8": Hutchinson(8), "E6": ForwardProbes(1, 5), "E7": DifferenceProbes(1, 5)}
    return probes | {"E8": RowSums()}


def exact(mixture: GaussianMixture) -> Any:
    """belief -> (exact map, reliability 1)."""

    def truth(belief: Belief) -> tuple[Tensor, Tensor]:
        rows = zip(belief.xbar, belief.sigma, strict=True)
        maps = [mixture.covariance(x, s.reshape(())).diagonal().view(x.shape) for x, s in rows]
        return torch.stack(maps), torch.ones(len(maps))

    return truth


def probed(probes: int, chunk: int = 32) -> Any:
    """belief -> (mean of many Hutchinson probes, its reliability)."""

    def one(belief: Belief, i: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x, scale = belief.x_t[i], belief.sigma[i] ** 2 * belief.abar[i].sqrt()
        halves = [torch.zeros_like(x), torch.zeros_like(x)]
        prior = replace(belief.prior, meter=None)
        for j in range(max(2, probes // chunk)):
            kept = prior(x.expand(chunk, *x.shape), belief.t[i].expand(chunk), gradient=True)
            v = torch.randn(chunk, *x.shape, generator=generator).sign()
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
    }


def times(prior: Prior) -> set[int]:
    """The times of the 100-step grid nearest to the levels."""
    return {min(990, 10 * round(prior.schedule.nearest_time(level) / 10)) for level in LEVELS}


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


def photo_rows(count: int, probes: int, train: str | None) -> list[dict[str, object]]:
    prior, table = load_prior(), []
    tools: tuple[Any, ...] = ()
    if train:
        images = [load_image(f, 256)[..., 96:128, 96:128] for f in image_files(train, "train")[::2]]
        tools = tuple(make(prior, torch.cat(images), CALIBRATION) for make in (measure_table, fit_head))
    x = photo_crops(32, count).images
    for task in PHOTO_TASKS:
        start = time.perf_counter()
        table += rows("photo-small", task, prior, x, Watch(free(*tools), dear(), times(prior), probed(probes)))
        print(f"photographs, {task}: {time.perf_counter() - start:.0f} s", flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="images of each mixture")
    parser.add_argument("--photos", type=int, default=3, help="crops of photographs; 0 leaves them out")
    parser.add_argument("--probes", type=int, default=128)
    parser.add_argument("--train", help="folder of photographs to calibrate E2 and E3 on; its photos.csv says which are train")
    parser.add_argument("--out", default="benchmarks/results/estimators.csv")
    args = parser.parse_args()
    table = mixture_rows("mixture 1x16x16", image_mixture(16), args.images)
    table += mixture_rows("mixture 3x8x8", image_mixture(8, channels=3), args.images)
    table += photo_rows(args.photos, args.probes, args.train) if args.photos else []
    frame = pd.DataFrame(table)
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    frame.round(4).to_csv(args.out, index=False)
    summary = frame[frame.task != "none, eta 0"].pivot_table(
        index=["prior", "estimator"], columns="sigma", values=["trace_ratio", "correlation_corrected"], aggfunc="median"
    )
    print(summary.round(2).to_string())


if __name__ == "__main__":
    main()

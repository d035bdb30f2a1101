"""Where else could the shape of the map pay? Four places, each against its flat map, on training photographs and a mixture.

    python benchmarks/places.py --images DIR [--hosts ddnm] [--tasks ...] [--grids 100 50] [--trials 1 2 3 4] [--count 12]
    python benchmarks/places.py --mixture       # places_steps.csv: single steps, where the truth is known
    python benchmarks/places.py                 # places.csv from its photographs

1  a step of second order, with the map for the curvature      2  fresh noise where the prior is unsure
3  other potentials: sharper or smoother by the map            4  the projection weighted with Lambda

Every variant begins at the measured start and takes every step of its grid: all make the same calls. Appends one row per
photograph to places_photos.csv and leaves alone what is there; then writes places.csv, one row for each host, task, grid and
variant, with differences paired by photograph. The map has to reach the host; it travels in `Belief.variance`, which priors
without a variance head leave empty.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from leader_nb import DDPG, host, image_mixture, load_prior, noise_for, parse_task, restore
from leader_nb.controls import FlatModulation, flattened
from leader_nb.covariance import MinusSlope, RunningSecant
from leader_nb.data import load_image
from leader_nb.equations import modulated, modulation
from leader_nb.likelihood import Chain, MapLikelihood, means
from leader_nb.metrics import bootstrap_interval, lpips_distance, psnr
from leader_nb.mixture import GaussianMixture
from leader_nb.noise import Noise
from leader_nb.potentials import differences, gather
from leader_nb.priors import Belief
from leader_nb.problem import Problem
from leader_nb.samplers import Sampler, Step
from leader_nb.samplers.base import DefaultSteps
from leader_nb.samplers.null_eta import NullEta
from leader_nb.schedule import Schedule, uniform_grid
from leader_nb.start import MeasuredStart
from leader_nb.summary import WORST_LPIPS, WORST_PSNR
from leader_nb.train import image_files
from leader_nb.tree import Tree
from leader_nb.ucpm import UCPM, HuberTV
from leader_nb.zoo import add_device

FOLDER = Path(__file__).parent / "results"
TASKS = ("inpaint70@0", "sr4@0", "sr4@0.05", "gaussian@0.05")
CELL = ["host", "task", "grid"]
METRICS = ("psnr", "lpips")
FRONTIERS = {
    name: (f"{kind} 0.75", "host", f"{kind} 0.95", f"{kind} 1")
    for name, kind in (("frontier", "host, eta"), ("null_frontier", "null eta"))
}
STRENGTHS = {3: (0.1,), 4: (0.05, 0.2)}  # mu of total variation, by trial; `leader()` has 0.05
BANDS = {"all": (0.0, 1e9), "above 2": (2.0, 1e9), "0.2 to 2": (0.2, 2.0), "below 0.2": (0.0, 0.2)}  # of sigma_bar


# --- 1: a step of second order --------------------------------------------------------------------------------------


def bend(bent: Tensor, sigma: Tensor, target: Tensor) -> Tensor:
    """(target - sigma)^2 / (2 sigma^3) Sigma eps, what a straight step from sigma to target leaves out; `bent` is Sigma eps.

    Along the curve x' = eps = (x - D) / sigma, D the answer, so x'' = (eps - D') / sigma - eps / sigma = -D' / sigma. For
    x0 ~ N(m, C), x - m = (C + sigma^2)^(1/2) k with k constant, hence D' = -sigma C (C + sigma^2)^(-3/2) k = -Sigma eps /
    sigma^2 with Sigma = C sigma^2 (C + sigma^2)^-1, and x'' = Sigma eps / sigma^3.
    """
    return (target - sigma) ** 2 / (2 * sigma**3) * bent


@dataclass(frozen=True)
class Told:
    """A modulation that changes nothing, and tells the host the map, or its mean where `flat`."""

    flat: bool = False

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        return replace(belief, variance=flattened(cov) if self.flat else cov)


def calm(sampler: Sampler) -> float:
    """The share of old noise that a host keeps: it walks from sigma to calm sigma_s, and adds fresh noise to reach sigma_s."""
    return (1 - sampler.zeta) ** 0.5 if isinstance(sampler, DDPG) else (1 - sampler.eta_ddim**2) ** 0.5


def told_of(belief: Belief) -> Tensor:
    assert belief.variance is not None, "the map has to be told: modulate=Told()"
    return belief.variance


@dataclass(frozen=True)
class SecondOrder:
    """`host`, with what its straight step leaves out added to x0, before its data step: what A sees stays the host's.

    The step goes to the noise level that the host keeps of the old noise (`calm`); with `share` = 1, to sigma_s as if no fresh
    noise followed. DDPG computes eps from the new x0, so that a part of the addition comes back; its x0 is moved by more.
    """

    host: Sampler
    share: float | None = None
    needs_gradient: ClassVar[bool] = False

    @property
    def default_steps(self) -> DefaultSteps:
        return self.host.default_steps

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return self.host.init(problem, noise)

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        target = (calm(self.host) if self.share is None else self.share) * b.schedule.sigma(s, b.x0)
        moved = bend(told_of(b) * b.eps, b.sigma, target)
        if isinstance(self.host, DDPG):
            moved = moved / (1 - target / b.sigma)
        return self.host.step(replace(b, x0=b.x0 + moved), s, problem, noise, carry)


@dataclass(frozen=True)
class LastAnswers:
    """The same step without a map: D' is the slope between the last two answers. The rival that costs nothing either."""

    host: Sampler
    needs_gradient: ClassVar[bool] = False

    @property
    def default_steps(self) -> DefaultSteps:
        return self.host.default_steps

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        x, carry = self.host.init(problem, noise)
        return x, {**carry, "last x0": torch.zeros_like(x), "last sigma": torch.full_like(x[:, :1, :1, :1], torch.inf)}

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        slope = (b.x0 - carry["last x0"]) / (b.sigma - carry["last sigma"])  # 0 at first
        moved = bend(-(b.sigma**2) * slope, b.sigma, calm(self.host) * b.schedule.sigma(s, b.x0))
        step = self.host.step(replace(b, x0=b.x0 + moved), s, problem, noise, carry)
        return replace(step, carry={**step.carry, "last x0": b.x0, "last sigma": b.sigma})


# --- 2: fresh noise where the prior is unsure -----------------------------------------------------------------------


def shares(cov: Tensor, mean: float, power: float) -> Tensor:
    """eta_i^2, rising with cov_i^power, between 0 and 1 and with the given mean over each image.

    logit(eta_i^2) = power log(cov_i) + c, and c by bisection.
    """
    odds = power * cov.log()
    start = torch.logit(torch.tensor(mean, dtype=cov.dtype))
    low, high = ((start - odds.flatten(1)).aminmax(dim=1)[i].view(-1, 1, 1, 1) for i in (0, 1))
    for _ in range(60):
        middle = (low + high) / 2
        above = means((odds + middle).sigmoid()) > mean
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return (odds + (low + high) / 2).sigmoid()


@dataclass(frozen=True)
class MappedNoise:
    """`host` (DDNM or DDNM+) with a share eta_i^2 of fresh noise for each pixel: more where the map is large, if power > 0.

    Each pixel keeps its variance, eta_i^2 + (1 - eta_i^2) = 1, and the mean of eta_i^2 is the host's. Needs 0 < eta < 1.
    """

    host: Any
    power: float = 1.0
    needs_gradient: ClassVar[bool] = False

    @property
    def default_steps(self) -> DefaultSteps:
        return self.host.default_steps

    def init(self, problem: Problem, noise: Noise) -> tuple[Tensor, Tree]:
        return self.host.init(problem, noise)

    def step(self, b: Belief, s: Tensor, problem: Problem, noise: Noise, carry: Tree) -> Step:
        square = self.host.eta_ddim**2
        fresh = shares(told_of(b), square, self.power)
        louder, old = (fresh / square).sqrt(), ((1 - fresh) / (1 - square)).sqrt()
        mapped = lambda role, like: louder * noise(role, like)
        return self.host.step(replace(b, told=old * b.eps), s, problem, mapped, carry)


# --- 3: other potentials --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inverse:
    """`modulate` with 1 / cov, scaled to the mean of cov: it acts where the prior is sure."""

    modulate: UCPM

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        return self.modulate(belief, means(cov) / means(1 / cov) / cov, problem)


@dataclass(frozen=True)
class Signed:
    """Smooths where the map is above its mean and sharpens where it is below: Lambda = w / (1 + h |w|), w = cov - mean(cov)."""

    potential: HuberTV

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        gradient, h = self.potential.gradient_and_hessian(belief.x0)
        w = cov - means(cov)
        return replace(belief, x0=modulated(belief.x0, w / (1 + h * w.abs()), gradient))


@dataclass(frozen=True)
class Width:
    """Huber TV whose width follows the map, delta_i = delta (cov_i / mean)^power, at a flat weight: power 1/2 is a deviation.

    A difference counts as an edge when it is larger than the mean width of its two pixels.
    """

    potential: HuberTV
    power: float = 0.5

    def __call__(self, belief: Belief, cov: Tensor, problem: Problem) -> Belief:
        width = self.potential.delta * (cov / means(cov)) ** self.power
        slopes, weights = [], []
        for g, change in zip(differences(belief.x0), differences(width), strict=True):
            delta = width + change / 2
            slopes.append((g / delta).clamp(-1, 1))
            weights.append(1 / torch.maximum(g.abs(), delta))
        gradient = self.potential.mu * gather(*slopes, sign=-1.0)
        h = 2 * self.potential.mu * gather(*weights, sign=1.0, inside=True)
        return replace(belief, x0=modulated(belief.x0, modulation(flattened(cov), h), gradient))


# --- Variants -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variant:
    """`base`: the bare host of this row;  `control`: what the map has to beat;  `sampler`: from the host, what is run."""

    trial: int
    name: str
    base: str = "host"
    control: str = "host"
    sampler: Callable[[Any], Any] = lambda s: s
    plugins: dict[str, Any] = field(default_factory=dict)


def steps_of_second_order() -> Iterator[Variant]:
    told = {flat: {"covariance": RunningSecant(), "modulate": Told(flat)} for flat in (False, True)}
    for share, name in ((None, "second order"), (1.0, "second order to sigma_s")):
        make = lambda s, share=share: SecondOrder(s, share)
        yield Variant(1, f"{name}, flat", sampler=make, plugins=told[True])
        yield Variant(1, f"{name}, map", control=f"{name}, flat", sampler=make, plugins=told[False])
    for eta, estimator in ((0.5, RunningSecant()), (0.0, MinusSlope())):  # E10 needs fresh noise, E12 none
        quiet = lambda s, eta=eta: replace(s, eta_ddim=eta)
        base, name = f"host, eta {eta:g}", f"eta {eta:g}, second order"
        yield Variant(1, base, base, base, quiet)
        for flat, kind, control in ((True, "flat", base), (False, "map", f"{name}, flat")):
            plugins = {"covariance": estimator, "modulate": Told(flat)}
            yield Variant(1, f"{name}, {kind}", base, control, lambda s, quiet=quiet: SecondOrder(quiet(s)), plugins)
        yield Variant(1, f"eta {eta:g}, last answers", base, base, lambda s, quiet=quiet: LastAnswers(quiet(s)))


def fresh_noise() -> Iterator[Variant]:
    for power in (1.0, -1.0):
        make = lambda s, power=power: MappedNoise(s, power)
        yield Variant(2, f"noise, power {power:g}", sampler=make, plugins={"covariance": RunningSecant(), "modulate": Told()})
    for eta in (0.75, 0.95, 1.0):  # less or more fresh noise everywhere: is it the map, or the strength?
        yield Variant(2, f"host, eta {eta:g}", sampler=lambda s, eta=eta: replace(s, eta_ddim=eta))
    for eta in (0.75, 0.95, 1.0):
        yield Variant(2, f"null eta {eta:g}", sampler=lambda s, eta=eta: NullEta(s, eta))
    for eta in (0.85, 0.95):  # the weight of the measurement from 0.75, the noise from here
        make = lambda s, eta=eta: NullEta(replace(s, eta_ddim=0.75), eta)
        yield Variant(2, f"eta 0.75, null eta {eta:g}", control="host, eta 0.75", sampler=make)
    less = lambda s: MappedNoise(replace(s, eta_ddim=0.75))
    plugins = {"covariance": RunningSecant(), "modulate": Told()}
    yield Variant(2, "eta 0.75, noise, power 1", control="host, eta 0.75", sampler=less, plugins=plugins)


def modulations(trial: int) -> Iterator[tuple[str, str, Any]]:
    """(name, control, modulation) of trials 3 and 4."""
    for mu in STRENGTHS[trial]:
        tv = HuberTV(mu)
        if trial == 3:
            yield f"TV {mu}, flat", "host", UCPM(tv, weight="global")
            yield f"TV {mu}, map", f"TV {mu}, flat", UCPM(tv)
            yield f"TV {mu}, inverse map", f"TV {mu}, flat", Inverse(UCPM(tv))
            yield f"TV {mu}, signed", "host", Signed(tv)
            yield f"TV {mu}, wide where unsure", f"TV {mu}, flat", Width(tv, 0.5)
            yield f"TV {mu}, narrow where unsure", f"TV {mu}, flat", Width(tv, -0.5)
        else:
            weighted, chain = UCPM(tv, projection="weighted"), Chain((UCPM(tv), MapLikelihood()))
            yield f"weighted {mu}, flat", "host", FlatModulation(weighted)
            yield f"weighted {mu}, map", f"weighted {mu}, flat", weighted
            if mu == STRENGTHS[4][0]:  # the modulation of `leader()`
                yield f"TV {mu} + likelihood, flat", "host", FlatModulation(chain)
                yield f"TV {mu} + likelihood, map", f"TV {mu} + likelihood, flat", chain


def variants(trials: set[int]) -> Iterator[Variant]:
    """The host first, and every control before what it controls."""
    yield Variant(0, "host")
    yield from (v for v in (*steps_of_second_order(), *fresh_noise()) if v.trial in trials)
    for trial in sorted(trials & {3, 4}):
        for name, control, modulate in modulations(trial):
            yield Variant(trial, name, control=control, plugins={"covariance": RunningSecant(), "modulate": modulate})


# --- Photographs ----------------------------------------------------------------------------------------------------


def cell(where: tuple[str, str, int], x: Tensor, trials: set[int], out: Path) -> None:
    """All variants of the trials on one host, task and grid, one row per photograph; what is in the table stays."""
    (host_name, name, grid), prior = where, load_prior(device=x.device)
    task = parse_task(name)
    there: set[str] = set()
    if out.is_file():
        table = pd.read_csv(out)
        there = set(table[(table[CELL] == list(where)).all(axis=1)]["variant"])
    missing = [v for v in variants(trials) if v.name not in there]
    if not missing:
        return
    problem, sampler = task.measure(x), host(host_name, task.sigma, task)
    steps = MeasuredStart().for_problem(problem)
    for variant in missing:
        result = restore(problem, prior, variant.sampler(sampler), grid=grid, steps=steps, **variant.plugins)
        row: dict[str, Any] = {**dict(zip(CELL, where, strict=True)), "trial": variant.trial, "variant": variant.name}
        row |= {"base": variant.base, "control": variant.control, "photo": range(len(x)), "nfe": result.nfe.tolist()}
        scores = {"psnr": psnr(result.image, x), "lpips": lpips_distance(result.image, x)}
        row |= {metric: values.tolist() for metric, values in scores.items()}
        pd.DataFrame(row).round(5).to_csv(out, mode="a", header=not out.is_file(), index=False)
        print(*where, variant.name, *(f"{name} {value.mean():.4f}" for name, value in scores.items()), flush=True)


def frontier(part: pd.DataFrame, others: pd.DataFrame, curve: tuple[str, ...], draws: int = 2000) -> tuple[float, float, float]:
    """PSNR above that of the host with the eta that has the same LPIPS, and its interval, bootstrapped by photograph.

    Fresh noise moves a host from low LPIPS to high PSNR along a `curve`, variants in rising order of eta: linear between
    them, empty outside, and where LPIPS does not rise.
    """
    n, scores = len(part), {}
    if not set(curve) <= set(others["variant"]):
        return (np.nan,) * 3
    pick = np.vstack([np.arange(n), np.random.default_rng(0).integers(n, size=(draws, n))])
    for metric in METRICS:
        columns = [others[others["variant"] == name].sort_values("photo")[metric].to_numpy() for name in curve]
        columns.append(part.sort_values("photo")[metric].to_numpy())
        scores[metric] = np.array([column[pick].mean(1) for column in columns])  # (etas + 1, draws + 1)
    gaps = []
    for p, q in zip(scores["psnr"].T, scores["lpips"].T, strict=True):
        rising = bool((np.diff(q[:-1]) > 0).all())
        gaps.append(p[-1] - np.interp(q[-1], q[:-1], p[:-1], left=np.nan, right=np.nan) if rising else np.nan)
    low, high = np.nanquantile(gaps[1:], (0.025, 0.975)) if np.isfinite(gaps).mean() > 0.99 else (np.nan,) * 2
    return gaps[0], low, high


def row_of(part: pd.DataFrame, others: pd.DataFrame) -> dict[str, object]:
    """Means, and paired differences with intervals: d_ to the bare host, map_ to the control;
    and the frontiers.

    `pays`: better than the control in one measure by the whole interval; in the other not worse by the whole interval, and
    within the margin. `no_loss` as in protocol.md, against the host.
    """
    row: dict[str, object] = {"n": len(part), "nfe": part["nfe"].mean()}
    for metric in METRICS:
        row[metric] = part[metric].mean()
        for prefix, column in (("d", "base"), ("map", "control")):
            other = others[others["variant"] == part[column].iloc[0]]
            gaps = torch.tensor(part.set_index("photo")[metric] - other.set_index("photo")[metric])
            names = [f"{prefix}_{metric}{end}" for end in ("", "_low", "_high")]
            row |= dict(zip(names, bootstrap_interval(gaps), strict=True))
    for name, curve in FRONTIERS.items():
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), frontier(part, others, curve), strict=True))
    kept = row["map_psnr_low"] >= WORST_PSNR and row["map_lpips_high"] <= WORST_LPIPS
    sharper = row["map_lpips_high"] < 0 and row["map_psnr_high"] >= 0
    row["pays"] = kept and (sharper or (row["map_psnr_low"] > 0 and row["map_lpips_low"] <= 0))
    row["no_loss"] = row["d_psnr_low"] >= WORST_PSNR and row["d_lpips_high"] <= WORST_LPIPS
    return row


def summary(photos: pd.DataFrame) -> pd.DataFrame:
    """places.csv from places_photos.csv."""
    rows = []
    for (*where, trial, variant), part in photos.groupby([*CELL, "trial", "variant"], sort=False):
        others = photos[(photos[CELL] == where).all(axis=1)]
        names = {**dict(zip(CELL, where, strict=True)), "trial": trial, "variant": variant}
        rows.append(names | {"control": part["control"].iloc[0]} | row_of(part, others))
    return pd.DataFrame(rows).round(5)


# --- Single steps on a mixture --------------------------------------------------------------------------------------


def answer(mixture: GaussianMixture, x: Tensor, sigma: Tensor) -> Tensor:
    """E[x0 | x] of a batch at one noise level."""
    return mixture.means_of(x, sigma.expand(len(x), 1))


def along(mixture: GaussianMixture, x: Tensor, sigma: Tensor, target: Tensor, parts: int = 32) -> Tensor:
    """From sigma to target along the curve of each image (B, C, H, W): midpoint steps, evenly spaced in log sigma."""
    eps = lambda x, sigma: (x - answer(mixture, x, sigma)) / sigma
    levels = torch.exp(torch.linspace(sigma.log().item(), target.log().item(), parts + 1, dtype=torch.float64))
    for a, b in pairwise(levels):
        middle = (a * b).sqrt()
        x = x + (b - a) * eps(x + (middle - a) * eps(x, a), middle)
    return x


def bends(mixture: GaussianMixture, x: Tensor, sigma: Tensor, before: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    """What each method takes for Sigma eps; `before` is the answer and the noise level of the step before."""
    x0 = answer(mixture, x, sigma)
    eps, cov = (x - x0) / sigma, torch.stack([mixture.covariance(image, sigma) for image in x])
    ends = [answer(mixture, along(mixture, x, sigma, s, 2), s) for s in (sigma * 1.0001, sigma * 0.9999)]
    diagonal = cov.diagonal(dim1=1, dim2=2).view_as(x)
    return {
        "true curvature": -(sigma**2) * (ends[0] - ends[1]) / (0.0002 * sigma),
        "whole matrix": torch.einsum("bij,bj->bi", cov, eps.flatten(1)).view_as(x),
        "diagonal": diagonal * eps,
        "flat": flattened(diagonal) * eps,
        "last answers": -(sigma**2) * (x0 - before[0]) / (sigma - before[1]),
    }


def single_steps(mixture: GaussianMixture, x: Tensor, times: tuple[int, ...], eta: float) -> pd.DataFrame:
    """Each step of the grid, taken from the curve, by image and method: mean squares of the error, bent or not, and cosine.

    The cosine is that of the bend and the error of the straight step. The last leap, to the clean image, is left out.
    """
    levels, rows = Schedule().sigma(torch.tensor(times), x).flatten(), []
    x, before = x * levels[0], (torch.zeros_like(x), torch.tensor(torch.inf).to(x))
    for sigma, following in pairwise(levels):
        target, x0 = (1 - eta**2) ** 0.5 * following, answer(mixture, x, sigma)
        missing = along(mixture, x, sigma, target) - (x + (target - sigma) * (x - x0) / sigma)
        for method, bent in bends(mixture, x, sigma, before).items():
            moved = bend(bent, sigma, target)
            part = {"error": missing.square(), "left": (missing - moved).square(), "product": missing * moved}
            part = {name: value.flatten(1).mean(1) for name, value in part.items()}
            cosine = part.pop("product") / (part["error"] * moved.square().flatten(1).mean(1)).sqrt().clamp(min=1e-300)
            columns = {name: value.tolist() for name, value in {**part, "cosine": cosine}.items()}
            rows.append(pd.DataFrame({"sigma": sigma.item(), "method": method, "image": range(len(x)), **columns}))
        x, before = along(mixture, x, sigma, following), (x0, sigma)
    return pd.concat(rows)


def mixture_table(images: int) -> pd.DataFrame:
    """Root mean square error of straight steps in each band, and the share that each method leaves, by image."""
    mixture, rows = image_mixture(16), []
    starts = noise_for(images, 0)("start", torch.zeros(images, 1, 16, 16, dtype=torch.float64))
    for grid, eta in product((100, 50, 20), (0.0, 0.85)):
        steps = single_steps(mixture, starts, uniform_grid(grid), eta)
        for band, (low, high) in BANDS.items():
            inside = steps[(steps["sigma"] >= low) & (steps["sigma"] < high)]
            for method, part in inside.groupby("method", sort=False):
                by_image = part.groupby("image")[["error", "left"]].mean() ** 0.5
                mean, bottom, top = bootstrap_interval(torch.tensor((by_image["left"] / by_image["error"]).to_numpy()))
                row = {"grid": grid, "eta": eta, "sigma": band, "method": method, "n": images, "steps": len(part) // images}
                row |= {"error": by_image["error"].mean(), "left": mean, "left_low": bottom, "left_high": top}
                rows.append(row | {"cosine": part["cosine"].mean()})
        print(f"grid {grid}, eta {eta}: done", flush=True)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images")
    parser.add_argument("--mixture", action="store_true")
    parser.add_argument("--hosts", nargs="+", default=["ddnm"])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--grids", nargs="+", type=int, default=[100])
    parser.add_argument("--trials", nargs="+", type=int, default=[1, 2, 3, 4])
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--folder", default=str(FOLDER))
    add_device(parser)
    args = parser.parse_args()
    folder = Path(args.folder)
    if args.mixture:
        mixture_table(8).to_csv(folder / "places_steps.csv", index=False, float_format="%.4g")
    if args.images:
        files = image_files(args.images, "train")
        chosen = files[:: max(1, len(files) // args.count)][: args.count]
        x = torch.cat([load_image(f, 64) for f in chosen]).to(args.device)
        for where in product(args.hosts, args.tasks, args.grids):
            cell(where, x, set(args.trials), folder / "places_photos.csv")
    if (folder / "places_photos.csv").is_file():
        summary(pd.read_csv(folder / "places_photos.csv")).to_csv(folder / "places.csv", index=False)


if __name__ == "__main__":
    main()

"""The big table: hosts x tasks x plug-ins x photographs, one row each, resumable.

    photos = photographs("folder", size=64)
    lab = Lab.of(Experiment(("ddnm",), ("sr4@0.05",), ("none", "leader")))
    rows = run(lab, photos, Store(Path("out")))

A row is computed once: its key is a sha256 over all that decides its numbers (host, plug-in and their constants, the
pixels, the prior's file, the package's version, and the code, see :mod:`leader_nb.sources`).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from leader_nb import metrics, pipeline
from leader_nb.buffers import PeakMemory, peak_images
from leader_nb.controls import Flat, FlatModulation
from leader_nb.crops import Photo
from leader_nb.defaults_start import start_for
from leader_nb.errors import InputError, one_line, unknown
from leader_nb.loop import Result, State, restore, trajectory
from leader_nb.lpips_weights import load_lpips
from leader_nb.noise import noise_for
from leader_nb.presets import leader, leader_for
from leader_nb.priors import Prior
from leader_nb.problem import Problem
from leader_nb.samplers import SAMPLERS, Sampler, check_image_kind, host, parse_host
from leader_nb.schedule import uniform_grid
from leader_nb.sources import modules_of, source_hash
from leader_nb.start import GaussianMean, MeasuredStart
from leader_nb.store import IDENTITY, Store
from leader_nb.tasks import TASKS, Task, parse_task
from leader_nb.zoo import choose_device, load_prior, prior_hash

Options = dict[str, Any]
PROBE_STEPS = 4  # of the run that counts buffers; every memory is filled after two
CODE = tuple(f"leader_nb.{name}" for name in ("loop", "metrics", "noise", "problem", "tasks"))
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": metrics.psnr,
    "lpips": metrics.lpips_distance,
    "ssim": metrics.ssim,
}
LEAST_SIDE = {"psnr": 1, "lpips": metrics.LPIPS_MIN_SIDE["alex"], "ssim": metrics.SSIM_WINDOW}

# Methods that make no network call. They take no plug-ins: a table has one cell of each on a task.
CONTROLS: dict[str, Callable[[], GaussianMean]] = {"mean": GaussianMean}
METHODS: tuple[str, ...] = (*SAMPLERS, *CONTROLS)

# --- plug-ins ---------------------------------------------------------------------------------------------------


def equs() -> Options:
    """EquS, where this installation has it."""
    try:
        mirror = importlib.import_module("leader_nb.equivariance").EquS()
    except ModuleNotFoundError:
        mirror = None
    if mirror is None or "equivariance" not in inspect.signature(trajectory).parameters:
        raise InputError("plugins: 'equs' needs leader_nb.equivariance, which this version lacks; leave it out of --plugins")
    return {"equivariance": mirror}


def available() -> tuple[str, ...]:
    """The plug-ins that this version has."""
    try:
        equs()
    except InputError:
        return tuple(name for name in PLUGINS if name != "equs")
    return PLUGINS


def one_weight() -> Options:
    """LEADer with one weight for all pixels: what is left of it without the map's shape. Its steps are longer for it."""
    plugins = leader()
    return plugins | {"covariance": Flat(plugins["covariance"])}


def one_weight_same_steps() -> Options:
    """The same, but the step rule reads the map as it is: no difference to LEADer comes from fewer calls."""
    plugins = leader()
    return plugins | {"modulate": FlatModulation(plugins["modulate"])}


def always(options: Callable[[], Options]) -> Callable[[str, Task], Options]:
    """The same plug-ins on every host and task."""
    return lambda host, task: options()


def flat_for(host: str, task: Task) -> Options:
    """LEADer tuned for host and task, with one weight for all pixels in its modulation and the steps of its own map."""
    plugins = leader_for(host, task)
    return plugins | {"modulate": plugins["modulate"] and FlatModulation(plugins["modulate"])}


PLUGIN_OPTIONS: dict[str, Callable[[str, Task], Options]] = {
    "none": always(dict),
    "equs": always(equs),
    "global": always(one_weight),
    "global-same-steps": always(one_weight_same_steps),
    "global-tuned": flat_for,
    "global-searched": lambda host, task: leader_for(host, task, flat=True),
    "leader-paper": always(lambda: leader("paper")),
    "leader": always(leader),
    "leader-start": always(lambda: leader("start")),
    "leader-tuned": leader_for,
    "modulate": always(lambda: leader(steps=None)),
    "start": always(lambda: {"steps": MeasuredStart()}),
    "start-tuned": lambda host, task: {"steps": start_for(host, task)},
    "steps": always(lambda: leader(modulate=None)),
}
PLUGINS: tuple[str, ...] = tuple(PLUGIN_OPTIONS)


def chosen(kind: str, text: str, all_of: Sequence[str]) -> tuple[str, ...]:
    """`a,b` -> ("a", "b"), each once; `all` -> `all_of`. Names that are not known are left for others to refuse."""
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise InputError(f"{kind}: got {text!r}; give names with commas, or all: {', '.join(all_of)}")
    return tuple(all_of) if names == ("all",) else names


# --- what is to be computed -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Experiment:
    """The grid, and how it is run. `batch` images of one cell are restored together; that alters no image's result.

    `device`: auto, cpu, cuda or cuda:N;  `prior`: a name or a .safetensors file;  `score`: which of METRICS to compute.
    `images`: whose constants a host such as ddpg:published has, "photographs" or "faces"; one folder holds rows of one kind.
    """

    hosts: tuple[str, ...] = SAMPLERS
    tasks: tuple[str, ...] = TASKS
    plugins: tuple[str, ...] = ("none", "leader")
    steps: int = 100
    seed: int = 0
    batch: int = 8
    prior: str = "photo-small"
    device: str = "cpu"
    score: tuple[str, ...] = tuple(METRICS)
    images: str = "photographs"

    def __post_init__(self) -> None:
        check_image_kind(self.images)
        for name in self.hosts:
            if name not in CONTROLS:
                parse_host(name)
        for kind, names, known in (
            ("plug-in", self.plugins, PLUGINS),
            ("metric", self.score, METRICS),
        ):
            for name in names:
                if name not in known:
                    raise unknown(kind, name, known)
        if self.batch < 1:
            raise InputError(f"batch: got {self.batch}; give at least 1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed: got {self.seed}; give a whole number of at least 0")
        uniform_grid(self.steps)

    @cached_property
    def cells(self) -> list[Cell]:
        """Every (host, task, plug-in). A method that two names stand for on a task is there once, under the first."""
        found: list[Cell] = []
        for task in dict.fromkeys(parse_task(text) for text in self.tasks):
            samplers: dict[str, Sampler] = {}
            for name in self.hosts:
                if name in CONTROLS:
                    found.append(Cell(name, CONTROLS[name](), task, "none", {}))
                    continue
                sampler = host(name, task.sigma, task, self.images)
                if sampler not in samplers.values():
                    samplers[name] = sampler
            for (name, sampler), plugin in product(samplers.items(), self.plugins):
                found.append(Cell(name, sampler, task, plugin, PLUGIN_OPTIONS[plugin](parse_host(name)[0], task)))
        return sorted(found, key=lambda cell: self.hosts.index(cell.host))


@dataclass(frozen=True, eq=False)
class Cell:
    """One host on one task with one plug-in: the rows of all photographs. A control stands where a sampler would."""

    host: str
    sampler: Sampler | GaussianMean
    task: Task
    plugin: str
    options: Options

    @cached_property
    def source(self) -> str:
        """sha256 of the code that decides its numbers."""
        return source_hash({*CODE, *modules_of(self.sampler), *modules_of(self.options)})

    @property
    def wording(self) -> str:
        """The plug-ins as they are written in Python."""
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    def __str__(self) -> str:
        return f"{self.host} {self.task} {self.plugin}"


@dataclass(frozen=True, eq=False)
class Lab:
    """An experiment with its prior loaded: `name` is what the prior is called in the table, `weights` its file's sha256."""

    experiment: Experiment
    prior: Prior
    name: str
    weights: str
    versions: Mapping[str, str] = field(default_factory=pipeline.versions)

    @classmethod
    def of(cls, experiment: Experiment) -> Lab:
        prior = load_prior(experiment.prior, choose_device(experiment.device))
        return cls(experiment, prior, Path(experiment.prior).stem, prior_hash(experiment.prior))

    @property
    def device(self) -> torch.device:
        return choose_device(self.experiment.device)

    def identity(self, cell: Cell, photo: Photo) -> dict[str, Any]:
        """What a row is about, in the order of IDENTITY."""
        names = (cell.host, str(cell.task), cell.plugin, photo.name, self.name)
        return dict(zip(IDENTITY, (*names, photo.pixels.shape[-1], self.experiment.steps, self.experiment.seed), strict=True))

    def key(self, cell: Cell, photo: Photo, source: str, version: str) -> str:
        """sha256 over all that decides the numbers of a row, but for the batch and the speed of the machine."""
        config = self.identity(cell, photo) | {
            "sampler": repr(cell.sampler),
            "options": cell.wording,
            "sigma": cell.task.sigma,
            "pixels": photo.sha256,
            "weights": self.weights,
            "score": sorted(self.experiment.score),
            "device": self.device.type,
            "source": source,
            "leader_nb": version,
        }
        return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()

    def check(self, photos: Sequence[Photo]) -> None:
        """Refuses at once what would fail in every row."""
        size = photos[0].pixels.shape[-1]
        for task in (cell.task for cell in self.experiment.cells):
            if size % task.multiple:
                raise InputError(f"size: {size} is not a multiple of {task.multiple}, which {task} needs")
        least = max([self.prior.minimum, *(LEAST_SIDE[name] for name in self.experiment.score)])
        if size < least:
            raise InputError(f"size: got {size}; the prior and the metrics need at least {least}")
        if "lpips" in self.experiment.score:
            load_lpips("alex", self.device)


def missing(lab: Lab, photos: Sequence[Photo], store: Store, keep_old: bool = False) -> list[tuple[Cell, list[Photo]]]:
    """The cells and photographs whose rows are not in the store; rows that failed are tried again.

    With `keep_old`, a row made by another version of the code counts, where all else agrees.
    """
    rows = store.read()
    good = rows[rows["error"] == ""]
    facts = zip(good["key"], good["source"], good["leader_nb"], strict=True)
    known = dict(zip(good[IDENTITY].itertuples(index=False, name=None), facts, strict=True))

    def is_there(cell: Cell, photo: Photo) -> bool:
        key, source, version = known.get(tuple(lab.identity(cell, photo).values()), ("", "", ""))
        if not keep_old:
            source, version = cell.source, lab.versions["leader_nb"]
        return bool(key) and key == lab.key(cell, photo, source, version)

    wanted = ((cell, [photo for photo in photos if not is_there(cell, photo)]) for cell in lab.experiment.cells)
    return [(cell, group) for cell, group in wanted if group]


# --- running ----------------------------------------------------------------------------------------------------

Rows = list[dict[str, Any]]


def run(
    lab: Lab,
    photos: Sequence[Photo],
    store: Store,
    on_rows: Callable[[Cell, Rows], None] | None = None,
    keep_old: bool = False,
) -> pd.DataFrame:
    """Computes the missing rows and returns the whole store; after every batch, what is there is on disk."""
    lab.check(photos)
    todo = missing(lab, photos, store, keep_old)
    if todo:
        warm_up(lab, todo[0][1][: lab.experiment.batch])
    for cell, group in todo:
        for batch in batches(group, lab.experiment.batch):
            rows = attempt(lab, cell, batch)
            store.append(rows)
            if on_rows is not None:
                on_rows(cell, rows)
    return store.read()


def batches(photos: Sequence[Photo], size: int) -> Iterator[Sequence[Photo]]:
    return (photos[i : i + size] for i in range(0, len(photos), size))


def warm_up(lab: Lab, photos: Sequence[Photo]) -> None:
    """One call of the network, so that no row pays for what PyTorch sets up the first time."""
    x = stacked(lab, photos)
    lab.prior(x, torch.zeros(len(x), dtype=torch.long))


def stacked(lab: Lab, photos: Sequence[Photo]) -> Tensor:
    """(B, 3, size, size) on the device of the lab."""
    return torch.stack([photo.pixels for photo in photos]).to(lab.device)


def attempt(lab: Lab, cell: Cell, photos: Sequence[Photo]) -> Rows:
    """The rows of some photographs. After an error each is tried alone, and only those that fail again are lost."""
    try:
        return restored(lab, cell, photos)
    except Exception as error:  # whatever went wrong with one row, the others are worth having
        if len(photos) > 1:
            return [row for photo in photos for row in attempt(lab, cell, [photo])]
        return [described(lab, cell, photos[0], 1) | {"error": f"{type(error).__name__}: {one_line(error)}"}]


def restored(lab: Lab, cell: Cell, photos: Sequence[Photo]) -> Rows:
    """Degrades, restores and scores some photographs together."""
    x, ids = stacked(lab, photos), [photo.id for photo in photos]
    problem = cell.task.measure(x, lab.experiment.seed, ids)
    shares = Shares(len(x), lab.device)
    noise = noise_for(len(x), lab.experiment.seed, ids)
    if isinstance(cell.sampler, GaussianMean):
        result = without_calls(cell.sampler, problem, shares)
    else:
        options = {"grid": lab.experiment.steps, "noise": noise} | cell.options
        result = restore(problem, lab.prior, cell.sampler, on_state=shares, **options)
    one = {"buffers": buffers(cell, problem.rows(torch.tensor([0])))}
    rows = []
    for i, photo in enumerate(photos):
        row = described(lab, cell, photo, len(photos)) | one
        row |= {"nfe": int(result.nfe[i]), "backward": int(result.backward[i]), "seconds": float(shares.wall[i])}
        row["cpu_seconds"] = float(shares.cpu[i])
        image = result.image[i : i + 1]
        if torch.isfinite(image).all():
            row |= {name: float(METRICS[name](image, x[i : i + 1])) for name in lab.experiment.score}
            row["residual"] = float(problem.rows(torch.tensor([i])).residual(image))
        else:
            row["error"] = "the result is not finite"
        rows.append(row)
    return rows


def without_calls(control: GaussianMean, problem: Problem, shares: Shares) -> Result:
    """What a control makes of the measurements, timed like a restoration."""
    image, index = control(problem), torch.arange(len(problem))
    shares.add(index)
    none = torch.zeros_like(index)
    return Result(image, None, none, none, float(shares.wall.sum()))


def buffers(cell: Cell, problem: Problem) -> float | None:
    """Peak memory beside the network, in images, of a short run with a prior that needs none; None where that cannot run."""
    with contextlib.suppress(Exception):  # the restoration itself went well, and is worth more than this number
        if not isinstance(cell.sampler, GaussianMean):
            return peak_images(problem, cell.sampler, PROBE_STEPS, cell.options)
        with PeakMemory() as memory:
            image = cell.sampler(problem)
        return memory.peak / (image.numel() * image.element_size())
    return None


class Shares:
    """Wall and processor seconds for each image of a batch: a turn is shared equally by the images that took part in it.

    The shares add up to the time of the batch, its setting up included; measuring, metrics and files are outside.
    """

    def __init__(self, batch: int, device: torch.device) -> None:
        self.wall, self.cpu = (torch.zeros(batch, dtype=torch.float64) for _ in range(2))
        self.device, self.last = device, (time.perf_counter(), time.process_time())

    def __call__(self, state: State) -> None:
        self.add(state.index)

    def add(self, index: Tensor) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter(), time.process_time()
        for total, before, after in zip((self.wall, self.cpu), self.last, now, strict=True):
            total[index.cpu()] += (after - before) / len(index)
        self.last = now


def described(lab: Lab, cell: Cell, photo: Photo, batch: int) -> dict[str, Any]:
    """A row before its numbers: what it is about, and what made it."""
    machine, version = pipeline.machine(lab.device), lab.versions["leader_nb"]
    return lab.identity(cell, photo) | {
        "batch": batch,
        "sampler": repr(cell.sampler),
        "options": cell.wording,
        "weights": lab.weights,
        "leader_nb": version,
        "torch": lab.versions["torch"],
        "source": cell.source,
        "machine": machine["gpu"] or machine["cpu"],
        "device": machine["device"],
        "threads": machine["threads"],
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "error": "",
        "key": lab.key(cell, photo, cell.source, version),
    }

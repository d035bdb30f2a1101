"""From a photograph, or a saved measurement, to a folder with its restoration and a report: `leader-nb restore`.

engine  = load_engine(config)                                    # checks the options, loads the prior
case    = photograph(path, "sr4@0.05", 256, engine)              # or recalled(measurement_file, engine)
outcome = run(case, engine)
report  = save(outcome, engine, folder)                          # the six files of FILES
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from leader_nb import metrics, plates
from leader_nb.data import MIN_SIDE, atomic_write, load_image, save_image
from leader_nb.errors import Diverged, InputError, one_line, unknown
from leader_nb.figures import to_pixels
from leader_nb.loop import Result, State, restore
from leader_nb.measurement import Measurement, load_measurement, save_measurement
from leader_nb.memory import Footprint, require_run, require_weights
from leader_nb.networks.files import load_denoiser, sha256
from leader_nb.networks.published import PUBLISHED
from leader_nb.noise import noise_for
from leader_nb.operators import Convolution, Mask, Operator, convolution, hadamard, inpainting
from leader_nb.presets import PRESETS, leader
from leader_nb.priors import Prior, network_prior
from leader_nb.problem import Problem
from leader_nb.samplers import HOSTS, Sampler, check_image_kind, host, parse_host
from leader_nb.schedule import uniform_grid
from leader_nb.tasks import Task, parse_task, split
from leader_nb.zoo import choose_device, load_prior, prior_path

FILES = ("measurement.safetensors", "degraded.png", "restored.png", "uncertainty.png", "compare.png", "report.json")
DRAWN = {"inpaint": "mask", "motion": "kernel", "cs": "slots"}  # what a measurement keeps of its operator's own draws
MAP_CAPTION = "standard deviation per pixel"
METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "psnr": metrics.psnr,
    "ssim": metrics.ssim,
    "lpips": metrics.lpips_distance,
}
MAP_SIGMA = 0.3  # noise level sigma_bar whose variance map is shown: late enough for detail, early enough for doubt

# --- options and the prior --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Config:
    """How to restore. `prior`: a built-in name or a .safetensors file; `device`: auto, cpu, cuda or cuda:N.

    `steps` 1 to 1000; `seed` >= 0 keys every random draw; `preset` (see :func:`leader_nb.leader`) counts with `leader`,
    `images` (see :func:`leader_nb.host`) with a host such as ddpg:published.
    """

    host: str = "ddnm"
    leader: bool = False
    preset: str = "calibrated"
    prior: str = "photo-small"
    steps: int = 100
    seed: int = 0
    device: str = "auto"
    images: str = "photographs"

    def __post_init__(self) -> None:
        parse_host(self.host)
        check_image_kind(self.images)
        if self.preset not in PRESETS:
            raise unknown("preset", self.preset, PRESETS)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"seed: got {self.seed}; give a whole number of at least 0")
        uniform_grid(self.steps)

    @property
    def plugins(self) -> dict[str, Any]:
        """LEADer's keyword group; without LEADer its variance map is still computed, to be shown, and nothing more."""
        return leader(self.preset) if self.leader else leader(modulate=None, steps=None)


@dataclass(frozen=True, eq=False)
class Engine:
    """What does not depend on the photograph: the options, and the prior on its device."""

    config: Config
    prior: Prior
    network: Footprint
    device: torch.device


def load_engine(config: Config) -> Engine:
    """Loads the prior. Raises `InputError` for a device that is not there, or a file that is no sound prior."""
    device = choose_device(config.device)
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError):  # another build of PyTorch, a number too high, no memory at all
        raise InputError(f"device: {config.device!r} does not work on this machine; use auto or cpu") from None
    if config.prior in PUBLISHED:
        footprint = Footprint.of_prior(config.prior)
        require_weights(footprint, config.prior, "cpu")
        return Engine(config, load_prior(config.prior, device), footprint, device)
    denoiser, _ = load_denoiser(prior_path(config.prior))
    if denoiser.config.channels != 3:
        raise InputError(f"prior: {config.prior} takes {denoiser.config.channels} channels; photographs need 3")
    footprint = Footprint.of_unet(denoiser.config)
    return Engine(config, network_prior(denoiser.to(device), name=Path(config.prior).stem), footprint, device)


# --- memory -----------------------------------------------------------------------------------------------------


def require_memory(height: int, width: int, task: Task, engine: Engine, whole: bool = False) -> None:
    """Refuses, before anything is allocated, an image that does not fit, and says what size would."""
    gradient = HOSTS[parse_host(engine.config.host)[0]]().needs_gradient
    require_run(height, width, (task,), engine.network, engine.device, gradient, whole)


# --- the case ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Case:
    """What is to be restored.

    problem    the measurement of one image, whose sides may be padded
    task       how it is spelled;  seed: of its mask and noise
    window     (height, width) in pixels of the photograph, the top left part of the padded image
    reference  the photograph (1, 3, height, width) in [-1, 1], or None where it is not known
    source     where it came from, for the report;  notes: what a reader of the report should know
    """

    problem: Problem
    task: Task
    seed: int
    window: tuple[int, int]
    reference: Tensor | None = None
    source: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def crop(self, image: Tensor) -> Tensor:
        """The photograph's part of a padded image (..., H, W)."""
        return image[..., : self.window[0], : self.window[1]]

    @property
    def preview(self) -> Tensor:
        """The measurement as a picture (1, 1 or 3, h, w): the photograph's part of it, with lost pixels in black.

        Where y is no picture, as in compressed sensing, what the operator makes of it: A^T y.
        """
        operator = self.problem.operator
        y = operator.preview(self.problem.y)
        if isinstance(operator, Mask):
            y = torch.where(operator.measured, y, -1.0)
        factor = operator.image_shape[1] // y.shape[-2]
        return y[..., : math.ceil(self.window[0] / factor), : math.ceil(self.window[1] / factor)]


def photograph(path: Path, task: str, size: int, engine: Engine) -> Case:
    """Reads a photograph (its centre square at `size`, or with 0 the whole of it) and degrades it."""
    parsed = parse_task(task)
    check_size(size, parsed, engine)
    image = load_image(path, size)
    notes = () if size == 0 else enlarged(path, size)
    return degraded(image, parsed, engine, {"photo": path.name, "sha256": sha256(path), "size": size}, notes)


def check_size(size: int, task: Task, engine: Engine) -> None:
    """Raises `InputError` for a size that the network, the task or the memory cannot take; 0 is looked at later."""
    if size == 0:
        return
    if size > 0:
        engine.network.check_sides(size, size, engine.prior.name)
    least = task.sides_near(max(MIN_SIDE, engine.prior.minimum))[1]
    if size < least:
        raise InputError(f"size: got {size}; give at least {least}, or 0 for the whole photograph")
    if size not in (sides := task.sides_near(size)):
        near = " or ".join(str(s) for s in sides if s >= least)
        wanted = f"multiple of {task.multiple}" if task.multiple > 1 else "power of two"
        raise InputError(f"size: {size} is not a {wanted}, which {task.degradation} needs; give {near}")
    require_memory(size, size, task, engine)


def enlarged(path: Path, size: int) -> tuple[str, ...]:
    with Image.open(path) as picture:
        side = min(picture.size)
    if side >= size:
        return ()
    return (f"the photograph's centre square has {side} px and was enlarged to {size}: its finest detail is not real",)


def degraded(image: Tensor, task: Task, engine: Engine, source: Mapping[str, Any], notes: tuple[str, ...] = ()) -> Case:
    """The case of an image (1, 3, H, W) in [-1, 1], mirrored outwards to sides that the task can take."""
    height, width = image.shape[-2:]
    if min(height, width) < engine.prior.minimum:
        raise InputError(f"photo: its shorter side is {min(height, width)} px; the prior needs at least {engine.prior.minimum}")
    if min(height, width) < task.multiple:
        side = min(height, width)
        raise InputError(f"photo: its shorter side is {side} px; {task.degradation} needs at least {task.multiple}")
    require_memory(height, width, task, engine, whole=True)
    right, below = -width % task.multiple, -height % task.multiple
    engine.network.check_sides(height + below, width + right, engine.prior.name, "photo")
    image = image.to(engine.device)
    padded = F.pad(image, (0, right, 0, below), mode="reflect")
    problem = task.measure(padded, seed=engine.config.seed)
    return Case(problem, task, engine.config.seed, (height, width), image, source, notes)


# --- a measurement on disk --------------------------------------------------------------------------------------


def remember(case: Case, path: Path) -> None:
    """Writes what :func:`recalled` needs."""
    operator, window = case.problem.operator, {"height": str(case.window[0]), "width": str(case.window[1])}
    drawn = operator.kernel if isinstance(operator, Convolution) else operator.measured
    kind = split(case.task.degradation)[0]
    tensors = {DRAWN[kind]: drawn} if kind in DRAWN else {}
    save_measurement(path, case.problem.y, str(case.task), case.task.sigma, case.seed, operator.image_shape, tensors, window)


def recalled(path: Path, engine: Engine) -> Case:
    """A case from a measurement file. Raises `InputError` where the file is damaged or contradicts itself."""
    saved = load_measurement(path)
    try:
        task = Task(parse_task(saved.task).degradation, saved.sigma)  # the name may show fewer digits of sigma
        if saved.shape[0] != 3 or min(saved.shape[1:]) < max(MIN_SIDE, engine.prior.minimum):
            raise InputError(f"shape {saved.shape}: the prior takes 3 channels and sides of {engine.prior.minimum} px")
        engine.network.check_sides(*saved.shape[1:], engine.prior.name, "shape")
        require_memory(*saved.shape[1:], task, engine, whole=True)
        window = _window(saved, task)
        problem = _problem(saved, task, engine.device)
    except InputError as error:
        raise InputError(f"measurement: {path.name}: {error}") from None
    return Case(problem, task, saved.seed, window, None, {"measurement": path.name, "sha256": sha256(path)})


def _problem(saved: Measurement, task: Task, device: torch.device) -> Problem:
    y = saved.y.float().to(device)
    operator = _operator(saved, task, y)
    bound = operator.reach + 8 * 2 * saved.sigma  # 8 standard deviations of noise
    if float(y.abs().max()) > bound:
        largest = float(y.abs().max())
        raise InputError(f"y has values up to {largest:.4g}, beyond {bound:.4g}; give it for images in [-1, 1]")
    return Problem(y, operator, torch.full((1,), 2.0 * saved.sigma, dtype=torch.float64))


def _operator(saved: Measurement, task: Task, like: Tensor) -> Operator:
    """The task's operator, with the mask, the kernel or the slots that were saved beside y."""
    kind = split(task.degradation)[0]
    for name in saved.tensors.keys() & set(DRAWN.values()):
        tensor = saved.tensors[name]
        fits = _fits_kernel(tensor) if name == "kernel" else _fits_mask(tensor, saved.shape)
        if name != DRAWN.get(kind) or not fits:
            raise InputError(f"{name} of shape {tuple(tensor.shape)} does not fit {task} on an image of shape {saved.shape}")
        if name == "kernel":
            return convolution(tensor, saved.shape, like)
        return hadamard(tensor, saved.shape, like) if name == "slots" else inpainting(tensor, saved.shape, like)
    return task.operator(saved.shape, like, saved.seed)


def _fits_mask(mask: Tensor, shape: tuple[int, int, int]) -> bool:
    """One row, one channel or all, and something measured."""
    fits = mask.ndim == 4 and mask.shape[0] == 1 and mask.shape[1] in (1, shape[0]) and mask.shape[2:] == shape[1:]
    return fits and bool(mask.bool().any())


def _fits_kernel(kernel: Tensor) -> bool:
    """One square kernel with a middle, whose absolute values sum to 1 at most: the reach of a blur."""
    fits = kernel.ndim == 3 and kernel.shape[0] == 1 and kernel.shape[1] == kernel.shape[2] and kernel.shape[1] % 2 == 1
    return fits and kernel.is_floating_point() and 0 < float(kernel.abs().sum()) <= 1 + 1e-3


def _window(saved: Measurement, task: Task) -> tuple[int, int]:
    """The photograph's (height, width), which the padding exceeds by less than the task's multiple."""
    try:
        height, width = (int(saved.notes.get(n, full)) for n, full in zip(("height", "width"), saved.shape[1:], strict=True))
    except ValueError:
        raise InputError("its notes 'height' and 'width' are not whole numbers") from None
    if not all(0 <= full - side < task.multiple for full, side in zip(saved.shape[1:], (height, width), strict=True)):
        raise InputError(f"its photograph of {width} x {height} pixels does not fit its shape {saved.shape}")
    return height, width


# --- the run ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run gave. Images are cropped to the photograph, and not clamped.

    image      (1, 3, height, width) in [-1, 1] units;  baseline: A^+ y, the least that any method should beat
    deviation  (height, width): standard deviation per pixel, root mean square over the colours, for images in [0, 1]
    map_sigma  the noise level sigma_bar at which that map was taken: the visited one nearest to MAP_SIGMA
    residual   root mean square of A x - y over what was measured, in [-1, 1] units: sigma_y where the fit is right
    """

    case: Case
    sampler: Sampler
    result: Result
    image: Tensor
    baseline: Tensor
    deviation: Tensor
    map_sigma: float
    residual: float


def run(case: Case, engine: Engine, on_state: Callable[[State], None] | None = None) -> Outcome:
    """Restores a case. Raises `InputError` where the result is not finite."""
    config, sampler = engine.config, host(engine.config.host, case.task.sigma, case.task, engine.config.images)
    seen: dict[str, Any] = {}

    def watch(state: State) -> None:
        sigma = state.belief.sigma.item()
        if state.cov is not None and abs(math.log(sigma / MAP_SIGMA)) < seen.get("distance", math.inf):
            seen.update(distance=abs(math.log(sigma / MAP_SIGMA)), sigma=sigma, cov=state.cov)
        if on_state is not None:
            on_state(state)

    options = {"grid": config.steps, "noise": noise_for(1, config.seed), **config.plugins}
    try:
        result = restore(case.problem, engine.prior, sampler, on_state=watch, **options)
    except Diverged as error:
        raise InputError(
            f"restoration: not finite; the prior {engine.prior.name!r} does not suit this task ({error})"
        ) from None
    deviation = case.crop(seen["cov"])[0].float().mean(0).clamp(min=0).sqrt() / 2
    baseline = case.crop(case.problem.operator.pinv(case.problem.y))
    residual = case.problem.residual(result.image).item()
    return Outcome(case, sampler, result, case.crop(result.image), baseline, deviation.cpu(), seen["sigma"], residual)


# --- what is written --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def output_folder(folder: Path, names: tuple[str, ...] = FILES) -> Iterator[Path]:
    """`folder`, made if need be and tried with a file before anything is computed; unmade if nothing came of it."""
    made: list[Path] = []
    try:
        try:
            made = [p for p in (folder, *folder.parents) if not p.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except FileExistsError:
            raise InputError(f"out: {folder} is a file; give a folder") from None
        except OSError as error:
            raise InputError(f"out: cannot write in {folder} ({error.strerror}); give another folder") from None
        if blocked := [name for name in names if (folder / name).is_dir()]:
            raise InputError(f"out: {folder / blocked[0]} is a folder, where a file would go; give another folder")
        yield folder
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # it holds something by now, or was never made
                path.rmdir()
        raise


def save(outcome: Outcome, engine: Engine, folder: Path) -> dict[str, Any]:
    """Writes the files of FILES, each whole or not at all, and returns the report.

    What took long to compute goes first, and the report last: a folder that has one is complete, and a failure (or
    Ctrl-C) while the metrics fetch their weights loses nothing. A report that is already there is taken away first.
    """
    case = outcome.case
    for stale in ("report.json", "compare.png"):
        (folder / stale).unlink(missing_ok=True)
    remember(case, folder / "measurement.safetensors")
    save_image(case.preview, folder / "degraded.png")
    save_image(outcome.image, folder / "restored.png")
    high = plates.nice_ceiling(outcome.deviation.numpy())
    about = {"quantity": f"standard deviation at sigma_bar {outcome.map_sigma:.3g}, for images in [0, 1]"}
    values = outcome.deviation.numpy()
    atomic_write(folder / "uncertainty.png", lambda file: plates.save_map(values, high, about, file))
    report = describe(outcome, engine, high)
    figure = plates.plate(panels(outcome, report), *headings(outcome, engine.config, report))
    atomic_write(folder / "compare.png", lambda file: plates.save_plate(figure, file))
    atomic_write(folder / "report.json", lambda file: file.write(to_json(report).encode()))
    return report


def to_json(report: Mapping[str, Any]) -> str:
    """Indented JSON with its lists of numbers on one line each."""
    text = json.dumps(report, indent=2, allow_nan=False)
    return re.sub(r"(?<=\[)[\d\s.,e+-]+(?=\])", lambda found: " ".join(found[0].split()), text) + "\n"


def assess(images: Mapping[str, Tensor], reference: Tensor | None) -> tuple[dict[str, dict[str, float | None]], list[str]]:
    """Each metric of each image against the reference, None where it cannot be had, and notes that say why."""
    values: dict[str, dict[str, float | None]] = {name: dict.fromkeys(METRICS) for name in images}
    if reference is None:
        return values, ["no reference: a restored measurement has no psnr, ssim or lpips"]
    notes = []
    for metric, function in METRICS.items():
        try:
            for name, image in images.items():
                value = float(function(image, reference)[0])
                values[name][metric] = value if math.isfinite(value) else None
                if not math.isfinite(value):
                    notes.append(f"{metric} of {name}: not finite (equal images)")
        except Exception as error:  # whatever a metric lacks, the restoration is kept
            notes.append(f"{metric}: not available ({one_line(error)})")
    return values, notes


def describe(outcome: Outcome, engine: Engine, high: float) -> dict[str, Any]:
    """The report: numbers, options, versions and seeds; JSON types only, the same keys in every run."""
    case, result, config = outcome.case, outcome.result, engine.config
    values, notes = assess({"restored": outcome.image, "baseline": outcome.baseline}, case.reference)
    height, width = case.window
    return {
        **values["restored"],
        "baseline": values["baseline"],
        "residual": outcome.residual,
        "residual_expected": float(case.problem.sigma_y[0]),
        "nfe": int(result.nfe[0]),
        "backward": int(result.backward[0]),
        "seconds": round(result.seconds, 3),
        "task": str(case.task),
        "host": config.host,
        "leader": config.leader,
        "prior": {"name": engine.prior.name, "sha256": sha256(prior_path(config.prior))},
        "image": {"width": width, "height": height, "padded": list(case.problem.operator.image_shape[1:][::-1])},
        "source": dict(case.source),
        "seeds": {"measurement": case.seed, "restoration": config.seed},
        "uncertainty": {
            "mean": float(outcome.deviation.mean()),
            "maximum": float(outcome.deviation.max()),
            "shown_from_to": [0.0, high],
            "sigma_bar": outcome.map_sigma,
        },
        "times": list(result.times[0]),
        "config": asdict(config) | {"prior": engine.prior.name},
        "plugins": plugin_names(outcome, config),
        "operator": repr(case.problem.operator),
        "units": "psnr in dB; residuals for images in [-1, 1]; uncertainty for images in [0, 1]",
        "versions": versions(),
        "machine": machine(engine.device),
        "notes": [*case.notes, *notes],
    }


def plugin_names(outcome: Outcome, config: Config) -> dict[str, str | None]:
    """The host and LEADer's plug-ins with their parameters, as they are written in Python."""
    plugins = {name: None if value is None else repr(value) for name, value in config.plugins.items()}
    return {"sampler": repr(outcome.sampler), **plugins}


def versions() -> dict[str, str]:
    from leader_nb import __version__  # here, because the package imports its modules before it has a version

    return {"leader_nb": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}


def machine(device: torch.device) -> dict[str, Any]:
    """What the seconds were measured on."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"cpu": cpu_name(), "threads": torch.get_num_threads(), "device": device.type, "gpu": gpu}


def cpu_name() -> str:
    """The processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# --- the plate --------------------------------------------------------------------------------------------------

DEGRADATION_NAMES = {
    "sr": "{}x super-resolution",
    "pool": "{}x average pooling",
    "gaussian": "Gaussian blur",
    "gaussian-wide": "Wide Gaussian blur",
    "gaussian-reflect": "Wide Gaussian blur, mirrored borders",
    "gaussian-zero": "Gaussian blur, dark borders",
    "gaussian-short": "Gaussian blur of four taps, dark borders",
    "sr-circular": "{}x super-resolution, periodic borders",
    "uniform": "Uniform blur",
    "anisotropic": "Anisotropic blur",
    "motion": "Motion blur",
    "inpaint": "{} % of the pixels lost",
    "cs": "Compressed sensing, {} % of the Walsh-Hadamard coefficients",
    "blockcs": "Compressed sensing of patches, {} % measured",
    "denoise": "Denoising",
    "color": "Colour lost",
}
METHOD_NAMES = {"DDNMPlus": "DDNM+"}


def headings(outcome: Outcome, config: Config, *reports: Mapping[str, Any]) -> tuple[str, str]:
    """The two lines above a plate: what was done, and with what, in one run or several of one case."""
    task = outcome.case.task
    kind, number = split(task.degradation)
    noise = f"noise {task.sigma:g}" if task.sigma else "no noise"
    calls, seconds = (" and ".join(f"{r[key]:{form}}" for r in reports) for key, form in (("nfe", "d"), ("seconds", ".1f")))
    cost = f"{config.steps} steps in {calls} network calls", f"{seconds} s"
    details = (str(task), *cost, f"prior {reports[0]['prior']['name']}", f"seed {config.seed}")
    return (
        f"{DEGRADATION_NAMES.get(kind, task.degradation).format(number)}, {noise}: {method_name(outcome, config)}",
        "   ·   ".join(details),
    )


def method_name(outcome: Outcome, config: Config) -> str:
    """`DDNM+ with LEADer`, for instance."""
    kind = type(outcome.sampler).__name__
    preset = "" if config.preset == "calibrated" else f" ({config.preset} preset)"
    return METHOD_NAMES.get(kind, kind) + (f" with LEADer{preset}" if config.leader else "")


def panels(outcome: Outcome, report: Mapping[str, Any]) -> list[plates.Panel]:
    """Original (where it is known), degraded, restored, uncertainty."""
    case, preview = outcome.case, to_pixels(outcome.case.preview[0])
    naive, quality = quality_line(report["baseline"]), quality_line(report)
    degraded_caption = pixels_line(preview) + (f"\nA⁺y:  {naive}" if naive else "")
    shown = [
        plates.Panel("Degraded", degraded_caption, preview),
        plates.Panel("Restored", f"{quality}\n{residual_line(report)}".strip(), to_pixels(outcome.image[0])),
        plates.Panel("Uncertainty", MAP_CAPTION, outcome.deviation.numpy(), report["uncertainty"]["shown_from_to"][1]),
    ]
    if case.reference is None:
        return shown
    original = to_pixels(case.reference[0])
    return [plates.Panel("Original", pixels_line(original), original), *shown]


def pixels_line(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]} pixels"


def quality_line(values: Mapping[str, Any]) -> str:
    """`PSNR 26.31 dB   SSIM 0.71   LPIPS 0.123`, of what is known."""
    forms = {"psnr": "PSNR {:.2f} dB", "ssim": "SSIM {:.3f}", "lpips": "LPIPS {:.3f}"}
    return "   ".join(form.format(values[name]) for name, form in forms.items() if values.get(name) is not None)


def residual_line(report: Mapping[str, Any]) -> str:
    """`residual 0.97 x noise`: in units of sigma_y, so that 1 is right; in [-1, 1] units where there is no noise."""
    expected = report["residual_expected"]
    return f"residual {report['residual'] / expected:.2f} x noise" if expected else f"residual {report['residual']:.1e}"

"""The command line, `leader-nb COMMAND`. A mistake is one line on stderr and exit status 2."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from tqdm import tqdm

from leader_nb import __version__, pipeline, plates, table_cli, weights_cli
from leader_nb.data import BUILTIN_PHOTOS, atomic_write, builtin_photo, check_target
from leader_nb.errors import InputError, one_line
from leader_nb.experiments import chosen
from leader_nb.loop import State
from leader_nb.memory import Footprint, require_report
from leader_nb.networks.published import PUBLISHED
from leader_nb.presets import PRESETS
from leader_nb.prior_report import prior_report
from leader_nb.samplers import IMAGES, SAMPLERS
from leader_nb.samplers.coverage import coverage, words
from leader_nb.samplers.settings import stands_in
from leader_nb.tasks import DEGRADATIONS, LIMITS, TASKS, VARIANTS, parse_task
from leader_nb.train import DIGITS, TrainConfig, digits_config, train
from leader_nb.zoo import PRIORS, choose_device, load_prior, prior_hash

BAD_INPUT, UNEXPECTED, INTERRUPTED = 2, 1, 130
DEFAULTS, RECIPE, DIGITS_RECIPE = pipeline.Config(), TrainConfig("", ""), digits_config("")
UsageError: Any = typer.BadParameter.__base__  # the base of all complaints about options; its module has moved

app = typer.Typer(
    help="Zero-shot image restoration with a diffusion prior, and LEADer on top of it.",
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(weights_cli.app, name="weights")
app.command("table")(table_cli.table_command)

# --- options shared by commands ---------------------------------------------------------------------------------

Host = Annotated[str, typer.Option(help=f"Restoration method: {', '.join(SAMPLERS)}; or ddpg:published, ddpg:tuned.")]
ImageKind = Annotated[str, typer.Option(help=f"Whose constants ddpg:published has: {' or '.join(IMAGES)}.")]
PriorName = Annotated[str, typer.Option(help=f"Prior: {', '.join(PRIORS)}, {', '.join(PUBLISHED)}, or a .safetensors file.")]
Steps = Annotated[int, typer.Option(help="Steps of the restoration, 1 to 1000.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Out = Annotated[Path, typer.Option(help="Folder for the results; made where it is missing.")]

IMAGES_HELP = "Folder with photographs (a photos.csv in or beside it picks its test split), or builtin, or names: coffee,china."
TASK_HELP = f"Degradation and noise, such as {', '.join(TASKS[1:6])}."


def said(name: str) -> str:
    """What a recipe has for one of its numbers, for the help: `16; digits 64`."""
    values = [attrgetter(name)(recipe) for recipe in (RECIPE, DIGITS_RECIPE)]
    photos, digits = (",".join(map(str, v)) if isinstance(v, tuple) else f"{v:g}" for v in values)
    return f"[{photos}]" if photos == digits else f"[{photos}; {DIGITS} {digits}]"


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and stop.")] = False,
) -> None:
    if version:
        typer.echo(f"leader-nb {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


# --- restore ----------------------------------------------------------------------------------------------------


@app.command("restore")
def restore_command(
    out: Out,
    photo: Annotated[Path | None, typer.Argument(metavar="PHOTO", help="PNG, JPEG, TIFF, WebP or GIF.")] = None,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    measurement: Annotated[Path | None, typer.Option(help="A measurement.safetensors, instead of PHOTO.")] = None,
    host: Host = DEFAULTS.host,
    leader: Annotated[bool, typer.Option("--leader", help="Switch LEADer on.")] = False,
    preset: Annotated[str | None, typer.Option(help=f"LEADer's settings: {' or '.join(PRESETS)}.")] = None,
    prior: PriorName = DEFAULTS.prior,
    steps: Steps = DEFAULTS.steps,
    seed: Annotated[int | None, typer.Option(help="Of every random draw; 0, or that of the measurement.")] = None,
    device: Device = DEFAULTS.device,
    image_kind: ImageKind = DEFAULTS.images,
    size: Annotated[int | None, typer.Option(help="Side of the centre square, 256; 0: the whole photograph.")] = None,
) -> None:
    """Degrade a photograph and restore it, or restore a saved measurement."""
    if preset is not None and not leader:
        raise InputError("preset: it belongs to LEADer; add --leader")
    config = pipeline.Config(host, leader, preset or DEFAULTS.preset, prior, steps, seed or 0, device, image_kind)
    source = choose_source(photo, measurement, task, size, seed)
    with pipeline.output_folder(out) as folder:
        engine = pipeline.load_engine(config)
        case = source(engine)
        if seed is None:
            engine = replace(engine, config=replace(config, seed=case.seed))
        _, report = restore_into(folder, case, engine)
    typer.echo(summary(report, out))


def choose_source(
    photo: Path | None, measurement: Path | None, task: str | None, size: int | None, seed: int | None
) -> Callable[[pipeline.Engine], pipeline.Case]:
    """Where the case comes from; exactly one of `photo` and `measurement`, with what belongs to it."""
    if (photo is None) == (measurement is None):
        given = "got neither" if photo is None else "got both"
        raise InputError(f"PHOTO or --measurement: {given}; give a photograph, or a measurement.safetensors, not both")
    if measurement is not None:
        if task is not None or size is not None:
            raise InputError("measurement: it brings its own task and size; leave out --task and --size")
        return lambda engine: pipeline.recalled(measurement, engine)
    if task is None:
        raise InputError(f"task: missing; give one, such as --task {TASKS[1]}")
    parse_task(task)
    assert photo is not None
    return lambda engine: pipeline.photograph(photo, task, 256 if size is None else size, engine)


def restore_into(folder: Path, case: pipeline.Case, engine: pipeline.Engine) -> tuple[pipeline.Outcome, dict[str, Any]]:
    """Runs a case with a progress bar and writes its files; returns what came out, and the report."""
    with progress_bar(engine.config.steps) as on_state:
        outcome = pipeline.run(case, engine, on_state)
    return outcome, pipeline.save(outcome, engine, folder)


@contextlib.contextmanager
def progress_bar(steps: int) -> Iterator[Callable[[State], None]]:
    """A bar on stderr where somebody watches; it stands at the grid position, so that skipped steps are seen to be."""
    with tqdm(total=steps, unit="step", leave=False, disable=not sys.stderr.isatty()) as bar:

        def on_state(state: State) -> None:
            bar.update(steps - int(state.k[0]) + 1 - bar.n)

        yield on_state


def summary(report: Mapping[str, Any], out: Path) -> str:
    """What a run did, in two or three lines."""
    quality, naive = pipeline.quality_line(report), pipeline.quality_line(report["baseline"])
    lines = [f"{quality}   (least squares: {naive})"] if quality else []
    lines.append(f"{pipeline.residual_line(report)}   {report['nfe']} network calls   {report['seconds']:.1f} s")
    return "\n".join([*lines, *(f"note: {note}" for note in report["notes"]), f"written to {out}"])


# --- demo -------------------------------------------------------------------------------------------------------


@app.command("demo")
def demo_command(
    out: Out = Path("leader-nb-demo"),
    photo: Annotated[str, typer.Option(help=f"Photograph: {', '.join(BUILTIN_PHOTOS)}.")] = "astronaut",
    task: Annotated[str, typer.Option(help=TASK_HELP)] = "sr4@0.05",
    host: Host = DEFAULTS.host,
    prior: PriorName = DEFAULTS.prior,
    steps: Steps = DEFAULTS.steps,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    device: Device = DEFAULTS.device,
    image_kind: ImageKind = DEFAULTS.images,
    size: Annotated[int, typer.Option(help="Side of the centre square in pixels.")] = 128,
) -> None:
    """Restore a built-in photograph with and without LEADer, and compare."""
    config = pipeline.Config(host=host, prior=prior, steps=steps, seed=seed, device=device, images=image_kind)
    parsed = parse_task(task)
    with pipeline.output_folder(out, ()) as folder:
        engine = pipeline.load_engine(config)
        pipeline.check_size(size, parsed, engine)
        case = pipeline.degraded(builtin_photo(photo, size), parsed, engine, {"photo": photo, "size": size})
        reports, panels = {}, {}
        for name in ("host", "leader"):
            variant = replace(engine, config=replace(config, leader=name == "leader"))
            with pipeline.output_folder(folder / name) as inner:
                outcome, reports[name] = restore_into(inner, case, variant)
            shown = pipeline.panels(outcome, reports[name])
            panels[name] = [*shown[:2], replace(shown[2], title=pipeline.method_name(outcome, variant.config)), shown[3]]
        heading, details = pipeline.headings(outcome, config, *reports.values())
        figure = plates.plate([*panels["host"][:3], *panels["leader"][2:]], f"{heading} with and without LEADer", details)
        atomic_write(folder / "compare.png", lambda file: plates.save_plate(figure, file))
    typer.echo(f"{photo}, {size} x {size} px, {parsed}, seed {seed}, {reports['host']['machine']['device']}\n")
    typer.echo(table(reports))
    typer.echo(f"\nwritten to {out}; look at {out / 'compare.png'}")


def table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """The host, LEADer on it and least squares, one row each."""
    host, with_leader = reports["host"], reports["leader"]
    columns = {"PSNR [dB]": ("psnr", "{:.2f}"), "SSIM": ("ssim", "{:.3f}"), "LPIPS": ("lpips", "{:.3f}")}
    columns |= {"residual": ("residual", "{:.3f}"), "network calls": ("nfe", "{}"), "seconds": ("seconds", "{:.1f}")}
    rows = {"least squares": host["baseline"], host["host"]: host, f"{host['host']} + LEADer": with_leader}
    lines = [f"{'':<16}" + "".join(f"{title:>{len(title) + 3}}" for title in columns)]
    for name, values in rows.items():
        cells = (
            (title, "-" if values.get(key) is None else form.format(values[key])) for title, (key, form) in columns.items()
        )
        lines.append(f"{name:<16}" + "".join(f"{cell:>{len(title) + 3}}" for title, cell in cells))
    return "\n".join([*lines, f"A residual of {host['residual_expected']:.3f} is what the noise alone leaves."])


# --- train, tasks -----------------------------------------------------------------------------------------------


@app.command("train")
def train_command(
    images: Annotated[Path, typer.Option(help=f"Folder with .jpg or .png photographs, or the word {DIGITS}.")],
    out: Out,
    steps: Annotated[int | None, typer.Option(help=f"Optimisation steps. {said('steps')}")] = None,
    minutes: Annotated[float, typer.Option(help="End after this long, if not 0.")] = RECIPE.minutes,
    batch: Annotated[int | None, typer.Option(help=f"Crops per step. {said('batch')}")] = None,
    crop: Annotated[int | None, typer.Option(help=f"Side of a crop in pixels. {said('crop')}")] = None,
    lr: Annotated[float | None, typer.Option(help=f"Learning rate. {said('lr')}")] = None,
    seed: Annotated[int, typer.Option(help="Of the weights, the crops and the noise.")] = RECIPE.seed,
    device: Device = "auto",
    widths: Annotated[str | None, typer.Option(help=f"Channels of each level. {said('network.widths')}")] = None,
    blocks: Annotated[int | None, typer.Option(help=f"Residual blocks per level. {said('network.blocks')}")] = None,
    wide: Annotated[float | None, typer.Option(help=f"Share of noise levels drawn log-uniformly. {said('wide')}")] = None,
    start: Annotated[str, typer.Option(help="Weights to begin from, grown to --blocks: a prior's name or a file.")] = "",
    save_every: Annotated[int | None, typer.Option(help=f"Steps between checkpoints. {said('save_every')}")] = None,
) -> None:
    """Train a prior on a folder of photographs, or on digits. Running it again continues where it stopped."""
    recipe = DIGITS_RECIPE if str(images) == DIGITS else RECIPE
    shape = given(widths=None if widths is None else parse_widths(widths), blocks=blocks)
    changes = given(steps=steps, batch=batch, crop=crop, lr=lr, wide=wide, save_every=save_every)
    always: dict[str, Any] = {"images": str(images), "out": str(out), "minutes": minutes, "seed": seed, "start": start}
    always["device"] = str(choose_device(device))
    config = replace(recipe, network=replace(recipe.network, **shape), **changes, **always)
    check_recipe(config)
    with pipeline.output_folder(out, ("checkpoint.pt", "history.json", "denoiser.safetensors")):
        path = training(config)
    use = f"restore with it by --prior {path}" if recipe is RECIPE else f'use it by load_prior("{path}")'
    typer.echo(f"written to {path}; {use}")


def given(**options: Any) -> dict[str, Any]:
    """The options that were given; the others stay as the recipe has them."""
    return {name: value for name, value in options.items() if value is not None}


def training(config: TrainConfig) -> Path:
    """:func:`leader_nb.train.train`, whose mishaps become one line each."""
    try:
        return train(config)
    except FloatingPointError as error:
        raise InputError(f"train: {one_line(error)}") from None
    except (RuntimeError, ValueError, KeyError, OSError, EOFError) as error:
        if isinstance(error, InputError) or out_of_memory(error):
            raise
        hint = "; if --out holds a run of other settings, give another folder"
        raise InputError(f"train: {one_line(error)}{hint}") from None


def check_recipe(config: TrainConfig) -> None:
    """Raises `InputError` for numbers that no training can use."""
    stride = config.network.stride
    wrong = {
        f"steps: got {config.steps}; give at least 1": config.steps < 1,
        f"minutes: got {config.minutes:g}; give 0 (no limit) or more": not config.minutes >= 0,
        f"batch: got {config.batch}; give at least 1": config.batch < 1,
        f"crop: got {config.crop}; give at least {stride}, the stride of this network": config.crop < stride,
        f"lr: got {config.lr:g}; give a number above 0 and at most 1": not 0 < config.lr <= 1,
        f"wide: got {config.wide:g}; give 0 to 1": not 0 <= config.wide <= 1,
        f"seed: got {config.seed}; give 0 to 2^63 - 1": not 0 <= config.seed < 2**63,
        f"blocks: got {config.network.blocks}; give at least 1": config.network.blocks < 1,
        f"save-every: got {config.save_every}; give at least 1": config.save_every < 1,
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise InputError(message)


def parse_widths(text: str) -> tuple[int, ...]:
    """`64,128,160` -> (64, 128, 160)."""
    try:
        widths = tuple(int(part) for part in text.split(","))
    except ValueError:
        widths = ()
    if not widths or min(widths) < 1:
        raise InputError(f"widths: got {text!r}; give whole numbers with commas, such as 64,128,160")
    return widths


@app.command("prior-report")
def prior_report_command(
    images: Annotated[str, typer.Option(help=IMAGES_HELP)],
    prior: PriorName = DEFAULTS.prior,
    sigmas: Annotated[str, typer.Option(help="Noise levels, of 255.")] = "15,25,50,75",
    json_file: Annotated[Path | None, typer.Option("--json", help="File for the numbers.")] = None,
    size: Annotated[int, typer.Option(help="Side of the centre crops in pixels.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 0,
    device: Device = "auto",
) -> None:
    """Measure how well a prior denoises: PSNR with intervals over photographs, and speed."""
    levels = parse_numbers("sigmas", sigmas)
    if json_file is not None:
        check_target(json_file)
    machine = choose_device(device)
    require_report(images, size, Footprint.of_prior(prior), machine)
    report = prior_report(load_prior(prior, machine), images, levels, size, seed, machine)
    report |= {"sha256": prior_hash(prior), "device": str(machine), "threads": torch.get_num_threads(), "version": __version__}
    if json_file is not None:
        atomic_write(json_file, lambda file: file.write(json.dumps(report, indent=2).encode()))
    for level, value in report["psnr"].items():
        low, high = report["ci"][level]
        typer.echo(f"sigma {level:>4}: {value:.2f} dB [{low:.2f}, {high:.2f}]")
    speed = report["speed"]
    seconds = f"{speed['seconds_per_image']:.3f} s each on {machine} ({speed['cpu_seconds_per_image']:.3f} s of processor time)"
    typer.echo(f"{report['images']} photographs, {size} x {size} px; {seconds}")
    if report["left_out"]:
        typer.echo(f"left out, with fewer than {size} x {size} px: {', '.join(report['left_out'])}")


def parse_numbers(name: str, text: str) -> list[float]:
    """`15,25` -> [15.0, 25.0]."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{name}: got {text!r}; give numbers with commas, such as 15,25,50,75") from None


@app.command("tasks")
def tasks_command() -> None:
    """List the tasks, the methods and the priors."""
    rows = {
        "tasks": f"{', '.join(TASKS)}",
        "degradations": ", ".join(DEGRADATIONS),
        "variants": ", ".join(VARIANTS),
        "numbers": ", ".join(f"{kind}{low} to {kind}{high}" for kind, (low, high) in LIMITS.items()),
        "noise": "after the @: standard deviation for images in [0, 1], from 0 to 10",
        "hosts": f"{', '.join(SAMPLERS)} (ddnm on a noisy task means ddnm+; more: leader-nb hosts)",
        "presets": f"{', '.join(PRESETS)} (with --leader)",
        "priors": f"{', '.join(PRIORS)}, or a .safetensors file from leader-nb train",
        "to be fetched": f"{', '.join(PUBLISHED)} (leader-nb weights fetch NAME)",
    }
    for name, value in rows.items():
        typer.echo(f"{name + ':':<15}{value}")


@app.command("hosts")
def hosts_command(
    tasks: Annotated[str, typer.Option(help=f"With commas, or all: {', '.join(TASKS)}.")] = "all",
) -> None:
    """Show which method does which task: as in the LEADer paper, or beyond it."""
    found = coverage(chosen("tasks", tasks, TASKS))
    typer.echo(words(found).rename_axis(index=None, columns=None).to_string())
    needy = ", ".join(found.loc[found["needs"] == "gradient", "host"].unique())
    typer.echo("\npaper: in Table 1 of the LEADer paper; beyond: N/A or missing there, and it runs here all the same.")
    if found["diverges"].any():
        typer.echo("*: with the prior photo-small it diverges.")
    for line in borrowed(found):
        typer.echo(line)
    typer.echo(
        "On a noisy task ddnm is ddnm+." + (f" These differentiate the prior, and take longer: {needy}." if needy else "")
    )


def borrowed(found: pd.DataFrame) -> list[str]:
    """Where the constants of NAME:published are those of another degradation, one line for each pair of the two."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for host, task in zip(found["host"], found["task"], strict=True):
        kinds = {stands_in(host, task, images) for images in IMAGES} - {""}
        for kind in kinds:
            hosts = pairs.setdefault((parse_task(task).degradation, kind), [])
            hosts.extend({f"{host}:published"} - {*hosts})
    said = {"pool": "average pooling", "sr": "bicubic downsampling"}
    return [
        f"On {degradation} these have the constants published for {said[kind]}, the nearest there are: {', '.join(hosts)}."
        for (degradation, kind), hosts in pairs.items()
    ]


# --- the way in -------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The console entry: runs a command and returns its exit status. Only a fault of ours gives status 1."""
    try:
        status = app(args=arguments, prog_name="leader-nb", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    except (InputError, UsageError) as error:
        return complain(message_of(error), BAD_INPUT)
    except BrokenPipeError:  # the reader of our output has left, as in `leader-nb tasks | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNEXPECTED
    except Exception as error:  # a traceback helps nobody here; it can be asked for
        if os.environ.get("LEADER_NB_DEBUG"):
            raise
        if out_of_memory(error):
            return complain("memory: there is not enough for this run; give a smaller --size (or --batch)", BAD_INPUT)
        kind = type(error).__name__
        return complain(f"unexpected {kind}: {one_line(error)}; LEADER_NB_DEBUG=1 shows where", UNEXPECTED)
    if status == INTERRUPTED:
        return complain("interrupted", INTERRUPTED)
    return status if isinstance(status, int) else 0


def complain(message: str, status: int) -> int:
    print(f"leader-nb: {' '.join(message.splitlines())}", file=sys.stderr)
    return status


def message_of(error: BaseException) -> str:
    """What an error says; option errors are asked for their full form."""
    return error.format_message() if isinstance(error, UsageError) else str(error)


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on the GPU or (where PyTorch has no type for it) on the CPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


if __name__ == "__main__":
    sys.exit(main())

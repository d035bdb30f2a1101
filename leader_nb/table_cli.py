"""`leader-nb table`: compute the big table, or sum it up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from leader_nb import pipeline
from leader_nb.crops import SPLITS, Photo, photographs
from leader_nb.errors import InputError
from leader_nb.experiments import (
    CONTROLS,
    METHODS,
    METRICS,
    PLUGINS,
    Cell,
    Experiment,
    Lab,
    Rows,
    available,
    chosen,
    missing,
    run,
)
from leader_nb.memory import Footprint, require_run, require_weights
from leader_nb.samplers import IMAGES
from leader_nb.store import CSV, Store
from leader_nb.summary import TABLE_1, report
from leader_nb.tasks import TASKS, parse_task
from leader_nb.zoo import choose_device

SPECIAL = ("global-same-steps", "global-tuned", "global-searched", "leader-tuned", "start", "start-tuned", "leader-start")
MEAN = f"{', '.join(CONTROLS)}: the Gaussian posterior mean, without a network call or plug-ins."
USUAL = ",".join(name for name in TABLE_1 if name in available() and name not in SPECIAL)


def table_command(
    images: Annotated[str | None, typer.Option(help="Folder of photographs, or built-in ones: astronaut,coffee.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the table; what it holds already is not computed again.")] = None,
    hosts: Annotated[str, typer.Option(help=f"With commas, or all: {', '.join(METHODS)}; also ddpg:tuned. {MEAN}")] = "all",
    tasks: Annotated[str, typer.Option(help=f"With commas, or all: {', '.join(TASKS)}.")] = "all",
    plugins: Annotated[str, typer.Option(help=f"With commas, or all: {', '.join(PLUGINS)}.")] = USUAL,
    steps: Annotated[int, typer.Option(help="Steps of a restoration, 1 to 1000.")] = 100,
    n: Annotated[int | None, typer.Option(help="How many photographs, by name; all of them if not given.")] = None,
    size: Annotated[int, typer.Option(help="Side of the central crops in pixels.")] = 64,
    seed: Annotated[int, typer.Option(help="Of every random draw.")] = 0,
    split: Annotated[str, typer.Option(help=f"Which photographs, where a photos.csv says: {' or '.join(SPLITS)}.")] = "test",
    batch: Annotated[int, typer.Option(help="Images restored together.")] = 8,
    prior: Annotated[str, typer.Option(help="A built-in prior, or a .safetensors file.")] = "photo-small",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "cpu",
    image_kind: Annotated[str, typer.Option(help=f"Whose constants ddpg:published has: {' or '.join(IMAGES)}.")] = IMAGES[0],
    score: Annotated[str, typer.Option("--metrics", help=f"With commas, or all: {', '.join(METRICS)}.")] = "all",
    keep_old: Annotated[bool, typer.Option("--keep-old", help="Keep rows made by other versions of the code.")] = False,
    summary: Annotated[Path | None, typer.Option(help="Print the tables in this folder as markdown, and stop.")] = None,
) -> None:
    """Restore many photographs by many methods with and without LEADer: one row each, resumable."""
    if summary is not None:
        typer.echo(summed_up(summary, images is not None or out is not None))
        return
    if images is None or out is None:
        raise InputError(f"{'images' if images is None else 'out'}: missing; give --images and --out, or --summary DIR")
    experiment = Experiment(
        chosen("hosts", hosts, METHODS),
        chosen("tasks", tasks, TASKS),
        chosen("plugins", plugins, available()),
        steps,
        seed,
        batch,
        prior,
        device,
        chosen("metrics", score, tuple(METRICS)),
        image_kind,
    )
    compute(experiment, images, out, size, n, split, keep_old)


def summed_up(folder: Path, more: bool) -> str:
    if more:
        raise InputError("summary: it only reads; leave out --images and --out")
    if not (folder / CSV).is_file():
        raise InputError(f"summary: there is no {CSV} in {folder}; give the --out folder of an earlier run")
    rows = Store(folder).read()
    if rows.empty:
        raise InputError(f"summary: {folder / CSV} has no rows; run leader-nb table --out {folder} again")
    return report(rows)


def compute(experiment: Experiment, images: str, out: Path, size: int, n: int | None, split: str, keep_old: bool) -> None:
    """Refuses bad input, most of it before anything is read; then runs."""
    experiment.cells  # noqa: B018  # refuses tasks that do not exist
    store = Store(out)
    check_memory(experiment, size)
    photos, lab = photographs(images, size, n, split), Lab.of(experiment)
    lab.check(photos)
    with pipeline.output_folder(out, (CSV,)):
        report_on(lab, photos, store, keep_old)


def check_memory(experiment: Experiment, size: int) -> None:
    """Refuses crops that the prior cannot take or the memory cannot hold, a batch at a time; before anything is read."""
    device, footprint = choose_device(experiment.device), Footprint.of_prior(experiment.prior)
    require_weights(footprint, experiment.prior, "cpu")
    if size > 0:
        footprint.check_sides(size, size, experiment.prior)
    tasks = [parse_task(text) for text in experiment.tasks]
    gradient = any(cell.sampler.needs_gradient for cell in experiment.cells)
    require_run(size, size, tasks, footprint, device, gradient, batch=experiment.batch)


def report_on(lab: Lab, photos: list[Photo], store: Store, keep_old: bool) -> None:
    """Runs what is missing, with a bar where somebody watches and a line for each batch where not."""
    cells = lab.experiment.cells
    total = len(photos) * len(cells)
    todo = sum(len(group) for _, group in missing(lab, photos, store, keep_old))
    typer.echo(f"{len(cells)} cells x {len(photos)} photographs = {total} rows; {total - todo} are there already")
    failed = 0
    with tqdm(total=todo, unit="row", disable=not sys.stderr.isatty()) as bar:

        def on_rows(cell: Cell, rows: Rows) -> None:
            nonlocal failed
            failed += sum(bool(row["error"]) for row in rows)
            bar.update(len(rows))
            bar.set_postfix_str(str(cell))
            if bar.disable:
                typer.echo(line(cell, rows))

        run(lab, photos, store, on_rows, keep_old)
    typer.echo(f"written to {store.path}" + (f"; {failed} rows failed, see the column error" if failed else ""))


def line(cell: Cell, rows: Rows) -> str:
    """What came of a batch."""
    good = [row for row in rows if not row["error"]]
    if not good:
        return f"{cell}: {len(rows)} rows failed: {rows[0]['error']}"
    calls, seconds = sum(row["nfe"] for row in good) / len(good), sum(row["seconds"] for row in good)
    failed = f"; {len(rows) - len(good)} failed" if len(good) < len(rows) else ""
    return f"{cell}: {len(good)} rows, {calls:.1f} calls each, {seconds:.1f} s{failed}"

"""Build the tracked notebooks from their text twins: jupytext, then papermill, then strip what changes from run to run.

python scripts/notebooks.py [--profile ci|class|full] [NAME ...]
python scripts/notebooks.py --check                              # only compare the twins, running nothing
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
import papermill

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, TEXT = ROOT / "notebooks", ROOT / "notebooks" / "text"
PROFILES = ("ci", "class", "full")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
PASSING = "nbval-ignore-output"  # the tag of cells whose output is new every time, such as a page's footer


def texts(names: list[str] | None = None) -> list[Path]:
    """The text twins, in order; with `names`, those whose stem starts with one of them."""
    found = sorted(TEXT.glob("*.md"))
    return [p for p in found if not names or p.stem.startswith(tuple(names))]


def twin(text: Path) -> Path:
    """The tracked notebook of a text."""
    return NOTEBOOKS / f"{text.stem}.ipynb"


def execute(text: Path, target: Path, profile: str) -> str:
    """Run a text's notebook into `target`; cells see notebooks/ as the working directory. Says what it cost.

    Raises papermill's error for a cell that fails; `target` then holds the run so far.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / f"{text.stem}.ipynb"
        nbformat.write(from_text(text), source)
        parameters = {} if profile == PROFILES[0] else {"profile": profile}  # the cell itself says "ci"
        papermill.execute_notebook(
            source, target, parameters, kernel_name="python3", cwd=NOTEBOOKS, progress_bar=False, log_output=False
        )
    unit = 2**30 if sys.platform == "darwin" else 2**20  # bytes there, kilobytes elsewhere
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / unit
    return f"{text.stem}: {time.perf_counter() - start:.0f} s, at most {peak:.1f} GB so far (profile {profile})"


def from_text(text: Path) -> nbformat.NotebookNode:
    """The notebook of a text twin, not yet run."""
    notebook = jupytext.read(text)
    notebook.metadata["kernelspec"] = KERNEL
    return notebook


def strip(notebook: nbformat.NotebookNode, stem: str) -> nbformat.NotebookNode:
    """Drop injected parameters, timings and versions, and number the cells; nbval takes one without a number as not run."""
    cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    notebook.cells = [_plain(cell, f"{stem}-{i}") for i, cell in enumerate(cells)]
    for count, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        cell.execution_count = count
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    return notebook


def _plain(cell: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    cell["id"] = name[:64]
    for key in ("papermill", "execution", "lines_to_next_cell"):
        cell.metadata.pop(key, None)
    if not cell.metadata.get("tags", True):
        cell.metadata.pop("tags")
    if cell.cell_type == "code":
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = None
    return cell


def settled(notebook: nbformat.NotebookNode) -> list[object]:
    """What of a stripped notebook should be the same in every run."""
    return [{**c, "outputs": []} if PASSING in c.metadata.get("tags", []) else c for c in notebook.cells]


def refresh(text: Path, profile: str) -> str:
    """One text twin to one executed, stripped notebook, which is left alone where only a footer would change."""
    target = twin(text)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run.ipynb"
        cost = execute(text, run, profile)
        new = strip(nbformat.read(run, as_version=4), text.stem)
    if target.is_file() and settled(nbformat.read(target, as_version=4)) == settled(new):
        return f"{cost}; unchanged"
    nbformat.write(new, target)
    return f"{cost}; written"


def differences(text: Path) -> list[str]:
    """Where a text and its notebook disagree, cell by cell, one line each; an empty list means they are twins."""
    if not twin(text).is_file():
        return [f"{text.stem}: no notebook; run `make notebooks`"]
    wanted, have = from_text(text).cells, nbformat.read(twin(text), as_version=4).cells
    faults = [f"{text.stem}: {len(wanted)} cells in the text, {len(have)} in the notebook"] * (len(wanted) != len(have))
    for i, (a, b) in enumerate(zip(wanted, have, strict=False)):
        same = (a.cell_type, a.source, _tags(a)) == (b.cell_type, b.source, _tags(b))
        faults += [] if same else [f"{text.stem}: cell {i} differs, starting with {b.source[:40]!r}"]
    return faults


def _tags(cell: nbformat.NotebookNode) -> tuple[object, ...]:
    return (cell.metadata.get("tags", []), cell.metadata.get("mystnb", {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="stems, such as 02; all if none")
    parser.add_argument("--profile", choices=PROFILES, default="ci")
    parser.add_argument("--check", action="store_true", help="compare texts and notebooks, run nothing")
    args = parser.parse_args()
    if args.check:
        faults = [fault for text in texts(args.names) for fault in differences(text)]
        raise SystemExit("\n".join(faults) or 0)
    for text in texts(args.names):
        print(refresh(text, args.profile), flush=True)


if __name__ == "__main__":
    main()

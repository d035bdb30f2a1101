"""Build the tracked notebooks from their text twins: jupytext, then papermill, then strip what changes from run to run.

    python scripts/notebooks.py [--profile ci|class|full] [NAME ...]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import jupytext
import nbformat
import papermill

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS, TEXT = ROOT / "notebooks", ROOT / "notebooks" / "text"
PROFILES = ("ci", "class", "full")
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def texts(names: list[str] | None = None) -> list[Path]:
    """The text twins, in order; with `names`, those whose stem starts with one of them."""
    found = sorted(p for p in TEXT.glob("*.md"))
    return [p for p in found if not names or p.stem.startswith(tuple(names))]


def execute(source: Path, target: Path, profile: str) -> None:
    """Run a notebook with the parameter `profile`; cells see the notebooks folder as the working directory."""
    target.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        source, target, {"profile": profile}, kernel_name="python3", cwd=NOTEBOOKS, progress_bar=False, log_output=False
    )


def from_text(text: Path) -> nbformat.NotebookNode:
    """The notebook of a text twin, with ids that do not change."""
    notebook = jupytext.read(text)
    notebook.metadata["kernelspec"] = KERNEL
    return notebook


def strip(notebook: nbformat.NotebookNode, stem: str) -> nbformat.NotebookNode:
    """Drop the injected parameters, timings and versions, and number the cells."""
    cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    notebook.cells = [_plain(cell, f"{stem}-{i}") for i, cell in enumerate(cells)]
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    return notebook


def _plain(cell: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    cell["id"] = name[:64]
    for key in ("papermill", "execution", "lines_to_next_cell"):
        cell.metadata.pop(key, None)
    if not cell.metadata.get("tags", True):
        cell.metadata.pop("tags")
    if cell.cell_type == "code":
        cell.outputs = [_merge(o) for o in cell.outputs]
    return cell


def _merge(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    if output.get("execution_count") is not None:
        output["execution_count"] = None
    return output


def build(text: Path, profile: str) -> Path:
    """One text twin to one executed, stripped notebook."""
    with tempfile.TemporaryDirectory() as folder:
        source, run = Path(folder) / "source.ipynb", Path(folder) / "run.ipynb"
        nbformat.write(from_text(text), source)
        execute(source, run, profile)
        done = strip(nbformat.read(run, as_version=4), text.stem)
    for cell in done.cells:
        if cell.cell_type == "code":
            cell.execution_count = None
    target = NOTEBOOKS / f"{text.stem}.ipynb"
    nbformat.write(done, target)
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="stems, such as 02; all if none")
    parser.add_argument("--profile", choices=PROFILES, default="ci")
    args = parser.parse_args()
    for text in texts(args.names):
        print(f"{text.stem}: running", flush=True)
        print(f"{text.stem}: wrote {build(text, args.profile).relative_to(ROOT)}", flush=True)


if __name__ == "__main__":
    main()

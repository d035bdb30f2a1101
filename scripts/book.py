"""Execute the notebooks and build the book, all inside _build/; tracked files stay as they are.

    python scripts/book.py [--profile ci|class|full] [--no-execute]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import nbformat

from api_page import append_api
from check_book import check_book
from notebooks import PROFILES, ROOT, execute, from_text, texts

BUILD = ROOT / "_build"
SOURCE, HTML = BUILD / "source", BUILD / "html"


def stage(profile: str, run: bool) -> None:
    """Copy what the book is made of into _build/source, with freshly executed notebooks."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, SOURCE)
    shutil.copytree(ROOT / "book", SOURCE / "book")
    append_api(SOURCE / "book" / "api.md")
    for text in texts():
        target = SOURCE / "notebooks" / f"{text.stem}.ipynb"
        if not run:
            shutil.copy(ROOT / "notebooks" / target.name, target)
            continue
        print(f"{text.stem}: running", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.ipynb"
            nbformat.write(from_text(text), source)
            execute(source, target, profile)
        hide_injected(target)
    copy_mathjax(SOURCE / "extra" / "mathjax")


def hide_injected(path: Path) -> None:
    """Leave the parameters that papermill injects out of the page; the cell above them already says what they are."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    nbformat.write(notebook, path)


def copy_mathjax(target: Path) -> None:
    """MathJax 3 from the package that carries it, so that the built book asks nobody for it."""
    spec = find_spec("mathjax")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("MathJax is missing: run `make env`")
    shutil.copytree(Path(spec.submodule_search_locations[0]) / "static" / "mathjax" / "es5", target)


def build() -> None:
    """Jupyter Book, warnings as errors, into _build/html."""
    out = BUILD / "jupyter-book"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "jupyter_book", "build", str(SOURCE), "--path-output", str(out), "-W", "-n", "--keep-going"]
    subprocess.run(command, check=True, cwd=ROOT)
    shutil.rmtree(HTML, ignore_errors=True)
    shutil.move(out / "_build" / "html", HTML)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default="ci")
    parser.add_argument("--no-execute", action="store_true", help="use the tracked notebooks as they are")
    args = parser.parse_args()
    stage(args.profile, not args.no_execute)
    build()
    problems = check_book(HTML, ROOT / "_toc.yml")
    if problems:
        raise SystemExit("the built book has faults:\n" + "\n".join(problems))
    print(f"The book is ready: open {HTML.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()

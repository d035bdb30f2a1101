"""Execute the notebooks and build the book, all inside _build/; tracked files stay as they are.

python scripts/book.py [--profile ci|class|full] [--no-execute]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from api_page import append_api
from notebooks import PROFILES, ROOT, execute, texts

BUILD = ROOT / "_build"
SOURCE, HTML = BUILD / "source", BUILD / "html"
MATHJAX_PARTS = ("tex-svg.js", "input/tex/extensions", "a11y", "sre")  # the renderer, its macros, its accessibility menu


def stage(profile: str, run: bool) -> None:
    """Copy what the book is made of into _build/source; with `run`, the notebooks are executed afresh."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    (SOURCE / "notebooks").mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, SOURCE)
    shutil.copytree(ROOT / "book", SOURCE / "book")
    append_api(SOURCE / "book" / "api.md")
    shutil.copytree(
        ROOT / "leader_nb" / "weights", SOURCE / "leader_nb" / "weights", ignore=shutil.ignore_patterns("*.safetensors")
    )
    for text in texts():
        target = SOURCE / "notebooks" / f"{text.stem}.ipynb"
        if run:
            print(execute(text, target, profile), flush=True)
        else:
            shutil.copy(ROOT / "notebooks" / target.name, target)
    copy_mathjax(SOURCE / "extra" / "mathjax")


def copy_mathjax(target: Path) -> None:
    """MathJax 3 from the package that carries it, so that the built book asks nobody for it."""
    spec = find_spec("mathjax")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("MathJax is missing: run `make env`")
    package = Path(spec.submodule_search_locations[0]) / "static" / "mathjax" / "es5"
    for part in MATHJAX_PARTS:
        source = package / part
        (target / part).parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target / part)
        else:
            shutil.copy(source, target / part)


def build() -> None:
    """Jupyter Book into _build/html, from scratch, warnings as errors."""
    for folder in (HTML, BUILD / ".doctrees", BUILD / "jupyter_execute"):
        shutil.rmtree(folder, ignore_errors=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", SOURCE, "--path-output", ROOT, "-W", "-n", "--keep-going", "--quiet"]
    if subprocess.run(command, cwd=ROOT).returncode:
        raise SystemExit("the book was not built: every warning above is an error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=PROFILES, default="ci")
    parser.add_argument("--no-execute", action="store_true", help="use the tracked notebooks as they are")
    args = parser.parse_args()
    stage(args.profile, not args.no_execute)
    build()
    print(f"The book is ready: open {HTML.relative_to(ROOT)}/index.html")


if __name__ == "__main__":
    main()

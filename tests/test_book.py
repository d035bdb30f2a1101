"""The book's sources agree with one another, before anything is built; and the checks of the built book can fail."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import jupytext
import nbformat
import pytest

from api_page import signature
from check_book import check_book, page_problems, style_problems, toc_pages
from notebooks import PASSING, ROOT, TEXT, differences, settled, strip, texts, twin

FORBIDDEN = re.compile(r"(?<![\w.~])/(root|home|work|Users)/|(py" + r"pi|python" + r"hosted|npm" + r"js)\.(org|com)")
FOOTER = "page_footer("


def notebook(text: Path) -> nbformat.NotebookNode:
    return nbformat.read(twin(text), as_version=4)


def code(nb: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def checks(cell: nbformat.NotebookNode) -> list[dict]:
    return [o.metadata["check"] for o in cell.outputs if "check" in o.get("metadata", {})]


# --- the sources ---------------------------------------------------------------------------------------------------


def test_there_are_chapters():
    assert len(texts()) >= 3


def test_every_chapter_is_in_the_contents_and_every_page_there_has_a_source():
    pages = toc_pages(ROOT / "_toc.yml")
    assert {f"notebooks/{t.stem}" for t in texts()} == {p for p in pages if p.startswith("notebooks/")}
    for page in pages:
        sources = [ROOT / f"{page}.md", ROOT / f"{page}.ipynb"]
        assert sum(s.is_file() for s in sources) == 1, f"{page}: needs one source, not both .md and .ipynb"


def test_no_notebook_lacks_its_text():
    assert {p.stem for p in TEXT.parent.glob("*.ipynb")} == {t.stem for t in texts()}


def test_no_tracked_text_names_a_machine_path_or_a_registry():
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    for name in filter(None, done.stdout.split("\0")):
        path = ROOT / name
        if path.is_file() and path.suffix not in {".safetensors", ".png", ".jpg"}:
            found = FORBIDDEN.search(path.read_text(encoding="utf-8", errors="replace"))
            assert not found, f"{name}: {found[0]}"


def test_every_dependency_is_pinned():
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    project = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:dependencies|book|test|published) = \[(.*?)\]$", project, re.M | re.S)
    names = {re.match(r"[\w.-]+", n)[0] for block in lists for n in re.findall(r'"([^"]+)"', block)}
    assert len(lists) == 4
    assert names <= pins, sorted(names - pins)


# --- one chapter ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", texts(), ids=lambda p: p.stem)
class TestChapter:
    def test_text_and_executed_notebook_are_the_same_cells(self, text):
        assert differences(text) == []

    def test_glued_numbers_are_plain(self, text):
        """The page cannot format the words `np.float64(1.0)`: glue float(...)."""
        for cell in code(notebook(text)):
            for output in cell.outputs:
                if "scrapbook" in output.get("metadata", {}):
                    assert not any("np.float" in str(value) for value in output["data"].values()), cell.source[:60]

    def test_first_code_cell_holds_the_parameters(self, text):
        first = code(notebook(text))[0]
        assert "parameters" in tags(first)
        assert re.search(r'^profile *= *"ci"', first.source, re.M)
        assert all(re.search(rf"^{name} *=", first.source, re.M) for name in ("device", "seed"))

    def test_every_cell_ran_and_is_short(self, text):
        for cell in code(notebook(text)):
            assert not any(o.output_type == "error" for o in cell.outputs)
            assert not any(o.get("name") == "stderr" for o in cell.outputs), f"a warning in: {cell.source[:60]}"
            assert len(cell.source.splitlines()) <= 40

    def test_every_picture_is_described(self, text):
        for cell in code(notebook(text)):
            if any(kind.startswith("image/") for o in cell.outputs for kind in o.get("data", {})):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt) > 20, f"no alt text for the picture of: {cell.source[:60]}"

    def test_claims_hold_and_lie_inside_their_bands(self, text):
        found = [c for cell in code(notebook(text)) for c in checks(cell)]
        assert found, "a chapter asserts at least one claim"
        for c in found:
            assert c["low"] is None or c["value"] >= c["low"], c
            assert c["high"] is None or c["value"] <= c["high"], c

    def test_claims_are_compared_when_the_notebook_is_run_again(self, text):
        for cell in code(notebook(text)):
            if checks(cell):
                assert "nbval-check-output" in tags(cell), f"tag nbval-check-output on: {cell.source[:60]}"

    def test_exercises_have_a_stub_that_fails_and_a_solution_that_passes(self, text):
        source = "\n".join(c.source for c in code(notebook(text)))
        stubs, solutions = (len(re.findall(rf"^expect_{word}\(", source, re.M)) for word in ("fail", "pass"))
        assert stubs == solutions >= 2

    def test_page_says_how_long_it_took(self, text):
        last = [cell for cell in code(notebook(text)) if FOOTER in cell.source]
        assert len(last) == 1
        assert PASSING in tags(last[0])

    def test_nothing_of_the_machine_leaks(self, text):
        assert not FORBIDDEN.search(twin(text).read_text(encoding="utf-8"))

    def test_is_stripped(self, text):
        nb = notebook(text)
        assert set(nb.metadata) == {"kernelspec", "language_info"}
        assert all("papermill" not in c.metadata and "execution" not in c.metadata for c in nb.cells)
        assert [c.execution_count for c in code(nb)] == list(range(1, len(code(nb)) + 1))


# --- the tools can fail --------------------------------------------------------------------------------------------


def page(folder: Path, body: str) -> Path:
    path = folder / "page.html"
    path.write_text(body)
    return path


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://example.org/x.js"></script>',
        '<link rel="stylesheet" href="//example.org/x.css">',
        '<img src="https://example.org/a.png" alt="a map">',
        '<img srcset="page.html 1x, https://example.org/b.png 2x" alt="a map">',
        "<style>@import url('https://example.org/font.css');</style>",
        '<p style="background: url(https://example.org/b.png)">x</p>',
        '<img src="gone.png" alt="a map">',
        '<a href="gone.html">x</a>',
        '<img src="page.html">',
        '<article><img src="page.html" alt=""></article>',
        '<article><img src="page.html" alt="../_images/a.png"></article>',
        '<div class="math">x</div>',
        '<div class="output stderr">UserWarning: old</div>',
        '<div class="output traceback">ValueError</div>',
        "<p>a step of $1/h$ almost everywhere</p>",
    ],
)
def test_a_page_with_a_fault_is_caught(tmp_path, body):
    assert len(page_problems(page(tmp_path, body))) == 1


def test_a_sound_page_passes(tmp_path):
    body = (
        '<img src="page.html" alt=""><article><img src="page.html" alt="a map of the variance"></article>'
        '<a href="https://example.org">x</a><a href="page.html#top">y</a><a href="mailto:a@example.org">z</a>'
        '<img src="data:image/png;base64,AAAA" alt="a dot">'
        "<p>from $3 to $ 4</p><pre>$x$ in a shell</pre>"
    )
    assert page_problems(page(tmp_path, body)) == []


def test_a_style_sheet_that_fetches_from_outside_is_caught(tmp_path):
    style = tmp_path / "x.css"
    style.write_text("@font-face { src: url(local.woff2), url( //example.org/font.woff2 ); }")
    assert style_problems(style) == ["fetches //example.org/font.woff2"]


def test_a_book_without_its_pages_is_caught(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: a\nparts:\n  - chapters:\n      - file: b.md\n        sections: [{file: c}]\n")
    (tmp_path / "a.html").write_text("<p>here</p>")
    faults = check_book(tmp_path, tmp_path / "_toc.yml")
    assert [f.split(":")[0] for f in faults] == ["b", "c", "index.html", "mathjax/tex-svg.js"]


def test_a_wide_signature_takes_one_line_per_parameter():
    def wide(first: int, *, second: str = "a value that is long enough to fill the line", third: float = 0.5) -> None: ...

    assert signature("narrow", lambda x: x) == "def narrow(x)"
    lines = signature("wide", wide).splitlines()
    assert [line.strip().split(":")[0] for line in lines] == ["def wide(", "first", "*,", "second", "third", ") -> None"]


def two_cells(footer: str) -> nbformat.NotebookNode:
    output = nbformat.v4.new_output("stream", text=footer)
    last = nbformat.v4.new_code_cell("page_footer(start)", outputs=[output], metadata={"tags": [PASSING]})
    return strip(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1"), last]), "00")


def test_a_new_footer_alone_is_no_change():
    assert settled(two_cells("4 s")) == settled(two_cells("5 s"))
    changed = two_cells("4 s")
    changed.cells[0].source = "2"
    assert settled(two_cells("4 s")) != settled(changed)


def test_a_text_and_a_notebook_that_disagree_are_caught(tmp_path, monkeypatch):
    monkeypatch.setattr("notebooks.NOTEBOOKS", tmp_path)
    text = tmp_path / "00-x.md"
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell("x = 1")])
    jupytext.write(nb, text, fmt="md:myst")
    assert "no notebook" in differences(text)[0]
    nbformat.write(jupytext.read(text), twin(text))
    assert differences(text) == []
    nb.cells[1].source = "x = 2"
    nbformat.write(nb, twin(text))
    assert len(differences(text)) == 1

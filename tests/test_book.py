"""The book's sources agree with one another, before anything is built."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import jupytext
import nbformat
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from check_book import page_problems, style_problems, toc_pages  # noqa: E402

TEXTS = sorted((ROOT / "notebooks" / "text").glob("*.md"))
FORBIDDEN = re.compile(r"/(root|home|work)/|(py" + r"pi|python" + r"hosted|npm" + r"js)\.(org|com)")


def notebook(text: Path) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{text.stem}.ipynb", as_version=4)


def code(nb: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in nb.cells if cell.cell_type == "code"]


def checks(nb: nbformat.NotebookNode) -> list[dict]:
    return [o.metadata["check"] for c in code(nb) for o in c.outputs if "check" in o.get("metadata", {})]


def test_there_are_chapters():
    assert len(TEXTS) >= 3


def test_every_page_of_the_contents_has_a_source():
    for page in toc_pages(ROOT / "_toc.yml"):
        assert (ROOT / f"{page}.md").is_file() or (ROOT / f"{page}.ipynb").is_file(), page


@pytest.mark.parametrize("text", TEXTS, ids=lambda p: p.stem)
class TestChapter:
    def test_text_and_executed_notebook_are_the_same_cells(self, text):
        wanted = [(c.cell_type, c.source) for c in jupytext.read(text).cells]
        assert [(c.cell_type, c.source) for c in notebook(text).cells] == wanted

    def test_first_code_cell_holds_the_parameters(self, text):
        first = code(notebook(text))[0]
        assert "parameters" in first.metadata.tags
        assert all(re.search(rf"^{name} *=", first.source, re.M) for name in ("profile", "device", "seed"))

    def test_no_cell_failed_and_every_code_cell_is_short(self, text):
        for cell in code(notebook(text)):
            assert not any(o.output_type == "error" for o in cell.outputs)
            assert len(cell.source.splitlines()) <= 40

    def test_every_picture_is_described(self, text):
        for cell in code(notebook(text)):
            if any("image/png" in o.get("data", {}) for o in cell.outputs):
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                assert len(alt) > 20, f"no alt text for the picture of: {cell.source[:60]}"

    def test_claims_hold_and_lie_inside_their_bands(self, text):
        found = checks(notebook(text))
        assert found, "a chapter asserts at least one claim"
        for c in found:
            assert c["low"] is None or c["value"] >= c["low"], c
            assert c["high"] is None or c["value"] <= c["high"], c

    def test_exercises_have_a_stub_that_fails_and_a_solution_that_passes(self, text):
        source = "\n".join(c.source for c in code(notebook(text)))
        assert len(re.findall(r"expect_fail\(", source)) >= 2
        assert len(re.findall(r"expect_pass\(", source)) >= 2

    def test_nothing_of_the_machine_leaks(self, text):
        raw = (ROOT / "notebooks" / f"{text.stem}.ipynb").read_text()
        assert not FORBIDDEN.search(raw)

    def test_stripped(self, text):
        nb = notebook(text)
        assert "papermill" not in nb.metadata
        assert all("papermill" not in c.metadata and "execution" not in c.metadata for c in nb.cells)


def test_a_page_that_fetches_from_outside_or_hides_a_picture_is_caught(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<script src="https://example.org/x.js"></script><link rel="stylesheet" href="//example.org/x.css">'
        '<img src="_images/a.png" alt="_images/a.png"><a href="https://example.org">fine</a>'
    )
    assert len(page_problems(page)) == 3
    style = tmp_path / "x.css"
    style.write_text("@import url('https://example.org/font.css');")
    assert style_problems(style)


def test_a_sound_page_passes(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<script src="_static/x.js"></script><img src="a.png" alt="a map of the variance"><a href="https://x.org">x</a>')
    assert page_problems(page) == []

"""The table of chapter 11 holds every line of the paper's Algorithm 1, and its Python is that of the loop below it."""

from __future__ import annotations

import re

import jupytext
import pytest

from notebooks import TEXT

HEADINGS = {3, 7, 11, 15, 19}  # comments of the box, and the end of its loop


def rows(text: str) -> list[tuple[str, str, list[str]]]:
    """(line of the box, what it does, its lines of Python) for every row of the table."""
    found = re.findall(r"^\| (in|\d+) \| (.+?) \| (.*)\|$", text, re.M)
    return [(number, words, re.findall(r"`([^`]+)`", python)) for number, words, python in found]


def loop(text: str) -> list[tuple[str, str]]:
    """(code, number in its comment or '') for every line of `algorithm_1`, in order."""
    cells = [cell.source for cell in jupytext.reads(text, fmt="md:myst").cells if cell.cell_type == "code"]
    (source,) = (cell for cell in cells if cell.startswith("def algorithm_1"))
    parts = [re.match(r"\s*(.*?)\s*(?:# +(\d*).*)?$", line) for line in source.splitlines()]
    return [(part[1], part[2] or "") for part in parts if part]


def mismatches(text: str) -> list[str]:
    """What is wrong with the table, one line per fault."""
    table, code, faults = rows(text), loop(text), []
    numbers = [number for number, _, _ in table]
    if numbers != ["in", *map(str, range(1, 21))]:
        faults.append(f"the box has an input and the lines 1 to 20; the table has {numbers}")
    for number, _, python in table:
        numbered = [line for line, own in code if own == number] if number != "in" else [code[0][0]]
        shown = [line for line in numbered if line]
        if python != shown:
            faults.append(f"line {number}: the table shows {python}, the loop has {shown}")
        if bool(python) == (number.isdigit() and int(number) in HEADINGS):
            faults.append(f"line {number}: Python where the box has a heading, or none where it has not")
    told = [int(number) for _, number in code if number]
    return faults if told == sorted(told) else [*faults, f"the loop's numbers are out of order: {told}"]


def chapter() -> str:
    return (TEXT / "11-algorithm-1.md").read_text(encoding="utf-8")


def test_table_and_loop_are_the_same_lines() -> None:
    assert mismatches(chapter()) == []


@pytest.mark.parametrize(
    ("here", "there"),
    [
        ("`k_next = max(0, k - step)`", "`k_next = k - step`"),
        ("| 18 | $k", "| 21 | $k"),
        ("k = k_next                                         # 18", "k = k_next"),
        ("cov = clipped(covariance_from_fisher(F, belief.abar), belief.sigma)    # 6", "cov = F    # 6"),
    ],
)
def test_a_table_that_has_drifted_is_found(here: str, there: str) -> None:
    assert here in chapter()
    assert mismatches(chapter().replace(here, there)) != []

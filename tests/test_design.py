"""The hosts are short: the lines of their classes are those that the design page gives."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

from leader_nb import SAMPLERS, host

DESIGN = Path(__file__).parent.parent / "book" / "design.md"


def lines(kind: type) -> int:
    """Of a class, decorator included, without blank lines, docstrings and `__post_init__`."""
    text = textwrap.dedent(inspect.getsource(kind))
    dropped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == "__post_init__":
            dropped |= {*range(node.lineno, (node.end_lineno or 0) + 1)}
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            dropped |= {*range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)}
    return sum(bool(line.strip()) for number, line in enumerate(text.splitlines(), 1) if number not in dropped)


def test_the_counting() -> None:
    class Two:
        """A docstring
        on two lines."""

        def __post_init__(self) -> None:
            raise AssertionError

        def one(self) -> int:
            """Another."""

            return 1  # with the two above, three

    assert lines(Two) == 3


def test_the_design_page_counts_right() -> None:
    said = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", DESIGN.read_text(), re.M))
    kinds = {type(host(name, 0.0)) for name in SAMPLERS}
    counted = {kind.__name__: str(lines(kind)) for kind in kinds if kind.__name__ in said}  # a host of yours need not be there
    assert counted == said and len(said) == 10
    assert [int(number) for number in said.values()] == sorted(int(number) for number in said.values())

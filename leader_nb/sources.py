"""A hash of the code that decides a number: of some modules, and of all in this package that they import."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path

PACKAGE = "leader_nb"
ROOT = Path(__file__).parent
# Their changes alter no number: pictures and weights are hashed themselves, and the rest is words.
IGNORED = {f"{PACKAGE}.{name}" for name in ("errors", "data", "downloads", "lpips_weights")}


def source_hash(modules: Iterable[str]) -> str:
    """sha256 over the code of `modules` and of what they import from the package, comments and docstrings aside."""
    digest = hashlib.sha256()
    for name in sorted(closure(frozenset(modules))):
        digest.update(f"{name}\n{code(name)}\n".encode())
    return digest.hexdigest()


def modules_of(value: object) -> set[str]:
    """The package's modules that define the type of `value`, and of the values inside dataclasses, dictionaries and tuples."""
    found = {getattr(value, "__module__", None) or type(value).__module__}
    inside: Iterable[object] = ()
    if isinstance(value, dict):
        inside = value.values()
    elif isinstance(value, (tuple, list, set, frozenset)):
        inside = value
    elif is_dataclass(value):
        inside = (getattr(value, f.name) for f in fields(value))
    for part in inside:
        found |= modules_of(part)
    return {name for name in found if file_of(name)}


@lru_cache(maxsize=64)
def closure(modules: frozenset[str]) -> frozenset[str]:
    """`modules` and everything that they import from the package, directly or not."""
    found: set[str] = set()
    waiting = set(modules)
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= set(imports(name)) - found - IGNORED
    return frozenset(found)


def imports(name: str) -> Iterator[str]:
    """The package's modules that the module `name` imports, wherever in its text."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (m for m in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)) if file_of(m))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if file_of(alias.name))


def file_of(name: str) -> Path | None:
    """Where a module of the package is; None for others, and for the package's own list of names."""
    package, *parts = name.split(".")
    if package != PACKAGE or not parts:
        return None
    stem = ROOT.joinpath(*parts)
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


@lru_cache(maxsize=256)
def tree(name: str) -> ast.Module:
    path = file_of(name)
    assert path is not None, f"{name} is no module of {PACKAGE}"
    return ast.parse(path.read_text(encoding="utf-8"))


@lru_cache(maxsize=256)
def code(name: str) -> str:
    """The text of a module without comments, docstrings and layout."""
    bare = ast.parse(ast.unparse(tree(name)))
    for node in ast.walk(bare):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            words = [n for n in body if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)]
            node.body = [n for n in body if n not in words] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(bare)

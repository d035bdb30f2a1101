"""The reference page of the book, written from the docstrings so that it cannot fall behind the code."""

from __future__ import annotations

import inspect
from pathlib import Path

import leader_nb
from leader_nb import covariance, equations, steps, ucpm

GROUPS = {
    "Top level": (leader_nb, leader_nb.__all__),
    "Uncertainty maps": (covariance, ["Isotropic", "ScoreSquared", "RunningSecant"]),
    "Modulation": (ucpm, ["HuberTV", "UCPM"]),
    "Step rules": (steps, ["Uniform", "SATP", "ErrorControlled"]),
    "Equations": (equations, [n for n, f in vars(equations).items() if inspect.isfunction(f)]),
}


def entry(name: str, thing: object) -> str:
    """One name: its signature and its docstring."""
    if not callable(thing):
        return f"### {name}\n\n```python\n{name} = {thing!r}\n```\n"
    try:
        signature = str(inspect.signature(thing)).replace("leader_nb.", "")
    except (TypeError, ValueError):
        signature = ""
    kind = "class" if inspect.isclass(thing) else "def"
    doc = inspect.cleandoc(thing.__doc__ or "").replace("``", "`")
    return f"### {name}\n\n```python\n{kind} {name}{signature}\n```\n\n```text\n{doc}\n```\n"


def append_api(page: Path) -> None:
    """Write every group after the page's introduction."""
    parts = [page.read_text()]
    for title, (module, names) in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [entry(name, getattr(module, name)) for name in names]
    page.write_text("\n".join(parts))

"""The reference page of the book, written from the docstrings so that it cannot fall behind the code."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import leader_nb
from leader_nb import adapters, calibration, conditioning, covariance, equations, oracle, propositions, start, steps, ucpm

WIDTH = 88  # characters of a signature that fit on a page
GROUPS = {
    "Top level": (leader_nb, leader_nb.__all__),
    "Other people's networks": (adapters, ["prior_from_diffusers", "prior_from_denoiser", "grid_within", "times_within"]),
    "Uncertainty maps": (covariance, [n for n in covariance.__all__ if inspect.isclass(getattr(covariance, n))]),
    "The exact covariance": (oracle, ["exact_covariance", "ExactCovariance"]),
    "Draws against the exact posterior": (calibration, ["Exact", "pose", "told", "blind", "Ancestral", "score", "ranks"]),
    "Modulation": (ucpm, ["UCPM", *(p.__name__ for p in ucpm.POTENTIALS)]),
    "What a measurement leaves open": (conditioning, ["LeftOpen", "left_open"]),
    "Step rules": (steps, ["Uniform", "SATP", "ErrorControlled", "PIControlled", "TimeTravel", "LateStart"]),
    "Where to begin": (
        start,
        [
            "start_within",
            "MeasuredStart",
            "measured_start",
            "GaussianMean",
            "PowerSpectrum",
            "measure_spectrum",
            "posterior_mean",
            "widest",
        ],
    ),
    "The propositions": (
        propositions,
        [
            *("consistency", "Consistency", "left_over", "MixtureMap", "Walk", "walk_of", "ddim_walk"),
            *("error_growth", "ErrorGrowth", "flow", "jacobian", "steepest", "step_matrix"),
        ],
    ),
    "Equations": (equations, [n for n, f in vars(equations).items() if inspect.isfunction(f)]),
}


def signature(name: str, thing: Callable[..., object]) -> str:
    """`def name(...)` or `class name(...)`, one parameter a line where it would be wide, annotations without quotes."""
    kind = "class" if inspect.isclass(thing) else "def"
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return f"{kind} {name}"
    if kind == "class":
        found = found.replace(return_annotation=inspect.Signature.empty)
    line = f"{kind} {name}{_plain(str(found))}"
    if len(line) <= WIDTH:
        return line
    after = line[line.rindex(")") + 1 :] if "->" in line else ""
    return "\n".join([f"{kind} {name}(", *(f"    {part}," for part in _parts(found)), f"){after}"])


def _parts(found: inspect.Signature) -> Iterator[str]:
    starred = False
    for parameter in found.parameters.values():
        starred |= parameter.kind == parameter.VAR_POSITIONAL
        if parameter.kind == parameter.KEYWORD_ONLY and not starred:
            starred = True
            yield "*"
        yield _plain(str(parameter))


def _plain(text: str) -> str:
    return re.sub(r"(: |-> )'([^']*)'", r"\1\2", text).replace("leader_nb.", "")


def entry(name: str, thing: object) -> str:
    """One name: its signature and its docstring."""
    if not callable(thing):
        items = "".join(f"    {item!r},\n" for item in thing) if isinstance(thing, tuple) else repr(thing)
        return f"### {name}\n\n```python\n{name} = (\n{items})\n```\n"
    doc = inspect.cleandoc(thing.__doc__ or "").replace("``", "`")
    return f"### {name}\n\n```python\n{signature(name, thing)}\n```\n\n```text\n{doc}\n```\n"


def append_api(page: Path) -> None:
    """Write every group after the page's introduction."""
    parts = [page.read_text()]
    for title, (module, names) in GROUPS.items():
        parts.append(f"\n## {title}\n")
        parts += [entry(name, getattr(module, name)) for name in names]
    page.write_text("\n".join(parts))

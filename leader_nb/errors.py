"""Mistakes a reader can mend, each said in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Number
from typing import Any


class InputError(ValueError):
    """A mistake in what the user gave: names the argument, what was given and what would work.

    The command line prints the one line and exits with status 2; in a notebook it is an ordinary `ValueError`.
    """


@dataclass(frozen=True)
class Failure:
    """Image `image` ended at `step` of `steps`, at raw time `t`, because what `culprit` gave was not finite."""

    image: int
    step: int
    steps: int
    t: int
    culprit: str

    def __str__(self) -> str:
        return f"image {self.image}: {self.culprit} is not finite at step {self.step} of {self.steps} (t = {self.t})"


class Diverged(InputError):
    """Some images met a NaN or an infinity, and were left there; the others went on to their end.

    `failures` says which, where and why; `result` is the whole :class:`Result`, with NaN for the images that failed.
    """

    def __init__(self, failures: tuple[Failure, ...], result: Any = None) -> None:
        super().__init__("; ".join(map(str, failures)))
        self.failures, self.result = failures, result


def one_line(error: BaseException) -> str:
    """What another library's error says, on one line and not too long; its kind where it says nothing."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def kind_of(value: object) -> str:
    """What somebody gave, in a word or two: 'ddnm', 0.1, the class DDNM, a value of type Tensor."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, (str, Number)):
        return repr(value)
    return f"a value of type {type(value).__name__}"


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that reads most like `name`, capitals aside, or None where nothing comes close."""
    folded = {choice.casefold(): choice for choice in choices}
    close = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[close[0]] if close else None


def unknown(kind: str, name: object, choices: Iterable[str]) -> InputError:
    """The error (returned, not raised) for a `name` that is none of the `choices` of this `kind`."""
    choices = tuple(choices)
    close = nearest(name, choices) if isinstance(name, str) else None
    hint = f"did you mean {close!r}? " if close else ""
    return InputError(f"unknown {kind} {name!r}: {hint}choose one of {', '.join(choices)}")

"""Checks for notebooks: a claim prints one line that never changes, and keeps the number behind it in the cell's metadata."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import date

import numpy as np
import torch
from torch import Tensor

UNSOLVED = (AssertionError, NotImplementedError, TypeError, AttributeError)  # also what comes of returning None


def check(claim: str, value: float | bool | Tensor, low: float | None = None, high: float | None = None) -> None:
    """Assert low <= value <= high (or that a bool is true) and print `ok  <claim>`.

    `value` is one number, in whatever unit the claim says; tensors and NumPy scalars of one element will do. It goes with
    its band into the output's metadata, where a test compares them; the printed line has no number, so that it is the
    same on every machine. Raises AssertionError with value and band where the claim fails (NaN always does), ValueError
    for a number without a band.
    """
    number, truth = float(value), isinstance(value, bool | np.bool_) or getattr(value, "dtype", None) is torch.bool
    if truth:
        low = 1.0
    elif low is None and high is None:
        raise ValueError(f"check {claim!r}: give low, high or both, or a bool")
    inside = (low is None or number >= low) and (high is None or number <= high)
    if not inside:
        band = "true" if truth else f"between {'-inf' if low is None else low} and {'inf' if high is None else high}"
        raise AssertionError(f"{claim}: got {bool(number) if truth else format(number, '.6g')}, expected {band}")
    _display(f"ok  {claim}", {"check": {"claim": claim, "value": number, "low": low, "high": high}})


def expect_fail(test: Callable[..., object], candidate: object) -> None:
    """Assert that `test(candidate)` fails, as the stub of an exercise must, and say that it is still to be solved.

    A test fails by AssertionError, NotImplementedError, TypeError or AttributeError. Raises AssertionError if it passes.
    """
    try:
        test(candidate)
    except UNSOLVED:
        _display("to do  this exercise waits for you", {})
        return
    raise AssertionError("the stub passes its own check: either it is solved already or the check cannot fail")


def expect_pass(test: Callable[..., object], candidate: object) -> None:
    """Assert that `test(candidate)` passes, as a solution must, and say so. Raises whatever the test raises."""
    test(candidate)
    _display("ok  solved", {})


def page_footer(start: float, device: str | torch.device = "cpu") -> None:
    """Say how long the page took, on what, and when; `start` is `time.perf_counter()` at its top, in seconds.

    Tag its cell `nbval-ignore-output`: the line is new in every run.
    """
    seconds, threads = time.perf_counter() - start, torch.get_num_threads()
    machine = f"{torch.device(device).type} ({threads} thread{'s' * (threads != 1)}), Python {platform.python_version()}"
    release = torch.__version__.split("+")[0]
    print(f"This page ran in {seconds:.0f} s on {machine}, PyTorch {release}, {date.today():%d %B %Y}.")


def _display(line: str, metadata: dict[str, object]) -> None:
    """Print a line, or in a notebook show it with metadata."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        print(line)
        return
    if get_ipython() is None:
        print(line)
    else:
        display({"text/plain": line}, metadata=metadata, raw=True)

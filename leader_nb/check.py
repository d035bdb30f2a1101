"""Checks for notebooks: a claim prints one line that never changes, and keeps the number behind it in the cell's metadata."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from datetime import date

import torch


def check(claim: str, value: float | bool, low: float | None = None, high: float | None = None) -> None:
    """Assert low <= value <= high (or that a bool is true) and print `ok  <claim>`.

    The value and its band go into the output's metadata, where a test compares them; the printed line has no number,
    so that it is the same on every machine. Raises AssertionError with the value and the band.
    """
    if isinstance(value, bool):
        number, low = float(value), 1.0
    else:
        number = float(value)
        if low is None and high is None:
            raise ValueError(f"check {claim!r}: give low, high or both, or a bool")
    inside = (low is None or number >= low) and (high is None or number <= high)  # False for NaN
    if not inside:
        raise AssertionError(f"{claim}: got {number:.6g}, expected a value in [{low}, {high}]")
    _display(f"ok  {claim}", {"check": {"claim": claim, "value": number, "low": low, "high": high}})


def expect_fail(test: Callable[..., object], candidate: object) -> None:
    """Assert that `test(candidate)` fails, as the stub of an exercise must, and say so."""
    try:
        test(candidate)
    except (AssertionError, NotImplementedError, TypeError):
        _display("to do  this exercise waits for you", {})
        return
    raise AssertionError("the stub passes its own check: either it is solved already or the check cannot fail")


def expect_pass(test: Callable[..., object], candidate: object) -> None:
    """Assert that `test(candidate)` passes, as a solution must, and say so."""
    test(candidate)
    _display("ok  solved", {})


def page_footer(start: float, device: str | torch.device = "cpu") -> None:
    """Say how long the page took (start: `time.perf_counter()` at its top), on what, and when."""
    seconds = time.perf_counter() - start
    machine = f"{torch.device(device).type}, {torch.get_num_threads()} threads, Python {platform.python_version()}"
    print(f"This page ran in {seconds:.0f} s on {machine}, PyTorch {torch.__version__}, {date.today():%d %B %Y}.")


def _display(line: str, metadata: dict[str, object]) -> None:
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

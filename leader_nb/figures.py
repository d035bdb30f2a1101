"""Pictures for the book: no logic, only layout. Every function returns a matplotlib figure and draws nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

INK, MUTED, BLUE, ORANGE, GREEN, RED = "#1f2430", "#6b7280", "#2f6fb0", "#d97706", "#2e8b57", "#c2413b"
STYLE: dict[Any, Any] = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "figure.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.edgecolor": "#9aa3af",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.prop_cycle": plt.cycler(color=[BLUE, ORANGE, GREEN, RED, MUTED]),
    "legend.frameon": False,
    "image.interpolation": "nearest",
}


@contextmanager
def style() -> Iterator[None]:
    """The book's look, for figures made outside this module: `with style(): ...`."""
    with plt.rc_context(STYLE):
        yield
        interactive = matplotlib.is_interactive()
    matplotlib.interactive(interactive)  # a notebook's backend may have come up inside; leaving must not switch it off


def to_pixels(image: Tensor) -> np.ndarray:
    """(C, H, W) in [-1, 1] -> (H, W, 3) in [0, 1], clamped; grey becomes three equal channels."""
    rgb = image.detach().float().cpu().clamp(-1, 1).expand(3, *image.shape[1:])
    return ((rgb + 1) / 2).permute(1, 2, 0).numpy()


def plate(rows: Mapping[str, Sequence[Tensor]], titles: Sequence[str], width: float = 9.0) -> Figure:
    """A grid of pictures: one row for each name in `rows`, one column for each title; tensors (C, H, W) in [-1, 1]."""
    count, columns = len(rows), len(titles)
    with style():
        side = width / columns
        figure, axes = plt.subplots(count, columns, figsize=(width, side * count + 0.3), squeeze=False, layout="constrained")
        for axis_row, (name, images) in zip(axes, rows.items(), strict=True):
            for axis, image in zip(axis_row, images, strict=True):
                axis.imshow(to_pixels(image))
                bare(axis)
            axis_row[0].set_ylabel(name)
        for axis, title in zip(axes[0], titles, strict=True):
            axis.set_title(title)
    return figure


def strip(images: Sequence[Tensor], titles: Sequence[str], width: float = 9.0) -> Figure:
    """One row of pictures with titles; tensors (C, H, W) in [-1, 1]."""
    return plate({"": images}, titles, width)


def map_beside(image: Tensor, cov: Tensor, titles: Sequence[str], width: float = 7.0) -> Figure:
    """A picture (C, H, W) beside the standard deviation sqrt(cov) of its pixels, in [0, 1] units, with its scale."""
    deviation = cov.detach().float().cpu().mean(0).sqrt().numpy() / 2
    with style():
        figure, axes = plt.subplots(1, 2, figsize=(width, width / 2), layout="constrained")
        axes[0].imshow(to_pixels(image))
        shown = axes[1].imshow(deviation, cmap="magma", vmin=0)
        for axis, title in zip(axes, titles, strict=True):
            bare(axis)
            axis.set_title(title)
        figure.colorbar(shown, ax=axes[1], shrink=0.85, label="standard deviation")
    return figure


def curves(x: Sequence[float], lines: Mapping[str, Sequence[float]], xlabel: str, ylabel: str, width: float = 7.0) -> Figure:
    """Named curves over one axis."""
    with style():
        figure, axis = plt.subplots(figsize=(width, width * 0.5), layout="constrained")
        for name, y in lines.items():
            axis.plot(x, y, marker="o", markersize=3, label=name)
        axis.set(xlabel=xlabel, ylabel=ylabel)
        axis.legend()
    return figure


def bare(axis: plt.Axes) -> None:
    """No ticks, no frame: an axis that is only a picture."""
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)

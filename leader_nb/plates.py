"""The pictures of a report: a labelled plate to compare with, and an uncertainty map painted in colours.

Figures are built without pyplot, so that no window system is asked for and a notebook's backend is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from leader_nb.figures import INK, MUTED

COLOURS = "magma"
DPI = 100
EDGE, GAP, HEADING, TITLE, CAPTION = 28, 18, 74, 36, 50  # pixels around, between, above and below the panels
PANEL, WIDEST, NARROWEST = 400, 640, 250  # pixels: the side a panel aims at, its limit, and what its text needs


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture of a plate: `pixels` (H, W, 3) in [0, 1], or (H, W), a map painted from 0 to `high`, with its scale."""

    title: str
    caption: str
    pixels: np.ndarray
    high: float | None = None


def plate(panels: Sequence[Panel], heading: str, subheading: str) -> Figure:
    """Panels in one row, all drawn in the size of the largest; a smaller picture (a low resolution) in visible blocks.

    Sizes are whole multiples of the picture's pixels where it is small, so that no pixel is blurred or dropped.
    """
    height, width = np.array([p.pixels.shape[:2] for p in panels]).max(0)
    longest = max(height, width)
    zoom = min(max(1, round(PANEL / longest)), WIDEST / longest)
    tall, wide = round(height * zoom), round(width * zoom)
    cell = max(wide, NARROWEST)
    total = (2 * EDGE + len(panels) * (cell + GAP) - GAP, HEADING + TITLE + tall + CAPTION + EDGE // 2)
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "text.color": INK, "axes.labelcolor": INK}):
        figure = Figure(figsize=(total[0] / DPI, total[1] / DPI), dpi=DPI, facecolor="white")
        FigureCanvasAgg(figure)
        _text(figure, EDGE, total[1] - 34, heading, total, size=16, weight="bold")
        _text(figure, EDGE, total[1] - 60, subheading, total, size=11, color=MUTED)
        for i, panel in enumerate(panels):
            left = EDGE + i * (cell + GAP)
            box = (left + (cell - wide) // 2, CAPTION + EDGE // 2, wide, tall)
            _draw(figure, panel, box, total, left)
    return figure


def _text(figure: Figure, x: float, y: float, text: str, total: tuple[int, int], **style: object) -> None:
    figure.text(x / total[0], y / total[1], text, **style)  # type: ignore[arg-type]


def _axes(figure: Figure, box: tuple[float, float, float, float], total: tuple[int, int]) -> Axes:
    return figure.add_axes((box[0] / total[0], box[1] / total[1], box[2] / total[0], box[3] / total[1]))


def _draw(figure: Figure, panel: Panel, box: tuple[int, int, int, int], total: tuple[int, int], left: int) -> None:
    axes = _axes(figure, box, total)
    interpolation = "nearest" if max(panel.pixels.shape[:2]) <= max(box[2:]) else "antialiased"
    colours = {} if panel.high is None else {"cmap": COLOURS, "vmin": 0.0, "vmax": panel.high}
    shown = axes.imshow(panel.pixels, interpolation=interpolation, aspect="auto", **colours)  # type: ignore[arg-type]
    axes.set_axis_off()
    _text(figure, left, box[1] + box[3] + 12, panel.title, total, size=13, weight="bold")
    if panel.high is None:
        _text(figure, left, box[1] - 10, panel.caption, total, size=11, va="top", linespacing=1.35)
    else:
        _scale(figure, shown, panel, (left, box[1] - 22, max(box[2], NARROWEST), 10), total)


def _scale(figure: Figure, shown: ScalarMappable, panel: Panel, box: tuple[int, int, int, int], total: tuple[int, int]) -> None:
    bar = figure.colorbar(shown, cax=_axes(figure, box, total), orientation="horizontal", extend="neither")
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.set_ticks([0.0, panel.high or 1.0], labels=["0", f"{panel.high:g}"])
    bar.ax.tick_params(length=0, pad=4, labelsize=10, colors=MUTED)
    first, last = bar.ax.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")
    _text(figure, box[0] + box[2] / 2, box[1] - 17, panel.caption, total, size=10, color=MUTED, ha="center")


def save_plate(figure: Figure, file: BinaryIO) -> None:
    """Write a plate as PNG at its own pixels."""
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": "leader-nb"})


def nice_ceiling(deviation: np.ndarray) -> float:
    """A round number just above all but 0.5 % of a map: the upper end of its colour scale."""
    high = float(np.quantile(deviation, 0.995))
    if not (math.isfinite(high) and high > 0):
        return 1.0
    power = 10.0 ** math.floor(math.log10(high))
    return next(float(f"{m * power:.3g}") for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10, 12) if m * power >= high)


def save_map(deviation: np.ndarray, high: float, text: dict[str, str], file: BinaryIO) -> None:
    """Write a map (H, W) >= 0 as a PNG of its own size, painted from 0 to `high`; its text says what colours mean."""
    paint = ScalarMappable(Normalize(0.0, high, clip=True), COLOURS)
    rgb = np.asarray(paint.to_rgba(deviation, bytes=True))[..., :3]
    notes = PngInfo()
    levels = {"low": "0", "high": f"{high:g}", "minimum": f"{deviation.min():.6g}", "maximum": f"{deviation.max():.6g}"}
    for name, value in {"colour map": COLOURS, **levels, **text}.items():
        notes.add_text(name, value)
    Image.fromarray(np.ascontiguousarray(rgb)).save(file, format="PNG", pnginfo=notes)

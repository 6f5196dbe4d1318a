"""What all drawings share: colors, figures without a screen, curves, grids of images, PNG files.

matplotlib is imported when something is drawn, and only its parts that need no screen.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.dependencies import require

#: Colors of drawings, which are dark on light and dark pages alike.
INK, MUTED, PAPER = "#f2f4f7", "#9aa4b2", "#0b0d10"
#: Of curves and bars, and of what they are compared with.
LINE, CONTRAST = "#6cb6ff", "#e8762c"
#: Color maps: of images, of differences (see `register_difference_colors`), of uncertainties.
GRAY, DIFFERENCE, HEAT = "gray", "MedEnhance difference", "magma"
_DPI = 110
_CURVE_COLUMNS, _CURVE_IN = 3, (3.9, 2.3)
_IMAGE_IN = 2.1
_PURPOSE = "Drawing pictures"


def new_figure(size_in: tuple[float, float], *, dpi: float = _DPI, **options: Any) -> Any:
    """A matplotlib figure on dark paper; size_in: width and height in inches."""
    figures = require("matplotlib.figure", purpose=_PURPOSE)
    return figures.Figure(figsize=size_in, dpi=dpi, facecolor=PAPER, **options)


def save_figure(path: Path, figure: Any, *, overwrite: bool = True) -> None:
    """Write a PNG, the same bytes for the same figure.

    Raises OutputError where `path` cannot be written, or exists and `overwrite` is False.
    """
    with atomic_write(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(png_of(figure))


def png_of(figure: Any) -> bytes:
    """A figure as PNG, the same bytes for the same figure."""
    agg = require("matplotlib.backends.backend_agg", purpose=_PURPOSE)
    buffer = io.BytesIO()
    canvas = agg.FigureCanvasAgg(figure)
    # Laid out once: a second layout begins where the first ended, and ends elsewhere.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    canvas.print_png(buffer, metadata={"Software": "MedEnhance"})
    return buffer.getvalue()


def darken(axes: Any, title: str) -> None:
    """Give axes the look of the pages: dark, with a thin grid and the title at the left."""
    axes.set_facecolor(PAPER)
    axes.set_title(title, color=INK, fontsize=9.5, loc="left", parse_math=False)
    axes.tick_params(colors=MUTED, labelsize=7.5, length=2)
    axes.grid(color="#222a33", linewidth=0.6)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_color("#2a333f")


def draw_curves(
    path: Path,
    curves: Mapping[str, Sequence[tuple[int, float]]],
    levels: Mapping[str, float] | None = None,
) -> None:
    """Write a PNG with a panel for each curve, three in a row.

    Args:
        path: replaced where it exists.
        curves: by name, (step, value) each.
        levels: by the name of a curve, a value drawn as a dashed line in its panel.
    """
    rows = max(1, math.ceil(len(curves) / _CURVE_COLUMNS))
    size = (_CURVE_COLUMNS * _CURVE_IN[0], rows * _CURVE_IN[1])
    figure = new_figure(size, layout="constrained")
    for index, (name, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, _CURVE_COLUMNS, index + 1)
        darken(axes, name)
        steps, values = zip(*curve, strict=True)
        axes.plot(steps, values, color=LINE, linewidth=1.3, marker="." if len(steps) < 9 else "")
        if name in (levels or {}):
            axes.axhline((levels or {})[name], color=CONTRAST, linewidth=1, linestyle="--")
    save_figure(path, figure)


def draw_image_grid(
    path: Path,
    rows: Mapping[str, Any],
    *,
    reference: str,
    heat: str = "",
    titles: Sequence[str] = (),
) -> None:
    """Write a PNG with a named row of images for each entry, their columns below each other.

    Args:
        path: replaced where it exists.
        rows: by name, images [P, P] of equal number.
        reference: the row whose images set the gray levels of their columns.
        heat: a row drawn in color instead, from 0 to its 99.5th percentile.
        titles: above the columns.
    """
    count = len(rows[reference])
    size = (count * _IMAGE_IN + 0.3, len(rows) * _IMAGE_IN)
    figure = new_figure(size, layout="constrained")
    brightest = float(np.percentile(np.asarray(rows[heat]), 99.5)) or 1.0 if heat else 1.0
    for row, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            axes = figure.add_subplot(len(rows), count, row * count + column + 1)
            axes.set_xticks([])
            axes.set_yticks([])
            low, high = np.percentile(rows[reference][column], (0.5, 99.5))
            if name == heat:
                axes.imshow(image, cmap="inferno", vmin=0, vmax=brightest)
            else:
                axes.imshow(image, cmap=GRAY, vmin=low, vmax=max(high, low + 1e-3))
            if row == 0 and titles:
                axes.set_title(titles[column], color=INK, fontsize=9.5)
            if column == 0:
                axes.set_ylabel(name, color=MUTED, fontsize=9)
    save_figure(path, figure)


def register_difference_colors() -> None:
    """Register the diverging color map with matplotlib: zero is black, like the air around."""
    matplotlib = require("matplotlib", purpose=_PURPOSE)
    colors = require("matplotlib.colors", purpose=_PURPOSE)
    if DIFFERENCE not in matplotlib.colormaps:
        stops = ["#b9e3ff", "#2b8fe0", "#0a2a4a", "#000000", "#4a1d05", "#e8762c", "#ffe0b8"]
        color_map = colors.LinearSegmentedColormap.from_list(DIFFERENCE, stops)
        matplotlib.colormaps.register(color_map, name=DIFFERENCE)

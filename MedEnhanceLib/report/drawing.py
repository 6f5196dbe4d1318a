"""What all drawings share: colors, figures without a screen, PNG files.

matplotlib is imported when something is drawn, and only its parts that need no screen.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.runtime.dependencies import require

#: Colors of drawings, which are dark on light and dark pages alike.
INK, MUTED, PAPER = "#f2f4f7", "#9aa4b2", "#0b0d10"
#: Color maps: of images, of differences (see `register_difference_colors`), of uncertainties.
GRAY, DIFFERENCE, HEAT = "gray", "MedEnhance difference", "magma"
_DPI = 110
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
    agg.FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": "MedEnhance"})
    return buffer.getvalue()


def register_difference_colors() -> None:
    """Register the diverging color map with matplotlib: zero is black, like the air around."""
    matplotlib = require("matplotlib", purpose=_PURPOSE)
    colors = require("matplotlib.colors", purpose=_PURPOSE)
    if DIFFERENCE not in matplotlib.colormaps:
        stops = ["#b9e3ff", "#2b8fe0", "#0a2a4a", "#000000", "#4a1d05", "#e8762c", "#ffe0b8"]
        color_map = colors.LinearSegmentedColormap.from_list(DIFFERENCE, stops)
        matplotlib.colormaps.register(color_map, name=DIFFERENCE)

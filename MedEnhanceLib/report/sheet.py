"""A figure measured in inches: one cell for each plane of each pane."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.report.panes import DIFFERENCE, LabelLike, Pane, Scale
from MedEnhanceLib.report.planes import Plane, PlaneName, Point, cut
from MedEnhanceLib.report.style import INK, MUTED, PAPER
from MedEnhanceLib.runtime.dependencies import require

_INK, _MUTED, _LETTER, _PAPER = INK, MUTED, "#ffd666", PAPER
COLUMN_IN, GAP_IN, LEFT_IN, TOP_IN = 2.9, 0.08, 0.42, 0.42
_CELL_IN = COLUMN_IN + GAP_IN
_FOOT_IN, _LEGEND_LINE_IN = 0.72, 0.155
_ROW_IN = (0.35, 4.2)  # shortest and tallest row
DPI = 140
#: For contours whose own colour is a grey, which would drown in the image.
_LINE_COLOURS = ("#ff4f9a", "#3ddc97", "#7cc7ff", "#ffb000")
_LEAST_SATURATION = 0.3


class Sheet:
    """A figure measured in inches, one cell per plane and pane."""

    def __init__(
        self,
        panes: Sequence[Pane],
        rows: Sequence[PlaneName],
        point: Point,
        legend: Sequence[LabelLike],
    ) -> None:
        purpose = "Drawing pictures"
        self._figure_module = require("matplotlib.figure", purpose=purpose)
        self._agg = require("matplotlib.backends.backend_agg", purpose=purpose)
        self._strokes = require("matplotlib.patheffects", purpose=purpose)
        register_colours()
        self._rows, self._point = rows, point
        self._legend = list(zip(legend, line_colours(legend), strict=True))
        labelled = sum(pane.labels is not None for pane in panes)
        self._legend_lines = math.ceil(len(legend) / max(1, 2 * labelled - 1))
        self._foot = max(_FOOT_IN, 0.24 + _LEGEND_LINE_IN * self._legend_lines * (labelled > 0))
        sizes = [cut(panes[0].volume, name, point).size_mm for name in rows]
        self._inch_per_mm = COLUMN_IN / max(width for _, width in sizes)
        tallest = max(height for height, _ in sizes) * self._inch_per_mm
        self._inch_per_mm *= min(1.0, _ROW_IN[1] / tallest)
        self._heights = [max(height * self._inch_per_mm, _ROW_IN[0]) for height, _ in sizes]
        self._widest_mm = max(width for _, width in sizes)
        self._width = LEFT_IN + len(panes) * _CELL_IN
        self._height = TOP_IN + sum(self._heights) + GAP_IN * len(rows) + self._foot
        self._figure = self._figure_module.Figure(
            figsize=(self._width, self._height), dpi=DPI, facecolor=_PAPER
        )

    def draw(self, panes: Sequence[Pane], scales: Mapping[str, Scale]) -> None:
        """All panes, then the legend of their contours."""
        for column, pane in enumerate(panes):
            self._draw_column(column, pane, scales[pane.kind])
        labelled = [column for column, pane in enumerate(panes) if pane.labels is not None]
        if labelled and self._legend:
            self._draw_legend(labelled)

    def _draw_column(self, column: int, pane: Pane, scale: Scale) -> None:
        """The title, each plane and the colour bar of one pane."""
        left = LEFT_IN + column * _CELL_IN
        self._text(left + COLUMN_IN / 2, self._height - 0.26, pane.title, 11, _INK)
        top = self._height - TOP_IN
        image = None
        for name, height in zip(self._rows, self._heights, strict=True):
            plane = cut(pane.volume, name, self._point)
            axes = self._axes(left, top - height, COLUMN_IN, height)
            image = self._draw_plane(axes, pane, plane, scale)
            if pane.labels is not None:
                self._draw_contours(axes, cut(pane.labels, name, self._point))
            if column == 0:
                self._draw_row_name(top - height / 2, height, plane)
                self._draw_ruler(axes, plane)
            top -= height + GAP_IN
        if pane.labels is None and image is not None:
            self._draw_bar(left, image, scale)

    def save(self, path: Path) -> None:
        """Write the PNG, the same bytes for the same picture."""
        canvas = self._agg.FigureCanvasAgg(self._figure)
        canvas.print_png(str(path), metadata={"Software": "MedEnhance"})

    def _draw_plane(self, axes: Any, pane: Pane, plane: Plane, scale: Scale) -> Any:
        pixels = plane.pixels.astype(np.float32)
        if pane.minus is not None:
            pixels = pixels - cut(pane.minus, plane.name, self._point).pixels.astype(np.float32)
        height, width = plane.size_mm
        image = axes.imshow(
            pixels,
            cmap=scale.colours,
            vmin=scale.low,
            vmax=scale.high,
            extent=(0, width, height, 0),
            aspect="equal",
            interpolation="antialiased",
        )
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        self._draw_letters(axes, plane)
        return image

    def _draw_letters(self, axes: Any, plane: Plane) -> None:
        left, right, top, bottom = plane.letters
        for x, y, letter, across, up in (
            (0.02, 0.5, left, "left", "center"),
            (0.98, 0.5, right, "right", "center"),
            (0.5, 0.98, top, "center", "top"),
            (0.5, 0.02, bottom, "center", "bottom"),
        ):
            axes.text(
                x,
                y,
                letter,
                transform=axes.transAxes,
                ha=across,
                va=up,
                color=_LETTER,
                fontsize=8,
                fontweight="bold",
                path_effects=[self._strokes.withStroke(linewidth=1.8, foreground="black")],
            )

    def _draw_contours(self, axes: Any, plane: Plane) -> None:
        rows, columns = plane.pixels.shape
        # A frame of zeros closes the contours of labels that touch the edge.
        labels = np.pad(plane.pixels, 1)
        x = (np.arange(columns + 2) - 0.5) * plane.spacing_mm[1]
        y = (np.arange(rows + 2) - 0.5) * plane.spacing_mm[0]
        for label, colour in self._legend:
            inside = (labels == label.value).astype(np.float32)
            if inside.any():
                lines = axes.contour(x, y, inside, levels=[0.5], colors=[colour])
                lines.set_linewidth(0.8)
                # A dark edge keeps a light line visible on light tissue.
                edge = self._strokes.withStroke(linewidth=1.5, foreground="#00000090")
                lines.set_path_effects([edge])

    def _draw_row_name(self, y: float, height: float, plane: Plane) -> None:
        words = f"{plane.name} · {plane.place}" if height > 1.5 else plane.name
        size = 8.5 if height > 0.7 else 6.5
        self._text(0.2, y, words, size, _MUTED, 90)

    def _draw_ruler(self, axes: Any, plane: Plane) -> None:
        height, width = plane.size_mm
        length = round_length(self._widest_mm / 5)
        x, y = 0.03 * width, height - max(0.035 * height, 0.02 * width)
        outline = [self._strokes.withStroke(linewidth=2.6, foreground="black")]
        axes.plot([x, x + length], [y, y], color=_INK, linewidth=1.6, path_effects=outline)
        axes.text(
            x + length / 2,
            y - 0.015 * width,
            length_text(length),
            ha="center",
            va="bottom",
            color=_INK,
            fontsize=7,
            path_effects=outline,
        )

    def _draw_bar(self, left: float, image: Any, scale: Scale) -> None:
        width = COLUMN_IN * 0.72
        axes = self._axes(left + (COLUMN_IN - width) / 2, self._foot - 0.2, width, 0.1)
        bar = self._figure.colorbar(image, cax=axes, orientation="horizontal")
        ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
        bar.set_ticks(ticks)
        bar.set_ticklabels([_tick_text(value, scale) for value in ticks])
        bar.outline.set_edgecolor(_MUTED)
        bar.outline.set_linewidth(0.5)
        axes.tick_params(colors=_INK, labelsize=7.5, length=2, pad=2)
        self._text(left + COLUMN_IN / 2, 0.2, scale.name, 8, _MUTED)

    def _draw_legend(self, columns: Sequence[int]) -> None:
        """One legend under all panes with contours."""
        lines = require("matplotlib.lines", purpose="Drawing pictures")
        handles = [
            lines.Line2D([], [], color=colour, linewidth=2.2, label=label.name)
            for label, colour in self._legend
        ]
        first, last = LEFT_IN + columns[0] * _CELL_IN, LEFT_IN + columns[-1] * _CELL_IN + COLUMN_IN
        self._figure.legend(
            handles=handles,
            loc="center",
            bbox_to_anchor=((first + last) / 2 / self._width, 0.52 * self._foot / self._height),
            ncols=math.ceil(len(handles) / self._legend_lines),
            frameon=False,
            fontsize=8,
            labelcolor=_INK,
            handlelength=1.4,
            columnspacing=1.6,
            labelspacing=0.3,
        )

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Any:
        axes = self._figure.add_axes(
            (
                left / self._width,
                bottom / self._height,
                width / self._width,
                height / self._height,
            ),
            facecolor="black",
        )
        axes.set_xticks([])
        axes.set_yticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def _text(
        self, x: float, y: float, text: str, size: float, colour: str, rotation: float = 0
    ) -> None:
        self._figure.text(
            x / self._width,
            y / self._height,
            text,
            color=colour,
            fontsize=size,
            rotation=rotation,
            ha="center",
            va="center",
            parse_math=False,
        )


def round_length(wanted_mm: float) -> float:
    """The largest of 1, 2, 5 × 10ⁿ mm that is not above `wanted_mm`."""
    power = 10.0 ** np.floor(np.log10(wanted_mm))
    return float(next(step * power for step in (5, 2, 1) if step * power <= wanted_mm * 1.0001))


def length_text(length_mm: float) -> str:
    """A length in the unit that suits it: "5 cm", "20 mm", "2 µm", "500 nm"."""
    for factor, unit, least in ((10.0, "cm", 10.0), (1.0, "mm", 1.0), (1e-3, "µm", 1e-3)):
        if length_mm >= least * 0.999:
            return f"{length_mm / factor:g} {unit}"
    return f"{length_mm / 1e-6:g} nm"


def line_colours(legend: Sequence[LabelLike]) -> list[Any]:
    """Each label's own colour, or a bright one where it is a grey."""
    colours = require("matplotlib.colors", purpose="Drawing pictures")
    bright = cycle(_LINE_COLOURS)
    return [
        label.color if _is_colourful(*colours.to_rgb(label.color)) else next(bright)
        for label in legend
    ]


def _is_colourful(red: float, green: float, blue: float) -> bool:
    return colorsys.rgb_to_hls(red, green, blue)[2] >= _LEAST_SATURATION


def register_colours() -> None:
    """Make the diverging map known: zero is black like the air around the patient."""
    matplotlib = require("matplotlib", purpose="Drawing pictures")
    colours = require("matplotlib.colors", purpose="Drawing pictures")
    if DIFFERENCE not in matplotlib.colormaps:
        stops = ["#b9e3ff", "#2b8fe0", "#0a2a4a", "#000000", "#4a1d05", "#e8762c", "#ffe0b8"]
        matplotlib.colormaps.register(
            colours.LinearSegmentedColormap.from_list(DIFFERENCE, stops), name=DIFFERENCE
        )


def _tick_text(value: float, scale: Scale) -> str:
    """A number with the digits that its scale deserves; differences carry their sign."""
    span = scale.high - scale.low
    if not 1e-3 <= span < 1e6:
        return f"{value:.2g}"
    decimals = max(0, 1 - int(np.floor(np.log10(span))))
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"+{text}" if scale.colours == DIFFERENCE and value > 0 else text

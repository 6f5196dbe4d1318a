"""Comparison sheets: three planes through one point, with a column for each pane."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.report.drawing import (
    DIFFERENCE,
    GRAY,
    HEAT,
    INK,
    MUTED,
    new_figure,
    register_difference_colors,
    save_figure,
)
from MedEnhanceLib.report.planes import PLANES, Plane, PlaneName, Point, busiest_point, cut
from MedEnhanceLib.runtime.dependencies import require

#: The soft-tissue window that the compression tables use as well, in HU.
CT_WINDOW = (-160.0, 240.0)
_LETTER = "#ffd666"
COLUMN_IN, GAP_IN, LEFT_IN, TOP_IN = 2.9, 0.08, 0.42, 0.42
_CELL_IN = COLUMN_IN + GAP_IN
_FOOT_IN, _LEGEND_LINE_IN = 0.72, 0.155
_ROW_IN = (0.35, 4.2)  # shortest and tallest row
DPI = 140
#: For contours whose own color is gray and would not stand out from the image.
_LINE_COLORS = ("#ff4f9a", "#3ddc97", "#7cc7ff", "#ffb000")
_LEAST_SATURATION = 0.3


def comparison_sheet(
    path: str | Path,
    panes: Sequence[Pane],
    *,
    legend: Sequence[LabelLike] = (),
    point: Point | None = None,
    window: tuple[float, float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Draw axial, coronal and sagittal planes through `point` for each pane, as a PNG.

    Args:
        path: the PNG to write.
        panes: on one grid; of a sequence the first frame is drawn.
        legend: names and colors of the labels that are drawn as contours.
        point: (k, j, i); None takes the busiest point of the first pane.
        window: lowest and highest gray level of all images, in the volume's units; None derives it
            from the first pane.
        overwrite: whether an existing file is replaced.
    Returns:
        The path of the PNG.
    Raises:
        InputError: the grids differ.
        OutputError: `path` cannot be written.
    """
    figure = comparison(panes, legend=legend, point=point, window=window)
    save_figure(Path(path), figure, overwrite=overwrite)
    return Path(path)


def comparison(
    panes: Sequence[Pane],
    *,
    legend: Sequence[LabelLike] = (),
    point: Point | None = None,
    window: tuple[float, float] | None = None,
) -> Any:
    """The figure of `comparison_sheet`, which is not written."""
    panes = [_first_frame(pane) for pane in panes]
    _check_grids(panes)
    at = point or busiest_point(panes[0].volume)
    rows = [name for name in PLANES if min(cut(panes[0].volume, name, at).pixels.shape) > 1]
    scales = _shared_scales(panes, rows, at, window or choose_window(panes[0].volume))
    sheet = Sheet(panes, rows or list(PLANES[:1]), at, legend)
    sheet.draw(panes, scales)
    return sheet.figure


def sheet_alt(panes: Sequence[Pane]) -> str:
    """What a comparison sheet shows, in a sentence."""
    titles = ", ".join(pane.title.lower() for pane in panes)
    return f"Axial, coronal and sagittal planes in columns: {titles}."


class LabelLike(Protocol):
    """A label as contours need it; `gradprom.Label` is one."""

    @property
    def value(self) -> int:
        """The voxel value."""

    @property
    def name(self) -> str:
        """For the legend."""

    @property
    def color(self) -> Any:
        """As matplotlib takes it: "#rrggbb", or three numbers from 0 to 1."""


@dataclass(frozen=True)
class Pane:
    """One column of a sheet.

    minus: subtracted from `volume`; the difference is drawn on a scale around zero.
    labels: drawn over the volume as contours. heat: drawn in color, on a scale of its own.
    """

    title: str
    volume: Volume
    minus: Volume | None = None
    labels: Volume | None = None
    heat: bool = False

    @property
    def kind(self) -> Literal["image", "difference", "heat"]:
        """The scale that the pane is drawn on."""
        if self.minus is not None:
            return "difference"
        return "heat" if self.heat else "image"

    def plane(self, name: PlaneName, point: Point) -> Plane:
        """A cut through the pane, float32, with `minus` subtracted; point: (k, j, i)."""
        plane = cut(self.volume, name, point)
        pixels = plane.pixels.astype(np.float32)
        if self.minus is not None:
            pixels -= cut(self.minus, name, point).pixels.astype(np.float32)
        return replace(plane, pixels=pixels)


@dataclass(frozen=True)
class Scale:
    """Lowest and highest value, in the volume's units; `name` is the color bar's label."""

    low: float
    high: float
    name: str
    colors: str


def choose_window(volume: Volume) -> tuple[float, float]:
    """Lowest and highest gray level: soft tissue for CT, else percentiles of the voxels."""
    voxels = volume.frame(0).voxels
    low, high = float(voxels.min()), float(voxels.max())
    if volume.modality == "CT" and low < CT_WINDOW[1] and high > CT_WINDOW[0]:
        return CT_WINDOW
    step = max(1, voxels.size // 1_000_000)
    sample = voxels.reshape(-1)[::step]
    inside = sample[sample > low]
    if inside.size:
        low, high = float(np.percentile(sample, 0.5)), float(np.percentile(inside, 99.7))
        # Magnitudes begin at 0: a little undershoot must not make the air gray.
        if volume.modality == "MR" and low > -0.1 * high:
            low = 0.0
    return (low, high) if high > low else (low, low + 1.0)


def _shared_scales(
    panes: Sequence[Pane], rows: Sequence[PlaneName], point: Point, window: tuple[float, float]
) -> dict[str, Scale]:
    """One scale for all panes of a kind, by kind."""
    units = panes[0].volume.units or "arbitrary units"

    def reach(kind: str) -> float:
        chosen = [pane for pane in panes if pane.kind == kind]
        return _reach([pane.plane(row, point).pixels for pane in chosen for row in rows])

    change = reach("difference")
    return {
        "image": Scale(*window, f"intensity, {units}", GRAY),
        "difference": Scale(-change, change, f"difference, {units}", DIFFERENCE),
        "heat": Scale(0.0, reach("heat"), f"standard deviation, {units}", HEAT),
    }


def _first_frame(pane: Pane) -> Pane:
    """The pane with only the first frame of sequences."""
    return replace(
        pane,
        volume=pane.volume.frame(0),
        minus=pane.minus and pane.minus.frame(0),
        labels=pane.labels and pane.labels.frame(0),
    )


def _check_grids(panes: Sequence[Pane]) -> None:
    """Raise InputError unless all volumes are on one grid."""
    if not panes:
        raise InputError("a comparison without panes", "Give at least one pane.")
    first = panes[0].volume
    for pane in panes:
        for volume in (pane.volume, pane.minus, pane.labels):
            if volume is None:
                continue
            if volume.shape != first.shape or not volume.geometry.is_close(
                first.geometry, 1e-2, shape=first.shape
            ):
                raise InputError(
                    f"{pane.title}: the grid differs from that of {panes[0].title}",
                    "Compare volumes of one grid.",
                )


def _reach(pictures: Sequence[npt.NDArray[np.float32]]) -> float:
    """Largest absolute value on a scale: the 99.7th percentile, rounded up; 1 if all is zero."""
    if not pictures:
        return 1.0
    sizes = np.abs(np.concatenate([picture.ravel() for picture in pictures]))
    reach = float(np.percentile(sizes, 99.7)) or float(sizes.max())
    if reach == 0:
        return 1.0
    step = 10.0 ** (np.floor(np.log10(reach)) - 1)
    return float(np.ceil(reach / step * 0.999) * step)


class Sheet:
    """A figure measured in inches, one cell per plane and pane."""

    def __init__(
        self,
        panes: Sequence[Pane],
        rows: Sequence[PlaneName],
        point: Point,
        legend: Sequence[LabelLike],
    ) -> None:
        self._strokes = require("matplotlib.patheffects", purpose="Drawing pictures")
        register_difference_colors()
        self._rows, self._point = rows, point
        self._legend = list(zip(legend, line_colors(legend), strict=True))
        labeled = sum(pane.labels is not None for pane in panes)
        self._legend_lines = math.ceil(len(legend) / max(1, 2 * labeled - 1))
        self._foot = max(_FOOT_IN, 0.24 + _LEGEND_LINE_IN * self._legend_lines * (labeled > 0))
        sizes = [cut(panes[0].volume, name, point).size_mm for name in rows]
        self._inch_per_mm = COLUMN_IN / max(width for _, width in sizes)
        tallest = max(height for height, _ in sizes) * self._inch_per_mm
        self._inch_per_mm *= min(1.0, _ROW_IN[1] / tallest)
        self._heights = [max(height * self._inch_per_mm, _ROW_IN[0]) for height, _ in sizes]
        self._widest_mm = max(width for _, width in sizes)
        self._width = LEFT_IN + len(panes) * _CELL_IN
        self._height = TOP_IN + sum(self._heights) + GAP_IN * len(rows) + self._foot
        self.figure = new_figure((self._width, self._height), dpi=DPI)

    def draw(self, panes: Sequence[Pane], scales: Mapping[str, Scale]) -> None:
        """All panes, then the legend of their contours."""
        for column, pane in enumerate(panes):
            self._draw_column(column, pane, scales[pane.kind])
        labeled = [column for column, pane in enumerate(panes) if pane.labels is not None]
        if labeled and self._legend:
            self._draw_legend(labeled)

    def _draw_column(self, column: int, pane: Pane, scale: Scale) -> None:
        """The title, each plane and the color bar of one pane."""
        left = LEFT_IN + column * _CELL_IN
        self._text(left + COLUMN_IN / 2, self._height - 0.26, pane.title, 11, INK)
        top = self._height - TOP_IN
        image = None
        for name, height in zip(self._rows, self._heights, strict=True):
            plane = pane.plane(name, self._point)
            axes = self._axes(left, top - height, COLUMN_IN, height)
            image = self._draw_plane(axes, plane, scale)
            if pane.labels is not None:
                self._draw_contours(axes, cut(pane.labels, name, self._point))
            if column == 0:
                self._draw_row_name(top - height / 2, height, plane)
                self._draw_ruler(axes, plane)
            top -= height + GAP_IN
        if pane.labels is None and image is not None:
            self._draw_bar(left, image, scale)

    def _draw_plane(self, axes: Any, plane: Plane, scale: Scale) -> Any:
        height, width = plane.size_mm
        image = axes.imshow(
            plane.pixels,
            cmap=scale.colors,
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
        outline = [self._strokes.withStroke(linewidth=1.8, foreground="black")]
        style = {"color": _LETTER, "fontsize": 8, "fontweight": "bold", "path_effects": outline}
        for x, y, letter, across, up in (
            (0.02, 0.5, left, "left", "center"),
            (0.98, 0.5, right, "right", "center"),
            (0.5, 0.98, top, "center", "top"),
            (0.5, 0.02, bottom, "center", "bottom"),
        ):
            axes.text(x, y, letter, transform=axes.transAxes, ha=across, va=up, **style)

    def _draw_contours(self, axes: Any, plane: Plane) -> None:
        rows, columns = plane.pixels.shape
        # A frame of zeros closes the contours of labels that touch the edge.
        labels = np.pad(plane.pixels, 1)
        x = (np.arange(columns + 2) - 0.5) * plane.spacing_mm[1]
        y = (np.arange(rows + 2) - 0.5) * plane.spacing_mm[0]
        for label, color in self._legend:
            inside = (labels == label.value).astype(np.float32)
            if inside.any():
                lines = axes.contour(x, y, inside, levels=[0.5], colors=[color])
                lines.set_linewidth(0.8)
                # A dark edge keeps a light line visible on light tissue.
                edge = self._strokes.withStroke(linewidth=1.5, foreground="#00000090")
                lines.set_path_effects([edge])

    def _draw_row_name(self, y: float, height: float, plane: Plane) -> None:
        text = f"{plane.name} · {plane.place}" if height > 1.5 else plane.name
        self._text(0.2, y, text, 8.5 if height > 0.7 else 6.5, MUTED, 90)

    def _draw_ruler(self, axes: Any, plane: Plane) -> None:
        height, width = plane.size_mm
        length = round_length(self._widest_mm / 5)
        x, y = 0.03 * width, height - max(0.035 * height, 0.02 * width)
        outline = [self._strokes.withStroke(linewidth=2.6, foreground="black")]
        axes.plot([x, x + length], [y, y], color=INK, linewidth=1.6, path_effects=outline)
        axes.text(
            x + length / 2,
            y - 0.015 * width,
            length_text(length),
            ha="center",
            va="bottom",
            color=INK,
            fontsize=7,
            path_effects=outline,
        )

    def _draw_bar(self, left: float, image: Any, scale: Scale) -> None:
        width = COLUMN_IN * 0.72
        axes = self._axes(left + (COLUMN_IN - width) / 2, self._foot - 0.2, width, 0.1)
        bar = self.figure.colorbar(image, cax=axes, orientation="horizontal")
        ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
        bar.set_ticks(ticks)
        bar.set_ticklabels([_tick_text(value, scale) for value in ticks])
        bar.outline.set_edgecolor(MUTED)
        bar.outline.set_linewidth(0.5)
        axes.tick_params(colors=INK, labelsize=7.5, length=2, pad=2)
        self._text(left + COLUMN_IN / 2, 0.2, scale.name, 8, MUTED)

    def _draw_legend(self, columns: Sequence[int]) -> None:
        """One legend under all panes with contours."""
        lines = require("matplotlib.lines", purpose="Drawing pictures")
        handles = [
            lines.Line2D([], [], color=color, linewidth=2.2, label=label.name)
            for label, color in self._legend
        ]
        first, last = LEFT_IN + columns[0] * _CELL_IN, LEFT_IN + columns[-1] * _CELL_IN + COLUMN_IN
        self.figure.legend(
            handles=handles,
            loc="center",
            bbox_to_anchor=((first + last) / 2 / self._width, 0.52 * self._foot / self._height),
            ncols=math.ceil(len(handles) / self._legend_lines),
            frameon=False,
            fontsize=8,
            labelcolor=INK,
            handlelength=1.4,
            columnspacing=1.6,
            labelspacing=0.3,
        )

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Any:
        x, y = left / self._width, bottom / self._height
        place = (x, y, width / self._width, height / self._height)
        axes = self.figure.add_axes(place, facecolor="black", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def _text(
        self, x: float, y: float, text: str, size: float, color: str, rotation: float = 0
    ) -> None:
        self.figure.text(
            x / self._width,
            y / self._height,
            text,
            color=color,
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
    """A length in a suitable unit: "5 cm", "20 mm", "2 µm", "500 nm"."""
    for factor, unit, least in ((10.0, "cm", 10.0), (1.0, "mm", 1.0), (1e-3, "µm", 1e-3)):
        if length_mm >= least * 0.999:
            return f"{length_mm / factor:g} {unit}"
    return f"{length_mm / 1e-6:g} nm"


def line_colors(legend: Sequence[LabelLike]) -> list[Any]:
    """The color of each label's contours: its own, or a bright one if that is gray."""
    colors = require("matplotlib.colors", purpose="Drawing pictures")
    bright = cycle(_LINE_COLORS)
    return [
        label.color if _is_colorful(*colors.to_rgb(label.color)) else next(bright)
        for label in legend
    ]


def _is_colorful(red: float, green: float, blue: float) -> bool:
    return colorsys.rgb_to_hls(red, green, blue)[2] >= _LEAST_SATURATION


def _tick_text(value: float, scale: Scale) -> str:
    """A number with two significant digits of the scale's span; differences have a sign."""
    span = scale.high - scale.low
    if not 1e-3 <= span < 1e6:
        return f"{value:.2g}"
    decimals = max(0, 1 - int(np.floor(np.log10(span))))
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"+{text}" if scale.colors == DIFFERENCE and value > 0 else text

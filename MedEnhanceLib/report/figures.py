"""Comparison sheets: three planes of one place, side by side, drawn without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.planes import PLANES, Plane, PlaneName, Point, busiest_point, cut
from MedEnhanceLib.volume import Volume

#: The soft-tissue window that the compression tables use as well, in HU.
CT_WINDOW = (-160.0, 240.0)
_DIFFERENCE = "MedEnhance difference"
_INK, _MUTED, _LETTER, _PAPER = "#f2f4f7", "#9aa4b2", "#ffd666", "#0b0d10"
_COLUMN_IN, _GAP_IN, _LEFT_IN, _TOP_IN, _BOTTOM_IN = 2.9, 0.08, 0.42, 0.42, 0.72
_ROW_IN = (0.35, 4.2)  # shortest and tallest row
_DPI = 140


class LabelLike(Protocol):
    """What a contour needs to know of a label; `gradprom.Label` is one."""

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

    volume: what is shown. minus: subtracted from it, the difference is drawn around zero.
    labels: contours drawn over the volume. heat: drawn by colour on a scale of its own.
    """

    title: str
    volume: Volume
    minus: Volume | None = None
    labels: Volume | None = None
    heat: bool = False

    @property
    def kind(self) -> Literal["image", "difference", "heat"]:
        """Which scale the pane is drawn on."""
        if self.minus is not None:
            return "difference"
        return "heat" if self.heat else "image"


@dataclass(frozen=True)
class Scale:
    """From low to high, in the volume's units; `name` is written at the colour bar."""

    low: float
    high: float
    name: str
    colours: str


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

    panes: on one grid; of a sequence the first frame is drawn.
    point: (k, j, i); None takes the busiest point of the first pane.
    window: grey levels of all images; None takes one from the first pane.
    Raises InputError where the grids differ, OutputError where `path` cannot be written.
    """
    panes = [_first_frame(pane) for pane in panes]
    _check_grids(panes)
    at = point or busiest_point(panes[0].volume)
    rows = [name for name in PLANES if min(cut(panes[0].volume, name, at).pixels.shape) > 1]
    scales = _scales(panes, rows, at, window)
    sheet = _Sheet(panes, rows or list(PLANES[:1]), at)
    for column, pane in enumerate(panes):
        sheet.draw_column(column, pane, scales[pane.kind], legend)
    target = Path(path)
    with atomic_write(target, overwrite=overwrite) as temporary:
        sheet.save(temporary)
    return target


def choose_window(volume: Volume) -> tuple[float, float]:
    """Grey levels that show a volume: soft tissue for CT, else what most voxels lie between."""
    voxels = volume.frame(0).voxels
    low, high = float(voxels.min()), float(voxels.max())
    if volume.modality == "CT" and low < CT_WINDOW[1] and high > CT_WINDOW[0]:
        return CT_WINDOW
    step = max(1, voxels.size // 1_000_000)
    sample = voxels.reshape(-1)[::step]
    inside = sample[sample > low]
    if inside.size:
        low = min(low, 0.0) if volume.modality == "MR" else float(np.percentile(sample, 0.5))
        high = float(np.percentile(inside, 99.7))
    return (low, high) if high > low else (low, low + 1.0)


class _Sheet:
    """A figure measured in inches, one cell per plane and pane."""

    def __init__(self, panes: Sequence[Pane], rows: Sequence[PlaneName], point: Point) -> None:
        purpose = "Drawing pictures"
        self._figure_module = require("matplotlib.figure", purpose=purpose)
        self._agg = require("matplotlib.backends.backend_agg", purpose=purpose)
        self._strokes = require("matplotlib.patheffects", purpose=purpose)
        register_colours()
        self._rows, self._point = rows, point
        sizes = [cut(panes[0].volume, name, point).size_mm for name in rows]
        self._inch_per_mm = _COLUMN_IN / max(width for _, width in sizes)
        tallest = max(height for height, _ in sizes) * self._inch_per_mm
        self._inch_per_mm *= min(1.0, _ROW_IN[1] / tallest)
        self._heights = [max(height * self._inch_per_mm, _ROW_IN[0]) for height, _ in sizes]
        self._widest_mm = max(width for _, width in sizes)
        self._width = _LEFT_IN + len(panes) * (_COLUMN_IN + _GAP_IN)
        self._height = _TOP_IN + sum(self._heights) + _GAP_IN * len(rows) + _BOTTOM_IN
        self._figure = self._figure_module.Figure(
            figsize=(self._width, self._height), dpi=_DPI, facecolor=_PAPER
        )

    def draw_column(
        self, column: int, pane: Pane, scale: Scale, legend: Sequence[LabelLike]
    ) -> None:
        """The title, each plane and the colour bar or legend of one pane."""
        left = _LEFT_IN + column * (_COLUMN_IN + _GAP_IN)
        self._text(left + _COLUMN_IN / 2, self._height - 0.26, pane.title, 11, _INK)
        top = self._height - _TOP_IN
        image = None
        for name, height in zip(self._rows, self._heights, strict=True):
            plane = cut(pane.volume, name, self._point)
            axes = self._axes(left, top - height, _COLUMN_IN, height)
            image = self._draw_plane(axes, pane, plane, scale)
            if pane.labels is not None:
                _draw_contours(axes, cut(pane.labels, name, self._point), legend)
            if column == 0:
                self._draw_row_name(top - height / 2, height, plane)
                self._draw_ruler(axes, plane)
            top -= height + _GAP_IN
        if pane.labels is not None and legend:
            self._draw_legend(left, legend)
        elif image is not None:
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
        width = _COLUMN_IN * 0.72
        axes = self._axes(left + (_COLUMN_IN - width) / 2, _BOTTOM_IN - 0.2, width, 0.1)
        bar = self._figure.colorbar(image, cax=axes, orientation="horizontal")
        ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
        bar.set_ticks(ticks)
        bar.set_ticklabels([_tick_text(value, scale) for value in ticks])
        bar.outline.set_edgecolor(_MUTED)
        bar.outline.set_linewidth(0.5)
        axes.tick_params(colors=_INK, labelsize=7.5, length=2, pad=2)
        self._text(left + _COLUMN_IN / 2, 0.2, scale.name, 8, _MUTED)

    def _draw_legend(self, left: float, legend: Sequence[LabelLike]) -> None:
        lines = require("matplotlib.lines", purpose="Drawing pictures")
        handles = [
            lines.Line2D([], [], color=label.color, linewidth=2.2, label=label.name)
            for label in legend
        ]
        centre = (left + _COLUMN_IN / 2) / self._width
        self._figure.legend(
            handles=handles,
            loc="center",
            bbox_to_anchor=(centre, 0.42 / self._height),
            ncols=2 if len(handles) > 1 else 1,
            frameon=False,
            fontsize=8,
            labelcolor=_INK,
            handlelength=1.4,
            columnspacing=1.2,
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


def register_colours() -> None:
    """Make the diverging map known: zero is black like the air around the patient."""
    matplotlib = require("matplotlib", purpose="Drawing pictures")
    colours = require("matplotlib.colors", purpose="Drawing pictures")
    if _DIFFERENCE not in matplotlib.colormaps:
        stops = ["#b9e3ff", "#2b8fe0", "#0a2a4a", "#000000", "#4a1d05", "#e8762c", "#ffe0b8"]
        matplotlib.colormaps.register(
            colours.LinearSegmentedColormap.from_list(_DIFFERENCE, stops), name=_DIFFERENCE
        )


def _scales(
    panes: Sequence[Pane],
    rows: Sequence[PlaneName],
    point: Point,
    window: tuple[float, float] | None,
) -> dict[str, Scale]:
    units = panes[0].volume.units or "arbitrary units"
    low, high = window or choose_window(panes[0].volume)
    scales = {"image": Scale(low, high, f"intensity, {units}", "gray")}
    changes = [
        cut(pane.volume, row, point).pixels.astype(np.float32)
        - cut(pane.minus, row, point).pixels.astype(np.float32)
        for pane in panes
        if pane.minus is not None
        for row in rows
    ]
    reach = _reach(changes)
    scales["difference"] = Scale(-reach, reach, f"difference, {units}", _DIFFERENCE)
    heats = [
        cut(pane.volume, row, point).pixels.astype(np.float32)
        for pane in panes
        if pane.heat
        for row in rows
    ]
    scales["heat"] = Scale(0.0, _reach(heats), f"standard deviation, {units}", "magma")
    return scales


def _reach(pictures: Sequence[npt.NDArray[np.float32]]) -> float:
    """How far a scale must reach from zero; a tiny positive number where all is zero."""
    if not pictures:
        return 1.0
    sizes = np.abs(np.concatenate([picture.ravel() for picture in pictures]))
    reach = float(np.percentile(sizes, 99.7)) or float(sizes.max())
    if reach == 0:
        return 1.0
    step = 10.0 ** (np.floor(np.log10(reach)) - 1)
    return float(np.ceil(reach / step * 0.999) * step)


def _draw_contours(axes: Any, plane: Plane, legend: Sequence[LabelLike]) -> None:
    rows, columns = plane.pixels.shape
    # A frame of zeros closes the contours of labels that touch the edge.
    labels = np.pad(plane.pixels, 1)
    x = (np.arange(columns + 2) - 0.5) * plane.spacing_mm[1]
    y = (np.arange(rows + 2) - 0.5) * plane.spacing_mm[0]
    for label in legend:
        inside = labels == label.value
        if inside.any():
            axes.contour(
                x, y, inside.astype(np.float32), levels=[0.5], colors=[label.color], linewidths=0.7
            )


def _tick_text(value: float, scale: Scale) -> str:
    """A number with the digits that its scale deserves; differences carry their sign."""
    span = scale.high - scale.low
    if not 1e-3 <= span < 1e6:
        return f"{value:.2g}"
    decimals = max(0, 1 - int(np.floor(np.log10(span))))
    text = f"{value:.{decimals}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"+{text}" if scale.colours == _DIFFERENCE and value > 0 else text


def _first_frame(pane: Pane) -> Pane:
    return Pane(
        pane.title,
        pane.volume.frame(0),
        pane.minus.frame(0) if pane.minus else None,
        pane.labels.frame(0) if pane.labels else None,
        pane.heat,
    )


def _check_grids(panes: Sequence[Pane]) -> None:
    if not panes:
        raise InputError("a comparison of nothing", "Give at least one pane.")
    first = panes[0].volume
    for pane in panes:
        for volume in (pane.volume, pane.minus, pane.labels):
            if volume is None:
                continue
            if volume.shape != first.shape or not volume.geometry.is_close(first.geometry, 1e-2):
                raise InputError(
                    f"{pane.title}: the grid differs from that of {panes[0].title}",
                    "Compare volumes of one grid.",
                )

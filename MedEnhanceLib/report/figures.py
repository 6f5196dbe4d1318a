"""Comparison sheets: three planes through one point, with a column for each pane."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from MedEnhanceLib.core.arrays import Floats
from MedEnhanceLib.core.labels import color_of
from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.core.modality import SOFT_TISSUE
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import EndingError, InputError
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.orthogonal import (
    PLANES,
    Plane,
    PlaneName,
    Point,
    busiest_point,
    cut,
)
from MedEnhanceLib.runtime.dependencies import require

#: Colors of figures, whose background is dark on light and dark pages.
INK, MUTED, PAPER = "#f2f4f7", "#9aa4b2", "#0b0d10"
#: matplotlib is imported when something is drawn, and only its parts that need no screen.
_PURPOSE = "Drawing pictures"
#: Least mean of lungs and of other tissue in HU, and the share of a CT from which lungs are shown:
#: less may be foam of the table.
_LUNG, _TISSUE, _MANY_LUNGS = -900.0, -500.0, 0.25
#: Share of the content outside of the soft-tissue window from which a second window is drawn, and
#: the percentiles that it shows.
_BEYOND, _SHOWN = 0.1, (2.0, 99.0)
#: Pixels of a square whose mean is taken, against the noise, and slices that are looked at.
_SQUARE, _SLICES = 4, 24
#: Least reach of the colors of a difference, as a share of the gray levels: what no eye sees in the
#: images, such as ±1 by rounding, is not drawn as a strong change.
_LEAST_CHANGE = 0.01
_LETTER = "#ffd666"
#: Opacity of the tint of labels: it shows which area is whose, and the image through it.
_TINT = 0.3
#: Most voxel indices that are marked along a side.
_TICKS = 5
#: Widths and heights in inches: of a column, the row names, title and color bar, a color bar.
_COLUMN_IN, _LEFT_IN, _ENDS_IN, _BAR_IN = 2.9, 1.0, 1.1, 0.1
#: Height of the letters around a row; lowest height of a row, which three lines of text need.
_LETTERS_IN, _LOWEST_ROW_IN = 0.4, 0.45
_LEGEND_LINE_IN, _LEGEND_COLUMNS = 0.2, 4
#: Inches of a letter of the legend, and of what else an entry takes.
_LETTER_IN, _SWATCH_IN = 0.065, 0.5
DPI = 140


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that notebooks show by themselves.

    Attributes:
        figure: of matplotlib.
        alt: what it shows, in a sentence.
    """

    figure: Any
    alt: str

    @property
    def is_wide(self) -> bool:
        """Whether it has more than the three columns that a page of text shows in full size."""
        return bool(self.figure.get_figwidth() > 3.5 * _COLUMN_IN + _LEFT_IN)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as PNG; OutputError if that fails, or for another ending."""
        if Path(path).suffix.lower() != ".png":
            raise EndingError(f"{path}: pictures are written as PNG", "End its name in .png.")
        with atomic_write(Path(path), overwrite=overwrite) as temporary:
            temporary.write_bytes(self._repr_png_())

    def __repr__(self) -> str:
        return f"<Picture: {self.alt} .save(path) writes it>"

    def _repr_png_(self) -> bytes:
        """Draw as PNG, the same bytes for the same figure."""
        agg = require("matplotlib.backends.backend_agg", purpose=_PURPOSE)
        buffer = io.BytesIO()
        canvas = agg.FigureCanvasAgg(self.figure)
        # Laid out once: a second layout pass would move the parts again.
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")
        canvas.print_png(buffer, metadata={"Software": "MedEnhance"})
        return buffer.getvalue()


def comparison(
    panes: Sequence[Pane],
    *,
    legend: Mapping[int, str] | None = None,
    point: Point | None = None,
    window: tuple[float, float] | None = None,
    frame: int | None = None,
    planes: Sequence[PlaneName] = PLANES,
    ticks: bool = False,
) -> Picture:
    """Draw axial, coronal and sagittal planes through `point` for each pane.

    Args:
        panes: on one grid, else InputError.
        legend: value → name of the labels that are drawn as contours.
        point: (k, j, i); None takes the `busiest_point` of the first pane.
        window: lowest and highest gray level of all images, in the volume's units; None derives it
            from the first pane. A CT is then drawn in two windows if it needs them.
        frame: of a sequence, from 0, else InputError; None takes `shown_frame`.
        planes: that are drawn, where they have more than one row and column.
        ticks: whether voxel indices, from 0, are marked at the edges.
    """
    number = shown_frame(panes[0].volume)[0] if frame is None else frame
    panes = [_with_frame(pane, number) for pane in panes]
    _check_grids(panes)
    at = point or busiest_point(panes[0].volume)
    rows = [name for name in planes if min(cut(panes[0].volume, name, at).pixels.shape) > 1]
    window = window or choose_window(panes[0].volume)
    panes = _with_second_window(panes, window) if window == SOFT_TISSUE else panes
    scales = _shared_scales(panes, rows, at, window)
    titles = ", ".join(p.title if p.title.isupper() else p.title.lower() for p in panes)
    rows = rows or list(planes[:1])
    return Picture(
        _draw(panes, rows, at, scales, legend or {}, ticks=ticks),
        f"{', '.join(rows).capitalize()} planes in columns: {titles}.",
    )


def shown_frame(volume: Volume) -> tuple[int, str]:
    """Return the number of the frame that pictures of a volume show, and why it is that one.

    It is the first that is not constant, in diffusion of those with the highest b-value; 0 if all
    are constant.
    """
    highest = max((gradient.b_value for gradient in volume.gradients), default=0)
    numbers: Sequence[int] = range(len(volume.frames()))
    if highest:
        numbers = [n for n in numbers if volume.gradients[n].b_value == highest]
    for number in numbers:
        voxels = volume.frame(number).voxels
        if voxels.min() < voxels.max():
            break
    else:
        return 0, "as all are constant"
    if highest:
        return number, f"the first with b = {highest:g} s/mm², where noise shows best"
    return number, "the first that is not constant"


@dataclass(frozen=True)
class Pane:
    """One column of a sheet.

    Attributes:
        minus: subtracted from `volume`; the difference is drawn on a scale around zero.
        labels: drawn over the volume as contours.
        heat: drawn in color, on a scale of its own.
        window: lowest and highest gray level; None for that of all images.
    """

    title: str
    volume: Volume
    minus: Volume | None = None
    labels: Volume | None = None
    heat: bool = False
    window: tuple[float, float] | None = None

    @property
    def kind(self) -> Literal["image", "difference", "heat", "labels"]:
        """The scale that the pane is drawn on."""
        if self.volume.profile.is_labels:
            return "labels"
        if self.minus is not None:
            return "difference"
        return "heat" if self.heat else "image"

    def plane(self, name: PlaneName, point: Point) -> Plane:
        """Return a cut through the pane, float32, with `minus` subtracted; point: (k, j, i)."""
        plane = cut(self.volume, name, point)
        pixels = plane.pixels.astype(np.float32)
        if self.minus is not None:
            pixels -= cut(self.minus, name, point).pixels.astype(np.float32)
        return replace(plane, pixels=pixels)


class Scale(NamedTuple):
    """Lowest and highest value, in the volume's units; `name` is the color bar's label."""

    low: float
    high: float
    name: str
    colors: Any


def choose_window(volume: Volume) -> tuple[float, float]:
    """Choose lowest and highest gray level: soft tissue for CT, else percentiles of the voxels."""
    voxels = volume.frame(0).voxels
    low, high = float(voxels.min()), float(voxels.max())
    if volume.profile.is_labels:
        return 0.0, max(high, 1.0)
    window = volume.profile.window
    if window and low < window[1] and high > window[0]:
        return window
    step = max(1, voxels.size // 1_000_000)
    sample = voxels.reshape(-1)[::step]
    inside = sample[sample > low]
    if inside.size:
        low, high = float(np.percentile(sample, 0.5)), float(np.percentile(inside, 99.7))
        # Magnitudes begin at 0: a little undershoot must not make the air gray.
        if volume.profile.is_magnitude and low > -0.1 * high:
            low = 0.0
    return (low, high) if high > low else (low, low + 1.0)


def content_window(volume: Volume) -> tuple[float, float]:
    """Choose the gray levels that show the content of a CT: tissue, bone, contrast agent, lungs.

    volume: a single frame. Returns SOFT_TISSUE if that shows nine tenths of it.
    """
    step = -(-volume.shape[0] // _SLICES)
    planes = volume.voxels[step // 2 :: step].astype(np.float32)
    square = [min(_SQUARE, side) for side in planes.shape[1:]]
    rows, columns = (side // n * n for side, n in zip(planes.shape[1:], square, strict=True))
    blocks = planes[:, :rows, :columns].reshape(
        len(planes), rows // square[0], square[0], columns // square[1], square[1]
    )
    means = blocks.mean((2, 4))
    inside = means > _LUNG
    for axis in (1, 2) if min(means.shape[1:]) > 2 else ():  # squares at the skin are half air
        before, after = (np.roll(inside, shift, axis) for shift in (1, -1))
        inside = inside & before & after
    content, (low, high) = means[inside], SOFT_TISSUE
    if content.size and np.mean(content < _TISSUE) < _MANY_LUNGS:
        content = content[content >= _TISSUE]
    if content.size and np.mean((content < low) | (content > high)) > _BEYOND:
        low, high = np.percentile(content, _SHOWN).tolist()
    return (low, high) if high > low else SOFT_TISSUE


def _with_second_window(panes: Sequence[Pane], window: tuple[float, float]) -> list[Pane]:
    """Add the images in a window by content, if that is another one, after those of `window`."""
    second, panes = content_window(panes[0].volume), list(panes)
    images = [pane for pane in panes if pane.kind == "image" and pane.labels is None]
    if second == window or not images:
        return panes
    after = panes.index(images[-1]) + 1
    added = [replace(pane, title=f"{pane.title}, all content", window=second) for pane in images]
    return [*panes[:after], *added, *panes[after:]]


def _shared_scales(
    panes: Sequence[Pane], rows: Sequence[PlaneName], point: Point, window: tuple[float, float]
) -> dict[str, Scale]:
    """Return one scale for all panes of a kind, by kind."""
    units = panes[0].volume.units or "arbitrary units"
    reach = {
        kind: _reach(
            [pane.plane(row, point).pixels for pane in panes if pane.kind == kind for row in rows]
        )
        for kind in ("difference", "heat")
    }
    change = max(reach["difference"], _LEAST_CHANGE * (window[1] - window[0]))
    return {
        "image": Scale(*window, f"{panes[0].volume.quantity or 'intensity'}, {units}", "gray"),
        "difference": Scale(-change, change, f"difference, {units}", _difference_colors()),
        "labels": Scale(0.0, window[1], "value of the label", "nipy_spectral"),
        "heat": Scale(0.0, reach["heat"], f"standard deviation, {units}", "magma"),
    }


def _difference_colors() -> Any:
    """Return a diverging color map: zero is black, like the surrounding air."""
    colors = require("matplotlib.colors", purpose=_PURPOSE)
    stops = ["#b9e3ff", "#2b8fe0", "#0a2a4a", "#000000", "#4a1d05", "#e8762c", "#ffe0b8"]
    return colors.LinearSegmentedColormap.from_list("MedEnhance difference", stops)


def _with_frame(pane: Pane, number: int) -> Pane:
    """Return the pane with only this frame of sequences."""
    return replace(
        pane,
        volume=pane.volume.frame(number),
        minus=pane.minus and pane.minus.frame(number),
        labels=pane.labels and pane.labels.frame(number),
    )


def _check_grids(panes: Sequence[Pane]) -> None:
    """Raise InputError unless all volumes are on one grid."""
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


def _reach(pictures: Sequence[Floats]) -> float:
    """Find the largest absolute value on a scale: the 99.7th percentile; 1 if all is zero."""
    if not pictures:
        return 1.0
    sizes = np.abs(np.concatenate([picture.ravel() for picture in pictures]))
    return float(np.percentile(sizes, 99.7)) or float(sizes.max()) or 1.0


def _draw(
    panes: Sequence[Pane],
    rows: Sequence[PlaneName],
    point: Point,
    scales: Mapping[str, Scale],
    legend: Mapping[int, str],
    *,
    ticks: bool,
) -> Any:
    """Return a figure with a column for each pane, a row for each plane, and color bars below."""
    # In the order of the labels: a label's own color may be gray like the image.
    colors = {value: color_of(number) for number, value in enumerate(legend)}
    sizes = [cut(panes[0].volume, name, point).size_mm for name in rows]
    widest = max(width for _, width in sizes)
    heights = [
        max(_COLUMN_IN * min(height / widest, 1.5), _LOWEST_ROW_IN) + _LETTERS_IN
        for height, _ in sizes
    ]
    is_labeled = bool(legend) and any(pane.labels is not None for pane in panes)
    width = len(panes) * _COLUMN_IN + _LEFT_IN
    entry = _SWATCH_IN + _LETTER_IN * max(map(len, legend.values()), default=0)
    columns = max(1, min(_LEGEND_COLUMNS, len(legend), int(width / entry)))
    foot = _LEGEND_LINE_IN * math.ceil(len(legend) / columns) if is_labeled else 0.0
    figures = require("matplotlib.figure", purpose=_PURPOSE)
    figure = figures.Figure(
        (width, sum(heights) + _ENDS_IN + foot),
        dpi=DPI,
        facecolor=PAPER,
        layout="constrained",
    )
    cells = figure.subplots(
        len(rows) + 1,
        len(panes),
        squeeze=False,
        gridspec_kw={"height_ratios": [*heights, _BAR_IN]},
    )
    for column, pane in enumerate(panes):
        cells[0][column].set_title(pane.title, color=INK, fontsize=11, parse_math=False, pad=18)
        scale, image = scales[pane.kind], None
        if pane.window is not None:
            scale = scale._replace(low=pane.window[0], high=pane.window[1])
        for row, name in enumerate(rows):
            axes, plane = cells[row][column], pane.plane(name, point)
            image = _draw_plane(axes, plane, scale, ticks=ticks)
            if pane.labels is not None:
                _draw_contours(axes, cut(pane.labels, name, point), colors)
            if column == 0:
                place = f"{plane.name}\n{plane.place}\n{plane.size_mm[1]:.3g} mm wide"
                style = {
                    "rotation": 0,
                    "ha": "right",
                    "va": "center",
                    "labelpad": 22 if ticks else 16,
                }
                axes.set_ylabel(place, color=MUTED, fontsize=8, **style)
        if pane.labels is None:
            _draw_bar(figure, cells[-1][column], image, scale)
        else:
            cells[-1][column].axis("off")
    if is_labeled:
        _draw_legend(figure, legend, colors, columns)
    derived = "DERIVED · " if any(pane.volume.history for pane in panes) else ""
    figure.suptitle(f"{derived}{RESEARCH_ONLY}", color=MUTED, fontsize=7)
    return figure


def _draw_plane(axes: Any, plane: Plane, scale: Scale, *, ticks: bool) -> Any:
    """Draw the pixels in true proportions, with the patient's sides; returns the image."""
    height, width = plane.size_mm
    axes.set_facecolor(PAPER)
    sides = zip((axes.set_yticks, axes.set_xticks), plane.axes, plane.spacing_mm, strict=True)
    for set_ticks, (name, indices), mm in sides:
        set_ticks(*(_ticks_of(name, indices, mm) if ticks else ([],)))
    axes.tick_params(colors=MUTED, labelsize=6, length=2, pad=1)
    image = axes.imshow(
        plane.pixels,
        cmap=scale.colors,
        vmin=scale.low,
        vmax=scale.high,
        extent=(0, width, height, 0),
        aspect="equal",
        interpolation="antialiased",
    )
    left, right, top, bottom = plane.letters
    style = {"color": _LETTER, "fontsize": 8, "fontweight": "bold"}
    style |= {"xycoords": "axes fraction", "textcoords": "offset points"}
    beside, below = (-24, -11) if ticks else (-3, -3)
    for at, offset, letter, across, up in (
        ((0, 0.5), (beside, 0), left, "right", "center"),
        ((1, 0.5), (3, 0), right, "left", "center"),
        ((0.5, 1), (0, 3), top, "center", "bottom"),
        ((0.5, 0), (0, below), bottom, "center", "top"),
    ):
        axes.annotate(letter, at, offset, ha=across, va=up, **style)
    return image


def _ticks_of(name: str, indices: range, mm: float) -> tuple[list[float], list[str]]:
    """Return places in mm and labels of about five voxel indices: "I 0", "50", "100"."""
    rough = max(1.0, len(indices) / _TICKS)
    power = 10 ** math.floor(math.log10(rough))
    step = next(round(n * power) for n in (1, 2, 5, 10) if n * power >= rough)
    marked = range(0, len(indices), step)
    places = [(indices.index(index) + 0.5) * mm for index in marked]
    return places, [f"{name} {index}" if index == 0 else str(index) for index in marked]


def _draw_contours(axes: Any, plane: Plane, colors: Mapping[int, Any]) -> None:
    """Draw light lines with a dark edge, which keeps them visible on light tissue.

    Of several labels the areas are tinted too: of two neighbors, the line of one hides the other.
    """
    effects = require("matplotlib.patheffects", purpose=_PURPOSE)
    rows, columns = plane.pixels.shape
    if len(colors) > 1:
        to_rgba = require("matplotlib.colors", purpose=_PURPOSE).to_rgba
        tints = np.zeros((256, 4), np.float32)
        for value, color in colors.items():
            tints[value] = to_rgba(color, _TINT)
        height, width = plane.size_mm
        axes.imshow(tints[plane.pixels], extent=(0, width, height, 0), interpolation="nearest")
    # A frame of zeros closes the contours of labels that touch the edge.
    labels = np.pad(plane.pixels, 1)
    x = (np.arange(columns + 2) - 0.5) * plane.spacing_mm[1]
    y = (np.arange(rows + 2) - 0.5) * plane.spacing_mm[0]
    for value, color in colors.items():
        inside = (labels == value).astype(np.float32)
        if inside.any():
            lines = axes.contour(x, y, inside, levels=[0.5], colors=[color])
            lines.set_linewidth(0.8)
            lines.set_path_effects([effects.withStroke(linewidth=1.5, foreground="black")])


def _draw_bar(figure: Any, axes: Any, image: Any, scale: Scale) -> None:
    bar = figure.colorbar(image, cax=axes, orientation="horizontal")
    ticks = [scale.low, (scale.low + scale.high) / 2, scale.high]
    plus = "+" if scale.low < 0 < scale.high == -scale.low else ""
    rounded = [float(f"{value:.3g}") for value in ticks]
    bar.set_ticks(ticks, labels=[f"{plus if value > 0 else ''}{value:g}" for value in rounded])
    bar.outline.set_edgecolor(MUTED)
    axes.tick_params(colors=INK, labelsize=7.5, length=2)
    axes.set_xlabel(scale.name, color=MUTED, fontsize=8)


def _draw_legend(
    figure: Any, legend: Mapping[int, str], colors: Mapping[int, Any], columns: int
) -> None:
    """Draw one legend under all panes."""
    lines = require("matplotlib.lines", purpose=_PURPOSE)
    figure.legend(
        handles=[
            lines.Line2D([], [], color=colors[value], linewidth=2.2, label=name)
            for value, name in legend.items()
        ],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=8,
        labelcolor=INK,
    )

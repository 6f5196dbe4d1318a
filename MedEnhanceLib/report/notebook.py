"""What a notebook shows of volumes and results: pictures in memory, and facts as HTML."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import EndingError
from MedEnhanceLib.report.drawing import LINE, MUTED, darken, new_figure, png_of, save_figure
from MedEnhanceLib.report.figures import DPI, LabelLike, Pane, comparison, sheet_alt
from MedEnhanceLib.report.planes import Point
from MedEnhanceLib.runtime.dependencies import has

_HISTOGRAM_IN = (4.4, 1.7)
_BINS, _MOST_SAMPLES = 96, 1_000_000
_NOTICE = "Research software, not a medical device; not for diagnosis."


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that notebooks show by themselves.

    figure: of matplotlib. alt: what it shows, in a sentence.
    """

    figure: Any
    alt: str

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write it as PNG; raises OutputError where that cannot be, and for another ending."""
        if Path(path).suffix.lower() != ".png":
            raise EndingError(f"{path}: pictures are written as PNG", "End its name in .png.")
        save_figure(Path(path), self.figure, overwrite=overwrite)

    def __repr__(self) -> str:
        return f"<Picture: {self.alt} .save(path) writes it>"

    def _repr_png_(self) -> bytes:
        return png_of(self.figure)


def planes_of(
    panes: Sequence[Pane],
    *,
    legend: Sequence[LabelLike] = (),
    point: Point | None = None,
    window: tuple[float, float] | None = None,
) -> Picture:
    """Three planes of each pane, as `report.figures.comparison_sheet` draws them."""
    figure = comparison(panes, legend=legend, point=point, window=window)
    return Picture(figure, sheet_alt(panes))


def planes_of_volume(
    volume: Volume, *, point: Point | None = None, window: tuple[float, float] | None = None
) -> Picture:
    """Three planes of a volume; see `Volume.plot`."""
    return planes_of([Pane(volume.modality, volume)], point=point, window=window)


def volume_html(volume: Volume) -> str:
    """Facts of a volume with three planes and a histogram."""
    size = " × ".join(str(count) for count in reversed(volume.shape))
    spacing = " × ".join(f"{value:.4g}" for value in volume.geometry.spacing)
    facts = {
        "Voxels": f"{size} of {spacing} mm, {volume.dtype}",
        "Modality": f"{volume.modality}{' (guessed)' if volume.modality_is_guess else ''}",
        "Units": volume.units or "arbitrary",
        "Source": volume.source,
        "History": "; ".join(volume.history),
    }
    if not has("matplotlib"):
        return page_of("Volume", facts, [])
    pictures = [planes_of_volume(volume), histogram_of(volume)]
    return page_of("Volume", facts, pictures)


def page_of(title: str, facts: Mapping[str, str], pictures: Sequence[Picture]) -> str:
    """A part of a page; text in it is escaped."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in facts.items()
        if value
    )
    images = "".join(
        f"<img style='max-width:100%' alt='{html.escape(one.alt, quote=True)}' "
        f"src='data:image/png;base64,{base64.b64encode(png_of(one.figure)).decode()}'>"
        for one in pictures
    )
    return (
        f"<div><b>{html.escape(title)}</b><table>{rows}</table>"
        f"<div style='display:flex;flex-wrap:wrap;gap:8px;align-items:flex-start'>{images}</div>"
        f"<small>{_NOTICE}</small></div>"
    )


def histogram_of(volume: Volume) -> Picture:
    """The share of the voxels at each intensity."""
    flat = volume.voxels.reshape(-1)
    values = flat[:: max(1, flat.size // _MOST_SAMPLES)].astype(np.float64)
    values = values[np.isfinite(values)]  # a notebook shows what no method takes
    figure = new_figure(_HISTOGRAM_IN, dpi=DPI)
    axes = figure.add_axes((0.1, 0.24, 0.86, 0.6))
    darken(axes, "Share of the voxels")
    counts, edges = np.histogram(values, bins=_BINS)
    shares = np.maximum(counts / max(1, values.size), 1e-7)
    axes.fill_between(edges[:-1], shares, step="post", color=LINE)
    axes.set_yscale("log")
    axes.set_xlabel(f"intensity, {volume.units or 'arbitrary units'}", color=MUTED, fontsize=8)
    return Picture(figure, "Histogram of the intensities.")

"""Curves of all codecs, and crops of what they make of a slice at equal bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from _compression_gates import chosen, curve
from _compression_measures import Row
from _compression_ours import OURS, coded
from _compression_peers import HEVC, JPEG2000, lossy_peers, run
from _compression_rows import RATIO, RATIOS, Case
from _compression_volumes import Subject

from MedEnhanceLib.core import metrics

PICTURE_RATIOS = (64, 256)
_SIDE = 128
_TRIES = 9
#: Differences are shown this many times as strong as the voxels beside them.
_STRONGER = 4


def draw_curves(path: Path, rows: list[Row]) -> None:
    """PSNR over ratio, one panel a volume."""
    figure = _figure(figsize=(13, 8))
    volumes = list(dict.fromkeys(row["volume"] for row in chosen(rows, mode=RATIO)))
    codecs = list(dict.fromkeys(row["codec"] for row in chosen(rows, mode=RATIO)))
    raw = {
        row["volume"]: row["bytes"] * row["ratio"]
        for row in rows
        if {"bytes", "ratio"} <= row.keys()
    }
    for place, volume in enumerate(volumes, 1):
        axes = figure.add_subplot(2, 3, place)
        for number, codec in enumerate(codecs):
            points = sorted((raw[volume] / size, psnr) for size, psnr in curve(rows, volume, codec))
            style = {"color": "black", "linewidth": 2.4, "zorder": 9} if codec == OURS else {}
            style = style or {"color": f"C{number % 10}", "linewidth": 1.1}
            axes.plot(*np.array(points).reshape(-1, 2).T, marker=".", label=codec, **style)
        axes.set(xscale="log", title=volume, xlabel="ratio", ylabel="PSNR, full range (dB)")
        axes.set_xlim(RATIOS[0] * 0.8, RATIOS[-1] * 1.2)
        axes.set_xticks(RATIOS, [str(ratio) for ratio in RATIOS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        inside = [
            psnr
            for codec in codecs
            for size, psnr in curve(rows, volume, codec)
            if RATIOS[0] * 0.8 <= raw[volume] / size <= RATIOS[-1] * 1.2
        ]
        if inside:
            axes.set_ylim(max(min(inside) - 1, 15), max(inside) + 1)
    figure.legend(*axes.get_legend_handles_labels(), loc="lower right", bbox_to_anchor=(0.98, 0.1))
    figure.savefig(path, dpi=90)


def draw_crops(folder: Path, case: Case) -> tuple[str, str] | None:
    """Original, ours, HEVC and JPEG 2000 with what they changed; title and file."""
    if case.subject.crop is None:
        return None
    voxels = case.volume.voxels
    place, box = _crop(voxels.shape, case.subject.crop)
    plane = voxels[place]
    low, high = case.subject.window or tuple(np.percentile(plane, (0.5, 99.5)))
    span = float(voxels.max()) - float(voxels.min())
    figure = _figure(figsize=(11, 11.4))
    for line, ratio in enumerate(PICTURE_RATIOS):
        shown = [("original", voxels, None), *_decoded(case, ratio)]
        for column, (name, decoded, reached) in enumerate(shown):
            title = name
            if reached is not None:
                title += f", {reached:.0f}\n{metrics.psnr(voxels, decoded, span):.1f} dB"
            axes = figure.add_subplot(4, 4, 8 * line + column + 1)
            _show(axes, decoded[place][box], low, high, title)
            if reached is not None:
                change = decoded[place][box].astype(np.float64) - plane[box]
                limit = (high - low) / (2 * _STRONGER)
                axes = figure.add_subplot(4, 4, 8 * line + column + 5)
                _show(axes, change, -limit, limit, f"change × {_STRONGER}")
    title, name = picture_of(case.subject)
    figure.savefig(folder / name, dpi=80)
    return title, name


def picture_of(subject: Subject) -> tuple[str, str]:
    """Title and file of a subject's crops."""
    title = f"{subject.name} at ratios of {PICTURE_RATIOS[0]} and {PICTURE_RATIOS[1]}"
    return title, f"compression-{subject.modality.lower()}.png"


def _decoded(case: Case, ratio: int) -> Iterator[tuple[str, npt.NDArray[Any], float]]:
    row, voxels = coded(case.volume, {"ratio": ratio})
    yield OURS, voxels, row["ratio"]
    peers = {peer.name: peer for peer in lossy_peers(8 * case.volume.dtype.itemsize)}
    for name in (HEVC, JPEG2000):
        low, high = sorted((peers[name].settings[0], peers[name].settings[-1]))
        rising = peers[name].settings[0] < peers[name].settings[-1]
        for _ in range(_TRIES):
            setting = (low + high) / 2
            point = run(
                lambda image, s=setting, p=peers[name]: p.code(image, s), case.volume.voxels
            )
            reached = case.volume.nbytes / point.size
            if abs(reached / row["ratio"] - 1) < 0.01:
                break
            if (reached < row["ratio"]) == rising:
                low = setting
            else:
                high = setting
        assert point.decoded is not None
        yield name, point.decoded, reached


def _crop(shape: tuple[int, ...], shares: tuple[float, float, float]) -> tuple[int, Any]:
    starts = [
        int(np.clip(share * extent - _SIDE / 2, 0, max(extent - _SIDE, 0)))
        for share, extent in zip(shares[1:], shape[1:], strict=True)
    ]
    return int(shares[0] * shape[0]), tuple(slice(start, start + _SIDE) for start in starts)


def _show(axes: Any, plane: npt.NDArray[Any], low: float, high: float, title: str) -> None:
    axes.imshow(plane, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def _figure(figsize: tuple[float, float]) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure

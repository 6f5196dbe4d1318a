"""The page of a measured scanner: plots of transfer and contrast, an example, and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.enhancement_page import template
from MedEnhanceLib.report.figures import DPI, INK, MUTED, PAPER, Picture
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.scanner.scanner import AXES, Curve, Measured, Scanner

#: Colors and dashes of curves.
_LINES = (("#7cc7ff", "-"), ("#3ddc97", "-"), ("#ffb000", "--"))
_SAME = Curve(places=(0, 1), values=(0, 1), low=(0, 1), high=(0, 1))


def write_scanner_page(
    scanner: Scanner, folder: Path, *, examples: Mapping[str, Picture], overwrite: bool
) -> Path:
    """Write index.html and its pictures into a folder; returns the page.

    Args:
        scanner: as measured.
        folder: of the page.
        examples: file → picture of volumes.
        overwrite: whether existing files are replaced.
    Raises OutputError if they exist and may not be replaced, DependencyError without Jinja2.
    """
    transfers = {f"across {name}": axis for name, axis in zip(AXES, scanner.axes, strict=True)}
    pictures = {"transfer.png": _plotted(transfers, "cycles per mm", "transfer")}
    if scanner.contrast is not None:
        curves = {"scanner": scanner.contrast, "no difference": _SAME}
        axes = "intensity of the high-quality pool", "intensity of the scanner"
        pictures["contrast.png"] = _plotted(curves, *axes)
    pictures |= examples
    text = template(require("jinja2", purpose="Writing a report"), "scanner.html").render(
        notice=RESEARCH_ONLY,
        lead=summary_of(scanner),
        warnings=[*scanner.warnings, *scanner.artifacts],
        pictures=pictures,
        scanner=scanner.to_json(),
        applies=scanner.applies,
    )
    for name, picture in pictures.items():
        picture.save(folder / name, overwrite=overwrite)
    with atomic_write(folder / "index.html", overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return folder / "index.html"


def summary_of(scanner: Scanner) -> str:
    """Say in some sentences how the pools differ, with intervals, and what an inversion gains."""
    low, good = scanner.low_quality, scanner.high_quality
    unit = " HU" if scanner.modality == "CT" else " of bright tissue"
    sharpness = ", ".join(
        f"{_sharpness(curve)} ({axis})" for axis, curve in zip(AXES, scanner.axes, strict=True)
    )
    gain = "" if scanner.applies else " Nothing is inverted."
    if scanner.applies and scanner.gain is not None:
        gain = (
            f" Inverting it gains {scanner.gain.median:+.1f} dB over enhance in "
            f"{scanner.gain.scans} simulated scans (worst {scanner.gain.worst:+.1f})."
        )
    return (
        f"{len(low.files)} volumes against {len(good.files)}: noise {_shown(low.noise)}{unit} "
        f"against {_shown(good.noise)}; MTF50: {sharpness}; bias field (SD of its logarithm) "
        f"{_shown(low.field)} against {_shown(good.field)}.{gain}"
    )


def _sharpness(curve: Curve) -> str:
    """State MTF50 with its interval, or the end of it that the pools show."""
    half = curve.half
    is_low, is_high = half.low <= curve.places[0], half.high >= curve.places[-1]
    if is_low and is_high:
        return "not measurable here"
    if is_high:
        return f"above {half.low:.3g} cycles/mm"
    return f"below {half.high:.3g} cycles/mm" if is_low else f"{_shown(half)} cycles/mm"


def _shown(figure: Measured) -> str:
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


def _plotted(curves: Mapping[str, Curve], x: str, y: str) -> Picture:
    """Plot curves with their intervals; the third is dashed, as two axes may have one transfer."""
    figures = require("matplotlib.figure", purpose="Drawing pictures")
    figure = figures.Figure((4.5, 3.6), dpi=DPI, facecolor=PAPER, layout="constrained")
    axes = figure.subplots()
    for (name, curve), (color, dashes) in zip(curves.items(), _LINES, strict=False):
        axes.plot(curve.places, curve.values, color=color, linestyle=dashes, label=name)
        band = {"color": color, "alpha": 0.2, "linewidth": 0}
        axes.fill_between(curve.places, curve.low, curve.high, **band)
    axes.set_facecolor(PAPER)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)
    return Picture(figure, f"{y.capitalize()} against {x}: {', '.join(curves)}.")

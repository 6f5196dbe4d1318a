"""The page of a measured scanner: plots of transfer and contrast, and a sentence of figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.enhancement_page import template
from MedEnhanceLib.report.figures import DPI, INK, MUTED, PAPER, Picture
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.scanner.scanner import AXES, Measured, Scanner

_COLORS = ("#7cc7ff", "#3ddc97", "#ffb000")


def write_scanner_page(scanner: Scanner, folder: Path, *, overwrite: bool) -> Path:
    """Write index.html and scanner.png into a folder; returns the page.

    Args:
        scanner: as measured.
        folder: of the page.
        overwrite: whether existing files are replaced.
    Raises OutputError if they exist and may not be replaced, DependencyError without Jinja2.
    """
    picture = _drawn(scanner)
    text = template(require("jinja2", purpose="Writing a report"), "scanner.html").render(
        notice=RESEARCH_ONLY,
        lead=summary_of(scanner),
        warnings=[*scanner.warnings, *scanner.artifacts],
        alt=picture.alt,
        scanner=scanner.to_json(),
    )
    picture.save(folder / "scanner.png", overwrite=overwrite)
    with atomic_write(folder / "index.html", overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return folder / "index.html"


def summary_of(scanner: Scanner) -> str:
    """Say in one sentence how the pools differ, with intervals."""
    low, good = scanner.low_quality, scanner.high_quality
    unit = " HU" if scanner.contrast is None else " of bright tissue"
    halves = ", ".join(
        f"{_shown(curve.half)} ({axis})" for axis, curve in zip(AXES, scanner.axes, strict=True)
    )
    return (
        f"{len(low.files)} volumes against {len(good.files)}: noise {_shown(low.noise)}{unit} "
        f"against {_shown(good.noise)}; half of the contrast is left at {halves} cycles/mm; bias "
        f"field (SD of its logarithm) {_shown(low.field)} against {_shown(good.field)}."
    )


def _shown(figure: Measured) -> str:
    return f"{figure.value:.3g} [{figure.low:.3g}, {figure.high:.3g}]"


def _drawn(scanner: Scanner) -> Picture:
    """Draw the transfer of each axis, and the curve of contrast."""
    figures = require("matplotlib.figure", purpose="Drawing pictures")
    figure = figures.Figure((9.0, 3.6), dpi=DPI, facecolor=PAPER, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, transfer, color in zip(AXES, scanner.axes, _COLORS, strict=True):
        line = transfer.places, transfer.values, transfer.low, transfer.high
        _draw(left, *line, color=color, label=f"across {name}")
    _style(left, "cycles per mm", "transfer, of the high-quality pool")
    if scanner.contrast is not None:
        curve = scanner.contrast
        line = curve.places, curve.values, curve.low, curve.high
        _draw(right, *line, color=_COLORS[0], label="scanner")
        right.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, label="no difference")
        _style(right, "intensity of the high-quality pool", "intensity of the scanner")
    else:
        right.axis("off")
    return Picture(figure, "Resolution along three axes, and the curve of contrast.")


def _draw(axes: Any, x: Any, y: Any, low: Any, high: Any, **style: Any) -> None:
    axes.plot(x, y, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)


def _style(axes: Any, x: str, y: str) -> None:
    axes.set_facecolor(PAPER)
    axes.tick_params(colors=MUTED, labelsize=8)
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK)

"""The page of a measured scanner: plots of transfer and contrast, and a table of figures."""

from __future__ import annotations

from collections.abc import Iterator
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

    Raises OutputError if they exist and may not be replaced, DependencyError without Jinja2.
    """
    picture = _drawn(scanner)
    text = template(require("jinja2", purpose="Writing a report"), "scanner.html").render(
        notice=RESEARCH_ONLY,
        lead=summary_of(scanner),
        warnings=[*scanner.warnings, *scanner.artifacts],
        alt=picture.alt,
        rows=[(name, each.value, each.low, each.high) for name, each in figures_of(scanner)],
        pools={
            "Low-quality pool": scanner.low_quality.files,
            "High-quality pool": scanner.high_quality.files,
        },
    )
    picture.save(folder / "scanner.png", overwrite=overwrite)
    with atomic_write(folder / "index.html", overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="replace")
    return folder / "index.html"


def summary_of(scanner: Scanner) -> str:
    """Say in one sentence how the pools differ."""
    low, good = scanner.low_quality, scanner.high_quality
    halves = ", ".join(f"{each.half.value:.3g}" for each in scanner.axes)
    times = low.noise.value / good.noise.value if good.noise.value else float("inf")
    return (
        f"{len(low.files)} against {len(good.files)} volumes: noise {low.noise.value:.3g} "
        f"({times:.2g} times), half of the contrast left at {halves} cycles/mm "
        f"({', '.join(AXES)}), bias field ±{low.field.value:.0%} ({good.field.value:.0%})."
    )


def figures_of(scanner: Scanner) -> Iterator[tuple[str, Measured]]:
    """Yield all figures with their names."""
    unit = "HU" if scanner.contrast is None else "share of bright tissue"
    for name, pool in (("low", scanner.low_quality), ("high", scanner.high_quality)):
        yield f"Noise of the {name}-quality pool, {unit}", pool.noise
        yield f"Bias field of the {name}-quality pool, SD of its logarithm", pool.field
    for name, transfer in zip(AXES, scanner.axes, strict=True):
        yield f"MTF50 across {name}, cycles/mm", transfer.half


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

"""The page of a training: curves, and what teacher and student make of the same blocks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.enhance import make_folder
from MedEnhanceLib.report.page import Fact, Page, Picture, Table, write_page
from MedEnhanceLib.report.style import INK, MUTED, PAPER
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.unicompress.implicit.siren import count_weights
from MedEnhanceLib.unicompress.implicit.validation import Sample

if TYPE_CHECKING:
    from MedEnhanceLib.unicompress.implicit.train import ImplicitTraining

_CURVES, _SAMPLES = "curves.png", "samples.png"
_COLUMNS, _CELL_IN, _SAMPLE_IN, _DPI = 3, (3.9, 2.3), 2.4, 110
_LINE = "#6cb6ff"


def write_report(training: ImplicitTraining) -> Path:
    """Write `out/report/index.html` and its pictures; the page."""
    networks, config = training.trainer.networks, training.config
    most = networks.tokeniser.refinements
    networks.student.fixed = True
    ways = {
        "teacher": (networks.teacher, most),
        "student": (networks.student, most),
        "student, 2 layers": (networks.student, min(2, most)),
    }
    measured = {
        name: training.validation.psnr(networks, decoder, layers)
        for name, (decoder, layers) in ways.items()
    }
    folder = make_folder(training.out / "report")
    _draw_curves(folder / _CURVES, training)
    _draw_samples(folder / _SAMPLES, training.validation.samples(networks, ways))
    names = list(next(iter(measured.values())))
    weights = count_weights(networks.teacher), count_weights(networks.student)
    page = Page(
        title=f"Training of {config.name}: the implicit network",
        about=[
            ("Modality", config.modality),
            ("Steps", f"{config.teacher_steps:,} of the teacher, {config.student_steps:,} after"),
            ("Time", f"{training.seconds / 60:.0f} min on {training.trainer.device}"),
            ("Volumes", str(len(training.sources))),
        ],
        summary=[
            f"The student has {weights[1]:,} weights, the teacher {weights[0]:,}: "
            f"{weights[0] / weights[1]:.1f} times as many.",
            "Figures are of blocks of volumes that were learned from; those of volumes that were "
            "not are in the benchmark.",
        ],
        facts=[
            Fact(f"{value:.1f} dB", f"student, {name}")
            for name, value in measured["student"].items()
        ],
        tables=[
            Table(
                "PSNR, dB",
                ("decoder", *names),
                [
                    (way, *(f"{found[name]:.2f}" for name in names))
                    for way, found in measured.items()
                ],
                "Peak 2 on the network's scale; for CT that is 2048 HU.",
            )
        ],
        pictures=[
            Picture(
                _SAMPLES,
                "Samples",
                "Rows: the source, then what was decoded.",
                "Middle slices of the fixed blocks, with the window of the source.",
            ),
            Picture(_CURVES, "Curves", "Losses and PSNR by step.", "Running means."),
        ],
        provenance={"Configuration": config.to_json()},
    )
    return write_page(folder, page, overwrite=True)


def _draw_curves(path: Path, training: ImplicitTraining) -> None:
    figures = require("matplotlib.figure", purpose="Drawing pictures")
    curves = training.journal.curves
    rows = max(1, -(-len(curves) // _COLUMNS))
    size = (_COLUMNS * _CELL_IN[0], rows * _CELL_IN[1])
    figure = figures.Figure(figsize=size, dpi=_DPI, facecolor=PAPER, layout="constrained")
    for index, (name, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, _COLUMNS, index + 1)
        axes.set_facecolor(PAPER)
        axes.set_title(name, color=INK, fontsize=9.5, loc="left", parse_math=False)
        axes.tick_params(colors=MUTED, labelsize=7.5, length=2)
        steps, values = zip(*curve, strict=True)
        axes.plot(steps, values, color=_LINE, linewidth=1.3, marker="." if len(steps) < 9 else "")
    _save(path, figure)


def _draw_samples(path: Path, samples: Sequence[Sample]) -> None:
    figures = require("matplotlib.figure", purpose="Drawing pictures")
    rows = ["source", *samples[0].decoded]
    size = (len(samples) * _SAMPLE_IN + 0.3, len(rows) * _SAMPLE_IN)
    figure = figures.Figure(figsize=size, dpi=_DPI, facecolor=PAPER, layout="constrained")
    for column, sample in enumerate(samples):
        low, high = np.percentile(sample.target, (0.5, 99.5))
        for row, name in enumerate(rows):
            axes = figure.add_subplot(len(rows), len(samples), row * len(samples) + column + 1)
            axes.set_xticks([])
            axes.set_yticks([])
            image = sample.target if name == "source" else sample.decoded[name]
            axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-3))
            if row == 0:
                axes.set_title(sample.modality, color=INK, fontsize=9.5)
            if column == 0:
                axes.set_ylabel(name, color=MUTED, fontsize=9)
    _save(path, figure)


def _save(path: Path, figure: Any) -> None:
    agg = require("matplotlib.backends.backend_agg", purpose="Drawing pictures")
    with atomic_write(path, overwrite=True) as temporary, temporary.open("wb") as stream:
        agg.FigureCanvasAgg(figure).print_png(stream)

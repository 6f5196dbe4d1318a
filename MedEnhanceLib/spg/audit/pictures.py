"""Pictures of a distilled image beside the slice that it is nearest to, and what differs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.panes import DIFFERENCE, GREY
from MedEnhanceLib.report.sheet import register_colours
from MedEnhanceLib.report.style import INK, MUTED, PAPER
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.spg.audit.neighbours import Pair

_PANE_IN, _HEAD_IN, _DPI = 2.9, 0.75, 140
#: Differences reach this far at most before their colour saturates.
_LEAST_REACH = 0.05


def draw_pair(path: Path, pair: Pair, title: str, *, overwrite: bool = False) -> None:
    """A PNG of three panes: the image laid on the slice, the slice, image − slice.

    Raises DependencyError without matplotlib, OutputError where `path` cannot be written.
    """
    purpose = "Drawing pictures"
    figures = require("matplotlib.figure", purpose=purpose)
    agg = require("matplotlib.backends.backend_agg", purpose=purpose)
    register_colours()
    height, width = pair.onto.shape
    size = (3 * _PANE_IN, _PANE_IN * height / width + _HEAD_IN)
    figure = figures.Figure(figsize=size, dpi=_DPI, facecolor=PAPER)
    difference = pair.laid - pair.onto
    reach = max(_LEAST_REACH, float(np.percentile(np.abs(difference), 99.7)))
    panes = (
        ("distilled, laid on the slice", pair.laid, GREY, 0.0, 1.0),
        ("nearest slice of the patient", pair.onto, GREY, 0.0, 1.0),
        (f"difference, ±{reach:.2f}", difference, DIFFERENCE, -reach, reach),
    )
    share = 1 - _HEAD_IN / size[1]
    for column, (name, pixels, colours, low, high) in enumerate(panes):
        axes = figure.add_axes((column / 3 + 0.005, 0.01, 1 / 3 - 0.01, share))
        axes.imshow(pixels, cmap=colours, vmin=low, vmax=high, interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(name, color=MUTED, fontsize=9)
    words = f"{title}: NCC of details {pair.score:.2f}, SSIM {pair.ssim:.2f} (confidential)"
    figure.text(0.5, 1 - 0.15 / size[1], words, color=INK, fontsize=10, ha="center", va="top")
    with atomic_write(path, overwrite=overwrite) as temporary:
        agg.FigureCanvasAgg(figure).print_png(str(temporary), metadata={"Software": "MedEnhance"})

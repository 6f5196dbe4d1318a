"""Comparison sheets: three planes of one place, side by side, drawn without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.report.panes import (
    LabelLike,
    Pane,
    check_grids,
    first_frame,
    shared_scales,
)
from MedEnhanceLib.report.planes import PLANES, Point, busiest_point, cut
from MedEnhanceLib.report.sheet import Sheet

__all__ = ["LabelLike", "Pane", "comparison_sheet"]


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
    panes = [first_frame(pane) for pane in panes]
    check_grids(panes)
    at = point or busiest_point(panes[0].volume)
    rows = [name for name in PLANES if min(cut(panes[0].volume, name, at).pixels.shape) > 1]
    scales = shared_scales(panes, rows, at, window)
    sheet = Sheet(panes, rows or list(PLANES[:1]), at, legend)
    sheet.draw(panes, scales)
    target = Path(path)
    with atomic_write(target, overwrite=overwrite) as temporary:
        sheet.save(temporary)
    return target

"""Pictures of a sequence for its report: some frames, and the mean of all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.atomic import atomic_folder
from MedEnhanceLib.report.figures import Pane, comparison, first_with_content
from MedEnhanceLib.report.orthogonal import PLANES, busiest_point, nearest_axes

#: Most frames that are drawn.
_MOST = 12


def draw_sequence(folder: Path, before: Volume, after: Volume, *, overwrite: bool) -> list[int]:
    """Write 000.png … of some frames, and mean.png of all.

    Args:
        folder: of the pictures; those of an earlier report are removed.
        before: the input; of a single frame nothing is drawn.
        after: the result, on the same grid.
        overwrite: whether earlier pictures may be removed.
    Returns the numbers of the frames.
    Raises OutputError: the folder holds other files, or cannot be written.
    """
    count = len(before.frames())
    if count == 1:
        return []
    numbers = np.linspace(0, count - 1, min(count, _MOST)).round().astype(int).tolist()
    point = busiest_point(before.frame(first_with_content(before)))
    means = [each.frame(0).with_voxels(each.voxels.mean(0, np.float64)) for each in (before, after)]
    planes = [PLANES[2 - nearest_axes(before.geometry).index(2)]]  # along slices as they are stored
    with atomic_folder(folder, replaceable=lambda path: overwrite and _is_picture(path)) as new:
        for number in numbers:
            picture = comparison(_panes(before, after), point=point, frame=number, planes=planes)
            picture.save(new / f"{number:03d}.png")
        comparison(_panes(*means), point=point).save(new / "mean.png")
    return numbers


def _is_picture(path: Path) -> bool:
    return path.suffix == ".png" and b"Software\0MedEnhance" in path.read_bytes()


def _panes(before: Volume, after: Volume) -> list[Pane]:
    difference = Pane("Enhanced − input", after, minus=before)
    return [Pane("Input", before), Pane("Enhanced", after), difference]

"""Pictures of a sequence for its report: some frames, the mean of all, fractional anisotropy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import foreground
from MedEnhanceLib.core.diffusion_gradients import fit_tensor, tensor_equations
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.atomic import atomic_folder
from MedEnhanceLib.report.figures import Pane, comparison, first_with_content
from MedEnhanceLib.report.orthogonal import PLANES, PlaneName, Point, busiest_point, nearest_axes

#: Most frames that are drawn.
_MOST = 12


def draw_sequence(
    folder: Path, before: Volume, after: Volume, *, overwrite: bool
) -> dict[str, list[Any]]:
    """Write 000.png … of some frames, mean.png of all, and tensor.png of diffusion.

    Args:
        folder: of the pictures; those of an earlier report are removed.
        before: the input; of a single frame nothing is drawn.
        after: the result, on the same grid.
        overwrite: whether earlier pictures may be removed.
    Returns the numbers of the frames, and the medians of `_draw_tensor`.
    Raises OutputError: the folder holds other files, or cannot be written.
    """
    count = len(before.frames())
    if count == 1:
        return {"frames": [], "medians": []}
    numbers = np.linspace(0, count - 1, min(count, _MOST)).round().astype(int).tolist()
    point = busiest_point(before.frame(first_with_content(before)))
    volumes = [before, after]
    means = [each.frame(0).with_voxels(each.voxels.mean(0, np.float64)) for each in volumes]
    planes = [PLANES[2 - nearest_axes(before.geometry).index(2)]]  # along slices as they are stored
    with atomic_folder(folder, replaceable=lambda path: overwrite and _is_picture(path)) as new:
        for number in numbers:
            picture = comparison(_panes(before, after), point=point, frame=number, planes=planes)
            picture.save(new / f"{number:03d}.png")
        comparison(_panes(*means), point=point).save(new / "mean.png")
        medians = _draw_tensor(new / "tensor.png", volumes, means, point, planes)
    return {"frames": numbers, "medians": medians}


def _is_picture(path: Path) -> bool:
    return path.suffix == ".png" and b"Software\0MedEnhance" in path.read_bytes()


def _panes(before: Volume, after: Volume) -> list[Pane]:
    difference = Pane("Enhanced − input", after, minus=before)
    return [Pane("Input", before), Pane("Enhanced", after), difference]


def _draw_tensor(
    path: Path, volumes: list[Volume], means: list[Volume], point: Point, planes: list[PlaneName]
) -> list[list[float]]:
    """Draw fractional anisotropy before and after, in tissue of the slice through `point`.

    Returns its median and that of the mean diffusivity, µm²/ms, before and after; nothing where
    the frames do not determine a tensor.
    """
    chosen = tensor_equations(volumes[0].gradients)
    if chosen is None:
        return []
    numbers, equations = chosen
    tissue = foreground(means[1].voxels[point[0]])
    panes, medians = [], []
    for title, volume, mean in zip(("Input", "Enhanced"), volumes, means, strict=True):
        maps = fit_tensor(volume.voxels[numbers, point[0]][:, tissue], equations)
        medians.append([float(np.median(values)) for values in maps])
        voxels = np.zeros(mean.shape, np.float32)
        voxels[point[0]][tissue] = maps[0]
        drawn = replace(mean, voxels=voxels, quantity="fractional anisotropy", units="0 to 1")
        panes.append(Pane(title, drawn))
    comparison(panes, point=point, window=(0, 1), planes=planes).save(path)
    return medians

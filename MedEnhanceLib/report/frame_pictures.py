"""Pictures of a sequence for its report: some frames, the mean of all, fractional anisotropy."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from MedEnhanceLib.core.arrays import foreground
from MedEnhanceLib.core.diffusion_gradients import fit_tensor, tensor_equations
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report.figures import Pane, Picture, comparison, shown_frame
from MedEnhanceLib.report.orthogonal import PLANES, PlaneName, Point, busiest_point

#: Most frames that are drawn.
_MOST = 12


@dataclass(frozen=True)
class SequencePictures:
    """Pictures of a sequence.

    Attributes:
        pictures: by the names of their files: 000.png … of some frames, mean.png of all, and
            tensor.png of diffusion.
        frames: numbers of the frames that are drawn.
        medians: as `_draw_tensor` returns them.
    """

    pictures: dict[str, Picture] = field(default_factory=dict)
    frames: list[int] = field(default_factory=list)
    medians: list[list[float]] = field(default_factory=list)


def draw_sequence(before: Volume, after: Volume) -> SequencePictures:
    """Draw the input and the result, on one grid; nothing of a single frame."""
    count = len(before.frames())
    if count == 1:
        return SequencePictures()
    numbers = np.linspace(0, count - 1, min(count, _MOST)).round().astype(int).tolist()
    point = busiest_point(before.frame(shown_frame(before)[0]))
    volumes = [before, after]
    means = [each.frame(0).with_voxels(each.voxels.mean(0, np.float64)) for each in volumes]
    planes = [PLANES[before.geometry.upright_turn.axes.index(0)]]  # along slices as they are stored
    pictures = {
        f"{number:03d}.png": comparison(
            compared_panes(before, after), point=point, frame=number, planes=planes
        )
        for number in numbers
    }
    pictures["mean.png"] = comparison(compared_panes(*means), point=point)
    tensor, medians = _draw_tensor(volumes, means, point, planes)
    if tensor is not None:
        pictures["tensor.png"] = tensor
    return SequencePictures(pictures, numbers, medians)


def compared_panes(before: Volume, after: Volume) -> list[Pane]:
    """Return panes of the input, of the result and of their difference."""
    difference = Pane("Enhanced − input", after, minus=before)
    return [Pane("Input", before), Pane("Enhanced", after), difference]


def _draw_tensor(
    volumes: list[Volume], means: list[Volume], point: Point, planes: list[PlaneName]
) -> tuple[Picture | None, list[list[float]]]:
    """Draw fractional anisotropy before and after, in tissue of the slice through `point`.

    Returns also its median and that of the mean diffusivity, µm²/ms, before and after; nothing
    where the frames do not determine a tensor.
    """
    chosen = tensor_equations(volumes[0].gradients)
    if chosen is None:
        return None, []
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
    return comparison(panes, point=point, window=(0, 1), planes=planes), medians

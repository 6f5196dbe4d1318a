"""Enhances along each of the three axes and averages: what one set of slices leaves, others take.

Slices along one axis see five neighbours on each side but differ from slice to slice; averaged
over three axes they agree better, and a little of the noise that is left goes. What the network
starts from is the same along all axes, and computed once. [ours]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from MedEnhanceLib.hqg.bundle import EnhancerModel
from MedEnhanceLib.hqg.findings import Findings
from MedEnhanceLib.hqg.predict import predict_slices
from MedEnhanceLib.nets.slices import Plan, SliceStacks
from MedEnhanceLib.runtime.progress import Monitor

Floats = npt.NDArray[np.float32]

#: Which axis of the volume becomes slices, rows and columns.
_AXES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
_CHUNK = 16


def predict_oriented(
    model: EnhancerModel,
    stacks: SliceStacks,
    cue: Tensor,
    plan: Plan,
    monitor: Monitor,
    *,
    orientations: int,
    findings: Findings,
    only: slice,
    start: SliceStacks | None,
    wants_error: bool,
) -> Iterator[tuple[slice, Floats, Floats | None]]:
    """As `predict_slices`; with three orientations the mean of images and expected errors."""
    if orientations == 1:
        yield from predict_slices(
            model,
            stacks,
            cue,
            plan,
            monitor,
            findings=findings,
            only=only,
            start=start,
            wants_error=wants_error,
        )
        return
    image = np.zeros(stacks.voxels.shape, np.float32)
    error = np.zeros_like(image) if wants_error else None
    for number, axes in enumerate(_AXES):
        turned = replace(stacks, voxels=stacks.voxels.transpose(axes))
        image_turned, error_turned = (
            None if total is None else total.transpose(axes) for total in (image, error)
        )
        for where, scaled, expected in predict_slices(
            model,
            turned,
            cue,
            plan,
            monitor.part(number / len(_AXES), (number + 1) / len(_AXES)),
            findings=findings if number == 0 else None,
            start=_turned(start, stacks, axes),
            wants_error=wants_error,
        ):
            assert image_turned is not None
            image_turned[where] += scaled / len(_AXES)
            if error_turned is not None and expected is not None:
                error_turned[where] += expected / len(_AXES)
    for first in range(only.start, only.stop, _CHUNK):
        where = slice(first, min(first + _CHUNK, only.stop))
        yield where, image[where], None if error is None else error[where]


def _turned(
    start: SliceStacks | None, stacks: SliceStacks, axes: tuple[int, int, int]
) -> SliceStacks | None:
    """Without its padding, which is another one along another axis."""
    if start is None or axes == _AXES[0]:
        return start
    _, rows, columns = stacks.voxels.shape
    return replace(start, voxels=start.voxels[:, :rows, :columns].transpose(axes))

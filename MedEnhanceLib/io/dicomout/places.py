"""Where each slice of a volume lies, and which stored images are behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.io.dicomout.grid import Grid, Reference, lay_out
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.volume import Volume, Voxels

if TYPE_CHECKING:
    from pydicom import Dataset

#: How far from a slice an image may lie, in slices, and still be of its plane.
_IN_PLANE = 0.1


@dataclass(frozen=True, eq=False)
class Place:
    """One slice: where it lies and what it came from.

    slice_: [J, I]. header: of the image behind it, or of the nearest. on_image: whether there is
    one that it lies on, voxel on voxel. references: the image behind it, or those around it.
    """

    frame: int
    slice_: Voxels
    position: tuple[str, ...]
    grid: Grid
    header: Dataset | None
    on_image: bool
    references: tuple[Reference, ...]


def find_places(volume: Volume, template: Template) -> list[Place]:
    """Every slice of a volume, frame by frame, in the order in which they are numbered."""
    places = []
    for number, frame in enumerate(volume.frames()):
        part = _of_frame(template, volume, number)
        grid = lay_out(frame, part)
        heights = _heights(part.headers, frame)
        stored = _instances(part)
        by_reference = dict(zip(stored, part.headers, strict=True))
        for k, references in enumerate(grid.references):
            around = _around(heights, k)
            behind = [by_reference[one] for one in references if one in by_reference]
            nearest = part.headers[around[0]] if around else None
            places.append(
                Place(
                    frame=number,
                    slice_=frame.voxels[k],
                    position=grid.positions[k],
                    grid=grid,
                    header=behind[0] if behind else nearest,
                    on_image=bool(behind),
                    references=references or tuple(stored[n] for n in sorted(around)),
                )
            )
    return places


def _of_frame(template: Template, volume: Volume, number: int) -> Template:
    """The images of one time point, where the template tells them apart."""
    origin = template.origin
    if origin is None or len(origin.instances) != (volume.shape[0] if volume.is_sequence else 1):
        return template
    counts = [len(frame) for frame in origin.instances]
    start = sum(counts[:number])
    return replace(
        template,
        headers=template.headers[start : start + counts[number]],
        origin=replace(origin, instances=origin.instances[number : number + 1]),
    )


def _heights(headers: Sequence[Dataset], volume: Volume) -> list[float]:
    """Where each image lies along the slices, in slices; far away where it does not say."""
    to_index = np.linalg.inv(volume.geometry.affine_lps)
    heights = []
    for header in headers:
        position = header.get("ImagePositionPatient") or ()
        if len(position) == 3:
            heights.append(float(to_index[2] @ [*map(float, position), 1.0]))
        else:
            heights.append(float("inf"))
    return heights


def _around(heights: Sequence[float], k: int) -> list[int]:
    """The image in the plane of slice k, else those on both sides of it; the nearest first."""
    near = sorted(range(len(heights)), key=lambda number: abs(heights[number] - k))
    if near and abs(heights[near[0]] - k) < _IN_PLANE:
        return near[:1]
    return [number for number in near if abs(heights[number] - k) < 1] or near[:1]


def _instances(template: Template) -> list[Reference]:
    if template.origin is None:
        return []
    return [
        Reference(one.sop_class, one.sop_instance, one.frame)
        for frame in template.origin.instances
        for one in frame
    ]

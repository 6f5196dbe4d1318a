"""Where each slice of a volume lies, and which stored images are behind it."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.io.dicomout.grid import Grid, lay_out
from MedEnhanceLib.io.dicomout.items import Reference
from MedEnhanceLib.io.dicomout.planes import are_parallel, around_slices
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True, eq=False)
class Place:
    """One slice: where it lies and what it came from.

    slice_: [J, I]. header: of the image behind it, or of the nearest, or what all images say alike
    where they lie across it. on_image: whether there is one that it lies on, voxel on voxel.
    references: the image behind it, or those around it. is_resampled: whether some slice of the
    volume was made of several images.
    """

    frame: int
    slice_: Voxels
    position: tuple[str, ...]
    grid: Grid
    header: Dataset | None
    on_image: bool
    references: tuple[Reference, ...]
    is_resampled: bool


def find_places(volume: Volume, template: Template) -> list[Place]:
    """Every slice of a volume, frame by frame, in the order in which they are numbered."""
    places = []
    for number, frame in enumerate(volume.frames()):
        grid = lay_out(frame, _of_frame(template, volume, number))
        around = around_slices(grid.planes, frame.geometry, frame.shape)
        made = [not one and len(near) > 1 for one, near in zip(grid.behind, around, strict=True)]
        common = None
        if grid.planes and not are_parallel(grid.planes, frame.geometry):
            common = _said_by_all([plane.header for plane in grid.planes])
        for k, behind in enumerate(grid.behind):
            found = behind or around[k]
            nearest = found[0].header if found else None
            places.append(
                Place(
                    frame=number,
                    slice_=frame.voxels[k],
                    position=grid.positions[k],
                    grid=grid,
                    header=nearest if behind or common is None else common,
                    on_image=bool(behind),
                    references=_in_order([plane.reference for plane in found], grid),
                    is_resampled=any(made),
                )
            )
    return places


def _in_order(references: Sequence[Reference], grid: Grid) -> tuple[Reference, ...]:
    """In the order of the series."""
    found = set(references)
    return tuple(plane.reference for plane in grid.planes if plane.reference in found)


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


def _said_by_all(headers: Sequence[Dataset]) -> Dataset:
    """The elements in which all images agree: true of a slice that goes through many of them."""
    from pydicom import Dataset

    common = Dataset()
    for element in headers[0]:
        if all(element.tag in other and other[element.tag] == element for other in headers[1:]):
            common.add(copy.deepcopy(element))
    return common

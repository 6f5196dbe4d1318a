"""Where the frames of an object lie, and which stored images each of them was made from.

Frames that lie where the images lie take over the images' own numbers, digit by digit, so that
every reader finds both in the same place. Elsewhere the numbers come from the volume's geometry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout.items import Reference
from MedEnhanceLib.io.dicomout.planes import (
    Plane,
    behind_slices,
    decimals,
    of_images,
    of_origin,
    of_template,
)
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset


@dataclass(frozen=True)
class Grid:
    """The frames of an object: decimal strings of DICOM, in mm, LPS.

    positions, behind: one per slice of the volume, in its order; a slice that lies where no
    image does has no image behind it. planes: all images. series: instance UID → the images of
    that series.
    """

    orientation: tuple[str, ...]
    spacing: tuple[str, ...]
    thickness: str
    between: str
    positions: tuple[tuple[str, ...], ...]
    behind: tuple[tuple[Plane, ...], ...]
    planes: tuple[Plane, ...]
    series: dict[str, list[Reference]]
    frame_of_reference: str

    @property
    def references(self) -> tuple[tuple[Reference, ...], ...]:
        """The images behind each slice."""
        return tuple(tuple(plane.reference for plane in found) for found in self.behind)


def lay_out(
    volume: Volume, template: Template, source_images: Sequence[Dataset] | None = None
) -> Grid:
    """Find the images behind each slice of a volume [K, J, I] and the numbers of its frames.

    source_images: the images, single-frame or enhanced, where they are not the template's.
    Of those that `volume.origin` names only they count: one time point of a sequence lies where
    all the others do.
    """
    planes = of_images(source_images) if source_images is not None else of_template(template)
    planes = of_origin(planes, volume.origin)
    geometry, slices = volume.geometry, volume.shape[0]
    behind = behind_slices(planes, geometry, volume.shape)
    first = [found[0] for found in behind if found]
    kept = volume.origin is None or volume.origin.on_grid
    if kept and len(first) == slices:
        positions = tuple(plane.position for plane in first)
        orientation, spacing, thickness = first[0].orientation, first[0].spacing, first[0].thickness
    else:
        affine, direction = geometry.affine_lps, np.asarray(geometry.direction)
        positions = tuple(decimals(affine[:3, 3] + k * affine[:3, 2]) for k in range(slices))
        orientation = decimals([*direction[:, 0], *direction[:, 1]])
        spacing = decimals([geometry.spacing[1], geometry.spacing[0]])
        thickness = ""
    between = decimals([geometry.spacing[2]])[0]
    return Grid(
        orientation=orientation,
        spacing=spacing,
        thickness=thickness or between,
        between=between,
        positions=positions,
        behind=tuple(map(tuple, behind)),
        planes=tuple(planes),
        series=_series(planes),
        frame_of_reference=template.frame_of_reference,
    )


def _series(planes: list[Plane]) -> dict[str, list[Reference]]:
    """The images of each series, each once, without their frames."""
    series: dict[str, dict[Reference, None]] = {}
    for plane in planes:
        whole = replace(plane.reference, frame=None)
        series.setdefault(plane.series, {})[whole] = None
    return {uid: list(images) for uid, images in series.items()}

"""Positions of a volume's slices in the patient, and the stored images behind each.

Images, segmentations and maps are matched alike, so they name the same sources. Slices on the grid
of the images copy the images' numbers, digit by digit, so that every reader puts both in the same
place. Other numbers come from the volume's geometry.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import Instance
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.dicomout.derivation import ds_text
from MedEnhanceLib.io.dicomout.template import Template

if TYPE_CHECKING:
    from pydicom import Dataset

#: Largest distance, in voxels, between a slice and the image behind it. Readers accept slices up to
#: 5 % off a regular grid.
_NEAR = 0.1
#: How far cosines, and spacings relative to their size, may differ on the same grid.
_SAME = 1e-3


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """A stored image or frame; its place is as it is written, and empty where it is missing.

    Attributes:
        header: its data set, or that of the frame.
    """

    reference: Instance
    header: Dataset

    @cached_property
    def position(self) -> tuple[str, ...]:
        """The place of its first pixel, mm."""
        return decimals(self.header.get("ImagePositionPatient"))

    @cached_property
    def orientation(self) -> tuple[str, ...]:
        """Cosines of rows and columns."""
        return decimals(self.header.get("ImageOrientationPatient"))

    @cached_property
    def spacing(self) -> tuple[str, ...]:
        """The distances between rows and columns, mm."""
        return decimals(self.header.get("PixelSpacing"))

    @property
    def has_place(self) -> bool:
        """Whether its place is complete."""
        return (len(self.position), len(self.orientation), len(self.spacing)) == (3, 6, 2)

    @property
    def normal(self) -> Doubles:
        """The unit vector across it, in the patient."""
        across, down = np.reshape(np.array(self.orientation, float), (2, 3))
        normal = np.cross(across, down)
        return np.asarray(normal / np.linalg.norm(normal))


@dataclass(frozen=True, eq=False)
class FrameGrid:
    """The frames of an object, as decimal strings of DICOM, in mm, LPS.

    Attributes:
        geometry: of the volume.
        orientation: cosines of rows and columns, 6 numbers.
        spacing: between rows and columns.
        thickness: of a slice.
        between: from slice to slice.
        positions: one for each slice of the volume, in its order.
        behind: the images that lie on each slice, voxel on voxel; none for a resampled slice.
        planes: all images.
    """

    geometry: Geometry
    orientation: tuple[str, ...]
    spacing: tuple[str, ...]
    thickness: str
    between: str
    positions: Sequence[tuple[str, ...]]
    behind: Sequence[Sequence[ImagePlane]]
    planes: Sequence[ImagePlane]

    def sources(self, k: int) -> Sequence[ImagePlane]:
        """Return the images that slice `k` was made from.

        These are the images behind it; else the parallel ones within its thickness, or nearer than
        the images are to each other; all images if they are not parallel to it.
        """
        if self.behind[k] or self._heights is None:
            return self.behind[k] or self.planes
        steps = np.diff(np.unique(self._heights))
        reach = max(0.5 + _NEAR, float(steps[steps > _NEAR].max(initial=0)) - _NEAR)
        apart = np.abs(self._heights - k).tolist()
        return [plane for plane, slices in zip(self.planes, apart, strict=True) if slices < reach]

    @cached_property
    def common(self) -> Dataset | None:
        """The elements that all images share, true of a slice through many; None without any.

        Text that is burned into one of them may show in all slices.
        """
        from pydicom import Dataset

        if not self.planes:
            return None
        common = Dataset()
        first, *others = (plane.header for plane in self.planes)
        for element in first:
            if all(element.tag in other and other[element.tag] == element for other in others):
                common.add(copy.deepcopy(element))
        if any(plane.header.get("BurnedInAnnotation") == "YES" for plane in self.planes):
            common.BurnedInAnnotation = "YES"
        return common

    @cached_property
    def _heights(self) -> Doubles | None:
        """The places of images across the slices, in slices; None if not all are parallel."""
        along = np.asarray(self.geometry.direction)[:, 2]
        if not all(
            plane.has_place and abs(plane.normal @ along) > 1 - _SAME for plane in self.planes
        ):
            return None
        places = np.array([plane.position for plane in self.planes], float).reshape(-1, 3)
        heights = (places - self.geometry.affine_lps[:3, 3]) @ along / self.geometry.spacing[2]
        return np.asarray(heights)


def lay_out(
    volume: Volume, template: Template, source_images: Sequence[Dataset] | None = None
) -> FrameGrid:
    """Find the images behind each slice of a volume and the places of its frames.

    Args:
        volume: [K, J, I]. If `volume.dicom_origin` names images, only these are used: all time
            points of a sequence lie in the same place.
        template: the images that it came from.
        source_images: single images, if they are not the template's.
    """
    if source_images is None:
        planes = _planes_of(template, volume)
    else:
        planes = [
            ImagePlane(Instance("", str(image.SOPClassUID), str(image.SOPInstanceUID)), image)
            for image in source_images
        ]
    geometry = volume.geometry
    behind = _behind_slices(planes, geometry, volume.shape)
    between = decimals([geometry.spacing[2]])[0]
    thickness = ""
    if all(behind) and (volume.dicom_origin is None or volume.dicom_origin.on_grid):
        first = behind[0][0]
        positions = [images[0].position for images in behind]
        orientation, spacing = first.orientation, first.spacing
        # Some scanners write a thickness of 0 if it is unknown, some programs a negative one.
        stated = first.header.get("SliceThickness") or 0
        thickness = ds_text(str(stated).strip()) if float(stated) > 0 else ""
    else:
        affine, direction = geometry.affine_lps, np.asarray(geometry.direction)
        corners = [affine[:3, 3] + k * affine[:3, 2] for k in range(len(behind))]
        positions = [decimals(corner.tolist()) for corner in corners]
        orientation = decimals([*direction[:, 0], *direction[:, 1]])
        spacing = decimals([geometry.spacing[1], geometry.spacing[0]])
    return FrameGrid(
        geometry, orientation, spacing, thickness or between, between, positions, behind, planes
    )


def _planes_of(template: Template, volume: Volume) -> list[ImagePlane]:
    """List the images of a template in its order; only those that the volume names, if any."""
    if template.dicom_origin is None:
        return []
    frames = volume.dicom_origin.instances if volume.dicom_origin else ()
    named = {instance for frame in frames for instance in frame}
    instances = [instance for frame in template.dicom_origin.instances for instance in frame]
    is_named = [instance in named for instance in instances]
    return [
        ImagePlane(instance, header)
        for header, instance, counts in zip(template.headers, instances, is_named, strict=True)
        if counts or not any(is_named)
    ]


def _behind_slices(
    planes: Sequence[ImagePlane], geometry: Geometry, shape: tuple[int, ...]
) -> list[list[ImagePlane]]:
    """Return the planes that lie on each slice of a volume [K, J, I], voxel on voxel."""
    behind: list[list[ImagePlane]] = [[] for _ in range(shape[0])]
    to_index = np.linalg.inv(geometry.affine_lps)
    cosines = np.asarray(geometry.direction).T[:2].ravel()
    spacing = np.array(geometry.spacing[1::-1])
    for plane in planes:
        if not plane.has_place:
            continue
        i, j, k = (to_index @ [*map(float, plane.position), 1.0])[:3]
        number = round(k)
        if (
            (plane.header.get("Rows"), plane.header.get("Columns")) == shape[1:]
            and 0 <= number < shape[0]
            and max(abs(i), abs(j), abs(k - number)) < _NEAR
            and np.abs(cosines - np.array(plane.orientation, float)).max() < _SAME
            and np.abs(np.array(plane.spacing, float) / spacing - 1).max() < _SAME
        ):
            behind[number].append(plane)
    return behind


def decimals(values: Any) -> tuple[str, ...]:
    """Convert numbers to decimal strings of DICOM; () for a missing or empty element."""
    return tuple(ds_text(str(value).strip()) for value in values or ())

"""A volume as a derived series: one image per slice, in the study that it came from."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout import attributes
from MedEnhanceLib.io.dicomout.derivation import (
    IMPLEMENTATION_UID,
    Derivation,
    ds_text,
    fresh_uid,
    now,
    refer_to_source,
    series_number,
    values_of,
)
from MedEnhanceLib.io.dicomout.placement import FrameGrid, lay_out
from MedEnhanceLib.io.dicomout.stored_values import Rescale, decimal, plan_storage
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset


_MOST_ROWS = 2**16 - 1
_SPACING_ERROR = 0.01
#: Programs hold the widths of windows in 32 bits.
_WIDEST = 2**31


@dataclass(frozen=True, eq=False)
class _Place:
    """Slice `k` of the time point `frame`: its voxels [J, I], and the grid it belongs to."""

    frame: int
    k: int
    voxels: Voxels
    grid: FrameGrid

    @property
    def on_image(self) -> bool:
        """Whether it lies on one image, voxel on voxel."""
        return bool(self.grid.behind[self.k])

    @property
    def header(self) -> Dataset | None:
        """The header of the image that it lies on; else the elements that all images share."""
        return self.grid.behind[self.k][0].header if self.on_image else self.grid.common


def build_series(
    volume: Volume, *, template: Template, derivation: Derivation, monitor: Monitor | None = None
) -> list[Dataset]:
    """Make the images of a derived series, complete with pixels.

    CT and MR become images of their class, PET too if `template` states what PET images require;
    everything else becomes secondary capture, with its place in the patient.

    Args:
        volume: [K, J, I], or [T, K, J, I] as T time points.
        template: the images that it came from.
        derivation: what was done.
        monitor: notified of progress and of rounded intensities; may cancel.
    Returns one image for each slice.
    Raises InputError: DICOM cannot hold the volume.
    """
    require("pydicom", purpose="Writing DICOM")
    monitor = monitor or Monitor()
    if max(volume.shape[-2:]) > _MOST_ROWS:
        raise InputError(
            f"slices of {volume.shape[-1]}×{volume.shape[-2]}", f"DICOM holds {_MOST_ROWS} at most."
        )
    series = _Series(volume, template, derivation, monitor)
    images = []
    for number in range(len(series.places)):
        monitor.progress(number / len(series.places), "making DICOM images")
        images.append(series.image(number))
    return images


def _missing_of_pet(headers: Sequence[Dataset | None]) -> list[str]:
    """List the elements that PET images require and the images behind the slices lack."""
    if None in headers:
        return list(attributes.REQUIRED_OF_PET)
    return [
        keyword
        for keyword in attributes.REQUIRED_OF_PET
        for header in filter(None, headers)
        if header.get(keyword) in (None, "")
        and (keyword != "DecayFactor" or header.get("DecayCorrection") != "NONE")
    ]


def _is_true(image: Dataset, grid: FrameGrid) -> bool:
    """Return whether a stated distance of slices is that of the grid, or not known to differ."""
    stated, between = (
        float(image.get("SpacingBetweenSlices", grid.between) or 0),
        float(grid.between),
    )
    return stated > 0 and (len(grid.positions) == 1 or abs(stated / between - 1) < _SPACING_ERROR)


def _rescale(header: Dataset | None) -> Rescale:
    if header is None or header.get("RescaleSlope") in (None, ""):
        return Rescale()
    intercept = header.get("RescaleIntercept")
    texts = (header.RescaleSlope, "0" if intercept in (None, "") else intercept)
    return Rescale(*(ds_text(str(text).strip()) for text in texts))


def window_of(volume: Volume) -> tuple[str, str] | None:
    """Choose center and width: soft tissue for CT, else most of the range; None if too wide."""
    if volume.profile.is_absolute:
        return "40", "400"
    low, high = np.percentile(volume.voxels[..., ::4, ::4].astype(np.float64), (0.5, 99.5))
    if high - low >= _WIDEST:
        return None
    return f"{(low + high) / 2:.6g}", f"{max(high - low, 1e-6):.6g}"


class _Series:
    """A builder of the images of a series, with the values that they share.

    Attributes:
        places: of its slices, in the order of their numbers.
        headers: of each place; None if those of the template do not apply to the volume.
        window: center and width for images without one.
    """

    def __init__(
        self, volume: Volume, template: Template, derivation: Derivation, monitor: Monitor
    ) -> None:
        name = volume.source or "volume"
        self.volume, self.template = volume, template
        self.places = [
            _Place(number, k, voxels, grid)
            for number, frame in enumerate(volume.frames())
            for grid in [lay_out(frame, template)]
            for k, voxels in enumerate(frame.voxels)
        ]
        has_headers = bool(template.headers) and (
            volume.modality == template.modality
            or (not volume.profile.is_known and template.modality not in attributes.SOP_CLASSES)
        )
        self.headers = [place.header if has_headers else None for place in self.places]
        self.sop_class = attributes.SOP_CLASSES.get(volume.modality, attributes.SECONDARY_CAPTURE)
        missing = _missing_of_pet(self.headers) if self.sop_class == attributes.PET_IMAGE else []
        if missing:
            self.sop_class = attributes.SECONDARY_CAPTURE
            if has_headers:
                monitor.warn(
                    f"{name}: its images do not state {missing[0]}, which PET images require; it "
                    "is written as secondary capture"
                )
        self.stored = plan_storage(
            [place.voxels for place in self.places],
            list(map(_rescale, self.headers)),
            from_zero=self.sop_class == attributes.PET_IMAGE,
        )
        self.mappings = [
            header.get(attributes.MAPPING) if header and _rescale(header) == rescale else None
            for header, rescale in zip(self.headers, self.stored.rescales, strict=True)
        ]
        is_mapped = any(attributes.MAPPING in header for header in template.headers)
        if is_mapped and not all(self.mappings):
            monitor.warn(f"{name}: the real-world values of its images do not hold for the result")
        times = [key for key in volume.header_fields if key.startswith("slice_")]
        lost = [volume.quantity, "" if volume.gradients else volume.sequence_kind, *times]
        if any(lost) and volume.dicom_origin is None:  # its images state it
            monitor.warn(f"{name}: not kept in DICOM: {', '.join(filter(None, lost))}")
        description = derivation.description
        if self.stored.error:
            rounding = f"rounded by up to {self.stored.error:.3g}"
            monitor.warn(f"{name}: DICOM images have 16 bits; intensities are {rounding}")
            rounding = f"intensities {rounding} {volume.units}".strip()
            description = "; ".join(filter(None, (description, rounding)))
        self.derivation = replace(
            derivation,
            description=description,
            lossy=derivation.lossy or volume.lossy,
            history=derivation.history or volume.history,
        )
        self.uid = fresh_uid()
        self.moment = now(str(template.study.get("TimezoneOffsetFromUTC") or ""))
        self.window = window_of(volume)

    def image(self, number: int) -> Dataset:
        """Make image `number`, counted from 0, with its pixels."""
        from pydicom import Dataset

        place, header = self.places[number], self.headers[number]
        image: Dataset = (
            Dataset() if header is None else attributes.copy_elements(header, attributes.is_of_scan)
        )
        self.template.copy_study(image)
        self._identify(image, number)
        self._put_place(image, place, header)
        self._put_pixels(image, number)
        self._put_rescale(image, number)
        self._set_time(image, number)
        if self.volume.gradients:  # the source may state them in private elements alone
            gradient = self.volume.gradients[self.places[number].frame]
            image.DiffusionBValue = gradient.b_value
            if any(gradient.direction):
                image.DiffusionGradientOrientation = list(gradient.direction)
        self.derivation.apply(image)
        if sources := place.grid.sources(place.k):
            image.SourceImageSequence = [
                refer_to_source(source.reference, same_place=place.on_image) for source in sources
            ]
        image.SpecificCharacterSet = "ISO_IR 192"  # the source's may lack letters of these texts
        attributes.complete(image, self.sop_class)
        return image

    def _identify(self, image: Dataset, number: int) -> None:
        source = self.places[number].header
        image.SOPClassUID, image.SOPInstanceUID = self.sop_class, fresh_uid()
        image.SeriesInstanceUID = self.uid
        image.SeriesNumber = series_number(self.places[0].header, "images")
        image.InstanceNumber = number + 1
        is_other = self.volume.modality not in attributes.SOP_CLASSES
        image.Modality = "OT" if is_other else self.volume.modality
        image.SeriesDescription = self.derivation.series_text(
            str(source.get("SeriesDescription") or "") if source else ""
        )
        image.ImageType = _image_type(image, self.sop_class)
        image.FrameOfReferenceUID = self.template.frame_of_reference
        image.InstanceCreatorUID = IMPLEMENTATION_UID
        date, time = self.moment
        image.InstanceCreationDate, image.InstanceCreationTime = date, time
        image.ContentDate, image.ContentTime = date, time
        if self.sop_class != attributes.PET_IMAGE or not image.get("SeriesDate"):
            # PET keeps them: its intensities are corrected for decay to the start of the series.
            image.SeriesDate, image.SeriesTime = date, time

    @staticmethod
    def _put_place(image: Dataset, place: _Place, header: Dataset | None) -> None:
        grid = place.grid
        image.ImagePositionPatient = list(grid.positions[place.k])
        image.ImageOrientationPatient = list(grid.orientation)
        image.PixelSpacing = list(grid.spacing)
        stated = float(image.get("SliceThickness") or 0)
        if header is None or not all(grid.behind) or not stated > 0:
            image.SliceThickness = grid.thickness
        if header is None or not place.on_image:
            for keyword in attributes.OF_GRID:
                image.pop(keyword, None)
        if header is None or not place.on_image or not _is_true(image, grid):
            image.SpacingBetweenSlices = grid.between

    def _put_pixels(self, image: Dataset, number: int) -> None:
        pixels = self.stored.numbers(number, self.places[number].voxels)
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel = 1
        shown = {image.get("PhotometricInterpretation"), image.get("PresentationLUTShape")}
        is_inverted = self.sop_class != attributes.PET_IMAGE and bool(
            shown & {"MONOCHROME1", "INVERSE"}
        )
        image.PhotometricInterpretation = "MONOCHROME1" if is_inverted else "MONOCHROME2"
        image.pop("PresentationLUTShape", None)  # the same, and allowed for projections only
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.PixelRepresentation = int(self.stored.signed)
        image.add_new("PixelData", "OW", pixels.tobytes())
        if self.volume.units in attributes.PET_UNITS and self.volume.modality == "PT":
            image.Units = attributes.PET_UNITS[self.volume.units]
        widths = values_of(image, "WindowWidth")
        if "WindowCenter" not in image or not all(float(width) > 0 for width in widths or (0,)):
            for keyword in ("WindowCenter", "WindowWidth", "WindowCenterWidthExplanation"):
                image.pop(keyword, None)
            if self.window is not None:
                image.WindowCenter, image.WindowWidth = self.window
        if any(float(width) < 1 for width in values_of(image, "WindowWidth")):
            image.VOILUTFunction = "LINEAR_EXACT"  # the ordinary function has no widths below 1

    def _put_rescale(self, image: Dataset, number: int) -> None:
        """Write slope and intercept if the class requires them, or the source has them."""
        header, rescale = self.headers[number], self.stored.rescales[number]
        source_has_slope = header is not None and header.get("RescaleSlope") not in (None, "")
        is_needed = (
            self.sop_class in (attributes.CT_IMAGE, attributes.PET_IMAGE) or rescale != Rescale()
        )
        if mapping := self.mappings[number]:
            items = copy.deepcopy(mapping)
            setattr(image, attributes.MAPPING, items)
            limits = np.iinfo(np.int16 if self.stored.signed else np.uint16)
            for item in items:
                for keyword in filter(item.__contains__, attributes.MAPPED_RANGE):
                    end = min(max(item[keyword].value, limits.min), limits.max)
                    item.add_new(keyword, "SS" if self.stored.signed else "US", int(end))
        rescale_type = image.get("RescaleType") or "US"
        image.pop("RescaleType", None)
        if not (source_has_slope or is_needed):
            return
        image.RescaleSlope, image.RescaleIntercept = rescale.slope, rescale.intercept
        if self.sop_class == attributes.CT_IMAGE and self.volume.units in ("HU", ""):
            image.RescaleType = "HU"
        elif self.sop_class != attributes.PET_IMAGE:
            image.RescaleType = rescale_type

    def _set_time(self, image: Dataset, number: int) -> None:
        """Set the attributes of time: those of PET for PET, else the frame number of a sequence."""
        frames = self.volume.shape[0] if self.volume.is_sequence else 1
        if "NumberOfSlices" in image:  # that of UIH is the count of its mosaics
            image.NumberOfSlices = self.volume.shape[-3]
        if self.sop_class == attributes.PET_IMAGE:
            image.NumberOfSlices, image.ImageIndex = self.volume.shape[-3], number + 1
            if frames > 1:
                image.SeriesType, image.NumberOfTimeSlices = ["DYNAMIC", "IMAGE"], frames
            elif values_of(image, "SeriesType")[:1] == ["DYNAMIC"]:
                image.SeriesType = ["STATIC", "IMAGE"]  # a single time point
        elif frames > 1 and "TemporalPositionIdentifier" not in image:
            image.TemporalPositionIdentifier = self.places[number].frame + 1
            image.NumberOfTemporalPositions = frames
        if frames == 1:
            image.pop("NumberOfTimeSlices", None)
            image.pop("TemporalResolution", None)
        elif self.volume.frame_interval_s:
            image.TemporalResolution = decimal(self.volume.frame_interval_s * 1000)


def _image_type(image: Dataset, sop_class: str) -> list[str]:
    """Compose ImageType: DERIVED, and the third value that a class requires (CT: AXIAL)."""
    more = [str(value) for value in values_of(image, "ImageType")][2:]
    if sop_class == attributes.PET_IMAGE:
        return ["DERIVED", "PRIMARY", *more]  # PS3.3 C.8.9.4.1.1 allows no other second value
    if sop_class == attributes.CT_IMAGE and (not more or more[0] not in ("AXIAL", "LOCALIZER")):
        more = ["AXIAL"]
    if sop_class == attributes.MR_IMAGE and not more:
        more = ["OTHER"]
    return ["DERIVED", "SECONDARY", *more]

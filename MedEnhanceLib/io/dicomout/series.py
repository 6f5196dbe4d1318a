"""A volume as a derived series: one image per slice, in the study that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.derivation import Derivation, now
from MedEnhanceLib.io.dicomout.image import Series, is_inverted, make_image, window_of
from MedEnhanceLib.io.dicomout.iods import (
    CT_IMAGE,
    PET_IMAGE,
    SECONDARY_CAPTURE,
    SOP_CLASSES,
    TOLD_BY_PET,
)
from MedEnhanceLib.io.dicomout.items import fresh_uid, series_number
from MedEnhanceLib.io.dicomout.places import Place, find_places
from MedEnhanceLib.io.dicomout.stored import Rescale, decimal, plan_storage
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

_MOST_ROWS = 2**16 - 1
#: BitsStored that enhanced images may have.
_ENHANCED_BITS = (12, 16)


def build_series(
    volume: Volume,
    *,
    template: Template,
    derivation: Derivation,
    enhanced: bool = False,
    monitor: Monitor | None = None,
) -> list[Dataset]:
    """Make the images of a derived series, complete with pixels.

    volume: [K, J, I], or [T, K, J, I] as T time points. CT and MR become images of their class, PET
    too where `template` tells what its images must; all else is secondary capture, with its place
    in the patient.
    enhanced: one legacy converted enhanced image of many frames, for CT in HU, MR and PET.
    Raises InputError for what DICOM cannot hold, and for enhanced of another modality; OutputError
    where the frames of an enhanced image turn out to be others than the single images.
    """
    require("pydicom", purpose="Writing DICOM")
    monitor = monitor or Monitor()
    if max(volume.shape[-2:]) > _MOST_ROWS:
        raise InputError(
            f"slices of {volume.shape[-1]}×{volume.shape[-2]}", f"DICOM holds {_MOST_ROWS} at most."
        )
    places = find_places(volume, template)
    series = _series(volume, template, derivation, places, many_frames=enhanced)
    _warn(series, places, monitor)
    if enhanced:
        _refuse_enhanced(series, places, monitor)
    images = []
    for number, place in enumerate(places):
        monitor.progress(number / len(places), "making DICOM images")
        images.append(make_image(number, place, series))
    if not enhanced:
        return images
    from MedEnhanceLib.io.dicomout.enhanced import convert

    between = places[0].grid.between
    return [
        convert(
            images,
            template,
            between=between,
            time_points=series.frames,
            interval_s=volume.frame_interval_s,
        )
    ]


def _warn(series: Series, places: Sequence[Place], monitor: Monitor) -> None:
    name = series.volume.source or "volume"
    if series.stored.error:
        monitor.warn(
            f"{name}: DICOM images have 16 bits; intensities are rounded, by up to "
            f"{series.stored.error:.3g}"
        )
    untold = _untold(places)
    if series.has_headers and series.template.modality == "PT" and untold:
        monitor.warn(
            f"{name}: its images do not tell {untold[0]}, which PET images must; it is written as "
            "secondary capture"
        )


def _refuse_enhanced(series: Series, places: Sequence[Place], monitor: Monitor) -> None:
    volume = series.volume
    if series.sop_class == SECONDARY_CAPTURE:
        raise InputError(
            f"an enhanced multi-frame image of {volume.modality}, which DICOM has none for",
            "Write single images.",
        )
    if series.sop_class == CT_IMAGE and volume.units not in ("HU", ""):
        raise InputError(
            f"an enhanced CT image has Hounsfield units, the volume {volume.units!r}",
            "Write single images.",
        )
    if series.has_headers and any(one.header and is_inverted(one.header) for one in places):
        monitor.warn(
            f"{volume.source or 'volume'}: its images show low values bright, which enhanced "
            "multi-frame images cannot; viewers will show low values dark. The values are the same"
        )


def _series(
    volume: Volume,
    template: Template,
    derivation: Derivation,
    places: Sequence[Place],
    *,
    many_frames: bool,
) -> Series:
    sop_class = _sop_class(volume, template, places)
    first = places[0].header if sop_class != SECONDARY_CAPTURE else None
    own = [_rescale(place.header) if _is_same(volume, template) else Rescale() for place in places]
    bits = int(first.get("BitsStored") or 16) if first is not None else 16
    stored = plan_storage(
        [place.slice_ for place in places],
        own,
        bits=16 if many_frames and bits not in _ENHANCED_BITS else bits,
        signed=bool(first.get("PixelRepresentation")) if first is not None else False,
        from_zero=sop_class == PET_IMAGE,
        one_rescale=many_frames,
    )
    if stored.error:
        rounding = f"intensities rounded by up to {stored.error:.3g} {volume.units}".strip()
        description = "; ".join(filter(None, (derivation.description, rounding)))
        derivation = replace(derivation, description=description)
    if not derivation.lossy and volume.lossy:
        derivation = replace(derivation, lossy=volume.lossy)
    if not derivation.history and volume.history:
        derivation = replace(derivation, history=volume.history)
    offset = str(template.study.get("TimezoneOffsetFromUTC") or "")
    return Series(
        volume=volume,
        template=template,
        derivation=derivation,
        sop_class=sop_class,
        stored=stored,
        uid=fresh_uid(),
        number=_number(derivation, places[0].header),
        frames=volume.shape[0] if volume.is_sequence else 1,
        has_headers=_is_same(volume, template),
        moment=now(offset),
        window=None if _is_same(volume, template) else window_of(volume),
    )


def _number(derivation: Derivation, header: Dataset | None) -> int:
    """A number of its own: 1 where there is no source."""
    if header is None and derivation.series_number is None:
        return 1
    return series_number(derivation, header, "images")


def _is_same(volume: Volume, template: Template) -> bool:
    """Whether the template's images are of the volume's kind, so that what they tell holds."""
    return bool(template.headers) and (
        volume.modality == template.modality
        or (volume.modality == "OT" and template.modality not in SOP_CLASSES)
    )


def _sop_class(volume: Volume, template: Template, places: Sequence[Place]) -> str:
    if volume.modality == "PT" and (not _is_same(volume, template) or _untold(places)):
        return SECONDARY_CAPTURE
    return SOP_CLASSES.get(volume.modality, SECONDARY_CAPTURE)


def _untold(places: Sequence[Place]) -> list[str]:
    """What PET images would have to tell, but the images behind a slice do not."""
    return [
        keyword
        for keyword in TOLD_BY_PET
        for place in places
        if place.header is not None
        and place.header.get(keyword) in (None, "")
        and (keyword != "DecayFactor" or place.header.get("DecayCorrection") != "NONE")
    ]


def _rescale(header: Dataset | None) -> Rescale:
    if header is None or header.get("RescaleSlope") in (None, ""):
        return Rescale()
    intercept = header.get("RescaleIntercept")
    texts = (str(header.RescaleSlope).strip(), str("0" if intercept in (None, "") else intercept))
    return Rescale(*(text.strip() if len(text) <= 16 else decimal(float(text)) for text in texts))

"""What an object is, by its SOP class: an image that can be read, or why it is none."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_IMAGES_IT_BELONGS_TO = "Give the images it belongs to."
Entry = TypeVar("Entry")
_NO_VOLUME = "Give a tomographic series (CT, MR, PET)."


@dataclass(frozen=True)
class Reason:
    """Why an object gives no volume (`what`), and what to do (`hint`)."""

    what: str
    hint: str = _IMAGES_IT_BELONGS_TO


#: Objects without a volume in them, by the end of the SOP class or of the class's family.
_NO_IMAGES = {
    "66.4": Reason(
        "a segmentation: labels drawn on images, not the images",
        "Give the images; or give this file alone, to load its labels.",
    ),
    "66.7": Reason(
        "a label map segmentation: labels drawn on images, not the images",
        "Give the images; or give this file alone, to load its labels.",
    ),
    "66.5": Reason("a surface segmentation: meshes, not images"),
    "66.6": Reason("tractography results: tracks, not images"),
    "66.8": Reason("a height map segmentation, not an image"),
    "66.1": Reason("a spatial registration: a transform between images, not an image"),
    "66.2": Reason("spatial fiducials: points on images, not an image"),
    "66.3": Reason("a deformable registration: a transform between images, not an image"),
    "66": Reason(
        "raw data of a scanner: no image was reconstructed in it",
        "Export the reconstructed images.",
    ),
    "67": Reason("a real-world value mapping: a scale for images, not an image"),
    "68.1": Reason("a surface scan: a mesh, not an image"),
    "68.2": Reason("a surface scan: a mesh, not an image"),
    "30": Reason(
        "a parametric map, which is not read",
        "Load it with Slicer's DICOM module (extension QuantitativeReporting), and save it as "
        "NRRD.",
    ),
    "481.3": Reason(
        "an RT structure set (RTSTRUCT): contours drawn on images, not the images",
        "Give the images it belongs to; to view the contours, import it with Slicer (extension "
        "SlicerRT).",
    ),
    "481.5": Reason("an RT plan: how to irradiate, not an image"),
    "481.8": Reason("an RT ion plan: how to irradiate, not an image"),
    "481.4": Reason("a record of irradiation, not an image"),
    "481.6": Reason("a record of irradiation, not an image"),
    "481.7": Reason("a record of irradiation, not an image"),
    "481.9": Reason("a record of irradiation, not an image"),
    "88.59": Reason("a key object selection: it marks images, and holds none"),
    "88": Reason("a structured report (SR): findings in words and numbers, not an image"),
    "11": Reason("a presentation state: how to show images, not an image"),
    "9": Reason("a waveform (ECG, pressure, sound), not an image"),
    "104": Reason("an encapsulated document (PDF, CDA, STL), not an image"),
    "4.2": Reason("MR spectroscopy: spectra, not an image"),
    "79.1": Reason("macular measurements: numbers, not an image"),
    "80.1": Reason("a surface of the cornea, not an image"),
    "90.1": Reason("an assessment of content, not an image"),
    "131": Reason("a basic structured display, not an image"),
    "200": Reason("a procedure protocol of CT or MR, not an image"),
    "201": Reason("an inventory, not an image"),
    "77.1.1.1": Reason("a video, not a volume", _NO_VOLUME),
    "77.1.2.1": Reason("a video, not a volume", _NO_VOLUME),
    "77.1.4.1": Reason("a video, not a volume", _NO_VOLUME),
    "77.1.5.4": Reason("optical tomography of the eye, which is not read", _NO_VOLUME),
    "77.1.6": Reason("a whole-slide microscopy image: tiles at several scales", _NO_VOLUME),
    "77.1": Reason("visible light: a photograph of colours, not a volume", _NO_VOLUME),
}
#: Pictures that are a volume only where each says its place in the patient.
_PROJECTIONS = {
    "481.1": "an RT image: a projection",
    "1.1": "a digital X-ray: a projection through the body",
    "1.2": "a mammogram: a projection through the breast",
    "1.3": "an intra-oral X-ray: a projection",
    "1": "a computed radiograph: a projection through the body",
    "12": "X-ray angiography or fluoroscopy: projections through the body",
    "7": "a secondary capture: a screenshot or a scan of film",
    "6": "ultrasound",
    "3": "an ultrasound clip",
}
_SLICES = ("2", "4", "128")
_ENHANCED = ("2.1", "2.2", "4.1", "4.3", "4.4", "130", "128.1", "481.2", "6.2", "20")
_RESULTS = "1.2.840.10008.5.1.4."


def not_an_image(sop_class: str) -> Reason | None:
    """Why objects of a class never give a volume; None for images and for unknown classes."""
    if not sop_class.startswith(_STORAGE):
        other = sop_class.startswith("1.2.840.10008.") and not sop_class.startswith(_RESULTS + "1")
        return Reason("an object of administration, not an image") if other else None
    return None if may_hold_frames(sop_class) else _longest(_NO_IMAGES, sop_class)


def not_a_plane(sop_class: str) -> Reason | None:
    """Why an image of a class gives no volume unless it says its place in the patient."""
    what = _longest(_PROJECTIONS, sop_class)
    if what is None:
        return None
    return Reason(f"{what}, without a place in the patient (no ImagePositionPatient)", _NO_VOLUME)


def is_image(sop_class: str) -> bool:
    """Whether objects of the class always hold images of CT, MR, PET, NM or a dose."""
    held = (*_SLICES, *_ENHANCED)
    return sop_class.startswith(_STORAGE) and sop_class.removeprefix(_STORAGE) in held


def may_hold_frames(sop_class: str) -> bool:
    """Whether the class keeps frames in one file, even where there is one alone."""
    return sop_class.startswith(_STORAGE) and sop_class.removeprefix(_STORAGE) in _ENHANCED


@functools.cache
def class_name(sop_class: str, modality: str = "") -> str:
    """The class as DICOM names it, else its modality."""
    from pydicom.uid import UID

    name = str(UID(sop_class).name) if sop_class else ""
    return name if name and name != sop_class else modality or sop_class or "unknown object"


def _longest(table: Mapping[str, Entry], sop_class: str) -> Entry | None:
    """The entry for a class, or for the family that it is the most special member of."""
    parts = sop_class.removeprefix(_STORAGE).split(".") if sop_class.startswith(_STORAGE) else []
    for length in range(len(parts), 0, -1):
        found = table.get(".".join(parts[:length]))
        if found is not None:
            return found
    return None

"""A label volume as a DICOM Segmentation.

Each label becomes a segment. The type is BINARY, which the viewers in use read, not the newer
LABELMAP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.derivation import SEGMENTATION, Derivation, fresh_uid, short_text
from MedEnhanceLib.io.dicomout.objects import identity, refer, sign, stand_ins
from MedEnhanceLib.io.dicomout.placement import lay_out
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset


#: Slicer's default for a segment without a description.
_TISSUE = ("85756007", "SCT", "Tissue")
#: DICOM counts segments in 16 bits.
_HIGHEST = 65_535
#: Each label in each slice is a frame with its own header of about a kilobyte.
_MOST_FRAMES = 50_000


def build_segmentation(
    labels: Volume,
    meanings: Sequence[Mapping[str, Any]],
    *,
    template: Template,
    derivation: Derivation,
    source_images: Sequence[Dataset] | None = None,
    monitor: Monitor | None = None,
) -> Dataset:
    """Make a Segmentation on the grid of `labels`: a segment for each meaning and unnamed label.

    Args:
        labels: [K, J, I], whole numbers from 0, where 0 is the background.
        meanings: of the labels, as in a model's metadata: `value`, `name`, `color` ("#rrggbb"),
            `category` and `type` ({value, scheme, meaning} or None). Segments are numbered in this
            order, from 1. A label without a voxel becomes a segment without a frame.
        template: the images that the labels came from.
        derivation: of the labels.
        source_images: headers of the images that the frames refer to, if not the template's:
            derived images that are written at the same time.
        monitor: notified of progress; may cancel.
    Raises InputError: several frames, values that are not labels, or more than DICOM holds.
    """
    hd = require("highdicom", purpose="Writing labels as DICOM")

    labels = labels.single("A segmentation holds one point in time: write each frame on its own.")
    name = labels.source or "the label volume"
    _refuse_no_labels(labels, name)
    by_value = _meanings_by_value(labels, meanings, name)
    number_of = np.zeros(_HIGHEST + 1, np.uint8 if len(by_value) < 256 else np.uint16)
    number_of[list(by_value)] = range(1, len(by_value) + 1)
    # Slice by slice: the indices of all voxels at once would take eight times a volume's memory.
    numbers = np.stack([number_of[plane.astype(np.uint16)] for plane in labels.voxels])
    _refuse_too_many(numbers, len(by_value), name)
    grid = lay_out(labels, template, source_images)
    (monitor or Monitor()).progress(0.1, "segmentation as DICOM")
    dataset: Dataset = hd.seg.Segmentation(
        source_images=stand_ins(grid, (labels.shape[1], labels.shape[2]), template),
        pixel_array=numbers,
        segmentation_type="BINARY",
        segment_descriptions=_describe(by_value, derivation),
        omit_empty_frames=True,
        **identity(template, kind="segmentation"),
    )
    refer(dataset, grid, SEGMENTATION)
    sign(dataset, template, derivation, kind="segmentation")
    return dataset


def _refuse_no_labels(labels: Volume, name: str) -> None:
    voxels = labels.voxels
    is_whole = voxels.dtype.kind != "f" or np.array_equal(np.rint(voxels), voxels)
    if not is_whole or voxels.min() < 0 or voxels.max() > _HIGHEST:
        raise InputError(
            f"{name} contains values that are not labels",
            f"Labels are whole numbers, 0 for the background and up to {_HIGHEST} for structures.",
        )


def _meanings_by_value(
    labels: Volume, meanings: Sequence[Mapping[str, Any]], name: str
) -> dict[int, Mapping[str, Any]]:
    """Map each label to its meaning, in the order of the segments; labels without one come last."""
    try:
        by_value = {int(meaning["value"]): meaning for meaning in meanings}
    except (KeyError, TypeError, ValueError) as cause:
        raise InputError(
            "a label's meaning has no value", "Give each a whole number as its value."
        ) from cause
    if len(by_value) != len(meanings) or not all(0 <= value <= _HIGHEST for value in by_value):
        raise InputError(
            f"two meanings have the same value, or a value is not 0 to {_HIGHEST}",
            "Give each label one meaning.",
        )
    by_value.pop(0, None)
    present = np.unique(np.concatenate([np.unique(plane) for plane in labels.voxels]))
    for value in map(int, present):
        if value:
            by_value.setdefault(value, {})
    if not by_value:
        raise InputError(
            f"{name} contains no label, and no structure is named", "Name the structures (labels)."
        )
    return by_value


def _refuse_too_many(
    numbers: npt.NDArray[np.unsignedinteger[Any]], segments: int, name: str
) -> None:
    frames = sum(len(np.unique(plane[plane > 0])) for plane in numbers)
    frames = frames or segments * len(numbers)  # of empty labels highdicom writes every frame
    if frames > _MOST_FRAMES or frames * numbers[0].size / 8 > 2**32 - 2:
        raise InputError(
            f"{name} would need {frames} frames of {numbers[0].size} voxels in one DICOM object",
            "Cut the volume to the region of interest, or write fewer labels at a time.",
        )


def _describe(by_value: Mapping[int, Mapping[str, Any]], derivation: Derivation) -> list[Dataset]:
    """Describe the segments; if no model made the labels, the algorithm is "not recorded"."""
    hd = require("highdicom", purpose="Writing labels as DICOM")
    from pydicom.sr.codedict import codes

    model = derivation.model or {}
    made_by = short_text(model.get("name")) or ("unnamed" if model else "not recorded")
    algorithm = hd.AlgorithmIdentificationSequence(
        name=made_by,
        family=codes.cid7162.ArtificialIntelligence,
        version=short_text(model.get("version")) or "unknown",
        source="MedEnhance",
        parameters={"sha256": model["sha256"]} if model.get("sha256") else None,
    )
    descriptions = []
    for number, (value, meaning) in enumerate(by_value.items(), 1):
        label = short_text(meaning.get("name")) or f"Label {value}"
        color = meaning.get("color") or meaning.get("recommended_color") or ""
        rgb = re.fullmatch(r"#([0-9a-fA-F]{6})", str(color))
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=hd.sr.CodedConcept(*_code(meaning.get("category"))),
            segmented_property_type=hd.sr.CodedConcept(*_code(meaning.get("type"))),
            algorithm_type="AUTOMATIC" if model else "SEMIAUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=fresh_uid(),
            tracking_id=f"{made_by}: {label}" if model else label,
            display_color=hd.color.CIELabColor.from_rgb(*bytes.fromhex(rgb[1])) if rgb else None,
        )
        if not model:  # optional in DICOM, though not in highdicom
            del description.SegmentationAlgorithmIdentificationSequence
        descriptions.append(description)
    return descriptions


def _code(fields: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return value, scheme and meaning of a code; those of tissue if one is missing or too long."""
    parts = tuple(short_text((fields or {}).get(key)) for key in ("value", "scheme", "meaning"))
    return parts if all(parts) and len(parts[1]) <= 16 else _TISSUE

"""A label volume as a DICOM Segmentation.

One binary segment for each label: BINARY and not the newer LABELMAP type, because the viewers in
use read that one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicomout.derivation import (
    SEGMENTATION,
    Derivation,
    fresh_uid,
    short_text,
)
from MedEnhanceLib.io.dicomout.objects import identity, refer, sign, stand_ins
from MedEnhanceLib.io.dicomout.placement import lay_out
from MedEnhanceLib.io.dicomout.template import Template
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset


#: Slicer's default for a segment without a description.
_TISSUE = {"value": "85756007", "scheme": "SCT", "meaning": "Tissue"}
#: Each label in each slice is a frame with its own header of about a kilobyte.
_MOST_FRAMES = 50_000
#: DICOM counts segments in 16 bits.
_MOST_SEGMENTS = 65_535

_Numbers = npt.NDArray[np.unsignedinteger[Any]]


def build_segmentation(
    labels: Volume,
    meanings: Sequence[Mapping[str, Any]],
    *,
    template: Template,
    derivation: Derivation,
    source_images: Sequence[Dataset] | None = None,
    monitor: Monitor,
) -> Dataset:
    """Make a Segmentation on the grid of `labels`, a segment for each meaning and unnamed label.

    Args:
        labels: [K, J, I], whole numbers from 0, where 0 is the background.
        meanings: of the labels, as in a model's metadata: `value`, `name`, `color` ("#rrggbb"),
            `category` and `type` ({value, scheme, meaning} or None). Segments are numbered in this
            order, from 1. A label without a voxel becomes a segment without a frame.
        template: the images that the labels came from.
        derivation: what was done.
        source_images: headers of the images that the frames refer to, if not the template's:
            derived images that are written with it.
        monitor: notified of progress; may cancel.
    Raises:
        InputError: several frames, values that are no labels, or more than DICOM holds.
    """
    hd = require("highdicom", purpose="Writing DICOM")

    name = labels.source or "the label volume"
    values = _whole_numbers(labels, name)
    named = [_Meaning(meaning) for meaning in meanings]
    numbers, named = _number(values, named, name)
    grid = lay_out(labels, template, source_images)
    monitor.progress(0.1, "segmentation as DICOM")
    dataset: Dataset = hd.seg.Segmentation(
        source_images=stand_ins(grid, (labels.shape[1], labels.shape[2]), template),
        pixel_array=numbers,
        segmentation_type="BINARY",
        segment_descriptions=_describe(named, derivation),
        omit_empty_frames=True,
        **identity(template, kind="segmentation"),
    )
    refer(dataset, grid, SEGMENTATION)
    sign(dataset, template, derivation, kind="segmentation")
    return dataset


class _Meaning:
    """A label's name, codes and color; tissue if a code is missing or invalid."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        try:
            self.value = int(fields["value"])
        except (KeyError, TypeError, ValueError) as cause:
            raise InputError(
                f"a label's meaning has no value: {dict(fields)}", "Give each a whole number."
            ) from cause
        self.name = short_text(fields.get("name")) or f"Label {self.value}"
        self.category = _code(fields.get("category"))
        self.type = _code(fields.get("type"))
        self.color = str(fields.get("color") or fields.get("recommended_color") or "")


def _code(fields: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """Value, scheme and meaning of a code; those of tissue if one is missing."""
    code = dict(fields or {})
    parts = tuple(short_text(code.get(key)) for key in ("value", "scheme", "meaning"))
    if not all(parts) or len(parts[1]) > 16:
        return (_TISSUE["value"], _TISSUE["scheme"], _TISSUE["meaning"])
    return parts  # type: ignore[return-value]


def _whole_numbers(labels: Volume, name: str) -> npt.NDArray[np.integer[Any]]:
    voxels = labels.voxels
    if labels.is_sequence:
        raise InputError(
            f"{name} has {labels.shape[0]} frames",
            "A segmentation holds one point in time: write each frame on its own.",
        )
    if voxels.dtype.kind == "b":
        return voxels.astype(np.uint8)
    if voxels.dtype.kind == "f":
        whole = np.rint(voxels)
        if not np.array_equal(whole, voxels) or np.abs(whole).max() >= 2**31:
            raise InputError(
                f"{name} holds values that are no whole numbers",
                "Give a label volume: 0 for the background, and a number for each structure.",
            )
        voxels = whole.astype(np.int32)
    if voxels.min() < 0:
        raise InputError(
            f"{name} holds the label {voxels.min()}", "Labels are numbers above the background's 0."
        )
    return voxels


def _number(
    values: npt.NDArray[np.integer[Any]], meanings: list[_Meaning], name: str
) -> tuple[_Numbers, list[_Meaning]]:
    """The voxels as numbers of segments, from 1, and a meaning for each segment."""
    known = [meaning for meaning in meanings if meaning.value != 0]
    if len({meaning.value for meaning in known}) != len(known):
        raise InputError("two meanings have the same value", "Give each label one meaning.")
    # Slice by slice: the indices of all voxels at once would take eight times a volume's memory.
    present = np.unique(np.concatenate([np.unique(plane) for plane in values]))
    named = {meaning.value for meaning in known}
    known += [_Meaning({"value": value}) for value in present.tolist() if value not in {0, *named}]
    if not known:
        raise InputError(
            f"{name} holds no label and none is named", "Give the labels that were looked for."
        )
    if len(known) > _MOST_SEGMENTS:
        raise InputError(
            f"{name} holds {len(known)} labels, DICOM up to {_MOST_SEGMENTS}", "Write fewer labels."
        )
    number_of = {meaning.value: number for number, meaning in enumerate(known, 1)}
    of_present: _Numbers = np.array(
        [number_of.get(value, 0) for value in present.tolist()],
        np.uint8 if len(known) < 256 else np.uint16,
    )
    numbers = np.empty(values.shape, of_present.dtype)
    for plane, numbered in zip(values, numbers, strict=True):
        numbered[:] = of_present[np.searchsorted(present, plane)]
    _refuse_too_many(numbers, len(known), name)
    return numbers, known


def _refuse_too_many(numbers: _Numbers, segments: int, name: str) -> None:
    frames = sum(int(np.count_nonzero(np.bincount(plane.ravel())[1:])) for plane in numbers)
    frames = frames or segments * len(numbers)  # where all is empty, highdicom writes every frame
    if frames > _MOST_FRAMES or frames * numbers[0].size / 8 > 2**32 - 2:
        raise InputError(
            f"{name} would need {frames} frames of {numbers[0].size} voxels in one DICOM object",
            "Cut the volume to the region of interest, or write fewer labels at a time.",
        )


def _describe(meanings: list[_Meaning], derivation: Derivation) -> list[Dataset]:
    """The segments' descriptions; if no model made the labels, the algorithm is "not recorded"."""
    hd = require("highdicom", purpose="Writing DICOM")
    from pydicom.sr.codedict import codes

    model = derivation.model
    made_by = short_text(model.get("name")) or "unnamed" if model else "not recorded"
    algorithm = hd.AlgorithmIdentificationSequence(
        name=made_by,
        family=codes.cid7162.ArtificialIntelligence,
        version=short_text(model.get("version")) or "unknown" if model else "unknown",
        source="MedEnhance",
        parameters={"sha256": model["sha256"]} if model and model.get("sha256") else None,
    )
    descriptions = []
    for number, meaning in enumerate(meanings, 1):
        color = re.fullmatch(r"#([0-9a-fA-F]{6})", meaning.color)
        rgb = tuple(bytes.fromhex(color[1])) if color else None
        description = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=meaning.name,
            segmented_property_category=hd.sr.CodedConcept(*meaning.category),
            segmented_property_type=hd.sr.CodedConcept(*meaning.type),
            algorithm_type="AUTOMATIC" if model else "SEMIAUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=fresh_uid(),
            tracking_id=f"{made_by}: {meaning.name}" if model else meaning.name,
            display_color=hd.color.CIELabColor.from_rgb(*rgb) if rgb else None,
        )
        if model is None:  # optional in DICOM, though not in highdicom
            del description.SegmentationAlgorithmIdentificationSequence
        descriptions.append(description)
    return descriptions

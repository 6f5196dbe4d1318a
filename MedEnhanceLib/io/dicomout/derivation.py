"""Derivation of an object, and the items (codes, references, UIDs) that record it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.manifest import with_roles, without_files
from MedEnhanceLib.core.origin import Instance, Lossy

if TYPE_CHECKING:
    from pydicom import Dataset


MANUFACTURER = "MedEnhance"
NOTICE = "Research use only; not for diagnosis."
_LONGEST_TEXT = 1024
#: Made once for MedEnhance: 2.25 and a UUID, as PS3.5 B.2 allows.
IMPLEMENTATION_UID = "2.25.30163013148404494072350729388420727566"
IMPLEMENTATION_NAME = f"MEDENHANCE_{__version__}"[:16]

#: (value, meaning) of DCM. CID 7203 has no code for noise reduction or networks; it may be
#: extended, and DICOM uses 110001 for image processing in other contexts.
_PROCESSING = ("110001", "Image Processing")
_LOSSY = ("113040", "Lossy Compression")
_RESAMPLING = ("113085", "Spatial resampling")
SEGMENTATION = ("113076", "Segmentation")
_PROCESSING_EQUIPMENT = ("109102", "Processing Equipment")
#: Words that are appended to a source's description: "MedEnhance enhanced".
_OUR_WORDS = re.compile(r"( ?\bMedEnhance [a-z]+( [a-z]+)*)+$")
#: A step of a history that every later result has to record; the group is its text.
_LASTING_STEP = re.compile(r"DERIVED: ((resampled|slices restored|enhanced).*?)( by MedEnh.*)?$")
_SOURCE_IMAGE = ("121322", "Source image for image processing operation")
#: Actions that leave the intensities as they are, or that have a code of their own.
_CODES_OF_ACTIONS = {
    "compressed": (), "decompressed": (), "converted": (), "recovered": (), "exported": (),
    "resampled": (_RESAMPLING,), "segmented": (SEGMENTATION,),
}  # fmt: skip


@dataclass(frozen=True)
class Derivation:
    """The derivation of an object.

    Attributes:
        action: a past participle ("enhanced", "segmented", "compressed").
        description: the options, in words.
        model: name, sha256 and, if known, version, as manifests record them.
        history: what was done to the volume before, oldest first.
        lossy: steps that lost information, oldest first.
        series_description: instead of one made from the source's.
        files: what the volumes were read from, by role, which takes the place of their names.
    """

    action: str
    description: str = ""
    model: Mapping[str, str] | None = None
    history: tuple[str, ...] = ()
    lossy: tuple[Lossy, ...] = ()
    series_description: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)

    def apply(self, dataset: Dataset) -> None:
        """Record the derivation in `dataset`, after earlier ones that its source records."""
        dataset.DerivationDescription = self.text()
        if codes := self._codes():
            dataset.DerivationCodeSequence = [coded(*code) for code in codes]
        equipment = list(dataset.get("ContributingEquipmentSequence") or [])
        recorded = {str(item.get("ContributionDescription")) for item in equipment}
        *before, last = self._contributions()
        dataset.ContributingEquipmentSequence = equipment + [
            with_elements(
                PurposeOfReferenceCodeSequence=[coded(*_PROCESSING_EQUIPMENT)],
                Manufacturer=MANUFACTURER,
                ManufacturerModelName=MANUFACTURER,
                SoftwareVersions=__version__,
                ContributionDateTime=datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000"),
                ContributionDescription=step,
            )
            for step in (*before, last)
            if step not in recorded or step is last
        ]
        _record_lossy(dataset, self.lossy)
        earlier = str(dataset.get("ImageComments") or "")
        comments = earlier if NOTICE in earlier else f"{NOTICE} {earlier}".strip()
        dataset.ImageComments = comments[:10240]

    def text(self) -> str:
        """Describe the action, its model, options and history, in at most 1024 characters."""
        parts = [f"{self.action.capitalize()} by MedEnhance {__version__}"]
        if self.model:
            parts.append(f"model {model_text(self.model)}")
        if self.description:
            parts.append(self._unnamed(self.description))
        if self.lossy:
            parts.append(f"lossy: {', '.join(map(_lossy_text, self.lossy))}")
        if self.history:
            parts.append("before: " + " | ".join(map(self._unnamed, self.history)))
        return _with_notice("; ".join(parts))

    def series_text(self, earlier: str) -> str:
        """Compose a SeriesDescription of that of the source (`earlier`) and the action."""
        if requested := short_text(self.series_description):
            return requested
        action = "thin slices" if self._restores_slices else self.action
        if "scanner inverted" in self.description:  # intensities are not those measured
            action = "scanner inverted"
        action_text = f"MedEnhance {action}"[:40]
        source = cut(_OUR_WORDS.sub("", earlier), 63 - len(action_text)).strip()
        return f"{source} {action_text}".strip()

    @property
    def _restores_slices(self) -> bool:
        """Whether the action made thin slices, on a new grid."""
        return "slices restored" in self.description

    def _unnamed(self, text: str) -> str:
        """Leave out names of files: those that are known, then what looks like one."""
        return without_files(str(with_roles(text, self.files)))

    def _codes(self) -> list[tuple[str, str]]:
        codes = list(_CODES_OF_ACTIONS.get(self.action, (_PROCESSING,)))
        if self.lossy:
            codes.append(_LOSSY)
        steps = " ".join((*self.history, self.description))
        if "resampled" in steps or "slices restored" in steps:
            codes.append(_RESAMPLING)
        return list(dict.fromkeys(codes))

    def _contributions(self) -> list[str]:
        """Describe each step: earlier ones that changed voxels, then this action."""
        earlier = filter(None, map(_LASTING_STEP.match, self.history))
        model = f"; model {model_text(self.model)}" if self.model else ""
        action = "slices restored" if self._restores_slices else self.action
        steps = [*(self._unnamed(step[1]) for step in earlier), f"{action}{model}"]
        return list(map(_with_notice, steps))


def _with_notice(text: str) -> str:
    """Return a text on one line and the notice, together 1024 characters at most."""
    line, room = " ".join(text.split()), _LONGEST_TEXT - len(NOTICE) - 2
    return f"{line if len(line) <= room else f'{line[: room - 3]}...'}. {NOTICE}"


def model_text(model: Mapping[str, str]) -> str:
    """Write name, version and hash of a model on one line."""
    version = f" {model['version']}" if model.get("version") else ""
    sha256 = f" sha256 {model['sha256']}" if model.get("sha256") else ""
    return f"{short_text(model.get('name')) or 'unnamed'}{version}{sha256}"


def now(offset: str = "") -> tuple[str, str]:
    """Return date and time of this moment, as DA and TM.

    offset: from UTC ("+0200"), the TimezoneOffsetFromUTC of the dataset; "" for local time.
    """
    try:
        zone = datetime.strptime(offset.strip(), "%z").tzinfo
    except ValueError:
        zone = None
    moment = datetime.now(UTC).astimezone(zone)
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")


def _record_lossy(dataset: Dataset, steps: Sequence[Lossy]) -> None:
    """Add the steps to those that the source records; "01" (lossy) is never removed.

    Method and ratio of a step are both recorded or neither is: the two lists must match.
    """
    methods, ratios = (
        values_of(dataset, f"LossyImageCompression{part}") for part in ("Method", "Ratio")
    )
    recorded = [
        Lossy(str(method), float(ratio)) for method, ratio in zip(methods, ratios, strict=False)
    ]
    new, count = list(steps), len(recorded)
    if [method_term(step.method) for step in new[:count]] == [step.method for step in recorded]:
        new = new[count:]  # the volume repeats those of its source
    if str(dataset.get("LossyImageCompression") or "00") != "01" and not new:
        return
    dataset.LossyImageCompression = "01"
    if stated := [step for step in (*recorded, *new) if step.method and step.ratio > 1]:
        dataset.LossyImageCompressionMethod = [method_term(step.method) for step in stated]
        dataset.LossyImageCompressionRatio = [f"{step.ratio:.6g}" for step in stated]


def _lossy_text(step: Lossy) -> str:
    method = step.method or "a method that the source does not state"
    return f"{method} {step.ratio:.3g}:1" if step.ratio > 1 else method


def method_term(method: str) -> str:
    """Write a method as a code string, as PS3.3 allows: 16 capitals, digits and underscores."""
    return re.sub(r"[^A-Z0-9_ ]", "_", method.upper())[:16].strip() or "UNKNOWN"


#: Added to the number of the source's series, by kind of the derived object.
_STEPS = {"images": 1000, "segmentation": 2000, "uncertainty": 3000}


def with_elements(**elements: Any) -> Dataset:
    """Return a dataset of these elements: keyword=value."""
    from pydicom import Dataset

    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def coded(value: str, meaning: str) -> Dataset:
    """Return an item of a code sequence, with a code of the scheme DCM."""
    return with_elements(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)


def refer_to(reference: Instance, **more: Any) -> Dataset:
    """Return an item that references a stored image, with `more` elements."""
    frame = {} if reference.frame is None else {"ReferencedFrameNumber": reference.frame}
    return with_elements(
        ReferencedSOPClassUID=reference.sop_class,
        ReferencedSOPInstanceUID=reference.sop_instance,
        **frame,
        **more,
    )


def refer_to_source(reference: Instance, *, same_place: bool) -> Dataset:
    """Return an item that references a source image; same_place: whether no pixel was moved."""
    return refer_to(
        reference,
        SpatialLocationsPreserved="YES" if same_place else "NO",
        PurposeOfReferenceCodeSequence=[coded(*_SOURCE_IMAGE)],
    )


def fresh_uid() -> str:
    """Return a new UID: 2.25 and a random number."""
    from pydicom.uid import generate_uid

    return str(generate_uid(prefix=None))


def values_of(dataset: Dataset, keyword: str) -> list[Any]:
    """Return all values of an element; [] if it is absent or empty."""
    value = dataset.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, (str, float, int)) else list(value)


def series_number(header: Dataset | None, kind: str) -> int:
    """Return the number of a derived series: that of its source, plus a step for its kind."""
    if header is None and kind == "images":
        return 1
    source = header.get("SeriesNumber") if header is not None else None
    return max(0, int(source or 0)) % 10**6 + _STEPS[kind]


def ds_text(text: str) -> str:
    """Convert the text of a number to a decimal string (DS): rounded to at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return text if len(text) <= 16 else str(format_number_as_ds(float(text)))


def short_text(value: object) -> str:
    """Remove the characters that DICOM's short texts do not allow; at most 64 bytes are kept."""
    return cut(re.sub(r"[\x00-\x1f\x7f\\]+", " ", str(value or "")).strip())


def cut(text: str, most: int = 64) -> str:
    """Keep the first `most` bytes of a text in UTF-8: some readers count bytes."""
    return text.encode()[:most].decode(errors="ignore").rstrip()

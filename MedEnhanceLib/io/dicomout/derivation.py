"""What a derived object says of itself: what was done, by what, and that it is no original."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.origin import Lossy
from MedEnhanceLib.io.dicomout.items import (
    Reference,
    coded,
    cut,
    refer_to,
    short_text,
    values_of,
    with_elements,
)

if TYPE_CHECKING:
    from pydicom import Dataset

MANUFACTURER = "MedEnhance"
NOTICE = "Research use only; not for diagnosis."
#: Ours, made once (2.25 and a UUID, as PS3.5 B.2 lets anybody do).
IMPLEMENTATION_UID = "2.25.30163013148404494072350729388420727566"
IMPLEMENTATION_NAME = f"MEDENHANCE_{__version__}"[:16]

#: (value, meaning) of DCM. CID 7203 has a code for no noise reduction or network; it may be
#: extended, and 110001 is what DICOM calls the processing of images anywhere else.
_PROCESSING = ("110001", "Image Processing")
_LOSSY = ("113040", "Lossy Compression")
_RESAMPLING = ("113085", "Spatial resampling")
_SEGMENTATION = ("113076", "Segmentation")
_PROCESSING_EQUIPMENT = ("109102", "Processing Equipment")
#: What we put behind a source's description: "MedEnhance enhanced".
_OUR_WORDS = re.compile(r"( ?\bMedEnhance [a-z]+( [a-z]+)*)+$")
#: File names, which are often patients' names: in brackets, or with a path or a file's ending.
_FILE_NAMES = re.compile(
    r" ?\[[^]]*\]|(?:(?<=\s)|^)(?:[~.]{0,2}/|[A-Za-z]:[\\/])\S+|"
    r"\S+\.(?:dcm|ima|nii|gz|nrrd|nhdr|mha|mhd|ucv|zip|json|img|hdr|tiff?|png|npy|txt|lst)\b",
    re.IGNORECASE,
)
_SOURCE_IMAGE = ("121322", "Source image for image processing operation")
#: Actions that leave the intensities as they are, or that have a code of their own.
_CODES_OF_ACTIONS = {
    "compressed": (), "decompressed": (), "converted": (), "recovered": (), "exported": (),
    "resampled": (_RESAMPLING,), "segmented": (_SEGMENTATION,),
}  # fmt: skip


@dataclass(frozen=True)
class Derivation:
    """How an object came to be.

    action: a past participle ("enhanced", "segmented", "compressed"). description: the options, in
    words. model: name, sha256 and, where known, version, as manifests record them. history: what
    was done to the volume before, oldest first. lossy: steps that lost information, oldest first.
    series_description, series_number: instead of those made from the source's.
    """

    action: str
    description: str = ""
    model: Mapping[str, str] | None = None
    history: tuple[str, ...] = ()
    lossy: tuple[Lossy, ...] = ()
    series_description: str | None = None
    series_number: int | None = None

    def apply(self, dataset: Dataset) -> None:
        """Tell of the derivation in `dataset`, after what its source tells of earlier ones."""
        dataset.DerivationDescription = self.text()
        if codes := self._codes():
            dataset.DerivationCodeSequence = [coded(*code) for code in codes]
        equipment = list(dataset.get("ContributingEquipmentSequence") or [])
        dataset.ContributingEquipmentSequence = [*equipment, self._equipment()]
        _tell_lossy(dataset, self.lossy)
        earlier = str(dataset.get("ImageComments") or "")
        comments = earlier if NOTICE in earlier else f"{NOTICE} {earlier}".strip()
        dataset.ImageComments = comments[:10240]

    def text(self) -> str:
        """What was done, by which model, with which options; at most 1024 ASCII characters."""
        parts = [f"{self.action.capitalize()} by MedEnhance {__version__}"]
        if self.model:
            parts.append(f"model {model_text(self.model)}")
        if self.description:
            parts.append(without_files(self.description))
        if self.lossy:
            parts.append(f"lossy: {', '.join(map(_lossy_text, self.lossy))}")
        if self.history:
            parts.append("before: " + " | ".join(map(without_files, self.history)))
        told = ascii_text("; ".join(parts))
        room = 1024 - len(NOTICE) - 2
        told = told if len(told) <= room else told[: room - 3] + "..."
        return f"{told}. {NOTICE}"

    def series_text(self, earlier: str) -> str:
        """A SeriesDescription: that of the source and what was done, in 64 bytes."""
        if wished := short_text(self.series_description):
            return wished
        ours = f"MedEnhance {ascii_text(self.action)}"[:40]
        source = cut(_OUR_WORDS.sub("", earlier), 63 - len(ours)).strip()
        return f"{source} {ours}".strip()

    @property
    def is_ascii(self) -> bool:
        """Whether what it puts into an object fits into every character set."""
        return (self.series_description or "").isascii()

    def _codes(self) -> list[tuple[str, str]]:
        codes = list(_CODES_OF_ACTIONS.get(self.action, (_PROCESSING,)))
        if self.lossy:
            codes.append(_LOSSY)
        steps = " ".join((*self.history, self.description)).lower()
        if "resampled" in steps or "moved slices" in steps:
            codes.append(_RESAMPLING)
        return list(dict.fromkeys(codes))

    def _equipment(self) -> Dataset:
        model = f"; model {model_text(self.model)}" if self.model else ""
        return with_elements(
            PurposeOfReferenceCodeSequence=[coded(*_PROCESSING_EQUIPMENT)],
            Manufacturer=MANUFACTURER,
            ManufacturerModelName=MANUFACTURER,
            SoftwareVersions=__version__,
            ContributionDateTime=datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000"),
            ContributionDescription=ascii_text(f"{self.action}{model}. {NOTICE}")[:1024],
        )


def refer_to_sources(
    dataset: Dataset, sources: Sequence[Reference], *, same_place: bool = True
) -> None:
    """Name the images that `dataset` was made from.

    same_place: whether every pixel lies where it did. Frames of one file go into one item.
    """
    frames: dict[Reference, list[int]] = {}
    for one in sources:
        numbers = [] if one.frame is None else [one.frame]
        frames.setdefault(replace(one, frame=None), []).extend(numbers)
    items = []
    for one, numbers in frames.items():
        item = refer_to(
            one,
            SpatialLocationsPreserved="YES" if same_place else "NO",
            PurposeOfReferenceCodeSequence=[coded(*_SOURCE_IMAGE)],
        )
        if numbers:
            item.ReferencedFrameNumber = numbers if len(numbers) > 1 else numbers[0]
        items.append(item)
    dataset.SourceImageSequence = items


def processing_code() -> Dataset:
    """The code of a derivation that has none of its own, where one has to be told."""
    return coded(*_PROCESSING)


def without_files(text: str) -> str:
    """A step of a history without the names of files, which are often those of patients."""
    return re.sub(r" ([;,.)])", r"\1", " ".join(_FILE_NAMES.sub(" ", text).split()))


def model_text(model: Mapping[str, str]) -> str:
    """Name, version and hash of a model on one line."""
    version = f" {model['version']}" if model.get("version") else ""
    sha256 = f" sha256 {model['sha256']}" if model.get("sha256") else ""
    return ascii_text(f"{model.get('name', 'unnamed')}{version}{sha256}")


def now(offset: str = "") -> tuple[str, str]:
    """Date and time of this moment, as DA and TM: here, or at `offset` from UTC ("+0200").

    Times in a dataset with TimezoneOffsetFromUTC are meant there, so ours must be as well.
    """
    moment = datetime.now(UTC).astimezone()
    if match := re.fullmatch(r"([+-])(\d\d)(\d\d)", offset.strip()):
        minutes = int(match[2]) * 60 + int(match[3])
        span = timedelta(minutes=minutes if match[1] == "+" else -minutes)
        if abs(span) < timedelta(hours=24):
            moment = moment.astimezone(timezone(span))
    return moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")


_PLAIN = str.maketrans({
    "×": "x", "–": "-", "—": "-", "−": "-", "→": "->", "…": "...", "≤": "<=", "≥": ">=",
    "°": " deg", "±": "+-", "²": "2", "³": "3", "µ": "u", "μ": "u", "\\": "/",
    "‘": "'", "’": "'", "“": '"', "”": '"',
})  # fmt: skip


def ascii_text(text: str) -> str:
    """`text` in the characters that every character set of DICOM has, on one line."""
    plain = text.translate(_PLAIN)
    return " ".join(plain.encode("ascii", "replace").decode("ascii").split())


def _tell_lossy(dataset: Dataset, steps: Sequence[Lossy]) -> None:
    """Add the steps to those that the source tells of; "01" once is "01" for ever.

    Method and ratio of a step are told together or not at all: each list has to be in step.
    """
    told = _lossy_of(dataset)
    new = list(steps)
    if [method_term(one.method) for one in new[: len(told)]] == [one.method for one in told]:
        new = new[len(told) :]  # the volume remembers those of its source as well
    if str(dataset.get("LossyImageCompression") or "00") != "01" and not new:
        return
    dataset.LossyImageCompression = "01"
    if known := [one for one in (*told, *new) if one.method and one.ratio > 1]:
        dataset.LossyImageCompressionMethod = [method_term(one.method) for one in known]
        dataset.LossyImageCompressionRatio = [f"{one.ratio:.6g}" for one in known]


def _lossy_of(dataset: Dataset) -> list[Lossy]:
    """The steps that a header tells of with method and ratio."""
    methods, ratios = (
        values_of(dataset, f"LossyImageCompression{what}") for what in ("Method", "Ratio")
    )
    if len(methods) != len(ratios):
        return []
    return [Lossy(str(one), float(ratio)) for one, ratio in zip(methods, ratios, strict=True)]


def _lossy_text(one: Lossy) -> str:
    method = one.method or "a method that the source does not tell"
    return f"{method} {one.ratio:.3g}:1" if one.ratio > 1 else method


def method_term(method: str) -> str:
    """A method as a code string: capitals, digits, underscores, at most 16 of them.

    LossyImageCompressionMethod has defined terms, which PS3.3 lets others add to.
    """
    return re.sub(r"[^A-Z0-9_ ]", "_", method.upper())[:16].strip() or "UNKNOWN"

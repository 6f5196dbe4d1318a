"""The sidecar of BIDS beside a volume, scan.json beside scan.nii.gz: copied beside a result."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.io.atomic import resolved, write_json
from MedEnhanceLib.io.formats import stem_of
from MedEnhanceLib.io.json_input import read_json
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import printable, reason_of

#: What identifies the patient, the visit or the device: what dcm2niix leaves out of anonymous
#: sidecars, and what DICOM PS3.15 removes. Texts in a key, in small letters, without separators:
_IDENTIFYING = (
    "accession", "address", "birth", "clinicaltrial", "comments", "ethnic", "filename", "filepath",
    "institution", "medicalrecord", "militaryrank", "observer", "occupation", "operator",
    "ordernumber", "patient", "person", "physician", "recorder", "requesting", "residence",
    "reviewer", "serialnumber", "stationae", "stationname", "studytime", "subjectname", "telephone",
    "acquisitiontime", "contenttime", "creationtime", "seriestime", "starttime", "stependtime",
)  # fmt: skip
#: Words of a key.
_IDENTIFYING_WORD = re.compile("age|date|dob|ids?|mrn|paths?|record|sex|uids?|weight")
#: Whole keys, without separators: some words, and tags of DICOM, as (0010,0010) or x00100010.
_IDENTIFYING_KEY = re.compile("names?|subjects?|(?:tag)?(?:0?x)?[0-9a-f]{4}(?:0?x)?[0-9a-f]{4}")
#: Keys with such texts that identify nobody: those of places, and of the task.
_HARMLESS = (
    "patientposition", "patientorientation", "positionpatient", "orientationpatient", "cogatlasid",
)  # fmt: skip
_WORD = re.compile("[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+")
_UID = re.compile(r"[012](\.\d+){5,}")
#: Keys that hold for the spacing of the source, and lists with a value for each of its frames.
_OF_SPACING = ("SliceThickness", "SpacingBetweenSlices")
_OF_FRAMES = ("VolumeTiming", "FrameTimesStart", "FrameDuration", "DecayCorrectionFactor")


def copy_sidecar(
    source: Path,
    output: Path,
    shape: tuple[int, ...],
    *,
    same_spacing: bool,
    overwrite: bool,
    monitor: Monitor,
) -> Path | None:
    """Copy the sidecar of a volume, without what identifies the patient or no longer holds.

    Args:
        source: a NIfTI file or a container.
        output: the result: a file, or a folder of DICOM, which gets none.
        shape: of the volume of `output`.
        same_spacing: whether that of `source` has its spacing.
        overwrite: whether an existing file is replaced.
        monitor: warned of what is left out, and of a sidecar that stays behind.
    Returns the copy; None without one.
    """
    path, copy = (each.with_name(f"{stem_of(each)}.json") for each in (source, output))
    if not path.is_file() or resolved(path) == resolved(copy):
        return None
    numbers, fields, fault = list[str](), None, ""
    try:
        fields = read_json(path, numbers)
    except (OSError, ValueError) as cause:
        fault = f" ({reason_of(cause)})"
    if isinstance(fields, dict) and "notice" in fields:  # a manifest
        return None
    if not isinstance(fields, dict):
        reason = f"it is no object of JSON{fault}"
    elif output.is_dir():
        reason = "DICOM has no place for it"
    elif os.path.lexists(copy) and not overwrite:
        reason = "another one exists already"
    else:
        personal, untrue = Counter[str](), Counter[str]()

        def is_untrue(key: str, value: Any) -> bool:
            return not (_holds(key, value, shape) and (same_spacing or key not in _OF_SPACING))

        fields = _without(_without(fields, _identifies, personal), is_untrue, untrue)
        try:
            write_json(copy, fields, overwrite=overwrite)
        except OutputError as cause:  # the result itself is in place
            reason = cause.message
        else:
            for what, keys in (
                ("left out of its copy, as they can identify the patient", personal),
                ("left out of its copy, as they do not hold for the result", untrue),
                ("null in its copy, as JSON lacks these numbers", Counter(numbers)),
            ):
                if keys:
                    names = ", ".join(map(printable, keys))
                    monitor.warn(f"{path.name}: {what} (fields: {keys.total()}): {names}")
            return copy
    monitor.warn(f"{path.name}: not copied beside the result: {reason}")
    return None


def _identifies(key: str, value: Any) -> bool:
    """Return whether a key, or a UID that stands as its value, can identify the patient."""
    texts = value if isinstance(value, list) else [value]
    if any(_UID.fullmatch(str(text)) for text in texts):
        return True
    name = re.sub(r"[\W_]", "", key).lower()
    if any(text in name for text in _HARMLESS):
        return False
    words = (word.lower() for word in _WORD.findall(key))
    is_word = any(_IDENTIFYING_WORD.fullmatch(word) for word in words)
    is_key = _IDENTIFYING_KEY.fullmatch(name) is not None
    return is_key or is_word or any(text in name for text in _IDENTIFYING)


def _holds(key: str, value: Any, shape: tuple[int, ...]) -> bool:
    count = len(value) if isinstance(value, list) else 0
    if key == "SliceTiming":
        return count in shape[-3:]
    return key not in _OF_FRAMES or count in (0, *shape[:-3])


def _without(value: Any, is_out: Callable[[str, Any], bool], gone: Counter[str]) -> Any:
    """Return a value of JSON without some keys of its objects, which are counted in `gone`."""
    if isinstance(value, list):
        return [_without(item, is_out, gone) for item in value]
    if not isinstance(value, dict):
        return value
    out = [key for key, item in value.items() if is_out(key, item)]
    gone.update(out)
    return {key: _without(item, is_out, gone) for key, item in value.items() if key not in out}

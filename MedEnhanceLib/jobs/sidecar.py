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
from MedEnhanceLib.runtime.text import printable

#: Keys that can identify the patient, the visit or the device: those that dcm2niix leaves out of
#: anonymous sidecars, and those that DICOM PS3.15 removes. CogAtlasID and CogPOID name a task.
_IDENTIFYING = re.compile(
    "(?<!Orientation)(?<!Position)Patient(?!_?(?:Position|Orientation))"
    "|(?i:^patient(?!_?(?:position|orientation))|physician|operator|birth|accession|address"
    "|telephone|institution|station_?(?:name|ae)|serial_?number|subject_?name|comments|observer"
    "|reviewer|occupation|ethnic|clinicaltrial|medical_?record)"
    "|Record(?!ing)|Person|Requesting|Date|(?:^|_)date|UID|(?:^|_)(?:uid|id)s?$"
    "|(?<!CogAtlas)(?<!CogPO)IDs?$|(?:Weight|Sex|Age)$|^(?:weight|sex|age)$"
    "|(?:Study|Series|Acquisition|Content|Creation|StepStart|StepEnd|ceuticalStart)_?Time"
)
#: A UID, wherever it stands.
_UID = re.compile(r"[012](?:\.(?:0|[1-9]\d*)){5,}")
#: Keys that hold for the spacing of the source, and lists with a value for each of its frames.
_OF_SPACING = ("SliceThickness", "SpacingBetweenSlices")
_OF_FRAMES = ("VolumeTiming", "FrameTimesStart", "FrameDuration", "DecayCorrectionFactor")
#: Why fields are left out, and how many keys a warning names.
_PERSONAL = "left out of its copy, as they can identify the patient"
_UNTRUE = "left out of its copy, as they do not hold for the result"
_NO_NUMBERS = "null in its copy, as JSON lacks these numbers"
_MOST_NAMES = 40


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
    reason, numbers, fields = "it is no object of JSON", list[str](), None
    try:
        fields = read_json(path, numbers)
    except (OSError, ValueError) as cause:
        reason += f" ({cause})"
    if isinstance(fields, dict) and "notice" in fields:  # a manifest
        return None
    if isinstance(fields, dict) and output.is_dir():
        reason = "DICOM has no place for it"
    elif isinstance(fields, dict) and os.path.lexists(copy) and not overwrite:
        reason = "another one exists already"
    elif isinstance(fields, dict):
        gone: dict[str, Counter[str]] = {why: Counter() for why in (_PERSONAL, _UNTRUE)}

        def why_not(key: str, value: Any) -> str:
            texts = value if isinstance(value, list) else [value]
            if _IDENTIFYING.search(key) or any(_UID.fullmatch(str(text)) for text in texts):
                return _PERSONAL
            is_true = _holds(key, value, shape) and (same_spacing or key not in _OF_SPACING)
            return "" if is_true else _UNTRUE

        fields = _without(fields, why_not, gone)
        gone[_NO_NUMBERS] = Counter(numbers)
        try:
            write_json(copy, fields, overwrite=overwrite)
        except OutputError as cause:  # the result itself is in place
            reason = cause.message
        else:
            for why, keys in gone.items():
                names = ", ".join(printable(key) for key in [*keys][:_MOST_NAMES])
                more = f" and {len(keys) - _MOST_NAMES} more" if len(keys) > _MOST_NAMES else ""
                if keys:
                    monitor.warn(f"{path.name}: {why} (fields: {keys.total()}): {names}{more}")
            return copy
    monitor.warn(f"{path.name}: not copied beside the result: {reason}")
    return None


def _holds(key: str, value: Any, shape: tuple[int, ...]) -> bool:
    count = len(value) if isinstance(value, list) else 0
    if key == "SliceTiming":
        return count in shape[-3:]
    return key not in _OF_FRAMES or count in (0, *shape[:-3])


def _without(value: Any, why_not: Callable[[str, Any], str], gone: dict[str, Counter[str]]) -> Any:
    """Return a value of JSON without some keys of its objects, counted in `gone` by reason."""
    if isinstance(value, list):
        return [_without(item, why_not, gone) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for key, item in value.items():
        if why := why_not(key, item):
            gone[why][key] += 1
        else:
            kept[key] = _without(item, why_not, gone)
    return kept

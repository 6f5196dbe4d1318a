"""The sidecar of BIDS beside a volume, scan.json beside scan.nii.gz: copied beside a result."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from MedEnhanceLib.io.atomic import resolved, write_json
from MedEnhanceLib.io.formats import stem_of
from MedEnhanceLib.runtime.progress import Monitor

#: Keys, in DICOM's terms, that can identify the patient.
_IDENTIFYING = re.compile(
    "Patient(?!Position)|Physician|Operator|Birth|Date|Accession|StudyID|Record|Address|Telephone"
)
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
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict) and "notice" in fields:  # a manifest
        return None
    reason = "DICOM has no place for it" if output.is_dir() else "another one exists already"
    if not isinstance(fields, dict):
        reason = "it is no object of JSON"
    elif not output.is_dir() and (overwrite or not copy.exists()):
        gone: dict[str, None] = {}

        def is_out(key: str, value: Any) -> bool:
            return not (_holds(key, value, shape) and (same_spacing or key not in _OF_SPACING))

        fields = _without(fields, is_out, gone)
        write_json(copy, fields, overwrite=overwrite)
        if gone:
            monitor.warn(f"{path.name}: left out of its copy: {', '.join(gone)}")
        return copy
    monitor.warn(f"{path.name}: not copied beside the result: {reason}")
    return None


def _holds(key: str, value: Any, shape: tuple[int, ...]) -> bool:
    count = len(value) if isinstance(value, list) else 0
    if key == "SliceTiming":
        return count in shape[-3:]
    if key in _OF_FRAMES:
        return count in (0, *shape[:-3])
    return not _IDENTIFYING.search(key)


def _without(value: Any, is_out: Callable[[str, Any], bool], gone: dict[str, None]) -> Any:
    """Return a value of JSON without some keys of its objects, which are added to `gone`."""
    if isinstance(value, list):
        return [_without(item, is_out, gone) for item in value]
    if not isinstance(value, dict):
        return value
    out = [key for key, item in value.items() if is_out(key, item)]
    gone.update(dict.fromkeys(out))
    return {key: _without(item, is_out, gone) for key, item in value.items() if key not in out}

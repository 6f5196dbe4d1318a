"""The manifest beside every result: software, settings, inputs, figures; in JSON and in words."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import platform
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from MedEnhanceLib._version import __version__
from MedEnhanceLib.runtime.text import sentence
from MedEnhanceLib.runtime.texts import Text, text

RESEARCH_ONLY = "Research software, not a medical device; not for diagnosis."
#: Beginning of the newest history entry of a map → the kind of map.
NOISE_MAP, UNCERTAINTY_MAP = "standard deviation of the noise", "uncertainty of the enhancement"
_MAPS = {
    NOISE_MAP: "a map of the noise in another volume",
    UNCERTAINTY_MAP: "a map of the uncertainty of another volume",
}
#: Keys of `results` that belong to a segmentation.
_OF_SEGMENTATION = ("labels", "table", "head", "segmentation_limits", "segmentation_warning")
_RECORDED_PACKAGES = ("numpy", "SimpleITK", "pydicom", "torch", "monai", "imagecodecs")

_ENDINGS = "dcm|dicom|ima|nii|gz|nrrd|nhdr|mha|mhd|ucv|zip|json|img|hdr|tiff?|png|npy|txt|lst"
#: File names, which are often patients' names: in brackets, or with a path or a file's ending.
_FILE_NAMES = re.compile(
    r" ?\[[^]]*\]|(?:(?<=\s)|^)(?:[~.]{0,2}/|[A-Za-z]:[\\/])\S+|"
    rf"(?P<in>\()?\S+\.(?:{_ENDINGS})\b(?(in)\))",
    re.IGNORECASE,
)
_ENDING = re.compile(rf"(?:\.nii)?\.(?:{_ENDINGS})$", re.IGNORECASE)
#: Of files beside a volume that have its name.
_BESIDE = (".json", ".bval", ".bvals", ".bvec", ".bvecs")

#: Codes of warnings after which structure in a result may be wrong.
_SEVERE = ("no-structure", "anatomy", "test-model")

#: How the history of an enhanced volume begins.
ENHANCED = "DERIVED: enhanced"


def derived_note(action: str) -> str:
    """Return the sentence that marks a volume as derived, for its history and file header."""
    return f"DERIVED: {action} by MedEnhance {__version__}; research use only"


def note_of_box(note: str, box: Sequence[tuple[int, int]]) -> str:
    """Add to the note of a step that it changed only a box of slices, rows and columns."""
    axes = zip("ijk", reversed(box), strict=True)
    ranges = ", ".join(f"{axis} {start}:{stop}" for axis, (start, stop) in axes)
    return f"{note}; only voxels {ranges} (stop excluded), the others are the input's"


def map_in_words(history: Sequence[str]) -> str:
    """Name the kind of map that MedEnhance wrote with this history; "" for other volumes."""
    newest = history[-1] if history else ""
    step = newest.removeprefix("DERIVED: ")
    return next((kind for begin, kind in _MAPS.items() if step.startswith(begin)), "")


def make_manifest(
    action: str,
    *,
    config: Mapping[str, Any],
    inputs: Mapping[str, Path | str],
    device: str = "cpu",
    seconds: float | None = None,
    model: Mapping[str, str] | None = None,
    results: Mapping[str, Any] | None = None,
    dicom: Mapping[str, Any] | None = None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the record of one run as a JSON object.

    Args:
        action: what was done, as a participle: "enhanced".
        config: the settings; of paths, as of a model's folder, the last part is recorded.
        inputs: by role. The hash of a file is recorded, not its name, which may be a patient's, and
            its role stands for its name in the texts of `results` and `warnings`.
        device: that the models ran on.
        seconds: duration.
        model: name and SHA-256 of the model.
        results: figures of the result.
        dicom: the DICOM series of the input, if any (`DicomOrigin.facts`).
        warnings: of the run.
    """
    files = {role: source for role, source in inputs.items() if isinstance(source, Path)}
    texts = [without_files(with_roles(text, files)) for text in warnings]
    return {
        "derived": derived_note(action),
        "notice": RESEARCH_ONLY,
        "action": action,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "software": {"medenhance": __version__, "python": platform.python_version()}
        | _package_versions(),
        "platform": f"{sys.platform} {platform.machine()}",
        "device": device,
        "config": _without_places(dict(config)),
        "inputs": dict(inputs) | {role: described(path) for role, path in files.items()},
        **({"dicom": dict(dicom)} if dicom else {}),
        "model": dict(model or {}),
        "seconds": None if seconds is None else round(seconds, 3),
        "results": with_roles(dict(results or {}), files),
        "warnings": [text.removeprefix("the input: ") for text in texts],
    }


def without_files(text: str) -> str:
    """Return a text without anything that looks like the name of a file."""
    return re.sub(r" ([;,.)])", r"\1", " ".join(_FILE_NAMES.sub(" ", text).split()))


def _without_places(value: Any) -> Any:
    """Keep the last part of each path in a JSON value: the others may name patients or users."""
    if isinstance(value, Mapping):
        return {key: _without_places(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_places(entry) for entry in value]
    return re.split(r"[/\\]", value.rstrip("/\\"))[-1] if isinstance(value, str) else value


def with_roles(value: Any, files: Mapping[str, Path]) -> Any:
    """Put "the" and the role in place of the names of files, in all sentences of a JSON value."""
    if isinstance(value, Mapping):
        return {key: with_roles(entry, files) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_roles(entry, files) for entry in value]
    if isinstance(value, str) and " " in value:  # a word is no text: "MR", also a folder
        roles = {name: role for role, path in files.items() for name in (str(path), path.name)}
        stems = {role: _ENDING.sub("", path.name) for role, path in files.items()}
        roles |= {
            f"{stems[role]}{end}": f"{role}'s {end[1:]} file" for role in stems for end in _BESIDE
        }
        # `sentence` begins with a capital letter.
        roles |= {f"{name[:1].upper()}{name[1:]}": role for name, role in roles.items()}
        for name in sorted({*roles} - {"", "."}, key=len, reverse=True):  # they may overlap
            alone = rf"(?<![\w./\\-]){re.escape(name)}(?![\w/\\-]|\.\w)"
            value = re.sub(alone, f"the {roles[name].replace('_', ' ')}", value)
    return value


def described(path: Path) -> str:
    """Describe a file by its hash; Path() is a volume in memory."""
    try:
        if path.is_file():
            ending = _ENDING.search(path.name.lower())
            return f"a file{f' ({ending[0]})' if ending else ''}, SHA-256 {file_sha256(path)}"
        return "a folder" if path.name and path.is_dir() else "a volume"
    except OSError:  # removed meanwhile, or an invalid path in a header
        return "a volume"


def manifest_at_strength(manifest: Mapping[str, Any], strength: float) -> dict[str, Any]:
    """Convert the manifest of a result at strength 1 to that of its blend at `strength`.

    Figures of segmentation and uncertainty are left out: they are of strength 1.
    """
    results, left_out = manifest.get("results") or {}, (*_OF_SEGMENTATION, "uncertainty")
    kept = {name: value for name, value in results.items() if name not in left_out}
    config = dict(manifest.get("config") or {}) | {"strength": strength}
    return dict(manifest) | {"config": config, "results": kept | {"strength": strength}}


def warnings_of(manifest: Mapping[str, Any]) -> list[tuple[str, Text, Text]]:
    """Read the warnings in the manifest of a run, the severe ones first.

    Returns level ("severe" or "warning"), message and hint (empty for none) of each. Fields that
    cannot be read, as in an edited manifest, count as empty.
    """
    results, lines = manifest.get("results"), manifest.get("warnings")
    rows = (results.get("warnings") if isinstance(results, Mapping) else None) or ()
    try:
        coded = [(row.get("code", ""), *_texts_of(row)) for row in rows]
        said = {f"{row['message']}: {row['hint']}" for row in rows}
    except (AttributeError, KeyError, TypeError):
        coded, said = [], set()
    plain = list(map(str, lines)) if isinstance(lines, list) else []
    coded += [("", Text.from_json(line), Text.from_json("")) for line in plain if line not in said]
    weighed = {
        (str(message), str(hint)): ("severe" if code in _SEVERE else "warning", message, hint)
        for code, message, hint in coded
    }
    return sorted(weighed.values(), key=lambda row: row[0] != "severe")


def _texts_of(row: Mapping[str, Any]) -> tuple[Text, Text]:
    """Read message and hint of a warning (`ModelWarning.to_json`)."""
    numbers, code = row.get("numbers"), row.get("code", "")
    message = {"key": code, "numbers": numbers, "sentence": row["message"]}
    hint = {"key": f"{code}-hint", "numbers": numbers, "sentence": row["hint"]}
    return Text.from_json(message), Text.from_json(hint)


def as_json(value: Any) -> Any:
    """Turn numpy numbers and arrays, paths, tuples and dataclasses into plain JSON values.

    NaN and infinity, which JSON lacks, become null.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_json(
            {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        )
    return str(value) if isinstance(value, PurePath) else value


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _package_versions() -> dict[str, str]:
    """Return the versions; cached, as reading them takes as long as compressing a volume."""
    from importlib import metadata  # takes longer to import than the rest of this module

    versions = {}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def caveats_of(results: Mapping[str, Any]) -> list[str]:
    """Return the reasons not to rely on a segmentation, a sentence each.

    results: the field of its manifest.
    """
    # What is in parentheses belongs together.
    warnings = re.split(r"; (?![^()]*\))", str(results.get("segmentation_warning") or ""))
    limits = results.get("segmentation_limits")
    lines = [*filter(None, warnings), *(limits if isinstance(limits, (list, tuple)) else ())]
    return [sentence(str(line)) for line in lines]


def uncertainty_in_words(facts: Mapping[str, Any], units: str = "") -> Text:
    """Describe an uncertainty map for its readers.

    facts: `results.uncertainty` of the manifest.
    units: of the enhanced volume.
    """
    calibration = facts.get("calibration")
    data = calibration.get("fitted_on") if isinstance(calibration, Mapping) else None
    return text("uncertainty", units=units or "units of the input", data=data or "unnamed data")

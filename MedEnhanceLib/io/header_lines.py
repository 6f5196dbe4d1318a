"""Headers that are lines of text, as NRRD and MetaImage have them: fields, units, voxel files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.voxels import read_start

LONGEST_HEADER = 1 << 20
_UNITS_MM = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1e3,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3,
    "nm": 1e-6,
}  # fmt: skip
#: Words that state no unit.
NO_UNIT = {"", "none", "???"}


def refused(path: Path, field: str, value: Any, why: str) -> InputError:
    """The error of a field that cannot be read: says file, field, value and why."""
    return InputError(f"{path.name}: {field} is {value!s:.80}: {why}", "Export the volume again.")


def header_start(path: Path) -> bytes:
    """The first MiB of a file; raises InputError if the whole file is packed by gzip."""
    start, is_packed = read_start(path, LONGEST_HEADER)
    if is_packed:
        raise InputError(
            f"{path.name} is compressed by gzip, header and all", "Decompress the file (gunzip)."
        )
    return start


def fields_of(path: Path, head: bytes, line_pattern: str) -> dict[str, str]:
    """Field in lower case without spaces → value, of every line that has both.

    Raises InputError where a field has two values.
    """
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").splitlines():
        if match := re.fullmatch(line_pattern, line):
            name, value = match["key"].strip(), match["value"].strip()
            if fields.setdefault(name.lower().replace(" ", ""), value) != value:
                raise InputError(f"{path.name}: {name} stands twice in it", "Correct the header.")
    return fields


def shape_of(path: Path, field: str, text: str, axes: str) -> tuple[int, ...]:
    """The shape in voxels, slowest axis first, of sizes whose number `axes` states."""
    sizes = text.split()
    is_valid = all(re.fullmatch(r"0*[1-9]\d{,9}", size) for size in sizes)
    if not (is_valid and axes in ("3", "4") and len(sizes) == int(axes)):
        why = f"in {axes} axes; a volume has 3, or 4 with frames, none of zero size"
        raise refused(path, field, text, why)
    return tuple(int(size) for size in reversed(sizes))


def unit_mm(path: Path, names: list[str]) -> float:
    """Millimeters in the unit of length; 1 if none is named."""
    units = set(names) - NO_UNIT
    if not units:
        return 1.0
    if len(units) > 1 or not units <= _UNITS_MM.keys():
        raise InputError(
            f"{path.name}: unknown or mixed units of length: {', '.join(sorted(units))}",
            "Write the header in mm.",
        )
    return _UNITS_MM[units.pop()]


def file_beside(path: Path, field: str, target: str) -> Path:
    """The voxel file that a header names; InputError if it is not in the header's folder."""
    voxel_file = path.parent / Path(target).name
    if target != voxel_file.name or not voxel_file.is_file():
        raise InputError(
            f"{path.name}: {field} is {target!r}, which is not beside it",
            "Copy the header together with its voxel file, or save both as one file.",
        )
    return voxel_file

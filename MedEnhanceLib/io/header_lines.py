"""Text headers, as of NRRD and MetaImage: fields, units, voxel files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.voxels import read_start
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import printable

LONGEST_HEADER = 1 << 20
_UNITS_MM = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1e3,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3,
    "nm": 1e-6,
}  # fmt: skip
#: Words that state no unit.
NO_UNIT = {"", "none", "???"}


def header_start(path: Path) -> bytes:
    """Read the first MiB of a file; raises InputError if the whole file is packed by gzip."""
    start, is_packed = read_start(path, LONGEST_HEADER)
    if is_packed:
        raise InputError(
            f"{path.name} is compressed by gzip, header and all", "Decompress the file (gunzip)."
        )
    return start


def warn_of_lost(path: Path, head: bytes, kept: str, monitor: Monitor) -> None:
    """Name the fields, keys and comments of a header that are not kept.

    Args:
        path: for the message.
        head: the header's bytes, UTF-8.
        kept: pattern of the names of all others, in any case.
        monitor: warned.
    """
    text = re.sub(r"(?m)^# *(Complete NRRD|http).*$", "", head.decode("utf-8", "replace"))
    names = re.findall(r"(?m)^(#|[^#:=\r\n]+?) *(?=:=|: |=|(?<=#))", text)
    lost = [name for name in dict.fromkeys(names) if not re.fullmatch(kept, name, re.IGNORECASE)]
    if lost:
        lost = ["comments" if name == "#" else printable(name) for name in lost]
        more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
        monitor.warn(f"{path.name}: not kept of its header: {', '.join(lost[:8])}{more}")


@dataclass(frozen=True)
class TextHeader:
    """A header of lines of text.

    Attributes:
        path: its file.
        fields: values by their names in lower case without spaces.
    """

    path: Path
    fields: dict[str, str]

    @classmethod
    def parse(cls, path: Path, head: bytes, line_pattern: str) -> TextHeader:
        """Parse the lines that have a field and a value; InputError if a field has two values.

        Args:
            path: for messages; nothing is read from it.
            head: the header's bytes, UTF-8.
            line_pattern: of a whole line, with groups `key` and `value`; other lines are skipped.
        """
        fields: dict[str, str] = {}
        for line in head.decode("utf-8", "replace").splitlines():
            if match := re.fullmatch(line_pattern, line):
                name, value = match["key"].strip(), match["value"].strip()
                if fields.setdefault(name.lower().replace(" ", ""), value) != value:
                    fault = f"{path.name}: {name} has two values"
                    raise InputError(fault, "Correct the header.")
        return cls(path, fields)

    def get(self, field: str, default: str = "") -> str:
        """Return the text of a field; `default` if it is missing."""
        return self.fields.get(field.lower().replace(" ", ""), default)

    def refused(self, field: str, value: Any, why: str) -> InputError:
        """Make the error of a field that cannot be read.

        Args:
            field: its name in the file.
            value: its text is cut after 80 characters.
            why: the reason, at the end of the message.
        """
        fault = f"{self.path.name}: {field} is {value!s:.80}: {why}"
        return InputError(fault, "Export the volume again.")

    def shape(self, field: str, axes: str) -> tuple[int, ...]:
        """Read the shape in voxels, slowest axis first; axes: the number of axes, as text."""
        text = self.get(field)
        sizes = text.split()
        is_valid = all(re.fullmatch(r"0*[1-9]\d{,9}", size) for size in sizes)
        if not (is_valid and axes in ("3", "4") and len(sizes) == int(axes)):
            why = f"in {axes} axes; a volume has 3, or 4 with frames, none of zero size"
            raise self.refused(field, text, why)
        return tuple(int(size) for size in reversed(sizes))

    def unit_mm(self, names: list[str]) -> float:
        """Return the millimeters in the unit of length; 1 if none is named."""
        units = set(names) - NO_UNIT
        if len(units) > 1 or not units <= _UNITS_MM.keys():
            raise InputError(
                f"{self.path.name}: unknown or mixed units of length: {', '.join(sorted(units))}",
                "Write the header in mm.",
            )
        return _UNITS_MM[units.pop()] if units else 1.0

    def file_beside(self, field: str, target: str) -> Path:
        """Return the voxel file that the header names; InputError if it is not in its folder."""
        if re.fullmatch(r"LIST( .*)?|.*%\d*d.*", target, re.IGNORECASE):
            why = "its voxels lie in several files, which are not read"
            hint = "Save it as one file, with 3D Slicer or the program that wrote it."
            raise InputError(f"{self.path.name}: {field} is {target!r:.80}: {why}", hint)
        voxel_file = self.path.parent / Path(target).name
        if target != voxel_file.name or not voxel_file.is_file():
            raise InputError(
                f"{self.path.name}: {field} is {target!r}, which is not beside it",
                "Copy the header together with its voxel file, or save both as one file.",
            )
        return voxel_file

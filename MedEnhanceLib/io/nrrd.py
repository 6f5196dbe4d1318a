"""NRRD (.nrrd, .nhdr): the header read by its definition, the voxels as of every other format.

ITK is not used to read: it refuses axes of time that have no direction, ignores units and skips,
takes an unknown space for LPS, and follows a header to any other file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.header_lines import (
    LONGEST_HEADER,
    NO_UNIT,
    fields_of,
    file_beside,
    header_start,
    unit_mm,
)
from MedEnhanceLib.io.voxels import LARGEST_RATIO, Payload, read_voxels, readable
from MedEnhanceLib.runtime.progress import Monitor

_SPACES = {
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
}  # fmt: skip
#: Without "signed", "int" after another word, and "_t".
_TYPES = {
    "char": "i1", "int8": "i1", "unsigned char": "u1", "uchar": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "unsigned short": "u2", "ushort": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "unsigned": "u4", "uint": "u4", "uint32": "u4",
    "long long": "i8", "longlong": "i8", "int64": "i8",
    "unsigned long long": "u8", "ulonglong": "u8", "uint64": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
_SECONDS = {"s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "ms": 1e-3, "msec": 1e-3}
_IN_SPACE, _OF_FRAMES = {"domain", "space", "none", "???"}, {"list", "time"}


@dataclass(frozen=True)
class _Axis:
    """An axis as the header describes it; vector: its space direction, None without one."""

    size: int
    kind: str
    vector: tuple[float, ...] | None
    spacing: str
    unit: str


def read_nrrd(
    path: Path, monitor: Monitor, scratch: Path | None = None
) -> tuple[Volume, tags.Tags]:
    """Read the volume of a NRRD file, and what our key in its header says about it.

    Args:
        path: the file; its voxels may lie in another file beside it.
        monitor: warned of an unknown place in the patient; may cancel.
        scratch: a folder for the voxels of large files, see `read_voxels`.
    Returns:
        The volume with modality OT, and the tags.
    Raises:
        InputError: damaged, not supported, or without one intensity per voxel.
        GeometryError: no valid place in the patient.
    """
    start = header_start(path)
    end = re.search(rb"\r?\n\r?\n|\Z", start)
    if not start.startswith(b"NRRD000") or end is None:
        raise InputError(
            f"{path.name} is not a NRRD file: it does not begin with a NRRD header",
            "Check that it is an image and that its name has the right ending.",
        )
    head = start[: end.start()]
    fields = fields_of(path, head, r"(?P<key>[^:#=]+): (?P<value>.*)")
    key = re.search(rb"(?m)^%s:=(.*)$" % tags.KEY.encode(), head)
    text = re.sub(rb"\\(.)", lambda match: match[1].replace(b"n", b"\n"), key[1]) if key else b""
    found = tags.from_text(text.decode("utf-8", "replace"))
    axes = _axes(path, fields)
    frames = _frame_axis(path, [axis.kind for axis in axes])
    payload = _payload(path, fields, tuple(axis.size for axis in reversed(axes)), end.end())
    if {"oldmin", "oldmax"} & fields.keys():
        monitor.warn(
            f"{path.name} is quantized (old min, old max): its numbers are taken as stored"
        )
    geometry = _geometry(
        path, fields, [axes[at] for at in range(len(axes)) if at != frames], monitor
    )
    voxels = read_voxels(payload, monitor, scratch)
    interval = None
    if frames is not None:
        voxels = np.moveaxis(voxels, len(axes) - 1 - frames, 0)
        interval = _interval(path, fields, axes[frames], found, monitor)
    volume = Volume(
        voxels,
        # NRRD keeps spacing × direction, which loses the last bit; the tags' geometry is exact.
        tags.exact_geometry(geometry, found),
        source=str(path),
        frame_interval_s=interval,
    )
    return volume, found


def _refused(path: Path, field: str, value: Any, why: str, hint: str = "") -> InputError:
    return InputError(
        f"{path.name}: {field} is {value!s:.80}, {why}", hint or "Correct the header."
    )


def _axes(path: Path, fields: dict[str, str]) -> list[_Axis]:
    sizes = fields.get("sizes", "").split()
    count = len(sizes)
    is_valid = all(re.fullmatch(r"0*[1-9]\d{,9}", size) for size in sizes)
    if count not in (3, 4) or not is_valid or fields.get("dimension") != str(count):
        raise InputError(
            f"{path.name}: dimension is {fields.get('dimension')}, sizes are {sizes[:8]}; a volume "
            "has 3 axes, or 4 with frames, none of zero size",
            "Export the volume again.",
        )

    def of_each(field: str, pattern: str, missing: str) -> list[str]:
        text = fields.get(field.replace(" ", ""))
        values = [missing] * count if text is None else re.findall(pattern, text)
        if len(values) != count:
            raise _refused(path, field, text, f"not one value for each of {count} axes")
        return values

    def vector(text: str) -> tuple[float, ...] | None:
        try:
            return None if text == "none" else tuple(map(float, text[1:-1].split(",")))
        except ValueError:
            raise _refused(path, "space directions", text, "not numbers") from None

    return [
        _Axis(int(size), kind.lower(), vector(direction), spacing, unit.strip('"'))
        for size, kind, direction, spacing, unit in zip(
            sizes,
            of_each("kinds", r"\S+", "???"),
            of_each("space directions", r"none|\([^()]*\)", "none"),
            of_each("spacings", r"\S+", "nan"),
            of_each("units", r'"[^"]*"|\S+', '""'),
            strict=True,
        )
    ]


def _frame_axis(path: Path, kinds: list[str]) -> int | None:
    """Index of the axis that holds frames; the last of four if no kind says it."""
    if not set(kinds) <= _IN_SPACE | _OF_FRAMES:
        raise InputError(
            f"{path.name}: several values per voxel (kinds: {' '.join(kinds)}): a color or vector",
            "Convert it to one intensity per voxel first.",
        )
    marked = [at for at, kind in enumerate(kinds) if kind in _OF_FRAMES]
    if not marked and len(kinds) == 4:
        marked = [3]
    if len(marked) != len(kinds) - 3:
        raise _refused(path, "kinds", " ".join(kinds), "which leaves no three axes of space")
    return marked[0] if marked else None


def _payload(path: Path, fields: dict[str, str], shape: tuple[int, ...], begin: int) -> Payload:
    name = re.sub(r"^signed | int$|_t$", "", fields.get("type", "").lower())
    if name not in _TYPES:
        raise _refused(path, "type", fields.get("type"), "not a type of numbers")
    dtype, order = np.dtype(_TYPES[name]), fields.get("endian", "").lower()
    if order not in ("little", "big") and (order or dtype.itemsize > 1):
        raise _refused(path, "endian", order or "missing", "neither little nor big")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(
            f"{path.name}: encoding {encoding!r} is not supported", "Save it as raw or gzip."
        )
    if "datafile" in fields:
        path, begin = file_beside(path, "data file", fields["datafile"]), 0
    is_packed = encoding != "raw"
    payload = Payload(path, shape, dtype.newbyteorder(">" if order == "big" else "<"), is_packed)
    skip = _whole(path, fields, "byte skip", lowest=-1)
    size = path.stat().st_size
    begin = _after_lines(path, begin, _whole(path, fields, "line skip"))
    if skip == -1:  # the voxels are the last bytes of the file
        if is_packed:
            raise _refused(path, "byte skip", skip, "which compressed voxels cannot have")
        begin, skip = max(begin, size - payload.nbytes), 0
    elif skip and skip + payload.nbytes > (size - begin) * (LARGEST_RATIO if is_packed else 1):
        raise _refused(path, "byte skip", skip, f"too much for {size - begin} bytes of data")
    return Payload(path, shape, payload.dtype, is_packed, begin, skip)


def _whole(path: Path, fields: dict[str, str], field: str, *, lowest: int = 0) -> int:
    text = fields.get(field.replace(" ", ""), "0")
    if not re.fullmatch(r"-?\d{1,18}", text) or int(text) < lowest:
        raise _refused(path, field, text, f"not a whole number from {lowest} on")
    return int(text)


def _after_lines(path: Path, begin: int, lines: int) -> int:
    """The byte of the file after so many more lines, which end within a MiB."""
    if lines:
        with readable(path) as stream:
            stream.seek(begin)
            ends = [match.end() for match in re.finditer(rb"\n", stream.read(LONGEST_HEADER))]
        if lines > len(ends):
            raise _refused(path, "line skip", lines, f"but only {len(ends)} lines follow")
        begin += ends[lines - 1]
    return begin


def _geometry(path: Path, fields: dict[str, str], axes: list[_Axis], monitor: Monitor) -> Geometry:
    """Of the three axes of space."""
    mm = unit_mm(path, _space_units(fields)[:3] + [axis.unit for axis in axes])
    vectors = [axis.vector for axis in axes]
    if vectors == [None] * 3:
        texts = [axis.spacing if "spacings" in fields else "1" for axis in axes]
        try:
            i, j, k = (float(text) * mm for text in texts)
            geometry = Geometry((i, j, k))
        except (ValueError, GeometryError):
            raise _refused(path, "spacings", " ".join(texts), "no voxel size") from None
        monitor.warn(
            f"{path.name} has no space directions: its place in the patient, and which side is "
            "left, are unknown; its axes are taken as LPS"
            + ("" if "spacings" in fields else ", and its voxels as 1 mm wide (no spacings)")
        )
        return geometry
    space = fields.get("space", "").lower()
    signs = _SPACES.get(space.removesuffix("-time" if "-" in space else "t"))
    if space and signs is None:
        raise InputError(
            f"{path.name}: space is {space!r}, which has no anatomical directions",
            "Write the header with space: left-posterior-superior.",
        )
    if signs is None or "spaceorigin" not in fields:
        what = "space, only its dimension: it is" if signs is None else "space origin: its axes are"
        monitor.warn(f"{path.name} names no {what} taken as LPS; check left, right and place")
    origin = re.findall(r"[^\s(),]+", fields.get("spaceorigin", "0 0 0"))
    try:
        columns = np.array([(*vector,)[:3] for vector in vectors if vector], np.float64).T
        begin = np.array(origin[:3], np.float64)
        if columns.shape != (3, 3) or any(any(vector[3:]) for vector in vectors if vector):
            raise ValueError
        affine = np.diag([*(signs or (1, 1, 1)), 1.0])
        affine = affine @ np.vstack([np.c_[columns, begin] * mm, [0, 0, 0, 1]])
        return Geometry.from_affine_ras(np.diag([-1.0, -1, 1, 1]) @ affine)
    except ValueError:
        raise _refused(
            path, "space directions", fields["spacedirections"], "not one in space for each axis"
        ) from None
    except GeometryError as cause:
        raise GeometryError(f"{path.name}: {cause.message}", cause.hint) from cause


def _space_units(fields: dict[str, str]) -> list[str]:
    units = re.findall(r'"[^"]*"|\S+', fields.get("spaceunits", ""))
    return [unit.strip('"') for unit in units]


def _interval(
    path: Path, fields: dict[str, str], axis: _Axis, found: tags.Tags, monitor: Monitor
) -> float | None:
    field, unit, number = "spacings", axis.unit, axis.spacing
    if axis.vector is not None:
        field, unit = "space directions", "".join(_space_units(fields)[3:4])
        if len(axis.vector) < 4 or any(axis.vector[:3]):
            raise _refused(path, field, axis.vector, "of an axis that is not in space")
        number = str(axis.vector[3])
    try:
        step = float(number)
    except ValueError:
        raise _refused(path, field, number, "not a number") from None
    seconds = None if unit in NO_UNIT else _SECONDS.get(unit.lower(), 0.0)
    return tags.frame_interval(step, seconds, found, f"{path.name}: {field} of time", monitor)

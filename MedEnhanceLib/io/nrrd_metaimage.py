"""NRRD and MetaImage: SimpleITK reads and writes the headers, `voxels` the voxels.

ITK does not check these text headers: it ignores units of length, takes an unknown space for LPS,
turns a spacing of NaN into 1, and returns garbage for a MetaImage whose compressed voxels are
damaged. It does not report encoding, byte order and the first voxel's place either. So the headers
are parsed here as well, and what ITK would misread is refused, naming the field.
"""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import GeometryError, InputError, OutputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.voxels import Payload, read_start, read_voxels, utf8_name
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_HEADER_ROOM = 1 << 16


def read_itk(path: Path, monitor: Monitor, scratch: Path | None = None) -> tuple[Volume, tags.Tags]:
    """Read the volume of a .nrrd, .mha or .mhd file, and what our key in its header says about it.

    Args:
        path: the file.
        monitor: warned of an unknown place in the patient; may cancel.
        scratch: a folder for the voxels of large files, see `read_voxels`.
    Returns:
        The volume with modality OT, and the tags.
    Raises:
        InputError: damaged, or something that ITK would misread.
        GeometryError: no valid place in the patient.
    """
    is_nrrd = path.suffix.lower() == ".nrrd"
    layout = nrrd_layout(path, monitor) if is_nrrd else meta_layout(path)
    voxels = read_voxels(layout.payload, monitor, scratch)
    if layout.frame_axis is not None:
        voxels = np.moveaxis(voxels, layout.frame_axis, 0)
    header = _read_header(path)
    key = tags.KEY if header.HasMetaDataKey(tags.KEY) else None
    found = tags.from_text(header.GetMetaData(key)) if key else tags.Tags()
    volume = Volume(
        voxels,
        _geometry(header, layout.mm, found, path.name),
        source=str(path),
        frame_interval_s=found.frame_interval_s if voxels.ndim == 4 else None,
    )
    return volume, found


def _read_header(path: Path) -> Any:
    sitk = require("SimpleITK", purpose=f"Reading {path.suffix} files")
    reader = sitk.ImageFileReader()
    # Named, because ITK does not know a .MHA in capitals.
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() == ".nrrd" else "MetaImageIO")
    try:
        with utf8_name(path) as name:
            reader.SetFileName(name)
            reader.ReadImageInformation()
    except RuntimeError as cause:
        raise InputError(
            f"{path.name}: its header cannot be read: {_last_line(cause)}", "Export it again."
        ) from cause
    return reader


def write_itk(volume: Volume, path: Path, monitor: Monitor, parts: Iterable[Voxels]) -> None:
    """Write an uncompressed .nrrd or .mha.

    Args:
        volume: shape, type, geometry and tags; its voxels are not used.
        path: the file to write to.
        monitor: may cancel between runs of slices.
        parts: the voxels, as runs of slices [n, J, I], all frames in order.
    Raises:
        OSError, OutputError: the file cannot be written.
    """
    header = _header_for(volume, path)
    with path.open("wb") as stream:
        stream.write(header)
        for part in parts:
            monitor.check()
            stream.write(np.ascontiguousarray(part, part.dtype.newbyteorder("=")).data)


def _header_for(volume: Volume, path: Path) -> bytes:
    """The header as ITK writes it for a single voxel, with the sizes of the volume put in."""
    sitk = require("SimpleITK", purpose=f"Writing {path.suffix} files")
    axes = len(volume.shape)
    one = np.zeros((1,) * axes, volume.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(one, isVector=False)
    direction = np.eye(axes)
    direction[:3, :3] = volume.geometry.direction
    image.SetSpacing([*volume.geometry.spacing, volume.frame_interval_s or 1.0][:axes])
    image.SetOrigin([*volume.geometry.origin, 0.0][:axes])
    image.SetDirection(direction.ravel().tolist())
    image.SetMetaData(tags.KEY, tags.to_text(volume))
    try:
        with utf8_name(path) as name:
            sitk.WriteImage(image, name, useCompression=False)
    except RuntimeError as cause:
        if shutil.disk_usage(path.parent).free < _HEADER_ROOM:  # ITK does not say it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from cause
        raise OutputError(f"{path.name} cannot be written: {_last_line(cause)}") from cause
    header = path.read_bytes()[: -one.nbytes]
    sizes = " ".join(map(str, volume.shape[::-1])).encode()
    header, found = re.subn(rb"(?m)^(sizes: |DimSize = )[1 ]+$", rb"\g<1>" + sizes, header, count=1)
    assert found == 1, "ITK writes no sizes"
    return header


def _geometry(header: Any, mm: float, found: tags.Tags, name: str) -> Geometry:
    axes = header.GetDimension()
    direction = np.asarray(header.GetDirection()).reshape(axes, axes)[:3, :3]
    try:
        read = Geometry(
            tuple(value * mm for value in header.GetSpacing()[:3]),
            tuple(value * mm for value in header.GetOrigin()[:3]),
            direction.tolist(),
        )
    except GeometryError as cause:
        raise GeometryError(f"{name}: {cause.message}", cause.hint) from cause
    # NRRD keeps spacing × direction, which loses the last bit; the tags' geometry is exact, and
    # counts as long as no other program changed the header.
    exact = found.geometry
    return exact if exact is not None and exact.is_close(read, 1e-12) else read


def _last_line(cause: RuntimeError) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else "SimpleITK gives no reason"


_LONGEST_HEADER = 1 << 20
_UNITS_MM = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1e3,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3,
    "nm": 1e-6,
}  # fmt: skip
_NRRD_TYPES = {
    "i1": "signed char, int8, int8_t",
    "u1": "uchar, unsigned char, uint8, uint8_t",
    "i2": "short, short int, signed short, signed short int, int16, int16_t",
    "u2": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "i4": "int, signed int, int32, int32_t",
    "u4": "uint, unsigned int, uint32, uint32_t",
    "i8": "longlong, long long, long long int, signed long long, signed long long int, int64, "
    "int64_t",
    "u8": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "f4": "float",
    "f8": "double",
}
_NRRD_NAMES = {name: kind for kind, names in _NRRD_TYPES.items() for name in names.split(", ")}
_NRRD_SPACES = {
    "left-posterior-superior", "lps", "right-anterior-superior", "ras",
    "left-anterior-superior", "las", "left-posterior-superior-time", "lpst",
}  # fmt: skip
_FRAME_KINDS = {"list", "time"}
_DOMAIN_KINDS = {"domain", "space"}
_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a header declares.

    Attributes:
        payload: where the voxels are.
        mm: millimeters in its unit of length.
        frame_axis: index of a list or time axis in the payload's shape, or None.
    """

    payload: Payload
    mm: float = 1.0
    frame_axis: int | None = None


def nrrd_layout(path: Path, monitor: Monitor) -> Layout:
    """The layout of a NRRD file; InputError if it is damaged or ITK would misread it."""
    start = read_start(path, _LONGEST_HEADER)
    end = re.search(rb"\r?\n\r?\n", start)
    if not start.startswith(b"NRRD000") or end is None:
        raise InputError(
            f"{path.name} is not a NRRD file: it does not begin with a NRRD header",
            "Check that it is an image and that its name has the right ending.",
        )
    fields = _fields(start[: end.start()], r"(?P<key>[^:#=]+): (?P<value>.*)")
    for field in ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(field, "0") != "0":
            raise InputError(
                f"{path.name}: voxels in another place ({field}: {fields[field]})",
                "Save it with header and voxels together, as one .nrrd file.",
            )
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(
            f"{path.name}: encoding {encoding!r} is not supported", "Save it as raw or gzip."
        )
    _check_space(path, fields, monitor)
    sizes = _sizes(path, "sizes", "dimension", fields)
    dtype = _dtype(path, "type", fields, _NRRD_NAMES)
    order = fields.get("endian", "").lower()
    if dtype.itemsize > 1 and order not in ("little", "big"):
        raise InputError(f"{path.name}: endian is {order!r}", "The header is damaged.")
    payload = Payload(
        path,
        sizes[::-1],
        dtype.newbyteorder(">" if order == "big" else "<"),
        "none" if encoding == "raw" else "gzip",
        begin=end.end(),
    )
    mm = _unit(path, fields.get("space units", "") + fields.get("units", ""))
    return Layout(payload, mm, _frame_axis(path, fields, sizes))


def meta_layout(path: Path) -> Layout:
    """The layout of a MetaImage (.mha, .mhd); InputError as for `nrrd_layout`."""
    start = read_start(path, _LONGEST_HEADER)
    end = re.search(rb"(?:^|\n)ElementDataFile *= *([^\r\n]*)\r?\n?", start)
    if end is None:
        raise InputError(
            f"{path.name} is not a MetaImage: ElementDataFile is missing from its header",
            "Check that it is an image and that its name has the right ending.",
        )
    fields = _fields(start[: end.start()], r"(?P<key>[^=]+?) *= *(?P<value>.*)")
    if fields.get("elementnumberofchannels", "1") != "1":
        raise InputError(
            f"{path.name}: several values per voxel (ElementNumberOfChannels): a color or vector",
            "Convert it to one intensity per voxel first.",
        )
    if not _is_true(fields.get("binarydata", "False")):
        raise InputError(f"{path.name}: BinaryData is not True", "Save it with binary voxels.")
    _positive(path, "elementspacing", fields)
    big = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", ""))
    voxel_file, begin = _meta_voxels(path, end, fields)
    payload = Payload(
        voxel_file,
        _sizes(path, "dimsize", "ndims", fields)[::-1],
        _dtype(path, "elementtype", fields, _META_TYPES).newbyteorder(
            ">" if _is_true(big) else "<"
        ),
        "zlib" if _is_true(fields.get("compresseddata", "")) else "none",
        begin=begin,
    )
    return Layout(payload, _unit(path, fields.get("distanceunits", "")))


def _fields(head: bytes, line_pattern: str) -> dict[str, str]:
    """Field in lower case → value, of every line that has both."""
    fields = {}
    for line in head.decode("utf-8", "replace").splitlines():
        match = re.fullmatch(line_pattern, line)
        if match:
            fields[match["key"].strip().lower()] = match["value"].strip()
    return fields


def _sizes(path: Path, field: str, axes: str, fields: dict[str, str]) -> tuple[int, ...]:
    text = fields.get(field, "")
    if not re.fullmatch(r"\d{1,18}(\s+\d{1,18})*", text):
        raise InputError(f"{path.name}: {field} is {text[:80]!r}", "The header is damaged.")
    sizes = tuple(int(size) for size in text.split())
    if fields.get(axes) != str(len(sizes)):
        raise InputError(
            f"{path.name}: {axes} is {fields.get(axes)}, {field} is {text}",
            "The header is damaged.",
        )
    if 0 in sizes:
        raise InputError(f"{path.name}: zero size, {field} is {text}", "Export the volume again.")
    if len(sizes) not in (3, 4):
        raise InputError(
            f"{path.name}: {field} is {text}: {len(sizes)} axes, a volume has 3 (4 with frames)",
            "Give a volume.",
        )
    return sizes


def _dtype(path: Path, field: str, fields: dict[str, str], names: dict[str, str]) -> np.dtype[Any]:
    name = fields.get(field, "")
    if name not in names:
        raise InputError(
            f"{path.name}: {field} is {name[:80]!r}, which holds no intensity here",
            "Convert it to integers or floats of up to 64 bits.",
        )
    return np.dtype(names[name])


def _unit(path: Path, text: str) -> float:
    """Millimeters in the unit of length; 1 if none is named."""
    named = set(re.findall(r'[^\s"]+', text)) - {"s", "sec", "ms", "none", "???"}
    if not named:
        return 1.0
    if len(named) > 1 or not named <= _UNITS_MM.keys():
        raise InputError(
            f"{path.name}: unknown or mixed units of length: {', '.join(sorted(named))}",
            "Write the header in mm.",
        )
    return _UNITS_MM[named.pop()]


def _frame_axis(path: Path, fields: dict[str, str], sizes: tuple[int, ...]) -> int | None:
    kinds = fields.get("kinds", "domain " * len(sizes)).lower().split()
    if len(kinds) != len(sizes):
        raise InputError(f"{path.name}: kinds and sizes disagree", "The header is damaged.")
    others = [axis for axis, kind in enumerate(kinds) if kind not in _DOMAIN_KINDS]
    if not others:
        if "none" in fields.get("space directions", ""):
            raise InputError(f"{path.name}: space directions has 'none', kinds does not say why")
        return None
    axis = others[0]
    if len(others) > 1 or kinds[axis] not in _FRAME_KINDS or len(sizes) != 4:
        raise InputError(
            f"{path.name}: several values per voxel (kinds: {fields['kinds']}): a color or vector",
            "Convert it to one intensity per voxel first.",
        )
    return len(sizes) - 1 - axis


def _check_space(path: Path, fields: dict[str, str], monitor: Monitor) -> None:
    space = fields.get("space", "").lower()
    if space and space not in _NRRD_SPACES:
        raise InputError(
            f"{path.name}: space is {space!r}, which does not say where left and front are",
            "Write the header with space: left-posterior-superior.",
        )
    if "space directions" not in fields:
        _positive(path, "spacings", fields)
        monitor.warn(
            f"{path.name} has no space directions: its place in the patient, and which side is "
            "left, are unknown; its axes are taken as LPS"
        )


def _positive(path: Path, field: str, fields: dict[str, str]) -> None:
    text = fields.get(field, "1")
    try:
        numbers = [float(number) for number in text.split()]
    except ValueError:
        numbers = [math.nan]
    if not all(number > 0 and math.isfinite(number) for number in numbers):
        raise InputError(f"{path.name}: {field} is {text[:80]!r}", "Correct the voxel size.")


def _meta_voxels(path: Path, end: re.Match[bytes], fields: dict[str, str]) -> tuple[Path, int]:
    """The file that holds the voxels, and where in it they begin."""
    if fields.get("headersize", "0") != "0":
        raise InputError(f"{path.name}: HeaderSize is not supported", "Save it as .mha.")
    target = end[1].decode("utf-8", "replace").strip()
    if target.upper() == "LOCAL":
        return path, end.end()
    if target.upper().startswith("LIST") or "%" in target or Path(target).name != target:
        raise InputError(
            f"{path.name}: ElementDataFile is {target!r}, not one file beside the header",
            "Save it as one .mha file.",
        )
    voxel_file = path.with_name(target)
    if not voxel_file.is_file():
        raise InputError(
            f"{path.name}: its voxels should be in {voxel_file}, which does not exist",
            "Copy the .mhd together with its .raw or .zraw file.",
        )
    return voxel_file, 0


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "t", "1")

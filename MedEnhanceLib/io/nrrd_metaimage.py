"""NRRD and MetaImage: SimpleITK reads and writes the headers, `voxels` reads the voxels.

ITK says shape, type and geometry, but not where the voxels begin and how they are stored. It also
ignores units of length, takes an unknown space for LPS, turns a spacing of NaN into 1, and follows
a header to any other file. So these lines of the text are read here, and what ITK would misread is
refused, naming the field.
"""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.voxels import Payload, read_start, read_voxels
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_LONGEST_HEADER = 1 << 20
_UNITS_MM = {
    "mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1e3,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "microns": 1e-3, "micrometer": 1e-3,
    "nm": 1e-6,
}  # fmt: skip
_NRRD_SPACES = {
    "left-posterior-superior", "lps", "right-anterior-superior", "ras",
    "left-anterior-superior", "las", "left-posterior-superior-time", "lpst",
}  # fmt: skip
_ELSEWHERE = ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip")
#: Of ITK's names of types: "16-bit unsigned integer".
_TYPE = r"(?:vector of )?(\d+)-bit (signed integer|unsigned integer|float)"
_KINDS = {"signed integer": "i", "unsigned integer": "u", "float": "f"}


@dataclass(frozen=True)
class _Stored:
    """What ITK does not say: the file of the voxels and where they begin, packing, order, unit.

    kinds: of a NRRD file's axes, fastest axis first.
    """

    path: Path
    begin: int
    is_packed: bool
    is_big_endian: bool
    mm: float
    kinds: tuple[str, ...] = ()


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
    stored = _nrrd_text(path, monitor) if is_nrrd else _meta_text(path)
    header = _read_header(path)
    shape, dtype, frame_axis = _layout(header, stored.kinds, path.name)
    dtype = dtype.newbyteorder(">" if stored.is_big_endian else "<")
    payload = Payload(stored.path, shape, dtype, stored.is_packed, stored.begin)
    voxels = np.moveaxis(read_voxels(payload, monitor, scratch), frame_axis, 0)
    has_tags = header.HasMetaDataKey(tags.KEY)
    found = tags.from_text(header.GetMetaData(tags.KEY)) if has_tags else tags.Tags()
    volume = Volume(
        voxels,
        _geometry(header, stored.mm, found, path.name),
        source=str(path),
        frame_interval_s=found.frame_interval_s if voxels.ndim == 4 else None,
    )
    return volume, found


def _read_header(path: Path) -> Any:
    try:
        name = str(path).encode().decode()
    except UnicodeEncodeError as cause:  # ITK would end the process
        raise InputError(f"{path}: its name is not UTF-8", "Rename it and its folders.") from cause
    sitk = require("SimpleITK", purpose=f"Reading {path.suffix} files")
    reader = sitk.ImageFileReader()
    # Named, because ITK does not know a .MHA in capitals.
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() == ".nrrd" else "MetaImageIO")
    try:
        reader.SetFileName(name)
        reader.ReadImageInformation()
    except RuntimeError as cause:
        reason = str(cause).strip().rpartition("\n")[2].strip()
        raise InputError(
            f"{path.name}: its header cannot be read: {reason}", "Export it again."
        ) from cause
    return reader


def _layout(
    header: Any, kinds: tuple[str, ...], name: str
) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape in the file, slowest axis first; type; the axis that holds frames, 0 without them."""
    import SimpleITK as sitk  # noqa: N813 - as its users write it

    sizes, kind = list(header.GetSize()), sitk.GetPixelIDValueAsString(header.GetPixelID())
    frame_axis, components = len(sizes) - 1, header.GetNumberOfComponents()
    if components > 1 and {"list", "time"} & set(kinds):  # for ITK a frame is a component
        frame_axis = next(axis for axis, text in enumerate(kinds) if text in ("list", "time"))
        sizes.insert(frame_axis, components)
        components = 1
    if components > 1 or "complex" in kind:
        raise InputError(
            f"{name}: several values per voxel ({kind}): a color or vector",
            "Convert it to one intensity per voxel first.",
        )
    if len(sizes) not in (3, 4) or 0 in sizes:
        raise InputError(
            f"{name}: sizes are {sizes}; a volume has 3 axes, or 4 with frames, none of zero size",
            "Export the volume again.",
        )
    match = re.fullmatch(_TYPE, kind)
    if match is None:
        raise InputError(f"{name}: voxels of type {kind}", "Convert it to integers or floats.")
    dtype = np.dtype(f"{_KINDS[match[2]]}{int(match[1]) // 8}")
    return tuple(sizes[::-1]), dtype, len(sizes) - 1 - frame_axis


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


def _nrrd_text(path: Path, monitor: Monitor) -> _Stored:
    start, _ = read_start(path, _LONGEST_HEADER)
    end = re.search(rb"\r?\n\r?\n", start)
    if not start.startswith(b"NRRD000") or end is None:
        raise InputError(
            f"{path.name} is not a NRRD file: it does not begin with a NRRD header",
            "Check that it is an image and that its name has the right ending.",
        )
    fields = _fields(start[: end.start()], r"(?P<key>[^:#=]+): (?P<value>.*)")
    for field in _ELSEWHERE:
        if fields.get(field, "0") != "0":
            raise InputError(
                f"{path.name}: its voxels are in another file ({field}: {fields[field]})",
                "Save it with header and voxels together, as one .nrrd file.",
            )
    encoding, order = fields.get("encoding", "").lower(), fields.get("endian", "little").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise InputError(
            f"{path.name}: encoding {encoding!r} is not supported", "Save it as raw or gzip."
        )
    space = fields.get("space", "").lower()
    if space and space not in _NRRD_SPACES:
        raise InputError(
            f"{path.name}: space is {space!r}, which has no anatomical directions",
            "Write the header with space: left-posterior-superior.",
        )
    if "space directions" not in fields:
        _positive(path, "spacings", fields)
        monitor.warn(
            f"{path.name} has no space directions: its place in the patient, and which side is "
            "left, are unknown; its axes are taken as LPS"
        )
    mm = _unit(path, fields.get("space units", "") + fields.get("units", ""))
    kinds = tuple(fields.get("kinds", "").lower().split())
    return _Stored(path, end.end(), encoding != "raw", order == "big", mm, kinds)


def _meta_text(path: Path) -> _Stored:
    start, _ = read_start(path, _LONGEST_HEADER)
    end = re.search(rb"(?:^|\n)ElementDataFile *= *([^\r\n]*)\r?\n?", start)
    if end is None:
        raise InputError(
            f"{path.name} is not a MetaImage: ElementDataFile is missing from its header",
            "Check that it is an image and that its name has the right ending.",
        )
    fields = _fields(start[: end.start()], r"(?P<key>[^=]+?) *= *(?P<value>.*)")
    if not _is_true(fields.get("binarydata", "")) or fields.get("headersize", "0") != "0":
        raise InputError(
            f"{path.name}: BinaryData is not True, or there is a HeaderSize", "Save it as .mha."
        )
    _positive(path, "elementspacing", fields)
    voxel_file, begin = path, end.end()
    target = end[1].decode("utf-8", "replace").strip()
    if target.upper() != "LOCAL":
        voxel_file, begin = path.parent / Path(target).name, 0
        if target != voxel_file.name or not voxel_file.is_file():
            raise InputError(
                f"{path.name}: ElementDataFile is {target!r}, which is not beside it",
                "Copy the .mhd together with its .raw or .zraw file, or save it as .mha.",
            )
    order = fields.get("binarydatabyteordermsb", fields.get("elementbyteordermsb", ""))
    is_packed = _is_true(fields.get("compresseddata", ""))
    mm = _unit(path, fields.get("distanceunits", ""))
    return _Stored(voxel_file, begin, is_packed, _is_true(order), mm)


def _fields(head: bytes, line_pattern: str) -> dict[str, str]:
    """Field in lower case → value, of every line that has both."""
    lines = head.decode("utf-8", "replace").splitlines()
    matches = [match for line in lines if (match := re.fullmatch(line_pattern, line))]
    return {match["key"].strip().lower(): match["value"].strip() for match in matches}


def _unit(path: Path, text: str) -> float:
    """Millimeters in the unit of length; 1 if none is named."""
    units = set(re.findall(r'[^\s"]+', text)) - {"s", "sec", "ms", "none", "???"}
    if not units:
        return 1.0
    if len(units) > 1 or not units <= _UNITS_MM.keys():
        raise InputError(
            f"{path.name}: unknown or mixed units of length: {', '.join(sorted(units))}",
            "Write the header in mm.",
        )
    return _UNITS_MM[units.pop()]


def _positive(path: Path, field: str, fields: dict[str, str]) -> None:
    text = fields.get(field, "1")
    try:
        is_valid = all(0 < float(number) < math.inf for number in text.split())
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InputError(f"{path.name}: {field} is {text[:80]!r}", "Correct the voxel size.")


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "t", "1")


def itk_header(volume: Volume, dtype: np.dtype[Any], ending: str) -> bytes:
    """The header of an uncompressed .nrrd or .mha, as little-endian voxels follow it.

    ITK writes it for a single voxel; then the sizes of the volume are put in.
    """
    sitk = require("SimpleITK", purpose=f"Writing {ending} files")
    axes = len(volume.shape)
    voxel = np.zeros((1,) * axes, dtype)
    image = sitk.GetImageFromArray(voxel, isVector=False)
    direction = np.eye(axes)
    direction[:3, :3] = volume.geometry.direction
    image.SetSpacing([*volume.geometry.spacing, volume.frame_interval_s or 1.0][:axes])
    image.SetOrigin([*volume.geometry.origin, 0.0][:axes])
    image.SetDirection(direction.ravel().tolist())
    image.SetMetaData(tags.KEY, tags.to_text(volume))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"voxel{ending}")
        sitk.WriteImage(image, str(path), useCompression=False)
        header = path.read_bytes()[: -voxel.nbytes]
    sizes = " ".join(map(str, volume.shape[::-1])).encode()
    return re.sub(rb"(?m)^(sizes: |DimSize = )[1 ]+$", rb"\g<1>" + sizes, header, count=1)

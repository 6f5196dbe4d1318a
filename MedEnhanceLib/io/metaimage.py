"""MetaImage read, MetaImage and NRRD written: headers by SimpleITK, voxels by `voxels`.

ITK says shape and type, but not where the voxels begin and how they are stored. It also ignores
units of length and the slope of intensities, turns a spacing of NaN into 1 and such an offset into
0, and follows a header to any other file. So these lines of the text are read here, and what ITK
would misread is refused, naming the field.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.header_lines import (
    fields_of,
    file_beside,
    header_start,
    unit_mm,
)
from MedEnhanceLib.io.voxels import Payload, read_voxels, rescale
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

#: Of ITK's names of types: "16-bit unsigned integer".
_TYPE = r"(\d+)-bit (signed integer|unsigned integer|float)"
_KINDS = {"signed integer": "i", "unsigned integer": "u", "float": "f"}
#: Names of one field each; the first is the usual one.
_SPACING = ("ElementSpacing", "ElementSize")
_ORIGIN = ("Offset", "Position", "Origin")
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")


def read_metaimage(
    path: Path, monitor: Monitor, scratch: Path | None = None
) -> tuple[Volume, tags.Tags]:
    """Read the volume of a .mha or .mhd file, and what our key in its header says about it.

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
    start = header_start(path)
    end = re.search(rb"(?:^|\n)ElementDataFile *= *([^\r\n]*)\r?\n?", start)
    if end is None:
        raise InputError(
            f"{path.name} is not a MetaImage: ElementDataFile is missing from its header",
            "Check that it is an image and that its name has the right ending.",
        )
    fields = fields_of(path, start[: end.start()], r"(?P<key>[^=]+?) *= *(?P<value>.*)")
    header = _read_header(path)
    shape, dtype = _layout(header, path.name)
    slope = _numbers(path, fields, ("ElementToIntensityFunctionSlope",), 1) or [1.0]
    intercept = _numbers(path, fields, ("ElementToIntensityFunctionOffset",), 1) or [0.0]
    if slope == [0.0]:
        raise InputError(
            f"{path.name}: ElementToIntensityFunctionSlope is 0", "Correct the header."
        )
    geometry = _geometry(path, fields, len(shape), monitor)
    payload = _payload(path, fields, end, shape, dtype)
    voxels = rescale(read_voxels(payload, monitor, scratch), slope[0], intercept[0])
    has_tags = header.HasMetaDataKey(tags.KEY)
    found = tags.from_text(header.GetMetaData(tags.KEY)) if has_tags else tags.Tags()
    interval, steps = None, _numbers(path, fields, _SPACING, len(shape))
    if len(shape) == 4 and steps:
        field = f"{path.name}: the fourth ElementSpacing"
        interval = tags.frame_interval(steps[3], None, found, field, monitor)
    geometry = tags.exact_geometry(geometry, found)
    return Volume(voxels, geometry, source=str(path), frame_interval_s=interval), found


def _read_header(path: Path) -> Any:
    try:
        name = str(path).encode().decode()
    except UnicodeEncodeError as cause:  # ITK would end the process
        raise InputError(f"{path}: its name is not UTF-8", "Rename it and its folders.") from cause
    sitk = require("SimpleITK", purpose=f"Reading {path.suffix} files")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("MetaImageIO")  # because ITK does not know a .MHA in capitals
    try:
        reader.SetFileName(name)
        reader.ReadImageInformation()
    except RuntimeError as cause:
        reason = str(cause).strip().rpartition("\n")[2].strip()
        raise InputError(
            f"{path.name}: its header cannot be read: {reason}", "Export it again."
        ) from cause
    return reader


def _layout(header: Any, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape in the file, slowest axis first, and type."""
    import SimpleITK as sitk  # noqa: N813 - as its users write it

    sizes, kind = list(header.GetSize()), sitk.GetPixelIDValueAsString(header.GetPixelID())
    components = header.GetNumberOfComponents()
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
    return tuple(sizes[::-1]), np.dtype(f"{_KINDS[match[2]]}{int(match[1]) // 8}")


def _geometry(path: Path, fields: dict[str, str], axes: int, monitor: Monitor) -> Geometry:
    """From the text: ITK takes what it cannot read, such as an offset of NaN, for 0."""
    spacing = _numbers(path, fields, _SPACING, axes)
    origin = _numbers(path, fields, _ORIGIN, axes)
    direction = _numbers(path, fields, _DIRECTION, axes * axes)
    if spacing is None:
        monitor.warn(f"{path.name} has no ElementSpacing: its voxels are taken as 1 mm wide")
    elif min(spacing) <= 0:
        raise InputError(f"{path.name}: ElementSpacing is {spacing}", "Correct the voxel size.")
    if origin is None or direction is None:
        monitor.warn(
            f"{path.name} lacks {'Offset' if direction else 'TransformMatrix'}: its place in the "
            "patient, or which side is left, is unknown; its axes are taken as LPS"
        )
    mm = unit_mm(path, fields.get("distanceunits", "").split())
    columns = np.eye(axes) if direction is None else np.reshape(direction, (axes, axes)).T
    try:
        return Geometry(
            tuple(value * mm for value in (spacing or [1.0] * axes)[:3]),
            tuple(value * mm for value in (origin or [0.0] * axes)[:3]),
            columns[:3, :3].tolist(),
        )
    except GeometryError as cause:
        raise GeometryError(f"{path.name}: {cause.message}", cause.hint) from cause


def _numbers(
    path: Path, fields: dict[str, str], names: tuple[str, ...], count: int
) -> list[float] | None:
    """The numbers of a field that has several names; None if it is missing."""
    given = {name: fields[name.lower()] for name in names if name.lower() in fields}
    if not given:
        return None
    (name, text), *others = given.items()
    if names != _SPACING and any(other.split() != text.split() for _, other in others):
        raise InputError(f"{path.name}: {' and '.join(given)} contradict", "Correct the header.")
    try:
        numbers = [float(number) for number in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise InputError(
            f"{path.name}: {name} is {text[:80]!r}, not {count} numbers", "Correct the header."
        )
    return numbers


def _payload(
    path: Path,
    fields: dict[str, str],
    end: re.Match[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> Payload:
    if not _is_true(fields.get("binarydata", "")) or fields.get("headersize", "0") != "0":
        raise InputError(
            f"{path.name}: BinaryData is not True, or there is a HeaderSize", "Save it as .mha."
        )
    voxel_file, begin = path, end.end()
    target = end[1].decode("utf-8", "replace").strip()
    if target.upper() != "LOCAL":
        voxel_file, begin = file_beside(path, "ElementDataFile", target), 0
    names = ("binarydatabyteordermsb", "elementbyteordermsb")
    orders = {_is_true(fields[name]) for name in names if name in fields}
    if len(orders) > 1:
        raise InputError(
            f"{path.name}: BinaryDataByteOrderMSB and ElementByteOrderMSB contradict",
            "Correct the header.",
        )
    is_packed = _is_true(fields.get("compresseddata", ""))
    dtype = dtype.newbyteorder(">" if True in orders else "<")
    return Payload(voxel_file, shape, dtype, is_packed, begin)


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
    # ITK leaves the space of four axes without a name, and the interval without its unit.
    unit = "s" if volume.frame_interval_s else ""
    space = f'space: left-posterior-superior-time\nspace units: "mm" "mm" "mm" "{unit}"'
    header = header.replace(b"\nspace dimension: 4\n", f"\n{space}\n".encode(), 1)
    sizes = " ".join(map(str, volume.shape[::-1])).encode()
    return re.sub(rb"(?m)^(sizes: |DimSize = )[1 ]+$", rb"\g<1>" + sizes, header, count=1)

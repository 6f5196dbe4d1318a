"""MetaImage read by its definition; MetaImage and NRRD written, with headers by SimpleITK.

ITK is not used to read: it ignores units of length and the slope of intensities, takes an offset of
NaN for 0, and follows a header to any other file.
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
    refused,
    shape_of,
    unit_mm,
)
from MedEnhanceLib.io.voxels import Payload, read_voxels, rescale
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
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
    slope = _numbers(path, fields, ("ElementToIntensityFunctionSlope",), 1) or [1.0]
    intercept = _numbers(path, fields, ("ElementToIntensityFunctionOffset",), 1) or [0.0]
    if slope == [0.0]:
        raise refused(path, "ElementToIntensityFunctionSlope", 0, "all voxels would be equal")
    payload = _payload(path, fields, end)
    axes = len(payload.shape)
    geometry = _geometry(path, fields, axes, monitor)
    voxels = rescale(read_voxels(payload, monitor, scratch), slope[0], intercept[0])
    found = tags.from_text(fields.get(tags.KEY.lower(), ""))
    interval, steps = None, _numbers(path, fields, _SPACING, axes)
    if axes == 4 and steps:
        field = f"{path.name}: the fourth ElementSpacing"
        interval = tags.frame_interval(steps[3], None, found, field, monitor)
    geometry = tags.exact_geometry(geometry, found)
    return Volume(voxels, geometry, source=str(path), frame_interval_s=interval), found


def _geometry(path: Path, fields: dict[str, str], axes: int, monitor: Monitor) -> Geometry:
    """From the text: ITK takes what it cannot read, such as an offset of NaN, for 0."""
    spacing = _numbers(path, fields, _SPACING, axes)
    origin = _numbers(path, fields, _ORIGIN, axes)
    direction = _numbers(path, fields, _DIRECTION, axes * axes)
    if spacing is None:
        monitor.warn(f"{path.name} has no ElementSpacing: its voxels are taken as 1 mm wide")
    elif min(spacing) <= 0:
        raise refused(path, "ElementSpacing", spacing, "no voxel size")
    if origin is None or direction is None:
        monitor.warn(
            f"{path.name} lacks {'Offset' if direction else 'TransformMatrix'}: its place in the "
            "patient, or which side is left, is unknown; its axes are taken as LPS"
        )
    mm = unit_mm(path, fields.get("distanceunits", "").split())
    columns = np.eye(axes) if direction is None else np.reshape(direction, (axes, axes)).T
    try:
        return Geometry(
            tuple((np.array(spacing or [1.0] * axes) * mm).tolist()[:3]),
            tuple((np.array(origin or [0.0] * axes) * mm).tolist()[:3]),
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
        raise refused(path, " and ".join(given), list(given.values()), "they contradict")
    try:
        numbers = [float(number) for number in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise refused(path, name, text, f"not {count} numbers")
    return numbers


def _payload(path: Path, fields: dict[str, str], end: re.Match[bytes]) -> Payload:
    shape = shape_of(path, "DimSize", fields.get("dimsize", ""), fields.get("ndims", ""))
    kind, channels = fields.get("elementtype", ""), fields.get("elementnumberofchannels", "1")
    if channels != "1":
        why = "several values per voxel, a color or vector"
        raise refused(path, "ElementNumberOfChannels", channels, why)
    if kind not in _TYPES:
        raise refused(path, "ElementType", kind, "not a type of numbers")
    if not _is_true(fields.get("binarydata", "")) or fields.get("headersize", "0") != "0":
        raise InputError(
            f"{path.name}: BinaryData is not True, or there is a HeaderSize", "Save it as .mha."
        )
    names = ("binarydatabyteordermsb", "elementbyteordermsb")
    orders = {_is_true(fields[name]) for name in names if name in fields}
    if len(orders) > 1:
        raise refused(path, "ElementByteOrderMSB", fields[names[1]], "BinaryData… contradicts it")
    voxel_file, begin = path, end.end()
    target = end[1].decode("utf-8", "replace").strip()
    if target.upper() != "LOCAL":
        voxel_file, begin = file_beside(path, "ElementDataFile", target), 0
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if True in orders else "<")
    return Payload(voxel_file, shape, dtype, _is_true(fields.get("compresseddata", "")), begin)


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

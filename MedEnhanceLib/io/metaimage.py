"""Reading of MetaImage by its definition.

ITK is not used to read: it ignores units of length and the slope of intensities, takes an offset of
NaN for 0, and follows a header to any other file.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.header_lines import TextHeader, header_start
from MedEnhanceLib.io.voxels import Payload, read_voxels, rescale
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
    """Read the volume of a .mha or .mhd file, and the tags in its header.

    Args:
        path: the header, or the file that holds header and voxels.
        monitor: as in `read_nifti`.
        scratch: likewise.
    Results and errors are those of `read_nifti`.
    """
    start = header_start(path)
    end = re.search(rb"(?:^|\n)ElementDataFile *= *([^\r\n]*)\r?\n?", start)
    if end is None:
        raise InputError(
            f"{path.name} is not a MetaImage: ElementDataFile is missing from its header",
            "Check that it is an image and that its name has the right ending.",
        )
    header = TextHeader.parse(path, start[: end.start()], r"(?P<key>[^=]+?) *= *(?P<value>.*)")
    slope = _numbers(header, ("ElementToIntensityFunctionSlope",), 1) or [1.0]
    intercept = _numbers(header, ("ElementToIntensityFunctionOffset",), 1) or [0.0]
    if slope == [0.0]:
        raise header.refused("ElementToIntensityFunctionSlope", 0, "all voxels would be equal")
    payload = _payload(header, end)
    axes = len(payload.shape)
    geometry = _geometry(header, axes, monitor)
    voxels = rescale(read_voxels(payload, monitor, scratch), slope[0], intercept[0])
    facts = tags.from_text(header.get(tags.KEY))
    interval, steps = None, _numbers(header, _SPACING, axes)
    if axes == 4 and steps:
        field = f"{path.name}: the fourth ElementSpacing"
        interval = tags.frame_interval(steps[3], None, facts, field, monitor)
    geometry = tags.exact_geometry(geometry, facts)
    return Volume(voxels, geometry, source=str(path), frame_interval_s=interval), facts


def _geometry(header: TextHeader, axes: int, monitor: Monitor) -> Geometry:
    spacing = _numbers(header, _SPACING, axes)
    origin = _numbers(header, _ORIGIN, axes)
    direction = _numbers(header, _DIRECTION, axes * axes)
    name = header.path.name
    if spacing is None:
        monitor.warn(f"{name} has no ElementSpacing: its voxels are taken as 1 mm wide")
    elif min(spacing) <= 0:
        raise header.refused("ElementSpacing", spacing, "no voxel size")
    if origin is None or direction is None:
        monitor.warn(
            f"{name} lacks {'Offset' if direction else 'TransformMatrix'}: its place in the "
            "patient, or which side is left, is unknown; its axes are taken as LPS"
        )
    mm = header.unit_mm(header.get("DistanceUnits").split())
    columns = np.eye(axes) if direction is None else np.reshape(direction, (axes, axes)).T
    try:
        return Geometry(
            tuple((np.array(spacing or [1.0] * axes) * mm).tolist()[:3]),
            tuple((np.array(origin or [0.0] * axes) * mm).tolist()[:3]),
            columns[:3, :3].tolist(),
        )
    except GeometryError as cause:
        raise GeometryError(f"{name}: {cause.message}", cause.hint) from cause


def _numbers(header: TextHeader, names: tuple[str, ...], count: int) -> list[float] | None:
    """Return the numbers of a field that has several names; None if it is missing."""
    texts = {name: header.get(name) for name in names if name.lower() in header.fields}
    if not texts:
        return None
    (name, text), *others = texts.items()
    if names != _SPACING and any(other.split() != text.split() for _, other in others):
        raise header.refused(" and ".join(texts), list(texts.values()), "they contradict")
    try:
        numbers = [float(number) for number in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise header.refused(name, text, f"not {count} numbers")
    return numbers


def _payload(header: TextHeader, end: re.Match[bytes]) -> Payload:
    shape = header.shape("DimSize", header.get("NDims"))
    kind, channels = header.get("ElementType"), header.get("ElementNumberOfChannels", "1")
    if channels != "1":
        why = "several values per voxel, a color or vector"
        raise header.refused("ElementNumberOfChannels", channels, why)
    if kind not in _TYPES:
        raise header.refused("ElementType", kind, "not a type of numbers")
    if not _is_true(header.get("BinaryData")) or header.get("HeaderSize", "0") != "0":
        fault = f"{header.path.name}: BinaryData is not True, or there is a HeaderSize"
        raise InputError(fault, "Save it as .mha.")
    orders = [header.get(f"{prefix}ByteOrderMSB") for prefix in ("BinaryData", "Element")]
    is_big = {_is_true(order) for order in orders if order}
    if len(is_big) > 1:
        raise header.refused("ElementByteOrderMSB", orders[1], "BinaryData… contradicts it")
    voxel_file, begin = header.path, end.end()
    target = end[1].decode("utf-8", "replace").strip()
    if target.upper() != "LOCAL":
        voxel_file, begin = header.file_beside("ElementDataFile", target), 0
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if True in is_big else "<")
    return Payload(voxel_file, shape, dtype, _is_true(header.get("CompressedData")), begin)


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "t", "1")

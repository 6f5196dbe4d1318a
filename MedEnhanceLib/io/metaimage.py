"""Reading of MetaImage by its definition.

ITK is not used to read: it takes an offset of NaN for 0, and follows a header to any other file.
Fields that it ignores, such as a unit of length or a slope of intensities, are refused.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.core.volume import MODALITIES, Volume
from MedEnhanceLib.errors import GeometryError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.header_lines import TextHeader, header_start, warn_of_lost
from MedEnhanceLib.io.voxels import Payload, read_voxels
from MedEnhanceLib.runtime.progress import Monitor

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
#: Fields that may be missing, but for the first, or have one of these values.
_ONLY = {
    "BinaryData": ("true", "t", "1"), "HeaderSize": ("0",), "DistanceUnits": ("mm", "?", "???"),
    "ElementToIntensityFunctionSlope": ("1",), "ElementToIntensityFunctionOffset": ("0",),
}  # fmt: skip
#: Other words for a modality, after MET_MOD_; UNKNOWN states none.
_MODALITIES = {"NM": "OT", "US": "OT", "OTHER": "OT", "PET": "PT", "MRI": "MR"}
#: Fields that are read, or that follow from the voxels and their place.
_KEPT = (
    "ObjectType|ObjectSubType|NDims|DimSize|Binary.*|HeaderSize|DistanceUnits|Element.*|Compress.*|"
    "Offset|Position|Origin|TransformMatrix|Rotation|Orientation|AnatomicalOrientation|ID|ParentID|"
    f"CenterOfRotation|Modality|{tags.KEY}|ITK_.*"
)
#: Names of one field each; the first that is there counts, as for ITK.
_SPACING = ("ElementSpacing", "ElementSize")
_ORIGIN = ("Offset", "Position", "Origin")
_DIRECTION = ("TransformMatrix", "Rotation", "Orientation")


def read_metaimage(path: Path, monitor: Monitor, scratch: Path | None) -> tuple[Volume, tags.Tags]:
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
    payload = _payload(header, end)
    axes = len(payload.shape)
    geometry = _geometry(header, axes, monitor)
    voxels = read_voxels(payload, monitor, scratch)
    warn_of_lost(path, start[: end.start()], _KEPT, monitor)
    facts = tags.from_text(header.get(tags.KEY))
    if facts.modality is None:
        word = header.get("Modality").upper().removeprefix("MET_MOD_")
        stated = _MODALITIES.get(word, word)
        if stated in MODALITIES:
            facts = replace(facts, modality=stated, units=profile_of(stated).units)
        elif word not in ("", "UNKNOWN"):
            monitor.warn(f"{path.name}: Modality is {word!r:.40}, which is unknown")
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
    columns = np.eye(axes) if direction is None else np.reshape(direction, (axes, axes)).T
    (x, y, z), (i, j, k) = (origin or [0.0] * axes)[:3], (spacing or [1.0] * axes)[:3]
    try:
        return Geometry((i, j, k), (x, y, z), columns[:3, :3].tolist())
    except GeometryError as cause:
        raise GeometryError(f"{name}: {cause.message}", cause.hint) from cause


def _numbers(header: TextHeader, names: tuple[str, ...], count: int) -> list[float] | None:
    """Return the numbers of a field that has several names; None if it is missing."""
    name = next((name for name in names if header.get(name)), None)
    if name is None:
        return None
    text = header.get(name)
    try:
        numbers = [float(number) for number in text.split()]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise header.refused(name, text, f"not {count} numbers")
    return numbers


def _payload(header: TextHeader, end: re.Match[bytes]) -> Payload:
    shape = header.shape("DimSize", header.get("NDims"))
    if (channels := header.get("ElementNumberOfChannels", "1")) != "1":
        why = "several values per voxel, a color or vector"
        raise header.refused("ElementNumberOfChannels", channels, why)
    for field, allowed in _ONLY.items():
        value = header.get(field)
        if (value or field == "BinaryData") and value.lower() not in allowed:
            raise header.refused(field, value or "missing", f"only {allowed[0]} is read")
    kind = header.get("ElementType")
    if kind not in _TYPES:
        raise header.refused("ElementType", kind, "not a type of numbers")
    order = header.get("BinaryDataByteOrderMSB") or header.get("ElementByteOrderMSB")
    voxel_file, begin = header.path, end.end()
    target = end[1].decode("utf-8", "replace").strip()
    if target.upper() != "LOCAL":
        voxel_file, begin = header.file_beside("ElementDataFile", target), 0
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if _is_true(order) else "<")
    return Payload(voxel_file, shape, dtype, _is_true(header.get("CompressedData")), begin)


def _is_true(text: str) -> bool:
    return text.lower() in ("true", "t", "1")

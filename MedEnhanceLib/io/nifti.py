"""NIfTI-1 and NIfTI-2 (.nii, .nii.gz): headers through nibabel, voxels as of every other format.

What nibabel does not do as our tests need it stays here, each with its reason where it stands:
voxels are read by `voxels.read_voxels` (nibabel holds a .nii.gz twice in memory, and does not reach
its checksum), contradictions of a header are refused by name (nibabel repairs some and raises its
own errors for others), and extensions are walked through one by one (one that nibabel cannot read
would hide ours). ITK is not used: it fills a file that is cut short with zeros, and reports success
on a full disk (see docs/decisions/0007-verified-reading.md).
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import GeometryError, InputError, OutputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.voxels import (
    Payload,
    compression_of,
    read_start,
    read_voxels,
    rescale_slices,
)
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_UNREADABLE_TYPES = {1: "one bit", 32: "complex", 1536: "128-bit float", 1792: "complex"}
_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
_COMMENT = 6  # the code of a header extension that holds text
_LARGEST_EXTENSION = 1 << 20
_SCANNER = 1
_GZIP_LEVEL = 4  # on CT within 1 % of level 6, three times as fast
_LPS = np.diag([-1.0, -1.0, 1.0])


def read_nifti(
    path: Path, monitor: Monitor, scratch: Path | None = None
) -> tuple[Volume, tags.Tags]:
    """Read the volume of a NIfTI file, and what its header extension says about it.

    Args:
        path: the file; its first bytes decide whether it is compressed, not its name.
        monitor: warned of an unknown or contradictory place in the patient; may cancel.
        scratch: a folder for the voxels of large files, see `read_voxels`.

    Returns:
        The volume with modality OT, and the tags.

    Raises:
        InputError: not a NIfTI file, damaged, or without one intensity per voxel.
        GeometryError: no valid place in the patient.
    """
    name = path.name
    compression = compression_of(path)
    start = read_start(path, _LARGEST_EXTENSION, compression)
    header = _header(start, name)
    shape, skip = _shape(header, name), _first_voxel(header, name)
    payload = Payload(path, shape, _dtype(header, name), compression, skip=skip)
    voxels = read_voxels(payload, monitor, scratch)
    found = _extension(start[:skip], header)
    volume = Volume(
        _rescaled(voxels, header, name),
        _geometry(header, found, name, monitor),
        source=str(path),
        frame_interval_s=_interval(header, found) if len(shape) == 4 else None,
    )
    return volume, found


def write_nifti(volume: Volume, path: Path, monitor: Monitor, parts: Iterable[Voxels]) -> None:
    """Write NIfTI-1, compressed where the name ends in .gz; sform and qform hold the geometry.

    Args:
        volume: shape, type, geometry and tags; its voxels are not used.
        path: the file to write to.
        monitor: may cancel between slices.
        parts: the voxels, as runs of slices [n, J, I], all frames in order.

    Raises:
        OutputError: a side longer than 32767 voxels, or a type that NIfTI does not have.
    """
    header = _header_for(volume)
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time inside: the same volume gives the same bytes.
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                _write(parts, header, packed, monitor)
        else:
            _write(parts, header, file, monitor)


def _write(
    parts: Iterable[Voxels], header: Any, stream: BinaryIO | gzip.GzipFile, monitor: Monitor
) -> None:
    header.write_to(stream)
    for part in parts:
        for one in part:
            monitor.check()
            stream.write(one.astype(one.dtype.newbyteorder("<"), copy=False).tobytes())


def _header(start: bytes, name: str) -> Any:
    """The header of either version as nibabel reads it, unchecked.

    nibabel's own checks repair what they find (a negative pixdim, a vox_offset) and only log it.
    """
    nib = require("nibabel", purpose="Reading NIfTI")
    order = "<" if start[:1] != b"\0" else ">"  # sizeof_hdr is 348 or 540, in four bytes
    is_second = start[:4] == np.array(540, order + "i4").tobytes()
    kind, version = (nib.Nifti2Header, 2) if is_second else (nib.Nifti1Header, 1)
    if len(start) < kind.sizeof_hdr:
        raise InputError(
            f"{name} is not a NIfTI file: it holds {len(start)} bytes, the header of "
            f"NIfTI-{version} needs {kind.sizeof_hdr}",
            "Check that it is an image, and that it was copied completely.",
        )
    header = kind(start[: kind.sizeof_hdr], endianness=order, check=False)
    magic = header["magic"].item()
    if header["sizeof_hdr"] != kind.sizeof_hdr or magic not in (kind.single_magic, kind.pair_magic):
        raise InputError(
            f"{name} is not a NIfTI file: sizeof_hdr and magic are missing from its header",
            "Check that it is an image and that its name has the right ending.",
        )
    if magic == kind.pair_magic:
        raise InputError(
            f"{name} is the header of a .hdr/.img pair", "Save it as one file, .nii or .nii.gz."
        )
    return header


def _shape(header: Any, name: str) -> tuple[int, ...]:
    axes = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if not 1 <= axes <= 7 or any(size < 0 for size in sizes):
        raise InputError(f"{name}: dim is {header['dim'].tolist()}", "The header is damaged.")
    if 0 in sizes:
        raise InputError(f"{name}: zero size, dim is {sizes}", "Export the volume again.")
    while len(sizes) > 4 and sizes[-1] == 1:
        sizes.pop()
    if len(sizes) > 4:
        raise InputError(
            f"{name}: dim is {sizes}: several values per voxel (a vector, a tensor, a color)",
            "Give a volume with one intensity per voxel.",
        )
    if len(sizes) < 3:
        raise InputError(f"{name}: dim is {sizes}: a picture, not a volume", "Give 3 or 4 axes.")
    return tuple(reversed(sizes))


def _dtype(header: Any, name: str) -> np.dtype[Any]:
    from nibabel.nifti1 import data_type_codes

    code = int(header["datatype"])
    kinds: Any = data_type_codes.dtype
    dtype: np.dtype[Any] = np.dtype(kinds.get(code, "V1")).newbyteorder(header.endianness)
    if dtype.fields:
        raise InputError(
            f"{name}: color voxels (datatype {data_type_codes.label[code]})",
            "Convert it to gray levels first.",
        )
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = _UNREADABLE_TYPES.get(code, f"unknown code {code}")
        raise InputError(
            f"{name}: voxels of a type that holds no intensity here (datatype: {what})",
            "Convert it to integers or floats of up to 64 bits.",
        )
    return dtype


def _first_voxel(header: Any, name: str) -> int:
    offset = float(header["vox_offset"])
    if not (offset.is_integer() and header.single_vox_offset <= offset < 2**31):
        raise InputError(
            f"{name}: vox_offset is {offset:g}, which is no place for voxels",
            "The header is damaged: export the volume again.",
        )
    return int(offset)


def _rescaled(voxels: Voxels, header: Any, name: str) -> Voxels:
    """In the smallest type that holds every value; nibabel would always give float64."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):  # "not set", by the standard
        return voxels
    if slope == 1 and intercept == 0:
        return voxels
    if not np.isfinite(intercept):
        raise InputError(
            f"{name}: scl_inter is {intercept} beside scl_slope {slope:g}", "Correct the header."
        )
    slices = list(voxels.reshape(-1, *voxels.shape[-2:]))
    count = len(slices)
    return rescale_slices(slices, [slope] * count, [intercept] * count).reshape(voxels.shape)


def _geometry(header: Any, found: tags.Tags, name: str, monitor: Monitor) -> Geometry:
    code = int(header["xyzt_units"]) & 7
    if code not in _MM:
        raise GeometryError(f"{name}: unknown unit of length {code} in xyzt_units", "Correct it.")
    pixdim = header["pixdim"][1:4].astype(np.float64)
    if header["sform_code"] > 0:
        field, affine = "sform", header.get_sform()
        if header["qform_code"] > 0 and not _agree(header, affine, pixdim):
            monitor.warn(f"{name}: sform and qform place the volume differently; the sform is used")
    elif header["qform_code"] > 0:
        field, affine = "qform", _qform(header, name)
    else:
        field, affine = "pixdim", np.diag([*(_LPS @ pixdim), 1.0])
        monitor.warn(
            f"{name} has neither sform nor qform: its place in the patient, and which side is "
            "left, are unknown; its axes are taken as LPS"
        )
    affine[:3] *= _MM[code]
    try:
        geometry = Geometry.from_affine_ras(affine)
    except GeometryError as cause:
        raise GeometryError(f"{name}: {field}: {cause.message}", cause.hint) from cause
    exact = found.geometry
    if exact is None:
        return geometry
    with np.errstate(over="ignore"):  # of damaged headers
        # The extension's geometry counts only while the header, in float32, still says the same.
        is_same = np.array_equal(np.float32(exact.affine_ras), np.float32(affine))
    return exact if is_same else geometry


def _qform(header: Any, name: str) -> npt.NDArray[np.float64]:
    from nibabel.spatialimages import HeaderDataError

    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # 0 counts as 1, by the standard
    try:
        affine: npt.NDArray[np.float64] = header.get_qform()
    except (HeaderDataError, ValueError) as cause:
        raise GeometryError(f"{name}: qform: {cause}", "Correct the header.") from cause
    return affine


def _agree(header: Any, sform: npt.NDArray[np.float64], pixdim: npt.NDArray[np.float64]) -> bool:
    try:
        apart = np.abs(sform - _qform(header, "")).max()
    except GeometryError:
        return False
    return not apart > 1e-2 * np.abs(pixdim).min()


def _interval(header: Any, found: tags.Tags) -> float | None:
    stored = float(header["pixdim"][4])
    seconds = stored * _SECONDS.get(int(header["xyzt_units"]) & 0x38, np.nan)
    if not (np.isfinite(seconds) and seconds > 0):
        return None
    ours = found.frame_interval_s
    return ours if ours is not None and np.float32(ours) == np.float32(seconds) else seconds


def _extension(start: bytes, header: Any) -> tags.Tags:
    """Our text among the header's extensions.

    start: the file up to its first voxel, or as far as it was read.
    nibabel raises for the first extension that it cannot read, such as one in DICOM with implicit
    VRs or with a wrong length. Here those before it still count, and no length is trusted.
    """
    position = header.single_vox_offset
    if start[position - 4 : position - 3] in (b"", b"\0"):
        return tags.Tags()
    while position + 8 <= len(start):
        size, code = np.frombuffer(start, header.endianness + "i4", 2, position).tolist()
        if size < 16 or position + size > len(start):
            break
        text = start[position + 8 : position + size].rstrip(b"\0")
        if code == _COMMENT and text.startswith(tags.KEY.encode() + b" "):
            return tags.from_text(text[len(tags.KEY) + 1 :].decode("ascii", "replace"))
        position += size
    return tags.Tags()


def _header_for(volume: Volume) -> Any:
    nib = require("nibabel", purpose="Writing NIfTI")
    dtype, affine = volume.dtype.newbyteorder("="), volume.geometry.affine_ras
    if dtype.kind not in "iuf" or not 1 <= dtype.itemsize <= 8 or dtype == np.float16:
        raise OutputError(f"NIfTI holds no voxels of type {dtype}", "Write .nrrd, or convert.")
    if max(volume.shape) > np.iinfo(np.int16).max:
        raise OutputError(
            f"NIfTI holds up to 32767 voxels along an axis, the shape is {volume.shape}",
            "Write .nrrd or .mha instead.",
        )
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(volume.shape[::-1])
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm", "sec")
    header.set_slope_inter(1, 0)
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)
    header["pixdim"][4:] = 0
    if volume.frame_interval_s is not None:
        header["pixdim"][4] = volume.frame_interval_s
    header["descrip"] = tags.short_note(volume.history, 79).encode()
    text = f"{tags.KEY} {tags.to_text(volume)}".encode("ascii")
    header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, text))
    return header

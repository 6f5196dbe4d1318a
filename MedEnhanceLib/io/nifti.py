"""NIfTI-1 (.nii, .nii.gz), read and written here and not through ITK.

ITK's reader gives the voxels of A.nii for A.nii.gz where both are in one folder, fills a file that
is cut short with zeros, mixes pixdim with an sform that says otherwise, and rescales 32-bit
integers in float32; its writer reports success on a full disk and moves the sform by a rounding
each time a file is saved again. All of it is silent. Tests compare this module with ITK and nibabel
where those are right.
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
from MedEnhanceLib.io.payload import Payload, compression_of, read_start, read_voxels
from MedEnhanceLib.io.rescale import rescale_slices
from MedEnhanceLib.runtime.progress import Monitor

_HEADER_BYTES = 348
_NIFTI_2_BYTES = 540
_FIRST_VOXEL = 352
_HEADER = np.dtype(
    [
        ("sizeof_hdr", "<i4"),
        ("unused_1", "V36"),
        ("dim", "<i2", 8),
        ("intent_p", "<f4", 3),
        ("intent_code", "<i2"),
        ("datatype", "<i2"),
        ("bitpix", "<i2"),
        ("slice_start", "<i2"),
        ("pixdim", "<f4", 8),
        ("vox_offset", "<f4"),
        ("scl_slope", "<f4"),
        ("scl_inter", "<f4"),
        ("unused_2", "V3"),
        ("xyzt_units", "u1"),
        ("unused_3", "V24"),
        ("descrip", "S80"),
        ("aux_file", "S24"),
        ("qform_code", "<i2"),
        ("sform_code", "<i2"),
        ("quatern", "<f4", 3),
        ("qoffset", "<f4", 3),
        ("srow", "<f4", (3, 4)),
        ("intent_name", "S16"),
        ("magic", "S4"),
    ]
)
_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8",
}  # fmt: skip
_COLOUR = {128: "RGB", 2304: "RGBA"}
_OTHER_TYPES = {1: "one bit", 32: "complex", 1536: "128-bit float", 1792: "complex"}
_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
_UNITS_MM_SECONDS = 2 | 8
_COMMENT = 6  # the code of a header extension that holds text
_LARGEST_EXTENSION = 1 << 20
_SCANNER = 1
_GZIP_LEVEL = 4  # on CT within 1 % of level 6, three times as fast
_LPS = np.diag([-1.0, -1.0, 1.0])


def read_nifti(
    path: Path, monitor: Monitor, scratch: Path | None = None
) -> tuple[Volume, tags.Tags]:
    """The volume of a NIfTI-1 file, and what its header extension says about it.

    scratch: as `read_voxels` takes it.
    """
    name = path.name
    compression = compression_of(path)
    header = _parse(read_start(path, _HEADER_BYTES, compression), name)
    shape, skip = _shape(header, name), _first_voxel(header, name)
    payload = Payload(path, shape, _dtype(header, name), compression, skip=skip)
    voxels = read_voxels(payload, monitor, scratch)
    before_voxels = read_start(path, min(skip, _LARGEST_EXTENSION), compression)
    found = _extension(before_voxels, header.dtype)
    volume = Volume(
        _rescaled(voxels, header, name),
        _geometry(header, found, name, monitor),
        source=str(path),
        frame_interval_s=_interval(header, found) if len(shape) == 4 else None,
    )
    return volume, found


def write_nifti(volume: Volume, path: Path, monitor: Monitor, parts: Iterable[Voxels]) -> None:
    """Write to `path`, compressed where its name ends in .gz; the sform holds the geometry.

    parts: the voxels of `volume`, as runs of slices [n, J, I]; its own are not looked at.
    Raises OutputError for a side longer than 32767 voxels, or a type that NIfTI does not know.
    """
    header, extension = _header_for(volume)
    with path.open("wb") as file:
        if path.name.lower().endswith(".gz"):
            # No name and no time inside: the same volume gives the same bytes.
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                _write(parts, header, extension, packed, monitor)
        else:
            _write(parts, header, extension, file, monitor)


def _write(
    parts: Iterable[Voxels],
    header: npt.NDArray[Any],
    extension: bytes,
    stream: BinaryIO | gzip.GzipFile,
    monitor: Monitor,
) -> None:
    stream.write(header.tobytes())
    stream.write(extension)
    for part in parts:
        for one in part:
            monitor.check()
            stream.write(one.astype(one.dtype.newbyteorder("<"), copy=False).tobytes())


# ---------------------------------------------------------------- reading


def _parse(start: bytes, name: str) -> np.void:
    if len(start) < _HEADER_BYTES:
        raise InputError(
            f"{name} is not a NIfTI file: it holds {len(start)} bytes, a header needs 348",
            "Check that it is an image, and that it was copied completely.",
        )
    layouts = (_HEADER, _HEADER.newbyteorder())
    found = {int(np.frombuffer(start, layout)[0]["sizeof_hdr"]): layout for layout in layouts}
    if _NIFTI_2_BYTES in found:
        raise InputError(f"{name} is NIfTI-2, which is not supported", "Save it as NIfTI-1.")
    header: np.void = np.frombuffer(start, found.get(_HEADER_BYTES, _HEADER))[0]
    if header["sizeof_hdr"] != _HEADER_BYTES or header["magic"] not in (b"n+1", b"ni1"):
        raise InputError(
            f"{name} is not a NIfTI file: sizeof_hdr and magic are missing from its header",
            "Check that it is an image and that its name has the right ending.",
        )
    if header["magic"] == b"ni1":
        raise InputError(
            f"{name} is the header of a .hdr/.img pair", "Save it as one file, .nii or .nii.gz."
        )
    return header


def _shape(header: np.void, name: str) -> tuple[int, ...]:
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
            f"{name}: dim is {sizes}: several values per voxel (a vector, a tensor, a colour)",
            "Give a volume with one intensity per voxel.",
        )
    if len(sizes) < 3:
        raise InputError(f"{name}: dim is {sizes}: a picture, not a volume", "Give 3 or 4 axes.")
    return tuple(reversed(sizes))


def _dtype(header: np.void, name: str) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code in _COLOUR:
        raise InputError(
            f"{name}: colour voxels (datatype {_COLOUR[code]})", "Convert it to grey levels first."
        )
    if code not in _TYPES:
        what = _OTHER_TYPES.get(code, f"unknown code {code}")
        raise InputError(
            f"{name}: voxels of a type that holds no intensity here (datatype: {what})",
            "Convert it to integers or floats of up to 64 bits.",
        )
    order = "<" if header.dtype == _HEADER else ">"
    return np.dtype(order + _TYPES[code])


def _first_voxel(header: np.void, name: str) -> int:
    offset = float(header["vox_offset"])
    if not (offset.is_integer() and _FIRST_VOXEL <= offset < 2**31):
        raise InputError(
            f"{name}: vox_offset is {offset:g}, which is no place for voxels",
            "The header is damaged: export the volume again.",
        )
    return int(offset)


def _rescaled(voxels: Voxels, header: np.void, name: str) -> Voxels:
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


def _geometry(header: np.void, found: tags.Tags, name: str, monitor: Monitor) -> Geometry:
    code = int(header["xyzt_units"]) & 7
    if code not in _MM:
        raise GeometryError(f"{name}: unknown unit of length {code} in xyzt_units", "Correct it.")
    pixdim = header["pixdim"][1:4].astype(np.float64)
    if header["sform_code"] > 0:
        field, affine = "sform", _homogeneous(header["srow"])
    elif header["qform_code"] > 0:
        field, affine = "qform", _qform(header)
    else:
        field, affine = "pixdim", np.diag([*(_LPS @ pixdim), 1.0])
        monitor.warn(
            f"{name} has neither sform nor qform: its place in the patient, and which side is "
            "left, are unknown; its axes are taken as LPS"
        )
    if header["sform_code"] > 0 and header["qform_code"] > 0:
        _warn_of_contradiction(affine, _qform(header), pixdim, name, monitor)
    affine[:3] *= _MM[code]
    try:
        geometry = Geometry.from_affine_ras(affine)
    except GeometryError as cause:
        raise GeometryError(f"{name}: {field}: {cause.message}", cause.hint) from cause
    exact = found.geometry
    # The extension's geometry counts only while the header, in float32, still says the same.
    if exact is not None and np.array_equal(np.float32(exact.affine_ras), np.float32(affine)):
        return exact
    return geometry


def _warn_of_contradiction(
    sform: npt.NDArray[np.float64],
    qform: npt.NDArray[np.float64],
    pixdim: npt.NDArray[np.float64],
    name: str,
    monitor: Monitor,
) -> None:
    if np.abs(sform - qform).max() > 1e-2 * np.abs(pixdim).min():
        monitor.warn(f"{name}: sform and qform place the volume differently; the sform is used")


def _homogeneous(rows: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.vstack([rows.astype(np.float64), [0.0, 0.0, 0.0, 1.0]])


def _qform(header: np.void) -> npt.NDArray[np.float64]:
    b, c, d = (float(value) for value in header["quatern"])
    a = np.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    spacing = header["pixdim"][1:4].astype(np.float64)
    spacing[2] *= -1.0 if header["pixdim"][0] < 0 else 1.0
    return _homogeneous(np.column_stack([rotation * spacing, header["qoffset"]]))


def _interval(header: np.void, found: tags.Tags) -> float | None:
    stored = float(header["pixdim"][4])
    seconds = stored * _SECONDS.get(int(header["xyzt_units"]) & 0x38, np.nan)
    if not (np.isfinite(seconds) and seconds > 0):
        return None
    ours = found.frame_interval_s
    return ours if ours is not None and np.float32(ours) == np.float32(seconds) else seconds


def _extension(start: bytes, layout: np.dtype[Any]) -> tags.Tags:
    """Our text among the header's extensions; a length in them is never trusted."""
    integer = "<i4" if layout == _HEADER else ">i4"
    position = _FIRST_VOXEL
    if start[_HEADER_BYTES : _HEADER_BYTES + 1] in (b"", b"\0"):
        return tags.Tags()
    while position + 8 <= len(start):
        size, code = (int(value) for value in np.frombuffer(start, integer, 2, position))
        if size < 16 or position + size > len(start):
            break
        text = start[position + 8 : position + size].rstrip(b"\0")
        if code == _COMMENT and text.startswith(tags.KEY.encode() + b" "):
            return tags.from_text(text[len(tags.KEY) + 1 :].decode("ascii", "replace"))
        position += size
    return tags.Tags()


# ---------------------------------------------------------------- writing


def _header_for(volume: Volume) -> tuple[npt.NDArray[Any], bytes]:
    codes = {np.dtype(kind): code for code, kind in _TYPES.items()}
    dtype = volume.dtype.newbyteorder("=")
    if dtype not in codes:
        raise OutputError(f"NIfTI holds no voxels of type {dtype}", "Write .nrrd, or convert.")
    if max(volume.shape) > np.iinfo(np.int16).max:
        raise OutputError(
            f"NIfTI holds up to 32767 voxels along an axis, the shape is {volume.shape}",
            "Write .nrrd or .mha instead.",
        )
    extension = _extension_for(volume)
    affine = volume.geometry.affine_ras
    header = np.zeros((), _HEADER)
    header["sizeof_hdr"] = _HEADER_BYTES
    header["dim"] = 1
    header["dim"][0] = len(volume.shape)
    header["dim"][1 : len(volume.shape) + 1] = volume.shape[::-1]
    header["datatype"], header["bitpix"] = codes[dtype], dtype.itemsize * 8
    header["vox_offset"] = _HEADER_BYTES + len(extension)
    header["scl_slope"] = 1
    header["xyzt_units"] = _UNITS_MM_SECONDS
    header["descrip"] = tags.short_note(volume.history, 79).encode()
    header["qform_code"] = header["sform_code"] = _SCANNER
    header["srow"] = affine[:3]
    header["pixdim"][1:4] = volume.geometry.spacing
    if volume.frame_interval_s is not None:
        header["pixdim"][4] = volume.frame_interval_s
    header["pixdim"][0], header["quatern"] = _quaternion(affine[:3, :3])
    header["qoffset"] = affine[:3, 3]
    header["magic"] = b"n+1"
    return header, extension


def _extension_for(volume: Volume) -> bytes:
    text = f"{tags.KEY} {tags.to_text(volume)}".encode("ascii")
    size = -(-(8 + len(text)) // 16) * 16
    flag = b"\1\0\0\0"
    return flag + np.array([size, _COMMENT], "<i4").tobytes() + text.ljust(size - 8, b"\0")


def _quaternion(columns: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
    """Give qfac and (b, c, d) of the rotation nearest to the axes; k is turned if left-handed."""
    rotation = columns / np.linalg.norm(columns, axis=0)
    handedness = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    rotation[:, 2] *= handedness
    left, _, right = np.linalg.svd(rotation)
    r = left @ right
    # The eigenvector of the largest eigenvalue: stable for every angle, unlike the trace formula.
    quadratic = np.array(
        [
            [r[0, 0] + r[1, 1] + r[2, 2], r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]],
            [r[2, 1] - r[1, 2], r[0, 0] - r[1, 1] - r[2, 2], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0]],
            [r[0, 2] - r[2, 0], r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], r[1, 2] + r[2, 1]],
            [r[1, 0] - r[0, 1], r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1]],
        ]
    )
    a, *vector = np.linalg.eigh(quadratic)[1][:, -1]
    return handedness, np.array(vector) * (1.0 if a >= 0 else -1.0)

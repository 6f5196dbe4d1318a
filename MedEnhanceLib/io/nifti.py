"""NIfTI-1 and NIfTI-2 (.nii, .nii.gz): headers through nibabel, voxels as in every other format.

Two things differ from nibabel: contradictory headers are refused with the reason (nibabel repairs
some of them and only logs it), and the tags of MedEnhance are found among extensions that nibabel
cannot read. Voxels: see `voxels`. ITK is not used: it fills a file that is cut short with zeros,
and reports success on a full disk (see docs/decisions/0007-verified-reading.md).
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.arrays import Doubles, Voxels
from MedEnhanceLib.core.diffusion_gradients import fsl_tables
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.quantity import DERIVED, LABELS
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import GeometryError, InputError, OutputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.voxels import Payload, read_start, read_voxels, rescale, written_type
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_MM = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
#: Intent codes of statistics and estimates, and of labels.
_INTENTS = dict.fromkeys((*range(2, 25), 1001), DERIVED) | dict.fromkeys((1002, 1003), LABELS)
_COMMENT = 6  # the code of a header extension that holds text
_LARGEST_EXTENSION = 1 << 20
_SCANNER, _LABELS = 1, 1002
_NO_NUMBERS = ("nan", "inf", "-inf")
#: Fields that results in NIfTI take over: those of slices while there are as many, those of values
#: unless labels take their place.
_OF_SLICES = ("slice_code", "slice_start", "slice_end", "slice_duration")
_OF_VALUES = (
    "intent_code", "intent_name", "intent_p1", "intent_p2", "intent_p3", "cal_min", "cal_max",
)  # fmt: skip
_KEPT = (*_OF_SLICES, *_OF_VALUES, "sform_code", "dim_info", "toffset", "descrip", "aux_file")
#: Programs write voxel sizes with as few as four digits.
_ROUNDING = 1e-3
#: In voxels: largest difference of sform and qform. Axes that differ by less are one.
_FORM_ERROR, _SAME_AXIS = 1e-2, 1e-4
_LPS = np.diag([-1.0, -1.0, 1.0])


def read_nifti(path: Path, monitor: Monitor, scratch: Path | None) -> tuple[Volume, tags.Tags]:
    """Read the volume of a NIfTI file, and the tags in its header extension.

    Args:
        path: the file; its first bytes decide whether it is compressed, not its name.
        monitor: warned of an unknown or contradictory place in the patient; may cancel.
        scratch: a folder for the voxels of large files, see `read_voxels`.
    Returns the volume with modality OT, and the tags.
    Raises InputError: not a NIfTI file, damaged, or without one intensity per voxel.
    Raises GeometryError: no valid place in the patient.
    """
    name, (start, is_packed) = path.name, read_start(path, _LARGEST_EXTENSION)
    header = _header(start, name)
    skip = float(header["vox_offset"])
    if not (skip.is_integer() and header.single_vox_offset <= skip < 2**31):
        raise InputError(
            f"{name}: vox_offset is {skip:g}, which is not a valid offset",
            "The header is damaged: export the volume again.",
        )
    shape = _shape(header, name)
    payload = Payload(path, shape, _dtype(header, name), is_packed, skip=int(skip))
    voxels = read_voxels(payload, monitor, scratch)
    # A search in the bytes: nibabel raises for the first extension that it cannot read, such as
    # DICOM with implicit VRs or a wrong length.
    text = re.search(rb"\b%s (\{[ -~]*\})" % tags.KEY.encode(), start[: int(skip)])
    facts = tags.from_text(text[1].decode("ascii")) if text else tags.Tags()
    if start[header.sizeof_hdr : header.sizeof_hdr + 1] > b"\0":
        _warn_of_extensions(start[header.sizeof_hdr + 4 : int(skip)], header, name, monitor)
    volume = Volume(
        _rescaled(voxels, header, name),
        _geometry(header, facts, name, monitor),
        source=str(path),
        frame_interval_s=_interval(header, facts, name, monitor) if len(shape) == 4 else None,
        quantity=_INTENTS.get(int(header["intent_code"]), ""),
        header_fields=_kept_fields(header, shape),
    )
    return volume, facts


def _header(start: bytes, name: str) -> Any:
    """Return the header of either version as nibabel reads it, unchecked."""
    nib = require("nibabel", purpose="Reading NIfTI")
    order = "<" if start[:1] != b"\0" else ">"  # sizeof_hdr is 348 or 540, in four bytes
    size = int.from_bytes(start[:4], "little" if order == "<" else "big")
    kind = nib.Nifti2Header if size == nib.Nifti2Header.sizeof_hdr else nib.Nifti1Header
    is_whole = size == kind.sizeof_hdr <= len(start)
    header = kind(start[:size] if is_whole else None, endianness=order, check=False)
    magic = header["magic"].item()
    if not is_whole or magic not in (kind.single_magic, kind.pair_magic):
        raise InputError(
            f"{name} is not a NIfTI file: it is cut short, or its header lacks sizeof_hdr or magic",
            "Check that it is an image, and that its name has the right ending.",
        )
    if magic == kind.pair_magic:
        raise InputError(
            f"{name} is the header of a .hdr/.img pair", "Save it as one file, .nii or .nii.gz."
        )
    return header


def _shape(header: Any, name: str) -> tuple[int, ...]:
    axes = int(header["dim"][0])
    sizes = [int(size) for size in header["dim"][1 : axes + 1]]
    if not 1 <= axes <= 7 or any(size < 1 for size in sizes):
        what = "zero size, dim" if 0 in sizes else "dim"
        raise InputError(f"{name}: {what} is {header['dim'].tolist()}", "Export the volume again.")
    while len(sizes) > 4 and sizes[-1] == 1:
        sizes.pop()
    if not 3 <= len(sizes) <= 4:
        what = "several values per voxel (a vector, a color)" if len(sizes) > 4 else "a picture"
        raise InputError(
            f"{name}: dim is {sizes}: {what}, not a volume",
            "Give 3 axes, or 4 with time last, and one intensity per voxel.",
        )
    return tuple(reversed(sizes))


def _dtype(header: Any, name: str) -> np.dtype[Any]:
    from nibabel.nifti1 import data_type_codes

    code = int(header["datatype"])
    types: Any = data_type_codes  # of nibabel, which has no hints for it
    label = types.label[code] if code in types else "unknown"
    dtype: np.dtype[Any] = np.dtype(types.dtype[code] if code in types else "V1")
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        what = "color voxels" if dtype.fields else "voxels of an unsupported type"
        raise InputError(
            f"{name}: {what} (datatype {code}, {label})",
            "Convert it to integers or floats of up to 64 bits, and color to gray levels.",
        )
    return dtype.newbyteorder(header.endianness)


def _rescaled(voxels: Voxels, header: Any, name: str) -> Voxels:
    """Rescale into the smallest type that holds every value; nibabel always gives float64."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):  # "not set", by the standard
        return voxels
    if not np.isfinite(intercept):
        raise InputError(
            f"{name}: scl_inter is {intercept} beside scl_slope {slope:g}", "Correct the header."
        )
    return rescale(voxels, slope, intercept)


def _geometry(header: Any, facts: tags.Tags, name: str, monitor: Monitor) -> Geometry:
    code = int(header["xyzt_units"]) & 7
    if code not in _MM:
        raise GeometryError(f"{name}: unknown unit of length {code} in xyzt_units", "Correct it.")
    pixdim = header["pixdim"][1:4].astype(np.float64)
    if (pixdim < 0).any():
        monitor.warn(f"{name}: pixdim is {pixdim.tolist()}; its absolute values are taken")
        pixdim = np.abs(pixdim)
        header["pixdim"][1:4] = pixdim
    stated = [form for form in ("sform", "qform") if header[f"{form}_code"] > 0]
    forms = {form: affine for form in stated if (affine := _valid_form(header, form)) is not None}
    if wrong := [form for form in stated if form not in forms]:
        verb = "is" if len(wrong) == 1 else "are"
        fault = f"{name}: the {' and the '.join(wrong)} {verb} not valid "
        fault += "(an axis is zero, not finite or double)"
        if not forms:
            fault += f"; pixdim is {pixdim.tolist()}"
            raise GeometryError(fault, "Correct the header.")
        monitor.warn(f"{fault}; the {next(iter(forms))} is used")
        header[f"{wrong[0]}_code"] = 0  # results have the code of the form that is used
    if "sform" in forms:
        spacing = np.linalg.norm(forms["sform"][:3, :3], axis=0)
        if not np.allclose(spacing[pixdim > 0], pixdim[pixdim > 0], rtol=_ROUNDING, atol=0):
            voxel, used = (" × ".join(f"{mm:.5g}" for mm in sizes) for sizes in (pixdim, spacing))
            monitor.warn(f"{name}: pixdim is {voxel}, but the sform's {used} is used")
        elif np.ptp([*forms.values()], axis=0).max() > _FORM_ERROR * pixdim.min():
            monitor.warn(f"{name}: sform and qform place the volume differently; the sform is used")
    if not forms:
        forms["pixdim"] = np.diag([*(_LPS @ pixdim), 1.0])
        monitor.warn(
            f"{name} has neither sform nor qform: its place in the patient, and which side is "
            "left, are unknown; its axes are taken as LPS"
        )
    field, affine = next(iter(forms.items()))
    affine[:3] *= _MM[code]
    try:
        geometry = Geometry.from_affine_ras(affine)
    except GeometryError as cause:
        raise GeometryError(f"{name}: {field}: {cause.message}", cause.hint) from cause
    exact = facts.geometry
    if exact is None:
        return geometry
    with np.errstate(over="ignore"):  # of damaged headers
        # The extension's geometry counts only while the header, in float32, still says the same.
        is_same = np.array_equal(np.float32(exact.affine_ras), np.float32(affine))
    return exact if is_same else geometry


def _valid_form(header: Any, form: str) -> Doubles | None:
    """Return the affine of sform or qform; None if an axis is no axis, or along another one."""
    from nibabel.spatialimages import HeaderDataError

    header = header.copy()
    header["pixdim"][0] = -1 if header["pixdim"][0] < 0 else 1  # 0 counts as 1, by the standard
    try:
        with np.errstate(invalid="ignore"):  # of NaN
            affine: Doubles = getattr(header, f"get_{form}")()
    except (HeaderDataError, ValueError):
        return None
    length = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and length.min() > 0):
        return None
    is_map = np.linalg.matrix_rank(affine[:3, :3] / length, _SAME_AXIS) == 3
    return affine if is_map else None


def _interval(header: Any, facts: tags.Tags, name: str, monitor: Monitor) -> float | None:
    code = int(header["xyzt_units"]) & 0x38
    unit = _SECONDS.get(code, 0.0) if code else None
    return tags.frame_interval(
        float(header["pixdim"][4]), unit, facts, f"{name}: pixdim[4]", monitor
    )


def _warn_of_extensions(extensions: bytes, header: Any, name: str, monitor: Monitor) -> None:
    """Name the header extensions that results do not take over: all but ours."""
    codes = []
    while len(extensions) >= 8:
        size, code = struct.unpack(f"{header.endianness}2i", extensions[:8])
        if tags.KEY.encode() not in extensions[8 : max(size, 8)]:
            codes.append(str(code))
        extensions = extensions[max(size, 8) :]
    if codes:
        monitor.warn(f"{name}: header extensions (code {', '.join(codes[:8])}) are not kept")


def _kept_fields(header: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """Return the fields of `_KEPT` that are set, times in s, and the number of slices."""
    fields = {name: header[name].item() for name in _KEPT}
    fields["sform_code"] = max(fields["sform_code"], 0) or int(header["qform_code"])
    unit = _SECONDS.get(int(header["xyzt_units"]) & 0x38, 1.0)
    fields |= {name: fields[name] * unit for name in ("toffset", "slice_duration")}
    for name in ("descrip", "aux_file", "intent_name"):
        fields[name] = fields[name].decode("ascii", "ignore").rstrip("\0 ")
    kept = {
        name: value for name, value in fields.items() if value and str(value) not in _NO_NUMBERS
    }
    return {**kept, "slices": shape[-3]}


def _put_kept_fields(header: Any, volume: Volume, monitor: Monitor) -> None:
    """Set what the fields of an earlier NIfTI file state, and name what no longer holds."""
    fields = {name: volume.header_fields[name] for name in _KEPT if name in volume.header_fields}
    is_new_meaning = volume.profile.is_labels and fields.get("intent_code") != _LABELS
    lost = [*(_OF_VALUES if is_new_meaning else ())]
    lost += _OF_SLICES if volume.header_fields.get("slices") != volume.shape[-3] else ()
    if gone := [name for name in lost if fields.pop(name, None)]:
        monitor.warn(
            f"NIfTI fields that do not hold for the result are left out: {', '.join(gone)}"
        )
    for name, value in fields.items():
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # of a damaged file
            header[name] = value
    header["qform_code"] = header["sform_code"]


def nifti_header(volume: Volume, monitor: Monitor) -> tuple[bytes, np.dtype[Any]]:
    """Make a NIfTI-1 header, and the type of the voxels; OutputError for a side above 32767.

    volume: gives shape, geometry, tags and kept fields.
    monitor: warned of fields that no longer hold, and of another type.
    """
    nib = require("nibabel", purpose="Writing NIfTI")
    affine = volume.geometry.affine_ras
    if max(volume.shape) > np.iinfo(np.int16).max:
        raise OutputError(
            f"NIfTI holds up to 32767 voxels along an axis, the shape is {volume.shape}",
            "Write .nrrd or .mha instead.",
        )
    dtype = written_type(volume.dtype)
    if dtype.kind in "iu" and dtype.itemsize == 8:
        dtype = _fewer_bits(volume)
        what = f"programs such as SPM and FSL read no {volume.dtype.name} of NIfTI"
        monitor.warn(f"{what}: written as {dtype.name}")
    header = nib.Nifti1Header(endianness="<")
    header.set_data_shape(volume.shape[::-1])
    header.set_data_dtype(dtype)
    header.set_xyzt_units("mm", "sec")
    header.set_slope_inter(1, 0)
    header.set_sform(affine, _SCANNER)
    header.set_qform(affine, _SCANNER)
    _put_kept_fields(header, volume, monitor)
    header["pixdim"][4:] = 0
    if volume.frame_interval_s is not None:
        header["pixdim"][4] = volume.frame_interval_s
    if volume.history:
        header["descrip"] = tags.short_note(volume.history, 79).encode()
    text = f"{tags.KEY} {tags.to_text(volume)}".encode("ascii")
    header.extensions.append(nib.nifti1.Nifti1Extension(_COMMENT, text))
    stream = io.BytesIO()
    header.write_to(stream)
    return stream.getvalue(), dtype


def nifti_tables(volume: Volume) -> dict[str, str]:
    """Make the tables to write beside a diffusion scan, by their endings; {} for other volumes."""
    if volume.profile.is_labels or not volume.gradients:
        return {}
    return fsl_tables(volume.gradients, volume.geometry)


def _fewer_bits(volume: Volume) -> np.dtype[Any]:
    """Return the smallest type that holds all whole numbers; its own if float64 would round."""
    low, high = int(volume.voxels.min()), int(volume.voxels.max())
    for kind in ("uint8", "int16", "uint16", "int32", "uint32"):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float64) if max(-low, high) <= 2**53 else volume.dtype

"""Volumes from and to what others hold: arrays, SimpleITK, nibabel, MONAI, PyTorch.

Each comes as its own copy: what its owner changes later changes no volume. Axes are brought into
the order of `Volume.voxels`, [slice, row, column] with a leading axis of frames.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.modality import default_units, guess_modality
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import ConfigError, GeometryError, InputError
from MedEnhanceLib.runtime.dependencies import require

#: In the meta of a MetaTensor: what it does not know of a volume.
_KNOWN = "medenhance"
#: Millimeters and seconds of nibabel's names of units; an unknown one counts as its default.
_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
#: Turns left and posterior into right and anterior, and back.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def as_volume(
    data: Any, *, affine: Any = None, spacing: Any = None, modality: str | None = None
) -> Volume:
    """A volume of whatever holds one in memory; a Volume is returned as it is.

    Args:
        data: a Volume, a SimpleITK or nibabel image, a MONAI MetaTensor, or an array or tensor
            [K, J, I] together with affine or spacing.
        affine: 4×4, (i, j, k) → mm in RAS, of an array.
        spacing: mm along i (columns), j (rows), k (slices), of an array.
        modality: "CT", "MR" …; None: guessed from the values.
    Raises:
        InputError: it is none of these, or an array without its place.
    """
    if isinstance(data, Volume):
        if affine is not None or spacing is not None:
            raise ConfigError("affine or spacing of a Volume, which has its own", "Leave them out.")
        if not modality:
            return data
        units = data.units if modality == data.modality else default_units(modality)
        return replace(data, modality=modality, units=units, modality_is_guess=False)
    home = type(data).__module__.partition(".")[0]
    readers = {"SimpleITK": from_sitk, "nibabel": from_nibabel, "monai": from_metatensor}
    if home in readers:
        if affine is not None or spacing is not None:
            raise ConfigError(
                f"affine or spacing of a {type(data).__name__}, which has its own",
                "Leave them out, or give its array alone.",
            )
        return readers[home](data, modality=modality)
    if isinstance(data, np.ndarray) or home == "torch":
        return from_array(data, affine=affine, spacing=spacing, modality=modality)
    is_result = isinstance(getattr(data, "volume", None), Volume)
    raise InputError(
        f"an object of type {type(data).__name__} is no volume",
        "Give its .volume."
        if is_result
        else "Give a Volume, a path, a SimpleITK or nibabel image, a MONAI MetaTensor, or an array "
        "with spacing=.",
    )


def from_array(
    array: Any,
    *,
    affine: Any = None,
    spacing: Any = None,
    modality: str | None = None,
    units: str | None = None,
) -> Volume:
    """See `Volume.from_array`."""
    if (affine is None) == (spacing is None):
        what = "an array without spacing" if affine is None else "both affine and spacing"
        raise InputError(
            what,
            "Give one of them, as Volume.from_array(array, spacing=(1, 1, 3)): mm between columns, "
            "rows and slices of [slice, row, column]; or affine=, 4×4 in RAS.",
        )
    geometry = Geometry.from_affine_ras(affine) if spacing is None else Geometry(spacing=spacing)
    return _named(_copied(array), geometry, modality, units)


def from_sitk(image: Any, *, modality: str | None = None) -> Volume:
    """See `Volume.from_sitk`."""
    sitk = require("SimpleITK", purpose="Taking an image of SimpleITK")
    axes = image.GetDimension()
    if axes not in (3, 4) or image.GetNumberOfComponentsPerPixel() > 1:
        raise InputError(
            f"a SimpleITK image of {axes} axes and {image.GetNumberOfComponentsPerPixel()} values "
            "a voxel",
            "Give 3 axes, or 4 with time last, and one intensity a voxel.",
        )
    kind = image.GetPixelIDTypeAsString()
    if kind.startswith("label"):  # taking its array would end the process
        raise InputError(f"a SimpleITK image of {kind}", "Give sitk.LabelMapToLabel(image).")
    direction = np.reshape(image.GetDirection(), (axes, axes))
    if axes == 4 and not np.allclose(direction[3, :3], 0) & np.allclose(direction[:3, 3], 0):
        raise GeometryError("the fourth axis is no time of its own", "Give frames one by one.")
    geometry = Geometry(
        image.GetSpacing()[:3],
        image.GetOrigin()[:3],
        tuple(tuple(row) for row in direction[:3, :3].tolist()),  # type: ignore[arg-type]
    )
    return _named(sitk.GetArrayFromImage(image), geometry, modality)


def to_sitk(volume: Volume) -> Any:
    """See `Volume.to_sitk`."""
    sitk = require("SimpleITK", purpose="Making an image of SimpleITK")
    image = sitk.GetImageFromArray(_storable(volume.voxels), isVector=False)
    geometry, extra = volume.geometry, volume.voxels.ndim - 3
    direction = np.eye(3 + extra)
    direction[:3, :3] = geometry.direction
    image.SetSpacing([*geometry.spacing, *[volume.frame_interval_s or 1.0] * extra])
    image.SetOrigin([*geometry.origin, *[0.0] * extra])
    image.SetDirection(direction.ravel().tolist())
    return image


def from_nibabel(image: Any, *, modality: str | None = None) -> Volume:
    """See `Volume.from_nibabel`."""
    if getattr(image, "affine", None) is None or not hasattr(image, "dataobj"):
        raise InputError(
            f"a {type(image).__name__} without an affine", "Give an image that says where it is."
        )
    length, time = "mm", "sec"
    if hasattr(image.header, "get_xyzt_units"):
        length, time = image.header.get_xyzt_units()
    affine = np.array(image.affine, np.float64)
    affine[:3] *= _MM.get(length, 1.0)
    array = np.asanyarray(image.dataobj)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    volume = _named(np.array(array.T, order="C"), Geometry.from_affine_ras(affine), modality)
    if not volume.is_sequence:
        return volume
    step = float(image.header.get_zooms()[3]) * _SECONDS.get(time, 0.0)
    return replace(volume, frame_interval_s=step if step > 0 else None)


def to_nibabel(volume: Volume) -> Any:
    """See `Volume.to_nibabel`."""
    nib = require("nibabel", purpose="Making an image of nibabel")
    image = nib.Nifti1Image(_storable(volume.voxels).T, volume.geometry.affine_ras)
    image.header.set_xyzt_units("mm", "sec")
    if volume.is_sequence:
        zooms = [*image.header.get_zooms()[:3], volume.frame_interval_s or 1.0]
        image.header.set_zooms(zooms)
    return image


def from_metatensor(tensor: Any, *, modality: str | None = None) -> Volume:
    """See `Volume.from_metatensor`."""
    if not hasattr(tensor, "affine"):
        raise InputError(
            f"a {type(tensor).__name__} has no affine",
            "Give a MetaTensor, or from_array's spacing.",
        )
    shape = tuple(tensor.shape)
    if len(shape) == 4 and shape[0] == 1:
        tensor = tensor[0]
    elif len(shape) != 3 or shape[0] == 1:  # the latter may be one channel of a plane
        raise InputError(
            f"a MetaTensor of shape {shape}",
            "Give [1, I, J, K], one channel of one image, or [I, J, K]: of several tensor[:1].",
        )
    affine = np.asarray(tensor.affine, np.float64)
    meta = getattr(tensor, "meta", {})
    if str(meta.get("space", "RAS")).upper().endswith("LPS"):
        affine = _LPS_TO_RAS @ affine
    known = meta.get(_KNOWN)
    known = known if isinstance(known, dict) else {}
    array = np.array(_copied(tensor).T, order="C")
    modality = modality or known.get("modality")
    volume = _named(array, Geometry.from_affine_ras(affine), modality)
    return replace(volume, history=tuple(map(str, known.get("history", ()))))


def to_metatensor(volume: Volume) -> Any:
    """See `Volume.to_metatensor`."""
    data = require("monai.data", purpose="Making a MetaTensor")
    if volume.is_sequence:
        raise InputError("a sequence of several frames", "Give one frame: volume.frame(0).")
    tensor = to_torch(volume).permute(2, 1, 0)[None].contiguous()
    # Transforms copy what they do not know: a result still says that it is derived.
    modality = None if volume.modality_is_guess else volume.modality
    known = {"modality": modality, "history": list(volume.history)}
    meta = {"space": "RAS", _KNOWN: known}
    return data.MetaTensor(tensor, affine=volume.geometry.affine_ras, meta=meta)


def to_torch(volume: Volume, dtype: Any = None) -> Any:
    """See `Volume.to_torch`."""
    torch = require("torch", purpose="Making a tensor")
    wider = {"uint16": np.int32, "uint32": np.int64, "uint64": np.int64}
    voxels = volume.voxels
    if volume.dtype == np.uint64 and voxels.max() > np.iinfo(np.int64).max:
        raise InputError("voxels beyond the range of int64", "Give dtype=torch.float64.")
    native = volume.dtype.newbyteorder("=")
    tensor = torch.from_numpy(np.array(voxels, wider.get(native.name, native), order="C"))
    return tensor if dtype is None else tensor.to(dtype)


def _copied(array: Any) -> Voxels:
    if isinstance(array, np.ma.MaskedArray):
        raise InputError("a masked array", "Give what counts instead: array.filled(value).")
    if hasattr(array, "detach"):
        try:
            array = array.detach().cpu().numpy()
        except (TypeError, RuntimeError) as cause:  # NotImplementedError is a RuntimeError
            raise InputError(
                f"a tensor of {array.dtype}, {array.layout}, on {array.device}: no array of numpy",
                "Give tensor.float(); of a sparse one tensor.to_dense().",
            ) from cause
    return np.array(array, order="C")


def _named(
    voxels: npt.NDArray[Any], geometry: Geometry, modality: str | None, units: str | None = None
) -> Volume:
    volume = Volume(voxels, geometry)
    chosen = modality or guess_modality(volume)
    return replace(
        volume,
        modality=chosen,
        modality_is_guess=modality is None,
        units=default_units(chosen) if units is None else units,
    )


def _storable(voxels: Voxels) -> Voxels:
    """As a copy, in a type that ITK and NIfTI have."""
    narrow = {"bool": np.uint8, "float16": np.float32}
    return np.array(voxels, narrow.get(voxels.dtype.name, voxels.dtype.newbyteorder("=")))

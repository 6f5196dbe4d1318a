"""Conversion from and to arrays and the images of SimpleITK, nibabel and MONAI.

Voxels are copied, so that later changes of the source do not change the volume. Axes are brought
into the order of `Volume.voxels`, [slice, row, column] with a leading axis of frames. The methods
that users call are those of `Volume`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.geometry import LPS_TO_RAS, Geometry, Triple
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.texts import Text, text

if TYPE_CHECKING:
    import nibabel
    import SimpleITK
    from monai.data import MetaTensor

#: Millimeters and seconds in the units that nibabel names; an unknown unit of length is mm.
_MM = {"meter": 1e3, "mm": 1.0, "micron": 1e-3, "unknown": 1.0}
_SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
#: Orders of the axes of an array: SimpleITK's [slice, row, column], and nibabel's.
Axes = Literal["KJI", "IJK"]
# Chosen by hand.
#: Length of an axis in mm that no patient has, slices over the pixel that no scanner makes, and a
#: pixel's sides whose ratio is rather that of slices; how much more slender a volume is if its axes
#: are taken in the wrong order.
_LONGEST_MM, _THINNEST, _OBLONG, _SLENDER = 1000.0, 0.1, 1.5, 2.0
#: PyTorch does not compute with unsigned integers of more than 8 bits.
_FOR_TORCH = {"uint16": np.int32, "uint32": np.int64, "uint64": np.float64}


def unstated_time_unit(interval: float) -> float:
    """Return the unit, in seconds, of a frame interval that is stored without a unit.

    Repetition times are written as 2.5 or 2500: from 100 on they are milliseconds.
    """
    return 1.0 if interval < 100 else 1e-3


class ArrayLike(Protocol):
    """An array of NumPy, or a tensor of PyTorch."""

    def __array__(self) -> Any:
        """Return the values."""


class ImageOfNibabel(Protocol):
    """An image of nibabel, or a MetaTensor of MONAI."""

    @property
    def affine(self) -> Any:
        """4×4: (column, row, slice) → mm in RAS."""


class ImageOfSimpleITK(Protocol):
    """An image of SimpleITK."""

    def GetSpacing(self) -> Any:  # noqa: N802 - SimpleITK's name
        """Return mm between columns, rows and slices."""


class Image(NamedTuple):
    """Voxels, their geometry, seconds between frames where known, and the axes of their array."""

    voxels: Voxels
    geometry: Geometry
    frame_interval_s: float | None = None
    axes: Axes = "KJI"


def log_warning(warning: Text) -> None:
    """Pass a warning to Python's logging, as functions do that have no other way."""
    logging.getLogger("medenhance").warning("%s", warning)


def from_array(
    array: ArrayLike,
    *,
    affine: npt.ArrayLike | None = None,
    spacing: npt.ArrayLike | None = None,
    axes: Axes | None = None,
    warn: Callable[[Text], None] = log_warning,
) -> Image:
    """Copy an array or tensor; InputError for neither or both of affine and spacing.

    Args:
        array: [K, J, I] or [T, K, J, I]; with axes="IJK" [I, J, K] or [I, J, K, T].
        affine: 4×4: (column, row, slice) → mm in RAS.
        spacing: mm between columns, rows and slices.
        axes: of the array; None: KJI, with a warning if it looks like IJK.
        warn: is called with warnings of axes or spacing that are probably in another order.
    """
    if axes not in (None, "KJI", "IJK"):
        raise InputError(
            f"axes is {axes!r}",
            'Use "KJI", an array [slice, row, column], or "IJK", as nibabel: [column, row, slice].',
        )
    if (affine is None) == (spacing is None):
        what = "an array without spacing" if affine is None else "both affine and spacing"
        raise InputError(
            what,
            "Give one of them, as Volume.from_array(array, spacing=(1, 1, 3)): mm between "
            "columns, rows and slices of [slice, row, column]; or affine=, 4×4 in RAS. An array of "
            'nibabel needs axes="IJK" too.',
        )
    voxels = _as_numpy(array)
    if affine is not None:
        geometry = Geometry.from_affine_ras(affine)
    else:
        geometry = Geometry(cast(Triple, spacing))  # which checks it
    if axes is None and _is_fortran(voxels):
        warn(text("axes_fortran", shape=str(voxels.shape)))
    elif axes is None and affine is not None and _is_slender(voxels.shape, geometry.spacing):
        warn(text("axes_slender", shape=str(voxels.shape)))
    voxels = voxels.T if axes == "IJK" else voxels
    if warning := _doubt_of_order(geometry.spacing, voxels.shape, is_stated=affine is None):
        warn(warning)
    return Image(np.array(voxels, order="C"), geometry, axes=axes or "KJI")


def _is_fortran(voxels: Voxels) -> bool:
    """Return whether the first axis varies fastest in memory, as in arrays of nibabel."""
    steps = [step for step, size in zip(voxels.strides, voxels.shape, strict=True) if size > 1]
    return len(steps) > 1 and all(a < b for a, b in itertools.pairwise(map(abs, steps)))


def _is_slender(shape: tuple[int, ...], spacing: Triple) -> bool:
    """Return whether a volume [K, J, I] is far longer than wide, and as [I, J, K] would not be."""
    if len(shape) != 3 or not all(shape):
        return False
    given, turned = (
        [mm * size for mm, size in zip(spacing, sizes, strict=True)]
        for sizes in (shape[::-1], shape)
    )
    return max(given) / min(given) > _SLENDER * max(turned) / min(turned)


def _doubt_of_order(spacing: Triple, shape: tuple[int, ...], *, is_stated: bool) -> Text | None:
    """Return a warning if the spacing of voxels [..., K, J, I] is probably in their order.

    is_stated: whether it was given as such, not by an affine.
    """
    column, row, between = spacing
    longest = max(mm * size for mm, size in zip(reversed(spacing), shape[-3:], strict=False))
    if longest > _LONGEST_MM:
        return text("axes_long", meters=longest / 1000)
    is_turned = is_stated and column > _OBLONG * row and np.isclose(row, between)
    if is_turned or between < _THINNEST * max(column, row):
        return text("axes_unusual", column=column, row=row, slices=between)
    return None


def from_sitk(image: SimpleITK.Image) -> Image:
    """Copy a SimpleITK image of 3 axes; InputError for other axes or several values a voxel."""
    sitk = require("SimpleITK", purpose="Taking an image of SimpleITK")
    axes, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if axes != 3 or components > 1:
        raise InputError(
            f"a SimpleITK image of {axes} axes and {components} values a voxel",
            "Give 3 axes and one intensity a voxel; frames of a sequence one by one.",
        )
    kind = image.GetPixelIDTypeAsString()
    if kind.startswith("label"):  # taking its array would end the process
        raise InputError(f"a SimpleITK image of {kind}", "Give sitk.LabelMapToLabel(image).")
    direction = np.reshape(image.GetDirection(), (3, 3)).tolist()
    geometry = Geometry(image.GetSpacing(), image.GetOrigin(), direction)
    return Image(sitk.GetArrayFromImage(image), geometry)


def to_sitk(voxels: Voxels, geometry: Geometry) -> SimpleITK.Image:
    """Make a SimpleITK image of voxels [K, J, I]."""
    sitk = require("SimpleITK", purpose="Making an image of SimpleITK")
    image = sitk.GetImageFromArray(_storable(voxels), isVector=False)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(np.ravel(geometry.direction).tolist())
    return image


def from_nibabel(image: nibabel.Nifti1Image) -> Image:
    """Copy a nibabel image, [I, J, K] or [I, J, K, T]; GeometryError for a sheared grid."""
    if getattr(image, "affine", None) is None or not hasattr(image, "dataobj"):
        raise InputError(
            f"a {type(image).__name__} without an affine",
            "Give an image with an affine.",
        )
    header: Any = image.header
    length, time = "mm", "sec"
    if hasattr(header, "get_xyzt_units"):
        length, time = header.get_xyzt_units()
    affine = np.array(image.affine, np.float64)
    affine[:3] *= _MM.get(length, 1.0)
    array = np.asanyarray(image.dataobj).T
    frames = array[0] if array.ndim == 4 and len(array) == 1 else array
    taken = Image(np.array(frames, order="C"), Geometry.from_affine_ras(affine))
    if taken.voxels.ndim != 4:
        return taken
    step = float(header.get_zooms()[3])
    step *= unstated_time_unit(step) if time == "unknown" else _SECONDS.get(time, 0.0)
    return taken._replace(frame_interval_s=step if 0 < step < np.inf else None)


def to_nibabel(
    voxels: Voxels, geometry: Geometry, frame_interval_s: float | None
) -> nibabel.Nifti1Image:
    """Make a nibabel Nifti1Image of voxels [K, J, I] or [T, K, J, I].

    Args:
        voxels: of the image.
        geometry: of a frame.
        frame_interval_s: from frame to frame; None if it is not known.
    """
    nib = require("nibabel", purpose="Making an image of nibabel")
    image: Any = nib.Nifti1Image(_storable(voxels).T, geometry.affine_ras)
    image.header.set_xyzt_units("mm", "sec")
    if voxels.ndim == 4:
        image.header.set_zooms([*image.header.get_zooms()[:3], frame_interval_s or 0.0])
    return cast("nibabel.Nifti1Image", image)


def from_metatensor(tensor: MetaTensor) -> Image:
    """Copy a MONAI MetaTensor [1, I, J, K] or [I, J, K]; InputError for channels or a batch."""
    if not hasattr(tensor, "affine"):
        raise InputError(
            f"a {type(tensor).__name__} has no affine",
            "Give a MetaTensor, or from_array's spacing.",
        )
    shape = tuple(tensor.shape)
    if len(shape) == 4 and shape[0] == 1:
        tensor = tensor[0]
    elif len(shape) != 3 or shape[0] == 1:  # [1, J, I] may be a 2D image with its channel
        raise InputError(
            f"a MetaTensor of shape {shape}",
            "Give one channel of one image, [1, I, J, K] or [I, J, K]; of several: tensor[:1].",
        )
    affine = np.asarray(tensor.affine, np.float64)
    meta = getattr(tensor, "meta", {})
    if str(meta.get("space", "RAS")).upper().endswith("LPS"):
        affine = LPS_TO_RAS @ affine
    return Image(np.array(_as_numpy(tensor).T, order="C"), Geometry.from_affine_ras(affine))


def to_metatensor(voxels: Voxels, geometry: Geometry) -> MetaTensor:
    """Copy voxels [K, J, I] into a MONAI MetaTensor [1, I, J, K]."""
    data = require("monai.data", purpose="Making a MetaTensor")
    dtype = _FOR_TORCH.get(voxels.dtype.name, voxels.dtype.newbyteorder("="))
    array = np.array(voxels.T[None], dtype, order="C")
    return data.MetaTensor(array, affine=geometry.affine_ras, meta={"space": "RAS"})


def _as_numpy(array: Any) -> Voxels:
    if isinstance(array, np.ma.MaskedArray):
        raise InputError("a masked array", "Give array.filled(value).")
    if hasattr(array, "detach"):
        try:
            array = array.detach().cpu().numpy()
        except (TypeError, RuntimeError) as cause:  # NotImplementedError is a RuntimeError
            raise InputError(
                f"NumPy cannot hold a tensor of {array.dtype}, {array.layout}, on {array.device}",
                "Give tensor.float(); if it is sparse, tensor.to_dense().",
            ) from cause
    return np.asarray(array)


def _storable(voxels: Voxels) -> Voxels:
    """Copy the voxels, converted to a type that ITK and NIfTI support."""
    narrow = {"bool": np.uint8, "float16": np.float32}
    return np.array(voxels, narrow.get(voxels.dtype.name, voxels.dtype.newbyteorder("=")))

"""The volume: voxels with their geometry and meaning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core import exchange
from MedEnhanceLib.core.arrays import Doubles, Voxels, empty, slabs
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import AxisTurn, Geometry, Triple
from MedEnhanceLib.core.modality import (
    MODALITIES,
    PROFILES,
    Modality,
    guess_modality,
    profile_of,
)
from MedEnhanceLib.core.options import PathLike, did_you_mean, in_their_case
from MedEnhanceLib.core.origin import DicomOrigin, Lossy
from MedEnhanceLib.core.sequence_kind import DIFFUSION, KINDS
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.runtime.texts import Text

if TYPE_CHECKING:
    import nibabel
    import SimpleITK
    from monai.data import MetaTensor

    from MedEnhanceLib.report.figures import Picture

__all__ = ["MODALITIES", "ImageLike", "Modality", "Volume", "as_volume", "restore_dtype"]


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their geometry; immutable.

    Attributes:
        voxels: [K, J, I] = slice, row, column; a leading frame axis, [T, K, J, I], makes a
            sequence. Any integer or floating type of up to 64 bits; the array is held as a
            read-only view, without a copy, and must not change any more (`from_array` copies).
        geometry: shared by all frames.
        modality: one of MODALITIES.
        units: of the intensities: "HU" for CT, "SUV" for PET, "" where they are arbitrary.
        source: a path or series, for messages and provenance.
        history: processing since then, oldest first; empty for an original.
        frame_interval_s: seconds between frames of a sequence, where known.
        dicom_origin: the DICOM images that it was read from, if any.
        lossy: the lossy compressions of the voxels, oldest first.
        modality_is_guess: whether `modality` comes from the values, as the file states none.
        gradients: the diffusion weighting of each frame; empty where there is none.
        quantity: what the voxels are, if header or file name state that they are no intensities:
            see `core.quantity`.
        header_fields: of the NIfTI header that it was read from, or keys of the segments of a
            .seg.nrrd, for the headers of results.
        time_points: of frames that were taken from a sequence, their (start, stop, count of all).
        sequence_kind: what the frames differ in, one of `core.sequence_kind.KINDS`; "" if unknown,
            and for a single frame. With `gradients` it is "diffusion".
        axes: of the array that it was made from, "KJI" or "IJK", for `numpy`.
    Raises InputError for zero size, a wrong number of axes, or a type without intensities. NaN and
    infinity are refused where files are read (io.load): finding them takes a pass.
    """

    voxels: Voxels
    geometry: Geometry = field(default_factory=Geometry)
    modality: str = "OT"
    units: str = ""
    source: str = ""
    history: tuple[str, ...] = ()
    frame_interval_s: float | None = None
    dicom_origin: DicomOrigin | None = None
    lossy: tuple[Lossy, ...] = ()
    modality_is_guess: bool = False
    gradients: tuple[Gradient, ...] = ()
    quantity: str = ""
    header_fields: Mapping[str, Any] = field(default_factory=dict)
    time_points: tuple[int, int, int] | None = None
    sequence_kind: str = ""
    axes: exchange.Axes = "KJI"

    def __post_init__(self) -> None:
        voxels = np.asarray(self.voxels)
        name = self.source or "volume"
        if voxels.ndim not in (3, 4):
            raise InputError(
                f"{name}: {voxels.ndim} axes, shape {voxels.shape}",
                "Give voxels as [slice, row, column], or [frame, slice, row, column].",
            )
        if voxels.size == 0:
            raise InputError(f"{name}: zero size, shape {voxels.shape}", "Give at least one voxel.")
        if voxels.dtype.kind not in "iufb" or voxels.dtype.itemsize > 8:
            raise InputError(
                f"{name}: voxels of type {voxels.dtype}", "Convert to integers, or to float64."
            )
        if self.modality not in PROFILES:
            raise InputError(
                f"{name}: {self.modality!r} is no modality",
                f"{did_you_mean(self.modality, PROFILES)}Use one of {', '.join(PROFILES)}.",
            )
        frames = voxels.shape[0] if voxels.ndim == 4 else 1
        if len(self.gradients) not in (0, frames):
            raise InputError(
                f"{name}: {len(self.gradients)} diffusion gradients for {frames} frames",
                "Give one for each frame, or none.",
            )
        if self.sequence_kind not in ("", *KINDS):
            fault = f"{name}: {self.sequence_kind!r} is no kind of sequence"
            raise InputError(fault, f"Use one of {', '.join(KINDS)}.")
        kind = (DIFFUSION if self.gradients else self.sequence_kind) if frames > 1 else ""
        object.__setattr__(self, "sequence_kind", kind)
        view = voxels.view()
        view.flags.writeable = False
        object.__setattr__(self, "voxels", view)
        object.__setattr__(self, "history", tuple(self.history))

    def __repr__(self) -> str:
        spacing = " × ".join(f"{value:.5g}" for value in self.geometry.spacing)
        name = f" from {self.source!r}" if self.source else ""
        step = f", {self.history[-1].partition(' by MedEnhance ')[0]}" if self.history else ""
        return f"<Volume{name}: {self.modality} {self.shape} {self.dtype}, {spacing} mm{step}>"

    @classmethod
    def from_array(
        cls,
        array: exchange.ArrayLike,
        *,
        affine: npt.ArrayLike | None = None,
        spacing: npt.ArrayLike | None = None,
        axes: exchange.Axes | None = None,
        modality: str | None = None,
        units: str | None = None,
    ) -> Volume:
        """Copy an array or tensor [slice, row, column] (axes="IJK": [column, row, slice]).

        Args:
            array: with frames [frame, slice, row, column], or [column, row, slice, frame].
            affine: 4×4, (column, row, slice) → mm in RAS; or spacing.
            spacing: mm between columns, rows and slices, in this order whatever the axes.
            axes: "IJK" for arrays of nibabel and TorchIO, "KJI" for those of SimpleITK; None: KJI,
                with a warning if the array is more likely IJK.
            modality: "CT", "MR" …; None: guessed from the values.
            units: of the intensities; None: HU for CT, else "".
        Raises:
            InputError: neither or both of affine and spacing; a wrong number of axes.
            GeometryError: no valid grid.
        """
        image = exchange.from_array(array, affine=affine, spacing=spacing, axes=axes)
        volume = cls._of(image, modality)
        return volume if units is None else replace(volume, units=units)

    @classmethod
    def from_sitk(cls, image: SimpleITK.Image, *, modality: str | None = None) -> Volume:
        """Copy a SimpleITK image of 3 axes; InputError for other axes or several values a voxel."""
        return cls._of(exchange.from_sitk(image), modality)

    @classmethod
    def from_nibabel(cls, image: nibabel.Nifti1Image, *, modality: str | None = None) -> Volume:
        """Copy a nibabel image, [I, J, K] or [I, J, K, T], with its scale factors applied.

        Raises GeometryError for a sheared grid.
        """
        return cls._of(exchange.from_nibabel(image), modality)

    @classmethod
    def from_metatensor(cls, tensor: MetaTensor, *, modality: str | None = None) -> Volume:
        """Copy a MONAI MetaTensor [1, I, J, K] or [I, J, K]; InputError for channels or a batch."""
        return cls._of(exchange.from_metatensor(tensor), modality)

    @classmethod
    def _of(cls, image: exchange.Image, modality: str | None) -> Volume:
        """Make a volume; if `modality` is None, it is guessed from the values."""
        interval = image.frame_interval_s
        volume = cls(image.voxels, image.geometry, frame_interval_s=interval, axes=image.axes)
        stated = modality and in_their_case(modality, PROFILES)
        resolved = stated or guess_modality(volume.voxels, volume.geometry.spacing)
        units = profile_of(resolved).units
        return replace(volume, modality=resolved, modality_is_guess=modality is None, units=units)

    def to_sitk(self) -> SimpleITK.Image:
        """Make a SimpleITK image; raises InputError for a sequence."""
        return exchange.to_sitk(self.single().voxels, self.geometry)

    def to_nibabel(self) -> nibabel.Nifti1Image:
        """Make a nibabel Nifti1Image, in the order [I, J, K], a sequence [I, J, K, T]."""
        return exchange.to_nibabel(self.voxels, self.geometry, self.frame_interval_s)

    def to_metatensor(self) -> MetaTensor:
        """Copy into a MONAI MetaTensor [1, I, J, K]; InputError for a sequence."""
        return exchange.to_metatensor(self.single().voxels, self.geometry)

    def plot(
        self,
        *,
        point: tuple[int, int, int] | None = None,
        window: tuple[float, float] | None = None,
        frame: int | None = None,
    ) -> Picture:
        """Draw an axial, a coronal and a sagittal plane with orientation letters, for notebooks.

        Args:
            point: (slice, row, column) that they go through; None: median of the foreground.
            window: lowest and highest intensity shown; None: from the voxels.
            frame: of a sequence, from 0; None: the first that is not constant, in diffusion of
                those with the highest b-value.
        """
        from MedEnhanceLib.report.figures import Pane, comparison

        title = "Labels" if self.profile.is_labels else self.modality
        return comparison([Pane(title, self)], point=point, window=window, frame=frame)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `voxels`."""
        return tuple(self.voxels.shape)

    @property
    def ndim(self) -> int:
        """The number of axes of `voxels`: 3, or 4 with frames."""
        return self.voxels.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of `voxels`."""
        return self.voxels.dtype

    @property
    def array(self) -> Voxels:
        """The voxels, read-only: [slice, row, column], as SimpleITK's GetArrayFromImage."""
        return self.voxels

    def numpy(self) -> Voxels:
        """Copy the voxels into an array that may be changed.

        [slice, row, column], or in the axes of the array that the volume was made from.
        """
        return np.array(self.voxels.T if self.axes == "IJK" else self.voxels)

    @property
    def path(self) -> Path:
        """The path that it was read from, without the UID of its series; of none `Path("")`."""
        return Path(self.source.partition(" (series ")[0])

    @property
    def profile(self) -> Modality:
        """The properties of its modality."""
        return profile_of(self.modality)

    @property
    def is_sequence(self) -> bool:
        """Whether there is a frame axis."""
        return self.voxels.ndim == 4

    @property
    def nbytes(self) -> int:
        """Bytes of the raw voxels."""
        return int(self.voxels.nbytes)

    def with_voxels(self, voxels: Voxels, *, did: str = "") -> Volume:
        """Return the volume with new voxels on the same grid.

        Args:
            voxels: of the same spatial shape.
            did: an entry to add to the history.
        Raises:
            InputError: the spatial shape differs, so the geometry would no longer be correct.
        """
        if np.shape(voxels)[-3:] != self.shape[-3:]:
            raise InputError(
                f"new voxels have shape {np.shape(voxels)}, the volume {self.shape}",
                "Keep the grid, or make a new Volume with its own geometry.",
            )
        is_by_frame = np.shape(voxels)[:-3] == self.shape[:-3]
        return replace(
            self,
            voxels=voxels,
            history=self.history + ((did,) if did else ()),
            gradients=self.gradients if is_by_frame else (),
            sequence_kind=self.sequence_kind if is_by_frame else "",
        )

    def as_modality(self, modality: str) -> Volume:
        """Return the volume with this modality; if it differs, with its default units."""
        modality = in_their_case(modality, PROFILES)
        units = self.units if modality == self.modality else profile_of(modality).units
        return replace(self, modality=modality, units=units, modality_is_guess=False)

    def frame(self, index: int) -> Volume:
        """Return one frame of a sequence; a volume without frames is its own frame 0.

        Raises InputError where there is no frame of that index.
        """
        if not self.is_sequence:
            if index != 0:
                raise InputError(f"frame {index} of a volume that has one", "Use frame 0.")
            return self
        if not 0 <= index < self.shape[0]:
            raise InputError(f"frame {index} of a volume that has {self.shape[0]}", "Count from 0.")
        origin = self.dicom_origin
        start, _, count = self.time_points or (0, 0, self.shape[0])
        return replace(
            self,
            voxels=self.voxels[index],
            frame_interval_s=None,
            dicom_origin=origin and replace(origin, instances=origin.instances[index:][:1]),
            gradients=self.gradients[index : index + 1],
            time_points=(start + index, start + index + 1, count),
        )

    def single(self, hint: str = "Give one frame (in Python: volume.frame(0)).") -> Volume:
        """Return the volume without a frame axis, as a view.

        hint: of the InputError for a sequence of several frames.
        """
        if self.is_sequence and self.shape[0] > 1:
            name = self.source or "volume"
            raise InputError(f"{name}: a sequence of {self.shape[0]} frames", hint)
        return self.frame(0)

    def frames(self) -> list[Volume]:
        """Return all frames, in order (views, not copies)."""
        count = self.shape[0] if self.is_sequence else 1
        return [self.frame(index) for index in range(count)]

    def crop(
        self, k: slice = slice(None), j: slice = slice(None), i: slice = slice(None)
    ) -> Volume:
        """Crop every frame, as a view in its place: `volume.crop(k=slice(40, 60))`.

        Args:
            k: slices; negative numbers count from the end.
            j: rows.
            i: columns.
        Raises:
            InputError: a region is empty, or has a step.
        """
        parts: list[range] = []
        for axis, part, length in zip("kji", (k, j, i), self.shape[-3:], strict=True):
            indices = range(length)[part]
            if indices.step != 1 or not indices:
                raise InputError(
                    f"region {axis}={part.start}:{part.stop}:{part.step} of {length} voxels",
                    "Give a part with at least one voxel, without a step.",
                )
            parts.append(indices)
        planes, rows, columns = parts
        # The DICOM images that a volume came from are whole slices.
        is_whole = (len(rows), len(columns)) == self.shape[-2:]
        origin = self.dicom_origin if is_whole else None
        k, j, i = (slice(part.start, part.stop) for part in parts)
        return replace(
            self,
            voxels=self.voxels[..., k, j, i],
            geometry=self.geometry.cropped((planes.start, rows.start, columns.start)),
            dicom_origin=origin and origin.cropped(planes.start, planes.stop),
        )

    def canonical(self) -> Volume:
        """Return a view in canonical order (`Geometry.turn`); its origin is that of the stored."""
        return self._turned(self.geometry.turn)

    def upright(self) -> Volume:
        """Return the same in the order of axial images (`Geometry.upright_turn`)."""
        return self._turned(self.geometry.upright_turn)

    def _turned(self, turn: AxisTurn) -> Volume:
        geometry = self.geometry.turned(turn, self.shape)
        return replace(self, voxels=turn.apply(self.voxels), geometry=geometry)

    def compact(self, scratch: Path | None = None) -> Volume:
        """Return the volume with voxels in C order; if need be a copy, as `empty` makes it."""
        if self.voxels.flags.c_contiguous:
            return self
        voxels = empty(self.shape, self.dtype, scratch)
        for to, part in zip(slabs(voxels), slabs(self.voxels), strict=True):
            to[...] = part
        return self.with_voxels(voxels)

    @property
    def spacing(self) -> Triple:
        """Spacing in mm along (i, j, k) = (column, row, slice), as SimpleITK's GetSpacing.

        The reverse of the order of `shape`.
        """
        return self.geometry.spacing

    @property
    def origin(self) -> Triple:
        """Center of the first voxel, (x, y, z) in mm, LPS, as SimpleITK's GetOrigin."""
        return self.geometry.origin

    @property
    def direction(self) -> tuple[Triple, Triple, Triple]:
        """3×3, row by row; columns are the unit vectors of i, j, k in LPS, as GetDirection."""
        return self.geometry.direction

    @property
    def affine(self) -> Doubles:
        """4×4, (i, j, k) → mm in RAS, as NIfTI, nibabel and Slicer; `origin` is in LPS."""
        return self.geometry.affine_ras

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Voxels:
        """Return the voxels, read-only unless copied."""
        if copy or (dtype is not None and np.dtype(dtype) != self.dtype):
            if copy is False:
                raise ValueError(f"converting {self.dtype} voxels to {dtype} needs a copy")
            return np.array(self.voxels, dtype)
        return self.voxels

    def is_equal(self, other: Volume) -> bool:
        """Return whether voxels (values and type) and geometry are the same, bit for bit."""
        return (
            self.dtype == other.dtype
            and self.geometry == other.geometry
            and np.array_equal(self.voxels, other.voxels)
        )


#: What every function of a volume takes: `as_volume` converts what is in memory, and
#: `io.load` reads what is named.
ImageLike = (
    Volume | PathLike | exchange.ArrayLike | exchange.ImageOfNibabel | exchange.ImageOfSimpleITK
)


def _is_image(data: Any) -> bool:
    package = type(data).__module__.partition(".")[0]
    return isinstance(data, Volume) or hasattr(data, "affine") or package == "SimpleITK"


def is_array(data: Any) -> bool:
    """Return whether it is an array or tensor, of NumPy, PyTorch, Dask, Zarr, h5py or others.

    Those behind images of nibabel are, too; images with a geometry of their own are not.
    """
    return not _is_image(data) and hasattr(data, "__array__") and hasattr(data, "dtype")


def as_volume(
    data: Any,
    *,
    affine: npt.ArrayLike | None = None,
    spacing: npt.ArrayLike | None = None,
    axes: exchange.Axes | None = None,
    modality: str | None = None,
    warn: Callable[[Text], None] = exchange.log_warning,
) -> Volume:
    """Convert an image in memory to a Volume; a Volume is returned as it is.

    Args:
        data: a Volume, a SimpleITK or nibabel image, a MONAI MetaTensor, or an array (NumPy, Dask,
            Zarr, h5py and others that NumPy can read) or tensor.
        affine: for arrays, as in `Volume.from_array`.
        spacing: likewise.
        axes: likewise.
        modality: instead of that of the data.
        warn: is called with warnings of the order of an array's axes.
    Raises InputError for another type, and for an array without affine or spacing.
    """
    package = type(data).__module__.partition(".")[0]
    readers = {
        "SimpleITK": Volume.from_sitk,
        "nibabel": Volume.from_nibabel,
        "monai": Volume.from_metatensor,
    }
    if _is_image(data) and not (affine is None and spacing is None and axes is None):
        raise ConfigError(
            f"affine, spacing or axes given for a {type(data).__name__}, which has its own",
            "Leave them out, or give its array alone.",
        )
    if isinstance(data, Volume):
        return data.as_modality(modality) if modality else data
    if is_array(data):
        image = exchange.from_array(data, affine=affine, spacing=spacing, axes=axes, warn=warn)
        return Volume._of(image, modality)
    if package in readers:
        return readers[package](data, modality=modality)
    is_result = isinstance(getattr(data, "volume", None), Volume)
    raise InputError(
        f"an object of type {type(data).__name__} is not a volume",
        "Give its .volume."
        if is_result
        else "Give a Volume, a path, a SimpleITK or nibabel image, a MONAI MetaTensor, or an array "
        "with spacing=.",
    )


def restore_dtype(values: npt.NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Voxels:
    """Round floats to nearest even and clip them to a type; MedEnhanceError for NaN in integers."""
    if dtype.kind == "f":
        return values.astype(dtype, copy=False)
    if np.isnan(values).any():
        raise MedEnhanceError(
            f"the result holds NaN and cannot be written as {dtype}",
            "Check the input for extreme values, or keep the result as float32.",
        )
    if dtype.kind == "b":
        return values >= 0.5
    limits = np.iinfo(dtype)
    # float32 cannot hold the largest int32; clip in float64 where the type is wide.
    wide = values.astype(np.float64) if limits.bits > 16 else values
    rounded = np.rint(wide)
    with np.errstate(invalid="ignore"):
        result = np.clip(rounded, limits.min, limits.max).astype(dtype)
    if limits.bits == 64:  # floats cannot hold the largest of these
        result[rounded >= float(limits.max)] = limits.max
    return result

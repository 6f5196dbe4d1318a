"""The volume: voxels with their geometry and meaning."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin, Lossy
from MedEnhanceLib.errors import InputError, MedEnhanceError

Voxels = npt.NDArray[Any]

#: Modalities that the library distinguishes; OT is DICOM's term for "other".
MODALITIES = ("CT", "MR", "PT", "EM", "SEG", "OT")


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their geometry; immutable.

    voxels: [K, J, I] = slice, row, column; a leading frame axis, [T, K, J, I], makes a sequence.
        Any integer or floating type but complex; the array is held as a read-only view.
    geometry: shared by all frames.
    modality: one of MODALITIES.
    units: of the intensities: "HU" for CT, "SUV" for PET, "" where they are arbitrary.
    source: a path or series, for messages and provenance.
    history: processing since then, oldest first; empty for an original.
    frame_interval_s: seconds between frames of a sequence, where known.
    origin: the DICOM images that it was read from, if any.
    lossy: the lossy compressions of the voxels, oldest first.
    modality_is_guess: whether `modality` comes from the values, as the file states none.

    Raises InputError for zero size, a wrong number of axes, or a type without intensities.
    NaN and infinity are refused where files are read (io.load): finding them takes a pass.
    """

    voxels: Voxels
    geometry: Geometry = field(default_factory=Geometry)
    modality: str = "OT"
    units: str = ""
    source: str = ""
    history: tuple[str, ...] = ()
    frame_interval_s: float | None = None
    origin: DicomOrigin | None = None
    lossy: tuple[Lossy, ...] = ()
    modality_is_guess: bool = False

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
        if voxels.dtype.kind not in "iufb":
            raise InputError(
                f"{name}: voxels of type {voxels.dtype}", "Convert to integers or floats."
            )
        if self.modality not in MODALITIES:
            raise InputError(
                f"{name}: modality {self.modality!r}", f"Use one of {', '.join(MODALITIES)}."
            )
        view = voxels.view()
        view.flags.writeable = False
        object.__setattr__(self, "voxels", view)
        object.__setattr__(self, "history", tuple(self.history))

    def __repr__(self) -> str:
        spacing = " × ".join(f"{value:.5g}" for value in self.geometry.spacing)
        name = f" {self.source!r}" if self.source else ""
        return f"<Volume{name}: {self.modality} {self.shape} {self.dtype}, {spacing} mm>"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `voxels`."""
        return tuple(self.voxels.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of `voxels`."""
        return self.voxels.dtype

    @property
    def is_sequence(self) -> bool:
        """Whether there is a frame axis."""
        return self.voxels.ndim == 4

    @property
    def nbytes(self) -> int:
        """Bytes of the raw voxels."""
        return int(self.voxels.nbytes)

    def with_voxels(self, voxels: Voxels, *, did: str = "") -> Volume:
        """The volume with new voxels on the same grid.

        Args:
            voxels: of the same spatial shape.
            did: added to the history.
        Raises:
            InputError: the spatial shape differs, so the geometry would no longer be correct.
        """
        if np.shape(voxels)[-3:] != self.shape[-3:]:
            raise InputError(
                f"new voxels have shape {np.shape(voxels)}, the volume {self.shape}",
                "Keep the grid, or make a new Volume with its own geometry.",
            )
        return replace(self, voxels=voxels, history=self.history + ((did,) if did else ()))

    def frame(self, index: int) -> Volume:
        """One frame of a sequence as a volume; a volume without frames is its own frame 0."""
        if not self.is_sequence:
            if index != 0:
                raise InputError(f"frame {index} of a volume that has one", "Use frame 0.")
            return self
        if not 0 <= index < self.shape[0]:
            raise InputError(f"frame {index} of a volume that has {self.shape[0]}", "Count from 0.")
        origin = self.origin and replace(self.origin, instances=self.origin.instances[index:][:1])
        return replace(self, voxels=self.voxels[index], frame_interval_s=None, origin=origin)

    def frames(self) -> list[Volume]:
        """All frames, in order (views, not copies)."""
        count = self.shape[0] if self.is_sequence else 1
        return [self.frame(index) for index in range(count)]

    def cropped(self, first: int, stop: int) -> Volume:
        """The slices `first` to `stop` (exclusive) of every frame, where they are (a view)."""
        return replace(
            self,
            voxels=self.voxels[..., first:stop, :, :],
            geometry=self.geometry.cropped((first, 0, 0)),
            origin=self.origin and self.origin.cropped(first, stop),
        )

    def is_equal(self, other: Volume) -> bool:
        """Whether voxels (values and type) and geometry are the same, bit for bit."""
        return (
            self.dtype == other.dtype
            and self.geometry == other.geometry
            and np.array_equal(self.voxels, other.voxels)
        )


def restore_dtype(values: npt.NDArray[np.floating[Any]], dtype: np.dtype[Any]) -> Voxels:
    """Convert float results to the input's type: rounded to nearest even and clipped.

    Raises MedEnhanceError for NaN in an integer type.
    """
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
    if limits.bits == 64:
        return _clip_to_64_bit(rounded, limits, dtype)
    return np.clip(rounded, limits.min, limits.max).astype(dtype)


def _clip_to_64_bit(
    values: npt.NDArray[Any], limits: np.iinfo[Any], dtype: np.dtype[Any]
) -> Voxels:
    """Clip before the cast: floats cannot represent the largest 64-bit integers."""
    high = values >= float(limits.max)
    low = values <= float(limits.min)
    result = np.where(high | low, 0, values).astype(dtype)
    result[high], result[low] = limits.max, limits.min
    return result

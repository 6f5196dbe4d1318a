"""Header of a container: written as JSON, validated when read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.diffusion_gradients import Gradient
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.options import fits
from MedEnhanceLib.core.origin import DicomOrigin, Lossy
from MedEnhanceLib.core.sequence_kind import known_kind
from MedEnhanceLib.core.volume import MODALITIES, Volume
from MedEnhanceLib.errors import CodecError, GeometryError
from MedEnhanceLib.unicompress.blocks import Grid

#: The types that a container can hold, all little-endian.
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
MODES = ("lossless", "max_error", "ratio", "psnr")
#: Lossy Image Compression Method (DICOM) of our lossy modes, for which DICOM has no term.
LOSSY_METHOD = "MEDENHANCE_UCV"

_LARGEST_EXTENT = 1 << 31
_LARGEST_BLOCK = 1 << 24
_MOST_BLOCKS = 1 << 16
_LARGEST_RATIO = 1e300
_HASH = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"[0-9.]{1,64}")
#: Smallest and largest finite voxel; None where there is none.
VoxelRange = tuple[float, float] | None


@dataclass(frozen=True)
class Header:
    """All of a volume but its voxels; fields are those of docs/ucv-format.md, section 2.

    Attributes:
        target: {} or {mode: number}, the bound, ratio or quality of the mode.
        blocks: along k, j, i.
        range: smallest and largest finite voxel of the source.
        voxels_sha256: of the voxels that a reader gets, little-endian, in C order.
        exact: whether every machine gets these bits (else the last bit of a lossy code may differ).
        measured: what was reached: {"max_error": …, "psnr_db": …, "psnr_peak": …}.
        encoder: what wrote the file.
        models: those that its block types need: role → {"id", "sha256"}.
        lossy: the lossy steps before this one.
        dicom: `study` and `series`, instance UIDs of the images that the voxels came from, or
            nothing.
        gradients: [b, x, y, z] for each frame of a diffusion sequence, s/mm² and LPS.
        quantity: that of the volume, "" for intensities.
        sequence_kind: as of a Volume.
        modality_is_guess: as of a Volume.
        header_fields: as of a Volume.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    geometry: Geometry
    modality: str
    units: str
    history: tuple[str, ...]
    frame_interval_s: float | None
    mode: str
    target: Mapping[str, float]
    blocks: tuple[int, int, int]
    range: VoxelRange
    voxels_sha256: str
    exact: bool
    measured: Mapping[str, float | None]
    encoder: str
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lossy: tuple[Lossy, ...] = ()
    dicom: Mapping[str, str] = field(default_factory=dict)
    gradients: tuple[tuple[float, ...], ...] = ()
    quantity: str = ""
    sequence_kind: str = ""
    modality_is_guess: bool = False
    header_fields: Mapping[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> Grid:
        """Grid of the volume's blocks."""
        return Grid(self.shape, self.blocks)

    @property
    def peak(self) -> float:
        """The full range, which PSNR is measured against; 0 where no voxel is finite."""
        return 0.0 if self.range is None else self.range[1] - self.range[0]

    @property
    def raw_bytes(self) -> int:
        """Bytes of the voxels as an array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def volume(
        self,
        voxels: Voxels,
        geometry: Geometry,
        source: str,
        file_bytes: int,
        frames: slice = slice(None),
    ) -> Volume:
        """Return decoded voxels, all or a part, as a volume with the facts in the header.

        If the file's mode lost anything, its step is added to the lossy ones before it. A DICOM
        source is known by its UIDs only, without its images.

        Args:
            voxels: [T,] K, J, I, decoded.
            geometry: of the part.
            source: path of the file.
            file_bytes: of the whole container: raw bytes over it are the ratio of the file's step.
            frames: of the part, all of them by default.
        """
        loses = self.mode != "lossless" and self.measured.get("max_error", 1.0)
        own_step = (Lossy(LOSSY_METHOD, self.raw_bytes / file_bytes),) if loses else ()
        study, series = (uid_or_nothing(self.dicom.get(key, "")) for key in ("study", "series"))
        return Volume(
            voxels,
            geometry,
            modality=self.modality,
            units=self.units,
            source=source,
            history=self.history,
            frame_interval_s=self.frame_interval_s,
            dicom_origin=DicomOrigin(study, series, (), on_grid=False) if series else None,
            lossy=self.lossy + own_step,
            quantity=self.quantity,
            sequence_kind=known_kind(self.sequence_kind),
            modality_is_guess=self.modality_is_guess,
            gradients=tuple(Gradient(b, (x, y, z)) for b, x, y, z in self.gradients[frames]),
            header_fields=self.header_fields,
            time_points=(*frames.indices(self.grid.frames)[:2], self.grid.frames),
        )

    def to_json(self) -> dict[str, Any]:
        """Convert to plain JSON; floats keep every bit, empty optional fields are left out."""
        fields = vars(self) | {
            "dtype": self.dtype.str,
            "geometry": self.geometry.to_json(),
            "lossy": [[step.method, step.ratio] for step in self.lossy],
        }
        return {key: value for key, value in fields.items() if value or key not in _OPTIONAL}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], name: str) -> Header:
        """Check and read the fields of a file; raises CodecError naming file and field.

        name: of the file. Unknown fields are ignored.
        """
        values = {key: fields[key] for key in _TYPES if key in fields}
        for key, hint in _TYPES.items():
            if key in _OPTIONAL and key not in values:
                continue
            rule = _RULES.get(key)
            if not fits(values.get(key, ...), hint) or (rule and not rule(values)):
                raise _refused(values, key, name)
        try:
            geometry = Geometry.from_json(values["geometry"])
        except GeometryError as cause:
            raise _refused(values, "geometry", name) from cause
        for key in ("shape", "history", "blocks", "range"):
            values[key] = None if values[key] is None else tuple(values[key])
        values["gradients"] = tuple(map(tuple, values.get("gradients", ())))
        steps = tuple(Lossy(method, float(ratio)) for method, ratio in values.get("lossy", ()))
        return cls(
            **values | {"dtype": np.dtype(values["dtype"]), "geometry": geometry, "lossy": steps}
        )


def _refused(fields: Mapping[str, Any], key: str, name: str) -> CodecError:
    value = repr(fields.get(key, "missing"))[:80]
    return CodecError(
        f"{name}: the header's field {key!r} cannot be used: {value}, before the first chunk",
        "Copy the file again.",
    )


def uid_or_nothing(text: str) -> str:
    """Return the text if it is a DICOM UID, else "": source headers may hold anything there."""
    return text if _UID.fullmatch(text) else ""


def _is_grid(fields: Mapping[str, Any]) -> bool:
    shape, counts = fields["shape"], fields["blocks"]
    if len(counts) != 3 or not all(1 <= c <= n for c, n in zip(counts, shape[-3:], strict=True)):
        return False
    grid = Grid(tuple(shape), tuple(counts))
    blocks = grid.frames * math.prod(counts)
    return blocks <= _MOST_BLOCKS and grid.largest_block <= _LARGEST_BLOCK


def _is_range(fields: Mapping[str, Any]) -> bool:
    """Return whether both ends are values of the type; none without a finite voxel."""
    ends, dtype = fields["range"], np.dtype(fields["dtype"])
    if ends is None:
        return bool(dtype.kind == "f")
    if len(ends) != 2:
        return False
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return bool(-largest <= ends[0] <= ends[1] <= largest)
    limits = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    return fits(ends, list[int]) and int(limits.min) <= ends[0] <= ends[1] <= int(limits.max)


#: Field → its type in JSON, in the order in which they are checked.
_TYPES: dict[str, Any] = {
    "shape": list[int],
    "dtype": Literal[DTYPES],
    "geometry": dict[str, Any],
    "modality": Literal[MODALITIES],
    "units": str,
    "history": list[str],
    "frame_interval_s": float | None,
    "mode": Literal[MODES],
    "target": dict[str, float],
    "blocks": list[int],
    "range": list[float] | None,
    "voxels_sha256": str,
    "exact": bool,
    "measured": dict[str, float | None],
    "encoder": str,
    "models": dict[str, dict[str, str]],
    "lossy": list[list[Any]],
    "dicom": dict[str, str],
    "gradients": list[list[float]],
    "quantity": str,
    "sequence_kind": str,
    "modality_is_guess": bool,
    "header_fields": dict[str, Any],
}
_OPTIONAL = (
    "models", "lossy", "dicom", "gradients", "quantity", "sequence_kind", "modality_is_guess",
    "header_fields",
)  # fmt: skip
#: Further conditions on a field, checked after its type and the fields before it.
_RULES: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "shape": lambda fields: (
        len(fields["shape"]) in (3, 4)
        and all(1 <= extent <= _LARGEST_EXTENT for extent in fields["shape"])
    ),
    "blocks": _is_grid,
    "range": _is_range,
    "voxels_sha256": lambda fields: bool(_HASH.fullmatch(fields["voxels_sha256"])),
    "models": lambda fields: all(
        "id" in identity and bool(_HASH.fullmatch(identity.get("sha256", "")))
        for identity in fields["models"].values()
    ),
    "lossy": lambda fields: all(
        fits(tuple(step), tuple[str, float]) and abs(step[1]) < _LARGEST_RATIO
        for step in fields["lossy"]
    ),
    "gradients": lambda fields: (
        len(fields["gradients"]) == ([1] + fields["shape"])[-4]
        and all(len(gradient) == 4 for gradient in fields["gradients"])
    ),
}

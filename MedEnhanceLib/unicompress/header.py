"""What a container says about its volume: written as JSON, read with distrust."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.origin import DicomOrigin, Lossy
from MedEnhanceLib.core.volume import MODALITIES, Volume, Voxels
from MedEnhanceLib.errors import CodecError, GeometryError
from MedEnhanceLib.unicompress.blocks import Grid

#: The types that a container holds, in the order of their bytes in memory: little-endian.
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
MODES = ("lossless", "max_error", "ratio", "psnr", "ssim")
#: The method of our lossy modes in DICOM; its own terms know none of them.
LOSSY_METHOD = "MEDENHANCE_UCV"

_LARGEST_EXTENT = 1 << 31
_LARGEST_BLOCK = 1 << 24
_MOST_BLOCKS = 1 << 20
_HASH = re.compile(r"[0-9a-f]{64}")
_UID = re.compile(r"[0-9.]{1,64}")
_HINT = "Copy the file again, or save what is intact (medenhance recover)."
Field = TypeVar("Field")
Kind = TypeVar("Kind")
#: Smallest and largest finite voxel; None where there is none.
VoxelRange = tuple[float, float] | None


@dataclass(frozen=True)
class Header:
    """Everything but the voxels.

    target: {} or {mode: number}, the bound, ratio or quality of the mode; "promise" in the file.
    voxel_range: smallest and largest finite voxel of the source.
    voxels_sha256: of the voxels that a reader gets, little-endian, in C order.
    exact: whether every machine gets these bits (else the last bit of a lossy code may differ).
    measured: what was reached: {"max_error": …, "psnr_db": …, "psnr_peak": …}.
    encoder: what wrote the file. models: what its block types need: role → {"id", "sha256"}.
    lossy: the lossy steps before this one. series, study: instance UIDs of the DICOM images that
    the voxels came from, or "".
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
    counts: tuple[int, int, int]
    voxel_range: VoxelRange
    voxels_sha256: str
    exact: bool
    measured: Mapping[str, float | None]
    encoder: str
    models: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lossy: tuple[Lossy, ...] = ()
    study: str = ""
    series: str = ""

    @property
    def grid(self) -> Grid:
        """How the volume is cut."""
        return Grid(self.shape, self.counts)

    @property
    def raw_bytes(self) -> int:
        """Bytes of the voxels as an array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def volume(self, voxels: Voxels, geometry: Geometry, source: str, file_bytes: int) -> Volume:
        """The volume, or a part of it, with all that the header knows.

        file_bytes: of the whole container, for the ratio of its own lossy step.
        """
        own = (Lossy(LOSSY_METHOD, self.raw_bytes / file_bytes),) if self.loses else ()
        return Volume(
            voxels,
            geometry,
            modality=self.modality,
            units=self.units,
            source=source,
            history=self.history,
            frame_interval_s=self.frame_interval_s,
            origin=DicomOrigin(self.study, self.series, (), on_grid=False) if self.series else None,
            lossy=self.lossy + own,
        )

    @property
    def loses(self) -> bool:
        """Whether any voxel differs from the source's."""
        return self.mode != "lossless" and bool(self.measured.get("max_error", 1.0))

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; floats keep every bit."""
        return {
            "shape": list(self.shape),
            "dtype": self.dtype.str,
            "geometry": self.geometry.to_json(),
            "modality": self.modality,
            "units": self.units,
            "history": list(self.history),
            "frame_interval_s": self.frame_interval_s,
            "mode": self.mode,
            "promise": dict(self.target),
            "blocks": list(self.counts),
            "range": None if self.voxel_range is None else list(self.voxel_range),
            "voxels_sha256": self.voxels_sha256,
            "exact": self.exact,
            "measured": dict(self.measured),
            "encoder": self.encoder,
            **({"models": {k: dict(v) for k, v in self.models.items()}} if self.models else {}),
            **({"lossy": [[step.method, step.ratio] for step in self.lossy]} if self.lossy else {}),
            **({"dicom": {"study": self.study, "series": self.series}} if self.series else {}),
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any], name: str) -> Header:
        """The inverse; every field is checked. Raises CodecError naming file and field.

        name: of the file. Fields that are unknown are left for a newer version to know.
        """
        read = _Reader(fields, name)
        header = cls(
            shape=read("shape", _shape),
            dtype=np.dtype(read("dtype", _one_of(DTYPES))),
            geometry=read("geometry", lambda value: Geometry.from_json(_object(value))),
            modality=read("modality", _one_of(MODALITIES)),
            units=read("units", _text),
            history=read("history", lambda value: tuple(_text(line) for line in _list(value))),
            frame_interval_s=read("frame_interval_s", _optional(_number)),
            mode=read("mode", _one_of(MODES)),
            target=read(
                "promise", lambda value: {k: _number(v) for k, v in _object(value).items()}
            ),
            counts=read("blocks", _counts),
            voxel_range=read("range", _optional(_range)),
            voxels_sha256=read("voxels_sha256", _hash),
            exact=read("exact", _flag),
            measured=read(
                "measured",
                lambda value: {k: _optional(_number)(v) for k, v in _object(value).items()},
            ),
            encoder=read("encoder", _text),
            models=read("models", _models, without={}),
            lossy=read("lossy", _lossy, without=[]),
            study=read("dicom", _uid("study"), without={}),
            series=read("dicom", _uid("series"), without={}),
        )
        read.check("blocks", all(1 <= c <= n for c, n in zip(header.counts, header.shape[-3:])))  # noqa: B905 - both are three
        read.check("blocks", header.grid.frames * math.prod(header.counts) <= _MOST_BLOCKS)
        read.check("blocks", header.grid.largest_block <= _LARGEST_BLOCK)
        read.check("range", _fits_type(header.voxel_range, header.dtype))
        return header


def memory_limit() -> int:
    """Bytes that a decoded volume may take: the memory of this machine, or 16 GiB if unknown."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 16 << 30


class _Reader:
    def __init__(self, fields: Mapping[str, Any], name: str) -> None:
        self._fields, self._name = fields, name

    def __call__(self, field: str, parse: Callable[[Any], Field], without: Any = None) -> Field:
        """The field as `parse` takes it; `without`: what an absent one stands for, if it may be."""
        if without is not None and field not in self._fields:
            return parse(without)
        try:
            return parse(self._fields[field])
        except (KeyError, ValueError, TypeError, OverflowError, GeometryError) as cause:
            value = repr(self._fields.get(field, "missing"))[:80]
            raise CodecError(
                f"{self._name}: the header's field {field!r} cannot be used: {value}, "
                "before the first chunk",
                _HINT,
            ) from cause

    def check(self, field: str, holds: bool) -> None:
        def verdict(value: Any) -> None:
            if not holds:
                raise ValueError(value)

        self(field, verdict)


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(_whole(extent) for extent in _list(value))
    if len(shape) not in (3, 4) or not all(1 <= extent <= _LARGEST_EXTENT for extent in shape):
        raise ValueError(shape)
    return shape


def _counts(value: Any) -> tuple[int, int, int]:
    k, j, i = (_whole(count) for count in _list(value))
    return k, j, i


def _fits_type(voxel_range: VoxelRange, dtype: np.dtype[Any]) -> bool:
    if voxel_range is None:
        return dtype.kind == "f"
    low, high = voxel_range
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return -largest <= low <= high <= largest
    limits = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    whole = type(low) is int and type(high) is int
    return whole and int(limits.min) <= low <= high <= int(limits.max)


def _range(value: Any) -> VoxelRange:
    low, high = (_number(bound) for bound in _list(value))
    return low, high


def _models(value: Any) -> dict[str, dict[str, str]]:
    named = {}
    for role, identity in _object(value).items():
        fields = _object(identity)
        named[role] = {"id": _text(fields["id"]), "sha256": _hash(fields["sha256"])}
    return named


def _lossy(value: Any) -> tuple[Lossy, ...]:
    return tuple(Lossy(_text(method), float(_number(ratio))) for method, ratio in _list(value))


def _uid(which: str) -> Callable[[Any], str]:
    return lambda value: uid_or_nothing(_text(_object(value).get(which, "")))


def uid_or_nothing(text: str) -> str:
    """The text where it is a DICOM UID, else ""; headers hold all sorts of things in its place."""
    return text if _UID.fullmatch(text) else ""


def _of(kind: type[Kind]) -> Callable[[Any], Kind]:
    """Values of that type alone: no bool for an int, no int for a float."""

    def parse(value: Any) -> Kind:
        if type(value) is not kind:
            raise TypeError(value)
        return value

    return parse


_whole, _text, _flag = _of(int), _of(str), _of(bool)
_list: Callable[[Any], list[Any]] = _of(list)
_object: Callable[[Any], dict[str, Any]] = _of(dict)


def _number(value: Any) -> float:
    # An integer stays one: 64 bits do not fit a float.
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return value
    raise TypeError(value)


def _hash(value: Any) -> str:
    if not _HASH.fullmatch(_text(value)):
        raise ValueError(value)
    return str(value)


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(value)
        return str(value)

    return parse


def _optional(parse: Callable[[Any], Field]) -> Callable[[Any], Field | None]:
    return lambda value: None if value is None else parse(value)

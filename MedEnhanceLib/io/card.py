"""What a volume is, at a glance and as JSON: what `inspect` shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume

_LETTERS = ("LR", "PA", "SI")
#: Above this ratio of spacings, methods work slice by slice.
_ANISOTROPIC = 3.0
_MICROSCOPY_MM = 1e-3


def card(volume: Volume, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Describe a volume by plain JSON values.

    path: the file it came from, to tell its size on disk; a folder counts what is in it.
    Spacing in mm, range in the volume's units, shape as [K, J, I] or [T, K, J, I].
    """
    voxels = volume.voxels
    low, high = voxels.min(), voxels.max()
    described: dict[str, Any] = {
        "source": volume.source,
        "modality": volume.modality,
        "units": volume.units,
        "shape": list(volume.shape),
        "frames": volume.shape[0] if volume.is_sequence else 1,
        "frame_interval_s": volume.frame_interval_s,
        "spacing": list(volume.geometry.spacing),
        "size_mm": _size_mm(volume),
        "orientation": orientation_code(volume.geometry),
        "geometry": plain_geometry(volume.geometry),
        "dtype": str(volume.dtype),
        "range": [low.item(), high.item()],
        "bytes": volume.nbytes,
        "history": list(volume.history),
        "derived": bool(volume.history),
        "warnings": _warnings(volume, constant=bool(low == high)),
    }
    if path is not None:
        described["path"] = str(path)
        described["file_bytes"] = _file_bytes(Path(path))
    return described


def orientation_code(geometry: Geometry) -> str:
    """Where i, j and k point to, one letter each, as ITK writes it: "LPS" is DICOM's usual."""
    direction = np.asarray(geometry.direction)
    letters = ["", "", ""]
    left = np.abs(direction)
    for _ in range(3):  # the clearest axis first, so that an oblique one cannot take its letter
        axis, column = np.unravel_index(int(left.argmax()), left.shape)
        letters[column] = _LETTERS[axis][0 if direction[axis, column] > 0 else 1]
        left[axis, :] = left[:, column] = -1
    return "".join(letters)


def plain_geometry(geometry: Geometry) -> dict[str, Any]:
    """The geometry for people: without the sign of a zero, which headers keep and nobody needs."""
    return {name: _plain(value) for name, value in geometry.to_json().items()}


def _plain(value: Any) -> Any:
    return [_plain(entry) for entry in value] if isinstance(value, list) else value + 0.0


def _size_mm(volume: Volume) -> list[float]:
    spacing = volume.geometry.spacing
    return [count * step for count, step in zip(volume.shape[:-4:-1], spacing, strict=True)]


def _warnings(volume: Volume, *, constant: bool) -> list[str]:
    spacing, direction = volume.geometry.spacing, np.abs(np.asarray(volume.geometry.direction))
    angle = float(np.degrees(np.arccos(min(1.0, direction.max(axis=0).min()))))
    facts = {
        "all voxels are equal": constant,
        "one slice only": volume.shape[-3] == 1,
        f"anisotropic: slices are {max(spacing) / min(spacing):.1f} times as thick as pixels": max(
            spacing
        )
        > _ANISOTROPIC * min(spacing),
        "microscopy: spacing below 1 µm": min(spacing) < _MICROSCOPY_MM,
        f"oblique: up to {angle:.1f}° off the patient's axes": angle > 0.1,
        "left-handed axes": not volume.geometry.is_right_handed,
    }
    return [fact for fact, holds in facts.items() if holds]


def _file_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())

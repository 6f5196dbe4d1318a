"""Reading and writing of arrays of NumPy, with geometry and history in a sidecar."""

from __future__ import annotations

import io
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.voxels import Payload, read_start, read_voxels, readable, written_type
from MedEnhanceLib.runtime.progress import Monitor

SIDECAR = ".geometry.json"
_LONGEST_HEADER, _LONGEST_SIDECAR = 10_000, 1 << 20


def read_npy(path: Path, monitor: Monitor, scratch: Path | None) -> tuple[Volume, tags.Tags]:
    """Read the volume of a .npy file; errors as those of `read_nifti`.

    Args:
        path: of the file.
        monitor: receives progress; may cancel.
        scratch: folder for large arrays; None: they are in memory.
    """
    start, is_packed = read_start(path, _LONGEST_HEADER)
    stream = io.BytesIO(start)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not version 1.0")
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        if is_fortran or len(shape) not in (3, 4) or min(shape) < 1:
            raise ValueError(f"shape {shape}, Fortran order: {is_fortran}")
        if dtype.kind not in "iuf" or dtype.itemsize > 8:
            raise ValueError(f"type {dtype}")
    except (ValueError, SyntaxError, TokenError) as cause:
        raise InputError(f"{path.name}: {cause}", "Save numbers [K, J, I] in C order.") from cause
    sidecar = path.with_name(path.name[: -len(".npy")] + SIDECAR)
    with readable(sidecar) as file:
        facts = tags.from_text(file.read(_LONGEST_SIDECAR).decode("utf-8", "replace"))
    if facts.geometry is None:
        raise InputError(f"{sidecar.name} states no geometry", "Convert the volume again.")
    voxels = read_voxels(
        Payload(path, shape, dtype, is_packed, skip=stream.tell()), monitor, scratch
    )
    interval = facts.frame_interval_s if len(shape) == 4 else None
    return Volume(voxels, facts.geometry, source=str(path), frame_interval_s=interval), facts


def npy_header(volume: Volume, _monitor: Monitor) -> tuple[bytes, np.dtype[Any]]:
    """Make the header of a .npy file, and the type of its voxels."""
    stream, dtype = io.BytesIO(), written_type(volume.dtype)
    fields = {"descr": dtype.newbyteorder("<").str, "fortran_order": False, "shape": volume.shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue(), dtype


def npy_sidecar(volume: Volume) -> dict[str, str]:
    """Make the text of the sidecar, by its ending."""
    return {SIDECAR: tags.to_text(volume)}

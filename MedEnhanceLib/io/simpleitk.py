"""NRRD and MetaImage through SimpleITK, after `headers` has checked their text headers."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import GeometryError, InputError, OutputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.headers import meta_layout, nrrd_layout
from MedEnhanceLib.io.payload import read_voxels
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

_HEADER_ROOM = 1 << 16


def read_itk(path: Path, monitor: Monitor, scratch: Path | None = None) -> tuple[Volume, tags.Tags]:
    """The volume of a .nrrd, .mha or .mhd file, and what our key in its header says about it.

    SimpleITK says where the voxels lie in the patient; the voxels themselves are read as for
    NIfTI, with their checksum, which ITK does not look at. scratch: as `read_voxels` takes it.
    """
    is_nrrd = path.suffix.lower() == ".nrrd"
    layout = nrrd_layout(path, monitor) if is_nrrd else meta_layout(path)
    voxels = read_voxels(layout.payload, monitor, scratch)
    if layout.frame_axis is not None:
        voxels = np.moveaxis(voxels, layout.frame_axis, 0)
    header = _read_header(path)
    key = tags.KEY if header.HasMetaDataKey(tags.KEY) else None
    found = tags.from_text(header.GetMetaData(key)) if key else tags.Tags()
    volume = Volume(
        voxels,
        _geometry(header, layout.mm, found, path.name),
        source=str(path),
        frame_interval_s=found.frame_interval_s if voxels.ndim == 4 else None,
    )
    return volume, found


def _read_header(path: Path) -> Any:
    sitk = require("SimpleITK", purpose=f"Reading {path.suffix} files")
    reader = sitk.ImageFileReader()
    # Named, because ITK does not know a .MHA in capitals.
    reader.SetImageIO("NrrdImageIO" if path.suffix.lower() == ".nrrd" else "MetaImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as cause:
        raise InputError(
            f"{path.name}: its header cannot be read: {_last_line(cause)}", "Export it again."
        ) from cause
    return reader


def write_itk(volume: Volume, path: Path, monitor: Monitor, parts: Iterable[Voxels]) -> None:
    """Write an uncompressed .nrrd or .mha to `path`; OSError or OutputError where that fails.

    parts: the voxels of `volume`, as runs of slices [n, J, I]; its own are not looked at, so that
    a large volume need not be in memory.
    """
    header = _header_for(volume, path)
    with path.open("wb") as stream:
        stream.write(header)
        for part in parts:
            monitor.check()
            stream.write(np.ascontiguousarray(part, part.dtype.newbyteorder("=")).data)


def _header_for(volume: Volume, path: Path) -> bytes:
    """What ITK writes before the voxels: of a single voxel, with the sizes of the volume."""
    sitk = require("SimpleITK", purpose=f"Writing {path.suffix} files")
    axes = len(volume.shape)
    one = np.zeros((1,) * axes, volume.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(one, isVector=False)
    direction = np.eye(axes)
    direction[:3, :3] = volume.geometry.direction
    image.SetSpacing([*volume.geometry.spacing, volume.frame_interval_s or 1.0][:axes])
    image.SetOrigin([*volume.geometry.origin, 0.0][:axes])
    image.SetDirection(direction.ravel().tolist())
    image.SetMetaData(tags.KEY, tags.to_text(volume))
    try:
        sitk.WriteImage(image, str(path), useCompression=False)
    except RuntimeError as cause:
        if shutil.disk_usage(path.parent).free < _HEADER_ROOM:  # ITK does not say it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from cause
        raise OutputError(f"{path.name} cannot be written: {_last_line(cause)}") from cause
    header = path.read_bytes()[: -one.nbytes]
    sizes = " ".join(map(str, volume.shape[::-1])).encode()
    header, found = re.subn(rb"(?m)^(sizes: |DimSize = )[1 ]+$", rb"\g<1>" + sizes, header, count=1)
    assert found == 1, "ITK writes no sizes"
    return header


def _geometry(header: Any, mm: float, found: tags.Tags, name: str) -> Geometry:
    axes = header.GetDimension()
    direction = np.asarray(header.GetDirection()).reshape(axes, axes)[:3, :3]
    try:
        read = Geometry(
            tuple(value * mm for value in header.GetSpacing()[:3]),
            tuple(value * mm for value in header.GetOrigin()[:3]),
            direction.tolist(),
        )
    except GeometryError as cause:
        raise GeometryError(f"{name}: {cause.message}", cause.hint) from cause
    # NRRD keeps spacing × direction, which costs the last bit; ours is exact, if nobody moved it.
    exact = found.geometry
    return exact if exact is not None and exact.is_close(read, 1e-12) else read


def _last_line(cause: RuntimeError) -> str:
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else "SimpleITK gives no reason"

"""NRRD and MetaImage through SimpleITK, after `headers` has checked them."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.dependencies import require
from MedEnhanceLib.errors import GeometryError, InputError, OutputError
from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.headers import Layout, check_meta, check_nrrd
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Volume, Voxels


def read_itk(path: Path, monitor: Monitor) -> tuple[Volume, tags.Tags]:
    """The volume of a .nrrd, .mha or .mhd file, and what our key in its header says about it."""
    check = check_nrrd if path.suffix.lower() == ".nrrd" else check_meta
    layout = check(path, monitor)
    sitk = require("SimpleITK", purpose=f"Reading {path.suffix} files")
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as cause:
        raise InputError(f"{path.name} cannot be read: {_last_line(cause)}") from cause
    found = tags.Tags()
    if image.HasMetaDataKey(tags.KEY):
        found = tags.from_text(image.GetMetaData(tags.KEY))
    voxels = _voxels(sitk, image, layout, path.name)
    volume = Volume(
        voxels,
        _geometry(image, layout, found, path.name),
        source=str(path),
        frame_interval_s=found.frame_interval_s if voxels.ndim == 4 else None,
    )
    return volume, found


def write_itk(volume: Volume, path: Path) -> None:
    """Write an uncompressed .nrrd or .mha to `path`; OSError or OutputError where that fails."""
    sitk = require("SimpleITK", purpose=f"Writing {path.suffix} files")
    voxels = np.ascontiguousarray(volume.voxels, volume.dtype.newbyteorder("="))
    image = sitk.GetImageFromArray(voxels, isVector=False)
    more = voxels.ndim - 3
    direction = np.eye(voxels.ndim)
    direction[:3, :3] = volume.geometry.direction
    image.SetSpacing([*volume.geometry.spacing, volume.frame_interval_s or 1.0][: 3 + more])
    image.SetOrigin([*volume.geometry.origin, 0.0][: 3 + more])
    image.SetDirection(direction.ravel().tolist())
    image.SetMetaData(tags.KEY, tags.to_text(volume))
    try:
        sitk.WriteImage(image, str(path), useCompression=False)
    except RuntimeError as cause:
        if shutil.disk_usage(path.parent).free < volume.nbytes:  # ITK does not say it
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from cause
        raise OutputError(f"{path.name} cannot be written: {_last_line(cause)}") from cause


def _voxels(sitk: Any, image: Any, layout: Layout, name: str) -> Voxels:
    """[K, J, I] or [T, K, J, I]; ITK gives a list axis as the components of a vector."""
    sizes = list(layout.sizes)
    if layout.frame_axis is not None:
        sizes.append(sizes.pop(layout.frame_axis))
    voxels: Voxels = sitk.GetArrayFromImage(image)
    count = image.GetNumberOfComponentsPerPixel()
    if layout.frame_axis is not None and count > 1:
        voxels = np.moveaxis(voxels, -1, 0)
    if voxels.dtype != layout.dtype or voxels.size != np.prod(sizes):
        raise InputError(f"{name}: SimpleITK reads it as {voxels.dtype} {voxels.shape}")
    return voxels.reshape(sizes[::-1])


def _geometry(image: Any, layout: Layout, found: tags.Tags, name: str) -> Geometry:
    axes = image.GetDimension()
    direction = np.asarray(image.GetDirection()).reshape(axes, axes)[:3, :3]
    try:
        read = Geometry(
            tuple(value * layout.mm for value in image.GetSpacing()[:3]),
            tuple(value * layout.mm for value in image.GetOrigin()[:3]),
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

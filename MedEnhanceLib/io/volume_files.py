"""Volumes from files and back, by the ending of the name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from MedEnhanceLib.core.modality import default_units, doubts, guess_modality
from MedEnhanceLib.core.slabs import blank, extremes, slabs
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.errors import ConfigError, EndingError, InputError, OutputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.describe import finite_parts, refuse_not_finite
from MedEnhanceLib.io.dicom import is_dicom, is_source, load_dicom
from MedEnhanceLib.io.nifti import read_nifti, write_nifti
from MedEnhanceLib.io.nrrd_metaimage import read_itk, write_itk
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.progress import Monitor

_READERS = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_itk,
    ".mha": read_itk,
    ".mhd": read_itk,
}
_WRITERS = {
    ".nii": write_nifti,
    ".nii.gz": write_nifti,
    ".nrrd": write_itk,
    ".mha": write_itk,
}
READABLE = tuple(_READERS)
WRITABLE = tuple(_WRITERS)
#: A DICOM file may have any name, and most have none of these.
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
_NO_HU = (
    "no value is below 0, as fat and air are in HU: if the values were rescaled, they are no HU any"
    " more, and models for CT do not fit them (convert the original again, without rescaling)"
)
#: What the formats lack, and the wider type that holds every value of it.
_WIDER = {"bool": "uint8", "float16": "float32"}


def ending_of(path: str | os.PathLike[str]) -> str:
    """The ending in lower case, with its dot; ".nii.gz" is one ending."""
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def load(
    path: str | os.PathLike[str],
    *,
    modality: str | None = None,
    series: str | None = None,
    resample: bool = False,
    scratch: Path | None = None,
    monitor: Monitor | None = None,
) -> Volume:
    """Read a volume: NIfTI, NRRD, MetaImage or DICOM.

    A DICOM series of frames becomes [T, K, J, I]. A segmentation becomes labels if it is named by
    `series` or if there is nothing else. Color is refused.

    Args:
        path: a NIfTI, NRRD or MetaImage file; of DICOM a folder, file, DICOMDIR or list.
        modality: overrides what the header says; without either it is guessed, with a warning.
            Ignored for segmentations.
        series: one DICOM series of several, by UID or by its number in `list_series`.
        resample: resample a DICOM series with a tilted gantry, gaps or uneven spacing, which is
            refused otherwise, to an even rectangular grid; the history says so.
        scratch: a folder with free space; if given, the voxels of large NIfTI, NRRD and MetaImage
            files stay on disk: in the file, which must not change meanwhile, or unpacked there.
        monitor: notified of warnings and progress; may cancel.
    Returns:
        The volume; its voxels are finite.
    Raises:
        InputError: not a volume, damaged, ambiguous, or not finite (GeometryError: no valid place).
        ConfigError: `series` for a file that has none.
    """
    path, monitor = Path(path), monitor or Monitor()
    refuse_pipe(path)
    is_folder = path.is_dir()
    if not is_folder and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)", "Copy or download the file again.")
    ending = ending_of(path)
    read = _READERS.get(ending)
    if is_folder or (
        read is None and (ending in _DICOM_ENDINGS or is_dicom(path) or is_source(path))
    ):
        volume = load_dicom(
            path, modality=modality, series=series, resample=resample, monitor=monitor
        )
    elif read is not None:
        if series is not None:
            raise ConfigError(f"{path.name} is no DICOM and has no series", "Leave series out.")
        volume = _meaning(*read(path, monitor, scratch), modality, monitor)
    else:
        raise InputError(
            f"{path.name}: files that end in {ending_of(path) or 'nothing'} cannot be read",
            f"Give DICOM (a folder or a file; a zip unpacked), or one of: {', '.join(READABLE)}.",
        )
    refuse_not_finite(volume)
    for text, about in doubts(volume, path.name):
        monitor.warn(text, about=about)
    return volume


def save(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> None:
    """Write a volume in the format that the ending of `path` names, completely or not at all.

    .nii and .nii.gz keep the geometry in float32, and exactly in a header extension; .nrrd and
    .mha keep every bit and are written uncompressed. All keep modality, units and history in the
    header. No format here has bool and float16: they become uint8 and float32.

    Args:
        volume: the volume to write; its voxels must be finite.
        path: the file; its ending is one of WRITABLE.
        overwrite: whether an existing file is replaced.
        monitor: may cancel; then what was there before is untouched.
    Raises:
        OutputError: an unknown ending, an existing file, no permission, no space.
        InputError: voxels that are not finite.
    """
    save_slabs(volume, slabs(volume.voxels), path, overwrite=overwrite, monitor=monitor)


def save_slabs(
    outline: Volume,
    parts: Iterable[Voxels],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    monitor: Monitor | None = None,
) -> None:
    """Write a volume as `save` does, whose voxels need not be in memory at once.

    Args:
        outline: the volume; of its voxels only shape and type are used.
        parts: the voxels, as runs of slices [n, J, I], all frames in order. If one raises, no
            file is left.
        path: as for `save`.
        overwrite: as for `save`.
        monitor: as for `save`.
    Raises:
        OutputError, InputError: as `save`.
    """
    path = Path(path)
    write = _WRITERS.get(ending_of(path))
    if write is None:
        raise EndingError(
            f"{path.name}: volumes cannot be written as {ending_of(path) or 'a name without end'}",
            f"Use one of: {', '.join(WRITABLE)}.",
        )
    dtype = np.dtype(_WIDER.get(outline.dtype.name, outline.dtype))
    if dtype.itemsize > np.dtype(np.float64).itemsize:
        raise OutputError(
            f"no file format here holds voxels of type {dtype}", "Convert to float64."
        )
    header = outline.with_voxels(blank(outline.shape, dtype))
    widened = (part.astype(dtype, copy=False) for part in finite_parts(parts, outline))
    with atomic_write(path, overwrite=overwrite) as temporary:
        write(header, temporary, monitor or Monitor(), widened)


def _meaning(volume: Volume, found: tags.Tags, modality: str | None, monitor: Monitor) -> Volume:
    """Add modality, units and history: from the user, else the header, else guessed."""
    chosen, name = modality or found.modality, Path(volume.source).name
    if chosen is None:
        chosen = guess_modality(volume.voxels, volume.geometry.spacing)
    elif modality == "CT" and found.modality is None and extremes(volume.voxels)[0] >= 0:
        monitor.warn(f"{name}: {_NO_HU}", about="CT without a value below 0")
    return dataclasses.replace(
        volume,
        modality=chosen,
        modality_is_guess=not (modality or found.modality),
        units=found.units if chosen == found.modality else default_units(chosen),
        history=found.history,
        lossy=found.lossy,
        source=found.source or volume.source,
    )

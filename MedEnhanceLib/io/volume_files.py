"""Reading and writing of volumes, in the format that the ending of the file name states."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from MedEnhanceLib.core.arrays import looks_like_labels, slabs
from MedEnhanceLib.core.diffusion_gradients import fsl_tables
from MedEnhanceLib.core.modality import default_units, guess_modality
from MedEnhanceLib.core.quantity import LABELS, PHASE, quantity_in
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, EndingError, InputError
from MedEnhanceLib.io import tags
from MedEnhanceLib.io.atomic import atomic_write
from MedEnhanceLib.io.describe import refuse_not_finite, warn_of_content
from MedEnhanceLib.io.dicom.load import load_dicom
from MedEnhanceLib.io.dicom.sources import DICOM_ENDINGS, is_dicom, is_source
from MedEnhanceLib.io.metaimage import read_metaimage
from MedEnhanceLib.io.nifti import nifti_header, read_nifti
from MedEnhanceLib.io.nrrd import itk_header, read_nrrd
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.progress import Monitor

_READERS = {
    ".nii": read_nifti,
    ".nii.gz": read_nifti,
    ".nrrd": read_nrrd,
    ".nhdr": read_nrrd,
    ".mha": read_metaimage,
    ".mhd": read_metaimage,
}
READABLE = tuple(_READERS)
WRITABLE = (".nii", ".nii.gz", ".nrrd", ".mha")
#: Types that the formats lack → wider types that hold all of their values.
_WIDER = {"bool": "uint8", "float16": "float32"}
_GZIP_LEVEL = 4  # on CT within 1 % of level 6, three times as fast


def ending_of(path: str | os.PathLike[str]) -> str:
    """Return the ending in lower case, with its dot; ".nii.gz" is one ending."""
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def load(
    path: str | os.PathLike[str],
    *,
    modality: str | None = None,
    series: str | None = None,
    resample: bool = False,
    complete_frames: bool = False,
    scratch: Path | None = None,
    monitor: Monitor | None = None,
) -> Volume:
    """Read a volume: NIfTI, NRRD, MetaImage or DICOM; raises as `api.load` does.

    Args:
        path: file or folder.
        modality: instead of that in the file.
        series: of a DICOM folder, its number or UID.
        resample: whether an uneven or tilted DICOM series is resampled instead of refused.
        complete_frames: whether the last frame of a DICOM sequence is left out if it lacks slices.
        scratch: a folder with free space; if given, the voxels of large NIfTI, NRRD and MetaImage
            files stay on disk: in the file, which must not change meanwhile, or unpacked there.
        monitor: notified of warnings and progress; may cancel.
    """
    path, monitor = Path(path), monitor or Monitor()
    path = path if path.name else path.absolute()  # the present folder, by its name
    refuse_pipe(path)
    is_folder = path.is_dir()
    if not is_folder and path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)", "Copy or download the file again.")
    ending = ending_of(path)
    read = _READERS.get(ending)
    if is_folder or (
        read is None and (ending in DICOM_ENDINGS or is_dicom(path) or is_source(path))
    ):
        volume = load_dicom(
            path,
            modality=modality,
            series=series,
            resample=resample,
            complete_frames=complete_frames,
            monitor=monitor,
        )
    elif read is not None:
        if series is not None:
            raise ConfigError(f"{path.name} is not DICOM and has no series", "Leave series out.")
        volume = _meaning(*read(path, monitor, scratch), modality)
    else:
        raise InputError(
            f"{path.name}: files that end in {ending_of(path) or 'nothing'} cannot be read",
            "Give DICOM (a folder or a file; a zip unpacked), or one of: "
            f"{', '.join(READABLE)}, .ucv.",
        )
    refuse_not_finite(volume)
    # Labels may be stored as images of the modality that they were drawn on.
    origin = volume.dicom_origin if modality not in (None, "SEG") else None
    warn_of_content(volume, path.name, monitor, stated=origin.modality if origin else "")
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
    header. None of them supports bool and float16: these become uint8 and float32. The tables .bval
    and .bvec of a diffusion scan are written beside a NIfTI file.

    Args:
        volume: the volume to write; its voxels must be finite.
        path: the file; its ending is one of WRITABLE.
        overwrite: whether an existing file is replaced.
        monitor: may cancel; then an earlier file stays as it was.
    Raises OutputError: an unknown ending, an existing file, no permission, no space.
    Raises InputError: voxels that are not finite.
    """
    path, monitor = Path(path), monitor or Monitor()
    ending = ending_of(path)
    if ending not in WRITABLE:
        raise EndingError(
            f"{path.name}: volumes cannot be written as {ending or 'a name without end'}",
            f"Use one of: {', '.join(WRITABLE)}.",
        )
    dtype = np.dtype(_WIDER.get(volume.dtype.name, volume.dtype)).newbyteorder("=")
    refuse_not_finite(volume)
    tables = gradient_tables(volume, path)
    with contextlib.ExitStack() as files:
        temporary = files.enter_context(atomic_write(path, overwrite=overwrite))
        for place, text in tables.items():
            table = files.enter_context(atomic_write(place, overwrite=overwrite))
            table.write_text(text, encoding="ascii")
        is_nifti = ending.startswith(".nii")
        header = nifti_header(volume, dtype) if is_nifti else itk_header(volume, dtype, ending)
        with temporary.open("wb") as file:
            if ending != ".nii.gz":
                _write(header, volume, dtype, file, monitor)
                return
            # No name and no time inside: the same volume gives the same bytes.
            with gzip.GzipFile("", "wb", _GZIP_LEVEL, file, mtime=0) as packed:
                _write(header, volume, dtype, packed, monitor)


def gradient_tables(volume: Volume, path: Path) -> dict[Path, str]:
    """Return the tables of b-values and directions beside a NIfTI file of a diffusion scan."""
    ending = ending_of(path)
    if ending not in (".nii", ".nii.gz") or not (volume.is_sequence and volume.gradients):
        return {}
    stem = path.name[: -len(ending)]
    tables = fsl_tables(volume.gradients, volume.geometry)
    return {path.with_name(stem + ending): text for ending, text in tables.items()}


def _write(
    header: bytes,
    volume: Volume,
    dtype: np.dtype[Any],
    stream: BinaryIO | gzip.GzipFile,
    monitor: Monitor,
) -> None:
    stream.write(header)
    for part in slabs(volume.voxels):
        for plane in part:
            monitor.check()
            stream.write(np.ascontiguousarray(plane, dtype.newbyteorder("<")).data)


def _meaning(volume: Volume, facts: tags.Tags, modality: str | None) -> Volume:
    """Add modality, units and history: from the user, else the header, else guessed."""
    resolved = modality or facts.modality
    frames = volume.shape[0] if volume.is_sequence else 1
    if resolved is None:
        resolved = guess_modality(volume.voxels, volume.geometry.spacing)
    return dataclasses.replace(
        volume,
        modality=resolved,
        modality_is_guess=not (modality or facts.modality),
        units=facts.units if resolved == facts.modality else default_units(resolved),
        history=facts.history,
        lossy=facts.lossy,
        source=facts.source or volume.source,
        gradients=facts.gradients if len(facts.gradients) == frames else (),
        quantity=facts.quantity or volume.quantity or _quantity_beside(volume),
    )


def _quantity_beside(volume: Volume) -> str:
    """Return the quantity that a file's name, or the JSON beside it, states as BIDS does."""
    path = Path(volume.source)
    stem = path.name[: -len(ending_of(path))]
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):
        stated = json.loads(path.with_name(f"{stem}.json").read_bytes())
        if quantity := quantity_in([*stated.get("ImageType", ()), f"[{stated.get('Units', '')}]"]):
            return quantity
    *entities, suffix = stem.split("_")
    is_bids = stem.startswith("sub-")
    # FA may be a person, or a flip angle; a phase one of the contrast medium.
    if not entities or not (is_bids or len(suffix) > 2 or volume.dtype.kind == "f"):
        return ""
    quantity = quantity_in([suffix, *("PHASE" for each in entities if each == "part-phase")])
    is_other = quantity == LABELS and not looks_like_labels(volume.voxels)
    return "" if is_other or (quantity == PHASE and not is_bids) else quantity

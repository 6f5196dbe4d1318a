"""The part of the Python API that reads, lists and writes files, with DICOM."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib import io
from MedEnhanceLib.api import Progress, watched
from MedEnhanceLib.core.labels import Segmentation
from MedEnhanceLib.core.options import PathLike, local_path
from MedEnhanceLib.core.volume import Volume, as_volume
from MedEnhanceLib.denoise.strength import Enhanced
from MedEnhanceLib.jobs.dicom import (
    DicomParams,
    check_folder,
    place_objects,
    source_series,
    write,
)
from MedEnhanceLib.jobs.enhancing import objects_of
from MedEnhanceLib.jobs.files import check_ending
from MedEnhanceLib.runtime.progress import Cancel

if TYPE_CHECKING:
    from MedEnhanceLib.io.dicom.listing import SeriesRow


def load(
    path: PathLike,
    *,
    modality: str | None = None,
    series: str | int | None = None,
    resample: bool = False,
    complete_frames: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> Volume:
    """Read a volume: .nii, .nii.gz, .nrrd, .mha, .ucv; DICOM: a folder, file, DICOMDIR, list.

    A DICOM series of several times, echoes or b-values becomes [T, K, J, I]. A segmentation that is
    selected, or alone, becomes labels, regardless of `modality`. Color is refused.

    Args:
        path: the file or folder.
        modality: "CT", "MR" …, for a file that does not state it.
        series: number in `list_series`, or UID, if there are several.
        resample: resample a DICOM series with a tilted gantry, gaps or uneven spacing, which is
            refused otherwise.
        complete_frames: leave out the last frame of a DICOM sequence if it lacks slices, which is
            refused otherwise.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        The volume, voxels in the type and unit of the file.

    Raises:
        InputError: naming file, field and remedy.
        CodecError: a .ucv is damaged.

        volume = me.load("scan.nii.gz")
    """
    with watched(progress, cancel) as monitor:
        monitor.progress(0.0, "loading the volume")
        return io.load(
            local_path(path),
            modality=modality,
            series=None if series is None else str(series),
            resample=resample,
            complete_frames=complete_frames,
            monitor=monitor,
        )


def list_series(
    path: PathLike, *, progress: Progress = None, cancel: Cancel | None = None
) -> list[SeriesRow]:
    """List the DICOM series at `path`, as `load` numbers them.

    Args:
        path: a folder, file, DICOMDIR or list of files.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        A row for each series, with number, uid, part (what distinguishes it from others of its
        UID), modality, description, size, files, date, patient, study, readable, and the reason if
        it is not readable.

    Raises:
        InputError: there is no DICOM.

        for row in me.list_series("cd/"):
            print(row.number, row.modality, row.description, row.reason)
    """
    from MedEnhanceLib.io.dicom.listing import list_series as rows_of

    with watched(progress, cancel) as monitor:
        return rows_of(local_path(path), monitor)


def save(
    volume: Volume,
    path: PathLike,
    *,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> None:
    """Write a volume, completely or not at all; the ending of `path` states the format.

    Args:
        volume: the volume to write.
        path: .nii, .nii.gz, .nrrd or .mha.
        overwrite: replace an existing file.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Raises:
        OutputError: the file cannot be written, or exists and `overwrite` is False.

        me.save(result.volume, "better.nii.gz")
    """
    volume = as_volume(volume)
    target = local_path(path)
    check_ending(target)
    with watched(progress, cancel) as monitor:
        monitor.progress(0.0, "saving the volume")
        io.save(volume, target, overwrite=overwrite, monitor=monitor)
        monitor.progress(1.0, "saved")


def save_dicom(
    result: Volume | Enhanced | Segmentation,
    folder: PathLike,
    *,
    dicom_source: PathLike | None = None,
    series: str | int | None = None,
    patient_id: str | None = None,
    patient_name: str | None = None,
    overwrite: bool = False,
    progress: Progress = None,
    cancel: Cancel | None = None,
) -> list[Path]:
    """Write a volume, or a result of `enhance` or `segment`, as derived DICOM into a folder.

    A volume becomes a series, a segmentation a SEG, an uncertainty a Parametric Map; all in the
    study of the DICOM that the volume was loaded from.

    Args:
        result: a volume, or what `enhance` or `segment` returned.
        folder: where the files go, new or empty.
        dicom_source: the DICOM series that it was made from, if it was loaded from another format.
        series: number or UID, if `dicom_source` has several series.
        patient_id: the patient's ID, for a new study.
        patient_name: the patient's name, for a new study.
        overwrite: replace the folder if it holds only earlier results.
        progress: a function that is called with each `progress.Event`, or True for a bar.
        cancel: a function that returns whether to stop, or a threading.Event.

    Returns:
        The files.

    Raises:
        InputError: the patient is unknown.
        OutputError: the folder cannot be used.

        me.save_dicom(me.enhance(volume, segment=True), "derived/")
    """
    objects = objects_of(result)
    with watched(progress, cancel) as monitor:
        params = DicomParams(
            output=os.fspath(local_path(folder)),
            dicom=True,
            dicom_source=None if dicom_source is None else os.fspath(dicom_source),
            dicom_source_series=None if series is None else str(series),
            patient_id=patient_id,
            patient_name=patient_name,
            overwrite=overwrite,
        )
        check_folder(params, [])
        images = source_series(params, monitor.part(0.0, 0.1))
        objects = place_objects(objects, params, images, monitor.part(0.1, 0.2))
        files, _ = write(objects, params, monitor.part(0.2, 1.0))
        return files

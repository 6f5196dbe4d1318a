"""Results of jobs as DICOM objects of one study, in a folder of their own.

Every job that writes a volume uses `DicomParams` and the checks below it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib.core.manifest import as_json, caveats_of
from MedEnhanceLib.core.options import About, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.io.atomic import refuse_existing
from MedEnhanceLib.io.formats import CONTAINER
from MedEnhanceLib.io.tags import warn_of_segments
from MedEnhanceLib.jobs.files import OUTPUT_FILE, OutputParams, manifest_path
from MedEnhanceLib.jobs.placing import lay_beside, name_of
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

    from MedEnhanceLib.core.labels import Segmentation
    from MedEnhanceLib.io.dicomout import Template


#: Options that require another one.
_NEEDED = {
    "dicom_source_series": "dicom_source", "dicom_source": "dicom", "patient_id": "dicom",
    "patient_name": "dicom", "study_description": "dicom", "series_description": "dicom",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DicomParams(OutputParams):
    """Parameters of every job that writes a volume: a file, or a folder of DICOM objects."""

    output: Annotated[
        str,
        About(
            help=f"{OUTPUT_FILE}; with --dicom a folder",
            flag="OUTPUT",
            place="output",
        ),
    ]
    dicom: bool = option(
        False,
        help="write a derived DICOM series into the folder OUTPUT, in the study of its source",
    )
    dicom_source: str | None = option(
        None, help="source series of a non-DICOM input", metavar="SERIES", place="input"
    )
    dicom_source_series: str | None = option(
        None, help="series, if --dicom-source has several: number or UID", metavar="S"
    )
    series_description: str | None = option(
        None, help="name of the derived series (default: made from the source's)", metavar="TEXT"
    )
    patient_id: str | None = option(None, help="patient ID for a new study", metavar="ID")
    patient_name: str | None = option(
        None, help="patient name for a new study, as in DICOM: Doe^Jane", metavar="NAME"
    )
    study_description: str | None = option(None, help="description of a new study", flag=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, needed in _NEEDED.items():
            if getattr(self, name) and not getattr(self, needed):
                flag = f"--{needed.replace('_', '-')}"
                raise ConfigError(f"{name} requires {needed}", f"Add {flag}, or leave it out.")

    @property
    def has_objects(self) -> bool:
        """Whether more than a series of images is written, for which highdicom is needed."""
        return False


def check_folder(params: DicomParams, inputs: Sequence[Path]) -> None:
    """Refuse an output folder that DICOM could not be written to; call it before the long work.

    Raises OutputError for a file's name, for an input's own folder, and for a folder that is not
    empty, unless it holds an earlier result that may be replaced; DependencyError if highdicom is
    needed and missing.
    """
    from MedEnhanceLib.io.dicom.sources import is_dicom
    from MedEnhanceLib.io.dicomout.object_files import refuse_used_folder

    if params.has_objects:
        require("highdicom", purpose="Writing labels or an uncertainty map as DICOM")
    folder = Path(params.output)
    ending = io.ending_of(folder)
    if ending in io.READABLE and not folder.is_dir():
        raise OutputError(
            f"{folder.name}: DICOM goes into a folder, and {ending} is the ending of a file",
            "Name a folder, or leave out dicom (--dicom) to write the file.",
        )
    _refuse_among(folder, [path.parent if is_dicom(path) else path for path in inputs])
    refuse_used_folder(folder, params.overwrite)
    refuse_existing(manifest_path(folder), params.overwrite)
    _new_study(params, "OT")
    for source in inputs[:1]:  # the other inputs do not state the patient
        if _shows_images(source):
            _refuse_patient(source.name, params)
        elif io.ending_of(source) in (*io.READABLE, CONTAINER) and not params.dicom_source:
            _require_patient(source.name, params)


def _shows_images(path: Path) -> bool:
    """Return whether the first file of a DICOM input holds images, by its header."""
    from MedEnhanceLib.io.dicom.headers import read_header
    from MedEnhanceLib.io.dicom.sources import find_files

    if io.ending_of(path) not in io.READABLE:
        with suppress(InputError):
            header = read_header(find_files(path, Monitor())[0])
            return header is not None and bool(header.slices)
    return False


def _new_study(params: DicomParams, modality: str) -> Template:
    from MedEnhanceLib.io.dicomout import new_study

    return new_study(
        modality=modality,
        patient_id=params.patient_id or "",
        patient_name=params.patient_name or "",
        study_description=params.study_description or "",
    )


def _refuse_patient(name: str, params: DicomParams) -> None:
    if params.patient_id or params.patient_name or params.study_description:
        raise ConfigError(
            f"{name} is DICOM and states its patient",
            "Leave out patient_id and patient_name (--patient-id, --patient-name).",
        )


def _require_patient(name: str, params: DicomParams, series: str = "") -> None:
    if not params.patient_id:
        raise InputError(
            f"{name}: no patient information{f', only the series {series}' if series else ''}",
            "Name the DICOM series that it was made from (--dicom-source SERIES/, dicom_source=), "
            "or for a new study its patient (--patient-id ID, patient_id=).",
        )


def _refuse_among(folder: Path, originals: Sequence[Path]) -> None:
    target = folder.resolve()
    for place in (path.resolve() for path in originals):
        if target.is_relative_to(place) or place.is_relative_to(target):
            raise OutputError(
                f"{folder}: the derived series would lie among the originals, which are in {place}",
                "Use a separate folder, outside that of the originals.",
            )


def place_volume(
    volume: Volume, params: DicomParams, series: Volume | None, monitor: Monitor
) -> tuple[Volume, Template | None]:
    """Assign DICOM images to a volume, and read their headers, before the long work.

    Args:
        volume: the volume to write.
        params: of the job.
        series: from `source_series`.
        monitor: warned of a volume without its own images, and of headers that are corrected.
    Returns the volume, and the headers for `Objects`; None for a new study.
    Raises InputError if the patient is unknown, OutputError for a folder among originals.
    """
    from MedEnhanceLib.io.dicomout import read_template

    unplaced = volume
    if series is not None:
        volume = lay_beside(volume, series, monitor)
    for origin in filter(None, (unplaced.dicom_origin, volume.dicom_origin)):
        files = {instance.file for frame in origin.instances for instance in frame}
        _refuse_among(Path(params.output), sorted({Path(file).parent for file in files}))
    name = name_of(volume)
    if volume.dicom_origin is not None and volume.dicom_origin.instances:
        _refuse_patient(name, params)
        return volume, read_template(volume.dicom_origin, monitor)
    _require_patient(name, params, volume.dicom_origin.series if volume.dicom_origin else "")
    return replace(volume, dicom_origin=None), None


def source_series(params: DicomParams, monitor: Monitor) -> Volume | None:
    """Load the series that `dicom_source` names; a tilted or uneven one is resampled.

    Raises as `io.load` does for DICOM; InputError for a segmentation.
    """
    from MedEnhanceLib.io.dicom.load import load_dicom

    if params.dicom_source is None:
        return None
    path = Path(params.dicom_source)
    name = path.name or str(path)
    try:
        # Its voxels are not used and need no units.
        volume = load_dicom(
            path, modality="OT", series=params.dicom_source_series, resample=True, monitor=monitor
        )
    except InputError as error:
        error.hint = error.hint.replace("--series", "--dicom-source-series")
        raise
    if volume.dicom_origin is None:
        raise InputError(f"{name}: a segmentation, not images", "Give the images it belongs to.")
    unused = np.broadcast_to(volume.dtype.type(0), volume.shape)
    return replace(volume, voxels=unused, source=name)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation from a file.

    Attributes:
        volume, model, warning, limits: as in `Segmentation`.
        labels: the same, as JSON objects.
    """

    volume: Volume
    labels: Sequence[Mapping[str, Any]]
    model: Mapping[str, str] | None = None
    warning: str = ""
    limits: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Objects:
    """Objects for one folder.

    Attributes:
        source: the volume that all of it was made from, for patient, study, place and what was done
            before.
        action: as in a manifest: "enhanced", "segmented", "decompressed", …
        options: in words.
        volume: None where there are only labels of `source`.
        template: headers of the images behind the volume, if they were read before.
    """

    source: Volume
    action: str
    options: str = ""
    volume: Volume | None = None
    segmentation: LabelMap | Segmentation | None = None
    uncertainty: Volume | None = None
    model: Mapping[str, str] | None = None
    template: Template | None = None


def place_objects(
    objects: Objects, params: DicomParams, series: Volume | None, monitor: Monitor
) -> Objects:
    """Assign DICOM images to all volumes of the objects.

    Args:
        objects: their source and volumes may lack images.
        params: of the job: output, and where the patient comes from.
        series: from `source_series`.
        monitor: warned once, for the source, of a volume without its own images.
    Raises as `place_volume`.
    """
    source, template = place_volume(objects.source, params, series, monitor)

    def beside(volume: Volume) -> Volume:
        if series is not None:
            return lay_beside(volume, series, Monitor())  # the source got the same warnings
        has_images = volume.dicom_origin is not None and volume.dicom_origin.instances
        return volume if has_images else replace(volume, dicom_origin=source.dicom_origin)

    labels = objects.segmentation
    return replace(
        objects,
        source=source,
        template=template,
        volume=objects.volume and beside(objects.volume),
        uncertainty=objects.uncertainty and beside(objects.uncertainty),
        segmentation=labels and replace(labels, volume=beside(labels.volume)),
    )


def write(
    objects: Objects, params: DicomParams, monitor: Monitor
) -> tuple[list[Path], dict[str, Any]]:
    """Build every object, then write them all, or none.

    Args:
        objects: with their DICOM images assigned (`place_objects`, `place_volume`).
        params: of the job.
        monitor: progress and cancellation.
    Returns the files, and their fields in results and manifests.
    Raises InputError or OutputError if an object cannot be built or written.
    """
    from MedEnhanceLib.io.dicomout import read_template, write_objects

    warn_of_segments(objects.source, monitor)
    volume, source = objects.volume, objects.volume or objects.source
    template = objects.template
    if source.dicom_origin is None:
        template = _new_study(params, source.modality)
    elif template is None or template.dicom_origin != source.dicom_origin:
        template = read_template(source.dicom_origin, monitor.part(0.0, 0.1))
    if volume and template.headers and not volume.profile.takes(template.modality):
        monitor.warn(
            f"{name_of(volume)} is {volume.modality}, and the series that it is "
            f"written beside is {template.modality}: check that it is the one it was made from"
        )
    built = list(_built(objects, template, params, monitor.part(0.1, 0.6)))
    files = write_objects(
        [dataset for _, dataset in built],
        Path(params.output),
        overwrite=params.overwrite,
        monitor=monitor.part(0.6, 1.0),
    )
    rows: dict[str, dict[str, Any]] = {}
    for role, dataset in built:
        row: dict[str, Any] = {
            "role": role,
            "modality": str(dataset.Modality),
            "description": str(dataset.get("SeriesDescription") or ""),
            "series_uid": str(dataset.SeriesInstanceUID),
            "files": 0,
        }
        rows.setdefault(row["series_uid"], row)["files"] += 1
    study = str(built[0][1].StudyInstanceUID)
    return files, {"study_uid": study, "series_uid": next(iter(rows)), "objects": [*rows.values()]}


def _built(
    objects: Objects, template: Template, params: DicomParams, monitor: Monitor
) -> Iterator[tuple[str, Dataset]]:
    """Yield each object with its role; labels and maps of a derived series refer to its images."""
    from MedEnhanceLib.io.dicomout import Derivation
    from MedEnhanceLib.io.dicomout.derived_series import build_series
    from MedEnhanceLib.io.dicomout.parametric_map import build_uncertainty
    from MedEnhanceLib.io.dicomout.segments import build_segmentation

    derivation = Derivation(
        objects.action,
        objects.options,
        model=objects.model,
        history=objects.source.history,
        lossy=objects.source.lossy,
        series_description=params.series_description,
        files={"source": objects.source.path},
    )
    images: list[Dataset] | None = None
    if objects.volume is not None:
        images = build_series(
            replace(objects.volume, history=derivation.history),  # the last step is `action`
            template=template,
            derivation=derivation,
            monitor=monitor.part(0.0, 0.6),
        )
        derivation = replace(derivation, series_description=None)
        yield from (("volume", image) for image in images)
    if objects.uncertainty is not None:
        spread = build_uncertainty(
            objects.uncertainty,
            template=template,
            derivation=replace(derivation, action="uncertainty of the enhancement"),
            source_images=images,
            monitor=monitor.part(0.6, 0.8),
        )
        yield "uncertainty", spread
    if (labels := objects.segmentation) is not None:
        caveats = caveats_of(
            {"segmentation_warning": labels.warning, "segmentation_limits": tuple(labels.limits)}
        )
        segmented = build_segmentation(
            labels.volume,
            as_json(labels.labels),
            template=template,
            derivation=replace(
                derivation, action="segmented", model=labels.model, description=" ".join(caveats)
            ),
            source_images=images,
            monitor=monitor.part(0.8, 1.0),
        )
        yield "segmentation", segmented

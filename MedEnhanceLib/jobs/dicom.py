"""Results of jobs as DICOM objects of one study, in a folder of their own.

`DicomParams` and the checks below it are what every job takes that writes a volume.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from MedEnhanceLib.core.options import About, option
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.jobs.files import OutputParams, check_volume_outputs, manifest_path
from MedEnhanceLib.jobs.placing import lay_beside, name_of, read_series
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

    from MedEnhanceLib.io.dicomout import Template


_OF_DICOM = ("like", "patient_id", "patient_name", "study_description", "series_description")


@dataclass(frozen=True, kw_only=True)
class DicomParams(OutputParams):
    """What every job that writes a volume takes: a file, or a folder of DICOM objects."""

    output: Annotated[
        str,
        About(
            help=".nii.gz, .nii, .nrrd or .mha, an address too (s3://); with dicom a folder",
            flag="OUTPUT",
            place="output",
        ),
    ]
    dicom: bool = option(
        False,
        help="write a derived DICOM series into the folder OUTPUT, in the study that it came from",
    )
    like: dict[str, str] | None = option(
        None,
        help='{"path", "series"} of the DICOM series that INPUT was made from, where INPUT is none',
        place="input",
    )
    series_description: str | None = option(
        None, help="instead of one made from the source's", metavar="TEXT"
    )
    patient_id: str | None = option(None, help="patient ID for a new study", metavar="ID")
    patient_name: str | None = option(
        None, help="as DICOM writes it, for example Doe^Jane", metavar="NAME"
    )
    study_description: str | None = option(None, help="of a new study", flag=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        idle = [name for name in _OF_DICOM if getattr(self, name)]
        if idle and not self.dicom:
            raise ConfigError(f"{idle[0]} without dicom", "Set dicom (--dicom), or leave it out.")
        like = self.like
        if like is not None and (
            "path" not in like or not all(like.values()) or set(like) - {"path", "series"}
        ):
            raise ConfigError(
                f"like is {like!r}",
                'Give {"path": a folder or a file of the series} and, of several, "series".',
            )
        if self.like is not None and self.names_patient:
            raise ConfigError(
                "a patient is named, and a series that knows its own",
                "Leave out patient_id and patient_name (--patient-id, --patient-name), or like.",
            )

    @property
    def names_patient(self) -> bool:
        """Whether it says whose a new study is."""
        return any((self.patient_id, self.patient_name, self.study_description))

    @property
    def has_objects(self) -> bool:
        """Whether more than a series of images is written, for which highdicom is needed."""
        return False


def check_output(params: DicomParams, inputs: Sequence[Path]) -> None:
    """Refuse before the long work an `output` that could not be written after it."""
    output = Path(params.output)
    if not params.dicom:
        check_volume_outputs({"output": output}, inputs=inputs, overwrite=params.overwrite)
        return
    if params.has_objects:
        require("highdicom", purpose="Writing DICOM objects")
    if params.like:
        inputs = [*inputs, Path(params.like["path"])]
    _check_folder(output, inputs, overwrite=params.overwrite)


def _check_folder(folder: Path, inputs: Sequence[Path], *, overwrite: bool) -> None:
    """Refuse before the long work a folder that DICOM objects could not go into after it.

    Raises OutputError for a file's name, for an input's own folder, and for a folder that holds
    something, unless it is an earlier result that may be replaced.
    """
    from MedEnhanceLib import io
    from MedEnhanceLib.io.atomic import refuse_existing
    from MedEnhanceLib.io.dicom.sources import is_dicom
    from MedEnhanceLib.io.dicomout.object_files import refuse_used_folder

    ending = io.ending_of(folder)
    if ending in io.READABLE and not folder.is_dir():
        raise OutputError(
            f"{folder.name}: DICOM goes into a folder, and {ending} is the ending of a file",
            "Name a folder, or leave out dicom (--dicom) to write the file.",
        )
    _refuse_among(folder, [path.parent if is_dicom(path) else path for path in inputs])
    refuse_used_folder(folder, overwrite)
    refuse_existing(manifest_path(folder), overwrite)


def _refuse_among(folder: Path, originals: Sequence[Path]) -> None:
    here = folder.resolve()
    for place in (path.resolve() for path in originals):
        if here == place or here in place.parents or place in here.parents:
            raise OutputError(
                f"{folder}: the derived series would lie among the originals, which are in {place}",
                "Name a folder of its own, beside that of the originals.",
            )


def placed(volume: Volume, params: DicomParams, monitor: Monitor) -> Volume:
    """The volume with the DICOM images behind it; asks for what is missing before the long work.

    Raises InputError where nothing says whose it is, OutputError for a folder among originals.
    """
    own = volume
    if params.like is not None:
        volume = lay_beside(volume, read_series(params.like, monitor), monitor)
    for origin in filter(None, (own.origin, volume.origin)):
        files = {instance.file for frame in origin.instances for instance in frame}
        _refuse_among(Path(params.output), sorted({Path(file).parent for file in files}))
    name = name_of(volume)
    if volume.origin is not None and volume.origin.instances:
        if params.names_patient:
            raise ConfigError(
                f"{name} is DICOM and knows its patient",
                "Leave out patient_id and patient_name (--patient-id, --patient-name).",
            )
        return volume
    if not params.patient_id:
        series = f" (it was made from the series {volume.origin.series})" if volume.origin else ""
        raise InputError(
            f"{name}: no patient information{series}",
            "Name the DICOM series that it was made from (--like SERIES/, like=), or for a new "
            "study its patient (--patient-id ID, patient_id=).",
        )
    return replace(volume, origin=None)


@dataclass(frozen=True, eq=False)
class LabelMap:
    """A segmentation that is to be written. labels: as `gradprom.Segmentation` has them, as JSON.

    model: what made it, as in a manifest. warning: as in `gradprom.Segmentation`.
    """

    volume: Volume
    labels: Sequence[Mapping[str, Any]]
    model: Mapping[str, str] | None = None
    warning: str = ""


@dataclass(frozen=True, eq=False)
class Objects:
    """What goes into one folder. volume: None where there are only labels of `source`.

    source: the volume that all of it was made from, for patient, study, place and what was done
    before. action: as in a manifest: "enhanced", "segmented", "decompressed", … options: in words.
    """

    source: Volume
    action: str
    options: str = ""
    volume: Volume | None = None
    segmentation: LabelMap | None = None
    uncertainty: Volume | None = None
    model: Mapping[str, str] | None = None

    def placed(self, params: DicomParams, monitor: Monitor) -> Objects:
        """All volumes, which lie on one grid, with the DICOM images behind them; as `placed`."""
        source = placed(self.source, params, monitor)
        series = read_series(params.like, Monitor()) if params.like else None

        def beside(volume: Volume) -> Volume:
            if series is not None:
                return lay_beside(volume, series, Monitor())  # warnings were said of the source
            has_images = volume.origin is not None and volume.origin.instances
            return volume if has_images else replace(volume, origin=source.origin)

        labels = self.segmentation
        return replace(
            self,
            source=source,
            volume=self.volume and beside(self.volume),
            uncertainty=self.uncertainty and beside(self.uncertainty),
            segmentation=labels and replace(labels, volume=beside(labels.volume)),
        )


@dataclass(frozen=True)
class Written:
    """The DICOM files that were written.

    figures: for the result of a job and its manifest. listed: for the result alone: every file.
    """

    files: list[Path]
    figures: dict[str, Any]
    listed: dict[str, Any]


def save_output(
    volume: Volume, action: str, params: DicomParams, monitor: Monitor
) -> Written | None:
    """Save a volume as the parameters say; None where it became a file."""
    monitor.progress(0.0, "save")
    if not params.dicom:
        from MedEnhanceLib.io import save

        save(volume, Path(params.output), overwrite=params.overwrite, monitor=monitor)
        return None
    objects = Objects(volume, action, volume=volume).placed(params, monitor.part(0.0, 0.2))
    return write(objects, params, monitor.part(0.2, 1.0))


def write(objects: Objects, params: DicomParams, monitor: Monitor) -> Written:
    """Build every object, then write them all, or none.

    objects: of a volume as `placed` gives it. Raises InputError, OutputError.
    """
    from MedEnhanceLib.io.dicomout import new_study, read_template, write_objects

    volume, source = objects.volume, objects.volume or objects.source
    if source.origin is not None:
        template = read_template(source.origin, monitor.part(0.0, 0.1))
    else:
        template = new_study(
            modality=source.modality,
            patient_id=params.patient_id or "",
            patient_name=params.patient_name or "",
            study_description=params.study_description or "",
        )
    if volume and template.headers and volume.modality not in ("OT", template.modality):
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
    for (role, dataset), file in zip(built, files, strict=True):
        uid = str(dataset.SeriesInstanceUID)
        row = {
            "role": role,
            "modality": str(dataset.Modality),
            "description": str(dataset.get("SeriesDescription") or ""),
            "series_uid": uid,
            "files": [],
        }
        rows.setdefault(uid, row)["files"].append(str(file))
    counted = [{**row, "files": len(row["files"])} for row in rows.values()]
    study = str(built[0][1].StudyInstanceUID)
    return Written(
        files,
        {"study_uid": study, "series_uid": next(iter(rows)), "objects": counted},
        {"files": files, "objects": list(rows.values())},
    )


def _built(
    objects: Objects, template: Template, params: DicomParams, monitor: Monitor
) -> Iterator[tuple[str, Dataset]]:
    """Each object with its role; those found in a derived series refer to its images."""
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
        segmented = build_segmentation(
            labels.volume,
            labels.labels,
            template=template,
            derivation=replace(
                derivation, action="segmented", model=labels.model, description=labels.warning
            ),
            source_images=images,
            monitor=monitor.part(0.8, 1.0),
        )
        yield "segmentation", segmented

"""Results of jobs as DICOM objects of one study, in a folder of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.jobs.dicom import (
    DicomParams,
    check_apart,
    has_images,
    lay_beside,
    name_of,
    placed,
    read_series,
)
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from pydicom import Dataset

    from MedEnhanceLib.io.dicomout import Derivation, Template


@dataclass(frozen=True, eq=False)
class Found:
    """A segmentation that is to be written. labels: as `gradprom.Segmentation` has them, as JSON.

    model: what made it, as in a manifest. warning: as in `gradprom.Segmentation`.
    """

    volume: Volume
    labels: Sequence[Mapping[str, Any]]
    model: Mapping[str, str] | None = None
    warning: str = ""


@dataclass(frozen=True, eq=False)
class Objects:
    """What goes into one folder. volume: None where there is only what was found in `source`.

    source: the volume that all of it was made from, for patient, study, place and what was done
    before. action: as in a manifest: "enhanced", "segmented", "decompressed", … options: in words.
    frames: which time points of the series of `like` they are, where it is known: first and end.
    """

    source: Volume
    action: str
    options: str = ""
    volume: Volume | None = None
    found: Found | None = None
    uncertainty: Volume | None = None
    model: Mapping[str, str] | None = None
    frames: tuple[int, int] | None = None

    def each(self, change: Callable[[Volume], Volume]) -> Objects:
        """With every volume changed alike."""
        return replace(
            self,
            source=change(self.source),
            volume=self.volume and change(self.volume),
            uncertainty=self.uncertainty and change(self.uncertainty),
            found=self.found and replace(self.found, volume=change(self.found.volume)),
        )

    @property
    def result(self) -> Volume:
        """A volume that is written; all of them lie on one grid."""
        found = self.found and self.found.volume
        return self.volume or found or self.uncertainty or self.source


@dataclass(frozen=True)
class Written:
    """rows: an object for each series written: role, modality, description, series_uid, files."""

    files: list[Path]
    study_uid: str
    rows: list[dict[str, Any]] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """For a job's result and its manifest."""
        return {
            "study_uid": self.study_uid,
            "series_uid": self.rows[0]["series_uid"],
            "objects": [{**row, "files": len(row["files"])} for row in self.rows],
        }

    def rows_of_files(self) -> dict[str, Any]:
        """For a job's result alone: the files of each object too."""
        return {"files": self.files, "objects": self.rows}


def place_all(objects: Objects, params: DicomParams, monitor: Monitor) -> Objects:
    """All volumes, which lie on one grid, with the DICOM images behind them; as `placed`."""
    if params.like is not None:
        series = read_series(params.like, monitor)
        if objects.frames is not None:
            series = series.of_frames(*objects.frames)
        source = lay_beside(objects.source, series, monitor)
        for volume in (objects.source, source):
            check_apart(volume, Path(params.output))
        others = objects.each(lambda volume: lay_beside(volume, series, Monitor()))  # said once
        return replace(others, source=source)
    origin = placed(objects.source, params, monitor).origin
    return objects.each(
        lambda volume: volume if has_images(volume) else replace(volume, origin=origin)
    )


def save_output(
    volume: Volume,
    action: str,
    params: DicomParams,
    monitor: Monitor,
    *,
    frames: tuple[int, int] | None = None,
) -> Written | None:
    """Save a volume as the parameters say; None where it became a file.

    frames: as those of `Objects`.
    """
    output = Path(params.output)
    monitor.progress(0.0, "save")
    if not params.dicom:
        from MedEnhanceLib.io import save

        save(volume, output, overwrite=params.overwrite, monitor=monitor)
        return None
    objects = Objects(volume, action, volume=volume, frames=frames)
    objects = place_all(objects, params, monitor.part(0.0, 0.2))
    return write(objects, output, params, monitor.part(0.2, 1.0))


def write(objects: Objects, folder: Path, params: DicomParams, monitor: Monitor) -> Written:
    """Build every object, then write them all, or none.

    objects: of a volume as `placed` gives it. Raises InputError, OutputError.
    """
    from MedEnhanceLib.io.dicomout import write_objects

    template = _template(objects.result, params, monitor.part(0.0, 0.1))
    volume = objects.volume
    if volume and template.headers and volume.modality not in ("OT", template.modality):
        monitor.warn(
            f"{name_of(volume)} is {volume.modality}, and the series that it is "
            f"written beside is {template.modality}: check that it is the one it was made from"
        )
    roles: list[str] = []
    datasets: list[Dataset] = []
    for role, built in _built(objects, template, params, monitor.part(0.1, 0.6)):
        datasets += built
        roles += [role] * len(built)
    facts = [_facts(dataset) for dataset in datasets]
    files = write_objects(
        datasets,
        folder,
        source=template.origin.series if template.origin else "",
        overwrite=params.overwrite,
        monitor=monitor.part(0.6, 1.0),
    )
    rows: dict[str, dict[str, Any]] = {}
    for role, fact, file in zip(roles, facts, files, strict=True):
        row = rows.setdefault(fact["series_uid"], {"role": role, **fact, "files": []})
        row["files"].append(str(file))
    return Written(files, str(datasets[0].StudyInstanceUID), list(rows.values()))


def _template(source: Volume, params: DicomParams, monitor: Monitor) -> Template:
    from MedEnhanceLib.io.dicomout import new_study, read_template

    if source.origin is not None:
        return read_template(source.origin, monitor)
    return new_study(
        modality=source.modality,
        patient_id=params.patient_id or "",
        patient_name=params.patient_name or "",
        study_description=params.study_description or "",
    )


def _built(
    objects: Objects, template: Template, params: DicomParams, monitor: Monitor
) -> Iterator[tuple[str, list[Dataset]]]:
    """Each object with its role; those found in a derived series refer to its images."""
    from MedEnhanceLib.io.dicomout.derived_series import build_series
    from MedEnhanceLib.io.dicomout.parametric_map import build_uncertainty
    from MedEnhanceLib.io.dicomout.segments import build_segmentation

    derivation = _derivation(objects, params)
    images: list[Dataset] | None = None
    if objects.volume is not None:
        images = build_series(
            replace(objects.volume, history=derivation.history),  # the last step is `action`
            template=template,
            derivation=derivation,
            monitor=monitor.part(0.0, 0.6),
        )
        derivation = replace(derivation, series_description=None)
        yield "volume", images
    if objects.uncertainty is not None:
        of_map = replace(derivation, action="uncertainty of the enhancement")
        yield (
            "uncertainty",
            [
                build_uncertainty(
                    objects.uncertainty,
                    template=template,
                    derivation=of_map,
                    source_images=images,
                    monitor=monitor.part(0.6, 0.8),
                )
            ],
        )
    found = objects.found
    if found is None:
        return
    of_labels = replace(
        derivation, action="segmented", model=found.model, description=found.warning
    )
    labels = build_segmentation(
        found.volume,
        found.labels,
        template=template,
        derivation=of_labels,
        source_images=images,
        monitor=monitor.part(0.8, 1.0),
    )
    yield "segmentation", [labels]


def _derivation(objects: Objects, params: DicomParams) -> Derivation:
    from MedEnhanceLib.io.dicomout import Derivation

    return Derivation(
        objects.action,
        objects.options,
        model=objects.model,
        history=objects.source.history,
        lossy=objects.source.lossy,
        series_description=params.series_description,
    )


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "modality": str(dataset.Modality),
        "description": str(dataset.get("SeriesDescription") or ""),
        "series_uid": str(dataset.SeriesInstanceUID),
    }

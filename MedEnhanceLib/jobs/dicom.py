"""What jobs that write DICOM are told, and what they refuse before the long work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.jobs.files import check_volume_outputs, manifest_path
from MedEnhanceLib.jobs.like import lay_beside, name_of, read_series
from MedEnhanceLib.progress import Monitor
from MedEnhanceLib.volume import Volume

if TYPE_CHECKING:
    pass

_OF_DICOM = (
    "like",
    "patient_id",
    "patient_name",
    "study_description",
    "series_description",
    "enhanced_multiframe",
    "deidentify",
)
_LIKE = 'Give {"path": a folder or a file of the series} and, of several, "series".'


@dataclass(frozen=True, kw_only=True)
class DicomParams:
    """What every job that writes a volume is told of its output; here how it writes DICOM.

    output: its ending says the format. dicom: `output` is a folder, which gets the result as
    DICOM objects. like: {"path", "series"} of the series that the volume belongs to, where its own
    file does not tell. patient_id, patient_name, study_description: of a new study, for what never
    was DICOM. series_description: instead of one made from the source's. enhanced_multiframe: one
    file of many frames. deidentify: without what names the patient.
    """

    output: str
    overwrite: bool = False
    dicom: bool = False
    like: dict[str, Any] | None = None
    patient_id: str | None = None
    patient_name: str | None = None
    study_description: str | None = None
    series_description: str | None = None
    enhanced_multiframe: bool = False
    deidentify: bool = False

    def check_dicom(self) -> None:
        """Raise ConfigError where these contradict each other."""
        idle = [name for name in _OF_DICOM if getattr(self, name)]
        if idle and not self.dicom:
            raise ConfigError(f"{idle[0]} says how DICOM is written", "Set dicom, or leave it out.")
        check_like(self.like)
        if self.like is not None and self.names_patient:
            raise ConfigError(
                "a patient is named, and a series that knows its own",
                "Leave out patient_id and patient_name (--patient-id, --patient-name), or like.",
            )
        if self.deidentify and self.names_patient:
            raise ConfigError(
                "a patient is named, and de-identification asked for",
                "Give a pseudonym as the patient's ID, and leave out deidentify (--deidentify).",
            )

    @property
    def names_patient(self) -> bool:
        """Whether it says whose a new study is."""
        return any((self.patient_id, self.patient_name, self.study_description))


def check_like(like: Mapping[str, Any] | None) -> None:
    """Raise ConfigError for what is not {"path": …, "series": …}."""
    if like is None:
        return
    texts = all(isinstance(value, str) and value for value in like.values())
    if not texts or "path" not in like or set(like) - {"path", "series"}:
        raise ConfigError(f"like is {dict(like)!r}", _LIKE)


def check_folder(folder: Path, *, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse before the long work a folder that DICOM objects could not go into after it.

    Raises OutputError for a file's name, for an input's own folder, and for a folder that holds
    something, unless it may be added to.
    """
    from MedEnhanceLib import io
    from MedEnhanceLib.io.atomic import refuse_existing

    ending = io.ending_of(folder)
    if ending in io.READABLE and not folder.is_dir():
        raise OutputError(
            f"{folder.name}: DICOM goes into a folder, and {ending} is the ending of a file",
            "Name a folder, or leave out dicom (--dicom) to write the file.",
        )
    places = [entry.resolve() for entry in inputs]
    here = folder.resolve()
    if any(here == place or here in place.parents or place in here.parents for place in places):
        raise OutputError(
            f"{folder}: the derived series would lie among the originals",
            "Name a folder of its own, beside that of the input.",
        )
    if not folder.parent.is_dir():
        raise OutputError(
            f"{folder}: the folder {folder.parent} is not there", "Make it, or give another path."
        )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", "Name a folder that is new or empty.")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise OutputError(
            f"{folder} holds files already",
            "Name a new or empty folder, or allow to add to it (--force, overwrite=True).",
        )
    refuse_existing(manifest_path(folder), overwrite)


def check_output(params: DicomParams, source: Path) -> None:
    """Refuse before the long work an `output` that could not be written after it."""
    output = Path(params.output)
    if not params.dicom:
        check_volume_outputs({"output": output}, inputs=[source], overwrite=params.overwrite)
        return
    inputs = [source, *([Path(params.like["path"])] if params.like else [])]
    check_folder(output, inputs=inputs, overwrite=params.overwrite)


def placed(volume: Volume, params: DicomParams, monitor: Monitor) -> Volume:
    """The volume with the DICOM images behind it; asks for what is missing before the long work.

    Raises InputError where nothing says whose it is.
    """
    if params.like is not None:
        return lay_beside(volume, read_series(params.like, monitor), monitor)
    is_dicom = has_images(volume)
    name = name_of(volume)
    if is_dicom and params.names_patient:
        raise ConfigError(
            f"{name} is DICOM and knows its patient",
            "Leave out patient_id and patient_name (--patient-id, --patient-name).",
        )
    if not is_dicom and not params.patient_id:
        known = f" (it was made from the series {volume.origin.series})" if volume.origin else ""
        raise InputError(
            f"{name} does not say whose it is{known}",
            "Name the DICOM series that it was made from (--like SERIES/, like=), or for a new "
            "study its patient (--patient-id ID, patient_id=).",
        )
    return volume if is_dicom else replace(volume, origin=None)


def has_images(volume: Volume) -> bool:
    """Whether the files of the DICOM images behind it are known."""
    return volume.origin is not None and bool(volume.origin.instances)

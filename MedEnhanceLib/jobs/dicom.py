"""What jobs that write DICOM are told, and what they refuse before the long work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError, OutputError
from MedEnhanceLib.jobs.files import check_volume_outputs, manifest_path
from MedEnhanceLib.jobs.like import lay_beside, name_of, read_series
from MedEnhanceLib.runtime.progress import Monitor

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


def check_folder(
    folder: Path, *, inputs: Sequence[Path], overwrite: bool, monitor: Monitor | None = None
) -> None:
    """Refuse before the long work a folder that DICOM objects could not go into after it.

    What an earlier writing left in it, whose process was killed, is put back first.
    Raises OutputError for a file's name, for an input's own folder, and for a folder that holds
    something, unless it may be added to.
    """
    from MedEnhanceLib import io
    from MedEnhanceLib.io.atomic import refuse_existing
    from MedEnhanceLib.io.dicom.marks import is_dicom
    from MedEnhanceLib.io.staging import holds, recover

    ending = io.ending_of(folder)
    if ending in io.READABLE and not folder.is_dir():
        raise OutputError(
            f"{folder.name}: DICOM goes into a folder, and {ending} is the ending of a file",
            "Name a folder, or leave out dicom (--dicom) to write the file.",
        )
    _refuse_among(folder, [path.parent if is_dicom(path) else path for path in inputs])
    if not folder.parent.is_dir():
        raise OutputError(
            f"{folder}: the folder {folder.parent} is not there", "Make it, or give another path."
        )
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is a file", "Name a folder that is new or empty.")
    recover(folder, monitor)
    if folder.is_dir() and holds(folder) and not overwrite:
        raise OutputError(
            f"{folder} holds files already",
            "Name a new or empty folder; or allow to add to it, and to replace what was made of "
            "the same series before (--force, overwrite=True).",
        )
    refuse_existing(manifest_path(folder), overwrite)


def check_apart(volume: Volume, folder: Path) -> None:
    """Raise OutputError for a folder among the files that a volume, as it was placed, is of."""
    from MedEnhanceLib.io.dicom.sources import FileRef

    if volume.origin is None:
        return
    refs = {FileRef.parse(one.file) for frame in volume.origin.instances for one in frame}
    _refuse_among(folder, sorted({Path(ref.path).parent for ref in refs if not ref.member}))


def _refuse_among(folder: Path, originals: Sequence[Path]) -> None:
    here = folder.resolve()
    for place in (path.resolve() for path in originals):
        if here == place or here in place.parents or place in here.parents:
            raise OutputError(
                f"{folder}: the derived series would lie among the originals, which are in {place}",
                "Name a folder of its own, beside that of the originals.",
            )


def check_output(params: DicomParams, source: Path, monitor: Monitor) -> None:
    """Refuse before the long work an `output` that could not be written after it."""
    output = Path(params.output)
    if not params.dicom:
        check_volume_outputs({"output": output}, inputs=[source], overwrite=params.overwrite)
        return
    inputs = [source, *([Path(params.like["path"])] if params.like else [])]
    check_folder(output, inputs=inputs, overwrite=params.overwrite, monitor=monitor)


def placed(volume: Volume, params: DicomParams, monitor: Monitor) -> Volume:
    """The volume with the DICOM images behind it; asks for what is missing before the long work.

    Raises InputError where nothing says whose it is, OutputError for a folder among originals.
    """
    check_apart(volume, Path(params.output))
    if params.like is not None:
        beside = lay_beside(volume, read_series(params.like, monitor), monitor)
        check_apart(beside, Path(params.output))
        return beside
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

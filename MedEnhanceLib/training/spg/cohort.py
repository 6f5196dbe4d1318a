"""A cohort of patients with their volumes: found in a folder or a table, split and read.

    Cohort.from_folder("patients/") → .split(0.25, seed) → .volumes() → patient, [Volume, …]

The patient is the unit of a split, of a distillation and of an audit. So one person under two
names, or two modalities in one cohort, are errors that name both.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

import numpy as np

from MedEnhanceLib import io
from MedEnhanceLib.core.arrays import Array
from MedEnhanceLib.core.modality import SET_MODALITY, likely_modalities
from MedEnhanceLib.core.options import PathLike
from MedEnhanceLib.core.quantity import UNFIT, quantity_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.training.spg.config import FEWEST_PATIENTS
from MedEnhanceLib.training.spg.dataset import find_set

_COLUMNS = ("patient", "path")
#: HU: air is below it; MR magnitudes are not, even after a rescale.
_NEVER_MR = -500
#: Above this share of pixels unlike the first one, a slice shows something that identifies it.
_SHOWN = 0.01


@dataclass(frozen=True)
class Patient:
    """One person and the paths of their volumes.

    Attributes:
        id: the name in this cohort; used in messages, never written into a result.
        paths: files, or folders with one series of DICOM.
    """

    id: str
    paths: tuple[Path, ...]

    def __post_init__(self) -> None:
        if not (self.id and self.paths):
            raise ConfigError(
                f"patient {self.id!r} with {len(self.paths)} paths",
                "Give every patient a name and a path.",
            )

    def volumes(
        self, *, modality: str | None = None, monitor: Monitor | None = None
    ) -> list[Volume]:
        """Read all volumes; raises what `io.load` does, and InputError for several frames."""
        volumes = []
        for path in self.paths:
            try:
                volume = io.load(path, modality=modality, monitor=monitor).single(
                    "Give one frame as a file of its own, or leave it out."
                )
            except InputError as fault:
                raise type(fault)(f"patient {self.id}: {fault.message}", fault.hint) from fault
            volumes.append(volume)
        return volumes


@dataclass(frozen=True)
class Cohort:
    """Patients in order.

    Attributes:
        patients: the patients.
        modality: "CT", "MR", … of files that do not state it.
        empty: patients' folders in which no volume was found; reading the others warns of them.
    Raises:
        ConfigError: two patients with one name.
    """

    patients: tuple[Patient, ...]
    modality: str | None = None
    empty: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, count in Counter(patient.id for patient in self.patients).items():
            if count > 1:
                raise ConfigError(f"patient {name} is listed twice", "Put their volumes together.")

    def __len__(self) -> int:
        return len(self.patients)

    def __iter__(self) -> Iterator[Patient]:
        return iter(self.patients)

    @classmethod
    def open(cls, path: PathLike, *, pattern: str = "*", modality: str | None = None) -> Cohort:
        """Open a table (.csv) or a folder; see `from_csv` and `from_folder`.

        Args:
            path: of the table or the folder.
            pattern: of file names to read; ignored for a table.
            modality: of files that do not state it.
        """
        if Path(path).suffix.lower() == ".csv":
            return cls.from_csv(path, modality=modality)
        return cls.from_folder(path, pattern=pattern, modality=modality)

    @classmethod
    def from_folder(
        cls, path: PathLike, *, pattern: str = "*", modality: str | None = None
    ) -> Cohort:
        """Read a folder that holds a folder for each patient, or else a file for each.

        Args:
            path: the folder of all patients.
            pattern: of file names to read ("T1*.nii.gz"), if labels lie beside images. With the
                default, if a patient's folder has no volume files, each folder below it that
                holds files is a DICOM series.
            modality: of files that do not state it.
        Raises:
            InputError: no volume found, files beside folders, or a distilled set.
        """
        root = Path(path)
        if not root.is_dir():
            raise InputError(f"{root} is not a folder", "Name the folder of the patients.")
        _refuse_set(root)
        files = [
            file for file in _volumes_below(root, pattern) if file.parent == root and file.is_file()
        ]
        patients, empty = [], []
        for folder in sorted(root.iterdir()):
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            if volumes := _volumes_below(folder, pattern):
                patients.append(Patient(folder.name, tuple(volumes)))
            else:
                empty.append(folder.name)
        if patients and files:
            raise InputError(
                f"{root}: {files[0].name} lies beside the patients' folders",
                "Put each patient's volumes into a folder, or all files without folders.",
            )
        patients = patients or [
            Patient(file.name[: -len(io.ending_of(file))], (file,)) for file in files
        ]
        if not patients:
            raise InputError(
                f"{root}: no volume matches {pattern!r}",
                f"Give a folder for each patient, with DICOM or {', '.join(io.READABLE)} files.",
            )
        return cls(tuple(patients), modality, tuple(empty))

    @classmethod
    def from_csv(cls, path: PathLike, *, modality: str | None = None) -> Cohort:
        """Read a table with the columns patient and path.

        Args:
            path: the table. Its paths are relative to its folder. A patient may have several
                rows. A path may be a folder, which is read as in `from_folder`.
            modality: of files that do not state it.
        Raises:
            InputError: with the number of the line that is wrong.
        """
        table = Path(path)
        paths: dict[str, list[Path]] = defaultdict(list)
        for name, file in _rows(table):
            volumes = table.parent / file
            paths[name] += (volumes.is_dir() and _volumes_below(volumes, "*")) or [volumes]
        if not paths:
            raise InputError(f"{table} has no rows", f"Give the columns {', '.join(_COLUMNS)}.")
        patients = (Patient(name, tuple(files)) for name, files in sorted(paths.items()))
        return cls(tuple(patients), modality)

    def require(self, purpose: str) -> None:
        """Raise InputError for too few patients; `purpose` is the subject of its message."""
        require_patients(len(self), purpose)

    def split(self, held_out: float, seed: int) -> tuple[Cohort, Cohort]:
        """Split by patient; the same seed and names give the same split.

        Args:
            held_out: the share of patients held out, 0 to below 1. Of two or more patients, any
                share above 0 holds out at least one and leaves at least one.
            seed: of the random choice.
        Returns:
            The cohorts for training and held out, both in the order of this one.
        """
        if not 0 <= held_out < 1:
            raise ConfigError(f"held_out is {held_out}", "Use 0 to below 1.")
        count = round(held_out * len(self))
        if held_out > 0 and len(self) > 1:
            count = min(max(count, 1), len(self) - 1)
        # By name: another order of the same patients is the same split.
        names = sorted(patient.id for patient in self.patients)
        order = np.random.default_rng(seed).permutation(len(names))
        held = {names[number] for number in order[:count]}
        return self.only(lambda p: p.id not in held), self.only(lambda p: p.id in held)

    def only(self, belongs: Callable[[Patient], bool]) -> Cohort:
        """Return the cohort of those patients for whom `belongs(patient)` is true, in order."""
        return replace(self, patients=tuple(filter(belongs, self.patients)))

    def volumes(
        self, *, least_slices: int = 1, monitor: Monitor | None = None
    ) -> Iterator[tuple[Patient, list[Volume]]]:
        """Yield each patient with all volumes, read and checked one patient at a time.

        Args:
            least_slices: the smallest number of slices in all volumes of a patient.
            monitor: notified of progress and warnings; may cancel.
        Raises:
            InputError: another modality than the first volume's, no image, too few slices, or two
                patients with the same slice, voxel for voxel: they are one person.
        """
        monitor = monitor or Monitor()
        if self.empty:
            monitor.warn(f"patients left out, without any volume: {', '.join(self.empty)}")
        seen: dict[bytes, str] = {}
        first: tuple[str, str] | None = None
        for number, patient in enumerate(self.patients):
            monitor.progress(number / len(self), f"reading patient {number + 1} of {len(self)}")
            volumes = patient.volumes(modality=self.modality, monitor=monitor)
            for path, volume in zip(patient.paths, volumes, strict=True):
                name = f"patient {patient.id}, {path.name}"
                first = first or (name, volume.modality)
                _check_modality(name, volume, first)
            count = sum(volume.shape[0] for volume in volumes)
            if count < least_slices:
                raise InputError(
                    f"patient {patient.id} has {count} slices; at least {least_slices} are needed",
                    "Leave the patient out.",
                )
            for key in {key for volume in volumes for key in slice_hashes(volume.voxels)}:
                owner = seen.setdefault(key, patient.id)
                if owner != patient.id:
                    raise InputError(
                        f"patients {owner} and {patient.id} are one person: they share slices",
                        "Put all volumes of a person under one name.",
                    )
            yield patient, volumes


def require_patients(count: int, purpose: str) -> None:
    """Raise InputError for too few patients; see `Cohort.require`."""
    if count < FEWEST_PATIENTS:
        raise InputError(
            f"{purpose} needs {FEWEST_PATIENTS} patients or more; the cohort has {count}",
            "Give a folder for each patient, or a table with their names.",
        )


def count_patients(path: PathLike, most: int = 10_000) -> int:
    """Count the patients that `Cohort.open` would find; stops at `most`.

    Raises what reading a table raises, and InputError for a distilled set.
    """
    root = Path(path)
    if root.suffix.lower() == ".csv":
        return min(most, len({name for name, _place in _rows(root)}))
    if not root.is_dir():
        return 0
    _refuse_set(root)
    shown = [each for each in root.iterdir() if not each.name.startswith(".")]
    folders = (each for each in shown if each.is_dir() and any(_files_below(each, "*")))
    files = (each for each in shown if io.ending_of(each) in io.READABLE and each.is_file())
    return sum(1 for _each in islice(folders, most)) or sum(1 for _each in islice(files, most))


def _refuse_set(folder: Path) -> None:
    """Raise InputError for a distilled set, whose pictures would count as patients."""
    if find_set(folder) is not None:
        raise InputError(
            f"{folder} is a distilled set, which holds no patients",
            "Train on it, or name the folder of the patients.",
        )


def _rows(table: Path) -> Iterator[tuple[str, str]]:
    """Read patient and path of each row of a table; InputError with the line that is wrong."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeError, csv.Error) as cause:
        raise InputError(f"{table} cannot be read: {cause}", "Name a CSV file.") from cause
    for line, row in enumerate(rows, 2):
        name, place = ((row.get(column) or "").strip() for column in _COLUMNS)
        if not (name and place):
            raise InputError(
                f"{table.name}, line {line}: no {_COLUMNS[1 if name else 0]}",
                f"Give the columns {' and '.join(_COLUMNS)}, with a value in each row.",
            )
        yield name, place


def _files_below(folder: Path, pattern: str) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and fnmatchcase(path.name, pattern):
            yield path


def _volumes_below(folder: Path, pattern: str) -> list[Path]:
    """List all volume files below a folder; without any, the folders that hold files (DICOM)."""
    files = sorted(_files_below(folder, pattern))
    volumes = [path for path in files if io.ending_of(path) in io.READABLE]
    return volumes or (sorted({path.parent for path in files}) if pattern == "*" else [])


def _check_modality(name: str, volume: Volume, first: tuple[str, str]) -> None:
    if (quantity := quantity_of(volume)[0]) in UNFIT:
        raise InputError(
            f"{name}: {quantity}, not an image", "Select the images (--pattern, pattern=)."
        )
    if not volume.profile.is_known:
        likely = " and ".join(likely_modalities(volume.voxels, volume.geometry.spacing))
        raise InputError(f"{name}: unknown modality, like {likely}", f"State it: {SET_MODALITY}.")
    if volume.profile.is_magnitude and float(np.mean(volume.voxels < _NEVER_MR)) > _SHOWN:
        raise InputError(
            f"{name}: stated as MR, but it has values of CT (below {_NEVER_MR})",
            "Select images of one modality (--pattern, pattern=), or state CT.",
        )
    if volume.modality != first[1]:
        raise InputError(
            f"{first[0]} is {first[1]}, but {name} is {volume.modality}",
            "A cohort has one modality: select it (--pattern, pattern=), or state it.",
        )


def slice_hashes(voxels: Array, least: float = _SHOWN) -> Iterator[bytes]:
    """Yield a hash of the values of each slice that shows something, whatever their type.

    least: share of a slice's values that have to differ from its first one.
    """
    for plane in voxels:
        values = np.ascontiguousarray(plane, dtype="<f4")
        if np.mean(values != values.flat[0]) > least:
            digest = hashlib.sha256(repr(values.shape).encode())
            digest.update(values.tobytes())
            yield digest.digest()

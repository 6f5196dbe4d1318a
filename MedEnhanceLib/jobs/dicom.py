"""DICOM around a job: the series that a volume belongs to, and how its result is written.

`lay_beside` places a volume on the grid of a series, slice by slice where it can; `DicomParams`
and the checks below it are what every job takes that writes DICOM.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.options import About, Params, option
from MedEnhanceLib.core.origin import DicomOrigin
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, GeometryError, InputError, OutputError
from MedEnhanceLib.jobs.files import check_volume_outputs, manifest_path
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

#: How far cosines, and spacings relative to their size, may differ on the same grid: NIfTI keeps
#: seven digits, DICOM's own positions often fewer.
_SAME = 2e-3
#: How far a voxel may lie beside the one of the series, in voxels.
_NEAR = 0.1
_LARGEST_MANIFEST = 1 << 24


@dataclass(frozen=True)
class Series:
    """A series without its voxels. shape: as its volume's, [K, J, I] or [T, K, J, I]."""

    name: str
    origin: DicomOrigin
    geometry: Geometry
    shape: tuple[int, ...]

    @property
    def frames(self) -> int:
        """How many time points it has."""
        return self.shape[0] if len(self.shape) == 4 else 1

    def of_frames(self, first: int, stop: int) -> Series:
        """Some of its time points, from `first` to before `stop`; all where it has fewer."""
        if self.frames < stop or self.frames == 1:
            return self
        origin = replace(self.origin, instances=self.origin.instances[first:stop])
        return replace(self, origin=origin, shape=(stop - first, *self.shape[1:]))


def lay_beside(volume: Volume, series: Series, monitor: Monitor) -> Volume:
    """The volume with the images of `series` behind it.

    Where its voxels are those of the series, or whole slices of them, turned or mirrored as other
    formats do it, they are put in the order of the series, nothing is resampled, and each slice
    gets its image. Else it keeps its own grid, which a warning says.
    Raises InputError where the volume is known to be of another study, where nothing states which
    time points it has, and where the two have no place in common.
    """
    name = name_of(volume)
    _check_source(volume, series, name, monitor)
    turned = _turned(volume, series.geometry)
    first = None if turned is None else _first_slice(turned, series)
    if turned is None or first is None:
        _refuse_elsewhere(volume, series, name)
        monitor.warn(
            f"{name} does not lie on the grid of {series.name} ({_size(volume.shape)} and "
            f"{_size(series.shape)} voxels): it is written with its own size and spacing, in the "
            "same patient, study and frame of reference"
        )
        return replace(volume, origin=replace(series.origin, on_grid=False))
    return replace(
        turned,
        geometry=series.geometry.cropped((first, 0, 0)),
        origin=series.origin.cropped(first, first + turned.shape[-3]),
    )


def name_of(volume: Volume) -> str:
    """What a message calls it: the last part of its path, without the UID of its series."""
    return Path(volume.source.partition(" (series ")[0]).name or "the volume"


def _check_source(volume: Volume, series: Series, name: str, monitor: Monitor) -> None:
    """Refuse a series of another study or of other time points; warn of another series."""
    study, made_from = _known_uids(volume)
    if study and study != series.origin.study:
        raise InputError(
            f"{name} was made from a series of another study ({study}) than {series.name} "
            f"({series.origin.study}): it would get the wrong patient",
            f"Give the series that it was made from ({made_from}).",
        )
    frames = volume.shape[0] if volume.is_sequence else 1
    if series.frames not in (1, frames) and volume.modality != "SEG":  # labels have no time
        raise InputError(
            f"{name} has {frames} of the {series.frames} time points of {series.name}, and nothing "
            "states which",
            "Give the images of its own time points alone, as a list of their files (.txt).",
        )
    if made_from and made_from != series.origin.series:
        same = ", of the same study" if study else ": check that it is right"
        monitor.warn(
            f"{name} was made from the series {made_from}; {series.name} is another one "
            f"({series.origin.series}){same}"
        )


def _known_uids(volume: Volume) -> tuple[str, str]:
    """Of the study and series that a volume was made from, "" where nothing states them.

    An image file knows none; the manifest that our commands write beside it does.
    """
    if volume.origin is not None:
        return volume.origin.study, volume.origin.series
    if not volume.source:
        return "", ""
    path = manifest_path(Path(volume.source))
    try:
        if path.stat().st_size > _LARGEST_MANIFEST:
            return "", ""
        dicom = json.loads(path.read_bytes())["dicom"]
        return str(dicom["study"]), str(dicom["series"])
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return "", ""


def _turned(volume: Volume, geometry: Geometry) -> Volume | None:
    """The same voxels with the axes of `geometry`; None where those are no axes of the volume."""
    cosines = np.asarray(geometry.direction).T @ np.asarray(volume.geometry.direction)
    axes = np.abs(cosines).argmax(axis=1)
    signs = np.array([np.sign(cosines[row, axis]) for row, axis in enumerate(axes)])
    exact = np.zeros((3, 3))
    exact[range(3), axes] = signs
    if sorted(axes) != [0, 1, 2] or np.abs(cosines - exact).max() > _SAME:
        return None
    lead = volume.voxels.ndim - 3
    order = [*range(lead), *(lead + 2 - int(axis) for axis in axes[::-1])]
    flips = tuple(lead + 2 - axis for axis in range(3) if signs[axis] < 0)
    start = np.array([0.0, 0.0, 0.0, 1.0])
    for axis, sign in zip(axes, signs, strict=True):
        start[axis] = volume.shape[-1 - axis] - 1 if sign < 0 else 0
    own = np.asarray(volume.geometry.direction)
    return replace(
        volume,
        voxels=np.flip(volume.voxels.transpose(order), flips),
        geometry=Geometry(
            tuple(volume.geometry.spacing[axis] for axis in axes),  # type: ignore[arg-type]
            tuple((volume.geometry.affine_lps @ start)[:3].tolist()),
            (own[:, axes] * signs).tolist(),
        ),
    )


def _first_slice(volume: Volume, series: Series) -> int | None:
    """Which slice of the series the volume begins with; None where it does not lie on them."""
    spacing, wanted = np.array(volume.geometry.spacing), np.array(series.geometry.spacing)
    start = np.linalg.inv(series.geometry.affine_lps) @ [*volume.geometry.origin, 1.0]
    first = round(float(start[2]))
    frames = volume.shape[0] if volume.is_sequence else 1
    fits = (
        frames == series.frames
        and volume.shape[-2:] == series.shape[-2:]
        and 0 <= first <= series.shape[-3] - volume.shape[-3]
        and np.abs(spacing / wanted - 1).max() < _SAME
        and np.abs(start[:3] - [0, 0, first]).max() < _NEAR
    )
    return first if fits else None


def _refuse_elsewhere(volume: Volume, series: Series, name: str) -> None:
    corners = itertools.product(*((-0.5, count - 0.5) for count in volume.shape[:-4:-1]))
    to_series = np.linalg.inv(series.geometry.affine_lps) @ volume.geometry.affine_lps
    places = np.array([(to_series @ [*corner, 1.0])[:3] for corner in corners])
    ends = np.array(series.shape[:-4:-1]) - 0.5
    if (places.max(axis=0) < -0.5).any() or (places.min(axis=0) > ends).any():
        raise GeometryError(
            f"{name} and {series.name} have no place in common: they are not of the same scan, or "
            "one of them has lost its position",
            "Give the series that the volume was made from.",
        )


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(str(count) for count in shape[::-1])


def read_series(like: Mapping[str, str], monitor: Monitor) -> Series:
    """The series at like["path"] without its voxels; errors as `io.load`'s of DICOM."""
    from MedEnhanceLib.io.dicom import read_grid

    path = Path(like["path"])
    try:
        origin, geometry, shape = read_grid(path, series=like.get("series"), monitor=monitor)
    except InputError as error:
        error.hint = error.hint.replace("--series", "--like-series")
        raise
    return Series(path.name or str(path), origin, geometry, shape)


_OF_DICOM = (
    "like",
    "patient_id",
    "patient_name",
    "study_description",
    "series_description",
    "deidentify",
)


@dataclass(frozen=True, kw_only=True)
class DicomParams(Params):
    """What every job that writes a volume takes: a file, or a folder of DICOM objects."""

    output: Annotated[
        str,
        About(
            help=".nii.gz, .nii, .nrrd or .mha; with dicom a folder; an address too (s3://)",
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
    deidentify: bool = option(
        False,
        help="leave out what names the patient: attributes of the scan stay, under a pseudonym",
    )
    series_description: str | None = option(
        None, help="instead of one made from the source's", metavar="TEXT"
    )
    patient_id: str | None = option(
        None, help="whose it is, for what never was DICOM: a new study", metavar="ID"
    )
    patient_name: str | None = option(
        None, help="as DICOM writes it, for example Doe^Jane", metavar="NAME"
    )
    study_description: str | None = option(None, help="of a new study", flag=None)
    overwrite: bool = option(False, help="replace existing outputs", flag="--force")

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
        if self.deidentify and self.names_patient:
            raise ConfigError(
                "a patient is named, and de-identification asked for",
                "Give a pseudonym as the patient's ID, and leave out deidentify (--deidentify).",
            )

    @property
    def names_patient(self) -> bool:
        """Whether it says whose a new study is."""
        return any((self.patient_id, self.patient_name, self.study_description))

    @property
    def has_objects(self) -> bool:
        """Whether more than a series of images is written, for which highdicom is needed."""
        return False

    def require_packages(self) -> None:
        """Raise DependencyError, before the long work, for what DICOM is written with after it."""
        if self.dicom and self.has_objects:
            require("highdicom", purpose="Writing DICOM objects")


def check_folder(
    folder: Path, *, inputs: Sequence[Path], overwrite: bool, monitor: Monitor | None = None
) -> None:
    """Refuse before the long work a folder that DICOM objects could not go into after it.

    What an earlier writing left in it, whose process was killed, is put in order first.
    Raises OutputError for a file's name, for an input's own folder, and for a folder that holds
    something, unless it may be added to.
    """
    from MedEnhanceLib import io
    from MedEnhanceLib.io.atomic import refuse_existing, refuse_unwritable
    from MedEnhanceLib.io.dicom.sources import is_dicom
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
    refuse_unwritable(folder)
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
    params.require_packages()
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

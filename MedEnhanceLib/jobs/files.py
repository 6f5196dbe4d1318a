"""Input and output of jobs: volumes, paths of files, checks before long work."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from MedEnhanceLib import denoise, io
from MedEnhanceLib.core.modality import ModalityName
from MedEnhanceLib.core.options import About, Params, option, options_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, EndingError, OutputError
from MedEnhanceLib.io.atomic import entry_of, refuse_existing, refuse_unwritable, resolved
from MedEnhanceLib.io.formats import CONTAINER, listed, voxel_endings, written_format
from MedEnhanceLib.runtime.progress import Monitor

#: Help for files that are read, and that are written.
_INPUT_FILE = (
    f"input volume: a file ({', '.join(io.READABLE)}, {CONTAINER}); of DICOM a folder, a file, a "
    "DICOMDIR or a list of files"
)
OUTPUT_FILE = f"output file: {listed(io.WRITABLE)}"


@dataclass(frozen=True)
class Result:
    """The facts of a finished job; all of them can be written as JSON.

    Attributes:
        fields: jobs that write have `outputs` (name → path), `manifest` (path), `seconds` and
            `device`; each kind adds its own figures (see docs/jobs.md).
    """

    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


@dataclass(frozen=True, kw_only=True)
class VolumeParams(Params):
    """Parameters of every job that reads a volume."""

    input: Annotated[
        str,
        About(
            help=_INPUT_FILE,
            flag="INPUT",
            place="input",
        ),
    ]
    series: str | None = option(
        None,
        help="DICOM series, if INPUT has several: its number in inspect, or its UID",
        metavar="S",
    )
    modality: ModalityName | None = option(
        None, help="CT, MR, PT (PET), EM, SEG (labels) or OT, if missing or wrong", metavar="M"
    )
    resample: bool = option(
        False,
        help="resample a DICOM series with a tilted gantry, gaps or uneven spacing to an even "
        "rectangular grid, instead of refusing it",
    )
    complete_frames: bool = option(
        False,
        help="leave out the last frame of a DICOM sequence if it lacks slices, instead of refusing "
        "the series",
    )

    def load(self, monitor: Monitor, scratch: Path | None = None) -> Volume:
        """Load the volume; scratch, and errors: see `io.load`."""
        monitor.progress(0.0, "loading the volume")
        return io.load(self.input, scratch=scratch, monitor=monitor, **self.stated())

    def stated(self) -> dict[str, Any]:
        """Return the options of the input that were stated, without its path."""
        names = ("series", "modality", "resample", "complete_frames")
        return {name: value for name in names if (value := getattr(self, name))}


@dataclass(frozen=True, kw_only=True)
class OutputParams(Params):
    """Parameters of every job that writes a volume."""

    output: Annotated[
        str,
        About(help=OUTPUT_FILE, flag="OUTPUT", place="output"),
    ]
    overwrite: bool = option(False, help="replace existing outputs", flag="--force")


class KeptVolumes:
    """The volume that a worker keeps between jobs: a second preview computes its slices only."""

    def __init__(self) -> None:
        self._key: Hashable = None
        self._kept: tuple[Volume, denoise.VolumeCache] | None = None

    def load(
        self, params: VolumeParams, *, keep: bool, scratch: Path | None = None, monitor: Monitor
    ) -> tuple[Volume, denoise.VolumeCache | None]:
        """Return the volume of `params`, and its measurements by earlier jobs (None if not kept).

        The kept volume is not read again unless its file has changed. Another one is read and, with
        `keep`, kept without measurements in its place.

        Args:
            params: input file and how it is read.
            keep: whether a volume that is read now is kept; if not, the kept one is dropped, as
                the job may need its memory.
            scratch: as in `io.load`.
            monitor: receives progress.
        """
        key = _key_of(params)
        if self._kept is None or key is None or key != self._key:
            self._key = self._kept = None
            volume = params.load(monitor, scratch)
            # A file that was replaced while it was read now has another key.
            if not keep or key is None or key != _key_of(params):
                return volume, None
            self._key, self._kept = key, (volume, denoise.VolumeCache())
        monitor.progress(1.0, "loading the volume")
        return self._kept


def _key_of(params: VolumeParams) -> Hashable:
    """Return a key for the content of the file; None for a folder: its files may change unseen."""
    path = Path(params.input)
    is_known = io.format_of(path) or io.ending_of(path) == CONTAINER
    if not is_known or voxel_endings(path) or not path.is_file():
        return None  # the voxels of a header lie in another file, which may change alone
    state = path.stat()
    # A link to a file is the same file; some file systems have no inode numbers.
    place = (state.st_dev, state.st_ino) if state.st_ino else str(path.resolve())
    return place, state.st_size, state.st_mtime_ns, params.series, params.modality


def region_from_json(region: list[list[int | None] | None] | None) -> tuple[slice, ...] | None:
    """Convert [[40, 60], null] to slices, None to None; ConfigError for an invalid entry."""
    if region is None:
        return None
    for ends in region:
        if ends is not None and len(ends) != 2:
            raise ConfigError(
                f"region has the entry {ends!r}", "Give a list [start, stop], or null for all."
            )
    return tuple(slice(*(ends or (None, None))) for ends in region)


def check_outputs(
    outputs: Mapping[str, Path],
    *,
    inputs: Iterable[Path] = (),
    ending: str = "",
    overwrite: bool,
) -> None:
    """Refuse outputs that could not be saved; call it before the long work.

    Refused are existing files (their manifests too), missing folders, unsupported endings, and
    paths of inputs.

    Args:
        outputs: parameter's name → path.
        inputs: files that are read.
        ending: of the outputs; "" for those of volumes.
        overwrite: whether files may be replaced.
    Raises OutputError, EndingError or ConfigError, naming the file.
    """
    sources = {resolved(path) for path in inputs}
    places = {entry_of(path) for path in outputs.values()}
    if len(places) < len(outputs):
        raise ConfigError(
            f"two outputs share one path: {', '.join(map(str, outputs.values()))}",
            "Give each its own.",
        )
    for name, path in outputs.items():
        check_ending(path, ending)
        if resolved(path) in sources:
            raise OutputError(
                f"{path}: {name} is the input itself", "Give the output another name."
            )
        if not path.parent.is_dir():
            raise OutputError(
                f"{path}: the folder {path.parent} does not exist", "Create it, or name another."
            )
        refuse_existing(path, overwrite)
        refuse_existing(manifest_path(path), overwrite)
        refuse_unwritable(path.parent)


def check_ending(path: Path, ending: str = "") -> None:
    """Raise EndingError unless a name has this ending, or for "" one of volumes."""
    if ending and path.suffix.lower() != ending:
        raise EndingError(f"{path.name}: unsupported output extension", f"Use {ending}.")
    if not ending and not written_format(path):
        compress = f"; compress writes {CONTAINER}" if path.suffix.lower() == CONTAINER else ""
        raise EndingError(
            f"{path.name}: unsupported output extension",
            f"Use one of {', '.join(io.WRITABLE)}{compress}; or set dicom (--dicom) to write a "
            "series into a folder.",
        )


def manifest_path(output: Path) -> Path:
    """Return the path of an output's manifest, `<output>.json`."""
    return output.with_name(f"{output.name}.json")


def inputs_of(params: Params) -> dict[str, Path]:
    """List the files and folders that parameters declare to be read, by name: "input", …"""
    places: dict[str, Path] = {}
    for source in options_of(type(params)):
        value = getattr(params, source.name) if source.about.place == "input" else None
        paths = [place for place in (value if isinstance(value, list) else [value]) if place]
        for number, place in enumerate(paths, 1):
            path = Path(place) if Path(place).name else Path(place).absolute()  # "." has a name
            places[source.name if number == 1 else f"{source.name} {number}"] = path
    return places


def results_of(params: Params) -> dict[str, Path]:
    """List the files that parameters declare to be written: `mask_output` is "mask"."""
    return {
        result.name.removesuffix("_output"): Path(place)
        for result in options_of(type(params))
        if result.about.place == "output" and (place := getattr(params, result.name))
    }


def beside(output: str, word: str) -> str:
    """Turn `out.nii.gz` into `out-word.nii.gz`, for a further output."""
    ending = io.ending_of(Path(output))
    return f"{output[: -len(ending) or None]}-{word}{ending}"

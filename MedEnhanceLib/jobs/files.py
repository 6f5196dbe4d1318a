"""What jobs read, write and return: volumes, checks before long work, manifests after it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from MedEnhanceLib.core.manifest import file_sha256, make_manifest
from MedEnhanceLib.core.options import About, Params, option, options_of
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, EndingError, OutputError
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.hqg import VolumeCache
    from MedEnhanceLib.jobs.dicom import Written

CONTAINER = ".ucv"
#: Files that hold all of their volume, so that their size and time show a change.
_WHOLE_FILES = (".nii", ".nii.gz", ".nrrd", ".mha", ".ucv")


@dataclass(frozen=True)
class Result:
    """The facts of a finished job; all of them can be written as JSON.

    fields: jobs that write have `outputs` (name → path), `manifest` (path), `seconds` and
    `device`; each kind adds its own figures (see docs/jobs.md).
    """

    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]


@dataclass(frozen=True, kw_only=True)
class VolumeParams(Params):
    """What every job that reads a volume takes."""

    input: Annotated[
        str,
        About(
            help="a volume: a file, a .ucv, or DICOM: a folder, a file, a DICOMDIR, a list; "
            "a file's address too (https://, s3://)",
            flag="INPUT",
            place="input",
        ),
    ]
    series: str | None = option(
        None,
        help="which DICOM series of several: its number in the table of inspect, or its UID",
        metavar="S",
    )
    modality: str | None = option(
        None, help="CT, MR, PT, EM or OT, where the file says none or a wrong one", metavar="M"
    )
    resample: bool = option(
        False,
        help="resample a DICOM series with a tilted gantry, gaps or uneven spacing to an even "
        "rectangular grid, instead of refusing it",
    )

    def load(self, monitor: Monitor, scratch: Path | None = None) -> Volume:
        """The volume; scratch and errors as `io.load`'s."""
        return load_volume(Path(self.input), scratch=scratch, monitor=monitor, **self.stated())

    def stated(self) -> dict[str, Any]:
        """What was stated of the input besides its place."""
        names = ("series", "modality", "resample")
        return {name: value for name in names if (value := getattr(self, name))}


@dataclass(frozen=True, kw_only=True)
class OutputParams(Params):
    """What every job that writes a volume takes."""

    output: Annotated[
        str,
        About(
            help=".nii.gz, .nii, .nrrd or .mha; an address too (s3://)",
            flag="OUTPUT",
            place="output",
        ),
    ]
    overwrite: bool = option(False, help="replace existing outputs", flag="--force")


def load_volume(
    path: Path,
    *,
    modality: str | None = None,
    series: str | None = None,
    resample: bool = False,
    scratch: Path | None = None,
    monitor: Monitor | None = None,
) -> Volume:
    """The volume of a file or folder, or of a container; arguments and errors as `io.load`."""
    if path.suffix.lower() == CONTAINER:
        from MedEnhanceLib.unicompress import decompress

        if series is not None:
            raise ConfigError(f"{path.name}: a container has no series", "Leave series out.")
        volume = decompress(path, monitor=monitor)
        return replace(volume, modality=modality) if modality else volume
    from MedEnhanceLib import io

    return io.load(
        path,
        modality=modality,
        series=series,
        resample=resample,
        scratch=scratch,
        monitor=monitor,
    )


class KeptVolume:
    """The last volume that was read for a preview, with the state of its file at that time.

    A second preview then pays for its slices alone: neither for reading the file nor for what is
    measured of the whole volume.

    cache: what `hqg.enhance` measured of the volume that is kept; else None.
    """

    def __init__(self) -> None:
        self._key: Hashable = None
        self._volume: Volume | None = None
        self.cache: VolumeCache | None = None

    def load(
        self,
        params: VolumeParams,
        *,
        keep: bool,
        scratch: Path | None = None,
        monitor: Monitor,
    ) -> Volume:
        """The volume of `params`: the kept one where the file is still the same.

        Any other one is forgotten first. keep: whether to remember this one.
        scratch: as `io.load` takes it.
        """
        from MedEnhanceLib.hqg import VolumeCache

        key = _key_of(params)
        if self._volume is None or key is None or key != self._key:
            self.forget()
            volume = params.load(monitor, scratch)
            # A file that was exchanged while it was read has another key by now.
            if not keep or key is None or key != _key_of(params):
                return volume
            self._key, self._volume, self.cache = key, volume, VolumeCache()
        monitor.progress(1.0, "load")
        return self._volume

    def forget(self) -> None:
        """Give the memory back."""
        self._key = self._volume = self.cache = None


@dataclass(frozen=True)
class KeptVolumes:
    """What a worker keeps in memory between jobs: one input and one guide, no more."""

    input: KeptVolume = field(default_factory=KeptVolume)
    guide: KeptVolume = field(default_factory=KeptVolume)


def _key_of(params: VolumeParams) -> Hashable:
    """What names the content of the file; None for a folder, whose files may change unseen."""
    from MedEnhanceLib.io import ending_of

    path = Path(params.input)
    if ending_of(path) not in _WHOLE_FILES or not path.is_file():
        return None
    state = path.stat()
    place = str(path.resolve())
    return place, state.st_size, state.st_mtime_ns, params.series, params.modality


def check_volume_outputs(
    outputs: Mapping[str, Path], *, inputs: Sequence[Path], overwrite: bool
) -> None:
    """Refuse before the long work what could not be saved after it.

    outputs: parameter's name → path of a volume. Raises OutputError or ConfigError.
    """
    for path in outputs.values():
        check_ending(path)
    check_outputs(outputs, inputs=inputs, overwrite=overwrite)


def check_ending(path: Path) -> None:
    """Raise EndingError where no volume is written with the ending of `path`."""
    from MedEnhanceLib import io

    if io.ending_of(path) not in io.WRITABLE:
        raise EndingError(
            f"{path.name}: unsupported output extension",
            f"Use one of {', '.join(io.WRITABLE)}"
            f"{'; compress writes ' + CONTAINER if path.suffix.lower() == CONTAINER else ''}"
            "; or set dicom (--dicom), and a folder gets a series.",
        )


def check_outputs(outputs: Mapping[str, Path], *, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse existing files (their manifests too), missing folders, and writing over an input."""
    from MedEnhanceLib.io.atomic import refuse_existing, refuse_unwritable, resolved
    from MedEnhanceLib.io.voxels import input_error

    places = {name: resolved(path) for name, path in outputs.items()}
    read = {resolved(path, input_error) for path in inputs}
    if len(set(places.values())) < len(outputs):
        raise ConfigError(
            f"two outputs share one path: {', '.join(map(str, outputs.values()))}",
            "Give each its own.",
        )
    for name, path in outputs.items():
        if places[name] in read:
            raise OutputError(
                f"{path}: {name} is the input itself", "Give the output another name."
            )
        if not path.parent.is_dir():
            raise OutputError(
                f"{path}: the folder {path.parent} is not there", "Make it, or give another path."
            )
        refuse_existing(path, overwrite)
        refuse_existing(manifest_path(path), overwrite)
        refuse_unwritable(path.parent)


def manifest_path(output: Path) -> Path:
    """Where the manifest of an output lies: beside it, `<output>.json`."""
    return output.with_name(f"{output.name}.json")


def results_of(params: Params) -> dict[str, Path]:
    """The files that a job's parameters name for results, by what each of them holds.

    `mask_output` holds "mask"; which parameters name results says their declaration.
    """
    return {
        result.name.removesuffix("_output"): Path(place)
        for result in options_of(type(params))
        if result.about.place == "output" and (place := getattr(params, result.name))
    }


def beside(output: str, word: str) -> str:
    """`out.nii.gz` → `out-word.nii.gz`, for what comes with an output; an address too."""
    from MedEnhanceLib.io import ending_of

    ending = ending_of(Path(output))
    return f"{output[: -len(ending) or None]}-{word}{ending}"


def path_of(volume: Volume) -> Path:
    """Where a volume was read, without the UID of its series."""
    return Path(volume.source.partition(" (series ")[0])


def known_as(path: Path, volume: Volume) -> Path:
    """What a manifest names as input: the file, or what its owner calls the volume in it."""
    return path if volume.source.startswith(str(path)) else Path(volume.source or path)


def recorded(inputs: Mapping[str, Path]) -> dict[str, str]:
    """What a manifest states of each file that was read: its hash.

    Not its name: files are often called as patients are.
    """
    from MedEnhanceLib.io import ending_of

    def neutral(path: Path) -> str:
        try:
            if path.is_file():
                ending = ending_of(path) and f" ({ending_of(path)})"
                return f"a file{ending}, SHA-256 {file_sha256(path)}"
            return "a folder" if path.is_dir() else "a volume"
        except OSError:  # gone since, or a header called its volume as no file can be called
            return "a volume"

    return {name: neutral(path) for name, path in inputs.items()}


class Work:
    """A job that writes, from its beginning to its manifest.

    action: as manifests have it, "converted". params: whose `overwrite` the manifest shares.
    """

    def __init__(self, action: str, params: Any) -> None:
        self._action, self._params, self._began = action, params, time.monotonic()

    def finish(
        self,
        outputs: Mapping[str, Path],
        *,
        inputs: Mapping[str, Path],
        config: Any = None,
        figures: Mapping[str, Any] | None = None,
        device: str = "cpu",
        model: Mapping[str, str] | None = None,
        source: Volume | None = None,
        written: Written | None = None,
    ) -> Result:
        """Write the manifest beside the first output; the Result that reports both.

        Args:
            outputs: by what they hold.
            inputs: by their role; the manifest states their hashes.
            config: None: what was stated of the input.
            figures: what the job found out; they go into both.
            device: that models ran on.
            model: name and SHA-256.
            source: the volume that was read, whose DICOM series the manifest names.
            written: the DICOM objects in the output, whose files the Result alone lists.
        """
        from MedEnhanceLib.io.atomic import write_json

        if config is None:
            config = self._params.stated() if isinstance(self._params, VolumeParams) else {}
        seconds = round(time.monotonic() - self._began, 3)
        figures = as_json({**(figures or {}), **(written.figures if written else {})})
        manifest = make_manifest(
            self._action,
            config=as_json(config),
            inputs=recorded(inputs),
            device=device,
            seconds=seconds,
            model=model,
            results=figures,
            dicom=source.origin.facts() if source is not None and source.origin else None,
        )
        path = manifest_path(next(iter(outputs.values())))
        write_json(path, manifest, overwrite=self._params.overwrite)
        return Result(
            {
                "outputs": {name: str(output) for name, output in outputs.items()},
                "manifest": str(path),
                "device": device,
                "seconds": seconds,
                **({"model": dict(model)} if model else {}),
                **figures,
                **(as_json(written.listed) if written else {}),
            }
        )

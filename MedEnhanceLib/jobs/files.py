"""What jobs read and write: volumes by their ending, refusals before long work, manifests after."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from MedEnhanceLib.core.manifest import make_manifest
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.jobs.result import Result
from MedEnhanceLib.jobs.worker.events import as_json
from MedEnhanceLib.runtime.progress import Monitor

CONTAINER = ".ucv"


@dataclass(frozen=True, kw_only=True)
class VolumeParams:
    """What every job that reads a volume is told of it.

    input: a file, a container, or DICOM: a folder, a zip, a DICOMDIR, a list of files. series:
    which series of several, by its instance UID or its number in the list. modality: states what
    the file does not, or says wrongly ("CT", "MR", …). fix_tilt, fix_spacing: resample a series
    with a tilted gantry, or with gaps or uneven spacing, which is refused otherwise.
    """

    input: str
    series: str | None = None
    modality: str | None = None
    fix_tilt: bool = False
    fix_spacing: bool = False

    def load(self, monitor: Monitor, scratch: Path | None = None) -> Volume:
        """The volume; scratch and errors as `io.load`'s."""
        return load_volume(
            Path(self.input),
            modality=self.modality,
            series=self.series,
            fix_tilt=self.fix_tilt,
            fix_spacing=self.fix_spacing,
            scratch=scratch,
            monitor=monitor,
        )

    def told(self) -> dict[str, Any]:
        """What was said of the input besides its place, for the manifest."""
        told = {
            "series": self.series,
            "modality": self.modality,
            "fix_tilt": self.fix_tilt,
            "fix_spacing": self.fix_spacing,
        }
        return {name: value for name, value in told.items() if value}


def load_volume(
    path: Path,
    *,
    modality: str | None = None,
    series: str | None = None,
    fix_tilt: bool = False,
    fix_spacing: bool = False,
    scratch: Path | None = None,
    monitor: Monitor | None = None,
) -> Volume:
    """Whatever we read, a compressed container too; errors as `io.load`'s."""
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
        fix_tilt=fix_tilt,
        fix_spacing=fix_spacing,
        scratch=scratch,
        monitor=monitor,
    )


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
    """Raise OutputError where no volume is written with the ending of `path`."""
    from MedEnhanceLib import io

    if io.ending_of(path) not in io.WRITABLE:
        raise OutputError(
            f"{path.name}: no volume is written with this ending",
            f"Use one of {', '.join(io.WRITABLE)}"
            f"{'; compress writes ' + CONTAINER if path.suffix.lower() == CONTAINER else ''}"
            "; or set dicom (--dicom), and a folder gets a series.",
        )


def check_outputs(outputs: Mapping[str, Path], *, inputs: Sequence[Path], overwrite: bool) -> None:
    """Refuse existing files (their manifests too), missing folders, and writing over an input."""
    from MedEnhanceLib.io.atomic import refuse_existing

    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise ConfigError(
            f"two outputs share one path: {', '.join(map(str, outputs.values()))}",
            "Give each its own.",
        )
    for name, path in outputs.items():
        if path.resolve() in {entry.resolve() for entry in inputs}:
            raise OutputError(
                f"{path}: {name} is the input itself", "Give the output another name."
            )
        if not path.parent.is_dir():
            raise OutputError(
                f"{path}: the folder {path.parent} is not there", "Make it, or give another path."
            )
        refuse_existing(path, overwrite)
        refuse_existing(manifest_path(path), overwrite)


def manifest_path(output: Path) -> Path:
    """Where the manifest of an output lies: beside it, `<output>.json`."""
    return output.with_name(f"{output.name}.json")


def beside(output: Path, word: str) -> Path:
    """`out.nii.gz` → `out-word.nii.gz`, for what comes with an output."""
    from MedEnhanceLib.io import ending_of

    ending = ending_of(output)
    return output.with_name(f"{output.name[: -len(ending) or None]}-{word}{ending}")


def known_as(path: Path, volume: Volume) -> Path:
    """What a manifest names as input: the file, or what its owner calls the volume in it."""
    return path if volume.source.startswith(str(path)) else Path(volume.source or path)


class Told(Protocol):
    """What was written besides files of volumes."""

    def figures(self) -> dict[str, Any]:
        """For a job's result and its manifest."""

    def told(self) -> dict[str, Any]:
        """For a job's result alone."""


def finish(
    action: str,
    outputs: Mapping[str, Path],
    *,
    began: float,
    config: Any,
    inputs: Mapping[str, Path],
    figures: Mapping[str, Any],
    device: str = "cpu",
    model: Mapping[str, str] | None = None,
    source: Volume | None = None,
    written: Told | None = None,
    anonymous: bool = False,
    overwrite: bool,
) -> Result:
    """Write the manifest beside the first output; the Result that tells of both.

    began: `time.monotonic()` at the start. figures: what the job found out; it goes into both.
    source: the volume that was read, whose DICOM series the manifest names. written: the DICOM
    objects in the output, whose files only the Result tells. anonymous: the manifest, which lies
    beside what nobody shall be recognised by, names neither input nor series: files are often
    called as patients are.
    """
    from MedEnhanceLib.io.atomic import write_json

    seconds = round(time.monotonic() - began, 3)
    figures = as_json({**figures, **(written.figures() if written else {})})
    origin = source.origin if source is not None and not anonymous else None
    config = as_json(config)
    if anonymous:
        config.pop("series", None)
    manifest = make_manifest(
        action,
        config=config,
        inputs={} if anonymous else {name: path.name for name, path in inputs.items()},
        device=device,
        seconds=seconds,
        model=model,
        results=figures,
        dicom=origin.facts() if origin else None,
    )
    path = manifest_path(next(iter(outputs.values())))
    write_json(path, manifest, overwrite=overwrite)
    named = {"model": dict(model)} if model else {}
    return Result(
        {
            "outputs": {name: str(output) for name, output in outputs.items()},
            "manifest": str(path),
            "device": device,
            "seconds": seconds,
            **named,
            **figures,
            **(as_json(written.told()) if written else {}),
        }
    )

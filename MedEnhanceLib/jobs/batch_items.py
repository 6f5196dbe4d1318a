"""Volumes of a batch, and the path of each result."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from MedEnhanceLib import io
from MedEnhanceLib._version import __version__
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError, OutputError
from MedEnhanceLib.io.atomic import resolved, write_json
from MedEnhanceLib.jobs.files import CONTAINER
from MedEnhanceLib.runtime.progress import Monitor

_DICOM = ".dcm"
#: UID or UID/part of one of several series at a path (numbers in a list change), and what it leaves
#: out. Empty texts for the only series.
_Series = tuple[str, str]
_ALL: _Series = ("", "")
#: How many files of a folder are opened to see whether they are DICOM.
_OPENED = 3


@dataclass(frozen=True)
class Item:
    """One volume of a batch: its path, and where its result goes; absolute, for remote workers.

    Attributes:
        series: which one, where `source` holds several, as `--series` takes it.
        left_out: what of the series is not in this volume; "" for nothing.
    """

    source: str
    output: str
    series: str = ""
    left_out: str = ""

    @property
    def name(self) -> str:
        """The name in a row."""
        return f"{self.source} (series {self.series})" if self.series else self.source

    @property
    def params(self) -> dict[str, str]:
        """The parameters of its job."""
        params = {"input": self.source, "output": self.output}
        return params | ({"series": self.series} if self.series else {})


def gather(
    places: Sequence[str], out: Path, *, containers: bool, ending: str | None, monitor: Monitor
) -> list[Item]:
    """Return the volumes at all places, in order.

    Args:
        places: files, and folders, which give every volume below them; a folder of DICOM gives
            every series of images.
        out: the folder of the results, a resolved path, which is not searched.
        containers: whether .ucv files are volumes too.
        ending: of the results; None keeps a source's, "" makes folders.
        monitor: progress and cancellation.
    Raises InputError if no volume exists, ConfigError if results share a name or `out` is named.
    """
    if not places:
        raise ConfigError("no volumes were named", "Name files or folders.")
    items: dict[str, Item] = {}
    for place in places:
        for source, relative, series in _volumes_below(Path(place), out, containers):
            monitor.check()
            result = out / _result_name(relative, ending, series[0])
            item = Item(source, str(result), *series)
            other = items.setdefault(item.output, item)
            if other.source != source:
                raise ConfigError(
                    f"{other.source} and {source} would both become {item.output}",
                    "Process them in two runs, into two folders.",
                )
    if not any(os.path.lexists(item.source) for item in items.values()):
        raise InputError(f"{', '.join(places)}: no volumes found", "Name a folder with volumes.")
    return list(items.values())


def _volumes_below(path: Path, out: Path, containers: bool) -> Iterator[tuple[str, Path, _Series]]:
    """Yield every volume at or below a path: the file or folder, its path below, which series."""
    # A link at the end names the result; what lies in front of it is resolved.
    is_named = path.name not in ("", "..")
    path = resolved(path.parent) / path.name if is_named else resolved(path)
    if not path.is_dir():
        yield str(path), Path(path.name), _ALL  # a missing file too: its row gets the error
        return
    endings = {*io.READABLE, *([CONTAINER] if containers else ())}
    if resolved(path) == out:
        raise ConfigError(
            f"{path} is the folder of the volumes and of the results",
            "Name another one with --out; it may lie in the first.",
        )
    root = path.parent
    if not _is_series(path):
        root = path = resolved(path)
    for name, below, names in os.walk(path):
        folder = Path(name)
        below.sort()
        if folder == out:
            below.clear()
        elif _is_series(folder):
            below.clear()  # subfolders belong to the series
            for series in _series_in(folder):
                yield str(folder), folder.relative_to(root), series
        else:
            # Hidden files are temporary ones of MedEnhance, or metadata of macOS on other disks.
            files = [folder / name for name in sorted(names) if not name.startswith(".")]
            for file in files:
                if io.ending_of(file) in endings:
                    yield str(file), file.relative_to(root), _ALL


def _is_series(folder: Path) -> bool:
    """Return whether a folder holds DICOM, judged by its first files."""
    from MedEnhanceLib.io.dicom.sources import is_dicom

    names = (entry for entry in sorted(folder.iterdir()) if not entry.name.startswith("."))
    return any(is_dicom(file) for file in islice(filter(Path.is_file, names), _OPENED))


def _series_in(folder: Path) -> list[_Series]:
    """List the series of images in a folder; damaged ones too, whose jobs will fail.

    A single series, or a folder that cannot be listed, gives _ALL: its job reports the fault. A
    folder without images gives nothing.
    """
    from MedEnhanceLib.io.dicom.listing import choices

    try:
        listed = choices(folder, Monitor())
    except MedEnhanceError:
        return [_ALL]
    images = [choice for choice in listed if choice.part is not None or choice.about.damaged]
    if len(images) < 2 or all(choice.part is None for choice in images):
        return [_ALL] * bool(images)
    return [(choice.row.key, "; ".join(choice.left_out)) for choice in images if choice.row.uid]


def _result_name(relative: Path, ending: str | None, series: str) -> Path:
    source_ending = io.ending_of(relative)
    has_ending = source_ending in io.READABLE or source_ending in (CONTAINER, _DICOM)
    stem = relative.name[: -len(source_ending)] if has_ending else relative.name
    if series:
        stem += f"-{hashlib.sha256(series.encode()).hexdigest()[:8]}"
    if ending is None:
        ending = source_ending if source_ending in io.WRITABLE else ".nii.gz"
    return relative.with_name(stem + ending)


_DESCRIPTION = "dataset_description.json"
#: An anatomical image of BIDS: not the phase of a complex image, nor a derivative.
_BIDS_IMAGE = re.compile(
    r"(?P<entities>sub-(?!.*_(?:part-(?:phase|real|imag)|desc-)).+)"
    r"_(?P<suffix>T1w|T2w|PDw|T2starw|FLAIR|inplaneT1|inplaneT2|PDT2|angio)\.nii(\.gz)?"
)


def bids_items(root: Path, out: Path, task: str, suffixes: Sequence[str] = ()) -> list[Item]:
    """Return the anatomical images of a BIDS dataset, and their names in a derivative dataset.

    Args:
        root: of the dataset.
        out: folder of the derivative dataset.
        task: of the batch, for names.
        suffixes: of the images to take, "T1w" …; empty for all.
    Raises InputError if `root` is not a dataset, OutputError if `out` lies among its raw files.
    """
    if not (root / _DESCRIPTION).is_file():
        raise InputError(
            f"{root} is no BIDS dataset: it has no {_DESCRIPTION}",
            "Name the top folder of one, or leave out --bids to process the volumes of any folder.",
        )
    real = out.resolve()
    if real.is_relative_to(root.resolve()) and (root / "derivatives").resolve() not in real.parents:
        raise OutputError(
            f"{out} lies in the raw dataset",
            f"Omit --out, or name a folder in {root / 'derivatives'} or outside the dataset.",
        )
    items = []
    for path in sorted([*root.glob("sub-*/anat/*"), *root.glob("sub-*/ses-*/anat/*")]):
        image = _BIDS_IMAGE.fullmatch(path.name)
        if image is None or (suffixes and image["suffix"] not in suffixes):
            continue
        # The entity desc comes last; two contrasts of a subject keep their labels apart.
        name = f"{image['entities']}_desc-enhanced_{image['suffix']}.nii.gz"
        if task == "segment":
            name = f"{image['entities']}_desc-{image['suffix']}_dseg.nii.gz"
        items.append(Item(str(path), str(out / path.relative_to(root).with_name(name))))
    if not items:
        raise InputError(
            f"{root}: no anatomical images", "Expected: sub-*/[ses-*/]anat/*_T1w.nii.gz."
        )
    return items


def describe_derivatives(out: Path) -> None:
    """Write the file that makes a folder a derivative dataset of BIDS, unless it exists."""
    description = {
        "Name": "Derived by MedEnhance",
        "BIDSVersion": "1.9.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "MedEnhance", "Version": __version__}],
    }
    if not (out / _DESCRIPTION).exists():
        write_json(out / _DESCRIPTION, description, overwrite=False)

"""Which volumes a batch is about, and where each result goes; datasets of BIDS."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib._version import __version__
from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError, OutputError
from MedEnhanceLib.io.atomic import atomic_write, write_json
from MedEnhanceLib.jobs.addresses import is_remote, name_at, shown
from MedEnhanceLib.jobs.files import CONTAINER
from MedEnhanceLib.runtime.progress import Monitor

_DICOM = ".dcm"
#: Files of a folder that are opened to see whether they are DICOM.
_OPENED = 3


@dataclass(frozen=True)
class Item:
    """One volume of a batch: where it lies, a path or an address, and where its result goes.

    series: which one, where `source` holds several, as `--series` takes it.
    """

    source: str
    output: str
    series: str = ""

    @property
    def name(self) -> str:
        """What a row calls it."""
        return f"{self.source} (series {self.series})" if self.series else shown(self.source)

    @property
    def params(self) -> dict[str, str]:
        """Of its job; absolute, as a worker on another machine has another current folder."""
        params = {"input": absolute(self.source), "output": absolute(self.output)}
        return params | ({"series": self.series} if self.series else {})


def absolute(place: str) -> str:
    """The absolute path; an address as it is."""
    return place if is_remote(place) else str(Path(place).absolute())


def gather(places: Sequence[str], out: Path, *, containers: bool, ending: str | None) -> list[Item]:
    """The items of all places, in order, each source once.

    Args:
        places: volumes, addresses of volumes, and folders; below a folder every volume counts, and
            of a folder of DICOM every series of images.
        out: the folder of the results; its files are no sources.
        containers: whether .ucv files are volumes too.
        ending: of the results; None keeps a source's, "" makes folders.

    Raises:
        InputError: nothing is there.
        ConfigError: two results share a name.
    """
    if not places:
        raise ConfigError("no volumes were named", "Name files or folders, or give --list FILE.")
    items: dict[tuple[str, str], Item] = {}
    sources: dict[str, str] = {}
    for entry in places:
        for source, relative, series in _volumes_at(entry, out, containers):
            output = str(out / _result_name(relative, ending, series))
            key = shown(source) if is_remote(source) else str(Path(source).resolve())
            item = items.setdefault((key, series), Item(source, output, series))
            other = sources.setdefault(item.output, item.source)
            if other != item.source:
                raise ConfigError(
                    f"{shown(other)} and {shown(source)} would both become {item.output}",
                    "Put them through in two runs, into two folders.",
                )
    if not items:
        names = ", ".join(map(shown, places))
        raise InputError(f"{names}: no volumes found", "Name a folder that holds some.")
    return list(items.values())


def listed(list_file: str | None) -> list[str]:
    """The lines of a text file with a path or an address on each; # begins a comment."""
    if list_file is None:
        return []
    try:
        text = Path(list_file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(
            f"{list_file} cannot be read: {cause}", "Give a text file with a path on each line."
        ) from cause
    stripped = (line.strip() for line in text.splitlines())
    return [line for line in stripped if line and not line.startswith("#")]


def _volumes_at(entry: str, out: Path, containers: bool) -> Iterator[tuple[str, Path, str]]:
    """Every series of the volumes at or below a place: where, the path below, which series."""
    if is_remote(entry):
        yield entry, Path(name_at(entry)), ""
        return
    path = Path(entry)
    root = path if _is_tree(path) else path.parent
    for source in _volumes_below(path, out, containers):
        for series in _series_in(source):
            yield str(source), source.relative_to(root), series


def _volumes_below(path: Path, out: Path, containers: bool) -> Iterator[Path]:
    """Volumes at or below `path`, a folder of DICOM files as one, in order."""
    from MedEnhanceLib.io import READABLE, ending_of

    if not _is_tree(path):
        yield path  # also one that is missing: its row will say so
        return
    endings = {*READABLE, *([CONTAINER] if containers else ())}
    for folder, below, files in os.walk(path):
        here = Path(folder)
        if here.resolve() == out.resolve():
            below.clear()
        elif here != path and not _is_tree(here):
            below.clear()  # a series goes on below
            yield here
        else:
            below.sort()
            # Hidden files are our own temporary ones, or what macOS leaves on foreign disks.
            names = (name for name in sorted(files) if not name.startswith("."))
            yield from (here / name for name in names if ending_of(name) in endings)


def _is_tree(path: Path) -> bool:
    """Whether `path` is a folder to look through, not a DICOM series by itself.

    A series is known by the names of its files, else by what the first ones are.
    """
    from MedEnhanceLib.io import READABLE, ending_of
    from MedEnhanceLib.io.dicom import is_dicom

    if not path.is_dir():
        return False
    files = [entry for entry in sorted(path.iterdir()) if not entry.name.startswith(".")]
    endings = {ending_of(entry) for entry in files}
    if _DICOM in endings or endings & {*READABLE, CONTAINER}:
        return _DICOM not in endings
    first = [entry for entry in files if entry.is_file()][:_OPENED]
    return not any(is_dicom(entry) for entry in first)


def _series_in(source: Path) -> list[str]:
    """The UID of each series of images in a folder of several; the numbers in its list change.

    [""] stands for all that is there: where it is one, and where the job will say what is wrong.
    Nothing of a folder without images.
    """
    if not source.is_dir():
        return [""]
    from MedEnhanceLib.io.dicom.listing import choices

    try:
        listed = choices(source, Monitor())
    except MedEnhanceError:
        return [""]
    images = [choice for choice in listed if choice.part is not None or choice.about.damaged]
    keys = [choice.row.key for choice in images if choice.part is not None]
    return keys if len(images) > 1 and keys else [""] * bool(images)


def _result_name(relative: Path, ending: str | None, series: str) -> Path:
    from MedEnhanceLib.io import READABLE, WRITABLE, ending_of

    own = ending_of(relative)
    has_ending = own in READABLE or own in (CONTAINER, _DICOM)
    stem = relative.name[: -len(own)] if has_ending else relative.name
    if series:
        stem += f"-{hashlib.sha256(series.encode()).hexdigest()[:8]}"
    if ending is None:
        ending = own if own in WRITABLE else ".nii.gz"
    return relative.with_name(stem + ending)


_DESCRIPTION = "dataset_description.json"
#: Anatomical images with a gray value at each voxel, by the suffix of their names.
IMAGES = (
    "T1w", "T2w", "PDw", "T2starw", "FLAIR", "inplaneT1", "inplaneT2", "PDT2", "angio",
)  # fmt: skip
#: What the head that ships learned from.
OF_OUR_HEAD = ("T1w",)
_NAME = re.compile(
    r"(?P<entities>sub-[0-9A-Za-z+]+(?:_[a-z]+-[0-9A-Za-z+]+)*)_(?P<suffix>\w+)\.nii(\.gz)?"
)
#: Parts of complex images other than the magnitude hold no intensities; desc- is what was derived.
_NO_IMAGE = re.compile(r"_(part-(phase|real|imag)|desc-[0-9A-Za-z+]+)(_|$)")
#: What BIDS does not know lies beside what it knows.
_IGNORED = "*.nii.json\n*.nii.gz.json\nbatch.jsonl\nbatch.csv\n"


class Dataset:
    """A raw dataset, and a derivative dataset of ours.

    Raises InputError for a folder that is no raw dataset, OutputError for results among its files.
    """

    def __init__(
        self, root: Path, out: Path | None, task: str, suffixes: Sequence[str] = IMAGES
    ) -> None:
        self.root, self._task, self._suffixes = root, task, suffixes
        self.out = out or root / "derivatives" / "medenhance"
        self._is_inside = self.out.resolve().is_relative_to((root / "derivatives").resolve())
        if not self._is_inside and self.out.resolve().is_relative_to(root.resolve()):
            raise OutputError(
                f"{self.out} lies in the raw dataset",
                f"Omit --out, or name a folder in {root / 'derivatives'} or outside the dataset.",
            )
        description = _read(root / _DESCRIPTION)
        if description is None or description.get("DatasetType", "raw") != "raw":
            raise InputError(
                f"{root} is no raw BIDS dataset by its {_DESCRIPTION}",
                "Name the top folder of one; or leave --bids out, and any folder's volumes count.",
            )
        self._name = str(description.get("Name") or root.name)

    def items(self) -> list[Item]:
        """Anatomical images in anat/ of every subject and session."""
        files = [*self.root.glob("sub-*/anat/*.nii*"), *self.root.glob("sub-*/ses-*/anat/*.nii*")]
        images = []
        for path in sorted(files):
            parts = _NAME.fullmatch(path.name)
            if not parts or parts["suffix"] not in self._suffixes:
                continue
            entities, suffix = parts["entities"], parts["suffix"]
            if _NO_IMAGE.search(entities):
                continue
            # The entity desc comes last; two contrasts of a subject keep their labels apart.
            name = f"{entities}_desc-enhanced_{suffix}.nii.gz"
            if self._task == "segment":
                name = f"{entities}_desc-{suffix}_dseg.nii.gz"
            below = path.relative_to(self.root).with_name(name)
            images.append(Item(str(path), str(self.out / below)))
        if not images:
            raise InputError(
                f"{self.root}: no anatomical images",
                f"They are sought as sub-*/[ses-*/]anat/*_{{{','.join(self._suffixes)}}}.nii.gz.",
            )
        return images

    def begin(self) -> None:
        """Write the dataset's description, and what validators leave out, where they are not."""
        raw = self.root.resolve().as_uri()
        if self._is_inside:  # the dataset can be moved as a whole
            raw = Path(os.path.relpath(self.root.resolve(), self.out.resolve())).as_posix()
        description = {
            "Name": f"{self._name}: derived by MedEnhance",
            "BIDSVersion": "1.9.0",
            "DatasetType": "derivative",
            "GeneratedBy": [
                {"Name": "MedEnhance", "Version": __version__, "Description": RESEARCH_ONLY}
            ],
            "DatasetLinks": {"raw": raw},
        }
        if not (self.out / _DESCRIPTION).exists():
            write_json(self.out / _DESCRIPTION, description, overwrite=False)
        if not (self.out / ".bidsignore").exists():
            _write(self.out / ".bidsignore", _IGNORED)

    def finished(self, item: Item, fields: Mapping[str, Any]) -> None:
        """Write the sidecar: the source's own fields, whence it comes, and the names of labels."""
        source, sidecar = Path(item.source), _sidecar(Path(item.output))
        if self._task == "segment":
            inherited: dict[str, Any] = {"Manual": False, "SpatialReference": "orig"}
            rows = [f"{row['value']}\t{row['label']}" for row in fields.get("table") or ()]
            table = "\n".join(["index\tname", *rows, ""])
            _write(sidecar.with_suffix(".tsv"), table)
        else:
            inherited = {"SkullStripped": False} | (_read(_sidecar(source)) or {})
        own = {
            "Description": f"{self._task} by MedEnhance {__version__}. {RESEARCH_ONLY}",
            "Sources": [f"bids:raw:{source.relative_to(self.root).as_posix()}"],
        }
        write_json(sidecar, inherited | own, overwrite=True)


def _sidecar(volume: Path) -> Path:
    """`x_T1w.nii.gz` → `x_T1w.json`."""
    return volume.with_name(volume.name.partition(".nii")[0] + ".json")


def _read(path: Path) -> dict[str, Any] | None:
    """A JSON object; None where there is none that can be read."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def _write(path: Path, text: str) -> None:
    with atomic_write(path, overwrite=True) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")

"""Which volumes a batch is about, and where each result goes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.jobs.files import CONTAINER
from MedEnhanceLib.runtime.progress import Monitor

if TYPE_CHECKING:
    from MedEnhanceLib.io.cohort import Patient

_TABLE = ".csv"
_DICOM = ".dcm"
#: Files of a folder that are opened to see whether they are DICOM.
_LOOKED_AT = 3
#: What stores call the state of an object besides its size; the first that there is.
_TAGS = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "modified", "created")


@dataclass(frozen=True)
class Item:
    """One volume of a batch: where it lies, and where its result goes.

    series: which one, where `source` holds several, as `--series` takes it. patient: whose it is,
    where a table says so. address: where it lies, if not on this machine; then `source` is a name
    alone. state: what a listing says of the object there, if one was made. to: the address that
    its result goes to, if it does; then `output` is the path below that of all results.
    """

    source: Path
    output: Path
    series: str = ""
    patient: str = ""
    address: str = ""
    state: str = ""
    to: str = ""

    @property
    def place(self) -> str:
        """Where a job finds it; absolute, as a worker elsewhere has a current folder of its own."""
        return self.address or str(self.source.absolute())

    @property
    def target(self) -> str:
        """Where a row says that its result goes."""
        if self.to:
            from MedEnhanceLib.jobs.addresses import shown

            return shown(self.to)
        return str(self.output)

    @property
    def name(self) -> str:
        """What a row calls it."""
        if self.address:
            from MedEnhanceLib.jobs.addresses import shown

            return shown(self.address)
        return f"{self.source} (series {self.series})" if self.series else str(self.source)


def gather(
    inputs: Sequence[str],
    list_file: str | None,
    out: Path | str,
    *,
    containers: bool,
    ending: str | None,
) -> list[Item]:
    """The items of all inputs, in order, each source once.

    inputs: volumes, addresses of some, and folders; below a folder every volume counts, also below
    an address that ends in "/", and of a folder of DICOM files every series of images; of a table
    (.csv: patient,path) what its rows name. list_file: a text file with a path or an address on
    each line, # begins a comment. out: the folder of the results, or its address.
    containers: whether .ucv files are volumes too. ending: of the results; None keeps a source's,
    "" makes folders.
    Raises InputError where nothing is found, ConfigError where two results share a name.
    """
    from MedEnhanceLib.jobs.addresses import is_remote, name_at, shown

    given = [*inputs, *_lines(list_file)]
    named = [Path(entry) for entry in given if not is_remote(entry)]
    if not given:
        raise ConfigError("no volumes were named", "Name files or folders, or give --list FILE.")
    here = None if isinstance(out, str) else out
    folder = here or Path()
    items: dict[tuple[Path, str], Item] = {}
    for address in filter(is_remote, given):
        if address.endswith("/"):
            below = _below(address, out, containers)
        else:
            below = [(Path(name_at(address)), address, "")]
        for path, place_there, state in below:
            target = folder / _result_name(path, ending, "")
            item = Item(Path(path.name), target, address=place_there, state=state)
            items[Path(shown(place_there)), ""] = item
    for place in _places(named):
        for source in volumes_below(place.path, here, containers):
            for series, mark in _series_in(source):
                name = _result_name(source.relative_to(place.root), ending, mark)
                item = Item(source, folder / place.below / name, series, place.patient)
                items.setdefault((source.resolve(), series), item)
    if not items:
        places = ", ".join(shown(entry) if is_remote(entry) else entry for entry in given)
        raise InputError(f"{places}: no volumes found", "Name a folder that holds some.")
    found = list(items.values())
    if isinstance(out, str):
        start = out.rstrip("/")
        found = [replace(item, to=f"{start}/{item.output.as_posix()}") for item in found]
    _refuse_shared_names(found)
    return found


def _below(address: str, out: Path | str, containers: bool) -> list[tuple[Path, str, str]]:
    """Every volume below an address, by one listing: its path from there, address and state.

    What lies in `out` are results, not sources.
    """
    from MedEnhanceLib.io import ending_of
    from MedEnhanceLib.jobs.addresses import listed, shown

    if address.lower().startswith(("http://", "https://")):
        raise ConfigError(
            f"{shown(address)}: a web server does not list what it has",
            "Name each file by its address: --list FILE.",
        )
    known, volumes = _known(containers), []
    entries = listed(address)
    if not entries:  # stores have no empty folders
        raise InputError(
            f"{shown(address)}: there is nothing below that address",
            "Check the bucket, the path, and whose credentials the environment holds.",
        )
    for name, about in entries.items():
        path, place = Path(name), f"{address.rstrip('/')}/{name}"
        is_result = isinstance(out, str) and place.startswith(f"{out.rstrip('/')}/")
        if is_result or ending_of(path) not in known or path.name.startswith("."):
            continue
        if re.search(r"[?#]|::", name):
            raise InputError(
                f"{shown(address)} holds {name!r}: ?, # and :: have a meaning of their own in an "
                "address",
                "Give it another name there, or name the others one by one: --list FILE.",
            )
        tags = (about.get(tag) for tag in _TAGS)
        state = f"{about.get('size')} {next((str(tag) for tag in tags if tag), '')}"
        volumes.append((path, place, state))
    return volumes


def _known(containers: bool) -> set[str]:
    """The endings of volumes."""
    from MedEnhanceLib.io import READABLE

    return {*READABLE, CONTAINER} if containers else set(READABLE)


@dataclass(frozen=True)
class _Place:
    """Something named: results lie below `below` as the sources below `root`."""

    path: Path
    root: Path
    below: str = ""
    patient: str = ""


def _places(named: Iterable[Path]) -> Iterator[_Place]:
    """What was named, and what tables name."""
    from MedEnhanceLib.io.cohort import Cohort

    for path in named:
        if path.suffix.lower() == _TABLE:
            for patient in Cohort.from_csv(path):
                yield from _places_of(patient)
        else:
            yield _Place(path, path if _is_tree(path) else path.parent)


def _places_of(patient: Patient) -> Iterator[_Place]:
    """A folder of the patient's name; in it results lie as the patient's paths do."""
    roots = [path if _is_tree(path) else path.parent for path in patient.paths]
    root = Path(os.path.commonpath([root.absolute() for root in roots]))
    # A name from a table must not lead out of the results' folder.
    below = re.sub(r"[^\w.\- ]|^\.+", "_", patient.id)
    for path in patient.paths:
        yield _Place(path.absolute(), root, below, patient.id)


def _lines(list_file: str | None) -> list[str]:
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


def _is_tree(path: Path) -> bool:
    """Whether `path` is a folder to look through, not a DICOM series by itself."""
    return path.is_dir() and not _holds_dicom(path)


def _holds_dicom(folder: Path) -> bool:
    """Whether a folder is a series: by the names of its files, else by what the first ones are."""
    from MedEnhanceLib.io import READABLE, ending_of
    from MedEnhanceLib.io.dicom import is_dicom

    files = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".")]
    endings = {ending_of(entry) for entry in files}
    if _DICOM in endings or endings & {*READABLE, CONTAINER}:
        return _DICOM in endings
    first = [entry for entry in files if entry.is_file()][:_LOOKED_AT]
    return any(is_dicom(entry) for entry in first)


def volumes_below(path: Path, out: Path | None, containers: bool) -> Iterator[Path]:
    """Volumes at or below `path`, a folder of DICOM files as one, in order.

    path: of a volume, also one that is missing, or a folder.
    out: what lies in it are results, not sources; None where they go elsewhere.
    containers: whether .ucv files are volumes too.
    """
    if not path.is_dir():
        yield path  # also one that is missing: its row will say so
        return
    if not _is_tree(path):
        yield path
        return
    from MedEnhanceLib.io import ending_of

    known = _known(containers)
    for folder, below, files in os.walk(path):
        here = Path(folder)
        if out is not None and here.resolve() == out.resolve():
            below.clear()
            continue
        below.sort()
        if here != path and _holds_dicom(here):
            below.clear()  # a series goes on below
            yield here
            continue
        for name in sorted(files):
            # Hidden files are our own temporary ones, or what macOS leaves on foreign disks.
            if ending_of(name) in known and not name.startswith("."):
                yield here / name


def _series_in(source: Path) -> list[tuple[str, str]]:
    """Each series of images, with what marks its result; none of a folder without any.

    ("", "") stands for all that is there: where it is one, and where the job will say what is
    wrong.
    """
    if not source.is_dir():
        return [("", "")]
    from MedEnhanceLib.io.dicom.listing import choices
    from MedEnhanceLib.io.dicom.scan import scan

    try:
        found = choices(scan(source, Monitor()), source.name)
    except MedEnhanceError:
        return [("", "")]
    images = [one for one in found if one.part is not None or one.about.damaged]
    if len(images) == 1:
        return [("", "")]
    # By the UID: the numbers in the list change when a series comes in.
    keys = [one.row.key for one in images if one.part is not None]
    marks = [hashlib.sha256(key.encode()).hexdigest()[:8] for key in keys]
    return list(zip(keys, marks, strict=True)) or [("", "")] * bool(images)


def _result_name(relative: Path, ending: str | None, mark: str) -> Path:
    from MedEnhanceLib.io import READABLE, WRITABLE, ending_of

    own = ending_of(relative)
    known = own in READABLE or own in (CONTAINER, _DICOM)
    stem = relative.name[: -len(own)] if known else relative.name
    stem = f"{stem}-{mark}" if mark else stem
    if ending is None:
        ending = own if own in WRITABLE else ".nii.gz"
    return relative.with_name(stem + ending)


def _refuse_shared_names(items: Iterable[Item]) -> None:
    seen: dict[Path, str] = {}
    for item in items:
        other = seen.setdefault(item.output, item.name.partition(" (series ")[0])
        if other != item.name.partition(" (series ")[0]:
            raise ConfigError(
                f"{other} and {item.name} would both become {item.target}",
                "Put them through in two runs, into two folders.",
            )

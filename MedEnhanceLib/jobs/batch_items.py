"""Which volumes a batch is about, and where each result goes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from MedEnhanceLib.errors import ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.jobs.addresses import is_remote, is_web, listed, name_at, shown
from MedEnhanceLib.jobs.files import CONTAINER
from MedEnhanceLib.runtime.progress import Monitor

_DICOM = ".dcm"
#: Files of a folder that are opened to see whether they are DICOM.
_LOOKED_AT = 3


@dataclass(frozen=True)
class Item:
    """One volume of a batch: where it lies, and where its result goes; paths or addresses.

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
        """Of its job; absolute, as a worker elsewhere has a current folder of its own."""
        places = {"input": self.source, "output": self.output}
        params = {
            name: place if is_remote(place) else str(Path(place).absolute())
            for name, place in places.items()
        }
        return params | ({"series": self.series} if self.series else {})


def gather(
    inputs: Sequence[str],
    list_file: str | None,
    out: str,
    *,
    containers: bool,
    ending: str | None,
) -> list[Item]:
    """The items of all inputs, in order, each source once.

    inputs: volumes, addresses of some, and folders; below a folder every volume counts, also below
    an address that ends in "/", and of a folder of DICOM files every series of images. list_file:
    a text file with a path or an address on each line, # begins a comment. out: the folder of the
    results, or its address.
    containers: whether .ucv files are volumes too. ending: of the results; None keeps a source's,
    "" makes folders.
    Raises InputError where nothing is found, ConfigError where two results share a name.
    """
    given = [*inputs, *_lines(list_file)]
    if not given:
        raise ConfigError("no volumes were named", "Name files or folders, or give --list FILE.")
    items: dict[tuple[str, str], Item] = {}
    for entry in given:
        find = _volumes_there if is_remote(entry) else _volumes_here
        for source, relative, series, mark in find(entry, out, containers):
            name = _result_name(relative, ending, mark).as_posix()
            output = f"{out.rstrip('/')}/{name}" if is_remote(out) else str(Path(out, name))
            key = source if is_remote(source) else str(Path(source).resolve())
            items.setdefault((shown(key), series), Item(source, output, series))
    if not items:
        places = ", ".join(map(shown, given))
        raise InputError(f"{places}: no volumes found", "Name a folder that holds some.")
    _refuse_shared_names(items.values())
    return list(items.values())


#: A volume, its path below what was named, which series of it, and what marks that one's result.
_Found = tuple[str, Path, str, str]


def _volumes_there(address: str, out: str, containers: bool) -> Iterator[_Found]:
    """The file at an address, or every volume below one; what lies in `out` is no source."""
    if not address.endswith("/"):
        yield address, Path(name_at(address)), "", ""
        return
    if is_web(address):
        raise ConfigError(
            f"{shown(address)}: a web server does not list what it has",
            "Name each file by its address: --list FILE.",
        )
    from MedEnhanceLib.io import ending_of

    for name in listed(address):
        path, place = Path(name), f"{address.rstrip('/')}/{name}"
        is_result = place.startswith(f"{out.rstrip('/')}/")
        if is_result or ending_of(path) not in _known(containers) or path.name.startswith("."):
            continue
        if re.search(r"[?#]|::", name):
            raise InputError(
                f"{shown(address)} holds {name!r}: ?, # and :: have a meaning of their own in an "
                "address",
                "Give it another name there, or name the others one by one: --list FILE.",
            )
        yield place, path, "", ""


def _volumes_here(entry: str, out: str, containers: bool) -> Iterator[_Found]:
    path = Path(entry)
    root = path if _is_tree(path) else path.parent
    for source in volumes_below(path, None if is_remote(out) else Path(out), containers):
        for series, mark in _series_in(source):
            yield str(source), source.relative_to(root), series, mark


def _known(containers: bool) -> set[str]:
    """The endings of volumes."""
    from MedEnhanceLib.io import READABLE

    return {*READABLE, CONTAINER} if containers else set(READABLE)


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
    if not _is_tree(path):
        yield path  # also one that is missing: its row will say so
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

    try:
        found = choices(source, Monitor())
    except MedEnhanceError:
        return [("", "")]
    images = [choice for choice in found if choice.part is not None or choice.about.damaged]
    if len(images) == 1:
        return [("", "")]
    # By the UID: the numbers in the list change when a series comes in.
    keys = [choice.row.key for choice in images if choice.part is not None]
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
    sources: dict[str, str] = {}
    for item in items:
        other = sources.setdefault(item.output, item.source)
        if other != item.source:
            raise ConfigError(
                f"{shown(other)} and {shown(item.source)} would both become {shown(item.output)}",
                "Put them through in two runs, into two folders.",
            )

"""Where DICOM files lie: in a folder, in a zip, in a list, in a DICOMDIR, or alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import archives, mediadir
from MedEnhanceLib.io.dicom.marks import is_dicom
from MedEnhanceLib.io.dicom.words import counted, named
from MedEnhanceLib.io.staging import PREFIX, is_moving
from MedEnhanceLib.runtime.progress import Monitor

_INSIDE = "!/"
_LISTS = (".txt", ".lst")


@dataclass(frozen=True, order=True)
class FileRef:
    """A file, or a member of a zip; `str` and `parse` are each other's inverse.

    path: the file itself, or the zip. member: the name inside the zip. A path that ends with a
    slash is a folder that could not be looked through.
    """

    path: str
    member: str = ""

    @property
    def name(self) -> str:
        """The last part of its name, for messages."""
        return self.member.rsplit("/", 1)[-1] if self.member else Path(self.path).name

    @property
    def folder(self) -> str:
        """Where it lies: a folder, or a folder inside a zip."""
        if self.member:
            return f"{self.path}{_INSIDE}{self.member.rpartition('/')[0]}"
        if self.is_folder:
            return self.path.rstrip(os.sep)
        return str(Path(self.path).parent)

    @property
    def is_folder(self) -> bool:
        """Whether it is no file, but a folder that could not be looked through."""
        return not self.member and self.path.endswith(os.sep)

    def __str__(self) -> str:
        return f"{self.path}{_INSIDE}{self.member}" if self.member else self.path

    @classmethod
    def parse(cls, text: str) -> FileRef:
        """From `path` or `archive!/member`; a file whose own name holds `!/` is found as it is."""
        start = text.find(_INSIDE)
        while start >= 0:
            if Path(text[:start]).is_file():
                return cls(text[:start], text[start + len(_INSIDE) :])
            start = text.find(_INSIDE, start + 1)
        return cls(text)

    def stamp(self) -> tuple[int, int]:
        """Size and time of change (ns) of the file, or of the zip around it; raises OSError."""
        state = Path(self.path).stat()
        return state.st_size, state.st_mtime_ns

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """A seekable stream of all its bytes; a member of a zip is read into memory and checked.

        Raises OSError, and InputError for a member that cannot be unpacked.
        """
        with (
            archives.member_bytes(self.path, self.member)
            if self.member
            else Path(self.path).open("rb")
        ) as stream:
            yield stream

    @contextlib.contextmanager
    def peek(self) -> Iterator[BinaryIO]:
        """A seekable stream for its header: a member of a zip is unpacked as far as it is read.

        Raises what `open` does; reading from it may raise archives.FAILURES too.
        """
        with (
            archives.member_stream(self.path, self.member)
            if self.member
            else Path(self.path).open("rb")
        ) as stream:
            yield stream


def find_files(path: Path, monitor: Monitor) -> list[FileRef]:
    """The files that may hold DICOM, in the order of their names.

    path: a folder, with all below it; a zip; a DICOMDIR, which stands for its folder; a list
    (.txt, .lst) with a path a line, relative to itself; or one file.
    A directory only tells what should be there: what it forgot is found too, and what is missing
    is named in a warning. Raises InputError where nothing is there, or the zip or list is refused.
    """
    if path.is_dir():
        return _in_folder(path, monitor)
    if _is_list(path):
        return _in_list(path, monitor)
    if archives.is_zip(path):
        found = [FileRef(str(path), name) for name in sorted(archives.members(path, monitor))]
        return _without_directories(found, str(path), monitor)
    return _in_folder(path.parent, monitor, directory=path) if _is_directory(path) else [_one(path)]


def is_source(path: Path) -> bool:
    """Whether a file holds or names others: a zip, a DICOMDIR, a list of files."""
    return _is_list(path) or archives.is_zip(path) or _is_directory(path)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in _LISTS and not is_dicom(path)


def _one(path: Path) -> FileRef:
    if not path.is_file():
        raise InputError(f"{path} is no file", "Check the path.")
    return FileRef(str(path))


def _is_directory(path: Path) -> bool:
    if mediadir.is_named_directory(path.name):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM" and mediadir.is_directory(stream)
    except OSError:
        return False


def _in_folder(folder: Path, monitor: Monitor, directory: Path | None = None) -> list[FileRef]:
    found = list(_below(folder, monitor))
    if not found:
        raise InputError(f"{folder} is an empty folder", "Give the folder that holds the images.")
    return _without_directories(found, str(folder), monitor, directory)


def _below(folder: Path, monitor: Monitor) -> Iterator[FileRef]:
    """Regular files below a folder, through links too.

    A folder that cannot be looked through stands for what lies in it.
    """
    waiting, seen = [str(folder)], set()
    while waiting:
        monitor.check()
        here = waiting.pop()
        try:
            state = Path(here).stat()
            if (state.st_dev, state.st_ino) in seen:
                continue  # a link that leads back
            seen.add((state.st_dev, state.st_ino))
            with os.scandir(here) as entries:
                found = [(entry, _is_folder(entry)) for entry in entries]
        except OSError:
            yield FileRef(here.rstrip(os.sep) + os.sep)
            continue
        _refuse_halfway(here, [one.name for one, _ in found])
        files = [one for one, is_folder in found if not is_folder and _may_be_file(one)]
        yield from sorted(FileRef(one.path) for one in files if not archives.is_litter(one.name))
        folders = [one for one, is_folder in found if is_folder]
        waiting += sorted(
            (one.path for one in folders if not archives.is_litter_folder(one.name)), reverse=True
        )


def _refuse_halfway(folder: str, names: Iterable[str]) -> None:
    if any(name.startswith(PREFIX) and is_moving(Path(folder, name)) for name in names):
        raise InputError(
            f"{folder} is being written, or the writing was interrupted",
            "Wait until it is done; else write to that folder again, which puts it in order.",
        )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A regular file, or a link that leads nowhere, as one to an image on a disk that is away.

    A pipe or a device may never end, and is not read.
    """
    try:
        return entry.is_file() or (entry.is_symlink() and not Path(entry.path).exists())
    except OSError:
        return True


def _in_list(path: Path, monitor: Monitor) -> list[FileRef]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as cause:
        raise InputError(f"{path} cannot be read: {cause.strerror}", "Check the path.") from cause
    except UnicodeDecodeError as cause:
        raise InputError(
            f"{path} is no list of files: it is not text in UTF-8", "Write one path a line."
        ) from cause
    found: list[FileRef] = []
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        ref = FileRef.parse(str(path.parent / entry))
        if not ref.member and Path(ref.path).is_dir():
            found += _in_folder(Path(ref.path), monitor)
        elif Path(ref.path).is_file():
            found.append(ref)
        else:
            raise InputError(
                f"{path.name}, line {number}: {entry[:200]} is not there",
                f"Give one path a line, relative to {path.parent}.",
            )
    if not found:
        raise InputError(f"{path} names no file", "Write one path a line.")
    return _without_directories(list(dict.fromkeys(found)), str(path.parent), monitor)


def _without_directories(
    found: list[FileRef], root: str, monitor: Monitor, directory: Path | None = None
) -> list[FileRef]:
    """Take out every DICOMDIR, and the one of any name, after it told what is missing."""
    directories = [
        one
        for one in found
        if mediadir.is_named_directory(one.name) or one == FileRef(str(directory))
    ]
    rest = [one for one in found if one not in directories]
    for one in directories:
        _tell_missing(one, rest, monitor)
    if directories and not rest:
        raise InputError(f"{root} holds a DICOMDIR but no images", "Copy the whole disc.")
    return rest


def _tell_missing(directory: FileRef, found: Sequence[FileRef], monitor: Monitor) -> None:
    root = directory.folder.removesuffix("/") + "/"
    below = [str(one).replace(os.sep, "/") for one in found]
    below = [one.removeprefix(root.replace(os.sep, "/")) for one in below]
    try:
        with directory.open() as stream:
            missing = mediadir.missing(mediadir.referenced(stream), below)
    except (ValueError, OSError, InputError) as cause:
        monitor.warn(f"{directory.name} cannot be read, all files beside it are taken: {cause}")
        return
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        monitor.warn(
            f"{directory.name} names {counted(len(missing), 'file')} that {verb} not there: "
            f"{named(missing)}"
        )

"""Which files may be DICOM: in a folder, a zip, a list, beside a DICOMDIR, or a single file."""

from __future__ import annotations

import contextlib
import os
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import archives
from MedEnhanceLib.io.dicom.structure import meta_of, pydicom_failures, read_elements, silence
from MedEnhanceLib.io.staging import PREFIX, is_moving
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

COPY_AGAIN = "Copy or export the file again."
_MOST_NAMED = 6
#: Bytes that `mark_of` needs.
HEAD = 140
Mark = Literal["whole", "bare", "damaged", ""]
_FIRST_VRS = (b"UL", b"CS", b"DA", b"TM", b"UI", b"OB", b"LO", b"SH")
#: First elements of a data set: group length, character set, image type, times, class, UID.
_FIRST_ELEMENTS = {
    0x0002: (0x0000, 0x0001, 0x0002),
    0x0008: (0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0013, 0x0014, 0x0016, 0x0018),
}
_LONGEST_FIRST_VALUE = 64
MEDIA_DIRECTORY = "1.2.840.10008.1.3.10"
_INSIDE = "!/"
_LISTS = (".txt", ".lst")


@dataclass(frozen=True, order=True)
class FileRef:
    """A file, or a member of a zip; `parse` is the inverse of `str`.

    path: the file itself, or the zip. member: the name inside the zip. A path that ends with a
    slash is a folder that could not be read.
    """

    path: str
    member: str = ""

    @property
    def name(self) -> str:
        """The last part of its name, for messages."""
        return self.member.rsplit("/", 1)[-1] if self.member else Path(self.path).name

    @property
    def folder(self) -> str:
        """The folder that holds it, which may be inside a zip."""
        if self.member:
            return f"{self.path}{_INSIDE}{self.member.rpartition('/')[0]}"
        if self.is_folder:
            return self.path.rstrip(os.sep)
        return str(Path(self.path).parent)

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder that could not be read."""
        return not self.member and self.path.endswith(os.sep)

    def __str__(self) -> str:
        return f"{self.path}{_INSIDE}{self.member}" if self.member else self.path

    @classmethod
    def parse(cls, text: str) -> FileRef:
        """From `path` or `archive!/member`; the name of a file may contain `!/`, too."""
        start = text.find(_INSIDE)
        while start >= 0:
            if Path(text[:start]).is_file():
                return cls(text[:start], text[start + len(_INSIDE) :])
            start = text.find(_INSIDE, start + 1)
        return cls(text)

    def stamp(self) -> tuple[int, int]:
        """Size in bytes and time of change in ns, of the file or its zip; raises OSError."""
        state = Path(self.path).stat()
        return state.st_size, state.st_mtime_ns

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """A seekable stream of all its bytes; a member of a zip is unpacked in memory and checked.

        Raises:
            OSError: the file cannot be opened.
            InputError: the member of a zip cannot be unpacked.
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

        Raises what `open` raises; reading may also raise archives.UNZIP_FAILURES.
        """
        with (
            archives.member_stream(self.path, self.member)
            if self.member
            else Path(self.path).open("rb")
        ) as stream:
            yield stream


def find_files(path: Path, monitor: Monitor) -> list[FileRef]:
    """The files that may be DICOM, sorted by name.

    Args:
        path: a folder, searched with its subfolders; a zip; a DICOMDIR, which stands for its
            folder; a list (.txt, .lst) with one path a line, relative to itself; or one file.
        monitor: is warned of files that a DICOMDIR names and that are missing. Files that it does
            not name are found nevertheless.
    Raises:
        InputError: there is no file, or the zip or the list is refused.
    """
    if path.is_dir():
        return _in_folder(path, monitor)
    if path.exists():
        refuse_pipe(path)
    if _is_list(path):
        return _in_list(path, monitor)
    if archives.is_zip(path):
        found = [FileRef(str(path), name) for name in sorted(archives.members(path, monitor))]
        return _without_directories(found, str(path), monitor)
    return _in_folder(path.parent, monitor, directory=path) if _is_directory(path) else [_one(path)]


def is_source(path: Path) -> bool:
    """Whether a file stands for others: a zip, a DICOMDIR, a list of files."""
    return _is_list(path) or archives.is_zip(path) or _is_directory(path)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in _LISTS and not is_dicom(path)


def _one(path: Path) -> FileRef:
    if not path.is_file():
        raise InputError(f"{path} is no file", "Check the path.")
    return FileRef(str(path))


def _is_directory(path: Path) -> bool:
    if is_named_directory(path.name):
        return True
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM" and is_directory(stream)
    except OSError:
        return False


def _in_folder(folder: Path, monitor: Monitor, directory: Path | None = None) -> list[FileRef]:
    found = list(_below(folder, monitor))
    if not found:
        raise InputError(f"{folder} is an empty folder", "Give the folder that holds the images.")
    return _without_directories(found, str(folder), monitor, directory)


def _below(folder: Path, monitor: Monitor) -> Iterator[FileRef]:
    """Regular files below a folder, also behind links; a folder that cannot be read is yielded."""
    waiting, seen = [str(folder)], set()
    while waiting:
        monitor.check()
        here = waiting.pop()
        try:
            state = Path(here).stat()
            if (state.st_dev, state.st_ino) in seen:
                continue  # a link to a folder that was read
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
    except OSError:  # a link to itself
        return False


def _may_be_file(entry: os.DirEntry[str]) -> bool:
    """A regular file, or a broken link, for example to an image on a disk that is not mounted.

    Pipes and devices may be endless.
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
    """Remove every DICOMDIR (`directory` may have another name), and warn of missing files."""
    directories = [
        one for one in found if is_named_directory(one.name) or one == FileRef(str(directory))
    ]
    rest = [one for one in found if one not in directories]
    for one in directories:
        _warn_of_missing(one, rest, monitor)
    if directories and not rest:
        raise InputError(f"{root} holds a DICOMDIR but no images", "Copy the whole disc.")
    return rest


def _warn_of_missing(directory: FileRef, found: Sequence[FileRef], monitor: Monitor) -> None:
    root = directory.folder.removesuffix("/") + "/"
    below = [str(one).replace(os.sep, "/") for one in found]
    below = [one.removeprefix(root.replace(os.sep, "/")) for one in below]
    try:
        with directory.open() as stream:
            missing = not_there(referenced(stream), below)
    except (ValueError, OSError, InputError) as cause:
        monitor.warn(f"{directory.name} cannot be read, all files beside it are taken: {cause}")
        return
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        monitor.warn(
            f"{directory.name} names {counted(len(missing), 'file')} that {verb} not there: "
            f"{named(missing)}"
        )


def is_named_directory(name: str) -> bool:
    """Whether a file has the name that DICOM prescribes for a media directory."""
    return name.upper() == "DICOMDIR"


def is_directory(stream: BinaryIO) -> bool:
    """Whether a DICOM file is a media directory (DICOMDIR)."""
    try:
        with silence():
            return str(meta_of(stream).get("MediaStorageSOPClassUID")) == MEDIA_DIRECTORY
    except pydicom_failures():
        return False


def referenced(stream: BinaryIO) -> list[str]:
    """The files that a DICOMDIR names, as `folder/file`; raises ValueError where it is damaged."""
    require("pydicom", purpose="Reading DICOM")
    if not is_directory(stream):
        raise ValueError("it is not a media directory")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            directory = read_elements(stream, ["DirectoryRecordSequence"])
            return [
                "/".join(_parts(record.ReferencedFileID))
                for record in directory.get("DirectoryRecordSequence") or []
                if record.get("ReferencedFileID") and record.get("RecordInUseFlag") != 0
            ]
    except pydicom_failures() as cause:
        raise ValueError(" ".join(str(cause).split()) or type(cause).__name__) from cause


def not_there(names: Iterable[str], found: Iterable[str]) -> list[str]:
    """Those `names` that are not among the `found` paths below the folder of the DICOMDIR.

    Some systems show names of discs in small letters, or with a version number. Names are only
    compared, never opened, so one that leads out of the folder counts as missing.
    """
    there = {_plain(path) for path in found}
    return [name for name in names if _plain(name) not in there]


def _parts(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else [str(part) for part in value]


def _plain(name: str) -> str:
    return name.replace("\\", "/").lower().removesuffix(";1").rstrip(".")


def mark_of(head: bytes) -> Mark:
    """What the first HEAD bytes of a file show.

    "whole": the prefix DICM is there. "bare": it is missing, but the bytes begin like a data set.
    "damaged": the prefix is overwritten, but what follows it is a meta header.
    """
    if head[128:132] == b"DICM":
        return "whole"
    if _begins_data_set(head[:8]):
        return "bare"
    return "damaged" if head[132:138] == b"\x02\x00\x00\x00UL" else ""


def is_dicom(path: Path) -> bool:
    """Whether the file has the prefix DICM, or begins like a data set without it."""
    try:
        refuse_pipe(path)
        with path.open("rb") as stream:
            return mark_of(stream.read(HEAD)) in ("whole", "bare")
    except (OSError, InputError):
        return False


def _begins_data_set(head: bytes) -> bool:
    if len(head) < 8:
        return False
    for order in "<", ">":
        group, element = struct.unpack(f"{order}HH", head[:4])
        if element in _FIRST_ELEMENTS.get(group, ()):
            if head[4:6] in _FIRST_VRS:
                return True
            (length,) = struct.unpack("<I", head[4:8])
            return order == "<" and length % 2 == 0 and length <= _LONGEST_FIRST_VALUE
    return False


def named(names: Sequence[str], most: int = _MOST_NAMED, *, between: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{between.join(names[:most])}{more}"


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

"""Which files may be DICOM: in a folder, a zip, a list, beside a DICOMDIR, or a single file."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import archives
from MedEnhanceLib.io.staging import PREFIX, is_moving
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.progress import Monitor

COPY_AGAIN = "Copy or export the file again."
_MOST_NAMED = 6
#: Bytes that `begins_dicom` needs.
HEAD = 132
_INSIDE = "!/"
_OF_SYSTEMS = ("__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN")


@dataclass(frozen=True, order=True)
class FileRef:
    """A file, or a member of a zip; `parse` is the inverse of `str`.

    path: the file itself, or the zip. member: the name inside the zip.
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
        return str(Path(self.path).parent)

    @property
    def ending(self) -> str:
        """The suffix in small letters; "" for numbers, which many scanners append."""
        suffix = Path(self.name).suffix.lower()
        return "" if suffix[1:].isdecimal() else suffix

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


def find_files(path: Path, monitor: Monitor) -> list[FileRef]:
    """The files that may be DICOM, sorted by name.

    Args:
        path: a folder, searched with its subfolders; a zip; a DICOMDIR, which stands for its
            folder; a list (.txt) of files, one a line, as Slicer's module writes it; or one file.
        monitor: for cancellation.
    Raises:
        InputError: there is no file, a folder cannot be read, or the zip is refused.
    """
    is_folder = path.is_dir()
    if path.exists() and not is_folder:
        refuse_pipe(path)
    if archives.is_zip(path):
        found = [FileRef(str(path), name) for name in archives.members(path)]
        found = [one for one in found if not _is_litter_inside(one.member)]
    elif is_folder or _is_directory(path):
        found = list(_below(path if is_folder else path.parent, monitor))
    elif _is_list(path):
        found = _in_list(path)
    elif path.is_file():
        return [FileRef(str(path))]
    else:
        raise InputError(f"{path} is no file", "Check the path.")
    images = [one for one in found if not _is_directory(Path(one.name))]
    if not images:
        what = "a DICOMDIR but no images" if found else "no file"
        raise InputError(f"{path} holds {what}", "Give what holds the images.")
    return images


def is_source(path: Path) -> bool:
    """Whether a file stands for others: a zip, a DICOMDIR, a list of files."""
    return archives.is_zip(path) or _is_directory(path) or _is_list(path)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and path.is_file() and not is_dicom(path)


def _in_list(path: Path) -> list[FileRef]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(
            f"{path} cannot be read as a list of files", "Write one path a line, in UTF-8."
        ) from cause
    found = [FileRef(str(path.parent / line.strip())) for line in lines if line.strip()]
    for file in found:
        if not Path(file.path).is_file():
            raise InputError(
                f"{path.name}: {file.path[:300]} is not there",
                f"Give one path a line, relative to {path.parent}.",
            )
    return found


def _is_directory(path: Path) -> bool:
    """Whether a file has the name that DICOM prescribes for a media directory."""
    return path.name.upper() == "DICOMDIR"


def _below(folder: Path, monitor: Monitor) -> Iterator[FileRef]:
    """Regular files below a folder, also behind links."""
    waiting, seen = [folder], set()
    while waiting:
        monitor.check()
        here = waiting.pop()
        try:
            state = here.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue  # a link to a folder that was read
            seen.add((state.st_dev, state.st_ino))
            is_folder = {entry: entry.is_dir() for entry in sorted(here.iterdir())}
        except OSError as cause:
            raise InputError(
                f"{here} cannot be read: {cause.strerror}",
                "Change its permissions, or give another folder.",
            ) from cause
        if any(entry.name.startswith(PREFIX) and is_moving(entry) for entry in is_folder):
            raise InputError(
                f"{here} is being written, or the writing was interrupted",
                "Wait until it is done; else write to that folder again, which puts it in order.",
            )
        for entry, is_one in is_folder.items():
            if not is_one and _may_be_file(entry) and not _is_litter(entry.name):
                yield FileRef(str(entry))
        folders = [entry for entry, is_one in is_folder.items() if is_one]
        waiting += [one for one in reversed(folders) if not _is_litter_folder(one.name)]


def _may_be_file(entry: Path) -> bool:
    """A regular file, or a broken link, for example to an image on a disk that is not mounted.

    Pipes and devices may be endless.
    """
    return entry.is_file() or (entry.is_symlink() and not entry.exists())


def _is_litter(name: str) -> bool:
    """Whether an operating system made the file; hidden images count as images."""
    return name.startswith("._") or name in (".DS_Store", "Thumbs.db", "desktop.ini")


def _is_litter_folder(name: str) -> bool:
    """Whether a folder is hidden, or made by an operating system."""
    return name.startswith(".") or name in _OF_SYSTEMS


def _is_litter_inside(member: str) -> bool:
    *folders, last = [part for part in member.split("/") if part not in (".", "..")]
    return _is_litter(last) or any(map(_is_litter_folder, folders))


def is_dicom(path: Path) -> bool:
    """Whether the file has the prefix DICM, or begins like a data set without it."""
    try:
        refuse_pipe(path)
        with path.open("rb") as stream:
            return begins_dicom(stream.read(HEAD))
    except (OSError, InputError):
        return False


def begins_dicom(head: bytes) -> bool:
    """Whether a file that begins with these HEAD bytes has the prefix, or may be a data set."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    # The first element: of the group 2 or 8, below 32, with a VR or with a short length.
    group, element, length = struct.unpack("<HHI", head[:8])
    is_short = length % 2 == 0 and length <= 64
    return group in (2, 8) and element < 32 and (is_short or head[4:6].isupper())


def named(names: Sequence[str], most: int = _MOST_NAMED, *, between: str = ", ") -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{between.join(names[:most])}{more}"


def counted(count: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

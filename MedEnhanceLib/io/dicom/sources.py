"""Files that may be DICOM: in a folder, a list, beside a DICOMDIR, or a single file."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from MedEnhanceLib.errors import InputError, MissingFileError
from MedEnhanceLib.io.voxels import refuse_pipe
from MedEnhanceLib.runtime.progress import Monitor

COPY_AGAIN = "Copy or export the file again."
_MOST_NAMED = 6
#: Bytes that `begins_dicom` needs.
HEAD = 132
_SYSTEM_FOLDERS = ("__MACOSX", "lost+found", "System Volume Information", "$RECYCLE.BIN")


def find_files(path: Path, monitor: Monitor) -> list[Path]:
    """Find the files that may be DICOM, sorted by name.

    path: a folder, searched with its subfolders; a DICOMDIR, which stands for its folder; a list
    (.txt) of files, one a line, as Slicer's module writes it; or one file.
    Raises InputError if there is no file, or a folder cannot be read.
    """
    is_folder = path.is_dir()
    if path.exists() and not is_folder:
        refuse_pipe(path)
    if is_folder or _is_dicomdir(path):
        files = list(_below(path if is_folder else path.parent, monitor))
    elif _is_list(path):
        files = _in_list(path)
    elif path.is_file():
        return [path]
    else:
        raise MissingFileError(f"{path} does not exist", "Check the path.")
    images = [file for file in files if not _is_dicomdir(file)]
    if not images:
        what = "contains a DICOMDIR but no images" if files else "contains no file"
        raise InputError(f"{path} {what}", "Give the folder or file of the images.")
    return images


def is_source(path: Path) -> bool:
    """Return whether a file stands for others: a DICOMDIR, a list of files."""
    return _is_dicomdir(path) or _is_list(path)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() == ".txt" and path.is_file() and not is_dicom(path)


def _in_list(path: Path) -> list[Path]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as cause:
        raise InputError(
            f"{path} cannot be read as a list of files", "Write one path a line, in UTF-8."
        ) from cause
    files = [path.parent / line.strip() for line in lines if line.strip()]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{path.name} is read as a list of files, and {str(file)[:300]} does not exist",
                "Give an image; or in a list one path a line, relative to the folder of the list.",
            )
    return files


def _is_dicomdir(path: Path) -> bool:
    """Return whether a file has the name that DICOM prescribes for a media directory."""
    return path.name.upper() == "DICOMDIR"


def _below(folder: Path, monitor: Monitor) -> Iterator[Path]:
    """Yield the files below a folder that may be images; links to folders are followed."""
    waiting, seen = [folder], set()
    while waiting:
        monitor.check()
        current = waiting.pop()
        try:
            state = current.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue  # a link to a folder that was read
            seen.add((state.st_dev, state.st_ino))
            entries = {entry: entry.is_dir() for entry in sorted(current.iterdir())}
        except OSError as cause:
            raise InputError(
                f"{current} cannot be read: {cause.strerror}",
                "Change its permissions, or give another folder.",
            ) from cause
        for entry, is_folder in entries.items():
            if not is_folder and _may_be_image(entry):
                yield entry
        folders = [entry for entry, is_folder in entries.items() if is_folder]
        # Hidden folders, and those of operating systems, hold no images.
        waiting += [
            entry
            for entry in reversed(folders)
            if not entry.name.startswith(".") and entry.name not in _SYSTEM_FOLDERS
        ]


def _may_be_image(entry: Path) -> bool:
    """Return whether an entry is a regular file, or a broken link (its disk may not be mounted).

    Pipes and devices may be endless. Hidden images count, files of operating systems do not.
    """
    if entry.name.startswith("._") or entry.name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        return False
    return entry.is_file() or (entry.is_symlink() and not entry.exists())


def is_dicom(path: Path) -> bool:
    """Return whether the file has the prefix DICM, or begins like a data set without it."""
    try:
        refuse_pipe(path)
        with path.open("rb") as stream:
            return begins_dicom(stream.read(HEAD))
    except (OSError, InputError):
        return False


def begins_dicom(head: bytes) -> bool:
    """Return whether a file that begins with these HEAD bytes may be DICOM."""
    if head[128:132] == b"DICM":
        return True
    if len(head) < 8:
        return False
    # The first element: of the group 2 or 8, below 32, with a VR or with a short length.
    group, element, length = struct.unpack("<HHI", head[:8])
    is_short = length % 2 == 0 and length <= 64
    return group in (2, 8) and element < 32 and (is_short or head[4:6].isupper())


def named(names: Sequence[str], most: int = _MOST_NAMED, *, between: str = ", ") -> str:
    """Join the first few names, and count the others: "a, b and 3 more".

    Args:
        names: all names.
        most: how many are joined.
        between: the separator.
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{between.join(names[:most])}{more}"

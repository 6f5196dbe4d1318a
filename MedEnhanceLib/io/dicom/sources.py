"""Where DICOM files lie: in a folder, in a zip, in a list, in a DICOMDIR, or alone."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_INSIDE = "!/"


@dataclass(frozen=True, order=True)
class FileRef:
    """A file, or a member of a zip; `str` and `parse` are each other's inverse.

    path: the file itself, or the zip. member: the name inside the zip.
    """

    path: str
    member: str = ""

    @property
    def name(self) -> str:
        """The last part of its name, for messages."""
        return self.member.rsplit("/", 1)[-1] if self.member else Path(self.path).name

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

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """A seekable stream of its bytes; a member of a zip is read into memory.

        Raises OSError and zipfile.BadZipFile.
        """
        if not self.member:
            with Path(self.path).open("rb") as stream:
                yield stream
            return
        with zipfile.ZipFile(self.path) as archive:
            yield io.BytesIO(archive.read(self.member))

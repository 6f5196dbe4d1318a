"""Calls that may fail without failing the work: of disks that lack them, to print messages."""

from __future__ import annotations

import contextlib
import errno
from typing import Any, TextIO

#: Errors of a call that a file system lacks, as of network disks and FUSE; not of a failing disk.
LACKING = {errno.EINVAL, errno.ENODEV, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP,
           errno.EPERM}  # fmt: skip


class IfSupported:
    """A context that does without a call that the file system lacks; other errors pass through."""

    def __enter__(self) -> None: ...

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        return isinstance(error, OSError) and error.errno in LACKING


class Messages:
    """A stream that drops what its own stream does not take.

    There is none (None) under pythonw, it may be closed, as in daemons, or its reader be gone.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream: Any = stream
        self._dropping = contextlib.suppress(AttributeError, OSError, ValueError)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> None:
        """Write text, if possible."""
        with self._dropping:
            self._stream.write(text)

    def flush(self) -> None:
        """Flush the stream, if possible."""
        with self._dropping:
            self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        with self._dropping:
            return bool(self._stream.isatty())
        return False

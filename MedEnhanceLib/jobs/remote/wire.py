"""What both ends of a connection share: lines of JSON, and files of an announced size.

    client                                     worker
    TLS, unless the way is an SSH tunnel
    {"v": 1, "token": …}                       {… "event": "hello", "version", "most_bytes"}
    {"v": 1, "id", "kind", "params", "files"}  progress while others are before it; {… "ready"}
    the bytes of the files, in that order      the events of the job (docs/jobs.md)
                                               {… "event": "result", …, "files"}, their bytes

`files` are names → sizes in bytes; both sides look names up in a list of their own and make no
path of them. Closing the connection is how a client cancels. The kind `doctor` has neither
parameters nor files, and waits for nobody: its result is what `machine.compute` finds.
"""

from __future__ import annotations

import errno
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.options import Options, is_name, option
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.config import SegmentConfig
from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhanceLib.io.atomic import output_error
from MedEnhanceLib.jobs.worker.events import PROTOCOL, line_of
from MedEnhanceLib.jobs.worker.worker import parse_line

#: Silence after which the other side is taken for gone; the worker says something more often.
SILENCE_SECONDS = 60.0
BEAT_SECONDS = 10.0
#: Bytes of a line. Results hold tables, and nobody who is not known yet has much to say.
LONGEST_LINE = 4 * 1024 * 1024
LONGEST_GREETING = 4096
_PIECE = 256 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Files that may travel, by the names that both sides know them by.
GUIDES = tuple(f"guide-{number:02}" for number in range(32))
INPUTS = {"enhance": ("input", "guide", *GUIDES), "segment": ("input",)}
RESULTS = ("output", "segmentation", "uncertainty", "noise")


class Wire:
    """A connected socket. What goes wrong with it is an OSError."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._pending = bytearray()
        self._spoke = self.last_received = time.monotonic()
        _notice_a_dead_peer(stream)

    def send(self, **fields: Any) -> None:
        """Send one JSON object."""
        self._send(line_of({"v": PROTOCOL, **fields}))

    def beat(self) -> None:
        """Send an empty line, a sign of life, where nothing was sent for long."""
        if time.monotonic() - self._spoke > BEAT_SECONDS:
            self._send(b"\n")

    def read(self, longest: int = LONGEST_LINE) -> dict[str, Any]:
        """The next JSON object; raises ConfigError for what is none, or too long."""
        while (fields := self._next(longest)) is None:
            self._receive()
        return fields

    def poll(self, seconds: float) -> dict[str, Any] | None:
        """As `read`, but None where no whole object has come by then."""
        fields = self._next(LONGEST_LINE)
        if fields is None and self._has_bytes(seconds):
            self._receive()
            fields = self._next(LONGEST_LINE)
        return fields

    def _next(self, longest: int) -> dict[str, Any] | None:
        while True:
            line, found, rest = self._pending.partition(b"\n")
            if len(line) > longest:
                raise ConfigError(f"a line of more than {longest} bytes", "Send less.")
            if not found:
                return None
            self._pending = rest
            if (fields := parse_line(bytes(line))) is not None:
                return fields

    def send_file(self, path: Path, sent: Callable[[int], None]) -> None:
        """Send the bytes of a file; `sent` is called with the count of each piece."""
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                self._send(piece)
                sent(len(piece))

    def receive_file(self, path: Path, size: int, received: Callable[[int], None]) -> None:
        """Receive a file of `size` bytes, no more; raises OutputError where it has no room."""
        left = size
        try:
            with path.open("xb") as file:
                while left:
                    if not self._pending:
                        self._receive()
                    piece = bytes(self._pending[:left])
                    del self._pending[:left]
                    file.write(piece)
                    left -= len(piece)
                    received(len(piece))
        except OSError as cause:
            if cause.filename is None and cause.errno not in _FULL:
                raise
            raise output_error(path, cause) from cause

    def is_gone(self) -> bool:
        """Whether the other side has left, or speaks where it has nothing to say."""
        try:
            self.beat()
            if not self._pending and not self._has_bytes(0):
                return False
            self._stream.setblocking(False)
            try:
                self._receive()
            except BlockingIOError:
                return False
            finally:
                self._stream.settimeout(SILENCE_SECONDS)
        except OSError as cause:
            # TLS may have a part of a record, or a message of its own.
            return not isinstance(cause, ssl.SSLWantReadError)
        return True

    def _has_bytes(self, seconds: float) -> bool:
        """Whether something has come, or comes in this time; the end of the stream too."""
        if isinstance(self._stream, ssl.SSLSocket) and self._stream.pending():
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._stream, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def _send(self, data: bytes) -> None:
        self._stream.sendall(data)
        self._spoke = time.monotonic()

    def _receive(self) -> None:
        piece = self._stream.recv(_PIECE)
        if not piece:
            raise ConnectionError("the other side has closed the connection")
        self._pending += piece
        self.last_received = time.monotonic()


def _notice_a_dead_peer(stream: socket.socket) -> None:
    """A cable that was pulled sends no goodbye: the system asks, and gives up after a minute."""
    stream.settimeout(SILENCE_SECONDS)
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for name, value in ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10)):
            stream.setsockopt(socket.IPPROTO_TCP, name, value)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000)


@dataclass(frozen=True, kw_only=True)
class SegmentOrder(Options):
    """A segmentation that another machine is to do; the files are `input` alone."""

    config: SegmentConfig = option(factory=SegmentConfig, help="how it is segmented")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.config.model, self.config.device)
        if self.config.segmenter or self.config.trust_segmenter:
            raise ConfigError(
                "a segmenter of somebody else's is a program, and does not travel",
                "Choose a device of this machine, or a model that the other machine has.",
            )


@dataclass(frozen=True, kw_only=True)
class EnhanceOrder(Options):
    """An enhancement that another machine is to do.

    Files: `input`; `guide`, or `guide-00` and so on for several.
    """

    config: EnhanceConfig = option(factory=EnhanceConfig, help="how it is enhanced")
    segment: bool = option(False, help="find labels in the enhanced volume too")
    head: str = option("auto", help="the model that segments, by name")
    noise: bool = option(False, help="send a map of the measured noise")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_order(self.config.model, self.config.device, self.head)


#: What another machine does.
ORDERS: Mapping[str, type[EnhanceOrder] | type[SegmentOrder]] = {
    "enhance": EnhanceOrder,
    "segment": SegmentOrder,
}


def check_order(model: str, device: str, head: str = "auto") -> None:
    """Raise ConfigError for a model that is not named by a plain word, and for a device.

    A folder would be one of another machine, and its path might name a patient.
    """
    for name in (model, head):
        if not is_name(name):
            raise ConfigError(
                "a model in a folder does not travel to another machine",
                "Import it there (medenhance models import), and name it.",
            )
    if device != "auto":
        raise ConfigError("the other machine chooses its device itself", "Name remote:NAME alone.")


def check_sizes(files: Any, known: tuple[str, ...], most_bytes: int) -> dict[str, int]:
    """The announced files, name → bytes; raises ConfigError for unknown names and for too much."""
    if not isinstance(files, dict) or not all(name in known for name in files):
        raise ConfigError("files that this job does not have", f"It has: {', '.join(known)}.")
    for size in files.values():
        if type(size) is not int or size < 0:
            raise ConfigError("a file without a size", "Send its number of bytes.")
    if sum(files.values()) > most_bytes:
        raise ConfigError(
            f"files of {sum(files.values())} bytes, and at most {most_bytes} are taken",
            "Crop the volume, or start the worker with a larger --most-mb.",
        )
    return dict(files)

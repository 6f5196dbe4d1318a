"""The headers of many files, sorted into series; thousands of files are read by helper processes.

A helper is a plain child process that takes files on stdin and answers on stdout. `multiprocessing`
would import the user's main module again in each of them, which scripts have no guard against, and
which fails for Slicer's.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom import archives
from MedEnhanceLib.io.dicom.headers import Header, read_header
from MedEnhanceLib.io.dicom.slices import Slice
from MedEnhanceLib.io.dicom.sources import FileRef, find_files, named
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.machine import cpu_threads
from MedEnhanceLib.runtime.progress import Monitor, attend

_STAGE = "reading headers"
#: Number of files after which helper processes are considered.
_TRIED = 200
_DICOM_ENDINGS = (".dcm", ".dicom", ".ima")
_LIBRARY = Path(__file__).resolve().parents[3]
_SERVE = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from MedEnhanceLib.io.dicom.scan import serve; serve()"
)
#: Files at a time, in this process and for a helper.
_AT_ONCE, _CHUNK = 16, 64
_MOST_HELPERS = 8
#: Helpers are started for more work than this.
_LEAST_SECONDS = 1.5
_LOOK_SECONDS = 0.1
Headers = list[Header | None]
Out = TypeVar("Out")


@dataclass(frozen=True)
class Series:
    """The objects that share a study and a SeriesInstanceUID.

    images: headers with slices. others: objects without slices, each with its reason. damaged:
    files that cannot be read but seem to belong to the series.
    """

    uid: str
    images: tuple[Header, ...] = ()
    others: tuple[Header, ...] = ()
    damaged: tuple[Header, ...] = ()

    @property
    def about(self) -> Header:
        """The header of its first object."""
        return (*self.images, *self.others, *self.damaged)[0]

    @property
    def slices(self) -> list[Slice]:
        """The slices of all its images, in the order of the files."""
        return [one for header in self.images for one in header.slices]


@dataclass(frozen=True)
class Scan:
    """What is found at a path. lost: damaged files whose series is unknown."""

    series: tuple[Series, ...]
    lost: tuple[Header, ...]

    def suspects(self, series: Series) -> list[Header]:
        """The lost files that may be images of a series.

        They are in a folder of its images; or in a folder beside or below one, if that holds no
        images of other series, or if the series is spread over folders.
        """
        places = _places(series)
        others = set().union(*(_places(one) for one in self.series if one is not series))
        around = places | {_above(place) for place in places}

        def may_belong(place: str) -> bool:
            is_near = _above(place) in around and (len(places) > 1 or place not in others)
            return place in places or is_near

        return [one for one in self.lost if may_belong(_place(one))]


def _places(series: Series) -> set[str]:
    return {_place(header) for header in (*series.images, *series.damaged)}


def _place(header: Header) -> str:
    return header.file.folder.replace(os.sep, "/").rstrip("/")


def _above(place: str) -> str:
    return place.rpartition("/")[0]


def scan(path: Path, monitor: Monitor) -> Scan:
    """Read all headers at a path and sort them into series.

    Args:
        path: as for sources.find_files.
        monitor: for progress and cancellation; is warned of what pydicom warned of, and of files
            that are named like DICOM but are not.
    Returns:
        The series by number, with their damaged files.
    Raises:
        InputError: there is no DICOM file.
    """
    require("pydicom", purpose="Reading DICOM")
    try:
        files = find_files(path, monitor)
        found = read_headers(files, monitor)
    finally:
        archives.forget()
    found = _without_trifles(found, monitor)
    headers = [header for header in found if header is not None]
    if not headers:
        raise _no_dicom(path, files)
    _warn_of_notes(headers, monitor)
    _warn_of_names(files, found, monitor)
    return _sorted(headers)


def read_headers(files: Sequence[FileRef], monitor: Monitor) -> Headers:
    """Read the header of each file; None for files that are not DICOM.

    Helper processes take over after some files if that saves time.
    """
    share = min(1.0, _TRIED / max(len(files), 1))
    began = time.monotonic()
    headers = _read_here(files[:_TRIED], monitor.part(0, share))
    rest = files[_TRIED:]
    if rest:
        expected_s = (time.monotonic() - began) / _TRIED * len(rest)
        part = monitor.part(share, 1)
        helped = _read_in_helpers(rest, part) if pays(expected_s) else []
        headers += helped or _read_here(rest, part)
    return headers


def _read_here(files: Sequence[FileRef], monitor: Monitor) -> Headers:
    """Read headers in this process; a disk that does not answer does not delay a cancel."""
    headers: Headers = []
    for start in range(0, len(files), _AT_ONCE):
        headers += attend(partial(_headers_of, files[start : start + _AT_ONCE]), monitor)
        monitor.progress(len(headers) / len(files), _STAGE)
    return headers


def _headers_of(files: Sequence[FileRef]) -> Headers:
    return [read_header(file) for file in files]


def _read_in_helpers(files: Sequence[FileRef], monitor: Monitor) -> Headers:
    """Read headers in helper processes; [] where these cannot be started, or die."""
    headers: Headers = [None] * len(files)
    done = 0
    try:
        for start, part in work_in_helpers(read_header, files, monitor.check):
            headers[start : start + len(part)] = part
            done += len(part)
            monitor.progress(done / len(files), _STAGE)
    except OSError as cause:
        monitor.log(f"headers are read one by one: {cause}")
        return []
    return headers


def _sorted(headers: Iterable[Header]) -> Scan:
    by_series: dict[tuple[str, str], list[Header]] = {}
    lost = []
    for header in headers:
        if header.damaged and not header.series:
            lost.append(header)
        else:
            by_series.setdefault((header.study, header.series), []).append(header)
    series = [
        Series(
            uid,
            images=tuple(one for one in found if one.slices),
            others=tuple(one for one in found if not one.slices and not one.damaged),
            damaged=tuple(one for one in found if one.damaged),
        )
        for (_, uid), found in by_series.items()
    ]
    return Scan(tuple(sorted(series, key=_in_order)), tuple(lost))


def _in_order(series: Series) -> tuple[int, str]:
    number = series.about.number
    return (int(number) if number.isdecimal() else 1 << 31, series.uid)


def _without_trifles(found: Sequence[Header | None], monitor: Monitor) -> list[Header | None]:
    """Remove files that are empty, or cannot be read, unless they are named like the images."""
    images: dict[str, set[str]] = defaultdict(set)
    others: dict[str, set[str]] = defaultdict(set)
    for header in found:
        if header is not None:
            kind = others if header.unread else images
            kind[header.file.folder].add(_ending(header.file.name))
    anywhere = set().union(*images.values())

    def is_trifle(header: Header) -> bool:
        beside = images.get(header.file.folder) or anywhere
        return header.unread and _ending(header.file.name) not in beside

    kept = [None if one is None or is_trifle(one) else one for one in found]
    shut = [
        one.file.name
        for one, is_kept in zip(found, kept, strict=True)
        if one is not None and is_kept is None and not one.reason.startswith("it ")
    ]
    if shut:
        monitor.warn(f"left out, as they cannot be read: {named(shut)}")
    return kept


def _ending(name: str) -> str:
    """The suffix in small letters; "" for numbers, which many scanners append."""
    ending = Path(name).suffix.lower()
    return "" if ending[1:].isdecimal() else ending


def _warn_of_notes(headers: Sequence[Header], monitor: Monitor) -> None:
    """Pass on each of pydicom's warnings once."""
    counts = Counter(note for header in headers for note in header.notes)
    for note, count in counts.items():
        first = next(header.file.name for header in headers if note in header.notes)
        more = f" (and {count - 1} more files)" if count > 1 else ""
        monitor.warn(f"{first}: {note}{more}")


def _warn_of_names(
    files: Sequence[FileRef], headers: Sequence[Header | None], monitor: Monitor
) -> None:
    """A file that is named like DICOM but is not may be a lost slice."""
    odd = [
        file.name
        for file, header in zip(files, headers, strict=True)
        if header is None and file.name.lower().endswith(_DICOM_ENDINGS)
    ]
    if odd:
        monitor.warn(f"named like DICOM, but not DICOM files: {named(odd)}")


def _no_dicom(path: Path, files: Sequence[FileRef]) -> InputError:
    if len(files) == 1 and files[0].path == str(path) and not files[0].member:
        return InputError(
            f"{path.name} is not a DICOM file: the prefix DICM is missing",
            "Check that it is an image; files without the prefix must be exported again.",
        )
    return InputError(
        f"{path} holds no DICOM file ({len(files)} files were read, {files[0].name} first)",
        "Give a folder of DICOM images, or name the volume's file itself.",
    )


def pays(seconds: float) -> bool:
    """Whether this much work is worth starting helpers, each of which takes half a second.

    Programs that embed Python may have no executable to start.
    """
    is_python = "python" in Path(sys.executable or "").name.lower()
    return seconds > _LEAST_SECONDS and cpu_threads() > 1 and is_python


def work_in_helpers(
    work: Callable[[FileRef], Out],
    files: Sequence[FileRef],
    check: Callable[[], None],
    chunk: int = _CHUNK,
) -> Iterator[tuple[int, list[Out]]]:
    """Do `work` on files in helper processes, which end with this generator.

    Args:
        work: a function of a module, so that it can be pickled; an exception ends its helper.
        files: what to work on.
        check: called at least every 0.1 s; may raise.
        chunk: files that a helper gets at a time.
    Yields:
        (index of the first file, answers) of each chunk, as they are done.
    Raises:
        OSError: a helper cannot be started, or died.
    """
    tasks: queue.SimpleQueue[int] = queue.SimpleQueue()
    starts = range(0, len(files), chunk)
    for start in starts:
        tasks.put(start)
    results: queue.SimpleQueue[tuple[int, list[Out]] | OSError] = queue.SimpleQueue()
    helpers: list[subprocess.Popen[bytes]] = []
    threads: list[threading.Thread] = []
    try:
        for _ in range(min(cpu_threads(), _MOST_HELPERS, len(starts))):
            helpers.append(_start())
            talk = (helpers[-1], work, files, chunk, tasks, results)
            threads.append(threading.Thread(target=_converse, args=talk, daemon=True))
            threads[-1].start()
        for _ in starts:
            result = _next(results, check)
            if isinstance(result, OSError):
                raise result
            yield result
    finally:
        for helper in helpers:
            helper.kill()
        for thread in threads:
            thread.join()
        for helper in helpers:
            _close(helper)


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-c", _SERVE, str(_LIBRARY)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
    )


def _next(answers: queue.SimpleQueue[Out], check: Callable[[], None]) -> Out:
    while True:
        check()
        with contextlib.suppress(queue.Empty):
            return answers.get(timeout=_LOOK_SECONDS)


def _converse(
    helper: subprocess.Popen[bytes],
    work: Callable[[FileRef], Out],
    files: Sequence[FileRef],
    chunk: int,
    tasks: queue.SimpleQueue[int],
    results: queue.SimpleQueue[tuple[int, list[Out]] | OSError],
) -> None:
    """Give one helper chunk after chunk, until none is left."""
    try:
        while True:
            start = tasks.get_nowait()
            _send(helper.stdin, (work, list(files[start : start + chunk])))
            results.put((start, _receive(helper.stdout)))
    except queue.Empty:
        return
    except (OSError, EOFError, ValueError, pickle.UnpicklingError) as cause:
        results.put(OSError(f"a helper ended early: {cause or type(cause).__name__}"))


def _close(helper: subprocess.Popen[bytes]) -> None:
    for pipe in helper.stdin, helper.stdout:
        if pipe is not None:
            with contextlib.suppress(OSError):  # a dead helper did not read everything
                pipe.close()
    helper.wait()


def _send(pipe: IO[bytes] | None, what: object) -> None:
    if pipe is None:
        raise ValueError("no pipe")
    pickle.dump(what, pipe)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> Any:
    if pipe is None:
        raise ValueError("no pipe")
    return pickle.load(pipe)  # noqa: S301 - from a child of this very process


def serve() -> None:
    """The main loop of a helper: work on files until stdin ends."""
    tasks, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # packages may print
    while True:
        try:
            work, files = pickle.load(tasks)  # noqa: S301 - from our own parent
        except EOFError:
            return
        _send(answers, [work(file) for file in files])

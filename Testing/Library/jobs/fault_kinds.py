"""What befalls a job: kills, full disks, files that others change; faulting.py makes it happen."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from Library.jobs.fault_jobs import JOBS, Work

TEMPORARY = (".medenhance-", "medenhance-")
FOREIGN = b"another program's"
PRECIOUS = "notes of the user.txt"
#: Beside a case's folders, where another program wrote its output: the path of that.
TAKEN = "taken"
_GROUND = 40 << 20  # bytes of address space beyond what the imports take
#: Names of files that people give: input and output are called so.
NAMES = (
    "two  blanks and 'quotes' \"of\" both kinds",
    "a new\nline\tand a tab",
    os.fsdecode(b"not UTF-8 \xff\xe9"),
    "MÜLLER — 脳 $(touch no) `no` ; * ? [a] %s {0} -rf",
    "x" * 241,
)


@dataclass
class Case:
    """A job with a fault, in a folder of its own."""

    work: Work
    fault: str
    point: float
    folder: Path
    steps: int = 0
    #: What the job asks of the file system at the present step.
    event: str = ""

    @property
    def step(self) -> int:
        """At which of the job's steps the fault strikes, from 1."""
        return 1 + min(int(self.point * self.steps), self.steps - 1)


@dataclass(frozen=True)
class Fault:
    """What happens, and what it excuses.

    before: prepares the case's folder. at: is called in the child at the chosen step, and at all
    later ones too with `lasting`. within: is around the job, in the child. lost: files may stay
    that the job could not remove any more, until the next run. touches: the user's own files are
    changed by the fault itself. names: no name is said to the job but one of `NAMES`.
    """

    before: Callable[[Case], None] | None = None
    at: Callable[[Case, str], None] | None = None
    within: Callable[[Case], contextlib.AbstractContextManager[object]] | None = None
    lasting: bool = False
    lost: bool = False
    touches: bool = False
    needs: str = ""


def _kill(case: Case, place: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _terminate(case: Case, place: str) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


cancel = threading.Event()


def _cancel_job(case: Case, place: str) -> None:
    cancel.set()


def _gone(folder: str, number: int) -> Callable[[Case, str], None]:
    """Everything in a folder of the case fails, as on a network disk that went away."""

    def fail(case: Case, place: str) -> None:
        if place.startswith(str(case.folder / folder)):
            raise OSError(number, os.strerror(number), place)

    return fail


def _taken(case: Case, place: str) -> None:
    """Another program writes what the job is about to write, if it is not there yet.

    Not in the instant between the last look and the rename, which docs/reliability.md leaves out.
    """
    if Path(place).name.startswith(TEMPORARY) and case.event == "os.rename":
        return
    target = case.folder / "out" / case.work.output
    if case.work.is_folder and case.work.output:
        target.mkdir(exist_ok=True)
        target /= "foreign.txt"
    if case.work.output and not target.exists():
        target.write_bytes(FOREIGN)
        (case.folder / TAKEN).write_text(str(target.relative_to(case.folder)), encoding="utf-8")


def _changed(case: Case, place: str) -> None:
    """The source is replaced, cut short or removed, by thirds of the point's last digits."""
    for path in sorted(case.folder.glob(f"in/{case.work.source}")):
        way = int(case.point * 997) % 3
        if path.is_dir():
            path = sorted(path.rglob("*.*"))[0]
        if way == 0:
            other = path.with_name(f"other-{path.name}")
            if not other.exists():
                shutil.copyfile(path, other)
            other.replace(path)
        elif way == 1:
            os.truncate(path, path.stat().st_size // 2)
        else:
            path.unlink()
        return


@contextlib.contextmanager
def _clock_set_back(case: Case) -> Iterator[None]:
    """Every look at the clock is an hour before the last one, and files are from tomorrow."""
    began, looks = time.time(), iter(range(1, sys.maxsize))
    time.time = lambda: began - 3600.0 * next(looks)
    time.time_ns = lambda: int(time.time() * 1e9)
    yield


def _from_tomorrow(case: Case) -> None:
    for path in case.folder.glob("in/**/*"):
        os.utime(path, (time.time() + 86400,) * 2)


@contextlib.contextmanager
def _small_files(case: Case) -> Iterator[None]:
    """A write past a number of bytes fails, as on a full disk; also in temporary folders."""
    most = int(case.point * case.work.largest)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    yield


def _full_disk(case: Case) -> None:
    """The output's folder is a disk of a few pages, fewer than the result takes."""
    pages = 3 + int(case.point * (case.work.written // 4096))
    command = (
        "mount",
        "-t",
        "tmpfs",
        "-o",
        f"size={pages * 4}k",
        "tmpfs",
        str(case.folder / "out"),
    )
    subprocess.run(command, check=True, capture_output=True)
    (case.folder / "out" / PRECIOUS).write_bytes(b"mine")


@contextlib.contextmanager
def _little_memory(case: Case) -> Iterator[None]:
    """Address space for the job, some or none."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    # With less, Python may wait for ever for a thread that it started.
    most = pages * resource.getpagesize() + (1 << 20) + int(case.point**2 * _GROUND)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def _read_only(case: Case) -> Iterator[None]:
    """Nothing may be written to the output's folder; root may everywhere, and forgoes it."""
    (case.folder / "out").chmod(0o555)
    if os.geteuid() == 0:
        header, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        assert ctypes.CDLL(None).capset(header, none) == 0
    try:
        yield
    finally:
        (case.folder / "out").chmod(0o755)


def _no_model(case: Case) -> None:
    shutil.rmtree(case.folder / "in" / case.work.model)


def _damaged_model(case: Case) -> None:
    """A byte of one of its files is another one, or the file is cut."""
    files = sorted(p for p in (case.folder / "in" / case.work.model).rglob("*") if p.is_file())
    path = files[int(case.point * len(files))]
    data = bytearray(path.read_bytes())
    place = int(case.point * 7919) % len(data)
    if int(case.point * 997) % 2:
        data[place] ^= 1 << place % 8
    else:
        del data[place:]
    path.write_bytes(data)


def _odd_name(case: Case) -> None:
    name = NAMES[int(case.point * len(NAMES))]
    case.work = case.work.named(name, case.folder / "in")


FAULTS: dict[str, Fault] = {
    "kill": Fault(at=_kill, lost=True),
    "cancel": Fault(at=_cancel_job),
    "SIGTERM": Fault(at=_terminate),
    "full disk": Fault(before=_full_disk, needs="mount"),
    "file too large": Fault(within=_small_files, needs="output"),
    "read-only folder": Fault(within=_read_only, needs="output"),
    "missing model": Fault(before=_no_model, needs="model", touches=True),
    "damaged model": Fault(before=_damaged_model, needs="model", touches=True),
    "little memory": Fault(within=_little_memory, lost=True),
    "output taken": Fault(at=_taken, lasting=True, needs="output"),
    "source changed": Fault(at=_changed, needs="source", touches=True),
    "odd name": Fault(before=_odd_name, needs="source"),
    "clock set back": Fault(before=_from_tomorrow, within=_clock_set_back),
    "output's disk gone": Fault(
        at=_gone("out", errno.ESTALE), lasting=True, lost=True, needs="output"
    ),
    "source's disk gone": Fault(at=_gone("in", errno.ESTALE), lasting=True, needs="source"),
    "an error of the disk": Fault(at=_gone("out", errno.EIO), lost=True, needs="output"),
}


def place_of(job: str, fault: str, turn: int) -> float:
    """Which share of a job's steps a fault strikes at in its nth turn: spread evenly, any turns."""
    first = zlib.crc32(f"{job} {fault}".encode()) / 2**32
    return (first + turn * (5**0.5 - 1) / 2) % 1


def applies(job: str, fault: str) -> bool:
    """Whether a job has what the fault is about."""
    work, needs = JOBS[job], FAULTS[fault].needs
    has = {"model": work.model, "output": work.output, "source": work.source, "mount": work.output}
    return bool(has.get(needs, True))

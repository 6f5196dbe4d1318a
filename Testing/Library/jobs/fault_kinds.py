"""What befalls a job: kills, full disks, files that others change; faulting.py makes it happen."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import signal
import subprocess
import threading
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


cancel = threading.Event()


def _cancel_job(case: Case, place: str) -> None:
    cancel.set()


def _disk_error(case: Case, place: str) -> None:
    if place.startswith(str(case.folder / "out")):
        raise OSError(errno.EIO, os.strerror(errno.EIO), place)


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


def _odd_name(case: Case) -> None:
    name = NAMES[int(case.point * len(NAMES))]
    case.work = case.work.named(name, case.folder / "in")


FAULTS: dict[str, Fault] = {
    "kill": Fault(at=_kill, lost=True),
    "cancel": Fault(at=_cancel_job),
    "full disk": Fault(before=_full_disk, needs="mount"),
    "read-only folder": Fault(within=_read_only, needs="output"),
    "output taken": Fault(at=_taken, lasting=True, needs="output"),
    "source changed": Fault(at=_changed, needs="source", touches=True),
    "odd name": Fault(before=_odd_name, needs="source"),
    "an error of the disk": Fault(at=_disk_error, lost=True, needs="output"),
}


def place_of(job: str, fault: str, turn: int) -> float:
    """Which share of a job's steps a fault strikes at in its nth turn: spread evenly, any turns."""
    first = zlib.crc32(f"{job} {fault}".encode()) / 2**32
    return (first + turn * (5**0.5 - 1) / 2) % 1


def applies(job: str, fault: str) -> bool:
    """Whether a job has what the fault is about."""
    work, needs = JOBS[job], FAULTS[fault].needs
    has = {"output": work.output, "source": work.source, "mount": work.output}
    return bool(has.get(needs, True))

"""Faults into jobs of every kind: what is left of the user's files, and what is said.

    python faulting.py FOLDER                   requests {"job", "fault", "point"} as JSON lines
    python faulting.py FOLDER POINTS [JOB …]    every fault of every job, at POINTS points

One line of JSON for each case, whose `wrong` lists what does not hold. A job runs in a forked
child. Its steps are its progress events and what it asks of the file system in the case's folder
(Python's audit events): a fault strikes at one of them, the share `point` of all, or holds from
the start. A program of its own, because it forks.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import faulthandler
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from Library.jobs.fault_jobs import JOBS, SOURCES, Work

from MedEnhanceLib import io
from MedEnhanceLib.cli.console import cancel_on_interrupt
from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.failures import device_errors
from MedEnhanceLib.jobs.kinds import demo
from MedEnhanceLib.report import figures
from MedEnhanceLib.runtime.progress import Event

TEMPORARY = (".medenhance-", "medenhance-")
FOREIGN = b"another program's"
PRECIOUS = "notes of the user.txt"
#: Beside a case's folders, where another program wrote its output: the path of that.
_TAKEN = "taken"
#: Parts of names that are drawn anew in each run, and the numbers of files.
_RANDOM = re.compile(r"[0-9a-f]{8,}|-\d{4}(?=\.dcm)")
_SECONDS = 60.0  # that a case may take; smoke trainings take a few
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


_cancel = threading.Event()


def _cancel_job(case: Case, place: str) -> None:
    _cancel.set()


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
        (case.folder / _TAKEN).write_text(str(target.relative_to(case.folder)), encoding="utf-8")


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
    most = pages * resource.getpagesize() + int(case.point**2 * _GROUND)
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


def applies(job: str, fault: str) -> bool:
    """Whether a job has what the fault is about."""
    work, needs = JOBS[job], FAULTS[fault].needs
    has = {"model": work.model, "output": work.output, "source": work.source, "mount": work.output}
    return bool(has.get(needs, True))


class Stage:
    """Prepared sources, and what each job makes of them where nothing happens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._whole: dict[str, tuple[Work, int, dict[str, str]]] = {}
        (folder / "in").mkdir(parents=True)
        _small_demo()

    def run(self, job: str, fault: str, point: float) -> dict[str, Any]:
        """Strike once; the row of the case."""
        work, steps, expected = self._reference(job)
        case = Case(work, fault, point, self._new_folder(work), steps)
        chosen = FAULTS[fault]
        row = {"job": job, "fault": fault, "point": round(point, 4), "step": case.step}
        began = time.monotonic()
        try:
            if chosen.before:
                chosen.before(case)
        except (OSError, subprocess.CalledProcessError) as cause:
            return row | {"outcome": "not possible here", "says": str(cause), "wrong": []}
        before = _hashes(case.folder / "in")
        try:
            said = self._child(case, chosen)
            wrong = self._judge(case, chosen, said, before, expected)
        finally:
            self._unmount(case.folder / "out")
        shutil.rmtree(case.folder)
        seconds = round(time.monotonic() - began, 3)
        return row | {**said, "wrong": wrong, "seconds": seconds}

    def _reference(self, job: str) -> tuple[Work, int, dict[str, str]]:
        if job not in self._whole:
            work = JOBS[job]
            case = Case(work, "", 0.0, self._new_folder(work))
            said = self._child(case, Fault())
            if said["outcome"] != "done":
                raise RuntimeError(f"{job} fails without a fault: {said}")
            for name in said.pop("modules"):  # once for all children
                with contextlib.suppress(Exception):
                    __import__(name)
            found = _signatures(case.folder / "out")
            sizes = [path.stat().st_size for path in _files(case.folder / "out")] or [1 << 12]
            work = replace(work, largest=max(sizes), written=sum(sizes))
            shutil.rmtree(case.folder)
            self._whole[job] = work, said["steps"], found
        return self._whole[job]

    def _new_folder(self, work: Work) -> Path:
        folder = self._folder / "case"
        shutil.rmtree(folder, ignore_errors=True)
        for name in ("in", "out", "temp", "home"):
            (folder / name).mkdir(parents=True)
        for name in work.needs:
            source = self._folder / "in" / name
            if not source.exists():
                SOURCES[name](source)
            copy = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, folder / "in" / name)
        (folder / "out" / PRECIOUS).write_bytes(b"mine")
        return folder

    def _unmount(self, folder: Path) -> None:
        if folder.is_mount():
            subprocess.run(("umount", str(folder)), check=True)

    def _child(self, case: Case, fault: Fault) -> dict[str, Any]:
        """Run the job in a child; how it ended."""
        log = case.folder / "log"
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            status = 70
            try:
                with log.open("wb") as stream:
                    os.dup2(stream.fileno(), 2)
                os.dup2(2, 1)
                faulthandler.dump_traceback_later(_SECONDS - 2)
                said = _run(case, fault)
                os.write(writing, json.dumps(said).encode())
                status = 0
            except BaseException:  # noqa: BLE001 - a fault of this program
                traceback.print_exc()
            finally:
                os._exit(status)
        os.close(writing)
        timer = threading.Timer(_SECONDS, os.kill, (child, signal.SIGKILL))
        timer.start()
        with os.fdopen(reading, "rb") as stream:
            answer = stream.read()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        in_time = timer.is_alive()
        timer.cancel()
        said = {"outcome": "done"} if not answer else json.loads(answer)
        said["log"] = log.read_text(errors="replace")[-3000:]
        if not answer:
            said["outcome"] = "killed" if status == -signal.SIGKILL else f"ended with {status}"
        if not in_time:
            said["outcome"] = "hung"
        return said

    def _judge(
        self,
        case: Case,
        fault: Fault,
        said: dict[str, Any],
        before: dict[str, str],
        expected: dict[str, str],
    ) -> list[str]:
        """What does not hold, as sentences."""
        wrong = list(_unclear(said, case.fault))
        folder, work = case.folder, case.work
        if not fault.touches and _hashes(folder / "in") != before:
            wrong.append("the sources are not as before")
        if (folder / "out" / PRECIOUS).read_bytes() != b"mine":
            wrong.append("a file of the user is not as before")
        taken = folder / _TAKEN
        if taken.exists() and (folder / taken.read_text("utf-8")).read_bytes() != FOREIGN:
            wrong.append("what another program wrote was overwritten")
        wrong += self._partial(case, said, expected)
        left = _temporary(folder)
        said["temporary"] = len(left)
        if not fault.lost and left and said["outcome"] != "ended with 130":
            wrong.append(f"temporary files are left: {left}")
        if said["outcome"] != "done" and (fault.lost or case.fault in ("cancel", "SIGTERM")):
            again = self._child(replace(case, work=work.again(folder)), Fault())
            again.pop("modules", None)
            if again["outcome"] != "done":
                wrong.append(f"it cannot be run again: {again}")
            elif left := _temporary(folder):
                wrong.append(f"temporary files are left after the next run: {left}")
            else:
                wrong += self._partial(case, again, expected)
        return wrong

    def _partial(self, case: Case, said: dict[str, Any], expected: dict[str, str]) -> list[str]:
        """Files under a final name that are not what the job makes of its sources."""
        wrong = []
        try:
            found = _signatures(case.folder / "out")
        except Exception as error:  # noqa: BLE001 - whatever a broken file does to its reader
            return [f"a file is broken: {type(error).__name__}: {error}"]
        called = {case.work.renamed(name): value for name, value in expected.items()}
        for name, value in found.items():
            if value == hashlib.sha256(FOREIGN).hexdigest():
                continue
            if case.work.resumes and said["outcome"] != "done":
                continue  # it is read, and the next run goes on from there
            if name not in called:
                wrong.append(f"a file that nobody asked for: {name}")
            elif called[name] != value and not self._excused(case, said):
                wrong.append(f"{name} is {value}, not {called[name]}")
        if said["outcome"] == "done":
            taken = case.fault == "output taken" and case.work.is_folder
            missing = called.keys() - found.keys()
            if missing and not taken:
                wrong.append(f"files are missing: {sorted(missing)}")
        return wrong

    def _excused(self, case: Case, said: dict[str, Any]) -> bool:
        """Whether the result may be of other sources, or of some of them with a warning."""
        is_source = case.fault == "source's disk gone"
        return FAULTS[case.fault].touches or (is_source and bool(said["warnings"]))


def _run(case: Case, fault: Fault) -> dict[str, Any]:
    """In the child: the job with its fault; how it ended, with the steps that it took."""
    folder = case.folder
    os.environ |= {
        "TMPDIR": str(folder / "temp"),
        "HOME": str(folder / "home"),
        "MEDENHANCE_MODELS": str(folder / "out" / "models"),
    }
    tempfile.tempdir = None
    torch.set_num_threads(1)  # PyTorch's own pool notices the fork here, where no threads race
    os.chdir(folder / "out")
    steps, is_striking = 0, False
    known = set(sys.modules)

    def step(place: str) -> None:
        nonlocal steps, is_striking
        if is_striking or not is_on:
            return
        steps += 1
        if fault.at and (steps == case.step or (fault.lasting and steps > case.step)):
            is_striking = True
            try:
                fault.at(case, place)
            finally:
                is_striking = False

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" or event.startswith(("os.", "shutil.")):
            place = arguments[0] if arguments else None
            if isinstance(place, bytes):
                place = os.fsdecode(place)
            if isinstance(place, (str, os.PathLike)):
                absolute = os.path.join(folder / "out", os.fspath(place))  # noqa: PTH118
                if absolute.startswith((f"{folder}/out", f"{folder}/in")):
                    case.event = event
                    step(absolute)

    def listen(event: Event) -> None:
        step("")
        if event.kind == "warning":
            warnings.append(str(event.fields["message"]))

    warnings: list[str] = []
    is_on = True
    sys.addaudithook(look)
    said: dict[str, Any] = {"outcome": "done"}
    began = time.monotonic()
    with fault.within(case) if fault.within else contextlib.nullcontext():
        try:
            with device_errors(), cancel_on_interrupt() as asked:
                spec = JobSpec(case.work.kind, case.work.params_in(folder))
                run_job(spec, listen, lambda: _cancel.is_set() or asked.is_set())
        except BaseException as error:  # noqa: BLE001 - judged by its kind
            is_on = False
            said = _as_said(error)
    is_on = False
    if not fault.at and not fault.within and not fault.before:
        said["modules"] = [name for name in sys.modules if name not in known]
    took = round(time.monotonic() - began, 3)
    return {**said, "steps": steps, "job_seconds": took, "warnings": warnings}


def _as_said(error: BaseException) -> dict[str, Any]:
    if isinstance(error, Cancelled):
        return {"outcome": "cancelled", "says": str(error)}
    said = {"outcome": "error", "type": type(error).__name__, "says": str(error)}
    if isinstance(error, MedEnhanceError):
        said |= {"code": error.code, "hint": error.hint}
    if said.get("code") in (None, "internal"):
        said["trace"] = "".join(traceback.format_exception(error))[-3000:]
    return said


def _unclear(said: dict[str, Any], fault: str) -> Iterator[str]:
    """What is not clear in how the job ended."""
    ends = {"kill": "killed"}
    if said["outcome"] == "error":
        if said.get("code") in (None, "internal"):
            yield f"no clear error: {said['type']}: {said['says']}\n{said['trace']}"
        elif not said["hint"]:
            yield f"an error without a remedy: {said['says']}"
    elif said["outcome"] == "cancelled":
        if fault not in ("cancel", "SIGTERM"):
            yield "nobody canceled it"
    elif said["outcome"] == "ended with 130" and fault == "SIGTERM":
        pass
    elif fault == "little memory" and said["outcome"].startswith("ended with"):
        # C libraries end the process where they get no memory: who waits for it says so.
        return
    elif said["outcome"] not in ("done", ends.get(fault)):
        yield f"{said['outcome']}: {said['log']}"
    if "Traceback" in said["log"] or "Fatal" in said["log"]:
        yield f"a traceback is printed: {said['log']}"


def _files(folder: Path) -> list[Path]:
    """The files of a case's output, but for the user's own and temporary ones."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and path.name != PRECIOUS
        and not any(part.startswith(TEMPORARY) for part in path.relative_to(folder).parts)
    )


def _temporary(folder: Path) -> list[str]:
    return sorted(
        os.path.relpath(f"{base}/{name}", folder)
        for base, folders, files in os.walk(folder)
        for name in (*folders, *files)
        if name.startswith(TEMPORARY) and not name.startswith("medenhance-gpu-")
    )


def _hashes(folder: Path) -> dict[str, str]:
    """File → hash, with its rights."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() + oct(path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if stat.S_ISREG(path.lstat().st_mode)
    }


def _signatures(folder: Path) -> dict[str, str]:
    """File → what it holds, read by the reader of its kind; raises what that one raises."""
    found: dict[str, list[str]] = {}
    for path in _files(folder):
        # Under a name that every reader takes.
        plain = folder.parent / f"read{io.ending_of(path) or path.suffix}"
        shutil.copyfile(path, plain)
        name = _RANDOM.sub("…", path.relative_to(folder).as_posix())
        found.setdefault(name, []).append(_signature(plain))
        plain.unlink()
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def _signature(path: Path) -> str:
    data = path.read_bytes()
    if data == FOREIGN:
        return hashlib.sha256(data).hexdigest()
    kind = io.ending_of(path) if io.ending_of(path) in io.WRITABLE else path.suffix
    if kind == ".ucv":
        from MedEnhanceLib.unicompress import decompress

        volume = decompress(path, threads=1)
        return hashlib.sha256(volume.voxels.tobytes()).hexdigest()
    if kind in io.WRITABLE:
        volume = io.load(path)
        return hashlib.sha256(np.ascontiguousarray(volume.voxels).tobytes()).hexdigest()
    if kind == ".dcm":
        from pydicom import dcmread

        return hashlib.sha256(dcmread(path).get("PixelData", b"")).hexdigest()
    if kind == ".json":
        fields = json.loads(data)
        return f"JSON: {sorted(fields) if isinstance(fields, dict) else len(fields)}"
    if kind in (".html", ".png"):
        end = {".html": b"</html>", ".png": b"IEND\xaeB`\x82"}[kind]
        if not data.rstrip().endswith(end):
            raise ValueError(f"{path.name} is cut")
    if kind == ".safetensors":
        from safetensors.numpy import load

        return str(sorted((name, array.shape) for name, array in load(data).items()))
    if kind in (".npz", ".npy"):
        np.load(path, allow_pickle=False)
    return kind or "a file"


def _small_demo() -> None:
    """The demo of a block of its sample: it is the same job, in a second."""
    where = (slice(78, 90), slice(60, 108), slice(50, 98))

    def cut() -> Any:
        return tuple(
            replace(
                volume,
                voxels=volume.voxels[where],
                geometry=volume.geometry.cropped((78, 60, 50)),
            )
            for volume in load()
        )

    load, demo.load_sample, figures.DPI = demo.load_sample, cut, 30


def main() -> None:
    """Serve requests, or go through all of them."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    folder = Path(sys.argv[1]).resolve()
    stage = Stage(folder)
    if len(sys.argv) == 2:
        for line in sys.stdin:
            asked = json.loads(line)
            print(json.dumps(stage.run(asked["job"], asked["fault"], asked["point"])), flush=True)
        return
    counts: Counter[str] = Counter()
    for job in sys.argv[3:] or JOBS:
        for fault in filter(lambda fault: applies(job, fault), FAULTS):
            for number in range(int(sys.argv[2])):
                point = (number + 0.5) / int(sys.argv[2])
                row = stage.run(job, fault, point)
                counts[row["outcome"]] += 1
                print(json.dumps(row), flush=True)
    print(counts, file=sys.stderr)


if __name__ == "__main__":
    main()

"""Faults into jobs: what is left of the user's files, and what is said.

    python faulting.py FOLDER     requests {"job", "fault", "point"} come in as lines of JSON

One line of JSON for each case, whose `wrong` lists what does not hold. A job runs in a forked
child. Its steps are its progress events and what it asks of the file system in the case's folder
(Python's audit events): a fault strikes at one of them, the share `point` of all, or holds from
the start. A program of its own, because it forks.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from Library.jobs.fault_jobs import JOBS, SOURCES, Work
from Library.jobs.fault_kinds import (
    FAULTS,
    FOREIGN,
    PRECIOUS,
    TAKEN,
    TEMPORARY,
    Case,
    Fault,
    cancel,
)

from MedEnhanceLib import io
from MedEnhanceLib.errors import Cancelled, MedEnhanceError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import demo
from MedEnhanceLib.report import figures
from MedEnhanceLib.runtime.progress import Event

#: Parts of names that are drawn anew in each run, and the numbers of files.
_RANDOM = re.compile(r"[0-9a-f]{8,}|-\d{4}(?=\.dcm)")
_SECONDS = 60.0  # that a case may take; smoke trainings take a few


class Asked:
    """The program in a process of its own, which has imported all that jobs need."""

    def __init__(self, folder: Path) -> None:
        repository = Path(__file__).resolve().parents[3]
        search = os.pathsep.join((str(repository), str(repository / "Testing")))
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def run(self, job: str, fault: str, point: float) -> dict[str, Any]:
        """Strike once; the row of the case."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"job": job, "fault": fault, "point": point}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the program ended at {request}")
        row: dict[str, Any] = json.loads(answer)
        return row

    def close(self) -> None:
        """End it."""
        self._process.communicate()


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
        taken = folder / TAKEN
        if taken.exists() and (folder / taken.read_text("utf-8")).read_bytes() != FOREIGN:
            wrong.append("what another program wrote was overwritten")
        wrong += self._partial(case, said, expected)
        left = _temporary(folder)
        said["temporary"] = len(left)
        if not fault.lost and left:
            wrong.append(f"temporary files are left: {left}")
        if said["outcome"] != "done" and (fault.lost or case.fault == "cancel"):
            for path in (folder / "out").glob(".medenhance-*"):  # a minute later
                os.utime(path, times=(time.time() - 120,) * 2)
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
            elif called[name] != value and not FAULTS[case.fault].touches:
                wrong.append(f"{name} is {value}, not {called[name]}")
        if said["outcome"] == "done":
            taken = case.fault == "output taken" and case.work.is_folder
            missing = called.keys() - found.keys()
            if missing and not taken:
                wrong.append(f"files are missing: {sorted(missing)}")
        return wrong


def _run(case: Case, fault: Fault) -> dict[str, Any]:
    """In the child: the job with its fault; how it ended, with the steps that it took."""
    folder = case.folder
    os.environ |= {
        "TMPDIR": str(folder / "temp"),
        "HOME": str(folder / "home"),
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
            spec = JobSpec(case.work.kind, case.work.params_in(folder))
            run_job(spec, listen, cancel)
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
        if fault != "cancel":
            yield "nobody canceled it"
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
    # A set: a second export lays a second series beside the first.
    return {name: ", ".join(sorted(set(values))) for name, values in found.items()}


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
    demo.RATIO = 32.0  # a block has no smaller files


def main() -> None:
    """Answer requests until there are no more."""
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    stage = Stage(Path(sys.argv[1]).resolve())
    for line in sys.stdin:
        asked = json.loads(line)
        print(json.dumps(stage.run(asked["job"], asked["fault"], asked["point"])), flush=True)


if __name__ == "__main__":
    main()

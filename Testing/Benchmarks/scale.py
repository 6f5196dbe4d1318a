"""Many volumes on a Dask cluster: what each costs besides its work, and what survives a failure.

    python Testing/Benchmarks/scale.py     ten minutes

A scheduler and two workers, each a process of its own, compress tiny volumes without loss, as
`medenhance batch compress --scheduler` does on a real cluster. Then one run in which a worker is
killed, and one in which the scheduler is killed and started again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import QUICK, REPOSITORY, Gate, Part, Row, at_most, gate, measure, parser_of

sys.path.insert(0, str(REPOSITORY))
import MedEnhanceLib as me  # noqa: N813 - as users write it

_ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
_PORT = 38786
_ADDRESS = f"tcp://127.0.0.1:{_PORT}"
_SIDE = 8
#: Volumes of the long run, and of each run with a failure.
_VOLUMES, _SOME = (20, 0) if QUICK else (20_000, 2000)


class Cluster:
    """A scheduler and workers, each in a process of its own, as on several machines."""

    def __init__(self, folder: Path, workers: int = 1 if QUICK else 2) -> None:
        self._folder, self._count = folder, workers
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.scheduler = self._run("scheduler", "--port", str(_PORT), "--host", "127.0.0.1")
        for _ in range(self._count):
            self.add_worker()

    def add_worker(self) -> None:
        options = ("--nthreads", "1", "--no-nanny", "--death-timeout", "20")
        self.workers.append(self._run("worker", _ADDRESS, *options))

    def peak_of_scheduler(self) -> int:
        """The most MB of memory that it held."""
        assert self.scheduler is not None
        text = Path(f"/proc/{self.scheduler.pid}/status").read_text(encoding="ascii")
        return int(text.partition("VmHWM:")[2].split()[0]) // 1000

    def stop(self) -> None:
        for process in (*self.workers, self.scheduler):
            if process is not None:
                process.kill()
                process.wait()
        self.scheduler, self.workers = None, []

    def _run(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options]
        command += ["--no-dashboard"]
        with (self._folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env=_ENVIRONMENT
            )


def main() -> None:
    measure("scale", parser_of(__doc__).parse_args(), parts, gates_of, seeds=[0])


def parts() -> Iterator[Part]:
    yield "work", seconds_of_work
    yield "quiet", partial(run_of, "nothing goes wrong", _VOLUMES, nothing)
    if _SOME:
        yield "worker", partial(run_of, "a worker is killed and replaced", _SOME, kill_a_worker)
        name = "the scheduler is killed; the same command again"
        yield "scheduler", partial(run_of, name, _SOME, kill_the_scheduler)


def volumes(folder: Path, count: int) -> Path:
    """A folder of tiny volumes, of which no two are equal."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        voxels = rng.integers(0, 900, (2, _SIDE, _SIDE)).astype(np.int16)
        me.save(me.Volume(voxels, modality="MR"), folder / f"{number:06}.nii")
    return folder


class Command:
    """The batch that is measured, as it runs."""

    def __init__(self, scans: Path, out: Path) -> None:
        self.scans = scans
        command = [sys.executable, "-m", "MedEnhanceLib", "batch", "compress", str(scans)]
        command += ["--lossless", "--out", str(out), "--scheduler", _ADDRESS]
        self._process = subprocess.Popen(command, env=_ENVIRONMENT)

    def wait_for(self, out: Path) -> None:
        """Until a third of the results is there."""
        count = len(list(self.scans.iterdir())) // 3
        while self._process.poll() is None and len(list(out.glob("*.ucv"))) < count:
            time.sleep(0.1)
        if self._process.returncode is not None:
            raise RuntimeError("the batch ended before anything was killed")

    def ended(self) -> tuple[int, int]:
        """Wait for it; its status, and the most MB of memory that it held.

        The system counts what this process held when it started the command, too: the MB of a
        run after a large one are not the command's.
        """
        _pid, status, usage = os.wait4(self._process.pid, 0)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        return self._process.returncode, usage.ru_maxrss // 1000


def seconds_of_work() -> list[Row]:
    """Seconds of one job in a warm process, without any cluster."""
    from MedEnhanceLib.jobs.batch_runs import run_into_row

    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        paths = sorted(volumes(Path(name) / "alone", 60).iterdir())
        for warm in (True, False):
            began = time.perf_counter()
            for path in paths:
                given = {"input": str(path), "output": f"{path}-{warm}.ucv", "overwrite": True}
                row = run_into_row("compress", given | {"config": {"lossless": True}})
                if row["status"] != "done":
                    raise RuntimeError(row)
        return [{"alone_s": (time.perf_counter() - began) / len(paths)}]


def run_of(
    name: str, count: int, disturb: Callable[[Cluster, Path, Command], Command]
) -> list[Row]:
    """One batch over a cluster of its own; what it left.

    disturb: is given the cluster, the folder of results and the command that runs; returns the
    command whose end counts.
    """
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        place = Path(folder)
        scans, out = volumes(place / "scans", count), place / "out"
        cluster = Cluster(place)
        cluster.start()
        try:
            began = time.perf_counter()
            command = disturb(cluster, out, Command(scans, out))
            status, peak = command.ended()
            seconds = time.perf_counter() - began
            scheduler = cluster.peak_of_scheduler()
        finally:
            cluster.stop()
        peaks = {"command_mb": peak, "scheduler_mb": scheduler}
        return [checked(name, out, count, status, seconds) | peaks]


def nothing(_cluster: Cluster, _out: Path, command: Command) -> Command:
    """Nothing goes wrong."""
    return command


def kill_a_worker(cluster: Cluster, out: Path, command: Command) -> Command:
    """At a third of the volumes, and another one takes its place."""
    command.wait_for(out)
    cluster.workers[0].send_signal(signal.SIGKILL)
    cluster.add_worker()
    return command


def kill_the_scheduler(cluster: Cluster, out: Path, command: Command) -> Command:
    """At a third; all is started again, with the same command."""
    command.wait_for(out)
    scheduler = cluster.scheduler
    assert scheduler is not None
    scheduler.send_signal(signal.SIGKILL)
    print("the first command ended with status", command.ended()[0], flush=True)
    cluster.stop()
    cluster.start()
    return Command(command.scans, out)


def checked(name: str, out: Path, count: int, status: int, seconds: float) -> dict[str, Any]:
    """What a run left: results, and rows that say done, of each volume."""
    text = (out / "batch.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    counts = Counter(row["source"] for row in rows if row["status"] == "done")
    files = [path for path in out.glob("*.ucv") if not path.name.startswith(".")]
    leftovers = [path for path in out.iterdir() if path.name.startswith(".")]
    times = sorted(path.stat().st_mtime for path in files)
    tenth = len(times) // 10
    return {
        "run": name,
        "volumes": count,
        "status": status,
        "seconds": round(seconds, 1),
        "results": len(files),
        "done_once": sum(times == 1 for times in counts.values()),
        "done_more": sum(times > 1 for times in counts.values()),
        "failed_rows": sum(row["status"] == "failed" for row in rows),
        "leftovers": len(leftovers),
        "between_s": round(times[-1] - times[0], 2),
        "first_tenth_s": round(times[tenth] - times[0], 2),
        "last_tenth_s": round(times[-1] - times[-1 - tenth], 2),
    }


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Nothing is lost or done twice, whatever is killed; and the last volumes take no longer."""
    runs = [row for row in rows if "run" in row]
    wrong = sum(
        row["volumes"] - min(row["results"], row["done_once"]) + row["done_more"] for row in runs
    )
    yield at_most("volumes without exactly one result and one row, all runs", wrong, 0)
    slower = runs[0]["last_tenth_s"] / (runs[0]["first_tenth_s"] or 1)
    yield gate("time of the last tenth to the first", slower, "< 1.5", slower < 1.5)


if __name__ == "__main__":
    main()

"""Many volumes on a Dask cluster: what each costs besides its work, and what survives a failure.

    python Testing/Benchmarks/scale.py     writes docs/benchmarks/scale.md; half an hour

A scheduler and two workers, each a process of its own, compress tiny volumes without loss, as
`medenhance batch compress --scheduler` does on a real cluster. Then one run in which a worker is
killed, and one in which the scheduler is killed and started again; the ledger alone at 100,000
volumes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _common import REPOSITORY, gate, gate_table, table, write

sys.path.insert(0, str(REPOSITORY))
import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib.jobs.batch_items import Item
from MedEnhanceLib.jobs.batch_runs import Ledger

_ENVIRONMENT = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
_PORT = 38786
_ADDRESS = f"tcp://127.0.0.1:{_PORT}"
_SIDE = 8
_MILLION = 1_000_000


class Cluster:
    """A scheduler and workers, each in a process of its own, as on several machines."""

    def __init__(self, folder: Path, workers: int = 2) -> None:
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
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=2000, help="of the long run")
    parser.add_argument("--some", type=int, default=300, help="of each run with a failure")
    parser.add_argument("--entries", type=int, default=100_000, help="of the ledger")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        alone = seconds_of_work(folder)
        runs = [quiet_run(folder, options.volumes), killed_worker(folder, options.some)]
        runs.append(killed_scheduler(folder, options.some))
        ledger = [row_of_ledger(folder, options.entries * part // 10) for part in (1, 10)]
    report(alone, runs, ledger)


def volumes(folder: Path, count: int) -> Path:
    """A folder of tiny volumes, of which no two are equal."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        voxels = rng.integers(0, 900, (2, _SIDE, _SIDE)).astype(np.int16)
        me.save(me.Volume(voxels, modality="MR"), folder / f"{number:06}.nii")
    return folder


def command_for(scans: Path, out: Path) -> list[str]:
    """The batch that is measured."""
    command = [sys.executable, "-m", "MedEnhanceLib", "batch", "compress", str(scans)]
    return [*command, "--lossless", "--out", str(out), "--scheduler", _ADDRESS, "--no-progress"]


def seconds_of_work(folder: Path) -> float:
    """Seconds of one job in a warm process, without any cluster."""
    scans = volumes(folder / "alone", 60)
    paths = sorted(scans.iterdir())
    from MedEnhanceLib.jobs.batch_runs import outcome

    for warm in (True, False):
        began = time.perf_counter()
        for path in paths:
            given = {"input": str(path), "output": f"{path}-{warm}.ucv", "overwrite": True}
            row = outcome("compress", given | {"config": {"lossless": True}})
            if row["status"] != "done":
                raise RuntimeError(row)
    return (time.perf_counter() - began) / len(paths)


def quiet_run(folder: Path, count: int) -> dict[str, Any]:
    """Nothing goes wrong."""
    scans, out = volumes(folder / "quiet", count), folder / "quiet-out"
    cluster = Cluster(folder)
    cluster.start()
    try:
        began = time.perf_counter()
        status = subprocess.run(command_for(scans, out), env=_ENVIRONMENT).returncode
        seconds = time.perf_counter() - began
    finally:
        cluster.stop()
    return checked("nothing goes wrong", out, count, status, seconds)


def killed_worker(folder: Path, count: int) -> dict[str, Any]:
    """A worker is killed at a third, and another one takes its place."""
    scans, out = volumes(folder / "worker", count), folder / "worker-out"
    cluster = Cluster(folder)
    cluster.start()
    try:
        began = time.perf_counter()
        running = subprocess.Popen(command_for(scans, out), env=_ENVIRONMENT)
        wait_for(out, count // 3, running)
        cluster.workers[0].send_signal(signal.SIGKILL)
        cluster.add_worker()
        status = running.wait()
        seconds = time.perf_counter() - began
    finally:
        cluster.stop()
    return checked("a worker is killed and replaced", out, count, status, seconds)


def killed_scheduler(folder: Path, count: int) -> dict[str, Any]:
    """The scheduler is killed at a third; all is started again, with the same command."""
    scans, out = volumes(folder / "scheduler", count), folder / "scheduler-out"
    cluster = Cluster(folder)
    cluster.start()
    try:
        began = time.perf_counter()
        running = subprocess.Popen(
            command_for(scans, out), env=_ENVIRONMENT, stderr=subprocess.PIPE
        )
        wait_for(out, count // 3, running)
        scheduler = cluster.scheduler
        assert scheduler is not None
        scheduler.send_signal(signal.SIGKILL)
        _, said = running.communicate(timeout=180)
        words = said.decode().strip().splitlines()
        print("the first command said:", *words[-3:], sep="\n  ")
        first = running.returncode
        cluster.stop()
        cluster.start()
        status = subprocess.run(command_for(scans, out), env=_ENVIRONMENT).returncode
        seconds = time.perf_counter() - began
    finally:
        cluster.stop()
    row = checked("the scheduler is killed; the same command again", out, count, status, seconds)
    return row | {"first_status": first}


def wait_for(out: Path, count: int, running: subprocess.Popen[bytes]) -> None:
    """Until a number of results is there."""
    while running.poll() is None and len(list(out.glob("*.ucv"))) < count:
        time.sleep(0.1)
    if running.poll() is not None:
        raise RuntimeError("the batch ended before anything was killed")


def checked(name: str, out: Path, count: int, status: int, seconds: float) -> dict[str, Any]:
    """What a run left: results, and rows that say done, of each volume."""
    text = (out / "batch.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    done = Counter(row["source"] for row in rows if row["status"] == "done")
    files = [path for path in out.glob("*.ucv") if not path.name.startswith(".")]
    leftovers = [path for path in out.iterdir() if path.name.startswith(".")]
    times = [path.stat().st_mtime for path in files]
    row = {
        "run": name,
        "volumes": count,
        "status": status,
        "seconds": round(seconds, 1),
        "results": len(files),
        "done_once": sum(times == 1 for times in done.values()),
        "done_more": sum(times > 1 for times in done.values()),
        "failed_rows": sum(row["status"] == "failed" for row in rows),
        "leftovers": len(leftovers),
        "between_s": round(max(times) - min(times), 2),
        "ledger_bytes": len(text),
    }
    print(row, flush=True)
    return row


def row_of_ledger(folder: Path, count: int) -> dict[str, Any]:
    """Time and bytes of a ledger of a number of volumes: written, read, made a table."""
    out = folder / f"ledger-{count}"
    out.mkdir()
    source = folder / "one.nii"
    source.touch()
    items = [
        Item(folder / f"patient-{n:07}" / "scan.nii.gz", out / f"{n}.ucv") for n in range(count)
    ]
    options = {"task": "compress", "config": {"lossless": True}}
    fields = {"status": "done", "seconds": 0.1, "ratio": 2.5, "max_error": 0, "warnings": ["none"]}
    ledger, began = Ledger(out), time.perf_counter()
    for item in items:
        ledger.add(item, options, {"status": "started"})
        ledger.add(item, options, fields)
    written = time.perf_counter() - began
    began = time.perf_counter()
    again = Ledger(out)
    read = time.perf_counter() - began
    began = time.perf_counter()
    again.write_table(items)
    row = {
        "entries": count,
        "bytes": (out / "batch.jsonl").stat().st_size,
        "write_s": round(written, 2),
        "read_s": round(read, 2),
        "table_s": round(time.perf_counter() - began, 2),
    }
    print(row, flush=True)
    return row


def report(alone: float, runs: list[dict[str, Any]], ledger: list[dict[str, Any]]) -> None:
    """The page."""
    quiet = runs[0]
    each = 2 * quiet["between_s"] / (quiet["volumes"] - 1)  # of two workers
    overhead = each - alone
    small, large = ledger[0], ledger[-1]
    pace = large["write_s"] / large["entries"]
    growth = (large["write_s"] / large["entries"]) / (small["write_s"] / small["entries"])
    gates = [
        gate(
            f"{row['run']}: volumes without exactly one result and one row",
            row["volumes"] - min(row["results"], row["done_once"]) + row["done_more"],
            "0",
            row["results"] == row["done_once"] == row["volumes"] and not row["done_more"],
        )
        for row in runs
    ]
    gates.append(gate("ledger: time of an entry, largest to smallest", growth, "< 2", growth < 2))
    gates.append(
        gate("worker seconds of a volume besides its work", overhead, "< 0.5", overhead < 0.5)
    )
    lines = [
        "# Many volumes on a cluster\n",
        f"A scheduler and two workers on one machine, volumes of 2 × {_SIDE} × {_SIDE} voxels, "
        "so that next to nothing is work. The text is in [scale](../scale.md).\n",
        gate_table(gates),
        "\n## Runs\n",
        table(
            (
                "run",
                "volumes",
                "s",
                "results",
                "done once",
                "done more often",
                "failed rows",
                "temporary files",
            ),
            [
                (
                    *(row[name] for name in ("run", "volumes", "seconds", "results")),
                    *(row[name] for name in ("done_once", "done_more", "failed_rows")),
                    row["leftovers"],
                )
                for row in runs
            ],
        ),
        f"\nA job alone takes {1000 * alone:.0f} ms in a warm process. On the cluster each volume "
        f"takes {1000 * each:.0f} ms of a worker (the time from the first result to the last, "
        f"times 2 workers, over {quiet['volumes'] - 1:,} volumes; the {quiet['seconds']:.0f} s of "
        f"the table include the start of command and workers): {1000 * overhead:.0f} ms "
        "besides its work.\n",
        "\n## The ledger alone\n",
        table(
            ("volumes", "MB", "written, s", "read, s", "made a table, s"),
            [
                (
                    f"{row['entries']:,}",
                    f"{row['bytes'] / 1e6:.1f}",
                    *(row[name] for name in ("write_s", "read_s", "table_s")),
                )
                for row in ledger
            ],
        ),
        "\n## A million studies\n",
        f"Besides the work: {overhead:.3f} s × {_MILLION:,} / 3600 = "
        f"{overhead * _MILLION / 3600:,.0f} worker hours. The ledger: "
        f"{large['bytes'] / large['entries']:.0f} bytes × {_MILLION:,} = "
        f"{large['bytes'] / large['entries'] * _MILLION / 1e9:.2f} GB; read at a start in "
        f"{large['read_s'] / large['entries'] * _MILLION:.0f} s, written in no less than "
        f"{1000 * pace:.1f} ms × {_MILLION:,} / 3600000 = {pace * _MILLION / 3600:.1f} h: one "
        f"command starts and ends at most {1 / pace:.0f} volumes a second.\n",
    ]
    rows = [{"alone_s": alone, "each_s": each, "overhead_s": overhead}, *runs, *ledger]
    write("scale", "\n".join(lines), gates=gates, rows=rows, seeds=[0])


if __name__ == "__main__":
    main()

"""For all tests, and the processes that they start: threads, temporary folders, time limits.

Without options pytest runs the fast part on all cores; see CONTRIBUTING.md for the rest.
"""

from __future__ import annotations

import contextlib
import gc
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

# Before anything imports numpy: arrays are small here, and most of what each library's threads do
# is wait for each other. Without this the tests take twice as long on two cores.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

#: CPU seconds that a test of the fast part may take, its processes included, where the loop of
#: ``_loop_seconds`` takes ``_LOOP_SECONDS``. A loaded or slower machine gives both more.
FAST_SECONDS = 3.0
_LOOP_SECONDS = 0.022
#: Slow tests beside the fast part: what fits into the ten minutes of .ci/run.
MOST_TOUCHED = 60
ROOT = Path(__file__).resolve().parents[1]
#: A test that is the first to import PyTorch or the like is not charged for it.
_LARGE_IMPORT = 150
_NOT_SLOW = "not slow"


def has_training() -> bool:
    return find_spec("MedEnhanceLib.training") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Tests that are named one by one run here and now, slow or not."""
    if any("::" in argument for argument in config.args):
        if config.option.markexpr == _NOT_SLOW:
            config.option.markexpr = ""
        if getattr(config.option, "numprocesses", None) == "auto":
            config.option.numprocesses = 0


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files without such tests unread where only one kind runs: importing all takes long.

    A wheel without the part that trains has to pass all other tests: .ci/run takes it away.
    """
    if collection_path.stem in ("training", "test_train") and not has_training():
        return True
    first = config.option.markexpr.partition(" ")[0]
    kind = {"slow": r"\bslow\b", "needs": r"mark\.needs\b"}.get(first)
    if kind is None or collection_path.suffix != ".py":
        return None
    return None if re.search(kind, collection_path.read_text(encoding="utf-8")) else True


def pytest_configure(config: pytest.Config) -> None:
    """Give each process of pytest-xdist a temporary folder of its own: locks live in it."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None:
        return
    folder = tempfile.mkdtemp(prefix=f"medenhance-tests-{worker}-")
    for name in ("TMPDIR", "TEMP", "TMP"):
        os.environ[name] = folder
    tempfile.tempdir = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark slow tests that .ci/run takes along; Packaging/touched.py names their folders."""
    folders = os.environ.get("MEDENHANCE_TOUCHED", "").split(":")
    slow = [item for item in items if item.get_closest_marker("slow")]
    there = [item for place in folders for item in slow if item.path.parent == ROOT / place]
    for item in there[:MOST_TOUCHED]:
        item.add_marker("touched")


def pytest_collection_finish() -> None:
    """Leave modules and tests, which stay, to the garbage collector's permanent generation.

    Else each full collection looks at a million objects, for 0.3 s.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test without the packages that it needs; .ci/run has an environment with all."""
    if item.get_closest_marker("training") and not has_training():
        pytest.skip("not installed: MedEnhanceLib.training")
    modules = [name for mark in item.iter_markers("needs") for name in mark.args]
    if missing := [name for name in modules if find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)} (pip install -e '.[test,dev,docs]')")


@pytest.fixture(autouse=True)
def _no_process_outlives_its_test() -> Iterator[None]:
    """End what a test has started and not ended, with its children: it would disturb the next."""
    started: list[subprocess.Popen[Any]] = []
    start = subprocess.Popen.__init__

    def noted(process: subprocess.Popen[Any], *arguments: Any, **options: Any) -> None:
        start(process, *arguments, **options)
        started.append(process)

    with mock.patch.object(subprocess.Popen, "__init__", noted):
        yield
    for process in started:
        if process.poll() is None:
            _end(process)


def _end(process: subprocess.Popen[Any]) -> None:
    import psutil

    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a test of the fast part that takes more CPU time than one may."""
    modules, start, earlier = len(sys.modules), _cpu_seconds(), _seconds_of_children()
    yield
    used = _cpu_seconds() - start
    if earlier:  # of a worker that several tests share, this one is charged for its part
        used -= sum(earlier[process] for process in earlier.keys() - _seconds_of_children())
    if used <= FAST_SECONDS or item.get_closest_marker("slow"):
        return
    allowed = FAST_SECONDS * max(1.0, _loop_seconds() / _LOOP_SECONDS)
    if used > allowed and len(sys.modules) - modules < _LARGE_IMPORT:
        pytest.fail(
            f"{used:.1f} s of CPU time, and a test of the fast part may take {allowed:.1f}: "
            "use less data, or mark it with pytest.mark.slow",
            pytrace=False,
        )


def _loop_seconds() -> float:
    """CPU time of a fixed loop, here and now: the longest of nine runs, as load comes and goes."""
    times = []
    for _ in range(9):
        start = time.process_time()
        total = 0
        for number in range(400_000):
            total += number * number % 7
        times.append(time.process_time() - start)
    return max(times)


def _seconds_of_children() -> dict[str, float]:
    """CPU time so far of each process that lives, where the system lists them."""
    import psutil

    found = {}
    with contextlib.suppress(OSError, psutil.NoSuchProcess):
        for task in Path("/proc/self/task").glob("*/children"):
            for process in task.read_text().split():
                found[process] = sum(psutil.Process(int(process)).cpu_times()[:4])
    return found


def _cpu_seconds() -> float:
    """CPU time of this process and, but on Windows, of its children that have ended."""
    return sum(os.times()[:4])

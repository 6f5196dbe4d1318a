"""One long job on a GPU at a time; no GPU is needed for it, only the name of one."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from MedEnhanceLib.errors import Cancelled
from MedEnhanceLib.runtime import device, locks
from MedEnhanceLib.runtime.locks import hold_gpu
from MedEnhanceLib.runtime.progress import Event, Monitor

LIBRARY = Path(__file__).resolve().parents[2]
POLL_SECONDS = locks._POLL_SECONDS
#: A process that has a device until its stdin ends.
_HOLDS = """
import sys
from MedEnhanceLib.runtime.locks import hold_gpu
with hold_gpu(sys.argv[1:]) as had:
    print(had, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of our own, so that no real job is waited for."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(locks, "_POLL_SECONDS", 0.02)
    return tmp_path


@pytest.fixture
def other(folder: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that has a device; what is left of them is ended."""
    started: list[subprocess.Popen[str]] = []

    def start(*devices: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _HOLDS, *devices],
            env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": str(LIBRARY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().strip() in devices
        return process

    yield start
    for process in started:
        with process:
            process.kill()


def messages(events: list[Event], kind: str) -> str:
    return " ".join(str(event.fields.get("message")) for event in events if event.kind == kind)


def test_a_second_job_waits_until_the_gpu_is_free(
    other: Callable[..., subprocess.Popen[str]],
) -> None:
    first = other("cuda:7")
    events: list[Event] = []

    def listen(event: Event) -> None:
        events.append(event)
        if event.fields.get("stage") == "waiting for the GPU":
            assert first.stdin is not None
            first.stdin.close()  # its job ends

    with hold_gpu(["cuda:7"], Monitor(listen)) as had:
        assert had == "cuda:7"
    assert "another long job has (cuda:7)" in messages(events, "warning")
    assert "cuda:7 is free" in messages(events, "log")


def test_waiting_is_cancelled_within_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_POLL_SECONDS", POLL_SECONDS)
    monkeypatch.setattr(locks, "_first_free", lambda *_: None)
    cancel = threading.Event()
    threading.Timer(0.1, cancel.set).start()
    began = time.monotonic()
    with pytest.raises(Cancelled), hold_gpu(["cuda:7"], Monitor(cancel=cancel)):
        pass
    assert time.monotonic() - began < 2


def test_a_lock_of_a_killed_process_is_free(
    other: Callable[..., subprocess.Popen[str]], folder: Path
) -> None:
    first = other("cuda:7")
    first.kill()
    first.wait()
    assert (folder / "medenhance-gpu-7.lock").exists()
    with hold_gpu(["cuda:7"]):
        pass


def test_of_several_the_first_that_is_free_is_taken(
    other: Callable[..., subprocess.Popen[str]],
) -> None:
    other("cuda:0")
    with hold_gpu(["cuda:0", "cuda:1"]) as had:
        assert had == "cuda:1"


def test_a_long_job_may_use_each_of_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_available=lambda: True, device_count=lambda: 3, get_device_name=lambda _: "RTX"
    )
    mps = SimpleNamespace(is_available=lambda: False)
    torch = SimpleNamespace(cuda=cuda, backends=SimpleNamespace(mps=mps))
    monkeypatch.setattr(device, "require", lambda *_, **__: torch)
    monkeypatch.setattr(device, "fault_of", lambda _: "")
    assert device.devices_for("auto") == ["cuda:0", "cuda:1", "cuda:2"]


def test_one_process_shares_its_device_with_itself(folder: Path) -> None:
    """A run holds it for all patients, and each patient again: on a cluster there is no run."""
    with hold_gpu(["cuda:7"]), hold_gpu(["cuda:7"]):
        pass
    if os.name == "posix":
        assert stat.S_IMODE((folder / "medenhance-gpu-7.lock").stat().st_mode) == 0o666


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds the lock's open file there")
def test_a_child_that_outlives_the_job_does_not_keep_the_device(folder: Path) -> None:
    with hold_gpu(["cuda:7"]):
        path = folder / "medenhance-gpu-7.lock"
        (lock,) = (file for file in Path("/proc/self/fd").iterdir() if file.resolve() == path)
        inherited = os.dup(int(lock.name))
    try:
        with hold_gpu(["cuda:7"]):
            pass
    finally:
        os.close(inherited)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_the_shared_folder_is_not_followed(folder: Path) -> None:
    """Somebody else could put it there, for us to write through."""
    precious = folder / "precious"
    precious.write_text("mine")
    (folder / "medenhance-gpu-7.lock").symlink_to(precious)
    with hold_gpu(["cuda:7"]):
        assert precious.read_text() == "mine"
    assert precious.read_text() == "mine"


def test_without_a_temporary_folder_jobs_run_as_before(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "nowhere"))
    for device_name in ("cuda:7", "cpu"):
        with hold_gpu([device_name]) as had:
            assert had == device_name

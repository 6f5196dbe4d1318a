"""The device that models would run on with its reason, and the priority of long jobs."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from MedEnhanceLib.errors import ConfigError, DeviceMemoryError
from MedEnhanceLib.io.dicom.pixels import refuse_too_large
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.runtime import device, machine

LIBRARY = Path(__file__).resolve().parents[2]


def test_without_torch_the_rest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = device.compute()
    assert [row["name"] for row in found["devices"]] == ["cpu"]
    assert found["choice"]["name"] == "none"
    assert found["choice"]["reason"].startswith("PyTorch is not installed")


@pytest.mark.parametrize(
    ("cards", "mps", "built", "driver", "name", "words"),
    [
        (1, False, "12.8", True, "cuda", "CUDA device RTX"),
        (0, True, None, False, "mps", "Apple GPU"),
        (0, False, None, False, "cpu", "no graphics card"),
        (0, False, None, True, "cpu", "built for the CPU only"),
        (0, False, "12.8", True, "cpu", "driver too old"),
    ],
)
def test_the_choice_has_a_reason(
    cards: int,
    mps: bool,
    built: str | None,
    driver: bool,
    name: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch = SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: bool(cards),
            device_count=lambda: cards,
            get_device_name=lambda _: "RTX",
            mem_get_info=lambda _: (1, 12_000_000_000),
        ),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        version=SimpleNamespace(cuda=built),
    )
    monkeypatch.setattr(device, "has_nvidia_driver", lambda: driver)
    for name_of_import in ("require", "imported"):
        monkeypatch.setattr(device, name_of_import, lambda *_, **__: torch)
    monkeypatch.setattr(device, "fault_of", lambda _: "")
    found = device.compute()
    assert found["choice"]["name"] == name
    assert words in found["choice"]["reason"]
    assert found["devices"][-1]["name"] == "cpu"


def test_pytorch_is_asked_only_where_it_could_find_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_path: str) -> None:
        if not is_there:
            raise OSError

    monkeypatch.setattr(device.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(device, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(device.Path, "exists", lambda _path: False)
    monkeypatch.setattr(device, "imported", lambda _module: None)
    is_there = True
    assert device.needs_torch("auto") and device.needs_torch("cuda:0")
    is_there = False
    assert not device.needs_torch("auto") and not device.needs_torch("cpu")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert [device.choose_device(name).name for name in ("auto", "cpu")] == ["cpu", "cpu"]


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="Windows has classes")
def test_the_priority_of_a_process_and_its_threads_is_lowered() -> None:
    """In a process of its own: this one's priority may never rise again."""
    program = """
import os, threading
from MedEnhanceLib.runtime.machine import lower_priority
lower_priority()
nice = lambda: print(os.getpriority(os.PRIO_PROCESS, 0))
thread = threading.Thread(target=nice)
thread.start()
thread.join()
nice()
"""
    command = [sys.executable, "-P", "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY)}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert min(map(int, done.stdout.split())) >= 10


@pytest.mark.training
def test_distilling_and_training_are_background_work(monkeypatch: pytest.MonkeyPatch) -> None:
    from MedEnhanceLib.training.jobs import distill, train

    def lower_priority() -> None:
        raise ConfigError("the priority is low")

    for job in (distill, train):
        monkeypatch.setattr(job, "lower_priority", lower_priority)
    for kind, params in (
        ("distill", {"cohort": "a", "out": "b"}),
        ("train", {"method": "hqg", "data": "a", "out": "b"}),
    ):
        with pytest.raises(ConfigError, match="the priority is low"):
            run_job(JobSpec(kind, params))


GB = 10**9


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A host of 64 GB, 40 of them free, and 16 threads; groups: their files and what these hold."""
    usage = SimpleNamespace(total=64 * GB, available=40 * GB)
    monkeypatch.setattr("psutil.virtual_memory", lambda: usage)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16), raising=False)
    monkeypatch.setattr(machine, "ROOT", tmp_path)

    def make(process: str, groups: dict[str, str]) -> None:
        files = {"proc/self/cgroup": process}
        files |= {f"sys/fs/cgroup/{name}": text for name, text in groups.items()}
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(f"{text}\n")

    return make


def _v2(most: object, used: int | None = None, folder: str = "", **more: str) -> dict[str, str]:
    """Files of a group of version 2: the limit and the use of memory, in GB, and others."""
    files = {"memory.max": f"{most}000000000" if isinstance(most, int) else str(most)}
    files |= {} if used is None else {"memory.current": str(used * GB)}
    files |= {name.replace("_", ".", 1): text for name, text in more.items()}
    return {f"{folder}{name}": text for name, text in files.items()}


def _v1(most: object, used: int, folder: str = "") -> dict[str, str]:
    """Of version 1."""
    limit = most * GB if isinstance(most, int) else most
    names = {"limit": str(limit), "usage": str(used * GB)}
    return {f"memory/{folder}memory.{name}_in_bytes": text for name, text in names.items()}


def _quota(folder: str, microseconds: int) -> dict[str, str]:
    names = {"quota": microseconds, "period": 100000}
    return {f"cpu/{folder}cpu.cfs_{name}_us": str(number) for name, number in names.items()}


_CACHED = f"anon {GB}\nactive_file {GB}\ninactive_file {3 * GB}"


@pytest.mark.parametrize(
    ("process", "groups", "total", "free", "threads"),
    [
        ("0::/", {}, 64, 40, 16),
        ("7:no:groups", {"memory.max": "1"}, 64, 40, 16),
        # Version 2, without limits, with one, and with cached files in its use.
        ("0::/", _v2("max", 1, cpu_max="max 100000"), 64, 40, 16),
        ("0::/", _v2(8, 5, cpu_max="150000 100000"), 8, 3, 2),
        ("0::/", _v2(8, 7, memory_stat=_CACHED), 8, 5, 16),
        # A job of a cluster, whose limit is in a group around its own, or in both.
        (
            "0::/slurm/job_7/step_0",
            _v2(12, 4, "slurm/job_7/")
            | _v2(20, 19, "slurm/job_7/step_0/", cpu_max="400000 100000"),
            12, 1, 4,
        ),
        # A limit above what the host has, and one that is exceeded.
        ("0::/", _v2(99, 0), 64, 40, 16),
        ("0::/", _v2(2, 3), 2, 0, 16),
        # Version 1: the path is the host's, the files are the container's own; 2^63 is no limit.
        (
            "9:memory:/docker/af3\n4:cpu,cpuacct:/docker/af3\n1:name=systemd:/docker/af3\n0::/",
            _v1(6, 2)
            | {"memory/memory.stat": f"total_inactive_file {GB}\nactive_file 9"}
            | _quota("", 300000),
            6, 5, 3,
        ),
        (
            "9:memory:/a/b\n4:cpu:/a",
            _v1("9223372036854771712", 2) | _v1(30, 2, "a/b/") | _quota("a/", -1),
            30, 28, 16,
        ),
    ],
)  # fmt: skip
def test_a_control_group_has_the_memory_and_threads_of_its_limits(
    host: Callable[..., None],
    process: str,
    groups: dict[str, str],
    total: int,
    free: int,
    threads: int,
) -> None:
    host(process, groups)
    facts = run_job(JobSpec("doctor"))
    assert facts["memory"] == {"total": total * GB, "free": free * GB}
    assert facts["cpu_threads"] == threads


def test_a_control_group_refuses_what_it_cannot_hold(host: Callable[..., None]) -> None:
    host("0::/", {"memory.max": str(GB), "memory.current": "0"})
    with pytest.raises(DeviceMemoryError, match=r"1\.0 GB are free"):
        refuse_too_large((1000, 512, 512), "scan")
    host("0::/", {"memory.max": "max"})
    refuse_too_large((1000, 512, 512), "scan")


@pytest.mark.parametrize(
    ("groups", "kills"),
    [(_v2("max", memory_events="low 0\noom_kill 3"), 3), ({}, 7)],
    ids=["of the group", "of the system"],
)
def test_processes_that_lack_of_memory_ended_are_counted(
    groups: dict[str, str], kills: int, host: Callable[..., None], tmp_path: Path
) -> None:
    host("0::/", groups)
    (tmp_path / "proc/vmstat").write_text("pgfault 9\noom_kill 7\n")
    assert machine.memory_kills() == kills

"""The device that models would run on with its reason, and the priority of long jobs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import distill, train
from MedEnhanceLib.runtime import device, machine

LIBRARY = Path(__file__).resolve().parents[2]


def test_without_torch_the_rest_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = machine.compute()
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
        get_num_threads=lambda: 2,
    )
    monkeypatch.setattr(device, "has_nvidia_driver", lambda: driver)
    for module in (machine, device):
        monkeypatch.setattr(module, "require", lambda *_, **__: torch)
        monkeypatch.setattr(module, "fault_of", lambda _: "")
    found = machine.compute()
    assert found["choice"]["name"] == name
    assert words in found["choice"]["reason"]
    assert found["devices"][-1]["name"] == "cpu"


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


def test_distilling_and_training_are_background_work(monkeypatch: pytest.MonkeyPatch) -> None:
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

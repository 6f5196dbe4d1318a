"""The device that models would run on with its reason, and the priority of long jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import distill, train
from MedEnhanceLib.runtime import device, machine

LIBRARY = Path(__file__).resolve().parents[2]
unix = pytest.mark.skipif(not hasattr(os, "getpriority"), reason="Windows has classes")


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
        (0, False, None, True, "cpu", "build for the CPU alone"),
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
    for module in (machine, device):
        monkeypatch.setattr(module, "require", lambda *_, **__: torch)
        monkeypatch.setattr(module, "has_nvidia_driver", lambda: driver)
        monkeypatch.setattr(module, "fault_of", lambda _: "")
    found = machine.compute()
    assert found["choice"]["name"] == name
    assert words in found["choice"]["reason"]
    assert found["devices"][-1]["name"] == "cpu"
    assert found["cuda"] == {"built": built, "available": cards == 1, "driver": driver}


def printed_by(code: str) -> Any:
    """What a process prints, as JSON; not this one, whose priority may never rise again."""
    imports = "import json, os, threading\nfrom MedEnhanceLib.runtime.machine import lower_priority"
    program = f"{imports}\n{code}"
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        env={**os.environ, "PYTHONPATH": str(LIBRARY)},
        stdout=subprocess.PIPE,
        check=True,
    )
    return json.loads(done.stdout)


@unix
def test_all_threads_are_lowered_also_those_that_were_there() -> None:
    nice = printed_by("""
stop = threading.Event()
old = threading.Thread(target=stop.wait)
old.start()
lower_priority()
new = threading.Thread(target=stop.wait)
new.start()
threads = [0] if not os.path.isdir("/proc") else [0, old.native_id, new.native_id]
print(json.dumps([os.getpriority(os.PRIO_PROCESS, one) for one in threads]))
stop.set()
""")
    assert nice
    assert min(nice) >= 10


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

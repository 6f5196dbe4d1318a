"""The device that models would run on with its reason, and the priority of long jobs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs import JobSpec, run_job
from MedEnhanceLib.jobs.kinds import distill, train
from MedEnhanceLib.runtime import machine

LIBRARY = Path(__file__).resolve().parents[2]
unix = pytest.mark.skipif(not hasattr(os, "getpriority"), reason="Windows has classes")
GPU = {"name": "cuda:0", "what": "RTX 4070", "total": 12_000_000_000, "free": 1}
MPS = {"name": "mps", "what": "Apple GPU", "total": None, "free": None}


def test_broken_torch_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    found = machine.compute()
    (cpu,) = found["devices"]
    assert cpu["name"] == "cpu"
    assert "torch cannot be used" in cpu["what"]
    assert found["choice"]["name"] == "none"


def test_without_torch_it_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    choice = machine.compute()["choice"]
    assert choice["name"] == "none"
    assert choice["reason"].startswith("PyTorch is not installed")


@pytest.mark.parametrize(
    ("devices", "built", "driver", "name", "words"),
    [
        ([GPU], "12.8", True, "cuda", "RTX 4070 with 12 GB"),
        ([MPS], None, False, "mps", "Apple GPU"),
        ([], None, False, "cpu", "no graphics card"),
        ([], None, True, "cpu", "build for the CPU alone"),
        ([], "12.8", True, "cpu", "driver too old"),
    ],
)
def test_the_choice_has_a_reason(
    devices: list[dict[str, Any]],
    built: str | None,
    driver: bool,
    name: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "torch_facts", lambda: {"devices": devices, "built": built})
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: driver)
    found = machine.compute()
    assert found["choice"]["name"] == name
    assert words in found["choice"]["reason"]
    assert found["devices"][-1]["name"] == "cpu"
    assert found["cuda"] == {"built": built, "available": devices == [GPU], "driver": driver}


def printed_by(code: str) -> Any:
    """What a process prints, as JSON; not this one, whose priority may never rise again."""
    imports = "import json, os, threading\nfrom MedEnhanceLib.runtime.machine import low_priority"
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
with low_priority():
    new = threading.Thread(target=stop.wait)
    new.start()
    threads = [0] if not os.path.isdir("/proc") else [0, old.native_id, new.native_id]
    print(json.dumps([os.getpriority(os.PRIO_PROCESS, one) for one in threads]))
    stop.set()
""")
    assert nice
    assert min(nice) >= 10


def test_distilling_and_training_are_background_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def low_priority() -> None:
        raise ConfigError("the priority is low")

    for job in (distill, train):
        monkeypatch.setattr(job, "low_priority", low_priority)
    for kind, params in (
        ("distill", {"cohort": "a", "out": "b"}),
        ("train", {"method": "hqg", "data": "a", "out": "b"}),
    ):
        with pytest.raises(ConfigError, match="the priority is low"):
            run_job(JobSpec(kind, params))

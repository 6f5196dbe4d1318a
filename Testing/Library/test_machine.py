"""Where models would run, and why, in words that a clinician can follow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import pytest

from MedEnhanceLib.errors import Cancelled, ConfigError
from MedEnhanceLib.runtime import machine
from MedEnhanceLib.runtime.device import choose_device

GPU = {"name": "cuda:0", "what": "RTX 4070", "total": 12_000_000_000, "free": 1}
MPS = {"name": "mps", "what": "Apple GPU", "total": None, "free": None}


def test_broken_torch_does_not_hide_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    told = machine.compute()
    (cpu,) = told["devices"]
    assert cpu["name"] == "cpu"
    assert "torch cannot be used" in cpu["what"]
    assert told["choice"]["name"] == "none"


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
    monkeypatch.setattr(machine, "_asked_torch", lambda check: {"devices": devices, "built": built})
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: driver)
    told = machine.compute()
    assert told["choice"]["name"] == name
    assert words in told["choice"]["reason"]
    assert told["devices"][-1]["name"] == "cpu"
    assert told["cuda"] == {"built": built, "available": devices == [GPU], "driver": driver}


def test_torch_is_asked_in_a_process_of_its_own() -> None:
    code = """
import sys
from MedEnhanceLib.runtime import machine
told = machine.compute()
assert told["choice"]["name"] != "none", told
assert "torch" not in sys.modules
"""
    pytest.importorskip("torch")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_a_torch_that_hangs_or_crashes_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.setattr(machine, "_ASK", "import os; os.abort()")
    assert "ended with status" in machine.compute()["choice"]["reason"]
    monkeypatch.setattr(machine, "_ASK", "import time; time.sleep(60)")
    began = time.monotonic()

    def check() -> None:
        if time.monotonic() - began > 0.3:
            raise Cancelled("cancelled")

    with pytest.raises(Cancelled):
        machine.compute(check)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(("count", "words"), [(1, "1 thread of"), (2, "2 threads of")])
def test_a_run_on_the_cpu_tells_its_threads(
    monkeypatch: pytest.MonkeyPatch, count: int, words: str
) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    assert words in choose_device("auto").reason
    with pytest.raises(ConfigError, match="not available") as caught:
        choose_device("cuda")
    assert "(--device auto" in caught.value.hint  # in brackets: front ends leave that part out


@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_threads_that_wait_sleep_unless_the_user_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", own or "")
    if own is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    machine.be_a_good_neighbour()
    assert os.environ["OMP_WAIT_POLICY"] == (own or "PASSIVE")

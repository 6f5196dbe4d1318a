"""A worker that knows some jobs which misbehave; run as a script by the tests."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from types import SimpleNamespace

from MedEnhanceLib.jobs.job import JOBS, Result
from MedEnhanceLib.jobs.worker import worker
from MedEnhanceLib.runtime.progress import Monitor


@dataclass(frozen=True)
class Nothing:
    """No parameters."""


def chatter(_: Nothing, monitor: Monitor) -> Result:
    """Print in every way that a library might."""
    print("print")
    sys.__stdout__.write("real stdout object\n")
    sys.__stdout__.flush()
    os.write(1, b"file descriptor 1\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"C's puts")
    libc.fflush(None)
    subprocess.run(["echo", "a child"], check=True)
    return Result({"stdin": sys.stdin.read()})


def break_down(_: Nothing, monitor: Monitor) -> Result:
    """A fault that nobody foresaw."""
    raise ZeroDivisionError("the answer is not 42")


def run_out_of_memory(_: Nothing, monitor: Monitor) -> Result:
    raise MemoryError("Unable to allocate 1. PiB")


def lose_card(_: Nothing, monitor: Monitor) -> Result:
    raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA.")


def deaf(_: Nothing, monitor: Monitor) -> Result:
    """No safe point for a minute, and a child that outlives its parent."""
    child = subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL)
    monitor.metric("child", child.pid, 0)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        time.sleep(0.05)
    return Result({})


def not_json(_: Nothing, monitor: Monitor) -> Result:
    return Result({"figure": float("nan"), "thing": object()})


for run in (chatter, break_down, run_out_of_memory, lose_card, deaf, not_json):
    kind = SimpleNamespace(params=Nothing, run=run, keeps_volumes=False)
    JOBS[run.__name__.replace("_", "-")] = kind

if __name__ == "__main__":
    sys.exit(worker.main(orphan_seconds=0.5))

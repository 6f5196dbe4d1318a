"""Resources of this machine: memory, threads, priority."""

from __future__ import annotations

import math
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from MedEnhanceLib.errors import DependencyError
from MedEnhanceLib.runtime.dependencies import imported, require
from MedEnhanceLib.runtime.shared_setting import Restore, SharedSetting, computed_once

Outcome = TypeVar("Outcome")
#: Above "proc" and "sys", where Linux states the limits of control groups, of Docker or a cluster.
ROOT = Path("/")
#: Files of limit and use, in version 2 and in version 1.
_MEMORY = ("memory.max", "memory.limit_in_bytes"), ("memory.current", "memory.usage_in_bytes")
_QUOTA, _PERIOD = "cpu.cfs_quota_us", "cpu.cfs_period_us"
#: Unix's nice value of background work.
_LOW_NICE = 10


@computed_once
def _thread_pools(_modules: int) -> Any:
    return require("threadpoolctl", purpose="Limiting threads").ThreadpoolController()


def _on_one_thread(interface: str) -> Any:
    """Limit the thread pools of "blas" or "openmp"; ends with the context that is returned."""
    # Finding them takes 10 ms among hundreds of libraries. Modules load libraries.
    return _thread_pools(len(sys.modules)).limit(limits=1, user_api=interface)


def _limit_blas() -> Restore:
    require("threadpoolctl", purpose="Limiting threads")
    begun, end = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with _on_one_thread("blas"):
                begun.set()
                end.wait()
        finally:
            begun.set()

    # Only the thread that set a limit of OpenBLAS can restore it; the last user may be another one.
    thread = threading.Thread(target=hold, name="blas limit", daemon=True)
    thread.start()
    begun.wait()

    def restore() -> None:
        end.set()
        thread.join()

    return restore


def _limit_itk() -> Restore:
    process: Any = require("SimpleITK", purpose="Registering images").ProcessObject
    threads = process.GetGlobalDefaultNumberOfThreads()
    process.SetGlobalDefaultNumberOfThreads(1)
    return lambda: process.SetGlobalDefaultNumberOfThreads(threads)


#: Matrix products take one thread each. They are small, and many at a time: libraries that split
#: each over all cores make their threads spin while they wait for each other (lossless encoding
#: took twice as long, on two cores). It holds in the calls of every `Pool`, and in whole functions
#: of compression, which have products between these.
blas_on_one_thread = SharedSetting(_limit_blas)
#: SimpleITK takes one thread. Sums of several depend on which ends first, and with them the last
#: bits of a result.
itk_on_one_thread = SharedSetting(_limit_itk)


def openmp_on_one_thread() -> Any:
    """Let OpenMP take one thread where the calling thread asks for several, as PyTorch does.

    The limit stays, or ends with the context that is returned. Other threads keep theirs.
    """
    if torch := imported("torch"):
        torch.get_num_threads()  # the first call of a thread sets its limit
    require("threadpoolctl", purpose="Enhancing a volume")
    return _on_one_thread("openmp")


class Pool(ThreadPoolExecutor):
    """Threads that compute: libraries that they call add no threads of their own.

    BLAS is limited in the whole process, but only while a call runs: between calls, and after the
    last one, a user's code has its threads again. OpenMP is limited in the pool's threads alone.
    """

    def __init__(self, threads: int, name: str) -> None:
        """Take the number of threads, and the start of their names."""
        super().__init__(threads, name, openmp_on_one_thread)

    def submit(
        self, function: Callable[..., Outcome], /, *args: Any, **options: Any
    ) -> Future[Outcome]:
        """Have a thread call the function."""
        return super().submit(blas_on_one_thread(function), *args, **options)


def cpu_threads() -> int:
    """Count the threads that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    counts = [len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1]
    for folder in _control_groups("cpu"):
        text = _text(folder, "cpu.max") or f"{_text(folder, _QUOTA)} {_text(folder, _PERIOD)}"
        with suppress(ValueError):  # "max" is no number
            quota, period = map(int, text.split())
            counts += [math.ceil(quota / period)] if quota > 0 else []
    return min(counts)


def memory() -> dict[str, int | None]:
    """Return memory in bytes, "total" and "free"; None before psutil is installed.

    It is that of the host, or less where a control group limits this process.
    """
    try:
        psutil = require("psutil", purpose="Measuring memory")
    except DependencyError:
        return {"total": None, "free": None}
    usage = psutil.virtual_memory()
    total, free = int(usage.total), int(usage.available)
    for folder in _control_groups("memory"):
        rows = _text(folder, "memory.stat")
        # The system drops cached files if memory is needed; of version 1 with groups inside.
        cached = re.findall(r"(?m)^total_(?:in)?active_file (\d+)$", rows)
        cached = cached or re.findall(r"(?m)^(?:in)?active_file (\d+)$", rows)
        with suppress(ValueError):  # "max" is no number
            limit, used = (int(_text(folder, *names)) for names in _MEMORY)
            total, free = min(total, limit), min(free, max(0, limit - used + sum(map(int, cached))))
    return {"total": total, "free": free}


def memory_kills() -> int:
    """Count the processes that Linux has ended for lack of memory; 0 where nothing counts them.

    Those of the control group of this process, where it counts, else those of the whole system.
    """
    counts = [_text(folder, "memory.events") for folder in _control_groups("memory")]
    for text in (*counts, _text(ROOT / "proc", "vmstat")):
        if count := re.search(r"(?m)^oom_kill (\d+)$", text):
            return int(count[1])
    return 0


def _control_groups(controller: str) -> Iterator[Path]:
    """Iterate over the folders of the control groups of this process, and of those around them.

    Inside Docker the path may be that of the host: then the folder at the top is its own.
    """
    for line in _text(ROOT, "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = ROOT / "sys/fs/cgroup" / (controller if controllers else "")
            group = PurePosixPath(path)
            yield from (top / each.relative_to("/") for each in (group, *group.parents))


def _text(folder: Path, *names: str) -> str:
    """Read the first of these files that can be read; "" for none."""
    for name in names:
        with suppress(OSError):
            return (folder / name).read_text()
    return ""


def lower_priority() -> None:
    """Lower the priority of this process and of the threads that it starts.

    Unix lets no ordinary user raise a priority again. Call it only in a process of MedEnhance's
    own, before it computes.
    """
    psutil = require("psutil", purpose="Working at low priority")
    process = psutil.Process()
    if sys.platform == "win32":
        process.nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        process.nice(max(process.nice(), _LOW_NICE))

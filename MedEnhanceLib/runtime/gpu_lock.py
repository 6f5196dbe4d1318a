"""One long job at a time on a GPU: a lock file for each, which names who has it.

    <temporary folder>/medenhance-gpu-<card>.lock   {"process": 4711, "job": "distill", "since": …}

The lock is the operating system's: it ends with its process, however that ends, so a file without a
living owner is free. All users of a machine share the files where they share the temporary folder
(TMPDIR); Windows gives each user one of their own. Short jobs take no lock: they say who works
beside them, and their memory ladder does the rest.
Why: docs/decisions/0030-gpu-lock.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from MedEnhanceLib.errors import DeviceBusyError
from MedEnhanceLib.runtime.owned import try_lock, unlock
from MedEnhanceLib.runtime.progress import Monitor

_POLL_SECONDS = 0.5
#: Of a file that another user may have written.
_LONGEST = 4096
#: Cards that this process has: how often, and the open file. Threads of one process share a card.
_ours: dict[str, tuple[int, IO[bytes]]] = {}
_guard = threading.Lock()


@contextlib.contextmanager
def hold_gpu(
    devices: Sequence[str], job: str, monitor: Monitor | None = None, *, wait: bool = True
) -> Iterator[str]:
    """Have one of these devices to oneself among long jobs; the name of the one that was had.

    devices: torch's names, by preference; what is no GPU needs no lock. job: what the
    file says of this process. Waits, cancellable, until one is free and tells who has it; with
    wait=False raises DeviceBusyError instead. At the end the memory that torch keeps is given back.
    A process that has a device already shares it with itself.
    """
    monitor = monitor or Monitor()
    device = _first_free(devices, job)
    if device is None:
        _tell(devices, monitor, wait=wait)
        while device is None:
            monitor.check()
            time.sleep(_POLL_SECONDS)
            device = _first_free(devices, job)
        monitor.log(f"{device} is free; going on")
    try:
        yield device
    finally:
        release_memory(device)
        _let_go(device)


def holder(device: str) -> str | None:
    """Who has a device, in words for people; None where it is free, ours, or needs no lock."""
    card = _card(device)
    if card is None or card in _ours:
        return None
    try:
        with _open(_path(card), make=False) as file:
            if try_lock(file):
                return None
    except OSError:  # nobody has made the file yet, or it is none
        return None
    return _owner_words(card)


def release_memory(device: str) -> None:
    """Give back what torch keeps for later on a GPU, for whoever works beside us."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        return
    if device.startswith("cuda") and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif device.startswith("mps") and torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _first_free(devices: Sequence[str], job: str) -> str | None:
    return next((device for device in devices if _take(device, job)), None)


def _take(device: str, job: str) -> bool:
    card = _card(device)
    if card is None:
        return True
    with _guard:
        if card in _ours:
            count, file = _ours[card]
            _ours[card] = count + 1, file
            return True
        try:
            file = _open(_path(card), make=True)
        except OSError:
            # Where no file can be made (a full or foreign temporary folder) work goes on as if
            # there were no locks: they are a courtesy among jobs, not what results rest on.
            return True
        if not try_lock(file):
            file.close()
            return False
        _sign(file, job)
        _ours[card] = 1, file
        return True


def _let_go(device: str) -> None:
    card = _card(device)
    with _guard:
        if card is None or card not in _ours:
            return
        count, file = _ours.pop(card)
        if count > 1:
            _ours[card] = count - 1, file
            return
        with contextlib.suppress(OSError):
            file.truncate(0)
        with contextlib.suppress(OSError):
            unlock(file)  # processes that make batches may end later than the job
        file.close()


def _sign(file: IO[bytes], job: str) -> None:
    fields = {"process": os.getpid(), "job": job, "since": int(time.time())}
    # A file of another user's may be locked by all, but not everywhere written by all.
    with contextlib.suppress(OSError):
        file.seek(0)
        file.truncate(0)
        file.write(json.dumps(fields).encode("ascii"))
        file.flush()


def _tell(devices: Sequence[str], monitor: Monitor, *, wait: bool) -> None:
    who = "; ".join(f"{device}: {holder(device) or 'another process'}" for device in devices)
    if not wait:
        raise DeviceBusyError(
            f"the GPU is in use by another long job ({who})",
            "Wait for it (leave out --no-wait), or choose another device (--device).",
        )
    monitor.warn(f"waiting for the GPU, which another long job has ({who})")
    monitor.progress(0.0, "waiting for the GPU")


def _owner_words(card: str) -> str:
    """What the file says, as far as it can be believed."""
    try:
        with _open(_path(card), make=False) as file:
            fields = json.loads(file.read(_LONGEST))
        process, since = int(fields["process"]), float(fields["since"])
        job = "".join(letter for letter in str(fields["job"])[:40] if letter.isprintable())
        begun = time.strftime("%Y-%m-%d %H:%M", time.localtime(since))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return "another process"
    return f"process {process} ({job}, since {begun})"


def _path(card: str) -> Path:
    return Path(tempfile.gettempdir()) / f"medenhance-gpu-{card}.lock"


def _open(path: Path, *, make: bool) -> IO[bytes]:
    """The regular file of that name, made for all users; never through a link."""
    extra = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    if make:
        with contextlib.suppress(FileExistsError):
            made = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | extra, 0o666)
            if hasattr(os, "fchmod"):
                os.fchmod(made, 0o666)  # the umask is no other user's business here
            os.close(made)
    try:
        handle = os.open(path, os.O_RDWR | extra)
    except PermissionError:
        handle = os.open(path, os.O_RDONLY | extra)  # can be locked all the same
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(f"{path} is no file")
    return os.fdopen(handle, "rb+", buffering=0)


def _card(device: str) -> str | None:
    """What stays the same of a GPU in every process; None for what is no GPU.

    The number is what CUDA_VISIBLE_DEVICES makes of it, so two processes may call one card by two
    numbers: its UUID is the same for all.
    """
    kind, _, number = device.partition(":")
    if kind != "cuda":
        return "mps" if kind == "mps" else None
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(device)
        named = str(getattr(properties, "uuid", ""))
        if named.replace("-", "").isalnum():
            return named
    return number or "0"

"""Starts a worker's process and ends it together with its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from MedEnhanceLib.errors import ConfigError

_LIBRARY = Path(__file__).resolve().parents[3]


def worker_command(idle_seconds: float) -> list[str]:
    """The command of a worker on this Python; -P keeps the current folder off its path."""
    arguments = ["worker", "--idle-seconds", f"{idle_seconds:g}"]
    return [sys.executable, "-P", "-m", "MedEnhanceLib", *arguments]


def start_process(command: Sequence[str]) -> subprocess.Popen[bytes]:
    """A process of its own group with three pipes, which finds the same library as we do."""
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=_environment(),
            start_new_session=True,  # Ctrl-C reaches the caller, which cancels in good order
            creationflags=_windows_flags(),
        )
    except OSError as cause:
        raise ConfigError(
            f"the worker cannot be started: {command[0]}: {cause.strerror}",
            "Give the Python that MedEnhance is installed for.",
        ) from cause


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children at once, and wait until it is gone."""
    if process.poll() is None:
        if sys.platform == "win32":
            subprocess.run(
                ["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False
            )
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    process.wait()


def exit_words(status: int) -> str:
    """An exit status for people: "exit status 1", "signal SIGKILL"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}"


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib")}
    # Site-packages need no help, and on PYTHONPATH they would come before the standard library.
    if _LIBRARY not in installed:
        inherited = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_LIBRARY), inherited)))
    return environment


def _windows_flags() -> int:
    if sys.platform == "win32":
        return subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return 0

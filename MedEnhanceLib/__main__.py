"""`python -m MedEnhanceLib COMMAND`; the worker starts without the command line's own imports."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import NoReturn, TextIO, cast

from MedEnhanceLib.runtime.processes import leave_current_folder
from MedEnhanceLib.runtime.tolerance import Messages

_CANCELLED = 130


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status."""
    # A file would take the number of a closed stream, and get what C libraries print.
    while os.open(os.devnull, os.O_RDWR) < 2:
        pass
    if arguments == ["worker"]:
        from MedEnhanceLib.jobs.worker import worker

        return worker.main()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:
        # While modules are imported Python would answer Ctrl-C with a traceback.
        signal.signal(signal.SIGINT, lambda *_: os._exit(_CANCELLED))
    from MedEnhanceLib.cli.main import main as run_command

    signal.signal(signal.SIGINT, before)
    return run_command(arguments)


def console() -> NoReturn:
    """Run the command `medenhance` and exit."""
    leave_current_folder()
    status = main(sys.argv[1:])
    # Python's last flush would fail for a reader who is gone, and change the status.
    sys.stdout, sys.stderr = (cast(TextIO, Messages(each)) for each in (sys.stdout, sys.stderr))
    if any(thread.name == "attended" for thread in threading.enumerate()):
        # Canceled work of another library still runs: waiting for it takes long, and Python would
        # crash at its normal exit.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    console()

"""Processes that were forked after PyTorch had computed: they lack its threads."""

from __future__ import annotations

import os
import signal
import sys

from MedEnhanceLib.errors import MedEnhanceError

#: How long a small operation may take before its threads count as missing.
_SECONDS = 5
#: "torch" in a process that was forked with PyTorch loaded, until it is known to compute.
_inherited: set[str] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _inherited.update({"torch"} & sys.modules.keys()))


def refuse_without_threads() -> None:
    """Raise MedEnhanceError in a forked process where PyTorch would wait for its threads forever.

    To find out, a small operation is tried in a process that is forked for it.
    """
    if not _inherited or sys.platform == "win32":
        return
    if (child := os.fork()) == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_SECONDS)
            sys.modules["torch"].ones(1 << 20).sum()
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        raise MedEnhanceError(
            "PyTorch cannot compute in this process, which was forked after it had computed",
            'Start processes with multiprocessing.get_context("spawn").',
        )
    _inherited.clear()

"""Names of temporary files, from which a later start can tell that their writer is gone.

    .medenhance-<owner>-<process>-<target>-<random><ending>

owner: a hash of this start of this machine and of its table of processes, which containers have of
their own. Only where it is ours does a process number that is free mean that the writer is gone:
another machine, or another container, may be writing into the same folder. Systems that do not
tell their start (all but Linux) get names that say nothing, and nothing is ever removed there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from functools import cache
from pathlib import Path

PREFIX = ".medenhance-"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_PROCESSES = Path("/proc/self/ns/pid")


def temporary_name(target: Path, ending: str) -> str:
    """A new hidden name for what becomes `target`, with that ending."""
    owner = _owner()
    if not owner:
        return f"{PREFIX}{secrets.token_hex(8)}{ending}"
    return f"{PREFIX}{owner}-{os.getpid()}-{_hash(target.name)}-{secrets.token_hex(4)}{ending}"


def remove_leftovers(target: Path) -> None:
    """Remove what writers of `target` left behind that were killed since this machine started.

    Only regular files of this user, under names of `temporary_name`, whose process is gone.
    """
    owner = _owner()
    if not owner:
        return
    ours = re.compile(
        rf"{re.escape(PREFIX)}{owner}-(\d+)-{_hash(target.name)}-[0-9a-f]{{8}}(\..*)?"
    )
    # Whatever cannot be looked at or removed stays: it is in nobody's way.
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            named = ours.fullmatch(entry.name)
            if named and _is_gone(int(named[1])) and _is_own_file(entry):
                with contextlib.suppress(OSError):
                    Path(entry.path).unlink()


def _is_own_file(entry: os.DirEntry[str]) -> bool:
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid() and status.st_nlink == 1


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's, or no number of a process
        return False
    return False


@cache
def _owner() -> str:
    try:
        return _hash(_BOOT.read_text(encoding="ascii") + str(_PROCESSES.readlink()))
    except (OSError, ValueError):
        return ""


def _hash(text: str) -> str:
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:8]

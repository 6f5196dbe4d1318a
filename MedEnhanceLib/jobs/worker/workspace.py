"""Private temporary folders, one for each worker and one for each job inside it.

<temp>/medenhance-XXXXXXXX/      mode 0700, see `runtime.locks`
    …                            whatever the owner and its clients put here
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from MedEnhanceLib.errors import OutputError
from MedEnhanceLib.runtime import locks
from MedEnhanceLib.runtime.locks import make_owned, remove_owned

_PREFIX = "medenhance-"


class Workspace:
    """A private folder, ours until `remove` or the end of the process."""

    def __init__(self) -> None:
        """Make one; raises OutputError where the system's temporary folder cannot be used."""
        try:
            self.folder, self._lock = make_owned(_PREFIX)
        except OSError as cause:
            raise OutputError(
                f"no temporary folder can be made in {tempfile.gettempdir()}: {cause.strerror}",
                "Free some space there, or name another folder in the variable TMPDIR.",
            ) from cause

    def remove(self) -> None:
        """Remove the folder and let the lock go; a second call does nothing."""
        remove_owned(self.folder, self._lock)

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def remove_abandoned() -> list[Path]:
    """Remove the workspaces whose owners are gone; returns which these were."""
    return locks.remove_abandoned(_PREFIX, Path(tempfile.gettempdir()))

"""What a finished job hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """The facts of a finished job; all of them can be written as JSON.

    fields: jobs that write have `outputs` (name → path), `manifest` (path), `seconds` and
    `device`; each kind adds its own figures (see docs/jobs.md).
    """

    fields: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

"""A job on paper: its kind, its parameters, its name; JSON both ways."""

from __future__ import annotations

import difflib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.params import params_from_json
from MedEnhanceLib.jobs.registry import JOBS
from MedEnhanceLib.jobs.worker.events import PROTOCOL, check_version

_LONGEST_ID = 200
_KEYS = ("v", "id", "kind", "params")


@dataclass(frozen=True)
class JobSpec:
    """What to do.

    kind: one of `kinds.JOBS`. params: that kind's parameters as a JSON object, paths as text.
    id: names the job in its events; made up where none is given.
    Raises ConfigError for an unknown kind and for parameters that the kind does not take.
    """

    kind: str
    params: Mapping[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in JOBS:
            near = difflib.get_close_matches(str(self.kind), JOBS, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(f"unknown job {self.kind!r}", f"{hint}Known: {', '.join(JOBS)}.")
        if not isinstance(self.id, str) or not 0 < len(self.id) <= _LONGEST_ID:
            raise ConfigError(
                f"the job's id is {repr(self.id)[:40]}", f"Give text of 1 to {_LONGEST_ID} signs."
            )
        if not isinstance(self.params, Mapping):
            raise ConfigError("the job's params are not an object", 'Give {"name": value, …}.')
        object.__setattr__(self, "params", dict(self.params))
        params_from_json(self.kind, JOBS[self.kind].params, self.params)

    def to_json(self) -> dict[str, Any]:
        """The job as the JSON object that the worker reads."""
        return {"v": PROTOCOL, "id": self.id, "kind": self.kind, "params": dict(self.params)}

    def to_line(self) -> bytes:
        """The job as a line for the worker; raises ConfigError for what JSON cannot say."""
        try:
            text = json.dumps(self.to_json(), allow_nan=False)
        except (TypeError, ValueError) as cause:
            raise ConfigError(
                f"the job {self.kind!r} cannot be written as JSON: {cause}",
                "Give text, numbers, lists and objects.",
            ) from cause
        return text.encode("ascii") + b"\n"

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> JobSpec:
        """The inverse of `to_json`; raises ConfigError on whatever is not exactly that."""
        check_version(fields)
        for key in fields:
            if key not in _KEYS:
                raise ConfigError(f"a job has no key {key!r}", f"Use {', '.join(_KEYS)}.")
        if "kind" not in fields:
            raise ConfigError("the job has no kind", f"Known: {', '.join(JOBS)}.")
        given = {key: fields[key] for key in ("kind", "params", "id") if key in fields}
        return cls(**given)

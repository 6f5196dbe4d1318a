"""Events on the wire: one JSON object per line, `{"v": 1, "job": "<id>", "event": "<kind>", …}`."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, get_args

import numpy as np

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.jobs.protocol import PROTOCOL, check_version
from MedEnhanceLib.progress import Event, EventKind

_KINDS: tuple[str, ...] = get_args(EventKind)


def event_to_line(job: str | None, event: Event) -> bytes:
    """The event of the job as a line. `job` is None where a line could not be understood."""
    return line_of({"v": PROTOCOL, "job": job, "event": event.kind, **event.fields})


def event_from_json(fields: Mapping[str, Any]) -> tuple[str | None, Event]:
    """The job's id and the event; raises ConfigError for what is not an event."""
    check_version(fields)
    kind, job = fields.get("event"), fields.get("job")
    if kind not in _KINDS or not (job is None or isinstance(job, str)):
        raise ConfigError(f"event {kind!r} of job {job!r}", f"Events are {', '.join(_KINDS)}.")
    rest = {key: value for key, value in fields.items() if key not in ("v", "job", "event")}
    return job, Event(kind, rest)


def line_of(fields: Mapping[str, Any]) -> bytes:
    """A JSON object as one line of ASCII."""
    return json.dumps(as_json(fields), allow_nan=False).encode("ascii") + b"\n"


def as_json(value: Any) -> Any:
    """The nearest thing that JSON can say.

    Numpy numbers and arrays, paths, tuples and dataclasses become plain; NaN and infinity,
    which JSON lacks, become null.
    """
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(entry) for entry in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return as_json(
            {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
        )
    return str(value) if isinstance(value, PurePath) else value

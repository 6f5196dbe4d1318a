"""Reading of JSON of unknown origin: nesting, size and numbers are limited."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

from MedEnhanceLib.errors import InputError

#: Limits: bytes, nesting of objects and lists, digits of an integer.
_MOST_BYTES, _DEEPEST, _MOST_DIGITS, _DIGITS_OF_FLOAT = 16 << 20, 32, 20, 300


def read_json(path: Path, lost: list[str] | None = None) -> Any:
    """Read a JSON file, UTF-8 or UTF-16, as `parse_json` does.

    Raises InputError for a pipe or a device, OSError if it cannot be read.
    """
    # It imports NumPy, which the parser of commands does without.
    from MedEnhanceLib.io.voxels import refuse_pipe

    if path.exists():
        refuse_pipe(path)
    with path.open("rb") as stream:
        data = stream.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"it has more than {_MOST_BYTES >> 20} MB")
    return parse_json(data, lost)


def read_object(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; {} if there is none, or it cannot be read."""
    with contextlib.suppress(OSError, ValueError, InputError):
        fields = read_json(path, [])
        return fields if isinstance(fields, dict) else {}
    return {}


def parse_json(text: str | bytes, lost: list[str] | None = None) -> Any:
    """Parse JSON whose value can be written as JSON again; of a name given twice the last counts.

    lost: gets the fields of numbers that cannot be written (NaN, Infinity, 1e400, integers of
        hundreds of digits), which become null; None: ValueError for these, and for integers of more
        than 20 digits.
    Raises ValueError if it is not JSON, or nested too deeply.
    """
    most_digits = _MOST_DIGITS if lost is None else _DIGITS_OF_FLOAT

    def checked(value: Any, field: str, depth: int) -> Any:
        if depth < 0:
            raise ValueError("it is nested too deeply")
        if isinstance(value, dict):
            return {key: checked(each, f"{field}.{key}", depth - 1) for key, each in value.items()}
        if isinstance(value, list):
            return [checked(each, field, depth - 1) for each in value]
        if isinstance(value, float) and not math.isfinite(value):
            if lost is None:
                fault = "not a finite number, or has too many digits"
                raise ValueError(f"{field.lstrip('.')} is {fault}")
            lost.append(field.lstrip("."))
            return None
        return value

    def integer(digits: str) -> int | float:
        return int(digits) if len(digits) <= most_digits else math.inf

    try:
        return checked(json.loads(text, parse_int=integer), "", _DEEPEST + 1)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None

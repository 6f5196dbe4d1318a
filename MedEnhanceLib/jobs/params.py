"""Parameters of jobs: a frozen dataclass per kind, made from JSON and checked field by field."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from MedEnhanceLib.errors import ConfigError

P = TypeVar("P")

_WORDS = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    dict: "an object",
    list: "a list",
    types.NoneType: "null",
}


def params_from_json(kind: str, cls: type[P], fields: Mapping[str, Any]) -> P:
    """Make the dataclass `cls` of the job `kind`.

    Raises ConfigError for an unknown key, one that is missing, or a value of the wrong type.
    """
    known = {entry.name: entry for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in fields:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"the job {kind!r} has no parameter {name!r}",
                f"{hint}It takes: {', '.join(known)}.",
            )
    missing = [name for name, entry in known.items() if _is_required(entry) and name not in fields]
    if missing:
        raise ConfigError(
            f"the job {kind!r} lacks {', '.join(missing)}", f"It takes: {', '.join(known)}."
        )
    hints = typing.get_type_hints(cls)
    for name, value in fields.items():
        _check_type(f"{kind}: {name}", value, hints[name])
    return cls(**fields)


def _is_required(entry: dataclasses.Field[Any]) -> bool:
    return entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING


def _check_type(name: str, value: Any, hint: Any) -> None:
    allowed = _alternatives(hint)
    if not any(_fits(value, kind) for kind in allowed):
        words = " or ".join(_WORDS[kind] for kind in allowed)
        raise ConfigError(f"{name} is {value!r}", f"Give {words}.")
    if value == "":
        raise ConfigError(f"{name} is empty", "Give a name or a path, or leave it out.")


def _alternatives(hint: Any) -> list[type]:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return [typing.get_origin(member) or member for member in members]


def _fits(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)

"""Parameters of jobs: a frozen dataclass per kind, made from JSON and checked field by field."""

from __future__ import annotations

import dataclasses
import difflib
import os
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
    if not _fits(value, hint):
        raise ConfigError(f"{name} is {value!r}", f"Give {_words(hint)}.")
    if isinstance(value, str):
        _check_text(name, value)


def _check_text(name: str, value: str) -> None:
    """Text parameters are names and paths."""
    if not value:
        raise ConfigError(f"{name} is empty", "Give a name or a path, or leave it out.")
    try:
        is_path = "\0" not in os.fsdecode(os.fsencode(value))
    except UnicodeEncodeError:
        is_path = False
    if not is_path:
        raise ConfigError(f"{name} is {value!r}, which no path can be", "Correct the name.")


def _fits(value: Any, hint: Any) -> bool:
    if isinstance(hint, types.UnionType):
        return any(_fits(value, member) for member in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if isinstance(value, bool):
        return kind is bool
    if isinstance(value, list) and kind is list:
        return all(_fits(entry, typing.get_args(hint)[0]) for entry in value)
    return isinstance(value, (int, float) if kind is float else kind)


def _words(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        return " or ".join(_words(member) for member in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    inner = f", each {_words(typing.get_args(hint)[0])}" if kind is list else ""
    return _WORDS[kind] + inner

"""Configurations are frozen dataclasses, checked when made, JSON both ways."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

from MedEnhanceLib.errors import ConfigError

C = TypeVar("C")

#: What people write for an option, where its spelling does not lead there.
_ALSO_CALLED = {
    "lambda": "weight",
    "lam": "weight",
    "lr": "learning_rate",
    "epochs": "steps",
    "iterations": "steps",
    "batch_size": "batch",
    "patch_size": "patch",
}


def config_from_json(cls: type[C], fields: Mapping[str, Any]) -> C:
    """Make the dataclass `cls` from a JSON object; an unknown key is a ConfigError.

    Lists become tuples; a field whose default is itself such a dataclass takes an object.
    """
    if not isinstance(fields, Mapping):
        raise ConfigError(f"{cls.__name__} is {fields!r}", "Give an object with its options.")
    known = {entry.name: entry for entry in dataclasses.fields(cls)}  # type: ignore[arg-type]
    check_names(cls.__name__, fields, known)
    lacking = [name for name, entry in known.items() if _is_needed(entry) and name not in fields]
    if lacking:
        raise ConfigError(
            f"{cls.__name__} lacks {', '.join(lacking)}", f"It has: {', '.join(known)}."
        )
    values = {key: _value(known[key], value) for key, value in fields.items()}
    try:
        return cls(**values)
    except TypeError as cause:
        raise ConfigError(f"{cls.__name__}: {cause}", "Check the type of each option.") from cause


def check_names(owner: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first name that `owner` does not know, with the nearest it does."""
    names = list(known)
    for name in given:
        if name not in names:
            near = difflib.get_close_matches(_ALSO_CALLED.get(name, name), names, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise ConfigError(
                f"{owner} has no option {name!r}", f"{hint}It has: {', '.join(names)}."
            )


def check_types(config: Any) -> None:
    """Raise ConfigError where a field of a dataclass holds what its type does not allow.

    Text, numbers, true and false, tuples and objects of them, and dataclasses; others pass.
    """
    hints = typing.get_type_hints(type(config))
    for entry in dataclasses.fields(config):
        value = getattr(config, entry.name)
        if not _fits(value, hints[entry.name]):
            raise ConfigError(f"{entry.name} is {value!r}", f"Give {_words(hints[entry.name])}.")


_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
_KINDS: dict[Any, type] = {str: str, bool: bool, int: Integral, float: Real}


def _fits(value: Any, hint: Any) -> bool:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in _KINDS:
        return isinstance(value, _KINDS[kind]) and isinstance(value, bool) == (kind is bool)
    if kind is tuple and isinstance(value, tuple):
        wanted = inner[:1] * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(wanted) and all(map(_fits, value, wanted))
    if kind is dict and isinstance(value, dict):
        return all(_fits(one, inner[1]) for one in value.values())
    return not isinstance(kind, type) or isinstance(value, kind)


def _words(hint: Any) -> str:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind is tuple:
        return f"a list, each {_words(inner[0])}"
    if kind is dict or dataclasses.is_dataclass(kind):
        return "an object"
    return _WORDS[kind]


def config_to_json(config: Any) -> dict[str, Any]:
    """The dataclass as a JSON object."""
    return dataclasses.asdict(config)


def _is_needed(entry: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return entry.init and entry.default is missing and entry.default_factory is missing


def _value(entry: dataclasses.Field[Any], value: Any) -> Any:
    factory: object = entry.default_factory
    if (
        isinstance(factory, type)
        and dataclasses.is_dataclass(factory)
        and isinstance(value, Mapping)
    ):
        return config_from_json(factory, value)
    if isinstance(entry.default, tuple) and isinstance(value, str):
        raise ConfigError(f"{entry.name} is {value!r}", f'Give a list: ["{value}"].')
    return tuple(value) if isinstance(value, list) else value


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise ConfigError unless `value` is a number and low ≤ value ≤ high."""
    number: object = value  # as it came from JSON
    if not isinstance(number, Real):
        raise ConfigError(f"{name} is {value!r}", f"Use a number of {low:g} to {high:g}.")
    if not low <= value <= high:
        raise ConfigError(f"{name} is {value}", f"Use {low:g} to {high:g}.")

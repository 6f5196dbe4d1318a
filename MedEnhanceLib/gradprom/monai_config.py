"""MONAI's configurations as data: resolved by MONAI's own parser, with nothing run or built.

    Config(file, fields).resolved("preprocessing") → steps_of → each transform with its arguments

Everything that the parser could run or load is taken out of a configuration before it sees it, and
it builds no object: classes are names, which the reader looks up in lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from MedEnhanceLib.errors import ModelError

_REMEDY = "Change it in a copy of the bundle: docs/segmenters.md says what is understood."
#: Most values of a field, with all references resolved.
_MOST_VALUES = 10_000
#: The endings of MONAI's transforms of dictionaries.
_ENDINGS = ("Dict", "d", "D")


@dataclass(frozen=True)
class Inert:
    """Python code ("$…") or the address of another file ("%…"), as text: neither run nor read."""

    text: str

    def __str__(self) -> str:
        return self.text


def _inert(given: Any) -> Any:
    """A copy of a configuration in which MONAI's parser finds nothing to run or to load."""
    if isinstance(given, Mapping):
        return {str(name): _inert(value) for name, value in given.items()}
    if isinstance(given, list):
        return [_inert(value) for value in given]
    is_active = isinstance(given, str) and given.strip()[:1] in ("$", "%")
    return Inert(given) if is_active else given


@dataclass(frozen=True)
class Config:
    """One configuration file: its name, for messages, and its fields."""

    file: str
    fields: Mapping[str, Any]

    @cached_property
    def _parser(self) -> Any:
        from monai.bundle.config_parser import ConfigParser

        return ConfigParser(_inert(self.fields))

    def resolved(self, *names: str) -> tuple[str, Any]:
        """The first of these fields that is there, and its name; ("", None) for none.

        References are resolved; objects with `_target_` are mappings, of which none is built.
        """
        name = next((name for name in names if name in self.fields), "")
        if not name:
            return "", None
        try:
            found = self._parser.get_parsed_content(name, instantiate=False, eval_expr=False)
            return name, self._plain(found, name, iter(range(_MOST_VALUES)))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as cause:
            raise self.refused(name, f"cannot be resolved: {short(str(cause))}") from cause
        except RecursionError as cause:
            raise self.refused(name, "is nested too deeply") from cause

    def _plain(self, given: Any, place: str, left: Iterator[int]) -> Any:
        from monai.bundle.config_item import ConfigItem

        if next(left, None) is None:
            raise self.refused(place, "is too large")
        if isinstance(given, ConfigItem):
            given = given.get_config()
        if isinstance(given, Mapping):
            return {n: self._plain(one, f"{place}.{n}", left) for n, one in given.items()}
        if isinstance(given, list):
            return [self._plain(one, f"{place}[{n}]", left) for n, one in enumerate(given)]
        return given

    def refuse_inert(self, given: Any, place: str) -> None:
        """Raise ModelError for code or another file in a value that decides."""
        if isinstance(given, Inert):
            what = "Python code" if given.text.strip()[0] == "$" else "another file"
            raise self.refused(
                place, f"is {what}, {short(given.text)}, which is neither run nor read"
            )
        if isinstance(given, Mapping):
            for name, value in given.items():
                self.refuse_inert(value, f"{place}.{name}")
        if isinstance(given, list):
            for index, value in enumerate(given):
                self.refuse_inert(value, f"{place}[{index}]")

    def refused(self, place: str, why: str) -> ModelError:
        """The error for a field that is not understood."""
        return ModelError(f"{self.file}: {place} {why}", _REMEDY)


def short(text: str) -> str:
    """A text in quotes, cut to a length that a message can have."""
    return repr(text if len(text) <= 60 else text[:57] + "…")


@dataclass(frozen=True)
class Step:
    """A transform.

    target: its class as it is written. name: without MONAI's package and the ending of transforms
    of dictionaries; "" where it is not among those that are understood.
    """

    config: Config
    place: str
    target: str
    name: str
    arguments: Mapping[str, Any]

    def refused(self, why: str, argument: str = "") -> ModelError:
        """The error for this transform, or for one of its arguments."""
        return self.config.refused(f"{self.place}{argument and '.'}{argument}", why)


def steps_of(config: Config, given: Any, place: str, known: set[str]) -> Iterator[Step]:
    """Each transform of a (nested) Compose; those that are off are left out."""
    if isinstance(given, list):
        for index, value in enumerate(given):
            yield from steps_of(config, value, f"{place}[{index}]", known)
        return
    if not isinstance(given, Mapping) or "_target_" not in given:
        config.refuse_inert(given, place)
        raise config.refused(place, "is no transform (an object with _target_)")
    if str(given.get("_disabled_", False)).lower() == "true":
        return
    target = str(given["_target_"])
    name = re.sub(r"^monai\.transforms\.(?:\w+\.)*", "", target)
    if name == "Compose":
        yield from steps_of(config, given.get("transforms", []), f"{place}.transforms", known)
        return
    stems = [name, *(name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending))]
    yield Step(config, place, target, next((stem for stem in stems if stem in known), ""), given)

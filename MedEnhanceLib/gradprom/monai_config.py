"""Configurations of MONAI bundles as data: nothing in them is run, loaded or built.

References ("@name") are resolved. Python ("$…") and other files ("%…") stay texts, which are
refused where they decide something; classes (_target_) are names, which the reader looks up in
lists.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedEnhanceLib.bundles.schema import read_json
from MedEnhanceLib.errors import ModelError

#: Values of a field at most, with all references resolved.
_MOST_VALUES = 10_000
_REMEDY = "Change it in a copy of the bundle: docs/segmenters.md says what is understood."


@dataclass(frozen=True)
class Part:
    """Value of a configuration: plain data. place: file and field, which messages name."""

    place: str
    value: Any

    def __getitem__(self, key: str) -> Part:
        value = self.value.get(key) if isinstance(self.value, Mapping) else None
        return Part(f"{self.place}.{key}", value)

    def members(self) -> list[Part]:
        """List the members; a value alone counts as a list of it."""
        if not isinstance(self.value, list):
            return [self]
        return [Part(f"{self.place}[{n}]", value) for n, value in enumerate(self.value)]

    def refused(self, why: str) -> ModelError:
        """Make the error for a value that is not understood."""
        return ModelError(f"{self.place} {why}", _REMEDY)

    @property
    def shown(self) -> str:
        """The value as a message quotes it."""
        text = str(self.value)
        return repr(text if len(text) <= 60 else text[:57] + "…")

    @property
    def target(self) -> str:
        """The name of its class, without MONAI's package."""
        return re.sub(r"^monai\.(?:\w+\.)*", "", str(self["_target_"].value))

    def one_of(self, classes: Collection[str]) -> str:
        """Name its class without the ending of dictionaries; ModelError for another, or none."""
        for ending in ("", "Dict", "d", "D"):
            if (name := self.target.removesuffix(ending)) in classes:
                return name
        if not isinstance(self.value, Mapping):
            self.plain()  # code has an error of its own
            raise self.refused("is not an object with _target_")
        target = self["_target_"]
        raise target.refused(f"is {target.shown}, not one of {', '.join(sorted(classes))}")

    def plain(self) -> Any:
        """Return the value; raises ModelError where it holds code, another file, or an object."""
        if isinstance(self.value, Mapping):
            if "_target_" in self.value:
                raise self.refused("is an object, not a plain value")
            return {key: self[key].plain() for key in self.value}
        if isinstance(self.value, list):
            return [member.plain() for member in self.members()]
        if isinstance(self.value, str) and self.value.strip()[:1] in ("$", "%"):
            raise self.refused(f"is code or another file, {self.shown}: neither run nor read")
        return self.value

    def arguments(self) -> dict[str, Any]:
        """Return the plain arguments of an object; MONAI's own (_target_, _mode_) are left out."""
        return {key: self[key].plain() for key in self.value if not key.startswith("_")}

    def number(self, default: float | None = None) -> float:
        """Return a finite number; the default where nothing is stated."""
        value: Any = default if self.value is None else self.plain()
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise self.refused(f"is {self.shown}, not a number")
        return float(value)

    def flag(self) -> bool:
        """Tell whether it is true; as in MONAI, the text "True" counts too."""
        return str(self.plain()).lower() == "true"

    def steps(self) -> Iterator[Part]:
        """Yield each transform of lists and of (nested) Compose, but for those that are off."""
        if isinstance(self.value, list):
            for member in self.members():
                yield from member.steps()
        elif not self["_disabled_"].flag():
            yield from self["transforms"].steps() if self.target == "Compose" else [self]

    def field(self, *names: str) -> Part:
        """Return the first of these fields of a file that is stated, without references.

        An empty part where none is. Raises ModelError for a reference that names nothing.
        """
        name = next((name for name in names if name in self.value), names[0])
        part = Part(f"{self.place}: {name}", self.value.get(name))
        try:
            return Part(part.place, _resolved(part.value, self.value, iter(range(_MOST_VALUES))))
        except (LookupError, ValueError) as cause:
            raise part.refused(f"cannot be resolved: {cause}"[:200]) from cause
        except RecursionError as cause:
            raise part.refused("cannot be resolved: a reference is circular") from cause


def read_config(folder: Path, member: str) -> Part:
    """Read a configuration file of a bundle; raises ModelError where it cannot be read."""
    try:
        fields = read_json(folder / member)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as cause:
        raise ModelError(
            f"{folder}: {member} cannot be read ({cause})",
            "Give the folder of a MONAI bundle, unpacked, with JSON and not YAML: "
            "docs/segmenters.md shows one.",
        ) from cause
    return Part(member, fields)


def _resolved(value: Any, fields: Mapping[str, Any], allowance: Iterator[int]) -> Any:
    """Copy with the values that references name ("@field::key") in their places."""
    if next(allowance, None) is None:
        raise ValueError("it is too large")
    if isinstance(value, Mapping):
        return {name: _resolved(entry, fields, allowance) for name, entry in value.items()}
    if isinstance(value, list):
        return [_resolved(entry, fields, allowance) for entry in value]
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    target: Any = fields
    try:
        for key in re.split("::|#", value[1:]):
            target = target[int(key) if isinstance(target, list) else key]
    except (LookupError, TypeError, ValueError) as cause:
        raise LookupError(f"{value} names nothing") from cause
    return _resolved(target, fields, allowance)

"""Registries: names, and the members of modules that they stand for, imported when used."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


class Registry(dict[str, str]):
    """Name → "module:member".

    Other packages add names by entry points; a name of MedEnhance itself cannot be replaced.

    Args:
        group: of the entry points, such as "medenhance.denoisers".
        members: of MedEnhance.
    """

    def __init__(self, group: str, members: dict[str, str]) -> None:
        super().__init__(members)
        self._group = group

    def names(self) -> list[str]:
        """List all names, those of other packages last."""
        return list(dict.fromkeys([*self, *entry_points(group=self._group).names]))

    def knows(self, name: str) -> bool:
        """Return whether a name is registered."""
        return name in self or name in self.names()

    def member(self, name: str) -> Any:
        """Import what a name stands for; KeyError for an unknown name."""
        if name in self:
            return member_at(self[name])
        for entry in entry_points(group=self._group, name=name):
            return entry.load()
        raise KeyError(name)


def member_at(place: str) -> Any:
    """Import the member of a module: "module:member"."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)

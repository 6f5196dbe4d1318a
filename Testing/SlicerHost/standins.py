"""Classes of Slicer and CTK, made from the table.

A class gets exactly the members that the table lists. Behavior comes from a class of the same
name that was given to `behavior`; what has none raises NotImplementedError when it is used, since
a host that pretends is worse than none. The state of a behavior lives in `self._own`.
"""

from __future__ import annotations

import operator
import types
from collections.abc import Callable
from typing import Any

from Qt.QtCore import Property, Signal

from SlicerHost import api, pythonqt, qt

BEHAVIOR: dict[str, type] = {}
_made: dict[str, type] = {}


def behavior(**kept: Any) -> Callable[[type], type]:
    """Give a class of the table its behavior; kept: properties that do nothing but keep values."""

    def give(cls: type) -> type:
        for name, default in kept.items():
            setattr(cls, name, stored(default))
        BEHAVIOR[cls.__name__] = cls
        return cls

    return give


def stored(default: Any, then: Callable[[Any], None] = lambda self: None) -> property:
    """A property that is remembered and read back; then: called with the object after a change."""
    key = object()

    def write(self: Any, value: Any) -> None:
        self._own.stored[key] = value
        then(self)

    return property(lambda self: self._own.stored.get(key, default), write)


def part(name: str) -> Callable[[Any], Any]:
    """A method that returns a part of the object's state."""
    read = operator.attrgetter(f"_own.{name}")
    return lambda self: read(self)


def in_row(parent: Any, *widgets: Any) -> None:
    row = qt.QHBoxLayout(parent)
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)


def make(name: str) -> type:
    """The class of that name: Slicer's or CTK's from the table, or Qt's own."""
    if name in _made:
        return _made[name]
    if name not in api.classes():
        return getattr(qt, name)
    entry, does = api.classes()[name], vars(BEHAVIOR.get(name, object))
    inherited = {key for each, _ in api.chain(name) for key in vars(BEHAVIOR.get(each, object))}
    properties = {key for _, each in api.chain(name) for key in each["properties"]}
    base = make(entry["bases"][0]) if entry["bases"] else qt.QObject
    body: dict[str, Any] = {"stand_in": True, "__doc__": entry["header"]}
    body |= {"__init__": _constructor(name, base), "_signals": api.signatures(name, "signals")}
    body |= {key: _signal(overloads) for key, overloads in entry["signals"].items()}
    for method in {*entry["slots"], *entry["invokable"], *api.ALSO.get(name, ())} - inherited:
        target = method[3:4].lower() + method[4:]
        is_setter = method.startswith("set") and target in properties
        body[method] = _setter(target) if is_setter else missing(name, method)
    body |= {key: value for key, value in does.items() if not key.startswith("__")}
    for key, kind in entry["properties"].items():
        if key in does or key not in inherited:
            body[key] = StandInProperty(name, key, kind, does.get(key))
    _made[name] = cls = type(qt.QObject)(name, (base,), body)
    cls.__setattr__ = pythonqt.set_attribute
    return cls


def missing(owner: str, name: str) -> Callable[..., Any]:
    def without_behavior(self: Any, *arguments: Any) -> Any:
        raise NotImplementedError(f"{owner}.{name} has no behavior in the host")

    return without_behavior


def _setter(name: str) -> Callable[[Any, Any], None]:
    return lambda self, value: setattr(self, name, value)


class StandInProperty(Property):
    """One that forms can set, converted as PythonQt would and read-only where the table says."""

    def __init__(self, owner: str, name: str, kind: str, does: property | None) -> None:
        self.kind, _, read_only = kind.partition(" (read only")
        self.where, without = f"property '{name}' of {owner}", missing(owner, name)
        read, write = getattr(does, "fget", None), getattr(does, "fset", None)
        kind = self.kind if self.kind in pythonqt.KINDS else "QVariant"
        super().__init__(kind, read or without, None if read_only else write or without)

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self.fget(instance)
        return tuple(value) if self.kind == "QStringList" else value

    def __set__(self, instance: Any, value: Any) -> None:
        if self.fset is None:
            raise AttributeError(f"{self.where} is read only")
        self.fset(instance, pythonqt.convert(self.kind, value, self.where))


def _signal(overloads: list[str]) -> Any:
    lists = [[each for each in overload.strip("()").split(",") if each] for overload in overloads]
    return Signal(*[tuple(pythonqt.TYPES.get(each, object) for each in some) for some in lists])


def _constructor(name: str, base: type) -> Callable[..., None]:
    def __init__(self: Any, *arguments: Any, **keywords: Any) -> None:
        if keywords:
            raise ValueError(f"{name} takes no keyword arguments: {', '.join(keywords)}")
        if "_own" not in self.__dict__:
            self.__dict__["_own"] = types.SimpleNamespace(stored={})
        text = arguments[0] if arguments and isinstance(arguments[0], str) else None
        base.__init__(self, *arguments[text is not None :])
        if text is not None:
            self.text = text
        construct = vars(BEHAVIOR.get(name, object)).get("construct")
        if construct is not None:
            construct(self)

    return __init__


class Namespace(types.ModuleType):
    """A module such as `ctk`: every class that the table lists, and nothing else."""

    def __init__(self, name: str, prefix: str) -> None:
        super().__init__(name)
        self.__dict__["_prefix"] = prefix

    def __getattr__(self, name: str) -> type:
        if name.startswith(self._prefix) and name in api.classes():
            return make(name)
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")

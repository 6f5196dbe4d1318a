"""Classes of Slicer and CTK, made from the table.

A class gets exactly the members that the table lists. Behavior comes from a class of the same
name that was given to `behavior`; what has none raises NotImplementedError when it is used, since
a host that pretends is worse than none. The state of a behavior lives in `self._own`.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from Qt.QtCore import Signal

from SlicerHost import api, pythonqt, qt

BEHAVIOR: dict[str, type] = {}
_made: dict[str, type] = {}
_SIGNAL_TYPES = {"bool": bool, "int": int, "double": float, "QString": str, "QStringList": list}


def behavior(cls: type) -> type:
    BEHAVIOR[cls.__name__] = cls
    return cls


class Property:
    """A property of a stand-in, converted as PythonQt would and read-only where the table says."""

    def __init__(self, name: str, kind: str, implemented: property | None) -> None:
        self.name, self.implemented = name, implemented
        self.kind, _, self.read_only = kind.partition(" (read only")

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        value = self._part("fget", instance)(instance)
        return tuple(value) if self.kind == "QStringList" else value

    def __set__(self, instance: Any, value: Any) -> None:
        where = f"property '{self.name}' of {type(instance).__name__}"
        if self.read_only:
            raise AttributeError(f"{where} is read only")
        self._part("fset", instance)(instance, pythonqt.convert(self.kind, value, where))

    def _part(self, part: str, instance: Any) -> Callable[..., Any]:
        found = getattr(self.implemented, part, None)
        if found is None:
            raise NotImplementedError(_says(type(instance).__name__, self.name))
        return found


def stored(default: Any) -> property:
    """A property that is remembered and read back, and does nothing else."""
    key = object()

    def get(self: Any) -> Any:
        value = self._own.stored.get(key, default)
        return list(value) if isinstance(value, list) else value

    return property(get, lambda self, value: self._own.stored.__setitem__(key, value))


def in_row(parent: Any, *widgets: Any) -> None:
    row = qt.QHBoxLayout(parent)
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)


def _says(owner: str, name: str) -> str:
    return f"{owner}.{name} has no behavior in the host"


def _missing(owner: str, name: str) -> Callable[..., Any]:
    def method(self: Any, *arguments: Any) -> Any:
        raise NotImplementedError(_says(owner, name))

    return method


def _setter(name: str) -> Callable[[Any, Any], None]:
    return lambda self, value: setattr(self, name, value)


def _signal(overloads: list[str]) -> Any:
    def types_of(overload: str) -> tuple[Any, ...]:
        arguments = [each for each in overload.strip("()").split(",") if each]
        return tuple(_SIGNAL_TYPES.get(each, object) for each in arguments)

    return Signal(*[types_of(each) for each in overloads])


def make(name: str) -> type:
    """The class of that name: Slicer's or CTK's from the table, or Qt's own."""
    if name in _made:
        return _made[name]
    if name not in api.classes():
        return getattr(qt, name)
    entry, does = api.classes()[name], BEHAVIOR.get(name, object)
    inherited = {key for each, _ in api.chain(name) for key in vars(BEHAVIOR.get(each, object))}
    base = make(entry["bases"][0]) if entry["bases"] else qt.QObject
    body: dict[str, Any] = {"stand_in": True, "__doc__": entry["header"]}
    body |= {key: _signal(overloads) for key, overloads in entry["signals"].items()}
    for method in [*entry["slots"], *entry["invokable"], *api.ALSO.get(name, ())]:
        target = method[3:4].lower() + method[4:]
        is_setter = method.startswith("set") and target in api.properties(name)
        if method not in inherited:
            body[method] = _setter(target) if is_setter else _missing(name, method)
    body |= {key: value for key, value in vars(does).items() if not key.startswith("__")}
    for key, kind in entry["properties"].items():
        if key in inherited and key not in vars(does):
            continue
        body[key] = Property(key, kind, vars(does).get(key))
    body |= {"__init__": _constructor(name, base), "_signal": _signal_of}
    _made[name] = cls = type(qt.QObject)(name, (base,), body)
    cls.__setattr__ = pythonqt._set_attribute
    return cls


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


def _signal_of(self: Any, signature: str) -> Any:
    """The signal of that full signature, if it is one of the table's."""
    name, _, arguments = signature.rstrip(")").partition("(")
    if signature not in api.signatures(type(self).__name__, "signals"):
        return None
    found = getattr(self, name)
    overloads = [
        each for _, e in api.chain(type(self).__name__) for each in e["signals"].get(name, [])
    ]
    if len(overloads) == 1:
        return found
    kinds = tuple(_SIGNAL_TYPES.get(each, object) for each in arguments.split(",") if each)
    return found[kinds[0] if len(kinds) == 1 else kinds]


class Namespace(types.ModuleType):
    """A module such as `ctk`: every class that the table lists, and nothing else."""

    def __init__(self, name: str, prefix: str) -> None:
        super().__init__(name)
        self.__dict__["_prefix"] = prefix

    def __getattr__(self, name: str) -> type:
        if name.startswith(self._prefix) and name in api.classes():
            return make(name)
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")

"""Classes of Slicer and CTK, made from the table.

A class gets exactly the members that the table lists. Behavior comes from a class of the same
name that was given to `behavior`; what has none raises NotImplementedError when it is used, since
a host that pretends is worse than none. The state of a behavior lives in `self._own`.
"""

import operator
import types

from Qt.QtCore import Property, Signal

from SlicerHost import api, pythonqt, qt

BEHAVIOR = {}
_made = {}


def behavior(**kept):
    """Give a class of the table its behavior; kept: properties that do nothing but keep values."""

    def give(cls):
        for name, default in kept.items():
            setattr(cls, name, stored(default))
        BEHAVIOR[cls.__name__] = cls
        return cls

    return give


def stored(default, then=lambda self: None):
    """A property that is remembered and read back; then: called with the object after a change."""
    key = object()

    def write(self, value):
        self._own.stored[key] = value
        then(self)

    return property(lambda self: self._own.stored.get(key, default), write)


def part(name):
    """A method that returns a part of the object's state."""
    read = operator.attrgetter(f"_own.{name}")
    return lambda self: read(self)


def in_row(parent, *widgets):
    row = qt.QHBoxLayout(parent)
    row.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        row.addWidget(widget)


def make(name):
    """The class of that name: Slicer's or CTK's from the table, or Qt's own."""
    if name in _made:
        return _made[name]
    if name not in api.classes():
        return getattr(qt, name)
    entry, does = api.classes()[name], vars(BEHAVIOR.get(name, object))
    inherited = {key for each, _ in api.chain(name) for key in vars(BEHAVIOR.get(each, object))}
    properties = {key for _, each in api.chain(name) for key in each["properties"]}
    base = make(entry["bases"][0]) if entry["bases"] else qt.QObject
    body = {"stand_in": True, "__doc__": entry["header"]}
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


def missing(owner, name):
    def without_behavior(self, *arguments):
        text = f"{owner}.{name} has no behavior in the host"
        pythonqt.refused.append(text)  # Qt's loader of forms keeps exceptions for itself
        raise NotImplementedError(text)

    return without_behavior


def _setter(name):
    return lambda self, value: setattr(self, name, value)


class StandInProperty(Property):
    """One that forms can set, converted as PythonQt would and read-only where the table says."""

    def __init__(self, owner, name, kind, does):
        self.kind, _, read_only = kind.partition(" (read only")
        self.where, without = f"property '{name}' of {owner}", missing(owner, name)
        read, write = getattr(does, "fget", None), getattr(does, "fset", None)
        kind = self.kind if self.kind in pythonqt.KINDS else "QVariant"
        super().__init__(kind, read or without, None if read_only else write or without)

    def __get__(self, instance, owner):
        if instance is None:
            return self
        value = self.fget(instance)
        return tuple(value) if self.kind == "QStringList" else value

    def __set__(self, instance, value):
        if self.fset is None:
            raise AttributeError(f"{self.where} is read only")
        self.fset(instance, pythonqt.convert(self.kind, value, self.where))


def _signal(overloads):
    lists = [[each for each in overload.strip("()").split(",") if each] for overload in overloads]
    return Signal(*[tuple(pythonqt.TYPES.get(each, object) for each in some) for some in lists])


def _constructor(name, base):
    def __init__(self, *arguments, **keywords):
        vars(self).setdefault("_own", types.SimpleNamespace(stored={}))
        texts = [each for each in arguments[:1] if isinstance(each, str)]
        base.__init__(self, *arguments[len(texts) :], **keywords)
        for text in texts:
            self.text = text
        vars(BEHAVIOR.get(name, object)).get("construct", lambda self: None)(self)

    return __init__


class Namespace(types.ModuleType):
    """A module such as `ctk`: every class that the table lists, and nothing else."""

    def __init__(self, name, prefix):
        super().__init__(name)
        self.__dict__["_prefix"] = prefix

    def __getattr__(self, name):
        if name.startswith(self._prefix) and name in api.classes():
            return make(name)
        raise AttributeError(f"module '{self.__name__}' has no attribute '{name}'")

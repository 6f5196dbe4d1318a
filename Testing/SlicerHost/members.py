"""What a Qt class offers, asked of the table for Slicer's and CTK's part and of Qt for the rest."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from SlicerHost import api, pythonqt, qt

#: What PythonQt adds to every object.
_EVERYWHERE = {"name", "className", "delete", "connect", "disconnect"}


@dataclass(frozen=True)
class Members:
    properties: dict[str, str]  # name -> kind, with " (read only" where it is
    signals: frozenset[str]  # full signatures
    slots: frozenset[str]  # full signatures
    methods: frozenset[str]

    @property
    def signal_names(self) -> set[str]:
        return {each.partition("(")[0] for each in self.signals}

    @property
    def all(self) -> set[str]:
        return {*self.properties, *self.signal_names, *self.methods, *_EVERYWHERE}


def exists(class_name: str) -> bool:
    return class_name in api.classes() or hasattr(qt, class_name)


@functools.cache
def of(class_name: str) -> Members:
    """Of a class named in the table or in Qt."""
    native = getattr(qt, api.qt_base(class_name) if class_name in api.classes() else class_name)
    properties, signals, slots = _of_qt(native)
    listed = api.members(class_name)
    return Members(
        {**properties, **api.properties(class_name)},
        frozenset(signals | api.signatures(class_name, "signals")),
        frozenset(
            slots | api.signatures(class_name, "slots") | api.signatures(class_name, "invokable")
        ),
        frozenset(
            (listed | {each for each in dir(native) if not each.startswith("_")}) - set(properties)
        ),
    )


def _of_qt(native: Any) -> tuple[dict[str, str], set[str], set[str]]:
    meta = getattr(native, "staticMetaObject", None)
    if meta is None or not issubclass(native, pythonqt.QObject):
        return {}, set(), set()
    described = [meta.property(index) for index in range(meta.propertyCount())]
    properties = {
        each.name(): each.typeName() + ("" if each.isWritable() else " (read only)")
        for each in described
    }
    methods = [meta.method(index) for index in range(meta.methodCount())]
    kinds = pythonqt.QtCore.QMetaMethod.MethodType
    by_kind = {
        kind: {
            bytes(each.methodSignature()).decode() for each in methods if each.methodType() == kind
        }
        for kind in (kinds.Signal, kinds.Slot)
    }
    return properties, by_kind[kinds.Signal], by_kind[kinds.Slot]

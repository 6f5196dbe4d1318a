"""Reads .ui files as Slicer does, and refuses what Slicer would only warn about.

PySide6's loader makes Qt's own widgets. Ours makes those of CTK and Slicer, and connects what the
form connects; each class, property, signal and slot is checked before.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6.QtUiTools import QUiLoader as _QUiLoader

from SlicerHost import api, pythonqt, qt
from SlicerHost.standins import make


class FormError(RuntimeError):
    """The form names something that Slicer does not have."""


class QUiLoader(_QUiLoader):
    def createWidget(self, class_name: str, parent: Any = None, name: str = "") -> Any:
        if class_name not in api.classes():
            return super().createWidget(class_name, parent, name)
        widget = make(class_name)(parent) if parent is not None else make(class_name)()
        widget.setObjectName(name)
        return widget

    def load(self, device: Any, parent: Any = None) -> Any:
        form = ElementTree.fromstring(bytes(device.readAll().data()))
        for custom in form.iter("customwidget"):
            if custom.findtext("class") not in api.classes():
                raise FormError(f"Slicer has no widget class {custom.findtext('class')}")
        for widget in form.iter("widget"):
            _check_properties(widget.get("name"), widget.get("class"), widget.findall("property"))
        wires = list(form.iter("connection"))
        for connections in form.findall("connections"):
            form.remove(connections)  # Qt's loader does not know the signals of stand-ins
        buffer = qt.QBuffer()
        buffer.setData(ElementTree.tostring(form))
        buffer.open(qt.QIODevice.ReadOnly)
        made = super().load(buffer, parent) if parent else super().load(buffer)
        if made is None:
            raise FormError(self.errorString())
        for wire in wires:
            _connect(made, *map(wire.findtext, ("sender", "signal", "receiver", "slot")))
        return made


def _check_properties(name: str, class_name: str, properties: list[Any]) -> None:
    try:
        cls = make(class_name)
    except AttributeError as error:
        raise FormError(f"{name}: Slicer has no widget class {class_name}") from error
    for key in (each.get("name") for each in properties if each.get("stdset") != "0"):
        if key == "buddy":
            continue  # Qt's loader makes setBuddy() of it, in Slicer too
        if cls.staticMetaObject.indexOfProperty(key) < 0:
            raise FormError(f"{name}: {class_name} has no property {key}")
        set_it = getattr(pythonqt.find(cls, key), "fset", None)
        if getattr(set_it, "__name__", "") == "without_behavior":
            set_it(None)


def _named(form: Any, name: str) -> Any:
    found = form if form.objectName == name else form.findChild(qt.QObject, name)
    if found is None:
        raise FormError(f"the form connects '{name}', which it does not have")
    return found


def _connect(form: Any, sender: str, signal: str, receiver: str, slot: str) -> None:
    sends, takes = _named(form, sender), _named(form, receiver)
    known = api.signatures(takes.className(), "slots")
    if slot not in known and takes.metaObject().indexOfSlot(slot) < 0:
        raise FormError(f"{receiver}: {takes.className()} has no slot {slot}")
    if not sends.connect(signal, takes, slot):
        raise FormError(f"{sender}: {sends.className()} has no signal {signal}")

"""Reads .ui files as Slicer does, and refuses what Slicer would only warn about.

PySide6's loader makes Qt's own widgets. Ours makes those of CTK and Slicer, sets their properties
and connects what the form connects, each checked against the table.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from PySide6.QtUiTools import QUiLoader as _QUiLoader

from SlicerHost import api, qt
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
        context = form.findtext("class") or ""
        later = [
            each for widget in form.iter("widget") for each in _take_properties(widget, context)
        ]
        wires = [
            [wire.findtext(part) for part in ("sender", "signal", "receiver", "slot")]
            for wire in form.iter("connection")
        ]
        for connections in form.findall("connections"):
            form.remove(connections)
        buffer = qt.QBuffer()
        buffer.setData(ElementTree.tostring(form))
        buffer.open(qt.QIODevice.ReadOnly)
        widget = super().load(buffer, parent) if parent else super().load(buffer)
        if widget is None:
            raise FormError(self.errorString())
        for name, attribute, value in later:
            setattr(_named(widget, name), attribute, value)
        for sender, signal, receiver, slot in wires:
            _wire(_named(widget, sender), signal, _named(widget, receiver), slot)
        return widget


def _named(form: Any, name: str) -> Any:
    if form.objectName == name:
        return form
    found = form.findChild(qt.QObject, name)
    if found is None:
        raise FormError(f"the form connects or sets '{name}', which it does not have")
    return found


def _take_properties(widget: Any, context: str) -> list[tuple[str, str, Any]]:
    """Take the stand-ins' own properties out of the form, to be set once it stands.

    context: of the form's texts, for their translation.
    """
    name, class_name = widget.get("name"), widget.get("class")
    own, taken = api.properties(class_name), []
    native = getattr(qt, api.qt_base(class_name), None)
    if native is None:
        raise FormError(f"{name}: Slicer has no widget class {class_name}")
    for entry in widget.findall("property"):
        key = entry.get("name")
        if key in own:
            widget.remove(entry)
            taken.append((name, key, _value(entry[0], context)))
        elif key == "buddy":
            continue  # Qt's loader makes setBuddy() of it, in Slicer too
        elif entry.get("stdset") != "0" and native.staticMetaObject.indexOfProperty(key) < 0:
            raise FormError(f"{name}: {class_name} has no property {key}")
    return taken


def _value(element: Any, context: str) -> Any:
    text = element.text or ""
    if element.tag == "string" and text and element.get("notr") != "true":
        return qt.QCoreApplication.translate(context, text)
    convert = {"bool": lambda t: t == "true", "number": int, "double": float, "float": float}
    if element.tag == "stringlist":
        return [each.text or "" for each in element.findall("string")]
    return convert.get(element.tag, str)(text)


def _wire(sender: Any, signal: str, receiver: Any, slot: str) -> None:
    known = api.signatures(receiver.metaObject().className(), "slots")
    if slot not in known and receiver.metaObject().indexOfSlot(slot) < 0:
        raise FormError(f"{receiver.objectName}: {receiver.className()} has no slot {slot}")
    if not sender.connect(signal, receiver, slot):
        raise FormError(f"{sender.objectName}: {sender.className()} has no signal {signal}")

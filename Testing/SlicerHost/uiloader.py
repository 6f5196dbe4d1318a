"""Reads .ui files as Slicer does, and refuses what Qt's loader would only warn about."""

import xml.etree.ElementTree as ElementTree

from PySide6.QtUiTools import QUiLoader as _QUiLoader

from SlicerHost import api, qt
from SlicerHost.standins import make


class FormError(RuntimeError):
    """The form names something that Slicer does not have."""


class QUiLoader(_QUiLoader):
    """Makes the widgets of CTK and Slicer, and connects what their forms connect."""

    def createWidget(self, class_name, parent=None, name=""):
        if class_name not in api.classes():
            return super().createWidget(class_name, parent, name)
        widget = make(class_name)(parent) if parent is not None else make(class_name)()
        widget.setObjectName(name)
        return widget

    def load(self, device, parent=None):
        form = ElementTree.fromstring(bytes(device.readAll().data()))
        for widget in form.iter("widget"):
            _check(widget, widget.get("class"))
        for custom in form.iter("customwidget"):
            _check(custom, custom.findtext("class"))
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


def _check(widget, class_name):
    if class_name not in api.classes() and not hasattr(qt, class_name):
        raise FormError(f"{widget.get('name', '')}: Slicer has no widget class {class_name}")
    known = make(class_name).staticMetaObject.indexOfProperty
    for entry in widget.findall("property"):
        name, is_dynamic = entry.get("name"), entry.get("stdset") == "0"
        if known(name) < 0 and name != "buddy" and not is_dynamic:
            raise FormError(f"{widget.get('name')}: {class_name} has no property {name}")


def _named(form, name):
    found = form if form.objectName == name else form.findChild(qt.QObject, name)
    if found is None:
        raise FormError(f"the form connects '{name}', which it does not have")
    return found


def _connect(form, sender, signal, receiver, slot):
    sends, takes = _named(form, sender), _named(form, receiver)
    known = api.signatures(takes.className(), "slots")
    if slot not in known and takes.metaObject().indexOfSlot(slot) < 0:
        raise FormError(f"{receiver}: {takes.className()} has no slot {slot}")
    if not sends.connect(signal, takes, slot):
        raise FormError(f"{sender}: {sends.className()} has no signal {signal}")

"""Checks .ui files against the table: classes, properties, connections, layouts."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

from SlicerHost import members

#: Containers that place their pages themselves.
_PLACE_THEMSELVES = {"QTabWidget", "QStackedWidget", "QSplitter", "QScrollArea", "QToolBox"}


def named_classes(form: Path) -> dict[str, str]:
    """Name -> class of everything in the form that code can reach."""
    root = ElementTree.parse(form).getroot()
    elements = (each for kind in ("widget", "layout", "action") for each in root.iter(kind))
    return {
        each.get("name", ""): each.get("class", "QAction") for each in elements if each.get("name")
    }


def check(form: Path) -> Iterator[str]:
    root, classes = ElementTree.parse(form).getroot(), named_classes(form)
    for name, class_name in classes.items():
        if not members.exists(class_name):
            yield f"{form.name}: {name}: Slicer has no class {class_name}"
            return
    for widget in root.iter("widget"):
        yield from (f"{form.name}: {each}" for each in _check_widget(widget))
    for wire in root.iter("connection"):
        yield from (f"{form.name}: {each}" for each in _check_connection(wire, classes))


def _check_widget(widget: ElementTree.Element) -> Iterator[str]:
    name, class_name = widget.get("name"), widget.get("class", "")
    known = members.of(class_name).properties
    for entry in widget.findall("property"):
        key = entry.get("name", "")
        if entry.get("stdset") != "0" and key not in known and key != "buddy":
            yield f"{name}: {class_name} has no property {key}"
        if known.get(key) == "QStringList" and entry[0].tag != "stringlist":
            yield f"{name}: {key} is a list"
    if widget.find("widget") is not None and class_name not in _PLACE_THEMSELVES:
        yield f"{name}: what is inside is placed by hand; give it a layout"


def _check_connection(wire: ElementTree.Element, classes: dict[str, str]) -> Iterator[str]:
    ends = (("sender", "signal"), ("receiver", "slot"))
    for end, kind in ends:
        name, signature = wire.findtext(end, ""), wire.findtext(kind, "")
        if name not in classes:
            yield f"a connection names '{name}', which the form does not have"
            continue
        offered = members.of(classes[name])
        if signature not in (offered.signals if kind == "signal" else offered.slots):
            yield f"{name}: {classes[name]} has no {kind} {signature}"

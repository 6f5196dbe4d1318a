"""What Slicer's and CTK's Qt classes really offer: api.json, written by make_api.py."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SECTIONS = ("properties", "signals", "slots", "invokable")

#: Members that slicer.util, which is genuine, calls though the table, made from declarations in
#: headers, does not list them. A test looks for each of them there.
ALSO = {
    "qSlicerAbstractCoreModule": {"widgetRepresentation", "createNewWidgetRepresentation", "logic"},
}


@functools.cache
def table() -> dict[str, Any]:
    return json.loads((HERE / "api.json").read_text(encoding="utf-8"))


def classes() -> dict[str, Any]:
    return table()["qt"]


def chain(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The class and its bases, as long as they are Slicer's or CTK's."""
    while name in classes():
        entry = classes()[name]
        yield name, entry
        name = entry["bases"][0] if entry["bases"] else ""


def qt_base(name: str) -> str:
    """The first base that is Qt's own."""
    for _, entry in chain(name):
        base = entry["bases"][0] if entry["bases"] else "QObject"
        if base not in classes():
            return base
    return name


def properties(name: str) -> dict[str, str]:
    return {key: kind for _, entry in chain(name) for key, kind in entry["properties"].items()}


def members(name: str) -> set[str]:
    listed = {key for _, entry in chain(name) for section in SECTIONS for key in entry[section]}
    return listed.union(*(ALSO.get(each, set()) for each, _ in chain(name)))


def signatures(name: str, section: str) -> set[str]:
    """Full signatures, one for each way in which arguments may be left out."""
    found = set()
    for _, entry in chain(name):
        for method, overloads in entry[section].items():
            for overload in overloads:
                found |= {method + arguments for arguments in _with_defaults(overload)}
    return found


def _with_defaults(overload: str) -> Iterator[str]:
    arguments = [each for each in overload.strip("()").split(",") if each]
    yield "(" + ",".join(each.rstrip("=") for each in arguments) + ")"
    while arguments and arguments[-1].endswith("="):
        arguments.pop()
        yield "(" + ",".join(each.rstrip("=") for each in arguments) + ")"

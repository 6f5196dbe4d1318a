"""What Slicer's and CTK's Qt classes really offer: api.json, written by make_api.py."""

import functools
import json
from pathlib import Path

SECTIONS = ("properties", "signals", "slots", "invokable")
#: Members that slicer.util, which is genuine, calls though the table, made from declarations in
#: headers, does not list them. A test looks for each of them there.
ALSO = {
    "qSlicerAbstractCoreModule": {"widgetRepresentation", "createNewWidgetRepresentation", "logic"},
}
#: Classes that the table lacks, after their headers.
OTHERS = {
    "qSlicerDICOMExportable": {
        "header": "Modules/Scripted/DICOMLib/Widgets/qSlicerDICOMExportable.h",
        "bases": ["QObject"],
        "properties": dict.fromkeys(("name", "tooltip", "pluginClass", "directory"), "QString")
        | {"subjectHierarchyItemID": "int", "confidence": "double"},
        "signals": {},
        "slots": {},
        "invokable": {"tag": ["(QString)"], "setTag": ["(QString,QString)"]},
    }
}


@functools.cache
def table():
    return json.loads(Path(__file__).with_name("api.json").read_text(encoding="utf-8"))


@functools.cache
def classes():
    return table()["qt"] | OTHERS


def chain(name):
    """The class and its bases, as long as they are Slicer's or CTK's."""
    while name in classes():
        entry = classes()[name]
        yield name, entry
        name = entry["bases"][0] if entry["bases"] else ""


def members(name):
    listed = {key for _, entry in chain(name) for section in SECTIONS for key in entry[section]}
    return listed.union(*(ALSO.get(each, set()) for each, _ in chain(name)))


def signatures(name, section):
    """Full signatures, one for each way in which arguments may be left out."""
    return {
        f"{method}({','.join(arguments).replace('=', '')})"
        for _, entry in chain(name)
        for method, overloads in entry[section].items()
        for overload in overloads
        for arguments in _with_defaults(overload.strip("()").split(","))
    }


def _with_defaults(arguments):
    yield arguments
    if arguments[-1].endswith("="):
        yield from _with_defaults(arguments[:-1] or [""])

"""Which DICOM images a node was made from, as far as its attributes tell.

A node that our page Load made knows its path and series; one that Slicer's module DICOM made knows
its instances, whose files the DICOM database finds; a result knows what its input knew.
"""

import json
import os
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import bridge
from MedEnhancePanels.errors import PanelError

#: Attributes: where a node was loaded from, and which of the series there.
PATH, SERIES = "MedEnhance.source", "MedEnhance.series"
#: On a result: what its input knew, as JSON.
INHERITED = "MedEnhance.dicomSource"
#: Slicer's, on what its module DICOM has loaded: UIDs with spaces between them.
INSTANCES = "DICOM.instanceUIDs"
#: Endings of what is a volume in itself, and no DICOM image.
_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".ucv")


@dataclass(frozen=True)
class DicomSource:
    """path and series of a load, or the instances of images in Slicer's DICOM database."""

    path: str = ""
    series: str = ""
    instances: tuple = ()

    def toLike(self, folder):
        """As the job `export` takes it; a list of files is written into `folder`.

        Raises PanelError where files are gone, or the database does not know them.
        """
        if self.path:
            if not os.path.exists(self.path):
                raise _gone(self.path)
            return {"path": self.path, **({"series": self.series} if self.series else {})}
        files = filesOf(self.instances)
        path = os.path.join(folder, "source.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{each}\n" for each in files)
        return {"path": path}


def remember(node, path, series=None):
    """Say on a node, and on the frames of a sequence, what it was loaded from."""
    for each in {node, *bridge.frameNodes(node)}:
        each.SetAttribute(PATH, path)
        each.SetAttribute(SERIES, str(series) if series else None)


def inherit(source, node):
    """A result keeps what its source knew: the source may leave the scene."""
    found = sourceOf(source)
    if found is not None:
        told = {"path": found.path, "series": found.series, "instances": list(found.instances)}
        node.SetAttribute(INHERITED, json.dumps(told))


def sourceOf(node):
    """The DicomSource of a node, or None for what never was DICOM."""
    for each in (node, *bridge.frameNodes(node)[:1]):
        found = _toldBy(each) if each is not None else None
        if found is not None:
            return found
    return None


def filesOf(instances):
    """The files of images in Slicer's DICOM database; PanelError where one is missing."""
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        raise PanelError(
            _("The images came through Slicer's DICOM database, which is not open"),
            _("Open the module DICOM once, so that it opens its database, then try again."),
            "input",
        )
    files = [database.fileForInstance(uid) for uid in instances]
    for uid, file in zip(instances, files, strict=True):
        if not file:
            raise PanelError(
                _("Slicer's DICOM database does not know the image {uid} any more").format(uid=uid),
                _("Import the series again in the module DICOM, then try again."),
                "input",
            )
        if not os.path.exists(file):
            raise _gone(file)
    return files


def _toldBy(node):
    instances = (node.GetAttribute(INSTANCES) or "").split()
    if instances:
        return DicomSource(instances=tuple(dict.fromkeys(instances)))
    try:
        told = json.loads(node.GetAttribute(INHERITED) or "null")
    except ValueError:  # edited beyond use
        told = None
    if isinstance(told, dict):
        return DicomSource(
            str(told.get("path", "")),
            str(told.get("series", "")),
            tuple(map(str, told.get("instances", ()))),
        )
    path = node.GetAttribute(PATH) or ""
    isResult = bool(node.GetAttribute("MedEnhance.derived")) and not os.path.isabs(path)
    if not path or isResult or path.lower().endswith(_VOLUMES):
        return None
    return DicomSource(path, node.GetAttribute(SERIES) or "")


def _gone(path):
    return PanelError(
        _("{path} is gone, from where the volume was loaded").format(path=path),
        _("Put it back, or export it without its source, under a patient that you name."),
        "input",
    )

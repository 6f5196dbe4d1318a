"""The DICOM images that a node was made from, by its attributes; and Slicer's DICOM database."""

import os

import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge
from MedEnhancePanels.errors import PanelError

#: Slicer's attribute of nodes that its module DICOM has loaded: UIDs separated by spaces.
INSTANCES = "DICOM.instanceUIDs"
#: Our attribute of a result: the images of its input.
INHERITED = "MedEnhance.instanceUIDs"
#: The series that a compressed file was made from, and the study of it.
SERIES, STUDY = "MedEnhance.series", "MedEnhance.study"
#: DICOM tags of the UIDs of a study and of a series.
_STUDY_TAG, _SERIES_TAG = "0020,000D", "0020,000E"


def database():
    """Return Slicer's DICOM database, or None where none is open."""
    opened = getattr(slicer, "dicomDatabase", None)  # absent where the module DICOM is disabled
    return opened if opened is not None and opened.isOpen else None


def openDatabase():
    """Return Slicer's DICOM database; raises PanelError where none is open."""
    opened = database()
    if opened is None:
        hint = _("Open the module DICOM once, which opens it, or export to a folder.")
        raise PanelError(_("Slicer's DICOM database is not open"), hint, "output")
    return opened


def instancesOf(node):
    """Return the UIDs of the images that a node was made from; empty where they are not known."""
    for each in _nodesToAsk(node):
        uids = (each.GetAttribute(INSTANCES) or each.GetAttribute(INHERITED) or "").split()
        if uids:
            return list(dict.fromkeys(uids))
        series = each.GetAttribute(SERIES)
        if series and database() is not None:
            return list(database().instancesForSeries(series))
    return []


def missingSeriesOf(node):
    """Return the UID of a node's series where none of its images is known, or ""."""
    return "" if instancesOf(node) else _attribute(node, SERIES)


def uidsOf(node):
    """Return UIDs of a node's study and series for the job `compress`; None if not known."""
    study, series = _attribute(node, STUDY), _attribute(node, SERIES)
    instances = instancesOf(node)
    if instances and database() is not None:
        known = [valueOf(instances[0], tag) for tag in (_STUDY_TAG, _SERIES_TAG)]
        study, series = known if all(known) else (study, series)
    isUid = series.count(".") > 1
    return {"study": study, "series": series} if study and isUid else None


def valueOf(instance, tag):
    """Look up an element of an image in the database, such as "0010,0020"."""
    return openDatabase().instanceValue(instance, tag) or ""


def listFiles(instances, folder):
    """Write the paths of images into a file, as jobs take a series; a generator of steps.

    Its return value is the path of that file. Raises PanelError where images are gone, or the
    database does not know them.
    """
    opened, paths = openDatabase(), []
    for uid in instances:
        path = opened.fileForInstance(uid)
        if not path or not os.path.exists(path):
            message = _("The image {uid} is no longer in Slicer's DICOM database")
            hint = _("Import the series again, or export under a patient ID that you enter.")
            raise PanelError(message.format(uid=uid), hint, "input")
        paths.append(path)
        yield
    listed = os.path.join(folder, "source.txt")
    with open(listed, "w", encoding="utf-8") as file:
        file.writelines(f"{path}\n" for path in paths)
    return listed


def inherit(source, node):
    """Note on a result which images its input was made from, as that may leave the scene."""
    instances = " ".join(instancesOf(source))
    node.SetAttribute(INHERITED, instances or None)
    rememberSeries(node, _attribute(source, SERIES), _attribute(source, STUDY))


def rememberSeries(node, series, study=""):
    """Record on a node, and on the frames of a sequence, the series that its file states."""
    for each in {node, *bridge.frameNodes(node)} if series else ():
        each.SetAttribute(SERIES, series)
        each.SetAttribute(STUDY, study or None)


def _nodesToAsk(node):
    """Return the nodes with its attributes: itself, and the first frame of a sequence."""
    return [each for each in (node, *bridge.frameNodes(node)[:1]) if each is not None]


def _attribute(node, name):
    return next(filter(None, (each.GetAttribute(name) for each in _nodesToAsk(node))), "")

"""Which DICOM images a node was made from, by its attributes; and Slicer's DICOM database."""

import json
import os
from dataclasses import asdict, dataclass

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge

#: Attributes: the series that a node was made from, and the study of it.
SERIES, STUDY = "MedEnhance.series", "MedEnhance.study"
#: On a result: what its input knew, as JSON.
INHERITED = "MedEnhance.dicomSource"
#: Slicer's, on what its module DICOM has loaded: UIDs with spaces between them.
INSTANCES = "DICOM.instanceUIDs"
#: Where DICOM keeps the UIDs of a study and of a series.
_STUDY_TAG, _SERIES_TAG = "0020,000D", "0020,000E"
#: Images that are looked for in one turn of Qt's events.
_AT_ONCE = 25


def database():
    """The database, or None where Slicer has none open."""
    found = getattr(slicer, "dicomDatabase", None)  # absent where the module DICOM is disabled
    return found if found is not None and found.isOpen else None


def holds(series):
    """Whether a series is known to the database, by its UID."""
    found = database()
    return found is not None and bool(found.filesForSeries(series, 1))


def problem():
    """Why nothing can go into the database, in a sentence; empty where it can."""
    if database() is not None:
        return ""
    return _("Slicer's DICOM database is not open: open the module DICOM once to open it.")


def checkOpen():
    """Raise PanelError where no database is open."""
    if database() is None:
        raise PanelError(
            _("Slicer's DICOM database is not open"),
            _("Open the module DICOM once to open it, or export to a folder."),
            "output",
        )


@dataclass(frozen=True)
class DicomSource:
    """The instances, or the series, in Slicer's DICOM database.

    study: its UID, where it is known without looking.
    """

    series: str = ""
    instances: tuple = ()
    study: str = ""

    def uids(self):
        """UIDs of study and series, as the job `compress` takes them; None if not known."""
        study, series = self.study, self.series
        if self.instances and database() is not None:
            value, first = database().instanceValue, self.instances[0]
            study, series = value(first, _STUDY_TAG), value(first, _SERIES_TAG)
        isUid = series.count(".") > 1
        return {"study": study, "series": series} if study and isUid else None

    def toLike(self, folder):
        """As the job `export` takes it; a list of files is written into `folder`.

        A generator of fractions with that as its return value. Raises PanelError where files are
        gone, or the database does not know them.
        """
        files = yield from (_filesOf(self.instances) if self.instances else self._filesOfSeries())
        path = os.path.join(folder, "source.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{each}\n" for each in files)
        return {"path": path}

    def _filesOfSeries(self):
        files = _openDatabase().filesForSeries(self.series)
        if not files:
            raise PanelError(
                _("The series {uid} is no longer in Slicer's DICOM database").format(
                    uid=self.series
                ),
                _("Import the series again in the module DICOM, then try again."),
                "input",
            )
        yield from _checkThere(files)
        return files


def rememberSeries(node, series, study=""):
    """Record on a node, and on the frames of a sequence, the series that its file states."""
    for each in {node, *bridge.frameNodes(node)} if series else ():
        each.SetAttribute(SERIES, series)
        each.SetAttribute(STUDY, study or None)


def inherit(source, node):
    """Copy the DICOM source of a node to a result, as the node may leave the scene."""
    found = sourceOf(source)
    if found is not None:
        node.SetAttribute(INHERITED, json.dumps(asdict(found)))
    else:
        rememberSeries(node, unknownSeries(source), source.GetAttribute(STUDY) or "")


def seriesAndStudyOf(result):
    """The UIDs of the series that a job read and its study, as its manifest has them, or ""."""
    with open(result["manifest"], encoding="utf-8") as file:
        recorded = json.load(file).get("dicom", {})
    return recorded.get("series", ""), recorded.get("study", "")


def uidsOf(node):
    """The UIDs of a node's study and series, to be kept in a compressed file; or None."""
    found = sourceOf(node)
    if found is None:
        series = unknownSeries(node)
        study = next(filter(None, (each.GetAttribute(STUDY) for each in _nodesToAsk(node))), "")
        found = DicomSource(series=series, study=study)
    return found.uids()


def sourceOf(node):
    """The DicomSource of a node, or None for what never was DICOM."""
    return next(filter(None, map(_sourceIn, _nodesToAsk(node))), None)


def unknownSeries(node):
    """The UID of a node's series if none of its images can be found; otherwise ""."""
    if sourceOf(node) is not None:
        return ""
    return next(filter(None, (each.GetAttribute(SERIES) for each in _nodesToAsk(node))), "")


def _nodesToAsk(node):
    """The nodes with its attributes: itself, and the first frame of a sequence."""
    return [each for each in (node, *bridge.frameNodes(node)[:1]) if each is not None]


def _filesOf(instances):
    opened, files = _openDatabase(), []
    for uid in instances:
        file = opened.fileForInstance(uid)
        if not file:
            raise PanelError(
                _("The image {uid} is no longer in Slicer's DICOM database").format(uid=uid),
                _("Import the series again in the module DICOM, then try again."),
                "input",
            )
        files.append(file)
        if len(files) % _AT_ONCE == 0:
            yield len(files) / len(instances) / 2
    yield from _checkThere(files)
    return files


def _checkThere(files):
    for number, file in enumerate(files, 1):
        if not os.path.exists(file):
            raise PanelError(
                _("{path}, the source of the volume, no longer exists").format(path=file),
                _("Restore it, or export the volume under a patient ID that you enter."),
                "input",
            )
        if number % _AT_ONCE == 0:
            yield number / len(files)


def _openDatabase():
    found = database()
    if found is None:
        raise PanelError(
            _("The images were loaded from Slicer's DICOM database, which is not open"),
            _("Open the module DICOM once to open the database, then try again."),
            "input",
        )
    return found


def _sourceIn(node):
    instances = (node.GetAttribute(INSTANCES) or "").split()
    if instances:
        return DicomSource(instances=tuple(dict.fromkeys(instances)))
    try:
        recorded = json.loads(node.GetAttribute(INHERITED) or "null")
    except ValueError:  # edited beyond use
        recorded = None
    if isinstance(recorded, dict):
        return DicomSource(
            str(recorded.get("series", "")),
            tuple(map(str, recorded.get("instances", ()))),
            str(recorded.get("study", "")),
        )
    series, study = (node.GetAttribute(name) or "" for name in (SERIES, STUDY))
    known = series and holds(series)
    return DicomSource(series=series, study=study) if known else None

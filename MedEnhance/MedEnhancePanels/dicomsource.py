"""Which DICOM images a node was made from, as far as its attributes tell.

A node that our page Load made knows its path and series; one that Slicer's module DICOM made knows
its instances, one of a compressed file its series, whose files the DICOM database finds; a result
knows what its input knew.
"""

import json
import os
from dataclasses import asdict, dataclass

from slicer.i18n import tr as _

from MedEnhancePanels import bridge, dicomdatabase
from MedEnhancePanels.errors import PanelError

#: Attributes: where a node was loaded from, which of the series there, and the study of it.
PATH, SERIES, STUDY = "MedEnhance.source", "MedEnhance.series", "MedEnhance.study"
#: On a result: what its input knew, as JSON.
INHERITED = "MedEnhance.dicomSource"
#: Slicer's, on what its module DICOM has loaded: UIDs with spaces between them.
INSTANCES = "DICOM.instanceUIDs"
#: Endings of what is a volume in itself, and no DICOM image.
_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".ucv")
#: Where DICOM keeps the UIDs of a study and of a series.
_STUDY_TAG, _SERIES_TAG = "0020,000D", "0020,000E"
#: Images that are looked for in one turn of Qt's events.
_AT_ONCE = 25


@dataclass(frozen=True)
class DicomSource:
    """path and series of a load; or the instances, or the series, in Slicer's DICOM database.

    study: its UID, where it is known without looking.
    """

    path: str = ""
    series: str = ""
    instances: tuple = ()
    study: str = ""

    def uids(self):
        """Of study and series, as the job `compress` takes them; None where they are not known."""
        study, series = self.study, self.series
        if self.instances and dicomdatabase.database() is not None:
            database, first = dicomdatabase.database(), self.instances[0]
            study, series = (
                database.instanceValue(first, tag) for tag in (_STUDY_TAG, _SERIES_TAG)
            )
        series = series.partition("/")[0]  # what comes then names a part of it
        isUid = series.count(".") > 1
        return {"study": study, "series": series} if study and isUid else None

    def toLike(self, folder):
        """As the job `export` takes it; a list of files is written into `folder`.

        A generator of fractions with that as its return value. Raises PanelError where files are
        gone, or the database does not know them.
        """
        if self.path:
            if not os.path.exists(self.path):
                raise _gone(self.path)
            return {"path": self.path, **({"series": self.series} if self.series else {})}
        files = yield from (_filesOf(self.instances) if self.instances else self._filesOfSeries())
        path = os.path.join(folder, "source.txt")
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{each}\n" for each in files)
        return {"path": path}

    def _filesOfSeries(self):
        files = _openDatabase().filesForSeries(self.series)
        if not files:
            raise PanelError(
                _("Slicer's DICOM database does not know the series {uid} any more").format(
                    uid=self.series
                ),
                _("Import the series again in the module DICOM, then try again."),
                "input",
            )
        yield from _checkThere(files)
        return files


def remember(node, path, series=None, study=None):
    """Say on a node, and on the frames of a sequence, what it was loaded from."""
    for each in {node, *bridge.frameNodes(node)}:
        each.SetAttribute(PATH, path)
        each.SetAttribute(SERIES, str(series) if series else None)
        each.SetAttribute(STUDY, study or None)


def rememberSeries(node, series, study=""):
    """Say on a node, and on the frames of a sequence, of which series a file says that it is."""
    for each in {node, *bridge.frameNodes(node)} if series else ():
        each.SetAttribute(SERIES, series)
        each.SetAttribute(STUDY, study or None)


def inherit(source, node):
    """A result keeps what its source knew: the source may leave the scene."""
    found = sourceOf(source)
    if found is not None:
        node.SetAttribute(INHERITED, json.dumps(asdict(found)))
    else:
        rememberSeries(node, unknownSeries(source), source.GetAttribute(STUDY) or "")


def seriesAndStudyOf(result):
    """The UIDs of the series that a job read and its study, as its manifest has them, or ""."""
    with open(result["manifest"], encoding="utf-8") as file:
        told = json.load(file).get("dicom", {})
    return told.get("series", ""), told.get("study", "")


def uidsOf(node):
    """The UIDs of study and series that a node is of, for a compressed file to keep; or None."""
    found = sourceOf(node)
    if found is None:
        series = unknownSeries(node)
        study = next(filter(None, (each.GetAttribute(STUDY) for each in _tellers(node))), "")
        found = DicomSource(series=series, study=study)
    return found.uids()


def sourceOf(node):
    """The DicomSource of a node, or None for what never was DICOM."""
    return next(filter(None, map(_toldBy, _tellers(node))), None)


def unknownSeries(node):
    """The UID of the series that a node is of, where no image of it can be found; "" else."""
    if sourceOf(node) is not None:
        return ""
    return next(filter(None, (each.GetAttribute(SERIES) for each in _tellers(node))), "")


def _tellers(node):
    """The nodes whose attributes tell of it: itself, and the first frame of a sequence."""
    return [each for each in (node, *bridge.frameNodes(node)[:1]) if each is not None]


def _filesOf(instances):
    database, files = _openDatabase(), []
    for uid in instances:
        file = database.fileForInstance(uid)
        if not file:
            raise PanelError(
                _("Slicer's DICOM database does not know the image {uid} any more").format(uid=uid),
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
            raise _gone(file)
        if number % _AT_ONCE == 0:
            yield number / len(files)


def _openDatabase():
    database = dicomdatabase.database()
    if database is None:
        raise PanelError(
            _("The images came through Slicer's DICOM database, which is not open"),
            _("Open the module DICOM once, so that it opens its database, then try again."),
            "input",
        )
    return database


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
            str(told.get("study", "")),
        )
    path, series, study = (node.GetAttribute(name) or "" for name in (PATH, SERIES, STUDY))
    # On a result it is its source's name; a path may be that of another kind of file.
    isName = bool(node.GetAttribute("MedEnhance.derived")) and not os.path.isabs(path)
    if path and not isName and not path.lower().endswith(_VOLUMES):
        return DicomSource(path, series, study=study)
    known = series and dicomdatabase.holds(series)
    return DicomSource(series=series, study=study) if known else None


def _gone(path):
    return PanelError(
        _("{path} is gone, from where the volume was loaded").format(path=path),
        _("Put it back, or export it without its source, under a patient that you name."),
        "input",
    )

"""Results as DICOM objects: into a folder, into Slicer's DICOM database, or both.

volume, segmentation, table and uncertainty → the job `export` → a folder → a copy in the database
"""

import contextlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import Work
from MedEnhancePanels.nodes import bridge, dicom_source, provenance, results
from MedEnhancePanels.tasks import dicom_labels
from MedEnhancePanels.tasks.node_job import share

#: What can be exported of a result, in this order.
PARTS = ("volume", "segmentation", "uncertainty")
#: Share of the progress that the jobs take where an import follows.
_WRITING = 0.85
#: How the library says that a value of the original's headers was too long for DICOM.
_SHORTENED = re.compile(r"the source's \w+ .*was (cut|rounded) to the \d+ characters allowed")
#: Imports in progress: an indexer must not be destroyed while it signals that it is done.
_alive = set()
#: How long an import that was cancelled may take to say that it has ended.
_GRACE_MS = 5000


@dataclass(frozen=True)
class ExportOptions:
    """How a node becomes DICOM; patientId, patientName and studyDescription are for a new study."""

    folder: str = ""  # new or empty; "" for none
    database: bool = True  # whether Slicer's DICOM database gets a copy
    parts: tuple = PARTS
    source: object = None  # DicomSource with patient and study; None for what was never DICOM
    patientId: str = ""
    patientName: str = ""
    studyDescription: str = ""
    seriesDescription: str = ""  # "" for the library's own


def partsOf(node):
    """What there is to export of a node: the node of each part, the volume first."""
    found = {"volume": node}
    for role in ("segmentation", "uncertainty"):
        part = results.linked(node, role)
        if part is not None:
            found[role] = part
    return found


def isShortened(warning):
    """Whether a warning says no more than that a value of the original's headers was too long."""
    return _SHORTENED.fullmatch(warning) is not None


def suggestFolder(node, parent):
    """A new folder for a node's images, below `parent`."""
    base = _("{name} DICOM").format(name=bridge.fileName(node))
    path, number = os.path.join(parent, base), 2
    while os.path.lexists(path) or os.path.lexists(f"{path}.json"):
        path, number = os.path.join(parent, f"{base} {number}"), number + 1
    return path


def checkOptions(node, options):
    """Raise PanelError where a node cannot be exported, or not so; cheap, nothing is written."""
    bridge.checkIntensities(node)
    bridge.checkOneGrid(node)
    if not options.folder and not options.database:
        raise PanelError(
            _("No destination is chosen"),
            _("Choose Slicer's DICOM database, a folder, or both."),
            "output",
        )
    if options.folder:
        checkFolder(options.folder)
    if options.database:
        dicom_source.checkOpen()
    if options.source is None and not options.patientId.strip():
        raise PanelError(
            _("{name} does not come from DICOM: the patient is not known").format(
                name=node.GetName()
            ),
            _("Enter the patient's ID, or choose the study that it belongs to."),
            "input",
        )


def checkFolder(folder):
    """Raise PanelError where images cannot be put into a folder of their own there."""
    parent = os.path.dirname(os.path.abspath(folder))
    if not os.path.isdir(parent):
        raise PanelError(
            _("The folder {folder} does not exist").format(folder=parent),
            _("Create it, or choose another."),
            "output",
        )
    isTaken = os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder))
    if isTaken or os.path.lexists(f"{folder}.json"):
        raise PanelError(
            _("{folder} is not empty").format(folder=folder),
            _("Choose a new folder: existing files are never overwritten or mixed with new ones."),
            "output",
        )


class DicomExport(Work):
    """An export of all parts, or of none if one fails.

    files, series (UID → number of files), studyUid: what was made. nodes: the parts.
    folder: where the files are; "" if only the database has them, whose paths `files` then has.
    """

    def __init__(self, runner, node, options):
        checkOptions(node, options)
        super().__init__(_("Export {name} as DICOM").format(name=node.GetName()))
        self.node, self.options = node, options
        self.nodes = {r: n for r, n in partsOf(node).items() if r in options.parts}
        self.files, self.series, self.studyUid = [], {}, ""
        self.folder = os.path.abspath(options.folder) if options.folder else ""
        self._hadFolder = bool(self.folder) and os.path.isdir(self.folder)
        self._runner, self._import, self._staging, self._manifest = runner, None, "", ""
        self._name, self._reason = node.GetName(), ""

    def start(self):
        """Begin; returns itself at once."""
        if not self.folder:
            self._staging = tempfile.mkdtemp(prefix="export-", dir=self._runner.folder())
        self._job = self._runner.submit("export", {}, title=self.title, before=self._send)
        self._job.onEvent(self._onEvent)
        self._job.onFinished(self._onWritten)
        return self

    def cancel(self):
        """Stop, and remove the files written so far."""
        super().cancel()
        if self._import is not None:
            self._import.cancel()

    def _onSceneCloses(self, *_arguments):
        self._reason = _("The scene was closed, so the export of {name} was stopped")
        self.cancel()

    # --- writing ------------------------------------------------------------------------------

    @property
    def _target(self):
        return self.folder or os.path.join(self._staging, "dicom")

    def _send(self, job):
        """Write the parts into the job's folder, and say what to make of them."""
        # The source first: a missing file is reported before anything is sent.
        job.params = yield from self._params(job)
        for number, (role, node) in enumerate(self.nodes.items()):
            if not bridge.isInScene(node) or not bridge.isInScene(self.node):
                raise PanelError(
                    _("{name} was removed from the scene").format(name=self._name), "", "input"
                )
            path = os.path.join(job.folder, f"{role}.nrrd")
            job.params["input" if role == "volume" else role] = path
            steps = (
                dicom_labels.sendLabels(node, self.node, path, self.warnings.append)
                if role == "segmentation"
                else bridge.sendVolume(node, path)
            )
            count = len(self.nodes)
            first, last = (0.05 + 0.95 * at / count for at in (number, number + 1))
            labels = yield from share(steps, first, last)
            if labels:
                job.params["labels"] = labels

    def _params(self, job):
        options = self.options
        params = {
            "output": self._target,
            "series_description": options.seriesDescription.strip(),
            "action": _actionOf(self.node),
            "model": provenance.modelOf(self.node),
        }
        if options.source is not None:
            params["like"] = yield from share(options.source.toLike(job.folder), 0.0, 0.05)
        else:
            params["patient_id"] = options.patientId.strip()
            params["patient_name"] = options.patientName.strip()
            params["study_description"] = options.studyDescription.strip()
        if "segmentation" in self.nodes:
            params["head"] = provenance.modelOf(self.nodes["segmentation"])
        return {key: value for key, value in params.items() if value}

    def _onEvent(self, job, event, fields):
        if event == "progress":
            self.fraction = job.fraction * (_WRITING if self.options.database else 1.0)
            self.stage = job.stage
        elif event == "log":
            self.log.append(fields.get("message", ""))
        self._notifyListeners(event, fields)

    def _onWritten(self, job):
        self._job = None
        if job.error is not None:
            self._fail(job.error)
            return
        self.warnings += job.warnings
        result = job.result
        self.files, self.studyUid = list(result["files"]), result["study_uid"]
        self._manifest = result["manifest"]
        self.series = {row["series_uid"]: len(row["files"]) for row in result["objects"]}
        if self.error is not None:  # cancelled when it was already done
            self._fail(self.error)
        elif self.options.database:
            self._place()
        else:
            self._succeed()

    # --- into the database --------------------------------------------------------------------

    def _place(self):
        self.stage = _("copying into Slicer's DICOM database")
        self._notifyListeners("progress", {})
        try:
            self._import = Import(self._target, self.series, self._onCopied, self._onImported)
        except PanelError as error:  # it was closed in the meantime
            self._fail(error)
        else:
            self._import.start()

    def _onCopied(self, fraction):
        self.fraction = _WRITING + (1 - _WRITING) * fraction
        self._notifyListeners("progress", {"fraction": self.fraction})

    def _onImported(self, error):
        self._import = None
        if error is not None:
            self._fail(error)
        else:
            self._succeed()

    # --- the end ------------------------------------------------------------------------------

    def _succeed(self):
        if not self.folder:
            self.files = [
                file for uid in self.series for file in dicom_source.database().filesForSeries(uid)
            ]
        if bridge.isInScene(self.node) and self.options.source is not None:
            placeUnderStudy(self.node, self.studyUid)
        self._removeStaging()
        self._end("done")

    def _fail(self, error):
        """Remove the files of an export that did not finish."""
        for path in filter(None, [*self.files, self._manifest]):
            with contextlib.suppress(OSError):
                os.remove(path)
        self._removeEmpty()
        self._removeStaging()
        self.files, self.series, self.folder = [], {}, ""
        if self._reason and error.isCancellation:
            error = PanelError(self._reason.format(name=self._name), code="cancelled")
        self.error = error
        self._end("cancelled" if error.isCancellation else "failed")

    def _removeEmpty(self):
        """Take away the folder, where it was not there before and holds nothing of others."""
        if not self.folder or self._hadFolder:
            return
        for folder, _folders, _files in os.walk(self.folder, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(folder)

    def _removeStaging(self):
        if self._staging:
            shutil.rmtree(self._staging, ignore_errors=True)


class Import:
    """Copies the objects of a folder into the database.

    series: UID → number of files, which have to be in the database in the end.
    progress(fraction) and finished(error) are called from the event loop; error is a PanelError,
    or None. What was copied is taken out again where it fails or is cancelled.
    """

    def __init__(self, folder, series, progress, finished):
        dicom_source.checkOpen()
        self._database = dicom_source.database()
        self._folder, self._series = folder, dict(series)
        self._progress, self._finished = progress, finished
        self._isCancelled = False
        self._indexer = ctk.ctkDICOMIndexer()
        self._indexer.backgroundImportEnabled = True
        self._indexer.setDatabase(self._database)
        self._indexer.progress.connect(self._onProgress)
        self._indexer.indexingComplete.connect(self._onComplete)
        self._overdue = qt.QTimer()
        self._overdue.setSingleShot(True)
        self._overdue.setInterval(_GRACE_MS)
        self._overdue.timeout.connect(self._end)

    def start(self):
        """Begin; returns at once."""
        _alive.add(self)
        self._indexer.addDirectory(self._folder, True)

    def cancel(self):
        """Stop, and remove what was copied from the database."""
        if not self._isCancelled and self._finished is not None:
            self._isCancelled = True
            self._overdue.start()
            self._indexer.cancel()

    def _onProgress(self, percent):
        if self._finished is not None:
            self._progress(percent / 100)

    def _onComplete(self, *_counts):
        self._end()

    def _end(self):
        finished, self._finished = self._finished, None
        self._overdue.stop()
        if finished is None:
            return
        qt.QTimer.singleShot(0, self._letGo)
        error = PanelError.cancelled() if self._isCancelled else self._fault()
        if error is not None and self._database.isOpen:
            for uid in self._series:
                self._database.removeSeries(uid)
        finished(error)

    def _letGo(self):
        """After its own signals: their connections would keep this object."""
        _alive.discard(self)
        self._indexer.deleteLater()
        self._overdue.deleteLater()

    def _fault(self):
        if not self._database.isOpen:
            return PanelError(
                _("Slicer's DICOM database was closed during the import"),
                _("Open it in the module DICOM, then export again."),
                "output",
            )
        for uid, count in self._series.items():
            held = len(self._database.filesForSeries(uid))
            if held != count:
                return PanelError(
                    _("Slicer's DICOM database accepted only {held} of {count} files").format(
                        held=held, count=count
                    ),
                    _("Check the disk of the database, or export to a folder and import it."),
                    "output",
                )
        return None


def start(runner, node, options):
    """Export a volume or sequence node with what belongs to it; the DicomExport, begun.

    Raises PanelError where that cannot be.
    """
    return DicomExport(runner, node, options).start()


def _actionOf(node):
    """What was done, where that was here and not before a file was read."""
    derived = node.GetAttribute(provenance.DERIVED) or ""
    return "" if derived == provenance.FROM_FILE else derived


def placeUnderStudy(node, studyUid):
    """Move a node without a study to the study in the scene that it now belongs to."""
    hierarchy = bridge.subjectHierarchy()
    uidName = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    study = hierarchy.GetItemByUID(uidName, studyUid) if studyUid else 0
    item = hierarchy.GetItemByDataNode(node)
    if study and item and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, study)

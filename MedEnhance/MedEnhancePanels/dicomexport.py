"""Results as DICOM objects: into a folder, into Slicer's DICOM database, or both.

volume, segmentation, table and uncertainty → the job `export` → a folder → a copy in the database
"""

import contextlib
import os
import shutil
import tempfile
from dataclasses import dataclass

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import bridge, dicomdatabase, dicomlabels, provenance, results
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.noderun import share
from MedEnhancePanels.work import Work

#: What can be exported of a result, in this order.
PARTS = ("volume", "segmentation", "uncertainty")
#: Share of the progress that the jobs take where an import follows.
_WRITING = 0.85


@dataclass(frozen=True)
class ExportOptions:
    """How a node becomes DICOM.

    folder: new or empty, "" for none. database: whether into Slicer's. parts: of PARTS.
    source: a DicomSource that tells patient, study and place; None for what never was DICOM, with
    patientId, patientName and studyDescription of a new study then. seriesDescription: "" for the
    library's own. multiframe: one file instead of one a slice. deidentify: without the patient.
    """

    folder: str = ""
    database: bool = True
    parts: tuple = PARTS
    source: object = None
    patientId: str = ""
    patientName: str = ""
    studyDescription: str = ""
    seriesDescription: str = ""
    multiframe: bool = False
    deidentify: bool = False


def partsOf(node):
    """What there is to export of a node: the node of each part, the volume first."""
    found = {"volume": node}
    for role in ("segmentation", "uncertainty"):
        part = results.linked(node, role)
        if part is not None:
            found[role] = part
    return found


def suggestFolder(node, parent):
    """A new folder for a node's images, below `parent`."""
    safe = "".join(c if c.isalnum() or c in " -_." else "_" for c in node.GetName()).strip(" .")
    base = _("{name} DICOM").format(name=safe or "volume")
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
            _("No place is chosen to export to"),
            _("Choose Slicer's DICOM database, a folder, or both."),
            "output",
        )
    if options.deidentify and options.source is None:
        raise PanelError(
            _("A patient is named, and de-identification asked for"),
            _("Give a pseudonym as the patient's ID, and leave out the de-identification."),
            "config",
        )
    if options.folder:
        checkFolder(options.folder)
    if options.database:
        dicomdatabase.checkOpen()
    if options.source is None and not options.patientId.strip():
        raise PanelError(
            _("{name} never was DICOM: no patient is known").format(name=node.GetName()),
            _("Give the patient's ID, or choose the study that it belongs to."),
            "input",
        )


def checkFolder(folder):
    """Raise PanelError where images cannot be put into a folder of their own there."""
    parent = os.path.dirname(os.path.abspath(folder))
    if not os.path.isdir(parent):
        raise PanelError(
            _("The folder {folder} is not there").format(folder=parent),
            _("Make it, or choose another."),
            "output",
        )
    isTaken = os.path.lexists(folder) and not (os.path.isdir(folder) and not os.listdir(folder))
    if isTaken or os.path.lexists(f"{folder}.json"):
        raise PanelError(
            _("{folder} is not empty").format(folder=folder),
            _("Name a new folder: nothing is mixed with, or written over, what is there."),
            "output",
        )


class DicomExport(Work):
    """One export, all parts of it or none.

    files, series (UID → number of files), studyUid: what was made. nodes: the parts.
    folder: where it lies, "" where only the database has it, whose files are told then.
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
        """Stop; nothing of it stays."""
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
        # The source first: a file of it that is gone is told before anything is sent.
        job.params = yield from self._params(job)
        for number, (role, node) in enumerate(self.nodes.items()):
            if not bridge.isInScene(node) or not bridge.isInScene(self.node):
                raise PanelError(
                    _("{name} was removed from the scene").format(name=self._name), "", "input"
                )
            path = os.path.join(job.folder, f"{role}.nrrd")
            job.params["input" if role == "volume" else role] = path
            steps = (
                dicomlabels.sendLabels(node, self.node, path, self.warnings.append)
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
            "role": "volume",
            "output": self._target,
            "enhanced_multiframe": options.multiframe,
            "deidentify": options.deidentify,
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
            table = results.linked(self.node, "table")
            params["table"] = dicomlabels.tableRows(table) if table is not None else []
        return {key: value for key, value in params.items() if value}

    def _onEvent(self, job, event, fields):
        if event == "progress":
            self.fraction = job.fraction * (_WRITING if self.options.database else 1.0)
            self.stage = job.stage
        elif event == "log":
            self.log.append(fields.get("message", ""))
        self._tellListeners(event, fields)

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
        self._tellListeners("progress", {})
        try:
            self._import = dicomdatabase.Import(
                self._target, self.series, self._onCopied, self._onImported
            )
        except PanelError as error:  # it was closed in the meantime
            self._fail(error)
        else:
            self._import.start()

    def _onCopied(self, fraction):
        self.fraction = _WRITING + (1 - _WRITING) * fraction
        self._tellListeners("progress", {"fraction": self.fraction})

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
                file for uid in self.series for file in dicomdatabase.database().filesForSeries(uid)
            ]
        if bridge.isInScene(self.node) and self.options.source is not None:
            placeUnderStudy(self.node, self.studyUid)
        self._removeStaging()
        self._end("done")

    def _fail(self, error):
        """Nothing of an export stays that did not come to its end."""
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
    """Move a node that lies under no study to the study of the scene that it now belongs to."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    uidName = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
    study = hierarchy.GetItemByUID(uidName, studyUid) if studyUid else 0
    item = hierarchy.GetItemByDataNode(node)
    if study and item and hierarchy.GetItemParent(item) == hierarchy.GetSceneItemID():
        hierarchy.SetItemParent(item, study)

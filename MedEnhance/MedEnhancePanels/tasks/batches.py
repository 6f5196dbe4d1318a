"""Many volumes one after the other: of the scene, of a folder, of Slicer's DICOM database.

Batch: nodes of the scene → the job `enhance` for each → nodes beside them
FolderBatch: files → the job `batch`, in the worker → files, with its ledger
DicomBatch: series of the database → loaded, then as Batch
"""

import dataclasses
import os
import time

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import Work, sentence, withWarnings
from MedEnhancePanels.nodes import bridge, guides, model_choice, provenance, results
from MedEnhancePanels.tasks import enhancement, files

#: Share of a series' progress that goes to loading it.
_LOADING = 0.2
#: What marks the table of a batch as such.
_SUMMARY = "batch"


def volumesIn(item):
    """The volumes below an item of the subject hierarchy, without results."""
    nodes = [bridge.subjectHierarchy().GetItemDataNode(child) for child in itemsIn(item)]
    return [node for node in nodes if _isOriginal(node)]


def itemsIn(item):
    """All items below an item of the subject hierarchy."""
    items = vtk.vtkIdList()
    bridge.subjectHierarchy().GetItemChildren(item, items, True)
    return [items.GetId(index) for index in range(items.GetNumberOfIds())]


def fittedOptions(node, options):
    """The options as they suit one of many volumes: what does not fit it is left out."""
    modality = bridge.modalityOf(node)
    names = [bundle.name for bundle in model_choice.fitting(modality)]
    model = options.model if options.model in names else "auto"
    options = dataclasses.replace(options, model=model, biasCorrection=_shadingOf(options))
    options = model_choice.withoutWhatItLacks(node, options)
    look = options.look
    if look is node or (look is not None and bridge.modalityOf(look) != modality):
        look = None
    head = options.head if model_choice.chosenHead(node, options.head) else "auto"
    segment = options.segment and not model_choice.headProblem(node, head)
    return dataclasses.replace(
        options,
        output=None,
        region=None,
        regionSegment="",
        guide=guides.suggested(node)[0] if options.guide is not None else None,
        look=look,
        segment=segment,
        head=head if segment else "auto",
        biasCorrection=options.biasCorrection if modality == "MR" else "none",
    )


def _shadingOf(options):
    """What is asked for in MR; the page Enhance leaves it out where its own volume is none."""
    return "auto" if options.biasCorrection == "none" else options.biasCorrection


def problemOf(node, options):
    """Why one of many volumes cannot be enhanced; empty where it can."""
    if not model_choice.isUsable(node):
        return _("{name} has no voxels").format(name=node.GetName())
    return model_choice.problemOf(node, fittedOptions(node, options))


@dataclasses.dataclass(frozen=True)
class Row:
    """What became of one volume. state: done, failed or cancelled."""

    name: str
    state: str
    seconds: float
    remark: str


class Batch(Work):
    """Enhancements of many nodes in a row.

    A volume that fails does not stop the rest; cancelling stops all. rows: what became
    of each; table: the node that holds them in the end.
    """

    def __init__(self, runner, nodes, options, *, item=0):
        super().__init__(_("Enhance {count} volumes").format(count=len(nodes)))
        self.rows, self.table = [], None
        self._runner, self._options, self._item = runner, options, item
        self._waiting = [(node, node.GetName() or "") for node in nodes]
        self._count, self._began = len(nodes), time.monotonic()
        self._hasScene = True

    def start(self):
        self._next()
        return self

    def _drop(self):
        self._waiting = []

    def _onSceneCloses(self, *_arguments):
        self._hasScene = False
        self.cancel()

    # --- one after the other ------------------------------------------------------------------

    def _next(self):
        while self._waiting:
            node, name = self._waiting.pop(0)
            try:
                self._job = self._begin(node)
            except Exception as exception:  # whatever it is, the others go on
                error = PanelError.fromException(exception)
                self.rows.append(Row(name, "failed", 0.0, error.text))
                continue
            self._follow(name)
            return
        self._finish()

    def _follow(self, name):
        self._job.onEvent(self._onEvent)
        self._job.onFinished(lambda job: self._onJobFinished(job, name))

    def _begin(self, node):
        if not bridge.isInScene(node):
            raise PanelError(_("It was removed from the scene"), code="input")
        problem = problemOf(node, self._options)
        if problem:
            raise PanelError(problem, code="input")
        return enhancement.start(self._runner, node, fittedOptions(node, self._options))

    def _shareOf(self, job):
        """How far one volume is."""
        return job.fraction

    def _onEvent(self, job, event, fields):
        if event == "progress":
            done = self._count - len(self._waiting) - 1
            self.fraction = (done + self._shareOf(job)) / self._count
            self.stage = _("{number} of {count}: {stage}").format(
                number=done + 1, count=self._count, stage=job.stage
            )
            elapsed = time.monotonic() - self._began
            known = done or self._shareOf(job) > 0.2
            self.etaSeconds = elapsed * (1 / self.fraction - 1) if known and self.fraction else None
        elif event == "log":
            self.log.append(fields.get("message", ""))
        self._notifyListeners(event, fields)

    def _onJobFinished(self, job, name):
        self._job = None
        seconds = (job.ended or time.time()) - (job.started or job.ended or time.time())
        remark = job.error.text if job.error is not None else withWarnings("", job.warnings)
        self.rows.append(Row(name, job.state, seconds, remark))
        if job.state == "done":
            self.nodes[name] = job.nodes["output"]
        self._next()

    def _finish(self):
        self.warnings = [f"{row.name}: {row.remark}" for row in self.rows if row.state != "done"]
        if self.rows and self._hasScene:
            self.table = summaryTable(self.rows, self._item)
        self._end("cancelled" if self.error is not None else "done")


class FolderBatch(Work):
    """All volumes below a folder, into another folder; files only, so the scene may close.

    Started again with the same options it goes on where it stopped: the ledger in `out` is that of
    `medenhance batch`.
    """

    def __init__(self, runner, folder, out, options):
        super().__init__(_("Enhance {folder}").format(folder=os.path.basename(folder)))
        self.rows, self.table = [], None
        self._runner = runner
        if options.model == "auto":
            options = dataclasses.replace(options, biasCorrection=_shadingOf(options))
        self._params = {
            "inputs": [folder],
            "output": out,
            "params": {"config": _statedConfig(options)},
        }
        if options.guide is not None:
            self._params["params"]["guide"] = ["auto"]
        if options.segment:
            self._params["params"] |= {"segment": True, "head": options.head}

    def start(self):
        self._job = self._runner.submit("batch", self._params, title=self.title, after=_logFailed)
        self._job.onEvent(self._onEvent)
        self._job.onFinished(self._onJobFinished)
        return self

    def _onSceneCloses(self, *_arguments):
        """It does without a scene."""

    def _onEvent(self, job, event, fields):
        self.fraction, self.stage, self.etaSeconds = job.fraction, job.stage, job.etaSeconds
        if event == "log":
            self.log.append(fields.get("message", ""))
        self._notifyListeners(event, fields)

    def _onJobFinished(self, job):
        self.error = job.error
        if job.error is None:
            self.rows = [_rowOf(row) for row in job.result["rows"]]
            self.warnings = [f"{row.name}: {row.remark}" for row in self.rows if row.remark]
            self.table = summaryTable(self.rows)
        self._end(job.state)


def _logFailed(job):
    """Name in the job's log what failed; its rows are in the result alone."""
    for row in map(_rowOf, job.result["rows"]):
        if row.state == "failed":
            job.keepLog(_("{name} failed: {why}").format(name=row.name, why=row.remark))
    yield 1.0


def _statedConfig(options):
    """What differs from the defaults, as a command line states it: the ledger compares it."""
    from MedEnhanceLib.core.options import config_to_json

    default = config_to_json(EnhanceConfig())
    return {name: value for name, value in options.config().items() if value != default.get(name)}


def _rowOf(row):
    """A row of the ledger as one of the table."""
    remark = sentence(PanelError.fromEvent(row).text) if row.get("message") else ""
    state = row["status"] if row["status"] in ("done", "cancelled") else "failed"
    return Row(os.path.basename(row["source"]), state, float(row.get("seconds") or 0.0), remark)


class DicomBatch(Batch):
    """Series of Slicer's DICOM database: each is loaded under its patient and study, then enhanced.

    series: dicom_source.StoredSeries.
    """

    def __init__(self, runner, series, options):
        super().__init__(runner, [], options)
        self.title = _("Enhance {count} series").format(count=len(series))
        self._waiting, self._count = [(one, one.name) for one in series], len(series)
        self._loading = None  # the series that is being loaded
        self._patients = {}

    def _begin(self, series):
        series.checkOriginal()
        self._loading = series
        return files.startLoadStored(self._runner, series)

    def _shareOf(self, job):
        if self._loading is not None:
            return _LOADING * job.fraction
        return _LOADING + (1 - _LOADING) * job.fraction

    def _onJobFinished(self, job, name):
        series, self._loading = self._loading, None
        if series is None or job.state != "done":
            super()._onJobFinished(job, name)
            return
        try:
            node = job.nodes["output"]
            self._place(node, series)
            self._job = super()._begin(node)
        except Exception as exception:  # whatever it is, the others go on
            error = PanelError.fromException(exception)
            self.rows.append(Row(name, "failed", 0.0, error.text))
            self._next()
            return
        self._follow(name)

    def _place(self, node, series):
        """Under the study of the subject hierarchy, which is made where it is not there yet."""
        hierarchy = bridge.subjectHierarchy()
        kind = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()
        study, top = series.study, hierarchy.GetSceneItemID()
        item = hierarchy.GetItemByUID(kind, study.uid)
        if not item:
            if study.patient not in self._patients:
                self._patients[study.patient] = hierarchy.CreateSubjectItem(top, study.patientName)
            item = hierarchy.CreateStudyItem(self._patients[study.patient], study.name)
            hierarchy.SetItemUID(item, kind, study.uid)
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), item)


def summaryTable(rows, item=0):
    """A table node with a row for each volume; item: of the subject hierarchy, where it goes."""
    node = slicer.mrmlScene.AddNewNodeByClass(
        "vtkMRMLTableNode", bridge.uniqueName(_("Batch summary"))
    )
    texts = {"done": _("enhanced"), "failed": _("failed"), "cancelled": _("cancelled")}
    columns = (
        (_("Volume"), vtk.vtkStringArray, [row.name for row in rows]),
        (_("Outcome"), vtk.vtkStringArray, [texts[row.state] for row in rows]),
        (_("Seconds"), vtk.vtkDoubleArray, [round(row.seconds, 1) for row in rows]),
        (_("Remark"), vtk.vtkStringArray, [row.remark for row in rows]),
    )
    for column in columns:
        results.addColumn(node, *column)
    node.SetAttribute(provenance.DERIVED, _SUMMARY)
    hierarchy = bridge.subjectHierarchy()
    own = hierarchy.GetItemByDataNode(node)
    if own and item and hierarchy.GetItemLevel(item):
        hierarchy.SetItemParent(own, item)
    return node


def latestTable():
    """The table of the scene's last batch, or None."""
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    found = [node for node in tables if node.GetAttribute(provenance.DERIVED) == _SUMMARY]
    return found[-1] if found else None


def outcomeText(work):
    """What came of a batch, in a sentence."""
    done = sum(row.state == "done" for row in work.rows)
    text = _(
        "{done} of {count} volumes were enhanced. “Show table”, below Batch, shows {table}, with a "
        "row for each."
    )
    return text.format(done=done, count=len(work.rows), table=work.table.GetName())


def _isOriginal(node):
    return (
        node is not None
        and node.IsA("vtkMRMLScalarVolumeNode")
        and not node.IsA("vtkMRMLLabelMapVolumeNode")
        and not node.GetAttribute("MedEnhance.derived")
    )

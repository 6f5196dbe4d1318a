"""All volumes of a study or folder, one after the other, as one piece of work."""

import dataclasses
import time

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels import bridge, enhancement, modelchoice
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.work import Work

#: Levels of the subject hierarchy that hold volumes.
GROUPS = ("Patient", "Study", "Folder")


def hasGroups():
    """Whether the scene has anything to choose volumes by."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    every = (items.GetId(index) for index in range(items.GetNumberOfIds()))
    return any(hierarchy.GetItemLevel(item) in GROUPS for item in every)


def volumesIn(item):
    """The volumes below an item of the subject hierarchy, without those that we made."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, children, True)
    nodes = [
        hierarchy.GetItemDataNode(children.GetId(index))
        for index in range(children.GetNumberOfIds())
    ]
    return [node for node in nodes if _isOriginal(node)]


def fittedOptions(node, options):
    """The options as they suit one of many volumes: what does not fit it is left out."""
    modality = bridge.modalityOf(node)
    names = [bundle.name for bundle in modelchoice.choosable(modality)]
    model = options.model if options.model in names else "auto"
    options = modelchoice.withoutWhatItLacks(node, dataclasses.replace(options, model=model))
    guide = options.guide
    if guide is node or (guide is not None and bridge.modalityOf(guide) != modality):
        guide = None
    head = options.head if modelchoice.chosenHead(node, options.head) else "auto"
    segment = options.segment and not modelchoice.headProblem(node, head)
    return dataclasses.replace(
        options,
        output=None,
        guide=guide,
        segment=segment,
        head=head if segment else "auto",
        biasCorrection=options.biasCorrection if modality == "MR" else "none",
    )


def problemOf(node, options):
    """Why one of many volumes cannot be enhanced; empty where it can."""
    if not modelchoice.isUsable(node):
        return _("{name} has no voxels").format(name=node.GetName())
    return modelchoice.problemOf(node, fittedOptions(node, options))


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

    def __init__(self, runner, nodes, options, *, item=0, title=""):
        super().__init__(title or _("Enhance {count} volumes").format(count=len(nodes)))
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
            self._job.onEvent(self._onEvent)
            self._job.onFinished(lambda job, name=name: self._onJobFinished(job, name))
            return
        self._finish()

    def _begin(self, node):
        if not bridge.isInScene(node):
            raise PanelError(_("It was removed from the scene"), code="input")
        problem = problemOf(node, self._options)
        if problem:
            raise PanelError(problem, code="input")
        return enhancement.start(self._runner, node, fittedOptions(node, self._options))

    def _onEvent(self, job, event, fields):
        if event == "progress":
            done = self._count - len(self._waiting) - 1
            self.fraction = (done + job.fraction) / self._count
            self.stage = _("{number} of {count}: {stage}").format(
                number=done + 1, count=self._count, stage=job.stage
            )
            elapsed = time.monotonic() - self._began
            known = done or job.fraction > 0.2
            self.etaSeconds = elapsed * (1 / self.fraction - 1) if known and self.fraction else None
        elif event == "log":
            self.log.append(fields.get("message", ""))
        self._tellListeners(event, fields)

    def _onJobFinished(self, job, name):
        self._job = None
        seconds = (job.ended or time.time()) - (job.started or job.ended or time.time())
        remark = job.error.text if job.error is not None else "\n".join(job.warnings)
        self.rows.append(Row(name, job.state, seconds, remark))
        if job.state == "done":
            self.nodes[name] = job.nodes["output"]
        self._next()

    def _finish(self):
        self.warnings = [f"{row.name}: {row.remark}" for row in self.rows if row.state != "done"]
        if self.rows and self._hasScene:
            self.table = self._summarise()
        self._end("cancelled" if self.error is not None else "done")

    def _summarise(self):
        node = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLTableNode", bridge.uniqueName(_("Batch summary"))
        )
        words = {"done": _("enhanced"), "failed": _("failed"), "cancelled": _("cancelled")}
        columns = (
            (_("Volume"), vtk.vtkStringArray, [row.name for row in self.rows]),
            (_("Outcome"), vtk.vtkStringArray, [words[row.state] for row in self.rows]),
            (_("Seconds"), vtk.vtkDoubleArray, [round(row.seconds, 1) for row in self.rows]),
            (_("Remark"), vtk.vtkStringArray, [row.remark for row in self.rows]),
        )
        for title, kind, values in columns:
            column = kind()
            column.SetName(title)
            for value in values:
                column.InsertNextValue(value)
            node.AddColumn(column)
        node.SetAttribute("MedEnhance.derived", "batch")
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = hierarchy.GetItemByDataNode(node)
        if item and self._item and hierarchy.GetItemLevel(self._item):
            hierarchy.SetItemParent(item, self._item)
        return node


def _isOriginal(node):
    return (
        node is not None
        and node.IsA("vtkMRMLScalarVolumeNode")
        and not node.IsA("vtkMRMLLabelMapVolumeNode")
        and not node.GetAttribute("MedEnhance.derived")
    )

"""Enhancing all volumes of a study or folder, one after the other: a part of the page Enhance."""

import dataclasses
import time

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import Work
from MedEnhancePanels.nodes import bridge, model_choice, results
from MedEnhancePanels.pages.widgets import FIRST, withWarnings
from MedEnhancePanels.tasks import enhancement

#: Levels of the subject hierarchy that hold volumes.
GROUPS = ("Patient", "Study", "Folder")


class BatchArea:
    """Chooses an item of the subject hierarchy, and shows how many volumes fit.

    onChange(): called after another item was chosen, or the hierarchy has changed.
    """

    def __init__(self, ui, onChange):
        self._ui, self._onChange = ui, onChange
        self._hierarchy, self._tags, self._isRemoving = None, [], False
        #: 0: nothing was chosen, or what was chosen is gone.
        self.item = 0
        ui.batchSelector.setLevelFilter(list(GROUPS))
        ui.batchSelector.currentItemChanged.connect(self._onChosen)
        self._observe(bridge.subjectHierarchy())

    def cleanup(self):
        self._observe(None)
        self._onChange = lambda: None

    def _observe(self, hierarchy):
        """Follow the hierarchy; the one of a new scene is another node."""
        if hierarchy is self._hierarchy:
            return
        for tag in self._tags:
            self._hierarchy.RemoveObserver(tag)
        self._hierarchy, self._tags, self.item = hierarchy, [], 0
        if hierarchy is None:
            return
        for event in (
            hierarchy.SubjectHierarchyItemAddedEvent,
            hierarchy.SubjectHierarchyItemReparentedEvent,
            hierarchy.SubjectHierarchyItemModifiedEvent,
        ):
            self._tags.append(hierarchy.AddObserver(event, lambda *_item: self._onChange()))
        going, gone = (
            hierarchy.SubjectHierarchyItemAboutToBeRemovedEvent,
            hierarchy.SubjectHierarchyItemRemovedEvent,
        )
        self._tags.append(hierarchy.AddObserver(going, self._onRemoval, FIRST))
        # After the selector has followed.
        self._tags.append(hierarchy.AddObserver(gone, self._onRemoved, -FIRST))

    @vtk.calldata_type(vtk.VTK_LONG)
    def _onRemoval(self, _hierarchy, _event, item):
        """Slicer's selector goes on to the next item when its own is removed: that is no choice."""
        self._isRemoving = True
        if item == self.item:
            self.item = 0
            self._ui.batchSelector.clearSelection()

    def _onRemoved(self, *_item):
        self._isRemoving = False
        self._onChange()

    def _onChosen(self, *_item):
        if self._isRemoving:
            return
        item = self._ui.batchSelector.currentItem()
        # What is nothing to us can be the scene's own item, and that would be all volumes.
        isGroup = bool(item) and bridge.subjectHierarchy().GetItemLevel(item) in GROUPS
        self.item = item if isGroup else 0
        self._onChange()

    def start(self, runner, options):
        """A batch of everything in the item, not begun yet."""
        return Batch(runner, volumesIn(self.item), options, item=self.item)

    def update(self, options, isBusy):
        """Say how many volumes there are, and how many fit the choices."""
        ui = self._ui
        self._observe(bridge.subjectHierarchy())
        if ui.batchButton.collapsed:
            return
        nodes = volumesIn(self.item) if self.item else []
        fit = sum(problemOf(node, options) == "" for node in nodes)
        if not self.item and hasGroups():
            text = _("Choose a patient, study or folder.")
        elif not self.item:
            text = _("The scene has no patient, study or folder yet; make one in the Data module.")
        elif not nodes:
            text = _("It contains no volumes.")
        elif fit < len(nodes):
            text = _(
                "{fit} of {count} volumes can be enhanced; the table will list why the others "
                "cannot."
            ).format(fit=fit, count=len(nodes))
        elif len(nodes) == 1:
            text = _("One volume, with the settings above.")
        else:
            text = _("{count} volumes, with the settings above.").format(count=len(nodes))
        ui.batchSummaryLabel.text = text
        ui.batchApplyButton.text = _("Enhance a&ll {count}").format(count=fit)
        ui.batchApplyButton.enabled = fit > 0 and not isBusy and not dependencies.missing()


def outcomeText(work):
    """What came of a batch, in a sentence."""
    done = sum(row.state == "done" for row in work.rows)
    text = _("{done} of {count} volumes were enhanced; see the table {table} for each.")
    return text.format(done=done, count=len(work.rows), table=work.table.GetName())


def hasGroups():
    """Whether the scene has anything to choose volumes by."""
    hierarchy = bridge.subjectHierarchy()
    return any(
        hierarchy.GetItemLevel(item) in GROUPS for item in _itemsIn(hierarchy.GetSceneItemID())
    )


def volumesIn(item):
    """The volumes below an item of the subject hierarchy, without results."""
    nodes = [bridge.subjectHierarchy().GetItemDataNode(child) for child in _itemsIn(item)]
    return [node for node in nodes if _isOriginal(node)]


def _itemsIn(item):
    """All items below an item of the subject hierarchy."""
    items = vtk.vtkIdList()
    bridge.subjectHierarchy().GetItemChildren(item, items, True)
    return [items.GetId(index) for index in range(items.GetNumberOfIds())]


def fittedOptions(node, options):
    """The options as they suit one of many volumes: what does not fit it is left out."""
    modality = bridge.modalityOf(node)
    names = [bundle.name for bundle in model_choice.choosable(modality)]
    model = options.model if options.model in names else "auto"
    options = model_choice.withoutWhatItLacks(node, dataclasses.replace(options, model=model))
    guide = options.guide
    if guide is node or (guide is not None and bridge.modalityOf(guide) != modality):
        guide = None
    head = options.head if model_choice.chosenHead(node, options.head) else "auto"
    segment = options.segment and not model_choice.headProblem(node, head)
    return dataclasses.replace(
        options,
        output=None,
        region=None,
        regionSegment="",
        guide=guide,
        segment=segment,
        head=head if segment else "auto",
        biasCorrection=options.biasCorrection if modality == "MR" else "none",
        orientations=options.orientations if modality == "MR" else 1,
    )


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
            self.table = self._summarize()
        self._end("cancelled" if self.error is not None else "done")

    def _summarize(self):
        node = slicer.mrmlScene.AddNewNodeByClass(
            "vtkMRMLTableNode", bridge.uniqueName(_("Batch summary"))
        )
        texts = {"done": _("enhanced"), "failed": _("failed"), "cancelled": _("cancelled")}
        columns = (
            (_("Volume"), vtk.vtkStringArray, [row.name for row in self.rows]),
            (_("Outcome"), vtk.vtkStringArray, [texts[row.state] for row in self.rows]),
            (_("Seconds"), vtk.vtkDoubleArray, [round(row.seconds, 1) for row in self.rows]),
            (_("Remark"), vtk.vtkStringArray, [row.remark for row in self.rows]),
        )
        for column in columns:
            results.addColumn(node, *column)
        node.SetAttribute("MedEnhance.derived", "batch")
        hierarchy = bridge.subjectHierarchy()
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

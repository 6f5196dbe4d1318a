"""The page Train: images or a cohort, what is made of them, and a run in the background.

It trains a model, or distills a cohort into a set; RunArea shows a run and its result.
"""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePages.train_run import RunArea
from MedEnhancePages.widgets import Notice, Page, allow, askForFile, fill
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhanceTasks import training


class TrainPanel(Page):
    """Page that fills the options of a run, and starts it."""

    def __init__(self, context):
        super().__init__(context, "Train")
        self._segmenter = None  # that teaches; see `offer`
        ui = self.ui
        tasks = {
            "trainMR": _("An enhancer for MR"),
            "trainCT": _("An enhancer for CT"),
            "slicesMR": _("Thin slices for MR"),
            "slicesCT": _("Thin slices for CT"),
            "labelsMR": _("Segmentation, from label maps (no images)"),
            "scannerMR": _("Scanner, MR: how two folders differ"),
            "scannerCT": _("Scanner, CT: how two folders differ"),
            "distillMR": _("Distilled set, MR"),
            "distillCT": _("Distilled set, CT"),
        }
        fill(ui.taskSelector, tasks)
        presets = {
            "smoke": _("Tiny, for a test"),
            "quick": _("Quick, minutes on a CPU"),
            "cpu": _("Short, for a CPU"),
            "full": _("Full, for a graphics card"),
        }
        fill(ui.presetSelector, presets)
        methods = {
            "statistics": _("Synthetic volumes with statistics"),
            "matching": _("Gradient matching (SPG), for study"),
        }
        fill(ui.methodSelector, methods)
        entries = {"ema": _("Averaged gradients"), "binary": _("Each step (published)")}
        fill(ui.gateSelector, entries)
        self.runs, self._about = RunArea(self), Notice(ui, "about")
        self.bind(
            trainTask=ui.taskSelector,
            trainData=ui.pathEdit,
            trainPreset=ui.presetSelector,
            trainHighQuality=ui.goodEdit,
            trainName=ui.nameEdit,
            distillMethod=ui.methodSelector,
            distillVolumes=ui.volumesSpinBox,
            trainSegmenter=ui.segmenterSelector,
            trainGate=ui.gateSelector,
            distillLicense=ui.licenseEdit,
            trainDevice=ui.deviceSelector,
        )
        ui.pathButton.clicked.connect(lambda *_checked: self._browse(ui.pathEdit))
        ui.goodButton.clicked.connect(lambda *_checked: self._browse(ui.goodEdit))
        ui.tableButton.clicked.connect(self._onBrowseTable)
        ui.startButton.clicked.connect(self._onStart)

    def enter(self):
        self.runs.list()
        self.update()
        self.context.devices.ask()

    def cleanup(self):
        super().cleanup()
        self.runs.cleanup()

    def onNewState(self):
        self.runs.recall(self.state.trainRun)
        self.runs.list()

    def offer(self):
        fill(self.ui.deviceSelector, self.context.devices.entries, self.state.trainDevice)
        segmenters, self._segmenter, problem = training.segmentersOf(self.state)
        names = {each.name: each.name for each in segmenters}
        fill(self.ui.segmenterSelector, {"": _("None")} | names)
        allow(self.ui.segmenterSelector, problem)

    def show(self):
        ui, state, isRunning = self.ui, self.state, self.runs.isRunning
        kind = training.kindOf(state)
        isDistilling, isMeasuring = kind == "distill", kind == "scanner"
        segmenter = self._segmenter
        ui.tableButton.visible = ui.distillArea.visible = isDistilling
        ui.pathLabel.text = _("Cohort:") if isDistilling else _("Images:")
        if segmenter is not None:
            ui.pathLabel.text = _("Scans:")
        if isMeasuring:
            ui.pathLabel.text = _("Low quality:")
        ui.presetLabel.text = _("High quality:") if isMeasuring else _("Effort:")
        ui.presetSelector.visible = not isMeasuring
        ui.goodEdit.visible = ui.goodButton.visible = isMeasuring
        ui.advancedSection.visible = not isMeasuring
        if training.learnsFromLabels(state):
            ui.pathLabel.text = _("Label maps:")
        ui.pathEdit.accessibleName = ui.pathLabel.text.rstrip(":")
        table = _("A folder, or a table (CSV)")
        ui.pathEdit.placeholderText = table if isDistilling else _("A folder")
        ui.taughtArea.visible = state.trainTask.startswith("train")
        # The form below begins in the same column.
        area = ui.distillArea if isDistilling else ui.taughtArea
        labels = slicer.util.findChildren(area, className="QLabel")
        widths = [label.sizeHint.width() for label in labels if not area.isHidden()]
        ui.deviceLabel.minimumWidth = max(widths, default=0)
        ui.gateSelector.enabled = segmenter is not None
        problem = dependencies.enhancingProblem() or training.problemOf(state, segmenter)
        # The choices stay those of what runs.
        isFree = not isRunning and self.job is None
        ui.choicesArea.enabled = ui.advancedContent.enabled = ui.trainButton.enabled = isFree
        ui.startButton.enabled, ui.startButton.toolTip = isFree and not problem, problem
        level, text, details = training.aboutOf(state, segmenter, problem, self.runs.earlier)
        self._about.show(level, "" if isRunning else text, details)  # about the next run
        ui.problemLabel.text, ui.problemLabel.visible = problem, bool(problem) and not isRunning
        self.runs.show()

    @guarded
    def _browse(self, edit):
        title = _("Choose a folder")
        edit.text = qt.QFileDialog.getExistingDirectory(self.widget, title, edit.text) or edit.text

    @guarded
    def _onBrowseTable(self, _checked=False):
        title, kinds = _("Choose a table"), _("Tables (*.csv)")
        path = askForFile(self.widget, title, self.ui.pathEdit.text, kinds)
        if path:
            self.ui.pathEdit.text = path

    @guarded
    def _onStart(self, _checked=False):
        if not dependencies.ensure(dependencies.ENHANCE, self.context, self.ui.startButton):
            return
        self.context.clearMessage()
        self.runs.begin(training.start(self.context.runner, self.state))

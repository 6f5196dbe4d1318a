"""The page Distill: a cohort, the task, and a run in the background.

It distills the cohort, or trains an enhancer on it; RunArea shows a run and its result.
"""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.training.spg.config import SYNTHETIC, TEMPLATE
from MedEnhancePages.distill_run import RunArea
from MedEnhancePages.widgets import Notice, Page, allow, askForFile, fill
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhanceTasks import distillation

#: The entry of the templates that asks for a file.
_FILE = "file"


class DistillPanel(Page):
    """Page that fills the options of a run, and starts it."""

    def __init__(self, context):
        super().__init__(context, "Distill")
        #: The parameters that an estimate is about, and its job.
        self._estimated, self._estimate = None, None
        self._segmenter = None  # that teaches; see `offer`
        ui = self.ui
        tasks = {
            "distillMR": _("Distilled set, MR"),
            "distillCT": _("Distilled set, CT"),
            "trainMR": _("An enhancer for MR"),
            "trainCT": _("An enhancer for CT"),
            "slicesMR": _("Thin slices for MR"),
            "slicesCT": _("Thin slices for CT"),
            "labelsMR": _("Segmentation, from label maps (no images)"),
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
            distillTask=ui.taskSelector,
            distillCohort=ui.pathEdit,
            distillPreset=ui.presetSelector,
            distillName=ui.nameEdit,
            distillMethod=ui.methodSelector,
            distillVolumes=ui.volumesSpinBox,
            distillSegmenter=ui.segmenterSelector,
            distillGate=ui.gateSelector,
            distillLicense=ui.licenseEdit,
            distillDevice=ui.deviceSelector,
        )
        ui.templateSelector.activated.connect(self._onTemplate)
        ui.pathButton.clicked.connect(self._onBrowse)
        ui.tableButton.clicked.connect(self._onBrowseTable)
        ui.estimateButton.clicked.connect(self._onEstimate)
        ui.startButton.clicked.connect(self._onStart)

    def enter(self):
        self.runs.list()
        self.update()
        self.context.devices.ask()

    def cleanup(self):
        super().cleanup()
        self.runs.cleanup()

    def onNewState(self):
        self.runs.recall(self.state.distillRun)
        self.runs.list()

    def offer(self):
        entries = {
            SYNTHETIC: _("Synthetic volumes"),
            TEMPLATE: _("Public template (MR)"),
            _FILE: _("A file…"),
        }
        box, template = self.ui.templateSelector, self.state.distillTemplate
        fill(box, entries, template)
        box.currentIndex = box.findData(template)
        fill(self.ui.deviceSelector, self.context.devices.entries, self.state.distillDevice)
        segmenters, self._segmenter, problem = distillation.segmentersOf(self.state)
        names = {each.name: each.name for each in segmenters}
        fill(self.ui.segmenterSelector, {"": _("None")} | names)
        allow(self.ui.segmenterSelector, problem)

    def show(self):
        ui, state, isRunning = self.ui, self.state, self.runs.isRunning
        isDistilling = distillation.kindOf(state) == "distill"
        segmenter = self._segmenter
        ui.tableButton.visible = ui.distillArea.visible = isDistilling
        ui.pathLabel.text = _("Cohort:") if segmenter is None else _("Scans:")
        if distillation.learnsFromLabels(state):
            ui.pathLabel.text = _("Label maps:")
        ui.pathEdit.accessibleName = ui.pathLabel.text.rstrip(":")
        table = _("A folder, or a table (CSV)")
        ui.pathEdit.placeholderText = table if isDistilling else _("A folder")
        ui.taughtArea.visible = state.distillTask.startswith("train")
        # The form below begins in the same column.
        area = ui.distillArea if isDistilling else ui.taughtArea
        labels = slicer.util.findChildren(area, className="QLabel")
        widths = [label.sizeHint.width() for label in labels if not area.isHidden()]
        ui.deviceLabel.minimumWidth = max(widths, default=0)
        ui.gateSelector.enabled = segmenter is not None
        problem = dependencies.enhancingProblem() or distillation.problemOf(state, segmenter)
        # The choices stay those of what runs.
        isFree = not isRunning and self.job is None
        ui.choicesArea.enabled = ui.advancedContent.enabled = ui.trainButton.enabled = isFree
        ui.startButton.enabled = ui.estimateButton.enabled = isFree and not problem
        ui.startButton.toolTip = problem
        ui.estimateButton.visible = isDistilling and not isRunning
        estimate = _("This trains the shipped models further, about half an hour on one core…")
        if self.job is None or self.job is not self._estimate:
            isCurrent = isDistilling and self._estimated == distillation.paramsOf(state)
            estimate = self._estimate.result.get("sentence", "") if isCurrent else ""
        level, text, details = distillation.aboutOf(state, segmenter, problem, self.runs.earlier)
        text = "\n".join(filter(None, [text, estimate]))
        self._about.show(level, "" if isRunning else text, details)  # about the next run
        ui.problemLabel.text, ui.problemLabel.visible = problem, bool(problem) and not isRunning
        self.runs.show()

    @guarded
    def _onTemplate(self, *_index):
        template = self.ui.templateSelector.currentData
        if template == _FILE:
            title = _("Choose a volume that may be shared")
            template = askForFile(self.widget, title) or self.state.distillTemplate
        self.state.distillTemplate = template
        self.update()

    @guarded
    def _onBrowse(self, _checked=False):
        edit, title = self.ui.pathEdit, _("Choose a folder")
        edit.text = qt.QFileDialog.getExistingDirectory(self.widget, title, edit.text) or edit.text

    @guarded
    def _onBrowseTable(self, _checked=False):
        title, kinds = _("Choose a table"), _("Tables (*.csv)")
        path = askForFile(self.widget, title, self.ui.pathEdit.text, kinds)
        if path:
            self.ui.pathEdit.text = path

    @guarded
    def _onEstimate(self, _checked=False):
        """Measure what a distillation can gain, with the choices as they are."""
        if not dependencies.ensure(dependencies.ENHANCE, self.context, self.ui.estimateButton):
            return
        runner, title = self.context.runner, _("Estimate the gain")
        params = self._estimated = distillation.paramsOf(self.state)
        self._estimate = runner.submit("distill-estimate", params, title=title, dedicated=True)
        self.follow(self._estimate, lambda _job: None)

    @guarded
    def _onStart(self, _checked=False):
        if not dependencies.ensure(dependencies.ENHANCE, self.context, self.ui.startButton):
            return
        self.context.clearMessage()
        self.runs.begin(distillation.start(self.context.runner, self.state))

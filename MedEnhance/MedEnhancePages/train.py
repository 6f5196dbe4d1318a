"""The page Train: images or a cohort, what is made of them, and a run in the background.

It trains a model, or distills a cohort into a set; RunArea shows a run and its result.
"""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePages.train_run import RunArea
from MedEnhancePages.widgets import Notice, Page, askForFile, fill
from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhanceTasks import training


class TrainPanel(Page):
    """Page that fills the options of a run, and starts it."""

    def __init__(self, context):
        super().__init__(context, "Train")
        ui = self.ui
        tasks = {
            "trainMR": _("Scanner model, MR: HQG-Net, no pairs"),
            "trainCT": _("Scanner model, CT: HQG-Net, no pairs"),
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
        self.runs, self._about = RunArea(self), Notice(ui, "about")
        self.bind(
            trainTask=ui.taskSelector,
            trainData=ui.pathEdit,
            trainPreset=ui.presetSelector,
            trainHighQuality=ui.goodEdit,
            trainName=ui.nameEdit,
            distillMethod=ui.methodSelector,
            distillVolumes=ui.volumesSpinBox,
            distillLicense=ui.licenseEdit,
            trainDevice=ui.deviceSelector,
        )
        ui.pathButton.clicked.connect(lambda *_checked: self._browse(ui.pathEdit))
        ui.goodButton.clicked.connect(lambda *_checked: self._browse(ui.goodEdit))
        ui.fileButton.clicked.connect(self._onBrowseFile)
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

    def show(self):
        ui, state, isRunning = self.ui, self.state, self.runs.isRunning
        kind, file = training.kindOf(state), _fileTexts(training.fileOf(state))
        isDistilling, isMeasuring = kind == "distill", kind == "scanner"
        labels = {"distill": _("Cohort:"), "labels": _("Label maps:"), "slices": _("Images:")}
        ui.pathLabel.text = labels.get(state.trainTask[:-2], _("Low quality:"))
        ui.pathEdit.accessibleName = ui.pathLabel.text.rstrip(":")
        ui.pathEdit.placeholderText, ui.fileButton.text, ui.fileButton.toolTip, *_rest = file
        ui.fileButton.visible = bool(ui.fileButton.text)
        for widget in (ui.goodLabel, ui.goodEdit, ui.goodButton):
            widget.visible = training.takesTwoFolders(state)
        for widget in (ui.presetLabel, ui.presetSelector, ui.advancedSection):
            widget.visible = not isMeasuring
        ui.distillArea.visible = isDistilling
        # The form below begins in the same column.
        labels = slicer.util.findChildren(ui.distillArea, className="QLabel")
        widths = [label.sizeHint.width() for label in labels if isDistilling]
        ui.deviceLabel.minimumWidth = max(widths, default=0)
        problem = dependencies.networksProblem() or training.problemOf(state)
        # The choices stay those of what runs.
        isFree = not isRunning and self.job is None
        ui.choicesArea.enabled = ui.advancedContent.enabled = ui.trainButton.enabled = isFree
        ui.startButton.enabled, ui.startButton.toolTip = isFree and not problem, problem
        level, text, details = training.aboutOf(state, problem, self.runs.earlier)
        self._about.show(level, "" if isRunning else text, details)  # about the next run
        ui.problemLabel.text, ui.problemLabel.visible = problem, bool(problem) and not isRunning
        self.runs.show()

    @guarded
    def _browse(self, edit):
        title = _("Choose a folder")
        edit.text = qt.QFileDialog.getExistingDirectory(self.widget, title, edit.text) or edit.text

    @guarded
    def _onBrowseFile(self, _checked=False):
        *_shown, title, kinds = _fileTexts(training.fileOf(self.state))
        path = askForFile(self.widget, title, self.ui.pathEdit.text, kinds)
        if path:
            self.ui.pathEdit.text = path

    @guarded
    def _onStart(self, _checked=False):
        if not dependencies.ensure(dependencies.NETWORKS, self.context, self.ui.startButton):
            return
        self.context.clearMessage()
        self.runs.begin(training.start(self.context.runner, self.state))


def _fileTexts(ending):
    """Return the texts about a file in place of a folder: of field, button, its tip and dialog."""
    texts = {
        ".csv": (
            _("A folder, or a table (CSV)"),
            _("CSV…"),
            _("Choose a table (CSV: patient, path) in a dialog"),
            _("Choose a table"),
            _("Tables (*.csv)"),
        ),
        ".json": (
            _("A folder, or scanner.json"),
            _("Scanner…"),
            _("Choose a scanner that was measured before, in a dialog"),
            _("Choose a measured scanner"),
            _("Measured scanners (*.json)"),
        ),
    }
    return texts.get(ending, (_("A folder"), "", "", "", ""))

"""The page Distill: a cohort, what is made of it, and a run in the background.

It distills the cohort, or trains an enhancer on it; RunArea shows a run and its result.
"""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.pages.distill_run import RunArea
from MedEnhancePanels.pages.widgets import Page, askForFile
from MedEnhancePanels.tasks import distillation, long_run
from MedEnhancePanels.tasks.distillation import REPRESENTATIVE, TEMPLATE

#: The entry of the templates that asks for a file.
_FILE = "file"


class DistillPanel(Page):
    """Fills the options of a run from the page, and starts it."""

    def __init__(self, context):
        super().__init__(context, "Distill")
        self._isUpdating = False
        #: The estimate that runs, or has ended, and the options that it is about.
        self._room, self._askedFor = None, None
        ui = self.ui
        self._choices = {name: (box, box.findData) for name, box in self._fillSelectors().items()}
        self._edits = {
            "distillCohort": ui.pathEdit,
            "distillName": ui.nameEdit,
            "distillRoot": ui.rootEdit,
        }
        self.runs = RunArea(context, self.ui, lambda: self.root, self._refreshButtons)
        self._connect()
        self.runs.followCurrent()
        self.followState()

    def _fillSelectors(self):
        """The combo boxes by the state's field, with their entries."""
        ui = self.ui
        entries = {
            "distillTask": (
                ui.taskSelector,
                {
                    "distillMR": _("Distilled images, MR"),
                    "distillCT": _("Distilled images, CT"),
                    "trainMR": _("An enhancer for MR"),
                    "trainCT": _("An enhancer for CT"),
                },
            ),
            "distillGoal": (
                ui.goalSelector,
                {
                    "denoise": _("Removing noise"),
                    "sr2": _("Doubling the resolution"),
                    "sr4": _("Four times the resolution"),
                },
            ),
            "distillPreset": (
                ui.budgetSelector,
                {
                    "cpu": _("Short, for a processor"),
                    "full": _("Full, for a graphics card"),
                    "smoke": _("Test: seconds"),
                },
            ),
            "distillMethod": (
                ui.methodSelector,
                {
                    "statistics": _("Statistics: the template with the cohort's means (seconds)"),
                    "matching": _("Matching: images of each patient (minutes)"),
                },
            ),
            "distillPrior": (
                ui.priorSelector,
                {
                    TEMPLATE: _("Public template (MR)"),
                    REPRESENTATIVE: _("The most typical patient of the cohort"),
                    _FILE: _("A file…"),
                },
            ),
            "distillDevice": (
                ui.deviceSelector,
                {
                    "auto": _("Automatic"),
                    "cpu": _("CPU"),
                    "cuda": _("Graphics card (CUDA)"),
                    "mps": _("Graphics card (Apple)"),
                },
            ),
        }
        for selector, texts in entries.values():
            for value, text in texts.items():
                selector.addItem(text, value)
        return {name: selector for name, (selector, _texts) in entries.items()}

    def _connect(self):
        ui = self.ui
        for selector, _find in self._choices.values():
            selector.activated.connect(self._onEdited)
        for edit in self._edits.values():
            edit.textChanged.connect(self._onEdited)
        ui.imagesSpinBox.valueChanged.connect(self._onEdited)
        ui.pathButton.clicked.connect(lambda _checked=False: self._browse(ui.pathEdit))
        ui.rootButton.clicked.connect(lambda _checked=False: self._browse(ui.rootEdit))
        ui.tableButton.clicked.connect(self._onBrowseTable)
        ui.roomButton.clicked.connect(self._onRoom)
        ui.startButton.clicked.connect(self._onStart)

    def enter(self):
        self.runs.list()
        self.update()

    def cleanup(self):
        super().cleanup()
        self._forgetRoom()
        self.runs.cleanup()

    @property
    def root(self):
        """The folder that runs are kept in."""
        return self.ui.rootEdit.text.strip() or long_run.defaultRoot()

    @property
    def options(self):
        """What is chosen, as distillation.RunOptions."""
        state = self.state
        return distillation.RunOptions(
            cohort=state.distillCohort.strip(),
            name=state.distillName,
            kind=state.distillTask[:-2],
            modality=state.distillTask[-2:],
            preset=state.distillPreset,
            device=state.distillDevice,
            goal=state.distillGoal,
            method=state.distillMethod,
            prior=state.distillPrior,
            images=state.distillImages,
        )

    # --- state ↔ widgets ---

    def onState(self, state):
        self.widget.enabled = state is not None
        self.update()
        self.runs.list()
        if state is not None:
            self.runs.recall(state.distillRun)

    def update(self):
        """Show what the state says."""
        if self.state is None or self._isUpdating:
            return
        state, ui = self.state, self.ui
        self._isUpdating = True
        try:
            if ui.priorSelector.findData(state.distillPrior) < 0:  # a file
                ui.priorSelector.addItem(state.distillPrior, state.distillPrior)
            for name, (selector, find) in self._choices.items():
                selector.currentIndex = find(getattr(state, name))
            for name, edit in self._edits.items():
                if edit.text != getattr(state, name):
                    edit.text = getattr(state, name)
            ui.imagesSpinBox.value = state.distillImages
        finally:
            self._isUpdating = False
        ui.rootEdit.placeholderText = long_run.defaultRoot()
        self._showTexts()
        self._refreshButtons()

    def _showTexts(self):
        ui, options = self.ui, self.options
        isDistilling = options.kind == "distill"
        ui.noticeLabel.text = _(
            "Trains an enhancer on the volumes of a folder (those in hq, and ordinary ones in lq, "
            "where it has such folders): its model is then among the models."
        )
        if isDistilling:
            ui.noticeLabel.text = _(
                "A few images stand in for a cohort, to train small networks for one task. "
                "They are audited; this does not prove that nobody can be recognized. If ten real "
                "images may be shared, share those: training works about as well."
            )
        ui.tableButton.visible = ui.distillArea.visible = ui.shareLabel.visible = isDistilling
        ui.goalSelector.enabled = isDistilling
        ui.imagesLabel.text = (
            _("Images per patient:") if options.method == "matching" else _("Images in all:")
        )
        warning = distillation.warningAbout(options) if isDistilling else ""
        ui.shareLabel.text = "\n".join(filter(None, [distillation.sharedText(options), warning]))

    @guarded
    def _onEdited(self, _value=None):
        if self.state is None or self._isUpdating:
            return
        ui, state = self.ui, self.state
        prior, root = ui.priorSelector.currentData, state.distillRoot
        if prior == _FILE:
            prior = askForFile(self.widget, _("Choose a volume that may be shared"))
        with state.changes():
            for name, (selector, _find) in self._choices.items():
                setattr(state, name, selector.currentData)
            for name, edit in self._edits.items():
                setattr(state, name, edit.text)
            state.distillPrior = prior or TEMPLATE
            state.distillImages = ui.imagesSpinBox.value
        if state.distillRoot != root:
            self.runs.list()

    def _refreshButtons(self):
        """Offer what can be done now."""
        ui, isRunning = self.ui, self.runs.isRunning
        why = distillation.whyNot(self.options) if self.state is not None else _("No scene")
        ui.whyLabel.text = why
        ui.whyLabel.visible = bool(why) and not isRunning
        ui.startButton.enabled = not why and not isRunning
        ui.startButton.toolTip = why or (_("A run is in progress") if isRunning else "")
        if self._askedFor is not None and (self.state is None or self._askedFor != self.options):
            self._forgetRoom()
        isAsking = self._room is not None and not self._room.isFinished
        ui.roomButton.visible = ui.shareLabel.isVisibleTo(self.widget) and not isRunning
        ui.roomButton.enabled = not why and not isAsking
        ui.roomLabel.visible = bool(ui.roomLabel.text)
        self.runs.refresh()

    # --- what the buttons do ---

    @guarded
    def _browse(self, edit):
        folder = qt.QFileDialog.getExistingDirectory(self.widget, _("Choose a folder"), edit.text)
        if folder:
            edit.text = folder

    @guarded
    def _onBrowseTable(self, _checked=False):
        title, kinds = _("Choose a table"), _("Tables (*.csv)")
        path = askForFile(self.widget, title, self.ui.pathEdit.text, kinds)
        if path:
            self.ui.pathEdit.text = path

    @guarded
    def _onRoom(self, _checked=False):
        """Measure what a distillation can gain, with the choices as they are."""
        if not dependencies.ensure():
            return
        self._askedFor = self.options
        self.ui.roomLabel.text = _("This trains small networks, which can take minutes…")
        self._room = distillation.startRoom(self.context.runner, self._askedFor)
        self._room.onFinished(self._onRoomMeasured)
        self._refreshButtons()

    def _onRoomMeasured(self, job):
        if job is self._room:
            failed = job.error.text if job.error is not None else ""
            self.ui.roomLabel.text = failed or job.result["sentence"]
            self._refreshButtons()

    def _forgetRoom(self):
        """The estimate is about other choices than those of now."""
        job, self._room, self._askedFor = self._room, None, None
        self.ui.roomLabel.text = ""
        if job is not None:
            job.cancel()

    @guarded
    def _onStart(self, _checked=False):
        if not dependencies.ensure():
            return
        self.context.clearMessage()
        options = self.options
        warning = _(
            "Every distilled image will show the anatomy of the most typical patient of the "
            "cohort. Anyone who gets the images can recognize this person, whatever the audit "
            "finds. Continue only if this person consented."
        )
        isExposed = options.kind == "distill" and options.prior == REPRESENTATIVE
        title = _("MedEnhance: a patient as the template")
        if isExposed and not slicer.util.confirmOkCancelDisplay(warning, title, self.widget):
            return
        self.runs.begin(distillation.start(self.context.runner, self.root, options))

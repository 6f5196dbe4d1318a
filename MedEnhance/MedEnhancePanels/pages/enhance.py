"""The page Enhance: choose, preview in place, apply, compare."""

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels import dependencies
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.job import withWarnings
from MedEnhancePanels.nodes import bridge, cautions, model_choice, preview
from MedEnhancePanels.pages.enhance_choices import (
    DeviceChoice,
    GuideBox,
    HeadBox,
    ModalityBox,
    ModelBox,
    TaskBox,
    offer,
    outputProblem,
)
from MedEnhancePanels.pages.enhance_result import ResultArea
from MedEnhancePanels.pages.result_texts import hardlyChangedText, tookText, warningsOf
from MedEnhancePanels.pages.widgets import NodeSelectors, Notice, Page, singleShot
from MedEnhancePanels.tasks import enhancement

_SETTLE_MS = 50


class EnhancePanel(Page):
    """What is chosen lives in the state; the widgets show it and change it."""

    def __init__(self, context):
        super().__init__(context, "Enhance")
        self.job = None
        self.preview = preview.Preview()
        self.result = ResultArea(context, self.ui, self.update)
        self._isUpdating = False
        self._observed, self._observedInput = [], None
        self._shownFor = self._shownInput = None
        self._settle = singleShot(self.widget, _SETTLE_MS, self.update)
        self._devices = DeviceChoice(context.runner, self.ui.deviceComboBox, self._settle.start)
        self._models, self._heads = ModelBox(self.ui), HeadBox(self.ui)
        self._modality = ModalityBox(self.ui)
        self._tasks, self._guide = TaskBox(self.ui), GuideBox(self.ui)
        self._problem = Notice(self.ui, "problem")
        ui = self.ui
        self._selectors = NodeSelectors(ui.guideSelector, ui.outputSelector, ui.resultSelector)
        self._setup()
        self.followState()
        running = context.runner.enhancement
        if running is not None and not running.isFinished:
            self._follow(running, self._onApplied)

    def _setup(self):
        ui = self.ui
        ui.allFramesCheckBox.visible = False
        ui.outputSelector.addAttribute("vtkMRMLScalarVolumeNode", "MedEnhance.derived", "enhanced")
        for selector in (ui.guideSelector, ui.outputSelector):
            selector.currentNodeChanged.connect(self._onChoice)
        for comboBox in (ui.taskComboBox, ui.modelComboBox, ui.headComboBox, ui.deviceComboBox):
            comboBox.activated.connect(self._onChoice)
        for checkBox in (
            ui.allFramesCheckBox,
            ui.uncertaintyCheckBox,
            ui.noiseMapCheckBox,
            ui.segmentCheckBox,
            ui.biasCorrectionCheckBox,
        ):
            checkBox.toggled.connect(self._onChoice)
        ui.previewButton.clicked.connect(self.onPreview)
        ui.applyButton.clicked.connect(self.onApply)
        scene = slicer.mrmlScene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            self._observed.append((scene, scene.AddObserver(event, self._onSceneChanged)))
        start = scene.AddObserver(scene.StartCloseEvent, self._onSceneCloses)
        self._observed.append((scene, start))

    def enter(self):
        """Called when the page is shown: models and devices may have come or gone."""
        self._models.forget()
        self._heads.forget()
        self._devices.forget()
        self.update()

    def cleanup(self):
        super().cleanup()
        self._selectors.cleanup()
        self.result.stop()
        self._settle.stop()
        self._devices.cleanup()
        self.preview.hide()
        self.result.leave()
        self.result.forget()
        self._observeInput(None)
        for scene, tag in self._observed:
            scene.RemoveObserver(tag)
        self._observed = []
        self.job = None

    # --- what is chosen -----------------------------------------------------------------------

    @property
    def target(self):
        """The node to enhance: the volume, or the sequence that it is a frame of."""
        state = self.context.state
        node = state.inputVolume if state is not None else None
        if node is not None and state.allFrames:
            return preview.sequenceOf(node) or node
        return node

    @property
    def options(self):
        """The choices as an enhancement takes them; what does not fit the volume is left out."""
        state, node = self.context.state, self.target
        isMr = node is not None and model_choice.modalityOf(node) == "MR"
        segment = state.segment and self.ui.segmentCheckBox.enabled
        options = enhancement.EnhanceOptions(
            model=state.model,
            task=state.task,
            guide=state.guideVolume,
            uncertainty=state.uncertainty,
            noiseMap=state.noiseMap,
            segment=segment,
            segmenter=state.head if segment else "auto",
            device=state.device,
            biasCorrection=_biasCorrection(state) if isMr else "none",
            output=state.outputVolume,
        )
        return model_choice.withoutWhatItLacks(options)

    @guarded
    def _onChoice(self, *_arguments):
        """A widget was changed by the user: into the state with it."""
        state, ui = self.context.state, self.ui
        if self._isUpdating or state is None:
            return
        with state.changes():
            state.guideVolume = ui.guideSelector.currentNode()
            state.outputVolume = ui.outputSelector.currentNode()
            state.task = ui.taskComboBox.currentData or "auto"
            state.model = ui.modelComboBox.currentData or "auto"
            state.head = ui.headComboBox.currentData or "auto"
            state.device = ui.deviceComboBox.currentData or "auto"
            state.allFrames = ui.allFramesCheckBox.checked
            if ui.uncertaintyCheckBox.enabled:
                state.uncertainty = ui.uncertaintyCheckBox.checked
            if ui.noiseMapCheckBox.enabled:
                state.noiseMap = ui.noiseMapCheckBox.checked
            if ui.segmentCheckBox.enabled:
                state.segment = ui.segmentCheckBox.checked
            if ui.biasCorrectionCheckBox.enabled:
                state.biasCorrection = ui.biasCorrectionCheckBox.checked

    def onState(self, state):
        self.update()

    def _onSceneChanged(self, *_arguments):
        self._settle.start()

    def _onSceneCloses(self, *_arguments):
        self._settle.stop()
        self.preview.forget()
        self.result.forget()
        self._observeInput(None)
        self._shownInput = None

    def _observeInput(self, node):
        """Follow the input's voxels, modality and name."""
        if self._observedInput is not None:
            observed, tag = self._observedInput
            observed.RemoveObserver(tag)
        self._observedInput = None
        if node is not None:
            tag = node.AddObserver("ModifiedEvent", lambda *_arguments: self._settle.start())
            self._observedInput = (node, tag)

    # --- what is shown ------------------------------------------------------------------------

    @guarded
    def update(self, *_arguments):
        """Show the state, and enable what can be done."""
        if self._isUpdating or slicer.mrmlScene.IsClosing():
            return
        self._isUpdating = True
        try:
            self._settle.stop()
            self.widget.enabled = self.context.state is not None
            if self.context.state is not None:
                self._showChoices()
                for box in (self._modality, self._models, self._tasks, self._heads):
                    box.show(self.context.state, self.target)
                self._devices.show(self.context.state.device)
                self._showPlan()
                self._showActions()
                self.result.update()
        finally:
            self._isUpdating = False

    def _showChoices(self):
        state, ui = self.context.state, self.ui
        node = state.inputVolume
        if self.preview.source is None or self.preview.source is not preview.shownVolume(node):
            self.preview.hide()
        if self._observedInput is None or self._observedInput[0] is not node:
            self._observeInput(node)
        if self._shownFor == state and node is not self._shownInput:
            self.result.follow(node)
        self._shownFor, self._shownInput = state, node
        ui.outputSelector.setCurrentNode(state.outputVolume)
        sequence = preview.sequenceOf(node)
        ui.allFramesCheckBox.visible = sequence is not None
        if sequence is not None:
            ui.allFramesCheckBox.text = _("All {count} &frames of {name}").format(
                count=sequence.GetNumberOfDataNodes(), name=sequence.GetName()
            )
        ui.allFramesCheckBox.checked = state.allFrames
        isSlices = state.task == "slices"
        ui.outputSelector.enabled = not (bridge.isSequence(self.target) or isSlices)
        lacking = model_choice.slicesProblem(state.task)
        self._guide.show(state, self.target, lacking)
        _offerCheck(ui.uncertaintyCheckBox, state.uncertainty, lacking)
        _offerCheck(ui.noiseMapCheckBox, state.noiseMap, lacking)
        problem = model_choice.canSegment(self.target) if model_choice.isUsable(self.target) else ""
        if isSlices:
            problem = lacking
        _offerCheck(ui.segmentCheckBox, state.segment, problem)
        problem = ""
        if model_choice.isUsable(self.target) and model_choice.modalityOf(self.target) != "MR":
            problem = _("Only for MR.")
        _offerCheck(ui.biasCorrectionCheckBox, state.biasCorrection, problem or lacking)

    def _showActions(self):
        ui, state = self.ui, self.context.state
        problem = self.problem()
        busy = self._busy()
        if problem:
            self._problem.show("info" if state.inputVolume is None else "error", problem)
        else:
            warning, remedy = cautions.cautionOf(self.target)
            self._problem.show(
                "warning" if warning else "info", warning or dependencies.missingText(), remedy
            )
        ui.applyButton.enabled = not (problem or busy)
        ui.applyButton.toolTip = problem or busy or _("Enhance the whole volume")
        isShown = self.preview.isShown
        ui.previewButton.text = _("Hide &preview") if isShown else _("&Preview")
        reason = "" if isShown else problem or busy or self._previewProblem()
        ui.previewButton.enabled = not reason
        ui.previewButton.toolTip = reason or _("Enhance only the slice that is shown, in place")
        # The page in front asks, where there is a worker that can answer.
        if not problem and not self.widget.isHidden() and not dependencies.missing():
            self._devices.ask()

    def _showPlan(self):
        """What the run will do, with which models, and where."""
        ui, state = self.ui, self.context.state
        model = model_choice.modelFor(self.target, state.model, state.task)
        ui.planLabel.visible = model is not None and not self.problem()
        if model is not None:
            plan = _("{what}. Model {model}; device: {device}.").format(
                what=model_choice.aboutTask(state.task),
                model=model.name,
                device=ui.deviceComboBox.currentText,
            )
            note = model_choice.segmentNote(self.target, state.segment, state.head)
            ui.planLabel.text = f"{plan} {note}".strip()

    def problem(self):
        """Why Apply cannot be pressed, in a sentence; empty where it can."""
        fault = model_choice.problemOf(self.target, self.options)
        return fault or outputProblem(self.context.state.outputVolume, self.target)

    def _busy(self):
        """What has to end before another run can begin, in a sentence; empty for nothing."""
        if self.job is not None:
            return _("Wait for the run to finish, or cancel it.")
        if self.result.isBlending:
            return _("Wait until the strength has been applied.")
        return ""

    def _previewProblem(self):
        if self.context.state.task == "slices":
            return _("Thin slices lie on another grid: there is no preview of them.")
        node = preview.shownVolume(self.context.state.inputVolume)
        if node is None:
            return _("No frame of the sequence is shown.")
        if preview.currentSlice(node) is None:
            return _("There is no slice view in the layout.")
        return ""

    # --- running ------------------------------------------------------------------------------

    @guarded
    def onApply(self, *_checked):
        """Enhance the volume."""
        if not dependencies.ensure():
            return
        self.preview.hide()
        job = enhancement.start(self.context.runner, self.target, self.options)
        self.context.runner.enhancement = job
        self._follow(job, self._onApplied)

    @guarded
    def onPreview(self, *_checked):
        """Enhance the slice that is shown, or take the preview away."""
        if self.preview.isShown:
            self.preview.hide()
            self.context.clearMessage()
            self.update()
            return
        if not dependencies.ensure():
            return
        node = preview.shownVolume(self.context.state.inputVolume)
        current = preview.currentSlice(node)
        options = self.options
        slices = (current.index, current.index + 1)
        job = enhancement.startPreview(self.context.runner, self.target, slices, options)
        self._follow(job, lambda job: self._onPreviewed(job, node, current, options))

    def _follow(self, job, onDone):
        """Show a run until its end; onDone(job): what follows where it was successful."""
        self.context.clearMessage()
        self.job = job
        job.onFinished(lambda job: self._onFinished(job, onDone))
        self.update()

    @guarded
    def _onFinished(self, job, onDone):
        if job is not self.job:
            return
        self.job = None
        self.context.runner.enhancement = None
        if job.error is not None:
            self.context.showError(job.error)
        elif self.context.state is not None:
            if job.warnings:
                self.context.message("warning", withWarnings("", job.warnings))
            onDone(job)
        self.update()

    def _onApplied(self, job):
        state, output = self.context.state, job.nodes["output"]
        if bridge.isSequence(output):
            output = preview.shownVolume(output) or output
        if not bridge.isSequence(output):
            state.enhancedVolume = output
        self.result.showNew(output)
        seconds = tookText(job.ended - job.started)
        ready = _("{name} is ready, after {time}.").format(name=output.GetName(), time=seconds)
        if share := hardlyChangedText(output):
            ready = f"{ready} {share}"
        # What is said about the result itself stands above it.
        said = [f"{text}: {hint}" if hint else text for _level, text, hint in warningsOf(output)]
        warnings = [each for each in job.warnings if each not in said]
        self.context.message("warning" if warnings else "info", withWarnings(ready, warnings))

    def _onPreviewed(self, job, node, current, options):
        self.preview.show(job.nodes["output"], node, current)
        shown = _("Preview of slice {number} in the {view} view.").format(
            number=current.index + 1, view=current.sliceNode.GetLayoutName()
        )
        if options.biasCorrection != "none" and options.task == "auto":
            shown += " " + _("Apply also corrects blur and bias field where it finds them.")
        level = "warning" if job.warnings else "info"
        self.context.message(level, withWarnings(shown, job.warnings))


def _biasCorrection(state):
    """The option's value: always, or where the bias field is measured to be strong."""
    return "n4" if state.biasCorrection else "auto"


def _offerCheck(checkBox, value, problem):
    """As `offer`; not checked where it is not there."""
    offer(checkBox, problem)
    checkBox.checked = value and not problem

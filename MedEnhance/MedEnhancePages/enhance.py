"""The page Enhance: choose, preview in place, apply, compare."""

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceNodes import bridge, model_choice, region, results, volume_warnings
from MedEnhancePages.enhance_preview import SlicePreview
from MedEnhancePages.enhance_queue import Runs
from MedEnhancePages.enhance_result import ResultArea
from MedEnhancePages.noise_area import NoiseArea
from MedEnhancePages.scanner_area import ScannerArea
from MedEnhancePages.widgets import Notice, Page, allow, fill, showValue
from MedEnhancePanels import arguments, dependencies
from MedEnhancePanels.errors import PanelError, guarded
from MedEnhanceTasks import enhancement

#: Side of a new region.
_REGION_MM = 40


class EnhancePanel(Page):
    """Page whose choices live in the state; the widgets show it and change it."""

    def __init__(self, context):
        super().__init__(context, "Enhance")
        ui = self.ui
        self._shownInput = None
        self.preview, self.result = SlicePreview(self), ResultArea(self)
        self._devices = context.devices
        self.noise, self._scanner = NoiseArea(self), ScannerArea(self)
        self.problem, self.runs = Notice(ui, "problem"), Runs(self)
        ui.outputSelector.addAttribute("vtkMRMLScalarVolumeNode", "MedEnhance.derived", "enhanced")
        ui.noiseSpinBox.valueChanged.connect(self._onOfVolume)
        ui.framesComboBox.activated.connect(self._onOfVolume)
        uses = {"first": _("First, then the whole volume"), "alone": _("Only there")}
        fill(ui.roiUseComboBox, uses)
        self.bind(
            task=ui.taskComboBox,
            correctBiasField=ui.biasFieldCheckBox,
            forViewing=ui.lesionsComboBox,
            scanner=ui.scannerEdit,
            model=ui.modelComboBox,
            outputVolume=ui.outputSelector,
            noise=ui.noiseSpinBox,  # after _onOfVolume, as the next
            sequence=ui.framesComboBox,
            uncertainty=ui.uncertaintyCheckBox,
            noiseMap=ui.noiseMapCheckBox,
            segment=ui.segmentCheckBox,
            segmenter=ui.segmenterComboBox,
            forceSegmenter=ui.forceSegmenterCheckBox,
            device=ui.deviceComboBox,
            roi=ui.roiSelector,
            roiUse=ui.roiUseComboBox,
        )
        ui.modalityComboBox.activated.connect(self._onModality)
        ui.newRoiButton.clicked.connect(self._onNewRegion)
        ui.applyButton.clicked.connect(self.onApply)
        ui.segmentOnlyButton.clicked.connect(self._onSegmentOnly)

    def cleanup(self):
        self.exit()
        self.forget()

    def forget(self):
        self.noise.follow(None)
        self.preview.forget()
        self.result.forget()
        self.runs.forget()
        self._shownInput = None

    @property
    def target(self):
        return self.state.inputVolume if self.state is not None else None

    @property
    def job(self):
        """The newest run that has not ended; None for none."""
        return self.runs.newest

    @property
    def options(self):
        return self.optionsFor(self.target)

    def optionsFor(self, target):
        """Return the choices as an enhancement takes them, without what does not fit the volume.

        Of a volume other than the one chosen also without what only goes with that one.
        """
        state, isOther = self.state, target is not self.target
        task, roi = state.task, self._roiFor(target, state.task)
        isSlices = task == "slices"
        box = region.boxOf(roi, target) if roi is not None else None
        isBoxAlone = box is not None and state.roiUse == "alone"
        hasMaps = not (isBoxAlone or model_choice.taskProblem(target, task))
        hasField = not (isBoxAlone or model_choice.biasFieldProblem(target, task))
        hasBlobs = not model_choice.viewingProblem(target, task)
        models, scanner = model_choice.modelTexts(target, task), {}
        model = {"model": state.model if state.model in models and not isOther else "auto"}
        if hasMaps and not isOther:
            scanner = model if model["model"] != "auto" else self._scanner.options
        chosen = model if isSlices else state.optionsOf(EnhanceConfig)  # those are of noise
        chosen |= scanner
        chosen |= {
            "task": task,
            "correct_bias_field": state.correctBiasField and hasField and not scanner,
            "for_viewing": state.forViewing and hasBlobs,
            "noise": None if isSlices or isOther else state.noise or None,
            "uncertainty": state.uncertainty and hasMaps and not scanner,
            "device": state.device,
            "sequence": state.sequence if bridge.hasFrames(target) and not isOther else "auto",
        }
        config = arguments.checkedConfig(EnhanceConfig, **chosen)
        segmenters = [model.name for model in model_choice.segmentersFor(target)]
        segment = state.segment and hasMaps and bool(segmenters)
        return enhancement.EnhanceOptions(
            config,
            noiseMap=state.noiseMap and hasMaps,
            segment=segment,
            segmenter=state.segmenter if segment and state.segmenter in segmenters else "auto",
            forceSegmenter=segment and state.forceSegmenter,
            output=None if isOther or isSlices or bridge.hasFrames(target) else state.outputVolume,
            box=None if scanner else box,
            isBoxAlone=isBoxAlone,
        )

    def _roiFor(self, target, task):
        """Return the region chosen, where a volume can be enhanced in a part; else None."""
        isWhole = model_choice.taskProblem(target, task) or not bridge.isUsable(target)
        return None if isWhole else self.state.roi

    def problemOf(self, target, options):
        """Say why a volume cannot be enhanced; empty where it can."""
        problem = region.problemOf(self._roiFor(target, options.config.task), target)
        return problem or model_choice.problemOf(target, options)

    @guarded
    def _onModality(self, *_index):
        """Keep the modality with the node."""
        bridge.chooseModality(self.target, self.ui.modalityComboBox.currentData)

    @guarded
    def _onOfVolume(self, *_value):
        """Keep noise and filtering of frames with the volume that they were chosen for."""
        if self.state is not None and not self.isShowing:
            self.stateNoise(self.ui.noiseSpinBox.value)

    def stateNoise(self, sigma):
        """State the noise of the volume, 1 SD in its units."""
        with slicer.util.NodeModify(self.state.node):
            self.state.chosenFor = self.target
            self.state.noise = sigma
            self.state.sequence = self.ui.framesComboBox.currentData

    @guarded
    def _onNewRegion(self, *_checked):
        self.state.roi = region.newRegion(self.target, _("Region"), _REGION_MM)

    def onNewState(self):
        self._shownInput = self.state.inputVolume  # the scene has the result to show

    def enter(self):
        super().enter()
        self._devices.ask()  # a worker that answers is then warm

    def exit(self):
        """End preview and comparison."""
        self.noise.leave()
        self.preview.hide()
        self.result.leave()

    def offer(self):
        state, ui, target = self.state, self.ui, self.target
        if target is not state.chosenFor:
            state.noise, state.sequence = 0.0, "auto"
        self._scanner.keepTo(target)
        modality, box = bridge.modalityOf(target), ui.modalityComboBox
        fill(box, model_choice.modalityTexts(target))
        box.enabled, isOpen = bridge.isUsable(target), len(bridge.modalitiesOf(target)) != 1
        box.currentIndex = -1 if isOpen else box.findData(modality)
        about = _("The modality decides how noise is removed. Correct it here if it is wrong.")
        box.toolTip = f"{box.currentText}\n{about}"
        tasks = {task: text for task, (text, _about) in model_choice.tasks().items()}
        fill(ui.taskComboBox, tasks)
        models = model_choice.modelTexts(target, state.task)
        ui.modelComboBox.visible = len(models) > 1
        fill(ui.modelComboBox, models)
        ui.framesComboBox.visible = bridge.hasFrames(target)
        fill(ui.framesComboBox, model_choice.framesTexts(target))
        hasLesions = not model_choice.viewingProblem(target, state.task)
        ui.lesionsComboBox.visible = hasLesions
        state.forViewing = state.forViewing and hasLesions
        fill(ui.lesionsComboBox, model_choice.lesionsTexts())
        fill(ui.deviceComboBox, self._devices.entries, state.device)
        segmenters = {model.name: model.name for model in model_choice.segmentersFor(target)}
        fill(ui.segmenterComboBox, {"auto": _("Automatic")} | segmenters)
        allow(ui.noiseSpinBox, model_choice.taskProblem(None, state.task))
        showValue(ui.noiseSpinBox, "suffix", f" {results.unitOf(target)}")

    def show(self):
        node = self.target
        self.preview.keepTo(node)
        if node is not self._shownInput:
            self._shownInput = node
            self.result.turnTo(node)
        self._showChoices()
        self._showActions()
        self.result.show()

    def _showChoices(self):
        state, ui, target, options = self.state, self.ui, self.target, self.options
        isSlices = state.task == "slices"
        ui.outputSelector.enabled = not (bridge.hasFrames(target) or isSlices)
        taskProblem, scannerProblem = model_choice.taskProblem(target, state.task), ""
        if options.inverts:
            scannerProblem = _("Not available while a scanner is inverted.")
        for widget in (ui.roiSelector, ui.newRoiButton):
            allow(widget, taskProblem or scannerProblem)
        ui.newRoiButton.enabled = ui.newRoiButton.enabled and bridge.isUsable(target)
        ui.roiUseComboBox.visible = state.roi is not None and ui.roiSelector.enabled
        aloneProblem = ""
        if options.isBoxAlone:
            aloneProblem = _("It needs the whole volume: not available for a region alone.")
            taskProblem = taskProblem or aloneProblem
        segmenter, segmenterProblem = model_choice.segmenterFor(target, state.segmenter), ""
        about = segmenter.about if segmenter is not None else _("The page Models imports others")
        ui.segmenterComboBox.toolTip = about
        if ui.segmenterComboBox.count == 1:
            segmenterProblem = _("There is no segmentation model for this modality.")
        allow(ui.modelComboBox, "" if isSlices else taskProblem)
        isByModel = options.inverts and options.config.scanner is None
        text = _("A model that inverts a scanner is chosen above.") if isByModel else ""
        self._scanner.show(taskProblem or text)
        fieldProblem = model_choice.biasFieldProblem(target, state.task) or aloneProblem
        for checkBox, problem in (
            (ui.biasFieldCheckBox, fieldProblem or scannerProblem),
            (ui.uncertaintyCheckBox, taskProblem or scannerProblem),
            (ui.noiseMapCheckBox, taskProblem),
            (ui.segmentCheckBox, taskProblem or segmenterProblem),
        ):
            allow(checkBox, problem)
            if problem:
                checkBox.checked = False
        for widget in (ui.segmenterComboBox, ui.forceSegmenterCheckBox, ui.segmentOnlyButton):
            widget.visible = ui.segmentCheckBox.checked
        ui.segmentOnlyButton.enabled = not any(
            job.kind == "segment" for job in self.context.runner.activeJobs()
        )
        # In a narrow panel a box has no room for all of its text.
        about = model_choice.tasks()[state.task][1]
        ui.taskComboBox.toolTip = f"{ui.taskComboBox.currentText}\n{about}"
        ui.deviceComboBox.toolTip = self._devices.reason or ui.deviceComboBox.currentText

    def _showActions(self):
        several, options = self.context.several.nodes(), self.options
        if several:
            self.preview.hide()
            self.noise.follow(None)
            self.runs.showSeveral(several)
            return
        use = _useOf(options)
        problem = self.problemOf(self.target, options)
        if use == dependencies.NETWORKS:
            problem = dependencies.networksProblem() or problem
        ui, busy, isQueued = self.ui, self._busy(), self.runs.problemOf(self.target, options)
        self.noise.follow(None if problem else self.target)
        if problem:
            self.problem.show("info" if self.target is None else "error", problem)
        else:
            notes = [volume_warnings.warningOf(self.target)]
            level = "warning" if any(text for text, _remedy in notes) else "info"
            notes.append((self.target.GetAttribute(volume_warnings.ABOUT) or "", ""))
            if options.config.sequence == "auto":
                notes.append(volume_warnings.questionOf(self.target))
            note, remedy = (" ".join(filter(None, texts)) for texts in zip(*notes, strict=True))
            self.problem.show(level, note or dependencies.missingText(use), remedy)
        ui.applyButton.text, ui.applyButton.enabled = _("Apply"), not (problem or isQueued)
        ui.applyButton.toolTip = problem or isQueued or _("Enhance the volume, after those before")
        isOn = self.preview.isOn
        ui.previewButton.text = _("Hide preview") if isOn else _("Preview")
        reason = "" if isOn else problem or busy or self.preview.problem()
        ui.previewButton.enabled = not reason
        ui.previewButton.toolTip = reason or _("Enhance only the slice that is shown, in place")
        ui.planLabel.text = "" if problem else isQueued or self._plan(options)
        ui.planLabel.visible = bool(ui.planLabel.text)

    def _plan(self, options):
        """Say what the run will do, with which model if any, where, and for how long."""
        state = self.state
        what = model_choice.tasks()[state.task][1]
        if state.task == "noise":
            if model_choice.isJoint(self.target, options.config.sequence):
                what = _("Removes noise from all frames together")
            elif self.noise.isClean and not state.noise:
                what = _("Changes hardly anything")
        if options.config.correct_bias_field:
            what = _("{what}; corrects the bias field").format(what=what)
        if options.inverts:
            text = _("{what}, inverts the scanner (contrast, sharpness and intensities change)")
            what = text.format(what=what)
        if options.config.for_viewing:
            what = _("{what}, and small faint lesions that look like it").format(what=what)
        if options.box is not None:
            texts = _("{what}, first in the region"), _("{what}, only in the region")
            what = texts[options.isBoxAlone].format(what=what)
        config, model = options.config, model_choice.modelFor(self.target, options.config)
        device = config.device if model is not None else "cpu"  # on others only networks run
        facts = {"what": what, "device": self._devices.nameOf(device)}
        self.ui.planLabel.toolTip = model.about if model is not None else ""
        plan = _("{what}, on the {device}").format(**facts)
        if model is not None:
            plan = _("{what}. Runs model {model} on the {device}").format(model=model.name, **facts)
        # A region alone takes a part of the time, which is not known.
        expected = ""
        if not options.isBoxAlone:
            expected = self._devices.expectedText(self.target, config.task, device)
        return ", ".join(filter(None, [plan, expected])) + "."

    def _busy(self):
        """Say what must end before a preview can start; empty for nothing."""
        if self.runs.newest is not None:
            return _("A preview has to wait for the runs in the queue.")
        if self.result.job is not None:
            return _("Wait for the end of: {title}.").format(title=self.result.job.title)
        return ""

    @guarded
    def _onSegmentOnly(self, *_checked):
        """Segment the volume itself: the scene gets no other volume."""
        if not dependencies.ensure(dependencies.NETWORKS, self.context, self.ui.segmentOnlyButton):
            return
        self.context.clearMessage()
        node = self.target
        job = enhancement.startSegmenting(self.context.runner, node, self.options)
        text = _("{name} is segmented; the module Data has the segments and their table.")
        text = text.format(name=node.GetName())
        job.onFinished(lambda job: self.context.report(job, text))
        job.onFinished(self.update)
        self.update()

    def ensure(self, button):
        """Return whether the packages of all runs are installed; if not, ask, and install them."""
        isSeveral = bool(self.context.several.nodes())
        runs = [run for _node, run in self.runs.fitting] if isSeveral else [self.options]
        use = _useOf(*runs)
        return dependencies.ensure(use, self.context, button, needsLibrary=True)

    @guarded
    def onApply(self, *_checked):
        if not self.ensure(self.ui.applyButton):
            return
        self.preview.hide()
        if self.context.several.nodes():
            self.runs.startSeveral()
            return
        node, options = self.target, self.options
        if problem := self.problemOf(node, options):  # as the region may have moved
            raise PanelError(problem, code="input")
        job = self.runs.start(node, options)
        if bridge.isGuessed(node):  # and shown as a guess: Apply confirms it
            bridge.chooseModality(node, bridge.modalityOf(node))
        if not options.isBoxAlone:
            self._devices.rememberPace(node, options.config.task, job)


def _useOf(*runs):
    """Return the use of packages that runs with these options need."""
    isLearned = any(options.runsNetworks for options in runs)
    return dependencies.NETWORKS if isLearned else dependencies.BASIC

"""The part of the page Enhance about a result: facts, comparison, strength, overlays."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.report.uncertainty import calibration_in_words, uncertainty_in_words
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.job import durationText, sentence
from MedEnhancePanels.nodes import bridge, preview, provenance, results, wipe
from MedEnhancePanels.nodes.compare import Compare
from MedEnhancePanels.pages.result_tools import ResultTools
from MedEnhancePanels.pages.widgets import Notice, showIcon, ticking
from MedEnhancePanels.tasks import blending

#: Codes of warnings that structure in a result may be wrong.
_ALARMS = ("no-structure", "out-of-range", "anatomy", "test-model")
#: The strength that the views begin with where there is an alarm.
_MILDER = 0.5
#: With a smaller share of the correction than this a result looks like its input.
_HARDLY = 0.5


class ResultArea:
    """Compares an enhanced volume (state.enhancedVolume) with its input.

    onKeeping(): called when voxels begin to be changed to a strength, and when that has ended.
    """

    def __init__(self, context, ui, onKeeping=lambda: None):
        self.context, self.ui, self._onKeeping = context, ui, onKeeping
        self.compare = Compare(self.update, self._onWiped)
        self._steps, self._kept, self._undo = None, None, None
        #: Whether the views show the input alone for a moment.
        self._isInput = False
        self._isUpdating = False
        self._timer = ticking(ui.resultButton, 0, self._onStep)
        self._notice = Notice(ui, "alarm")
        showIcon(ui.factsButton, qt.QStyle.SP_MessageBoxInformation)
        ui.factsButton.toggled.connect(lambda _checked: self._showFacts())
        self._modes = {
            "none": ui.compareOffButton,
            "sideBySide": ui.sideBySideButton,
            "fade": ui.fadeButton,
            "wipe": ui.wipeButton,
        }
        self._wipeTip, self._segmentationTip = ui.wipeButton.toolTip, ui.segmentationButton.toolTip
        self._overlays = {"difference": ui.differenceButton, "uncertainty": ui.uncertaintyButton}
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", "MedEnhance.derived", "enhanced")
        ui.resultSelector.currentNodeChanged.connect(self._onChosen)
        for mode, button in self._modes.items():
            button.clicked.connect(lambda _checked=False, mode=mode: self._onMode(mode))
        for kind, button in self._overlays.items():
            button.clicked.connect(lambda checked=False, kind=kind: self._onOverlay(kind, checked))
        ui.segmentationButton.clicked.connect(self._onSegmentation)
        ui.strengthSlider.valueChanged.connect(self._onStrength)
        ui.wipeSlider.valueChanged.connect(self._onWipeSlider)
        ui.keepStrengthButton.clicked.connect(self.keepStrength)
        ui.undoButton.clicked.connect(self.undo)
        ui.inputButton.clicked.connect(self.toggleInput)
        self.tools = ResultTools(context, ui, lambda: self.output, self.leave)
        ui.exportButton.clicked.connect(self._onExport)

    @property
    def output(self):
        """The enhanced volume that is looked at, or None."""
        state = self.context.state
        return state.enhancedVolume if state is not None else None

    @property
    def isKeeping(self):
        """Whether voxels are being changed to the strength."""
        return self._steps is not None

    def update(self):
        """Show what the state says, and enable what can be done with it."""
        self._isUpdating = True
        try:
            self._update()
        finally:
            self._isUpdating = False

    def _update(self):
        ui, output = self.ui, self.output
        source = results.linked(output, "input")
        if self.compare.mode != "none" and (self.compare.output is not output or source is None):
            self.compare.leave()
        canCompare = source is not None and not self.isKeeping
        ui.resultButton.visible = ui.resultSelector.nodeCount() > 0
        ui.resultSelector.setCurrentNode(output)
        self._showFacts()
        for mode, button in self._modes.items():
            button.checked = mode == self.compare.mode
            button.enabled = canCompare
        problem = wipe.problem()
        ui.wipeButton.enabled = canCompare and not problem
        ui.wipeButton.toolTip = problem or self._wipeTip
        ui.wipeSlider.enabled = self.compare.mode == "wipe"
        ui.wipeSlider.value = 100 * self.compare.wipe.position
        self._isInput = self._isInput and self.compare.mode != "none"
        ui.inputButton.enabled, ui.inputButton.checked = canCompare, self._isInput
        self.tools.update(self.isKeeping)
        ui.strengthSlider.value = self.context.state.strength if self.context.state else 1.0
        ui.strengthSlider.enabled = canCompare and self.compare.mode != "none"
        ui.strengthSlider.toolTip = (
            _(
                "Share of the correction that is shown: 0 is the input, 1 the enhanced volume;"
                " nothing is recomputed"
            )
            if ui.strengthSlider.enabled
            else _("Choose “Side by side”, “Fade” or “Wipe” first: the strength changes the views")
        )
        self._showKeep()
        for kind, button in self._overlays.items():
            button.enabled = results.linked(output, kind) is not None and canCompare
            button.checked = self.compare.overlay == kind
        ui.uncertaintyButton.toolTip = (
            uncertaintyText(output) or _("Standard deviation of each voxel, in the volume's units")
            if results.linked(output, "uncertainty") is not None
            else _notMade(_("Uncertainty map"))
        )
        ui.exportButton.enabled = bridge.isInScene(output) and not self.isKeeping
        segmentation = results.linked(output, "segmentation")
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        ui.segmentationButton.enabled = display is not None
        ui.segmentationButton.toolTip = (
            _notMade(_("Segmentation")) if display is None else self._segmentationTip
        )
        ui.segmentationButton.checked = display is not None and bool(display.GetVisibility())

    def _showFacts(self):
        """One line, and the rest on demand."""
        ui, output = self.ui, self.output
        ui.factsLabel.text, more = factsOf(output), moreFactsOf(output)
        ui.factsLabel.visible = bool(ui.factsLabel.text)
        ui.moreFactsLabel.text = ui.factsButton.toolTip = more
        ui.factsButton.visible = bool(more)
        ui.moreFactsLabel.visible = bool(more) and ui.factsButton.checked
        self._notice.show(*noticeOf(output))

    def _showKeep(self):
        """Whether the strength can be kept, and why not."""
        ui = self.ui
        problem = blending.problemOf(self.output) if self.output is not None else ""
        if not problem and ui.strengthSlider.value >= 1.0:
            problem = _("At strength 1 the volume already has the full correction.")
        ui.keepStrengthButton.enabled = ui.strengthSlider.enabled and not problem
        ui.keepStrengthButton.toolTip = problem or _(
            "Blend the voxels of the enhanced volume with its input, without running again."
            " “Undo” brings the full result back until the scene is closed"
        )
        canUndo = self._undo is not None and self._undo.output is self.output
        ui.undoButton.enabled = canUndo and self._undo.isPossible and not self.isKeeping
        ui.undoButton.toolTip = (
            _("Bring the full result back")
            if ui.undoButton.enabled
            else _("There is nothing to undo: no strength was kept, or voxels were changed since.")
        )

    def showNew(self, output):
        """Show a result that has just come out, in the mode that is on, or fading."""
        mode = self.compare.mode if self.compare.mode != "none" else "fade"
        _hideLabelsOfOthers(output)
        self.context.state.strength = _MILDER if hasAlarm(output) else 1.0
        self.compare.show(output, mode, self.context.state.strength)

    def follow(self, node):
        """Another input was chosen: its latest result belongs here, and no comparison of others."""
        if node is None:
            return
        if self.compare.mode != "none" and node not in (self.compare.source, self.output):
            self.compare.leave()
        state, shown = self.context.state, preview.shownVolume(node)
        if node is not self.output and results.linked(self.output, "input") not in (node, shown):
            state.enhancedVolume = results.latestOf(node, shown)

    def adopt(self):
        """A scene was loaded: take over the comparison that its views show."""
        strength = self.compare.adopt(self.output)
        if strength is not None:
            self.context.state.strength = strength

    def leave(self):
        """Put the views back."""
        self._isInput = False
        self.compare.leave()
        self.update()

    def finish(self):
        """Complete a blend that has begun."""
        while self.isKeeping:
            self._onStep()

    def forget(self):
        """The scene closes: there is nothing to put back."""
        self._timer.stop()
        self._steps = self._undo = None
        self._isInput = False
        self.tools.forget()
        self.compare.forget()

    # --- what the buttons do ------------------------------------------------------------------

    @guarded
    def _onChosen(self, node=None):
        if not self._isUpdating and self.context.state is not None:
            self.context.state.enhancedVolume = self.ui.resultSelector.currentNode()
            _hideLabelsOfOthers(self.output)
            self.update()

    @guarded
    def _onMode(self, mode):
        self._isInput = False
        if self.output is not None:
            self.compare.show(self.output, mode, self.context.state.strength)
            self.compare.setStrength(self.context.state.strength)
        self.update()

    def _onWiped(self, position):
        """The line was dragged in a view; what the slider rounds must not move it back."""
        self._isUpdating = True
        self.ui.wipeSlider.value = 100 * position
        self._isUpdating = False

    @guarded
    def _onWipeSlider(self, value):
        if not self._isUpdating:
            self.compare.wipe.setPosition(value / 100)

    @guarded
    def toggleInput(self, *_checked):
        """Show the input alone, or the correction again; begins to fade where nothing compares."""
        if not self.ui.inputButton.enabled:
            return
        self._isInput = not self._isInput
        if self.compare.mode == "none":
            self.compare.show(self.output, "fade", self.context.state.strength)
        self.compare.setStrength(0.0 if self._isInput else self.context.state.strength)
        self.update()

    @guarded
    def _onOverlay(self, kind, checked):
        if checked and self.compare.mode == "none":
            self.compare.show(self.output, "fade", self.context.state.strength)
        self.compare.setOverlay(kind if checked else None)
        self.update()

    @guarded
    def _onSegmentation(self, *_checked):
        segmentation = results.linked(self.output, "segmentation")
        if segmentation is not None:
            segmentation.GetDisplayNode().SetVisibility(bool(self.ui.segmentationButton.checked))

    @guarded
    def _onExport(self, *_checked):
        self.context.exportDicom(self.output)

    @guarded
    def _onStrength(self, value):
        if self._isUpdating or self.context.state is None:
            return
        self._isInput = self.ui.inputButton.checked = False
        self.context.state.strength = value
        self.compare.setStrength(value)
        self._showKeep()

    @guarded
    def keepStrength(self, *_checked):
        """Change the voxels to what the slider shows, in slices; afterwards it stands at 1."""
        if self.isKeeping or self.output is None:
            return
        self._kept = (self.context.state, self.context.state.strength)
        self._steps = blending.keepStrength(self.output, self.context.state.strength)
        self.update()
        self._onKeeping()
        self._timer.start()

    @guarded
    def _onStep(self):
        try:
            next(self._steps)
            return
        except StopIteration as stop:
            self._undo = stop.value
        except BaseException:
            self._endKeeping()
            raise
        state, strength = self._kept  # another set of choices may be shown by now
        state.strength = 1.0
        self.compare.setStrength(1.0)
        self._endKeeping()
        self.context.message(
            "info",
            _(
                "The enhanced volume was changed to strength {strength:.2f}; from now on 1 on the "
                "slider stands for that. “Undo” brings the full result back until the scene is "
                "closed."
            ).format(strength=strength),
        )

    @guarded
    def undo(self, *_checked):
        """Bring back what the result was before a strength was kept."""
        self._undo.undo()
        _state, strength = self._kept
        self._undo = None
        self.context.state.strength = strength
        self.compare.setStrength(strength)
        self.update()
        self.context.message(
            "info",
            _("The full result is restored; the views show it at strength {strength:.2f}.").format(
                strength=strength
            ),
        )

    def _endKeeping(self):
        self._timer.stop()
        self._steps = None
        self.update()
        self._onKeeping()


def _notMade(choice):
    """Why a map cannot be shown. choice: its check box below Advanced."""
    return _("Not made in this run: select “{choice}” below Advanced, and apply again.").format(
        choice=choice
    )


def _hideLabelsOfOthers(output):
    """Labels of one result do not lie over another, where no button would take them away."""
    own = results.linked(output, "segmentation")
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        labels = results.linked(node, "segmentation")
        if labels is not None and labels is not own and labels.GetDisplayNode() is not None:
            labels.GetDisplayNode().SetVisibility(False)


def tookText(seconds):
    """How long something took; short times with a decimal."""
    return _("{seconds:.1f} s").format(seconds=seconds) if seconds < 10 else durationText(seconds)


def factsOf(output):
    """Model, device and seconds in a line.

    As all facts, from what is saved with the nodes: a scene opened later shows the same.
    """
    return _madeBy(output) if output is not None and bridge.isInScene(output) else ""


def moreFactsOf(output):
    """Noise, what the model learned from, and the state of segmentation and uncertainty."""
    if output is None or not bridge.isInScene(output):
        return ""
    lines = [_noise(output), *_scopes(output), _structures(output), _uncertainty(output)]
    return "\n".join(filter(None, lines))


def hasAlarm(output):
    """Whether structure in a result may be wrong, by the warnings of its run."""
    return any(code in _ALARMS for code, *_text in provenance.doubtsOf(output))


def noticeOf(output):
    """What to know before a result is looked at: (level, sentence, details), as a Notice takes it.

    The sentence is the warning of most weight; the details have all, with what to do.
    """
    if output is None or not bridge.isInScene(output):
        return "info", "", ""
    found = warningsOf(output)
    if not found:
        lost = results.linked(output, "input") is None
        text = _("Its input is not in the scene, so it cannot be compared.")
        return "info", text if lost else "", ""
    level, message, _hint = found[0]
    text = sentence(message)
    if len(found) > 1:
        text = _("{sentence} And {count} more.").format(sentence=text, count=len(found) - 1)
    lines = [sentence(f"{each}: {hint}" if hint else each) for _level, each, hint in found]
    return level, text, "\n".join(lines)


def warningsOf(output):
    """The warnings of the run: (level, message, what to do) of each, those of most weight first."""
    found = [
        ("alarm" if code in _ALARMS else "warning", message, hint)
        for code, message, hint in provenance.doubtsOf(output)
    ]
    segmentation = results.linked(output, "segmentation")
    ofLabels = provenance.figuresOf(segmentation).get("doubt_of_labels") if segmentation else None
    if ofLabels:
        found.append(("warning", str(ofLabels), ""))
    return sorted(dict.fromkeys(found))  # "alarm" comes first


def uncertaintyText(output):
    """What the uncertainty map of a result is, at length; empty where it has none."""
    facts = _uncertaintyFacts(output)
    return uncertainty_in_words(facts, results.unitOf(output)) if facts else ""


def _uncertainty(output):
    facts = _uncertaintyFacts(output)
    return facts and _("Uncertainty: 1 SD, in {unit}; {calibration}").format(
        unit=results.unitOf(output), calibration=calibration_in_words(facts)
    )


def _uncertaintyFacts(output):
    """What the manifest says of the map; {} if there is none."""
    if results.linked(output, "uncertainty") is None:
        return {}
    return provenance.uncertaintyOf(output)


def _madeBy(output):
    manifest = provenance.manifestOf(output) or {}
    facts = [output.GetAttribute("MedEnhance.model"), manifest.get("device")]
    if manifest.get("seconds") is not None:
        facts.append(tookText(manifest["seconds"]))
    if results.strengthOf(output) != 1.0:
        facts.append(_("strength {strength:.2f}").format(strength=results.strengthOf(output)))
    if provenance.regionOf(output):
        facts.append(_("in {region} only").format(region=provenance.regionOf(output)))
    if provenance.isDeblurred(output):
        facts.append(_("blur reduced"))
    return " · ".join(str(fact) for fact in facts if fact)


def _noise(output):
    """The measured noise, and what was done about it; empty where none was measured."""
    noise = provenance.noiseOf(output)
    if not noise:
        return ""
    text = _("Measured noise: σ {sigma:g} {unit}; {share:.0%} of the correction applied").format(
        sigma=noise["sigma"], unit=results.unitOf(output), share=_shareIn(output, noise)
    )
    return f"{text}: {noise['reason']}." if noise.get("reason") else f"{text}."


def _shareIn(output, noise):
    """The share of the correction in the voxels, those of a strength that was kept later too."""
    return noise["share_removed"] * results.strengthOf(output)


def hardlyChangedText(output):
    """That a result has less than half of the correction, and why; empty where it has more."""
    noise = provenance.noiseOf(output)
    if not noise or noise["share_removed"] >= _HARDLY:
        return ""
    text = _("It is hardly changed: {share:.0%} of the correction was applied").format(
        share=noise["share_removed"]
    )
    return f"{text}: {noise['reason']}." if noise.get("reason") else f"{text}."


def _scopes(output):
    made = (output, results.linked(output, "segmentation"))
    anatomies = dict.fromkeys(node.GetAttribute("MedEnhance.anatomy") for node in made if node)
    return [f"{results.scopeText(anatomy)}." for anatomy in anatomies if anatomy]


def _structures(output):
    """For a result that was blended after the run: its segmentation was not repeated."""
    segmentation = results.linked(output, "segmentation")
    found = provenance.strengthIn(segmentation) if segmentation is not None else None
    if found is None or found == results.strengthOf(output):
        return ""
    return _("The segmentation was made at strength {strength:g}.").format(strength=found)

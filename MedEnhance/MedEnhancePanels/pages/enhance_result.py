"""The part of the page Enhance about a result: facts, comparison, strength, overlays."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.report.uncertainty import calibration_in_words, uncertainty_in_words
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.job import durationText, sentence
from MedEnhancePanels.nodes import bridge, preview, provenance, results
from MedEnhancePanels.nodes.compare import Compare
from MedEnhancePanels.pages.result_tools import ResultTools
from MedEnhancePanels.pages.widgets import Notice, showIcon, ticking
from MedEnhancePanels.tasks import blending

#: With a smaller share of the correction than this a result looks like its input.
_HARDLY = 0.5


class ResultArea:
    """Compares an enhanced volume (state.enhancedVolume) with its input, and sets its strength.

    onBusy(): called when voxels begin to be changed to a strength, and when that has ended.
    """

    def __init__(self, context, ui, onBusy=lambda: None):
        self.context, self.ui, self._onBusy = context, ui, onBusy
        self.compare = Compare(self.update)
        #: What is being blended, and the steps of that.
        self._blended, self._steps = None, None
        #: Whether the views show the input alone for a moment.
        self._isInput = False
        #: Whether the slider is held somewhere else than at the strength of the voxels.
        self._isHeld = False
        self._isUpdating = False
        self._timer = ticking(ui.resultButton, 0, self._onStep)
        self._notice = Notice(ui, "alarm")
        showIcon(ui.factsButton, qt.QStyle.SP_MessageBoxInformation)
        ui.factsButton.toggled.connect(lambda _checked: self._showFacts())
        self._modes = {
            "none": ui.compareOffButton,
            "sideBySide": ui.sideBySideButton,
            "fade": ui.fadeButton,
        }
        self._segmentationTip = ui.segmentationButton.toolTip
        self._strengthTip = ui.strengthSlider.toolTip
        self._overlays = {"difference": ui.differenceButton, "uncertainty": ui.uncertaintyButton}
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", "MedEnhance.derived", "enhanced")
        ui.resultSelector.currentNodeChanged.connect(self._onChosen)
        for mode, button in self._modes.items():
            button.clicked.connect(lambda _checked=False, mode=mode: self._onMode(mode))
        for kind, button in self._overlays.items():
            button.clicked.connect(lambda checked=False, kind=kind: self._onOverlay(kind, checked))
        ui.segmentationButton.clicked.connect(self._onSegmentation)
        ui.strengthSlider.valueIsChanging.connect(self._onDragged)
        ui.strengthSlider.valueChanged.connect(self._onStrength)
        ui.inputButton.clicked.connect(self.toggleInput)
        self.tools = ResultTools(context, ui, lambda: self.output, self.leave)
        ui.exportButton.clicked.connect(self._onExport)

    @property
    def output(self):
        """The enhanced volume that is looked at, or None."""
        state = self.context.state
        return state.enhancedVolume if state is not None else None

    @property
    def isBlending(self):
        """Whether voxels are being changed to a strength."""
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
        blending.forgetRemoved()
        source = results.linked(output, "input")
        if self.compare.mode != "none" and (self.compare.output is not output or source is None):
            self.compare.leave()
        canCompare = source is not None and not self.isBlending
        ui.resultButton.visible = ui.resultSelector.nodeCount() > 0
        ui.resultSelector.setCurrentNode(output)
        self._showFacts()
        for mode, button in self._modes.items():
            button.checked = mode == self.compare.mode
            button.enabled = canCompare
        self._isInput = self._isInput and self.compare.mode != "none"
        ui.inputButton.enabled, ui.inputButton.checked = canCompare, self._isInput
        self.tools.update(self.isBlending)
        self._showStrength()
        for kind, button in self._overlays.items():
            button.enabled = results.linked(output, kind) is not None and canCompare
            button.checked = self.compare.overlay == kind
        ui.uncertaintyButton.toolTip = (
            uncertaintyText(output) or _("Standard deviation of each voxel, in the volume's units")
            if results.linked(output, "uncertainty") is not None
            else _notMade(_("Uncertainty map"))
        )
        ui.exportButton.enabled = bridge.isInScene(output) and not self.isBlending
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

    def _showStrength(self):
        """The strength that the voxels have, but for one that they are about to get."""
        slider, output = self.ui.strengthSlider, self.output
        problem = blending.problemOf(output) if output is not None else ""
        isOurs = not self.isBlending or self._blended is output
        slider.enabled = output is not None and not problem and isOurs
        slider.toolTip = problem or self._strengthTip
        if not (self._isHeld or (self.isBlending and isOurs)):
            slider.value = results.strengthOf(output) if output is not None else 1.0

    def showNew(self, output):
        """Show a result that has just come out, in the mode that is on, or over its input."""
        _hideLabelsOfOthers(output)
        self.compare.show(output, self.compare.mode if self.compare.mode != "none" else "fade")

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
        self.compare.adopt(self.output)

    def leave(self):
        """Put the views back."""
        self._isInput = False
        self.compare.leave()
        self.update()

    def stop(self):
        """Leave the voxels as they are, where a blend has begun."""
        self._timer.stop()
        self._blended = self._steps = None

    def forget(self):
        """The scene closes: there is nothing to put back."""
        self.stop()
        self._isHeld = False
        blending.forgetRemoved()
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
            self.compare.show(self.output, mode)
            self.compare.setOpacity(1.0)
        self.update()

    @guarded
    def toggleInput(self, *_checked):
        """Show the input alone, or the result again; compares them where nothing does."""
        if not self.ui.inputButton.enabled:
            return
        self._isInput = not self._isInput
        if self.compare.mode == "none":
            self.compare.show(self.output, "fade")
        self.compare.setOpacity(0.0 if self._isInput else 1.0)
        self.update()

    @guarded
    def _onOverlay(self, kind, checked):
        if checked and self.compare.mode == "none":
            self.compare.show(self.output, "fade")
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
    def _onDragged(self, value):
        """While the slider is held: the views show about what its release will write."""
        if self._isUpdating or self.output is None:
            return
        self._isInput = self.ui.inputButton.checked = False
        strength = results.strengthOf(self.output)
        self._isHeld = value != strength
        self.compare.setOpacity(min(1.0, value / strength) if strength > 0 else 1.0)

    @guarded
    def _onStrength(self, value):
        """The slider was released, or a value was entered."""
        if self._isUpdating or self.output is None:
            return
        self.stop()
        self._isHeld = False
        try:
            self._steps, self._blended = blending.setStrength(self.output, value), self.output
            self._timer.start()
        finally:
            self._showBlending()

    @guarded
    def _onStep(self):
        try:
            next(self._steps)
            return
        except StopIteration:
            self._endBlending()
        except BaseException:
            self._endBlending()
            raise

    def _endBlending(self):
        self.stop()
        self.compare.setOpacity(0.0 if self._isInput else 1.0)
        self._showBlending()

    def _showBlending(self):
        self.update()
        self._onBusy()


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
    lines = [
        _noise(output),
        _guide(output),
        *_scopes(output),
        _structures(output),
        _uncertainty(output),
    ]
    return "\n".join(filter(None, lines))


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
        ("alarm" if provenance.isAlarm(code) else "warning", message, hint)
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


def _guide(output):
    """How much the guide was used; empty without one."""
    guide = provenance.guideOf(output)
    if not guide:
        return ""
    text = _("Guide: changed the image by {share:.0%} of the noise").format(share=guide["used"])
    return f"{text}: {guide['reason']}." if guide.get("reason") else f"{text}."


def _shareIn(output, noise):
    """The share of the noise's correction in the voxels, at the strength that they have."""
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

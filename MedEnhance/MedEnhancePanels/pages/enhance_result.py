"""The part of the page Enhance about a result: facts, comparison, strength, overlays."""

from slicer.i18n import tr as _

from MedEnhanceLib.report.uncertainty import calibration_in_words, uncertainty_in_words
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.job import durationText
from MedEnhancePanels.nodes import bridge, preview, provenance, results
from MedEnhancePanels.nodes.compare import Compare
from MedEnhancePanels.pages.widgets import ticking
from MedEnhancePanels.tasks import blending


class ResultArea:
    """Compares an enhanced volume (state.enhancedVolume) with its input.

    onKeeping(): called when voxels begin to be changed to a strength, and when that has ended.
    """

    def __init__(self, context, ui, onKeeping=lambda: None):
        self.context, self.ui, self._onKeeping = context, ui, onKeeping
        self.compare = Compare(self.update)
        self._steps, self._kept = None, None
        self._isUpdating = False
        self._timer = ticking(0, self._onStep)
        self._modes = {
            "none": ui.compareOffButton,
            "sideBySide": ui.sideBySideButton,
            "fade": ui.fadeButton,
        }
        self._overlays = {"difference": ui.differenceButton, "uncertainty": ui.uncertaintyButton}
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", "MedEnhance.derived", "enhanced")
        ui.resultSelector.currentNodeChanged.connect(self._onChosen)
        for mode, button in self._modes.items():
            button.clicked.connect(lambda _checked=False, mode=mode: self._onMode(mode))
        for kind, button in self._overlays.items():
            button.clicked.connect(lambda checked=False, kind=kind: self._onOverlay(kind, checked))
        ui.segmentationButton.clicked.connect(self._onSegmentation)
        ui.strengthSlider.valueChanged.connect(self._onStrength)
        ui.keepStrengthButton.clicked.connect(self.keepStrength)
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
        ui.factsLabel.text = factsOf(output)
        ui.factsLabel.visible = bool(ui.factsLabel.text)
        for mode, button in self._modes.items():
            button.checked = mode == self.compare.mode
            button.enabled = canCompare
        ui.strengthSlider.value = self.context.state.strength if self.context.state else 1.0
        ui.strengthSlider.enabled = canCompare and self.compare.mode != "none"
        ui.strengthSlider.toolTip = (
            _(
                "Share of the correction that is shown: 0 is the input, 1 the enhanced volume;"
                " nothing is recomputed"
            )
            if ui.strengthSlider.enabled
            else _("Choose “Side by side” or “Fade” first: the strength changes the views")
        )
        self._showKeep()
        for kind, button in self._overlays.items():
            button.enabled = results.linked(output, kind) is not None and canCompare
            button.checked = self.compare.overlay == kind
        ui.uncertaintyButton.toolTip = uncertaintyText(output) or _(
            "Standard deviation of each voxel, in the volume's units"
        )
        ui.exportButton.enabled = bridge.isInScene(output) and not self.isKeeping
        segmentation = results.linked(output, "segmentation")
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        ui.segmentationButton.enabled = display is not None
        ui.segmentationButton.checked = display is not None and bool(display.GetVisibility())

    def _showKeep(self):
        """Whether the strength can be kept, and why not."""
        ui = self.ui
        problem = blending.problemOf(self.output) if self.output is not None else ""
        if not problem and ui.strengthSlider.value >= 1.0:
            problem = _("At strength 1 the volume already has the full correction.")
        ui.keepStrengthButton.enabled = ui.strengthSlider.enabled and not problem
        ui.keepStrengthButton.toolTip = problem or _(
            "Blend the voxels of the enhanced volume with its input, without running again."
            " This cannot be undone: for the full result, enhance again"
        )

    def showNew(self, output):
        """Show a result that has just come out, in the mode that is on, or fading."""
        mode = self.compare.mode if self.compare.mode != "none" else "fade"
        self.compare.show(output, mode, 1.0)

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
        self.compare.leave()
        self.update()

    def finish(self):
        """Complete a blend that has begun."""
        while self.isKeeping:
            self._onStep()

    def forget(self):
        """The scene closes: there is nothing to put back."""
        self._timer.stop()
        self._steps = None
        self.compare.forget()

    # --- what the buttons do ------------------------------------------------------------------

    @guarded
    def _onChosen(self, node=None):
        if not self._isUpdating and self.context.state is not None:
            self.context.state.enhancedVolume = self.ui.resultSelector.currentNode()
            self.update()

    @guarded
    def _onMode(self, mode):
        if self.output is not None:
            self.compare.show(self.output, mode, self.context.state.strength)
        self.update()

    @guarded
    def _onOverlay(self, kind, checked):
        if checked and self.compare.mode == "none":
            self.compare.show(self.output, "fade", self.context.state.strength)
        self.compare.setOverlay(kind if checked else None)
        self.update()

    @guarded
    def _onSegmentation(self, checked=False):
        segmentation = results.linked(self.output, "segmentation")
        if segmentation is not None:
            segmentation.GetDisplayNode().SetVisibility(bool(checked))

    @guarded
    def _onExport(self, *_checked):
        self.context.exportDicom(self.output)

    @guarded
    def _onStrength(self, value):
        if self._isUpdating or self.context.state is None:
            return
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
        except StopIteration:
            pass
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
                "The enhanced volume now has {share} % of the correction. This cannot be undone: "
                "for the full result, enhance again."
            ).format(share=round(100 * strength)),
        )

    def _endKeeping(self):
        self._timer.stop()
        self._steps = None
        self.update()
        self._onKeeping()


def tookText(seconds):
    """How long something took; short times with a decimal."""
    return _("{seconds:.1f} s").format(seconds=seconds) if seconds < 10 else durationText(seconds)


def factsOf(output):
    """Model, device, seconds and, where present, warnings, uncertainty and intended use.

    All from what is saved with the nodes, so a scene opened later shows the same.
    """
    if output is None or not bridge.isInScene(output):
        return ""
    lines = [_madeBy(output), _noise(output), *_scopes(output)]
    lines += [_("Warning: {warning}.").format(warning=warning) for warning in warningsOf(output)]
    lines += [_structures(output), _uncertainty(output)]
    if results.linked(output, "input") is None:
        lines.append(_("Its input is not in the scene, so it cannot be compared."))
    lines.append(output.GetAttribute("MedEnhance.use") or "")
    return "\n".join(filter(None, lines))


def warningsOf(output):
    """The warnings of the run about the model or the input, in sentences."""
    segmentation = results.linked(output, "segmentation")
    ofLabels = provenance.figuresOf(segmentation).get("doubt_of_labels") if segmentation else None
    return list(dict.fromkeys([*provenance.warningsOf(output), *([ofLabels] if ofLabels else [])]))


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
    if provenance.isDeblurred(output):
        facts.append(_("blur reduced"))
    return " · ".join(str(fact) for fact in facts if fact)


def _noise(output):
    """The measured noise, and what was done about it; empty where none was measured."""
    noise = provenance.noiseOf(output)
    if not noise:
        return ""
    text = _("Measured noise: σ {sigma:g} {unit}; {share:.0%} of the correction applied").format(
        sigma=noise["sigma"], unit=results.unitOf(output), share=noise["share_removed"]
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

"""The part of the Enhance page that looks at a result: comparison, strength, overlays."""

import qt
from slicer.i18n import tr as _

from MedEnhancePanels import bridge, keeping, preview, results
from MedEnhancePanels.compare import Compare
from MedEnhancePanels.errors import guarded
from MedEnhancePanels.facts import factsOf, uncertaintyText


class ResultArea:
    """Compares an enhanced volume (state.enhancedVolume) with its input.

    onKeeping(): called when voxels begin to be changed to a strength, and when that has ended.
    """

    def __init__(self, context, ui, onKeeping=lambda: None):
        self.context, self.ui, self._onKeeping = context, ui, onKeeping
        self.compare = Compare(self.update)
        self._steps, self._kept = None, None
        self._isUpdating = False
        self._timer = qt.QTimer()
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._onStep)
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
                " nothing is computed anew"
            )
            if ui.strengthSlider.enabled
            else _("Choose “Side by side” or “Fade” first: it is the views that it changes")
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
        problem = keeping.problemOf(self.output) if self.output is not None else ""
        if not problem and ui.strengthSlider.value >= 1.0:
            problem = _("At strength 1 the volume holds the whole correction already.")
        ui.keepStrengthButton.enabled = ui.strengthSlider.enabled and not problem
        ui.keepStrengthButton.toolTip = problem or _(
            "Blend the voxels of the enhanced volume with its input, without running again."
            " It is final: the full result comes back only by enhancing again"
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
        """A scene was loaded: a comparison that its views show goes on here."""
        strength = self.compare.adopt(self.output)
        if strength is not None:
            self.context.state.strength = strength

    def leave(self):
        """Put the views back."""
        self.compare.leave()
        self.update()

    def finish(self):
        """Complete what is half-way: voxels of which a part has changed would be no volume."""
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
        self._steps = keeping.keepStrength(self.output, self.context.state.strength)
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
                "The enhanced volume holds {share} % of the correction now. That is final: the"
                " full result comes back only by enhancing again."
            ).format(share=round(100 * strength)),
        )

    def _endKeeping(self):
        self._timer.stop()
        self._steps = None
        self.update()
        self._onKeeping()

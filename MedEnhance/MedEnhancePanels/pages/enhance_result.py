"""The part of the page Enhance about a result: comparison, strength, maps, and where it goes."""

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import guarded
from MedEnhancePanels.nodes import bridge, preview, results
from MedEnhancePanels.nodes.compare import Compare
from MedEnhancePanels.pages import result_texts
from MedEnhancePanels.pages.export_dicom import exportDicom
from MedEnhancePanels.pages.widgets import Notice
from MedEnhancePanels.tasks import blending

#: Maps that the menu More shows over the result, by their role.
_MAPS = ("uncertainty", "noise")


class ResultArea:
    """Comparison of an enhanced volume (state.enhancedVolume) with its input; its strength."""

    def __init__(self, page):
        self.context, self._page = page.context, page
        self.ui = ui = page.ui
        self.compare = Compare(page.update)
        #: The job that blends.
        self._job = None
        #: Whether the slider is held somewhere else than at the strength of the voxels.
        self._isHeld = False
        self._notice = Notice(ui, "alarm")
        self._strengthTip = ui.strengthSlider.toolTip
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", "MedEnhance.derived", "enhanced")
        ui.resultSelector.currentNodeChanged.connect(self._onChosen)
        ui.inputButton.pressed.connect(lambda: self._showInput(True))
        ui.inputButton.released.connect(lambda: self._showInput(False))
        ui.sideBySideButton.clicked.connect(self._onSideBySide)
        ui.differenceButton.clicked.connect(lambda isOn=False: self._onMap("difference", isOn))
        ui.strengthSlider.valueIsChanging.connect(self._onDragged)
        ui.strengthSlider.valueChanged.connect(self._onStrength)
        self._menu, self.actions = qt.QMenu(ui.moreButton), {}
        for name, text, slot in (
            ("segments", _("Segments"), self._onSegments),
            ("table", _("Table of volumes"), self._onTable),
            ("uncertainty", _("Uncertainty"), lambda isOn: self._onMap("uncertainty", isOn)),
            ("noise", _("Noise map"), lambda isOn: self._onMap("noise", isOn)),
            ("export", _("Export to DICOM…"), self._onExport),
        ):
            action = self.actions[name] = self._menu.addAction(text)
            action.checkable = name not in ("table", "export")
            action.triggered.connect(slot)
        ui.moreButton.setMenu(self._menu)

    @property
    def output(self):
        state = self.context.state
        return state.enhancedVolume if state is not None else None

    @property
    def isBlending(self):
        return self._job is not None

    def show(self):
        """Show the result of the state, and enable what can be done with it."""
        ui, output, compare = self.ui, self.output, self.compare
        blending.forgetRemoved()
        source = results.linked(output, "input")
        if compare.mode != "none" and (compare.output is not output or source is None):
            compare.leave()
        canCompare = source is not None and not self.isBlending
        ui.resultButton.visible = ui.resultSelector.nodeCount() > 0
        ui.resultSelector.setCurrentNode(output)
        isThere = bridge.isInScene(output)
        ui.factsLabel.text = result_texts.factsOf(output) if isThere else ""
        ui.factsLabel.toolTip = result_texts.moreFactsOf(output) if isThere else ""
        ui.factsLabel.visible = bool(ui.factsLabel.text)
        self._notice.show(*(result_texts.noticeOf(output) if isThere else ("info", "")))
        ui.inputButton.enabled = ui.sideBySideButton.enabled = canCompare
        ui.sideBySideButton.checked = compare.mode == "sideBySide"
        hasDifference = results.linked(output, "difference") is not None
        ui.differenceButton.enabled = canCompare and hasDifference
        ui.differenceButton.checked = compare.overlay == "difference"
        self._showStrength()
        self._showMenu(canCompare)

    def _showStrength(self):
        """Show the strength that the voxels have, but for one that they are about to get."""
        slider, output = self.ui.strengthSlider, self.output
        problem = blending.problemOf(output) if output is not None else ""
        slider.enabled = output is not None and not problem
        slider.toolTip = problem or self._strengthTip
        if not (self._isHeld or self.isBlending):
            slider.value = results.strengthOf(output) if output is not None else 1.0

    def _showMenu(self, canCompare):
        output, actions = self.output, self.actions
        self.ui.moreButton.enabled = bridge.isInScene(output) and not self.isBlending
        segmentation = results.linked(output, "segmentation")
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        actions["segments"].enabled = display is not None
        actions["segments"].checked = display is not None and bool(display.GetVisibility())
        actions["table"].enabled = results.linked(output, "table") is not None
        for role in _MAPS:
            actions[role].enabled = canCompare and results.linked(output, role) is not None
            actions[role].checked = self.compare.overlay == role

    def showNew(self, output):
        """Show a result that has just come out: beside its input."""
        _hideLabelsOfOthers(output)
        self.compare.show(output, "sideBySide")

    def follow(self, node):
        """Follow another input: its latest result belongs here, and no comparison of others."""
        if node is None:
            return
        if self.compare.mode != "none" and node not in (self.compare.source, self.output):
            self.compare.leave()
        if node is not self.output and results.linked(self.output, "input") is not node:
            self.context.state.enhancedVolume = results.latestOf(node)

    def leave(self):
        self.compare.leave()
        self._page.update()

    def forget(self):
        """Let go of a scene that closes: voxels stay, and there is nothing to put back."""
        self._stop()
        self._isHeld = False
        blending.forgetRemoved()
        self.compare.forget()

    @guarded
    def _onChosen(self, node=None):
        if self.context.isEntered and not self._page.isShowing and self.context.state is not None:
            self.context.state.enhancedVolume = self.ui.resultSelector.currentNode()
            _hideLabelsOfOthers(self.output)
            self._page.update()

    @guarded
    def _onSideBySide(self, *_checked):
        if self.output is not None:
            isBeside = self.ui.sideBySideButton.checked
            self.compare.show(self.output, "sideBySide" if isBeside else "single")
        self._page.update()

    def _begin(self):
        """Show the result, where nothing of it is shown yet."""
        if self.compare.mode == "none" and self.output is not None:
            self.compare.show(self.output, "single")

    @guarded
    def _showInput(self, isInput):
        self._begin()
        self.compare.setInput(isInput)

    @guarded
    def _onMap(self, role, isOn):
        self._begin()
        self.compare.setOverlay(role if isOn else None)
        self._page.update()

    @guarded
    def _onSegments(self, isOn):
        segmentation = results.linked(self.output, "segmentation")
        segmentation.GetDisplayNode().SetVisibility(bool(isOn))
        self._page.update()

    @guarded
    def _onTable(self, *_checked):
        logic, layout = slicer.app.applicationLogic(), preview.layoutNode()
        logic.GetSelectionNode().SetActiveTableID(results.linked(self.output, "table").GetID())
        logic.PropagateTableSelection()
        layout.SetViewArrangement(layout.SlicerLayoutFourUpTableView)

    @guarded
    def _onExport(self, *_checked):
        exportDicom(self.context, self.output)

    @guarded
    def _onDragged(self, value):
        """Hold the slider, which nothing else moves then; views show the voxels as they are."""
        if not self._page.isShowing and self.output is not None:
            self._isHeld = value != results.strengthOf(self.output)

    @guarded
    def _onStrength(self, value):
        """Blend when the slider was released, or a value was entered."""
        if self._page.isShowing or self.output is None:
            return
        self._stop()
        self._isHeld = False
        try:
            self._job = blending.start(self.context.runner, self.output, value)
            self._job.onFinished(self._onBlended)
        finally:
            self._page.update()

    def _onBlended(self, job):
        if job is self._job:
            self._job = None
            self._page.update()
            if job.error is not None:
                self.context.showError(job.error)

    def _stop(self):
        """Leave the voxels as they are, where a blend has begun."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()


def _hideLabelsOfOthers(output):
    """Hide labels of other results, which no button would take away."""
    own = results.linked(output, "segmentation")
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        labels = results.linked(node, "segmentation")
        if labels is not None and labels is not own and labels.GetDisplayNode() is not None:
            labels.GetDisplayNode().SetVisibility(False)

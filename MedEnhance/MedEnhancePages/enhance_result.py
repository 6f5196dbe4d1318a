"""The part of the page Enhance about a result: comparison, strength, maps, and where it goes."""

import os

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, results
from MedEnhanceNodes.compare import Compare
from MedEnhancePages import result_texts
from MedEnhancePages.export_dicom import exportDicom
from MedEnhancePages.widgets import Notice, allow, answerOf
from MedEnhancePanels.errors import guarded
from MedEnhanceTasks import blending, compression, files

#: Maps that the menu Show lays over the result, by their role.
_MAPS = ("uncertainty", "noise")
#: Entries of that menu, and those of them that follow from the segments.
_SHOWN = {
    "segments": _("Segments"),
    "threeD": _("Segments in 3D"),
    "uncertainty": _("Uncertainty (for full strength)"),
    "noise": _("Noise map"),
    "table": _("Table of volumes"),
}
_OF_SEGMENTS = ("segments", "threeD", "table")


class ResultArea:
    """Comparison of an enhanced volume (state.enhancedVolume) with its input; its strength."""

    def __init__(self, page):
        self.context, self._page = page.context, page
        self.ui = ui = page.ui
        self.compare = Compare(page.update)
        #: The job that blends, or makes a difference.
        self._job = None
        #: Whether the slider is held somewhere else than at the strength of the voxels.
        self._isHeld = False
        self._notice = Notice(ui, "warning")
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", "MedEnhance.derived", "enhanced")
        ui.resultSelector.currentNodeChanged.connect(self._onChosen)
        ui.inputButton.pressed.connect(lambda: self._showInput(True))
        ui.inputButton.released.connect(lambda: self._showInput(False))
        ui.sideBySideButton.clicked.connect(lambda isOn=False: self._onMode("sideBySide", isOn))
        ui.differenceButton.clicked.connect(lambda isOn=False: self._onDifference(isOn))
        ui.strengthSlider.valueIsChanging.connect(self._onDragged)
        ui.strengthSlider.valueChanged.connect(self._onStrength)
        self.actions = {}
        self._menus = [qt.QMenu(button) for button in (ui.showButton, ui.saveButton)]
        for name, text, slot in (
            ("segments", _SHOWN["segments"], lambda isOn: self._onSegments(isOn)),
            ("threeD", _SHOWN["threeD"], lambda isOn: self._onThreeD(isOn)),
            ("uncertainty", _SHOWN["uncertainty"], lambda isOn: self._onMap("uncertainty", isOn)),
            ("noise", _SHOWN["noise"], lambda isOn: self._onMap("noise", isOn)),
            ("table", _SHOWN["table"], lambda isOn: self._onTable(isOn)),
            ("save", _("Save…"), self._onSave),
            ("export", _("Export to DICOM…"), self._onExport),
            ("compress", _("Compress…"), self._onCompress),
        ):
            isShown = name in _SHOWN
            action = self.actions[name] = self._menus[0 if isShown else 1].addAction(text)
            action.checkable = isShown
            action.triggered.connect(slot)
        ui.showButton.setMenu(self._menus[0])
        ui.saveButton.setMenu(self._menus[1])

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
        if compare.mode != "none" and (compare.output is not output or compare.source is None):
            compare.leave()
        canCompare = source is not None and not self.isBlending
        isAlone = self._page.target is None and ui.resultSelector.nodeCount() > 0
        ui.resultButton.visible = output is not None or isAlone
        ui.resultSelector.setCurrentNode(output)
        isThere = bridge.isInScene(output)
        ui.factsLabel.text = result_texts.factsOf(output) if isThere else ""
        ui.factsLabel.toolTip = result_texts.moreFactsOf(output) if isThere else ""
        ui.factsLabel.visible = bool(ui.factsLabel.text)
        isTable = compare.mode == "table"
        self._notice.show(*(result_texts.noticeOf(output, isTable) if isThere else ("info", "")))
        for button in (ui.inputButton, ui.sideBySideButton):
            allow(button, blending.pairProblemOf(output) if source is None else "")
            button.enabled = canCompare
        ui.sideBySideButton.checked = compare.mode == "sideBySide"
        allow(ui.differenceButton, blending.pairProblemOf(output))
        ui.differenceButton.enabled = ui.differenceButton.enabled and canCompare
        ui.differenceButton.checked = compare.overlay == "difference"
        self._showStrength()
        self._showMenu(canCompare)

    def _showStrength(self):
        """Show the strength of the voxels, unless they are about to get another."""
        slider, output = self.ui.strengthSlider, self.output
        allow(slider, blending.problemOf(output))
        if not (self._isHeld or self.isBlending):
            slider.value = results.strengthOf(output) if output is not None else 1.0

    def _showMenu(self, canCompare):
        ui, output, actions = self.ui, self.output, self.actions
        segmentation = results.linked(output, "segmentation")
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        actions["segments"].visible = actions["threeD"].visible = display is not None
        actions["segments"].checked = display is not None and bool(display.GetVisibility())
        actions["table"].visible = results.linked(output, "table") is not None
        isOther = results.isOfOtherStrength(output, "segmentation")
        text = _("{what} (for full strength)") if isOther else "{what}"
        for name in _OF_SEGMENTS:
            actions[name].text = text.format(what=_SHOWN[name])
        for mode in ("threeD", "table"):
            actions[mode].checked = self.compare.mode == mode
        for role in _MAPS:
            actions[role].visible = canCompare and results.linked(output, role) is not None
            actions[role].checked = self.compare.overlay == role
        ui.showButton.visible = any(actions[name].visible for name in _SHOWN)
        isReady = bridge.isInScene(output) and not self.isBlending
        ui.showButton.enabled = ui.saveButton.enabled = isReady

    def showNew(self, output):
        """Show a new result beside its input, unless another page or module is in front."""
        _hideLabelsOfOthers(output)
        if not self._page.isOff:
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
        """Forget a scene that closes: voxels stay, and no view is restored."""
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
    def _onMode(self, mode, isOn):
        if self.output is not None:
            self.compare.show(self.output, mode if isOn else "single")
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
    def _onDifference(self, isOn):
        """Make the difference where there is none yet, and show it."""
        if not isOn or results.linked(self.output, "difference") is not None:
            self._onMap("difference", isOn)
            return
        self._follow(blending.startDifference(self.context.runner, self.output))

    @guarded
    def _onThreeD(self, isOn):
        """Show the surfaces of the segments in a 3D view."""
        if isOn:
            segmentation = results.linked(self.output, "segmentation")
            segmentation.CreateClosedSurfaceRepresentation()
            segmentation.GetDisplayNode().SetVisibility(True)
        self._onMode("threeD", isOn)
        if isOn and slicer.app.layoutManager() is not None:
            slicer.util.resetThreeDViews()

    @guarded
    def _onSegments(self, isOn):
        segmentation = results.linked(self.output, "segmentation")
        segmentation.GetDisplayNode().SetVisibility(bool(isOn))
        self._page.update()

    @guarded
    def _onTable(self, isOn):
        logic = slicer.app.applicationLogic()
        logic.GetSelectionNode().SetActiveTableID(results.linked(self.output, "table").GetID())
        logic.PropagateTableSelection()
        self._onMode("table", isOn)

    @guarded
    def _onSave(self, *_checked):
        """Write the result with its history and manifest; the dialog confirms what it replaces."""
        title, start = _("Save the result"), compression.suggestPath(self.output, ".nrrd")
        kinds = "NRRD (*.nrrd);;NIfTI (*.nii.gz *.nii);;MetaImage (*.mha)"
        path = answerOf(qt.QFileDialog.getSaveFileName(self._page.widget, title, start, kinds))
        if not path:
            return
        self.context.clearMessage()
        isConfirmed = os.path.exists(path)
        job = files.startSave(self.context.runner, self.output, path, overwrite=isConfirmed)
        text = _("{path} was written, with its manifest beside it.").format(path=path)
        job.onFinished(lambda job: self.context.report(job, text))

    @guarded
    def _onCompress(self, *_checked):
        """Open the page Compress with the result."""
        self.context.state.inputVolume = self.output
        self.context.showPage("compress")

    @guarded
    def _onExport(self, *_checked):
        exportDicom(self.context, self.output)

    @guarded
    def _onDragged(self, value):
        """Hold the slider, which `show` does not move then; the voxels stay as they are."""
        if not self._page.isShowing and self.output is not None:
            self._isHeld = value != results.strengthOf(self.output)

    @guarded
    def _onStrength(self, value):
        """Blend when the slider was released, or a value was entered."""
        if self._page.isShowing or self.output is None:
            return
        self._stop()
        self._isHeld = False
        self._follow(blending.start(self.context.runner, self.output, value))

    def _follow(self, job):
        self._job = job
        job.onFinished(self._onWorked)
        self._page.update()

    def _onWorked(self, job):
        if job is not self._job:
            return
        self._job = None
        if job.error is not None:
            self.context.showError(job.error)
        elif "difference" in job.nodes:
            self._onMap("difference", True)
        self._page.update()

    def _stop(self):
        """Leave the voxels as they are, where a blend has begun."""
        job, self._job = self._job, None
        if job is not None:
            job.cancel()


def _hideLabelsOfOthers(output):
    """Hide the labels of other results, for which there is no button."""
    segmentation = results.linked(output, "segmentation")
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        labels = results.linked(node, "segmentation")
        if (
            labels is not None
            and labels is not segmentation
            and labels.GetDisplayNode() is not None
        ):
            labels.GetDisplayNode().SetVisibility(False)

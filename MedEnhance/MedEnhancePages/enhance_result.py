"""The part of the page Enhance about a result: comparison, strength, maps, and where it goes."""

import os

import qt
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.io.formats import dialog_filter
from MedEnhanceNodes import bridge, preview, results, spatial
from MedEnhanceNodes.compare import Compare
from MedEnhancePages import result_texts
from MedEnhancePages.export_dicom import exportDicom
from MedEnhancePages.widgets import Follower, Notice, allow, answerOf, fill
from MedEnhancePanels.errors import guarded
from MedEnhanceTasks import blending, compression, files

#: Maps that the menu Show lays over the result, by their role.
_MAPS = ("uncertainty", "noise")
#: Entries of that menu, and those of them that follow from the segments.
_SHOWN = {
    "segments": _("Segments"),
    "surfaces": _("Segments in 3-D"),
    "editor": _("Open in Segment Editor"),
    "uncertainty": _("Uncertainty (for full strength)"),
    "noise": _("Noise map"),
    "table": _("Table of volumes"),
}
_OF_SEGMENTS = ("segments", "surfaces", "table")


class ResultArea(Follower):
    """Comparison of an enhanced volume (state.enhancedVolume) with its input; its strength."""

    def __init__(self, page):
        self.context, self.update, self._page = page.context, page.update, page
        self.ui = ui = page.ui
        self.compare = Compare(page.update)
        #: The job that looks at voxels; `job` changes them, or makes what they are compared by.
        self._check = None
        #: Whether the slider is held somewhere else than at the strength of the voxels.
        self._isHeld = False
        self._notice = Notice(ui, "warning")
        for kind in ui.resultSelector.nodeTypes:
            ui.resultSelector.addAttribute(kind, "MedEnhance.derived", "enhanced")
        ui.resultSelector.currentNodeChanged.connect(self._onChosen)
        ui.inputButton.toggled.connect(self._onInput)
        ui.compareComboBox.activated.connect(
            lambda _at: self.choose(ui.compareComboBox.currentData)
        )
        ui.fadeSlider.valueChanged.connect(self.compare.setFading)
        ui.frameSlider.valueChanged.connect(self._onFrame)
        ui.strengthSlider.valueIsChanging.connect(self._onDragged)
        ui.strengthSlider.valueChanged.connect(self._onStrength)
        ui.useButton.clicked.connect(self._onUse)
        self.actions = {}
        self._menus = [qt.QMenu(button) for button in (ui.showButton, ui.saveButton)]
        for name, text, slot in (
            ("segments", _SHOWN["segments"], lambda isOn: self._onSegments(isOn)),
            ("surfaces", _SHOWN["surfaces"], lambda isOn: self._onSurfaces(isOn)),
            ("editor", _SHOWN["editor"], self._onEditor),
            ("uncertainty", _SHOWN["uncertainty"], lambda isOn: self._onMap("uncertainty", isOn)),
            ("noise", _SHOWN["noise"], lambda isOn: self._onMap("noise", isOn)),
            ("table", _SHOWN["table"], lambda isOn: self._onTable(isOn)),
            ("save", _("Save…"), self._onSave),
            ("export", _("Export to DICOM…"), self._onExport),
            ("compress", _("Compress…"), self._onCompress),
        ):
            isShown = name in _SHOWN
            action = self.actions[name] = self._menus[0 if isShown else 1].addAction(text)
            action.checkable = isShown and name != "editor"
            action.triggered.connect(slot)
        ui.showButton.setMenu(self._menus[0])
        ui.saveButton.setMenu(self._menus[1])

    @property
    def output(self):
        state = self.context.state
        return state.enhancedVolume if state is not None else None

    def show(self):
        """Show the result of the state, and enable what can be done with it."""
        ui, output, compare = self.ui, self.output, self.compare
        source = results.linked(output, "input")
        if compare.mode != "none" and (compare.output is not output or compare.source is None):
            compare.leave()
        isThere = bridge.isInScene(output)
        if isThere:
            self._look(output)
        canCompare = source is not None and self.job is None
        isAlone = self._page.target is None and ui.resultSelector.nodeCount() > 0
        ui.resultButton.visible = output is not None or isAlone
        ui.resultSelector.setCurrentNode(output)
        ui.factsLabel.text = result_texts.factsOf(output) if isThere else ""
        ui.factsLabel.toolTip = result_texts.moreFactsOf(output) if isThere else ""
        ui.factsLabel.visible = bool(ui.factsLabel.text)
        isTable = compare.mode == "table"
        self._notice.show(*(result_texts.noticeOf(output, isTable) if isThere else ("info", "")))
        self._showCompare(canCompare)
        self._showSliders()
        self._showMenu(canCompare)

    def _look(self, output):
        """Have large voxels looked at, in steps, where they may have changed."""
        if self._check is None and self.job is None and blending.isCheckDue(output):
            self._check = blending.startCheck(self.context.runner, output)
            self._check.onFinished(self._onChecked)

    def _onChecked(self, job):
        self._check = None
        if job.state == "done":
            self.update()

    def _showCompare(self, canCompare):
        """Offer the ways to compare that the result has."""
        ui, compare, problem = self.ui, self.compare, blending.pairProblemOf(self.output)
        modes = {
            "none": _("No comparison"),
            "single": _("Result"),
            "sideBySide": _("Side by side"),
            "fade": _("Fade"),
        }
        if not problem:
            modes["difference"] = _("Difference")
        if not bridge.hasFrames(self.output):
            modes |= {"profile": _("Line profile"), "rendering": _("Volume rendering")}
        fill(ui.compareComboBox, modes)
        mode = "difference" if compare.overlay == "difference" else compare.mode
        mode = mode if mode in modes else "single"  # beside table or surfaces
        ui.compareComboBox.currentIndex = ui.compareComboBox.findData(mode)
        allow(ui.inputButton, "" if canCompare else problem)
        ui.inputButton.checked = compare.isInput
        allow(ui.compareComboBox, problem)  # the tool tip says what is not offered
        ui.compareComboBox.enabled = canCompare
        ui.inputButton.enabled = canCompare and compare.mode != "rendering"  # which shows both

    def _showSliders(self):
        """Show frame and fading, and the strength of the voxels unless they get another."""
        ui, output = self.ui, self.output
        ui.fadeSlider.visible = self.compare.mode == "fade"
        ui.frameSlider.visible = hasFrames = bridge.hasFrames(output)
        if hasFrames:
            ui.frameSlider.maximum = len(bridge.framesOf(output)) - 1
            ui.frameSlider.value = preview.shownFrame(output)
        ui.strengthSlider.visible = not hasFrames
        allow(ui.strengthSlider, blending.problemOf(output))
        if not (self._isHeld or self.job is not None):
            ui.strengthSlider.value = results.strengthOf(output) if output is not None else 1.0

    def _showMenu(self, canCompare):
        ui, output, actions = self.ui, self.output, self.actions
        segmentation = results.linked(output, "segmentation")
        display = segmentation.GetDisplayNode() if segmentation is not None else None
        for name in ("segments", "surfaces", "editor"):
            actions[name].visible = display is not None
        actions["segments"].checked = display is not None and bool(display.GetVisibility())
        actions["table"].visible = results.linked(output, "table") is not None
        isOther = results.isOfOtherStrength(output, "segmentation")
        text = _("{what} (for full strength)") if isOther else "{what}"
        for name in _OF_SEGMENTS:
            actions[name].text = text.format(what=_SHOWN[name])
        for name in ("surfaces", "table"):
            actions[name].checked = self.compare.mode == name
        for role in _MAPS:
            actions[role].visible = canCompare and results.linked(output, role) is not None
            actions[role].checked = self.compare.overlay == role
        ui.showButton.visible = any(actions[name].visible for name in _SHOWN)
        isReady = bridge.isInScene(output) and self.job is None
        for button in (ui.showButton, ui.saveButton, ui.useButton):
            button.enabled = isReady

    def showNew(self, output):
        """Show a new result beside its input, unless another page or module is in front."""
        _hideLabelsOfOthers(output)
        if not self._page.isOff:
            self.compare.show(output, "sideBySide")

    def turnTo(self, node):
        """Turn to another input: its latest result belongs here, and no comparison of others."""
        if node is None:
            return
        source = results.linked(self.compare.output, "input")
        if self.compare.mode != "none" and node not in (source, self.output):
            self.compare.leave()
        if node is not self.output and results.linked(self.output, "input") is not node:
            self.context.state.enhancedVolume = results.latestOf(node)

    def leave(self):
        """End comparing, as another page or module is shown: the result stays in the views."""
        self.compare.leave(keepsResult=True)
        self.update()

    def forget(self):
        """Forget a scene that closes: voxels stay, and no view is restored."""
        self.stop()
        self._isHeld, self._check = False, None
        self.compare.forget()

    @guarded
    def _onChosen(self, node=None):
        if self.context.isEntered and not self._page.isShowing and self.context.state is not None:
            self.context.state.enhancedVolume = self.ui.resultSelector.currentNode()
            _hideLabelsOfOthers(self.output)
            self.update()

    @guarded
    def choose(self, mode):
        """Compare in one of the ways of the list; what has to be made first comes after a while."""
        runner, output, compare = self.context.runner, self.output, self.compare
        compare.setOverlay(None)
        compare.setInput(False)
        if mode == "none":
            compare.leave()
        elif mode == "difference" and results.linked(output, mode) is None:
            self._make(blending.startDifference(runner, output), lambda: self.choose(mode))
        elif mode == "difference":
            compare.show(output, "single")
            compare.setOverlay(mode)
        else:
            compare.show(output, mode)
        self.update()

    def _make(self, job, then):
        """Wait for a job, then call then(), unless the page or the result has changed."""
        output = self.output

        def onSuccess(_job):
            if not self._page.isOff and output is self.output:
                then()

        self.follow(job, onSuccess)

    @guarded
    def _onFrame(self, value):
        """Show a frame of the result, and of its input."""
        for node in (self.output, results.linked(self.output, "input")):
            if node is not None and not self._page.isShowing:
                preview.showFrame(node, int(value))

    @guarded
    def _onUse(self, *_checked):
        """Show the result alone, and remove what it needs no more, after a question."""
        rest = [node for node in results.restOf(self.output) if node is not self._page.target]
        names, title = "\n".join(node.GetName() for node in rest), _("Use this result")
        text = _("The result stays, with its segments and table. These leave the scene:\n\n{names}")
        if rest and not slicer.util.confirmOkCancelDisplay(text.format(names=names), title):
            return
        self.compare.leave()
        for node in rest:
            results.remove(node)
        preview.showVolume(preview.shownVolume(self.output))
        self.update()

    def _begin(self):
        """Show the result, where nothing of it is shown yet."""
        if self.compare.mode == "none" and self.output is not None:
            self.compare.show(self.output, "single")

    @guarded
    def _onInput(self, isInput):
        """Switch between input and result."""
        if not self._page.isShowing:
            self._begin()
            self.compare.setInput(isInput)

    @guarded
    def _onMap(self, role, isOn):
        self._begin()
        self.compare.setOverlay(role if isOn else None)
        self.update()

    @guarded
    def _onEditor(self, *_checked):
        """Open the segments in Slicer's Segment Editor, over the result."""
        output, segmentation = self.output, results.linked(self.output, "segmentation")
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentation)
        editor.setSourceVolumeNode(output)

    @guarded
    def _onSegments(self, isOn):
        segmentation = results.linked(self.output, "segmentation")
        segmentation.GetDisplayNode().SetVisibility(bool(isOn))
        self.update()

    @guarded
    def _onSurfaces(self, isOn):
        """Show the surfaces of the segments in the 3-D view, where they come one by one."""
        self.compare.show(self.output, "surfaces" if isOn else "single")
        if isOn:
            node = results.linked(self.output, "segmentation")
            steps, title = spatial.surfaceSteps(node), _("Surfaces of {name}")
            title = title.format(name=node.GetName())
            self.follow(self.context.runner.submit("", {}, title=title, before=lambda _job: steps))
        self.update()

    @guarded
    def _onTable(self, isOn):
        logic = slicer.app.applicationLogic()
        logic.GetSelectionNode().SetActiveTableID(results.linked(self.output, "table").GetID())
        logic.PropagateTableSelection()
        self.compare.show(self.output, "table" if isOn else "single")
        self.update()

    @guarded
    def _onSave(self, *_checked):
        """Write the result with its history and manifest; the dialog confirms what it replaces."""
        title, start = _("Save the result"), compression.suggestPath(self.output, ".nrrd")
        kinds = dialog_filter(".nrrd")
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
        self.stop()
        self._isHeld = False
        self.follow(blending.start(self.context.runner, self.output, value))


def _hideLabelsOfOthers(output):
    """Hide the labels of other results, for which there is no button."""
    segmentation = results.linked(output, "segmentation")
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        labels = results.linked(node, "segmentation")
        if labels not in (None, segmentation) and labels.GetDisplayNode() is not None:
            labels.GetDisplayNode().SetVisibility(False)

"""Fifteen clicks through the module, with pictures and a report: journey.md, done by itself.

    Slicer --python-script Testing/Slicer/journey.py [FOLDER]

It needs nothing but Slicer with the extension, installs the packages that are missing, and takes
some minutes. FOLDER, by default "journey" in the current one, gets a picture after each step and
report.md. Slicer ends with status 0 where all was seen.
"""

import os
import platform
import sys
import time
from pathlib import Path
from unittest import mock

import qt
import slicer

#: Seconds before a picture, in which widgets that appeared are laid out.
SETTLED = 0.2


class Journey:
    """The steps, in their order: each clicks, and returns what must come true.

    prepare(node): called with the sample once it is loaded; a test makes it small. longest: seconds
    that a step may take. clock: by which the time is taken in which Slicer does not answer. rows:
    number, title, whether it was seen, seconds, and the longest time without an answer, of each.
    """

    def __init__(self, folder, prepare=lambda node: None, longest=1800, clock=time.monotonic):
        self.folder, self._prepare, self._longest = Path(folder), prepare, longest
        self.rows, self._clock, self._answered, self._gap = [], clock, 0.0, 0.0
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def widget(self):
        return slicer.util.getModuleWidget("MedEnhance")

    @property
    def ui(self):
        return self.widget.panels[self.widget.context.state.page].ui

    @property
    def result(self):
        return self.widget.context.state.enhancedVolume

    def run(self):
        """Do all steps; returns whether all was seen."""
        timer = qt.QTimer()
        timer.setInterval(10)
        timer.timeout.connect(self._answer)
        timer.start()
        for number, (title, step) in enumerate(self.steps().items(), 1):
            began, error = time.monotonic(), ""
            self._answered, self._gap = self._clock(), 0.0
            try:
                self._wait(step())
            except Exception as exception:  # noqa: BLE001 - the next steps may work all the same
                error = f"{type(exception).__name__}: {exception}"
            self._answer()
            self._picture(f"{number:02d}")
            seconds, gap = f"{time.monotonic() - began:.1f}", f"{self._gap:.2f}"
            self.rows.append((number, title, "no: " + error if error else "yes", seconds, gap))
        timer.stop()
        self._report()
        return all(row[2] == "yes" for row in self.rows)

    def _answer(self):
        """Note how long the event loop has not been here."""
        now = self._clock()
        self._gap, self._answered = max(self._gap, now - self._answered), now

    def steps(self):
        """Return the steps by their titles, which journey.md has."""
        return {
            "Open the module": self._open,
            "Load the sample": self._load,
            "Read the verdict": lambda: lambda: "Noise ±" in self.ui.verdictLabel.text,
            "Preview": self._preview,
            "Apply": self._apply,
            "Show input": self._input,
            "Difference": self._difference,
            "Fade": self._fade,
            "Strength": self._strength,
            "Segment only": self._segment,
            "Compress": self._compress,
            "Another module and back": self._leave,
            "Enhance from Data": self._fromData,
            "Models": self._models,
            "Save and open the scene": self._scene,
        }

    # --- the steps ----------------------------------------------------------------------------

    def _open(self):
        from MedEnhancePanels import dependencies

        slicer.util.selectModule("MedEnhance")
        if dependencies.missing():
            self.widget.logic.installDependencies(confirm=True)
        return lambda: self.widget.context.state.page == "enhance"

    def _load(self):
        from MedEnhanceTasks import samples

        actions = {each.text: each for each in self.widget.ui.loadButton.menu().actions()}
        actions[samples.SAMPLES[0].title].trigger()
        node = self.widget.context.state.inputVolume
        self._prepare(node)
        slicer.util.setSliceViewerLayers(background=node, fit=True)
        bounds = [0.0] * 6
        node.GetRASBounds(bounds)
        middle = [sum(bounds[at : at + 2]) / 2 for at in (0, 2, 4)]
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *middle, 1)
        return lambda: "damaged on purpose" in self.ui.problemLabel.text

    def _preview(self):
        self._wait(lambda: self.ui.previewButton.enabled)
        self.ui.previewButton.click()
        return lambda: self._message.startswith("Preview of slice")

    def _apply(self):
        self.ui.applyButton.click()
        return lambda: "enhanced is ready" in self._message and self.ui.factsLabel.text

    def _input(self):
        self.ui.inputButton.click()
        return lambda: self._background("Yellow") is self._source

    @property
    def _source(self):
        return self.result.GetNodeReference("MedEnhance.input")

    def _difference(self):
        self._choose(self.ui.compareComboBox, "difference")
        return lambda: (
            self._foreground("Red") is self.result.GetNodeReference("MedEnhance.difference")
        )

    def _fade(self):
        self._choose(self.ui.compareComboBox, "fade")
        return lambda: self._foreground("Red") is self.result

    def _strength(self):
        self.ui.strengthSlider.value = 0.5
        return lambda: self.result.GetAttribute("MedEnhance.strength") == "0.5"

    def _segment(self):
        self.ui.advancedButton.collapsed = False
        self.ui.segmentCheckBox.checked = self.ui.forceSegmenterCheckBox.checked = True
        self._wait(lambda: self.ui.segmentOnlyButton.isVisibleTo(self.widget.parent))
        self.ui.segmentOnlyButton.click()
        return lambda: slicer.util.getNodesByClass("vtkMRMLSegmentationNode") != []

    def _compress(self):
        path = self.folder / "sample.ucv"
        path.unlink(missing_ok=True)
        self.widget.showPage("compress")
        self._wait(lambda: self.ui.compressButton.enabled)
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=str(path)):
            self.ui.compressButton.click()
        return path.is_file

    def _leave(self):
        self.widget.showPage("enhance")
        self._choose(self.ui.compareComboBox, "sideBySide")
        slicer.util.selectModule("SegmentEditor")
        stays = self._background("Red") is self.result
        slicer.util.selectModule("MedEnhance")
        return lambda: stays

    def _fromData(self):
        handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
        handler.setCurrentItem(handler.subjectHierarchyNode().GetItemByDataNode(self._source))
        self.widget.showPage("models")
        handler.pluginByName("MedEnhance").itemContextMenuActions()[0].trigger()
        return lambda: self.widget.context.state.page == "enhance"

    def _models(self):
        self.widget.showPage("models")
        return lambda: self.ui.modelList.count > 0

    def _scene(self):
        path, facts = str(self.folder / "journey.mrb"), self.widget.panels["enhance"].ui.factsLabel
        before = facts.text
        if not slicer.util.saveScene(path):
            raise OSError(f"{path} was not saved")
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        self.widget.showPage("enhance")
        return lambda: bool(before) and facts.text == before

    # --- what they share ----------------------------------------------------------------------

    @property
    def _message(self):
        return self.widget.ui.messageLabel.text

    def _choose(self, box, value):
        box.currentIndex = box.findData(value)
        box.activated.emit(box.currentIndex)

    def _layers(self, view):
        from MedEnhanceNodes.preview import compositeOf

        return compositeOf(slicer.mrmlScene.GetSingletonNode(view, "vtkMRMLSliceNode"))

    def _background(self, view):
        return slicer.mrmlScene.GetNodeByID(self._layers(view).GetBackgroundVolumeID() or "")

    def _foreground(self, view):
        return slicer.mrmlScene.GetNodeByID(self._layers(view).GetForegroundVolumeID() or "")

    def _wait(self, condition):
        end = time.monotonic() + self._longest
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError(f"not seen; the panel says: {self._message}")
            slicer.app.processEvents()
            time.sleep(0.01)

    def _picture(self, name):
        window = slicer.util.mainWindow()
        shown = window if window is not None and window.visible else self.widget.parent
        until = time.monotonic() + SETTLED
        self._wait(lambda: time.monotonic() >= until)
        shown.grab().save(str(self.folder / f"{name}.png"))

    def _report(self):
        versions = f"Slicer {slicer.app.applicationVersion}, {platform.platform()}"
        lines = ["# Journey", "", versions, "", "| step | click | seen | s | longest freeze, s |"]
        lines.append("|---|---|---|---|---|")
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in self.rows]
        (self.folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    isFine = Journey(sys.argv[1] if len(sys.argv) > 1 else os.path.abspath("journey")).run()
    slicer.util.exit(0 if isFine else 1)

"""What the tests of the module share; runs in Slicer and in Testing/SlicerHost alike.

In Slicer each file is run by slicer_add_python_unittest, in the host by pytest (conftest.py).
"""

import json
import os
import shutil
import sys
import tempfile
import time
import traceback
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import qt
import slicer
import vtk

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "Resources/samples/mni152_t1.nii.gz"


def slow(test):
    """Mark a test that the fast part leaves out; Slicer runs it all the same."""
    test.isSlow = True
    return test


def copyOfModel(name, folder, **fields):
    """Copy a model that ships into a folder, under its name; fields: of its metadata."""
    from MedEnhanceLib.runtime.resources import resource_folder

    shutil.copytree(resource_folder("models") / name, folder)
    path = Path(folder, "configs/metadata.json")
    path.chmod(0o644)
    metadata = json.loads(path.read_text("utf-8")) | {"name": Path(folder).name, **fields}
    path.write_text(json.dumps(metadata))


def finished(steps):
    """The return value of a generator, which is run to its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


class MedEnhanceTestCase(unittest.TestCase):
    """A cleared scene and the module's widget before each test; nothing left behind after it."""

    #: A class whose tests each need a warm worker keeps it until its last test.
    KEEPS_WORKER = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory(prefix="medenhance-test-")
        cls.scratch = cls.enterClassContext(folder)
        cls.enterClassContext(mock.patch.object(tempfile, "tempdir", cls.scratch))
        cls.addClassCleanup(setattr, slicer.app, "temporaryPath", slicer.app.temporaryPath)
        slicer.app.temporaryPath = cls.scratch
        paths = {"TMPDIR": cls.scratch, "MEDENHANCE_MODELS": os.path.join(cls.scratch, "models")}
        cls.enterClassContext(mock.patch.dict(os.environ, paths))

    @classmethod
    def tearDownClass(cls):
        slicer.util.getModuleWidget("MedEnhance").context.runner.shutdown()
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self._failures = []
        self.addCleanup(setattr, sys, "excepthook", sys.excepthook)
        sys.excepthook = self._onException
        if not self.KEEPS_WORKER:
            # The page in front asks a worker for devices, whose start takes seconds.
            from MedEnhancePages.enhance_choices import DeviceChoice
            from MedEnhancePages.noise_area import NoiseArea

            self.enterContext(mock.patch.object(DeviceChoice, "ask", lambda _self: None))
            self.enterContext(mock.patch.object(NoiseArea, "follow", lambda *_given: None))
        self._children = _children()
        slicer.mrmlScene.Clear(0)
        self.widget = slicer.util.getModuleWidget("MedEnhance")
        self.context = self.widget.context
        self.widget.showPage("enhance")
        self.widget.parent.enter()
        self.widget.parent.show()  # sections fold at their first show

    def remove(self, node):
        slicer.mrmlScene.RemoveNode(node)
        self.processEvents(80)

    def showPage(self, name):
        """Bring a page to the front: `panel`, with its widgets as `ui`."""
        self.widget.showPage(name)
        self.panel = self.widget.panels[name]
        self.ui = self.panel.ui

    def reload(self, page):
        """Open the module anew, as after Slicer was started again with the same scene."""
        slicer.util.reloadScriptedModule("MedEnhance")
        self.widget = slicer.util.getModuleWidget("MedEnhance")
        self.context = self.widget.context
        self.widget.enter()
        self.showPage(page)

    def choose(self, node):
        self.widget.ui.inputSelector.setCurrentNode(node)
        self.processEvents(80)

    def tearDown(self):
        self.widget = slicer.util.getModuleWidget("MedEnhance")  # a test may have reloaded it
        runner = self.widget.context.runner
        self.widget.parent.exit()  # a page in front could begin another job
        if self.KEEPS_WORKER:
            for job in runner.activeJobs():
                job.cancel()
            self.waitUntil(lambda: not runner.activeJobs())
        else:
            runner.shutdown()
        self.widget.context.clearMessage()
        slicer.mrmlScene.Clear(0)
        self.processEvents()
        if not self.KEEPS_WORKER:
            self.assertEqual(_children() - self._children, set(), "processes were left behind")
            self.assertEqual(self._leftFolders(), [], "temporary folders were left behind")
        self.assertEqual(self._failures, [], "".join(self._failures))
        self.assertEqual(self._hiddenRows(), [], "rows of forms: Qt 5 keeps the space around them")
        refused = _refusedByTheHost()
        self.assertEqual(refused, [], "constructs that Slicer would refuse")
        super().tearDown()

    def _onException(self, kind, error, trace):
        """An exception in a slot or an observer: Slicer prints it, a test fails of it."""
        self._failures.append("".join(traceback.format_exception(kind, error, trace)))

    def _hiddenRows(self):
        """Names of widgets that are rows of a form, and hidden.

        Asked of the widgets: what `itemAt` returns is no QObject, so PySide6 does not learn when
        it goes, and takes the next object at its place in memory for it.
        """
        forms = [
            form
            for panel in self.widget.panels.values()
            for form in slicer.util.findChildren(panel.widget, className="QFormLayout")
        ]
        return [
            widget.objectName
            for form in forms
            if not getattr(form.parentWidget(), "collapsed", False)
            for widget in form.parentWidget().children()
            if widget.isWidgetType() and widget.isHidden() and form.indexOf(widget) >= 0
        ]

    def _leftFolders(self):
        return sorted(each.name for each in Path(self.scratch).glob("medenhance-*"))

    # --- waiting ---

    def processEvents(self, milliseconds=0):
        """Let Qt handle what is due, and everything else for so long.

        Only time without events counts: on a busy machine one of them may take all of it, and what
        it began would not end.
        """
        slicer.app.processEvents()
        for _wait in range(milliseconds // 2):
            time.sleep(0.002)
            slicer.app.processEvents()

    def deleteWhatIsDue(self):
        """What was to be deleted later, which only Slicer's own event loop does."""
        qt.QCoreApplication.sendPostedEvents(None, int(qt.QEvent.DeferredDelete))

    def waitUntil(self, condition, seconds=120):
        """Keep the event loop going until the condition holds; fails after that many seconds."""
        end = time.monotonic() + seconds
        while not condition():
            if self._failures:
                self.fail("".join(self._failures))
            if time.monotonic() > end:
                self.fail(f"not so within {seconds} s")
            slicer.app.processEvents()
            time.sleep(0.002)

    def finish(self, job, seconds=240):
        """Wait for the end of a job; the job."""
        self.waitUntil(lambda: job.isFinished, seconds)
        return job

    def click(self, button):
        """Click on a button, as the mouse does: on nothing where another window is modal."""
        if qt.QApplication.activeModalWidget() in (None, button.window()):
            button.click()

    def pick(self, box, value):
        """Choose the entry with that value, as a user does."""
        box.currentIndex = box.findData(value)
        box.activated.emit(box.currentIndex)

    @property
    def message(self):
        """What the panel says above its pages."""
        ui = self.widget.ui
        return "" if ui.messageFrame.isHidden() else ui.messageLabel.text

    def unfold(self, widget):
        """Open all sections; returns those that were closed."""
        sections = slicer.util.findChildren(widget, className="ctkCollapsibleButton")
        closed = [section for section in sections if section.collapsed]
        for section in closed:
            section.collapsed = False
        return closed

    # --- data ---

    def assertSameVoxels(self, *nodes):
        np.testing.assert_array_equal(*map(slicer.util.arrayFromVolume, nodes))

    def ijkToRas(self, node):
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        return slicer.util.arrayFromVTKMatrix(matrix)

    def savedScene(self):
        path = os.path.join(self.temporaryFolder(), "scene.mrb")
        self.assertTrue(slicer.util.saveScene(path))
        return path

    def throughAScene(self):
        """Save the scene, close it, and load it again."""
        path = self.savedScene()
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(path)
        self.processEvents(80)

    def temporaryFolder(self):
        """A new folder that goes with the tests of the class."""
        return tempfile.mkdtemp(prefix="test-", dir=self.scratch)

    def loadSample(self):
        """The brain that ships with MedEnhance, as Slicer loads it."""
        return slicer.util.loadVolume(str(SAMPLE), {"name": "mni152_t1"})

    def smallVolume(
        self,
        shape=(8, 24, 20),
        *,
        dtype=np.int16,
        name="small",
        modality=None,
        spacing=(1.0, 1.0, 2.0),
        seed=5,
        turn=(),
    ):
        """A bright ball in noise: shape is slices, rows, columns; spacing is i, j, k in mm.

        turn: degrees, and the axis about which it is turned, for axes of no patient.
        """
        k, j, i = np.meshgrid(*[np.linspace(-1, 1, size) for size in shape], indexing="ij")
        ball = 400.0 * (k**2 + j**2 + i**2 < 0.7)
        voxels = ball + np.random.default_rng(seed).normal(100, 10, shape)
        voxels[:, 0] /= 20  # air
        voxels /= 5 if np.dtype(dtype).itemsize == 1 else 1
        node = slicer.util.addVolumeFromArray(voxels.astype(dtype), name=name)
        node.SetSpacing(*spacing)
        if turn:
            self.turn(node, *turn)
        node.CreateDefaultDisplayNodes()
        if modality:
            node.SetAttribute("MedEnhance.modality", modality)
        return node

    def sequenceOf(self, name, values, *, unit="s", change=lambda frame, at: None, **volume):
        """A sequence of small volumes at these values; change(frame, at) is called before each."""
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
        sequence.SetIndexName("time")
        sequence.SetIndexUnit(unit)
        for at, value in enumerate(values):
            frame = self.smallVolume(seed=at, name=f"frame {at}", **volume)
            change(frame, at)
            sequence.SetDataNodeAtValue(frame, str(value))
            slicer.mrmlScene.RemoveNode(frame)
        return sequence

    def turn(self, node, *turn):
        """Turn a volume about an axis, and put it somewhere else."""
        transform = vtk.vtkTransform()
        transform.RotateWXYZ(*turn)
        matrix = slicer.util.arrayFromVTKMatrix(transform.GetMatrix())[:3, :3]
        node.SetIJKToRASDirections(matrix.tolist())
        node.SetOrigin(12.3, -45.6, 7.8)

    def resultOf(
        self, source, name="scan enhanced", *, change=0, model=None, manifest=None, **linked
    ):
        """A volume as an enhancement of a node leaves it, without the time that it takes.

        change: what its voxels have more. linked: further nodes by their roles.
        """
        from MedEnhanceNodes import bridge, results

        voxels = slicer.util.arrayFromVolume(source)
        output = bridge.newVolumeLike(source, name)
        slicer.util.updateVolumeFromArray(output, (voxels + change).astype(voxels.dtype))
        output.SetAttribute(bridge.MODALITY, source.GetAttribute(bridge.MODALITY))
        results.copyDisplay(source, output)
        results.stamp(output, "enhanced", source, model, manifest)
        results.link(output, input=source, **linked)
        return output

    # --- pictures ---

    def picture(self, name, height=0):
        """Draw the panel with the page in front; a PNG where $MEDENHANCE_SCREENSHOTS says."""
        panel = self.widget.parent
        panel.resize(400, 600)
        panel.show()
        self.processEvents(20)
        panel.resize(400, height or panel.layout().totalHeightForWidth(400))
        self.processEvents(50)
        self.assertEqual(panel.width, 400, "the panel needs more than it has")
        for edit in slicer.util.findChildren(panel, className="QLineEdit"):
            if self.scratch in edit.text:  # a folder that a user could have
                edit.blockSignals(True)
                edit.text = "/home/you/scans"
                edit.blockSignals(False)
        page = self.widget.ui.tabs.currentWidget()  # the others may be higher
        spare = 0 if height else page.height - page.layout().totalHeightForWidth(page.width)
        picture = panel.grab(qt.QRect(0, 0, 400, panel.height - spare))
        image = picture.toImage()
        spots = {image.pixel(x, y) for x in range(0, 400, 7) for y in range(0, image.height(), 5)}
        self.assertGreater(len(spots), 1, "nothing was drawn")
        folder = os.environ.get("MEDENHANCE_SCREENSHOTS")
        if folder:
            os.makedirs(folder, exist_ok=True)
            path = os.path.join(folder, f"{name}.png")
            self.assertTrue(picture.save(path))
            _reduceColors(path)


def _reduceColors(path):
    """A panel has few colors: with a palette the picture takes a third of the room."""
    try:
        from PIL import Image
    except ImportError:  # a Slicer without Pillow keeps them all
        return
    with Image.open(path) as picture:
        reduced = picture.convert("RGB").quantize(64, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


def _children():
    try:
        import psutil
    except ImportError:  # a Slicer without psutil checks everything but this
        return set()
    return {
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE
    }


def _refusedByTheHost():
    """What the host wrote down, emptied; nothing in Slicer."""
    refused = getattr(sys.modules.get("SlicerHost.pythonqt"), "refused", [])
    found = list(refused)
    refused.clear()
    return found

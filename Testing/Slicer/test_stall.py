"""Slicer stays usable while a large volume is sent, enhanced and brought into the scene."""

import time
from unittest import mock

import numpy as np
import slicer
from enhance_testing import EnhanceTestCase
from medenhance_testing import slow
from test_runner import WORKER

from MedEnhancePanels.runner import Runner
from MedEnhancePanels.worker import pythonExecutable

#: Slices, rows, columns: a large CT.
SHAPE = (300, 512, 512)
#: The longest that our code may keep the event loop, in seconds of this thread's CPU time: what
#: other programs take of the machine is not ours.
LONGEST = 0.1

#: A worker that gives back what it gets, with progress on the way.
STUB = (
    WORKER
    + """
for job, kind, params in orders():
    if kind in ("doctor", "noise"):
        report(job, "result", choice={"name": "cpu"}, devices=[], cpu_threads=1)
        continue
    for at in range(20):
        report(job, "progress", fraction=at / 20, stage="enhancing", eta_s=20 - at)
        time.sleep(0.05)
    outputs = {"output": params["output"]}
    for name in ("uncertainty_output", "noise_map"):
        if name in params:
            outputs[name.removesuffix("_output")] = params[name]
    for path in outputs.values():
        shutil.copyfile(params["input"], path)
    report(job, "result", outputs=outputs)
"""
)


class StallTest(EnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(self.reload, "enhance")
        self.runner = Runner([pythonExecutable(), "-c", STUB])
        self.addCleanup(self.runner.shutdown)
        stub = mock.patch("MedEnhancePanels.runner.sharedRunner", return_value=self.runner)
        self.enterContext(stub)
        self.reload("enhance")
        self.longest, self.where = 0.0, ""

    def volume(self):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "large")
        image = self.bridge.newImage(SHAPE, np.int16)
        self.bridge.arrayOf(image)[:] = (np.arange(SHAPE[2], dtype=np.int16) - 256) * 4
        node.SetAndObserveImageData(image)
        node.SetAttribute(self.bridge.MODALITY, "CT")
        self.results.displayOf(node)  # as loaded: Slicer's own code looks for a window once
        return node

    def turn(self, what, where):
        """Call something that runs our code, and note how long it kept this thread busy."""
        began = time.thread_time()
        what()
        spent = time.thread_time() - began
        if spent > self.longest:
            self.longest, self.where = spent, where

    def goOn(self, condition, where, seconds=120):
        end = time.monotonic() + seconds
        while not condition() and time.monotonic() < end:
            self.turn(slicer.app.processEvents, where())
            time.sleep(0.001)
        self.assertTrue(condition(), self.message)

    @slow
    def test_noTurnOfTheEventLoopTakesLong(self):
        self.choose(self.smallVolume())  # what happens once, as imports, is not of this volume
        node = self.volume()
        self.turn(lambda: self.widget.ui.inputSelector.setCurrentNode(node), "choosing")
        settled = time.monotonic() + 0.5
        self.goOn(lambda: time.monotonic() > settled, lambda: "the page after the choice")
        self.ui.uncertaintyCheckBox.checked = self.ui.noiseMapCheckBox.checked = True
        self.turn(self.ui.applyButton.click, "Apply")
        job = self.panel.job
        self.assertIsNotNone(job, self.message)
        self.goOn(lambda: self.panel.job is None, lambda: job.stage)
        self.assertEqual(job.state, "done", self.message)
        settled = time.monotonic() + 0.5
        self.goOn(lambda: time.monotonic() > settled, lambda: "the page with the result")
        self.assertSameVoxels(node, job.nodes["output"])
        self.assertLess(self.longest, LONGEST, self.where)

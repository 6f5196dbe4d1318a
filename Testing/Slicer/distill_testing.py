"""What the tests of the page Distill share: a cohort of tiny brains, and runs of seconds."""

import json
import os
from unittest import mock

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase

from MedEnhancePanels.tasks import long_run


class DistillTestCase(MedEnhanceTestCase):
    KIND, TASK = "train", "trainMR"
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.models = self.temporaryFolder()
        before = os.environ.get("MEDENHANCE_MODELS")
        os.environ["MEDENHANCE_MODELS"] = self.models
        self.addCleanup(self.restore, before)
        self.widget.showPage("distill")
        self.panel = self.widget.panels["distill"]
        self.ui = self.panel.ui
        self.root = self.temporaryFolder()
        self.enterContext(mock.patch.object(long_run, "root", lambda: self.root))
        self.choose(self.TASK)

    def choose(self, task):
        """What is made: a value of the state's distillTask."""
        self.pick(self.ui.taskSelector, task)

    def pick(self, box, value):
        """Choose the entry with that value, as a user does."""
        box.currentIndex = box.findData(value)
        box.activated.emit(box.currentIndex)

    def tearDown(self):
        self.context.clearMessage()
        super().tearDown()

    def restore(self, models):
        os.environ.pop("MEDENHANCE_MODELS")
        if models is not None:
            os.environ["MEDENHANCE_MODELS"] = models

    def newPanel(self):
        """As after Slicer was started again with the same scene."""
        slicer.util.reloadScriptedModule("MedEnhance")
        self.widget = slicer.util.getModuleWidget("MedEnhance")
        self.widget.enter()
        self.context, self.panel = self.widget.context, self.widget.panels["distill"]
        self.ui = self.panel.ui
        self.widget.showPage("distill")

    def visible(self, *widgets):
        """Which of them the page shows."""
        return [widget for widget in widgets if widget.isVisibleTo(self.panel.widget)]

    def assertFitsAScreen(self, height=900):
        """The whole panel, with the font of a usual screen (9 pt)."""
        panel = self.widget.parent
        panel.resize(max(400, panel.minimumSizeHint.width()), height)
        panel.show()
        self.processEvents(20)
        # What Slicer's scroll area asks of a panel.
        self.assertLessEqual(panel.layout().totalHeightForWidth(panel.width), height)

    def picture(self, name):
        """The whole panel, as high as Slicer's scroll area would make it."""
        panel = self.widget.parent
        panel.resize(400, 600)
        panel.show()
        self.processEvents(20)
        self.screenshot(panel, name, height=panel.layout().totalHeightForWidth(400))

    def brain(self, path, seed):
        """Write something smooth with an edge."""
        from MedEnhancePanels.nodes import bridge

        axes = [np.linspace(-1, 1, size) for size in (8, 48, 44)]
        k, j, i = np.meshgrid(*axes, indexing="ij")
        inside = k**2 + j**2 + i**2 < 0.8
        voxels = inside * (600 + 200 * np.sin((4 + seed) * i) * np.cos(3 * j))
        voxels += np.random.default_rng(seed).normal(0, 4, inside.shape)
        node = slicer.util.addVolumeFromArray(np.abs(voxels).astype(np.int16), name="T1")
        node.SetAttribute("MedEnhance.modality", "MR")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        list(bridge.sendVolume(node, path))
        slicer.mrmlScene.RemoveNode(node)

    def cohort(self, count=3):
        """A folder with a folder for each patient, chosen on the page."""
        folder = self.temporaryFolder()
        for seed in range(count):
            names = (f"Patient {seed}", "T1.nrrd")
            if self.KIND == "train":
                names = ("lq" if seed == 2 else "hq", f"Patient {seed}.nrrd")
            self.brain(os.path.join(folder, *names), seed)
        self.ui.pathEdit.text = folder
        return folder

    def chooseBudget(self, steps=None):
        """The smallest network on the processor, for that many steps of a training."""
        from MedEnhancePanels.tasks import distillation

        paramsOf = distillation.paramsOf

        def withSteps(state):
            params = paramsOf(state)
            return params | {"config": params["config"] | ({"steps": steps} if steps else {})}

        self.enterContext(mock.patch.object(distillation, "paramsOf", withSteps))
        self.pick(self.ui.budgetSelector, "smoke")
        self.context.state.device = "cpu"
        self.ui.nameEdit.text = "tiny"

    def start(self, steps=400):
        self.chooseBudget(steps)
        self.assertTrue(self.ui.startButton.enabled, self.ui.whyLabel.text)
        self.ui.startButton.click()
        return self.job()

    def job(self, kind=None):
        wanted = kind or self.KIND
        return next(job for job in reversed(self.context.runner.jobs) if job.kind == wanted)

    def runFolder(self):
        return self.context.state.distillRun

    def record(self):
        with open(os.path.join(self.runFolder(), "run.json"), encoding="utf-8") as file:
            return json.load(file)

    def pauseAfter(self, count):
        job = self.job()
        self.waitUntil(lambda: len(job.metrics) >= count or job.isFinished, 120)
        self.assertFalse(job.isFinished, job.error)
        self.ui.pauseButton.click()
        self.waitUntil(lambda: job.isFinished, 60)
        self.assertEqual(job.state, "cancelled")

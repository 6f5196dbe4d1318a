"""What the tests of the page Distill share: a cohort of tiny brains, and runs of seconds."""

import json
import os
from pathlib import Path
from unittest import mock

import slicer
from Library.jobs.conftest import brain
from medenhance_testing import MedEnhanceTestCase, copyOfModel

from MedEnhanceLib.io import save
from MedEnhancePanels.tasks import distillation, long_run


class DistillTestCase(MedEnhanceTestCase):
    KIND, TASK = "train", "trainMR"
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.models = self.temporaryFolder()
        self.enterContext(mock.patch.dict(os.environ, MEDENHANCE_MODELS=self.models))
        self.widget.showPage("distill")
        self.panel = self.widget.panels["distill"]
        self.ui = self.panel.ui
        self.root = self.temporaryFolder()
        self.enterContext(mock.patch.object(long_run, "root", lambda: self.root))
        self.choose(self.TASK)

    def choose(self, task):
        """What is made: a value of the state's distillTask."""
        self.pick(self.ui.taskSelector, task)

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

    def assertFitsAScreen(self):
        """The whole panel, with the font of a usual screen (9 pt)."""
        panel = self.widget.parent
        panel.resize(max(400, panel.minimumSizeHint.width()), 900)
        panel.show()
        self.processEvents(20)
        # What Slicer's scroll area asks of a panel.
        self.assertLessEqual(panel.layout().totalHeightForWidth(panel.width), 900)

    def cohort(self, count=3):
        """A folder with a folder for each patient, chosen on the page."""
        folder = self.temporaryFolder()
        for seed in range(count):
            names = (f"Patient {seed}", "T1.nrrd")
            if self.KIND == "train":
                names = ("lq" if seed == 2 else "hq", f"Patient {seed}.nrrd")
            path = Path(folder, *names)
            path.parent.mkdir(exist_ok=True)
            save(brain(seed), path)
        self.ui.pathEdit.text = folder
        return folder

    def chooseBudget(self):
        """The smallest network, on the processor."""
        self.pick(self.ui.presetSelector, "smoke")
        self.context.state.distillDevice = "cpu"
        self.ui.nameEdit.text = "tiny"

    def teacher(self, name, **fields):
        """A segmentation model that learned from what the enhancer mr makes of labeled images."""
        config = {"enhancer": "mr", "images": ["hq/*"], "labels": ["labels/*"], **fields}
        folder = os.path.join(self.models, name)
        copyOfModel("brain-tissue", folder, training={"config": config})

    def train(self, **fields):
        """Begin a training with these fields of its configuration; its job."""
        paramsOf, fields = distillation.paramsOf, fields or {"steps": 400}

        def withFields(state):
            params = paramsOf(state)
            return params | {"config": params["config"] | fields}

        self.enterContext(mock.patch.object(distillation, "paramsOf", withFields))
        self.chooseBudget()
        return self.begin()

    def begin(self):
        self.assertTrue(self.ui.startButton.enabled, self.ui.problemLabel.text)
        self.ui.startButton.click()
        job, self.metrics = self.job(), []
        job.onEvent(lambda _job, name, fields: name == "metric" and self.metrics.append(fields))
        return job

    def job(self):
        return next(job for job in reversed(self.context.runner.jobs) if job.kind == self.KIND)

    def runFolder(self):
        return self.context.state.distillRun

    def record(self):
        with open(os.path.join(self.runFolder(), "run.json"), encoding="utf-8") as file:
            return json.load(file)

    def pauseAfter(self, count):
        job = self.job()
        self.waitUntil(lambda: len(self.metrics) >= count or job.isFinished, 120)
        self.assertFalse(job.isFinished, job.error)
        self.ui.pauseButton.click()
        self.assertEqual(self.finish(job).state, "cancelled")

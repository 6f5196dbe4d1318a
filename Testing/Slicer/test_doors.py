"""Every option through MedEnhanceLogic and the pages, as `doors.table` lists them.

A job is stopped where a worker would get it: what a script or a widget sets is in its parameters.
"""

import math
import os
from unittest import mock

import qt
import slicer
from doors.table import ROWS, options_in, rows_in
from medenhance_testing import MedEnhanceTestCase, finished

from MedEnhanceLib.denoise.denoisers import DENOISERS
from MedEnhanceLib.jobs import JobSpec
from MedEnhanceLib.jobs.job import JOBS
from MedEnhancePanels.errors import PanelError

#: What each call of a job states.
_ALWAYS = {"input", "output", "overwrite", "lossless", "patient_id", "dicom",
           "uncertainty_output"}  # fmt: skip
#: Widgets for nodes, regions and imported models, which have tests of their own.
_TESTED_ALONE = {"outputSelector", "roiSelector", "roiUseComboBox", "modelComboBox"}


class DoorTestCase(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.runner, self.logic = self.context.runner, self.context.logic
        self.path, self.asked = os.path.join(self.temporaryFolder(), "out"), []
        self.enterContext(mock.patch.object(self.runner, "submit", self.submit))
        self.enterContext(mock.patch.dict(DENOISERS, {"with-radius": "doors.table:WithRadius"}))

    def submit(self, kind, params, *, before=None, **_how):
        """Take the place of the runner's: prepare a job as for a worker, and note it."""
        job = mock.Mock(params=dict(params), folder=self.temporaryFolder(), warnings=[])
        if before is not None:
            finished(before(job))
        self.asked.append(JobSpec(kind, job.params))
        return job

    def assertAsked(self, job, name, row):
        """One job was begun, with the value of the row, what that requires, and nothing else."""
        begun = [spec for spec in self.asked if not JOBS[spec.kind].is_question]
        self.asked.clear()
        self.assertEqual([spec.kind for spec in begun], [job])
        params, stated = begun[0].typed_params(), {}
        wanted = {each: value for each, value in row.also.items() if value is not None}
        wanted[name] = row.value
        if wanted.pop("segment", None):
            wanted["segmentation_output"] = True
        for path, option in options_in(JOBS[job].params):
            value = params
            for part in path:
                value = getattr(value, part)
            if option.name in wanted or (option.name not in _ALWAYS and value != option.default):
                value = bool(value) if option.about.place else value
                stated[option.name] = list(value) if isinstance(value, tuple) else value
            if option.about.place and option.name in wanted:
                wanted[option.name] = True
        self.assertEqual(stated, wanted)


class LogicTest(DoorTestCase):
    def setUp(self):
        super().setUp()
        self.node = self.smallVolume(name="scan", modality="MR")

    def call(self, job, **options):
        logic, node = self.logic, self.node
        if job == "compress" and not {"lossless", "max_error", "ratio", "psnr"} & {*options}:
            options["lossless"] = True
        if job == "export":
            options = {"patientId": "X"} | options
            options.pop("dicom", None)
        calls = {
            "enhance": lambda: logic.enhance(node, wait=False, **options),
            "compress": lambda: logic.compress(node, f"{self.path}.ucv", wait=False, **options),
            "decompress": lambda: logic.decompress(self.path, wait=False, **options),
            "convert": lambda: logic.save(node, f"{self.path}.nrrd", wait=False, **options),
            "export": lambda: logic.exportDicom(node, self.path, wait=False, **options),
        }
        return calls[job]()

    def test_anOptionArrivesInTheJob(self):
        outputs = {"noise_map": True, "segmentation_output": True}
        entries = list(rows_in("logic"))
        keywords = {(job, name): keyword for job, name, keyword, _row in entries}
        for job, name, keyword, row in entries:
            given = {each: value for each, value in row.also.items() if value is not None}
            given = {keywords.get((job, each), each): value for each, value in given.items()}
            given[keyword] = outputs.get(name, row.value)
            with self.subTest(job=job, option=name):
                self.call(job, **given)
                self.assertAsked(job, name, row)

    def test_aWrongValueOfAMethodIsRefusedInTheWordsOfAScript(self):
        for job, name, keyword, _row in rows_in("logic"):
            declared = {each.name: (path, each) for path, each in options_in(JOBS[job].params)}
            path, option = declared[name]
            if len(path) == 1:  # the others are checked by the worker
                continue
            for wrong in (math.nan, -1e300) if option.range_text else (7,):
                with self.subTest(job=job, option=name, wrong=wrong):
                    with self.assertRaises(PanelError) as caught:
                        self.call(job, **{keyword: wrong})
                    self.assertEqual(caught.exception.code, "config")
                    self.assertIn(name, caught.exception.message)
                    self.assertRegex(caught.exception.hint, "^Use (?!.*(--[a-z]|medenhance))")
        self.assertEqual(self.asked, [])


class PageTest(DoorTestCase):
    PAGES = ("enhance", "compress")

    def rows(self, job):
        """Option and row of each that a page has."""
        for key, row in ROWS.items():
            if row.panel and hasattr(self.widget.panels[job].ui, next(iter(row.panel))):
                yield key, row

    def test_everyWidgetHasARow(self):
        named = {name for row in ROWS.values() for name in row.panel}
        for page in self.PAGES:
            bound = {widget.objectName for _field, widget, _kind in self.widget.panels[page]._bound}
            self.assertEqual(bound - named, _TESTED_ALONE if page == "enhance" else set())

    def test_anOptionOfEnhancingGoesFromItsWidgetToTheJob(self):
        self.assertGoesToTheJob("enhance", slice(0, None, 2))

    def test_everyOtherOptionOfEnhancingDoesToo(self):
        self.assertGoesToTheJob("enhance", slice(1, None, 2))

    def test_anOptionOfCompressingGoesFromItsWidgetToTheJob(self):
        self.assertGoesToTheJob("compress", slice(None))

    def assertGoesToTheJob(self, job, some):
        for name, row in [*self.rows(job)][some]:
            with self.subTest(page=job, option=name):
                self.showPage(job)
                self.begin(row)
                for widget, value in row.panel.items():
                    self.set(slicer.util.findChild(self.panel.widget, widget), value)
                self.press(job)
                self.assertAsked(job, name, row)

    def begin(self, row):
        """Choose a volume of the row's kind in an empty scene, and show what is folded."""
        slicer.mrmlScene.Clear(0)
        modality, frames = row.volume
        volume = {"modality": modality, "spacing": (1.0, 1.0, 3.0)}
        if frames > 1:
            self.choose(self.sequenceOf("scan", range(frames), **volume))
        else:
            self.choose(self.smallVolume(name="scan", **volume))

    def set(self, widget, value):
        """Set a widget as a user does, who can use only what is enabled."""
        self.assertTrue(widget.enabled, widget.objectName)
        if widget.inherits("QComboBox"):
            self.assertGreaterEqual(widget.findData(value), 0, "it is not offered")
            self.pick(widget, value)
        elif widget.inherits("QAbstractButton"):
            widget.checked = value
        elif widget.inherits("QLineEdit"):
            widget.text = value
        else:
            widget.value = value
        self.processEvents()

    def press(self, job):
        if job == "enhance":
            self.assertTrue(self.ui.applyButton.enabled, self.ui.problemLabel.text)
            self.ui.applyButton.click()
            self.panel.runs.forget()
            return
        with mock.patch.object(qt.QFileDialog, "getSaveFileName", return_value=f"{self.path}.ucv"):
            self.ui.compressButton.click()
        self.panel.job = None

"""DICOM on the page Load: folders, zips and discs; series to choose from; resampling offered."""

import os
import shutil
import zipfile

import numpy as np
import slicer
from dicom_testing import STUDY, DicomTestCase
from medenhance_testing import slow

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, dicom_source
from MedEnhancePanels.pages import load_choices
from MedEnhancePanels.tasks import files


def row(number, modality, description, *, readable=True, reason="", part="", patient="P-17"):
    """As the job `series` reports it."""
    return {
        "number": number,
        "uid": f"1.2.{number}",
        "part": part,
        "modality": modality,
        "description": description,
        "size": "20×24×6",
        "files": 6,
        "date": "20150314",
        "patient": patient,
        "study": "Thorax",
        "readable": readable,
        "reason": reason,
    }


class SeriesTest(DicomTestCase):
    def texts(self, line):
        table = self.panel.ui.seriesTable
        return [table.item(line, column).text() for column in range(table.columnCount)]

    def test_aSeriesIsLoadedWithItsGeometry(self):
        from MedEnhanceLib import io

        folder = self.sharedData("dicom/STS_025/MR_T1_series")
        node = self.open(folder).nodes["output"]
        volume = io.load(folder)
        self.assertTrue(np.array_equal(slicer.util.arrayFromVolume(node), volume.voxels))
        self.assertEqual(tuple(node.GetSpacing()), volume.geometry.spacing)
        self.assertEqual(bridge.modalityOf(node), "MR")

    def test_oneOfSeveralSeriesIsChosenFromATable(self):
        folder = os.path.join(self.temporaryFolder(), "study")
        for series in ("CT_series", "MR_T1_series"):
            source = self.sharedData(f"dicom/STS_025/{series}")
            shutil.copytree(source, os.path.join(folder, series))
        job = self.open(folder)
        self.assertEqual(self.message, "")
        self.assertNotIn(job, self.context.runner.jobs, "a question is no failed job")
        self.assertFalse(self.panel.ui.seriesBox.isHidden())
        table = self.panel.ui.seriesTable
        self.assertEqual(table.rowCount, 2)
        rows = [self.texts(line) for line in range(2)]
        self.assertEqual(sorted(texts[0] for texts in rows), ["CT", "MR"])
        line = [texts[0] for texts in rows].index("MR")
        self.assertEqual(rows[line][2], "75×55×25")
        self.assertIn("Files: 25", table.item(line, 0).toolTip())
        self.assertRegex(table.item(line, 0).toolTip(), r"UID: \d+\.\d+\.\d+")
        self.screenshot(self.widget.parent, "load-series", height=600)
        table.selectRow(line)
        self.panel.ui.loadSeriesButton.click()
        self.waitUntil(lambda: self.panel.node is not None, 60)
        self.assertEqual(self.panel.node.GetImageData().GetDimensions(), (75, 55, 25))
        self.assertTrue(self.panel.ui.seriesBox.isHidden())
        source = dicom_source.sourceOf(self.panel.node)
        self.assertEqual(source.path, folder)
        self.assertIn(source.series, table.item(line, 0).toolTip())

    @slow
    def test_theOnlySeriesOfAFolderIsRememberedToo(self):
        folder = self.writeSeries(os.path.join(self.temporaryFolder(), "ct"))
        node = self.open(folder).nodes["output"]
        source = dicom_source.sourceOf(node)
        self.assertEqual((source.path, source.series), (folder, f"{STUDY}.1"))

    @slow
    def test_aDoubleClickLoads(self):
        folder = self.temporaryFolder()
        for number in (1, 2):
            self.writeSeries(folder, number=number, SeriesDescription=f"series {number}")
        self.open(folder)
        item = self.panel.ui.seriesTable.item(1, 0)
        self.panel.ui.seriesTable.selectRow(1)
        self.panel.ui.seriesTable.itemDoubleClicked.emit(item)
        self.waitUntil(lambda: self.panel.node is not None, 60)
        self.assertEqual(self.panel.node.GetName(), "series 2")
        self.assertEqual(self.panel.node.GetAttribute(dicom_source.SERIES), f"{STUDY}.2")

    def test_whatCannotBeLoadedIsGrayAndSaysWhy(self):
        rows = [
            row(1, "SR", "report", readable=False, reason="a report, no image"),
            row(2, "CT", ""),
        ]
        self.panel._series.show(rows, {"MR"})
        table = self.panel.ui.seriesTable
        colors = [table.item(line, 0).foreground().color().name() for line in (0, 1)]
        self.assertNotEqual(*colors)
        self.assertEqual(table.item(0, 1).toolTip(), "a report, no image")
        self.assertEqual(table.currentRow(), 1)
        self.assertTrue(self.panel.ui.reasonLabel.isHidden())
        table.selectRow(0)
        self.assertEqual(self.panel.ui.reasonLabel.text, "It cannot be loaded: a report, no image.")
        self.assertFalse(self.panel.ui.reasonLabel.isHidden())
        self.assertFalse(self.panel.ui.loadSeriesButton.enabled)
        self.assertIn("1 in gray cannot be loaded", self.panel.ui.seriesLabel.text)
        self.assertEqual(self.texts(1)[1], "(no description)")
        self.assertEqual(self.texts(1)[3], "2015-03-14")

    def test_nothingCanBeLoadedWhereAllIsGray(self):
        self.panel._series.show([row(1, "SR", "report", readable=False, reason="no image")])
        self.assertFalse(self.panel.ui.loadSeriesButton.enabled)
        self.panel.ui.seriesTable.itemDoubleClicked.emit(self.panel.ui.seriesTable.item(0, 0))
        self.assertIsNone(self.panel._job)

    def test_aSeriesThatCanBeEnhancedIsChosenBeforehand(self):
        self.panel._series.show([row(1, "PT", "WB"), row(2, "MR", "T1", part="echo 2")], {"MR"})
        self.assertEqual(self.panel._series.row["uid"], "1.2.2")
        self.assertEqual(self.texts(1)[1], "T1, echo 2")

    def test_patientsAreReportedApartWhereThereAreSeveral(self):
        self.panel._series.show([row(1, "CT", "a"), row(2, "CT", "b", patient="P-18")])
        self.assertEqual(self.texts(1)[1], "P-18: b")

    def test_aRowIsFoundAgain(self):
        rows = [
            row(1, "CT", "a", readable=False, reason="tilted"),
            row(2, "MR", "b", part="echo 1"),
            {**row(3, "MR", "b", part="echo 2"), "uid": "1.2.2"},
        ]
        for key, number in (("1.2.2/echo 2", 3), ("1.2.2", 2), ("3", 3), ("1.2.1", 1), ("", 2)):
            self.assertEqual(load_choices.rowOf(rows, key)["number"], number, key)
        self.assertIsNone(load_choices.rowOf(rows, "1.2.9"))

    def test_datesAreShownWhereTheyDiffer(self):
        rows = [row(1, "CT", "a"), row(2, "CT", "b")]
        self.panel._series.show(rows)
        self.assertTrue(self.panel.ui.seriesTable.isColumnHidden(3))
        self.panel._series.show([rows[0], {**rows[1], "date": "20150316"}])
        self.assertFalse(self.panel.ui.seriesTable.isColumnHidden(3))

    def test_aZipIsReadAsItsFolder(self):
        folder, path = self.temporaryFolder(), os.path.join(self.temporaryFolder(), "visit.zip")
        self.writeSeries(folder)
        with zipfile.ZipFile(path, "w") as archive:
            for name in os.listdir(folder):
                archive.write(os.path.join(folder, name), f"images/{name}")
        self.assertTrue(files.isForTheLibrary(path))
        node = self.open(path).nodes["output"]
        self.assertEqual(node.GetName(), "visit")
        self.assertEqual(node.GetImageData().GetDimensions(), (20, 24, 6))

    def test_aDiscIsNamedAfterItsFolder(self):
        self.assertEqual(files.nameFor("/discs/visit 3/DICOMDIR"), "visit 3")


class RefusedTest(DicomTestCase):
    def test_missingSlicesAreNamedAndNothingIsLoaded(self):
        job = self.open(self.sharedData("dicom/STS_025_missing"))
        self.assertEqual(job.error.code, "geometry")
        self.assertIn("missing", self.message)
        self.assertNotIn("--fix", self.message)
        self.assertIsNone(self.panel.node)

    def test_framesWithoutAPlaceAreLeftToSlicersReader(self):
        for name in ("emri_small.dcm", "examples_ybr_color.dcm"):
            with self.subTest(name=name):
                self.open(self.sharedData(f"dicom/odd/{name}"))
                self.assertIn("none states its position in the patient", self.message)
                self.assertIn("Load it with Slicer's module DICOM", self.message)
                self.assertIsNone(self.panel.node)

    @slow
    def test_aTiltedSeriesIsRefusedAndThenLoadedResampled(self):
        folder = os.path.join(self.temporaryFolder(), "CT head")
        turned = [1, 0, 0, 0, float(np.cos(0.3)), float(np.sin(0.3))]
        self.writeSeries(folder, ImageOrientationPatient=turned)
        self.open(folder)
        self.assertIsNone(self.panel.node)
        ui = self.panel.ui
        self.assertFalse(ui.repairFrame.isHidden())
        self.assertIn("straighten the tilted slices", ui.repairLabel.text)
        self.assertNotIn("module DICOM", self.message)
        self.screenshot(self.widget.parent, "load-tilted", height=600)
        ui.repairButton.click()
        self.waitUntil(lambda: self.panel.node is not None, 60)
        self.assertTrue(ui.repairFrame.isHidden())
        self.waitUntil(lambda: "moved by up to" in ui.warningsLabel.text, 5)
        self.screenshot(self.widget.parent, "load-resampled", height=600)

    def test_anUnevenSeriesIsRefusedAndThenLoadedResampled(self):
        folder = self.temporaryFolder()
        self.writeSeries(folder, positions=[0.0, 2.5, 5.0, 7.5, 12.5, 15.0])
        self.open(folder)
        self.assertIsNone(self.panel.node)
        self.assertIn("interpolate slices", self.panel.ui.repairLabel.text)
        self.panel.ui.repairButton.click()
        self.waitUntil(lambda: self.panel.node is not None, 60)
        self.assertEqual(self.panel.node.GetImageData().GetDimensions()[2], 7)

    @slow
    def test_theOfferGoesWithTheNextLoad(self):
        self.panel._repair.show({"fix_tilt": True}, lambda: self.fail("not asked for"))
        self.writeSeries(folder := self.temporaryFolder())
        self.open(folder)
        self.assertTrue(self.panel.ui.repairFrame.isHidden())

    @slow
    def test_onlyWhatAHintNamesIsOffered(self):
        fields = {"code": "geometry", "message": "tilted", "hint": "Resample it (--fix-tilt)."}
        error = PanelError.fromEvent(fields)
        self.assertEqual(error.hint, "Resample it.")
        hint = "Copy ct.dcm again, complete. To resample it: --fix-tilt, fix_tilt=True."
        self.assertEqual(PanelError.fromEvent({**fields, "hint": hint}).hint, hint[:28])
        self.assertEqual(load_choices.repairsFor(error), {"fix_tilt": True})
        self.assertEqual(load_choices.repairsFor(PanelError("tilted", code="geometry")), {})

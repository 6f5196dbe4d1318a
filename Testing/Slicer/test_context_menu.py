"""Entries in the context menu of Slicer's module Data, and what they open."""

from unittest import mock

import slicer
from medenhance_testing import MedEnhanceTestCase


class ContextMenuTest(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
        ours = [each for each in self.handler.allPlugins() if each.name == "MedEnhance"]
        self.assertEqual(len(ours), 1)
        self.plugin = ours[0]
        self.hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
        self.volume = self.smallVolume(name="scan")

    def itemOf(self, node):
        return self.hierarchy.GetItemByDataNode(node)

    def offered(self, item):
        self.handler.setCurrentItem(item)
        self.plugin.showContextMenuActionsForItem(item)
        return [each.text for each in self.plugin.itemContextMenuActions() if each.visible]

    def choose(self, item, text):
        self.assertIn(text, self.offered(item))
        with mock.patch("slicer.util.selectModule") as selected:
            actions = self.plugin.itemContextMenuActions()
            next(each for each in actions if each.text == text).trigger()
        selected.assert_called_once_with("MedEnhance")

    def test_entriesAreWhereTheyMakeSense(self):
        scene = self.hierarchy.GetSceneItemID()
        labels = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "table")
        sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
        for node in (self.volume, sequence):
            self.assertEqual(self.offered(self.itemOf(node)), ["Enhance…", "Compress…"])
        for node in (labels, table):
            self.assertEqual(self.offered(self.itemOf(node)), [])
        for item in (
            self.hierarchy.CreateFolderItem(scene, "folder"),
            self.hierarchy.CreateStudyItem(scene, "study"),
            self.hierarchy.CreateSubjectItem(scene, "patient"),
        ):
            self.assertEqual(self.offered(item), [])
        for item in (0, scene):
            self.assertEqual(self.offered(item), [])

    def test_theyOpenThePageWithTheVolume(self):
        self.smallVolume(name="other")
        state = self.context.state
        for page, text in (("enhance", "Enhance…"), ("compress", "Compress…")):
            state.inputVolume = None
            self.choose(self.itemOf(self.volume), text)
            self.assertEqual(state.page, page)
        self.assertIs(state.inputVolume, self.volume)
        self.choose(self.itemOf(self.volume), "Enhance…")
        self.assertIs(state.inputVolume, self.volume)

    def test_theyWorkAfterAReload(self):
        slicer.util.reloadScriptedModule("MedEnhance")
        self.choose(self.itemOf(self.volume), "Enhance…")
        state = slicer.util.getModuleWidget("MedEnhance").context.state
        self.assertIs(state.inputVolume, self.volume)

    def test_theyOwnNoItem(self):
        python = self.plugin.self()
        item = self.itemOf(self.volume)
        for found in (
            python.canOwnSubjectHierarchyItem(item),
            python.canAddNodeToSubjectHierarchy(self.volume, item),
        ):
            self.assertIsInstance(found, float)  # anything else is a warning of Slicer's
            self.assertEqual(found, 0.0)

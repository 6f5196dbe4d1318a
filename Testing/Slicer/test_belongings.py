"""What belongs to a result goes with it: not copies of it, nor what somebody edited."""

import numpy as np
import slicer
from medenhance_testing import MedEnhanceTestCase, finished, slow

from MedEnhanceNodes import belongings, bridge, results


class BelongingsTest(MedEnhanceTestCase):
    KEEPS_WORKER = True

    def setUp(self):
        super().setUp()
        self.showPage("enhance")
        self.source = self.smallVolume(name="scan", modality="MR")
        self.result = self.resultOf(self.source)
        self.made = {role: self.make(role) for role in ("uncertainty", "noise", "difference")}
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "table")
        self.made |= {"table": table, "segmentation": self.segmentation()}
        results.link(self.result, **self.made)

    def make(self, role):
        node = self.smallVolume(name=role)
        results.stamp(node, role, self.result)
        return node

    def segmentation(self):
        image = bridge.newImage((8, 24, 20), np.uint8)
        bridge.arrayOf(image)[:] = 0
        bridge.arrayOf(image)[2:4, 5:9, 6:12] = 1
        bridge.arrayOf(image)[4:6, 5:9, 6:12] = 2
        labels = [{"value": value, "name": f"part {value}"} for value in (1, 2)]
        node = results.makeSegmentation(image, self.source, labels, "segmentation")
        names = [label["name"] for label in labels]
        node.SetAttribute(belongings.LABELS, finished(belongings.checksum(names, [image])))
        return node

    def edit(self, segmentation):
        """Take a voxel out of the first segment, as the Segment Editor does."""
        segments = segmentation.GetSegmentation()
        kind = slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName()
        image = segments.GetLayerDataObject(0, kind)
        bridge.arrayOf(image)[2, 5, 6] = 0
        image.Modified()

    def removed(self):
        """Remove the result; the roles of what is left of it."""
        slicer.mrmlScene.RemoveNode(self.result)
        self.waitUntil(lambda: not self.context.runner.activeJobs())
        self.processEvents(50)
        self.waitUntil(lambda: not self.context.runner.activeJobs())
        return [role for role, node in self.made.items() if bridge.isInScene(node)]

    def test_allOfItGoesWhileAnotherModuleIsInFrontToo(self):
        self.widget.parent.exit()
        self.assertEqual(self.removed(), [])
        self.assertTrue(bridge.isInScene(self.source))

    def test_theVolumeThatShowsTheFramesOfASequenceGoesWithIt(self):
        source = self.sequenceOf("frames", range(3), modality="MR")
        output = self.sequenceOf("frames enhanced", range(3), modality="MR")
        results.stamp(output, "enhanced", source)
        results.link(output, input=source)
        bridge.play(source, output)
        shown = [bridge.proxyOf(node) for node in (source, output)]
        self.result = output
        self.removed()
        self.assertEqual([bridge.isInScene(node) for node in shown], [True, False])

    def test_anEditedSegmentationStays(self):
        self.edit(self.made["segmentation"])
        self.assertEqual(self.removed(), ["segmentation"])

    def test_aRenamedSegmentStaysToo(self):
        self.made["segmentation"].GetSegmentation().GetNthSegment(0).SetName("tumor")
        self.assertEqual(self.removed(), ["segmentation"])

    def test_aCopyOfAMapStays(self):
        copy = self.make("difference")
        self.panel.update()
        self.assertEqual(self.removed(), [])
        self.panel.update()
        self.assertTrue(bridge.isInScene(copy))

    def test_whatACopyOfTheResultRefersToStaysWithIt(self):
        copy = self.resultOf(self.source, "copy")
        results.link(copy, uncertainty=self.made["uncertainty"])
        self.assertEqual(self.removed(), ["uncertainty"])

    @slow
    def test_itIsSoInASceneThatIsLoadedAgain(self):
        for isEdited in (False, True):
            self.throughAScene()
            self.result = slicer.util.getNode("scan enhanced")
            self.made = {"segmentation": results.linked(self.result, "segmentation")}
            if isEdited:
                self.edit(self.made["segmentation"])
                self.assertEqual(self.removed(), ["segmentation"])
                continue
            copy = self.savedScene()
            self.assertEqual(self.removed(), [])
            slicer.mrmlScene.Clear(0)
            slicer.util.loadScene(copy)
            self.processEvents(80)

    def test_aSceneThatClosesStartsNothing(self):
        slicer.mrmlScene.Clear(0)
        self.processEvents(50)
        jobs = [job.title for job in self.context.runner.activeJobs() if not job.isQuestion]
        self.assertEqual(jobs, [])

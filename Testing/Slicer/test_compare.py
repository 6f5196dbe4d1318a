"""Comparing and previewing in the slice views: layers, planes, opacity, and all of it undone."""

from unittest import mock

import numpy as np
import slicer
import vtk
from medenhance_testing import MedEnhanceTestCase

from MedEnhanceNodes import bridge, preview, results
from MedEnhanceNodes.compare import Compare
from MedEnhanceNodes.preview import compositeOf
from MedEnhanceTasks import blending


class ViewTestCase(MedEnhanceTestCase):
    def setUp(self):
        super().setUp()
        self.bridge, self.results = bridge, results
        self.source = self.smallVolume(name="scan")
        slicer.util.setSliceViewerLayers(background=self.source, foreground=None)
        for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
            self.view(name).SetOrientation(orientation)
        self.lookAt(3)

    def view(self, name):
        return slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode")

    def layers(self, name):
        return compositeOf(self.view(name))

    def ids(self, name):
        """The IDs of a view's background and foreground."""
        layers = self.layers(name)
        return layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID()

    def lookAt(self, index, name="Red"):
        """Move a view to the middle of a slice of the volume."""
        size = self.source.GetImageData().GetDimensions()
        point = (self.ijkToRas(self.source) @ (size[0] / 2, size[1] / 2, index, 1))[:3].tolist()
        transform = self.source.GetParentTransformNode()
        if transform is not None:
            toWorld = vtk.vtkMatrix4x4()
            transform.GetMatrixTransformToWorld(toWorld)
            point = toWorld.MultiplyPoint((*point, 1.0))[:3]
        self.view(name).JumpSliceByCentering(*point)

    def makeOutput(self, *roles):
        """An enhanced volume with maps, difference and uncertainty, as a run leaves them."""
        maps, shape = {}, slicer.util.arrayFromVolume(self.source).shape
        for role in roles or ("difference", "uncertainty"):
            maps[role] = self.bridge.newVolumeLike(self.source, f"scan {role}")
            slicer.util.updateVolumeFromArray(maps[role], np.full(shape, 20, np.float32))
            self.results.styleMap(maps[role], role, "HU", 20.0)
        output = self.resultOf(self.source, change=20, **maps)
        self.remember(output)
        return output

    def remember(self, output):
        """What a run leaves at its end for other strengths."""
        blending.remember(output, self.bridge.voxelState(self.source))

    def slab(self):
        node = self.bridge.newVolumeLike(self.source, "slab")
        slicer.util.updateVolumeFromArray(node, np.zeros((3, 24, 20), np.int16))
        node.SetHideFromEditors(True)
        return node

    def everything(self):
        """All that a comparison may change."""
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        found = [layout.GetViewArrangement()]
        for name in ("Red", "Yellow", "Green"):
            node, layers = self.view(name), self.layers(name)
            plane = slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).tolist()
            found.append((name, plane, node.GetFieldOfView(), node.GetXYZOrigin()))
            found.append(self.ids(name))
            found.append([layers.GetForegroundOpacity(), layers.GetLinkedControl()])
            found.append((layers.GetHotLinkedControl(), layers.GetNumberOfAdditionalLayers()))
        return found


class CompareTest(ViewTestCase):
    def setUp(self):
        super().setUp()
        self.output = self.makeOutput()
        self.compare = Compare()
        self.addCleanup(self.compare.forget)

    def test_theResultIsShownAsItsVoxelsAreAndTheInputInItsPlace(self):
        self.compare.show(self.output, "single")
        self.assertEqual(self.shown(), {self.output.GetID()})
        self.compare.setInput(True)
        self.assertEqual(self.shown(), {self.source.GetID()})
        self.processEvents(20)
        self.assertEqual(self.compare.mode, "single")
        self.compare.setInput(False)
        self.assertEqual(self.shown(), {self.output.GetID()})

    def shown(self):
        """What the views show alone."""
        shown, onTop = zip(*map(self.ids, ("Red", "Yellow", "Green")), strict=True)
        self.assertEqual({*onTop}, {None})
        return {*shown}

    def test_windowAndLevelGoTogetherWhileComparing(self):
        self.source.GetDisplayNode().SetAutoWindowLevel(False)
        self.compare.show(self.output, "single")
        self.source.GetDisplayNode().SetWindowLevel(77.0, 11.0)
        shown = self.output.GetDisplayNode()
        self.assertEqual((shown.GetWindow(), shown.GetLevel()), (77.0, 11.0))
        self.compare.leave()
        self.source.GetDisplayNode().SetWindowLevel(50.0, 5.0)
        self.assertEqual(shown.GetWindow(), 77.0)

    def test_sideBySideShowsTheSamePlaneInTwoLinkedViews(self):
        self.lookAt(5)
        self.compare.show(self.output, "sideBySide")
        layout = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        self.assertEqual(layout.GetViewArrangement(), layout.SlicerLayoutSideBySideView)
        planes = [self.view(name).GetSliceToRAS() for name in ("Red", "Yellow")]
        np.testing.assert_array_equal(*map(slicer.util.arrayFromVTKMatrix, planes))
        for name, node in (("Red", self.source), ("Yellow", self.output)):
            self.assertEqual(self.ids(name), (node.GetID(), None))
            self.assertTrue(self.layers(name).GetLinkedControl())

    def test_fadingShowsTheResultOverItsInputInAllViews(self):
        self.compare.show(self.output, "fade")
        for fading in (0.5, 0.0, 0.8):
            self.compare.setFading(fading)
            for name in ("Red", "Yellow", "Green"):
                self.assertEqual(self.ids(name), (self.source.GetID(), self.output.GetID()))
                self.assertAlmostEqual(self.layers(name).GetForegroundOpacity(), fading)
        self.compare.setInput(True)
        self.assertEqual(self.shown(), {self.source.GetID()})
        self.compare.setInput(False)
        self.assertEqual(self.ids("Red"), (self.source.GetID(), self.output.GetID()))
        self.compare.setOverlay("difference")  # which lies over the result alone
        self.assertEqual((self.compare.mode, self.ids("Red")[0]), ("single", self.output.GetID()))

    def test_allViewsAreLinkedWhileComparing(self):
        for mode in ("single", "sideBySide", "fade"):
            self.compare.show(self.output, mode)
            for name in ("Red", "Yellow", "Green"):
                layers = self.layers(name)
                self.assertTrue(layers.GetLinkedControl() and layers.GetHotLinkedControl(), mode)

    def test_anotherModeGoesOnAtTheSliceLookedAt(self):
        self.compare.show(self.output, "sideBySide")
        for name in ("Red", "Yellow"):
            self.lookAt(6, name)
        for mode in ("fade", "sideBySide", "single"):
            self.compare.show(self.output, mode)
            self.assertEqual(preview.sliceIn(self.view("Red"), self.source), 6, mode)
        self.compare.leave()

    def test_leavingRestoresEverything(self):
        self.view("Yellow").SetFieldOfView(111.0, 92.0, 1.0)
        before = self.everything()
        for mode in ("single", "sideBySide", "fade", "table", "surfaces", "profile", "rendering"):
            count = len(slicer.util.getNodesByClass("vtkMRMLDisplayableNode"))
            self.compare.show(self.output, mode)
            if mode != "fade":
                self.compare.setOverlay("difference")
            self.assertNotEqual(self.everything(), before)
            self.compare.leave()
            self.assertEqual(self.everything(), before, mode)
            self.assertEqual(len(slicer.util.getNodesByClass("vtkMRMLDisplayableNode")), count)

    def test_aLineProfileHasTheValuesOfBothAndFollowsItsLine(self):
        self.compare.show(self.output, "profile")
        (line,) = slicer.util.getNodesByClass("vtkMRMLMarkupsLineNode")
        (table,) = slicer.util.getNodesByClass("vtkMRMLTableNode")
        for first, second in (((2, 9, 3), (17, 9, 3)), ((4, 4, 1), (4, 20, 6))):
            for at, place in enumerate((first, second)):
                world = (self.ijkToRas(self.source) @ (*place, 1))[:3]
                line.SetNthControlPointPositionWorld(at, *world)
            columns = [slicer.util.arrayFromTableColumn(table, name) for name in self.names(table)]
            mm, before, after = columns
            self.assertAlmostEqual(mm[-1], line.GetMeasurement("length").GetValue(), places=3)
            voxels = slicer.util.arrayFromVolume(self.source)
            ends = [voxels[k, j, i] for i, j, k in (first, second)]
            np.testing.assert_allclose(before[[0, -1]], ends, atol=1e-3)
            np.testing.assert_allclose(after - before, 20, atol=1e-3)
        self.assertFalse(line.GetSaveWithScene() or table.GetSaveWithScene())

    def names(self, table):
        return [table.GetColumnName(at) for at in range(table.GetNumberOfColumns())]

    def test_aRenderingShowsBothAlikeInAViewOfEachUntilItIsLeft(self):
        manager = mock.patch.object(type(slicer.app), "layoutManager", mock.Mock())
        with manager, mock.patch.object(slicer.util, "resetThreeDViews") as centered:
            self.compare.show(self.output, "rendering")
        centered.assert_called_once_with()
        shown = slicer.util.getNodesByClass("vtkMRMLVolumeRenderingDisplayNode")
        volumes = [each.GetVolumeNode() for each in shown]
        self.assertEqual(volumes, [self.source, self.output])
        views = [each.GetViewNodeIDs() for each in shown]
        self.assertEqual([len(each) for each in views], [1, 1])
        self.assertNotEqual(*views)
        self.assertEqual(len({each.GetVolumePropertyNodeID() for each in shown}), 1)
        self.assertTrue(all(each.GetVisibility() for each in shown))
        self.compare.leave()
        self.assertEqual(slicer.util.getNodesByClass("vtkMRMLVolumeRenderingDisplayNode"), [])

    def test_mapsLieOnTopWithSlicersLegend(self):
        self.compare.show(self.output, "single")
        for role, title in (
            ("uncertainty", "Uncertainty (1 SD)\nfor full strength\nHU"),
            ("difference", "Enhanced − input\nHU"),
        ):
            self.compare.setOverlay(role)
            shown = self.results.linked(self.output, role)
            self.assertEqual(self.ids("Red"), (self.output.GetID(), shown.GetID()))
            self.assertEqual(self.bars(), [title])
        self.compare.setInput(True)
        self.assertEqual((self.shown(), self.bars()), ({self.source.GetID()}, []))
        self.compare.setInput(False)
        self.compare.setOverlay(None)
        self.assertEqual((self.shown(), self.bars()), ({self.output.GetID()}, []))

    def test_aDifferenceHidesTheResultWhoseAnatomyWouldSeemToBeInIt(self):
        self.compare.show(self.output, "single")
        for role, opacity in (("difference", 1.0), ("uncertainty", 0.6)):
            self.compare.setOverlay(role)
            for name in ("Red", "Yellow", "Green"):
                self.assertAlmostEqual(self.layers(name).GetForegroundOpacity(), opacity)

    def test_theResultStaysWhereItsInputWasUnlessThatStandsInForIt(self):
        other = self.smallVolume(name="other")
        self.layers("Green").SetBackgroundVolumeID(other.GetID())
        layout = self.everything()[0]
        for mode in ("sideBySide", "fade", "single"):
            for isInput, stays in ((True, self.source), (False, self.output)):
                self.compare.show(self.output, mode)
                self.compare.setOverlay("difference")
                self.compare.setInput(isInput)
                self.compare.leave(keepsResult=True)
                self.assertEqual(self.everything()[0], layout)
                for name in ("Red", "Yellow"):
                    self.assertEqual(self.ids(name), (stays.GetID(), None))
                self.assertEqual(self.ids("Green"), (other.GetID(), None))
            for name in ("Red", "Yellow"):
                self.layers(name).SetBackgroundVolumeID(self.source.GetID())

    def bars(self):
        """Titles of the color bars that are shown."""
        bars = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode")
        return [bar.GetTitleText() for bar in bars if bar.GetVisibility()]

    def test_anotherBackgroundEndsTheComparison(self):
        """However it comes: nothing of one patient may lie over another."""
        other = self.smallVolume(name="another patient")
        for mode in ("single", "sideBySide"):
            ended = []
            compare = type(self.compare)(lambda ended=ended: ended.append(True))
            slicer.util.setSliceViewerLayers(background=self.source, foreground=None)
            compare.show(self.output, mode)
            compare.setOverlay("difference")
            slicer.util.setSliceViewerLayers(background=other)
            self.processEvents(20)
            self.assertEqual((compare.mode, ended), ("none", [True]))
            for name in ("Red", "Yellow", "Green"):
                self.assertEqual(self.ids(name), (other.GetID(), None))
                self.assertEqual(self.layers(name).GetNumberOfAdditionalLayers(), 0)


class PreviewTest(ViewTestCase):
    def setUp(self):
        super().setUp()
        self.module, self.preview = preview, preview.Preview()
        self.addCleanup(self.preview.forget)

    def assertSees(self, index, view):
        self.lookAt(index, view)
        current = self.module.currentSlice(self.source)
        self.assertEqual((current[0].GetLayoutName(), current[1]), (view, index))

    def test_theSliceInViewIsFoundInTheViewAcrossTheSlices(self):
        for index in (0, 3, 7):
            self.assertSees(index, "Red")
        self.source.SetIJKToRASDirections([[1, 0, 0], [0, 0, 1], [0, 1, 0]])
        self.assertSees(4, "Green")
        self.source.SetIJKToRASDirections(np.eye(3).tolist())
        turning = vtk.vtkTransform()  # the volume's transform counts
        turning.Translate(10, 20, 30)
        turning.RotateY(90)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        node.SetMatrixTransformToParent(turning.GetMatrix())
        self.source.SetAndObserveTransformNodeID(node.GetID())
        self.assertSees(6, "Yellow")

    def test_aViewFarAwayShowsNoSlice(self):
        self.view("Red").JumpSliceByCentering(0, 0, 5000)
        self.assertIsNone(self.module.currentSlice(self.source))

    def test_ofALargeSliceWhatIsInSightComesFirst(self):
        node, view = self.smallVolume(name="large"), self.view("Red")
        slicer.util.updateVolumeFromArray(node, np.zeros((3, 300, 400), np.int16))
        node.SetSpacing(0.5, 0.5, 2.0)
        self.source = node
        self.lookAt(1)
        view.SetDimensions(200, 100, 1)
        view.SetFieldOfView(40.0, 20.0, 1.0)
        (top, bottom), (left, right) = self.module.firstRegion(node, view)
        for start, stop, middle, size in ((top, bottom, 150, 40), (left, right, 200, 80)):
            self.assertAlmostEqual((start + stop) / 2, middle, delta=2)
            self.assertTrue(size <= stop - start <= size + 3)
        view.SetFieldOfView(400.0, 400.0, 1.0)  # all of it: the middle
        (top, bottom), (left, right) = self.module.firstRegion(node, view)
        self.assertEqual((bottom - top, right - left), (128, 128))
        self.assertEqual((top + 64, left + 64), (150, 200))
        view.SetFieldOfView(40.0, 40.0, 1.0)
        view.SetXYZOrigin(-1000.0, 0.0, 0.0)  # panned out of sight
        self.assertIsNone(self.module.firstRegion(node, view))

    def test_ofASmallSliceAllIsShownAtOnce(self):
        self.assertIsNone(self.module.firstRegion(self.source, self.view("Red")))

    def test_thePreviewIsShownInPlaceAndTakenAway(self):
        other = self.makeOutput()
        layers = self.layers("Red")
        layers.SetForegroundVolumeID(other.GetID())
        layers.SetForegroundOpacity(0.3)
        before, count = self.everything(), slicer.mrmlScene.GetNumberOfNodes()
        slab = self.slab()
        self.preview.show(slab, self.source, self.view("Red"))
        self.assertEqual(layers.GetForegroundVolumeID(), slab.GetID())
        self.assertEqual(layers.GetForegroundOpacity(), 1.0)
        self.assertEqual(self.layers("Green").GetForegroundOpacity(), 0.0)
        self.preview.hide()
        self.assertEqual(self.everything(), before)
        self.assertFalse(self.preview.isShown)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), count)

    def test_anotherBackgroundTakesThePreviewAway(self):
        slab, other = self.slab(), self.smallVolume(name="another patient")
        self.layers("Red").SetForegroundVolumeID(self.makeOutput().GetID())
        self.preview.show(slab, self.source, self.view("Red"))
        slicer.util.setSliceViewerLayers(background=other)
        self.processEvents(20)
        self.assertFalse(self.preview.isShown)
        self.assertEqual(self.ids("Red"), (other.GetID(), None))

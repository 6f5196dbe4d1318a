"""Slice views through MRML alone: the slice that a user looks at, and a preview in its place."""

import numpy as np
import qt
import slicer
import vtk

from MedEnhanceNodes import bridge, results

#: Most voxels along a side of what a preview shows first; more takes little less than all.
_FIRST = 128


def showVolume(node):
    """Show a new volume in the slice views, as Slicer does with what it loads."""
    if not node.IsA("vtkMRMLVolumeNode"):  # a sequence is shown through its browser
        return
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(node.GetID())
    logic.PropagateVolumeSelection()


def currentSlice(volume):
    """Return the slice view that cuts a volume best along its slices, and the slice that it shows.

    (slice node, index), or None where no view of the layout shows a slice; the volume's transform
    is taken into account.
    """
    views = sliceNodes()
    views = [view for view in views if view.IsMappedInLayout()] or views
    view = max(views, key=lambda view: _cut(volume, view)[0], default=None)
    index = sliceIn(view, volume) if view is not None else None
    return None if index is None else (view, index)


def sliceIn(view, volume):
    """Return the slice of a volume that a slice view shows, or None outside of the volume."""
    index = _cut(volume, view)[1]
    return index if 0 <= index < volume.GetImageData().GetDimensions()[2] else None


def _cut(volume, view):
    """Return how well a view cuts a volume along its slices, 1 at best, and at which of them."""
    toIjk, plane = worldToIjk(volume), planeOf(view)
    at = toIjk(plane[:, 3])
    step = (toIjk(plane[:, 3] + plane[:, 2]) - at) * volume.GetSpacing()
    return round(abs(step[2]) / max(1e-9, np.linalg.norm(step)), 3), int(np.floor(at[2] + 0.5))


def planeOf(view):
    """Return the directions of a slice view, across it at last, and its middle, as columns."""
    return slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3]


def firstRegion(volume, sliceNode):
    """Return the rows and columns of a slice to compute first: (start, stop) each.

    They are in sight, and at most _FIRST voxels along each side, about the middle of the view. None
    where that is most of the slice, or nothing.
    """
    toIjk, toRas = worldToIjk(volume), sliceNode.GetXYToRAS()
    across, down = sliceNode.GetDimensions()[:2]
    corners = [
        toIjk(toRas.MultiplyPoint((x, y, 0.0, 1.0))[:3]) for x in (0, across) for y in (0, down)
    ]
    region, sides = [], volume.GetImageData().GetDimensions()[:2]
    for axis in (1, 0):
        places = [corner[axis] for corner in corners]
        start, stop = max(0, int(min(places))), min(sides[axis], int(max(places)) + 2)
        first = max(start, (start + stop - _FIRST) // 2)
        region.append((first, min(stop, first + _FIRST)))
    size = [stop - start for start, stop in region]
    isPart = min(size) > 0 and 2 * size[0] * size[1] <= sides[0] * sides[1]
    return region if isPart else None


def sliceNodes():
    """Return the slice views that show layers, in the layout or not."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return [node for node in nodes if compositeOf(node) is not None]


def compositeOf(sliceNode):
    """Return the layers of a slice view, or None."""
    logic = slicer.app.applicationLogic().GetSliceLogic(sliceNode)
    return logic.GetSliceCompositeNode() if logic is not None else None


def isShown(volume):
    """Return whether a slice view has a volume as its background or foreground."""
    layers = [compositeOf(node) for node in sliceNodes()]
    return any(
        volume.GetID() in (each.GetBackgroundVolumeID(), each.GetForegroundVolumeID())
        for each in layers
    )


def shownVolume(node):
    """Return the volume that stands for a node in the views: itself, or a current frame.

    A sequence without a browser gets one.
    """
    return bridge.playerOf(node).GetProxyNode(node) if bridge.isSequence(node) else node


def shownFrame(node):
    """Return which frame of a sequence or diffusion-weighted volume is shown."""
    if bridge.isSequence(node):
        browser = bridge.browserOf(node)
        return browser.GetSelectedItemNumber() if browser is not None else 0
    return results.displayOf(node).GetDiffusionComponent()


def showFrame(node, index):
    """Show a frame of a sequence, and of all that are played with it, or of a diffusion volume."""
    if bridge.isSequence(node):
        browser = bridge.playerOf(node)
        browser.SetSelectedItemNumber(index)
        slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    else:
        results.displayOf(node).SetDiffusionComponent(index)


class Showing:
    """Results shown in slice views, which are restored at the end.

    `_onOthersShown` is called when other volumes are put into these views in any way.
    """

    def __init__(self):
        self._nodeID = self._sourceID = self._layout = None
        self._layers, self._planes, self._observed = {}, {}, []

    @property
    def source(self):
        """The input of what is shown; None where it is not in the scene any more."""
        return nodeOf(self._sourceID)

    def _begin(self, node, source, composites):
        """Remember the layout, all planes, and the layers of views that will show `node`."""
        self._nodeID, self._sourceID = node.GetID(), source.GetID()
        layout = layoutNode()
        self._layout = layout.GetViewArrangement() if layout is not None else None
        for view in sliceNodes():
            plane = self._planes[view.GetID()] = slicer.vtkMRMLSliceNode()
            copyPlane(plane, view)
        for layers in composites:
            volumes = (layers.GetBackgroundVolumeID(), layers.GetForegroundVolumeID())
            links = (layers.GetLinkedControl(), layers.GetHotLinkedControl())
            self._layers[layers.GetID()] = (*volumes, layers.GetForegroundOpacity(), *links)

    def _watch(self, composites):
        """Watch that the background of each of these stays one of our volumes."""

        def onModified(*_):
            # Later: an observer must neither be removed nor change its node while it is called.
            qt.QTimer.singleShot(0, self._look)

        # By name: kept here, a node and its observer would hold each other, and Python would
        # collect both while VTK still calls.
        self._observed += [
            (each.GetID(), each.AddObserver("ModifiedEvent", onModified)) for each in composites
        ]

    def _look(self):
        nodes = [nodeOf(identifier) for identifier, _tag in self._observed]
        views = [node for node in nodes if node is None or node.IsA("vtkMRMLSliceCompositeNode")]
        ours = (self._nodeID, self._sourceID)
        if any(node is None or node.GetBackgroundVolumeID() not in ours for node in views):
            self._onOthersShown()

    def _restore(self, isMoved):
        """Put the layers back, except in views that show another volume by now.

        isMoved: layout and planes too.
        """
        if isMoved and layoutNode() is not None:
            layoutNode().SetViewArrangement(self._layout)
        for identifier, (background, foreground, opacity, *links) in self._layers.items():
            node = nodeOf(identifier)
            if node is None:
                continue
            shown = nodeOf(node.GetBackgroundVolumeID())
            with slicer.util.NodeModify(node):
                node.SetLinkedControl(links[0])
                node.SetHotLinkedControl(links[1])
                node.SetForegroundVolumeID(None)  # what lay over the former volume fits no other
                if shown is None or shown.GetID() in (self._nodeID, self._sourceID):
                    node.SetBackgroundVolumeID(background if nodeOf(background) else None)
                    node.SetForegroundVolumeID(foreground if nodeOf(foreground) else None)
                    node.SetForegroundOpacity(opacity)
        for identifier, plane in self._planes.items() if isMoved else ():
            if nodeOf(identifier) is not None:
                copyPlane(nodeOf(identifier), plane)

    def forget(self):
        """Stop watching the views without restoring them: at the end, or when the scene closes."""
        for identifier, tag in self._observed:
            if nodeOf(identifier) is not None:
                nodeOf(identifier).RemoveObserver(tag)
        self._nodeID = self._sourceID = self._layout = None
        self._layers, self._planes, self._observed = {}, {}, []


def nodeOf(identifier):
    """Return the node of an ID that is still in the scene, or None."""
    return slicer.mrmlScene.GetNodeByID(identifier) if identifier else None


def copyPlane(view, other):
    """Move a slice view to plane, field of view and origin of another one."""
    with slicer.util.NodeModify(view):
        view.GetSliceToRAS().DeepCopy(other.GetSliceToRAS())
        view.UpdateMatrices()
        view.SetFieldOfView(*other.GetFieldOfView())
        view.SetXYZOrigin(*other.GetXYZOrigin())


def layoutNode():
    """Return the node of Slicer's layout, or None."""
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")


class Preview(Showing):
    """Preview, one at a time, as the foreground of a slice view; `hide` restores the view."""

    @property
    def isShown(self):
        return nodeOf(self._nodeID) is not None

    def show(self, node, source, sliceNode):
        """Put a preview of `source` in front of it in a view, in place of a former one."""
        Preview.hide(self)
        composite = compositeOf(sliceNode)
        self._begin(node, source, [composite])
        with slicer.util.NodeModify(composite):
            composite.SetBackgroundVolumeID(source.GetID())
            composite.SetForegroundVolumeID(node.GetID())
            composite.SetForegroundOpacity(1.0)
        self._watch([composite])

    def hide(self):
        """Take the preview away, and put the view back; but what others have put there stays."""
        node = nodeOf(self._nodeID)
        self._restore(isMoved=False)
        Showing.forget(self)
        if node is not None:
            results.remove(node)

    _onOthersShown = hide


def worldToIjk(volume):
    """Make a function from world coordinates to voxel indices, through the volume's transform."""
    toLocal = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        None, volume.GetParentTransformNode(), toLocal
    )
    rasToIjk = vtk.vtkMatrix4x4()
    volume.GetRASToIJKMatrix(rasToIjk)

    def toIjk(point):
        local = toLocal.TransformPoint(*(float(value) for value in point))
        return np.array(rasToIjk.MultiplyPoint((*local, 1.0))[:3])

    return toIjk

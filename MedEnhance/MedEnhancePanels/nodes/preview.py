"""Slice views through MRML alone: the slice that a user looks at, and a preview in its place."""

from dataclasses import dataclass

import numpy as np
import qt
import slicer
import vtk

from MedEnhancePanels.nodes import bridge, results


def showVolume(node):
    """Show a new volume in the slice views, as Slicer does with what it loads."""
    if not node.IsA("vtkMRMLVolumeNode"):  # a sequence is shown through its browser
        return
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(node.GetID())
    logic.PropagateVolumeSelection()


@dataclass(frozen=True)
class CurrentSlice:
    """The slice view that cuts a volume best along its slices, and the slice to look at there.

    isInView: whether the view shows it already; otherwise it is the middle one.
    """

    sliceNode: object
    index: int
    isInView: bool


def currentSlice(volume):
    """The slice of a volume that the user looks at; None where the layout has no slice view.

    Of the views in the layout, the one whose normal is closest to the volume's slice axis; the
    volume's transform is taken into account.
    """
    count = volume.GetImageData().GetDimensions()[2]
    toIjk = _worldToIjk(volume)
    found = []
    for order, sliceNode in enumerate(visibleSliceNodes()):
        center = _column(sliceNode.GetSliceToRAS(), 3)
        step = toIjk(center + _column(sliceNode.GetSliceToRAS(), 2)) - toIjk(center)
        step *= volume.GetSpacing()
        along = abs(step[2]) / max(1e-9, np.linalg.norm(step))
        index = int(np.floor(toIjk(center)[2] + 0.5))
        found.append((round(along, 3), -order, sliceNode, index))
    if not found:
        return None
    _along, _order, sliceNode, index = max(found, key=lambda entry: entry[:2])
    if 0 <= index < count:
        return CurrentSlice(sliceNode, index, True)
    return CurrentSlice(sliceNode, count // 2, False)


def visibleSliceNodes():
    """The slice views of the current layout; all of them if there is no layout."""
    nodes = sliceNodes()
    return [node for node in nodes if node.IsMappedInLayout()] or nodes


def sliceNodes():
    """The slice views that show layers, in the layout or not."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    return [node for node in nodes if compositeOf(node) is not None]


def compositeOf(sliceNode):
    """The layers of a slice view, or None."""
    for composite in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
        if composite.GetLayoutName() == sliceNode.GetLayoutName():
            return composite
    return None


class LayerWatch:
    """Notices when a view shows other volumes than it should, whatever changed it.

    isStill(composite): whether it shows what it should. onChanged(): called once, when all views
    have been changed.
    """

    def __init__(self, composites, isStill, onChanged):
        self._isStill, self._onChanged = isStill, onChanged
        # An observer must neither go nor change what it observes while it is called.
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(0)
        self._timer.timeout.connect(self._look)
        # By name: kept here, a node and its observer would hold each other, and Python would
        # collect both while VTK still calls.
        self._observed = [
            (one.GetID(), one.AddObserver("ModifiedEvent", lambda *_: self._timer.start()))
            for one in composites
        ]

    def stop(self):
        if not self._observed:
            return
        self._timer.stop()
        self._timer.deleteLater()  # its connection would keep this object
        for identifier, tag in self._observed:
            composite = slicer.mrmlScene.GetNodeByID(identifier)
            if composite is not None:
                composite.RemoveObserver(tag)
        self._observed = []

    def _look(self):
        nodes = [slicer.mrmlScene.GetNodeByID(identifier) for identifier, _tag in self._observed]
        if not all(node is not None and self._isStill(node) for node in nodes):
            self.stop()
            self._onChanged()


def isShown(volume):
    """Whether a view of the layout has a volume as its background or foreground."""
    layers = [compositeOf(node) for node in visibleSliceNodes()]
    return any(
        volume.GetID() in (each.GetBackgroundVolumeID(), each.GetForegroundVolumeID())
        for each in layers
    )


def sequenceOf(node):
    """The sequence that a volume shows a frame of, or None."""
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if node is not None and browser.IsProxyNodeID(node.GetID()):
            return browser.GetSequenceNode(node)
    return None


def frameOf(volume):
    """The number of the frame that a volume shows of its sequence."""
    for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
        if browser.IsProxyNodeID(volume.GetID()):
            master = browser.GetMasterSequenceNode()
            value = master.GetNthIndexValue(browser.GetSelectedItemNumber())
            return browser.GetSequenceNode(volume).GetItemNumberFromIndexValue(value, False)
    return 0


def shownVolume(node):
    """The volume that stands for a node in the views: itself, or a sequence's current frame."""
    if not bridge.isSequence(node):
        return node
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForSequenceNode(node)
    return browser.GetProxyNode(node) if browser is not None else None


class ViewState:
    """Layout, planes and layers as they are, to be put back later."""

    def __init__(self, composites=None):
        """composites: whose layers are to be put back; None for all."""
        layout = layoutNode()
        self._layout = layout.GetViewArrangement() if layout is not None else None
        self._planes = {node.GetID(): planeOf(node) for node in sliceNodes()}
        self._layers = {}
        every = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
        for node in every if composites is None else composites:
            volumes = (node.GetBackgroundVolumeID(), node.GetForegroundVolumeID())
            how = (node.GetForegroundOpacity(), node.GetLinkedControl())
            self._layers[node.GetID()] = (*volumes, *how)

    def restore(self, ours, isMoved):
        """Put it back, but for views that show another volume than `ours` (IDs) by now.

        isMoved: layout and planes too.
        """
        scene, layout = slicer.mrmlScene, layoutNode()
        if isMoved and layout is not None:
            layout.SetViewArrangement(self._layout)
        for identifier, (background, foreground, opacity, linked) in self._layers.items():
            node = scene.GetNodeByID(identifier)
            if node is None:
                continue
            shown = _presentOrNone(node.GetBackgroundVolumeID())
            with slicer.util.NodeModify(node):
                node.SetLinkedControl(linked)
                if shown is None or shown in ours:
                    node.SetBackgroundVolumeID(_presentOrNone(background))
                    node.SetForegroundVolumeID(_presentOrNone(foreground))
                    node.SetForegroundOpacity(opacity)
                else:  # what lay over the former volume fits no other
                    node.SetForegroundVolumeID(None)
        for identifier, plane in self._planes.items() if isMoved else ():
            if scene.GetNodeByID(identifier) is not None:
                setPlane(scene.GetNodeByID(identifier), *plane)


def planeOf(node):
    """Plane, field of view and origin of a slice view."""
    plane = vtk.vtkMatrix4x4()
    plane.DeepCopy(node.GetSliceToRAS())
    return plane, node.GetFieldOfView(), node.GetXYZOrigin()


def setPlane(node, plane, fieldOfView, origin):
    with slicer.util.NodeModify(node):
        node.GetSliceToRAS().DeepCopy(plane)
        node.UpdateMatrices()
        node.SetFieldOfView(*fieldOfView)
        node.SetXYZOrigin(*origin)


def layoutNode():
    """The node of Slicer's layout, or None."""
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")


class Preview:
    """One preview at a time, as the foreground of a slice view; `hide` restores the view."""

    def __init__(self):
        self._nodeID = self._compositeID = self._sourceID = None
        self._before = self._watch = None

    @property
    def isShown(self):
        return self._node() is not None

    @property
    def source(self):
        """The volume that is previewed, None where it is not in the scene any more."""
        return slicer.mrmlScene.GetNodeByID(self._sourceID) if self._sourceID else None

    def show(self, node, source, current):
        """Put a preview of `source` in front of it; a view that shows it keeps place and zoom."""
        self.hide()
        composite = compositeOf(current.sliceNode)
        self._before = ViewState([composite])
        self._nodeID, self._compositeID = node.GetID(), composite.GetID()
        self._sourceID = source.GetID()
        with slicer.util.NodeModify(composite):
            composite.SetBackgroundVolumeID(source.GetID())
            composite.SetForegroundVolumeID(node.GetID())
            composite.SetForegroundOpacity(1.0)
        self._watch = LayerWatch([composite], self._isInPlace, self.hide)
        if not current.isInView:
            _bringIntoView(source, current)

    def hide(self):
        """Take the preview away; a view that the user has changed since is left as it is."""
        self._endWatch()
        node, composite = self._node(), slicer.mrmlScene.GetNodeByID(self._compositeID or "")
        if composite is not None and composite.GetForegroundVolumeID() == self._nodeID:
            self._before.restore((self._sourceID,), isMoved=False)
        if node is not None:
            results.remove(node)
        self.forget()

    def forget(self):
        """The scene is gone, and the preview with it."""
        self._endWatch()
        self._nodeID = self._compositeID = self._sourceID = self._before = None

    def _isInPlace(self, composite):
        return composite.GetBackgroundVolumeID() == self._sourceID

    def _endWatch(self):
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    def _node(self):
        return slicer.mrmlScene.GetNodeByID(self._nodeID) if self._nodeID else None


def _bringIntoView(volume, current):
    """Move a view that shows none of the volume to the slice."""
    logic = slicer.app.applicationLogic().GetSliceLogic(current.sliceNode)
    if logic is not None:
        logic.FitSliceToBackground()
    size = volume.GetImageData().GetDimensions()
    middle = [(size[0] - 1) / 2, (size[1] - 1) / 2, float(current.index), 1.0]
    ijkToRas = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(ijkToRas)
    toWorld = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(
        volume.GetParentTransformNode(), None, toWorld
    )
    current.sliceNode.JumpSlice(*toWorld.TransformPoint(*ijkToRas.MultiplyPoint(middle)[:3]))


def _presentOrNone(identifier):
    """The ID of a node that is still there, or None."""
    return identifier if identifier and slicer.mrmlScene.GetNodeByID(identifier) else None


def _worldToIjk(volume):
    """A function from world coordinates to voxel indices, through the volume's transform."""
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


def _column(matrix, index):
    return np.array([matrix.GetElement(row, index) for row in range(3)])

"""Input and enhanced volume in the slice views: side by side, or one over the other.

Everything goes through MRML (layout, slice and composite nodes), so that Slicer's own controls show
and change the same things; leaving puts the views back as they were.

Both have the same window and level, so that the foreground's opacity blends them: 1 shows the
enhanced volume as its voxels are, 0 the input.
"""

import slicer
import vtk

from MedEnhancePanels.nodes import results
from MedEnhancePanels.nodes.legend import Legend
from MedEnhancePanels.nodes.preview import (
    LayerWatch,
    compositeOf,
    currentSlice,
    presentOrNone,
    sliceNodes,
    visibleSliceNodes,
)

#: The two views of Slicer's side-by-side layout.
_LEFT, _RIGHT = "Red", "Yellow"
#: Background, foreground and label are Slicer's; the overlay is a layer on top of them.
_OVERLAY_LAYER = 3
_OVERLAY_OPACITY = 0.6


class Compare:
    """One comparison at a time.

    mode: "none", "sideBySide" or "fade". overlay: "difference", "uncertainty" or None.
    It ends as soon as another volume is put into its views, with a call of onEnded().
    """

    def __init__(self, onEnded=lambda: None):
        self.mode = "none"
        self._legend = Legend()
        self._onEnded = onEnded
        self._outputID = self._sourceID = None
        self._before = None
        self.overlay = None
        self._stopFollowing = self._stopWatching = None

    @property
    def output(self):
        return slicer.mrmlScene.GetNodeByID(self._outputID) if self._outputID else None

    @property
    def source(self):
        return slicer.mrmlScene.GetNodeByID(self._sourceID) if self._sourceID else None

    def show(self, output, mode):
        """Compare an enhanced volume with its input; "none" leaves, another mode replaces."""
        if mode == self.mode and output is self.output:
            return
        overlay = self.overlay
        self.leave()
        source = results.linked(output, "input")
        if mode == "none" or source is None:
            return
        self._begin(source, output, mode, _ViewState())
        if mode == "sideBySide":
            self._arrangeSideBySide(source)
        self._setLayers(source, output)
        self._watch()
        self.setOpacity(1.0)
        self.setOverlay(overlay)

    def adopt(self, output):
        """Take over a comparison that a saved scene has brought into the views, if there is one.

        What the views showed before it is not known any more: leaving shows the input.
        """
        source = results.linked(output, "input")
        if self.mode != "none" or source is None:
            return
        for mode in ("sideBySide", "fade"):
            views = self._fading(mode)
            compared = [_layersOf(view) == (source.GetID(), output.GetID()) for view in views]
            if views and all(compared) and _showsSideBySide() == (mode == "sideBySide"):
                self._begin(source, output, mode, _ViewState(without=output))
                self._watch()
                self.setOpacity(1.0)
                return

    def leave(self):
        """Put the views back as they were; but what others have put there stays.

        Layout and planes are changed side by side only: otherwise the slice in view stays.
        """
        if self._before is None:
            return
        self._endWatches()
        self._setOverlayLayer(None)
        self._before.restore(self._sourceID, self._outputID, self.mode == "sideBySide")
        self.forget()

    def forget(self):
        """The scene is gone, and what there was to restore with it."""
        self._endWatches()
        self._legend.hide()
        self.mode, self._before, self.overlay = "none", None, None
        self._outputID = self._sourceID = None

    def _begin(self, source, output, mode, before):
        self._before, self.mode = before, mode
        self._sourceID, self._outputID = source.GetID(), output.GetID()
        self._stopFollowing = _follow(source, output)

    def _watch(self):
        watch = LayerWatch(self._fading(), self._isOurs, self._onOthersShown)
        self._stopWatching = watch.stop

    def _isOurs(self, composite):
        """Whether a view compares still; a preview may lie over the input for a while."""
        background, foreground = _layersOf(composite)
        isOver = foreground == self._outputID or _isPreview(foreground)
        return background == self._sourceID and isOver

    def _onOthersShown(self):
        self.leave()
        self._onEnded()

    def _endWatches(self):
        for stop in (self._stopFollowing, self._stopWatching):
            if stop is not None:
                stop()
        self._stopFollowing = self._stopWatching = None

    def setOpacity(self, opacity):
        """Blend the enhanced volume over the input: 1 shows it alone, 0 the input."""
        if self.mode != "none":
            for composite in self._fading():
                composite.SetForegroundOpacity(float(opacity))

    def setOverlay(self, kind):
        """Show the "difference" or the "uncertainty" on top, or None of them."""
        self.overlay = kind
        volume = results.linked(self.output, kind) if kind else None
        if self.mode != "none":
            self._setOverlayLayer(volume)

    def _setOverlayLayer(self, volume):
        for composite in self._fading():
            if volume is None and composite.GetNumberOfAdditionalLayers() == 0:
                continue
            composite.SetNthLayerVolumeID(_OVERLAY_LAYER, volume.GetID() if volume else None)
            if volume is not None:
                composite.SetNthLayerOpacity(_OVERLAY_LAYER, _OVERLAY_OPACITY)
        self._legend.show(volume)

    def _fading(self, mode=None):
        """The layers of the views that show the enhanced volume."""
        nodes = visibleSliceNodes()
        if (mode or self.mode) == "sideBySide":
            nodes = [node for node in sliceNodes() if node.GetLayoutName() == _RIGHT]
        return [compositeOf(node) for node in nodes]

    def _setLayers(self, source, output):
        showing = self._fading()
        views = [node for node in sliceNodes() if node.GetLayoutName() in (_LEFT, _RIGHT)]
        left = [compositeOf(node) for node in views] if self.mode == "sideBySide" else []
        for composite in [*left, *showing]:
            with slicer.util.NodeModify(composite):
                composite.SetBackgroundVolumeID(source.GetID())
                composite.SetForegroundVolumeID(output.GetID() if composite in showing else None)

    def _arrangeSideBySide(self, source):
        """Both views on the slice that was looked at, linked from then on."""
        current = currentSlice(source)
        nodes = {node.GetLayoutName(): node for node in sliceNodes()}
        model = current.sliceNode if current is not None else nodes.get(_LEFT)
        plane = vtk.vtkMatrix4x4()
        if model is not None:
            plane.DeepCopy(model.GetSliceToRAS())
        view = (model.GetFieldOfView(), model.GetXYZOrigin()) if model is not None else None
        layout = layoutNode()
        if layout is not None:
            layout.SetViewArrangement(layout.SlicerLayoutSideBySideView)
        for name in (_LEFT, _RIGHT):
            node = nodes.get(name)
            if node is not None:
                _setPlane(node, plane, *view)
                compositeOf(node).SetLinkedControl(True)


def _follow(source, output):
    """Keep the output's window and level those of the source; returns what ends it.

    Only with equal ones does the opacity blend the voxels.
    """
    display = source.GetDisplayNode()
    results.copyDisplay(source, output)
    if display is None:
        return None
    tag = display.AddObserver("ModifiedEvent", lambda *_: results.copyDisplay(source, output))
    return lambda: display.RemoveObserver(tag)


class _ViewState:
    """Layout, planes and layers as they are, to be put back later.

    without: a volume that lies over another by a comparison that is on already.
    """

    def __init__(self, without=None):
        layout = layoutNode()
        self._layout = layout.GetViewArrangement() if layout is not None else None
        if without is not None and _showsSideBySide():
            self._layout = layout.SlicerLayoutFourUpView  # Slicer's own, as the former is unknown
        hidden = without.GetID() if without is not None else None
        self._planes, self._layers = [], []
        for node in sliceNodes():
            plane = vtk.vtkMatrix4x4()
            plane.DeepCopy(node.GetSliceToRAS())
            view = (node.GetFieldOfView(), node.GetXYZOrigin())
            self._planes.append((node.GetID(), plane, *view))
        for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"):
            background, foreground = _layersOf(node)
            links = (node.GetForegroundOpacity(), node.GetLinkedControl())
            if hidden is not None and foreground == hidden:
                foreground, links = None, (0.0, node.GetLinkedControl())
            self._layers.append((node.GetID(), background, foreground, *links))

    def restore(self, source, output, isMoved):
        """Put it all back, but for views that show something else than the comparison by now.

        isMoved: layout and planes too.
        """
        scene = slicer.mrmlScene
        layout = layoutNode() if isMoved else None
        if layout is not None:
            layout.SetViewArrangement(self._layout)
        for identifier, background, foreground, opacity, linked in self._layers:
            node = scene.GetNodeByID(identifier)
            if node is None:
                continue
            now, over = _layersOf(node)
            if presentOrNone(now) is not None and now not in (source, background):
                # What lay over the former volume fits no other.
                background, foreground = now, None if over == output else over
            elif presentOrNone(over) not in (None, output, foreground) and not _isPreview(over):
                foreground, opacity = over, node.GetForegroundOpacity()
            with slicer.util.NodeModify(node):
                node.SetLinkedControl(linked)
                node.SetBackgroundVolumeID(presentOrNone(background))
                node.SetForegroundVolumeID(presentOrNone(foreground))
                node.SetForegroundOpacity(opacity)
        for identifier, plane, fieldOfView, origin in self._planes if isMoved else ():
            node = scene.GetNodeByID(identifier)
            if node is not None:
                _setPlane(node, plane, fieldOfView, origin)


def _setPlane(node, plane, fieldOfView, origin):
    with slicer.util.NodeModify(node):
        node.GetSliceToRAS().DeepCopy(plane)
        node.UpdateMatrices()
        node.SetFieldOfView(*fieldOfView)
        node.SetXYZOrigin(*origin)


def _layersOf(composite):
    return composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()


def _isPreview(identifier):
    node = slicer.mrmlScene.GetNodeByID(identifier) if identifier else None
    return node is not None and node.GetAttribute("MedEnhance.derived") == "preview"


def _showsSideBySide():
    layout = layoutNode()
    return layout is not None and layout.GetViewArrangement() == layout.SlicerLayoutSideBySideView


def layoutNode():
    """The node of Slicer's layout, or None."""
    return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLLayoutNode")

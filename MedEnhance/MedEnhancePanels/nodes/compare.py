"""An enhanced volume and its input in the slice views: side by side, or one in place of the other.

Everything goes through MRML (layout, slice and composite nodes), so that Slicer's own controls show
and change the same things; leaving puts the views back as they were. What a view shows are always
the voxels of one volume, so that it shows no strength that the data do not have; a map, such as the
difference, is the view's foreground, with Slicer's own legend.
"""

import slicer

from MedEnhancePanels.nodes import results
from MedEnhancePanels.nodes.preview import (
    LayerWatch,
    ViewState,
    compositeOf,
    currentSlice,
    layoutNode,
    planeOf,
    setPlane,
    sliceNodes,
    visibleSliceNodes,
)

#: The two views of Slicer's side-by-side layout.
_LEFT, _RIGHT = "Red", "Yellow"
_OVERLAY_OPACITY = 0.6


class Compare:
    """One comparison at a time.

    mode: "none", "single" or "sideBySide". overlay: the role of the map on top of the result, such
    as "difference", or None. isInput: whether the input stands in for the result for a while.
    It ends as soon as another volume is put into its views, with a call of onEnded().
    """

    def __init__(self, onEnded=lambda: None):
        self.mode, self.overlay, self.isInput = "none", None, False
        self._onEnded = onEnded
        self._outputID = self._sourceID = None
        self._before = self._stopFollowing = self._watch = None

    @property
    def output(self):
        return slicer.mrmlScene.GetNodeByID(self._outputID) if self._outputID else None

    @property
    def source(self):
        return slicer.mrmlScene.GetNodeByID(self._sourceID) if self._sourceID else None

    def show(self, output, mode):
        """Compare an enhanced volume with its input; another mode or volume replaces the former."""
        if mode == self.mode and output is self.output:
            return
        overlay, source = self.overlay, results.linked(output, "input")
        self.leave()
        if source is None:
            return
        self._before, self.mode, self.overlay = ViewState(), mode, overlay
        self._sourceID, self._outputID = source.GetID(), output.GetID()
        self._stopFollowing = _followDisplay(source, output)
        if mode == "sideBySide":
            _arrangeSideBySide(source)
        self._setLayers()
        self._watch = LayerWatch(self._resultViews(), self._isOurs, self._onOthersShown)

    def setOverlay(self, role):
        """Show a map that belongs to the result on top of it, or None."""
        self._showLegend(False)
        self.overlay = role
        self._setLayers()

    def setInput(self, isInput):
        """Show the input in place of the result, or the result again."""
        self.isInput = isInput
        self._setLayers()

    def leave(self):
        """Put the views back as they were; but what others have put there stays."""
        if self._before is not None:
            self._endWatches()
            self._showLegend(False)
            ours = (self._sourceID, self._outputID)
            self._before.restore(ours, self.mode == "sideBySide")
            self.forget()

    def forget(self):
        """The scene is gone, and what there was to restore with it."""
        self._endWatches()
        self.mode, self._before, self.overlay, self.isInput = "none", None, None, False
        self._outputID = self._sourceID = None

    def _endWatches(self):
        if self._stopFollowing is not None:
            self._stopFollowing()
        if self._watch is not None:
            self._watch.stop()
        self._stopFollowing = self._watch = None

    def _isOurs(self, composite):
        return composite.GetBackgroundVolumeID() in (self._sourceID, self._outputID)

    def _onOthersShown(self):
        self.leave()
        self._onEnded()

    def _resultViews(self):
        """The layers of the views that show the enhanced volume."""
        nodes = visibleSliceNodes()
        if self.mode == "sideBySide":
            nodes = [node for node in sliceNodes() if node.GetLayoutName() == _RIGHT]
        return [compositeOf(node) for node in nodes]

    def _setLayers(self):
        if self.mode == "none":
            return
        overlay = results.linked(self.output, self.overlay) if self.overlay else None
        overlay = None if self.isInput else overlay
        shown = self._sourceID if self.isInput else self._outputID
        for composite in self._resultViews():
            with slicer.util.NodeModify(composite):
                composite.SetBackgroundVolumeID(shown)
                composite.SetForegroundVolumeID(overlay.GetID() if overlay else None)
                composite.SetForegroundOpacity(_OVERLAY_OPACITY if overlay else 0.0)
        left = [node for node in sliceNodes() if node.GetLayoutName() == _LEFT]
        for node in left if self.mode == "sideBySide" else ():
            with slicer.util.NodeModify(compositeOf(node)):
                compositeOf(node).SetBackgroundVolumeID(self._sourceID)
                compositeOf(node).SetForegroundVolumeID(None)
        self._showLegend(overlay is not None)

    def _showLegend(self, isShown):
        """Slicer's legend of the map, where it has one."""
        overlay = results.linked(self.output, self.overlay) if self.overlay else None
        legend = results.legendOf(overlay) if overlay is not None else None
        if legend is not None:
            legend.SetVisibility(isShown)


def _followDisplay(source, output):
    """Keep the output's window and level those of the source; returns what ends it."""
    display = source.GetDisplayNode()
    results.copyDisplay(source, output)
    if display is None:
        return None
    tag = display.AddObserver("ModifiedEvent", lambda *_: results.copyDisplay(source, output))
    return lambda: display.RemoveObserver(tag)


def _arrangeSideBySide(source):
    """Both views on the slice that was looked at, linked from then on."""
    current = currentSlice(source)
    nodes = {node.GetLayoutName(): node for node in sliceNodes()}
    model = current.sliceNode if current is not None else nodes.get(_LEFT)
    plane = planeOf(model) if model is not None else None
    layout = layoutNode()
    if layout is not None:
        layout.SetViewArrangement(layout.SlicerLayoutSideBySideView)
    for name in (_LEFT, _RIGHT):
        if name in nodes:
            setPlane(nodes[name], *plane)
            compositeOf(nodes[name]).SetLinkedControl(True)

"""An enhanced volume and its input in the views: side by side, or one in place of the other.

Everything goes through MRML (layout, slice and composite nodes), so that Slicer's own controls show
and change the same things; leaving puts the views back as they were. A view always shows the
voxels of one volume, never a mixture of two, so that it shows the strength that the data have; a
map, such as the difference, is the view's foreground, with Slicer's own legend.
"""

import slicer

from MedEnhanceNodes import results
from MedEnhanceNodes.preview import (
    Showing,
    compositeOf,
    copyPlane,
    currentSlice,
    layoutNode,
    sliceNodes,
)

#: The two views of Slicer's side-by-side layout.
_LEFT, _RIGHT = "Red", "Yellow"
_OVERLAY_OPACITY = 0.6
#: By mode: the layout of Slicer that it takes.
_LAYOUTS = {
    "sideBySide": "SlicerLayoutSideBySideView",
    "table": "SlicerLayoutFourUpTableView",
    "threeD": "SlicerLayoutFourUpView",
}


class Compare(Showing):
    """Comparison of a result, one at a time.

    mode: "none", "single", "sideBySide", "table" or "threeD". overlay: the role of the map on top
    of the result, such as "difference", or None. isInput: whether the input stands in for the
    result for a while.
    onEnded() is called when it ends because another volume was put into its views.
    """

    def __init__(self, onEnded=lambda: None):
        super().__init__()
        self.mode, self.overlay, self.isInput = "none", None, False
        self._onEnded = onEnded

    @property
    def output(self):
        return slicer.mrmlScene.GetNodeByID(self._nodeID) if self._nodeID else None

    def show(self, output, mode):
        """Compare an enhanced volume with its input; another mode or volume replaces the former."""
        if mode == self.mode and output is self.output:
            return
        overlay, source = self.overlay, results.linked(output, "input")
        self.leave()
        if source is None and mode in ("single", "sideBySide"):
            return
        source = source or output  # whose table and surfaces are shown without it
        self._begin(output, source, [compositeOf(view) for view in sliceNodes()])
        self.mode, self.overlay = mode, overlay
        self._followDisplay(source, output)
        _arrange(mode, source)
        self._setLayers()
        self._watch(self._resultViews())

    def setOverlay(self, role):
        self._showLegend(False)
        self.overlay = role
        self._setLayers()

    def setInput(self, isInput):
        self.isInput = isInput
        self._setLayers()

    def leave(self):
        """Put the views back as they were; but what others have put there stays."""
        if self.mode != "none":
            self._showLegend(False)
            self._restore(isMoved=self.mode in _LAYOUTS)
            self.forget()

    def forget(self):
        super().forget()
        self.mode, self.overlay, self.isInput = "none", None, False

    def _onOthersShown(self):
        self.leave()
        self._onEnded()

    def _followDisplay(self, source, output):
        """Keep the output's window and level those of the source."""
        results.copyDisplay(source, output)
        display = source.GetDisplayNode()
        if display is not None:
            tag = display.AddObserver(
                "ModifiedEvent", lambda *_: results.copyDisplay(source, output)
            )
            self._observed.append((display.GetID(), tag))

    def _resultViews(self):
        """Return the layers of the views that show the enhanced volume."""
        isBeside = self.mode == "sideBySide"
        nodes = [node for node in sliceNodes() if not isBeside or node.GetLayoutName() == _RIGHT]
        return [compositeOf(node) for node in nodes]

    def _setLayers(self):
        if self.mode == "none":
            return
        overlay = results.linked(self.output, self.overlay) if self.overlay else None
        overlay = None if self.isInput else overlay
        shown = self._sourceID if self.isInput else self._nodeID
        for composite in self._resultViews():
            _setLayers(composite, shown, overlay)
        leftNodes = [node for node in sliceNodes() if node.GetLayoutName() == _LEFT]
        for node in leftNodes if self.mode == "sideBySide" else ():
            _setLayers(compositeOf(node), self._sourceID)
        self._showLegend(overlay is not None)

    def _showLegend(self, isShown):
        """Show or hide Slicer's legend of the map, where it has one."""
        overlay = results.linked(self.output, self.overlay) if self.overlay else None
        legends = slicer.vtkSlicerColorLogic
        legend = legends.GetColorLegendDisplayNode(overlay) if overlay is not None else None
        if legend is not None:
            legend.SetVisibility(isShown)


def _setLayers(composite, background, overlay=None):
    with slicer.util.NodeModify(composite):
        composite.SetBackgroundVolumeID(background)
        composite.SetForegroundVolumeID(overlay.GetID() if overlay else None)
        composite.SetForegroundOpacity(_OVERLAY_OPACITY if overlay else 0.0)


def _arrange(mode, source):
    """Take the layout of a mode; two views side by side are linked, on the slice looked at."""
    current, layout = currentSlice(source), layoutNode()
    if layout is not None and mode in _LAYOUTS:
        layout.SetViewArrangement(getattr(layout, _LAYOUTS[mode]))
    for node in sliceNodes() if mode == "sideBySide" and current is not None else ():
        if node.GetLayoutName() in (_LEFT, _RIGHT):
            copyPlane(node, current[0])
            compositeOf(node).SetLinkedControl(True)

"""An enhanced volume and its input in the views: side by side, faded, or one in place of the other.

Everything goes through MRML (layout, slice and composite nodes), so that Slicer's own controls show
and change the same things; leaving puts the views back as they were. All views are linked
meanwhile. What lies over the background, the faded result or a map with Slicer's own legend, is the
view's foreground; a difference hides what is below, whose anatomy would seem to be in it. Of
frames, the volumes that show the current one are compared.
"""

import slicer

from MedEnhanceNodes import bridge, line_profile, results, spatial
from MedEnhanceNodes.preview import (
    Showing,
    compositeOf,
    copyPlane,
    currentSlice,
    layoutNode,
    nodeOf,
    planeOf,
    shownVolume,
    sliceNodes,
)

#: The two views of Slicer's side-by-side layout.
_LEFT, _RIGHT = "Red", "Yellow"
_DIFFERENCE, _MAP_OPACITY = "difference", 0.6
#: By mode: the layout of Slicer that it takes.
_LAYOUTS = {
    "sideBySide": "SlicerLayoutSideBySideView",
    "table": "SlicerLayoutFourUpTableView",
    "surfaces": "SlicerLayoutFourUpView",
    "profile": "SlicerLayoutFourUpPlotView",
    "rendering": "SlicerLayoutDual3DView",
}
#: By mode: what makes the nodes that it needs, of an input and its result.
_MAKERS = {"profile": line_profile.begin, "rendering": spatial.render}


class Compare(Showing):
    """Comparison of a result, one at a time.

    mode: "none", "single", "sideBySide", "fade", "table", "surfaces" (of segments), "profile"
    (values along a line) or "rendering" (of volumes). overlay: the role of the map on top of the
    result, such as "difference", or None. isInput: whether the input stands in for the result for a
    while. fading: 0 shows the input, 1 the result, in mode "fade", which has no overlay. onEnded()
    is called when it ends because another volume was put into its views.
    """

    def __init__(self, onEnded=lambda: None):
        super().__init__()
        self.mode, self.overlay, self.isInput, self.fading = "none", None, False, 0.5
        self._outputID, self._made = None, []
        self._onEnded = onEnded

    @property
    def output(self):
        return nodeOf(self._outputID)

    def show(self, output, mode):
        """Compare an enhanced volume with its input; another mode or volume replaces the former."""
        if mode == self.mode and output is self.output:
            return
        overlay, view = None if mode == "fade" else self.overlay, self._viewLookedAt()
        self.leave()
        shown, source = shownVolume(output), shownVolume(results.linked(output, "input"))
        if shown is None or (source is None and mode != "table"):
            return
        source = source or shown  # whose table is shown without it
        self._begin(shown, source, [compositeOf(each) for each in sliceNodes()])
        self.mode, self.overlay, self._outputID = mode, overlay, output.GetID()
        self._followDisplay(source, shown)
        _arrange(mode, source, view)
        self._setLayers()
        self._made = _MAKERS[mode](source, shown) if mode in _MAKERS else []
        self._watch(self._resultViews())

    def setOverlay(self, role):
        if self.mode == "fade":
            self.show(self.output, "single")
        self._showLegend(False)
        self.overlay = role
        self._setLayers()

    def setInput(self, isInput):
        self.isInput = isInput
        self._setLayers()

    def setFading(self, fading):
        self.fading = fading
        self._setLayers()

    def leave(self, *, keepsResult=False):
        """Put the views back as they were; but what others have put there stays.

        keepsResult: the views that had the input show the result, unless the input stands in for
        it.
        """
        if self.mode != "none":
            self._showLegend(False)
            for node in filter(bridge.isInScene, self._made):
                results.remove(node)
            self._restore(isMoved=self.mode in _LAYOUTS)
            for composite in map(nodeOf, self._layers) if keepsResult and not self.isInput else ():
                if composite is not None and composite.GetBackgroundVolumeID() == self._sourceID:
                    composite.SetBackgroundVolumeID(self._nodeID)
            self.forget()

    def forget(self):
        super().forget()
        self.mode, self.overlay, self.isInput = "none", None, False
        self._outputID, self._made = None, []

    def _onOthersShown(self):
        self.leave()
        self._onEnded()

    def _viewLookedAt(self):
        """Return a copy of the view that a comparison was looked at in, or None."""
        current = currentSlice(self.source) if self.mode != "none" and self.source else None
        if current is None:
            return None
        view = slicer.vtkMRMLSliceNode()
        copyPlane(view, current[0])
        return view

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
        source, overlay = self._sourceID, self._overlay()
        opacity = 1.0 if self.overlay == _DIFFERENCE else _MAP_OPACITY
        layers = (self._nodeID, overlay and overlay.GetID(), opacity)
        if self.mode == "fade":
            layers = (source, self._nodeID, self.fading)
        for composite in self._resultViews():
            _setLayers(composite, *((source,) if self.isInput else layers))
        leftNodes = [node for node in sliceNodes() if node.GetLayoutName() == _LEFT]
        for node in leftNodes if self.mode == "sideBySide" else ():
            _setLayers(compositeOf(node), source)
        self._showLegend(overlay is not None and not self.isInput)

    def _overlay(self):
        """Return the map on top of the result, or None."""
        return results.linked(self.output, self.overlay) if self.overlay else None

    def _showLegend(self, isShown):
        """Show or hide Slicer's legend of the map, where it has one."""
        overlay, legends = self._overlay(), slicer.vtkSlicerColorLogic
        legend = legends.GetColorLegendDisplayNode(overlay) if overlay is not None else None
        if legend is not None:
            legend.SetVisibility(isShown)


def _setLayers(composite, background, foreground=None, opacity=0.0):
    with slicer.util.NodeModify(composite):
        composite.SetBackgroundVolumeID(background)
        composite.SetForegroundVolumeID(foreground)
        composite.SetForegroundOpacity(opacity if foreground else 0.0)


def _arrange(mode, source, before):
    """Take the layout of a mode, and link all views.

    Two views side by side show the slice looked at; `before`, the view of a former mode, is where
    the views with its direction go on.
    """
    current, layout = before or (currentSlice(source) or (None,))[0], layoutNode()
    if layout is not None and mode in _LAYOUTS:
        layout.SetViewArrangement(getattr(layout, _LAYOUTS[mode]))
    for view in sliceNodes():
        isBeside = mode == "sideBySide" and view.GetLayoutName() in (_LEFT, _RIGHT)
        if current is not None and isBeside:
            copyPlane(view, current)
        elif before is not None and _areParallel(view, before):
            view.JumpSliceByOffsetting(*planeOf(before)[:, 3].tolist())
        compositeOf(view).SetLinkedControl(True)
        compositeOf(view).SetHotLinkedControl(True)


def _areParallel(view, other):
    return abs(planeOf(view)[:, 2] @ planeOf(other)[:, 2]) > 0.999

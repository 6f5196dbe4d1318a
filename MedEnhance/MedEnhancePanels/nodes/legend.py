"""The color bar of a map that lies over the slice views.

Slicer draws the bar of a volume only where the volume is a view's background, foreground or label;
a map over both is a further layer. A model without points, which is neither listed nor saved,
carries the bar instead.
"""

import slicer

from MedEnhancePanels.nodes import results

_NAME = "MedEnhance legend"


class Legend:
    """One bar at a time, in all views; it follows the map's window and colors."""

    def __init__(self):
        self._modelID = None
        self._stopFollowing = None

    def show(self, volume):
        """Show the bar of a map; None, or a map without a title, takes it away."""
        self.hide()
        titled = results.legendOf(volume) if volume is not None else None
        if titled is None:
            return
        scene, display = slicer.mrmlScene, volume.GetDisplayNode()
        model = slicer.vtkMRMLModelNode()
        model.SetName(_NAME)
        model.SetHideFromEditors(True)
        model.SetSaveWithScene(False)
        scene.AddNode(model)
        self._modelID = model.GetID()
        model.CreateDefaultDisplayNodes()
        carrier = model.GetDisplayNode()
        carrier.SetSaveWithScene(False)
        carrier.SetVisibility2D(True)
        carrier.SetScalarRangeFlag(carrier.UseManualScalarRange)
        _follow(carrier, display)
        bar = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(model)
        bar.SetSaveWithScene(False)
        bar.SetTitleText(titled.GetTitleText())
        bar.SetVisibility(True)
        carrierID = carrier.GetID()

        def follow(*_arguments):
            present = scene.GetNodeByID(carrierID)
            if present is not None:
                _follow(present, display)

        tag = display.AddObserver("ModifiedEvent", follow)
        self._stopFollowing = lambda: display.RemoveObserver(tag)

    def hide(self):
        """Take the bar away."""
        if self._stopFollowing is not None:
            self._stopFollowing()
        model = slicer.mrmlScene.GetNodeByID(self._modelID) if self._modelID else None
        self._modelID = self._stopFollowing = None
        if model is not None and not slicer.mrmlScene.IsClosing():
            results.remove(model)


def _follow(carrier, display):
    """Give the carrier of the bar the colors and the range of a map's display."""
    carrier.SetAndObserveColorNodeID(display.GetColorNodeID())
    half = display.GetWindow() / 2
    carrier.SetScalarRange(display.GetLevel() - half, display.GetLevel() + half)

"""Offers to load a tilted or unevenly spaced series resampled, after it was refused as it is."""

from slicer.i18n import tr as _

#: The library's options by which it resamples, as its hints name them, and as a job takes them.
REPAIRS = {"fix-tilt": "fix_tilt", "fix-spacing": "fix_spacing"}


def repairsFor(error):
    """What a load could do about an error, as parameters of the job; empty for most errors."""
    return {REPAIRS[name]: True for name in REPAIRS if name in error.options}


class RepairOffer:
    """A question under the message of a refused series. ui: Load.ui's widgets by name."""

    def __init__(self, ui):
        self._ui, self._accepted = ui, None
        ui.repairButton.clicked.connect(self._onAccepted)
        ui.dismissRepairButton.clicked.connect(lambda *_checked: self.hide())
        self.hide()

    def show(self, repairs, accepted):
        """Ask; accepted() is called where the user agrees."""
        self._accepted = accepted
        self._ui.repairLabel.text = _explanation(repairs)
        self._ui.repairFrame.visible = True

    def hide(self):
        """Take the question away."""
        self._accepted = None
        self._ui.repairFrame.visible = False

    def _onAccepted(self, *_checked):
        accepted = self._accepted
        self.hide()
        if accepted is not None:
            accepted()


def _explanation(repairs):
    what = (
        _("straighten the tilted slices")
        if "fix_tilt" in repairs
        else _("interpolate slices at even distances")
    )
    if len(repairs) > 1:
        what = _("straighten the tilted slices, and interpolate them at even distances")
    return _(
        "It can be loaded resampled: that would {what}. Values between the stored slices are then"
        " computed, not measured, and the volume says so."
    ).format(what=what)

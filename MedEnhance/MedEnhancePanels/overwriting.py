"""The line above Apply that asks before an original is overwritten."""

from slicer.i18n import tr as _


class Overwriting:
    """A box to tick where the output is no result of ours; another output unticks it."""

    def __init__(self, checkBox):
        self._checkBox = checkBox
        self._asked = self._allowed = None

    def read(self, output):
        """The user has chosen something: keep what was allowed for this output alone.

        Returns whether that is something new.
        """
        before = self._allowed
        if not self._checkBox.checked:
            self._allowed = None
        elif self._isAsked(output):
            self._allowed = output.GetID()
        return self._allowed != before

    def show(self, output):
        """Ask where it is needed; called whenever another output is shown."""
        isAsked = _isOriginal(output)
        self._checkBox.visible = isAsked
        if not isAsked or output.GetID() != self._allowed:
            self._allowed = None
        self._checkBox.checked = self._allowed is not None
        self._asked = output.GetID() if isAsked else None

    def problem(self, output):
        """Why Apply has to wait, in a sentence; empty where it need not."""
        if not _isOriginal(output) or output.GetID() == self._allowed:
            return ""
        return _(
            "The output “{name}” is an original, which would be lost: tick the box to overwrite"
            " it, or choose “Create new volume”."
        ).format(name=output.GetName())

    def _isAsked(self, output):
        """Whether the box, as the user saw it, was about this output."""
        return output is not None and output.GetID() == self._asked


def _isOriginal(output):
    return output is not None and not output.GetAttribute("MedEnhance.derived")

"""Messages above the pages: each belongs to the page that it came from, and is shown there only."""

import logging

from slicer.i18n import tr as _
from slicer.i18n import translate

from MedEnhanceLib.runtime.text import sentence
from MedEnhanceLib.runtime.texts import TEMPLATES
from MedEnhancePanels.errors import PanelError

#: Templates of the library that name a command, as the panel has them.
_HERE = {
    **dict.fromkeys(
        ("measure", "find_even_tissue"),
        _("to measure σ in even tissue: Measure in a region…, above Apply"),
    ),
    "state_noise": _("even regions agree on {sigma}; to remove it, state it: Advanced, Noise"),
}


def translated(text):
    """Write a Text of the library in the language of Slicer: its template is translated.

    No line begins with a percent sign.
    """
    said = text.said(lambda key: _HERE.get(key) or translate("MedEnhanceLib.texts", TEMPLATES[key]))
    return said.replace(" %", "\u00a0%")


def translatedStage(stage):
    """Write what the library says that a job does, in the language of Slicer."""
    return translate("MedEnhanceLib.stages", stage) if stage else stage


#: Warnings of a job that are read at once; its log has all.
_SHOWN = 2


class Speaker:
    """Ways to say something; subclasses have message(level, text, details).

    level: "info", "warning" or "error". details: shown on demand; the log has more.
    """

    def clearMessage(self, *_checked):
        self.message("info", "")

    def showError(self, exception):
        """Show an exception, and log it with its traceback; a cancellation is information."""
        error = logged(exception)
        if error.text:  # else the scene has closed
            level = "info" if error.isCancellation else "error"
            self.message(level, error.text, error.shown)

    def report(self, job, text):
        """Say how a job ended: its error, or the text, with its warnings."""
        if job.error is not None:
            self.showError(job.error)
        else:
            level = "warning" if job.warnings else "info"
            lines = [text, *map(sentence, job.warnings[:_SHOWN])]
            if len(job.warnings) > _SHOWN:
                more = _("And {count} more, under Details.")
                lines.append(more.format(count=len(job.warnings) - _SHOWN))
            self.message(level, "\n".join(lines), "\n".join(job.log))


def logged(exception):
    """Log an exception with its traceback, unless it is a cancellation; returns its PanelError."""
    error = PanelError.fromException(exception)
    if error.report:
        log = logging.error if error.code == "internal" else logging.warning
        log("MedEnhance: %s", error.report)
    return error


class PageContext(Speaker):
    """The Context as a page has it: what is said through it is shown on that page."""

    def __init__(self, context, page):
        self._shared, self._page = context, page

    def __getattr__(self, name):
        return getattr(self._shared, name)

    def message(self, level, text, details=""):
        self._shared.message(level, text, details, page=self._page)

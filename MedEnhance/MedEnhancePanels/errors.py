"""Errors as users see them: a sentence, a remedy, and details on demand."""

import functools
import traceback

from slicer.i18n import tr as _
from slicer.i18n import translate


class PanelError(Exception):
    """An error with a message for the user.

    code: stable, as in the library's errors ("input", "model", "memory", "cancelled", …); "worker"
    for a worker process that ended, "internal" for our own errors. message: what, and where.
    hint: what to do next. details: a traceback or the end of a log, shown on demand only.
    """

    def __init__(self, message, hint="", code="internal", details=""):
        super().__init__(message)
        self.message, self.hint, self.code, self.details = message, hint, code, details

    def __str__(self):
        return self.text

    @property
    def shown(self):
        """The details as a user reads them: no traceback, which is for a log and a report."""
        from MedEnhanceLib.runtime.text import without_tracebacks

        texts = [self.message, self.hint, without_tracebacks(self.details)]
        return "" if self.isCancellation else "\n".join(filter(None, texts))

    @property
    def report(self):
        return "" if self.isCancellation else f"{self.text} ({self.code})\n{self.details}"

    @property
    def text(self):
        if not self.hint:
            return self.message
        return f"{self.message.rstrip('. ')}. {self.hint}"

    @property
    def isCancellation(self):
        return self.code == "cancelled"

    @classmethod
    def cancelled(cls):
        """Make the error of a job that the user stopped, without hint and details."""
        return cls(_("Cancelled."), code="cancelled")

    @classmethod
    def fromLibrary(cls, message, hint, code, details=""):
        """Convert a library error for Slicer's users: without command options.

        In another language its kind is said; the library's own words, in English, are details.
        """
        from MedEnhanceLib.runtime.text import without_commands
        from MedEnhanceLib.runtime.texts import TEMPLATES

        if code == "cancelled":
            return cls.cancelled()
        error = cls(message, without_commands(hint), code, details)
        if (kind := TEMPLATES.get(f"error-{code}", "")) != translate("MedEnhanceLib.texts", kind):
            error.details = "\n".join(filter(None, [error.text, details]))
            error.message, error.hint = translate("MedEnhanceLib.texts", kind), ""
        if code == "dependency" and hint.startswith("Install"):
            error.hint = _(
                "Pages offer to install it; scripts call installDependencies(confirm=True)."
            )
        elif code == "dependency" and hint.startswith("Repair"):
            error.hint = _("Press Repair packages… on the page Models.")
        elif code == "dependency" and "MedEnhanceLib.native.build" in hint:
            remedy = _("Press Install compiler… on the page Models.")
            error.hint = f"{error.hint.rstrip('.')}. {remedy}"
        return error

    @classmethod
    def fromException(cls, exception):
        """Convert anything that was raised; the library's errors keep their code and hint."""
        if isinstance(exception, PanelError):
            return exception
        details = "".join(traceback.format_exception(exception))
        if hasattr(exception, "message") and hasattr(exception, "hint"):
            return cls.fromLibrary(exception.message, exception.hint, exception.code, details)
        if isinstance(exception, OSError) and exception.strerror:
            place = f"{exception.filename}: " if exception.filename else ""
            hint = _("Free some space on that disk, or ask for access to it, then try again.")
            if isinstance(exception, FileNotFoundError):
                hint = _("It was moved or removed. Put it back, then try again.")
            return cls(place + exception.strerror, hint, "output", details)
        message = f"{type(exception).__name__}: {exception}"
        hint = _("This is an error in MedEnhance: please report it with Slicer's error log.")
        return cls(message, hint, "internal", details)


def guarded(slot):
    """Decorate a slot of a panel: exceptions are shown in the panel and logged.

    The first argument of the slot has `context` (context.Context).
    """

    @functools.wraps(slot)
    def run(self, *arguments, **options):
        try:
            return slot(self, *arguments, **options)
        except Exception as exception:
            self.context.showError(exception)
            return None

    return run

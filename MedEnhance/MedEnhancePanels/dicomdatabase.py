"""Slicer's DICOM database: whether it is there, and copying files into it in the background."""

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError

#: Imports that go on: an indexer must not be destroyed while it tells that it is done.
_alive = set()
#: How long an import that was cancelled may take to say that it has ended.
_GRACE_MS = 5000


def database():
    """The database, or None where Slicer has none open."""
    found = getattr(slicer, "dicomDatabase", None)  # absent where the module DICOM is disabled
    return found if found is not None and found.isOpen else None


def holds(series):
    """Whether a series is known to the database, by its UID."""
    found = database()
    return found is not None and bool(found.filesForSeries(series, 1))


def problem():
    """Why nothing can go into the database, in a sentence; empty where it can."""
    if database() is not None:
        return ""
    return _("Slicer's DICOM database is not open: open the module DICOM once, which opens it.")


def checkOpen():
    """Raise PanelError where no database is open."""
    if database() is None:
        raise PanelError(
            _("Slicer's DICOM database is not open"),
            _("Open the module DICOM once, which opens it, or export to a folder."),
            "output",
        )


class Import:
    """Copies the objects of a folder into the database.

    series: UID → number of files, which have to be in the database in the end.
    progress(fraction) and finished(error) are called from the event loop; error is a PanelError,
    or None. What was copied is taken out again where it fails or is cancelled.
    """

    def __init__(self, folder, series, progress, finished):
        checkOpen()
        self._database = database()
        self._folder, self._series = folder, dict(series)
        self._progress, self._finished = progress, finished
        self._isCancelled = False
        self._indexer = ctk.ctkDICOMIndexer()
        self._indexer.backgroundImportEnabled = True
        self._indexer.setDatabase(self._database)
        self._indexer.progress.connect(self._onProgress)
        self._indexer.indexingComplete.connect(self._onComplete)
        self._overdue = qt.QTimer()
        self._overdue.setSingleShot(True)
        self._overdue.setInterval(_GRACE_MS)
        self._overdue.timeout.connect(self._end)

    def start(self):
        """Begin; returns at once."""
        _alive.add(self)
        self._indexer.addDirectory(self._folder, True)

    def cancel(self):
        """Stop, and take out again what was copied."""
        if not self._isCancelled and self._finished is not None:
            self._isCancelled = True
            self._overdue.start()
            self._indexer.cancel()

    def _onProgress(self, percent):
        if self._finished is not None:
            self._progress(percent / 100)

    def _onComplete(self, *_counts):
        self._end()

    def _end(self):
        finished, self._finished = self._finished, None
        self._overdue.stop()
        if finished is None:
            return
        qt.QTimer.singleShot(0, lambda: _alive.discard(self))
        error = PanelError.cancelled() if self._isCancelled else self._fault()
        if error is not None and self._database.isOpen:
            for uid in self._series:
                self._database.removeSeries(uid)
        finished(error)

    def _fault(self):
        if not self._database.isOpen:
            return PanelError(
                _("Slicer's DICOM database was closed during the import"),
                _("Open it in the module DICOM, then export again."),
                "output",
            )
        for uid, count in self._series.items():
            held = len(self._database.filesForSeries(uid))
            if held != count:
                return PanelError(
                    _("Slicer's DICOM database took {held} of {count} files").format(
                        held=held, count=count
                    ),
                    _("Check the disk of the database, or export to a folder and import that."),
                    "output",
                )
        return None

"""What pages share: the base class of a page, the progress of a job, dialogs and timers."""

import qt

from MedEnhancePanels.job import stageText


class Page:
    """A page of the panel: its widgets, and the state that it shows.

    state: the State of the chosen parameter node; None while a scene closes, and after `cleanup`.
    """

    def __init__(self, context, name):
        """name: of the .ui file."""
        self.context = context
        self.widget, self.ui = context.ui(name)
        self.state = self._stopObserving = None

    def followState(self):
        """Call onState now and whenever another State is chosen, `update` whenever it changes."""
        self.context.onState(self._setState)

    def enter(self):
        """Called when the page is shown."""

    def exit(self):
        """Called when the page is left."""

    def cleanup(self):
        """Called when the module is closed or reloaded; jobs continue without the page."""
        self._setStateObserved(None)

    def onState(self, state):
        """Called when another State is chosen, or None."""
        self.update()

    def update(self):
        """Show what the state says."""

    def _setState(self, state):
        self._setStateObserved(state)
        self.onState(state)

    def _setStateObserved(self, state):
        if self._stopObserving is not None:
            self._stopObserving()
        self._stopObserving = state.observe(lambda _state: self.update()) if state else None
        self.state = state


class JobProgress:
    """Shows a job in an area of a page, which is hidden while there is none."""

    def __init__(self, area, bar, label, cancelButton, hasTitle=False):
        """hasTitle: whether the label names the job too."""
        self._area, self._bar, self._label, self._button = area, bar, label, cancelButton
        self._hasTitle = hasTitle
        self._job = None
        self._area.visible = False
        self._button.clicked.connect(self._onCancel)

    @property
    def job(self):
        """The job that is shown, or None when it has ended."""
        return self._job

    def show(self, job):
        """Follow a job until its end."""
        self._job = job
        self._area.visible = True
        self._button.enabled = True
        self._update()
        job.onEvent(self._onEvent)
        job.onFinished(self._onFinished)

    def forget(self):
        """Stop following; the job itself goes on."""
        self._job = None
        self._area.visible = False

    def _onEvent(self, job, name, _fields):
        if job is self._job and name in ("progress", "state"):
            self._update()

    def _onFinished(self, job):
        if job is self._job:
            self.forget()

    def _onCancel(self, _checked=False):
        if self._job is not None:
            self._button.enabled = False
            self._job.cancel()

    def _update(self):
        self._bar.value = int(100 * self._job.fraction)
        title = self._job.title if self._hasTitle else ""
        self._label.text = ": ".join(filter(None, (title, stageText(self._job))))


def singleShot(milliseconds, callback):
    """A timer that calls back once, that long after its last start."""
    timer = ticking(milliseconds, callback)
    timer.setSingleShot(True)
    return timer


def ticking(milliseconds, callback):
    """A timer that calls back again and again while it is started."""
    timer = qt.QTimer()
    timer.setInterval(milliseconds)
    timer.timeout.connect(callback)
    return timer


def askForFile(parent, title, start="", kinds=""):
    """The path of a file that the user opens; "" where the dialog was cancelled."""
    return _path(qt.QFileDialog.getOpenFileName(parent, title, start, kinds))


def askForNewFile(parent, title, start="", kinds=""):
    """The path to save at, or ""; that a file exists is for the page to ask."""
    dialog = qt.QFileDialog
    return _path(
        dialog.getSaveFileName(parent, title, start, kinds, "", dialog.DontConfirmOverwrite)
    )


def _path(answer):
    return answer[0] if isinstance(answer, tuple) else answer  # one binding adds the filter


def openPath(path):
    """Open a file or folder with the desktop's own program."""
    qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(path))

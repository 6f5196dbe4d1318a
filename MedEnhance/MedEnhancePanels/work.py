"""Several jobs that are one piece of work: to whoever shows progress it looks like one Job."""

import slicer

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import call


class Work:
    """State, progress, listeners and the end; a subclass does the jobs and calls `_end`.

    The fields are those of job.Job. Closing the scene cancels it.
    """

    def __init__(self, title):
        self.title = title
        self.state, self.stage, self.fraction, self.etaSeconds = "running", "", 0.0, None
        self.nodes, self.log, self.warnings, self.error = {}, [], [], None
        self._job = None
        self._listeners, self._finishers = [], []
        scene = slicer.mrmlScene
        self._observed = (scene, scene.AddObserver(scene.StartCloseEvent, self._onSceneCloses))

    @property
    def isFinished(self):
        return self.state != "running"

    @property
    def isRunning(self):
        return not self.isFinished

    def onEvent(self, callback):
        """As of a Job."""
        self._listeners.append(callback)

    def onFinished(self, callback):
        """As of a Job."""
        if self.isFinished:
            callback(self)
        else:
            self._finishers.append(callback)

    def cancel(self):
        """Stop what runs and drop what waits."""
        if self.isRunning and self.error is None:
            self.error = PanelError.cancelled()
            self._drop()
            if self._job is not None:
                self._job.cancel()

    def _drop(self):
        """Called once when it is cancelled: forget what has not begun."""

    def _onSceneCloses(self, *_arguments):
        self.cancel()

    def _tell(self, event, fields):
        for callback in list(self._listeners):
            call(callback, self, event, fields)

    def _end(self, state):
        scene, tag = self._observed
        scene.RemoveObserver(tag)
        self.state, self.fraction, self.etaSeconds = state, 1.0, None
        self._tell("state", {"state": self.state})
        finishers, self._finishers = self._finishers, []
        for callback in finishers:
            call(callback, self)

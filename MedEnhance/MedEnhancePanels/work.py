"""Several jobs that are one piece of work: to whoever shows progress it looks like one Job."""

import slicer

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.job import Listened


class Work(Listened):
    """State, progress, listeners and the end; a subclass does the jobs and calls `_end`.

    The fields are those of job.Job. Closing the scene cancels it.
    """

    def __init__(self, title):
        super().__init__()
        self.title = title
        self.state, self.stage, self.fraction, self.etaSeconds = "running", "", 0.0, None
        self.nodes, self.log, self.warnings, self.error = {}, [], [], None
        self._job = None
        scene = slicer.mrmlScene
        self._observed = (scene, scene.AddObserver(scene.StartCloseEvent, self._onSceneCloses))

    @property
    def isFinished(self):
        return self.state != "running"

    @property
    def isRunning(self):
        return not self.isFinished

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

    def _end(self, state):
        scene, tag = self._observed
        scene.RemoveObserver(tag)
        self.state, self.fraction, self.etaSeconds = state, 1.0, None
        self._tellListeners("state", {"state": self.state})
        self._tellFinishers()

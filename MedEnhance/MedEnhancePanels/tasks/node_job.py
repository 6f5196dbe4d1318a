"""A job on a node, which ends cleanly if the node is removed or changed in the meantime."""

import os

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge


class NodeJob:
    """A job that starts from a node; subclasses say what to ask for and where results go.

    voxels: the bridge.voxelState of the node as it is sent. before(job), place(job): generators of
    steps. What `place` makes comes into the scene in one step, at its end, so that a job that is
    stopped half-way leaves nothing.
    """

    def __init__(self, runner, node):
        bridge.checkIntensities(node)
        bridge.geometryOf(bridge.frameNodes(node)[0])
        self.runner, self.node = runner, node
        self._grid = _gridOf(node)
        self.voxels = bridge.voxelState(node)

    def submit(self, kind, title):
        """Start the job; it ends with its input."""
        job = self.runner.submit(kind, {}, title=title, before=self.before, after=self._after)
        _StopWithInput(job, self.node)
        return job

    def send(self, job, node, name):
        """Write voxels where the worker can read them; the job's parameter is the path."""
        job.params[name] = os.path.join(job.folder, f"{name}.nrrd")
        yield from bridge.sendVolume(node, job.params[name])

    def _after(self, job):
        if _gridOf(self.node) != self._grid:
            message = _("The size of {name} has changed since the job started")
            message = message.format(name=self.node.GetName())
            raise PanelError(message, _("Run it again."), "input")
        yield from self.place(job)


class _StopWithInput:
    """Ends a job as soon as its input leaves the scene, and says so instead of "cancelled"."""

    def __init__(self, job, node):
        self._job, self._node, self._name = job, node, node.GetName()
        scene = slicer.mrmlScene
        self._tag = scene.AddObserver(scene.NodeRemovedEvent, self._onRemoved)
        job.onFinished(self._onFinished)

    def _onRemoved(self, scene, _event):
        if not scene.IsNodePresent(self._node):
            self._job.cancel()

    def _onFinished(self, job):
        slicer.mrmlScene.RemoveObserver(self._tag)
        isGone, self._node = not bridge.isInScene(self._node), None
        if isGone and job.error is not None and job.error.isCancellation:
            text = _("{name} was removed from the scene, so the job on it was stopped")
            job.error = PanelError(text.format(name=self._name), code="cancelled")


def _gridOf(node):
    """The size of each frame."""
    return [frame.GetImageData().GetDimensions() for frame in bridge.frameNodes(node)]

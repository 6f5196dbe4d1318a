"""A job on a node, which ends cleanly if the node is removed or changed in the meantime."""

import os
import zlib

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, provenance, results


class NodeJob:
    """A job that starts from a node; subclasses say what to ask for and where results go."""

    def __init__(self, runner, node):
        bridge.checkIntensities(node)
        bridge.geometryOf(bridge.frameNodes(node)[0])
        self.runner, self.node = runner, node
        self._made = []
        self._grid = _gridOf(node)
        self._voxels = bridge.voxelState(node)

    def submit(self, kind, title):
        """Start the job; it ends with its input."""
        job = self.runner.submit(kind, {}, title=title, before=self.before, after=self.after)
        _StopWithInput(job, self.node)
        return job

    def send(self, job, node, name):
        """Send voxels, unless a preview has left them where the worker can read them."""
        path = _keptPath(job, node)
        job.params[name] = path
        if not os.path.exists(path):
            path = job.params[name] = os.path.join(job.folder, f"{name}.nrrd")
            yield from bridge.sendVolume(node, path)

    def sendToKeep(self, job, node, name):
        """Send voxels once: the file stays for the next preview of the same voxels."""
        path = _keptPath(job, node)
        job.params[name] = path
        if not os.path.exists(path):
            _forgetKept(self.runner, os.path.dirname(path))
            part = f"{path}.{job.id}.part"  # two previews of one volume may be sent at once
            yield from bridge.sendVolume(node, part)
            os.replace(part, path)

    def after(self, job):
        """Place the result; remove its nodes if that is stopped half-way."""
        try:
            yield from self.place(job)
        except BaseException:  # closing the generator is how a job is cancelled here
            job.nodes.clear()
            for node in self._made:
                if bridge.isInScene(node):
                    results.remove(node)
            raise

    def made(self, node):
        """Remember a node that is new, to be removed if the job does not come to its end."""
        self._made.append(node)
        return node

    @property
    def hasNewVoxels(self):
        """Whether the node's voxels are others than those that were sent."""
        return bridge.voxelState(self.node) != self._voxels

    def checkGrid(self):
        """Raise PanelError where the result does not fit the node any more."""
        if _gridOf(self.node) != self._grid:
            raise PanelError(
                _("The size of {name} has changed since the job started").format(
                    name=self.node.GetName()
                ),
                _("Run it again."),
                "input",
            )


class _StopWithInput:
    """Ends a job as soon as its input leaves the scene, and says so instead of "cancelled"."""

    def __init__(self, job, node):
        self._job, self._node, self._name = job, node, node.GetName()
        self._reason = ""
        scene = slicer.mrmlScene
        self._observed = [
            (scene, scene.AddObserver(scene.StartCloseEvent, self._onClose)),
            (scene, scene.AddObserver(scene.NodeRemovedEvent, self._onRemoved)),
        ]
        job.onFinished(self._onFinished)

    def _onClose(self, _scene, _event):
        self._stop(_("The scene was closed, so the job on {name} was stopped"))

    def _onRemoved(self, scene, _event):
        if not scene.IsNodePresent(self._node):
            self._stop(_("{name} was removed from the scene, so the job on it was stopped"))

    def _stop(self, reason):
        if not self._reason:
            self._reason = reason.format(name=self._name)
            self._job.cancel()

    def _onFinished(self, job):
        for scene, tag in self._observed:
            scene.RemoveObserver(tag)
        self._observed, self._node = [], None
        if self._reason and job.error is not None and job.error.isCancellation:
            job.error = PanelError(self._reason, code="cancelled")


def share(steps, start, end):
    """Run a generator of fractions as a share of a larger one; hands on its return value."""
    while True:
        try:
            fraction = next(steps)
        except StopIteration as stop:
            return stop.value
        yield start + (end - start) * float(fraction or 0.0)


def _keptPath(job, node):
    """The path of a volume sent for a preview, named by its voxels, grid and tags."""
    matrix = vtk.vtkMatrix4x4()
    bridge.frameNodes(node)[0].GetIJKToRASMatrix(matrix)
    numbers = [matrix.GetElement(row, column) for row in range(4) for column in range(4)]
    labels = (bridge.modalityOf(node), bridge.unitsOf(node), node.GetName())
    meaning = repr((_gridOf(node), numbers, labels, provenance.historyOf(node)))
    name = f"sent-{bridge.voxelState(node)}-{zlib.crc32(meaning.encode()):08x}.nrrd"
    return os.path.join(os.path.dirname(job.folder), name)


def _forgetKept(runner, folder):
    """Remove the files sent for previews, except those that a job still uses."""
    read = []
    for job in runner.activeJobs():
        for name in ("input", "guide", "look"):
            paths = job.params.get(name) or []
            read += [paths] if isinstance(paths, str) else paths
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith("sent-") and not any(map(path.startswith, read)):
            os.remove(path)


def _gridOf(node):
    """The size of each frame."""
    return [frame.GetImageData().GetDimensions() for frame in bridge.frameNodes(node)]

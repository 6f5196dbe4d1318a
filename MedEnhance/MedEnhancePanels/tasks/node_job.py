"""Jobs on nodes: how voxels reach the worker, and what ends a job whose node is gone."""

import os
import shutil
import tempfile

import slicer
from slicer.i18n import tr as _

from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge

#: Files that jobs share, by the name of their parameter: (bridge.stateOf the node, path). The
#: worker keeps what it read of them, and measured.
_shared = {}
#: Names of the parameters whose shared file is being written.
_writing = set()


def send(job, node, name="input"):
    """Write a node where the worker reads it; the job's parameter `name` is the path. Steps."""
    while name in _writing:
        yield
    state, path = _shared.get(name, (None, ""))
    if not os.path.isfile(path) or state != bridge.stateOf(node):
        path = os.path.join(job.folder, f"{name}.nrrd")
        yield from bridge.sendVolume(node, path)
    job.params[name] = path


def share(runner, job, node, name="input"):
    """As `send`; the file stays for the jobs that follow, until `unshare` or another. Steps."""
    while name in _writing:
        yield
    state, (before, path) = bridge.stateOf(node), _shared.get(name, (None, ""))
    if before == state and os.path.isfile(path):
        job.params[name] = path
        return
    unshare(runner, name)
    path = os.path.join(tempfile.mkdtemp(prefix="shared-", dir=runner.folder()), f"{name}.nrrd")
    job.params[name] = path
    _shared[name] = state, path
    _writing.add(name)
    try:
        yield from bridge.sendVolume(node, path)
    except BaseException:  # the job was stopped, or the disk is full
        unshare(runner, name)
        raise
    finally:
        _writing.discard(name)


def unshare(runner, *names):
    """Remove the shared files of parameters, of all by default, as soon as no job needs them."""
    for name in names or list(_shared):
        _remove(runner, _shared.pop(name, (None, ""))[1])


def _remove(runner, path):
    users = [
        job
        for job in runner.activeJobs()
        if any(value in (path, [path]) for value in job.params.values())
    ]
    if users and path:
        users[0].onFinished(lambda _job: _remove(runner, path))
    elif path:
        shutil.rmtree(os.path.dirname(path), ignore_errors=True)


def askForVolume(job):
    """Say where the worker writes a volume: the job's parameter `output`. Steps."""
    job.params["output"] = os.path.join(job.folder, "volume.nrrd")
    yield


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
        """Start the job; it ends as soon as its input leaves the scene."""
        job = self.runner.submit(kind, {}, title=title, before=self.before, after=self._after)
        scene, node = slicer.mrmlScene, self.node
        why = _("{name} was removed from the scene, so the job on it was stopped")
        why = why.format(name=node.GetName())

        def onRemoved(_scene, _event):
            if not bridge.isInScene(node):
                job.cancel(why)

        tag = scene.AddObserver(scene.NodeRemovedEvent, onRemoved)
        job.onFinished(lambda _job: scene.RemoveObserver(tag))
        return job

    def _after(self, job):
        if _gridOf(self.node) != self._grid:
            message = _("The size of {name} has changed since the job started")
            message = message.format(name=self.node.GetName())
            raise PanelError(message, _("Run it again."), "input")
        yield from self.place(job)


def _gridOf(node):
    return [frame.GetImageData().GetDimensions() for frame in bridge.frameNodes(node)]

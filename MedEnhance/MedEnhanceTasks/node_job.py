"""Jobs on nodes: how voxels reach the worker, and what ends a job whose node is gone."""

import contextlib
import os

import slicer
from slicer.i18n import tr as _

from MedEnhanceNodes import bridge, sending
from MedEnhancePanels.errors import PanelError

#: By parameter: the sending.stateOf a node, and its file, which later jobs link to.
_kept = {}


def send(job, node, name="input", *, keeps=False):
    """Write a node, in steps, to a file for the worker; the job's parameter `name` is its path.

    keeps: whether the file stays for later jobs, whose worker has then read it already.
    """
    path = job.params[name] = os.path.join(job.folder, f"{name}.nrrd")
    if name == "input" and not keeps and bridge.isGuessed(node):  # the file states it
        text = _("{name}: its values look like {modality}; if it is another, choose it on Enhance")
        modality = bridge.modalityName(bridge.modalityOf(node))
        job.warnings.append(text.format(name=node.GetName(), modality=modality))
    state, (before, kept) = sending.stateOf(node), _kept.get(name, (None, ""))
    if before == state:
        with contextlib.suppress(OSError):  # removed, or a disk without links
            os.link(kept, path)
            return
    yield from sending.sendVolume(node, path)
    if keeps:
        forgetSent(name)
        _kept[name] = state, f"{job.folder}-{name}.nrrd"
        with contextlib.suppress(OSError):
            os.link(path, _kept[name][1])


def forgetSent(*names):
    """Remove files that were kept, all of them by default; the links of jobs stay."""
    for name in names or list(_kept):
        with contextlib.suppress(OSError, KeyError):
            os.remove(_kept.pop(name)[1])


def askForVolume(job):
    """Set the file into which the worker writes a volume, the parameter `output`; one step."""
    job.params["output"] = os.path.join(job.folder, "volume.nrrd")
    yield


class NodeJob:
    """A job that starts from a node; subclasses say what to ask for and where results go.

    voxels: the bridge.voxelState of the node as it is sent, when the job's turn comes. before(job),
    place(job): generators of steps. What `place` makes comes into the scene in one step, at its
    end, so that a job that is stopped half-way leaves nothing.
    """

    def __init__(self, runner, node):
        bridge.checkIntensities(node)
        bridge.geometryOf(bridge.frameNodes(node)[0])
        self.runner, self.node = runner, node
        self.voxels, self._grid = 0, []

    def submit(self, kind, title, isUrgent=False):
        """Put the job into the queue; it ends as soon as its input leaves the scene.

        A copy of a node in another scene, as frames of a sequence are, is taken into this one: its
        ID names something else here.
        """
        if self.node.GetScene() is not slicer.mrmlScene:
            self.node = slicer.mrmlScene.CopyNode(self.node)
        how = {"before": self._before, "after": self._after, "isUrgent": isUrgent}
        job = self.runner.submit(kind, {}, title=title, **how)
        scene, node = slicer.mrmlScene, self.node
        why = _("{name} was removed from the scene, so the job on it was stopped")
        why = why.format(name=node.GetName())

        def onRemoved(_scene, _event):
            if not bridge.isInScene(node):
                job.cancel("" if scene.IsClosing() else why)

        tag = scene.AddObserver(scene.NodeRemovedEvent, onRemoved)
        job.onFinished(lambda _job: scene.RemoveObserver(tag))
        return job

    def _before(self, job):
        self.voxels, self._grid = bridge.voxelState(self.node), _gridOf(self.node)
        yield from self.before(job)

    def _after(self, job):
        if _gridOf(self.node) != self._grid:
            message = _("The size of {name} has changed since the job started")
            message = message.format(name=self.node.GetName())
            raise PanelError(message, _("Run it again."), "input")
        yield from self.place(job)


def _gridOf(node):
    return [frame.shape for frame in bridge.framesOf(node)]

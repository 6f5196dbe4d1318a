"""Starts enhancements from nodes and brings what comes out into the scene.

    start: send the volume → the worker enhances → voxels, difference, labels, table → linked nodes
    startPreview: the same for a few slices, into a node that no list shows

Whatever happens to the scene in the meantime, a job ends well: an input that is removed ends it,
and what it had already put into the scene goes with it.
"""

import json
import os
import zlib
from dataclasses import dataclass

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhancePanels import bridge, results
from MedEnhancePanels.errors import PanelError


@dataclass(frozen=True)
class EnhanceOptions:
    """How a volume is enhanced.

    model: a bundle's name, or "auto". guide: a volume node whose look is taken on, or None.
    uncertainty: number of samples, 0 for no map. segment: find labels too. device: "auto", "cpu",
    "cuda:0", … strength: share of the correction, 0 to 1. biasCorrection: "none" or "n4" (MR).
    output: a volume node to write into; None makes a new one.
    """

    model: str = "auto"
    guide: object = None
    uncertainty: int = 0
    segment: bool = False
    device: str = "auto"
    strength: float = 1.0
    biasCorrection: str = "none"
    output: object = None

    def config(self):
        """As the job takes it."""
        return {
            "model": self.model,
            "uncertainty": int(self.uncertainty),
            "device": self.device,
            "strength": float(self.strength),
            "bias_correction": self.biasCorrection,
        }


def start(runner, node, options=None, title=None):
    """Enhance a volume node, or every frame of a sequence node; returns the Job at once.

    job.nodes: "output" and "difference", then "uncertainty", "segmentation" and "table" as asked.
    Raises PanelError where the options do not fit the node.
    """
    run = _Enhancement(node, options or EnhanceOptions())
    title = title or _("Enhance {name}").format(name=node.GetName())
    job = runner.submit("enhance", {}, title=title, before=run.before, after=run.after)
    _StopWithInput(job, node)
    return job


def startPreview(runner, node, slices, options=None):
    """Enhance the slices [first, before which] of a volume node; returns the Job at once.

    job.nodes["output"]: a volume node of these slices, hidden from lists and not saved.
    """
    run = _Preview(runner, node, options or EnhanceOptions(), slices)
    title = _("Preview of {name}").format(name=node.GetName())
    job = runner.submit("enhance", {}, title=title, before=run.before, after=run.after)
    _StopWithInput(job, node)
    return job


class _Run:
    """What a preview and a whole run have in common: sending, and taking back what was made."""

    def __init__(self, node, options):
        bridge.checkVolume(node)
        bridge.geometryOf(bridge.frameNodes(node)[0])
        self.node, self.options = node, options
        self._made = []
        self._grid = _gridOf(node)
        self._voxels = _voxelState(node)

    def before(self, job):
        """Send the voxels, then say what to do with them."""
        job.params = {"config": self.options.config(), "overwrite": True}
        job.params["input"] = yield from share(self.send(job, self.node, "input"), 0.0, 0.9)
        guide = self.options.guide
        if guide is not None:
            job.params["guide"] = yield from share(self.send(job, guide, "guide"), 0.9, 1.0)
        job.params["output"] = os.path.join(job.folder, "enhanced.nrrd")

    def send(self, job, node, name):
        """Where the voxels lie for the worker: where a preview has put them, or sent now."""
        path = _keptPath(job, node)
        if not os.path.exists(path):
            path = os.path.join(job.folder, f"{name}.nrrd")
            yield from bridge.sendVolume(node, path)
        return path

    def after(self, job):
        """Place the result; nothing of it stays where that is stopped half-way."""
        try:
            yield from self.place(job)
        except BaseException:  # closing the generator is how a job is cancelled here
            job.nodes.clear()
            for node in self._made:
                if bridge.isInScene(node):
                    slicer.mrmlScene.RemoveNode(node)
            raise

    def made(self, node):
        """Remember a node that is new, to be removed if the job does not come to its end."""
        self._made.append(node)
        return node

    def checkGrid(self):
        if _gridOf(self.node) != self._grid:
            raise PanelError(
                _("{name} has another grid now than when it was sent").format(
                    name=self.node.GetName()
                ),
                _("Enhance it again."),
                "input",
            )


class _Enhancement(_Run):
    def __init__(self, node, options):
        super().__init__(node, options)
        _checkOptions(node, options)

    def before(self, job):
        yield from super().before(job)
        if self.options.segment:
            job.params["segmentation_output"] = os.path.join(job.folder, "labels.nrrd")
        if self.options.uncertainty:
            job.params["uncertainty_output"] = os.path.join(job.folder, "uncertainty.nrrd")

    def place(self, job):
        self._provenance = {
            "model": job.result.get("model") or {},
            "manifest": _manifestOf(job.result),
        }
        if bridge.isSequence(self.node):
            yield from self._placeSequence(job)
        else:
            self.checkGrid()
            yield from self._placeVolume(job)

    def _placeVolume(self, job):
        source, files, name = self.node, job.result["outputs"], self.node.GetName()
        output = yield from share(self._enhanced(files["output"]), 0.0, 0.3)
        job.nodes["output"] = output
        job.nodes["difference"] = yield from share(self._difference(job, output), 0.3, 0.6)
        if "uncertainty" in files:
            node = self.made(
                bridge.newVolumeLike(source, _("{name} uncertainty").format(name=name))
            )
            yield from share(bridge.receiveVoxels(files["uncertainty"], node), 0.6, 0.8)
            results.styleUncertainty(node, results.unitOf(source))
            results.stamp(node, "uncertainty", source, **self._provenance)
            job.nodes["uncertainty"] = node
        if "segmentation" in files:
            yield from share(self._labels(job), 0.8, 1.0)
        results.link(
            output,
            input=source,
            **{role: job.nodes.get(role) for role in results.ROLES if role != "input"},
        )

    def _enhanced(self, path):
        source, output = self.node, self.options.output
        if output is None:
            name = _("{name} enhanced").format(name=source.GetName())
            output = self.made(bridge.newVolumeLike(source, name))
        else:
            bridge.copyGeometry(source, output)
            output.SetAndObserveTransformNodeID(source.GetTransformNodeID())
        yield from bridge.receiveVoxels(path, output)
        results.copyDisplay(source, output)
        self._describe(output, source)
        return output

    def _difference(self, job, output):
        if _voxelState(self.node) != self._voxels:
            job.warnings.append(
                _("{name} was changed during the run: there is no difference map").format(
                    name=self.node.GetName()
                )
            )
            return None
        name = _("{name} difference").format(name=self.node.GetName())
        node = self.made(bridge.newVolumeLike(self.node, name))
        yield from results.fillDifference(node, self.node, output)
        results.styleDifference(node)
        results.stamp(node, "difference", self.node, **self._provenance)
        return node

    def _labels(self, job):
        source, result, name = self.node, job.result, self.node.GetName()
        facts = {"device": result.get("device", ""), "seconds": result.get("seconds", "")}
        head = {"model": result.get("head") or {}, "manifest": self._provenance["manifest"]}
        node = yield from results.makeSegmentation(
            result["outputs"]["segmentation"],
            source,
            result["labels"],
            _("{name} segmentation").format(name=name),
        )
        table = results.makeTable(
            result["table"], source, _("{name} structures").format(name=name), facts
        )
        for role, made in (("segmentation", node), ("table", table)):
            job.nodes[role] = self.made(made)
            results.stamp(made, role, source, **head)

    def _placeSequence(self, job):
        source, files = self.node, job.result["outputs"]
        frames = bridge.frameNodes(source)
        for role, word in (("output", _("enhanced")), ("uncertainty", _("uncertainty"))):
            if role not in files:
                continue
            end = 1.0 if role == "uncertainty" or "uncertainty" not in files else 0.5
            receiving = bridge.receiveVolume(files[role], f"{source.GetName()} {word}")
            sequence = self.made((yield from share(receiving, end - 0.5, end)))
            _indexAs(sequence, source)
            for frame, original in zip(bridge.frameNodes(sequence), frames, strict=True):
                bridge.copyGeometry(original, frame)
            bridge.placeBeside(source, sequence)
            derived = "enhanced" if role == "output" else role
            self._describe(sequence, source, derived)
            self._showFrames(sequence, source, role)
            job.nodes[role] = sequence
        results.link(job.nodes["output"], input=source, uncertainty=job.nodes.get("uncertainty"))

    def _showFrames(self, sequence, source, role):
        """Give the frame that a browser shows the look of the input's."""
        logic = slicer.modules.sequences.logic()
        browser = logic.GetFirstBrowserNodeForSequenceNode(sequence)
        self.made(browser)
        logic.UpdateProxyNodesFromSequences(browser)
        proxy = browser.GetProxyNode(sequence)
        if proxy is None:
            return
        self.made(proxy)
        shown = _proxyOf(source) or source.GetNthDataNode(0)
        proxy.SetAndObserveTransformNodeID(shown.GetTransformNodeID())
        if role == "uncertainty":
            results.styleUncertainty(proxy, results.unitOf(shown))
        else:
            results.copyDisplay(shown, proxy)

    def _describe(self, output, source, derived="enhanced"):
        results.stamp(output, derived, source, **self._provenance)
        output.SetAttribute("MedEnhance.strength", repr(float(self.options.strength)))
        output.SetAttribute(bridge.MODALITY, bridge.modalityOf(source))


class _Preview(_Run):
    def __init__(self, runner, node, options, slices):
        super().__init__(node, options)
        self.runner = runner
        self.slices = [int(slices[0]), int(slices[1])]

    def before(self, job):
        yield from super().before(job)
        job.params["config"]["uncertainty"] = 0
        job.params["slices"] = self.slices

    def send(self, job, node, name):
        """Send the voxels once: the file stays for the next preview of the same voxels."""
        path = _keptPath(job, node)
        job.params[name] = path
        if not os.path.exists(path):
            _forgetKept(self.runner, os.path.dirname(path))
            yield from bridge.sendVolume(node, f"{path}.part")
            os.replace(f"{path}.part", path)
        return path

    def place(self, job):
        self.checkGrid()
        source = self.node
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        node.UnRegister(None)
        node.SetName(_("{name} preview").format(name=source.GetName()))
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        slicer.mrmlScene.AddNode(node)
        job.nodes["output"] = self.made(node)
        bridge.copyGeometry(source, node)
        ijkToRas = vtk.vtkMatrix4x4()
        source.GetIJKToRASMatrix(ijkToRas)
        node.SetOrigin(*ijkToRas.MultiplyPoint((0.0, 0.0, float(self.slices[0]), 1.0))[:3])
        node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
        yield from bridge.receiveVoxels(job.result["outputs"]["output"], node)
        results.copyDisplay(source, node)
        node.GetDisplayNode().SetSaveWithScene(False)
        results.stamp(node, "preview", source, job.result.get("model"))


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
        self._stop(_("The scene was closed, so the enhancement of {name} was stopped"))

    def _onRemoved(self, scene, _event):
        if not scene.IsNodePresent(self._node):
            self._stop(_("{name} was removed from the scene, so its enhancement was stopped"))

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


def _checkOptions(node, options):
    if options.output is not None and options.output in (node, options.guide):
        raise PanelError(
            _("The output is the input itself"), _("Create a new volume instead."), "input"
        )
    if not bridge.isSequence(node):
        return
    if options.segment:
        raise PanelError(
            _("A sequence cannot be segmented as a whole"), _("Segment one frame."), "input"
        )
    if options.output is not None:
        raise PanelError(
            _("A sequence cannot be written into a volume"), _("Create a new one."), "input"
        )


def _keptPath(job, node):
    """Where a volume lies that a preview has sent, named by its voxels, grid and meaning."""
    matrix = vtk.vtkMatrix4x4()
    frame = bridge.frameNodes(node)[0]
    frame.GetIJKToRASMatrix(matrix)
    numbers = [matrix.GetElement(row, column) for row in range(4) for column in range(4)]
    meaning = repr((_gridOf(node), numbers, bridge.modalityOf(node), bridge.unitsOf(frame)))
    name = f"sent-{_voxelState(node)}-{zlib.crc32(meaning.encode()):08x}.nrrd"
    return os.path.join(os.path.dirname(job.folder), name)


def _forgetKept(runner, folder):
    """Remove what previews have sent, except for what a job still reads or writes."""
    jobs = runner.activeJobs()
    read = {job.params.get(name) for job in jobs for name in ("input", "guide")}
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if name.startswith("sent-") and path.removesuffix(".part") not in read:
            os.remove(path)


def _gridOf(node):
    """The size of each frame."""
    return [frame.GetImageData().GetDimensions() for frame in bridge.frameNodes(node)]


def _voxelState(node):
    """A number that changes with the voxels."""
    return max(frame.GetImageData().GetMTime() for frame in bridge.frameNodes(node))


def _manifestOf(result):
    """The worker's manifest on one line, or nothing where it cannot be read."""
    try:
        with open(result["manifest"], encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except (KeyError, OSError, ValueError):
        return ""


def _indexAs(sequence, source):
    """Give a new sequence the index of its source: seconds, trigger times, …"""
    sequence.SetIndexName(source.GetIndexName())
    sequence.SetIndexUnit(source.GetIndexUnit())
    sequence.SetIndexType(source.GetIndexType())
    # From the end, so that a value is free before it is given again.
    for frame in reversed(range(sequence.GetNumberOfDataNodes())):
        old, new = sequence.GetNthIndexValue(frame), source.GetNthIndexValue(frame)
        if old != new:
            sequence.UpdateIndexValue(old, new)


def _proxyOf(sequence):
    """The node that shows a sequence's current frame, or None."""
    browser = slicer.modules.sequences.logic().GetFirstBrowserNodeForSequenceNode(sequence)
    return browser.GetProxyNode(sequence) if browser is not None else None

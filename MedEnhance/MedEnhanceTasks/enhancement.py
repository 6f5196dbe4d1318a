"""Starts enhancements of nodes and adds the results to the scene.

start: send the volume → the worker enhances → voxels, maps, labels, table → linked nodes;
    with a region that is first: the same for the region, then for the whole volume
startPreview: the same for a slice, and first a draft of it, into nodes that no list shows
startSegmenting: the labels of a volume as it is, in no other volume
startMeasuring: the noise of a volume, which its previews share, or in a box
"""

import base64
import contextlib
import dataclasses
import functools
import os
from pathlib import Path

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import note_of_box
from MedEnhanceLib.denoise.config import EnhanceConfig
from MedEnhanceLib.io import stepwise
from MedEnhanceLib.io.json_input import read_object
from MedEnhanceNodes import belongings, bridge, provenance, region, results, sending
from MedEnhancePanels.errors import PanelError
from MedEnhanceTasks import blending
from MedEnhanceTasks.node_job import NodeJob, send


@dataclasses.dataclass(frozen=True)
class EnhanceOptions:
    """Options of an enhancement: the library's, and what is a node here."""

    config: EnhanceConfig = dataclasses.field(default_factory=EnhanceConfig)
    noiseMap: bool = False  # make a volume of the measured noise too
    segment: bool = False  # find labels too
    segmenter: str = "auto"  # the model that finds them
    forceSegmenter: bool = False  # even in a volume unlike those that it learned from
    output: object = None  # a volume node to write into, instead of a new one
    box: tuple | None = None  # a region, see region.boxOf, that is enhanced first
    isBoxAlone: bool = False  # what is around the region stays as it is

    @property
    def inverts(self):
        """Whether a scanner is inverted, by its file or by a model that learned that."""
        isByModel = self.config.task == "noise" and self.config.model != "auto"
        return isByModel or self.config.scanner is not None

    @property
    def runsNetworks(self):
        """Whether a network runs, which needs PyTorch; noise is removed without."""
        return self.segment or self.inverts or self.config.task == "slices"


def start(runner, node, options):
    """Enhance a volume node, or the frames of a sequence or diffusion-weighted volume.

    Returns a list of Jobs: that of the whole, after that of a region which is first. At its end
    job.nodes has "output" and, as requested, "uncertainty", "noise", "segmentation" and "table".
    Raises PanelError where the options do not fit the node.
    """
    texts = _("Enhance {name}"), _("Enhance a region of {name}")
    whole, part = (text.format(name=node.GetName()) for text in texts)
    if options.box is None:
        return [_Enhancement(runner, node, options).submit("enhance", whole)]
    first = _Enhancement(runner, node, options if options.isBoxAlone else _ofBox(options))
    jobs = [first.submit("enhance", part)]
    if not options.isBoxAlone:
        rest = _Enhancement(runner, node, dataclasses.replace(options, box=None), jobs[0])
        jobs.append(rest.submit("enhance", whole))
        jobs[0].onFinished(lambda job: job.state == "cancelled" and jobs[1].cancel(""))
    return jobs


def _ofBox(options):
    """Leave out what needs the whole volume."""
    config = dataclasses.replace(
        options.config, task="noise", uncertainty=False, correct_bias_field=False
    )
    return dataclasses.replace(options, config=config, noiseMap=False, segment=False)


def startPreview(runner, node, index, options, region=None, onDraft=None):
    """Enhance the slice `index`, along k, of a volume node; returns the Job.

    region: (start, stop) of its rows and of its columns; None for all. At its end
    job.nodes["output"] is a volume node of them, which is hidden from lists and not saved.
    onDraft: called before, with job.nodes["draft"], a node like that which is no result.
    """
    title = _("Preview of {name}").format(name=node.GetName())
    preview = _Preview(runner, node, options, index, region, onDraft)
    job = preview.submit("enhance", title)
    job.onEvent(preview.onEvent)
    return job


def startSegmenting(runner, node, options):
    """Segment a volume node as it is, without an enhanced copy; returns the Job.

    At its end job.nodes has "segmentation" and "table".
    """
    title = _("Segment {name}").format(name=node.GetName())
    return _Segmenting(runner, node, options).submit("segment", title)


def startMeasuring(runner, node, box=None):
    """Measure the noise of a volume node, ahead of its previews, or in a box; returns the Job.

    box: (start, stop) along k, j, i. job.result has "noise" and a "sentence" at the end.
    """
    title = _("Measure {name}").format(name=node.GetName())
    before = functools.partial(send, node=node, keeps=True)
    params = {"region": list(map(list, box))} if box else {}
    return runner.submit("noise", params, title=title, before=before)


class _Enhancement(NodeJob):
    def __init__(self, runner, node, options, first=None):
        """Enhance with options; first: the job of a region, whose result is filled."""
        super().__init__(runner, node)
        _checkOptions(node, options)
        self.options, self._first, self._isGuess = options, first, bridge.isGuessed(node)

    def before(self, job):
        options = self.options
        yield from _sendInputs(self.node, job, options)
        asked = {
            "segmentation_output": options.segment,
            "uncertainty_output": options.config.uncertainty,
            "noise_map": options.noiseMap,
        }
        for name in (name for name, isAsked in asked.items() if isAsked):
            job.params[name] = os.path.join(job.folder, f"{name}.nrrd")
        if options.box is not None:
            for axis, part in zip(("slices", "rows", "columns"), options.box, strict=True):
                job.params[axis] = list(part)
        job.params["segmenter"] = options.segmenter
        job.params["force_segmenter"] = options.forceSegmenter

    def place(self, job):
        self._names = _namesFor(self.node, self.options)
        self._model = job.result.get("model") or {}
        self._manifest = read_object(Path(job.result.get("manifest", "")))
        if self.options.config.task == "slices":
            yield from self._placeThinSlices(job)
        elif bridge.isSequence(self.node):
            yield from self._placeSequence(job)
        elif bridge.isDiffusion(self.node):
            yield from self._placeDiffusion(job)
        else:
            yield from self._placeVolume(job)

    def _placeVolume(self, job):
        source, nodes = self.node, job.nodes
        images, histories, limits = {}, {}, {}
        for name, path in job.result["outputs"].items():
            role = name.removesuffix("_map")
            images[role], histories[role] = yield from _take(path)
        if (box := self.options.box) is not None:
            images["output"] = yield from region.placed(images["output"], box, source)
            *before, last = histories["output"]
            histories["output"] = [*before, note_of_box(last, box)]
        if "segmentation" in images:
            names = [label["name"] for label in job.result["labels"]]
            labels = yield from belongings.checksum(names, [images["segmentation"]])
        chosen = self._chosenOutput()
        former = yield from belongings.removable(belongings.of(chosen), chosen)
        for image in (source.GetImageData(), images["output"]):
            yield from bridge.checksumSteps(image)  # which `remember` records
        for role in ("uncertainty", "noise"):
            if role in images:
                limits[role] = results.typicalMagnitude(images[role])
                yield
        output = nodes["output"] = self._output(images["output"])
        self._describe(output, "output", histories["output"])
        if bridge.voxelState(source) != self.voxels:
            text = _("{name} was changed during the run: the result is of its former voxels")
            provenance.addWarning(output, text.format(name=source.GetName()))
        for role, limit in limits.items():
            nodes[role] = bridge.newVolumeLike(source, self._names[role], images[role])
            results.styleMap(nodes[role], role, results.unitOf(source), limit)
            self._describe(nodes[role], role, histories.get(role, ()))
        if "segmentation" in images:
            _placeLabels(job, images["segmentation"], source, self._names, self._manifest)
            for role in ("segmentation", "table"):
                self._noteStrength(nodes[role])
            nodes["segmentation"].SetAttribute(belongings.LABELS, labels)
        linked = {role: nodes.get(role) for role in results.ROLES if role != "input"}
        results.link(output, input=source, **linked)
        blending.remember(output, self.voxels)
        for node in former:  # of voxels that are gone
            results.remove(node)
        yield  # the page shows it in a turn of its own

    def _output(self, image):
        """Return the volume for the result: the user's choice, unchanged so far, or a new one."""
        output = self._chosenOutput()
        if output is None:
            output = bridge.newVolumeLike(self.node, self._names["output"], image)
        elif not bridge.isInScene(output):
            message = _("The output volume was removed from the scene")
            raise PanelError(message, _("Choose another."), "input")
        else:
            output.SetAndObserveImageData(image)
            bridge.copyGeometry(self.node, output)
            output.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        results.copyDisplay(self.node, output)
        return output

    def _chosenOutput(self):
        """Return the volume to fill: the user's choice, or the result of a region; or None."""
        made = self._first.nodes.get("output") if self._first is not None else None
        return self.options.output or (made if bridge.isInScene(made) else None)

    def _placeThinSlices(self, job):
        """Add a volume on a grid of its own: there is no difference from its input."""
        path = job.result["outputs"]["output"]
        output = job.nodes["output"] = yield from bridge.receiveVolume(path, self._names["output"])
        output.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        bridge.placeBeside(self.node, output)
        results.copyDisplay(self.node, output)
        self._describe(output, "output", provenance.historyOf(output))
        results.link(output, input=self.node)

    def _placeSequence(self, job):
        """Add a sequence of frames where those of the source are, played with it."""
        source, file = self.node, stepwise.NrrdFile(job.result["outputs"]["output"])
        originals, history = iter(bridge.frameNodes(source)), file.tags.get("DERIVED") or ()

        def frame(image):
            node = slicer.vtkMRMLScalarVolumeNode()
            bridge.copyGeometry(next(originals), node)
            node.SetAndObserveImageData(image)
            self._describe(node, "frame", history)  # what shows a frame takes its attributes
            return node

        output = slicer.vtkMRMLSequenceNode()
        output.SetIndexName(source.GetIndexName())
        output.SetIndexUnit(source.GetIndexUnit())
        output.SetIndexType(source.GetIndexType())
        values = [source.GetNthIndexValue(at) for at in range(source.GetNumberOfDataNodes())]
        yield from bridge.fillSequence(output, file.frames, values, frame)
        output.SetName(bridge.uniqueName(self._names["output"]))
        job.nodes["output"] = slicer.mrmlScene.AddNode(output)
        bridge.placeBeside(source, output)
        self._describe(output, "output", history)
        sending.copyFrameFacts(source, output)
        results.link(output, input=source)
        bridge.play(source, output)

    def _placeDiffusion(self, job):
        """Add a diffusion-weighted volume with the gradients of the source."""
        image, history = yield from _take(job.result["outputs"]["output"])
        output = job.nodes["output"] = self._output(image)
        sending.copyFrameFacts(self.node, output)
        self._describe(output, "output", history)
        results.link(output, input=self.node)

    def _describe(self, node, role, history):
        """Record on the result, or on a map, what it is, with the history in the worker's file."""
        derived = {"output": "enhanced", "frame": "enhanced-frame"}.get(role, role)
        results.stamp(node, derived, self.node, self._model, self._manifest, history)
        self._noteStrength(node)
        node.SetAttribute(bridge.MODALITY, bridge.modalityOf(self.node))
        node.SetAttribute(bridge.GUESSED, "true" if self._isGuess else None)

    def _noteStrength(self, node):
        isFull = self.options.config.strength in ("auto", "full")
        strength = 1.0 if isFull else float(self.options.config.strength)
        node.SetAttribute(results.STRENGTH, repr(strength))


class _Segmenting(NodeJob):
    """Segments and table of a volume itself."""

    def __init__(self, runner, node, options):
        super().__init__(runner, node)
        self._options = options

    def before(self, job):
        options = self._options
        yield from send(job, self.node)
        job.params["output"] = os.path.join(job.folder, "labels.nrrd")
        config = {"model": options.segmenter, "force_segmenter": options.forceSegmenter}
        job.params["config"] = config | {"device": options.config.device}

    def place(self, job):
        image, _history = yield from _take(job.result["outputs"]["output"])
        manifest = read_object(Path(job.result.get("manifest", "")))
        _placeLabels(job, image, self.node, _namesFor(self.node, self._options), manifest)
        yield


def _placeLabels(job, image, source, names, manifest):
    """Add a segmentation and its table to the scene.

    Args:
        job: whose result lists the labels; its nodes get both.
        image: of the labels, on the grid of `source`.
        source: the volume that was segmented, or enhanced before.
        names: of the nodes, by role.
        manifest: of the run.
    """
    result = job.result
    labels = results.makeSegmentation(image, source, result["labels"], names["segmentation"])
    table = results.makeTable(result["table"], source, names["table"])
    for role, node in (("segmentation", labels), ("table", table)):
        job.nodes[role] = node
        results.stamp(node, role, source, result.get("head"), manifest)
    lines = [table.GetDescription(), *results.limitsOf(table)]
    table.SetDescription(". ".join(line.rstrip(".") for line in lines) + ".")


class _Preview(NodeJob):
    def __init__(self, runner, node, options, index, region, onDraft):
        super().__init__(runner, node)
        # They need the whole volume.
        left = {"scanner": None, "scanner_without": (), "model": "auto"}
        left |= {"uncertainty": False, "correct_bias_field": False}
        config = dataclasses.replace(options.config, **left)
        self.options = dataclasses.replace(options, config=config)
        self.index, self.region, self._onDraft = int(index), region, onDraft

    def before(self, job):
        yield from _sendInputs(self.node, job, self.options, keeps=True)
        job.params["slices"] = [self.index, self.index + 1]
        job.params["draft"] = self._onDraft is not None
        if self.region is not None:
            job.params["rows"], job.params["columns"] = map(list, self.region)

    def onEvent(self, job, name, fields):
        """Take a draft from an event: no file has it."""
        if name == "draft" and not job.wantsCancel:
            voxels = np.frombuffer(base64.b64decode(fields["voxels"]), fields["dtype"])
            image = bridge.newImage(fields["shape"], voxels.dtype)
            bridge.arrayOf(image)[...] = voxels.reshape(fields["shape"])
            # Slicer shows the name of a volume on the view.
            name = _("Draft of {name}").format(name=self.node.GetName())
            job.nodes["draft"] = self._newNode(name, image, provenance.DRAFT)
            self._onDraft(job.nodes["draft"])

    def place(self, job):
        image, _history = yield from _take(job.result["outputs"]["output"])
        name = _("{name} preview").format(name=self.node.GetName())
        model = job.result.get("model")
        job.nodes["output"] = self._newNode(name, image, "preview", model)

    def _newNode(self, name, image, derived, model=None):
        """Make a volume node of the slice, which no list shows and no scene is saved with."""
        source = self.node
        node = bridge.newVolumeLike(source, name, image, isHidden=True)
        node.SetSaveWithScene(False)
        row, column = (start for start, _stop in self.region or ((0, 0), (0, 0)))
        corner = (float(column), float(row), float(self.index), 1.0)
        node.SetOrigin(*bridge.matrixOf(source).MultiplyPoint(corner)[:3])
        results.copyDisplay(source, node)
        node.GetDisplayNode().SetSaveWithScene(False)
        results.stamp(node, derived, source, model)
        return node


def _sendInputs(source, job, options, *, keeps=False):
    """Send the volume, and say what to do with it."""
    yield from send(job, source, keeps=keeps)
    job.params["config"] = dataclasses.asdict(options.config)
    job.params["output"] = os.path.join(job.folder, "enhanced.nrrd")


def _take(path):
    """Read image and history of a file of the worker, which is removed, in steps."""
    file = stepwise.NrrdFile(path)
    image = yield from bridge.readImage(*file.frames)
    history = file.tags.get("DERIVED") or ()
    del file
    # Freeing all files at once, at the end, would keep Slicer waiting.
    with contextlib.suppress(OSError):  # Windows keeps a file that is mapped
        os.remove(path)
    yield
    return image, history


def _namesFor(node, options):
    output = _("{name} enhanced"), _("{name} enhanced, scanner inverted")
    texts = {
        "output": output[options.inverts],
        "uncertainty": _("{name} uncertainty"),
        "noise": _("{name} noise"),
        "segmentation": _("{name} segmentation"),
        "table": _("{name} structures"),
    }
    return {role: text.format(name=node.GetName()) for role, text in texts.items()}


def _checkOptions(node, options):
    results.checkOutput(options.output, node)
    if options.config.task == "slices" and options.output is not None:
        message = _("Thin slices have a new grid, so they cannot be written into a volume")
        raise PanelError(message, _("Do not set an output."), "config")
    needsVolume = options.segment or options.config.uncertainty or options.noiseMap
    if needsVolume and bridge.hasFrames(node):
        message = _("Maps and segmentations are made of single volumes")
        raise PanelError(message, _("Choose one frame, as a volume."), "input")

"""Starts enhancements of nodes and adds the results to the scene.

start: send the volume → the worker enhances → voxels, difference, labels, table → linked nodes
startPreview: the same for a few slices, into a node that no list shows
startSegment: labels and table of a volume as it is
"""

import contextlib
import dataclasses
import json
import os

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, nrrd, preview, results
from MedEnhancePanels.tasks import blending
from MedEnhancePanels.tasks.node_job import NodeJob

#: Outputs of the job that are volumes on the grid of the input.
_VOLUMES = ("output", "uncertainty", "noise")


class _EnhanceOptions:
    """How a volume is enhanced: the options of EnhanceConfig, and what is a node here.

    guide: a volume node of another series of the examination, or None. look: a volume node whose
    sharpness and noise are taken over, or None. noiseMap: make a volume of the measured
    noise too. segment: find labels too, with the model `segmenter`. output: a volume node to write
    into; None makes a new one.
    """

    def config(self):
        """As the job takes it; raises PanelError for an option that cannot be."""
        return arguments.configOf(self, EnhanceConfig)


EnhanceOptions = arguments.optionsClass(
    "EnhanceOptions",
    EnhanceConfig,
    _EnhanceOptions,
    guide=None,
    look=None,
    noiseMap=False,
    segment=False,
    segmenter="auto",
    output=None,
)


def start(runner, node, options):
    """Enhance a volume node, or every frame of a sequence node.

    Returns:
        The Job; at its end job.nodes has "output", "difference" and, as requested, "uncertainty",
        "noise", "segmentation" and "table".
    Raises:
        PanelError: the options do not fit the node.
    """
    title = _("Enhance {name}").format(name=node.GetName())
    return _Enhancement(runner, node, options).submit("enhance", title)


def startPreview(runner, node, slices, options):
    """Enhance some slices of a volume node, or of the frame of a sequence node that is shown.

    Args:
        node: a scalar volume node, or a sequence node: what is done is then decided for all frames.
        slices: (first, stop), indices along k.
        options: EnhanceOptions.
    Returns:
        The Job; at its end job.nodes["output"] is a volume node of these slices, which is hidden
        from lists and not saved.
    """
    title = _("Preview of {name}").format(name=node.GetName())
    return _Preview(runner, node, options, slices).submit("enhance", title)


def startSegment(runner, node, model="auto", device="auto"):
    """Find labels in a volume node as it is; job.nodes: "segmentation" and "table"."""
    title = _("Segment {name}").format(name=node.GetName())
    return _Segmentation(runner, node, {"model": model, "device": device}).submit("segment", title)


class _Enhancement(NodeJob):
    def __init__(self, runner, node, options):
        super().__init__(runner, node)
        _checkOptions(node, options)
        self.options = options

    def before(self, job):
        options = self.options
        yield from _sendInputs(self, job, options)
        asked = {
            "segmentation_output": options.segment,
            "uncertainty_output": options.uncertainty,
            # The uncertainty at another strength depends on it.
            "bias_field_output": options.uncertainty and not bridge.isSequence(self.node),
            "noise_map": options.noiseMap,
        }
        for name in (name for name, isAsked in asked.items() if isAsked):
            job.params[name] = os.path.join(job.folder, f"{name}.nrrd")
        if options.segment:
            job.params["segmenter"] = options.segmenter

    def place(self, job):
        self._names = _freeNames(self.node)
        outputs = job.result["outputs"].items()
        files = {role.removesuffix("_map"): nrrd.File(path) for role, path in outputs}
        self._histories = {role: file.tags.get("DERIVED") or () for role, file in files.items()}
        self._model, self._manifest = job.result.get("model") or {}, _manifestOf(job.result)
        if self.options.task == "slices":
            yield from self._placeThinSlices(job)
        elif bridge.isSequence(self.node):
            yield from self._placeSequence(job, files)
        else:
            yield from self._placeVolume(job, files)

    def _placeVolume(self, job, files):
        source, images, nodes = self.node, {}, job.nodes
        for role in list(files):
            file = files.pop(role)
            images[role] = yield from bridge.readImage(file.voxels)
            # Freeing all files at once, at the end, would keep Slicer waiting.
            with contextlib.suppress(OSError):  # Windows keeps a file that is mapped
                os.remove(file.path)
            del file
            yield
        if bridge.voxelState(source) != self.voxels:
            text = _("{name} was changed during the run, so there is no difference map")
            job.warnings.append(text.format(name=source.GetName()))
        else:
            before, after = slicer.util.arrayFromVolume(source), bridge.arrayOf(images["output"])
            images["difference"] = yield from results.differenceImage(before, after)
        limits = {}
        for role in ("difference", "uncertainty", "noise"):
            if role in images:
                limits[role] = results.typicalMagnitude(images[role])
                yield
        output = nodes["output"] = self._output(images["output"])
        nodes["difference"] = None
        for role, limit in limits.items():
            nodes[role] = bridge.newVolumeLike(source, self._names[role], images[role])
            results.styleMap(nodes[role], role, results.unitOf(source), limit)
            self._describe(nodes[role], role)
        if "segmentation" in images:
            _placeLabels(job, source, images["segmentation"], "head", self._names)
        linked = {role: nodes.get(role) for role in results.ROLES if role != "input"}
        results.link(output, input=source, **linked)
        if results.strengthOf(output) == 1.0:
            blending.remember(output, self.voxels, images.get("bias_field"))

    def _output(self, image):
        """The volume with the result: the user's choice, untouched until now, or a new one."""
        output = self.options.output
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
        self._describe(output, "output")
        return output

    def _placeThinSlices(self, job):
        """A volume on a grid of its own: there is no difference from its input."""
        steps = bridge.receiveVolume(job.result["outputs"]["output"], self._names["output"])
        output = job.nodes["output"] = yield from steps
        output.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        bridge.placeBeside(self.node, output)
        results.copyDisplay(self.node, output)
        self._describe(output, "output")
        results.link(output, input=self.node)

    def _placeSequence(self, job, files):
        source, made = self.node, {}
        values = [source.GetNthIndexValue(at) for at in range(source.GetNumberOfDataNodes())]
        for role in [role for role in _VOLUMES if role in files]:
            originals = iter(bridge.frameNodes(source))

            def frame(image, role=role, originals=originals):
                node = slicer.vtkMRMLScalarVolumeNode()
                bridge.copyGeometry(next(originals), node)
                node.SetAndObserveImageData(image)
                self._describe(node, role)  # what shows a frame takes its attributes from it
                return node

            sequence = made[role] = slicer.vtkMRMLSequenceNode()
            sequence.SetIndexName(source.GetIndexName())
            sequence.SetIndexUnit(source.GetIndexUnit())
            sequence.SetIndexType(source.GetIndexType())
            yield from bridge.fillSequence(sequence, files[role].frames, values, frame)
        for role, sequence in made.items():
            sequence.SetName(self._names[role])
            slicer.mrmlScene.AddNode(sequence)
            bridge.placeBeside(source, sequence)
            self._describe(sequence, role)
        job.nodes.update(made)
        results.link(made["output"], input=source, **_maps(made))
        self._showFrames(made)

    def _showFrames(self, sequences):
        """Play the new sequences with their source; what shows a frame looks and links as it."""
        logic = slicer.modules.sequences.logic()
        browser = logic.GetFirstBrowserNodeForSequenceNode(self.node)
        for sequence in sequences.values():
            if browser is None:
                browser = bridge.browse(sequence)
            else:
                browser.AddSynchronizedSequenceNode(sequence)
        logic.UpdateProxyNodesFromSequences(browser)
        source = browser.GetProxyNode(self.node)
        shown = {role: browser.GetProxyNode(each) for role, each in sequences.items()}
        for role, proxy in shown.items():
            if source is not None:
                proxy.SetAndObserveTransformNodeID(source.GetTransformNodeID())
            if role != "output":
                limit = results.typicalMagnitude(proxy.GetImageData())
                results.styleMap(proxy, role, results.unitOf(source or proxy), limit)
            elif source is not None:
                results.copyDisplay(source, proxy)
        results.link(shown["output"], input=source, **_maps(shown))

    def _describe(self, node, role):
        """Record on the result, or on a map, what it is, with the history in the worker's file."""
        derived, history = "enhanced" if role == "output" else role, self._histories.get(role, ())
        results.stamp(node, derived, self.node, self._model, self._manifest, history)
        isFull = self.options.strength in ("auto", "full")
        strength = 1.0 if isFull else float(self.options.strength)
        node.SetAttribute(results.STRENGTH, repr(strength))
        node.SetAttribute(bridge.MODALITY, bridge.modalityOf(self.node))


class _Preview(NodeJob):
    def __init__(self, runner, node, options, slices):
        super().__init__(runner, node)
        self.options = dataclasses.replace(options, look=None)  # which needs the whole volume
        self.slices = [int(slices[0]), int(slices[1])]
        self._shown = preview.shownVolume(node)
        self._frame = preview.frameOf(self._shown) if bridge.isSequence(node) else None

    def before(self, job):
        yield from _sendInputs(self, job, self.options)
        job.params["config"]["uncertainty"] = False
        job.params["config"]["bias_correction"] = "none"  # N4 needs the whole volume
        job.params["slices"] = self.slices
        if self._frame is not None:
            job.params["frame"] = self._frame

    def place(self, job):
        source, grid = self._shown, bridge.frameNodes(self.node)[self._frame or 0]
        image = yield from bridge.readImage(nrrd.File(job.result["outputs"]["output"]).voxels)
        node = job.nodes["output"] = slicer.vtkMRMLScalarVolumeNode()
        node.SetName(_("{name} preview").format(name=source.GetName()))
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        bridge.copyGeometry(grid, node)
        corner = (0.0, 0.0, float(self.slices[0]), 1.0)
        node.SetOrigin(*bridge.matrixOf(grid).MultiplyPoint(corner)[:3])
        node.SetAndObserveImageData(image)
        slicer.mrmlScene.AddNode(node)
        node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
        results.copyDisplay(source, node)
        node.GetDisplayNode().SetSaveWithScene(False)
        results.stamp(node, "preview", source, job.result.get("model"))


class _Segmentation(NodeJob):
    def __init__(self, runner, node, config):
        super().__init__(runner, node)
        _checkSegmentable(node)
        self.config = config

    def before(self, job):
        yield from self.send(job, self.node, "input")
        job.params["config"] = self.config
        job.params["output"] = os.path.join(job.folder, "labels.nrrd")

    def place(self, job):
        image = yield from bridge.readImage(nrrd.File(job.result["outputs"]["output"]).voxels)
        _placeLabels(job, self.node, image, "model", _freeNames(self.node))


def _sendInputs(run, job, options):
    """Send the volume, the guide and the look, and say what to do with them."""
    sent = {"input": run.node, "guide": options.guide, "look": options.look}
    for name, node in sent.items():
        if node is not None:
            yield from run.send(job, node, name)
            if name != "input":
                job.params[name] = [job.params[name]]
    job.params["config"] = options.config()
    job.params["output"] = os.path.join(job.folder, "enhanced.nrrd")


def _freeNames(node):
    """What the parts of a result are called; one number makes all of these names free."""
    texts = {
        "output": _("{name} enhanced"),
        "difference": _("{name} difference"),
        "uncertainty": _("{name} uncertainty"),
        "noise": _("{name} noise"),
        "segmentation": _("{name} segmentation"),
        "table": _("{name} structures"),
    }
    names = {role: text.format(name=node.GetName()) for role, text in texts.items()}
    suffix = results.freeSuffix(*names.values())
    return {role: name + suffix for role, name in names.items()}


def _maps(nodes):
    return {role: node for role, node in nodes.items() if role != "output"}


def _placeLabels(job, source, image, model, names):
    """The segmentation and the table of a result; model: the result's field that names the head."""
    result = job.result
    labels = results.makeSegmentation(image, source, result["labels"], names["segmentation"])
    table = results.makeTable(result["table"], source, names["table"])
    for role, node in (("segmentation", labels), ("table", table)):
        job.nodes[role] = node
        results.stamp(node, role, source, result.get(model) or {}, _manifestOf(result))


def _checkSegmentable(node):
    if bridge.isSequence(node):
        message = _("A sequence cannot be segmented as a whole")
        raise PanelError(message, _("Segment one frame."), "input")


def _checkOptions(node, options):
    bridge.checkOutput(options.output, node, options.guide, options.look)
    if options.task == "slices" and options.output is not None:
        message = _("Thin slices have a new grid, so they cannot be written into a volume")
        raise PanelError(message, _("Do not set an output."), "config")
    if options.segment:
        _checkSegmentable(node)
    elif options.segmenter != "auto":
        message = _("The model {segmenter} is for segmentation, which is not selected")
        hint = _("Select segmentation too, or leave out this model.")
        raise PanelError(message.format(segmenter=options.segmenter), hint, "config")


def _manifestOf(result):
    """The worker's manifest on one line, or nothing where it cannot be read."""
    try:
        with open(result["manifest"], encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except (KeyError, OSError, ValueError):
        return ""

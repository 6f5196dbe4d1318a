"""Starts enhancements of nodes and adds the results to the scene.

start: send the volume → the worker enhances → voxels, difference, labels, table → linked nodes
startPreview: the same for a few slices, into a node that no list shows
startSegment: labels and table of a volume as it is
"""

import dataclasses
import json
import os

import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, nrrd, preview, results
from MedEnhancePanels.nodes.bridge import share
from MedEnhancePanels.tasks import blending
from MedEnhancePanels.tasks.node_job import NodeJob

#: Results that are volumes, by the job's output, with the word for the step that made them.
_VOLUMES = {"output": "enhanced", "uncertainty": "uncertainty", "noise": "noise"}


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
        isVolume = not bridge.isSequence(self.node)
        named = {
            "segmentation_output": options.segment,
            "uncertainty_output": options.uncertainty,
            # The uncertainty at another strength depends on it.
            "bias_field_output": options.uncertainty and isVolume,
            "noise_map": options.noiseMap,
        }
        for name, isAsked in named.items():
            if isAsked:
                job.params[name] = os.path.join(job.folder, f"{name}.nrrd")
        if options.segment:
            job.params["segmenter"] = options.segmenter

    def place(self, job):
        suffix = results.freeSuffix(*_names(self.node).values())
        self._name = {role: name + suffix for role, name in _names(self.node).items()}
        files = {
            role.removesuffix("_map"): nrrd.File(path)
            for role, path in job.result["outputs"].items()
        }
        self._histories = {role: file.tags.get("DERIVED") or () for role, file in files.items()}
        self._model, self._manifest = job.result.get("model") or {}, _manifestOf(job.result)
        if self.options.task == "slices":
            yield from self._placeThinSlices(job)
        elif bridge.isSequence(self.node):
            yield from self._placeSequence(job, files)
        else:
            yield from self._placeVolume(job, files)

    def _placeVolume(self, job, files):
        source, images = self.node, {}
        for number, (role, file) in enumerate(files.items()):
            steps = bridge.readImage(file.voxels)
            images[role] = yield from share(
                steps, 0.8 * number / len(files), 0.8 * (number + 1) / len(files)
            )
        if self.hasNewVoxels:
            text = _("{name} was changed during the run, so there is no difference map")
            job.warnings.append(text.format(name=source.GetName()))
        else:
            before, after = slicer.util.arrayFromVolume(source), bridge.arrayOf(images["output"])
            steps = results.differenceImage(before, after)
            images["difference"] = yield from share(steps, 0.8, 1.0)
        output = self._output(images["output"])
        nodes = job.nodes
        nodes["output"], nodes["difference"] = output, None
        for role in ("difference", "uncertainty", "noise"):
            if role in images:
                nodes[role] = bridge.newVolumeLike(source, self._name[role], images[role])
                results.styleMap(nodes[role], role, results.unitOf(source))
                self._stamp(nodes[role], role)
        if "segmentation" in images:
            _placeLabels(job, source, images["segmentation"], "head", self._name)
        linked = {role: nodes.get(role) for role in results.ROLES if role != "input"}
        results.link(output, input=source, **linked)
        if results.strengthOf(output) == 1.0:
            field = images.get("bias_field")
            field = bridge.arrayOf(field) if field is not None else None
            blending.remember(output, self.voxels, field)

    def _output(self, image):
        """The volume with the result: the user's choice, untouched until now, or a new one."""
        output = self.options.output
        if output is None:
            output = bridge.newVolumeLike(self.node, self._name["output"], image)
        elif not bridge.isInScene(output):
            raise PanelError(
                _("The output volume was removed from the scene"), _("Choose another."), "input"
            )
        else:
            output.SetAndObserveImageData(image)
            bridge.copyGeometry(self.node, output)
            output.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        results.copyDisplay(self.node, output)
        self._describe(output, "output")
        return output

    def _placeThinSlices(self, job):
        """A volume on a grid of its own: there is no difference from its input."""
        steps = bridge.receiveVolume(job.result["outputs"]["output"], self._name["output"])
        output = job.nodes["output"] = yield from steps
        output.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        bridge.placeBeside(self.node, output)
        results.copyDisplay(self.node, output)
        self._describe(output, "output")
        results.link(output, input=self.node)

    def _placeSequence(self, job, files):
        source, made = self.node, {}
        originals = iter(bridge.frameNodes(source) * len(files))
        values = [source.GetNthIndexValue(at) for at in range(source.GetNumberOfDataNodes())]
        roles = [role for role in _VOLUMES if role in files]
        for number, role in enumerate(roles):

            def frame(image, role=role):
                node = slicer.vtkMRMLScalarVolumeNode()
                bridge.copyGeometry(next(originals), node)
                node.SetAndObserveImageData(image)
                self._describe(node, role)  # what shows a frame takes its attributes from it
                return node

            sequence = made[role] = slicer.vtkMRMLSequenceNode()
            sequence.SetIndexName(source.GetIndexName())
            sequence.SetIndexUnit(source.GetIndexUnit())
            sequence.SetIndexType(source.GetIndexType())
            steps = bridge.fillSequence(sequence, files[role].frames, values, frame)
            yield from share(steps, number / len(roles), (number + 1) / len(roles))
        for role, sequence in made.items():
            sequence.SetName(self._name[role])
            slicer.mrmlScene.AddNode(sequence)
            bridge.placeBeside(source, sequence)
            self._describe(sequence, role)
            job.nodes[role] = sequence
        results.link(made["output"], input=source, **_withoutOutput(made))
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
            self._describe(proxy, role)
            if role != "output":
                results.styleMap(proxy, role, results.unitOf(source or proxy))
            elif source is not None:
                results.copyDisplay(source, proxy)
        results.link(shown["output"], input=source, **_withoutOutput(shown))

    def _describe(self, node, role):
        """Record on the result, or a map of the uncertainty or the noise, what it is."""
        self._stamp(node, role)
        strength = self.options.strength
        isFull = strength in ("auto", "full")
        node.SetAttribute(results.STRENGTH, repr(1.0 if isFull else float(strength)))
        node.SetAttribute(bridge.MODALITY, bridge.modalityOf(self.node))

    def _stamp(self, node, role):
        """Record what a node is, with the history that the worker wrote into its file."""
        history, derived = self._histories.get(role, ()), _VOLUMES.get(role, role)
        results.stamp(node, derived, self.node, self._model, self._manifest, history)


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
        ijkToRas = vtk.vtkMatrix4x4()
        grid.GetIJKToRASMatrix(ijkToRas)
        node.SetOrigin(*ijkToRas.MultiplyPoint((0.0, 0.0, float(self.slices[0]), 1.0))[:3])
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
        names = _names(self.node)
        suffix = results.freeSuffix(names["segmentation"], names["table"])
        names = {role: name + suffix for role, name in names.items()}
        _placeLabels(job, self.node, image, "model", names)


def _sendInputs(run, job, options):
    """Send the volume, the guide and the look, and say what to do with them."""
    sent = {"input": run.node, "guide": options.guide, "look": options.look}
    sent = {name: node for name, node in sent.items() if node is not None}
    for number, (name, node) in enumerate(sent.items()):
        steps = run.send(job, node, name)
        yield from share(steps, number / len(sent), (number + 1) / len(sent))
        if name != "input":
            job.params[name] = [job.params[name]]
    job.params["config"] = options.config()
    job.params["output"] = os.path.join(job.folder, "enhanced.nrrd")


def _names(node):
    """What the parts of a result are called."""
    texts = {
        "output": _("{name} enhanced"),
        "difference": _("{name} difference"),
        "uncertainty": _("{name} uncertainty"),
        "noise": _("{name} noise"),
        "segmentation": _("{name} segmentation"),
        "table": _("{name} structures"),
    }
    return {role: text.format(name=node.GetName()) for role, text in texts.items()}


def _withoutOutput(nodes):
    return {role: node for role, node in nodes.items() if role != "output"}


def _placeLabels(job, source, image, model, names):
    """The segmentation and the table of a result; model: the result's field that names the head."""
    result = job.result
    segmentation = results.makeSegmentation(image, source, result["labels"], names["segmentation"])
    facts = {"device": result.get("device", ""), "seconds": result.get("seconds", "")}
    table = results.makeTable(result["table"], source, names["table"], facts)
    for role, node in (("segmentation", segmentation), ("table", table)):
        job.nodes[role] = node
        results.stamp(node, role, source, result.get(model) or {}, _manifestOf(result))


def _checkSegmentable(node):
    if bridge.isSequence(node):
        raise PanelError(
            _("A sequence cannot be segmented as a whole"), _("Segment one frame."), "input"
        )


def _checkOptions(node, options):
    bridge.checkOutput(options.output, node, options.guide, options.look)
    if options.task == "slices" and options.output is not None:
        raise PanelError(
            _("Thin slices lie on a grid of their own, so they cannot be written into a volume"),
            _("Leave the output out."),
            "config",
        )
    if options.segment:
        _checkSegmentable(node)
    elif options.segmenter != "auto":
        message = _("The model {segmenter} is for segmentation, which is not selected")
        raise PanelError(
            message.format(segmenter=options.segmenter),
            _("Select segmentation too, or leave out this model."),
            "config",
        )


def _manifestOf(result):
    """The worker's manifest on one line, or nothing where it cannot be read."""
    try:
        with open(result["manifest"], encoding="utf-8") as file:
            return json.dumps(json.load(file), separators=(",", ":"))
    except (KeyError, OSError, ValueError):
        return ""

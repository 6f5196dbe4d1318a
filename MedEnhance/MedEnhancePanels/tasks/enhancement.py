"""Starts enhancements of nodes and adds the results to the scene.

start: send the volume → the worker enhances → voxels, difference, labels, table → linked nodes
startPreview: the same for a few slices, into a node that no list shows
startSegment: labels and table of a volume as it is
"""

import dataclasses
import json
import os

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedEnhanceLib.hqg.config import EnhanceConfig
from MedEnhancePanels import arguments
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, nrrd, preview, results
from MedEnhancePanels.tasks import blending
from MedEnhancePanels.tasks.node_job import NodeJob, share

#: Which file holds a kind of result that is a volume.
_FILES = {"enhanced": "output", "uncertainty": "uncertainty", "noise": "noise"}


class _EnhanceOptions:
    """How a volume is enhanced: the options of EnhanceConfig, and what is a node here.

    guide: a volume node of another series of the examination, or None. look: a volume node whose
    sharpness and noise are taken over, or None. noiseMap: make a volume of the measured
    noise too. segment: find labels too, with the model `head`. output: a volume node to write into;
    None makes a new one.
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
    head="auto",
    output=None,
)


def start(runner, node, options=None, title=None):
    """Enhance a volume node, or every frame of a sequence node.

    Args:
        node: a scalar volume node, or a sequence node of them.
        options: EnhanceOptions; None for the defaults.
        title: of the job; None for the default.
    Returns:
        The Job; at its end job.nodes has "output", "difference" and, as requested, "uncertainty",
        "noise", "segmentation" and "table".
    Raises:
        PanelError: the options do not fit the node.
    """
    title = title or _("Enhance {name}").format(name=node.GetName())
    return _Enhancement(runner, node, options or EnhanceOptions()).submit("enhance", title)


def startPreview(runner, node, slices, options=None):
    """Enhance some slices of a volume node, or of the frame of a sequence node that is shown.

    Args:
        node: a scalar volume node, or a sequence node: what is done is then decided for all frames.
        slices: (first, stop), indices along k.
        options: EnhanceOptions; None for the defaults.
    Returns:
        The Job; at its end job.nodes["output"] is a volume node of these slices, which is hidden
        from lists and not saved.
    """
    title = _("Preview of {name}").format(name=node.GetName())
    return _Preview(runner, node, options or EnhanceOptions(), slices).submit("enhance", title)


def startSegment(runner, node, model="auto", device="auto"):
    """Find labels in a volume node as it is; job.nodes: "segmentation" and "table"."""
    _checkSegmentable(node)
    title = _("Segment {name}").format(name=node.GetName())
    return _Segmentation(runner, node, {"model": model, "device": device}).submit("segment", title)


def _filesOf(job):
    """The files of a result by what they hold: "output", "uncertainty", "noise", …"""
    return {name.removesuffix("_map"): path for name, path in job.result["outputs"].items()}


class _Enhancement(NodeJob):
    def __init__(self, runner, node, options):
        super().__init__(runner, node)
        _checkOptions(node, options)
        self.options = options
        self._provenance, self._histories, self._suffix = {}, {}, ""

    def before(self, job):
        yield from _sendInputs(self, self.send, job, self.options)
        if self.options.segment:
            job.params["segmentation_output"] = os.path.join(job.folder, "labels.nrrd")
            job.params["head"] = self.options.head
        if self.options.uncertainty:
            job.params["uncertainty_output"] = os.path.join(job.folder, "uncertainty.nrrd")
        if self.options.uncertainty and not bridge.isSequence(self.node):
            # The uncertainty at another strength depends on it.
            job.params["bias_field_output"] = os.path.join(job.folder, "bias-field.nrrd")
        if self.options.noiseMap:
            job.params["noise_map"] = os.path.join(job.folder, "noise.nrrd")

    def place(self, job):
        self._provenance = _provenanceOf(job.result, "model")
        files = _filesOf(job)
        self._histories = {
            derived: nrrd.Reader(files[role]).tags.get("DERIVED") or ()
            for derived, role in _FILES.items()
            if role in files
        }
        self._suffix = results.freeSuffix(*_names(self.node).values())
        if self.options.task == "slices":
            yield from self._placeThinSlices(job)
        elif bridge.isSequence(self.node):
            yield from self._placeSequence(job)
        else:
            self.checkGrid()
            yield from self._placeVolume(job)

    def _placeVolume(self, job):
        source, files = self.node, _filesOf(job)
        output = job.nodes["output"] = self._target()
        filled = yield from share(self._filled(files["output"], output), 0.0, 0.3)
        job.nodes["difference"] = yield from share(self._difference(job, filled), 0.3, 0.6)
        for role, start in (("uncertainty", 0.6), ("noise", 0.7)):
            if role in files:
                node = job.nodes[role] = self.made(bridge.newVolumeLike(source, self._name(role)))
                yield from share(bridge.receiveVoxels(files[role], node), start, start + 0.1)
                self._style(role, node, results.unitOf(source))
                self._stamp(node, role)
        if "segmentation" in files:
            steps = _placeLabels(self, job, files["segmentation"], "head", self._suffix)
            yield from share(steps, 0.8, 1.0)
        if filled is not output:
            self._handOver(filled, output)
        results.link(
            output,
            input=source,
            **{role: job.nodes.get(role) for role in results.ROLES if role != "input"},
        )
        if results.strengthOf(output) == 1.0:
            field = yield from share(_fieldIn(files), 1.0, 1.0)
            blending.remember(output, self._voxels, field)

    def _style(self, role, node, unit):
        if role == "uncertainty":
            results.styleUncertainty(node, unit)
        else:
            results.styleNoise(node, unit)

    def _placeThinSlices(self, job):
        """A volume on a grid of its own: there is no difference from its input."""
        self.checkGrid()
        steps = bridge.receiveVolume(job.result["outputs"]["output"], self._name("output"))
        output = job.nodes["output"] = self.made((yield from steps))
        output.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        bridge.placeBeside(self.node, output)
        self._present(output)
        results.link(output, input=self.node)

    def _target(self):
        """The volume that the result goes into: the user's choice, or a new one."""
        if self.options.output is None:
            return self.made(bridge.newVolumeLike(self.node, self._name("output")))
        if not bridge.isInScene(self.options.output):
            raise PanelError(
                _("The output volume was removed from the scene"), _("Choose another."), "input"
            )
        return self.options.output

    def _name(self, role):
        """The parts of one result carry one number."""
        return _names(self.node)[role] + self._suffix

    def _filled(self, path, output):
        """The output with its voxels. What a user chose is not touched yet: a run that ends
        half-way must leave it as it was, so that a volume outside of the scene stands in for it."""
        filled = output if output is not self.options.output else slicer.vtkMRMLScalarVolumeNode()
        yield from bridge.receiveVoxels(path, filled, watched=output)
        if filled is output:
            self._present(output)
        return filled

    def _handOver(self, filled, output):
        output.SetAndObserveImageData(filled.GetImageData())
        bridge.copyGeometry(self.node, output)
        output.SetAndObserveTransformNodeID(self.node.GetTransformNodeID())
        self._present(output)

    def _present(self, output):
        results.copyDisplay(self.node, output)
        self._describe(output, self.node)

    def _difference(self, job, output):
        if self.hasNewVoxels:
            job.warnings.append(
                _("{name} was changed during the run, so there is no difference map").format(
                    name=self.node.GetName()
                )
            )
            return None
        node = self.made(bridge.newVolumeLike(self.node, self._name("difference")))
        yield from results.fillDifference(node, self.node, output)
        results.styleDifference(node, results.unitOf(self.node))
        self._stamp(node, "difference")
        return node

    def _placeSequence(self, job):
        source, files = self.node, _filesOf(job)
        roles = [role for role in _FILES.values() if role in files]
        for number, role in enumerate(roles):
            name = self._name(role)
            steps = bridge.receiveVolume(files[role], name, hasBrowser=False)
            start, end = number / len(roles), (number + 1) / len(roles)
            sequence = self.made((yield from share(steps, start, end)))
            sequence.SetName(bridge.uniqueName(name))
            derived = "enhanced" if role == "output" else role
            _indexAs(sequence, source)
            for frame, original in zip(
                bridge.frameNodes(sequence), bridge.frameNodes(source), strict=True
            ):
                bridge.copyGeometry(original, frame)
                # What shows a frame takes its attributes from it.
                self._describe(frame, source, derived)
            bridge.placeBeside(source, sequence)
            self._describe(sequence, source, derived)
            job.nodes[role] = sequence
        maps = {role: job.nodes.get(role) for role in ("uncertainty", "noise")}
        results.link(job.nodes["output"], input=source, **maps)
        self._showFrames({role: job.nodes[role] for role in roles})

    def _showFrames(self, sequences):
        """Play the new sequences with their source; what shows a frame looks and links as it."""
        logic = slicer.modules.sequences.logic()
        browser = logic.GetFirstBrowserNodeForSequenceNode(self.node)
        for sequence in sequences.values():
            if browser is None:
                browser = self.made(bridge.browse(sequence))
            else:
                browser.AddSynchronizedSequenceNode(sequence)
        logic.UpdateProxyNodesFromSequences(browser)
        source = browser.GetProxyNode(self.node)
        shown = {
            role: self.made(browser.GetProxyNode(sequence))
            for role, sequence in sequences.items()
            if browser.GetProxyNode(sequence) is not None
        }
        for role, proxy in shown.items():
            if source is not None:
                proxy.SetAndObserveTransformNodeID(source.GetTransformNodeID())
            self._describe(proxy, self.node, "enhanced" if role == "output" else role)
            if role != "output":
                self._style(role, proxy, results.unitOf(source or proxy))
            elif source is not None:
                results.copyDisplay(source, proxy)
        if "output" in shown:
            maps = {role: shown.get(role) for role in ("uncertainty", "noise")}
            results.link(shown["output"], input=source, **maps)

    def _describe(self, output, source, derived="enhanced"):
        self._stamp(output, derived)
        strength = self.options.strength
        isFull = strength in ("auto", "full")
        output.SetAttribute(results.STRENGTH, repr(1.0 if isFull else float(strength)))
        output.SetAttribute(bridge.MODALITY, bridge.modalityOf(source))

    def _stamp(self, node, derived):
        """Record what a node is, with the history that the worker wrote into its file."""
        history = self._histories.get(derived, ())
        results.stamp(node, derived, self.node, **self._provenance, history=history)


class _Preview(NodeJob):
    def __init__(self, runner, node, options, slices):
        super().__init__(runner, node)
        self.options = dataclasses.replace(options, look=None)  # which needs the whole volume
        self.slices = [int(slices[0]), int(slices[1])]
        self._shown = preview.shownVolume(node)
        self._frame = preview.frameOf(self._shown) if bridge.isSequence(node) else None

    def before(self, job):
        yield from _sendInputs(self, self.sendToKeep, job, self.options)
        job.params["config"]["uncertainty"] = False
        job.params["config"]["bias_correction"] = "none"  # N4 needs the whole volume
        job.params["slices"] = self.slices
        if self._frame is not None:
            job.params["frame"] = self._frame

    def place(self, job):
        self.checkGrid()
        source, image = self._shown, bridge.frameNodes(self.node)[self._frame or 0]
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        node.UnRegister(None)
        node.SetName(_("{name} preview").format(name=source.GetName()))
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        slicer.mrmlScene.AddNode(node)
        job.nodes["output"] = self.made(node)
        bridge.copyGeometry(image, node)
        ijkToRas = vtk.vtkMatrix4x4()
        image.GetIJKToRASMatrix(ijkToRas)
        node.SetOrigin(*ijkToRas.MultiplyPoint((0.0, 0.0, float(self.slices[0]), 1.0))[:3])
        node.SetAndObserveTransformNodeID(source.GetTransformNodeID())
        yield from bridge.receiveVoxels(job.result["outputs"]["output"], node)
        results.copyDisplay(source, node)
        node.GetDisplayNode().SetSaveWithScene(False)
        results.stamp(node, "preview", source, job.result.get("model"))


class _Segmentation(NodeJob):
    def __init__(self, runner, node, config):
        super().__init__(runner, node)
        self.config = config

    def before(self, job):
        yield from self.send(job, self.node, "input")
        job.params["config"] = self.config
        job.params["output"] = os.path.join(job.folder, "labels.nrrd")

    def place(self, job):
        self.checkGrid()
        names = _names(self.node)
        suffix = results.freeSuffix(names["segmentation"], names["table"])
        yield from _placeLabels(self, job, job.result["outputs"]["output"], "model", suffix)


def _sendInputs(run, send, job, options):
    """Send the volume, the guide and the look, and say what to do with them."""
    others = {"guide": options.guide, "look": options.look}
    sent = {name: node for name, node in others.items() if node is not None}
    parts = 1 + len(sent)
    yield from share(send(job, run.node, "input"), 0.0, 1 / parts)
    for number, (name, node) in enumerate(sent.items(), 1):
        yield from share(send(job, node, name), number / parts, (number + 1) / parts)
        job.params[name] = [job.params[name]]
    job.params["config"] = options.config()
    job.params["output"] = os.path.join(job.folder, "enhanced.nrrd")


def _fieldIn(files):
    """The bias field among the worker's files, [K, J, I]; None where none was corrected."""
    if "bias_field" not in files:
        return None
    reader = nrrd.Reader(files["bias_field"])
    field = np.empty(reader.shape, np.float32)
    yield from reader.readInto(field)
    return field


def _names(node):
    """What the parts of a result are called."""
    name = node.GetName()
    return {
        "output": _("{name} enhanced").format(name=name),
        "difference": _("{name} difference").format(name=name),
        "uncertainty": _("{name} uncertainty").format(name=name),
        "noise": _("{name} noise").format(name=name),
        "segmentation": _("{name} segmentation").format(name=name),
        "table": _("{name} structures").format(name=name),
    }


def _placeLabels(run, job, path, model, suffix):
    """The segmentation and the table of a result; model: the result's field that names the head."""
    source, result, names = run.node, job.result, _names(run.node)
    name = names["segmentation"] + suffix
    node = yield from results.makeSegmentation(path, source, result["labels"], name)
    job.nodes["segmentation"] = run.made(node)
    name = names["table"] + suffix
    facts = {"device": result.get("device", ""), "seconds": result.get("seconds", "")}
    job.nodes["table"] = run.made(results.makeTable(result["table"], source, name, facts))
    for role in ("segmentation", "table"):
        results.stamp(job.nodes[role], role, source, **_provenanceOf(result, model))


def _provenanceOf(result, field):
    return {"model": result.get(field) or {}, "manifest": _manifestOf(result)}


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
    elif options.head != "auto":
        message = _("The model {head} is for segmentation, which is not selected")
        raise PanelError(
            message.format(head=options.head),
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


def _indexAs(sequence, source):
    """Give a new sequence the index of its source: seconds, trigger times, …"""
    sequence.SetIndexName(source.GetIndexName())
    sequence.SetIndexUnit(source.GetIndexUnit())
    sequence.SetIndexType(source.GetIndexType())
    # A sequence sorts itself by its values and holds each once, so all of them step aside first.
    count = sequence.GetNumberOfDataNodes()
    old = [sequence.GetNthIndexValue(frame) for frame in range(count)]
    aside = [str(10**9 + frame) for frame in range(count)]
    new = [source.GetNthIndexValue(frame) for frame in range(count)]
    for values in (zip(old, aside, strict=True), zip(aside, new, strict=True)):
        for before, after in values:
            sequence.UpdateIndexValue(before, after)

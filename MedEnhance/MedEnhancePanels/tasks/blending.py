"""Blends the voxels of a result with those of its input, to keep a strength after the run.

It uses the library's functions, so the command line and Python give the same voxels and history.
The new voxels replace the old ones at the end only, so a run that is stopped changes nothing.
"""

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import manifest_at_strength
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.strength import blend, blend_deviation
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, provenance, results
from MedEnhancePanels.tasks.node_job import share


def problemOf(output):
    """Why no strength can be kept of a result, in a sentence; empty where one can."""
    source = results.linked(output, "input")
    if source is None:
        return _("Its input is not in the scene, so it cannot be blended.")
    if results.strengthOf(output) != 1.0:
        return _(
            "It is already blended with its input, at strength {strength:g}, and the full result no"
            " longer exists: enhance again for another strength."
        ).format(strength=results.strengthOf(output))
    if provenance.taskOf(output) == "slices":
        return _("Its slices are not those of its input, so it cannot be blended.")
    if source.GetImageData() is None or output.GetImageData() is None:
        return _("There are no voxels to blend.")
    if source.GetImageData().GetDimensions() != output.GetImageData().GetDimensions():
        return _("The size of {name} has changed since it was enhanced.").format(
            name=source.GetName()
        )
    return ""


def keepStrength(output, strength):
    """Change an enhanced volume to input + strength · (enhanced − input).

    The difference is recomputed; the uncertainty grows by the part of the input's error that comes
    back.

    Args:
        output: the enhanced volume node.
        strength: 0 to 1.
    Returns:
        The steps, a generator of fractions, whose own return value is an Undo. It raises PanelError
        if voxels were changed since, and InputError if input and result do not belong together.
    Raises:
        PanelError: the result cannot be blended.
    """
    problem = problemOf(output)
    if problem:
        raise PanelError(problem, code="input")
    source = results.linked(output, "input")
    parts = {"output": output}
    for role in ("uncertainty", "difference"):
        if results.linked(output, role) is not None:
            parts[role] = results.linked(output, role)
    watch = _Watch(source, *parts.values())
    strength = float(f"{strength:g}")  # as the history will state it
    return _steps(parts, source, strength, watch)


def _steps(parts, source, strength, watch):
    output, made = parts["output"], {role: slicer.vtkMRMLScalarVolumeNode() for role in parts}
    before = Undo(output, parts.values())
    history = yield from watch.during(_blend(made["output"], source, output, strength), 0.0, 0.5)
    if "uncertainty" in parts:
        steps = _blendDeviation(made["uncertainty"], parts["uncertainty"], source, output, strength)
        yield from watch.during(steps, 0.5, 0.75)
    if "difference" in parts:
        steps = results.fillDifference(made["difference"], source, made["output"])
        yield from watch.during(steps, 0.75, 1.0)
    for role, node in parts.items():
        _handOver(made[role], node, strength)
    results.setHistory(output, history)
    before.begin()
    return before


def _blend(blended, source, output, strength):
    """Fill a volume node with the blend; the return value is its history."""
    before, after = (slicer.util.arrayFromVolume(node) for node in (source, output))
    target = bridge.allocate(blended, after.shape, after.dtype)
    modality = bridge.modalityOf(source)
    history = ()
    for chunk, fraction in results.chunks(before.shape):
        pair = [
            Volume(
                array[chunk],
                bridge.geometryOf(node).cropped((chunk.start, 0, 0)),
                modality=modality,
                source=node.GetName() or "",
                history=provenance.historyOf(node),
            )
            for node, array in ((source, before), (output, after))
        ]
        part = blend(*pair, strength)
        target[chunk], history = part.voxels, part.history
        yield fraction
    return history


def _blendDeviation(blended, deviation, source, output, strength):
    before, after, spread = (
        slicer.util.arrayFromVolume(node) for node in (source, output, deviation)
    )
    target = bridge.allocate(blended, spread.shape, spread.dtype)
    for chunk, fraction in results.chunks(before.shape):
        target[chunk] = blend_deviation(spread[chunk], before[chunk], after[chunk], strength)
        yield fraction


def _handOver(blended, node, strength):
    """Give a node its new voxels, and say at which strength they are."""
    node.SetAttribute(results.STRENGTH, repr(strength))
    manifest = provenance.manifestOf(node)
    if manifest is not None:
        provenance.setManifest(node, manifest_at_strength(manifest, strength))
    node.SetAndObserveImageData(blended.GetImageData())
    slicer.util.arrayFromVolumeModified(node)


class Undo:
    """What a result and its parts were before a strength was kept, in memory."""

    def __init__(self, output, nodes):
        self.output = output
        self._before = [
            (node, node.GetImageData(), _attributesOf(node), node.GetDescription())
            for node in nodes
        ]
        self._after = {}

    def begin(self):
        """From now on: whatever is changed after this call cannot be undone."""
        self._after = {node: bridge.voxelState(node) for node, *_rest in self._before}

    @property
    def isPossible(self):
        """Whether all parts are in the scene, with the voxels that the blend gave them."""
        return all(
            bridge.isInScene(node) and bridge.voxelState(node) == state
            for node, state in self._after.items()
        )

    def undo(self):
        """Give every part its former voxels, history and manifest."""
        for node, image, attributes, description in self._before:
            for name in set(_attributesOf(node)) - set(attributes):
                node.RemoveAttribute(name)
            for name, value in attributes.items():
                node.SetAttribute(name, value)
            node.SetDescription(description)
            node.SetAndObserveImageData(image)
            slicer.util.arrayFromVolumeModified(node)


def _attributesOf(node):
    return {name: node.GetAttribute(name) for name in node.GetAttributeNames()}


class _Watch:
    """Stops work on voxels as soon as they are others than at its start, or gone."""

    def __init__(self, *nodes):
        self._states = {node: bridge.voxelState(node) for node in nodes}

    def during(self, steps, start, end):
        """A generator as a share of a larger one, with a check before each step."""
        steps = share(steps, start, end)
        while True:
            self._check()
            try:
                fraction = next(steps)
            except StopIteration as stop:
                return stop.value
            yield fraction

    def _check(self):
        for node, state in self._states.items():
            if not bridge.isInScene(node):
                happened = _("{name} was removed")
            elif bridge.voxelState(node) != state:
                happened = _("The voxels of {name} were changed")
            else:
                continue
            raise PanelError(
                _("{happened} in the meantime, so the strength was not applied").format(
                    happened=happened.format(name=node.GetName())
                ),
                _("The result is unchanged: check it, then keep the strength again."),
                "input",
            )

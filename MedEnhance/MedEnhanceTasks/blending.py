"""Gives a result another strength: its voxels become input + strength · (full result − input).

It uses the library's functions, so the command line and Python give the same voxels and history.
The new voxels replace the old ones at the end only, so a run that is stopped changes nothing. The
full result stays in memory as long as its node is in the scene, so that any strength can follow;
it is not saved with the scene. In a scene that is loaded a result at strength 1 is blended where
it and its input have the voxels that its run left. An uncertainty map is of the full result, and
marked so.
"""

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import manifest_at_strength
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.strength import blend
from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge, provenance, results
from MedEnhancePanels.errors import PanelError

#: Attribute of a result: checksums of the voxels of its input and of its own, at its run's end.
_CHECKSUMS = "MedEnhance.checksums"
#: The full result of each enhanced volume, by node.
_full = {}


class _Full:
    """A result at strength 1, in memory."""

    def __init__(self, output):
        self.image, self.history = output.GetImageData(), provenance.historyOf(output)
        self.manifest = provenance.manifestOf(output)
        self.note(output)

    def note(self, output):
        """Remember the state of the voxels, to find changes by others."""
        nodes = [results.linked(output, role) for role in ("input", "difference")]
        self.states = {node: bridge.voxelState(node) for node in (output, *nodes) if node}

    def changed(self):
        """Return a node whose voxels somebody else has changed since, or None."""
        for node, state in self.states.items():
            if bridge.isInScene(node) and bridge.voxelState(node) != state:
                return node
        return None


def remember(output, voxels):
    """Keep a run's result at strength 1; voxels: bridge.voxelState of the enhanced input."""
    forgetRemoved()
    full, source = _Full(output), results.linked(output, "input")
    full.states[source], _full[output] = voxels, full
    isSame = bridge.voxelState(source) == voxels
    output.SetAttribute(_CHECKSUMS, _checksums(output) if isSame else None)


def _checksums(output):
    """Return the checksums of input and result; the first call takes a pass over the voxels."""
    nodes = (results.linked(output, "input"), output)
    return "; ".join(bridge.checksumOf(node.GetImageData()) for node in nodes)


def forgetRemoved():
    """Free the memory of results that have left the scene."""
    for node in [node for node in _full if not bridge.isInScene(node)]:
        del _full[node]


def pairProblemOf(output):
    """Say why the voxels of a result and of its input cannot be compared; empty where they can."""
    source, full = results.linked(output, "input"), _full.get(output)
    if source is None:
        return _("Its input is not in the scene.")
    if provenance.part(output, "config").get("task") == "slices":
        return _("Its slices differ from those of its input.")
    images = (source.GetImageData(), output.GetImageData())
    if None in images or images[0].GetDimensions() != images[1].GetDimensions():
        text = _("The size of {name} has changed since it was enhanced.")
        return text.format(name=source.GetName())
    changed = full.changed() if full is not None else None
    if changed is not None:
        text = _("The voxels of {name} were changed. Enhance again.")
        return text.format(name=changed.GetName())
    return ""


def problemOf(output):
    """Say why a result cannot get another strength; empty where it can."""
    if (problem := pairProblemOf(output)) or output in _full:
        return problem
    if results.strengthOf(output) != 1.0:  # of a scene that was loaded, as all from here
        text = _(
            "The full result was not saved. To change the strength {strength:g}, enhance again."
        )
        return text.format(strength=results.strengthOf(output))
    if output.GetAttribute(_CHECKSUMS) != _checksums(output):
        return _("The voxels of the result or of its input changed after the run. Enhance again.")
    return ""


def start(runner, output, strength):
    """Change the voxels of an enhanced volume and of its difference; returns the Job.

    strength: 0 is the input, 1 the full result. The Job fails where `problemOf` says why.
    """
    title = _("Strength of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda _job: _steps(output, strength))


def startDifference(runner, output):
    """Make the difference of a result from its input, a map that goes with it; returns a Job."""
    title = _("Difference of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda job: _difference(job, output))


def _raise(problem):
    if problem:
        raise PanelError(problem, code="input")


def _difference(job, output):
    _raise(pairProblemOf(output))
    source = results.linked(output, "input")
    image = yield from results.differenceImage(source, output.GetImageData())
    limit = results.typicalMagnitude(image)
    yield
    _raise(pairProblemOf(output))
    name = _("{name} difference").format(name=source.GetName())
    node = job.nodes["difference"] = bridge.newVolumeLike(output, name, image)
    results.styleMap(node, "difference", results.unitOf(source), limit)
    results.stamp(node, "difference", output)
    results.link(output, difference=node)
    if _full.get(output) is not None:
        _full[output].states[node] = bridge.voxelState(node)


def _steps(output, strength):
    _raise(problemOf(output))
    strength = float(f"{strength:g}")  # as the history will state it
    if output not in _full:
        _full[output] = _Full(output)
    source, full = results.linked(output, "input"), _full[output]
    image, history, manifest = full.image, full.history, full.manifest
    if strength != 1.0:
        image, history = yield from _blend(source, output, full, strength)
        manifest = manifest_at_strength(manifest, strength) if manifest else None
    images = {output: image}
    difference = results.linked(output, "difference")
    if difference is not None:
        images[difference] = yield from results.differenceImage(source, image)
    _raise(problemOf(output))  # of what happened meanwhile
    for node, voxels in images.items():
        node.SetAndObserveImageData(voxels)
        slicer.util.arrayFromVolumeModified(node)
    output.SetAttribute(results.STRENGTH, repr(strength))
    results.nameByStrength(output)
    if manifest:
        provenance.setManifest(output, manifest)
    results.setHistory(output, history)
    full.note(output)


def _blend(source, output, full, strength):
    before, after = slicer.util.arrayFromVolume(source), bridge.arrayOf(full.image)
    image = bridge.newImage(after.shape, after.dtype)
    modality = bridge.modalityOf(source)

    def part(node, array, slab, history):
        geometry = bridge.geometryOf(node).cropped((slab.start, 0, 0))
        name = node.GetName() or ""
        return Volume(array[slab], geometry, modality=modality, source=name, history=history)

    for slab in stepwise.steps(after):
        blended = blend(
            part(source, before, slab, provenance.historyOf(source)),
            part(output, after, slab, full.history),
            strength,
        )
        bridge.arrayOf(image)[slab] = blended.voxels
        yield
    return image, blended.history

"""Gives a result another strength: its voxels become input + strength · (full result − input).

It uses the library's functions, so the command line and Python give the same voxels and history.
The new voxels replace the old ones at the end only, so a run that is stopped changes nothing. The
full result stays in memory as long as its node is in the scene, so that any strength can follow;
it is not saved with the scene. An uncertainty map is of the full result, and stays so.
"""

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import manifest_at_strength
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.strength import blend
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, nrrd, provenance, results

#: The full result of each enhanced volume, by node.
_full = {}


class _Full:
    """A result at strength 1, in memory."""

    def __init__(self, output):
        self.image, self.history = output.GetImageData(), provenance.historyOf(output)
        self.manifests = {node: provenance.manifestOf(node) for node in _nodesOf(output)}
        self.note(output)

    def note(self, output):
        """Remember the voxels as they are now: other changes than ours are found by that."""
        nodes = [results.linked(output, "input"), *_nodesOf(output)]
        self.states = {node: bridge.voxelState(node) for node in nodes if node is not None}

    def changed(self):
        """Return a node whose voxels somebody else has changed since, or None."""
        for node, state in self.states.items():
            if bridge.isInScene(node) and bridge.voxelState(node) != state:
                return node
        return None


def remember(output, voxels):
    """Keep what a run has made at strength 1; voxels: bridge.voxelState of the enhanced input."""
    forgetRemoved()
    full = _full[output] = _Full(output)
    full.states[results.linked(output, "input")] = voxels


def forgetRemoved():
    """Free the memory of results that have left the scene."""
    for node in [node for node in _full if not bridge.isInScene(node)]:
        del _full[node]


def problemOf(output):
    """Say why a result cannot get another strength; empty where it can."""
    source, full = results.linked(output, "input"), _full.get(output)
    if source is None:
        return _("Its input is not in the scene, so it cannot be blended.")
    if provenance.part(output, "config").get("task") == "slices":
        return _("Its slices differ from those of its input, so it cannot be blended.")
    if results.linked(output, "uncertainty") is not None:
        return _("Its uncertainty map is of this strength: delete the map for another strength.")
    before, after = source.GetImageData(), output.GetImageData()
    if before is None or after is None:
        return _("There are no voxels to blend.")
    if before.GetDimensions() != after.GetDimensions():
        text = _("The size of {name} has changed since it was enhanced.")
        return text.format(name=source.GetName())
    changed = full.changed() if full is not None else None
    if changed is not None:
        text = _("The voxels of {name} were changed. Enhance again for another strength.")
        return text.format(name=changed.GetName())
    if full is None and results.strengthOf(output) != 1.0:
        return _(
            "It is at strength {strength:g}, and the full result is gone. Enhance again for another"
            " strength."
        ).format(strength=results.strengthOf(output))
    return ""


def start(runner, output, strength):
    """Change the voxels of an enhanced volume and of its difference; returns the Job.

    strength: 0 is the input, 1 the full result. Raises PanelError where the result cannot be
    blended; the Job fails if voxels were changed since.
    """
    problem = problemOf(output)
    if problem:
        raise PanelError(problem, code="input")
    strength = float(f"{strength:g}")  # as the history will state it
    if output not in _full:  # of a scene that was loaded
        _full[output] = _Full(output)
    full = _full[output]
    title = _("Strength of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda _job: _steps(output, strength, full))


def _nodesOf(output):
    """Return the nodes of a result whose voxels follow its strength."""
    difference = results.linked(output, "difference")
    return [output] if difference is None else [output, difference]


def _steps(output, strength, full):
    source, image, history = results.linked(output, "input"), full.image, full.history
    if strength != 1.0:
        image, history = yield from _blend(source, output, full, strength)
    images = {output: image}
    difference = results.linked(output, "difference")
    if difference is not None:
        before, after = slicer.util.arrayFromVolume(source), bridge.arrayOf(image)
        images[difference] = yield from results.differenceImage(before, after)
    if gone := full.changed() or next((n for n in full.states if not bridge.isInScene(n)), None):
        message = _("{name} was changed or removed meanwhile, so the strength was not applied")
        hint = _("The result is unchanged: check it, then set the strength again.")
        raise PanelError(message.format(name=gone.GetName()), hint, "input")
    for node, voxels in images.items():
        manifest = full.manifests.get(node)
        if manifest is not None:
            isFull = strength == 1.0
            manifest = manifest if isFull else manifest_at_strength(manifest, strength)
            provenance.setManifest(node, manifest)
        node.SetAttribute(results.STRENGTH, repr(strength))
        node.SetAndObserveImageData(voxels)
        slicer.util.arrayFromVolumeModified(node)
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

    for slab in nrrd.steps(after):
        blended = blend(
            part(source, before, slab, provenance.historyOf(source)),
            part(output, after, slab, full.history),
            strength,
        )
        bridge.arrayOf(image)[slab] = blended.voxels
        yield
    return image, blended.history

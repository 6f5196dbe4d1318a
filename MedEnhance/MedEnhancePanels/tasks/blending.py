"""Gives a result another strength: its voxels become input + strength · (full result − input).

It uses the library's functions, so the command line and Python give the same voxels and history.
The new voxels replace the old ones at the end only, so a run that is stopped changes nothing. The
full result stays in memory as long as its node is in the scene, so that any strength can follow;
it is not saved with the scene. In a scene that is loaded a result at strength 1 is blended where
it and its input still have the digests that its run left. An uncertainty map stays that of the
full result, and is marked so.
"""

import json

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import manifest_at_strength
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.strength import blend
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, nrrd, provenance, results

#: Attribute of a result: digests of its voxels and of its input's, as JSON, at the end of the run.
_DIGESTS = "MedEnhance.digests"
#: The full result of each enhanced volume, by node; None where voxels are not those of its run.
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


def digests(before, after):
    """Hash the images of an input and of its full result, in steps; for `remember`."""
    first = yield from nrrd.digest(bridge.arrayOf(before))
    return [first, (yield from nrrd.digest(bridge.arrayOf(after)))]


def remember(output, voxels, hashes):
    """Keep what a run has made at strength 1.

    voxels: bridge.voxelState of the enhanced input. hashes: see `digests`; None where the input
    has changed since.
    """
    forgetRemoved()
    full = _full[output] = _Full(output)
    full.states[results.linked(output, "input")] = voxels
    output.SetAttribute(_DIGESTS, json.dumps(hashes))


def forgetRemoved():
    """Free the memory of results that have left the scene."""
    for node in [node for node in _full if not bridge.isInScene(node)]:
        del _full[node]


def problemOf(output):
    """Say why a result cannot get another strength; empty where it can."""
    if problem := pairProblemOf(output):
        return problem
    if output not in _full and results.strengthOf(output) != 1.0:
        return _(
            "It is at strength {strength:g}, and the full result is gone. Enhance again for another"
            " strength."
        ).format(strength=results.strengthOf(output))
    if output in _full and _full[output] is None:
        return _(
            "Its voxels, or those of its input, are not those of its run. Enhance again for another"
            " strength."
        )
    return ""


def pairProblemOf(output):
    """Say why the voxels of a result and of its input cannot be compared; empty where they can."""
    source, full = results.linked(output, "input"), _full.get(output)
    if source is None:
        return _("Its input is not in the scene.")
    if provenance.part(output, "config").get("task") == "slices":
        return _("Its slices differ from those of its input.")
    before, after = source.GetImageData(), output.GetImageData()
    if before is None or after is None:
        return _("There are no voxels.")
    if before.GetDimensions() != after.GetDimensions():
        text = _("The size of {name} has changed since it was enhanced.")
        return text.format(name=source.GetName())
    changed = full.changed() if full is not None else None
    if changed is not None:
        text = _("The voxels of {name} were changed. Enhance again.")
        return text.format(name=changed.GetName())
    return ""


def startCheck(runner, output):
    """Compare a result of a loaded scene with its run, once; returns a Job, or None for nothing.

    What it finds is what `problemOf` says afterwards.
    """
    if output is None or output in _full or problemOf(output):
        return None
    if output.GetAttribute(_DIGESTS) is None:
        _full[output] = None
        return None
    title = _("Strength of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda _job: _check(output))


def _check(output):
    """Take a result into `_full`, where its voxels and its input's are those of its run; steps."""
    images = [node.GetImageData() for node in (results.linked(output, "input"), output)]
    states = [image.GetMTime() for image in images]
    hashes = yield from digests(*images)
    isSame = json.dumps(hashes) == output.GetAttribute(_DIGESTS)
    if output not in _full and states == [image.GetMTime() for image in images]:
        _full[output] = _Full(output) if isSame else None


def start(runner, output, strength):
    """Change the voxels of an enhanced volume and of its difference; returns the Job.

    strength: 0 is the input, 1 the full result. Raises PanelError where the result cannot be
    blended; the Job fails if voxels were changed since.
    """
    _raise(problemOf(output))
    strength = float(f"{strength:g}")  # as the history will state it
    title = _("Strength of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda _job: _steps(output, strength))


def _raise(problem):
    if problem:
        raise PanelError(problem, code="input")


def startDifference(runner, output):
    """Make the difference of a result from its input, a map that goes with it; returns a Job."""
    title = _("Difference of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda job: _difference(job, output))


def _difference(job, output):
    _raise(pairProblemOf(output))
    source = results.linked(output, "input")
    image = yield from _differenceImage(source, output.GetImageData())
    limit = results.typicalMagnitude(image)
    yield
    _raise(pairProblemOf(output if bridge.isInScene(output) else None))
    name = _("{name} difference").format(name=source.GetName())
    node = job.nodes["difference"] = bridge.newVolumeLike(output, name, image)
    results.styleMap(node, "difference", results.unitOf(source), limit)
    results.stamp(node, "difference", output)
    node.SetAttribute(bridge.MODALITY, bridge.modalityOf(source))
    results.link(output, difference=node)
    if _full.get(output) is not None:
        _full[output].states[node] = bridge.voxelState(node)


def _differenceImage(source, image):
    before, after = slicer.util.arrayFromVolume(source), bridge.arrayOf(image)
    return (yield from results.differenceImage(before, after))


def _nodesOf(output):
    """Return the nodes of a result whose voxels follow its strength."""
    difference = results.linked(output, "difference")
    return [output] if difference is None else [output, difference]


def _steps(output, strength):
    _raise(problemOf(output))
    if output not in _full:  # of a scene that was loaded
        yield from _check(output)
        _raise(problemOf(output))
    source, full = results.linked(output, "input"), _full[output]
    full.states = {node: at for node, at in full.states.items() if bridge.isInScene(node)}
    image, history = full.image, full.history
    if strength != 1.0:
        image, history = yield from _blend(source, output, full, strength)
    images = {output: image}
    difference = results.linked(output, "difference")
    if difference is not None:
        images[difference] = yield from _differenceImage(source, image)
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
    uncertainty = results.linked(output, "uncertainty")
    if uncertainty is not None:
        note = _("for full strength") if strength != 1.0 else ""
        results.titleMap(uncertainty, "uncertainty", results.unitOf(source), note)
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

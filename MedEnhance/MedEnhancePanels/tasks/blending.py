"""Gives a result another strength: its voxels become input + strength · (full result − input).

It uses the library's functions, so the command line and Python give the same voxels and history.
The new voxels replace the old ones at the end only, so a run that is stopped changes nothing. The
full result stays in memory as long as its node is in the scene, so that any strength can follow;
it is not saved with the scene.
"""

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import manifest_at_strength
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.hqg.strength import blend, blend_deviation
from MedEnhancePanels.errors import PanelError
from MedEnhancePanels.nodes import bridge, nrrd, preview, provenance, results
from MedEnhancePanels.nodes.bridge import share

#: Volumes whose voxels follow the strength of a result, the result itself first.
_PARTS = ("output", "uncertainty", "difference")
#: The full result of each enhanced volume, by node.
_full = {}


class _Full:
    """A result at strength 1, in memory.

    shading: the bias field that it was divided by, float32, [K, J, I]; None for none, or where it
    is not known.
    """

    def __init__(self, output, shading=None):
        self.shading = shading
        nodes = _nodesOf(output)
        self.history = provenance.historyOf(output)
        self.images = {
            role: nodes[role].GetImageData() for role in ("output", "uncertainty") if role in nodes
        }
        self.manifests = {role: provenance.manifestOf(node) for role, node in nodes.items()}
        self.note(output)

    def note(self, output):
        """Remember the voxels as they are now: other changes than ours are found by that."""
        nodes = [results.linked(output, "input"), *_nodesOf(output).values()]
        self.states = {node: bridge.voxelState(node) for node in nodes if node is not None}

    def changed(self):
        """A node whose voxels somebody else has changed since, or None."""
        for node, state in self.states.items():
            if bridge.isInScene(node) and bridge.voxelState(node) != state:
                return node
        return None


def remember(output, voxels, shading=None):
    """Keep what a run has made, at strength 1.

    voxels: the bridge.voxelState of the input that was enhanced. shading: the bias field that the
    result was divided by, float32, [K, J, I]; None for none.
    """
    forgetRemoved()
    full = _full[output] = _Full(output, shading)
    full.states[results.linked(output, "input")] = voxels


def forgetRemoved():
    """Free the memory of results that have left the scene."""
    for node in [node for node in _full if not bridge.isInScene(node)]:
        del _full[node]


def problemOf(output):
    """Why a result cannot get another strength, in a sentence; empty where it can."""
    source = results.linked(output, "input")
    if source is None:
        return _("Its input is not in the scene, so it cannot be blended.")
    if preview.sequenceOf(output) is not None:
        return _("It is a frame of a sequence: another strength would change this frame alone.")
    if provenance.taskOf(output) == "slices":
        return _("Its slices are not those of its input, so it cannot be blended.")
    if source.GetImageData() is None or output.GetImageData() is None:
        return _("There are no voxels to blend.")
    if source.GetImageData().GetDimensions() != output.GetImageData().GetDimensions():
        return _("The size of {name} has changed since it was enhanced.").format(
            name=source.GetName()
        )
    return _memoryProblem(output)


def _memoryProblem(output):
    full = _full.get(output)
    changed = full.changed() if full is not None else None
    if changed is not None:
        return _("The voxels of {name} were changed. Enhance again for another strength.").format(
            name=changed.GetName()
        )
    if full is None and results.strengthOf(output) != 1.0:
        return _(
            "It is at strength {strength:g}, and the full result is gone. Enhance again for another"
            " strength."
        ).format(strength=results.strengthOf(output))
    isDivided = provenance.isShadingCorrected(output) and "uncertainty" in _nodesOf(output)
    if isDivided and (full is None or full.shading is None):
        return _(
            "The bias field, which its uncertainty depends on, is gone. Enhance again for another"
            " strength."
        )
    return ""


def setStrength(output, strength):
    """Change the voxels of an enhanced volume, of its uncertainty and of its difference.

    Args:
        output: the enhanced volume node.
        strength: 0 is the input, 1 the full result.
    Returns:
        The steps, a generator of fractions. It raises PanelError if voxels were changed since, and
        InputError if input and result do not belong together.
    Raises:
        PanelError: the result cannot be blended.
    """
    problem = problemOf(output)
    if problem:
        raise PanelError(problem, code="input")
    strength = float(f"{strength:g}")  # as the history will state it
    if output not in _full:  # of a scene that was loaded
        _full[output] = _Full(output)
    return _steps(output, strength, _full[output])


def _nodesOf(output):
    """The nodes of a result whose voxels follow its strength, by role."""
    nodes = {role: results.linked(output, role) for role in _PARTS[1:]}
    return {"output": output} | {role: node for role, node in nodes.items() if node is not None}


def _steps(output, strength, full):
    source, nodes = results.linked(output, "input"), _nodesOf(output)
    images, history = dict(full.images), full.history
    if strength != 1.0:
        steps = _blend(source, output, full, strength)
        images["output"], history = yield from share(steps, 0.0, 0.5)
        if "uncertainty" in nodes:
            steps = _blendDeviation(source, output, full, strength)
            images["uncertainty"] = yield from share(steps, 0.5, 0.75)
    if "difference" in nodes:
        after = bridge.arrayOf(images["output"])
        steps = results.differenceImage(slicer.util.arrayFromVolume(source), after)
        images["difference"] = yield from share(steps, 0.75, 1.0)
    if gone := full.changed() or next((n for n in full.states if not bridge.isInScene(n)), None):
        raise PanelError(
            _("{name} was changed or removed meanwhile, so the strength was not applied").format(
                name=gone.GetName()
            ),
            _("The result is unchanged: check it, then set the strength again."),
            "input",
        )
    for role, node in nodes.items():
        _handOver(images[role], node, strength, full.manifests.get(role))
    results.setHistory(output, history)
    full.note(output)


def _blend(source, output, full, strength):
    """The blend, and its history."""
    before, after = slicer.util.arrayFromVolume(source), bridge.arrayOf(full.images["output"])
    image = bridge.newImage(after.shape, after.dtype)
    target, modality = bridge.arrayOf(image), bridge.modalityOf(source)
    histories = (provenance.historyOf(source), full.history)
    for slab, fraction in nrrd.steps(after):
        pair = [
            Volume(
                array[slab],
                bridge.geometryOf(node).cropped((slab.start, 0, 0)),
                modality=modality,
                source=node.GetName() or "",
                history=steps,
            )
            for node, array, steps in zip((source, output), (before, after), histories, strict=True)
        ]
        part = blend(*pair, strength)
        target[slab] = part.voxels
        yield fraction
    return image, part.history


def _blendDeviation(source, output, full, strength):
    """The standard deviation of the remaining error of the blend."""
    before = slicer.util.arrayFromVolume(source)
    after, spread = (bridge.arrayOf(full.images[role]) for role in ("output", "uncertainty"))
    image = bridge.newImage(spread.shape, spread.dtype)
    target, removed = bridge.arrayOf(image), provenance.noiseOf(output).get("share_removed", 1.0)
    for slab, fraction in nrrd.steps(spread):
        target[slab] = blend_deviation(
            spread[slab],
            before[slab],
            after[slab],
            strength,
            share=removed,
            bias_field=full.shading[slab] if full.shading is not None else None,
        )
        yield fraction
    return image


def _handOver(image, node, strength, manifest):
    """Give a node its new voxels, and say at which strength they are.

    manifest: of the full result, or None.
    """
    node.SetAttribute(results.STRENGTH, repr(strength))
    if manifest is not None:
        if strength != 1.0:
            manifest = manifest_at_strength(manifest, strength)
        provenance.setManifest(node, manifest)
    node.SetAndObserveImageData(image)
    slicer.util.arrayFromVolumeModified(node)

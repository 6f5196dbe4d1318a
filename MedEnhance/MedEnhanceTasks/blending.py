"""Gives a result another strength, or makes its difference from the input.

Its voxels become input + strength · (full result − input), by the library's functions: the command
line and Python give the same voxels and history. The new voxels replace the old ones at the end
only, so a run that is stopped changes nothing. Below strength 1 the full result is kept as a hidden
volume, which scene bundles (.mrb) save, so that any strength can follow. By checksums that are
saved with the result, its voxels and those that go with it are known to be as run and blending left
them. An uncertainty map is of the full result, and marked so.
"""

import json

import slicer
from slicer.i18n import tr as _

from MedEnhanceLib.core.manifest import manifest_at_strength
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.denoise.strength import blend
from MedEnhanceLib.io import stepwise
from MedEnhanceNodes import bridge, preview, provenance, results
from MedEnhancePanels.errors import PanelError

#: Attribute of a result: the checksums of its own voxels, and of those of its parts by role.
_CHECKSUMS = "MedEnhance.checksums"
_PARTS = ("input", "full", "difference")
#: SD of the noise up to which colors show a difference: all that is noise, and what exceeds it.
_SHOWN_SD = 3


def remember(output, voxels):
    """Record the checksums of a run's result; voxels: bridge.voxelState of the enhanced input."""
    isSame = bridge.voxelState(results.linked(output, "input")) == voxels
    record(output, **({} if isSame else {"input": "changed"}))


def record(output, **sums):
    """Record the checksums of a result and its parts; sums: by role, in place of the present."""
    images = {role: node.GetImageData() for role, node in _partsOf(output).items()}
    sums = {role: bridge.checksumOf(image) for role, image in images.items()} | sums
    output.SetAttribute(_CHECKSUMS, json.dumps(sums))


def _partsOf(output):
    """Return the volumes whose voxels go together, by role; nothing for a sequence."""
    if bridge.isSequence(output):
        return {}
    parts = {"output": output} | {role: results.linked(output, role) for role in _PARTS}
    return {role: node for role, node in parts.items() if bridge.isUsable(node)}


def _recordedOf(output):
    """Return the parts whose checksums were recorded: (node, image, checksum) of each."""
    sums, parts = provenance.jsonOf(output, _CHECKSUMS, dict) or {}, _partsOf(output)
    return [(parts[role], parts[role].GetImageData(), sums[role]) for role in sums if role in parts]


def isCheckDue(output):
    """Return whether voxels have to be looked at, by `startCheck`, before a problem is known."""
    return any(bridge.isChecksumDue(image) for _node, image, _sum in _recordedOf(output))


def checkSteps(output):
    """Look at the voxels of a result and its parts, in steps."""
    for _node, image, _sum in _recordedOf(output):
        yield from bridge.checksumSteps(image)


def startCheck(runner, output):
    """Look at the voxels of a result and its parts; returns a Job."""
    title = _("Check {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda _job: checkSteps(output))


def pairProblemOf(output):
    """Say why the voxels of a result and of its input cannot be compared; empty where they can."""
    source = results.linked(output, "input")
    if source is None:
        return _("Its input is not in the scene.")
    if provenance.part(output, "config").get("task") == "slices":
        return _("Its slices differ from those of its input.")
    sizes = [_sizesOf(node) for node in (source, output)]
    if not sizes[1] or sizes[0] != sizes[1]:
        text = _("The size of {name} has changed since it was enhanced.")
        return text.format(name=source.GetName())
    if isCheckDue(output):
        return _("The voxels are being compared with those of the run.")
    for node, image, checksum in _recordedOf(output):
        if bridge.checksumOf(image) != checksum:
            text = _("The voxels of {name} were changed. Enhance again.")
            return text.format(name=node.GetName())
    return ""


def _sizesOf(node):
    return [each.shape for each in bridge.framesOf(node)] if bridge.isUsable(node) else []


def problemOf(output):
    """Say why a result cannot get another strength; empty where it can."""
    if problem := pairProblemOf(output):
        return problem
    if bridge.hasFrames(output):
        return _("The strength of several frames cannot be changed.")
    if results.strengthOf(output) != 1.0 and "full" not in _partsOf(output):
        text = _(
            "The full result is not in the scene; scene bundles (.mrb) keep it. To change the "
            "strength {strength:g}, enhance again."
        )
        return text.format(strength=results.strengthOf(output))
    if not _recordedOf(output):
        return _("Nothing was recorded to check its voxels by. Enhance again.")
    return ""


def start(runner, output, strength):
    """Change the voxels of an enhanced volume and of its difference; returns the Job.

    strength: 0 is the input, 1 the full result. The Job fails where `problemOf` says why.
    """
    title = _("Strength of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda _job: _steps(output, strength))


def refuse(problem):
    """Raise PanelError for a problem in words; nothing for none."""
    if problem:
        raise PanelError(problem, code="input")


def startDifference(runner, output):
    """Make the difference of a result from its input, a map that goes with it; returns a Job.

    Of frames it is the mean of their differences. Where `pairProblemOf` says why, it fails.
    """
    title = _("Difference of {name}").format(name=output.GetName())
    return runner.submit("", {}, title=title, before=lambda job: _difference(job, output))


def _steps(output, strength):
    yield from checkSteps(output)
    refuse(problemOf(output))
    strength = float(f"{strength:g}")  # as the history will state it
    source, full = results.linked(output, "input"), results.linked(output, "full") or output
    image, history = full.GetImageData(), provenance.historyOf(full)
    manifest = provenance.manifestOf(full)
    if strength != 1.0:
        image, history = yield from _blend(source, full, strength)
        manifest = manifest_at_strength(manifest, strength) if manifest else None
    images, difference = {output: image}, results.linked(output, "difference")
    if difference is not None:
        befores, afters = [slicer.util.arrayFromVolume(source)], [bridge.arrayOf(image)]
        images[difference] = yield from results.differenceImage(befores, afters)
    for voxels in images.values():
        yield from bridge.checksumSteps(voxels)
    refuse(problemOf(output))  # of what happened meanwhile
    _keepFull(output, strength)
    for node, voxels in images.items():
        node.SetAndObserveImageData(voxels)
    output.SetAttribute(results.STRENGTH, repr(strength))
    results.nameByStrength(output)
    if manifest:
        provenance.setManifest(output, manifest)
    results.setHistory(output, history)
    record(output)


def _difference(job, output):
    yield from checkSteps(output)
    refuse(pairProblemOf(output))
    source = results.linked(output, "input")
    image = yield from results.differenceImage(*map(bridge.framesOf, (source, output)))
    isMean, unit = bridge.hasFrames(output), results.unitOf(source)
    sigma = provenance.part(output, "results", "measured", "noise").get("sigma")
    if sigma and not isMean:
        limit, ends = _SHOWN_SD * sigma, _("{unit}\n(±{count} SD of the noise)")
        unit = ends.format(unit=unit, count=_SHOWN_SD)
    else:
        limit = results.typicalMagnitude(image)
    yield from bridge.checksumSteps(image)
    refuse(pairProblemOf(output))
    name = _("{name} mean difference") if isMean else _("{name} difference")
    name, shown = name.format(name=source.GetName()), preview.shownVolume(output)
    node = job.nodes["difference"] = bridge.newVolumeLike(shown, name, image)
    role = "meanDifference" if isMean else "difference"
    results.styleMap(node, role, unit, limit)
    results.stamp(node, "difference", output)
    results.link(output, difference=node)
    if not isMean:
        record(output)


def _keepFull(output, strength):
    """Keep the full result of a result that gets another strength; away with it at strength 1."""
    full = results.linked(output, "full")
    if full is None and strength != 1.0:
        name = _("{name} at full strength").format(name=output.GetName())
        full = bridge.newVolumeLike(output, name, output.GetImageData(), isHidden=True)
        manifest, history = provenance.manifestOf(output), provenance.historyOf(output)
        results.stamp(full, "full", manifest=manifest, history=history)
        results.link(output, full=full)
    elif full is not None and strength == 1.0:
        results.link(output, full=None)
        results.remove(full)


def _blend(source, full, strength):
    before, after = (slicer.util.arrayFromVolume(node) for node in (source, full))
    image = bridge.newImage(after.shape, after.dtype)
    modality = bridge.modalityOf(source)

    def part(node, array, slab):
        geometry, name = bridge.geometryOf(node).cropped((slab.start, 0, 0)), node.GetName() or ""
        history = provenance.historyOf(node)
        return Volume(array[slab], geometry, modality=modality, source=name, history=history)

    for slab in stepwise.steps(after):
        blended = blend(part(source, before, slab), part(full, after, slab), strength)
        bridge.arrayOf(image)[slab] = blended.voxels
        yield
    return image, blended.history

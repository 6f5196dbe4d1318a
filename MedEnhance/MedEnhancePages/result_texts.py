"""Texts of the page Enhance about a result: facts, warnings, and how uncertain it is.

All from what is saved with the nodes: a scene that is opened later shows the same.
"""

from slicer.i18n import tr as _

from MedEnhanceLib.core.findings import describe
from MedEnhanceLib.core.manifest import uncertainty_in_words
from MedEnhanceLib.runtime.text import duration_text, sentence
from MedEnhanceNodes import bridge, provenance, results, sending
from MedEnhancePanels.messages import translated


def factsOf(output):
    """Say what was measured and done, by which method or model and device, a line each."""
    isPart = "slices" in provenance.part(output, "config")
    part = _("Only in a region; all around it is as in the input.") if isPart else ""
    lines = [part, _framesOf(output), *findingsOf(output), _madeBy(output)]
    return "\n".join(filter(None, lines))


def moreFactsOf(output):
    """Describe the model's training data, and the uncertainty."""
    return "\n".join(filter(None, [*_scopes(output), _uncertainty(output)]))


def noticeOf(output, isTableShown=False):
    """Say what to know before viewing a result: (level, sentence, details), for a Notice.

    The sentence is the most severe warning; the details say what to do, and have the others.
    Beside the table of volumes the model card's reasons against using them follow.
    """
    warnings = provenance.warningsOf(output)
    limits = results.limitsOf(results.linked(output, "table")) if isTableShown else []
    known = "\n".join(message for _level, message, _hint in warnings)
    limits = [limit for limit in limits if limit.rstrip(".")[1:] not in known]
    if not (warnings or limits):
        text = _("The original volume is not in the scene, so the result cannot be compared.")
        return "info", text if results.linked(output, "input") is None else "", ""
    (level, message, hint), *others = warnings or [("warning", limits.pop(0), "")]
    text = sentence(message)
    if others:
        text = _("{sentence} And {count} more.").format(sentence=text, count=len(others))
    lines = [hint, *(f"{each}: {more}" if more else each for _level, each, more in others)]
    return level, " ".join([text, *limits]), "\n".join(map(sentence, filter(None, lines)))


def _uncertainty(output):
    facts = provenance.part(output, "results", "uncertainty")
    if not facts or results.linked(output, "uncertainty") is None:
        return ""
    text = translated(uncertainty_in_words(facts, results.unitOf(output)))
    return _("Uncertainty: {text}").format(text=sentence(text))


def _madeBy(output):
    manifest = provenance.manifestOf(output) or {}
    facts, device = [], str(manifest.get("device") or "").partition(":")[0]
    if model := output.GetAttribute("MedEnhance.model"):
        about = provenance.part(output, "model")
        text = _("Method {model}") if about.get("sha256") == "" else _("Model {model}")
        facts.append(text.format(model=f"{model} {about.get('version') or ''}".strip()))
    if device:
        facts.append(_("on the {device}").format(device=_devices().get(device, device)))
    if manifest.get("seconds") is not None:
        facts.append(duration_text(manifest["seconds"]))
    if results.strengthOf(output) != 1.0:
        facts.append(_("strength {strength:.2f}").format(strength=results.strengthOf(output)))
    text = ", ".join(facts)
    return text[:1].upper() + text[1:]


def _devices():
    return {"cpu": _("CPU"), "cuda": _("NVIDIA graphics card"), "mps": _("Apple graphics")}


def _framesOf(output):
    """Say what the frames of a result differ in."""
    if not bridge.hasFrames(output):
        return ""
    kind = sending.kindOf(output) or _("not stated")
    return _("Kind of frames: {kind}.").format(kind=kind)


def findingsOf(output):
    """Say what was measured in the volume and done about it, a sentence each."""
    measured, strength = provenance.part(output, "results", "measured"), results.strengthOf(output)
    modality = bridge.modalityName(bridge.modalityOf(output))
    guess = _("{modality} (guessed from the values).").format(modality=modality)
    lines = [sentence(translated(line)) for line in describe(measured, strength)]
    return [*lines[:1], guess, *lines[1:]] if output.GetAttribute(bridge.GUESSED) else lines


def equalsInput(output):
    """Return whether a run left all voxels as they were."""
    return provenance.part(output, "results", "measured", "noise").get("changed") == 0


def _scopes(output):
    nodes = filter(None, (output, results.linked(output, "segmentation")))
    anatomies = dict.fromkeys(node.GetAttribute("MedEnhance.anatomy") for node in nodes)
    return [f"{results.scopeText(anatomy)}." for anatomy in anatomies if anatomy]

"""What the page Enhance says about a result: facts, warnings, and how uncertain it is.

All from what is saved with the nodes: a scene that is opened later shows the same.
"""

from MedEnhanceLib.core.manifest import calibration_in_words, findings_in_words
from MedEnhanceLib.runtime.text import duration_text, sentence
from MedEnhancePanels.nodes import provenance, results
from MedEnhancePanels.texts import tr as _


def factsOf(output):
    """Say what was found and done, and by what, in two lines."""
    return "\n".join(filter(None, [noiseOf(output), _madeBy(output)]))


def moreFactsOf(output):
    """Describe the guide's use, what the model learned from, and the uncertainty."""
    return "\n".join(filter(None, [_guide(output), *_scopes(output), _uncertainty(output)]))


def noticeOf(output, isTableShown=False):
    """Say what to know before a result is looked at: (level, sentence, details), for a Notice.

    The sentence is the warning of most weight; the details say what to do, and have the others.
    Beside the table of volumes it is what the card of the model says against using them.
    """
    if isTableShown and (limits := results.limitsOf(results.linked(output, "table"))):
        return "warning", " ".join(limits), ""
    warnings = provenance.warningsOf(output)
    if not warnings:
        lost = results.linked(output, "input") is None
        text = _("The original volume is not in the scene, so the result cannot be compared.")
        return "info", text if lost else "", ""
    (level, message, hint), *others = warnings
    text = sentence(message)
    if others:
        text = _("{sentence} And {count} more.").format(sentence=text, count=len(others))
    lines = [hint, *(f"{each}: {more}" if more else each for _level, each, more in others)]
    return level, text, "\n".join(map(sentence, filter(None, lines)))


def _uncertainty(output):
    facts = provenance.part(output, "results", "uncertainty")
    if not facts or results.linked(output, "uncertainty") is None:
        return ""
    text = _("Uncertainty: 1 SD, in {unit}.").format(unit=results.unitOf(output))
    return f"{text} {sentence(calibration_in_words(facts))}"


def _madeBy(output):
    manifest = provenance.manifestOf(output) or {}
    facts = [output.GetAttribute("MedEnhance.model"), str(manifest.get("device") or "").upper()]
    if manifest.get("seconds") is not None:
        facts.append(duration_text(manifest["seconds"]))
    if results.strengthOf(output) != 1.0:
        facts.append(_("strength {strength:.2f}").format(strength=results.strengthOf(output)))
    return " · ".join(str(fact) for fact in facts if fact)


def noiseOf(output):
    """Say what noise was measured, and what was done about it; empty where none was."""
    names, numbers = ("results", "measured", "noise"), ("sigma", "share_removed")
    noise = provenance.part(output, *names, numbers=numbers)
    if not noise:
        return ""
    measured = {"noise": noise | {"units": results.unitOf(output)}}
    # At the strength that the voxels have.
    (words,) = findings_in_words(measured, results.strengthOf(output))
    return sentence(words)


def _guide(output):
    """Say how much the guide was used; empty without one."""
    guide = provenance.part(output, "results", "measured", "guide", numbers=("used",))
    if not guide:
        return ""
    text = _("Guide: changed the image by {share:.0%} of the noise").format(share=guide["used"])
    return " ".join(map(sentence, filter(None, [text, guide.get("reason")])))


def _scopes(output):
    nodes = filter(None, (output, results.linked(output, "segmentation")))
    anatomies = dict.fromkeys(node.GetAttribute("MedEnhance.anatomy") for node in nodes)
    return [f"{results.scopeText(anatomy)}." for anatomy in anatomies if anatomy]

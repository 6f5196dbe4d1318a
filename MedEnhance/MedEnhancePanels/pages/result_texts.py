"""What the page Enhance says about a result: facts, warnings, and how uncertain it is.

All from what is saved with the nodes: a scene that is opened later shows the same.
"""

from slicer.i18n import tr as _

from MedEnhanceLib.report.uncertainty import calibration_in_words, uncertainty_in_words
from MedEnhancePanels.job import durationText, sentence
from MedEnhancePanels.nodes import bridge, provenance, results

#: With a smaller share of the correction than this a result looks like its input.
_HARDLY = 0.5


def tookText(seconds):
    """How long something took; short times with a decimal."""
    return _("{seconds:.1f} s").format(seconds=seconds) if seconds < 10 else durationText(seconds)


def factsOf(output):
    """What was found and done, and by what, in two lines."""
    if output is None or not bridge.isInScene(output):
        return ""
    return "\n".join(filter(None, [_noise(output), _madeBy(output)]))


def moreFactsOf(output):
    """What the model learned from, and the state of guide, segmentation and uncertainty."""
    if output is None or not bridge.isInScene(output):
        return ""
    lines = [
        _guide(output),
        *_scopes(output),
        _structures(output),
        _uncertainty(output),
    ]
    return "\n".join(filter(None, lines))


def noticeOf(output):
    """What to know before a result is looked at: (level, sentence, details), as a Notice takes it.

    The sentence is the warning of most weight; the details have all, with what to do.
    """
    if output is None or not bridge.isInScene(output):
        return "info", "", ""
    found = warningsOf(output)
    if not found:
        lost = results.linked(output, "input") is None
        text = _("Its input is not in the scene, so it cannot be compared.")
        return "info", text if lost else "", ""
    level, message, _hint = found[0]
    text = sentence(message)
    if len(found) > 1:
        text = _("{sentence} And {count} more.").format(sentence=text, count=len(found) - 1)
    lines = [sentence(f"{each}: {hint}" if hint else each) for _level, each, hint in found]
    return level, text, "\n".join(lines)


def warningsOf(output):
    """The warnings of the run: (level, message, what to do) of each, those of most weight first."""
    found = [
        ("alarm" if provenance.isAlarm(code) else "warning", message, hint)
        for code, message, hint in provenance.doubtsOf(output)
    ]
    segmentation = results.linked(output, "segmentation")
    ofLabels = provenance.figuresOf(segmentation).get("doubt_of_labels") if segmentation else None
    if ofLabels:
        found.append(("warning", str(ofLabels), ""))
    return sorted(dict.fromkeys(found))  # "alarm" comes first


def uncertaintyText(output):
    """What the uncertainty map of a result is, at length; empty where it has none."""
    facts = _uncertaintyFacts(output)
    return uncertainty_in_words(facts, results.unitOf(output)) if facts else ""


def _uncertainty(output):
    facts = _uncertaintyFacts(output)
    return facts and _("Uncertainty: 1 SD, in {unit}; {calibration}").format(
        unit=results.unitOf(output), calibration=calibration_in_words(facts)
    )


def _uncertaintyFacts(output):
    """What the manifest says of the map; {} if there is none."""
    if results.linked(output, "uncertainty") is None:
        return {}
    return provenance.uncertaintyOf(output)


def _madeBy(output):
    manifest = provenance.manifestOf(output) or {}
    facts = [output.GetAttribute("MedEnhance.model"), manifest.get("device")]
    if manifest.get("seconds") is not None:
        facts.append(tookText(manifest["seconds"]))
    if results.strengthOf(output) != 1.0:
        facts.append(_("strength {strength:.2f}").format(strength=results.strengthOf(output)))
    return " · ".join(str(fact) for fact in facts if fact)


def _noise(output):
    """The measured noise, and what was done about it; empty where none was measured."""
    noise = provenance.noiseOf(output)
    if not noise:
        return ""
    text = _("Measured noise: σ {sigma:g} {unit}; {share:.0%} of the correction applied").format(
        sigma=noise["sigma"], unit=results.unitOf(output), share=_shareIn(output, noise)
    )
    return f"{text}: {noise['reason']}." if noise.get("reason") else f"{text}."


def _guide(output):
    """How much the guide was used; empty without one."""
    guide = provenance.guideOf(output)
    if not guide:
        return ""
    text = _("Guide: changed the image by {share:.0%} of the noise").format(share=guide["used"])
    return f"{text}: {guide['reason']}." if guide.get("reason") else f"{text}."


def _shareIn(output, noise):
    """The share of the noise's correction in the voxels, at the strength that they have."""
    return noise["share_removed"] * results.strengthOf(output)


def hardlyChangedText(output):
    """That a result has less than half of the correction, and why; empty where it has more."""
    noise = provenance.noiseOf(output)
    if not noise or noise["share_removed"] >= _HARDLY:
        return ""
    text = _("It is hardly changed: {share:.0%} of the correction was applied").format(
        share=noise["share_removed"]
    )
    return f"{text}: {noise['reason']}." if noise.get("reason") else f"{text}."


def _scopes(output):
    made = (output, results.linked(output, "segmentation"))
    anatomies = dict.fromkeys(node.GetAttribute("MedEnhance.anatomy") for node in made if node)
    return [f"{results.scopeText(anatomy)}." for anatomy in anatomies if anatomy]


def _structures(output):
    """For a result that was blended after the run: its segmentation was not repeated."""
    segmentation = results.linked(output, "segmentation")
    found = provenance.strengthIn(segmentation) if segmentation is not None else None
    if found is None or found == results.strengthOf(output):
        return ""
    return _("The segmentation was made at strength {strength:g}.").format(strength=found)

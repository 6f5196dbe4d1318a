"""A result in few lines: what made it, what speaks against it, what its maps mean."""

from slicer.i18n import tr as _

from MedEnhanceLib.report.uncertainty import calibration_in_words, uncertainty_in_words
from MedEnhancePanels import bridge, provenance, results
from MedEnhancePanels.jobprogress import durationText


def tookText(seconds):
    """How long something took; short times with a decimal."""
    return _("{seconds:.1f} s").format(seconds=seconds) if seconds < 10 else durationText(seconds)


def factsOf(output):
    """Model, device, seconds; where it holds, doubts, uncertainty, what it is for.

    All from what is saved with the nodes, so that whoever opens the scene later reads the same.
    """
    if output is None or not bridge.isInScene(output):
        return ""
    lines = [_madeBy(output), *_scopes(output)]
    lines += [_("Look twice: {doubt}.").format(doubt=doubt) for doubt in doubtsOf(output)]
    lines += [_structures(output), _uncertainty(output)]
    if results.linked(output, "input") is None:
        lines.append(_("Its input is not in the scene, so it cannot be compared."))
    lines.append(output.GetAttribute("MedEnhance.use") or "")
    return "\n".join(filter(None, lines))


def doubtsOf(output):
    """What spoke against the model or the input when a result was made, in sentences."""
    segmentation = results.linked(output, "segmentation")
    ofLabels = provenance.figuresOf(segmentation).get("doubt_of_labels") if segmentation else None
    return list(dict.fromkeys([*provenance.doubtsOf(output), *([ofLabels] if ofLabels else [])]))


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
    """What the manifest says of the map; {} where there is none, or nothing is said."""
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
    if provenance.isDeblurred(output):
        facts.append(_("blur undone"))
    return " · ".join(str(fact) for fact in facts if fact)


def _scopes(output):
    made = (output, results.linked(output, "segmentation"))
    anatomies = dict.fromkeys(node.GetAttribute("MedEnhance.anatomy") for node in made if node)
    return [f"{results.scopeText(anatomy)}." for anatomy in anatomies if anatomy]


def _structures(output):
    """Of a result that was blended after the run: its structures were not found anew."""
    segmentation = results.linked(output, "segmentation")
    found = provenance.strengthIn(segmentation) if segmentation is not None else None
    if found is None or found == results.strengthOf(output):
        return ""
    return _("Its structures were found at strength {strength:g}.").format(strength=found)

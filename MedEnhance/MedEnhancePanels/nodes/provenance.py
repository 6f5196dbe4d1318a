"""What was done to a node's voxels, kept in its attributes and in the files it is saved to.

Slicer's scene keeps attributes; the image formats that Slicer itself writes do not. So a history
goes along whenever voxels go to the worker, which writes it into every file, and comes back.
"""

import json

from MedEnhanceLib.core.manifest import derived_note

#: Attributes: what kind of result it is, all steps as a JSON list, the record of the last one.
DERIVED = "MedEnhance.derived"
HISTORY = "MedEnhance.history"
MANIFEST = "MedEnhance.manifest"
#: The lossy compressions that the voxels went through, as JSON: [[method, ratio], …].
LOSSY = "MedEnhance.lossy"
#: What the sentences for a step begin and end with, see `MedEnhanceLib.core.manifest.derived_note`.
_DERIVED, _BY = "DERIVED: ", " by MedEnhance "
_BLENDED = f"{_DERIVED}blended with its input"
#: Codes of warnings after which structure in a result may be wrong.
_ALARMS = ("no-structure", "anatomy", "test-model")
#: The kind of what was read from a file that says that it is derived.
FROM_FILE = "file"


def historyOf(node):
    """The steps that made a volume, oldest first, as sentences; empty for an original."""
    steps = _read(node, HISTORY, list)
    if steps:
        return [str(step) for step in steps]
    derived = node.GetAttribute(DERIVED)
    return [derived_note(derived)] if derived else []


def setHistory(node, steps):
    """Record the history on a node; its description is what was done last."""
    node.SetAttribute(HISTORY, json.dumps(list(steps)) if steps else None)
    if steps:
        node.SetDescription(lastOf(steps))


def lastOf(steps):
    """What was done last, in a sentence; of a blend, what was blended with its input too."""
    newest, *others = reversed(steps)
    if not newest.startswith(_BLENDED) or not others:
        return newest
    return f"{others[0].partition(_BY)[0]}, {newest.removeprefix(_DERIVED)}"


def noteFor(derived, model=None):
    """The sentence for a step. derived: "enhanced", …; model: name and sha256, or nothing."""
    if not model:
        return derived_note(derived)
    return derived_note(f"{derived} ({model.get('name', '')} {model.get('sha256', '')[:12]})")


def takeFrom(node, tags):
    """Set the history of a node from the tags of a file."""
    if tags.get("lossy"):
        node.SetAttribute(LOSSY, json.dumps(tags["lossy"]))
    steps = tags.get("DERIVED") or []
    if steps:
        setHistory(node, steps)
        node.SetAttribute(DERIVED, FROM_FILE)


def lossyOf(node):
    """The lossy steps of a node as a file's tags have them; empty where nothing was lost."""
    return _read(node, LOSSY, list) or []


def manifestOf(node):
    """The record of how a node was made, as a JSON object; None where it has none."""
    return _read(node, MANIFEST, dict)


def _read(node, attribute, kind):
    """The JSON value of an attribute; None where it is of another kind, or cannot be read."""
    try:
        value = json.loads(node.GetAttribute(attribute) or "null")
    except ValueError:  # edited by hand
        return None
    return value if isinstance(value, kind) else None


def setManifest(node, manifest):
    """Keep the record of how a node was made, a JSON object, with the node."""
    node.SetAttribute(MANIFEST, json.dumps(manifest, separators=(",", ":")))


def figuresOf(node):
    """The results in the manifest of the run that made a node; {} if there are none."""
    return _part(manifestOf(node), "results")


def doubtsOf(node):
    """The warnings of the run about the model or the input: (code, message, what to do) of each."""
    found = figuresOf(node).get("doubts")
    try:
        return [(each.get("code", ""), each["message"], each["hint"]) for each in found or ()]
    except (AttributeError, KeyError, TypeError):  # edited beyond use
        return []


def isAlarm(code):
    """Whether a warning with this code says that structure in the result may be wrong."""
    return code in _ALARMS


def alarmsOf(node):
    """The warnings after which structure in a result may be wrong: (message, what to do)."""
    return [(message, hint) for code, message, hint in doubtsOf(node) if isAlarm(code)]


def uncertaintyOf(node):
    """The facts on the uncertainty map in the manifest of a result; {} if there are none."""
    return _part(figuresOf(node), "uncertainty")


def strengthIn(node):
    """The strength of the run that made a node, by its manifest; None if not stated.

    1 is the full result: all that a run with strength auto or full corrects.
    """
    strength = _part(manifestOf(node), "config").get("strength")
    if strength in ("auto", "full"):
        return 1.0
    return strength if isinstance(strength, int | float) else None


def taskOf(node):
    """What the run that made a node corrected, by its manifest; None if not stated."""
    return _part(manifestOf(node), "config").get("task")


def noiseOf(node):
    """What the manifest says of the noise in the input: sigma, share_removed, reason; or {}."""
    noise = _part(_part(figuresOf(node), "measured"), "noise")
    numbers = (noise.get(name) for name in ("sigma", "share_removed"))
    return noise if all(isinstance(number, int | float) for number in numbers) else {}


def guideOf(node):
    """What the manifest says of the guide: used (mean share, 0 to 1), perhaps a reason; or {}."""
    guide = _part(_part(figuresOf(node), "measured"), "guide")
    return guide if isinstance(guide.get("used"), int | float) else {}


def isShadingCorrected(node):
    """Whether its bias field was divided by, by its manifest."""
    measured = _part(figuresOf(node), "measured")
    return _part(measured, "bias_field").get("corrected") is True


def _part(fields, name):
    """A JSON object within another; {} where there is none."""
    part = (fields or {}).get(name)
    return part if isinstance(part, dict) else {}


def modelOf(node):
    """Name, SHA-256 and, where known, version of the model that made a node; {} for none."""
    name = node.GetAttribute("MedEnhance.model")
    if not name:
        return {}
    recorded = (manifestOf(node) or {}).get("model") or {}
    if recorded.get("name") == name:
        return recorded
    return {"name": name, "sha256": node.GetAttribute("MedEnhance.modelSha256") or ""}


def writeManifest(node, path):
    """Write the record of a result beside the file it was saved in, as `<path>.json`."""
    from MedEnhanceLib.io.atomic import write_json

    manifest = manifestOf(node)
    if manifest is not None:
        write_json(f"{path}.json", manifest, overwrite=True)

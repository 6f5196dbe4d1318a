"""What was done to a node's voxels: told by its attributes, and by the files that it goes into.

Slicer's scene keeps attributes; the image formats that Slicer itself writes do not. So a history
goes along whenever voxels go to the worker, which writes it into every file, and comes back.
"""

import json

from MedEnhanceLib.bundles.doubt import doubts_in
from MedEnhanceLib.core.manifest import derived_note

#: Attributes: what kind of result it is, all steps as a JSON list, the record of the last one.
DERIVED = "MedEnhance.derived"
HISTORY = "MedEnhance.history"
MANIFEST = "MedEnhance.manifest"
#: The lossy compressions that the voxels went through, as JSON: [[method, ratio], …].
LOSSY = "MedEnhance.lossy"
#: The kind of what was read from a file that says that it is derived.
FROM_FILE = "file"


def historyOf(node):
    """The steps that made a volume, oldest first, as sentences; empty for an original."""
    try:
        steps = json.loads(node.GetAttribute(HISTORY) or "[]")
    except ValueError:  # edited beyond use: what kind it is still holds
        steps = []
    if isinstance(steps, list) and steps:
        return [str(step) for step in steps]
    derived = node.GetAttribute(DERIVED)
    return [derived_note(derived)] if derived else []


def setHistory(node, steps):
    """Say on a node what was done to it; its description tells the newest step."""
    node.SetAttribute(HISTORY, json.dumps(list(steps)) if steps else None)
    if steps:
        node.SetDescription(steps[-1])


def noteFor(derived, model=None):
    """The sentence for a step. derived: "enhanced", …; model: name and sha256, or nothing."""
    if not model:
        return derived_note(derived)
    return derived_note(f"{derived} ({model.get('name', '')} {model.get('sha256', '')[:12]})")


def takeFrom(node, tags):
    """Set on a node what the tags of a file say of its history."""
    if tags.get("lossy"):
        node.SetAttribute(LOSSY, json.dumps(tags["lossy"]))
    steps = tags.get("DERIVED") or []
    if steps:
        setHistory(node, steps)
        node.SetAttribute(DERIVED, FROM_FILE)


def lossyOf(node):
    """The lossy steps of a node as a file's tags have them; empty where nothing was lost."""
    try:
        steps = json.loads(node.GetAttribute(LOSSY) or "[]")
    except ValueError:
        return []
    return steps if isinstance(steps, list) else []


def manifestOf(node):
    """The record of how a node was made, as a JSON object; None where it has none."""
    try:
        manifest = json.loads(node.GetAttribute(MANIFEST) or "null")
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) else None


def setManifest(node, manifest):
    """Keep the record of how a node was made, a JSON object, with the node."""
    node.SetAttribute(MANIFEST, json.dumps(manifest, separators=(",", ":")))


def figuresOf(node):
    """What the run that made a node found out: the manifest's results; {} where none are told."""
    figures = (manifestOf(node) or {}).get("results")
    return figures if isinstance(figures, dict) else {}


def doubtsOf(node):
    """What spoke against the model or the input, as warnings tell it."""
    try:
        return doubts_in(figuresOf(node))
    except (KeyError, TypeError):  # edited beyond use
        return []


def uncertaintyOf(node):
    """What the manifest of a result says of its uncertainty map; {} where it says nothing."""
    facts = figuresOf(node).get("uncertainty")
    return facts if isinstance(facts, dict) else {}


def strengthIn(node):
    """The strength of the run that made a node, by its manifest; None where that is not told."""
    strength = _configOf(node).get("strength")
    return strength if isinstance(strength, int | float) else None


def isDeblurred(node):
    """Whether blur was undone in it, by its manifest."""
    return _configOf(node).get("deblur") is True


def _configOf(node):
    config = (manifestOf(node) or {}).get("config")
    return config if isinstance(config, dict) else {}


def modelOf(node):
    """Name, SHA-256 and, where known, version of the model that made a node; {} for none."""
    name = node.GetAttribute("MedEnhance.model")
    if not name:
        return {}
    recorded = (manifestOf(node) or {}).get("model") or {}
    if recorded.get("name") == name:
        return recorded
    return {"name": name, "sha256": node.GetAttribute("MedEnhance.modelSha256") or ""}


def writeManifest(node, path, overwrite=True):
    """Write the record of a result beside the file it was saved in, as `<path>.json`."""
    from MedEnhanceLib.io.atomic import write_json

    manifest = manifestOf(node)
    if manifest is not None:
        write_json(f"{path}.json", manifest, overwrite=overwrite)

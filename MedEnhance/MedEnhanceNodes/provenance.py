"""The history of a node's voxels, kept in its attributes and in the files it is saved to.

Slicer's scene keeps attributes; the image formats that Slicer itself writes do not. So the history
is sent with the voxels to the worker, which writes it into every file, and is read back.
"""

import json

from MedEnhanceLib.core.manifest import derived_note, warnings_of
from MedEnhanceLib.runtime.text import sentence, without_commands
from MedEnhancePanels.messages import translated

#: Attributes: what kind of result it is, all steps as a JSON list, the record of the last one.
DERIVED = "MedEnhance.derived"
HISTORY = "MedEnhance.history"
MANIFEST = "MedEnhance.manifest"
#: The lossy compressions that the voxels went through, as JSON: [[method, ratio], …].
LOSSY = "MedEnhance.lossy"
#: The kind of a volume whose file states that it is derived, and of one that is only to be seen.
FROM_FILE, DRAFT = "file", "draft"


def historyOf(node):
    """Return the steps that made a volume, oldest first, as sentences; empty for an original."""
    steps = jsonOf(node, HISTORY, list)
    if steps:
        return [str(step) for step in steps]
    derived = node.GetAttribute(DERIVED)
    return [derived_note(derived)] if derived else []


def setHistory(node, steps):
    """Record the history on a node; its description is the last step."""
    node.SetAttribute(HISTORY, json.dumps(list(steps)) if steps else None)
    if steps:
        node.SetDescription(steps[-1])


def takeFrom(node, tags):
    """Set the history of a node from the tags of a file."""
    if tags.get("lossy"):
        node.SetAttribute(LOSSY, json.dumps(tags["lossy"]))
    if tags.get("DERIVED"):
        setHistory(node, tags["DERIVED"])
        node.SetAttribute(DERIVED, FROM_FILE)


def lossyOf(node):
    """Return the lossy steps of a node as in a file's tags; empty if nothing was lost."""
    return jsonOf(node, LOSSY, list) or []


def manifestOf(node):
    """Return the record of how a node was made, as a JSON object; None where it has none."""
    return jsonOf(node, MANIFEST, dict)


def jsonOf(node, attribute, kind):
    """Read the JSON value of an attribute; None where it is of another kind or damaged."""
    try:
        value = json.loads(node.GetAttribute(attribute) or "null")
    except ValueError:  # edited by hand
        return None
    return value if isinstance(value, kind) else None


def setManifest(node, manifest):
    """Keep the record of how a node was made, a JSON object, with the node."""
    node.SetAttribute(MANIFEST, json.dumps(manifest, separators=(",", ":")))


def part(node, *names):
    """Return an object in a node's manifest, such as "results", "uncertainty"; {} for none."""
    fields = manifestOf(node)
    for name in names:
        fields = fields.get(name) if isinstance(fields, dict) else None
    return fields if isinstance(fields, dict) else {}


def warningsOf(node):
    """Return the warnings of the run that made a node: (level, message, what to do) of each.

    Of level "severe", which come first, or "warning".
    """
    rows = warnings_of(manifestOf(node) or {})
    plain = [
        (level, *(without_commands(translated(text)) for text in texts)) for level, *texts in rows
    ]
    return [row for row in plain if row[1]]


def severeOf(node):
    """Return the severe warnings of the run that made a node, a sentence each."""
    rows = (texts for level, *texts in warningsOf(node) if level == "severe")
    return [sentence(": ".join(filter(None, texts))) for texts in rows]


def addWarning(node, text):
    """Add a warning to the record of the run that made a node."""
    manifest = manifestOf(node) or {}
    setManifest(node, manifest | {"warnings": [*manifest.get("warnings", ()), text]})

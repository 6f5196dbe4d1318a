"""Pages of a distilled set: README.md for the recipient, PRIVACY.md for a decision on sharing.

Numbers, hashes and versions are in manifest.json. They name no patient, file, date or place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.io.atomic import json_bytes
from MedEnhanceLib.runtime.text import counted
from MedEnhanceLib.training.spg.config import MANY_PATIENTS, NETWORKS, DistillConfig
from MedEnhanceLib.training.spg.statistics import CLIPPED_FROM, count_of_numbers

METHODS = {
    "matching": "SPG, structure-preserving personalized generation (arXiv 2511.13106). Its code is "
    "not public; this is MedEnhance's reconstruction",
    "statistics": "statistics of a cohort imposed on volumes (after Heeger and Bergen, 1995)",
}
_NO_ATTACK = (
    "No attack was run, as there is no copy of an image to find. That is no proof of privacy: "
    "averages tell something, too."
)
NO_LICENSE = "No license is stated: nobody may use this set until its maker states one."
_PARAGRAPH = "\n\n"
_README = """# Distilled {modality} volumes

**{research_only}**

{clean} of {size} voxels, {origin}, to train networks on. \
Training signal, not anatomy: shapes that look like organs can be invented.

**{verdict}**

## License

**{license}**

## Train on them

```
medenhance train hqg --modality {modality} --data THIS_FOLDER --out runs/enhancer
medenhance train slices --modality {modality} --data THIS_FOLDER --out runs/slices
```

Noise, low dose and thick slices are simulated in training: one set serves both. For networks of \
your own: `volumes/*.nii.gz`, {scale}; `images/` shows the middle slice of each. manifest.json has \
the configuration, the versions and the hashes.

## What is in them

{nature}

## What is not proven

- That no information on a patient can be extracted.
- That networks that learn from them are better than the models that ship: a training compares \
both at its end.

PRIVACY.md is the page for a data-protection officer; audit/, if there is one, has the figures.
"""
_SHEET = """# Privacy sheet of a distilled set

**{verdict}**

{research_only} This page states facts; who may get the set is for you to decide.

| Question | Answer |
|---|---|
| What is it? | {synthetic} of {size} voxels, to train image-enhancing networks |
| Which set? | The one whose manifest.json has the SHA-256 {sha256} |
| From whom? | {patients}; held out to test the set: {held_out} |
| How? | {method}; preset: {preset} |
| What did the volumes start from? | {prior} |
| Is an image of a patient in it? | {image} |
| Names, dates, identifiers, files, geometry of a scan? | None, in no file of the folder, but the \
spacing below |
| Enough patients for averages? | {enough}; {least} is the least |
| Could somebody who has the same scans recognize them? | Yes, if they have all of them unchanged: \
data_sha256 in manifest.json is a hash of all |
| License | {license} |

## What the patients contributed

{nature}

## What was tried to find them

{tried}

## What to do

- {advice}
- A folder beside the set whose name ends with "-confidential", if any, shows and names patients: \
do not share it.
"""


def readme(manifest: Mapping[str, Any]) -> str:
    """Write the page for the recipient, in Markdown."""
    bright = manifest["bright_tissue"]
    return _README.format(
        **_facts(manifest),
        scale="in HU" if bright is None else f"bright tissue is at {bright:g} and air at 0",
    )


def sheet(manifest: Mapping[str, Any]) -> str:
    """Write the page for a data-protection officer, in Markdown."""
    audit = manifest.get("audit") or {}
    is_matched = manifest["config"]["method"] == "matching"
    prior = manifest["prior"]
    image = "No: no volume was made from a patient's images"
    if is_matched:
        image = "Not as such; each volume was changed to teach what one patient's volumes teach"
    if prior["kind"] == "file":
        image = "The anatomy of the volume that the user gave is in every volume"
    advice = "Decide as on a table of averages over these patients: the set has no more of them."
    if few_patients(manifest["patients"]):
        advice = "Treat the set as the patients' own data."
    if is_matched:
        advice = "Treat the set as the patients' own data, unless you judge the audit sufficient."
    if audit.get("alarm"):
        advice = (
            "Do not share the set. Nor one of a further run with another seed, whose audit may "
            "miss the same leak by chance."
        )
    return _SHEET.format(
        **_facts(manifest),
        held_out=manifest["held_out"] or "nobody",
        sha256=hashlib.sha256(json_bytes(manifest)).hexdigest(),
        preset=next((n for n in DistillConfig.PRESETS if _is_preset(n, manifest)), "own options"),
        prior=prior["description"],
        enough="No" if few_patients(manifest["patients"]) else "Yes",
        least=MANY_PATIENTS,
        image=image,
        method=METHODS[manifest["config"]["method"]],
        tried="\n".join(f"- {line}" for line in audit.get("tried") or [_NO_ATTACK]),
        advice=advice,
    )


def contributed(run: Mapping[str, Any]) -> list[str]:
    """List what a set contains of its patients; run: its manifest or its run.json."""
    count = run["patients"]
    spacing = ", ".join(f"{slices:g} × {pixels:g}" for slices, pixels in run["spacing_mm"])
    kinds = "intensity, and of four bands of detail"
    if profile_of(run["modality"]).is_absolute:
        kinds = "four bands of detail"
    middle = ", the lowest and the highest value replaced by the next" * (count >= CLIPPED_FROM)
    lines = [
        f"The set has {count_of_numbers(run['modality'])} numbers from the patients, each a mean "
        f"over {counted(count, 'patient')}{middle}: quantiles of {kinds}. They are in "
        "manifest.json."
    ]
    if run["prior"]["kind"] == "synthetic":
        lines.append(
            f"The spacings of slices and pixels ({spacing} mm) are quartiles over the patients, "
            "rounded to two digits; where all patients have the same, it is theirs."
        )
    if few := few_patients(count):
        lines.append(few)
    if run["config"]["method"] == "matching":
        loop = run["config"]["loop"]
        lines.append(
            "Each patient's volumes were changed in "
            f"{loop['outer'] * loop['inner'] * NETWORKS} steps, each to make networks learn from "
            "them what they learn from that patient's scans."
        )
    return lines


def few_patients(count: int) -> str:
    """Warn that averages over so few patients tell much about each; "" for many patients."""
    if count >= MANY_PATIENTS:
        return ""
    return (
        f"Averages over only {counted(count, 'patient')} tell much about each of them: treat the "
        "set as the patients' own data."
    )


def is_averaged(manifest: Mapping[str, Any]) -> bool:
    """Whether no volume of the set was made from a patient's images."""
    return bool((manifest.get("config") or {}).get("method") == "statistics")


def verdict(manifest: Mapping[str, Any]) -> str:
    """State the result of the audit, and of a set made by statistics what it has of patients."""
    text = str((manifest.get("audit") or {}).get("summary") or "Not audited.")
    text = text.partition(_PARAGRAPH)[0]
    if not is_averaged(manifest):
        return text
    count = int(manifest.get("patients", 0))
    averages = f"The set has averages over {counted(count, 'patient')}."
    return f"{text} {few_patients(count) or averages}"


def weighed_verdict(manifest: Mapping[str, Any], audit: Mapping[str, Any]) -> tuple[str, str]:
    """Return the weight of an audit and its result, as the set's pages state it.

    The weight is "severe", "warning" or "info": few patients, or few attacks that could have found
    a leak, are a warning.

    Args:
        manifest: of the set.
        audit: its figures, {} if there are none.
    """
    alarm, findings = (manifest.get("audit") or {}).get("alarm"), audit.get("findings")
    rows = findings if isinstance(findings, list) else []
    could = sum(isinstance(row, dict) and row.get("is_blind") is False for row in rows)
    is_sound = alarm is False and could > len(rows) / 2
    if is_averaged(manifest):
        is_sound = not few_patients(int(manifest.get("patients", 0)))
    return "severe" if alarm else "info" if is_sound else "warning", verdict(manifest)


def _is_preset(name: str, manifest: Mapping[str, Any]) -> bool:
    return bool(DistillConfig.preset(name).record()["loop"] == manifest["config"]["loop"])


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what both pages state."""
    count = manifest["patients"]
    slices, rows, columns = manifest["size"]
    lines = [f"The volumes start from {manifest['prior']['description']}.", *contributed(manifest)]
    return {
        "modality": manifest["modality"],
        "research_only": RESEARCH_ONLY,
        "clean": counted(manifest["volumes"], "clean volume"),
        "synthetic": counted(manifest["volumes"], f"synthetic {manifest['modality']} volume"),
        "size": f"{columns} × {rows} × {slices}",
        "patients": counted(count, "patient"),
        "origin": ("with averages over " if is_averaged(manifest) else "distilled from ")
        + counted(count, "patient"),
        "verdict": verdict(manifest),
        "license": manifest["license"],
        "nature": "\n".join(f"- {line}" for line in lines),
    }

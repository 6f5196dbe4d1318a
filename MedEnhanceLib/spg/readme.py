"""Pages of a distilled set: README.md for who gets it, PRIVACY.md for who decides on sharing it.

Numbers, hashes and versions are in manifest.json. They name no patient, file, date or place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.spg.config import NETWORKS, TEMPLATE
from MedEnhanceLib.spg.statistics import CLIPPED_FROM, count_of_numbers

METHODS = {
    "matching": "SPG, structure-preserving personalized generation (arXiv 2511.13106). Its code is "
    "not public; this is MedEnhance's reconstruction",
    "statistics": "statistics of a cohort imposed on volumes (after Heeger and Bergen, 1995)",
}
NO_LICENSE = "No license is stated: nobody may use this set until its maker states one."
_PARAGRAPH = "\n\n"
_README = """# Distilled {modality} volumes

**{research_only}**

{volumes} clean volumes of {columns} × {rows} × {slices} voxels, distilled from {patients}, to \
train networks on. Training signal, not anatomy: shapes that look like organs can be invented.

**{verdict}**

## License

**{license}**
{notice}
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
- That networks learn more from them than from the models that ship: `medenhance distill COHORT \
--estimate` measures it.

PRIVACY.md is the page for a data-protection officer; audit/, if there is one, has the figures.
"""
_SHEET = """# Privacy sheet of a distilled set

**{verdict}**

{research_only} This page states facts; whether the set is personal data, and who may get it, is \
for you to decide.

| Question | Answer |
|---|---|
| What is it? | {volumes} synthetic {modality} volumes to train image-enhancing networks |
| From whom? | {patients}; {held_out} more were held out to test the set |
| How? | {method} |
| What did the volumes start from? | {prior} |
| Is an image of a patient in it? | {image} |
| Names, dates, identifiers, files, geometry of a scan? | None, in no file of the folder |
| License | {license} |

## What the patients contributed

{nature}

## What was tried to find them

{tried}

## What to do

- {advice}
- A folder beside the set whose name ends with "-confidential", if any, shows and names patients: \
do not share it.
- Do not repeat a run with other seeds until no alarm is raised: that hides a leak by chance.
"""


def readme(manifest: Mapping[str, Any]) -> str:
    """Write the page for who gets the set, in Markdown."""
    is_public = manifest["prior"]["kind"] == TEMPLATE
    bright = manifest["bright_tissue"]
    return _README.format(
        **_facts(manifest),
        notice=_notice() if is_public else "",
        scale="in HU" if bright is None else f"bright tissue is at {bright:g} and air at 0",
    )


def sheet(manifest: Mapping[str, Any]) -> str:
    """Write the page for a data-protection officer, in Markdown."""
    audit = manifest.get("audit") or {}
    is_matched = manifest["config"]["method"] == "matching"
    prior = manifest["prior"]
    image = "No volume shows a patient's anatomy by its making"
    if is_matched:
        image = "Not as such; each volume was changed to teach what one patient's volumes teach"
    if prior["kind"] == "file":
        image = "The anatomy of the volume that the user gave is in every volume"
    advice = "Share what a table of averages of these patients may be shared as."
    if is_matched:
        advice = "Treat the volumes as the patients' own, unless you judge the audit sufficient."
    if audit.get("alarm"):
        advice = "Do not share the set."
    return _SHEET.format(
        **_facts(manifest),
        held_out=manifest["held_out"],
        prior=prior["description"],
        image=image,
        method=METHODS[manifest["config"]["method"]],
        tried="\n".join(f"- {line}" for line in audit.get("tried") or ["Nothing."]),
        advice=advice,
    )


def contributed(run: Mapping[str, Any]) -> list[str]:
    """List what of the patients is in a set, by its manifest or its run.json."""
    count = run["patients"]
    spacing = ", ".join(f"{slices:g} × {pixels:g}" for slices, pixels in run["spacing_mm"])
    kinds = "intensity, and of four bands of detail"
    if run["modality"] == "CT":
        kinds = "four bands of detail"
    lines = [
        f"The set has {count_of_numbers(run['modality'])} numbers from the patients, each a mean "
        f"over {count} {'patient' if count == 1 else 'patients'}: quantiles of {kinds}. They are "
        "in manifest.json."
    ]
    if run["prior"]["kind"] == "synthetic":
        lines.append(
            f"The spacings of slices and pixels ({spacing} mm) are quartiles over the patients, "
            "rounded to two digits."
        )
    if count < CLIPPED_FROM:
        lines.append("With so few patients, the means include their lowest and highest values.")
    if run["config"]["method"] == "matching":
        loop = run["config"]["loop"]
        lines.append(
            "Each patient's volumes were changed in "
            f"{loop['outer'] * loop['inner'] * NETWORKS} steps, each towards giving networks the "
            "gradients that the patient's scans give."
        )
    return lines


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what both pages state."""
    count = manifest["patients"]
    slices, rows, columns = manifest["size"]
    lines = [f"They start from: {manifest['prior']['description']}.", *contributed(manifest)]
    return {
        "modality": manifest["modality"],
        "research_only": RESEARCH_ONLY,
        "volumes": manifest["volumes"],
        "columns": columns,
        "rows": rows,
        "slices": slices,
        "patients": f"{count} {'patient' if count == 1 else 'patients'}",
        "verdict": _summary(manifest).partition(_PARAGRAPH)[0],
        "license": manifest["license"],
        "nature": "\n".join(f"- {line}" for line in lines),
    }


def _summary(manifest: Mapping[str, Any]) -> str:
    return str((manifest.get("audit") or {}).get("summary") or "Not audited.")


def _notice() -> str:
    """Quote the template's license, which goes with every copy."""
    path = resource_folder("samples") / "LICENSE-MNI152.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    quoted = "\n".join(f"> {line.strip()}" for line in lines)
    return (
        "\nThe volumes start from the ICBM 152 template, whose notice goes with every copy:\n\n"
        f"{quoted}\n"
    )

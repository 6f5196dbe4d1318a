"""Pages of a distilled set: README.md for the recipient, PRIVACY.md for a decision on sharing.

Numbers, hashes and versions are in manifest.json. They name no patient, file, date or place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.manifest import RESEARCH_ONLY
from MedEnhanceLib.core.modality import profile_of
from MedEnhanceLib.io.atomic import json_bytes
from MedEnhanceLib.runtime.text import counted
from MedEnhanceLib.runtime.texts import Text, text
from MedEnhanceLib.training.spg.config import MANY_PATIENTS
from MedEnhanceLib.training.spg.statistics import CLIPPED_FROM, count_of_numbers

#: In place of a license.
NO_LICENSE = "No license is stated: nobody may use this set until its maker states one."


def readme(manifest: Mapping[str, Any]) -> str:
    """Write the page for the recipient, in Markdown."""
    bright = manifest["bright_tissue"]
    scale = "in HU" if bright is None else f"bright tissue is at {bright:g} and air at 0"
    return _page("set_readme.md").format(scale=scale, **_facts(manifest))


def sheet(manifest: Mapping[str, Any]) -> str:
    """Write the page for a data-protection officer, in Markdown."""
    audit, prior = manifest["audit"], manifest["prior"]
    is_matched, few = manifest["config"]["method"] == "matching", few_patients(manifest["patients"])
    image = text("image_taught" if is_matched else "image_of_nobody")
    advice = "judge_audit" if is_matched else "own_data" if few else "as_a_table"
    return _page("set_privacy.md").format(
        **_facts(manifest),
        held_out=manifest["held_out"] or "nobody",
        sha256=hashlib.sha256(json_bytes(manifest)).hexdigest(),
        method=text(manifest["config"]["method"]),
        prior=prior["description"],
        image=text("image_of_prior") if prior["kind"] == "file" else image,
        enough="No" if few else "Yes",
        least=MANY_PATIENTS,
        contributed="\n".join(f"- {line}" for line in _contributed(manifest)),
        tried="\n".join(f"- {line}" for line in audit.get("tried") or [text("no_attack")]),
        advice=text("do_not_share" if audit["alarm"] else advice),
    )


def few_patients(count: int) -> Text | None:
    """Warn that averages over so few patients tell much about each; None for many patients."""
    if count >= MANY_PATIENTS:
        return None
    return text("few_patients", patients=counted(count, "patient"))


def not_audited(patients: int) -> dict[str, Any]:
    """Return what the manifest records of a set by statistics, in place of an audit."""
    few = few_patients(patients)
    averages = few or text("averages", patients=counted(patients, "patient"))
    verdict = text("not_audited", averages=averages).to_json()
    return {"alarm": None, "weight": "warning" if few else "info", "verdict": verdict}


def _page(name: str) -> str:
    """Read the template of a page."""
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _contributed(manifest: Mapping[str, Any]) -> Iterator[Text]:
    """List what a set contains of its patients."""
    count, modality = manifest["patients"], manifest["modality"]
    yield text(
        "clipped_statistics_of_patients" if count >= CLIPPED_FROM else "statistics_of_patients",
        numbers=count_of_numbers(modality),
        patients=counted(count, "patient"),
        kinds=("" if profile_of(modality).is_absolute else "intensity, and of ")
        + "four bands of detail",
    )
    if manifest["prior"]["kind"] == "synthetic":
        pairs = (f"{slices:g} × {pixels:g}" for slices, pixels in manifest["spacing_mm"])
        yield text("spacings_of_patients", spacing=", ".join(pairs))
    if few := few_patients(count):
        yield few
    if manifest["config"]["method"] == "matching":
        loop = manifest["config"]["loop"]
        yield text("steps_of_patients", steps=loop["outer"] * loop["inner"])


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Collect what both pages state."""
    slices, rows, columns = manifest["size"]
    return {
        "modality": manifest["modality"],
        "research_only": RESEARCH_ONLY,
        "volumes": counted(manifest["volumes"], "volume"),
        "size": f"{columns} × {rows} × {slices}",
        "patients": counted(manifest["patients"], "patient"),
        "verdict": Text.from_json(manifest["audit"]["verdict"]),
        "license": manifest["license"],
    }

"""The report of one enhancement: a page with a picture and figures of what changed where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.manifest import findings_in_words
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.report.drawing import Picture
from MedEnhanceLib.report.page import make_folder, write_page
from MedEnhanceLib.report.uncertainty import uncertainty_in_words

_COMPARISON = "comparison.png"
_CAPTION = (
    "Input and enhanced with the same window. Orange: brighter than the input; blue: darker. "
    "A structure in the difference is a structure that was changed."
)
_AIR_CAPTION = " In MR the body stands out from the air, which noise had brightened."
_COLUMNS = ("Label", "Voxels", "Volume, ml", "Surface, mm²")


def enhancement_report(
    folder: str | Path,
    *,
    volume: Volume,
    enhanced: Volume,
    picture: Picture,
    manifest: Mapping[str, Any],
    table: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write index.html and its picture.

    Args:
        folder: made if it does not exist.
        volume: before enhancement.
        enhanced: after enhancement, on the same grid.
        picture: compares them.
        manifest: as `make_manifest` returns it.
        table: a row per label, {"label", "voxels", "volume_ml", "surface_mm2"}.
        warnings: sentences shown at the top.
        overwrite: whether existing files are replaced.
    Returns:
        The files written, the page first.
    Raises:
        OutputError: a file exists and may not be replaced, or cannot be written.
    """
    target = make_folder(folder)
    picture.save(target / _COMPARISON, overwrite=overwrite)
    difference = enhanced.voxels.astype(np.float32) - volume.voxels.astype(np.float32)
    change = {
        "mean_absolute": float(np.abs(difference).mean(dtype=np.float64)),
        "largest": float(np.abs(difference).max()),
    }
    name = Path(volume.source).name
    page = {
        "title": f"Enhanced: {name}" if name else "Enhanced volume",
        "about": _about(manifest, volume),
        "summary": _summary(change, volume, enhanced, manifest),
        "warnings": warnings,
        "facts": _facts(change, volume.units, manifest),
        "picture": _COMPARISON,
        "alt": picture.alt,
        "caption": _caption(volume, manifest),
        "columns": _COLUMNS,
        "rows": [
            (
                row["label"],
                f"{row['voxels']:,}",
                f"{row['volume_ml']:.2f}",
                f"{row['surface_mm2']:,.0f}",
            )
            for row in table
        ],
        "provenance": {"Manifest": manifest, "History": list(enhanced.history)},
    }
    written = write_page(target, page, overwrite=overwrite)
    return [written, target / _COMPARISON]


def _about(manifest: Mapping[str, Any], volume: Volume) -> list[tuple[str, str]]:
    """When, input, model and device: the lines under the title of a page."""
    size = " × ".join(str(count) for count in reversed(volume.shape))
    spacing = " × ".join(f"{value:.4g}" for value in volume.geometry.spacing)
    model = manifest.get("model") or {}
    lines = [
        ("When", str(manifest.get("created", "")).replace("T", " ").replace("+00:00", " UTC")),
        ("Input", Path(volume.source).name),
        ("Volume", f"{volume.modality}, {size} voxels of {spacing} mm"),
        ("Model", f"{model['name']} ({str(model.get('sha256', ''))[:12]})" if model else ""),
        ("Device", str(manifest.get("device", ""))),
        ("Software", f"MedEnhance {manifest.get('software', {}).get('medenhance', '')}".strip()),
    ]
    return [(name, value) for name, value in lines if value]


def _summary(
    change: Mapping[str, float], volume: Volume, enhanced: Volume, manifest: Mapping[str, Any]
) -> list[str]:
    units = volume.units or "units of the input"
    model = (manifest.get("model") or {}).get("name", "the model")
    grid = "unchanged" if volume.geometry == enhanced.geometry else "NOT that of the input"
    findings = findings_in_words(manifest.get("results", {}).get("measured") or {})
    return [
        f"{model} changed the volume by {change['mean_absolute']:.3g} {units} on average"
        f" and by {change['largest']:.3g} at most.",
        *(f"{finding[:1].upper()}{finding[1:]}." for finding in findings),
        f"The grid (spacing, origin, direction) is {grid}.",
        "There is no reference image, so this page cannot measure whether the changes are correct.",
    ]


def _facts(
    change: Mapping[str, float], units: str, manifest: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Key figures with their labels."""
    facts = [
        (f"{change['mean_absolute']:.3g} {units}".strip(), "mean absolute change"),
        (f"{change['largest']:.3g} {units}".strip(), "largest change"),
    ]
    if manifest.get("seconds") is not None:
        facts.append((f"{manifest['seconds']:.1f} s", f"on {manifest.get('device', 'cpu')}"))
    return facts


def _caption(volume: Volume, manifest: Mapping[str, Any]) -> str:
    caption = _CAPTION + (_AIR_CAPTION if volume.modality == "MR" else "")
    uncertainty = manifest.get("results", {}).get("uncertainty")
    if uncertainty:
        caption += f" Uncertainty: {uncertainty_in_words(uncertainty, volume.units)}"
    return caption

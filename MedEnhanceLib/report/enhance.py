"""The report of one enhancement: a page with pictures and figures of what changed where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from MedEnhanceLib.core.manifest import findings_in_words
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.atomic import write_json
from MedEnhanceLib.report.figures import LabelLike, Pane, comparison_sheet, sheet_alt
from MedEnhanceLib.report.page import (
    Fact,
    FileEntry,
    Page,
    Picture,
    Table,
    make_folder,
    write_page,
)
from MedEnhanceLib.report.uncertainty import uncertainty_in_words

_COMPARISON, _UNCERTAINTY, _RECORD = "comparison.png", "uncertainty.png", "report.json"
_FILES = {
    _COMPARISON: "input, enhanced, difference and segmentation in three planes",
    _UNCERTAINTY: "enhanced volume and its uncertainty in three planes",
    _RECORD: "this page's numbers for programs",
}
_COMPARISON_CAPTION = (
    "Input and enhanced with the same window. Orange: brighter than the input; blue: darker. "
    "A structure in the difference is a structure that was changed."
)
_AIR_CAPTION = " In MR the body stands out from the air, which noise had brightened."


def enhancement_report(
    folder: str | Path,
    *,
    volume: Volume,
    enhanced: Volume,
    manifest: Mapping[str, Any],
    uncertainty: Volume | None = None,
    segmentation: Volume | None = None,
    labels: Sequence[LabelLike] = (),
    table: Sequence[Mapping[str, Any]] = (),
    warnings: Sequence[str] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write index.html, its pictures and report.json.

    Args:
        folder: made if it does not exist.
        volume: before enhancement.
        enhanced: after enhancement, on the same grid.
        manifest: as `make_manifest` returns it.
        uncertainty: standard deviation per voxel, in the units of `enhanced`.
        segmentation: labels on the same grid.
        labels: their names and colors.
        table: a row per label, {"label", "voxels", "volume_ml", "surface_mm2"}.
        warnings: sentences shown at the top.
        overwrite: whether existing files are replaced.
    Returns:
        The files written, the page first.
    Raises:
        OutputError: a file exists and may not be replaced, or cannot be written.
    """
    target = make_folder(folder)
    panes = [
        Pane("Input", volume),
        Pane("Enhanced", enhanced),
        Pane("Enhanced − input", enhanced, minus=volume),
    ]
    if segmentation is not None:
        panes.append(Pane("Segmentation", enhanced, labels=segmentation))
    written = [comparison_sheet(target / _COMPARISON, panes, legend=labels, overwrite=overwrite)]
    caption = _COMPARISON_CAPTION + (_AIR_CAPTION if volume.modality == "MR" else "")
    pictures = [Picture(_COMPARISON, "Before and after", sheet_alt(panes), caption)]
    if uncertainty is not None:
        heat = [Pane("Enhanced", enhanced), Pane("Uncertainty", uncertainty, heat=True)]
        written.append(comparison_sheet(target / _UNCERTAINTY, heat, overwrite=overwrite))
        facts = manifest.get("results", {}).get("uncertainty") or {}
        caption = uncertainty_in_words(facts, volume.units)
        pictures.append(Picture(_UNCERTAINTY, "Uncertainty", sheet_alt(heat), caption))
    change = _change(volume, enhanced)
    record = {"manifest": dict(manifest), "labels": list(table), "change": change}
    write_json(target / _RECORD, record, overwrite=overwrite)
    written.append(target / _RECORD)
    name = Path(volume.source).name
    page = Page(
        title=f"Enhanced: {name}" if name else "Enhanced volume",
        about=about(manifest, volume),
        summary=_summary(change, volume, enhanced, manifest),
        facts=_facts(change, volume.units, manifest),
        tables=_tables(table),
        pictures=pictures,
        files=[FileEntry(path.name, _FILES[path.name]) for path in written],
        provenance={"Manifest": manifest, "History": list(enhanced.history)},
        warnings=warnings,
    )
    return [write_page(target, page, overwrite=overwrite), *written]


def about(manifest: Mapping[str, Any], volume: Volume) -> list[tuple[str, str]]:
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


def _change(volume: Volume, enhanced: Volume) -> dict[str, float]:
    difference = enhanced.voxels.astype(np.float32) - volume.voxels.astype(np.float32)
    return {
        "mean": float(difference.mean(dtype=np.float64)),
        "mean_absolute": float(np.abs(difference).mean(dtype=np.float64)),
        "largest": float(np.abs(difference).max()),
    }


def _summary(
    change: Mapping[str, float], volume: Volume, enhanced: Volume, manifest: Mapping[str, Any]
) -> list[str]:
    units = volume.units or "units of the input"
    model = (manifest.get("model") or {}).get("name", "the model")
    grid = "unchanged" if volume.geometry == enhanced.geometry else "NOT that of the input"
    return [
        f"{model} changed the volume by {change['mean_absolute']:.3g} {units} on average"
        f" and by {change['largest']:.3g} at most.",
        *_findings(manifest),
        f"The grid (spacing, origin, direction) is {grid}.",
        "There is no reference image, so this page cannot measure whether the changes are correct.",
    ]


def _findings(manifest: Mapping[str, Any]) -> list[str]:
    """What was measured in the input and what was done about it, in sentences."""
    measured = manifest.get("results", {}).get("measured") or {}
    return [f"{line[:1].upper()}{line[1:]}." for line in findings_in_words(measured)]


def _facts(change: Mapping[str, float], units: str, manifest: Mapping[str, Any]) -> list[Fact]:
    facts = [
        Fact(f"{change['mean_absolute']:.3g} {units}".strip(), "mean absolute change"),
        Fact(f"{change['largest']:.3g} {units}".strip(), "largest change"),
    ]
    if manifest.get("seconds") is not None:
        facts.append(Fact(f"{manifest['seconds']:.1f} s", f"on {manifest.get('device', 'cpu')}"))
    return facts


def _tables(table: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not table:
        return []
    rows = [
        (
            str(row["label"]),
            f"{row['voxels']:,}",
            f"{row['volume_ml']:.2f}",
            f"{row['surface_mm2']:,.0f}",
        )
        for row in table
    ]
    return [Table("Segmentation", ("Label", "Voxels", "Volume, ml", "Surface, mm²"), rows)]

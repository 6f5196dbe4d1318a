"""The report of one enhancement: a page with pictures and figures of what changed where.

The page needs only the pictures beside it: no network, no scripts. Its template is page.html, its
style page.css; Jinja2 escapes all text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

import numpy as np

from MedEnhanceLib.core.findings import describe, verdict_on
from MedEnhanceLib.core.labels import interval_notes
from MedEnhanceLib.core.manifest import RESEARCH_ONLY, caveats_of, uncertainty_in_words
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.io.atomic import atomic_folder, atomic_write, make_folder
from MedEnhanceLib.report.figures import Picture, shown_frame
from MedEnhanceLib.report.frame_pictures import draw_sequence
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.text import cell_text, grid_text, sentence
from MedEnhanceLib.runtime.texts import text

_HEADS = {
    "label": "Label",
    "voxels": "Voxels",
    "volume_ml": "Volume, ml",
    "low_ml": "From, ml",
    "high_ml": "To, ml",
    "quality": "Expected Dice",
}


class Table(NamedTuple):
    """Table of a page.

    Attributes:
        heads: field → heading; the first field names the row.
        note: text below it.
    """

    title: str
    heads: Mapping[str, str]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""


def enhancement_report(
    folder: str | Path,
    *,
    name: str,
    volume: Volume,
    enhanced: Volume,
    picture: Picture,
    manifest: Mapping[str, Any],
    table: Sequence[Mapping[str, Any]] = (),
    comparisons: Sequence[Table] = (),
    reference: str = "",
    beside_reference: Picture | None = None,
    overwrite: bool = False,
) -> Path:
    """Write index.html and comparison.png; of a sequence, more pictures into the folder frames.

    Args:
        folder: made if it does not exist.
        name: of the input, as the page calls it.
        volume: before enhancement.
        enhanced: after enhancement, on the same grid.
        picture: the comparison, of a sequence in the frame that `shown_frame` returns.
        manifest: as `make_manifest` returns it.
        table: a row per label, {"label", "voxels", "volume_ml"}, and "quality" if the model
            estimates it.
        comparisons: further tables, above that of the labels.
        reference: what the result is compared with, in a sentence; "" for no reference.
        beside_reference: the result beside it, which becomes reference.png.
        overwrite: whether files may be replaced.
    Returns the page.
    Raises OutputError: a file exists and may not be replaced, or cannot be written.
    Raises DependencyError: Jinja2 is missing.
    """
    jinja2 = require("jinja2", purpose="Writing a report")
    sequence = draw_sequence(volume, enhanced)
    change, largest_change = _changes(volume, enhanced)
    results = manifest.get("results", {})
    measured = results.get("measured") or {}
    strength = results.get("strength", 1.0)
    found = describe(measured, strength)
    typed = {
        "command": f"medenhance noise {quote(name)}",
        "run": str(text("same_command")),
    }
    lines = {line.key: str(line.given(**typed)) for line in found}
    verdict = lines.pop(found[0].key) if verdict_on(measured, strength) else ""
    uncertainty = results.get("uncertainty")
    note = " ".join([*interval_notes(table), *caveats_of(results)])
    heads = {name: head for name, head in _HEADS.items() if any(name in row for row in table)}
    beneath = str(results.get("segmentation_warning", "")) if table else ""
    html = template(jinja2, "page.html").render(
        notice=RESEARCH_ONLY,
        name=name,
        volume=volume,
        spacing=" × ".join(f"{mm:.4g}" for mm in volume.geometry.spacing),
        enhanced=enhanced,
        slices=measured.get("slices"),
        alt=picture.alt,
        is_wide=picture.is_wide,
        manifest=manifest,
        model=manifest.get("model") or {"name": "the filter", "sha256": ""},
        units=volume.units or "units of the input",
        change=change,
        largest_change=largest_change,
        frames=sequence.frames,
        medians=sequence.medians,
        verdict=verdict,
        findings=[*lines.values(), *results.get("limits", ())],
        mean_changed=lines.get("mean_changed"),
        uncertainty=uncertainty and str(uncertainty_in_words(uncertainty, volume.units)),
        tables=[*comparisons, *([Table("Segmentation", heads, table, note)] if table else [])],
        reference=reference,
        beside_reference=beside_reference,
        shown=shown_frame(volume)[1],
        warnings=[
            f"{warning.rstrip('.')}." for warning in manifest["warnings"] if warning not in beneath
        ],
    )
    target = make_folder(folder)
    for file, each in {"comparison.png": picture, "reference.png": beside_reference}.items():
        if each is not None:
            each.save(target / file, overwrite=overwrite)
    if sequence.pictures:
        may_go = partial(_is_picture_of_ours, overwrite=overwrite)
        with atomic_folder(target / "frames", replaceable=may_go) as new:
            for file, each in sequence.pictures.items():
                each.save(new / file)
    # File names that are not UTF-8 contain lone surrogates, which become "?".
    with atomic_write(target / "index.html", overwrite=overwrite) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="replace")
    return target / "index.html"


def _is_picture_of_ours(path: Path, *, overwrite: bool) -> bool:
    is_ours = path.suffix == ".png" and b"Software\0MedEnhance" in path.read_bytes()
    return overwrite and is_ours


def _changes(before: Volume, after: Volume) -> tuple[float, float]:
    """Return the root mean square and the largest change of all voxels."""
    total = largest = 0.0
    for index in np.ndindex(before.shape[:-2]):  # slices
        change = np.subtract(after.voxels[index], before.voxels[index], dtype=np.float64)
        total += float(np.vdot(change, change))
        largest = max(largest, float(np.abs(change).max()))
    return float(np.sqrt(total / before.voxels.size)), largest


def template(jinja2: Any, name: str) -> Any:
    """Read the template of a page; an undefined field is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = cell_text
    environment.filters["sentence"] = sentence
    environment.filters["grid"] = grid_text
    environment.filters["json"] = lambda value: json.dumps(
        value, indent=2, ensure_ascii=False, default=str
    )
    return environment.get_template(name)

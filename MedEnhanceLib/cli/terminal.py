"""Results as lines and tables, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from MedEnhanceLib.runtime.text import cell_text, grid_text, size_text


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left_aligned: int = 1) -> str:
    """Return a table in plain text.

    Args:
        heads: one for each column.
        rows: cells as text, as many in each row as there are heads.
        left_aligned: number of columns aligned left; those after them are aligned right.
    """
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.ljust(width) if index < left_aligned else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(table[0]), rule, *(line(row) for row in table[1:])])


def table(
    rows: Sequence[Mapping[str, Any]], heads: Mapping[str, str], *, left_aligned: int = 1
) -> str:
    """Show JSON objects as a table.

    Args:
        rows: field → value; a missing one is shown as a dash.
        heads: field → its heading, in the order of the columns.
        left_aligned: as in `columns`.
    """
    cells = [[_cell(row.get(name)) for name in heads] for row in rows]
    return columns(tuple(heads.values()), cells, left_aligned=left_aligned)


def _cell(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return cell_text(value) if is_number else inline(value)


def pairs(fields: Mapping[str, Any], indent: str = "") -> str:
    """Return a line per field, names aligned; further lines of a text are indented as the first."""
    width = max((len(_name(name)) for name in fields), default=0)
    below = "\n" + " " * (len(indent) + width + 2)
    return "\n".join(
        f"{indent}{_name(name).ljust(width)}  {inline(value)}".replace("\n", below).rstrip()
        for name, value in fields.items()
    )


def inline(value: Any) -> str:
    """Return a value on one line."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value + 0.0:.6g}"  # -0 becomes 0
    if isinstance(value, Mapping):
        return ", ".join(f"{_name(name)} {inline(entry)}" for name, entry in value.items())
    if isinstance(value, (list, tuple)):
        is_long = any(isinstance(entry, str) and len(entry) > 24 for entry in value)
        return ("; " if is_long else ", ").join(inline(entry) for entry in value)
    return str(value)


def size(count: int | None) -> str:
    """Format a number of bytes; None is "unknown"."""
    return "unknown" if count is None else size_text(count)


def wrote(fields: Mapping[str, Any]) -> list[str]:
    """Return a line per output of a job, then how long it took and where."""
    lines = [f"wrote {path}" for path in fields.get("outputs", {}).values()]
    model = fields.get("model")
    name = f"{model['name']} on " if isinstance(model, Mapping) and model.get("name") else ""
    if fields.get("seconds") is not None:
        lines.append(f"{name}{fields.get('device', 'cpu')}, {fields['seconds']:.1f} s")
    return lines


def job_lines(fields: Mapping[str, Any]) -> list[str]:
    """Return the output lines of a job that writes volumes."""
    # These import numpy, which is slow for help.
    from MedEnhanceLib.core.labels import INTRACRANIAL, interval_notes
    from MedEnhanceLib.core.manifest import caveats_of

    lines = wrote(fields)
    for row in fields.get("objects") or ():  # of DICOM
        count = f"{row['files']} file{'' if row['files'] == 1 else 's'}"
        object_text = f"{row['role']}: {row['modality']} {row['description']!r}"
        lines.append(f"  {object_text}, {count}, {row['series_uid']}")
    if fields.get("objects"):  # beside a folder nobody looks for it
        lines.append(f"  manifest: {fields['manifest']}")
    if labels := fields.get("table"):
        heads = {"label": "label", "voxels": "voxels", "volume_ml": "ml"}
        more = {"low_ml": "from", "high_ml": "to", "quality": "expected Dice"}
        heads |= {name: head for name, head in more.items() if any(name in row for row in labels)}
        limits = caveats_of({**fields, "segmentation_warning": ""})  # warned of already
        notes = [*interval_notes(labels), *limits]
        if total := fields.get("intracranial"):
            labels = [*labels, {"label": INTRACRANIAL, **total}]
        lines += ["", table(labels, heads), *notes]
    if "shape" in fields:
        lines.append(f"{grid_text(fields['shape'])}, {fields['dtype']}")
    return lines


def _name(name: str) -> str:
    return str(name).replace("_", " ")


def slices_of(blocks: Iterable[Mapping[str, Any]]) -> str:
    """Return the slices of lost blocks, each with `start` and `stop` of its voxels."""
    from MedEnhanceLib.unicompress.blocks import slices_text

    return slices_text((block["start"], block["stop"]) for block in blocks)

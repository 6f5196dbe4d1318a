"""medenhance inspect: the card of a volume, a series or a .ucv."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_input,
    add_job_options,
    input_params,
    new_command,
)
from MedEnhanceLib.cli.series import series_rows, series_table
from MedEnhanceLib.cli.words import inline, pairs, size
from MedEnhanceLib.errors import CodecError, InputError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "inspect",
        summary="show what a volume, a DICOM folder or a .ucv holds",
        description="Show the card of a volume: size, spacing, orientation, type, range, history.\n"
        "A .ucv is not decoded for it; --verify reads all of it and exits with status 6\n"
        "where it is damaged. Several DICOM series are listed in a table.",
        example="medenhance inspect scan.nii.gz",
    )
    add_input(parser)
    parser.add_argument(
        "--verify",
        action="store_true",
        default=None,
        help="of a .ucv: read every chunk with its checksum and the file with its SHA-256",
    )
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and print the card; of several series, the table of them."""
    try:
        params = {**input_params(args), "verify": args.verify}
        fields = args.console.run("inspect", params, isolated=args.isolated)
    except InputError:
        rows = [] if args.series else series_rows(args, args.input)
        if len(rows) < 2:
            raise
        choose = f"The card of one: medenhance inspect {quote(args.input)} --series N"
        return int(args.console.done({"series": rows}, f"{series_table(rows)}\n\n{choose}"))
    text = card_text(fields["card"])
    check = fields["card"].get("check")
    if check is None or check["intact"]:
        return int(args.console.done(fields, text))
    if not args.console.as_json:
        args.console.note(text)
    return int(args.console.fail(_damage(args.input, check), None, fields))


def card_text(card: Mapping[str, Any]) -> str:
    """A card for people; `--json` has every field."""
    geometry, counts = card["geometry"], card["shape"][:-4:-1]
    frames = f"{card['frames']} frames of " if card["frames"] > 1 else ""
    units = f" {card['units']}" if card["units"] else ""
    extent = [count * mm for count, mm in zip(counts, card["spacing"], strict=True)]
    rows = {
        "voxels": f"{frames}{_times(counts)} (columns × rows × slices)",
        "spacing": f"{_times(card['spacing'])} mm",
        "size": f"{_times(extent)} mm",
        "orientation": card["orientation"],
        "origin": f"{inline(geometry['origin_lps_mm'])} mm (LPS)",
        "direction": "; ".join(inline(row) for row in geometry["direction_lps"]),
        "type": f"{card['dtype']}, {size(card['bytes'])}",
        "range": " to ".join(inline(value) for value in card["range"] or ()) + units,
        **(_container_rows(card) if "mode" in card else {}),
        "history": "\n".join(card["history"]) or "none",
        "warnings": "\n".join(card["warnings"]) or "none",
    }
    return f"{card['source']} ({card['modality']})\n{pairs(rows, '  ')}"


def _container_rows(card: Mapping[str, Any]) -> dict[str, str]:
    """What a compressed file says of itself besides."""
    return {
        "file": f"{size(card['file_bytes'])}, {card['ratio']:.2f} times smaller",
        "mode": inline(card["promise"]) if card["promise"] else card["mode"],
        "measured": inline(card["measured"]),
        "blocks": f"{inline(card['blocks'])}; of {_times(card['block_shape'])} voxels, about "
        "(slices × rows × columns)",
        "made by": card["encoder"],
        "to decode": f"missing: {', '.join(card['missing'])}"
        if card["missing"]
        else "every package and model that it needs is here",
        "checked": _checked(card["check"]),
    }


def _checked(check: Mapping[str, Any] | None) -> str:
    """What is known to be intact, and what is not known."""
    if check is None:
        return "header, chunk table and size; not the chunks (--verify reads them)"
    if check["intact"]:
        chunks = f"{check['chunks']} chunks" if check["chunks"] != 1 else "the chunk"
        return f"header, chunk table, {chunks} and the file's SHA-256; nothing was decoded"
    return f"{len(check['damaged'])} of {check['chunks']} chunks are damaged"


def _damage(path: str, check: Mapping[str, Any]) -> CodecError:
    """The first damaged chunk with its block, and how many there are."""
    if not check["damaged"]:
        return CodecError(
            f"{path} is damaged, and all of its chunks are intact: the second copy of header and "
            "chunk table is, or the SHA-256 at its end",
            "No voxel is lost: copy the file again, or decompress it.",
        )
    first = check["damaged"][0]
    said = first["reason"]
    if first["block"] is not None:
        ends = zip(first["start"], first["stop"], strict=True)
        place = ", ".join(f"{start}:{stop}" for start, stop in ends)
        said += f", which holds block {first['block']} [{place}]"
    return CodecError(
        f"{said}; {len(check['damaged'])} of {check['chunks']} chunks are damaged",
        "Copy the file again, or save what is intact (medenhance recover).",
    )


def _times(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.5g}" for value in values)

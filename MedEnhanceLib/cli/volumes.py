"""medenhance convert, inspect, degrade and demo: volumes without a method."""

from __future__ import annotations

import argparse
import contextlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedEnhanceLib.cli.compress import add_region, parse_region
from MedEnhanceLib.cli.parser import (
    Command,
    Parser,
    add_flags,
    declaration_of,
    params_of,
    reader,
    typed,
)
from MedEnhanceLib.cli.terminal import inline, job_lines, pairs, size, slices_of, table, wrote
from MedEnhanceLib.core.findings import noise_level
from MedEnhanceLib.errors import CodecError, ConfigError, InputError, MedEnhanceError
from MedEnhanceLib.runtime.text import grid_text

_LONGEST_CELL = 24
#: s/mm²; b values are listed in steps of it.
_B_STEP = 50


def _demo_lines(fields: Mapping[str, Any]) -> list[str]:
    from MedEnhanceLib.jobs.kinds.demo import tables_of

    lines = [*filter(None, [fields.get("verdict")]), ""]
    for part in tables_of(fields):
        lines += [part.title, table(part.rows, part.heads), ""]
    return [
        *lines,
        *fields["notes"],
        f"{fields['seconds']:.0f} s on {fields['device']}",
        f"Look at it: {fields['outputs']['page']}",
    ]


def _inspect(args: argparse.Namespace) -> int:
    """Run the job and print the card, or a table of several series."""
    try:
        params = params_of(args, declaration_of("inspect"))
        fields = args.console.run("inspect", params)
    except InputError:
        rows = []
        if not args.series:
            with contextlib.suppress(MedEnhanceError):  # no DICOM, or it cannot be listed
                rows = args.console.run("series", {"input": args.input})["series"]
        if len(rows) < 2:
            raise
        number = next((row["number"] for row in rows if row["readable"]), rows[0]["number"])
        hint = f"Details of a series: {typed(args, 'inspect', '--series', str(number))}"
        return int(args.console.report({"series": rows}, f"{_series_table(rows)}\n{hint}"))
    check = fields["card"].get("check")
    fault = None if check is None or check["intact"] else _damage(args.input, fields["card"])
    return int(
        args.console.report(fields, _card_text(fields["card"], args.console.warnings), fault)
    )


def _noise_params(args: argparse.Namespace) -> dict[str, Any]:
    params = params_of(args, declaration_of("noise"))
    region = {} if args.region is None else {"region": parse_region(args.region)}
    at = {} if args.at is None else {"at": _voxel(args.at)}
    return params | region | at


def _voxel(text: str) -> list[int]:
    """Parse "40,120,96"; ConfigError for anything else."""
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise ConfigError(f"--at {text!r} is not slice,row,column", "For example: --at 40,120,96")
    return [int(part) for part in parts]


def _noise(args: argparse.Namespace) -> int:
    """Run the job; propose the command that goes on from what was measured."""
    fields = args.console.run("noise", _noise_params(args))
    noise, lines = fields["noise"] or {}, [f"{fields['sentence']}."]
    lines += [f"Unlike the others: {each['sentence']}." for each in noise.get("odd_frames", ())]
    if noise and not noise["is_certain"]:
        places = [",".join(map(str, place)) for place in noise.get("places", ())]
        what = "To measure it in even tissue, for example:"
        if noise.get("region"):
            what = "Try another place, in even tissue and farther from edges, for example:"
        elif sigma := noise.get("even_sigma"):
            lines.append(_use(args, sigma))
            what = "To look at some of these regions:"
        lines.append(what if places else "No even tissue was found in which it can be measured.")
        lines += [f"  {typed(args, 'noise', '--at', place)}" for place in places]
    elif noise.get("region"):
        lines.append(_use(args, noise["sigma"]))
    return int(args.console.report(fields, "\n".join([*lines, *wrote(fields)])))


def _use(args: argparse.Namespace, sigma: float) -> str:
    """Return the line that says how σ is stated, with a command that writes where the user is."""
    from MedEnhanceLib.io.formats import written_format
    from MedEnhanceLib.jobs.files import beside

    source, stated = Path(args.input).absolute(), ["--noise", f"{sigma:g}"]
    output = f"{source.stem}-enhanced.nii.gz"
    if source.is_dir():
        output, stated = f"{source.name}-enhanced", [*stated, "--dicom"]
    elif written_format(source):
        output = beside(source.name, "enhanced")
    use = typed(args, "enhance", output, *stated)
    return f"To use it, add --noise {sigma:g} to your command, such as: {use}"


def _add_place(parser: Parser) -> None:
    add_region(parser)
    parser.add_argument(
        "--at",
        metavar="K,J,I",
        help="slice, row and column of a voxel in even tissue, from 0, as Slicer and Python count "
        "(the indices K, J, I): measure in 12 mm around it",
    )


def _series_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a line per series, with patient and study if they differ, and the unreadable ones."""
    names = ["modality", "series_number", "description", "size", "date", "files"]
    names += [name for name in ("patient", "study") if len({row[name] for row in rows}) > 1]
    heads = {"number": "series", **{name: name for name in names}, "series_number": "number"}
    lines = []
    for row in rows:
        row = {**row, "description": f"{row['description']} {row['part']}"}
        cells = {name: _shortened(" ".join(str(row[name]).split())) for name in names}
        lines.append({"number": str(row["number"]), **cells})
    faults = [f"series {r['number']} is not read: {r['reason']}" for r in rows if not r["readable"]]
    faults += [_refusal(row) for row in rows if row["readable"] and row["quantity"]]
    return "\n".join([table(lines, heads, left_aligned=len(heads)), "", *faults])


def _refusal(row: Mapping[str, Any]) -> str:
    """Say that a readable series holds no intensities."""
    from MedEnhanceLib.core.quantity import UNFIT

    unless = "" if row["quantity"] in UNFIT else " without --as-intensity"
    what = f"series {row['number']} is {row['quantity']}, not intensities"
    return f"{what}: enhance refuses it{unless}"


def _shortened(text: str) -> str:
    """Leave out the middle of a long text: derived series and parts differ at the end."""
    half = _LONGEST_CELL // 2
    return text if len(text) <= _LONGEST_CELL else f"{text[: half - 1]}…{text[-half:]}"


def _card_text(card: Mapping[str, Any], said: Sequence[str]) -> str:
    """Return a card for people, without the warnings that they saw; `--json` has every field."""
    geometry, noise, counts = card["geometry"], card.get("noise"), card["shape"][:-4:-1]
    units = f" {card['units']}" if card["units"] else ""
    rows = {
        "voxels": grid_text(card["shape"]),
        "spacing": f"{_times(card['spacing'])} mm",
        "size": f"{_times([n * mm for n, mm in zip(counts, card['spacing'], strict=True)])} mm",
        "orientation": card["orientation"],
        "origin": f"{inline(geometry['origin_lps_mm'])} mm (LPS)",
        "direction": "; ".join(inline(row) for row in geometry["direction_lps"]),
        "type": f"{card['dtype']}, {size(card['bytes'])}",
        "range": " to ".join(inline(value) for value in card["range"] or ()) + units,
    }
    if noise:
        because = f"; {noise['reason']['sentence']}" if noise.get("reason") else ""
        rows["noise"] = f"{noise_level(noise, card['units'])}{because}"
        if odd := noise.get("odd_frames"):
            rows["odd frames"] = "\n".join(each["sentence"] for each in odd)
    if "mode" in card:
        rows |= _container_rows(card)
    if kind := card.get("sequence_kind"):
        rows["sequence"] = f"{kind}, {card['frames']} frames"
    if gradients := card.get("gradients"):
        rows["diffusion"] = "\n".join(_weightings(gradients))
    rows["history"] = "\n".join(card["history"]) or "none"
    warnings = [warning for warning in card["warnings"] if warning not in said]
    rows["warnings"] = "\n".join(warnings) or ("see above" if card["warnings"] else "none")
    return f"{card['source']} ({card['modality']})\n{pairs(rows, '  ')}"


def _weightings(gradients: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield a line per b value; scanners state those of a shell a little apart."""
    by_b_value: dict[int, list[tuple[float, ...]]] = {}
    for gradient in gradients:
        b_value = _B_STEP * round(gradient["b_value"] / _B_STEP)
        by_b_value.setdefault(b_value, []).append(tuple(gradient["direction"]))
    for b_value, directions in sorted(by_b_value.items()):
        count, along = len(directions), len({each for each in directions if any(each)})
        frames = f"{count} frame{'s' if count > 1 else ''}"
        text = f", {along} direction{'s' if along > 1 else ''}" if along else ""
        yield f"b = {b_value} s/mm²: {frames}{text}"


def _container_rows(card: Mapping[str, Any]) -> dict[str, str]:
    """Return the rows of a card that only containers have."""
    from MedEnhanceLib.unicompress.blocks import damage_text

    loss = damage_text(card["largest_loss"])
    check, missing = card["check"], ", ".join(card["missing"])
    checked = "head and size only (--verify reads the chunks)"
    if check is not None:
        damaged = _how_many(check)
        intact = f"intact: all {check['chunks']} chunks (blocks and their codes) and the SHA-256"
        checked = intact if check["intact"] else damaged
    models = (
        f"{model['id']} ({role}), {'in the file' if model['in_file'] else 'not in the file'}"
        for role, model in card["models"].items()
    )
    return {
        "file": f"{size(card['file_bytes'])}, {card['ratio']:.2f} times smaller",
        "mode": inline(card["target"]) if card["target"] else card["mode"],
        "measured": inline(card["measured"]),
        "blocks": f"{', '.join(f'{count} {kind}' for kind, count in card['blocks'].items())}; each "
        f"about {grid_text(card['block_shape'])}" + (f"; {loss}" if loss else ""),
        "models": "\n".join(models) or "none",
        "made by": card["encoder"],
        "to decode": f"missing: {missing}" if missing else "every package and model is here",
        "checked": checked,
    }


def _damage(path: str, card: Mapping[str, Any]) -> CodecError:
    """Return the error with the first damaged chunk, their number, and the lost slices."""
    check, damaged = card["check"], card["check"]["damaged"]
    lost = [chunk for chunk in damaged if chunk["block"] is not None]
    what = "SHA-256 at its end; all chunks are intact"
    if damaged:
        what = f"{damaged[0]['reason']}; {_how_many(check)}"
    if lost:
        what += f"; lost: {slices_of(lost)}"
    advice = "Copy the file again"
    if not damaged:
        advice += "; no voxel is lost"
    elif len(lost) < sum(card["blocks"].values()):
        words = ["medenhance", "recover", path, str(Path(path).with_suffix(".recovered.nii.gz"))]
        advice += f", or save what is intact: {shlex.join(words)}"
    return CodecError(f"{path} is damaged: {what}", advice)


def _how_many(check: Mapping[str, Any]) -> str:
    count = len(check["damaged"])
    return f"{count} of {check['chunks']} chunks {'is' if count == 1 else 'are'} damaged"


def _times(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.5g}" for value in values)


def _add_kinds(parser: Parser) -> None:
    """Add options whose order on the command line is kept: degradations do not commute."""
    from MedEnhanceLib.degradation.pipeline import STRENGTHS, Blur

    for kind, (metavar, text) in _KINDS.items():

        def strength(value: str, kind: str = kind) -> tuple[str, Any]:
            return kind, reader(replace(STRENGTHS[kind], name=f"--{kind}"))(value)

        if STRENGTHS[kind].range_text:
            text += f", {STRENGTHS[kind].range_text}"
        parser.add_argument(
            f"--{kind}", action="append", type=strength, metavar=metavar, dest="steps", help=text
        )
    add_flags(parser, Blur, only=["seed"])


def _degrade_params(args: argparse.Namespace) -> dict[str, Any]:
    if not args.steps:
        examples = "--blur 1; of MR also --rician 0.1, of CT --low-dose 5e3"
        raise ConfigError("no degradation was named", f"For example: {examples}")
    from MedEnhanceLib.degradation.pipeline import named_steps

    steps = [step.to_json() for step in named_steps(args.steps, args.seed or 0)]
    return params_of(args, declaration_of("degrade")) | {"steps": steps}


_KINDS = {
    "rician": ("LEVEL", "noise of magnitude MR: 1 SD as a share of the maximum, for example 0.1"),
    "low-dose": ("PHOTONS", "CT with this many photons a ray, for example 5e3"),
    "blur": ("PIXELS", "Gaussian blur: 1 SD in pixels, for example 1"),
    "bias": ("STRENGTH", "bias field: ± this share, for example 0.3 (MR)"),
    "scanner": ("KIND", "simulated scan by a random scanner: epi, 2d or 3d (MR)"),
}

CONVERT = Command(
    name="convert",
    summary="convert a volume or DICOM folder to the format of OUTPUT's extension",
    description="Convert a volume. Voxels and geometry are kept. With --dicom it becomes a\n"
    "derived series, in the study of --dicom-source, or in a new one.",
    example="medenhance convert dicom-folder/ scan.nii.gz",
    lines=job_lines,
)

DEMO = Command(
    name="demo",
    summary="enhance a real scan that ships, and compare it with its repeated measurements",
    description="Enhance and compress a real diffusion scan, and leave a folder with volumes,\n"
    "figures (results.json) and a page with pictures. Takes less than a minute.",
    example="medenhance demo my-demo",
    lines=_demo_lines,
)

INSPECT = Command(
    name="inspect",
    summary="describe a volume, a DICOM folder or a .ucv",
    description="Show the card of a volume: size, spacing, orientation, type, range, history.\n"
    "A .ucv is not decoded for it; --verify reads all of it and exits with status 6\n"
    "if it is damaged. Several DICOM series are listed in a table.",
    example="medenhance inspect scan.nii.gz",
    run=_inspect,
)

NOISE = Command(
    name="noise",
    summary="measure the noise of a volume, or in a region of even tissue",
    description="Measure the noise, and say what an enhancement can be expected to remove.\n"
    "Where the noise is uncertain, measure it in a region of even tissue, and state it\n"
    "with enhance --noise.",
    example="medenhance noise scan.nii.gz --at 40,120,96 --picture region.png",
    extra=_add_place,
    run=_noise,
)

SCANNER = Command(
    name="scanner",
    summary="measure how one source of volumes differs from another, without pairs",
    description="Compare noise, resolution, contrast and bias field of two folders that have no\n"
    "patient in common; three volumes each, better ten. enhance --scanner inverts the result.",
    example="medenhance scanner old/ --high-quality good/ --out page",
    lines=lambda fields: [fields["sentence"], *wrote(fields)],
)

DEGRADE = Command(
    name="degrade",
    summary="add simulated noise, blur or a bias field to a volume",
    description="Degrade a volume by the physics of its modality. Several kinds are applied\n"
    "in the order given; the same seed gives the same voxels.",
    example="medenhance degrade scan.nii.gz worse.nii.gz --bias 0.3 --rician 0.1 --seed 7",
    extra=_add_kinds,
    params=_degrade_params,
    lines=wrote,
)

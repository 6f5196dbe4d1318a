"""medenhance decompress: a volume, or a part of it, out of a .ucv."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.dicom import OUTPUT, add_dicom_options, dicom_params, object_lines
from MedEnhanceLib.cli.parser import Subparsers, add_force, add_job_options, new_command
from MedEnhanceLib.cli.words import inline, wrote
from MedEnhanceLib.errors import ConfigError


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "decompress",
        summary="read a .ucv, whole or a region",
        description="Decode a .ucv into a volume. A region reads only the chunks it needs,\n"
        "and its geometry follows the crop.",
        example="medenhance decompress scan.ucv part.nii.gz --region 40:60,:,100:228",
    )
    parser.add_argument("input", metavar="FILE", help="a .ucv")
    parser.add_argument("output", metavar="OUTPUT", help=OUTPUT)
    parser.add_argument(
        "--region",
        metavar="K,J,I",
        help="slices, rows, columns as start:stop, from 0, stop excluded; an empty side takes all"
        " (a sequence has its frames first)",
    )
    parser.add_argument(
        "--layers", type=int, metavar="N", help="read the first N layers only: a preview"
    )
    add_dicom_options(parser)
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what came out."""
    params = {
        "input": args.input,
        "output": args.output,
        "region": None if args.region is None else parse_region(args.region),
        "layers": args.layers,
        **dicom_params(args),
        "overwrite": args.force,
    }
    fields = args.console.run("decompress", params, isolated=args.isolated)
    shape = f"shape {inline(fields['shape'])}, {fields['dtype']}"
    return int(args.console.done(fields, "\n".join([*wrote(fields), *object_lines(fields), shape])))


def parse_region(text: str) -> list[list[int | None] | None]:
    """Turn "40:60,:,100:" into [[40, 60], None, [100, None]]; ConfigError for anything else."""
    return [_parse_axis(axis.strip(), text) for axis in text.split(",")]


def _parse_axis(axis: str, text: str) -> list[int | None] | None:
    ends = axis.split(":")
    is_range = len(ends) == 2 and all(end.strip() == "" or _is_whole(end) for end in ends)
    if not is_range:
        raise ConfigError(
            f"--region {text!r}: {axis!r} is not start:stop",
            "For example: --region 40:60,:,100:228",
        )
    start, stop = (int(end) if end.strip() else None for end in ends)
    return None if start is None and stop is None else [start, stop]


def _is_whole(text: str) -> bool:
    return text.strip().isdecimal()

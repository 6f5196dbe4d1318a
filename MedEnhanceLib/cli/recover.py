"""medenhance recover: what is left of a damaged .ucv."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import Subparsers, add_force, add_job_options, new_command
from MedEnhanceLib.cli.words import wrote


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "recover",
        summary="save what is intact in a damaged .ucv",
        description="Decode every intact block of a damaged .ucv, and say what is missing.",
        example="medenhance recover damaged.ucv rescued.nii.gz",
    )
    parser.add_argument("input", metavar="FILE", help="a .ucv that decompress refuses")
    parser.add_argument("output", metavar="OUTPUT", help=".nii.gz, .nii, .nrrd or .mha")
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what was saved and what was lost."""
    params = {"input": args.input, "output": args.output, "overwrite": args.force}
    fields = args.console.run("recover", params, isolated=args.isolated)
    return int(
        args.console.done(fields, "\n".join([*wrote(fields), *report_lines(fields["report"])]))
    )


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """What was lost, block by block, and whether the rest is proved."""
    lost = report["lost"]
    if lost:
        lines = [
            f"{len(lost)} of {report['blocks']} blocks are lost: {report['lost_voxels']:,} voxels,"
            f" filled with {report['fill_value']:g}"
        ]
    else:
        lines = [f"all {report['blocks']} blocks are intact"]
    for block in lost:
        ends = zip(block["start"], block["stop"], strict=True)
        place = ", ".join(f"{start}:{stop}" for start, stop in ends)
        lines.append(f"  block {block['block']} [{place}]: {block['reason']}")
    proof = "every voxel is proved to be as it was written" if report["proved"] else ""
    return [*lines, *report["notes"], *([proof] if proof else [])]

"""medenhance recover: what is left of a damaged .ucv."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import Subparsers, add_force, add_job_options, new_command
from MedEnhanceLib.cli.words import wrote
from MedEnhanceLib.errors import MedEnhanceError


class PartLostError(MedEnhanceError):
    """Something was saved, and something was not: neither done nor failed."""

    code, exit_status = "incomplete", 7


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "recover",
        summary="save what is intact in a damaged .ucv",
        description="Decode every intact block of a damaged .ucv, and say what is missing.\n"
        "Exit status 0 where no block is lost, 7 where OUTPUT was written and some are,\n"
        "6 where none could be read and nothing was written.",
        example="medenhance recover damaged.ucv rescued.nii.gz",
    )
    parser.add_argument("input", metavar="FILE", help="a .ucv that decompress refuses")
    parser.add_argument("output", metavar="OUTPUT", help=".nii.gz, .nii, .nrrd or .mha")
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what was saved; blocks that are lost decide the exit status."""
    params = {"input": args.input, "output": args.output, "overwrite": args.force}
    fields = args.console.run("recover", params, isolated=args.isolated)
    report = fields["report"]
    text = "\n".join([*wrote(fields), *report_lines(report)])
    if not report["lost"]:
        return int(args.console.done(fields, text))
    if not args.console.as_json:
        args.console.note(text)
    error = PartLostError(
        f"{len(report['lost'])} of {report['blocks']} blocks of {args.input} could not be saved",
        f"The others are written; look for a better copy before you rely on {args.output}.",
    )
    return int(args.console.fail(error, None, fields))


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
    if report["proved"]:
        proof = ["every voxel is proved to be as it was written"]
    elif lost:
        proof = []
    else:
        proof = [
            "not proved: the voxels do not have the file's SHA-256 (another machine may decode"
            " the last bit of a lossy file differently; of a lossless one it is damage)"
        ]
    return [*lines, *report["notes"], *proof]

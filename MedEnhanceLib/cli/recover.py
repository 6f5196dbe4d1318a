"""medenhance recover: what is left of a damaged .ucv."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import Subparsers, add_force, add_job_options, new_command
from MedEnhanceLib.cli.words import pairs, wrote


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
    return int(args.console.done(fields, "\n".join([*wrote(fields), pairs(fields["report"])])))

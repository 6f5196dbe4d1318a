"""medenhance inspect: the card of a volume, a series or a .ucv."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import Subparsers, add_job_options, new_command
from MedEnhanceLib.cli.words import pairs


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "inspect",
        summary="show what a volume, a DICOM folder or a .ucv holds",
        description="Show the card of a volume: size, spacing, orientation, type, range, history.\n"
        "A .ucv is not decoded for it.",
        example="medenhance inspect scan.nii.gz",
    )
    parser.add_argument("input", metavar="PATH", help="a volume: file, DICOM folder or .ucv")
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and print the card."""
    fields = args.console.run("inspect", {"input": args.input}, isolated=args.isolated)
    return int(args.console.done(fields, pairs(fields["card"])))

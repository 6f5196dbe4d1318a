"""medenhance convert: any volume we read, into any we write."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import Subparsers, add_force, add_job_options, new_command
from MedEnhanceLib.cli.words import inline, wrote


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "convert",
        summary="read any volume, DICOM folders too, and write it as OUTPUT's ending says",
        description="Convert a volume. Voxels and geometry are kept.",
        example="medenhance convert dicom-folder/ scan.nii.gz",
    )
    parser.add_argument("input", metavar="INPUT", help="a volume: file, DICOM folder or .ucv")
    parser.add_argument("output", metavar="OUTPUT", help=".nii.gz, .nii, .nrrd or .mha")
    parser.add_argument(
        "--series", metavar="UID", help="which series of a DICOM folder that holds several"
    )
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what came out."""
    params = {
        "input": args.input,
        "output": args.output,
        "series": args.series,
        "overwrite": args.force,
    }
    fields = args.console.run("convert", params, isolated=args.isolated)
    shape = f"shape {inline(fields['shape'])}, {fields['dtype']}"
    return int(args.console.done(fields, "\n".join([*wrote(fields), shape])))

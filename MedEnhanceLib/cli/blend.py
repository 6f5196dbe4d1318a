"""medenhance blend: an enhanced volume at another strength, without running the model again."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_force,
    add_input,
    add_job_options,
    input_params,
    new_command,
)
from MedEnhanceLib.cli.series import run_on_series
from MedEnhanceLib.cli.words import wrote


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "blend",
        summary="give an enhanced volume another strength, at once",
        description="Blend a volume with its enhancement: INPUT + S · (ENHANCED − INPUT). It\n"
        "gives the voxels of enhance --strength S, without running the model again.",
        example="medenhance blend scan.nii.gz better.nii.gz half.nii.gz --strength 0.5",
    )
    add_input(parser)
    parser.add_argument("enhanced", metavar="ENHANCED", help="what enhance made of INPUT")
    parser.add_argument("output", metavar="OUTPUT", help=".nii.gz, .nii, .nrrd or .mha")
    parser.add_argument(
        "--strength",
        type=float,
        required=True,
        metavar="S",
        help="share of the correction, 0 (the input) to 1 (the enhanced volume) and 1.5",
    )
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what came out."""
    params = {
        **input_params(args),
        "enhanced": args.enhanced,
        "output": args.output,
        "strength": args.strength,
        "overwrite": args.force,
    }
    fields = run_on_series(args, "blend", params)
    return int(args.console.done(fields, "\n".join(wrote(fields))))

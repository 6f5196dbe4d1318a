"""medenhance train: a model of one's own."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import Subparsers, add_job_options, new_command, read_config
from MedEnhanceLib.cli.words import wrote

METHODS = ("hqg", "head")
PRESETS = ("smoke", "cpu", "full")


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "train",
        summary="train an enhancer or a segmentation head",
        description="Train a model on a folder of volumes. A training that was stopped goes on\n"
        "from its checkpoint when it is started again with the same OUT.",
        example="medenhance train hqg --preset cpu --data volumes/ --out runs/mine",
    )
    parser.add_argument("method", choices=METHODS, help="hqg: an enhancer; head: segmentation")
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        help="smoke: seconds, for tests; cpu: within an hour on two cores; full: one GPU"
        " (default: what --config says, else cpu)",
    )
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")
    parser.add_argument("--data", required=True, metavar="DIR", help="the folder of volumes")
    parser.add_argument("--out", required=True, metavar="DIR", help="checkpoint and model go here")
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell where the model is."""
    config = read_config(args.config) if args.config else {}
    if args.preset:
        config["preset"] = args.preset
    params = {"method": args.method, "config": config, "data": args.data, "out": args.out}
    fields = args.console.run("train", params, isolated=args.isolated)
    return int(args.console.done(fields, "\n".join(wrote(fields))))

"""medenhance distill: a set of volumes to train on in place of a cohort."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from MedEnhanceLib.cli.parser import (
    Command,
    Parser,
    add_flags,
    declaration_of,
    params_of,
    read_config,
)
from MedEnhanceLib.cli.terminal import wrote
from MedEnhanceLib.errors import ConfigError

#: Fields of the configuration that are options.
_FIELDS = ("method", "volumes", "prior", "held_out", "seed", "device", "license")


def _declare_distill(parser: Parser) -> None:
    from MedEnhanceLib.training.spg.config import DistillConfig

    add_flags(parser, declaration_of("distill"), only=["cohort"])
    parser.add_argument("out", nargs="?", metavar="OUT", help="a folder for the result")
    parser.add_argument(
        "--estimate",
        action="store_true",
        help="estimate what a set of COHORT can gain over the shipped models, in half an hour on "
        "one core; nothing is written",
    )
    add_flags(parser, DistillConfig, only=_FIELDS)
    parser.add_argument(
        "--preset",
        choices=tuple(DistillConfig.PRESETS),
        help="of matching: smoke: for tests; quick: minutes a patient; cpu: half an hour; full: "
        "for a GPU (default: what --config says, else cpu)",
    )
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")
    add_flags(parser, declaration_of("distill"), only=["pattern", "modality", "overwrite"])


def _distill(args: argparse.Namespace) -> int:
    """Run the distillation, or the estimate of its gain."""
    from MedEnhanceLib.training.spg.config import DistillConfig

    if (args.out is None) != args.estimate:
        if args.out:
            raise ConfigError("OUT is given with --estimate, which writes nothing", "Leave it out.")
        raise ConfigError("OUT is missing", "Name a new folder for the set, or add --estimate.")
    config = read_config(args.config) | params_of(args, DistillConfig)
    if args.preset:
        config["preset"] = args.preset
    job = "distill-estimate" if args.estimate else "distill"
    fields = args.console.run(job, params_of(args, declaration_of(job)) | {"config": config})
    text = fields["sentence"] if args.estimate else "\n".join(_lines(fields))
    return int(args.console.report(fields, text))


def _lines(fields: Mapping[str, Any]) -> list[str]:
    headline = str((fields.get("audit") or {}).get("summary", "none")).partition("\n\n")[0]
    outputs, secret = fields["outputs"], fields["outputs"].get("confidential")
    note = {"": "nothing changed in", "license": "stated another license in"}.get(fields["change"])
    return [
        *([f"{note} {outputs['output']}"] if note else wrote(fields)),
        *(["the confidential folder shows and names patients: do not share it"] if secret else []),
        f"volumes: {fields['volumes']}; patients used: {fields['patients']}, held out: "
        f"{fields['held_out']}",
        f"audit: {headline} Details: {Path(outputs['output'], 'PRIVACY.md')}",
    ]


COMMAND = Command(
    name="distill",
    description="Distill the CT or MR of a cohort into a set of clean volumes, on which an\n"
    "enhancer and thin slices learn (medenhance train hqg|slices --data OUT). COHORT is a\n"
    "folder with a folder for each patient (or a file each), or a table with the columns\n"
    "patient and path.\n"
    "The same command continues a distillation that was stopped.\n"
    "OUT/PRIVACY.md states what OUT reveals of the patients; it is no proof of privacy.",
    example="medenhance distill patients/ distilled/ --method statistics",
    declare=_declare_distill,
    run=_distill,
)

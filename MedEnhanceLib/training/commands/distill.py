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
from MedEnhanceLib.runtime.texts import Text

#: Fields of the configuration that are options.
_FIELDS = ("method", "volumes", "prior", "held_out", "seed", "device", "license")


def _declare_distill(parser: Parser) -> None:
    from MedEnhanceLib.training.spg.config import DistillConfig

    add_flags(parser, declaration_of("distill"), only=["cohort", "out"])
    add_flags(parser, DistillConfig, only=_FIELDS)
    parser.add_argument(
        "--preset",
        choices=tuple(DistillConfig.PRESETS),
        help="of matching: smoke: for tests; quick: seconds a patient; cpu: minutes; full: "
        "for a GPU (default: what --config says, else cpu)",
    )
    parser.add_argument("--config", metavar="FILE", help="options as JSON, on top of the preset")
    add_flags(parser, declaration_of("distill"), only=["pattern", "modality", "overwrite"])


def _distill(args: argparse.Namespace) -> int:
    """Run the distillation."""
    from MedEnhanceLib.training.spg.config import DistillConfig

    config = read_config(args.config) | params_of(args, DistillConfig)
    if args.preset:
        config["preset"] = args.preset
    params = params_of(args, declaration_of("distill")) | {"config": config}
    fields = args.console.run("distill", params)
    return int(args.console.report(fields, "\n".join(_lines(fields))))


def _lines(fields: Mapping[str, Any]) -> list[str]:
    verdict = Text.from_json((fields.get("audit") or {}).get("verdict", "none."))
    outputs, secret = fields["outputs"], fields["outputs"].get("confidential")
    note = {"": "nothing changed in", "license": "stated another license in"}.get(fields["change"])
    return [
        *([f"{note} {outputs['output']}"] if note else wrote(fields)),
        *(["the confidential folder shows and names patients: do not share it"] if secret else []),
        f"volumes: {fields['volumes']}; patients used: {fields['patients']}, held out: "
        f"{fields['held_out']}",
        f"audit: {verdict} Details: {Path(outputs['output'], 'PRIVACY.md')}",
    ]


COMMAND = Command(
    name="distill",
    description="Distill the CT or MR of a cohort into a set of clean volumes, from\n"
    "which networks learn (medenhance train slices|hqg --data OUT). COHORT is a\n"
    "folder with a folder for each patient (or a file each), or a table with the columns\n"
    "patient and path.\n"
    "The same command continues a distillation that was stopped.\n"
    "OUT/PRIVACY.md states what OUT reveals of the patients; it is no proof of privacy.",
    example="medenhance distill patients/ distilled/ --method statistics",
    declare=_declare_distill,
    run=_distill,
)

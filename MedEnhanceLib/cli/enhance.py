"""medenhance enhance and segment: models applied to a volume."""

from __future__ import annotations

import argparse
from typing import Any

from MedEnhanceLib.cli.parser import (
    Command,
    Parser,
    declaration_of,
    params_of,
    repeated,
    typed,
)
from MedEnhanceLib.cli.terminal import job_lines
from MedEnhanceLib.core.findings import REMEDIES, describe


def _add_labels(parser: Parser) -> None:
    parser.add_argument(
        "--segment",
        metavar="FILE",
        nargs="?",
        const="",
        dest="labels",
        help="segment the enhanced volume as well, into this file (default: beside OUTPUT)",
    )


def _enhance_params(args: argparse.Namespace) -> dict[str, Any]:
    params = params_of(args, declaration_of("enhance"))
    if args.labels is not None:
        params |= {"segment": True, "segmentation_output": args.labels or None}
    return params


def _enhance(args: argparse.Namespace) -> int:
    """Run the job; say first what it found, and what to do if that is uncertain."""
    fields = args.console.run("enhance", _enhance_params(args))
    first, *others = job_lines(fields)
    found = describe(fields.get("measured") or {}, fields.get("strength", 1.0))
    found = [line.given(command=typed(args, "noise"), run=repeated(args)) for line in found]
    head = [*found[:1], *(line for line in found if line.key in REMEDIES)]
    lines = [*map(str, head), first, *(str(line) for line in found if line not in head)]
    lines += [*fields.get("limits", ()), *others]
    return int(args.console.report(fields, "\n".join(filter(None, lines))))


ENHANCE = Command(
    name="enhance",
    summary="reduce noise of a volume; bias field and thick slices on request",
    description="Measure and remove noise; --task and --correct-bias-field ask for more. It\n"
    "takes seconds to minutes on a CPU, --task slices many minutes. The grid is kept,\n"
    "except with the task slices. A manifest (OUTPUT.json) records inputs and settings.\n"
    "With --dicom the folder OUTPUT gets a derived series, and segmentation and uncertainty as\n"
    "DICOM objects.",
    example="medenhance enhance scan.nii.gz better.nii.gz --correct-bias-field --report report",
    extra=_add_labels,
    run=_enhance,
)

SEGMENT = Command(
    name="segment",
    summary="label the tissues of a volume",
    description="Segment a volume with a segmentation model, on the volume's grid. With --dicom\n"
    "the labels become a DICOM segmentation.",
    example="medenhance segment better.nii.gz labels.nii.gz",
    lines=job_lines,
)

"""medenhance compress, decompress and recover: the compressed container (.ucv)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import Command, Parser, declaration_of, params_of
from MedEnhanceLib.cli.terminal import job_lines, size, slices_of, wrote
from MedEnhanceLib.errors import ConfigError, MedEnhanceError
from MedEnhanceLib.runtime.text import loss_text


def _compress_lines(fields: dict[str, Any]) -> list[str]:
    from MedEnhanceLib.unicompress.blocks import (
        damage_text,  # imports numpy, which is slow for help
    )

    checked = "read back and verified" if fields["verified"] else "not verified"
    loss = damage_text(fields["largest_loss"])
    return [
        *wrote(fields),
        f"{size(fields['raw_bytes'])} of voxels → {size(fields['file_bytes'])}: "
        f"{fields['ratio']:.2f} times smaller",
        f"{loss_text(fields)}; {checked}",
        *[loss][: bool(loss)],
    ]


def add_region(parser: Parser) -> None:
    """Add the option --region, which `parse_region` reads."""
    parser.add_argument(
        "--region",
        metavar="K,J,I",
        help="slices, rows, columns as start:stop, from 0, stop excluded, negative from the end "
        "(--region=-5:,:,:); an empty side takes all (a sequence has its frames first)",
    )


def _decompress_params(args: argparse.Namespace) -> dict[str, Any]:
    region = {} if args.region is None else {"region": parse_region(args.region)}
    return params_of(args, declaration_of("decompress")) | region


def parse_region(text: str) -> list[list[int | None] | None]:
    """Parse "40:60,:,100:" to [[40, 60], None, [100, None]]; ConfigError for anything else."""
    region: list[list[int | None] | None] = []
    for axis in text.split(","):
        ends = re.fullmatch(r"\s*(-?[0-9]+)?\s*:\s*(-?[0-9]+)?\s*", axis)
        if ends is None:
            raise ConfigError(
                f"--region {text!r}: {axis!r} is not start:stop",
                "For example: --region 40:60,:,100:228",
            )
        start, stop = (int(end) if end else None for end in ends.groups())
        region.append(None if start is None and stop is None else [start, stop])
    return region


class PartLostError(MedEnhanceError):
    """A result of which a part could not be saved."""

    code, exit_status = "incomplete", 7


def _recover(args: argparse.Namespace) -> int:
    """Run the job and report the outcome; lost blocks decide the exit status."""
    params = params_of(args, declaration_of("recover"))
    fields = args.console.run("recover", params)
    report = fields["report"]
    text = "\n".join([*wrote(fields), *report_lines(report)])
    fault = PartLostError(
        f"{len(report['lost'])} of {report['blocks']} blocks of {args.input} could not be saved",
        f"The others are written; look for a better copy before you rely on {args.output}.",
    )
    return int(args.console.report(fields, text, fault if report["lost"] else None))


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """Describe each lost block, and whether the others are proved to be equal."""
    lost = report["lost"]
    lines = [f"all {report['blocks']} blocks are intact"]
    if lost:
        lines = [
            f"{len(lost)} of {report['blocks']} blocks are lost: {report['lost_voxels']:,} voxels,"
            f" filled with {report['fill_value']:g}, in {slices_of(lost)}"
        ]
    for block in lost:
        ends = zip(block["start"], block["stop"], strict=True)
        place = ", ".join(f"{start}:{stop}" for start, stop in ends)
        lines.append(f"  block {block['block']} [{place}]: {block['reason']}")
    lines += report["notes"]
    if report["proved"]:
        lines.append("every voxel equals what was written (SHA-256)")
    elif not lost:
        lines.append(
            "not proved: the voxels differ from the file's SHA-256 (damage if it is lossless; the "
            "last bit of a lossy file may differ between machines)"
        )
    return lines


COMPRESS = Command(
    name="compress",
    summary="write a volume as a small .ucv within a guaranteed error bound",
    description="Compress a volume. The file is read back and verified before it takes its\n"
    "place; the source is never touched.",
    example="medenhance compress scan.nii.gz scan.ucv --max-error 2",
    lines=_compress_lines,
)

DECOMPRESS = Command(
    name="decompress",
    summary="read a .ucv, whole or a region",
    description="Decode a .ucv into a volume. A region reads only the chunks it needs,\n"
    "and its geometry follows the crop.",
    example="medenhance decompress scan.ucv part.nii.gz --region 40:60,:,100:228",
    extra=add_region,
    params=_decompress_params,
    lines=job_lines,
)

RECOVER = Command(
    name="recover",
    summary="save what is intact in a damaged .ucv",
    description="Decode every intact block of a damaged .ucv, and report what is missing; a mask\n"
    "beside OUTPUT marks it. FILE is not changed.\n"
    "Exit status: 0 no block is lost; 7 some blocks are lost, OUTPUT is written; 6 no block\n"
    "can be read, nothing is written.",
    example="medenhance recover damaged.ucv rescued.nii.gz",
    run=_recover,
)

"""medenhance compress, decompress and recover: the compressed container (.ucv)."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import Command, Parser, declaration_of, params_of
from MedEnhanceLib.cli.text import job_lines, size, slices_of, wrote
from MedEnhanceLib.errors import ConfigError, MedEnhanceError


def _add_estimate(parser: Parser) -> None:
    output = parser.add_argument(
        "output",
        metavar="OUTPUT",
        help="a name that ends in .ucv; an address too (s3://); not needed with --estimate",
    )
    parser.add_argument(
        "--estimate",
        action=_without(output),
        help="estimate size and quality from a few blocks, in seconds",
    )


def _without(positional: argparse.Action) -> type[argparse.Action]:
    """The action of a switch beside which a positional argument may be left out.

    Not by nargs="?": argparse would take that as left out wherever an option stands before it.
    """

    class Switch(argparse.Action):
        def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
            super().__init__(option_strings, dest, nargs=0, default=False, **options)

        def __call__(self, _parser: object, namespace: argparse.Namespace, *_: object) -> None:
            positional.required = False
            setattr(namespace, self.dest, True)

    return Switch


def _compress(args: argparse.Namespace) -> int:
    if args.estimate:
        params = params_of(args, declaration_of("estimate"))
        fields = args.console.run("estimate", params, isolated=args.isolated)
        text = "\n".join(_estimate_lines(fields, params["config"]))
        return int(args.console.done({"estimated": True, **fields}, text))
    params = params_of(args, declaration_of("compress"))
    fields = args.console.run("compress", params, isolated=args.isolated)
    return int(args.console.done(fields, "\n".join([*wrote(fields), *_guarantee_lines(fields)])))


def _guarantee_lines(fields: dict[str, Any]) -> list[str]:
    psnr, ssim = fields.get("psnr"), fields.get("ssim")
    lossless = fields["max_error"] == 0
    kept = (
        "every voxel is equal"
        if lossless
        else f"largest error {fields['max_error']:g}"
        + (f", PSNR {psnr:.1f} dB" if psnr else "")
        + (f", SSIM {ssim:.4f}" if ssim else "")
    )
    if fields.get("noise"):
        kept += f" (noise {fields['noise']:.3g} where it is quietest)"
    return [
        f"{size(fields['raw_bytes'])} → {size(fields['file_bytes'])}: "
        f"{fields['ratio']:.2f} times smaller",
        f"{kept}; {'read back and verified' if fields['verified'] else 'not verified'}",
    ]


def _estimate_lines(fields: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The size, what it loses, and how much of the volume says so."""
    blocks = "1 block" if fields["blocks"] == 1 else f"{fields['blocks']} blocks"
    return [
        f"{size(fields['raw_bytes'])} → about {size(fields['file_bytes'])}: "
        f"about {fields['ratio']:.2f} times smaller",
        _estimated_loss(fields, config),
        f"estimated from {blocks}, {fields['share']:.1%} of the voxels, in "
        f"{fields['seconds']:.1f} s; nothing was written",
    ]


def _estimated_loss(fields: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What is guaranteed is known; all else was seen in the blocks that were coded."""
    if fields["lossless"]:
        return "every voxel would be equal"
    largest, psnr = f"largest error {fields['max_error']:g} or more", fields["psnr"]
    if "max_error" in config:
        largest = f"largest error at most {config['max_error']:g}"
    if "psnr" in config:
        return f"PSNR at least {config['psnr']:g} dB, {largest}"
    least = [f"SSIM at least {config['ssim']:g}"] if "ssim" in config else []
    return ", ".join([*least, *([f"PSNR about {psnr:.1f} dB"] if psnr else []), largest])


def _add_region(parser: Parser) -> None:
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
    """Turn "40:60,:,100:" into [[40, 60], None, [100, None]]; ConfigError for anything else."""
    return [_parse_axis(axis.strip(), text) for axis in text.split(",")]


def _parse_axis(axis: str, text: str) -> list[int | None] | None:
    ends = axis.split(":")
    is_range = len(ends) == 2 and all(re.fullmatch(r"\s*(-?[0-9]+)?\s*", end) for end in ends)
    if not is_range:
        raise ConfigError(
            f"--region {text!r}: {axis!r} is not start:stop",
            "For example: --region 40:60,:,100:228",
        )
    start, stop = (int(end) if end.strip() else None for end in ends)
    return None if start is None and stop is None else [start, stop]


class PartLostError(MedEnhanceError):
    """Something was saved, and something was not: neither done nor failed."""

    code, exit_status = "incomplete", 7


def _recover(args: argparse.Namespace) -> int:
    """Run the job and report what was saved; blocks that are lost decide the exit status."""
    from MedEnhanceLib.jobs.addresses import shown

    params = params_of(args, declaration_of("recover"))
    fields = args.console.run("recover", params, isolated=args.isolated)
    report = fields["report"]
    text = "\n".join([*wrote(fields), *report_lines(report)])
    fault = PartLostError(
        f"{len(report['lost'])} of {report['blocks']} blocks of {shown(args.input)} could "
        "not be saved",
        f"The others are written; look for a better copy before you rely on {shown(args.output)}.",
    )
    return int(args.console.done(fields, text, fault if report["lost"] else None))


def report_lines(report: Mapping[str, Any]) -> list[str]:
    """What was lost, block by block, and whether the rest is proved."""
    lost = report["lost"]
    if lost:
        lines = [
            f"{len(lost)} of {report['blocks']} blocks are lost: {report['lost_voxels']:,} voxels,"
            f" filled with {report['fill_value']:g}, in {slices_of(lost)}"
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


COMPRESS = Command(
    name="compress",
    summary="write a volume as a small .ucv within a guaranteed error bound",
    description="Compress a volume. The file is read back and verified before it takes its\n"
    "place; the source is never touched. With --estimate nothing is written.",
    example="medenhance compress scan.nii.gz scan.ucv --max-error 2",
    without=("output",),
    extra=_add_estimate,
    run=_compress,
)

DECOMPRESS = Command(
    name="decompress",
    summary="read a .ucv, whole or a region",
    description="Decode a .ucv into a volume. A region reads only the chunks it needs,\n"
    "and its geometry follows the crop.",
    example="medenhance decompress scan.ucv part.nii.gz --region 40:60,:,100:228",
    extra=_add_region,
    params=_decompress_params,
    lines=job_lines,
)

RECOVER = Command(
    name="recover",
    summary="save what is intact in a damaged .ucv",
    description="Repair a damaged .ucv from its parity, decode every intact block, and say what\n"
    "is missing; a mask beside OUTPUT shows where. FILE stays as it is; OUTPUT.ucv is a\n"
    "sound copy of it, where parity repairs all damage.\n"
    "Exit status 0 where no block is lost, 7 where OUTPUT was written and some are,\n"
    "6 where none could be read and nothing was written.",
    example="medenhance recover damaged.ucv rescued.nii.gz",
    run=_recover,
)

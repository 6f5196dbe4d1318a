"""medenhance compress: a smaller file that keeps a promise."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from MedEnhanceLib.cli.parser import (
    Subparsers,
    add_force,
    add_input,
    add_job_options,
    input_params,
    new_command,
)
from MedEnhanceLib.cli.series import run_on_series
from MedEnhanceLib.cli.words import size, wrote


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "compress",
        summary="write a volume as a small .ucv that keeps a promise",
        description="Compress a volume. The file is read back and its promise verified before it\n"
        "takes its place; the source is never touched. With --estimate nothing is written.",
        example="medenhance compress scan.nii.gz scan.ucv --max-error 2",
    )
    add_input(parser)
    output = parser.add_argument(
        "output", metavar="OUTPUT", help="a name that ends in .ucv; not needed with --estimate"
    )
    add_compress_options(parser)
    parser.add_argument(
        "--estimate",
        action=_without(output),
        help="tell about what size and quality it would be, from a few blocks, in seconds",
    )
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


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


def add_compress_options(parser: argparse.ArgumentParser) -> None:
    """The promise and the pace; `batch` takes them too."""
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--lossless", action="store_true", help="every voxel comes back equal")
    mode.add_argument(
        "--max-error",
        type=float,
        metavar="E",
        help="no voxel off by more than E, in the volume's units (HU for CT)",
    )
    mode.add_argument(
        "--ratio", type=float, metavar="R", help="at most 1/R of the raw bytes, at the best quality"
    )
    mode.add_argument(
        "--psnr", type=float, metavar="DB", help="at least DB decibels against the full range"
    )
    mode.add_argument(
        "--ssim", type=float, metavar="S", help="at least this structural similarity, in 3D"
    )
    parser.add_argument(
        "--speed",
        choices=("normal", "fast", "slow"),
        default="normal",
        help="slow: of ratios and qualities, the last 0.2 dB in five times the time "
        "(default: normal)",
    )
    parser.add_argument(
        "--block-type",
        choices=("auto", "implicit"),
        default="auto",
        help="of --ratio: auto takes the best, implicit the implicit network's (default: auto)",
    )
    parser.add_argument(
        "--fit",
        type=float,
        metavar="S",
        help="of --ratio, with implicit blocks or from 256 on: refine their codes for S seconds",
    )
    parser.add_argument(
        "--embed-model",
        action="store_true",
        help="put the models that the file needs into it, so that it opens anywhere",
    )
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="0 takes all (default: 0)"
    )


def compress_config(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of CompressConfig that the options say."""
    config: dict[str, Any] = {"speed": args.speed, "threads": args.threads}
    if args.embed_model:
        config["embed_model"] = True
    if args.block_type != "auto":
        config["block_type"] = args.block_type
    if args.fit:
        config["fit"] = args.fit
    if args.lossless:
        return config | {"lossless": True}
    if args.max_error is not None:
        return config | {"max_error": args.max_error}
    for mode in ("ratio", "psnr", "ssim"):
        if (value := getattr(args, mode)) is not None:
            return config | {mode: value}
    return config


def run(args: argparse.Namespace) -> int:
    """Run the job and tell how small the file is and what it keeps."""
    asked = {**input_params(args), "config": compress_config(args)}
    if args.estimate:
        fields = run_on_series(args, "estimate", asked)
        text = "\n".join(_estimate_lines(fields, asked["config"]))
        return int(args.console.done({"estimated": True, **fields}, text))
    params = {**asked, "output": args.output, "overwrite": args.force}
    fields = run_on_series(args, "compress", params)
    return int(args.console.done(fields, "\n".join([*wrote(fields), *_promise_lines(fields)])))


def _promise_lines(fields: dict[str, Any]) -> list[str]:
    psnr, ssim = fields.get("psnr"), fields.get("ssim")
    lossless = fields["max_error"] == 0
    kept = (
        "every voxel is equal"
        if lossless
        else f"largest error {fields['max_error']:g}"
        + (f", PSNR {psnr:.1f} dB" if psnr else "")
        + (f", SSIM {ssim:.4f}" if ssim else "")
    )
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
        f"told from {blocks}, {fields['share']:.1%} of the voxels, in {fields['seconds']:.1f} s; "
        "nothing was written",
    ]


def _estimated_loss(fields: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """What is promised is known; all else was seen in the blocks that were coded."""
    if fields["lossless"]:
        return "every voxel would be equal"
    largest, psnr = f"largest error {fields['max_error']:g} or more", fields["psnr"]
    if "max_error" in config:
        largest = f"largest error at most {config['max_error']:g}"
    if "psnr" in config:
        return f"PSNR at least {config['psnr']:g} dB, {largest}"
    told = [f"SSIM at least {config['ssim']:g}"] if "ssim" in config else []
    return ", ".join([*told, *([f"PSNR about {psnr:.1f} dB"] if psnr else []), largest])

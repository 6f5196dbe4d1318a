"""medenhance degrade: simulated damage, seeded and replayable."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

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
from MedEnhanceLib.errors import ConfigError

if TYPE_CHECKING:
    from MedEnhanceLib.degrade import Degradation


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "degrade",
        summary="add simulated noise, blur or shading to a volume",
        description="Damage a volume by the physics of its modality. Several kinds are applied in\n"
        "the order given; the same seed gives the same voxels.",
        example="medenhance degrade scan.nii.gz worse.nii.gz --bias 0.3 --rician 0.1 --seed 7",
    )
    add_input(parser)
    parser.add_argument("output", metavar="OUTPUT", help=".nii.gz, .nii, .nrrd or .mha")
    for name, (metavar, words) in _KINDS.items():
        parser.add_argument(
            f"--{name}", action=_InOrder, type=float, metavar=metavar, dest="steps", help=words
        )
    parser.add_argument(
        "--composite",
        action=_InOrder,
        nargs=0,
        dest="steps",
        help="the benchmarks' composite: bias 0.3, blur 0.8, Rician 0.07 (MR)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    add_force(parser)
    add_job_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the job and tell what was done."""
    if not args.steps:
        raise ConfigError("no damage was named", "For example: --rician 0.1")
    params = {
        **input_params(args),
        "output": args.output,
        "steps": steps_from_options(args.steps, args.seed),
        "overwrite": args.force,
    }
    fields = run_on_series(args, "degrade", params)
    return int(args.console.done(fields, "\n".join(wrote(fields))))


def steps_from_options(named: Sequence[tuple[str, float]], seed: int) -> list[dict[str, Any]]:
    """The degradations as JSON; each one in a row gets a seed of its own."""
    from MedEnhanceLib.degrade import Bias, Blur, LowDose, Rician, standard_composite

    make: dict[str, Callable[[float, int], Degradation]] = {
        "rician": Rician,
        "low-dose": lambda photons, at: LowDose(photons, _ELECTRONIC, at),
        "blur": Blur,
        "bias": Bias,
        "composite": lambda _, at: standard_composite(at),
    }
    # Steps are seeds apart that a composite's own steps do not use.
    return [
        make[name](strength, seed + 10 * at).to_json() for at, (name, strength) in enumerate(named)
    ]


class _InOrder(argparse.Action):
    """Keeps the options in the order in which they were given: damage does not commute."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        step = ((option_string or "").removeprefix("--"), values or 0.0)
        namespace.steps = [*(namespace.steps or []), step]


_KINDS = {
    "rician": ("LEVEL", "noise of magnitude MR: σ as a share of the maximum, for example 0.1"),
    "low-dose": ("PHOTONS", "CT with this many photons a ray, for example 5e3"),
    "blur": ("PIXELS", "Gaussian blur: σ in pixels, for example 1"),
    "bias": ("STRENGTH", "smooth shading: ± this share, for example 0.3 (MR)"),
}
#: σ of the electronic noise, in photons, of a usual detector.
_ELECTRONIC = 5.0

"""What the parsers of all commands share."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from MedEnhanceLib.errors import ConfigError

#: What `add_subparsers` gives; argparse has no public name for it.
Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"


class Parser(argparse.ArgumentParser):
    """Raises ConfigError instead of leaving, and takes no abbreviated options."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(allow_abbrev=False, **options)
        self._given: list[str] = []

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's, but what is left over is refused here, where its like are known."""
        self._given = list(args or ())
        parsed, rest = super().parse_known_args(args, namespace)
        for word in rest:
            if word.startswith("-"):
                self._refuse_option(word)
        if rest:
            self.error(f"too much was given: {' '.join(rest)}")
        return parsed, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            what = action.metavar or action.dest
            if isinstance(action, argparse._SubParsersAction):
                self._refuse(f"there is no {str(what).lower()} {value!r}", str(value), choices)
            names = "/".join(action.option_strings) or what
            self._refuse(f"{names} cannot be {value!r}", str(value), choices)

    def error(self, message: str) -> NoReturn:
        """A wrong use of the command line; a misspelt option is its likeliest cause."""
        if self._subparsers is None:
            for word in self._given:
                if word.startswith("--") and word.partition("=")[0] not in self._options():
                    self._refuse_option(word)
        raise ConfigError(message, f"See: {self.prog} --help")

    def _options(self) -> list[str]:
        return [text for action in self._actions for text in action.option_strings]

    def _refuse_option(self, word: str) -> NoReturn:
        option = word.partition("=")[0]
        self._refuse(f"there is no option {option}", option, self._options())

    def _refuse(self, message: str, given: str, known: Sequence[str]) -> NoReturn:
        near = difflib.get_close_matches(given, known, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        raise ConfigError(message, f"{meant}See: {self.prog} --help")


def new_command(
    subparsers: Subparsers, name: str, *, summary: str, description: str, example: str
) -> Parser:
    """A command's parser; every one has a summary, a description and an example."""
    parser = subparsers.add_parser(
        name, help=summary, description=description, epilog=f"example:\n  {example}"
    )
    add_common(parser, default=argparse.SUPPRESS)
    return parser


def add_common(parser: argparse.ArgumentParser, *, default: Any) -> None:
    """Options that may stand before and after the command's name."""
    parser.add_argument(
        "--json", action="store_true", default=default, help="print one JSON object on stdout"
    )
    parser.add_argument(
        "--debug", action="store_true", default=default, help="show the traceback of an error"
    )


def add_job_options(parser: argparse.ArgumentParser) -> None:
    """Options of commands that run a job."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="show a progress bar on stderr (default: on a terminal; elsewhere a line every 10 s)",
    )
    parser.add_argument(
        "--isolated",
        action="store_true",
        help="run in a process of its own, which can be killed without harm",
    )


def add_input(parser: argparse.ArgumentParser) -> None:
    """The volume to read, and what its file does not say."""
    parser.add_argument(
        "input",
        metavar="INPUT",
        help="a volume: a file, a .ucv, or DICOM: a folder, a file, a zip, a DICOMDIR",
    )
    parser.add_argument(
        "--series",
        metavar="S",
        help="which DICOM series of several: its number in the table of inspect, or its UID",
    )
    add_modality(parser)
    add_repairs(parser)


def add_modality(parser: argparse.ArgumentParser) -> None:
    """What a file does not say of itself, or says wrongly."""
    parser.add_argument(
        "--modality",
        metavar="M",
        help="CT, MR, PT, EM or OT, where the file says none or a wrong one",
    )


def add_repairs(parser: argparse.ArgumentParser) -> None:
    """What may be done to a series that no volume can be made of as it is."""
    parser.add_argument(
        "--fix-tilt",
        action="store_true",
        default=None,
        help="resample a DICOM series whose gantry was tilted to a rectangular grid",
    )
    parser.add_argument(
        "--fix-spacing",
        action="store_true",
        default=None,
        help="resample a DICOM series with gaps or uneven spacing to an even one, across the gaps",
    )


def input_params(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of a job that the options of `add_input` say."""
    return {
        "input": args.input,
        "series": args.series,
        "modality": args.modality,
        "fix_tilt": args.fix_tilt,
        "fix_spacing": args.fix_spacing,
    }


def add_force(parser: argparse.ArgumentParser) -> None:
    """Permission to replace outputs."""
    parser.add_argument("--force", action="store_true", help="replace existing outputs")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where the network runs."""
    parser.add_argument(
        "--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:N or mps"
    )


def add_background_options(parser: argparse.ArgumentParser, *, nice: bool) -> None:
    """How much a job of hours stands back for others; nice: what it does unasked."""
    parser.add_argument(
        "--nice",
        action=argparse.BooleanOptionalAction,
        default=nice,
        help=f"let other processes go first (default: {'on' if nice else 'off'})",
    )
    parser.add_argument(
        "--no-wait",
        action="store_true",
        help="end with an error where another long job has the GPU (default: wait for it)",
    )


def background_params(args: argparse.Namespace) -> dict[str, Any]:
    """The parameters of a job that the options of `add_background_options` say."""
    return {"nice": args.nice, "wait": not args.no_wait}


def read_config(path: str) -> dict[str, Any]:
    """The JSON object in a configuration file; raises ConfigError for anything else."""
    try:
        fields = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as cause:
        raise ConfigError(
            f"{path} cannot be read: {cause.strerror}", "Name a JSON file that exists."
        ) from cause
    except ValueError as cause:
        raise ConfigError(f"{path} is not JSON: {cause}", "Correct that place.") from cause
    if not isinstance(fields, dict):
        raise ConfigError(f"{path} does not hold a JSON object", 'Write {"option": value, …}.')
    return fields

"""- in place of a file: standard input and standard output."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from MedEnhanceLib.cli.console import Console, stdout_kept
from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.text import Names

STREAM = "-"
#: Commands that may read standard input, as the argument of that name.
_READING = {
    **dict.fromkeys(
        ("enhance", "segment", "compress", "decompress", "degrade", "convert", "inspect"), "input"
    ),
    "blend": "enhanced",
}
#: Commands that may write to standard output, and as what.
_WRITING = {"compress": ".ucv"} | dict.fromkeys(
    ("enhance", "segment", "blend", "decompress", "degrade", "convert"), ".nii.gz"
)
#: What help calls an argument.
_SHOWN = {("decompress", "input"): "FILE"}
#: How a file begins: place, bytes, and the ending of its kind.
_KINDS = (
    (0, b"UCV1", ".ucv"),
    (0, b"\x1f\x8b", ".nii.gz"),
    (0, b"NRRD", ".nrrd"),
    (0, b"ObjectType", ".mha"),
    (0, b"PK", ".zip"),
    (128, b"DICM", ".dcm"),
    (344, b"n+1\0", ".nii"),
    (4, b"n+2\0", ".nii"),
)
_LOOKED_AT = 348


def about_streams(command: str) -> str:
    """What the help of a command says of -."""
    read, written = _READING.get(command), _WRITING.get(command)
    parts = (
        [f"{_SHOWN.get((command, read), read.upper())} may be -: standard input."] if read else []
    )
    if written:
        parts.append(f"OUTPUT may be -: standard output, as {written}, without a manifest.")
    return "".join(f"\n{part}" for part in parts)


def is_streaming(args: argparse.Namespace) -> bool:
    """Whether - stands for any file of the command."""
    return STREAM in (getattr(args, name, None) for name in ("input", "enhanced", "output"))


def run_with_streams(args: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """Run a command with a copy of standard input, and send its output once it is complete.

    Raises ConfigError where the command has no use for a stream, or it is a terminal; InputError
    where standard input holds nothing that is read.
    """
    with ExitStack() as stack:
        for name in ("input", "enhanced"):
            if getattr(args, name, None) == STREAM:
                setattr(args, name, stack.enter_context(_standard_input(args, name)))
        if getattr(args, "output", None) != STREAM or getattr(args, "estimate", False):
            return run(args)
        _check_output(args)
        return _to_standard_output(args, run)


@contextmanager
def _standard_input(args: argparse.Namespace, name: str) -> Iterator[str]:
    """A file with what standard input holds, under the ending of its kind."""
    from MedEnhanceLib.jobs.addresses import fill
    from MedEnhanceLib.jobs.worker.workspace import Workspace
    from MedEnhanceLib.runtime.progress import Monitor

    if _READING.get(args.command) != name:
        raise ConfigError(f"{args.command} reads no standard input here", "Name a file.")
    if sys.stdin.isatty():
        raise ConfigError(
            f"{name.upper()} is -, and standard input is a terminal",
            "Lead a file there (< scan.nii.gz, or another command |), or name one.",
        )
    with Workspace() as workspace:
        copy = workspace.folder / "input"
        fill(copy, sys.stdin.buffer, "standard input", Monitor())
        named = copy.with_name(f"input{_ending(copy)}")
        copy.rename(named)
        args.console.names.add(named, "standard input")
        with Names(dict.fromkeys((str(named), named.name), "standard input")).in_errors():
            yield str(named)


def _ending(path: Path) -> str:
    with path.open("rb") as stream:
        begin = stream.read(_LOOKED_AT)
    if not begin:
        raise InputError("standard input is empty", "See the command that writes there.")
    for place, mark, ending in _KINDS:
        if begin[place:].startswith(mark):
            return ending
    raise InputError(
        "standard input is no volume: it begins like none of .nii.gz, .nii, .nrrd, .mha, .ucv, "
        "a zip or a DICOM file",
        "Name a file.",
    )


def _check_output(args: argparse.Namespace) -> None:
    if args.command not in _WRITING:
        raise ConfigError(f"{args.command} cannot write to standard output", "Name a file.")
    if args.json:
        raise ConfigError(
            "--json with OUTPUT -: standard output cannot have both", "Leave out one of them."
        )
    if getattr(args, "dicom", None):
        raise ConfigError("--dicom with OUTPUT -: a series is a folder", "Name a folder.")
    # What would lie beside OUTPUT has no place.
    for option, is_beside in (
        ("--segment", getattr(args, "labels", None) == ""),
        ("--uncertainty", getattr(args, "uncertainty", 0) and not args.uncertainty_output),
    ):
        if is_beside:
            name = option if option == "--segment" else "--uncertainty-output"
            raise ConfigError(f"{option} with OUTPUT -", f"Name its file: {name} FILE")


def _to_standard_output(args: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """What people read goes to standard error, and nothing to standard output but a whole file."""
    from MedEnhanceLib.jobs.worker.workspace import Workspace

    with stdout_kept() as stream, Workspace() as workspace:
        path = workspace.folder / f"output{_WRITING[args.command]}"
        args.output = str(path)
        console: Console = args.console
        console.names.add(path, "standard output")
        status = run(args)
        if status == 0:
            with path.open("rb") as file:
                shutil.copyfileobj(file, stream)
        return status

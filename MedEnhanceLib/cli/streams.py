"""- in place of a file: standard input and output of compress and decompress."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from MedEnhanceLib.errors import ConfigError, InputError
from MedEnhanceLib.runtime.text import Names

STREAM = "-"
#: What each of the commands writes to standard output.
_WRITTEN = {"compress": ".ucv", "decompress": ".nii.gz"}
#: How a volume that is compressed begins; anything else is an uncompressed NIfTI.
_BEGINNINGS = {b"\x1f\x8b": ".nii.gz", b"NRRD": ".nrrd", b"ObjectType": ".mha"}


def run_with_streams(args: argparse.Namespace, run: Callable[[argparse.Namespace], int]) -> int:
    """Run a command, with a copy of standard input where INPUT is -, and send a whole OUTPUT.

    Raises ConfigError for a stream that is a terminal, and for --json beside OUTPUT -; InputError
    where standard input is empty.
    """
    ending = _WRITTEN.get(args.command)
    takes_input = ending is not None and args.input == STREAM
    is_estimate = getattr(args, "estimate", False)  # which writes nothing
    gives_output = ending is not None and args.output == STREAM and not is_estimate
    if not (takes_input or gives_output):
        return run(args)
    from MedEnhanceLib.cli.console import stdout_kept
    from MedEnhanceLib.jobs.worker.workspace import Workspace

    if gives_output and args.json:
        raise ConfigError("--json and OUTPUT share standard output", "Leave out one of them.")
    with ExitStack() as stack:
        folder = stack.enter_context(Workspace()).folder
        if takes_input:
            source = _standard_input(folder, args.command)
            args.input = str(source)
            called = dict.fromkeys((str(source), source.name), "standard input")
            args.console.names.add(source, "standard input")
            stack.enter_context(Names(called).in_errors())
        if not gives_output:
            return run(args)
        stream = stack.enter_context(stdout_kept())
        target = folder / f"output{ending}"
        args.output = str(target)
        args.console.names.add(target, "standard output")
        status = run(args)
        if target.exists():
            with target.open("rb") as file:
                shutil.copyfileobj(file, stream)
        return status


def _standard_input(folder: Path, command: str) -> Path:
    """A file with what standard input holds, under the ending of its kind."""
    from MedEnhanceLib.jobs.addresses import fill
    from MedEnhanceLib.runtime.progress import Monitor

    if sys.stdin.isatty():
        raise ConfigError(
            "the input is -, and standard input is a terminal", "Lead a file there, or name one."
        )
    copy = folder / "input"
    if not fill(copy, sys.stdin.buffer, "standard input", Monitor()):
        raise InputError("standard input is empty", "See the command that writes there.")
    with copy.open("rb") as stream:
        begin = stream.read(16)
    endings = (ending for mark, ending in _BEGINNINGS.items() if begin.startswith(mark))
    ending = ".ucv" if command == "decompress" else next(endings, ".nii")
    return copy.rename(copy.with_suffix(ending))

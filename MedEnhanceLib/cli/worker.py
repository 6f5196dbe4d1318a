"""medenhance worker: jobs as JSON lines on stdin, events as JSON lines on stdout."""

from __future__ import annotations

import argparse

from MedEnhanceLib.cli.parser import Subparsers, new_command


def add_parser(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = new_command(
        subparsers,
        "worker",
        summary="run jobs that come in as JSON lines (for programs)",
        description="Read one JSON job per line on stdin and write JSON events, one per line, on\n"
        "stdout; nothing else goes there, with or without --json. The end of\n"
        "stdin stops the running job and the worker.",
        example="medenhance worker --idle-seconds 60",
    )
    parser.add_argument(
        "--idle-seconds",
        type=float,
        metavar="S",
        help="end when no job came for this long (default: 600)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until stdin ends."""
    from MedEnhanceLib.jobs.worker import worker

    options = [] if args.idle_seconds is None else ["--idle-seconds", str(args.idle_seconds)]
    return worker.main(options)

"""medenhance doctor and worker: a check of this machine, and jobs for other programs."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from MedEnhanceLib.cli.parser import Command, Parser, reader
from MedEnhanceLib.cli.terminal import columns, pairs, size
from MedEnhanceLib.core.options import About, Option
from MedEnhanceLib.errors import DependencyError, MedEnhanceError, ModelError
from MedEnhanceLib.jobs.worker import IDLE_SECONDS


def _run(args: argparse.Namespace) -> int:
    """Run the job and report what this machine has and lacks."""
    facts = args.console.run("doctor", {"loads": True})
    lacking = list(_shortcomings(facts))
    hints = [hint for _, hint in lacking]
    text, fault = _screen(facts), None
    if lacking:
        fault = lacking[0][0](
            "something that MedEnhance needs is missing or broken", "\n".join(hints)
        )
    else:
        text += "\n\nNothing is missing."
    return int(args.console.report({**facts, "missing": hints}, text, fault))


def _shortcomings(facts: Mapping[str, Any]) -> Iterator[tuple[type[MedEnhanceError], str]]:
    """Yield the kind of error and a sentence with its remedy for each missing thing."""
    absent = [row for row in facts["packages"] if not (row["extra"] or row["fits"])]
    if absent:
        names = " ".join(f"'{row['requirement']}'" for row in absent)
        lack = f"packages are missing or too old; install: python -m pip install {names}"
        yield DependencyError, lack
    yield from ((DependencyError, row["fault"]) for row in facts["packages"] if row["fault"])
    for row in facts["models"]:
        if not row["ok"]:
            yield ModelError, f"model {row['name']}: {row['message']}"
    if not facts["models"]:
        lack = "no models are installed; install MedEnhance again, or: medenhance models import"
        yield ModelError, lack


def _screen(facts: Mapping[str, Any]) -> str:
    """Format all facts for one screen."""
    memory, disk, python = facts["memory"], facts["disk"], facts["python"]
    rows = [(row["name"], _version_text(row), row["purpose"]) for row in facts["packages"]]
    machine = {
        "device": "\n".join(map(_device_text, facts["devices"])),
        "models run on": f"{facts['choice']['name']}: {facts['choice']['reason']}",
        "CPU": f"{facts['cpu_threads']} threads",
        "library": facts["native"],
        "memory": f"{size(memory['free'])} free of {size(memory['total'])}",
        "disk": f"{size(disk['free'])} free of {size(disk['total'])} ({disk['path']})",
        "model": "\n".join(map(_model_text, facts["models"])),
    }
    head = f"MedEnhance {facts['medenhance']} on Python {python['version']}"
    packages = columns(("package", "version", "for"), rows, left_aligned=3)
    return f"{head} ({python['executable']})\n\n{packages}\n\n{pairs(machine)}"


def _version_text(row: Mapping[str, Any]) -> str:
    if row["installed"] is None:
        return "not installed (optional)" if row["extra"] else "MISSING"
    fault = " TOO OLD" if not row["fits"] else " CANNOT BE LOADED" if row["fault"] else ""
    return f"{row['installed']}{fault}"


def _model_text(row: Mapping[str, Any]) -> str:
    if not row.get("origin"):  # not readable
        return f"{row['name']}: {row['message']}"
    source = f" from {row['imported_from']}" if row["imported_from"] else ""
    kind = f"{row['kind']} {row['modality']}, {row['origin']}{source}"
    return f"{row['name']} ({kind}): {row['message']}"


def _device_text(row: Mapping[str, Any]) -> str:
    text = f"{row['name']}: {row['what']}"
    if row.get("fault"):
        return f"{text}; it cannot be used: {row['fault']}"
    if row.get("total"):
        text += f", {size(row['free'])} free of {size(row['total'])}"
    return text


def _declare_worker(parser: Parser) -> None:
    parser.add_argument(
        "--idle-seconds",
        type=reader(
            Option("--idle-seconds", float, 0.0, About(low=0, high=1e9), is_optional=False)
        ),
        default=IDLE_SECONDS,
        metavar="S",
        help=f"stop after this many seconds without a job (default: {IDLE_SECONDS:g})",
    )


def _serve(args: argparse.Namespace) -> int:
    """Serve until stdin ends."""
    from MedEnhanceLib.jobs.worker import worker as serving

    return serving.main(args.idle_seconds)


DOCTOR = Command(
    name="doctor",
    summary="check Python, packages, devices, memory, disk and models",
    description="Show packages, devices and models on this machine, and what is missing.\n"
    "Exit status 4 if a package or a model is missing or broken.",
    example="medenhance doctor --json",
    declare=lambda _parser: None,
    run=_run,
)

WORKER = Command(
    name="worker",
    summary="run jobs that come in as JSON lines (for programs)",
    description="Read one JSON job per line on stdin and write JSON events, one per line, on\n"
    "stdout; nothing else goes there, with or without --json. The end of\n"
    "stdin stops the running job and the worker.",
    example="medenhance worker --idle-seconds 60",
    declare=_declare_worker,
    run=_serve,
)

"""medenhance doctor and worker: what this machine has and lacks, and jobs for other programs."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from MedEnhanceLib.cli.parser import Command, Parser
from MedEnhanceLib.cli.text import columns, size
from MedEnhanceLib.errors import DependencyError, MedEnhanceError, ModelError
from MedEnhanceLib.runtime.text import printable

_START_SECONDS = 60.0


def _run(args: argparse.Namespace) -> int:
    """Look at everything; a part that fails is reported and does not stop the rest."""
    from MedEnhanceLib import native
    from MedEnhanceLib.jobs.kinds.installation import find_out

    found = {
        **find_out(Path.cwd()),
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "native": native.describe(),
        "worker": worker(),
    }
    lacking = list(_shortcomings(found))
    hints = [hint for _, hint in lacking]
    text = _screen(found)
    if not lacking:
        return int(
            args.console.done(
                {**found, "missing": []}, f"{text}\n\nEverything that is needed is here."
            )
        )
    kind = lacking[0][0]
    fault = kind("something that MedEnhance needs is missing", "\n".join(hints))
    if not args.console.as_json:
        print(printable(f"{text}\n"), flush=True)
    return int(args.console.fail(fault, None, {**found, "missing": hints}))


def worker() -> dict[str, Any]:
    """Start a worker, and wait for its greeting."""
    began = time.monotonic()
    library = str(Path(__file__).parents[2])
    paths = [library, *filter(None, [os.environ.get("PYTHONPATH")])]
    try:
        ran = subprocess.run(
            [sys.executable, "-P", "-m", "MedEnhanceLib", "worker"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            text=True,
            timeout=_START_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        return {"ok": False, "message": str(error)}
    if '"event": "hello"' not in ran.stdout:
        return {"ok": False, "message": ran.stderr.strip()[-500:] or f"status {ran.returncode}"}
    return {"ok": True, "message": f"answered in {time.monotonic() - began:.1f} s"}


def _shortcomings(found: Mapping[str, Any]) -> Iterator[tuple[type[MedEnhanceError], str]]:
    """A sentence with its remedy for each thing that is missing, and what kind of error it is."""
    absent = [row for row in found["packages"] if row["required"] and not row["ok"]]
    if absent:
        names = " ".join(f"'{row['requirement']}'" for row in absent)
        yield (
            DependencyError,
            f"packages are missing or too old; install: python -m pip install {names}",
        )
    for row in found["models"]:
        if not row["ok"]:
            yield ModelError, f"model {row['name']}: {row['message']}"
    if not found["models"]:
        yield (
            ModelError,
            "no models are installed; install MedEnhance again, or: medenhance models import",
        )
    if not found["worker"]["ok"]:
        yield MedEnhanceError, f"the worker does not answer: {found['worker']['message']}"


def _screen(found: Mapping[str, Any]) -> str:
    """Everything on one screen."""
    memory, disk = found["memory"], found["disk"]
    rows = [(row["package"], _version_text(row), row["purpose"]) for row in found["packages"]]
    lines = [
        f"MedEnhance {found['medenhance']} on Python {found['python']['version']}"
        f" ({found['python']['executable']})",
        "",
        columns(("package", "version", "for"), rows, left=3),
        "",
        *(f"device   {_device_text(row)}" for row in found["devices"]),
        f"models   run on {found['choice']['name']}: {found['choice']['reason']}",
        f"CPU      {found['cpu_threads']} threads",
        f"library  {found['native']}",
        f"memory   {_share(memory['free'])} free of {_share(memory['total'])}",
        f"disk     {_share(disk['free'])} free of {_share(disk['total'])} ({disk['path']})",
        *(f"model    {row['name']}{_model_text(row)}: {row['message']}" for row in found["models"]),
        f"worker   {found['worker']['message']}",
    ]
    return "\n".join(lines)


def _version_text(row: Mapping[str, Any]) -> str:
    if row["version"] is None:
        return "MISSING" if row["required"] else "not installed (optional)"
    return f"{row['version']}{'' if row['ok'] else ' TOO OLD'}"


def _device_text(row: Mapping[str, Any]) -> str:
    room = f", {size(row['free'])} free of {size(row['total'])}" if row.get("total") else ""
    fault = f"; it cannot be used: {row['fault']}" if row.get("fault") else ""
    if row.get("needs") and not fault:
        room += f"; enhancing takes up to {size(row['needs'])} of it"
    return f"{row['name']}: {row['what']}{room}{fault}"


def _model_text(row: Mapping[str, Any]) -> str:
    """What it is for; nothing of one whose metadata cannot be read."""
    return f" ({row['kind']}, {row['modality']})" if row["kind"] else ""


def _share(count: int | None) -> str:
    return "unknown" if count is None else size(count)


def _declare_worker(parser: Parser) -> None:
    parser.add_argument(
        "--idle-seconds",
        type=float,
        default=600.0,
        metavar="S",
        help="end when no job came for this long (default: %(default)g)",
    )


def _serve(args: argparse.Namespace) -> int:
    """Serve until stdin ends."""
    from MedEnhanceLib.jobs.worker import worker as serving

    return serving.main(args.idle_seconds)


DOCTOR = Command(
    name="doctor",
    summary="check Python, packages, devices, memory, disk, models and the worker",
    description="Show on one screen what MedEnhance finds here and what is missing.\n"
    "Exit status 4 where a package or a model is.",
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

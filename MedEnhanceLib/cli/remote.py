"""medenhance remote, and worker --listen: jobs that run on another machine."""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from MedEnhanceLib.cli.parser import Command, Parser
from MedEnhanceLib.cli.text import columns, size
from MedEnhanceLib.errors import Cancelled, ConfigError

_MOST_MB = 8192


def _declare(parser: Parser) -> None:
    parser.add_argument("action", choices=("list", "add", "remove"), help="what to do")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the machine, of your choice")
    parser.add_argument(
        "line",
        nargs="?",
        metavar="LINE",
        help="the set-up line that the worker printed; left out, it is read from stdin, so that "
        "the token does not stay in the history of the shell",
    )


def _run(args: argparse.Namespace) -> int:
    if (args.action == "list") != (args.name is None):
        raise ConfigError(
            f"remote {args.action} {'takes no' if args.name else 'needs a'} name",
            "See: medenhance remote --help",
        )
    if args.line is not None and args.action != "add":
        raise ConfigError(f"remote {args.action} takes no line", "See: medenhance remote --help")
    from MedEnhanceLib.jobs.remote import places

    if args.action == "list":
        return _list(args)
    if args.action == "remove":
        places.remove_place(args.name)
        return int(args.console.done({"removed": args.name}, f"removed {args.name}"))
    line = args.line if args.line is not None else sys.stdin.readline()
    place = places.Place.from_line(line)
    places.add_place(args.name, place)
    way = "TLS" if place.sha256 else "an SSH tunnel"
    text = f"added {args.name} ({place.host}, port {place.port}, over {way}); use it with"
    fields = {"name": args.name, "host": place.host, "port": place.port, "tls": bool(place.sha256)}
    return int(args.console.done(fields, f"{text} --device remote:{args.name}"))


def _list(args: argparse.Namespace) -> int:
    rows = args.console.run("machines", {}, isolated=False)["machines"]
    if not rows:
        return int(args.console.done({"machines": []}, "no remote machines are known"))
    table = [
        (
            row["name"],
            row["host"],
            row["what"] or row["message"],
            f"{size(row['free'])} of {size(row['total'])}" if row["total"] else "",
        )
        for row in rows
    ]
    text = columns(("device", "address", "runs on", "memory free"), table, left=3)
    return int(args.console.done({"machines": rows}, text))


REMOTE = Command(
    name="remote",
    summary="machines that enhance and segment for this one",
    description="List the remote machines that are known, with their device, add one, or forget\n"
    "one. Jobs go there with --device remote:NAME; the volumes are sent there without names, and\n"
    "deleted there after the job (docs/remote.md).",
    example="medenhance remote add lab 'medenhance://gpu.example:8790?token=…&sha256=…'",
    declare=_declare,
    run=_run,
)


def declare_listen(parser: Parser) -> None:
    """The options of a worker that listens."""
    parser.add_argument(
        "--listen",
        metavar="[HOST:]PORT",
        help="serve other machines instead of stdin (docs/remote.md); HOST is localhost unless "
        "--tls is given",
    )
    parser.add_argument("--tls", action="store_true", help="with a certificate, made on first use")
    parser.add_argument("--certificate", metavar="FILE", help="a PEM file to use instead")
    parser.add_argument("--key", metavar="FILE", help="its key, a PEM file without a password")
    parser.add_argument(
        "--new-token", action="store_true", help="make a new token; the old one ends to be valid"
    )
    parser.add_argument(
        "--most-mb",
        type=int,
        metavar="N",
        help="megabytes that a job may send, and the voxels of each volume may take "
        f"(default: {_MOST_MB})",
    )
    parser.add_argument("--device", metavar="D", help="that jobs run on (default: auto)")


def listen(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from MedEnhanceLib.jobs.remote import places
    from MedEnhanceLib.jobs.remote.server import Server, server_context

    console = args.console
    if (args.certificate is None) != (args.key is None):
        raise ConfigError("a certificate without its key", "Give --certificate FILE --key FILE.")
    most_mb = _MOST_MB if args.most_mb is None else args.most_mb
    if most_mb < 1:
        raise ConfigError(f"--most-mb is {most_mb}", "Use 1 or more.")
    has_tls = args.tls or args.certificate is not None
    host, port = _address(args.listen, "0.0.0.0" if has_tls else "localhost")
    tls, sha256 = None, ""
    if has_tls:
        given = (Path(args.certificate), Path(args.key)) if args.certificate else None
        certificate, key = given or places.own_certificate()
        tls, sha256 = server_context(certificate, key), places.fingerprint(certificate)

    def say(line: str) -> None:
        console.note(f"{time.strftime('%H:%M:%S')} {line}")

    server = Server(
        (host, port),
        secret=b"",
        tls=tls,
        most_bytes=most_mb * 1_000_000,
        device=args.device or "auto",
        say=say,
    )
    # Once it is known that it can be shown: a token is shown once.
    server.secret, token = places.own_token(renew=args.new_token)
    port = server.server_address[1]
    seen_as = socket.gethostname() if host in ("0.0.0.0", "::") else host
    if token:
        line = places.Place(seen_as, port, token, sha256).line
        command = f"medenhance remote add NAME '{line}'"
        console.note(f"On the other machine, once (this is not shown again):\n  {command}")
    else:
        line = places.Place(seen_as, port, "TOKEN", sha256).line
        console.note(
            f"The token is as before. In place of TOKEN, it goes into this line on the other "
            f"machine (or make a new one: --new-token):\n  medenhance remote add NAME '{line}'"
        )
    if not has_tls:
        tunnel = f"ssh -N -L {port}:localhost:{port} {socket.gethostname()}"
        console.note(f"Only this machine is listened to; there, before use:\n  {tunnel}")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    say(f"listening on {host}, port {port}, {'TLS' if has_tls else 'this machine alone'}")
    while not stop.wait(1.0):  # Windows interrupts no wait without an end
        pass
    server.stop()
    return Cancelled.exit_status


def _address(text: str, default: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not port.isdecimal() or not int(port) < 65_536:
        raise ConfigError(f"--listen is {text!r}", "Give a port, or HOST:PORT.")
    return host.strip("[]") or default, int(port)


def options_alone(args: argparse.Namespace) -> list[str]:
    """Options of a worker that listens, where it does not."""
    names = ("tls", "certificate", "key", "new_token", "most_mb", "device")
    return [f"--{name.replace('_', '-')}" for name in names if getattr(args, name)]

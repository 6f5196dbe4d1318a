"""Addresses (`scheme://…`) in place of files: what is read there is copied into a private folder.

https and http are read with Python's own client, every other scheme (`s3`, `gs`, `abfs`, `sftp` …)
through fsspec. What an address may hold of credentials (a user, a query) is never repeated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from MedEnhanceLib.errors import ConfigError, DependencyError, InputError, OutputError
from MedEnhanceLib.jobs.worker.workspace import Workspace
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import Names

_PIECE = 1 << 20
_PATIENCE_SECONDS = 60.0
#: Two signs or more, so that no drive of Windows is one.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: A user; of Azure's schemes a container stands in its place (abfs://container@account).
_USER = re.compile(r"(?<!abfs)(?<!abfss)://[^/]*@")


def is_remote(place: object) -> TypeGuard[str]:
    """Whether text is an address and no path of this machine."""
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def is_web(address: str) -> bool:
    """Whether an address is one of a web server, which lists and takes nothing."""
    return address.lower().startswith(("http://", "https://"))


def shown(place: str) -> str:
    """An address as messages and rows may have it: without user, query and fragment."""
    return _USER.sub("://", re.split(r"[?#]", place)[0]) if is_remote(place) else place


def name_at(address: str) -> str:
    """The last part of an address."""
    return PurePosixPath(unquote(shown(address).partition("://")[2])).name


def filesystem(address: str) -> tuple[Any, str]:
    """What fsspec reads and writes an address with, and the path in it.

    Raises DependencyError where a package is missing, ConfigError for an unknown scheme.
    """
    scheme = address.partition("://")[0].lower()
    fsspec = require("fsspec", purpose=f"Reading and writing {scheme}://")
    try:
        files, path = fsspec.url_to_fs(address)
    except ImportError as cause:  # its own sentence names the package for this scheme
        raise DependencyError(
            f"{scheme}:// cannot be used: {cause}",
            "Install what it names with python -m pip install.",
        ) from None
    except ValueError:
        raise ConfigError(
            f"fsspec knows no addresses that begin with {scheme}://", "Check the address."
        ) from None
    return files, str(path).rstrip("/")


@contextmanager
def store_errors(name: str, what: str, error: type[InputError | OutputError]) -> Iterator[None]:
    """Whatever a client raises may hold the address with its signature: none of its words stay.

    name: what is read or written; what: which of these.
    """
    try:
        yield
    except HTTPError as cause:
        raise error(
            f"{name}: the server answers {cause.code}",
            "Check the address; 401 and 403 want one that is signed, and has not run out.",
        ) from None
    except (OSError, RuntimeError, ValueError, TypeError, LookupError) as cause:
        inner = cause.reason if isinstance(cause, URLError) else cause
        reason = type(inner).__name__
        if isinstance(inner, FileNotFoundError):
            reason = "there is nothing at that address, or in its bucket"
        elif isinstance(inner, OSError) and inner.errno is not None:
            reason = os.strerror(inner.errno)
        raise error(
            f"{name} cannot be {what}: {reason}",
            "Check the address, the network and the credentials (of the environment, as the "
            "store's own tools take them).",
        ) from None


def exists(place: str) -> bool:
    """Whether anything lies at a path, or at an address."""
    if not is_remote(place):
        return os.path.lexists(place)
    files, key = filesystem(place)
    with store_errors(shown(place), "looked up", OutputError):
        return bool(files.exists(key))


def listed(address: str) -> list[str]:
    """Every file below a folder, by its path from there, without what a killed sending left."""
    from MedEnhanceLib.io.atomic import PREFIX

    files, root = filesystem(address)
    with store_errors(shown(address), "listed", OutputError):
        files.invalidate_cache()
        try:
            keys = files.find(root)
        except FileNotFoundError:
            return []
    start = root.strip("/") + "/"
    return [
        key.lstrip("/").removeprefix(start)
        for key in keys
        if not key.endswith("/") and not PurePosixPath(key).name.startswith(PREFIX)
    ]


@contextmanager
def local(place: Any, monitor: Monitor | None = None) -> Iterator[Any]:
    """The path of a copy of what lies at an address, for as long as this lasts.

    place: anything that is no address comes back as it is.
    Raises InputError where it cannot be read or ends early, DependencyError where a package is
    missing, ConfigError for an address that cannot be one.
    """
    if place == "":  # pathlib's name for it is the current folder
        raise ConfigError("the path is empty", "Name a file.")
    if not is_remote(place):
        yield place
        return
    with Workspace() as workspace:
        copy = _copied(place, workspace.folder, monitor or Monitor())
        with Names({str(copy): shown(place), copy.name: shown(place)}).in_errors():
            yield str(copy)


def _copied(address: str, folder: Path, monitor: Monitor) -> Path:
    """The bytes at an address, under a name that says nothing but how it ends."""
    from MedEnhanceLib.io import ending_of  # with numpy, which help of commands does without

    name, ending = shown(address), ending_of(name_at(address))
    if address.endswith("/"):
        raise InputError(
            f"{name} is a folder, by the / at its end; one file is read here",
            "Name the file, or take medenhance batch for all volumes below it.",
        )
    is_plain = re.fullmatch(r"(\.[a-z0-9]{1,8}){1,2}", ending)
    path = folder / f"source{ending if is_plain else ''}"
    monitor.progress(0.0, "download")
    if not is_web(address):
        files, key = filesystem(address)
        with store_errors(name, "read", InputError), files.open(key, "rb") as stream:
            _fill(path, stream, monitor, files.size(key))
        return path
    if urlsplit(address).username is not None:
        raise ConfigError(
            f"{name} is written with a user's name in it, which logs would keep",
            "Use an address that is signed, or download the file first.",
        )
    request = Request(address, headers={"Accept-Encoding": "identity"})
    with (
        store_errors(name, "read", InputError),
        urlopen(request, timeout=_PATIENCE_SECONDS) as answer,
    ):
        if address.lower().startswith("https:") and not answer.url.startswith("https:"):
            raise InputError(
                f"{name}: redirect from HTTPS to HTTP refused", "Use the address it leads to."
            )
        stated = answer.length
        done = _fill(path, answer, monitor, stated)
    if stated is not None and done < stated:
        raise InputError(f"{name} ended after {done:,} of {stated:,} bytes", "Try it again.")
    return path


def _fill(path: Path, stream: Any, monitor: Monitor, stated: int | None) -> int:
    """Write what a stream has into a new file; how many bytes that were.

    stated: how many bytes there shall be, for the progress alone.
    """
    done = 0
    with path.open("xb") as copy:
        while piece := stream.read(_PIECE):
            done += len(piece)
            copy.write(piece)
            monitor.progress(min(done / stated, 1.0) if stated else 0.0, "download")
    return done

"""Addresses (`scheme://…`) in place of files: an input is copied here, one result is sent there.

https and http are read with Python's own client, every other scheme (`s3`, `gs`, `abfs`, `sftp` …)
through fsspec. A result is written here first, with its manifest, and uploaded under a temporary
name; it gets its own once the size at the address is that of the file. Credentials in an address
(a user, a query) are never repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.error import HTTPError, URLError
from urllib.parse import unquote
from urllib.request import Request, urlopen

from MedEnhanceLib.core.options import options_of
from MedEnhanceLib.errors import (
    ConfigError,
    DependencyError,
    InputError,
    MedEnhanceError,
    OutputError,
)
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.locks import Workspace
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.text import Names

_PATIENCE_SECONDS = 60.0
#: Characters of a temporary copy's name.
_LONGEST_NAME = 100
#: Two letters or more, so that no drive of Windows is one.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: A user; of Azure's schemes a container stands in its place (abfs://container@account).
_USER = re.compile(r"(?<!abfs)(?<!abfss)://[^/]*@")
#: What the name of a result must not contain: stores read it as a pattern, a query or a path.
_ODD = re.compile(r"::|[?#*\[\]\\\x00-\x1f]|(?<=/)\.{1,2}(?=/|$)")


def is_remote(place: object) -> TypeGuard[str]:
    """Whether text is an address and no path of this machine."""
    return isinstance(place, str) and _ADDRESS.match(place) is not None


def _is_web(address: str) -> bool:
    """Whether an address is one of a web server, which lists and takes nothing."""
    return address.lower().startswith(("http://", "https://"))


def shown(place: str) -> str:
    """An address as messages and rows may have it: without user, query and fragment."""
    return _USER.sub("://", re.split(r"[?#]", place)[0]) if is_remote(place) else place


def name_at(address: str) -> str:
    """The last part of an address."""
    return PurePosixPath(unquote(shown(address).partition("://")[2])).name


def results_here(name: str, place: Any) -> Any:
    """A result that is no file of its own volume; raises ConfigError for an address."""
    if is_remote(place):
        raise ConfigError(
            f"{name} is {shown(place)}: it has to be on this machine",
            "Name a folder or file here, and copy it there afterwards with the store's own tool.",
        )
    return place


def _filesystem(address: str) -> tuple[Any, str]:
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
    return files, str(path)


@contextmanager
def _store_errors(name: str, what: str, error: type[InputError | OutputError]) -> Iterator[None]:
    """Errors of any store as ours; their own words may hold the address with its signature.

    name: what is read or written; what: which of these.
    """
    try:
        yield
    except MedEnhanceError:
        raise
    except Exception as cause:  # noqa: BLE001 - of any client of any store
        inner = cause.reason if type(cause) is URLError else cause
        reason = type(inner).__name__
        if isinstance(inner, HTTPError):
            reason = f"the server answers {inner.code}"
            inner.close()
        elif isinstance(inner, FileNotFoundError):
            reason = "there is nothing at that address, or in its bucket"
        elif isinstance(inner, socket.gaierror):
            reason = "no such server is found"
        elif isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
            reason = os.strerror(inner.errno)
        raise error(
            f"{name} cannot be {what}: {reason}",
            "Check the address, the network and the credentials (of the environment, as the "
            "store's own tools take them).",
        ) from None


@contextmanager
def local(place: Any, monitor: Monitor | None = None, names: Names | None = None) -> Iterator[Any]:
    """The path of a temporary copy of the file at an address.

    place: anything that is no address comes back as it is.
    names: learns what the copy is called.
    Raises InputError where it cannot be read or ends early, DependencyError where a package is
    missing, ConfigError for an invalid address.
    """
    if place == "":  # pathlib's name for it is the current folder
        raise ConfigError("the path is empty", "Name a file.")
    if not is_remote(place):
        yield place
        return
    names = names or Names()
    with Workspace() as workspace, names.in_errors():
        name = re.sub(r"[^\w.-]", "_", name_at(place)).lstrip(".")
        copy = workspace.folder / (name[-_LONGEST_NAME:] or "volume")
        names.add(copy, shown(place))
        _download(place, copy, monitor or Monitor())
        yield str(copy)


def _download(address: str, copy: Path, monitor: Monitor) -> None:
    name = shown(address)
    monitor.progress(0.0, "download")
    with _store_errors(name, "read", InputError):
        if _is_web(address):
            missing = attend(partial(_fetch, address, copy), monitor)
        else:
            files, key = _filesystem(address)
            attend(partial(files.get_file, key, str(copy)), monitor)
            missing = files.size(key) - copy.stat().st_size
    if missing > 0:
        raise InputError(f"{name} ended {missing:,} bytes too early", "Try it again.")


def _fetch(address: str, copy: Path) -> int:
    """Copy what a web server has at an address; how many bytes it said it has besides."""
    request = Request(address, headers={"Accept-Encoding": "identity"})
    with urlopen(request, timeout=_PATIENCE_SECONDS) as stream, copy.open("xb") as file:
        if address.lower().startswith("https:") and not stream.url.startswith("https:"):
            raise InputError(
                f"{shown(address)}: redirect from HTTPS to HTTP refused",
                "Use the address of the redirect.",
            )
        shutil.copyfileobj(stream, file)
        return int(stream.length or 0)


@contextmanager
def sent_result(
    place: Any, monitor: Monitor, *, overwrite: bool, names: Names | None = None
) -> Iterator[Path]:
    """Where to write a result: at `place`, or where it is sent from to that address at the end.

    A manifest that is written beside it is sent after it. What was at the address stays until the
    result gets its name.

    names: learns what the folder here is called.
    Raises ConfigError for addresses that nothing can be written to, OutputError for what is there,
    and where a store fails.
    """
    from MedEnhanceLib.io import atomic

    if not is_remote(place):
        yield Path(place)
        return
    if _is_web(place) or "/" not in place.partition("://")[2].rstrip("/") or _ODD.search(place):
        raise ConfigError(
            f"{shown(place)} cannot take a result",
            "Name a file in a store, as s3://bucket/better.nii.gz: no web server, and none of "
            "?, #, *, [ and :: in its name.",
        )
    store, key = _filesystem(place)
    root, _, name = key.rpartition("/")
    above, names = shown(place).rpartition("/")[0], names or Names()

    def refuse_taken(name: str) -> None:
        """As `io.atomic.refuse_existing`, for a result at the address."""
        with _store_errors(f"{above}/{name}", "looked up", OutputError):
            store.invalidate_cache()
            is_there = store.exists(f"{root}/{name}")
            is_folder = is_there and store.isdir(f"{root}/{name}")
        if is_there:
            atomic.refuse_taken(f"{above}/{name}", is_folder=is_folder, overwrite=overwrite)

    with Workspace() as workspace, names.in_errors():
        folder = workspace.folder / "results"
        folder.mkdir()
        names.add(f"{folder}{os.sep}", f"{above}/")
        refuse_taken(name)
        refuse_taken(f"{name}.json")
        yield folder / name
        for file in sorted(folder.iterdir()):
            monitor.progress(1.0, "upload")
            temporary = f"{root}/{atomic.PREFIX}{secrets.token_hex(8)}"
            try:
                with _store_errors(f"{above}/{file.name}", "written", OutputError):
                    attend(partial(store.put_file, str(file), temporary), monitor)
                    store.invalidate_cache()
                    sent, size = store.size(temporary), file.stat().st_size
                    if sent != size:
                        raise OutputError(
                            f"{above}/{file.name} has {sent:,} of {size:,} bytes", "Send it again."
                        )
                    monitor.check()
                    refuse_taken(file.name)
                    store.mv(temporary, f"{root}/{file.name}")
            finally:
                with contextlib.suppress(Exception):  # it has its name by now
                    store.rm_file(temporary)


@contextmanager
def job_places(params: Any, names: Names, monitor: Monitor) -> Iterator[Any]:
    """A job's parameters with a path here in place of each address; a result is sent at the end.

    Which parameters name inputs and results says their declaration (`About.place`).

    names: learns what the paths here are called.
    Raises, before the job, as `local` and `sent_result`; ConfigError for a result that has to be
    on this machine: a folder, or further files of a job that writes several.
    """
    from MedEnhanceLib.jobs.files import results_of

    places = {option.name: option.about.place for option in options_of(type(params))}
    given = {name: getattr(params, name) for name, place in places.items() if place}
    paths: dict[str, Any] = {}
    with ExitStack() as stack:
        output = str(given.get("output"))
        is_file = places.get("output") == "output" and getattr(params, "dicom", None) is not True
        goes_away = is_file and is_remote(output)
        if goes_away and len(results_of(params)) > 1:
            raise ConfigError(
                f"{shown(output)}: one file alone can be written to an address, and this job "
                f"writes {', '.join(results_of(params))}",
                "Write to this machine, and copy the files there afterwards.",
            )
        for name, value in given.items():
            if places[name] != "input" and not (name == "output" and goes_away):
                results_here(name, value)
        if goes_away:
            sent = sent_result(output, monitor, overwrite=params.overwrite, names=names)
            paths["output"] = str(stack.enter_context(sent))
        for name, value in given.items():
            if places[name] != "input" or value is None:
                continue
            sources = value if isinstance(value, list) else [value]
            if goes_away and shown(output) in map(shown, sources):
                raise OutputError(f"{shown(output)} is the input itself", "Give another name.")
            copies = [stack.enter_context(local(each, monitor, names)) for each in sources]
            paths[name] = copies if isinstance(value, list) else copies[0]
        yield dataclasses.replace(params, **paths)

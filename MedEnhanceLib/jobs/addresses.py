"""Addresses (`scheme://…`) in place of files: read by a copy here, written by sending.

What is read is copied into a private folder: https and http with Python's own client, every other
scheme (`s3`, `gs`, `abfs`, `sftp` …) through fsspec. What a job writes goes there too first:

    private folder → folder/.medenhance-… at the address → its name

No result gets its name before all of them lie there; what was there before stays until then. The
manifest comes last. What an address may hold of credentials (a user, a query) is never repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from MedEnhanceLib.jobs.worker.workspace import Workspace
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import Names

_PIECE = 1 << 20
_PATIENCE_SECONDS = 60.0
#: Two letters or more, so that no drive of Windows is one.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: A user; of Azure's schemes a container stands in its place (abfs://container@account).
_USER = re.compile(r"(?<!abfs)(?<!abfss)://[^/]*@")
#: What no name of a result may have: it has a meaning of its own, or leads elsewhere.
_ODD = re.compile(r"::|[?#*\[\]\\\x00-\x1f]|(?<=/)\.{1,2}(?=/|$)")
#: How much of the progress of a job is the sending.
_SHARE = 0.1


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


def check_target(address: str) -> None:
    """Raise ConfigError or DependencyError for an address that takes no result."""
    path = address.rstrip("/").partition("://")[2]
    if is_web(address) or "/" not in path or _ODD.search(path):
        raise ConfigError(
            f"{shown(address)} is no place for a result",
            "Name a file or folder in a store, as s3://bucket/better.nii.gz: no web server, and "
            "none of ?, #, *, [ and :: in its name.",
        )
    filesystem(address)


def results_here(name: str, place: Any) -> Any:
    """A folder of results, which are read and added to; raises ConfigError for an address."""
    if is_remote(place):
        raise ConfigError(
            f"{name} is {shown(place)}: a folder of results has to lie on this machine",
            "Name a folder here, and copy it there afterwards with the store's own tool.",
        )
    return place


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
    from MedEnhanceLib.io import ending_of  # with numpy, which help of commands does without

    with Workspace() as workspace:
        # A name that says nothing but how it ends.
        ending = ending_of(name_at(place))
        is_plain = re.fullmatch(r"(\.[a-z0-9]{1,8}){1,2}", ending)
        copy = workspace.folder / f"source{ending if is_plain else ''}"
        with Names({str(copy): shown(place), copy.name: shown(place)}).in_errors():
            _download(place, copy, monitor or Monitor())
            yield str(copy)


def _download(address: str, copy: Path, monitor: Monitor) -> None:
    name, done = shown(address), 0
    monitor.progress(0.0, "download")
    files, key = (None, "") if is_web(address) else filesystem(address)
    with ExitStack() as stack:
        stack.enter_context(_store_errors(name, "read", InputError))
        if files is None:
            request = Request(address, headers={"Accept-Encoding": "identity"})
            stream = stack.enter_context(urlopen(request, timeout=_PATIENCE_SECONDS))
            stated = stream.length
            if address.lower().startswith("https:") and not stream.url.startswith("https:"):
                raise InputError(
                    f"{name}: redirect from HTTPS to HTTP refused", "Use the address it leads to."
                )
        else:
            stream, stated = stack.enter_context(files.open(key, "rb")), files.size(key)
        with copy.open("xb") as file:
            while piece := stream.read(_PIECE):
                done += file.write(piece)
                monitor.progress(min(done / stated, 1.0) if stated else 0.0, "download")
    if stated is not None and done < stated:
        raise InputError(f"{name} ended after {done:,} of {stated:,} bytes", "Try it again.")


@contextmanager
def _store_errors(name: str, what: str, error: type[InputError | OutputError]) -> Iterator[None]:
    """Whatever a client raises may hold the address with its signature: none of its words stay.

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
        elif isinstance(inner, OSError) and inner.errno is not None and inner.errno > 0:
            reason = os.strerror(inner.errno)
        raise error(
            f"{name} cannot be {what}: {reason}",
            "Check the address, the network and the credentials (of the environment, as the "
            "store's own tools take them).",
        ) from None


class Outbox:
    """Where results wait that go to addresses.

    Each folder at an address has one here: what a job writes beside its output goes beside it.

    folder: a private one, empty. names: learns what the paths in it are called.
    """

    def __init__(self, folder: Path, names: Names, *, overwrite: bool) -> None:
        self._folder, self._names, self._overwrite = folder.resolve(), names, overwrite
        self._addresses: dict[Path, str] = {}

    def place_for(self, address: str) -> Path:
        """Where to write what goes to an address; raises ConfigError where nothing can."""
        check_target(address)
        above, _, name = address.rstrip("/").rpartition("/")
        for folder, there in self._addresses.items():
            if there == above:
                return folder / name
        folder = self._folder / str(len(self._addresses))
        folder.mkdir()
        self._addresses[folder] = above
        self._names.add(folder, shown(above))
        return folder / name

    def refuse_taken(self, path: Path) -> None:
        """As `io.atomic.refuse_existing`."""
        from MedEnhanceLib.io.atomic import refuse_taken

        if (address := self._address_of(path)) is None:
            return
        files, key = filesystem(address)
        with _store_errors(shown(address), "looked up", OutputError):
            files.invalidate_cache()
            # A store may have an object of this name, and others below it as well.
            is_there, has_below = files.exists(key), files.isdir(key)
        if is_there:
            refuse_taken(shown(address), is_folder=has_below, overwrite=self._overwrite)

    def refuse_unwritable(self) -> None:
        """Write and remove a few bytes; raises OutputError where they cannot be written."""
        from MedEnhanceLib.io.atomic import temporary_name

        for folder in self._addresses.values():
            files, root = filesystem(folder)
            key = f"{root}/{temporary_name()}"
            with _store_errors(shown(folder), "written to", OutputError):
                with files.open(key, "wb") as stream:
                    stream.write(b"medenhance")
                files.rm_file(key)

    def send(self, monitor: Monitor, last: Path | None = None) -> None:
        """Send every file; all of them get their names, or none.

        last: the one that gets its name after all others.
        Raises OutputError, Cancelled: what was there before is there, and nothing else, unless a
        store stops giving names halfway.
        """
        from MedEnhanceLib.io.atomic import temporary_name

        below = (path for folder in self._addresses for path in folder.rglob("*"))
        waiting = sorted(filter(Path.is_file, below), key=lambda path: (path == last, path))
        whole, bytes_done = sum(path.stat().st_size for path in waiting) or 1, 0
        unnamed: list[tuple[Any, str, str, str]] = []
        try:
            for path in waiting:
                address, size = str(self._address_of(path)), path.stat().st_size
                files, key = filesystem(address)
                temporary = f"{key.rpartition('/')[0]}/{temporary_name()}"
                unnamed.append((files, temporary, key, shown(address)))
                with _store_errors(shown(address), "written", OutputError):
                    with path.open("rb") as file, files.open(temporary, "wb") as stream:
                        while piece := file.read(_PIECE):
                            stream.write(piece)
                            bytes_done += len(piece)
                            monitor.progress(bytes_done / whole, "upload")
                    files.invalidate_cache()
                    arrived = files.size(temporary)
                if arrived != size:
                    raise OutputError(
                        f"{shown(address)} has {arrived:,} of {size:,} bytes", "Send it again."
                    )
            for path in waiting:
                self.refuse_taken(path)
            while unnamed:
                files, temporary, key, name = unnamed[0]
                with _store_errors(name, "given its name", OutputError):
                    files.mv(temporary, key)
                unnamed.pop(0)
        finally:
            for files, temporary, _, _ in unnamed:
                with contextlib.suppress(Exception):
                    files.rm_file(temporary)

    def _address_of(self, path: Path) -> str | None:
        """Where a path here is sent to; None for a path of the user's."""
        for folder, above in self._addresses.items():
            if path.is_relative_to(folder):
                return f"{above}/{path.relative_to(folder).as_posix()}"
        return None


@contextmanager
def sent_result(place: Any, monitor: Monitor, *, overwrite: bool) -> Iterator[Path]:
    """Where to write what goes to `place`: there, or where it is sent from at the end.

    Raises ConfigError for addresses that nothing can be written to, OutputError for what is there.
    """
    if not is_remote(place):
        yield Path(place)
        return
    names = Names()
    with names.in_errors(), Workspace() as workspace:
        outbox = Outbox(workspace.folder, names, overwrite=overwrite)
        path = outbox.place_for(place)
        outbox.refuse_taken(path)
        outbox.refuse_unwritable()
        yield path
        outbox.send(monitor)


@contextmanager
def job_places(params: Any, names: Names, monitor: Monitor) -> Iterator[tuple[Any, Monitor]]:
    """A job's parameters with a path here in place of each address; results are sent at the end.

    What a parameter names says its declaration (`About.place`).
    names: learns what the paths here are called. Returns the monitor for the job too.
    Raises, before the job, as `local` and `sent_result`.
    """
    from MedEnhanceLib.jobs.files import manifest_path

    inputs, outputs = dict[str, Any](), dict[str, str]()
    for option in options_of(type(params)):
        value, place = getattr(params, option.name), option.about.place
        is_folder = option.name == "output" and getattr(params, "dicom", None) is True
        if place == "here" or is_folder:
            results_here(option.name, value)
        elif place == "input" and value is not None:
            inputs[option.name] = value
        elif place and is_remote(value):
            outputs[option.name] = value
    with ExitStack() as stack:
        part = monitor
        if outputs:
            folder = stack.enter_context(Workspace()).folder
            outbox = Outbox(folder, names, overwrite=params.overwrite)
            paths = {name: str(outbox.place_for(address)) for name, address in outputs.items()}
            params = dataclasses.replace(params, **paths)
            _refuse_early(params, outbox, [filesystem(address) for address in outputs.values()])
            part = monitor.part(0.0, 1 - _SHARE).changed(names.of)

        def copied(place: Any) -> Any:
            path = stack.enter_context(local(place, part))
            if is_remote(place):
                names.add(path, shown(place))
            return path

        copies = {name: _each_place(value, copied) for name, value in inputs.items()}
        yield dataclasses.replace(params, **copies), part
        if outputs:
            outbox.send(monitor.part(1 - _SHARE, 1.0), manifest_path(Path(params.output)))


def _each_place(value: Any, change: Callable[[Any], Any]) -> Any:
    """A place, or a list of places, with `change` made to each."""
    return [change(place) for place in value] if isinstance(value, list) else change(value)


def _refuse_early(params: Any, outbox: Outbox, targets: list[tuple[Any, str]]) -> None:
    """Refuse before the long work what could not be sent after it, or would replace its source."""
    from MedEnhanceLib.jobs.files import manifest_path, results_of

    for option in options_of(type(params)):
        places: list[Any] = []
        if option.about.place == "input":
            _each_place(getattr(params, option.name), places.append)
        for place in filter(is_remote, places):
            if not is_web(place) and filesystem(place) in targets:
                raise OutputError(f"{shown(place)} is the input itself", "Give another name.")
    for path in results_of(params).values():
        outbox.refuse_taken(path)
        outbox.refuse_taken(manifest_path(path))
    outbox.refuse_unwritable()

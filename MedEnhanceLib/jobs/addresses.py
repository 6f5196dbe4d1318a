"""Addresses (`scheme://…`) in place of files: read by a copy here, written by sending.

What is read is copied into a private folder: https and http with Python's own client, every other
scheme (`s3`, `gs`, `abfs`, `sftp` …) through fsspec. What a job writes goes there too first:

    private folder → folder/.medenhance-… at the address → its name

No result gets its name before all of them lie there; what was there before stays until then. The
manifest comes last. Credentials in an address (a user, a query) are never repeated.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
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
from MedEnhanceLib.jobs.worker.workspace import Workspace
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor, attend
from MedEnhanceLib.runtime.text import Names

_PATIENCE_SECONDS = 60.0
#: Two letters or more, so that no drive of Windows is one.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
#: A user; of Azure's schemes a container stands in its place (abfs://container@account).
_USER = re.compile(r"(?<!abfs)(?<!abfss)://[^/]*@")
#: What the name of a result must not contain: stores read it as a pattern, a query or a path.
_ODD = re.compile(r"::|[?#*\[\]\\\x00-\x1f]|(?<=/)\.{1,2}(?=/|$)")
#: How much of the progress of a job is the sending.
_SHARE = 0.1


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
    return files, str(path).rstrip("/")


def results_here(name: str, place: Any) -> Any:
    """A result that is no file of its own volume; raises ConfigError for an address."""
    if is_remote(place):
        raise ConfigError(
            f"{name} is {shown(place)}: it has to lie on this machine",
            "Name a place here, and copy it there afterwards with the store's own tool.",
        )
    return place


@contextmanager
def local(place: Any, monitor: Monitor | None = None) -> Iterator[Any]:
    """The path of a temporary copy of the file at an address.

    place: anything that is no address comes back as it is.
    Raises InputError where it cannot be read or ends early, DependencyError where a package is
    missing, ConfigError for an invalid address.
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
    name = shown(address)
    monitor.progress(0.0, "download")
    with _store_errors(name, "read", InputError):
        if not _is_web(address):
            files, key = _filesystem(address)
            attend(lambda: files.get_file(key, str(copy)), monitor)
            missing = files.size(key) - copy.stat().st_size
        else:
            missing = attend(lambda: _fetch(address, copy), monitor)
    if missing > 0:
        raise InputError(f"{name} ended {missing:,} bytes too early", "Try it again.")


def _fetch(address: str, copy: Path) -> int:
    """Copy what a web server has at an address; how many bytes it said it has besides."""
    request = Request(address, headers={"Accept-Encoding": "identity"})
    with urlopen(request, timeout=_PATIENCE_SECONDS) as stream, copy.open("xb") as file:
        if address.lower().startswith("https:") and not stream.url.startswith("https:"):
            raise InputError(
                f"{shown(address)}: redirect from HTTPS to HTTP refused",
                "Use the address it leads to.",
            )
        shutil.copyfileobj(stream, file)
        return int(stream.length or 0)


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


class Outbox:
    """A private folder whose files go to the folder of an address.

    What a job writes beside its output goes beside it there.

    Attributes:
        folder: the private one. path: where to write what goes to the address.
        name: what messages call the folder at the address.
    """

    def __init__(self, folder: Path, address: str, *, overwrite: bool) -> None:
        """Make the folder in a workspace; raises ConfigError for an invalid address."""
        above, _, name = address.rstrip("/").rpartition("/")
        path = address.rstrip("/").partition("://")[2]
        if _is_web(address) or "/" not in path or _ODD.search(path):
            raise ConfigError(
                f"{shown(address)} is no place for a result",
                "Name a file in a store, as s3://bucket/better.nii.gz: no web server, and none of "
                "?, #, *, [ and :: in its name.",
            )
        self._store, self._root = _filesystem(above)
        self.folder, self.name, self._overwrite = folder / "results", shown(above), overwrite
        self.folder.mkdir()
        self._above, self.path = above, self.folder / name

    def path_for(self, address: str) -> Path:
        """Where to write a further result; raises ConfigError for one in another folder."""
        above, _, name = address.rpartition("/")
        if above != self._above:
            raise ConfigError(
                f"{shown(address)} does not lie beside the output", f"Name a file in {self.name}."
            )
        return self.folder / name

    def check(self, results: Iterable[Path]) -> None:
        """Refuse what could not be sent after the long work: names that are taken, no permission.

        A few bytes are written and removed. Raises OutputError.
        """
        from MedEnhanceLib.io.atomic import temporary_name

        self._refuse_taken(results)
        key = f"{self._root}/{temporary_name()}"
        with _store_errors(self.name, "written to", OutputError):
            with self._store.open(key, "wb") as stream:
                stream.write(b"medenhance")
            self._store.rm_file(key)

    def send(self, monitor: Monitor) -> None:
        """Send every file, manifests last; all of them get their names, or none.

        Raises OutputError, Cancelled: what was there before is there, and nothing else, unless a
        store stops giving names halfway.
        """
        from MedEnhanceLib.io.atomic import temporary_name

        waiting = sorted(self.folder.iterdir(), key=lambda path: (path.suffix == ".json", path))
        keys = {path: f"{self._root}/{temporary_name()}" for path in waiting}
        try:
            for number, (path, key) in enumerate(keys.items()):
                name, size = f"{self.name}/{path.name}", path.stat().st_size
                monitor.progress(number / len(keys), "upload")
                with _store_errors(name, "written", OutputError):
                    attend(partial(self._store.put_file, str(path), key), monitor)
                    self._store.invalidate_cache()
                    sent = self._store.size(key)
                if sent != size:
                    raise OutputError(f"{name} has {sent:,} of {size:,} bytes", "Send it again.")
            self._refuse_taken(waiting)
            for path, key in keys.items():
                with _store_errors(f"{self.name}/{path.name}", "given its name", OutputError):
                    self._store.mv(key, f"{self._root}/{path.name}")
        finally:
            for key in keys.values():
                with contextlib.suppress(Exception):  # it has its name by now
                    self._store.rm_file(key)

    def _refuse_taken(self, results: Iterable[Path]) -> None:
        """As `io.atomic.refuse_existing`, for those that go to the address."""
        from MedEnhanceLib.io.atomic import refuse_taken

        for path in results:
            if path.parent != self.folder:
                continue
            name, key = f"{self.name}/{path.name}", f"{self._root}/{path.name}"
            with _store_errors(name, "looked up", OutputError):
                self._store.invalidate_cache()
                # A store may have an object of this name, and others below it as well.
                is_there, has_below = self._store.exists(key), self._store.isdir(key)
            if is_there:
                refuse_taken(name, is_folder=has_below, overwrite=self._overwrite)


@contextmanager
def sent_result(place: Any, monitor: Monitor, *, overwrite: bool) -> Iterator[Path]:
    """Where to write what goes to `place`: there, or where it is sent from at the end.

    Raises ConfigError for addresses that nothing can be written to, OutputError for what is there.
    """
    if not is_remote(place):
        yield Path(place)
        return
    with Workspace() as workspace:
        outbox = Outbox(workspace.folder, place, overwrite=overwrite)
        with Names({str(outbox.folder): outbox.name}).in_errors():
            outbox.check([outbox.path])
            yield outbox.path
            outbox.send(monitor)


@contextmanager
def job_places(params: Any, names: Names, monitor: Monitor) -> Iterator[tuple[Any, Monitor]]:
    """A job's parameters with a path here in place of each address; results are sent at the end.

    What a parameter names says its declaration (`About.place`).

    names: learns what the paths here are called. Returns the monitor for the job too.
    Raises, before the job, as `local` and `sent_result`.
    """
    from MedEnhanceLib.jobs.files import manifest_path, results_of

    inputs, outputs = dict[str, Any](), dict[str, str]()
    output = getattr(params, "output", None)
    for option in options_of(type(params)):
        value, place = getattr(params, option.name), option.about.place
        is_folder = getattr(params, "dicom", None) is True
        if place == "input" and value is not None:
            inputs[option.name] = value
        elif place == "here" or (place and (is_folder or not is_remote(output))):
            results_here(option.name, value)
        elif place and is_remote(value):
            outputs[option.name] = value
    with ExitStack() as stack:
        part, outbox = monitor, None
        if outputs and is_remote(output):
            workspace = stack.enter_context(Workspace())
            outbox = Outbox(workspace.folder, output, overwrite=params.overwrite)
            names.add(outbox.folder, outbox.name)
            for value in inputs.values():
                for source in filter(is_remote, value if isinstance(value, list) else [value]):
                    # By whatever spelling of the address.
                    if not _is_web(source) and _filesystem(source) == _filesystem(output):
                        raise OutputError(
                            f"{shown(source)} is the input itself", "Give another name."
                        )
            paths = {name: str(outbox.path_for(address)) for name, address in outputs.items()}
            params = dataclasses.replace(params, **paths)
            results = results_of(params).values()
            outbox.check([*results, *map(manifest_path, results)])
            part = monitor.part(0.0, 1 - _SHARE).changed(names.of)

        def copied(place: Any) -> Any:
            path = stack.enter_context(local(place, part))
            if is_remote(place):
                names.add(path, shown(place))
            return path

        copies = {
            name: [*map(copied, value)] if isinstance(value, list) else copied(value)
            for name, value in inputs.items()
        }
        yield dataclasses.replace(params, **copies), part
        if outbox is not None:
            outbox.send(monitor.part(1 - _SHARE, 1.0))

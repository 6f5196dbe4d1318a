"""Sources that are elsewhere: copied into a private temporary folder, and removed after the job.

An address is `scheme://…`: https and http are read with Python's own client, every other scheme
(`s3`, `gs`, `abfs`, `sftp` …) through fsspec. What an address may hold of credentials (a user, a
query) is never repeated, and manifests state none of it.
"""

from __future__ import annotations

import dataclasses
import http.client
import os
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeGuard, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, url2pathname

from MedEnhanceLib.errors import ConfigError, DependencyError, InputError, MedEnhanceError
from MedEnhanceLib.jobs.worker.workspace import Workspace
from MedEnhanceLib.runtime.dependencies import require
from MedEnhanceLib.runtime.progress import Monitor

P = TypeVar("P")
#: The variable that says how many bytes a source may have.
LIMIT = "MEDENHANCE_DOWNLOAD_BYTES"
_MOST_BYTES = 64 << 30
#: Left free on the temporary disk.
_SPARE_BYTES = 256 << 20
_PIECE = 1 << 20
_PATIENCE_SECONDS = 60.0
#: Two signs or more, so that no drive of Windows is one; `zip://part::s3://…` is fsspec's.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+(::|://)")
#: Parameters of jobs that name one volume to read, and those that name what is written.
_SOURCES = ("input", "enhanced", "guide", "segmentation", "uncertainty")
_RESULTS = ("output", "out", "report", "noise_output", "uncertainty_output", "mask")


def is_remote(place: object) -> TypeGuard[str]:
    """Whether text is an address and no path of this machine."""
    return isinstance(place, str) and "://" in place and _ADDRESS.match(place) is not None


def shown(address: str) -> str:
    """An address as messages and rows may have it: without password, query and fragment."""
    parts = (re.split(r"[?#]", part)[0] for part in address.split("::"))
    return "::".join(re.sub(r"(://)[^/]*:[^/]*@", r"\1", part) for part in parts)


def name_at(address: str) -> str:
    """The last part of an address; of fsspec's `zip://part::s3://…` that of the part."""
    part = next((part for part in shown(address).split("::") if "://" in part), "")
    return PurePosixPath(unquote(part.partition("://")[2])).name


@contextmanager
def local(place: Any, monitor: Monitor | None = None) -> Iterator[Any]:
    """The path of a copy of what lies at an address, for as long as this lasts.

    place: anything that is no address comes back as it is.
    Raises InputError where it cannot be read, ends early or has too many bytes, DependencyError
    where a package is missing, ConfigError for an address that cannot be one.
    """
    if not is_remote(place):
        yield place
    elif place.lower().startswith("file://"):
        yield url2pathname(urlsplit(place).path)
    else:
        with Workspace() as workspace:
            copy = _copied(place, workspace.folder, monitor or Monitor())
            try:
                yield str(copy)
            except MedEnhanceError as error:  # which names the copy
                for name in (str(copy), copy.name):
                    error.message = error.message.replace(name, shown(place))
                raise


def kept_copy(place: Any, of: Callable[[Path], P]) -> P:
    """An object made of the file at `place`, beside which a copy lives as long as the object."""
    with ExitStack() as stack:
        made = of(Path(stack.enter_context(local(place))))
        weakref.finalize(made, stack.pop_all().close)
    return made


@contextmanager
def local_sources(params: Any, monitor: Monitor) -> Iterator[Any]:
    """The parameters of a job with a copy in place of each address that it reads.

    Raises as `local`; ConfigError where a result is to go to an address.
    """
    for name in _RESULTS:
        if is_remote(given := getattr(params, name, None)):
            raise ConfigError(
                f"{name} is {shown(given)}: results are written to this machine alone",
                "Name a file or folder here, and copy it there afterwards.",
            )
    with ExitStack() as stack:

        def fetched(place: str) -> str:
            return str(stack.enter_context(local(place, monitor)))

        changed: dict[str, Any] = {
            name: fetched(given)
            for name in _SOURCES
            if is_remote(given := getattr(params, name, None))
        }
        like = getattr(params, "like", None)
        if isinstance(like, dict) and is_remote(like.get("path")):
            changed["like"] = {**like, "path": fetched(like["path"])}
        yield dataclasses.replace(params, **changed) if changed else params


def _copied(address: str, folder: Path, monitor: Monitor) -> Path:
    """The bytes at an address, under a name that says nothing but how it ends."""
    from MedEnhanceLib.io import ending_of  # with numpy, which help of commands does without

    ending = ending_of(name_at(address))
    known = re.fullmatch(r"(\.[a-z0-9]{1,8}){1,2}", ending)
    path = folder / f"source{ending if known else ''}"
    name = shown(address)
    monitor.progress(0.0, "download")
    try:
        with _opened(address) as (stream, stated):
            done = fill(path, stream, name, monitor, stated)
    except MedEnhanceError:
        raise
    # Whatever a client raises may hold the address with its signature: `from None`, in own words.
    except HTTPError as cause:
        raise InputError(f"{name}: the server answers {cause.code}", _remedy(cause.code)) from None
    except Exception as cause:  # noqa: BLE001 - of many clients, each with errors of its own
        raise InputError(
            f"{name} cannot be read: {_reason(cause)}",
            "Check the address, the network and the credentials (of the environment, as the "
            "store's own tools take them).",
        ) from None
    if stated is not None and done < stated:
        raise InputError(f"{name} ended after {done:,} of {stated:,} bytes", "Try it again.")
    return path


def fill(path: Path, stream: Any, name: str, monitor: Monitor, stated: int | None = None) -> int:
    """Write what a stream has into a new file; how many bytes that were.

    name: of the stream. stated: how many bytes there shall be, for the progress alone.
    Raises InputError for more bytes than are allowed, or than the disk has room for.
    """
    most, room = _most_bytes(), shutil.disk_usage(path.parent).free - _SPARE_BYTES
    done = 0
    with path.open("xb") as copy:
        while piece := stream.read(_PIECE):
            done += len(piece)
            if done > most:
                raise InputError(
                    f"{name} has more than {most:,} bytes",
                    f"If that is right, allow more: set {LIMIT}.",
                )
            if done > room:
                raise InputError(
                    f"{name} does not fit on the disk of {path.parent}",
                    "Free some space, or name another folder in the variable TMPDIR.",
                )
            copy.write(piece)
            monitor.progress(min(done / stated, 1.0) if stated else 0.0, "download")
    return done


@contextmanager
def _opened(address: str) -> Iterator[tuple[BinaryIO | http.client.HTTPResponse, int | None]]:
    """A stream of the bytes, and how many there are said to be."""
    scheme = address.partition("://")[0].lower()
    if scheme in ("http", "https"):
        if urlsplit(address).username is not None:
            raise ConfigError(
                f"{shown(address)} is written with a user's name in it, which logs would keep",
                "Use an address that is signed, or download the file first.",
            )
        request = Request(address, headers={"Accept-Encoding": "identity"})
        with build_opener(_NeverLessSafe).open(request, timeout=_PATIENCE_SECONDS) as answer:
            length = answer.headers.get("Content-Length", "")
            yield answer, int(length) if re.fullmatch(r"\d{1,15}", length) else None
        return
    fsspec = require("fsspec", purpose=f"Reading {scheme}://")
    try:
        opened = fsspec.open(address, "rb")
    except ImportError as cause:  # its own sentence names the package for this scheme
        raise DependencyError(f"{scheme}:// cannot be read: {cause}", _INSTALL) from None
    except ValueError:
        raise ConfigError(
            f"fsspec knows no addresses that begin with {scheme}://", "Check the address."
        ) from None
    with opened as stream:
        yield stream, None


class _NeverLessSafe(HTTPRedirectHandler):
    """Follows no redirection from https to anything else."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if req.type == "https" and not newurl.lower().startswith("https://"):
            raise InputError("the server leads away from https", "Use the address it leads to.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_INSTALL = "Install what it names with python -m pip install."


def _remedy(status: int) -> str:
    if status in (401, 403):
        return "It wants credentials: use a signed address, or one that has not run out."
    return "Check the address." if status in (404, 410) else "Try it again later."


def _reason(cause: Exception) -> str:
    """What went wrong, without the words of a client, which may repeat the address."""
    inner = cause.reason if isinstance(cause, URLError) else cause
    if isinstance(inner, FileNotFoundError):
        return "there is nothing at that address"
    if isinstance(inner, TimeoutError):
        return f"no answer in {_PATIENCE_SECONDS:.0f} s"
    if isinstance(inner, OSError) and inner.errno is not None and inner.strerror:
        return inner.strerror
    return type(inner).__name__


def _most_bytes() -> int:
    given = os.environ.get(LIMIT, "")
    if not given:
        return _MOST_BYTES
    if not re.fullmatch(r"\d{1,15}", given):
        raise ConfigError(f"{LIMIT} is {given!r}", "Give a number of bytes.")
    return int(given)

"""Addresses; and sources there: copied into a private temporary folder, removed after the job.

An address is `scheme://…`: https and http are read with Python's own client, every other scheme
(`s3`, `gs`, `abfs`, `sftp` …) through fsspec. What an address may hold of credentials (a user, a
query) is never repeated, and manifests state none of it. jobs/sending.py writes to addresses.
"""

from __future__ import annotations

import dataclasses
import http.client
import os
import re
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
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
from MedEnhanceLib.runtime.text import Names

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
#: A query or fragment, up to the end or the next part of a chain.
_QUERY = re.compile(r"[?#].*?(?=::[A-Za-z][A-Za-z0-9+.-]*(?:::|://)|$)", re.DOTALL)
_USER = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)@")
#: Schemes whose addresses may begin with a user or a token.
_WITH_USERS = frozenset(
    ("http", "https", "ftp", "ftps", "sftp", "ssh", "smb", "hdfs", "webhdfs", "dav", "webdav", "s3")
)
#: Parameters of jobs that name one volume to read, and those that list several.
_SOURCES = ("input", "enhanced", "segmentation", "uncertainty")
_LISTS = ("guide", "look")


def is_remote(place: object) -> TypeGuard[str]:
    """Whether text is an address and no path of this machine."""
    return isinstance(place, str) and "://" in place and _ADDRESS.match(place) is not None


def shown(address: str) -> str:
    """An address as messages and rows may have it: without user, query and fragment.

    What stands before an @ stays where it is no user's: `github://organization:repository@branch`,
    `abfs://container@account`. Any other text stays.
    """
    if not is_remote(address):
        return address
    return _USER.sub(_without_user, _QUERY.sub("", address))


def _without_user(match: re.Match[str]) -> str:
    scheme, user = match[1].lower(), match[2]
    is_secret = not _WITH_USERS.isdisjoint(scheme.split("+")) or ":" in user
    return f"{match[1]}://" if is_secret and scheme != "github" else match[0]


def name_at(address: str) -> str:
    """The last part of an address; of fsspec's `zip://part::s3://…` that of the part."""
    part = next((part for part in shown(address).split("::") if "://" in part), "")
    return PurePosixPath(unquote(part.partition("://")[2])).name


def on_this_machine(place: str) -> str:
    """The path that a `file://` names; any other address stays."""
    is_file = place.lower().startswith("file://")
    return url2pathname(urlsplit(place).path) if is_file else place


@contextmanager
def local(place: Any, monitor: Monitor | None = None) -> Iterator[Any]:
    """The path of a copy of what lies at an address, for as long as this lasts.

    place: anything that is no address comes back as it is.
    Raises InputError where it cannot be read, ends early or has too many bytes, DependencyError
    where a package is missing, ConfigError for an address that cannot be one.
    """
    if place == "":  # pathlib's name for it is the current folder
        raise ConfigError("the path is empty", "Name a file.")
    if not is_remote(place):
        yield place
    elif not is_remote(path := on_this_machine(place)):
        yield path
    else:
        with Workspace() as workspace:
            copy = _copied(place, workspace.folder, monitor or Monitor())
            with Names({str(copy): shown(place), copy.name: shown(place)}).in_errors():
                yield str(copy)


def kept_copy(place: Any, of: Callable[[Path], P]) -> P:
    """An object made of the file at `place`, beside which a copy lives as long as the object."""
    with ExitStack() as stack:
        made = of(Path(stack.enter_context(local(place))))
        weakref.finalize(made, stack.pop_all().close)
    return made


@contextmanager
def local_sources(params: Any, names: Names, monitor: Monitor) -> Iterator[Any]:
    """The parameters of a job with a copy in place of each address that it reads.

    names: learns what the copies are called. Raises as `local`.
    """
    with ExitStack() as stack:
        changed: dict[str, Any] = {}
        for name, places in sources_of(params).items():
            copies = []
            for place in places:
                copies.append(str(stack.enter_context(local(place, monitor))))
                names.add(copies[-1], shown(place))
            changed[name] = _with_copies(getattr(params, name), places, copies)
        yield dataclasses.replace(params, **changed) if changed else params


def sources_of(params: Any) -> dict[str, list[str]]:
    """The addresses that a job reads, by parameter."""
    places: dict[str, list[Any]] = {name: [getattr(params, name, None)] for name in _SOURCES}
    places |= {name: getattr(params, name, None) or [] for name in _LISTS}
    like = getattr(params, "like", None)
    places["like"] = [like.get("path")] if isinstance(like, dict) else []
    remote = {name: [place for place in each if is_remote(place)] for name, each in places.items()}
    return {name: each for name, each in remote.items() if each}


def _with_copies(given: Any, places: Sequence[str], copies: Sequence[str]) -> Any:
    """A parameter with the path of a copy in place of each address."""
    if isinstance(given, dict):
        return {**given, "path": copies[0]}
    if isinstance(given, str):
        return copies[0]
    copy_of = dict(zip(places, copies, strict=True))
    return [copy_of.get(place, place) for place in given]


def _copied(address: str, folder: Path, monitor: Monitor) -> Path:
    """The bytes at an address, under a name that says nothing but how it ends."""
    from MedEnhanceLib.io import ending_of  # with numpy, which help of commands does without

    ending = ending_of(name_at(address))
    known = re.fullmatch(r"(\.[a-z0-9]{1,8}){1,2}", ending)
    path = folder / f"source{ending if known else ''}"
    name = shown(address)
    monitor.progress(0.0, "download")
    with in_our_words(name, "read", InputError), _opened(address) as (stream, stated):
        done = fill(path, stream, name, monitor, stated)
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
    if address.endswith("/"):
        raise InputError(
            f"{shown(address)} is a folder, by the / at its end; one file is read here",
            "Name the file, or take medenhance batch for all volumes below it.",
        )
    files, path = filesystem(address)
    with files.open(path, "rb") as stream:
        yield stream, None


def filesystem(address: str) -> tuple[Any, str]:
    """What fsspec reads and writes an address with, and the path in it.

    Raises DependencyError where a package is missing, ConfigError for an unknown scheme.
    """
    scheme = address.partition("://")[0].lower()
    fsspec = require("fsspec", purpose=f"Reading and writing {scheme}://")
    try:
        files, path = fsspec.url_to_fs(address)
    except ImportError as cause:  # its own sentence names the package for this scheme
        raise DependencyError(f"{scheme}:// cannot be used: {cause}", _INSTALL) from None
    except ValueError:
        raise ConfigError(
            f"fsspec knows no addresses that begin with {scheme}://", "Check the address."
        ) from None
    return files, str(path)


@contextmanager
def in_our_words(
    name: str,
    what: str,
    error: type[MedEnhanceError],
    missing: str = "there is nothing at that address",
) -> Iterator[None]:
    """Whatever a client raises may hold the address with its signature: none of its words stay.

    name: what is read or written; what: which of these. missing: what it means that something is
    not there.
    """
    try:
        yield
    except MedEnhanceError:
        raise
    except HTTPError as cause:
        raise error(f"{name}: the server answers {cause.code}", _remedy(cause.code)) from None
    except Exception as cause:  # noqa: BLE001 - of many clients, each with errors of its own
        inner = cause.reason if isinstance(cause, URLError) else cause
        reason = missing if isinstance(inner, FileNotFoundError) else _reason(inner)
        raise error(
            f"{name} cannot be {what}: {reason}",
            "Check the address, the network and the credentials (of the environment, as the "
            "store's own tools take them).",
        ) from None


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


def _reason(cause: object) -> str:
    """What went wrong, without the words of a client, which may repeat the address."""
    if isinstance(cause, PermissionError):
        return "no permission, or no credentials that are known there"
    if isinstance(cause, TimeoutError):
        return f"no answer in {_PATIENCE_SECONDS:.0f} s"
    if isinstance(cause, OSError) and cause.errno is not None and cause.strerror:
        # Of the system's own kinds; a plain one is what a store's answer was made into.
        return os.strerror(cause.errno) if type(cause) is OSError else cause.strerror
    return type(cause).__name__


def _most_bytes() -> int:
    given = os.environ.get(LIMIT, "")
    if not given:
        return _MOST_BYTES
    if not re.fullmatch(r"\d{1,15}", given):
        raise ConfigError(f"{LIMIT} is {given!r}", "Give a number of bytes.")
    return int(given)

"""Results at addresses: a job writes them into a private folder here, and then they are sent.

    private folder → folder/.medenhance-… at the address → its name

No result gets its name before all of them lie there; what was there before stays until then. The
manifest comes last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from MedEnhanceLib.core.options import options_of
from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.jobs.addresses import (
    filesystem,
    is_remote,
    is_web,
    listed,
    local,
    shown,
    store_errors,
)
from MedEnhanceLib.jobs.worker.workspace import Workspace
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import Names

_PIECE = 1 << 20
#: What no name of a result may have: it has a meaning of its own, or leads elsewhere.
_ODD = re.compile(r"::|[?#*\[\]\\\x00-\x1f]|(?<=/)\.{1,2}(?=/|$)")
#: How much of the progress of a job is the sending.
_SHARE = 0.1


def check_target(address: str) -> None:
    """Raise ConfigError or DependencyError for an address that takes no result."""
    path = address.rstrip("/").partition("://")[2]
    if is_web(address):
        raise ConfigError(
            f"{shown(address)}: there is no general way to write to a web server",
            "Write to this machine, or to a store (s3://, gs://, abfs://, sftp://).",
        )
    if "/" not in path or (odd := _ODD.search(path)):
        what = f"has {odd[0]!r} in it" if "/" in path and odd else "names no file or folder"
        raise ConfigError(
            f"{shown(address)} {what}, so that nothing is written there",
            "Name a file or folder in a store, as s3://bucket/better.nii.gz.",
        )
    filesystem(address)


def results_here(name: str, place: Any) -> Any:
    """A folder of results that have to lie on this machine; raises ConfigError for an address."""
    if is_remote(place):
        raise ConfigError(
            f"{name} is {shown(place)}: this folder is read and added to while the work goes on, "
            "and has to lie on this machine",
            "Name a folder here, and copy it there afterwards with the store's own tool.",
        )
    return place


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

    def refuse_taken(self, path: Path, *, is_folder: bool = False) -> None:
        """As `io.atomic.refuse_existing`; a folder must not be there at all."""
        from MedEnhanceLib.io.atomic import refuse_taken

        if (address := self._address_of(path)) is None:
            return
        if is_folder:
            if listed(address):
                raise OutputError(f"{shown(address)} holds files already", "Name a new folder.")
            return
        files, key = filesystem(address)
        with store_errors(shown(address), "looked up", OutputError):
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
            with store_errors(shown(folder), "written to", OutputError):
                with _opened_to_write(files, key) as stream:
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
        whole = sum(path.stat().st_size for path in waiting) or 1
        bytes_done = 0
        unnamed: list[tuple[Any, str, str, str]] = []
        try:
            for path in waiting:
                address = str(self._address_of(path))
                files, key = filesystem(address)
                temporary = f"{key.rpartition('/')[0]}/{temporary_name()}"
                unnamed.append((files, temporary, key, shown(address)))
                size = path.stat().st_size
                with store_errors(shown(address), "written", OutputError):
                    with path.open("rb") as file, _opened_to_write(files, temporary) as stream:
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
                with store_errors(name, "given its name", OutputError):
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


def _opened_to_write(files: Any, key: str) -> Any:
    """A stream; its folder is made where the store has some.

    Not where nothing is there at all: making it could make a bucket of a misspelled name.
    """
    try:
        return files.open(key, "wb")
    except FileNotFoundError:
        top = re.match(r"/?[^/]+", key)
        if top is None or not files.exists(top[0]):
            raise
    files.makedirs(key.rpartition("/")[0], exist_ok=True)
    return files.open(key, "wb")


@contextmanager
def sent_result(
    place: Any, monitor: Monitor, *, overwrite: bool, is_folder: bool = False
) -> Iterator[Path]:
    """Where to write what goes to `place`: there, or where it is sent from at the end.

    is_folder: what is written there is a folder, which at an address has to be new.
    Raises ConfigError for addresses that nothing can be written to, OutputError for what is there.
    """
    if not is_remote(place):
        yield Path(place)
        return
    names = Names()
    with names.in_errors(), Workspace() as workspace:
        outbox = Outbox(workspace.folder, names, overwrite=overwrite)
        path = outbox.place_for(place)
        outbox.refuse_taken(path, is_folder=is_folder)
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
        if place == "here":
            results_here(option.name, value)
        elif place == "input" and value is not None:
            inputs[option.name] = value
        elif place and is_remote(value):
            outputs[option.name] = value
    with ExitStack() as stack:
        part = monitor
        if outputs:
            _refuse_inputs(outputs, inputs)
            folder = stack.enter_context(Workspace()).folder
            outbox = Outbox(folder, names, overwrite=params.overwrite)
            paths = {name: str(outbox.place_for(address)) for name, address in outputs.items()}
            params = dataclasses.replace(params, **paths)
            _refuse_early(params, outbox)
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
    """A place, a list of places, or {"path": place, …}, with `change` made to each."""
    if isinstance(value, dict):
        return value | {"path": change(value.get("path"))}
    return [change(place) for place in value] if isinstance(value, list) else change(value)


def _refuse_inputs(outputs: Mapping[str, str], inputs: Mapping[str, Any]) -> None:
    """Raise OutputError where a result would replace what it is made of."""
    for address in outputs.values():
        check_target(address)
    targets = [filesystem(address) for address in outputs.values()]
    places: list[Any] = []
    for value in inputs.values():
        _each_place(value, places.append)
    for place in filter(is_remote, places):
        if not is_web(place) and filesystem(place) in targets:
            raise OutputError(f"{shown(place)} is the input itself", "Give another name.")


def _refuse_early(params: Any, outbox: Outbox) -> None:
    """Refuse before the long work what could not be sent after it."""
    from MedEnhanceLib.jobs.files import manifest_path, results_of

    for option in options_of(type(params)):
        if option.about.place == "folder" and (folder := getattr(params, option.name)):
            outbox.refuse_taken(Path(folder), is_folder=True)
    for name, path in results_of(params).items():
        is_folder = name == "output" and getattr(params, "dicom", None) is True
        outbox.refuse_taken(path, is_folder=is_folder)
        outbox.refuse_taken(manifest_path(path))
    outbox.refuse_unwritable()

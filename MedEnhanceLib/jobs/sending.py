"""Results at addresses: a job writes them into a private folder here, and then they are sent.

    private folder → folder/.medenhance-… at the address → read back, SHA-256 compared → its name

No result gets its name before all of them lie there; what was there before stays until then. The
manifest comes last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
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
    listed,
    local,
    on_this_machine,
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
    scheme, _, path = address.rstrip("/").partition("://")
    if scheme.lower() in ("http", "https"):
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


def check_writable(folder: str) -> None:
    """Write and remove a few bytes; raises OutputError where they cannot be written."""
    from MedEnhanceLib.io.atomic import temporary_name

    files, root = filesystem(folder)
    key = f"{root}/{temporary_name(Path('probe'), '')}"
    with store_errors(shown(folder), "written to", OutputError):
        try:
            with _opened_to_write(files, key) as stream:
                stream.write(b"medenhance")
        finally:
            with contextlib.suppress(Exception):
                files.rm_file(key)


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


def results_here(name: str, place: Any) -> Any:
    """A folder of results that have to lie on this machine; raises ConfigError for an address."""
    path = on_this_machine(place)
    if is_remote(path):
        raise ConfigError(
            f"{name} is {shown(place)}: this folder is read and added to while the work goes on, "
            "and has to lie on this machine",
            "Name a folder here, and copy it there afterwards with the store's own tool.",
        )
    return path


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

    def address_of(self, path: Path) -> str | None:
        """Where a path here is sent to; None for a path of the user's."""
        for folder, above in self._addresses.items():
            if path.is_relative_to(folder):
                return f"{above}/{path.relative_to(folder).as_posix()}"
        return None

    def refuse_taken(self, path: Path, *, is_new_folder: bool = False) -> None:
        """As `io.atomic.refuse_existing`; what becomes a folder must not be there at all."""
        from MedEnhanceLib.io.atomic import refuse_taken

        if (address := self.address_of(path)) is None:
            return
        if is_new_folder:
            if listed(address):
                raise OutputError(f"{shown(address)} holds files already", "Name a new folder.")
            return
        files, key = filesystem(address)
        with store_errors(shown(address), "looked up", OutputError):
            files.invalidate_cache()
            # A store may have an object of this name, and others below it as well.
            is_folder, is_there = files.isdir(key), files.exists(key)
        if is_there:
            refuse_taken(shown(address), is_folder=is_folder, overwrite=self._overwrite)

    def refuse_unwritable(self) -> None:
        """Raise OutputError for a store that nothing can be written to."""
        for above in self._addresses.values():
            check_writable(above)

    def send(self, monitor: Monitor, last: Path | None = None) -> None:
        """Send every file; all of them get their names, or none.

        last: the one that gets its name after all others.
        Raises OutputError, Cancelled: what was there before is there, and nothing else, unless a
        store stops giving names halfway.
        """
        from MedEnhanceLib.io.atomic import temporary_name

        below = (path for folder in self._addresses for path in folder.rglob("*"))
        waiting = sorted(filter(Path.is_file, below), key=lambda path: (path == last, path))
        whole = 2 * sum(path.stat().st_size for path in waiting) or 1
        bytes_done = 0

        def done(count: int) -> None:
            nonlocal bytes_done
            bytes_done += count
            monitor.progress(bytes_done / whole, "upload")

        unnamed: list[tuple[Any, str, str, str]] = []
        try:
            for path in waiting:
                address = str(self.address_of(path))
                files, key = filesystem(address)
                temporary = f"{key.rpartition('/')[0]}/{temporary_name(path, '')}"
                monitor.check()
                unnamed.append((files, temporary, key, shown(address)))
                with store_errors(shown(address), "written", OutputError):
                    _write_and_compare(path, files, temporary, shown(address), done)
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


def _write_and_compare(
    source: Path, files: Any, key: str, name: str, done: Callable[[int], None]
) -> None:
    """Send a file, and read it back; raises OutputError where that is not the file.

    done: is called with the bytes of each piece, both ways; may raise.
    """
    sent, read = hashlib.sha256(), hashlib.sha256()
    with source.open("rb") as file, _opened_to_write(files, key) as stream:
        while piece := file.read(_PIECE):
            sent.update(piece)
            stream.write(piece)
            done(len(piece))
    files.invalidate_cache()
    with files.open(key, "rb") as back:
        while piece := back.read(_PIECE):
            read.update(piece)
            done(len(piece))
    if read.digest() != sent.digest():
        raise OutputError(
            f"{name} was changed on its way: what was read back has another SHA-256",
            "Send it again; if it comes back, the store or the network may be failing.",
        )


@contextmanager
def sent_result(
    place: Any, monitor: Monitor, *, overwrite: bool, is_folder: bool = False
) -> Iterator[Path]:
    """Where to write what goes to `place`: there, or where it is sent from at the end.

    is_folder: what is written there is a folder, which at an address has to be new.
    Raises ConfigError for addresses that nothing can be written to, OutputError for what is there.
    """
    place = on_this_machine(place)
    if not is_remote(place):
        yield Path(place)
        return
    names = Names()
    with names.in_errors(), Workspace() as workspace:
        outbox = Outbox(workspace.folder, names, overwrite=overwrite)
        path = outbox.place_for(place)
        outbox.refuse_taken(path, is_new_folder=is_folder)
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
    by_place: dict[str, dict[str, Any]] = {"input": {}, "output": {}, "here": {}}
    for option in options_of(type(params)):
        value = getattr(params, option.name)
        if option.about.place and value is not None:
            by_place[option.about.place][option.name] = on_this_machine(value)
    changed = {name: results_here(name, value) for name, value in by_place["here"].items()}
    outputs = {name: value for name, value in by_place["output"].items() if is_remote(value)}
    with ExitStack() as stack:
        if outputs:
            _refuse_inputs(outputs, by_place["input"])
            folder = stack.enter_context(Workspace()).folder
            outbox = Outbox(folder, names, overwrite=params.overwrite)
            for name, address in outputs.items():
                outputs[name] = str(outbox.place_for(address))
            _refuse_early(dataclasses.replace(params, **changed, **outputs), outbox)
        part = monitor.part(0.0, 1 - _SHARE).changed(names.of) if outputs else monitor

        def copied(place: Any) -> Any:
            path = stack.enter_context(local(place, part))
            if is_remote(on_this_machine(place)):
                names.add(path, shown(place))
            return path

        for name, value in by_place["input"].items():
            changed[name] = _each_place(value, copied)
        given = by_place["output"] | changed | outputs
        here = dataclasses.replace(params, **given)
        yield here, part
        if outputs:
            outbox.send(monitor.part(1 - _SHARE, 1.0), _manifest(here))


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

    def compare(place: Any) -> None:
        is_store = is_remote(place) and not place.lower().startswith(("http://", "https://"))
        if is_store and filesystem(place) in targets:
            raise OutputError(f"{shown(place)} is the input itself", "Give another name.")

    for value in inputs.values():
        _each_place(value, compare)


def _refuse_early(params: Any, outbox: Outbox) -> None:
    """Refuse before the long work what could not be sent after it."""
    from MedEnhanceLib.jobs.files import manifest_path

    results: Mapping[str, Path] = getattr(params, "results", {"output": Path(params.output)})
    for name, path in results.items():
        is_folder = name == "output" and getattr(params, "dicom", None) is True
        outbox.refuse_taken(path, is_new_folder=is_folder)
        outbox.refuse_taken(manifest_path(path))
    if page := getattr(params, "report", None):
        outbox.refuse_taken(Path(page) / "index.html")
    outbox.refuse_unwritable()


def _manifest(params: Any) -> Path:
    from MedEnhanceLib.jobs.files import manifest_path

    return manifest_path(Path(params.output))

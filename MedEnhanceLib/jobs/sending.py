"""Results at addresses: a job writes them into a private folder here, and then they are sent.

    private folder → folder/.medenhance-… at the address → read back, SHA-256 compared → its name

Nothing gets its name before all of them lie there; what was there before stays until then. The
manifest comes last. Addresses are those of fsspec, but for https, where nothing can be written in
general.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.jobs.addresses import (
    filesystem,
    fill,
    in_our_words,
    is_remote,
    on_this_machine,
    shown,
    sources_of,
)
from MedEnhanceLib.jobs.store import MISSING, Store
from MedEnhanceLib.jobs.worker.workspace import Workspace
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.text import Names

#: Kinds of job whose results may go to addresses. `batch` sends by the jobs that it runs.
_KINDS = (
    "enhance", "segment", "compress", "decompress", "blend", "degrade", "convert", "recover",
    "export",
)  # fmt: skip
#: Parameters of jobs that name what is written.
_RESULTS = (
    "output", "out", "report", "noise_output", "guide_map", "uncertainty_output",
    "segmentation_output", "mask",
)  # fmt: skip
#: The file of a report's folder that is looked for.
_PAGE = "index.html"
#: How much of the progress is the sending.
_SHARE = 0.1
_STAGE = "upload"


def results_here(name: str, place: Any) -> Any:
    """A folder of results that have to lie on this machine, as a training's.

    Raises ConfigError for an address.
    """
    if not is_remote(place):
        return place
    if is_remote(path := on_this_machine(place)):
        raise ConfigError(
            f"{name} is {shown(place)}: this folder is read and added to while the work goes on, "
            "and has to lie on this machine",
            "Name a folder here, and copy it there afterwards with the store's own tool.",
        )
    return path


@dataclass(frozen=True)
class _Parcel:
    """A file here, the store that it goes to, and its name there: the temporary one, the final."""

    file: Path
    store: Store
    temporary: str
    name: str


class Outbox:
    """Where results wait that go to addresses.

    Each folder at an address has one here: what a job writes beside its output goes beside it.

    folder: a private one, empty. names: learns what the paths in it are called.
    """

    def __init__(self, folder: Path, names: Names, *, overwrite: bool) -> None:
        self._folder, self._names, self._overwrite = folder.resolve(), names, overwrite
        self._stores: dict[Path, Store] = {}
        #: Files that were there before, for what adds to a folder, as they are there.
        self._fetched: dict[Path, bytes] = {}

    def place_for(self, address: str) -> Path:
        """Where to write what goes to an address; raises ConfigError where nothing can."""
        address, scheme = address.rstrip("/"), address.partition("://")[0]
        above, _, name = address.rpartition("/")
        if len(above) <= len(f"{scheme}://") or name in ("", ".", ".."):
            raise ConfigError(
                f"{shown(address)} names no file or folder in a store",
                "Name one: s3://bucket/better.nii.gz.",
            )
        Store.at(address)  # its own name may be odd too
        store = Store.at(above)
        for folder, known in self._stores.items():
            if known.is_same(store):
                return folder / name
        folder = self._folder / str(len(self._stores))
        folder.mkdir()
        self._stores[folder] = store
        self._names.add(folder, store.name)
        return folder / name

    def refuse_taken(self, path: Path) -> None:
        """As `io.atomic.refuse_existing`, for a path here and the address that it stands for."""
        if owner := self._owner_of(path):
            folder, store = owner
            store.refuse_taken(path.relative_to(folder).as_posix(), overwrite=self._overwrite)

    def fetch(self, path: Path, monitor: Monitor) -> None:
        """Have here what lies in a folder there, which the job may add to.

        Raises OutputError where it holds something and may not be added to.
        """
        owner = self._owner_of(path)
        if owner is None:
            return
        folder, above = owner
        below = path.relative_to(folder).as_posix()
        store = Store(above.shown(below), above.files, above.key(below))
        there = store.listed()
        if there and not self._overwrite:
            from MedEnhanceLib.jobs.dicom import in_use

            raise in_use(store.name)
        for name in there:
            file = path / name
            if not file.resolve().is_relative_to(path):
                continue  # a key may be called anything; such a one stays as it is
            file.parent.mkdir(parents=True, exist_ok=True)
            with (
                in_our_words(store.shown(name), "read", OutputError),
                store.files.open(store.key(name), "rb") as stream,
            ):
                fill(file, stream, store.shown(name), monitor)
            self._fetched[file] = _digest(file)

    def refuse_source(
        self, parameter: str, path: Path, sources: Mapping[str, Sequence[str]]
    ) -> None:
        """Raise OutputError where a result would replace what it is made of, or lie around it."""
        owner = self._owner_of(path)
        if owner is None:
            return
        folder, store = owner
        below = path.relative_to(folder).as_posix()
        for address in itertools.chain(*sources.values()):
            if "::" in address or address.lower().startswith(("http://", "https://")):
                continue
            files, key = filesystem(address)
            if files != store.files or not f"{key}/".startswith(f"{store.key(below)}/"):
                continue
            what = "is the input itself" if key == store.key(below) else "holds the input"
            raise OutputError(
                f"{store.shown(below)}: {parameter} {what}", "Give the output another name."
            )

    def refuse_unwritable(self) -> None:
        """Raise OutputError for a store that nothing can be written to."""
        for store in self._stores.values():
            store.refuse_unwritable()

    def send(self, monitor: Monitor, last: Path | None = None) -> None:
        """Send every file that was written or changed; all of them get their names, or none.

        last: the one that gets its name after all others. What a job removed of what was there is
        removed there too.
        Raises OutputError, Cancelled: what was there before is there, and nothing else, unless a
        store stops giving names halfway, which the error says.
        """
        from MedEnhanceLib.io.atomic import temporary_name

        parcels: list[_Parcel] = []
        unnamed: list[_Parcel] = []
        for folder, store in self._stores.items():
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                if self._fetched.get(file) == _digest(file):
                    continue
                place = PurePosixPath(file.relative_to(folder).as_posix())
                beside = place.with_name(temporary_name(file, ""))
                parcels.append(_Parcel(file, store, str(beside), str(place)))
        parcels.sort(key=lambda parcel: parcel.file == last)
        whole = 2 * sum(parcel.file.stat().st_size for parcel in parcels) or 1
        bytes_done = 0

        def done(count: int) -> None:
            nonlocal bytes_done
            bytes_done += count
            monitor.progress(bytes_done / whole, _STAGE)

        try:
            for parcel in parcels:
                name = parcel.store.shown(parcel.name)
                with (
                    in_our_words(name, "written", OutputError, MISSING),
                    Names({parcel.store.shown(parcel.temporary): name}).in_errors(),
                ):
                    monitor.check()
                    unnamed.append(parcel)
                    parcel.store.write(parcel.file, parcel.temporary, done)
            for parcel in parcels:
                self.refuse_taken(parcel.file)
            while unnamed:
                self._name(unnamed[0], len(parcels) - len(unnamed), len(parcels))
                unnamed.pop(0)
        finally:
            for parcel in unnamed:
                parcel.store.remove(parcel.temporary)
        for file in self._fetched:
            if not file.exists() and (owner := self._owner_of(file)):
                folder, store = owner
                store.remove(file.relative_to(folder).as_posix())

    def _name(self, parcel: _Parcel, count: int, of: int) -> None:
        """Move an object onto its final name, after `count` others of all."""
        store = parcel.store
        try:
            with in_our_words(store.shown(parcel.name), "given its name", OutputError):
                store.files.mv(store.key(parcel.temporary), store.key(parcel.name))
        except OutputError as error:
            if count:
                error.hint = (
                    f"{count} of {of} files have their names already: run it again, and allow "
                    "to replace them (--force, overwrite=True)."
                )
            raise

    def _owner_of(self, path: Path) -> tuple[Path, Store] | None:
        """The folder here that a path lies below, and its store; None for a path of the user's."""
        return next(
            (owner for owner in self._stores.items() if path.is_relative_to(owner[0])), None
        )


@dataclass(frozen=True)
class Sending:
    """A job whose results may go to addresses: what it is given instead, and what is left.

    params, monitor: for the job. finish: sends, given what the job reports of itself.
    """

    params: Any
    monitor: Monitor
    finish: Callable[[Mapping[str, Any]], None]


@contextmanager
def sent_results(kind: str, params: Any, names: Names, monitor: Monitor) -> Iterator[Sending]:
    """A job's parameters with a path here in place of each address that it writes to.

    names: learns what these paths are called.
    Raises, before the job: ConfigError for addresses that nothing can be written to, and for those
    of jobs whose folders have to lie here; OutputError for what is there already, for an input, and
    for a store that nothing can be written to.
    """
    places: dict[str, Any] = {
        name: on_this_machine(given)
        for name in _RESULTS
        if kind != "batch" and is_remote(given := getattr(params, name, None))
    }
    if is_remote(mapping := getattr(params, "mapping", None)):
        raise ConfigError(
            f"mapping is {shown(mapping)}: it identifies everybody, and stays on this machine",
            "Name a file here.",
        )
    if kind not in _KINDS:
        places = {name: results_here(name, given) for name, given in places.items()}
    if not any(map(is_remote, places.values())):
        here = dataclasses.replace(params, **places) if places else params
        yield Sending(here, monitor, lambda _fields: None)
        return
    with Workspace() as workspace:
        outbox = Outbox(workspace.folder, names, overwrite=params.overwrite)
        for name, given in places.items():
            places[name] = str(outbox.place_for(given)) if is_remote(given) else given
        staged = dataclasses.replace(params, **places)
        _refuse_early(staged, sources_of(params), outbox, monitor)

        def finish(fields: Mapping[str, Any]) -> None:
            manifest = fields.get("manifest")
            outbox.send(monitor.part(1 - _SHARE, 1.0), Path(manifest) if manifest else None)

        yield Sending(staged, monitor.part(0.0, 1 - _SHARE).changed(names.of), finish)


def _refuse_early(
    params: Any, sources: Mapping[str, Sequence[str]], outbox: Outbox, monitor: Monitor
) -> None:
    """Refuse before the long work what could not be sent after it."""
    from MedEnhanceLib.jobs.files import manifest_path

    results: Mapping[str, Path] = getattr(params, "results", {"output": Path(params.output)})
    in_folder = getattr(params, "dicom", None) is True
    for name, path in results.items():
        outbox.refuse_source(name, path, sources)
        if in_folder and name == "output":
            outbox.fetch(path, monitor.part(0.0, 0.0))
        else:
            outbox.refuse_taken(path)
        outbox.refuse_taken(manifest_path(path))
    if page := getattr(params, "report", None):
        outbox.refuse_taken(Path(page) / _PAGE)
    outbox.refuse_unwritable()


@contextmanager
def sent_result(
    place: Any, monitor: Monitor, *, overwrite: bool, is_folder: bool = False
) -> Iterator[Path]:
    """Where to write what goes to `place`: there, or where it is sent from at the end.

    is_folder: what is written there is a folder.
    Raises as `sent_results`.
    """
    if not is_remote(place) or not is_remote(place := on_this_machine(place)):
        yield Path(place)
        return
    names = Names()
    with names.in_errors(), Workspace() as workspace:
        outbox = Outbox(workspace.folder, names, overwrite=overwrite)
        path = outbox.place_for(place)
        if is_folder:
            outbox.fetch(path, monitor.part(0.0, 0.0))
        else:
            outbox.refuse_taken(path)
        outbox.refuse_unwritable()
        yield path
        outbox.send(monitor)


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()

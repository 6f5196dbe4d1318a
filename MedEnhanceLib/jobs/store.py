"""A folder in a store that fsspec knows: what lies in it, and writing to it.

https is left out: nothing can be written there in general.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from MedEnhanceLib.errors import ConfigError, OutputError
from MedEnhanceLib.jobs.addresses import filesystem, in_our_words, shown

#: What it means that a store says "not found" where something is to be written.
MISSING = "its bucket or folder is not there"
_PIECE = 1 << 20


@dataclass(frozen=True, eq=False)
class Store:
    """A folder at an address.

    name: the address as it may be shown. files: fsspec's file system. root: the folder in it.
    """

    name: str
    files: Any
    root: str

    @classmethod
    def at(cls, address: str) -> Store:
        """The folder at an address; raises ConfigError, DependencyError where it cannot be one."""
        name, scheme = shown(address).rstrip("/"), address.partition("://")[0].lower()
        if "::" in address:
            raise ConfigError(
                f"{name} leads through another file, or through a cache",
                "Results go to a store's own address: s3://bucket/name.",
            )
        if scheme in ("http", "https"):
            raise ConfigError(
                f"{name}: there is no general way to write to a web server",
                "Write to this machine, or to a store (s3://, gs://, abfs://, sftp://).",
            )
        if odd := re.search(r"[?#*\[\]\\\x00-\x1f]", address.partition("://")[2].partition("/")[2]):
            raise ConfigError(
                f"{name}: {odd[0]!r} has a meaning of its own in an address",
                "Give the result a name without ? # * [ ] and \\.",
            )
        if {".", ".."} & {*address.partition("://")[2].split("/")}:
            raise ConfigError(
                f"{name}: . and .. are no parts of an address", "Write out where it leads."
            )
        files, root = filesystem(address)
        return cls(name, files, root.rstrip("/"))

    def is_same(self, other: Store) -> bool:
        """Whether both are one folder."""
        return bool(self.files == other.files) and self.root == other.root

    def key(self, below: str) -> str:
        """What the file system calls an object below the folder."""
        return f"{self.root}/{below}"

    def shown(self, below: str) -> str:
        """What people call it."""
        return f"{self.name}/{below}"

    def listed(self) -> dict[str, Mapping[str, Any]]:
        """Every object below, by its path from here, with what is known of it: one listing.

        Without what a sending that was killed left behind.
        """
        from MedEnhanceLib.io.atomic import PREFIX

        with in_our_words(self.name, "listed", OutputError, MISSING):
            self.files.invalidate_cache()
            try:
                found = self.files.find(self.root, detail=True)
            except FileNotFoundError:
                return {}
        start = self.root.strip("/") + "/"
        below = {key.lstrip("/"): about for key, about in found.items()}
        return {
            key[len(start) :]: about
            for key, about in below.items()
            if key.startswith(start)
            and not key.endswith("/")
            and not PurePosixPath(key).name.startswith(PREFIX)
        }

    def refuse_taken(self, below: str, *, overwrite: bool) -> None:
        """As `io.atomic.refuse_existing`."""
        from MedEnhanceLib.io.atomic import refuse_taken

        key, name = self.key(below), self.shown(below)
        with in_our_words(name, "looked up", OutputError, MISSING):
            self.files.invalidate_cache()
            try:
                is_folder = self.files.info(key)["type"] == "directory"
            except FileNotFoundError:
                return
            # A store may have an object of this name, and others below it as well.
            is_folder = is_folder or bool(self.files.isdir(key))
            refuse_taken(name, is_folder=is_folder, overwrite=overwrite)

    def refuse_unwritable(self) -> None:
        """Write and remove a few bytes; raises OutputError where that cannot be done."""
        from MedEnhanceLib.io.atomic import temporary_name

        key = self.key(temporary_name(Path("probe"), ""))
        with in_our_words(self.name, "written to", OutputError, MISSING):
            self._in_its_folder(key, lambda: self.files.pipe_file(key, b"medenhance"))
            self.files.rm_file(key)

    def write(self, source: Path, below: str, done: Callable[[int], None]) -> None:
        """Send a file, and read it back; raises OutputError where that is not the file.

        done: is called with the bytes of each piece, both ways; may raise.
        """
        key, sent, read = self.key(below), hashlib.sha256(), hashlib.sha256()
        stream = self._in_its_folder(key, lambda: self.files.open(key, "wb"))
        try:
            with source.open("rb") as file:
                while piece := file.read(_PIECE):
                    sent.update(piece)
                    stream.write(piece)
                    done(len(piece))
        except BaseException:
            # An object that stays open is finished later, when nobody removes it any more.
            with contextlib.suppress(Exception):
                stream.close()
            raise
        stream.close()
        self.files.invalidate_cache()
        with self.files.open(key, "rb") as back:
            while piece := back.read(_PIECE):
                read.update(piece)
                done(len(piece))
        if read.digest() != sent.digest():
            raise OutputError(
                f"{self.shown(below)} was changed on its way: what was read back has another "
                "SHA-256",
                "Send it again; if it comes back, the store or the network may be failing.",
            )

    def remove(self, below: str) -> None:
        """Remove an object, if it is there and that can be done."""
        with contextlib.suppress(Exception):
            self.files.rm_file(self.key(below))

    def _in_its_folder(self, key: str, write: Callable[[], Any]) -> Any:
        """What `write` gives, for which a folder is made where the store has some.

        Not where nothing is there at all: making it could make a bucket of a misspelled name.
        """
        try:
            return write()
        except FileNotFoundError:
            top = re.match(r"/?[^/]+", key)
            if top is None or not self.files.exists(top[0]):
                raise
        self.files.makedirs(key.rpartition("/")[0], exist_ok=True)
        return write()

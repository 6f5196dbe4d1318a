"""One image given twice: a copy is left out and said, a contradiction is refused."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from MedEnhanceLib.errors import InputError
from MedEnhanceLib.io.dicom.bounded import read_elements
from MedEnhanceLib.io.dicom.headers import Header
from MedEnhanceLib.io.dicom.marks import pydicom_failures
from MedEnhanceLib.io.dicom.reading import index_pixels
from MedEnhanceLib.io.dicom.sources import FileRef
from MedEnhanceLib.io.dicom.words import counted, named
from MedEnhanceLib.runtime.progress import Monitor, attend


@dataclass(frozen=True)
class Copies:
    """Files that carry one SOPInstanceUID; only the first is used."""

    first: FileRef
    others: tuple[FileRef, ...]


def without_copies(headers: Sequence[Header]) -> tuple[list[Header], list[Copies]]:
    """The first header of each instance, and what was left out for it; contents are not read."""
    by_instance: dict[str, list[Header]] = defaultdict(list)
    for index, header in enumerate(headers):
        by_instance[header.instance or f"nameless {index}"].append(header)
    first = [found[0] for found in by_instance.values()]
    copies = [
        Copies(found[0].file, tuple(one.file for one in found[1:]))
        for found in by_instance.values()
        if len(found) > 1
    ]
    return first, copies


def require_identical(copies: Sequence[Copies], name: str, monitor: Monitor) -> None:
    """Warn of copies, counted and named; raise InputError where one is not what it copies."""
    count = sum(len(one.others) for one in copies)
    done = 0
    for one in copies:
        digest = attend(partial(_digest, one.first), monitor)
        for other in one.others:
            monitor.progress(done / count, "comparing copies")
            done += 1
            is_same = attend(partial(_is_same, other, one.first, digest), monitor)
            if not is_same:
                raise InputError(
                    f"{name}: {one.first} and {other} carry one SOPInstanceUID and differ",
                    "Only one of them can be the original: take the other away.",
                )
    if count:
        which = named([f"{other} (of {one.first.name})" for one in copies for other in one.others])
        verb = "is a copy of another" if count == 1 else "are copies of others"
        monitor.warn(f"{name}: {counted(count, 'file')} {verb} and left out: {which}")


def _is_same(other: FileRef, first: FileRef, digest: bytes) -> bool:
    return _digest(other) == digest or _holds_the_same(first, other)


def _digest(file: FileRef) -> bytes:
    try:
        with file.open() as stream:
            return hashlib.file_digest(stream, "sha256").digest()  # type: ignore[arg-type]
    except OSError as cause:
        raise InputError(
            f"{file} cannot be read: {cause.strerror}", "Copy or export the file again."
        ) from cause


def _holds_the_same(first: FileRef, second: FileRef) -> bool:
    """Whether two files hold one data set, each written in another way."""
    try:
        with warnings.catch_warnings(), first.peek() as one, second.peek() as other:
            warnings.simplefilter("ignore")
            if read_elements(one) != read_elements(other):
                return False
        ours, theirs = index_pixels(first), index_pixels(second)
        return len(ours.spans) == len(theirs.spans) and all(
            np.array_equal(ours.frame(index), theirs.frame(index))
            for index in range(len(ours.spans))
        )
    except pydicom_failures():
        return False

"""Parity: what a file of each size gets back, and that nothing in it is believed."""

from __future__ import annotations

import errno
import random
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, parity
from MedEnhanceLib.unicompress.parity import RESIDUE, Layout, RepairChunk
from MedEnhanceLib.unicompress.recovery import save_repaired

from .conftest import damage
from .test_round_trip import same_bits

PAGE = 4096
#: Bytes of noise, which no codec makes smaller: the file has about as many.
SMALL, LARGE = 250_000, 1_200_000


def noise(size: int) -> Volume:
    """Slices of 25,000 bytes, up to eight of them in a block."""
    voxels = np.random.default_rng(size).integers(0, 256, (size // 25_000, 250, 100), np.uint8)
    return Volume(voxels)


@cache
def file_of_noise(size: int) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.ucv"
        compress(noise(size), path, CompressConfig(lossless=True, speed="fast", threads=1))
        return path.read_bytes()


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """A file of noise that is damaged in some places."""

    def make(size: int, *places: tuple[int, int]) -> Path:
        path = tmp_path / "a.ucv"
        path.write_bytes(file_of_noise(size))
        damage(path, *places)
        return path

    return make


class UnreadablePage:
    """A file on a disk that can never read one of its pages."""

    def __init__(self, stream: Any, start: int) -> None:
        self.seek, self.fileno, self.close = stream.seek, stream.fileno, stream.close
        self._stream, self._bad = stream, range(start, start + PAGE)

    def read(self, length: int) -> bytes:
        first = self._stream.tell()
        if first < self._bad.stop and self._bad.start < first + length:
            raise OSError(errno.EIO, "Input/output error")
        return bytes(self._stream.read(length))


def comes_back(path: Path, size: int) -> bool:
    """Whether all voxels come back, with a warning that names file and byte."""
    warnings: list[str] = []
    monitor = Monitor(lambda e: warnings.append(e.fields.get("message", "")))
    try:
        voxels = decompress(path, monitor=monitor, threads=1).voxels
    except CodecError:
        return False
    assert same_bits(voxels, noise(size).voxels)
    (warning,) = filter(None, warnings)
    for says in ("a.ucv is damaged", "at byte", "write it anew"):
        assert says in warning
    return True


@pytest.mark.parametrize(
    "size", [1, 5_000, 177_000, 178_000, *range(187_000, 3_000_000, 77_777), 10**8]
)
def test_parity_takes_at_most_a_hundredth_and_is_known_beforehand(size: int) -> None:
    layout = Layout.for_size(size)
    assert (layout is None) == (size < 178_000)
    taken = 0 if layout is None else layout.chunk_bytes + 20
    assert taken <= parity.most_bytes(size) <= size / 100
    assert layout is None or layout.fits(size, layout.chunk_bytes)


@pytest.mark.parametrize(
    ("size", "page", "any_pages", "in_a_row"),
    [
        (178_000, 1024, 1, 1),
        (347_000, 1024, 2, 2),
        (685_000, 1024, 4, 4),
        (921_000, PAGE, 2, 2),
        (4_600_000, PAGE, 10, 10),
        (7_300_000, PAGE, 12, 16),
        (10_900_000, PAGE, 12, 23),
        (50_000_000, PAGE, 12, 100),
        (10**9, PAGE, 12, 2000),
    ],
)
def test_what_comes_back_from_which_size_on(
    size: int, page: int, any_pages: int, in_a_row: int
) -> None:
    """The table of docs/compression.md."""
    for more in range(0, size // 5, size // 50):
        layout = Layout.for_size(size + more)
        assert layout is not None
        assert layout.page == page
        assert layout.rows >= any_pages
        assert layout.rows * layout.columns >= in_a_row


def test_lost_pages_of_files_come_back_and_one_more_does_not(made: Callable[..., Path]) -> None:
    last = (LARGE - 25_000) // PAGE
    for place in ((20 * 1024, 1024), (SMALL - 5_000, 40)):
        assert comes_back(made(SMALL, place), SMALL)
    assert not comes_back(made(SMALL, (20_000, 10), (40_000, 10)), SMALL)
    for first, second in ((3, 4), (1, last)):
        pages = (first * PAGE, PAGE), (second * PAGE, PAGE)
        assert comes_back(made(LARGE, *pages), LARGE)
    assert comes_back(made(LARGE, (5 * PAGE + 100, PAGE)), LARGE)  # in two pages of the file
    assert not comes_back(made(LARGE, (5 * PAGE, 50), (70 * PAGE, 50), (140 * PAGE, 50)), LARGE)


@pytest.mark.parametrize("rows", [1, 2, 12, 23])
@pytest.mark.parametrize("columns", [1, 3])
def test_as_many_pages_of_a_column_as_there_are_rows(rows: int, columns: int) -> None:
    """At the level of bytes, with small pages; one lost page more is not repaired."""
    dice, page = random.Random(rows), 1024
    body = dice.randbytes(599 * page + 333)
    layout = Layout(page, 600, columns * page, rows)
    chunk = layout.chunk([body[:5000], body[5000:5001], body[5001:]], len(body))
    assert zlib.crc32(chunk) == zlib.crc32(layout.placeholder()) == RESIDUE
    for lost in (1, rows, rows + 1):
        raw = bytearray(body + chunk)
        column = dice.randrange(columns)
        if lost == 1 and rows > 1:  # parity that is damaged repairs with what is left of it
            raw[len(body) + column * page] ^= 1
        for number in dice.sample(range(column, 600, columns), lost):
            stop = min((number + 1) * page, len(body))
            raw[number * page : stop] = bytes(stop - number * page)
        damages = damages_of(bytes(raw))
        assert damages is not None
        assert len(damages) == lost
        assert all(place.repaired is not None for place in damages) == (lost <= rows)
        for place in damages:
            if place.repaired is not None:
                raw[place.offset : place.offset + place.length] = place.repaired
        assert (bytes(raw[: len(body)]) == body) == (lost <= rows)
    raw[-20] ^= 1
    assert damages_of(bytes(raw)) is None  # without its head it is useless


def damages_of(raw: bytes) -> list[parity.Damage] | None:
    def read(offset: int, length: int) -> bytes:
        return raw[offset : offset + length].ljust(length, b"\0")

    found = RepairChunk.before(read, len(raw))
    return None if found is None else found.find(read)


def test_a_sound_copy_is_the_file_as_it_was(made: Callable[..., Path], tmp_path: Path) -> None:
    whole = made(LARGE).read_bytes()
    path = made(LARGE, (9000, 50))
    assert path.read_bytes() != whole
    save_repaired(path, tmp_path / "b.ucv", overwrite=False)
    assert (tmp_path / "b.ucv").read_bytes() == whole


def test_a_disk_that_cannot_read_a_page_is_repaired_too(made: Callable[..., Path]) -> None:
    path = made(LARGE)
    opened = Path.open

    def unreadable(file: Path, *args: Any, **options: Any) -> Any:
        stream = opened(file, *args, **options)
        return UnreadablePage(stream, 6 * PAGE) if file == path else stream

    with mock.patch.object(Path, "open", unreadable):
        assert decompress(path, threads=1).is_equal(noise(LARGE))


@pytest.mark.parametrize("place", [20_000, -50], ids=["chunk", "seal"])
def test_verification_repairs_nothing(place: int, tmp_path: Path) -> None:
    """A disk that gives back other bytes than were written must not go unseen."""
    from MedEnhanceLib.unicompress import encode

    write = encode.write_container

    def spoiled(path: Path, *rest: object) -> str:
        seal = write(path, *rest)  # type: ignore[arg-type]
        damage(path, (place % path.stat().st_size, 50))
        return seal

    with mock.patch.object(encode, "write_container", spoiled), pytest.raises(CodecError):
        compress(noise(SMALL), tmp_path / "a.ucv", CompressConfig(lossless=True, speed="fast"))

"""Parity: what a file of each size gets back, and that nothing in it is believed."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import (
    CompressConfig,
    compress,
    decompress,
    repair,
)
from MedEnhanceLib.unicompress.container import REPAIR_CHUNK, Container
from MedEnhanceLib.unicompress.inspection import save_repaired
from MedEnhanceLib.unicompress.repair import RESIDUE, Layout, RepairChunk

from .test_round_trip import same_bits

PAGE = 4096
#: Bytes of noise, which no codec makes smaller: the file has about as many.
SMALL, MIDDLE, LARGE = 50_000, 450_000, 1_200_000
Edit = Callable[[bytearray], None]


def noise(size: int) -> Volume:
    """Slices of 25,000 bytes, up to eight of them in a block."""
    voxels = np.random.default_rng(size).integers(0, 256, (size // 25_000, 250, 100), np.uint8)
    return Volume(voxels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repair")


@pytest.fixture
def made(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of a file of noise; written once for each size, with parity and without."""

    def make(size: int, *, parity: bool = True) -> Path:
        path = folder / f"{size}-{parity}.ucv"
        if not path.is_file():
            config = CompressConfig(lossless=True, speed="fast", threads=1)
            with pytest.MonkeyPatch.context() as patch:
                if not parity:
                    patch.setattr(Layout, "of_size", lambda *_: None)
                compress(noise(size), path, config)
        copy = tmp_path / "a.ucv"
        copy.write_bytes(path.read_bytes())
        return copy

    return make


def damage(path: Path, *places: tuple[int, int]) -> None:
    """Zero bytes: pairs of offset and length."""
    raw = bytearray(path.read_bytes())
    for offset, length in places:
        raw[offset : offset + length] = bytes(len(raw[offset : offset + length]))
    path.write_bytes(raw)


def row_of(path: Path) -> tuple[int, int]:
    """Where the repair chunk lies, and its length."""
    with Container(path) as opened:
        (found,) = (chunk for chunk in opened.chunks if chunk.kind == REPAIR_CHUNK)
    return found.offset, found.length


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
    assert "a.ucv is damaged" in warning
    assert "at byte" in warning
    assert "write it anew" in warning
    return True


# ---------------------------------------------------------------- what comes back


@pytest.mark.parametrize(
    "size", [1, 5_000, 16_999, 17_000, *range(18_000, 3_000_000, 77_777), 10**8]
)
def test_parity_takes_at_most_a_hundredth_and_is_known_beforehand(size: int) -> None:
    layout = Layout.of_size(size)
    assert (layout is None) == (size < 17_000)
    taken = 0 if layout is None else layout.chunk_bytes + 30
    assert taken <= repair.most_bytes(size) <= size / 100
    assert layout is None or layout.fits(size, layout.chunk_bytes)


@pytest.mark.parametrize(
    ("size", "any_pages", "in_a_row"),
    [
        (421_000, 0, 0),
        (920_000, 2, 2),
        (4_600_000, 10, 10),
        (7_300_000, 12, 16),
        (10_900_000, 12, 23),
        (50_000_000, 12, 100),
        (10**9, 12, 2000),
    ],
)
def test_what_comes_back_from_which_size_on(size: int, any_pages: int, in_a_row: int) -> None:
    """The table of docs/compression.md."""
    for more in range(0, size, size // 50):
        layout = Layout.of_size(size + more)
        assert layout is not None
        assert layout.stripe >= PAGE  # of one run, or a page
        if any_pages:
            assert layout.page == PAGE
            assert layout.rows >= any_pages
            assert layout.rows * layout.stripe >= in_a_row * PAGE


def test_a_small_file_gets_one_run_back_at_any_place(made: Callable[..., Path]) -> None:
    stripe = Layout.of_size(SMALL).stripe  # type: ignore[union-attr]
    assert stripe > 0.0075 * SMALL - 100
    first, (end, _) = 700, row_of(made(SMALL))
    for offset in (*range(first, end - stripe, 5001), end - stripe + 4):
        path = made(SMALL)
        damage(path, (offset, stripe - 4))
        assert comes_back(path, SMALL)
    path = made(SMALL)
    damage(path, (first, stripe + 40))
    assert not comes_back(path, SMALL)


def test_any_two_pages_of_a_megabyte_come_back(made: Callable[..., Path]) -> None:
    dice, last = random.Random(0), row_of(made(LARGE))[0] // PAGE - 1
    for first, second in [(3, 4), (1, last), dice.sample(range(1, last), 2)]:
        path = made(LARGE)
        damage(path, (first * PAGE, PAGE), (second * PAGE, PAGE))
        assert comes_back(path, LARGE)
    path = made(LARGE)
    damage(path, (5 * PAGE + 100, PAGE))  # a page that is none of the file's
    assert comes_back(path, LARGE)
    path = made(LARGE)
    damage(path, (5 * PAGE, 50), (70 * PAGE, 50), (140 * PAGE, 50))
    assert not comes_back(path, LARGE)


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 23])
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
        for number in dice.sample(range(column, 600, columns), lost):
            raw[number * page : min((number + 1) * page, len(body))] = bytes(
                min(page, len(body) - number * page)
            )
        found = _chunk_of(bytes(raw), len(body))
        assert found is not None
        damages = found.find(_reader(bytes(raw)))
        assert len(damages) == lost
        assert all(one.repaired is not None for one in damages) == (lost <= rows)
        for one in damages:
            if one.repaired is not None:
                raw[one.offset : one.offset + one.length] = one.repaired
        assert (bytes(raw[: len(body)]) == body) == (lost <= rows)


def test_damaged_parity_repairs_with_what_is_left_of_it() -> None:
    """Each page of parity stands for itself; both heads must be lost for it to be useless."""
    dice, page = random.Random(1), 1024
    body = dice.randbytes(100 * page)
    layout = Layout(page, 100, page, 6)
    raw = bytearray(body + layout.chunk([body], len(body)))
    rows = len(body) + 32
    for lost in (7, 50, 99):
        raw[lost * page : (lost + 1) * page] = bytes(page)
    for row in (0, 2, 3):
        raw[rows + row * page + 9] ^= 1
    raw[len(body) + 5] ^= 1  # the first head
    found = _chunk_of(bytes(raw), len(body))
    assert found is not None
    damages = found.find(_reader(bytes(raw)))
    assert [one.offset // page for one in damages] == [7, 50, 99]
    assert b"".join(one.repaired or b"" for one in damages) == b"".join(
        body[n * page : (n + 1) * page] for n in (7, 50, 99)
    )
    raw[-20] ^= 1  # the last head too
    assert _chunk_of(bytes(raw), len(body)) is None


def _reader(raw: bytes) -> repair.Read:
    return lambda offset, length: raw[offset : offset + length].ljust(length, b"\0")


def _chunk_of(raw: bytes, covered: int) -> RepairChunk | None:
    return RepairChunk.at(_reader(raw), covered, len(raw) - covered)


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_sound_copy_is_the_file_as_it_was(
    size: int, made: Callable[..., Path], tmp_path: Path
) -> None:
    path = made(size)
    whole = path.read_bytes()
    damage(path, (9000, 50))
    assert path.read_bytes() != whole
    save_repaired(path, tmp_path / "b.ucv", overwrite=False)
    assert (tmp_path / "b.ucv").read_bytes() == whole


def test_a_disk_that_cannot_read_a_page_is_repaired_too(made: Callable[..., Path]) -> None:
    path = made(LARGE)
    bad = range(6 * PAGE, 7 * PAGE)
    read = Container._bytes_at

    def failing(self: Container, offset: int, length: int) -> bytes:
        overlaps = offset < bad.stop and bad.start < offset + length
        if overlaps and not self._repaired:
            raise CodecError("byte cannot be read: Input/output error")
        return read(self, offset, length)

    with mock.patch.object(Container, "_bytes_at", failing):
        assert decompress(path, threads=1).is_equal(noise(LARGE))


@pytest.mark.parametrize("place", [20_000, -50], ids=["chunk", "parity, head and seal"])
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

"""Mutated containers and what must hold for each: an error of ours, or voxels that are right.

A case is a number: with the seed it gives the base file, the mutation and the call. What it may
end in: a MedEnhanceError; voxels with the SHA-256 that the header names; other voxels, with a
warning, where the header says that they are not exact. Where no checksum was mended, voxels must
be those of the base. Everything else is a finding.

Benchmarks/fuzz.py runs a million of them in a process that is watched; a test runs a few.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import random
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import (
    CompressConfig,
    compress,
    decompress,
    inspect_container,
    recover,
)
from MedEnhanceLib.unicompress.allocation import near_lossless
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.codec_models import DEFLATED_MODEL_CHUNK, MODEL_CHUNK
from MedEnhanceLib.unicompress.codecs import lossless
from MedEnhanceLib.unicompress.codecs.integers import Coded
from MedEnhanceLib.unicompress.codecs.lossless import CODERS, BlockCode
from MedEnhanceLib.unicompress.codecs.predictor import learned
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.config import Speed
from MedEnhanceLib.unicompress.container import NO_BLOCK, Chunk, Container
from MedEnhanceLib.unicompress.header import DTYPES

_PROLOGUE = struct.Struct("<4sHHQIII")
#: Voxels of a forged header beyond this are refused, so that a case stays small.
MEMORY_LIMIT = 64 << 20
_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2, 255, 65536, 1 << 24, 1 << 31, 1 << 32, 1 << 53, 1 << 64, 10**40, 0.5,
    1e308, 1e-320, float("nan"), float("inf"), "", "x", "🜚", "0" * 64, [], [1], [[]], {},
    {"id": "m", "sha256": "0" * 64}, *DTYPES, "lossless", "ratio",
)  # fmt: skip


class FindingError(AssertionError):
    """A case that ended as no case may."""


@dataclass(frozen=True)
class Base:
    """A valid file in parts."""

    name: str
    raw: bytes
    header: dict[str, Any]
    rows: tuple[Chunk, ...]
    voxels: Voxels


# ---------------------------------------------------------------- valid files


def make_bases(folder: Path) -> list[Base]:
    """Tiny files of every mode, type of voxel and block type."""
    folder.mkdir(parents=True, exist_ok=True)
    bases: list[Base] = []
    name = ""

    def would_take(*_: object) -> float:
        return -1e9 if name == "learned" else 1e9  # it codes a small volume, but no others

    unforced = lossless._shortest

    def shortest(coded: Coded, speed: Speed) -> BlockCode:
        """By the coder that the case is named after, if there is one."""
        for coder in CODERS:
            if coder.name == name and (data := coder.encode(coded.indices, speed)) is not None:
                return BlockCode(coder.id, coded.record + data, coded)
        return unforced(coded, speed)

    with (
        mock.patch.object(near_lossless, "coding_grid", _small_grid),
        mock.patch.object(learned, "would_take", would_take),
        mock.patch.object(lossless, "_shortest", shortest),
    ):
        for name, (volume, config) in _volumes().items():
            path = folder / f"{name}.ucv"
            compress(volume, path, CompressConfig(threads=1, **config), overwrite=True)
            with Container(path) as opened:
                header = opened.header
            voxels = decompress(path).voxels
            bases.append(Base(name, path.read_bytes(), header, tuple(chunks_of(path)), voxels))
    return bases


def chunks_of(path: Path) -> list[Chunk]:
    with Container(path) as opened:
        return [Chunk(c.block, c.kind, opened.read(c)) for c in opened.chunks]


def _small_grid(shape: tuple[int, ...]) -> Grid:
    slices, rows, columns = shape[-3:]
    return Grid(shape, (-(-slices // 6), -(-rows // 20), -(-columns // 20)))


def _volumes() -> dict[str, tuple[Volume, dict[str, Any]]]:
    k, j, i = np.mgrid[0:5, 0:9, 0:10]
    noise = np.random.default_rng(0).integers(0, 5, k.shape)
    values = 40 + 30 * np.sin(j / 3) * np.cos(i / 4) + k + noise
    exact: dict[str, Any] = {"lossless": True, "speed": "fast"}
    made = {
        f"lossless-{dtype[1:]}": (Volume((values * 8 % 250 / 2).astype(dtype)), exact)
        for dtype in DTYPES
    }
    fractions = (values / 7).astype("f4")
    fractions[0, 0, :3] = np.nan, np.inf, -0.0
    made["bits"] = Volume(fractions), exact
    made["table"] = Volume((values // 1 / 7).astype("f4")), exact
    made |= {coder.name: (Volume(values.astype("i2")), exact) for coder in CODERS}
    made["constant"] = Volume(np.full(k.shape, 9, "i2")), exact
    made["frames"] = Volume(np.stack([values.astype("i2")] * 2), frame_interval_s=1.0), exact
    made["steps"] = Volume(values.astype("i2")), {"max_error": 2.0, "speed": "fast"}
    made["steps-u8"] = Volume((values * 1e15).astype("u8")), {"max_error": 1e12, "speed": "fast"}
    made["float-steps"] = Volume(values.astype("f8") / 7), {"max_error": 0.1, "speed": "fast"}
    j, i = np.mgrid[0:40, 0:40]
    smooth = 900 * np.sin(j / 9) * np.cos(i / 7) + np.arange(6)[:, None, None]
    smooth += np.random.default_rng(1).normal(0, 3, smooth.shape)
    for dtype in ("i2", "f2", "f4", "f8", "i8"):
        made[f"ratio-{dtype}"] = Volume(smooth.astype(dtype)), {"ratio": 6.0, "speed": "fast"}
    scan = Volume(smooth.astype("i2"), modality="CT")
    made["video"] = scan, {"psnr": 45.0, "speed": "fast"}
    made["learned"] = scan, {"lossless": True}
    made["ratio-slice"] = Volume(smooth[:1].astype("i2")), {"ratio": 1.6, "speed": "fast"}
    return made


def lay_out(text: bytes, rows: Sequence[Chunk]) -> bytes:
    """A file whose checksums fit; text: of its head."""
    head, payload = zlib.compress(text, 1), b"".join(row.data for row in rows)
    size = 60 + len(payload) + len(head)
    prologue = _PROLOGUE.pack(b"UCV1", 1, 0, size, len(head), zlib.crc32(head), 0)[:-4]
    return _sealed(prologue + struct.pack("<I", zlib.crc32(prologue)) + head + payload)


def _sealed(whole: bytes) -> bytes:
    return whole + hashlib.sha256(whole).digest()


def _head_of(header: dict[str, Any], rows: Sequence[Chunk]) -> dict[str, Any]:
    table = [[row.block, row.kind, len(row.data), zlib.crc32(row.data)] for row in rows]
    return header | {"chunks": table}


# ---------------------------------------------------------------- mutations


def mangle(dice: random.Random, data: bytes, others: bytes) -> bytes:
    """A few changes of bytes: flips, cuts, insertions, pieces of something else."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 1, 2, 4, 8))):
        place, length = dice.randrange(len(out) + 1), dice.choice((1, 1, 2, 4, 8, 16, 64))
        start = dice.randrange(len(others) + 1)
        what = dice.randrange(8)
        if what <= 3 and place < len(out):
            out[place] ^= 1 << dice.randrange(8)
        elif what == 4:
            del out[place : place + length]
        elif what == 5:
            out[place:place] = dice.randbytes(length)
        elif what == 6:
            out[place : place + length] = others[start : start + length]
        elif what == 7:
            del out[place:]
    return bytes(out)


def _raw(dice: random.Random, base: Base, other: Base) -> bytes:
    return mangle(dice, base.raw, other.raw)


def _header(dice: random.Random, base: Base, other: Base) -> bytes:
    """Other fields, or other values deep in them, under checksums that fit."""
    header = copy.deepcopy(_head_of(base.header, base.rows))
    for _ in range(dice.choice((1, 1, 2, 3))):
        key, what = dice.choice(sorted(header)), dice.randrange(6)
        if what == 0 and len(header) > 1:
            del header[key]
        elif what == 1:
            header[key] = copy.deepcopy(other.header.get(key, dice.choice(_ODD)))
        elif what == 2:
            extents = (1, 2, 3, 5, 9, 17, 64, 300)
            header["shape"] = [dice.choice(extents) for _ in range(dice.choice((3, 3, 4)))]
            header["dtype"] = dice.choice(DTYPES)
        elif what == 3:
            header["blocks"] = [dice.choice((1, 1, 2, 3, 5)) for _ in range(3)]
        else:
            _edit_leaf(dice, header, key)
    text = json.dumps(header).encode()
    if dice.random() < 0.15:
        text = mangle(dice, text, json.dumps(other.header).encode())
    return lay_out(text, base.rows)


def _edit_leaf(dice: random.Random, node: Any, place: Any) -> None:
    while isinstance(node[place], dict | list) and node[place] and dice.random() < 0.9:
        node = node[place]
        place = dice.choice(sorted(node)) if isinstance(node, dict) else dice.randrange(len(node))
    if type(node[place]) in (int, float) and dice.random() < 0.5:
        node[place] += dice.choice((-1, 1, 0.5, 1 << 31))
    else:
        node[place] = copy.deepcopy(dice.choice(_ODD))


def _code(dice: random.Random, base: Base, other: Base) -> bytes:
    """The bytes of one chunk, under a checksum that fits: what reaches the decoders."""
    rows = list(base.rows)
    place = dice.randrange(len(rows))
    row, foreign = rows[place], dice.choice(other.rows)
    data, kind, what = row.data, row.kind, dice.random()
    start = 21 if kind == video.VIDEO else {1: 10, 2: 10, 3: 26, 4: 18}.get(data[0], 10)
    if what < 0.5:
        data = mangle(dice, data, foreign.data)
    elif what < 0.65:  # behind the record, which stays as it is
        data = data[:start] + mangle(dice, data[start:], foreign.data)
    elif what < 0.8:  # the record alone
        data = mangle(dice, data[:start], foreign.data[:26]) + data[start:]
    elif what < 0.9:
        data, kind = foreign.data, foreign.kind
    else:
        kind = dice.choice((*range(8), MODEL_CHUNK, DEFLATED_MODEL_CHUNK))
    rows[place] = replace(row, kind=kind, data=data or b"\0")
    if dice.random() < 0.1:
        rows.pop(dice.randrange(len(rows)))
    elif dice.random() < 0.1:
        rows.append(Chunk(dice.choice((0, NO_BLOCK)), dice.choice((64, 66)), foreign.data))
    return lay_out(json.dumps(_head_of(base.header, rows)).encode(), rows)


def _model(dice: random.Random, base: Base, other: Base) -> bytes:
    """The network that a file holds, under a hash that fits: what reaches its parser."""
    row = next((row for row in base.rows if row.kind == DEFLATED_MODEL_CHUNK), None)
    if row is None:
        return _code(dice, base, other)
    plain = mangle(dice, zlib.decompress(row.data), other.raw)
    header = copy.deepcopy(base.header)
    header["models"]["predictor"]["sha256"] = hashlib.sha256(plain).hexdigest()
    kind = dice.choice((MODEL_CHUNK, DEFLATED_MODEL_CHUNK))
    data = zlib.compress(plain) if kind == DEFLATED_MODEL_CHUNK else plain
    forged = replace(row, kind=kind, data=data or b"\0")
    rows = [forged if each == row else each for each in base.rows]
    return lay_out(json.dumps(_head_of(header, rows)).encode(), rows)


Mutate = Callable[[random.Random, Base, Base], bytes]
#: Name → mutation, its share, and whether its checksums were mended.
MUTATIONS: dict[str, tuple[Mutate, int, bool]] = {
    "bytes": (_raw, 36, False),
    "header": (_header, 32, True),
    "code": (_code, 32, True),
    "model": (_model, 8, True),
}
_NAMES = [name for name, (_, share, _) in MUTATIONS.items() for _ in range(share)]
_CALLS = ["decompress"] * 14 + ["recover"] * 3 + ["region", "inspect"]


# ---------------------------------------------------------------- cases


class Fuzzer:
    """Runs cases by their number; `path`: where each is written for the reader to open."""

    def __init__(self, bases: list[Base], seed: int, path: Path) -> None:
        self._bases, self._seed, self._path = bases, seed, path

    def describe(self, case: int) -> tuple[str, str, str, bytes]:
        """Base, mutation, call and bytes of a case."""
        dice = random.Random(self._seed << 40 | case)
        base, other = dice.choice(self._bases), dice.choice(self._bases)
        name, call = dice.choice(_NAMES), dice.choice(_CALLS)
        return base.name, name, call, MUTATIONS[name][0](dice, base, other)

    def run(self, case: int) -> tuple[str, str, str]:
        """Base, mutation, and "refused", "right" or "warned"; raises what a case may not end in."""
        name, mutation, call, raw = self.describe(case)
        self._path.write_bytes(raw)
        base = next(base for base in self._bases if base.name == name)
        mended = MUTATIONS[mutation][2]
        try:
            return name, mutation, self._check(call, base, mended)
        except MedEnhanceError as error:
            if not error.message:
                raise FindingError("an error without a message") from error
            return name, mutation, "refused"

    def _check(self, call: str, base: Base, mended: bool) -> str:
        kinds: list[str] = []
        monitor = Monitor(lambda event: kinds.append(event.kind))
        if call == "inspect":
            json.dumps(inspect_container(self._path))
            return "right"
        if call == "region":
            part = decompress(self._path, region=(..., slice(0, 1))).voxels
            _same(part, base.voxels[..., :1], mended)
            return "right"
        if call == "recover":
            return self._check_recovered(base, mended, monitor)
        voxels = decompress(self._path, monitor=monitor).voxels
        _same(voxels, base.voxels, mended)
        if self._is_named(voxels):
            return "right"
        with Container(self._path) as opened:
            is_exact = opened.header["exact"]
        if is_exact or "warning" not in kinds:
            raise FindingError("wrong voxels that are called right")
        return "warned"

    def _check_recovered(self, base: Base, mended: bool, monitor: Monitor) -> str:
        volume, report = recover(self._path, monitor=monitor)
        if report.proved and not self._is_named(volume.voxels):
            raise FindingError("recovered voxels that are called proved and are not")
        if not mended:
            kept = np.ones(volume.shape, bool)
            for lost in report.lost:
                kept[tuple(map(slice, lost.start, lost.stop))] = False
            _same(np.where(kept, volume.voxels, base.voxels), base.voxels, mended)
        return "right" if report.proved else "refused"

    def _is_named(self, voxels: Voxels) -> bool:
        """Whether voxels have the SHA-256 of the header, by another way than the library's."""
        with Container(self._path, tolerant=True) as opened:
            named: str = opened.header["voxels_sha256"]
        return hashlib.sha256(voxels.tobytes()).hexdigest() == named


def _same(left: Voxels, right: Voxels, mended: bool) -> None:
    if mended:
        return
    if left.dtype != right.dtype or left.tobytes() != right.tobytes():
        raise FindingError("voxels that are not the base's, under checksums nobody mended")


@contextlib.contextmanager
def light() -> Iterator[None]:
    """The readers without threads, and with a small limit of memory."""

    def one_by_one(function: Any, items: Any, *, threads: int, monitor: Monitor) -> Iterator[Any]:
        return map(function, items)

    decode = sys.modules["MedEnhanceLib.unicompress.decode"]
    with (
        mock.patch.object(decode, "ordered_map", one_by_one),
        mock.patch.object(decode, "memory", lambda: {"total": MEMORY_LIMIT}),
        np.errstate(all="ignore"),
    ):
        yield

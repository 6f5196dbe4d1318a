"""Rows of the comparison: each is measured once for the same code, settings and voxels.

Rows of peers are known by the peers' own code and the versions of their packages, so that a new
form of the codec measures itself alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata

from _common import REPOSITORY
from _compression_measures import Row, quality_row, size_row
from _compression_peers import (
    Coded,
    LossyPeer,
    Voxels,
    bounded_peers,
    lossless_peers,
    lossy_peers,
    run,
)
from _compression_volumes import Subject
from _enhancement_cache import RowStore, code_hash, key_of
from _enhancement_data import fingerprint

from MedEnhanceLib.core.volume import Volume

FOLDER = REPOSITORY / "runs" / "compression-rows"
LOSSLESS, BOUNDED, RATIO = "lossless", "max_error", "ratio"
BOUNDS = (1, 2, 8)
RATIOS = (8, 16, 32, 64, 128, 256, 512, 1024)
#: Points of a peer further out than these are not measured: no ratio of the page is near them.
_FINEST, _COARSEST = 5, 1100
_MEASURES = ("_compression_measures.py", "_compression_volumes.py", "MedEnhanceLib/core/metrics.py")
_PEERS = ("_compression_peers.py", "_compression_video.py", *_MEASURES)


@dataclass(frozen=True)
class Case:
    """A subject, its voxels, what identifies them, and where its rows are kept."""

    subject: Subject
    volume: Volume
    print: str
    store: RowStore

    @classmethod
    def of(cls, subject: Subject, volume: Volume) -> Case:
        return cls(subject, volume, fingerprint(volume), RowStore(subject.name, FOLDER))

    def row(self, key: str, measure: Callable[[], Row]) -> Row:
        """The row from the store, or measured now."""
        known = self.store.find(key)
        if known is None:
            known = self.store.add(key, {"volume": self.subject.name} | measure())
            _tell(known)
        return known


def _tell(row: Row) -> None:
    shown = {
        name: round(value, 3)
        for name, value in row.items()
        if name in ("ratio", "bits_per_voxel", "psnr_db", "encode_cpu_s") and value is not None
    }
    print(row["volume"], row["mode"], row["setting"], row["codec"], shown, flush=True)


def measures_key() -> str:
    return code_hash(*_MEASURES)


@lru_cache(maxsize=1)
def _peers_key() -> str:
    packages = ("imagecodecs", "av", "numpy")
    return key_of(code_hash(*_PEERS), *(metadata.version(name) for name in packages))


def peer_rows(case: Case, *, quick: bool) -> Iterator[Row]:
    """All peers in all modes."""
    for name, code in lossless_peers().items():
        if not (quick and "effort 9" in name):
            yield _peer_row(case, LOSSLESS, None, name, code)
    for bound in BOUNDS:
        for name, code in bounded_peers(bound).items():
            yield _peer_row(case, BOUNDED, bound, name, code)
    for peer in lossy_peers(8 * case.volume.dtype.itemsize):
        yield from _curve(case, peer, every=3 if quick else 1)


def _curve(case: Case, peer: LossyPeer, every: int) -> Iterator[Row]:
    """From fine to coarse, until nothing of the page is beyond."""
    for setting in peer.settings[::every]:
        code = partial(_with_setting, peer, setting)
        row = _peer_row(case, RATIO, None, peer.name, code, quality=setting)
        yield row
        if row["ratio"] > _COARSEST:
            return


def _with_setting(peer: LossyPeer, setting: float, image: Voxels) -> Coded:
    return peer.code(image, setting)


def _peer_row(
    case: Case,
    mode: str,
    setting: float | None,
    name: str,
    code: Callable[[Voxels], Coded],
    quality: float | None = None,
) -> Row:
    def measure() -> Row:
        point = run(code, case.volume.voxels)
        row = {"mode": mode, "setting": setting, "codec": name, "quality": quality}
        row |= size_row(case.volume, point.size)
        row |= {"encode_cpu_s": point.encode_s, "decode_cpu_s": point.decode_s}
        if point.decoded is not None and row["ratio"] >= _FINEST:
            row |= quality_row(case.volume, point.decoded)
        return row

    key = key_of(_peers_key(), case.print, mode, setting, name, quality)
    return case.row(key, measure)

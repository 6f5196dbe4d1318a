"""Every goal with its bound, reached or not; what is not there was not measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from _common import gate
from _compression_curves import bd_rate, psnr_at
from _compression_large import LARGE, LARGE_RATIO, NAMED_PEER
from _compression_peers import HEVC, JPEG2000, JPEGXL, QUANTIZED
from _compression_rows import BOUNDED, ESTIMATE, LOSSLESS, OURS, RATIO, Row
from _compression_volumes import SUBJECTS

Gate = dict[str, Any]
MODALITY = {subject.name: subject.modality for subject in SUBJECTS}
#: Least gain in dB over the better of slow HEVC and JPEG 2000, and the ratios it is asked at.
ABOVE_DB = {"CT": 0.5, "MR": 0.3, "EM": 0.0}
ABOVE_RATIOS = (32, 64, 128, 256, 512)
#: Bytes fewer than slow HEVC at equal PSNR, on every volume, and between which ratios.
SAVED_OVER_HEVC, SAVED_RATIOS, SAVED_MODALITIES = 0.3, (32, 256), ("CT", "MR")
#: Files have somewhat fewer bytes than their ratio asks for.
_REACHED = 0.05
LOSSLESS_SHARE = {"CT": 0.12, "MR": 0.08, "EM": 0.04}
BOUNDED_SHARE = {1: 0.20, 2: 0.20, 8: 0.30}
#: Encoding and decoding against the named peer, in processor time; a learned predictor decodes
#: voxel after voxel and may take longer.
ENCODE_TIME, DECODE_TIME, LEARNED_DECODE_TIME = 2, 1, 4
FAST_TIME = 1
MEMORY_MB = 2048
_LARGE = f"{RATIO} {LARGE_RATIO}"


def all_gates(rows: list[Row]) -> list[Gate]:
    """Guarantees, comparisons by mode, time and memory, the estimate."""
    return [
        *_guarantees(rows),
        *_against_video(rows),
        *_lossless(rows),
        *_bounded(rows),
        *_large(rows),
        *_estimate(rows),
    ]


def chosen(rows: Iterable[Row], **where: object) -> list[Row]:
    """The rows that agree with `where`, without ratios that were refused."""
    return [
        row
        for row in rows
        if "refused" not in row and all(row.get(key) == value for key, value in where.items())
    ]


def curve(rows: Iterable[Row], volume: str, codec: str) -> list[tuple[float, float]]:
    """(bytes, PSNR) of a codec's lossy points on a volume."""
    found = chosen(rows, volume=volume, codec=codec, mode=RATIO)
    return [(row["bytes"], row["psnr_db"]) for row in found if row.get("psnr_db") is not None]


def gain_over(rows: list[Row], ours: Row, codecs: Iterable[str]) -> float | None:
    """dB above the best of `codecs` at the bytes of our file.

    A codec that cannot reach them is left out; None where none can, or nothing was lost.
    """
    theirs = [psnr_at(curve(rows, ours["volume"], codec), ours["bytes"]) for codec in codecs]
    known = [psnr for psnr in theirs if psnr is not None]
    if ours.get("psnr_db") is None or not known:
        return None
    return float(ours["psnr_db"]) - max(known)


def _least(values: Iterable[float | None]) -> float | None:
    """The least, None where any of them or all are missing."""
    found = list(values)
    known = [value for value in found if value is not None]
    return min(known) if known and len(known) == len(found) else None


def at_least(name: str, value: float | None, bound: float, unit: str = "") -> Gate:
    return gate(name, value, f"≥ {bound:g}{unit}", value is not None and value >= bound)


def at_most(name: str, value: float | None, bound: float, unit: str = "") -> Gate:
    return gate(name, value, f"≤ {bound:g}{unit}", value is not None and value <= bound)


def _guarantees(rows: list[Row]) -> Iterator[Gate]:
    mine = [row for row in rows if str(row["codec"]).startswith(OURS)]
    lossless = [row["max_error"] for row in chosen(mine, mode=LOSSLESS)]
    bounded = [row["max_error"] / row["setting"] for row in chosen(mine, mode=BOUNDED)]
    ratios = [row["ratio"] / row["setting"] for row in chosen(mine, mode=RATIO)]
    yield at_most("lossless: largest error of any voxel", max(lossless, default=None), 0)
    yield at_most("max_error: largest error / bound", max(bounded, default=None), 1)
    yield at_least("ratio: smallest reached / requested", min(ratios, default=None), 1)


def _against_video(rows: list[Row]) -> Iterator[Gate]:
    for modality, bound in ABOVE_DB.items():
        ours = [
            row
            for row in chosen(rows, mode=RATIO, codec=OURS)
            if row["setting"] in ABOVE_RATIOS and MODALITY[row["volume"]] == modality
        ]
        gains = [gain_over(rows, row, (HEVC, JPEG2000)) for row in ours]
        named = f"{modality}: PSNR above the better of slow HEVC and JPEG 2000, ratios "
        span = _span(ours)
        yield at_least(f"{named}{span}, least (dB)", _least(gains), bound)
        if modality in SAVED_MODALITIES:
            saved = _least(saved_over_hevc(rows, row["volume"]) for row in _one_each(ours))
            first, last = SAVED_RATIOS
            name = f"{modality}: bytes below slow HEVC at equal PSNR, ratios {first} to {last}"
            yield at_least(f"{name}, least (BD-rate, share)", saved, SAVED_OVER_HEVC)


def saved_over_hevc(rows: list[Row], volume: str) -> float | None:
    """Share of bytes saved against slow HEVC over the ratios that count, by BD-rate."""
    ours = curve(rows, volume, OURS)
    sizes = [
        row["bytes"] * row["ratio"] for row in chosen(rows, volume=volume, codec=OURS, mode=RATIO)
    ]
    if not sizes:
        return None
    most, least = (sizes[0] / ratio for ratio in SAVED_RATIOS)
    more = bd_rate(ours, curve(rows, volume, HEVC), (least * (1 - _REACHED), most))
    return None if more is None else -more


def _one_each(rows: list[Row]) -> list[Row]:
    return list({row["volume"]: row for row in rows}.values())


def _span(ours: list[Row]) -> str:
    settings = [row["setting"] for row in ours]
    return f"{min(settings)} to {max(settings)}" if settings else "32 to 512"


def _lossless(rows: list[Row]) -> Iterator[Gate]:
    for modality, bound in LOSSLESS_SHARE.items():
        saved = _least(
            _saved(rows, row)
            for row in chosen(rows, mode=LOSSLESS, codec=OURS)
            if MODALITY[row["volume"]] == modality
        )
        name = f"{modality}: lossless below the better of JPEG XL 7 and 9 by (share)"
        yield at_least(name, saved, bound)


def _saved(rows: list[Row], ours: Row) -> float | None:
    """Share of bytes saved against JPEG XL, slice by slice."""
    names = {JPEGXL.format(effort) for effort in (7, 9)}
    sizes = [
        row["bytes"]
        for row in chosen(rows, mode=LOSSLESS, volume=ours["volume"])
        if row["codec"] in names
    ]
    return 1 - ours["bytes"] / min(sizes) if sizes else None


def _bounded(rows: list[Row]) -> Iterator[Gate]:
    for bound, share in BOUNDED_SHARE.items():
        gains = []
        for row in chosen(rows, mode=BOUNDED, codec=OURS, setting=bound):
            if MODALITY[row["volume"]] == "CT":
                theirs = chosen(
                    rows, mode=BOUNDED, codec=QUANTIZED, setting=bound, volume=row["volume"]
                )
                gains += [row["ratio"] / other["ratio"] - 1 for other in theirs]
        name = f"CT, largest error {bound}: ratio above quantized JPEG XL's by (share)"
        yield at_least(name, min(gains, default=None), share)


def _large(rows: list[Row]) -> Iterator[Gate]:
    large = chosen(rows, mode=LARGE)
    for mode, name in NAMED_PEER.items():
        decode = DECODE_TIME if mode.startswith(RATIO) else LEARNED_DECODE_TIME
        for way, bound in (("encode", ENCODE_TIME), ("decode", decode)):
            key = f"{way}_cpu_s"
            value = _times(large, mode, name, key)
            yield at_most(f"{mode}: {way} / {name}, CPU time", value, bound)
    fast = _times(large, f"{_LARGE}, fast", HEVC, "encode_cpu_s")
    yield at_most(f"{_LARGE}, fast: encode / {HEVC}, CPU time", fast, FAST_TIME)
    memory = [row["extra_peak_mb"] for row in large if row["codec"] == OURS]
    yield at_most("peak beyond the volume, all modes (MB)", max(memory, default=None), MEMORY_MB)


def _times(large: list[Row], mode: str, peer: str, key: str) -> float | None:
    """How many times as long as a peer a mode of ours takes, on the same volume, at worst."""
    found = [
        row[key] / other[key]
        for row in chosen(large, setting=mode)
        for other in chosen(large, setting=peer, volume=row["volume"])
    ]
    return max(found, default=None)


def _estimate(rows: list[Row]) -> Iterator[Gate]:
    errors = [abs(row["size_error"]) for row in chosen(rows, mode=ESTIMATE)]
    yield at_most("estimate: largest error of the size (share)", max(errors, default=None), 0.10)

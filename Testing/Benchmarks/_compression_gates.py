"""Every goal with its bound, reached or not; what is not there was not measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from _common import Gate, Row, at_least, at_most, most, over_goals
from _compression_curves import curve, psnr_at
from _compression_large import LARGE, LARGE_RATIO, NAMED_PEER
from _compression_peers import HEVC, JPEG2000, JPEGXL, QUANTIZED
from _compression_rows import BOUNDED, ESTIMATE, LOSSLESS, OURS, RATIO
from _compression_volumes import SUBJECTS

MODALITY = {subject.name: subject.modality for subject in SUBJECTS}
#: Least gain in dB over the better of slow HEVC and JPEG 2000, and the ratios it is asked at.
ABOVE_DB = {"CT": 0.5, "MR": 0.3, "EM": 0.0}
ABOVE_RATIOS = (32, 64, 128, 256, 512)
LOSSLESS_SHARE = {"CT": 0.12, "MR": 0.08, "EM": 0.04}
BOUNDED_SHARE = {1: 0.20, 2: 0.20, 8: 0.30}
#: Encoding against the named peer, in processor time.
ENCODE_TIME = {
    "lossless": 0.8,
    "lossless, fast": 3,
    "largest error 2": 0.8,
    f"{RATIO} {LARGE_RATIO}": 2,
    f"{RATIO} {LARGE_RATIO}, fast": 1,
}
#: Decoding likewise; the fast speeds' peer, effort 3, does without a tree of contexts.
DECODE_TIME, FAST_DECODE_TIME = 1, 4
_WHY_OFF = "likely: after a part of a quiet volume the coder has learned less than after the whole"


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Guarantees, comparisons by mode, time, the estimate."""
    yield at_most("rows of ours that break what they guarantee", broken(rows), 0)
    yield at_least(
        "PSNR above the better of slow HEVC and JPEG 2000, least above its goal (CT 0.5, MR 0.3, "
        "EM 0 dB)", over_goals(_above_video(rows)), 0,
        "in CT, and at the lowest ratios, slow HEVC comes closest",
    )  # fmt: skip
    yield at_least(
        "bytes below JPEG XL, least above its goal (lossless: CT 12, MR 8, EM 4 %; largest "
        "error 1, 2, 8 in CT: 20, 20, 30 %)",
        over_goals(_lossless(rows) | _bounded(rows)), 0,
        "noise cannot be predicted: of noisy volumes it is most of the bytes, whatever the codec",
    )  # fmt: skip
    yield at_most(
        "CPU time over that of JPEG XL (0.8 to encode, 1 to decode; fast, to effort 3: 3, 4) and "
        "slow HEVC (2, 1; fast 1), most as a share of its goal", most(_times(rows)), 1,
        "a ratio is found by coding several times; the peer's decoder is written in assembly",
    )  # fmt: skip
    errors = [abs(row["size_error"]) for row in chosen(rows, mode=ESTIMATE)]
    yield at_most("estimate: largest error of the size (share)", most(errors), 0.10, _WHY_OFF)


def broken(rows: list[Row]) -> int | None:
    """Number of rows whose largest error or ratio is not what was asked for."""
    ours = [row for row in rows if str(row["codec"]).startswith(OURS)]
    kept = [
        *(row["max_error"] == 0 for row in chosen(ours, mode=LOSSLESS)),
        *(row["max_error"] <= row["setting"] for row in chosen(ours, mode=BOUNDED)),
        *(row["ratio"] >= row["setting"] for row in chosen(ours, mode=RATIO)),
    ]
    return kept.count(False) if kept else None


def chosen(rows: Iterable[Row], **where: object) -> list[Row]:
    """The rows that agree with `where`, without ratios that were refused."""
    return [
        row
        for row in rows
        if "refused" not in row and all(row.get(key) == value for key, value in where.items())
    ]


def gain_over(rows: list[Row], ours: Row, codecs: Iterable[str]) -> float | None:
    """dB above the best of `codecs` at the bytes of our file.

    A codec that cannot reach them is left out; None where none can, or nothing was lost.
    """
    theirs = [psnr_at(curve(rows, ours["volume"], codec), ours["bytes"]) for codec in codecs]
    known = [psnr for psnr in theirs if psnr is not None]
    if ours.get("psnr_db") is None or not known:
        return None
    return float(ours["psnr_db"]) - max(known)


def _above_video(rows: list[Row]) -> dict[float, list[float | None]]:
    """Gains by the goal of their modality."""
    return {
        bound: [
            gain_over(rows, row, (HEVC, JPEG2000))
            for row in chosen(rows, mode=RATIO, codec=OURS)
            if row["setting"] in ABOVE_RATIOS and MODALITY[row["volume"]] == modality
        ]
        for modality, bound in ABOVE_DB.items()
    }


def _lossless(rows: list[Row]) -> dict[float, list[float | None]]:
    return {
        bound: [
            _saved(rows, row)
            for row in chosen(rows, mode=LOSSLESS, codec=OURS)
            if MODALITY[row["volume"]] == modality
        ]
        for modality, bound in LOSSLESS_SHARE.items()
    }


def _saved(rows: list[Row], ours: Row) -> float | None:
    """Share of bytes saved against JPEG XL, slice by slice."""
    names = {JPEGXL.format(effort) for effort in (7, 9)}
    sizes = [
        row["bytes"]
        for row in chosen(rows, mode=LOSSLESS, volume=ours["volume"])
        if row["codec"] in names
    ]
    return 1 - ours["bytes"] / min(sizes) if sizes else None


def _bounded(rows: list[Row]) -> dict[float, list[float | None]]:
    """Ratios over those of quantized JPEG XL, of CT, less 1."""
    gains: dict[float, list[float | None]] = {}
    for bound, share in BOUNDED_SHARE.items():
        for row in chosen(rows, mode=BOUNDED, codec=OURS, setting=bound):
            if MODALITY[row["volume"]] == "CT":
                where = {"codec": QUANTIZED, "setting": bound, "volume": row["volume"]}
                theirs = chosen(rows, mode=BOUNDED, **where)
                share_gains = gains.setdefault(share, [])
                share_gains += [row["ratio"] / other["ratio"] - 1 for other in theirs]
    return gains


def _times(rows: list[Row]) -> Iterator[float | None]:
    """CPU times over those of the named peers on the same volume, as shares of their goals."""
    large, goals = chosen(rows, mode=LARGE), []
    for mode, peer in NAMED_PEER.items():
        goals.append((mode, peer, "encode_cpu_s", ENCODE_TIME[mode]))
        if not mode.endswith("fast"):
            goals.append((mode, peer, "decode_cpu_s", DECODE_TIME))
        elif not mode.startswith(RATIO):
            goals.append((mode, peer, "decode_cpu_s", FAST_DECODE_TIME))
    for mode, peer, key, bound in goals:
        yield most(
            row[key] / other[key] / bound
            for row in chosen(large, setting=mode)
            for other in chosen(large, setting=peer, volume=row["volume"])
        )

"""The page of the comparison: tables from rows, no figure by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from _common import gate_table, table
from _compression_arms import ARMS, shipped_models
from _compression_curves import bd_psnr, bd_rate, psnr_at
from _compression_gates import chosen, curve, saved_over_jpegxl
from _compression_implicit import MODE, why_not
from _compression_large import NAMED_PEER
from _compression_measures import Row
from _compression_ours import (
    ABLATION,
    ABLATION_RATIOS,
    ESTIMATE,
    ONLY,
    OURS,
    SELF_CONTAINED,
)
from _compression_peers import AV1, HEVC, JPEG2000, STACKED
from _compression_rows import BOUNDED, BOUNDS, LOSSLESS, RATIO
from _compression_volumes import SUBJECTS

_INTRODUCTION = """# Compression

The container `.ucv` against the codecs that a user might take instead, on whole open volumes that
nothing here was trained or tuned on (the EM volume is another region of the specimen that EM models
learn from: no other is open at this resolution). Bytes of ours are those of whole files, with
header, checksums and the chunk table; the peers' are bare codestreams. Encoding of ours includes
reading the file back and checking its guarantee. Ratios refer to the voxels as they are stored:
16 bit in CT and MR, 8 bit in EM. Codecs of images get all slices as one tall image where they may
lose (it was better at every rate), HEVC and AV1 get them as frames; HEVC with `tune=psnr`. PyAV is
installed: ours takes libaom or SVT-AV1 for videos; what libaom alone gives is stated below."""
_PSNR = """PSNR in dB against the full range (largest less smallest voxel). Ours at the ratio, peers
at several qualities and read between them over the logarithm of the bytes, at the bytes of our
file. *–*: the codec does not reach it. *self-contained*: ours with the models counted in that a
reader needs."""
_LARGE = """One CT of 512 × 512, real, with its noise, repeated to 100 slices: every second copy
mirrored along the slices, each moved within the slice. For time and memory only. Two threads for
everyone, each in a process of its own, all in one run. Memory is beyond what the process held
before. On a shared machine seconds tell little: gates take ratios of processor time."""


def page(rows: list[Row], gates: list[dict[str, Any]], pictures: list[tuple[str, str]]) -> str:
    """The whole page in Markdown."""
    parts = [
        _INTRODUCTION,
        *_left_out(rows),
        "## Gates\n\nBounds are the design's; *not measured*: not there yet.\n\n"
        + gate_table(gates),
        f"## Fixed ratio\n\n{_PSNR}\n\n" + _ratio_table(rows),
        "![PSNR over ratio](compression.png)",
        "### Over all ratios\n\nBjøntegaard's differences over what both reach (PCHIP): bytes that "
        "ours needs more (below 0: saves), and decibels more at equal bytes.\n\n" + _bd_table(rows),
        "### Ours in other terms\n\n3D SSIM with a Gaussian window of 11 voxels, σ 1.5. "
        "*Self-contained*: the ratio with the models that the file needs counted in.\n\n"
        + _quality_table(rows, (OURS,)),
        "### Peers in other terms\n\nThe points that lie next to ratios of 64 and 256.\n\n"
        + _quality_table(_near(rows), (HEVC, AV1, JPEG2000)),
        "## Lossless\n\nBits per voxel, and processor seconds per million voxels to encode. "
        f"JPEG XL slice by slice is what the gate names; {STACKED.strip(', ')} it does better on "
        f"some. *{ONLY}…*: every block takes that type. *{SELF_CONTAINED}*: with the models "
        "counted in.\n\n" + _lossless_table(rows),
        "Bytes that ours saves against the better of JPEG XL's efforts 7 and 9:\n\n"
        + _saved_table(rows),
        "## Bounded error\n\nRatio at a largest error of 1, 2 and 8 gray levels (HU in CT).\n\n"
        + _bounded_table(rows),
        "## What the distance consists of\n\n" + _ablation(rows),
        "## The implicit network\n\n" + _implicit(rows),
        "## Estimates\n\nWhat is estimated before compressing, against what comes out.\n\n"
        + _estimate_table(rows),
        f"## A large volume\n\n{_LARGE}\n\n" + _large_table(rows),
        "## Models\n\n" + _models(),
        *(f"## {title}\n\n![{title}]({file})" for title, file in pictures),
    ]
    return "\n\n".join(part.rstrip() for part in parts)


def _left_out(rows: list[Row]) -> Iterator[str]:
    """A sentence where a run was for some of the volumes."""
    missing = [subject.name for subject in SUBJECTS if subject.name not in _volumes(rows)]
    if missing:
        yield f"**Not in this run: {', '.join(missing)}.** What follows is of the others alone."


def _ratio_table(rows: list[Row]) -> str:
    return table(("volume", "codec", *map(str, _ratios(rows))), _ratio_lines(rows))


def _ratios(rows: list[Row]) -> list[float]:
    return sorted({row["setting"] for row in rows if row["mode"] == RATIO and row["setting"]})


def _ratio_lines(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    ratios = _ratios(rows)
    lossy = chosen(rows, mode=RATIO)
    for volume in _volumes(rows):
        mine = {row["setting"]: row for row in chosen(lossy, volume=volume, codec=OURS)}
        yield (volume, f"**{OURS}**", *(_ours_at(mine.get(ratio)) for ratio in ratios))
        for codec in _names(row for row in lossy if row["codec"] != OURS):
            points = curve(rows, volume, codec)
            known = (psnr_at(points, mine[r]["bytes"]) if r in mine else None for r in ratios)
            yield (volume, codec, *(_number(psnr, 1) for psnr in known))


def _ours_at(row: Row | None) -> str:
    if row is None:
        return "–"
    return "lossless" if row["psnr_db"] is None else f"**{row['psnr_db']:.1f}**"


def _bd_table(rows: list[Row]) -> str:
    def lines() -> Iterator[tuple[str, ...]]:
        peers = _names(
            row for row in chosen(rows, mode=RATIO) if row["codec"] not in (OURS, SELF_CONTAINED)
        )
        for volume in _volumes(rows):
            ours = curve(rows, volume, OURS)
            for peer in peers:
                theirs = curve(rows, volume, peer)
                rate, psnr = bd_rate(ours, theirs), bd_psnr(ours, theirs)
                share = "–" if rate is None else f"{100 * rate:+.0f} %"
                yield volume, peer, share, "–" if psnr is None else f"{psnr:+.2f}"

    return table(("volume", "against", "BD-rate", "BD-PSNR (dB)"), lines())


def _quality_table(rows: list[Row], codecs: tuple[str, ...]) -> str:
    columns = ("ratio", "self-contained", "PSNR", "PSNR in −160…240 HU", "SSIM 3D", "MAE")
    return table(
        ("volume", "codec", *columns, "largest error"),
        (
            (
                row["volume"],
                row["codec"],
                f"{row['ratio']:.1f}",
                _number(row.get("self_contained_ratio"), 1),
                _number(row.get("psnr_db"), 1),
                _number(row.get("psnr_window_db"), 1),
                _number(row.get("ssim_3d"), 4),
                _number(row.get("mae"), 2),
                _number(row.get("max_error"), 0),
            )
            for row in chosen(rows, mode=RATIO)
            if row["codec"] in codecs and "mae" in row
        ),
    )


def _near(rows: list[Row]) -> list[Row]:
    """Of each peer's curve the points next to two ratios."""
    near = []
    for volume in _volumes(rows):
        for codec in (HEVC, AV1, JPEG2000):
            points = [r for r in chosen(rows, mode=RATIO, volume=volume, codec=codec) if "mae" in r]
            for ratio in (64, 256):
                ranked = sorted(points, key=lambda row, ratio=ratio: abs(row["ratio"] / ratio - 1))
                near += [row for row in ranked[:1] if row not in near]
    return near


def _lossless_table(rows: list[Row]) -> str:
    def cell(row: Row) -> str:
        text = f"{row['bits_per_voxel']:.3f}"
        seconds = row.get("encode_cpu_s")
        return f"{text} ({seconds / row['voxels'] * 1e6:.2f} s)" if seconds else text

    found = chosen(rows, mode=LOSSLESS)
    with_voxels = [row | {"voxels": 8 * row["bytes"] / row["bits_per_voxel"]} for row in found]
    return _by_codec(with_voxels, cell)


def _saved_table(rows: list[Row]) -> str:
    lines = []
    for row in chosen(rows, mode=LOSSLESS, codec=OURS):
        saved = saved_over_jpegxl(rows, row)
        lines.append((row["volume"], *(_percent(saved[layout]) for layout in ("", STACKED))))
    return table(("volume", "slice by slice", STACKED.strip(", ")), lines)


def _bounded_table(rows: list[Row]) -> str:
    merged: dict[tuple[str, str], dict[float, str]] = {}
    for row in chosen(rows, mode=BOUNDED):
        place = merged.setdefault((row["volume"], row["codec"]), {})
        place[row["setting"]] = f"{row['ratio']:.2f}"
    cells = [
        {
            "volume": volume,
            "codec": codec,
            "text": ", ".join(found.get(bound, "–") for bound in BOUNDS),
        }
        for (volume, codec), found in merged.items()
    ]
    return _by_codec(cells, lambda row: str(row["text"]))


def _by_codec(rows: list[Row], cell: Callable[[Row], str]) -> str:
    volumes = list(dict.fromkeys(row["volume"] for row in rows))
    found = {(row["codec"], row["volume"]): cell(row) for row in rows}
    return table(
        ("codec", *volumes),
        ((codec, *(found.get((codec, v), "–") for v in volumes)) for codec in _names(rows)),
    )


def _ablation(rows: list[Row]) -> str:
    lines = []
    for arm in ARMS:
        if arm.missing:
            lines.append(("all", arm.name, f"not there: {arm.missing}", "", "", ""))
            continue
        for volume in _names(chosen(rows, mode=ABLATION, codec=arm.name), "volume"):
            found = chosen(rows, mode=ABLATION, codec=arm.name, volume=volume)
            by_setting = {row["setting"]: row for row in found}
            exact = by_setting.get(None, {}).get("bits_per_voxel")
            at = (by_setting.get(ratio, {}).get("psnr_db") for ratio in ABLATION_RATIOS)
            lines.append((volume, arm.name, _number(exact, 3), *(_number(psnr, 2) for psnr in at)))
    header = ("volume", "parts", "lossless, bits per voxel", *map(str, ABLATION_RATIOS))
    return "PSNR in dB at three ratios.\n\n" + table(header, lines)


def _implicit(rows: list[Row]) -> str:
    reason = why_not()
    if reason:
        return f"Not measured: {reason}."
    lines = [
        (
            row["volume"],
            row["codec"],
            row["setting"] or "–",
            f"{row['psnr_db']:.1f}",
            f"{row['encode_cpu_s_per_mvoxel']:.2f}",
        )
        for row in chosen(rows, mode=MODE)
    ]
    columns = ("volume", "network", "time allowed", "PSNR (dB)", "CPU s per million voxels")
    said = (
        "Four blocks of each volume; the others at the bytes of ours. What is not in the table was "
        "not measured.\n\n"
    )
    return said + table(columns, lines)


def _estimate_table(rows: list[Row]) -> str:
    return table(
        ("volume", "mode", "size off by", "PSNR estimated", "PSNR", "seconds"),
        (
            (
                row["volume"],
                row["setting"],
                f"{100 * row['size_error']:+.1f} %",
                _number(row["estimated_psnr_db"], 1),
                _number(row["psnr_db"], 1),
                f"{row['estimate_s']:.1f}",
            )
            for row in chosen(rows, mode=ESTIMATE)
        ),
    )


def _large_table(rows: list[Row]) -> str:
    large = chosen(rows, mode="large")
    peers = {row["setting"]: row for row in large if row["codec"] != OURS}

    def against(row: Row, key: str) -> str:
        peer = peers.get(NAMED_PEER.get(row["setting"], ""))
        return f"{row[key] / peer[key]:.2f}" if peer else "–"

    columns = ("ratio", "encode s (CPU s)", "decode s (CPU s)", "encode / peer", "decode / peer")
    return table(
        ("volume", "mode", *columns, "memory MB"),
        (
            (
                row["volume"],
                row["setting"],
                f"{row['ratio']:.2f}",
                f"{row['encode_s']:.0f} ({row['encode_cpu_s']:.0f})",
                f"{row['decode_s']:.1f} ({row['decode_cpu_s']:.1f})",
                against(row, "encode_cpu_s"),
                against(row, "decode_cpu_s"),
                f"{row['extra_peak_mb']:.0f}",
            )
            for row in large
        ),
    )


def _models() -> str:
    shipped = shipped_models()
    if not shipped:
        return "None ship yet."
    return table(
        ("model", "kB"),
        (
            (f"{path.parts[-3]}, {path.stem}", f"{path.stat().st_size / 1000:.0f}")
            for path in shipped
        ),
    )


def _volumes(rows: Iterable[Row]) -> list[str]:
    return _names((row for row in rows if row["mode"] == RATIO), "volume")


def _names(rows: Iterable[Row], key: str = "codec") -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"

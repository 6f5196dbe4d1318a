"""Compression against the codecs that a user might take instead, on open CT, MR and EM.

    python Testing/Benchmarks/compression.py             three volumes, writes docs/benchmarks
    python Testing/Benchmarks/compression.py --quick     thin slabs, writes runs/benchmarks

Bytes are whole files: everything that a reader needs. Seconds are of the processor, summed over
threads, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from _common import DOCS, REPOSITORY, SHARED_DATA, gate, gate_table, table, write
from _compression_peers import (
    Point,
    Voxels,
    bounded_peers,
    lossless_peers,
    lossy_curves,
    run,
    sperr_whole,
)

from MedEnhanceLib import metrics
from MedEnhanceLib.io import load
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress
from MedEnhanceLib.unicompress.bounded import code_block, coding_grid
from MedEnhanceLib.unicompress.coders import CODERS, VARIANTS, block_type_name
from MedEnhanceLib.volume import Volume

#: Name → file, and the slices that are taken (all for None).
VOLUMES: dict[str, tuple[str, slice]] = {
    "CT STS_013": ("ct/sts/STS_013/CT.nii.gz", slice(None)),
    "MR studyforrest T1": ("mr/studyforrest/T1.nii.gz", slice(60, 156)),
    "EM medulla_v_z0": ("em/medulla_v_z0.nii.gz", slice(None)),
}
LARGE = "ct/abdomen/CT.nii.gz"
BOUNDS = (1, 2, 8)
RATIOS = (8, 16, 32, 64, 128, 256)
CT_WINDOW_HU = (-160, 240)
OURS, OURS_FAST = "container", "container, fast"
Row = dict[str, Any]


def main() -> None:
    """Measure, then write the page and its figures."""
    options = _options()
    if options.large:
        print(json.dumps(_measure_large(options.large, options.slices)))
        return
    volumes = dict(_load_volumes(options.quick))
    rows: list[Row] = []
    for name, volume in volumes.items():
        print(f"{name} {volume.shape}", file=sys.stderr)
        rows += _lossless_rows(name, volume)
        rows += _bounded_rows(name, volume)
        rows += _ratio_rows(name, volume, RATIOS[::3] if options.quick else RATIOS)
    rows += _large_rows(options.quick)
    gates = _gates(rows)
    folder = REPOSITORY / "runs" / "benchmarks" if options.quick else DOCS
    folder.mkdir(parents=True, exist_ok=True)
    _draw_curves(folder / "compression.png", rows)
    write("compression", _page(rows, gates), gates=gates, rows=rows, seeds=[], folder=folder)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="thin slabs, into runs/benchmarks")
    parser.add_argument("--large", help=argparse.SUPPRESS)  # one measurement, in its own process
    parser.add_argument("--slices", type=int, default=300, help=argparse.SUPPRESS)
    return parser.parse_args()


def _load_volumes(quick: bool) -> Iterator[tuple[str, Volume]]:
    for name, (file, taken) in VOLUMES.items():
        volume = load(SHARED_DATA / file)
        voxels = volume.voxels[taken]
        if quick:
            voxels = voxels[len(voxels) // 2 :][:8]
        yield name, Volume(voxels, volume.geometry, modality=volume.modality)


def _ours(name: str, volume: Volume, mode: str, setting: float | None, **config: Any) -> Row:
    fast = config.get("speed") == "fast"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ucv"
        began = time.process_time()
        done = compress(volume, path, CompressConfig(threads=2, **config))
        coded = time.process_time()
        decoded = decompress(path, threads=2).voxels
        seconds = (coded - began, time.process_time() - coded)
    row = _row(name, volume, mode, setting, OURS_FAST if fast else OURS, done.file_bytes, decoded)
    return row | {
        "encode_cpu_s_per_mvoxel": seconds[0] / volume.voxels.size * 1e6,
        "decode_cpu_s_per_mvoxel": seconds[1] / volume.voxels.size * 1e6,
        "block_types": done.block_types,
    }


def _theirs(name: str, volume: Volume, mode: str, setting: float | None, point: Point) -> Row:
    row = _row(name, volume, mode, setting, point.codec, point.size, point.decoded)
    return row | {"encode_cpu_s_per_mvoxel": point.seconds / volume.voxels.size * 1e6}


def _row(
    name: str,
    volume: Volume,
    mode: str,
    setting: float | None,
    codec: str,
    size: int,
    decoded: Voxels | None,
) -> Row:
    row: Row = {
        "volume": name,
        "mode": mode,
        "setting": setting,
        "codec": codec,
        "bytes": size,
        "bits_per_voxel": 8 * size / volume.voxels.size,
        "ratio": volume.nbytes / size,
    }
    if decoded is None:
        return row
    source = volume.voxels.astype(np.float64)
    decoded = np.asarray(decoded, np.float64)
    row |= {
        "max_error": metrics.max_error(source, decoded),
        "mae": metrics.mae(source, decoded),
        "psnr_db": _finite(metrics.psnr(source, decoded)),
    }
    if volume.modality == "CT":
        window = float(CT_WINDOW_HU[1] - CT_WINDOW_HU[0])
        clipped = (np.clip(values, *CT_WINDOW_HU) for values in (source, decoded))
        row["psnr_window_db"] = _finite(metrics.psnr(*clipped, data_range=window))
    if mode == "ratio":
        row["ssim_3d"] = (
            metrics.ssim(source, decoded, volumetric=True) if len(source) > 10 else None
        )
    return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _lossless_rows(name: str, volume: Volume) -> Iterator[Row]:
    for speed in ("normal", "fast"):
        yield _ours(name, volume, "lossless", None, lossless=True, speed=speed)
    for codec, call in lossless_peers().items():
        yield _theirs(name, volume, "lossless", None, run(codec, call, volume.voxels))
    for kind, size in _single_types(volume.voxels).items():
        point = Point(f"only {block_type_name(kind)}", size, None, 0.0)
        yield _theirs(name, volume, "lossless", None, point)


def _single_types(voxels: Voxels) -> dict[int, int]:
    """Bytes of all chunks if every block had to take the same type."""
    grid = coding_grid(voxels.shape)
    totals = dict.fromkeys(CODERS, 0)
    for number in range(len(grid)):
        block = grid.box(number).of(voxels)
        code = code_block(block, None, speed="normal", variants=VARIANTS)
        for kind in totals:
            totals[kind] += code.sizes.get(kind, math.inf)
    return {kind: int(total) for kind, total in totals.items() if math.isfinite(total)}


def _bounded_rows(name: str, volume: Volume) -> Iterator[Row]:
    for bound in BOUNDS:
        for speed in ("normal", "fast"):
            yield _ours(name, volume, "max_error", bound, max_error=bound, speed=speed)
        for codec, call in bounded_peers(bound).items():
            yield _theirs(name, volume, "max_error", bound, run(codec, call, volume.voxels))


def _ratio_rows(name: str, volume: Volume, ratios: tuple[int, ...]) -> Iterator[Row]:
    for ratio in ratios:
        yield _ours(name, volume, "ratio", ratio, ratio=ratio)
        yield _theirs(name, volume, "ratio", ratio, sperr_whole(volume.voxels, ratio))
    for point in lossy_curves(volume.voxels):
        yield _theirs(name, volume, "ratio", None, point)


def _large_rows(quick: bool) -> Iterator[Row]:
    """A CT of 512 × 512, tiled: time and memory, each in a process of its own."""
    slices = (20,) if quick else (100, 300)
    for count in slices:
        for mode in ("lossless", "fast", "max_error", "ratio", "peer"):
            if mode == "peer" and count == 300:
                continue
            print(f"512×512×{count} {mode}", file=sys.stderr)
            command = [sys.executable, __file__, "--large", mode, "--slices", str(count)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            yield json.loads(done.stdout)


def _measure_large(mode: str, slices: int) -> Row:
    import imagecodecs

    base = load(SHARED_DATA / LARGE)
    # Mirrored, so that no jump shows where tiles meet; blocks see no tile twice.
    tiles = [base.voxels[:: 1 - 2 * (n % 2)] for n in range(-(-slices // len(base.voxels)))]
    volume = Volume(np.concatenate(tiles)[:slices], base.geometry, modality="CT")
    row: Row = {"volume": f"CT 512×512×{slices}", "mode": f"large {mode}", "setting": None}
    before, began = _peak_mb(), (time.monotonic(), time.process_time())
    if mode == "peer":
        image = (volume.voxels.astype(np.int32) - int(volume.voxels.min())).astype(np.uint16)
        codes = [
            imagecodecs.jpegxl_encode(one, lossless=True, effort=7, numthreads=1) for one in image
        ]
        size = sum(map(len, codes))
        middle = (time.monotonic(), time.process_time())
        for code in codes:
            imagecodecs.jpegxl_decode(code, numthreads=1)
    else:
        configs: dict[str, dict[str, Any]] = {
            "lossless": {"lossless": True},
            "fast": {"lossless": True, "speed": "fast"},
            "max_error": {"max_error": 2},
            "ratio": {"ratio": 64},
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.ucv"
            size = compress(volume, path, CompressConfig(threads=2, **configs[mode])).file_bytes
            middle = (time.monotonic(), time.process_time())
            decompress(path, threads=2)
    end = (time.monotonic(), time.process_time())
    return row | {
        "codec": "JPEG XL effort 7" if mode == "peer" else OURS,
        "bytes": size,
        "ratio": volume.nbytes / size,
        "encode_s": middle[0] - began[0],
        "encode_cpu_s": middle[1] - began[1],
        "decode_s": end[0] - middle[0],
        "decode_cpu_s": end[1] - middle[1],
        "extra_peak_mb": _peak_mb() - before,
    }


def _peak_mb() -> float:
    """The most memory that this process held so far (getrusage would count its parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _gates(rows: list[Row]) -> list[dict[str, Any]]:
    lossless = [row for row in rows if row["mode"] == "lossless"]
    ours = {row["volume"]: row for row in lossless if row["codec"] == OURS}
    single = {
        name: min(r["bytes"] for r in lossless if r["volume"] == name and "only" in r["codec"])
        for name in ours
    }
    wrong = sum(row["max_error"] for row in lossless if row["codec"].startswith(OURS))
    mine = [row for row in rows if row["codec"].startswith(OURS)]
    bound = max(row["max_error"] / row["setting"] for row in mine if row["mode"] == "max_error")
    reached = min(row["ratio"] / row["setting"] for row in mine if row["mode"] == "ratio")
    worst = max(row["bytes"] / single[name] for name, row in ours.items())
    large = [row for row in rows if row["mode"].startswith("large")]
    memory = max(row["extra_peak_mb"] for row in large)
    peer = next(row for row in large if row["mode"] == "large peer")
    twin = next(r for r in large if r["mode"] == "large lossless" and r["volume"] == peer["volume"])
    encode, decode = (twin[key] / peer[key] for key in ("encode_cpu_s", "decode_cpu_s"))
    return [
        gate("lossless: sum of all errors", wrong, "0", wrong == 0),
        gate("max_error: largest error / promised", bound, "≤ 1", bound <= 1),
        gate("ratio: smallest reached / promised", reached, "≥ 1", reached >= 1),
        gate("lossless file / best single block type", worst, "≤ 1.002", worst <= 1.002),
        gate("extra memory, 512×512×300 int16 (MB)", memory, "≤ 2048", memory <= 2048),
        gate("lossless encoding / JPEG XL effort 7, CPU", encode, "≤ 2", encode <= 2),
        gate("lossless decoding / JPEG XL effort 7, CPU", decode, "≤ 1", decode <= 1),
    ]


def _page(rows: list[Row], gates: list[dict[str, Any]]) -> str:
    parts = [
        "# Compression",
        "The classical block types of the container `.ucv` against the codecs that a user might "
        "take instead, on open volumes. Bytes are those of whole files, with header, checksums and "
        "the second copy of the chunk table; the peers' are bare codestreams. Encoding of the "
        "container includes reading the file back and proving its promise.",
        "## Gates\n\n" + gate_table(gates),
        "## Lossless\n\nBits per voxel, and processor seconds per million voxels to encode. "
        "*only …*: every block takes that type.\n\n" + _lossless_table(rows),
        "## Bounded error\n\nRatio at a largest error of 1, 2 and 8 grey levels (HU in CT).\n\n"
        + _bounded_table(rows),
        "## Fixed ratio\n\nPSNR in dB against the full range (largest less smallest voxel) of each "
        "volume. JPEG 2000 and JPEG XL were run at seven qualities; the figures are interpolated "
        "between them.\n\n" + _ratio_table(rows) + "\n![PSNR over ratio](compression.png)",
        "The same for the container in other terms:\n\n" + _quality_table(rows),
        "## A large volume\n\nA CT of 512 × 512, tiled from a real one, int16; two threads. "
        "Memory is what the process took beyond the volume it held.\n\n" + _large_table(rows),
    ]
    return "\n\n".join(part.rstrip() for part in parts)


def _lossless_table(rows: list[Row]) -> str:
    chosen = [row for row in rows if row["mode"] == "lossless"]
    return _by_codec(
        chosen,
        lambda row: (
            f"{row['bits_per_voxel']:.3f} ({row['encode_cpu_s_per_mvoxel']:.2f} s)"
            if row["encode_cpu_s_per_mvoxel"]
            else f"{row['bits_per_voxel']:.3f}"
        ),
    )


def _bounded_table(rows: list[Row]) -> str:
    chosen = [row for row in rows if row["mode"] == "max_error"]
    merged: dict[tuple[str, str], list[str]] = {}
    for row in chosen:
        merged.setdefault((row["volume"], row["codec"]), []).append(f"{row['ratio']:.2f}")
    cells = [
        {"volume": name, "codec": codec, "text": ", ".join(found)}
        for (name, codec), found in merged.items()
    ]
    return _by_codec(cells, lambda row: row["text"])


def _by_codec(rows: list[Row], cell: Any) -> str:
    names = list(dict.fromkeys(row["volume"] for row in rows))
    codecs = dict.fromkeys(row["codec"] for row in rows)
    found = {(row["codec"], row["volume"]): cell(row) for row in rows}
    return table(
        ("codec", *names), ((c, *(found.get((c, name), "") for name in names)) for c in codecs)
    )


def _ratio_table(rows: list[Row]) -> str:
    chosen = [row for row in rows if row["mode"] == "ratio"]
    ratios = sorted({row["setting"] for row in chosen if row["setting"]})
    lines = []
    for name in dict.fromkeys(row["volume"] for row in chosen):
        for codec in dict.fromkeys(row["codec"] for row in chosen):
            curve = [row for row in chosen if (row["volume"], row["codec"]) == (name, codec)]
            lines.append((name, codec, *(_at_ratio(curve, ratio) for ratio in ratios)))
    return table(("volume", "codec", *map(str, ratios)), lines)


def _at_ratio(curve: list[Row], ratio: float) -> str:
    exact = [row["psnr_db"] for row in curve if row["setting"] == ratio]
    if exact:
        return "lossless" if exact[0] is None else f"{exact[0]:.1f}"
    known = sorted((r["ratio"], r["psnr_db"]) for r in curve if r["psnr_db"] is not None)
    sizes, psnr = zip(*known, strict=True)
    if not sizes[0] <= ratio <= sizes[-1]:
        return "–"
    return f"{np.interp(math.log(ratio), np.log(sizes), psnr):.1f}"


def _quality_table(rows: list[Row]) -> str:
    chosen = [row for row in rows if row["mode"] == "ratio" and row["codec"] == OURS]
    return table(
        ("volume", "ratio", "PSNR", "PSNR in −160…240 HU", "SSIM 3D", "MAE", "largest error"),
        (
            (
                row["volume"],
                f"{row['ratio']:.2f}",
                _number(row["psnr_db"], 1),
                _number(row.get("psnr_window_db"), 1),
                _number(row.get("ssim_3d"), 4),
                f"{row['mae']:.2f}",
                f"{row['max_error']:.0f}",
            )
            for row in chosen
        ),
    )


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _large_table(rows: list[Row]) -> str:
    modes = {
        "large lossless": "lossless",
        "large fast": "lossless, fast",
        "large max_error": "largest error 2",
        "large ratio": "ratio 64",
        "large peer": "JPEG XL effort 7, one thread",
    }
    return table(
        ("volume", "mode", "ratio", "encode s (CPU s)", "decode s (CPU s)", "extra memory MB"),
        (
            (
                row["volume"],
                modes[row["mode"]],
                f"{row['ratio']:.2f}",
                f"{row['encode_s']:.0f} ({row['encode_cpu_s']:.0f})",
                f"{row['decode_s']:.1f} ({row['decode_cpu_s']:.1f})",
                f"{row['extra_peak_mb']:.0f}",
            )
            for row in rows
            if row["mode"] in modes
        ),
    )


def _draw_curves(path: Path, rows: list[Row]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chosen = [r for r in rows if r["mode"] == "ratio" and r["psnr_db"] is not None]
    names = list(dict.fromkeys(row["volume"] for row in chosen))
    figure = Figure(figsize=(4 * len(names), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for column, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), column)
        for codec in dict.fromkeys(row["codec"] for row in chosen):
            curve = [r for r in chosen if (r["volume"], r["codec"]) == (name, codec)]
            points = sorted((r["ratio"], r["psnr_db"]) for r in curve if 4 <= r["ratio"] <= 300)
            width = 2.2 if codec == OURS else 1.1
            axes.plot(*zip(*points, strict=True), marker=".", linewidth=width, label=codec)
        axes.set(xscale="log", title=name, xlabel="ratio", ylabel="PSNR, full range (dB)")
        axes.set_xticks(RATIOS, [str(ratio) for ratio in RATIOS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

"""Rows of the codec itself: every mode, the arms that show what each part brings, the estimate."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from _common import REPOSITORY
from _compression_arms import ALL, ARMS, SVT, Arm, shipped_models
from _compression_measures import Row, quality_row, size_row
from _compression_rows import BOUNDED, BOUNDS, LOSSLESS, RATIO, Case, measures_key
from _enhancement_cache import code_hash, key_of

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress, estimate, models
from MedEnhanceLib.unicompress.allocation import videos
from MedEnhanceLib.unicompress.blocks import coding_grid
from MedEnhanceLib.unicompress.codecs.integers import to_integers
from MedEnhanceLib.unicompress.codecs.lossless import CODERS, block_type_name
from MedEnhanceLib.unicompress.codecs.video import av1
from MedEnhanceLib.unicompress.container import NO_BLOCK, Container
from MedEnhanceLib.unicompress.models import MODEL_CHUNK

OURS, OURS_FAST, SELF_CONTAINED = "ours", "ours, fast", "self-contained"
ONLY = "only "
ESTIMATE, ABLATION = "estimate", "ablation"
THREADS = 2


ABLATION_RATIOS = (32, 128, 512)
ESTIMATED: tuple[dict[str, Any], ...] = ({"lossless": True}, {"max_error": 2}, {"ratio": 64})


@lru_cache(maxsize=1)
def codec_key() -> str:
    """Of all code of the codec and of all models that ship with it."""
    folder = REPOSITORY / "MedEnhanceLib" / "unicompress"
    compiled = (REPOSITORY / "MedEnhanceLib" / "native").glob("*.[ch]")
    code = sorted(str(path.relative_to(REPOSITORY)) for path in (*folder.rglob("*.py"), *compiled))
    models = sorted(str(path.relative_to(REPOSITORY)) for path in shipped_models())
    return key_of(code_hash(*code, *models, "_compression_ours.py"), measures_key())


def our_rows(case: Case, ratios: tuple[int, ...]) -> Iterator[Row]:
    """All modes at both speeds, and what each block type alone would take."""
    for codec, speed in ((OURS, "normal"), (OURS_FAST, "fast")):
        yield _our_row(case, LOSSLESS, None, codec, {"lossless": True, "speed": speed})
        for bound in BOUNDS:
            yield _our_row(case, BOUNDED, bound, codec, {"max_error": bound, "speed": speed})
    for number in ratios:
        yield _our_row(case, RATIO, number, OURS, {"ratio": number})
    yield from _single_types(case)


def ablation_rows(case: Case) -> Iterator[Row]:
    """Every arm that can be switched so; the others are left out."""
    for arm in ARMS:
        if arm.missing:
            continue
        with _without(arm.without):
            yield _arm_row(case, arm, None, {"lossless": True})
            for ratio in ABLATION_RATIOS:
                yield _arm_row(case, arm, ratio, {"ratio": ratio})


def _arm_row(case: Case, arm: Arm, setting: float | None, target: dict[str, Any]) -> Row:
    if arm.name == ALL:  # measured as it is
        speed = {} if setting else {"speed": "normal"}
        mode = RATIO if setting else LOSSLESS
        row = _our_row(case, mode, setting, OURS, target | speed)
        return row | {"mode": ABLATION, "codec": arm.name}
    config = arm.config | target
    return _our_row(case, ABLATION, setting, arm.name, config, without=arm.without)


@contextmanager
def _without(roles: tuple[str, ...]) -> Iterator[None]:
    """As if no model of these roles had shipped, or as if PyAV were not installed."""
    place = models._path
    found = (av1.LIBAOM,) if SVT in roles else av1.encoders()

    def path(role: str, modality: str) -> Path:
        return Path(os.devnull) if role in roles else place(role, modality)

    with patch.object(models, "_path", path), patch.object(videos, "encoders", lambda: found):
        yield


def estimate_rows(case: Case) -> Iterator[Row]:
    """What is estimated beforehand against what comes out."""
    for config in ESTIMATED:
        (mode, setting), *_ = config.items()

        def measure(config: dict[str, Any] = config) -> Row:
            return estimate_row(case, config)

        yield case.row(key_of(codec_key(), case.print, ESTIMATE, mode, setting), measure)


def estimate_row(case: Case, config: dict[str, Any]) -> Row:
    """Bytes and PSNR estimated for a target, and those of the file."""
    ((mode, value),) = config.items()
    estimated = estimate(case.volume, CompressConfig(threads=THREADS, **config))
    found, _ = coded(case.volume, config)
    return {
        "mode": ESTIMATE,
        "setting": f"{mode} {value:g}" if mode != LOSSLESS else mode,
        "codec": OURS,
        "bytes": found["bytes"],
        "estimated_bytes": estimated.file_bytes,
        "size_error": estimated.file_bytes / found["bytes"] - 1,
        "psnr_db": found["psnr_db"],
        "estimated_psnr_db": estimated.psnr,
        "estimate_s": estimated.seconds,
    }


def _our_row(
    case: Case,
    mode: str,
    setting: float | None,
    codec: str,
    config: dict[str, Any],
    without: tuple[str, ...] = (),
) -> Row:
    def measure() -> Row:
        row: Row = {"mode": mode, "setting": setting, "codec": codec}
        try:
            found, decoded = coded(case.volume, config)
        except ConfigError as refusal:  # a ratio that this volume cannot reach
            return row | {"refused": str(refusal)}
        return row | found | quality_row(case.volume, decoded)

    settings = sorted(config.items()), without
    key = key_of(codec_key(), case.print, mode, setting, codec, settings)
    return case.row(key, measure)


def coded(volume: Volume, config: dict[str, Any]) -> tuple[Row, Any]:
    """Compress to a file and read it back: the row of its size, and the voxels."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.ucv"
        began = time.process_time()
        done = compress(volume, path, CompressConfig(threads=THREADS, **config))
        coded = time.process_time()
        decoded = decompress(path, threads=THREADS).voxels
        end = time.process_time()
        inside, outside = model_bytes(path)
    row = size_row(volume, done.file_bytes) | {
        "encode_cpu_s": coded - began,
        "decode_cpu_s": end - coded,
        "block_types": done.block_types,
        "psnr_db": done.psnr,
        "model_bytes_inside": inside,
        "self_contained_bytes": done.file_bytes + outside,
        "self_contained_ratio": volume.nbytes / (done.file_bytes + outside),
    }
    return row, decoded


def self_contained(rows: list[Row]) -> Iterator[Row]:
    """Our rows once more, with the models counted in that a file needs and does not carry."""
    for row in rows:
        size = row.get("self_contained_bytes", row.get("bytes"))
        ours = row["codec"] == OURS and row["mode"] in (LOSSLESS, BOUNDED, RATIO)
        if ours and size != row.get("bytes"):
            scale = size / row["bytes"]
            yield row | {
                "codec": SELF_CONTAINED,
                "setting": None if row["mode"] == RATIO else row["setting"],
                "bytes": size,
                "bits_per_voxel": row["bits_per_voxel"] * scale,
                "ratio": row["ratio"] / scale,
            }


def model_bytes(path: Path) -> tuple[int, int]:
    """Bytes of models that a file carries, and of those that it names and does not carry."""
    with Container(path) as container:
        named = container.header.get("models", {}).values()
        carried = [
            container.read(chunk)
            for chunk in container.chunks
            if chunk.block == NO_BLOCK and chunk.kind == MODEL_CHUNK
        ]
    inside = {hashlib.sha256(data).hexdigest() for data in carried}
    outside = {identity["sha256"] for identity in named} - inside
    sizes = _sizes_by_hash()
    return sum(map(len, carried)), sum(sizes[sha256] for sha256 in outside)


@lru_cache(maxsize=1)
def _sizes_by_hash() -> dict[str, int]:
    contents = (path.read_bytes() for path in shipped_models())
    return {hashlib.sha256(content).hexdigest(): len(content) for content in contents}


def _single_types(case: Case) -> Iterator[Row]:
    """Bytes of all chunks if every block had to take the same classical type."""

    def measure() -> Row:
        totals = dict.fromkeys(CODERS, 0.0)
        grid = coding_grid(case.volume.voxels.shape)
        for number in range(len(grid)):
            block = grid.box(number).of(case.volume.voxels)
            coded = to_integers(block)
            for kind, coder in CODERS.items():
                data = coder.encode(coded.indices, "normal")
                totals[kind] += math.inf if data is None else len(data)
        sizes = {
            block_type_name(kind): int(total)
            for kind, total in totals.items()
            if math.isfinite(total)
        }
        return {"mode": LOSSLESS, "setting": None, "codec": "single types", "sizes": sizes}

    row = case.row(key_of(codec_key(), case.print, "single types"), measure)
    for name, size in row["sizes"].items():
        yield {key: row[key] for key in ("volume", "mode", "setting")} | {
            "codec": ONLY + name,
            **size_row(case.volume, size),
        }

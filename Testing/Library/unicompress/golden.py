"""Files of each released format, kept for ever in Testing/Data/unicompress.

Run `python -m Library.unicompress.golden` in Testing/ when the format gets a new version; never
write over the files of an old one.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume, Voxels
from MedEnhanceLib.unicompress import CompressConfig, compress
from MedEnhanceLib.unicompress.allocation.implicit_layers import implicit_for
from MedEnhanceLib.unicompress.codecs import lossless, wavelet
from MedEnhanceLib.unicompress.codecs.implicit.codec import decode_implicit
from MedEnhanceLib.unicompress.codecs.integers import to_integers
from MedEnhanceLib.unicompress.codecs.predictor.learned import code_learned, network_of
from MedEnhanceLib.unicompress.codecs.video import video, wiener
from MedEnhanceLib.unicompress.codecs.video.av1 import SVT
from MedEnhanceLib.unicompress.container import Chunk, Container, with_repair, write_container
from MedEnhanceLib.unicompress.models import DecodeContext, ModelSet, shipped_model
from MedEnhanceLib.unicompress.repair import Layout
from MedEnhanceLib.unicompress.verify import voxels_sha256

FOLDER = Path(__file__).resolve().parents[2] / "Data" / "unicompress"
GEOMETRY = Geometry(
    (0.7, 0.7, 3.3), (-120.125, 1e-3, 77.0), ((0.8, -0.6, 0), (0.6, 0.8, 0), (0, 0, 1))
)
MAX_ERROR = 3


def golden_voxels(dtype: str = "<i2") -> Voxels:
    """[6, 28, 24] by whole-number arithmetic alone: the same on every machine, for ever."""
    k, j, i = np.mgrid[0:6, 0:28, 0:24].astype(np.int64)
    texture = (i * i * 7 + j * j * 13 + i * j * k * 5) % 23
    disc = np.where((i - 12) ** 2 + (j - 14) ** 2 < 90, 400 + 6 * i - 9 * j + 5 * k, -1000)
    return (disc + texture * (disc > 0)).astype(dtype)


def golden_volume(dtype: str = "<i2") -> Volume:
    return Volume(
        golden_voxels(dtype), GEOMETRY, modality="CT", units="HU", history=("made for a test",)
    )


def write_all(folder: Path, version: str) -> None:
    """One file for each mode, and one with a frame for each block type.

    Two have parity, of each kind, though they are smaller than files that `compress` gives any.
    """
    modes = {
        "lossless": {"lossless": True},
        "max-error": {"max_error": MAX_ERROR},
        "ratio": {"ratio": 6},
    }
    for name, config in modes.items():
        with _parity(Layout(2048, 1, 64, 1) if name == "lossless" else None):
            compress(golden_volume(), folder / f"v{version}-{name}.ucv", CompressConfig(**config))
    floats = Volume(golden_voxels("<f4") / np.float32(3))
    compress(floats, folder / f"v{version}-float.ucv", CompressConfig(lossless=True))
    _write_every_type(folder / f"v{version}-types.ucv")
    _write_with_models(folder / f"v{version}-models.ucv")
    _write_video_of_10_bits(folder / f"v{version}-video-10-bit.ucv")


def _parity(layout: Layout | None) -> Any:
    return mock.patch.object(Layout, "of_size", lambda *_: layout)


def _write_every_type(path: Path) -> None:
    """A sequence whose frame t is coded by block type t; constant is a frame of zeros."""
    voxels = golden_voxels()
    frames = np.stack([voxels] * 7)
    frames[lossless.CONSTANT] = -3
    coded, chunks = to_integers(voxels), []
    for kind, coder in lossless.CODERS.items():
        if kind == lossless.CONSTANT:
            blank = to_integers(frames[kind])
            chunks.append(Chunk(kind, kind, blank.record))
            continue
        code = coder.encode(coded.indices, "normal")
        assert code is not None
        chunks.append(Chunk(kind, kind, coded.record + code))
    stream = wavelet.encode(voxels.astype(np.float32), 12.0)
    chunks.append(Chunk(lossless.WAVELET, lossless.WAVELET, stream.prefix(len(stream))))
    _write(path, frames, chunks, Layout(1024, 15, 1024, 1), exact=False)


def _write_with_models(path: Path) -> None:
    """A sequence of a video with all that a filter has, a learned block and an implicit one."""
    voxels, volume = golden_voxels(), golden_volume()
    implicit = implicit_for(volume, voxels)
    networks = [shipped_model(role, "CT") for role in ("restoration", "predictor")]
    assert implicit is not None
    models = [model for model in networks if model is not None] + [implicit.writer.model]
    limits = int(voxels.min()), int(voxels.max())
    context = DecodeContext(voxels.dtype, limits, ModelSet.of(*models))
    weights = np.resize(np.arange(-3, 4, dtype=np.int8), (8, 79))
    coded = replace(
        video.encode(voxels, 30.0, speed="normal"),
        noise=44,
        filter=wiener.Filter(2, 3, True, 40, 4, weights),
    )
    learned = code_learned(voxels, None, network_of(models[1]))
    assert learned is not None
    layers = implicit.writer.code(voxels, implicit.scaling, thick=implicit.thick).chunks
    frames = np.stack(
        [
            video.decode(coded.data, voxels.shape, context),
            voxels,
            decode_implicit(layers, voxels.shape, context),
        ]
    )
    chunks = [
        Chunk(0, lossless.VIDEO, coded.data),
        Chunk(1, lossless.LEARNED, bytes(learned[0].data)),
        *(Chunk(2, lossless.IMPLICIT, data, layer) for layer, data in enumerate(layers)),
    ]
    named = {model.role: model.identity for model in models}
    _write(
        path, frames, sorted(chunks, key=lambda one: one.layer), range=list(limits), models=named
    )


def _write_video_of_10_bits(path: Path) -> None:
    """One block, as SVT-AV1 codes it; sides are odd, so that frames are larger."""
    voxels = np.pad(golden_voxels(), ((0, 0), (0, 39), (0, 41)), mode="symmetric")
    coded = video.encode(voxels, 30.0, speed="normal", encoder=SVT)
    weights = np.resize(np.arange(-3, 4, dtype=np.int8), (8, 78))
    coded = replace(coded, noise=44, filter=wiener.Filter(2, 3, False, 40, 4, weights))
    limits = int(voxels.min()), int(voxels.max())
    decoded = video.voxels_of(coded, DecodeContext(voxels.dtype, limits))
    chunks = [Chunk(0, lossless.VIDEO, coded.data)]
    _write(path, decoded, chunks, range=list(limits), blocks=[1, 1, 1])


def _write(
    path: Path, frames: Voxels, chunks: list[Chunk], parity: Layout | None = None, **fields: Any
) -> None:
    """A file of these chunks, with a header as `compress` gives it but for `fields`."""
    usual = path.with_name("usual.ucv")
    compress(Volume(frames, modality="CT"), usual, CompressConfig(lossless=True))
    with Container(usual) as opened:
        header = {**opened.header, "voxels_sha256": voxels_sha256(frames), **fields}
    usual.unlink()
    with _parity(parity):
        frame, chunks = with_repair(header, chunks, "parity")
    write_container(path, frame, chunks)


if __name__ == "__main__":
    from MedEnhanceLib.unicompress.container import VERSION

    write_all(FOLDER, ".".join(map(str, VERSION)))

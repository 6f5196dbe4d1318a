"""Files of each released format, kept for ever in Testing/Data/unicompress.

Run `python -m Library.unicompress.golden` in Testing/ when the format gets a new version; never
write over the files of an old one.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from MedEnhanceLib.geometry import Geometry
from MedEnhanceLib.unicompress import CompressConfig, coders, compress, wavelet
from MedEnhanceLib.unicompress.container import Chunk, Container, build_frame, write_container
from MedEnhanceLib.unicompress.integers import to_integers
from MedEnhanceLib.unicompress.verify import voxels_sha256
from MedEnhanceLib.volume import Volume, Voxels

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
    """One file for each mode, and one with a frame for each block type."""
    modes = {
        "lossless": {"lossless": True},
        "max-error": {"max_error": MAX_ERROR},
        "ratio": {"ratio": 6},
    }
    for name, config in modes.items():
        compress(golden_volume(), folder / f"v{version}-{name}.ucv", CompressConfig(**config))
    floats = Volume(golden_voxels("<f4") / np.float32(3))
    compress(floats, folder / f"v{version}-float.ucv", CompressConfig(lossless=True))
    _write_every_type(folder / f"v{version}-types.ucv")


def _write_every_type(path: Path) -> None:
    """A sequence whose frame t is coded by block type t; constant is a frame of zeros."""
    voxels = golden_voxels()
    frames = np.stack([voxels] * 7)
    frames[coders.CONSTANT] = -3
    coded, chunks = to_integers(voxels), []
    for kind, coder in coders.CODERS.items():
        if kind == coders.CONSTANT:
            blank = to_integers(frames[kind])
            chunks.append(Chunk(kind, kind, blank.record))
            continue
        code = coder.encode(coded.indices, "normal")
        assert code is not None
        chunks.append(Chunk(kind, kind, coded.record + code))
    stream = wavelet.encode(voxels.astype(np.float32), 12.0)
    chunks.append(Chunk(coders.WAVELET, coders.WAVELET, stream.prefix(len(stream))))
    model = path.with_name("model.ucv")
    compress(Volume(frames), model, CompressConfig(lossless=True))
    with Container(model) as opened:
        header = {**opened.header, "exact": False, "voxels_sha256": voxels_sha256(frames)}
    model.unlink()
    write_container(path, build_frame(header, chunks), chunks)


if __name__ == "__main__":
    from MedEnhanceLib.unicompress.container import VERSION

    write_all(FOLDER, ".".join(map(str, VERSION)))

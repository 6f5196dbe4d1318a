"""A ratio is kept, and one full coding is enough where the quick ones predict its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from MedEnhanceLib import io
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import CompressConfig, compress
from MedEnhanceLib.unicompress.codecs.video import video
from MedEnhanceLib.unicompress.codecs.video.av1 import SVT, Encoder, encoders


@dataclass
class Codings:
    """Encoder of each full coding of a volume, and its bytes.

    shape: of the volume.
    quick_share: what a quick coding of it all seems to take, as a share of its bytes.
    """

    shape: tuple[int, ...] = ()
    quick_share: float = 1.0
    full: list[tuple[Encoder, int]] = field(default_factory=list)

    def watch(self, encode: Callable[..., video.Video]) -> Callable[..., video.Video]:
        def watched(
            block: Voxels, step: float, *, quickly: bool = False, **how: Encoder
        ) -> video.Video:
            coded = encode(block, step, quickly=quickly, **how)
            if block.shape != self.shape:
                return coded
            if quickly:
                count = round(self.quick_share * len(coded.stream))
                return replace(coded, stream=coded.stream.ljust(count)[:count])
            self.full.append((how["encoder"], len(coded.data)))
            return coded

        return watched


@pytest.fixture
def codings(monkeypatch: pytest.MonkeyPatch) -> Codings:
    if SVT not in encoders():
        pytest.skip("PyAV is not installed")
    counted = Codings()
    monkeypatch.setattr(video, "encode", counted.watch(video.encode))
    return counted


@pytest.fixture(scope="module")
def brain() -> Volume:
    template = io.load(resource_folder("samples") / "mni152_t1.nii.gz").voxels
    return Volume(template[74:114, 61:171, 43:153], modality="MR")


@pytest.mark.slow
def test_a_usual_volume_is_coded_in_full_once(
    codings: Codings, brain: Volume, tmp_path: Path
) -> None:
    codings.shape = brain.shape
    done = compress(brain, tmp_path / "a.ucv", CompressConfig(ratio=32, threads=1))
    assert 32 <= done.ratio < 1.05 * 32
    assert [encoder for encoder, _ in codings.full] == [SVT]


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.85, 1.15])
def test_a_full_coding_that_misses_is_followed_by_a_closer_one(
    codings: Codings, brain: Volume, share: float, tmp_path: Path
) -> None:
    codings.shape, codings.quick_share = brain.shape, share
    done = compress(brain, tmp_path / "a.ucv", CompressConfig(ratio=32, threads=1))
    assert 32 <= done.ratio < 1.05 * 32
    sizes = [size for _, size in codings.full]
    limit = brain.voxels.nbytes / 32
    assert 2 <= len(sizes) <= 3
    assert (sizes[0] > done.file_bytes) == (share < 1)
    assert abs(sizes[1] - limit) < abs(sizes[0] - limit)

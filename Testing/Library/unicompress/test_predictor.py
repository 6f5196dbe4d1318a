"""The learned predictor: exact, the same on every path, never larger than others."""

from __future__ import annotations

import random
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from MedEnhanceLib import native
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError
from MedEnhanceLib.runtime.shared_setting import computed_once
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress
from MedEnhanceLib.unicompress.allocation import near_lossless
from MedEnhanceLib.unicompress.blocks import Grid
from MedEnhanceLib.unicompress.codec_models import (
    DEFLATED_MODEL_CHUNK,
    DecodeContext,
    shipped_model,
)
from MedEnhanceLib.unicompress.codecs.lossless import JPEGXL
from MedEnhanceLib.unicompress.codecs.predictor import (
    coder,
    features,
    integer_network,
    learned,
    numpy_decoder,
    tuning,
)
from MedEnhanceLib.unicompress.codecs.predictor.tuning import samples_of
from MedEnhanceLib.unicompress.container import NO_BLOCK, Container
from MedEnhanceLib.unicompress.header import Header

from ..conftest import WarningRecorder
from .conftest import Write
from .fuzzing import chunks_of, mangle

Block = npt.NDArray[np.uint16]


def random_network() -> integer_network.Network:
    shapes, rng = ((8, features.COUNT), (8, 8), (3, 8)), np.random.default_rng(0)
    weights = [rng.normal(0, sd, shape) for sd, shape in zip((0.1, 0.2, 0.1), shapes, strict=True)]
    return integer_network.quantize(weights, [np.zeros(8), np.zeros(8), np.array([0, -1, 2.0])])


NETWORK = random_network()


def anatomy(shape: tuple[int, int, int], noise: float = 5) -> Block:
    """Smooth, noisy, with air cut off at 0."""
    k, j, i = np.indices(shape)
    smooth = 300 * np.sin(j / 9) * np.cos(i / 7) + 4 * k + 100
    noisy = smooth + np.random.default_rng(0).normal(0, noise, shape)
    return np.maximum(noisy, 0).astype(np.uint16)


#: The compiled library at every width that this processor has; to read, None is NumPy.
PATHS: list[native.Library] = []


@pytest.fixture(scope="module", autouse=True)
def _compiled_paths(request: pytest.FixtureRequest) -> None:
    built = request.getfixturevalue("native_path")
    PATHS[:] = [native.Library(built, width) for width in native.Library(built).widths]


@contextmanager
def on(path: native.Library | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "find", lambda _folder: (path, "not compiled"))
        yield


def round_trip(
    block: npt.NDArray[np.unsignedinteger], model: integer_network.Network = NETWORK
) -> bytes:
    """The block's bytes, which every path writes and reads."""
    written, sizes = set(), set()
    for path in PATHS:
        with on(path):
            written.add(coder.encode_block(block, model))
            sizes.add(coder.ideal_bytes(block, model))
    (data,), (ideal,) = written, sizes
    assert data is not None
    assert len(data) < 1.01 * ideal + 8 * 64 + 200
    for path in (*PATHS, None):
        with on(path):
            decoded = coder.decode_block(data, block.shape, model)
        assert np.array_equal(decoded, block)
    return data


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 40, 3), (3, 2, 50), (5, 9, 4), (9, 33, 31)])
@pytest.mark.parametrize("top", [2, 255, 4095, 65535])
def test_blocks_of_any_shape_and_indices_come_back(shape: tuple[int, int, int], top: int) -> None:
    rng = np.random.default_rng(top)
    round_trip(anatomy(shape))
    round_trip(rng.integers(0, top + 1, shape).astype(np.uint16))
    round_trip((rng.integers(0, 2, shape) * top).astype(np.uint16))


def stop_after(calls: int) -> Callable[[], None]:
    counter = iter(range(calls))

    def check() -> None:
        if next(counter, None) is None:
            raise Cancelled("cancelled")

    return check


def test_a_block_can_be_left_while_it_is_coded_and_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = anatomy((6, 40, 36))
    data = round_trip(block)
    for path, calls in product(PATHS, (0, 1, 2)):
        monkeypatch.setattr(coder, "safe_point", stop_after(calls))
        with on(path), pytest.raises(Cancelled):
            coder.encode_block(block, NETWORK)
        monkeypatch.setattr(coder, "safe_point", stop_after(calls))
        with on(path), pytest.raises(Cancelled):
            coder.decode_block(data, block.shape, NETWORK)
        monkeypatch.setattr(numpy_decoder, "safe_point", stop_after(calls))
        with on(None), pytest.raises(Cancelled):
            coder.decode_block(data, block.shape, NETWORK)


def test_invalid_streams_end_the_same_without_the_compiled_library() -> None:
    block, dice = anatomy((3, 14, 12)), random.Random(0)
    data = round_trip(block)
    ends: Counter[str] = Counter()
    for _ in range(60):
        forged = mangle(dice, data[:107], b"") + mangle(dice, data[107:], data)
        forged = forged if dice.random() < 0.5 else data[:107] + forged[107:]
        outcomes: list[bytes | str] = []
        for path in (PATHS[0], None):
            try:
                with on(path):
                    outcomes.append(coder.decode_block(forged, block.shape, NETWORK).tobytes())
            except (ValueError, struct.error) as error:
                outcomes.append(str(error))
        assert outcomes[0] == outcomes[1]
        ends[str(outcomes[0])] += 1
    assert ends["the stream ends before its block"] > 5
    assert ends["the stream is damaged"] > 2


def test_the_shipped_networks_code_the_same_on_every_path() -> None:
    rng = np.random.default_rng(0)
    for modality in ("CT", "MR", "EM"):
        shipped = learned.network_of(shipped_model("predictor", modality))
        for noise, top in ((0, 4000), (4, 300), (4000, 65535)):
            block = np.minimum(anatomy((5, 36, 66), noise=noise), top).astype(np.uint16)
            block[:, 30:] = 0
            block[:, 24:30] = 43  # air, where something lies below it
            block[:, :, 60:] = 44
            block[3, 10:20, 10:20] = rng.integers(0, top + 1, (10, 10))
            round_trip(block, shipped)


def test_a_network_that_would_not_be_exact_is_refused() -> None:
    tensors = dict(NETWORK.tensors())
    tensors["weights1"] = np.full((8, 8), 1 << 14, np.int16)
    with pytest.raises(ValueError, match="exact"):
        integer_network.Network.from_tensors(tensors)
    with pytest.raises(ValueError, match="layer 2 is missing"):
        integer_network.Network.from_tensors({k: v for k, v in tensors.items() if k != "weights2"})


def test_training_samples_are_the_same_on_every_path_and_bits_fall() -> None:
    drawn, block = [], anatomy((8, 64, 64))
    for path in PATHS:
        with on(path):
            drawn.append(samples_of(block, 20_000, np.random.default_rng(0)))
            bits = 8 * coder.ideal_bytes(block, NETWORK) / block.size
    # What is learned from is what the coder sees.
    assert tuning.ideal_bits(NETWORK, drawn[0]) == pytest.approx(bits, rel=0.02)
    assert len({samples.tobytes() for samples in drawn}) == 1
    taught = tuning.tune(NETWORK, drawn[0], steps=60)
    assert tuning.ideal_bits(taught, drawn[0]) < 0.97 * tuning.ideal_bits(NETWORK, drawn[0])


@pytest.mark.parametrize(
    ("shape", "slices"),
    [((182, 218, 182), 30), ((39, 200, 200), 39), ((300, 512, 512), 10), ((2000, 256, 256), 44)],
)
def test_blocks_have_the_slices_that_the_page_states(
    shape: tuple[int, int, int], slices: int
) -> None:
    """The table of docs/compression.md."""
    grid = learned.predictor_grid(shape)
    assert grid.box(0).k[1] in (slices, slices - 1)
    assert grid.counts[1:] == (1, 1) and grid.largest_block <= 11 << 18
    if grid.counts[0] > 14:
        assert (shape[0] // 14) * np.prod(grid.box(0).shape[1:]) > 11 << 18
    elif grid.counts[0] > 1:
        assert grid.box(0).shape[0] >= 8 and np.prod(grid.box(0).shape) >= 1 << 20


def test_shapes_that_would_take_for_ever_are_refused() -> None:
    assert coder.encode_block(np.ones((100_000, 2, 2), np.uint16), NETWORK) is None
    data = round_trip(anatomy((4, 20, 20)))
    with pytest.raises(ValueError, match="shape"):
        coder.decode_block(data, (100_000, 2, 2), NETWORK)


@pytest.fixture
def always_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The predictor codes a volume, whatever it takes."""
    monkeypatch.setattr(learned, "would_take", lambda *_: -1e9)


@pytest.fixture
def small_learned_blocks(monkeypatch: pytest.MonkeyPatch, always_learned: None) -> None:
    monkeypatch.setattr(near_lossless, "predictor_grid", lambda shape: Grid(shape, (2, 2, 2)))


@pytest.mark.parametrize("bound", [None, 1, 8])
@pytest.mark.usefixtures("small_learned_blocks")
def test_a_volume_is_coded_by_the_predictor(
    scan: Volume, tmp_path: Path, bound: float | None
) -> None:
    mode = {"lossless": True} if bound is None else {"max_error": bound}
    path = tmp_path / "a.ucv"
    result = compress(scan, path, CompressConfig(threads=1, **mode))
    assert set(result.block_types) == {"learned"}
    assert result.max_error <= (bound or 0)
    whole = decompress(path)
    part = decompress(path, region=np.s_[3:9, 10:30, 5:20])
    assert np.array_equal(part.voxels, whole.voxels[3:9, 10:30, 5:20])


def thin_slices() -> Block:
    """A volume whose slices share structure and much of their noise."""
    noise = np.random.default_rng(0).normal(0, 8, (26, 120, 120))
    shared = anatomy((24, 120, 120), noise=0) + noise[:-2] + noise[1:-1] + noise[2:]
    return np.maximum(shared, 0).astype(np.uint16)


@pytest.mark.parametrize("bound", [None, 2])
def test_both_speeds_keep_the_bound_and_fast_takes_a_smaller_network(
    write: Write, bound: float | None
) -> None:
    voxels = thin_slices()
    mode = {"lossless": True} if bound is None else {"max_error": bound}
    files = [
        write(Volume(voxels, modality="CT"), f"{speed}.ucv", speed=speed, **mode)
        for speed in ("normal", "fast")
    ]
    nodes = []
    for path in files:
        assert np.abs(decompress(path).voxels.astype(int) - voxels).max() <= (bound or 0)
        with Container(path) as container:
            header = Header.from_json(container.header, path.name)
            model = DecodeContext.of(container, header).models.get(learned.ROLE)
        nodes.append(len(learned.network_of(model).matrices[0]))
    assert nodes == [32, 8]
    normal, fast = (path.stat().st_size for path in files)
    assert normal < 1.05 * fast


def test_the_fastest_speed_keeps_the_bound_without_a_network(write: Write) -> None:
    voxels = thin_slices()
    path = write(Volume(voxels, modality="CT"), max_error=2, speed="fastest")
    assert np.abs(decompress(path).voxels.astype(int) - voxels).max() == 2
    assert {chunk.kind for chunk in chunks_of(path)} == {JPEGXL}
    with pytest.raises(ConfigError, match="fastest requires lossless or max_error"):
        CompressConfig(ratio=8, speed="fastest")


def test_threads_that_need_one_table_wait_for_it() -> None:
    made: list[int] = []

    @computed_once
    def table(number: int) -> int:
        made.append(number)
        time.sleep(0.05)
        return number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(table, [1, 2] * 4)) == [1, 2] * 4
    assert sorted(made) == [1, 2]


def test_a_taught_network_travels_in_the_file(
    scan: Volume, write: Write, monkeypatch: pytest.MonkeyPatch, always_learned: None
) -> None:
    def taught(predictor: learned.Predictor, *_: Any, **__: Any) -> learned.Predictor:
        samples = samples_of(anatomy((4, 20, 20)), 1000, np.random.default_rng(0))
        network = tuning.tune(predictor.network, samples, steps=5)
        return learned.Predictor(learned.model_of(network, "mr+", {}), network, is_tuned=True)

    monkeypatch.setattr(learned, "fine_tuned", taught)
    path = write(scan, lossless=True)
    carried = [chunk for chunk in chunks_of(path) if chunk.block == NO_BLOCK]
    # All blocks hang on it.
    assert [chunk.kind for chunk in carried] == 2 * [DEFLATED_MODEL_CHUNK]
    monkeypatch.setattr(learned, "shipped_model", lambda *_: None)
    assert np.array_equal(decompress(path).voxels, scan.voxels)


@pytest.mark.usefixtures("small_learned_blocks")
def test_without_the_compiled_library_blocks_are_read_but_not_written(
    scan: Volume, tmp_path: Path, recorder: WarningRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_it = compress(scan, tmp_path / "a.ucv", CompressConfig(lossless=True))
    assert "learned" in with_it.block_types
    monkeypatch.setattr(native, "find", lambda _folder: (None, "not compiled: build it"))
    path = tmp_path / "b.ucv"
    without = compress(scan, path, CompressConfig(lossless=True), monitor=recorder.monitor)
    assert "learned" not in without.block_types
    assert "compiled library" in recorder.warnings[0]
    assert np.array_equal(decompress(path).voxels, scan.voxels)
    assert len(recorder.warnings) == 1
    again = decompress(tmp_path / "a.ucv", monitor=recorder.monitor)
    assert np.array_equal(again.voxels, scan.voxels)
    assert "build it" in recorder.warnings[0]
    assert "NumPy decodes 14,400 voxels instead" in recorder.warnings[1]

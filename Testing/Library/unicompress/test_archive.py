"""Files open where neither the compiled library nor this release's models are."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import MedEnhanceLib
from MedEnhanceLib.bundles.store import shipped_folder
from MedEnhanceLib.cli.main import main
from MedEnhanceLib.core.arrays import Voxels
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import CodecError
from MedEnhanceLib.io.volume_files import load
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.runtime.resources import resource_folder
from MedEnhanceLib.unicompress import (
    CompressConfig,
    codec_models,
    compress,
    decompress,
    encode,
    inspect_container,
    recover,
)
from MedEnhanceLib.unicompress.allocation.coding_task import CodingTask, Room
from MedEnhanceLib.unicompress.allocation.near_lossless import code_within
from MedEnhanceLib.unicompress.codec_models import (
    DEFLATED_MODEL_CHUNK,
    MODEL_CHUNK,
    DecodeContext,
)
from MedEnhanceLib.unicompress.codecs.predictor import learned
from MedEnhanceLib.unicompress.container import (
    NO_BLOCK,
    Chunk,
    ChunkInfo,
    Container,
    bytes_of,
    write_container,
)

from ..conftest import WarningRecorder
from .conftest import Write, damage
from .fuzzing import chunks_of
from .test_damage import rebuild

#: Written by the versions of the format that their names end with; 1.0 stored no models.
GOLDEN = Path(__file__).parent / "golden"
VOXELS = {
    "lossless": "5e4cf6038808fb38dafa2a378caef68ad302a3acfde308e05bd7a4dcc47087b4",
    "error-2": "ea6fdec99fa0136a884ce9acdbe03a159eb179c9a0db436750456dfd4466eb2b",
}
#: Reads files in another process: whole, a part, and by `recover`.
READ = """
import hashlib, json, sys
sys.modules["ziglang"] = None  # it would build the library
import numpy as np
from MedEnhanceLib.runtime.progress import Monitor
from MedEnhanceLib.unicompress import decompress, inspect_container, recover

def digest(voxels):
    return hashlib.sha256(np.ascontiguousarray(voxels).tobytes()).hexdigest()

read = {}
for path in sys.argv[1:]:
    warned = []
    listen = lambda event: event.kind == "warning" and warned.append(event.fields["message"])
    whole = decompress(path, monitor=Monitor(listen)).voxels
    part = decompress(path, region=np.s_[..., 2:5, 5:30, 4:20]).voxels
    saved, report = recover(path)
    read[path] = {
        "whole": digest(whole), "part": digest(part), "recovered": digest(saved.voxels),
        "proved": report.proved, "missing": inspect_container(path)["missing"], "warned": warned,
    }
print(json.dumps(read))
"""


def digest(voxels: Voxels) -> str:
    return hashlib.sha256(np.ascontiguousarray(voxels).tobytes()).hexdigest()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation whose library is not compiled, and that has no models."""
    folder = tmp_path_factory.mktemp("bare")
    source = Path(MedEnhanceLib.__file__).parent
    leave_out = shutil.ignore_patterns("*.so", "*.dylib", "*.dll", "__pycache__")
    shutil.copytree(source, folder / source.name, ignore=leave_out)
    (folder / "Resources" / "models").mkdir(parents=True)
    return folder


def read_in(bare: Path, *paths: Path, models: Path | None = None) -> dict[str, dict[str, Any]]:
    """Read files in the bare installation, with other models or none."""
    environment = os.environ | {"PYTHONPATH": str(bare), "OMP_NUM_THREADS": "1"}
    environment["MEDENHANCE_MODELS"] = str(models or bare / "none")
    command = [sys.executable, "-c", READ, *map(str, paths)]
    done = subprocess.run(
        command, env=environment, cwd=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    read: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return read


@pytest.fixture(scope="module")
def head() -> Volume:
    """The sample, a T1 of the head."""
    return load(resource_folder("samples") / "mni152_t1.nii.gz", modality="MR")


def middle(volume: Volume, *shape: int) -> Volume:
    starts = [(n - m) // 2 for n, m in zip(volume.shape, shape, strict=True)]
    part = tuple(slice(a, a + m) for a, m in zip(starts, shape, strict=True))
    return dataclasses.replace(volume, voxels=np.ascontiguousarray(volume.voxels[part]))


def model_chunks(path: Path) -> list[ChunkInfo]:
    with Container(path) as opened:
        return [c for c in opened.chunks if c.kind in (MODEL_CHUNK, DEFLATED_MODEL_CHUNK)]


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that ships other weights."""
    monkeypatch.setattr(codec_models, "codec_files", lambda: iter(()))


@pytest.fixture
def archive(head: Volume, write: Write) -> Path:
    """A file by default, coded by the predictor."""
    return write(middle(head, 24, 96, 96), lossless=True)


# ---------------------------------------------------------------- elsewhere


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_golden_files_open_without_the_compiled_library(bare: Path, version: str) -> None:
    paths = {mode: GOLDEN / f"{mode}-{version}.ucv" for mode in VOXELS}
    read = read_in(bare, *paths.values(), models=shipped_folder() if version == "1.0" else None)
    for mode, path in paths.items():
        assert read[str(path)]["whole"] == read[str(path)]["recovered"] == VOXELS[mode]


@pytest.mark.parametrize("mode", VOXELS)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_golden_files_open_here(mode: str, version: str) -> None:
    path = GOLDEN / f"{mode}-{version}.ucv"
    assert digest(decompress(path).voxels) == VOXELS[mode]
    facts = inspect_container(path)
    assert (facts["format"], facts["missing"]) == (version, [])
    assert facts["models"]["predictor"]["in_file"] == (version != "1.0")


def test_a_default_file_opens_without_library_and_models(
    archive: Path, head: Volume, bare: Path
) -> None:
    assert inspect_container(archive)["blocks"] == {"learned": 1}
    voxels = middle(head, 24, 96, 96).voxels
    read = read_in(bare, archive)[str(archive)]
    assert (read["whole"], read["recovered"]) == (digest(voxels), digest(voxels))
    assert read["part"] == digest(voxels[2:5, 5:30, 4:20])
    assert (read["proved"], read["missing"]) == (True, [])
    about_the_library, about_the_time = read["warned"]
    assert "compiled library is not used: not compiled" in about_the_library
    assert "NumPy decodes 221,184 voxels instead, in about 1 s" in about_the_time


# ---------------------------------------------------------------- what the file holds


def test_a_default_file_holds_its_network_and_inspect_says_so(
    archive: Path, head: Volume, no_models: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert np.array_equal(decompress(archive).voxels, middle(head, 24, 96, 96).voxels)
    assert [chunk.kind for chunk in model_chunks(archive)] == [DEFLATED_MODEL_CHUNK]
    facts = inspect_container(archive)
    assert facts["models"]["predictor"]["in_file"]
    assert facts["missing"] == []
    assert main(["inspect", str(archive)]) == 0
    assert "codec-mr (predictor), in the file" in capsys.readouterr().out


@pytest.mark.parametrize("shape", [(4, 40, 40), (16, 64, 64), (24, 96, 96), (30, 90, 97)])
@pytest.mark.parametrize("mode", [{"lossless": True}, {"max_error": 2}], ids=["exact", "error 2"])
def test_a_network_is_used_only_where_it_saves_more_than_its_bytes(
    head: Volume,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int, int],
    mode: dict[str, Any],
) -> None:
    part = middle(head, *shape)
    default = write(part, "a.ucv", **mode)
    monkeypatch.setattr(encode, "shipped_predictors", lambda *_: [])
    without = write(part, "b.ucv", **mode)
    facts = inspect_container(default)
    assert ("predictor" in facts["models"]) == (default.stat().st_size < without.stat().st_size)
    assert default.stat().st_size <= without.stat().st_size
    assert "predictor" in facts["models"] or not model_chunks(default)


# ---------------------------------------------------------------- damage


def test_a_damaged_network_is_named_where_no_other_is_at_hand(
    archive: Path, no_models: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (chunk,) = model_chunks(archive)
    damage(archive, (chunk.offset + 9, 1))
    with pytest.raises(CodecError) as caught:
        decompress(archive)
    place = f"chunk {chunk.index} at byte {chunk.offset} is damaged"
    assert place in caught.value.message
    assert "(predictor) is not on this machine" in caught.value.message
    with pytest.raises(CodecError, match=place):
        recover(archive)
    assert main(["decompress", str(archive), str(archive.with_name("b.nii.gz"))]) == 6
    assert place in capsys.readouterr().err
    assert inspect_container(archive)["missing"]
    damaged = inspect_container(archive, verify=True)["check"]["damaged"]
    assert [each["offset"] for each in damaged] == [chunk.offset]


def test_a_damaged_network_is_replaced_by_that_of_the_release(
    archive: Path, head: Volume, recorder: WarningRecorder
) -> None:
    (chunk,) = model_chunks(archive)
    damage(archive, (chunk.offset + 9, 1))
    voxels = decompress(archive, monitor=recorder.monitor).voxels
    assert np.array_equal(voxels, middle(head, 24, 96, 96).voxels)
    assert f"chunk {chunk.index} at byte {chunk.offset} is damaged" in recorder.warnings[0]


def test_a_file_whose_network_was_written_wrong_never_gets_its_name(
    head: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_wrong(path: Path, *parts: Any) -> str:
        digest = write_container(path, *parts)
        (chunk,) = model_chunks(path)
        damage(path, (chunk.offset + 9, 1))
        return digest

    monkeypatch.setattr(encode, "write_container", write_wrong)
    with pytest.raises(CodecError, match="is damaged"):
        compress(middle(head, 24, 96, 96), tmp_path / "a.ucv", CompressConfig(lossless=True))
    assert not list(tmp_path.iterdir())


DEFLATED = zlib.compress(bytes(1 << 26), 9)


@pytest.mark.parametrize(
    "data",
    [b"\0", DEFLATED, DEFLATED[:-9], zlib.compress(b"another model"), zlib.compress(b"") + b"x"],
    ids=["no stream", "64 MiB of zeros", "cut short", "another", "bytes after it"],
)
def test_forged_networks_are_refused_before_they_take_memory(
    archive: Path, no_models: None, data: bytes
) -> None:
    blocks = [chunk for chunk in chunks_of(archive) if chunk.block != NO_BLOCK]
    rebuild(archive, chunks=[*blocks, Chunk(NO_BLOCK, DEFLATED_MODEL_CHUNK, data)])
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match="not on this machine") as caught:
            decompress(archive)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(caught.value, CodecError) == (data != zlib.compress(b"another model"))


def test_more_bytes_than_a_model_may_have_are_not_read(
    archive: Path, no_models: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec_models, "_MOST_BYTES", 1000)
    with pytest.raises(CodecError, match="larger than a model may be"):
        decompress(archive)


def test_models_that_no_block_needs_take_no_memory(archive: Path) -> None:
    others = [zlib.compress(bytes((1 << 22) - n), 9) for n in range(12)]
    foreign = [Chunk(NO_BLOCK, DEFLATED_MODEL_CHUNK, data) for data in others]
    rebuild(archive, chunks=[*chunks_of(archive), *foreign])
    tracemalloc.start()
    try:
        decompress(archive)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_ratio_counts_the_network_that_the_file_holds(head: Volume) -> None:
    voxels, predictors = middle(head, 24, 96, 96).voxels, learned.shipped_predictors("MR")
    context = DecodeContext(voxels.dtype, (0, 255))
    task = CodingTask(voxels, context, "normal", 1, Monitor(), predictors)
    exact = code_within(task, Room(2.0, 1 << 20))
    assert exact is not None and exact.models and exact.tally.equal
    room = Room(3.0, exact.bytes + 2000)
    smaller = code_within(task, room)
    assert smaller is not None
    assert not smaller.tally.equal
    assert bytes_of(smaller.with_models()) <= room.bytes

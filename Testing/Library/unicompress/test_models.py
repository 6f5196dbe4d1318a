"""Files name their models by hash, find them there or on the machine, or say what is missing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.unicompress import decompress, inspect_container
from MedEnhanceLib.unicompress.codec_models import MODEL_CHUNK, CodecModel, DecodeContext, ModelSet
from MedEnhanceLib.unicompress.container import NO_BLOCK, Chunk, Container
from MedEnhanceLib.unicompress.header import Header

from .conftest import Write
from .fuzzing import chunks_of
from .test_damage import rebuild

WEIGHTS = save({"w": np.arange(4, dtype=np.int8)}, {"layout": "1"})
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
NAMED = {"predictor": {"id": "codec-ct", "sha256": SHA256}}


def test_an_imported_model_is_found_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "codec-other" / "models"
    folder.mkdir(parents=True)
    (folder / "predictor.safetensors").write_bytes(WEIGHTS)
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path))
    assert ModelSet(NAMED).get("predictor").id == "codec-other"


def test_a_missing_model_is_named() -> None:
    with pytest.raises(ModelError, match=f"codec-ct {SHA256[:12]}.*not on this machine") as caught:
        ModelSet(NAMED).get("predictor")
    assert "--embed-model" in caught.value.hint
    assert ModelSet(NAMED).missing() == [f"the model codec-ct {SHA256[:12]} (predictor)"]


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, WEIGHTS[:-1], WEIGHTS[:20]])
def test_bytes_that_are_no_model_raise(data: bytes) -> None:
    model = CodecModel("predictor", "codec-ct", "0" * 64, data)
    with pytest.raises(ModelError, match="cannot be read"):
        model.tensors()


def test_a_damaged_carried_model_counts_as_none(write: Write, scan: Volume) -> None:
    path = write(scan, lossless=True, speed="fast")
    chunks = [Chunk(NO_BLOCK, MODEL_CHUNK, WEIGHTS), *chunks_of(path)]
    rebuild(path, chunks=chunks, models=NAMED)
    assert np.array_equal(decompress(path).voxels, scan.voxels)
    assert inspect_container(path)["missing"] == []
    with Container(path) as container:
        header = Header.from_json(container.header, "a.ucv")
        assert DecodeContext.of(container, header).models.get("predictor").data == WEIGHTS
        place = container.chunks[0].offset
    raw = bytearray(path.read_bytes())
    raw[place + 3] ^= 1
    path.write_bytes(raw)
    with Container(path) as container:
        assert DecodeContext.of(container, header).models.missing()

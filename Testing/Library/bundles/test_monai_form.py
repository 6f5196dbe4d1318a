"""A model as a MONAI bundle: its configuration runs, and says where it is from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.bundle import ConfigParser

from MedEnhanceLib import api, io
from MedEnhanceLib.bundles.importing import import_bundle
from MedEnhanceLib.bundles.monai_form import write_monai_bundle
from MedEnhanceLib.bundles.store import find_bundle, read_bundle, verify_bundle
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ModelError, OutputError


@dataclass
class _Result:
    volume: Volume


def run(config: Path, **fields: str) -> None:
    parser = ConfigParser()
    parser.read_config(str(config))
    parser.update({"bundle_root": str(config.parents[1]), "device": "cpu", **fields})
    parser.get_parsed_content("run")


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")  # of MONAI's readers, unused here
@pytest.mark.parametrize(
    ("name", "call", "ending"),
    [("mr", "enhance", "_enhanced"), ("brain-tissue", "segment", "_seg")],
)
def test_its_configuration_runs_our_model_over_a_folder(
    head: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: str, ending: str
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    io.save(head, data / "scan.nii.gz")

    def made(volume: Volume, *, model: str, device: str) -> _Result:
        bundle = read_bundle(Path(model))
        verify_bundle(bundle)
        assert (bundle.name, device, volume.modality) == (name, "cpu", "MR")
        return _Result(volume.with_voxels(volume.voxels + np.int16(7), did="DERIVED: by a test"))

    monkeypatch.setattr(api, call, made)
    config = write_monai_bundle(find_bundle(name), tmp_path / "bundle")
    run(config, dataset_dir=str(data), output_dir=str(out))
    found = io.load(out / f"scan{ending}.nii.gz")
    assert np.array_equal(found.voxels, head.voxels + 7)
    assert found.geometry.is_close(head.geometry)
    assert found.history[-1] == "DERIVED: by a test"
    with pytest.raises(RuntimeError):  # a result that is there is not replaced
        run(config, dataset_dir=str(data), output_dir=str(out))


def test_its_description_has_what_monai_asks_for(tmp_path: Path) -> None:
    config = write_monai_bundle(find_bundle("brain-tissue"), tmp_path / "bundle")
    found: dict[str, Any] = json.loads(config.with_name("metadata.json").read_text())
    asked = "version monai_version pytorch_version numpy_version task description authors copyright"
    assert all(found[name] for name in [*asked.split(), "changelog", "network_data_format"])
    assert "not a medical device" in found["intended_use"]
    pred = found["network_data_format"]["outputs"]["pred"]
    assert pred["channel_def"]["0"] == "background"
    assert pred["value_range"] == [0, len(pred["channel_def"]) - 1]
    assert "monai.bundle run" in (tmp_path / "bundle/docs/README.md").read_text()


def test_a_codec_and_a_folder_in_use_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a codec"):
        write_monai_bundle(find_bundle("codec-ct"), tmp_path / "bundle")
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OutputError, match="not empty"):
        write_monai_bundle(find_bundle("mr"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_model_in_it_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDENHANCE_MODELS", str(tmp_path / "models"))
    write_monai_bundle(find_bundle("brain-tissue"), tmp_path / "bundle")
    with pytest.raises(ModelError, match="came with MedEnhance"):
        import_bundle(tmp_path / "bundle")
    described = tmp_path / "bundle/models/brain-tissue/configs/metadata.json"
    described.write_text(described.read_text().replace('"name": "brain-tissue"', '"name": "mine"'))
    assert import_bundle(tmp_path / "bundle").kind == "head"
    assert find_bundle("mine").origin == "imported"

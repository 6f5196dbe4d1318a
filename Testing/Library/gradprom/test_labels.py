"""What the shipped head's labels are, in the words of DICOM and Slicer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from MedEnhanceLib.bundles import list_bundles, verify_bundle
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import InputError, ModelError
from MedEnhanceLib.gradprom import Label, SegmentConfig, TrainHeadConfig, open_head_for
from MedEnhanceLib.gradprom.labeled import find_split

_ROOT = Path(__file__).resolve().parents[3]
#: From Slicer's SegmentationCategoryTypeModifier-SlicerGeneralAnatomy.json.
_SLICERS = {
    "Brain cerebrospinal fluid pathway": ("280371009", (85, 188, 255)),
    "Gray Matter": ("389081007", (200, 200, 235)),
    "White Matter": ("389080008", (250, 250, 210)),
}


@pytest.fixture
def labels() -> list[Label]:
    (bundle,) = [one for one in list_bundles() if one.name == "brain-tissue"]
    verify_bundle(bundle)
    return [config_from_json(Label, entry) for entry in bundle.metadata["labels"]]


def test_every_label_has_its_terminology(labels: list[Label]) -> None:
    found = {}
    for label in labels:
        assert label.category is not None
        assert label.type is not None
        assert label.category.value == "123037004"
        assert label.category.scheme == label.type.scheme == "SCT"
        rgb = bytes.fromhex(label.recommended_color[1:])
        found[label.type.meaning] = (label.type.value, tuple(rgb))
    assert found == _SLICERS
    recipe = json.loads((_ROOT / "docs/recipes/brain-tissue.json").read_text(encoding="utf-8"))
    assert [config_from_json(Label, entry) for entry in recipe["structures"]] == labels


def test_the_tumor_head_is_coded_as_dicom_codes_lesions() -> None:
    """And like its recipe; it is for nobody who does not ask for it."""
    from pydicom.sr.codedict import codes

    bundle = read_bundle(_ROOT / "Resources/models/sarcoma-ct")
    verify_bundle(bundle)
    (label,) = (config_from_json(Label, entry) for entry in bundle.metadata["labels"])
    assert label.category is not None
    assert label.type is not None
    assert label.category.value == codes.cid7150.MorphologicallyAbnormalStructure.value
    kind = codes.cid7159.Neoplasm
    assert (label.type.value, label.type.scheme) == (kind.value, kind.scheme_designator)
    for modality in ("ct", "mr"):
        path = _ROOT / f"docs/recipes/sarcoma-{modality}.json"
        recipe = json.loads(path.read_text(encoding="utf-8"))
        assert [config_from_json(Label, entry) for entry in recipe["structures"]] == [label]
        assert recipe["on_request"]
    assert bundle.on_request
    ct = Volume(np.zeros((2, 32, 32), np.int16), modality="CT")
    with pytest.raises(ModelError, match="segments CT unless it is selected by name") as caught:
        open_head_for(ct, SegmentConfig())
    assert "sarcoma-ct" in caught.value.hint
    assert open_head_for(ct, SegmentConfig(model="sarcoma-ct"))[0].name == "sarcoma-ct"


@pytest.mark.parametrize(
    ("images", "labels", "wrong"),
    [
        (("a", "b"), ("a_drawn", "b_drawn"), ""),
        (("a", "b"), ("b", "c"), "without a partner: a.nii.gz, c.nii.gz"),
        (("a", "b"), ("b", "c", "d"), "without a partner: a.nii.gz, c.nii.gz, d.nii.gz"),
    ],
)
def test_labels_stand_beside_the_images_of_their_names(
    images: tuple[str, ...], labels: tuple[str, ...], wrong: str, tmp_path: Path
) -> None:
    for folder, names in (("images", images), ("labels", labels)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"{name}.nii.gz").touch()
    structures = [{"value": 1, "name": "Lump", "color": "#ff0000"}]
    config = TrainHeadConfig.from_json({"labels": ["labels/*"], "structures": structures})
    if wrong:
        with pytest.raises(InputError, match=wrong):
            find_split(config, tmp_path)
        return
    learned, _ = find_split(config, tmp_path)
    assert [path.name for path, _ in learned] == [f"{name}.nii.gz" for name in images]

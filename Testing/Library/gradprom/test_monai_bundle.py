"""MONAI bundles: read as data, understood or refused with file and field."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from contracts import SegmenterTests
from monai.networks import nets
from monai.networks.nets import UNet
from safetensors.torch import save_file

from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.gradprom import SegmentConfig, segment
from MedEnhanceLib.gradprom.monai_reader import read_monai_bundle
from MedEnhanceLib.jobs.failures import error_to_json
from MedEnhanceLib.runtime.progress import Event, Monitor

Fields = dict[str, Any]
_CLIP = {"a_min": -100, "a_max": 300, "b_min": 0, "b_max": 1, "clip": True}


_NETWORK: Fields = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8, 8],
    "strides": [2, 2], "norm": ["GROUP", {"num_groups": 2}],
}  # fmt: skip


def of(target: str, **arguments: Any) -> Fields:
    return {"_target_": target, **arguments}


INFERENCE: Fields = {
    "imports": ["$import os"],
    "bundle_root": ".",
    "image_key": "image",
    "sizes": {"patch": [32, 32, 16], "overlap": 0.5},
    "device": "$torch.device('cuda:0')",
    "network_def": of("UNet", **_NETWORK),
    "network": "$@network_def.to(@device)",
    "preprocessing": of(
        "Compose",
        transforms=[
            of("LoadImaged", keys="@image_key", reader="ITKReader"),
            of("EnsureChannelFirstd", keys="@image_key"),
            of("monai.transforms.Orientationd", keys="@image_key", axcodes="RAS"),
            of("Spacingd", keys="@image_key", pixdim=[1.5, 1.5, 2.0], mode="bilinear"),
            of("ScaleIntensityRanged", keys="@image_key", **_CLIP),
            of("RandFlipd", keys="@image_key", _disabled_=True),
            of("EnsureTyped", keys="@image_key", dtype="$torch.float32"),
        ],
    ),
    "inferer": of(
        "SlidingWindowInferer", roi_size="@sizes#patch", overlap="@sizes::overlap", sw_batch_size=4
    ),
    "postprocessing": of(
        "Compose",
        transforms=[
            of("Activationsd", keys="pred", softmax=True),
            of("Invertd", keys="pred", transform="@preprocessing", nearest_interp=False),
            of("AsDiscreted", keys="pred", argmax=True),
            of("KeepLargestConnectedComponentd", keys="pred"),
            of("SaveImaged", keys="pred", output_dir="$@bundle_root + '/eval'"),
        ],
    ),
    "run": ["$__import__('os')"],
}
METADATA: Fields = {
    "name": "Two organs",
    "network_data_format": {
        "inputs": {"image": {"modality": "CT", "num_channels": 1, "spatial_shape": [32, 32, 16]}},
        "outputs": {"pred": {"channel_def": {"0": "background", "1": "liver", "2": "spleen"}}},
    },
}


_STEPS, _DATA = "preprocessing.transforms", "network_data_format"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(5)
    file = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(UNet(**_NETWORK).state_dict(), file)
    return file


Make = Callable[..., Path]


@pytest.fixture
def make(weights: Path, tmp_path: Path) -> Make:
    def make(inference: Fields = INFERENCE, metadata: Fields = METADATA) -> Path:
        folder = tmp_path / "organs"
        for part in ("configs", "models"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / "configs/inference.json").write_text(json.dumps(inference))
        (folder / "configs/metadata.json").write_text(json.dumps(metadata))
        (folder / "models/model.pt").write_bytes(weights.read_bytes())
        return folder

    return make


class TestMonai(SegmenterTests):
    kind, modality = "monai", "CT"

    @pytest.fixture
    def config(self, make: Make) -> SegmentConfig:
        return SegmentConfig(monai_bundle=str(make()))


def changed(base: Fields, place: str, value: Any) -> Fields:
    """A copy with another value at `place`; None removes it."""
    fields = copy.deepcopy(base)
    at: Any = fields
    *path, last = place.split(".")
    for part in path:
        at = at[int(part)] if isinstance(at, list) else at[part]
    if value is None:
        del at[last]
    elif isinstance(at, list):
        at[int(last)] = value
    else:
        at[last] = value
    return fields


def ct() -> Volume:
    rng = np.random.default_rng(1)
    voxels = rng.normal(50, 80, (20, 36, 32)).astype(np.int16)
    return Volume(voxels, Geometry((1.5, 1.5, 2.0)), modality="CT", source="ct")


def test_a_bundle_is_understood(make: Make) -> None:
    bundle = read_monai_bundle(make())
    assert (bundle.name, bundle.modality, bundle.labels) == ("organs", "CT", ("liver", "spleen"))
    assert (bundle.window, bundle.overlap) == ((32, 32, 16), 0.5)
    assert bundle.has_background
    done = [type(step).__name__ for step in bundle.before.transforms]
    assert done == ["Orientationd", "Spacingd", "ScaleIntensityRanged"]
    assert any("KeepLargestConnectedComponent" in note for note in bundle.notes)


def test_a_bundle_finds_what_its_network_gives_in_monai(make: Make, weights: Path) -> None:
    from monai.inferers import SlidingWindowInferer
    from monai.transforms import ScaleIntensityRange

    volume = ct()
    network = UNet(**_NETWORK).eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    # LPS to RAS by hand: both first axes are reversed. The spacing is already that of the bundle.
    array = torch.from_numpy(volume.voxels.astype(np.float32).T.copy())[None].flip((1, 2))
    seen = ScaleIntensityRange(**_CLIP)(array)[None]
    with torch.no_grad():
        given = SlidingWindowInferer((32, 32, 16), overlap=0.5, mode="gaussian")(seen, network)
    wanted = given[0].argmax(dim=0).flip((0, 1)).numpy().T
    found = read_monai_bundle(make()).segment(volume, Monitor())
    assert np.unique(wanted).size > 1
    assert (found == wanted).mean() > 0.999  # two labels may be equally likely within rounding


def test_a_bundle_segments_in_place_of_a_head(make: Make) -> None:
    folder = make(metadata=METADATA | {"copyright": "A. Author"})
    (folder / "LICENSE").write_text("CC BY 4.0\x1b[31m\nof many lines")
    config = SegmentConfig(monai_bundle=str(folder), device="cpu")
    events: list[Event] = []
    found = segment(ct(), config, monitor=Monitor(events.append))
    wanted = read_monai_bundle(folder).segment(ct(), Monitor())
    assert np.array_equal(found.volume.voxels, wanted)
    assert (found.volume.modality, found.volume.geometry) == ("SEG", ct().geometry)
    assert [(label.value, label.name) for label in found.labels] == [(1, "liver"), (2, "spleen")]
    assert len({label.color for label in found.labels}) == 2
    assert [row["voxels"] for row in found.table] == [int((wanted == n).sum()) for n in (1, 2)]
    assert found.model["kind"] == "monai-bundle"
    assert "organs" in found.volume.history[-1]
    said = [(event.kind, event.fields.get("message", "")) for event in events]
    assert ("warning", "organs: its license: A. Author; CC BY 4.0[31m") in said
    assert any(kind == "warning" and "is not a MedEnhance model" in text for kind, text in said)
    with pytest.raises(ConfigError, match="and MONAI bundle"):
        segment(ct(), replace(config, model="brain"))


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        ("network_def._target_", "os.system", r"network_def._target_ is 'os.system'"),
        ("network_def.act", "$__import__('os').mkdir('ran')", r"act is .*neither run"),
        ("network_def.act", {"_target_": "torch.nn.ReLU"}, r"network_def.act is an object"),
        ("network_def.in_channels", "@nowhere", r"network_def cannot be resolved: .*@nowhere"),
        ("network_def.in_channels", "%x.json#a", r"in_channels is .*'%x.json#a'"),
        ("network_def", "$__import__('os').mkdir('ran')", r"network_def is .*neither run"),
        ("network_def.spatial_dims", 2, "network_def takes slices"),
        ("image_key", "@image_key", r"preprocessing cannot be resolved: .*circular"),
        ("image_key", ["t1", "t2"], r"keys reads 2 images at once"),
        ("preprocessing", None, r"preprocessing is missing"),
        ("preprocessing.transforms.3", of("Lambdad", keys="image", func="$print"),
         r"transforms\[3\]._target_ is 'Lambdad', not one of Crop"),
        ("preprocessing.transforms.3.pixdim", "$[1, 1, 1]", r"transforms\[3\].pixdim is .*neither"),
        ("inferer.roi_size", ["1"], r"roi_size\[0\] is '1', not a number"),
        ("preprocessing.transforms.3.what", True, r"transforms\[3\] cannot be built: .*'what'"),
        ("preprocessing.transforms.5._disabled_", False, r"'RandFlipd'"),
        ("inferer._target_", "scripts.Inferer", r"inferer._target_ is 'scripts.Inferer'"),
        ("postprocessing.transforms.3", of("Lambdad", func="$x"), r"'Lambdad', not one of Activ"),
        ("postprocessing.transforms.2", of("AsDiscreted", threshold=0.5), "but softmax too"),
        ("postprocessing.transforms.2", of("AsDiscreted", threshold=0.3), r"'0.3', not 0.5"),
        (_STEPS, ["@image_key"], "is not an object with _target_"),
        (f"{_DATA}.inputs.image.num_channels", 4, "inputs is not one image"),
        (f"{_DATA}.inputs.image.modality", "US", "modality is 'US', not CT or MR"),
        (f"{_DATA}.outputs.pred.channel_def", {}, "channel_def is missing"),
        (f"{_DATA}.outputs.pred.channel_def.1", "a\nb", "has a label with several lines"),
        (_DATA, None, "inputs is not one image"),
        (f"{_DATA}.outputs", 5, "its configurations cannot be understood"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_and_not_run(
    place: str,
    value: Any,
    sentence: str,
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    part, base = ("metadata", METADATA) if place.startswith(_DATA) else ("inference", INFERENCE)
    says = sentence if sentence.startswith("its") else f"configs/{part}.json: .*{sentence}"
    with pytest.raises(ModelError, match=says) as caught:
        read_monai_bundle(make(**{part: changed(base, place, value)}))
    assert caught.value.hint
    assert not (tmp_path / "ran").exists()


def test_code_that_decides_nothing_is_left_alone_and_not_run(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = "$__import__('os').mkdir('ran')"
    fields = INFERENCE
    for place, value in (
        ("imports", ["$import antigravity", code]),
        ("device", code),
        ("run", [code, "%other.json"]),
        ("network_def._mode_", "debug"),
        ("preprocessing.transforms.0.reader", "antigravity.Reader"),
        ("preprocessing.transforms.5.prob", code),
        ("extra", of("os.mkdir", path="ran")),
    ):
        fields = changed(fields, place, value)
    found, wanted = (
        read_monai_bundle(make(each)).segment(ct(), Monitor()) for each in (fields, INFERENCE)
    )
    assert np.array_equal(found, wanted)
    assert not (tmp_path / "ran").exists()
    assert "antigravity" not in sys.modules


def test_a_bundle_that_is_not_whole_says_what_is_missing(make: Make) -> None:
    folder = make()
    for member, content, sentence in (
        ("models/model.pt", None, "neither models/model.safetensors nor models/model.pt"),
        ("configs/inference.json", "[", "configs/inference.json cannot be read"),
        ("configs/inference.json", "[]", "configs/inference.json .*no JSON object"),
        ("configs/inference.json", None, "configs/inference.json cannot be read .*No such file"),
    ):
        make()
        (folder / member).unlink()
        if content is not None:
            (folder / member).write_text(content)
        with pytest.raises(ModelError, match=sentence) as caught:
            read_monai_bundle(folder)
        assert caught.value.hint


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_code_in_a_file_of_weights_is_not_run(make: Make, tmp_path: Path) -> None:
    mark, weights = tmp_path / "it ran", make() / "models/model.pt"
    for write in (
        lambda: torch.save({"weight": Bomb(mark)}, weights),
        lambda: weights.write_bytes(pickle.dumps(Bomb(mark), protocol=2)),
    ):
        write()
        with pytest.raises(ModelError, match="without running code") as caught:
            read_monai_bundle(tmp_path / "organs")
        assert "state_dict" in caught.value.hint
        # Nothing advises to load it all the same, as PyTorch does.
        assert "weights_only" not in error_to_json(caught.value)["details"]
    assert not mark.exists()
    pickle.loads(weights.read_bytes())
    assert mark.exists()  # so it would have run


def test_weights_come_in_several_forms_and_have_to_fit(make: Make) -> None:
    folder, wanted = make(), read_monai_bundle(make()).network.state_dict()
    file = folder / "models/model.pt"
    tensors = torch.load(file, weights_only=True)

    def opened() -> bool:
        state = read_monai_bundle(folder).network.state_dict()
        return all(torch.equal(state[name], tensor) for name, tensor in wanted.items())

    torch.save({"epoch": 3, "model": tensors}, file)  # as MONAI writes a checkpoint
    assert opened()
    file.write_bytes(bytes(range(200)))
    with pytest.raises(ModelError, match="cannot be read"):
        opened()
    torch.save([1, 2], file)
    with pytest.raises(ModelError, match="cannot be read"):
        opened()
    save_file(tensors, folder / "models/model.safetensors")  # which goes before the other
    assert opened()
    make(changed(INFERENCE, "network_def.channels", [4, 16, 16]))
    with pytest.raises(ModelError, match="UNet cannot be built with its arguments and weights"):
        opened()


def test_a_source_that_is_none_says_why(tmp_path: Path) -> None:
    for source, sentence in (
        (tmp_path / "gone", "configs/metadata.json cannot be read"),
        (Path("organs.zip"), "configs/metadata.json cannot be read"),
        (Path("Resources/models/brain"), "is a model of MedEnhance"),
    ):
        with pytest.raises(ModelError, match=sentence) as caught:
            read_monai_bundle(source)
        assert caught.value.hint


_SMALL: dict[str, Fields] = {
    "DynUNet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, [2, 2, 1]],
        "upsample_kernel_size": [2, [2, 2, 1]],
        "filters": [4, 8, 8],
    },
    "SegResNet": {"init_filters": 8},
}


@pytest.mark.parametrize("name", _SMALL)
def test_networks_of_the_list_take_whole_volumes(name: str, make: Make) -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, **_SMALL[name]}
    fields = changed(INFERENCE, "network_def", of(name, **arguments))
    folder = make(changed(fields, "inferer", of("SimpleInferer")))
    torch.save(getattr(nets, name)(**arguments).state_dict(), folder / "models/model.pt")
    assert read_monai_bundle(folder).segment(ct(), Monitor()).shape == ct().shape


def test_what_crops_and_scales_is_undone_on_the_grid_of_the_volume(make: Make) -> None:
    """As in whole-body bundles: zeros around the patient are cropped, the rest is standardized."""
    steps = [
        of("LoadImaged", keys="image"),
        of("CropForegroundd", keys="image", source_key="image"),
        of("NormalizeIntensityd", keys="image", nonzero=True, channel_wise=True),
        of("ScaleIntensityd", keys=["image", "label"], minv=-1.0, maxv=1.0),
        of("ScaleIntensityd", keys="label"),
    ]
    bundle = read_monai_bundle(make(changed(INFERENCE, _STEPS, steps)))
    volume = ct().with_voxels(np.pad(np.abs(ct().voxels[5:-5, 5:-5, 5:-5]) + 1, 5))
    found = bundle.segment(volume, Monitor())
    assert found.shape == volume.shape
    assert found[5:-5, 5:-5, 5:-5].any() and not found[:5].any()


def test_references_that_multiply_are_refused(make: Make) -> None:
    fields = changed(INFERENCE, "network_def.channels", "@a0")
    for level in range(20):
        fields[f"a{level}"] = [f"@a{level + 1}"] * 10
    with pytest.raises(ModelError, match=r"network_def .* too large"):
        read_monai_bundle(make({**fields, "a20": 1}))


def test_independent_labels_have_no_background(make: Make) -> None:
    fields = changed(INFERENCE, "postprocessing.transforms.0", of("Activationsd", sigmoid=True))
    fields = changed(fields, "postprocessing.transforms.2", of("AsDiscreted", threshold=0.5))
    with pytest.raises(ModelError, match="the labels include a background"):
        read_monai_bundle(make(fields))
    names = {"0": "core", "1": "edema", "2": "whole"}
    metadata = changed(METADATA, f"{_DATA}.outputs.pred.channel_def", names)
    bundle = read_monai_bundle(make(fields, metadata))
    assert (bundle.labels, bundle.has_background) == (("core", "edema", "whole"), False)
    assert bundle.segment(ct(), Monitor()).max() <= 3

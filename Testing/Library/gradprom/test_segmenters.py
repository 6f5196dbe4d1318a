"""A user's own segmenter: every kind of file, its geometry and intensities, and what is refused."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor
from monai.losses.dice import DiceCELoss
from monai.networks import nets
from monai.networks.nets import FlexibleUNet, UNet
from monai.transforms import (
    NormalizeIntensity,
    Orientation,
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.core.geometry import Geometry
from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import Cancelled, ConfigError, InputError, MedEnhanceError, ModelError
from MedEnhanceLib.gradprom import HeadConfig, SegmentConfig, TrainHeadConfig, segment
from MedEnhanceLib.gradprom.head import export_head, make_head
from MedEnhanceLib.gradprom.monai_bundle import multiple_of
from MedEnhanceLib.gradprom.segmenter_spec import NetworkSpec, SegmenterSpec
from MedEnhanceLib.gradprom.segmenters import Segmenter, open_segmenter
from MedEnhanceLib.nets.intensity import scaling_for
from MedEnhanceLib.runtime.progress import Monitor

_UNET = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "norm": "batch",
}
#: Of the networks below: the intensities as they are in the file.
_PLAIN = {"modality": "MR", "labels": ["Cube"], "intensity": {"kind": "none"}, "multiple": 1}


class Shifted(nn.Module):
    """Finds what is above 500, and puts it one voxel on along the first axis of its array."""

    def __init__(self) -> None:
        super().__init__()
        kernel = torch.zeros(2, 1, 3, 3, 3)
        kernel[1, 0, 0, 1, 1] = 0.1  # a voxel takes the value of the one before it
        self.weight = nn.Parameter(kernel)

    def forward(self, images: Tensor) -> Tensor:
        bias = torch.tensor([0.0, -50.0])
        return nn.functional.conv3d(images, self.weight, bias, padding=1)


class Echo(nn.Module):
    """Its one label's logit is the intensity that it sees."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(images), images], dim=1)


class Works(nn.Module):
    """Echo, changed by a function of its output."""

    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.change = change

    def forward(self, images: Tensor) -> Any:
        return self.change(Echo()(images))


def cube(spacing: tuple[float, float, float] = (1, 1, 1)) -> Volume:
    """Bright cube of 900 in 100, off center in 24 × 20 × 18 mm; I, J, K point to R, A, S."""
    sides = [round(mm / one) for mm, one in zip((24, 20, 18), spacing, strict=True)]
    centers = [(np.arange(n) + 0.5) * s for n, s in zip(sides, spacing, strict=True)]
    i, j, k = np.meshgrid(*centers, indexing="ij")
    inside = (i > 6) & (i < 12) & (j > 9) & (j < 15) & (k > 3) & (k < 9)
    geometry = Geometry.from_affine_ras(
        np.diag([*spacing, 1.0]) + np.eye(4, k=3) * (spacing[0] / 2)
    )
    voxels = np.where(inside, 900.0, 100.0).T.astype(np.float32)
    return Volume(voxels, geometry, modality="MR", source="cube")


def stored_otherwise(volume: Volume, order: tuple[int, int, int], flips: tuple[int, ...]) -> Volume:
    """The same object with its file axes (i, j, k) in another order and reversed."""
    array = volume.voxels.T.transpose(order)
    affine = volume.geometry.affine_ras[:, [*order, 3]]
    for axis in flips:
        affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
        affine[:3, axis] *= -1
        array = np.flip(array, axis)
    return Volume(array.T, Geometry.from_affine_ras(affine), modality="MR", source="turned")


def center_ras(volume: Volume, inside: np.ndarray) -> np.ndarray:
    """Center of some voxels in mm, RAS."""
    indices = np.argwhere(inside).mean(axis=0)[::-1]
    return (volume.geometry.affine_ras @ [*indices, 1])[:3]


def logits_of(segmenter: Segmenter, volume: Volume) -> Tensor:
    scaling = scaling_for(volume)
    slab = torch.from_numpy(scaling.apply(volume.voxels))
    return segmenter.logits(slab, segmenter.view_of(volume, scaling))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(3)
    return UNet(**_UNET).eval()


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return {
        "modality": "MR",
        "labels": ["Shell", "Core"],
        "intensity": {"kind": "z-score"},
        "multiple": 2,
        "network": {"name": "UNet", "arguments": _UNET},
    }


def write_spec(file: Path, spec: dict[str, Any]) -> Path:
    file.with_name(file.name + ".json").write_text(json.dumps(spec))
    return file


def script(network: nn.Module, file: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(network, torch.rand(1, 1, 32, 32, 32)).save(str(file))
    return file


def save_state(network: nn.Module, file: Path) -> Path:
    torch.save(network.state_dict(), file)
    return file


def save_checkpoint(network: nn.Module, file: Path) -> Path:
    """As a training on several devices leaves it."""
    weights = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 3, "state_dict": weights}, file)
    return file


def save_tensors(network: nn.Module, file: Path) -> Path:
    save_file({name: t.contiguous() for name, t in network.state_dict().items()}, file)
    return file


@pytest.mark.parametrize(
    ("write", "name", "kind"),
    [
        (script, "net.ts", "torchscript"),
        (script, "net.pt", "torchscript"),
        (save_state, "net.pth", "state-dict"),
        (save_checkpoint, "net.pt", "state-dict"),
        (save_tensors, "net.safetensors", "state-dict"),
    ],
)
def test_every_kind_of_file_gives_the_same_segmenter(
    write: Callable[[nn.Module, Path], Path],
    name: str,
    kind: str,
    unet: nn.Module,
    spec: dict[str, Any],
    tmp_path: Path,
) -> None:
    file = write_spec(write(unet, tmp_path / name), spec)
    found = open_segmenter(file, trust=kind == "torchscript")
    assert (found.kind, found.labels, found.name) == (kind, ("Shell", "Core"), "net")
    assert len(found.sha256) == 64
    assert found.identity() == {"name": "net", "kind": kind, "sha256": found.sha256}
    wanted = logits_of(open_segmenter(unet, spec=spec), cube())
    assert wanted.shape == (3, *cube().shape)
    torch.testing.assert_close(logits_of(found, cube()), wanted, rtol=1e-4, atol=1e-5)


def test_a_head_of_ours_finds_what_it_finds_elsewhere(tmp_path: Path) -> None:
    config = TrainHeadConfig.from_json(
        {
            "labels": ["x"],
            "structures": [
                {"value": 3, "name": "A", "color": "#ff0000"},
                {"value": 7, "name": "B", "color": "#00ff00"},
            ],
            "network": HeadConfig(context=1, widths=(4, 8, 8)).to_json(),
        }
    )
    torch.manual_seed(0)
    folder = export_head(tmp_path / "mine", config, make_head(config.network, 2), 1.0).folder
    segmenter = open_segmenter(folder)
    assert (segmenter.kind, segmenter.labels) == ("head", ("A", "B"))
    with pytest.raises(ModelError, match="states itself what it expects"):
        open_segmenter(folder, spec=_PLAIN)
    assert segmenter.sha256 == read_bundle(folder).sha256
    elsewhere = segment(cube(), SegmentConfig(model=str(folder), device="cpu")).volume.voxels
    values = np.array([0, 3, 7], np.uint8)
    assert np.array_equal(values[segmenter.find(cube())], elsewhere)
    assert np.unique(elsewhere).size > 1


def test_weights_get_no_gradient_and_statistics_stay(unet: nn.Module, spec: dict[str, Any]) -> None:
    was = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    segmenter = open_segmenter(unet, spec=spec)
    holder = nn.ModuleList([segmenter.network]).train()
    volume = cube()
    scaling = scaling_for(volume)
    slab = torch.from_numpy(scaling.apply(volume.voxels)).requires_grad_()
    target = torch.from_numpy((volume.voxels > 500).astype(np.int64))
    segmenter.loss(slab, segmenter.view_of(volume, scaling), target).backward()
    assert slab.grad is not None and slab.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in holder.parameters())
    assert all(torch.equal(was[n], t) for n, t in segmenter.network.network.state_dict().items())
    assert not any(module.training for module in segmenter.network.modules())
    assert next(unet.parameters()).requires_grad  # the user's own module is as it was


TURNS = [
    ((0, 1, 2), ()),
    ((0, 1, 2), (0,)),
    ((2, 0, 1), (1,)),
    ((1, 0, 2), (0, 2)),
    ((2, 1, 0), (0, 1, 2)),
]


@pytest.mark.parametrize(("order", "flips"), TURNS)
def test_labels_land_in_the_patient_however_the_file_is_stored(
    order: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    segmenter = open_segmenter(Shifted(), spec={**_PLAIN, "orientation": "RAS"})
    volume = stored_otherwise(cube(), order, flips)
    found = segmenter.find(volume)
    assert found.shape == volume.shape and found.sum() == 6**3
    moved = center_ras(volume, found == 1) - center_ras(volume, volume.voxels > 500)
    np.testing.assert_allclose(moved, [1, 0, 0], atol=1e-6)  # one voxel to the right
    assert np.array_equal(logits_of(segmenter, volume).argmax(dim=0).numpy(), found)


@pytest.mark.parametrize(
    ("orientation", "towards"),
    [("", (0, 0, 1)), ("KJI", (0, 0, 1)), ("IJK", (1, 0, 0)), ("LPS", (-1, 0, 0)),
     ("PIR", (0, -1, 0))],
)  # fmt: skip
def test_the_first_axis_points_where_the_orientation_says(
    orientation: str, towards: tuple[int, int, int]
) -> None:
    segmenter = open_segmenter(Shifted(), spec={**_PLAIN, "orientation": orientation})
    volume = cube()
    moved = center_ras(volume, segmenter.find(volume) == 1) - center_ras(
        volume, volume.voxels > 500
    )
    np.testing.assert_allclose(moved, towards, atol=1e-6)


@pytest.mark.parametrize(("order", "flips"), TURNS[:3])
def test_an_anisotropic_volume_is_seen_at_the_spacing_of_the_segmenter(
    order: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    fields = {**_PLAIN, "orientation": "RAS", "spacing": [1.5, 1.0, 0]}
    segmenter = open_segmenter(Shifted(), spec=fields)
    volume = stored_otherwise(cube((1.0, 2.0, 3.0)), order, flips)
    found = segmenter.find(volume)
    moved = center_ras(volume, found == 1) - center_ras(volume, volume.voxels > 500)
    # One voxel of the segmenter, whose axis to the right has 1.5 mm, within a voxel of the file.
    np.testing.assert_allclose(moved, [1.5, 0, 0], atol=0.51)
    scaling = scaling_for(volume)
    view = segmenter.view_of(volume, scaling)
    assert view.sides(volume.shape) == (16, 20, 6)


def test_orientation_is_that_of_monai(unet: nn.Module, spec: dict[str, Any]) -> None:
    segmenter = open_segmenter(unet, spec={**spec, "orientation": "LPS"})
    volume = stored_otherwise(cube(), (2, 0, 1), (1,))

    def turned(array: Tensor) -> Tensor:  # [C, K, J, I] → as MONAI shows it to a network
        image = MetaTensor(array.permute(0, 3, 2, 1), affine=volume.geometry.affine_ras)
        return Orientation(axcodes="LPS", labels=None)(image).as_tensor()

    normalized = NormalizeIntensity()(turned(torch.from_numpy(volume.voxels.copy())[None]))
    wanted = unet(torch.as_tensor(normalized)[None].float())[0]
    torch.testing.assert_close(turned(logits_of(segmenter, volume)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("zoomed", [False, True])
def test_the_gradient_of_a_voxel_reaches_that_voxel(zoomed: bool) -> None:
    fields = {**_PLAIN, "orientation": "RAS", "spacing": [2, 2, 2] if zoomed else []}
    segmenter = open_segmenter(Echo(), spec=fields)
    volume = stored_otherwise(cube(), (2, 0, 1), (1,))
    scaling = scaling_for(volume)
    slab = torch.from_numpy(scaling.apply(volume.voxels)).requires_grad_()
    logits = segmenter.logits(slab, segmenter.view_of(volume, scaling))
    (slope,) = torch.autograd.grad(logits[1, 5, 9, 7], slab)
    reached = np.argwhere(slope.numpy() != 0)
    assert np.abs(reached - [5, 9, 7]).max() <= (2 if zoomed else 0)
    assert float(slope.sum()) == pytest.approx(scaling.scale, rel=1e-5)


INTENSITIES = [
    ({"kind": "none"}, lambda x: x),
    (
        {"kind": "window", "low": 50, "high": 450, "to_low": -1, "to_high": 1, "clip": True},
        ScaleIntensityRange(50, 450, -1, 1, clip=True),
    ),
    ({"kind": "window", "low": 50, "high": 450}, ScaleIntensityRange(50, 450, 0, 1)),
    ({"kind": "z-score"}, NormalizeIntensity()),
    ({"kind": "z-score", "nonzero": True}, NormalizeIntensity(nonzero=True)),
    ({"kind": "scale", "to_low": -1, "to_high": 1}, ScaleIntensity(-1, 1)),
    (
        {"kind": "percentiles", "low": 5, "high": 90, "clip": True},
        ScaleIntensityRangePercentiles(5, 90, 0, 1, clip=True),
    ),
]


@pytest.mark.parametrize(("intensity", "monai"), INTENSITIES)
@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_intensities_are_those_of_monai(
    intensity: dict[str, Any], monai: Any, modality: str, head: Volume
) -> None:
    voxels = head.voxels - (300 if modality == "CT" else 0)
    volume = Volume(voxels.astype(np.int16), head.geometry, modality=modality)
    fields = {**_PLAIN, "modality": modality, "intensity": intensity}
    seen = logits_of(open_segmenter(Echo(), spec=fields), volume)[1]
    wanted = monai(torch.from_numpy(volume.voxels.astype(np.float32))[None])[0]
    torch.testing.assert_close(seen, torch.as_tensor(wanted), rtol=1e-4, atol=1e-3)


def test_our_own_scale_is_seen_as_it_is(head: Volume) -> None:
    segmenter = open_segmenter(Echo(), spec={**_PLAIN, "intensity": {"kind": "own"}})
    seen = logits_of(segmenter, head)[1]
    assert np.array_equal(seen.numpy(), scaling_for(head).apply(head.voxels))


def test_slices_are_seen_with_their_neighbors() -> None:
    class Middle(nn.Module):
        """Its labels are the slices before, at and after each slice."""

        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([0 * images[:, :1], images], dim=1)

    fields = {**_PLAIN, "dimensions": 2, "context": 1, "labels": ["before", "at", "after"]}
    segmenter = open_segmenter(Middle(), spec={**fields, "orientation": "RAS"})
    volume = cube()
    logits = logits_of(segmenter, volume)
    lows = torch.from_numpy(volume.voxels.copy())
    torch.testing.assert_close(logits[2], lows, rtol=1e-4, atol=1e-3)
    # The first axis, to the right, is I; beyond the end the last slice is repeated.
    before = torch.cat([lows[..., :1], lows[..., :-1]], dim=-1)
    torch.testing.assert_close(logits[1], before, rtol=1e-4, atol=1e-3)


def test_volumes_run_in_windows_slices_and_at_once_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("MedEnhanceLib.gradprom.segmenters._PIXELS", 1000)  # several parts
    whole = open_segmenter(Shifted(), spec=_PLAIN).find(cube())
    fields = {**_PLAIN, "window": [8, 16, 16]}
    assert np.array_equal(open_segmenter(Shifted(), spec=fields).find(cube()), whole)

    class Slices(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([torch.zeros_like(images[:, :1]), images[:, :1] - 500], dim=1)

    flat = {**_PLAIN, "dimensions": 2, "context": 1}
    for extra in ({}, {"window": [16, 16]}, {"spacing": [0.9, 0, 0]}):
        found = open_segmenter(Slices(), spec={**flat, **extra}).find(cube())
        assert (found != whole).sum() <= (0 if "spacing" not in extra else 2 * 36)


def test_a_network_of_one_size_is_run_in_windows_of_it(tmp_path: Path) -> None:
    class Rigid(Shifted):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape == (1, 1, 16, 16, 16)
            return super().forward(images)

    fields = {**_PLAIN, "window": [16, 16, 16], "multiple": 16, "fixed": True}
    segmenter = open_segmenter(Rigid(), spec=fields)
    volume = cube()
    assert segmenter.find(volume).sum() == 6**3
    scaling = scaling_for(volume)
    slab = torch.from_numpy(scaling.apply(volume.voxels)).requires_grad_()
    logits = segmenter.logits(slab, segmenter.view_of(volume, scaling))
    logits[1, 6, 12, 9].backward()
    assert slab.grad is not None and np.argwhere(slab.grad.numpy()).tolist() == [[5, 12, 9]]


def test_a_whole_volume_reports_progress_and_can_be_cancelled() -> None:
    segmenter = open_segmenter(Shifted(), spec={**_PLAIN, "window": [8, 8, 8]})
    fractions: list[float] = []
    segmenter.find(cube(), Monitor(lambda event: fractions.append(event.fields["fraction"])))
    assert len(fractions) > 10 and fractions == sorted(fractions) and fractions[-1] == 1
    calls = iter(range(100))
    with pytest.raises(Cancelled):
        segmenter.find(cube(), Monitor(cancel=lambda: next(calls) > 5))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_loss_falls_towards_the_labels(activation: str) -> None:
    network = Echo() if activation == "softmax" else nn.Identity()
    fields = {**_PLAIN, "intensity": {"kind": "own"}, "activation": activation}
    segmenter = open_segmenter(network, spec=fields)
    volume = cube()
    view = segmenter.view_of(volume, scaling_for(volume))
    target = torch.from_numpy((volume.voxels > 500).astype(np.int64))
    right, wrong, nothing = (
        float(segmenter.loss(20.0 * slab, view, target))
        for slab in (2.0 * target - 1, 1 - 2.0 * target, torch.zeros(target.shape))
    )
    assert right < 0.01 < nothing < wrong
    slab = torch.rand(target.shape)
    is_softmax = activation == "softmax"
    both = DiceCELoss(softmax=is_softmax, sigmoid=not is_softmax, include_background=not is_softmax)
    shares = nn.functional.one_hot(target, 2).movedim(-1, 0)[int(not is_softmax) :].float()
    wanted = both(segmenter.logits(slab, view)[None], shares[None])
    torch.testing.assert_close(segmenter.loss(slab, view, target), wanted)


def test_overlapping_labels_give_the_likelier_one() -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.cat([images - 50, 2 * (images - 500)], dim=1)

    fields = {**_PLAIN, "labels": ["weak", "strong"], "activation": "sigmoid"}
    found = open_segmenter(Two(), spec=fields).find(cube())
    assert np.array_equal(found, np.where(cube().voxels > 500, 1, 1))  # 850 > 800; 50 > 0
    zeroed = Volume(np.where(cube().voxels > 500, 980, 0), cube().geometry, modality="MR")
    assert np.array_equal(open_segmenter(Two(), spec=fields).find(zeroed) == 2, zeroed.voxels > 0)


def test_probabilities_become_logits_where_the_spec_says_so() -> None:
    network = Works(lambda logits: logits.softmax(dim=1))
    with pytest.raises(ModelError, match="gives probabilities") as caught:
        open_segmenter(network, spec=_PLAIN)
    assert "probabilities: true" in caught.value.hint
    small = {**_PLAIN, "intensity": {"kind": "own"}}
    found = logits_of(open_segmenter(network, spec={**small, "probabilities": True}), cube())
    wanted = logits_of(open_segmenter(Echo(), spec=small), cube())
    torch.testing.assert_close(found.softmax(dim=0), wanted.softmax(dim=0))


def test_the_first_of_several_outputs_counts() -> None:
    for change in (lambda x: [x, None], lambda x: ((x, x), x)):
        assert open_segmenter(Works(change), spec=_PLAIN).labels == ("Cube",)
    deep = Works(lambda x: {"main": x, "other": 0})
    with pytest.raises(ModelError, match="a dictionary with main, other") as caught:
        open_segmenter(deep, spec=_PLAIN)
    assert "output" in caught.value.hint
    assert open_segmenter(deep, spec={**_PLAIN, "output": "main"}).labels == ("Cube",)


UNFIT = [
    (lambda x: x.argmax(dim=1, keepdim=True), "not differentiable: it gives whole numbers"),
    (
        lambda x: nn.functional.one_hot(x.argmax(1), 2).movedim(-1, 1).float(),
        "not differentiable: its output does not depend smoothly",
    ),
    (lambda x: x.detach(), "not differentiable"),
    (lambda x: (x > 0.5) + 0 * x, "not differentiable"),
    (lambda x: torch.cat([x, x], 1), "gives 4 channels, its spec names 1 label and the background"),
    (lambda x: x[..., ::2], "gives .* for .*"),
    (lambda x: x / 0 * 0, "not finite"),
    (lambda x: x + torch.rand(()), "another result each time"),
    (lambda x: "labels", "gives a str, no tensor"),
]


@pytest.mark.parametrize(("change", "sentence"), UNFIT)
def test_a_network_that_cannot_teach_is_refused(change: Any, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence) as caught:
        open_segmenter(Works(change), spec=_PLAIN)
    assert "'Works'" in caught.value.message and caught.value.hint


def test_a_network_that_changes_itself_is_refused() -> None:
    class Counting(Echo):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(()))

        def forward(self, images: Tensor) -> Tensor:
            self.count += 1
            return super().forward(images)

    with pytest.raises(ModelError, match="changes itself"):
        open_segmenter(Counting(), spec=_PLAIN)


def test_channels_that_do_not_fit_are_named(spec: dict[str, Any]) -> None:
    network = UNet(**{**_UNET, "in_channels": 4})
    with pytest.raises(ModelError, match=r"1 channel of .* \(its first layer takes 4\)"):
        open_segmenter(network, spec=spec)
    with pytest.raises(ModelError, match="gives 3 channels, its spec names 1 label and the"):
        open_segmenter(UNet(**_UNET), spec={**spec, "labels": ["one"]})


def test_programs_run_only_where_they_are_trusted(
    unet: nn.Module, spec: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_spec(script(unet, tmp_path / "weights.pth"), spec)  # its name does not matter
    monkeypatch.setattr("torch.jit.load", lambda *a, **k: pytest.fail("it was run"))
    with pytest.raises(ModelError, match="TorchScript") as caught:
        open_segmenter(file)
    assert "--trust-segmenter" in caught.value.hint


class Bomb:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("trust", [False, True])
def test_code_in_a_file_of_weights_is_not_run(
    trust: bool, spec: dict[str, Any], tmp_path: Path
) -> None:
    mark = tmp_path / "it ran"
    torch.save({"weight": Bomb(mark)}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Bomb(mark), protocol=2))
    for name in ("a.pt", "b.pt"):
        with pytest.raises(ModelError, match=r"could run code|cannot be read") as caught:
            open_segmenter(write_spec(tmp_path / name, spec), trust=trust)
        assert "state_dict" in caught.value.hint
    assert not mark.exists()
    pickle.loads((tmp_path / "b.pt").read_bytes())
    assert mark.exists()  # so it would have run


def test_files_that_cannot_be_used_say_why(
    unet: nn.Module, spec: dict[str, Any], tmp_path: Path
) -> None:
    def refused(source: Any, sentence: str, **fields: Any) -> None:
        with pytest.raises(MedEnhanceError, match=sentence) as caught:
            open_segmenter(source, spec={**spec, **fields} if fields else None)
        assert caught.value.hint

    weights = save_state(unet, tmp_path / "net.pt")
    refused(weights, "net.pt does not say what it expects")
    refused(unet, "without a spec")
    refused(tmp_path / "other.pt", "no such file")
    with pytest.raises(ModelError, match="there is no model 'no-such-head'"):
        open_segmenter("no-such-head")
    refused(tmp_path, r"no configs/metadata.json inside")
    refused(weights, "weights alone", network=None)
    arguments = {**_UNET, "channels": [4, 16]}
    refused(weights, "not those of this UNet", network={"name": "UNet", "arguments": arguments})
    arguments = {**_UNET, "chanels": [4]}
    refused(weights, "no argument 'chanels'", network={"name": "UNet", "arguments": arguments})
    arguments = {**_UNET, "strides": []}
    refused(weights, "cannot be built", network={"name": "UNet", "arguments": arguments})
    refused(weights, "name is 'os.system'", network={"name": "os.system", "arguments": {}})
    (tmp_path / "noise.pt").write_bytes(bytes(range(200)))
    refused(write_spec(tmp_path / "noise.pt", spec), "noise.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    refused(write_spec(tmp_path / "list.pt", spec), "holds no weights by name")
    (tmp_path / "net.pt.json").write_text('{"modality": "MR"}')
    refused(weights, "net.pt.json: SegmenterSpec lacks labels")
    (tmp_path / "net.pt.json").write_text("{")
    refused(weights, "net.pt.json: cannot be read")


_SMALL: dict[str, dict[str, Any]] = {
    "AttentionUnet": {"channels": [4, 8, 8], "strides": [2, 2]},
    "BasicUNet": {"features": [4] * 6},
    "DynUNet": {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, [2, 2, 1]],
        "upsample_kernel_size": [2, [2, 2, 1]],
        "filters": [4, 8, 8],
    },
    "SegResNet": {"init_filters": 8},
    "SegResNetDS": {"init_filters": 8},
    "UNet": {"channels": [4, 8, 16, 16, 16], "strides": [2] * 4},
}


@pytest.mark.parametrize("name", _SMALL)
def test_networks_of_the_list_take_the_sides_that_are_derived_for_them(
    name: str, tmp_path: Path
) -> None:
    arguments = {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, **_SMALL[name]}
    file = save_state(getattr(nets, name)(**arguments), tmp_path / "net.pt")
    network = NetworkSpec(name=name, arguments=arguments)
    multiple = multiple_of(network)
    fields = {**_PLAIN, "multiple": multiple, "network": network.to_json()}
    segmenter = open_segmenter(file, spec=fields)
    assert segmenter.network(torch.rand(1, 1, multiple, 3 * multiple, 32)).shape[1] == 2


def test_a_network_of_the_list_never_fetches_weights(spec: dict[str, Any], tmp_path: Path) -> None:
    arguments = {"in_channels": 1, "out_channels": 3, "backbone": "efficientnet-b0"}
    network = {"name": "FlexibleUNet", "arguments": {**arguments, "pretrained": True}}
    file = save_state(
        FlexibleUNet(**arguments, pretrained=False, spatial_dims=2), tmp_path / "f.pt"
    )
    network["arguments"]["spatial_dims"] = 2
    fields = {**spec, "network": network, "dimensions": 2, "multiple": 32}
    assert open_segmenter(file, spec=fields).kind == "state-dict"


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"orientation": "RAR"}, "three letters"),
        ({"orientation": "XYZ"}, "three letters"),
        ({"spacing": [1, 1]}, "three numbers"),
        ({"labels": []}, "Name the channels"),
        ({"context": 2}, "it is for slices"),
        ({"window": [10, 10, 10], "multiple": 4}, "a multiple of 4"),
        ({"window": [8, 8]}, "Give 3 sides"),
        ({"fixed": True}, "State the sides"),
        ({"intensity": {"kind": "window"}}, "State low and high"),
        ({"intensity": {"kind": "percentiles", "low": 1, "high": 200}}, "0 to 100"),
        ({"intensity": {"to_low": 1, "to_high": 0}}, "the lower first"),
        ({"modality": "PT"}, "CT or MR"),
        ({"colour": 1}, "no option"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        open_segmenter(Echo(), spec={**_PLAIN, **fields})


def test_a_spec_survives_json(spec: dict[str, Any]) -> None:
    made = SegmenterSpec.from_json(spec)
    assert SegmenterSpec.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_volumes_that_it_is_not_for_are_refused() -> None:
    fields = {**_PLAIN, "spacing": [1, 1, 1], "multiple": 8, "orientation": "RAS"}
    segmenter = open_segmenter(Shifted(), spec=fields)
    good = cube()
    labels = Volume((good.voxels > 500).astype(np.uint8), good.geometry, modality="SEG")
    segmenter.check(good, labels)
    segmenter.check(Volume(good.voxels, good.geometry, modality="OT"))
    segmenter.check(Volume(good.voxels, good.geometry, modality="CT", modality_is_guess=True))

    def refused(volume: Volume, sentence: str, drawn: Volume | None = None) -> None:
        with pytest.raises((InputError, ModelError), match=sentence) as caught:
            segmenter.check(volume, drawn)
        assert caught.value.hint

    refused(Volume(good.voxels, good.geometry, modality="CT"), "is for MR, volume is CT")
    refused(Volume(good.voxels[None], good.geometry, modality="MR"), "a sequence")
    thick = Volume(good.voxels, Geometry((1, 1, 3.5)), modality="MR")
    refused(thick, r"voxels of 3.5 mm, segmenter 'Shifted' is for 1 mm: more than 3 times")
    fine = Volume(good.voxels, Geometry((0.3, 1, 1)), modality="MR")
    refused(fine, "voxels of 0.3 mm")
    refused(good.crop(k=slice(0, 3)), "24 × 20 × 3 voxels .* needs 8")
    refused(good, "another grid", labels.crop(k=slice(0, 5)))
    moved = Volume(labels.voxels, Geometry((1, 1, 1), (5, 0, 0)), modality="SEG")
    refused(good, "another grid", moved)
    refused(good, r"values from 0 to 2, segmenter 'Shifted' has 1 label \(Cube\)",
            labels.with_voxels(labels.voxels * 2))  # fmt: skip
    one = labels.with_voxels(labels.voxels * 2)
    with pytest.raises(InputError, match="Write Cube as 1, and the background as 0"):
        segmenter.check(good, one)
    refused(good, "between whole numbers", labels.with_voxels(labels.voxels * 0.5))
    with pytest.raises(InputError, match=r"3\.5 mm"):
        segmenter.find(thick)

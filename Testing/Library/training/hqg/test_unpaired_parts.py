"""The paper's parts of a training without pairs: code, adversary, content, style."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from Library.scanner.test_scanner import measured, phantom, scanned
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the field's own short name

import MedEnhanceLib as me  # noqa: N813 - as users write it
from MedEnhanceLib import io
from MedEnhanceLib.bundles.export import load_tensors
from MedEnhanceLib.bundles.store import read_bundle
from MedEnhanceLib.scanner.corrector.config import ViewConfig
from MedEnhanceLib.scanner.corrector.view_network import ViewNet
from MedEnhanceLib.training.hqg import run as training
from MedEnhanceLib.training.hqg import scanned_slabs
from MedEnhanceLib.training.hqg.adversary import Adversary
from MedEnhanceLib.training.hqg.content import ContentLoss
from MedEnhanceLib.training.hqg.scanned_slabs import LowQualitySlabMaker
from MedEnhanceLib.training.hqg.style_code import (
    CODE,
    CodedNetwork,
    StyleEncoder,
    divergence,
)

pytest.importorskip("SimpleITK")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes of both sources, and their scanner."""
    folder = tmp_path_factory.mktemp("parts")
    for seed in (6, 7):
        for name, volume in (("good", phantom(seed)), ("low", scanned(phantom(seed - 5), seed))):
            (folder / name).mkdir(exist_ok=True)
            io.save(volume, folder / name / f"{seed}.nii.gz")
    (folder / "scanner.json").write_text(json.dumps(measured().to_json()))
    return folder


@pytest.fixture(autouse=True)
def small_slabs_and_last_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanned_slabs, "MOST", (8, 96, 96))
    monkeypatch.setattr(training, "_is_better", lambda *_: True)
    monkeypatch.setattr(training, "gain_on", lambda *_, **__: (1.0, 1.0))
    monkeypatch.setattr(training, "_VALIDATIONS", 1)


def train(data: Path, out: Path, parts: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Train with parts; returns the weights, and the last value of each metric."""
    folder = me.train(
        "hqg", "smoke", high_quality=data / "good", scanner=data / "scanner.json", out=out,
        device="cpu", validated=1, learning_rate=0.01, unpaired=parts, network={"widths": [8]},
        low_quality=data / "low" if parts.keys() - {"code", "guide"} else "",
    )  # fmt: skip
    lines = (out / "metrics.jsonl").read_text().splitlines()
    values = {row["name"]: row["value"] for row in map(json.loads, lines)}
    assert str(data) not in (folder / "configs" / "metadata.json").read_text()
    return load_tensors(read_bundle(folder)), values


@pytest.mark.slow
def test_each_part_changes_the_weights_and_reports_its_term(data: Path, tmp_path: Path) -> None:
    plain, values = train(data, tmp_path / "plain", {})
    assert values.keys() == {"relative error"}
    last = "unpaired.last.weight"
    arms: dict[str, dict[str, Any]] = {
        "code": {"code": 0.01},
        "adversary": {"adversary": 1},
        "content": {"content": 1},
        "style": {"code": 0.01, "style": 1},
    }
    weights = {}
    for name, parts in arms.items():
        weights[name], values = train(data, tmp_path / name, parts)
        assert np.isfinite(values[name])
        # A bundle has the form of one without parts: codes are folded.
        assert weights[name].keys() == plain.keys()
        assert not torch.equal(weights[name][last], plain[last])
    assert not torch.equal(weights["style"][last], weights["code"][last])
    guide = str(data / "good" / "6.nii.gz")
    named, _ = train(data, tmp_path / "guide", {"code": 0.01, "guide": guide})
    assert torch.equal(named[last], weights["code"][last])  # the same training, another code
    assert any(not torch.equal(value, weights["code"][name]) for name, value in named.items())


def test_a_folded_code_gives_what_the_modulated_network_gives() -> None:
    torch.manual_seed(0)
    network = CodedNetwork(ViewNet(ViewConfig(widths=(8, 16), depth=2))).eval()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.15)
    images, sigma = torch.rand(3, 32, 32), torch.full((2, 24, 24), 0.05)
    scans = (*torch.rand(2, 2, 5, 24, 24), sigma)
    with torch.inference_mode():
        code = network.encoder(images)[0].mean(0)
        coded, without = network(scans, code.expand(2, -1)), network(scans)
        folded, unfolded = network.folded(images)(*scans), network.folded(None)(*scans)
    assert torch.allclose(folded, coded, atol=1e-4 * float(coded.abs().max()))
    assert (coded - without).abs().max() > 0.05 * coded.abs().max()
    assert torch.equal(unfolded, without)


def test_codes_of_images_differ_in_a_batch_and_hold_no_place() -> None:
    torch.manual_seed(0)
    encoder, image = StyleEncoder(), torch.rand(1, 32, 32)
    mean, log_variance = encoder(torch.cat([image, 2 * image, image.roll(8, dims=2)]))
    assert mean.shape == (3, CODE)
    near, far = (mean[2] - mean[0]).abs().mean(), (mean[1] - mean[0]).abs().mean()
    assert near < 0.2 * far
    standard = torch.zeros(3, CODE)
    assert divergence(standard, standard) == 0
    assert divergence(mean, log_variance) > 0


def test_the_adversary_draws_corrected_patches_to_those_of_high_quality() -> None:
    torch.manual_seed(0)
    adversary, total = Adversary(2e-3), 40
    contrast = torch.tensor(0.2, requires_grad=True)
    optimizer = torch.optim.Adam([contrast], lr=0.02)
    for number in range(total):
        real, blurred = torch.rand(2, 4, 32, 32)
        fake = 0.5 + contrast * (blurred - 0.5)  # of high quality it is 1
        adversary.learn(real, fake, number, total)
        optimizer.zero_grad()
        adversary.loss(fake).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(contrast.detach()) > 0.4
    with torch.no_grad():
        flat = 0.5 + 0.2 * (blurred - 0.5)
        assert adversary(real).mean() > adversary(flat).mean()


def test_the_penalty_keeps_the_adversary_smooth(monkeypatch: pytest.MonkeyPatch) -> None:
    def slope(weight: float) -> float:
        monkeypatch.setattr("MedEnhanceLib.training.hqg.adversary._PENALTY", weight)
        torch.manual_seed(0)
        adversary = Adversary(2e-3)
        for number in range(20):
            adversary.learn(torch.rand(4, 32, 32), torch.zeros(4, 32, 32), number, 20)
        real = torch.rand(4, 32, 32, requires_grad=True)
        (gradient,) = torch.autograd.grad(adversary(real).mean(), real)
        return float(gradient.norm())

    assert slope(100.0) < 0.5 * slope(0.0)


def test_content_forgives_contrast_and_sees_what_moved_or_was_invented() -> None:
    torch.manual_seed(0)
    encoder = StyleEncoder()
    content = ContentLoss("cpu", encoder.features)
    j, i = np.mgrid[-1:1:48j, -1:1:48j]
    shapes = np.stack([np.hypot(j - at, i) < 0.4 for at in (-0.2, 0.2)])
    image = F.avg_pool2d(torch.tensor(shapes, dtype=torch.float32), 3, stride=1, padding=1)
    image += 0.02 * torch.rand_like(image)
    invented = image.clone()
    invented[:, 8:12, 30:34] += 0.5
    contrast, moved, more = (
        float(content(each, image)) for each in (0.3 + 0.6 * image, image.roll(3, 2), invented)
    )
    assert content(image, image) == 0
    assert contrast < 0.02 * more < more < moved
    result = image.clone().requires_grad_()
    content(result * 1.5, image.roll(1, 2)).backward()  # type: ignore[no-untyped-call]
    assert result.grad is not None and result.grad.any()
    # The encoder does not learn to overlook differences.
    assert all(weight.grad is None for weight in encoder.parameters())


def test_scans_of_low_quality_are_inverted_as_in_use_and_have_no_target() -> None:
    scan = scanned(phantom(3), 5)
    slab = LowQualitySlabMaker([scan.crop(slice(0, 8))], measured(), seed=0).make(2)
    alone = me.enhance(scan.crop(slice(0, 8), slice(0, 96), slice(0, 96)), scanner=measured())
    count, rows, columns = alone.volume.shape
    inverted = slab.filtered[:count, :rows, :columns].astype(np.float32)
    expected = alone.volume.voxels.astype(np.float32)
    assert np.corrcoef(inverted.ravel(), expected.ravel())[0, 1] > 0.99
    assert np.array_equal(slab.clean, slab.filtered)
    assert not slab.weight.any()
    noisy = slab.noisy.astype(np.float32) - slab.filtered
    assert noisy[slab.is_tissue].std() > 0.3 * float(slab.sigma.max())

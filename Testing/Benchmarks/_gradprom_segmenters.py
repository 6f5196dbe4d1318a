"""Segmenters that learn without an enhancer, and what any segmenter says of whole volumes."""

from __future__ import annotations

import numpy as np
import torch
from _gradprom_arms import Settings, make_task, place_of
from _gradprom_data import Bytes, Case, Floats, Slices, neighbors
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the field's own short name

from MedEnhanceLib.gradprom.train import segmentation_loss
from MedEnhanceLib.nets.training import averaged_weights, set_learning_rate

#: Name: (what it is trained on, whether it has the head's architecture).
SEGMENTERS = {
    "head, clean": ("clean", True),
    "head, degraded": ("degraded", True),
    "second, clean": ("clean", False),
}
_MULTIPLE = 16
_AT_ONCE = 16


def make_segmenter(name: str, settings: Settings) -> nn.Module:
    """The joint head's twin, or a residual network with group normalization and sums for skips."""
    _, is_head = SEGMENTERS[name]
    if is_head:
        return make_task(settings).network
    from monai.networks.nets.segresnet import SegResNet

    network: nn.Module = SegResNet(
        spatial_dims=2,
        init_filters=8,
        in_channels=1,
        out_channels=2,
        blocks_down=(1, 1, 1, 1),
        blocks_up=(1, 1, 1),
        norm=("GROUP", {"num_groups": 4}),
    )
    return network


def train_segmenter(name: str, settings: Settings, cases: list[Case], seed: int) -> nn.Module:
    """As long as a joint head learns, on the same slices, with the same optimizer and loss."""
    torch.manual_seed(seed)
    kind, _ = SEGMENTERS[name]
    network = make_segmenter(name, settings)
    average = averaged_weights(network, settings.average)
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.head_rate, weight_decay=1e-4)
    rng = np.random.default_rng([seed, 1])
    slices, criterion = Slices(cases, "A"), segmentation_loss()
    for number in range(settings.total):
        set_learning_rate(optimizer, settings.head_rate, *place_of(number, settings))
        batch = slices.draw(settings.batch, settings.side, rng)
        image = batch.clean if kind == "clean" else batch.noisy[:, 1:2]
        loss = criterion(network(image), batch.tumour)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        average.update_parameters(network)
    return average.module


@torch.inference_mode()
def enhanced_volume(network: nn.Module, noisy: Floats) -> Floats:
    """Slice by slice, [K, J, I]."""
    network.eval()
    stacks = np.stack([noisy[neighbors(k, len(noisy))] for k in range(len(noisy))])
    corrections = _run(network, torch.from_numpy(stacks))[:, 0].numpy()
    result: Floats = noisy + corrections
    return result


@torch.inference_mode()
def tumour_in(network: nn.Module, image: Floats) -> Bytes:
    """Where a segmenter sees a tumour, 0 or 1, [K, J, I]."""
    network.eval()
    logits = _run(network, torch.from_numpy(image)[:, None])
    found: Bytes = logits.argmax(dim=1).numpy().astype(np.uint8)
    return found


def _run(network: nn.Module, slices: Tensor) -> Tensor:
    """Slices are filled up to what the networks' strides divide, and cut again."""
    rows, columns = slices.shape[-2:]
    short = (0, -columns % _MULTIPLE, 0, -rows % _MULTIPLE)
    padded = F.pad(slices, short, mode="replicate")
    parts = [network(part) for part in padded.split(_AT_ONCE)]
    return torch.cat(parts)[..., :rows, :columns]

"""The segmentation head: a small residual U-Net over a few slices, and its bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from MedEnhanceLib.bundles.export import NOT_STATED, export_bundle, load_tensors, must_fit
from MedEnhanceLib.bundles.store import Bundle
from MedEnhanceLib.bundles.suitability import training_length_limits
from MedEnhanceLib.core.labels import Label
from MedEnhanceLib.core.options import config_from_json
from MedEnhanceLib.core.volume import Enhance
from MedEnhanceLib.gradprom.config import HeadConfig, size_of
from MedEnhanceLib.learning.precision import move
from MedEnhanceLib.training.gradprom.config import TrainHeadConfig

_RESEARCH = "A research tool: do not use it for measurements of patients."


@dataclass(frozen=True)
class Enhancer:
    """Enhancement of the images that a head learns from.

    Attributes:
        enhance: makes an enhanced volume.
        identity: name and hash of the bundle.
        taught: record of the steps in which a head taught it; None of one that none taught.
    """

    enhance: Enhance
    identity: Mapping[str, str]
    taught: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class HeadModel:
    """A head ready for inference.

    Attributes:
        labels: the structures, in the order of the network's channels after the background.
    """

    config: HeadConfig
    labels: tuple[Label, ...]
    network: nn.Module


def make_head(config: HeadConfig, structures: int) -> nn.Module:
    """Make MONAI's residual U-Net, [B, channels, H, W] → logits [B, structures + 1, H, W].

    With batch normalization, whose statistics are fixed in use: slices do not affect one another.
    """
    from monai.networks.nets.unet import UNet

    network: nn.Module = UNet(
        spatial_dims=2,
        in_channels=2 * config.context + 1,
        out_channels=structures + 1,
        channels=config.widths,
        strides=(2,) * (len(config.widths) - 1),
        num_res_units=1,
        norm="BATCH",
    )
    return nn.Sequential(Window(*config.window), network) if config.window else network


class Window(nn.Module):
    """Layer that maps a window of intensities to 0 to 1, and clips the others."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, images: Tensor) -> Tensor:
        """Map a tensor of any shape."""
        return ((images - self.low) / (self.high - self.low)).clamp(0, 1)


def segmentation_loss(*, over_batch: bool = False) -> nn.Module:
    """Make cross-entropy + Dice of logits [B, C, H, W] and label indices [B, 1, H, W].

    Dice leaves the background out.
    over_batch: Dice of the batch as a whole, for rare structures: most patches do not show them,
        and Dice of such a patch only suppresses them.
    """
    from monai.losses.dice import DiceCELoss

    loss: nn.Module = DiceCELoss(
        to_onehot_y=True, softmax=True, include_background=False, batch=over_batch
    )
    return loss


def export_head(
    folder: Path,
    config: TrainHeadConfig,
    network: nn.Module,
    seconds: float,
    enhancer: Enhancer | None = None,
) -> Bundle:
    """Write the bundle of a training.

    Args:
        folder: of the bundle; replaced if it exists.
        config: of the training, recorded with the limits that follow from it.
        network: with averaged weights.
        seconds: duration of the training.
        enhancer: of the low-quality images; None: they were not enhanced.
    """
    enhanced, gradprom, recorded = "", {}, config.to_json()
    if enhancer:
        enhanced = ", on these enhanced by {name} ({sha256:.12})".format(**enhancer.identity)
        recorded["enhancer"] = enhancer.identity["name"]
        gradprom = {"gradprom": {"enhancer": enhancer.identity, "taught": enhancer.taught}}
    summary = (
        f"{config.steps} steps of {config.batch} patches of {config.patch} pixels on clean images,"
        f" on degraded ones{enhanced}, seed {config.seed}, {seconds / 60:.0f} minutes"
    )
    if enhancer and enhancer.taught:
        summary += f". That enhancer: {enhancer.taught['summary']}"
    origin = config.label_origin or "given; who drew them is not stated"
    images = f"images of the {config.anatomy}" if config.anatomy else "images like those below"
    limits = [f"Trained on {config.modality} {images}; not validated on anything else.", _RESEARCH]
    metadata: dict[str, Any] = {
        "name": config.name,
        "kind": "head",
        "modality": config.modality,
        "anatomy": config.anatomy,
        "description": f"Segmentation model: {', '.join(x.name for x in config.label_set)}. "
        f"Labels for training: {origin}.",
        "license": config.license or NOT_STATED,
        "network": config.network.to_json(),
        "on_request": config.on_request,
        "labels": [asdict(label) for label in config.label_set],
        "training": {"config": recorded, "seconds": round(seconds), "summary": summary},
        "data": list(config.data),
        "warnings": [*training_length_limits(config.steps), *config.warnings],
        "limits": limits,
        **gradprom,
    }
    return export_bundle(folder, network.state_dict(), metadata)


def open_head(bundle: Bundle) -> HeadModel:
    """Build the network of a verified bundle; raises ModelError where weights do not fit."""
    entries: list[dict[str, Any]] = bundle.metadata.get("labels", [])
    tensors: dict[str, Tensor] = load_tensors(bundle)
    with must_fit(bundle, tensors):
        config = size_of(bundle.metadata.get("network", {}))
        labels = tuple(config_from_json(Label, entry) for entry in entries)
        network = make_head(config, len(labels))
        network.load_state_dict(tensors)
    return HeadModel(config, labels, move(network, "cpu").eval().requires_grad_(False))

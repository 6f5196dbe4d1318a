"""Opens a MONAI bundle: a network of a list with its weights, and how it sees an image.

Config → network, preprocessing, inferer, postprocessing → SegmenterSpec
"""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.monai_config import Config, Part, steps_of
from MedEnhanceLib.gradprom.segmenter_spec import Intensity, SegmenterSpec
from MedEnhanceLib.runtime.dependencies import require

#: MONAI's network classes that may be built: they run MONAI's code alone on plain arguments.
NETWORKS = (
    "AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SegResNetDS", "SwinUNETR", "UNet", "VNet"
)  # fmt: skip
#: What sides of volumes are multiples of, where a network states no strides: its stages halve them.
_MULTIPLE = 32
_MOST_WEIGHTS = 4 << 30
_MOST_LABELS = 255  # of a byte, without the background
_MOST_SIDE = 512  # of a window
_WEIGHTS = ("models/model.safetensors", "models/model.pt")
_LICENSES = ("LICENSE", "docs/license.txt", "docs/LICENSE")
_SAVE_WEIGHTS = "Save the weights alone: torch.save(network.state_dict(), …), or as safetensors."
#: Transforms before the network that are understood: their arguments that have to be left out.
_BEFORE: dict[str, tuple[str, ...]] = {
    "LoadImage": (),
    "EnsureChannelFirst": (),
    "EnsureType": (),
    "ToTensor": (),
    "ToDevice": (),
    "Orientation": ("as_closest_canonical",),
    "Spacing": ("diagonal", "min_pixdim", "max_pixdim"),
    "ScaleIntensityRange": (),
    "ScaleIntensity": ("factor",),
    "NormalizeIntensity": ("subtrahend", "divisor"),
    "CropForeground": (),
    "SpatialPad": (),
    "DivisiblePad": (),
}
_STANDARD_AXES = [["L", "R"], ["P", "A"], ["I", "S"]]
#: What follows the network: the first decides, the second changes labels and is left out, the third
#: changes nothing here.
_DECIDING = {"Activations", "AsDiscrete"}
_LEFT_OUT = {"KeepLargestConnectedComponent", "FillHoles", "RemoveSmallObjects"}
_NEUTRAL = {"Invert", "SaveImage", "EnsureType", "FromMetaTensor", "ToTensor", "CopyItems"}


def open_monai_bundle(folder: Path) -> tuple[nn.Module, SegmenterSpec, str, tuple[str, ...]]:
    """The network with its weights, what it expects, the weights' SHA-256, and notes for users.

    Raises ModelError, which names file and field of what is not understood.
    """
    metadata = Config(folder, "configs/metadata.json")
    inference = Config(folder, "configs/inference.json")
    stated = inference.part("network_def", "network")
    name = stated.class_among(NETWORKS)
    if not name:
        raise stated.unknown_class(f"not one of {', '.join(NETWORKS)}")
    arguments = {key: stated[key].plain() for key in stated.value if not key.startswith("_")}
    if arguments.get("spatial_dims", 3) != 3:
        raise stated.refused("takes slices; a network of volumes is needed")
    content, weights = _read_weights(folder)
    network = _built(name, arguments, weights, folder.name)
    try:
        spec, notes = _read_spec(metadata, inference, arguments)
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as cause:
        raise ModelError(
            f"{folder.name}: its configurations cannot be understood ({cause})",
            "Correct them as docs/segmenters.md describes them.",
        ) from cause
    notes = [_license_of(folder, metadata), *notes]
    return network, spec, hashlib.sha256(content).hexdigest(), tuple(notes)


def _read_spec(
    metadata: Config, inference: Config, arguments: Mapping[str, Any]
) -> tuple[SegmenterSpec, list[str]]:
    """What a network of these arguments expects, and notes on what is left out."""
    modality, channels = _image_and_channels(metadata.part("network_data_format"))
    before = _before(inference.part("preprocessing", "pre_transforms", "transforms"))
    after = inference.part("postprocessing", "post_transforms")
    activation, notes = _activation(after)
    has_background = channels[0].strip().lower() in ("background", "bg")
    activation = activation or ("softmax" if has_background else "sigmoid")
    if activation == "sigmoid" and has_background:
        raise after.refused("is sigmoid, and the labels have a background: they are no channels")
    window, overlap = _window(inference.part("inferer"))
    multiple = 1
    for step in arguments.get("strides", [_MULTIPLE]):
        multiple *= max(step) if isinstance(step, list) else step
    labels = channels[1:] if activation == "softmax" else channels
    if not 0 < len(labels) <= _MOST_LABELS:
        raise metadata.part("network_data_format").refused(f"names {len(labels)} labels")
    spec = SegmenterSpec(
        modality=modality,
        labels=labels,
        orientation=before.orientation,
        spacing=before.spacing,
        intensity=before.intensity,
        activation=activation,
        multiple=multiple,
        window=window,
        overlap=overlap,
    )
    return spec, [*before.notes, *notes]


def _image_and_channels(data_format: Part) -> tuple[str, tuple[str, ...]]:
    """The modality of the one image that goes in, and the names of what comes out."""
    inputs, outputs = data_format["inputs"], data_format["outputs"]
    names = list(inputs.value or ())
    if len(names) != 1 or inputs[names[0]]["num_channels"].number(1) != 1:
        raise inputs.refused("is not one image of one channel")
    modality = inputs[names[0]]["modality"]
    known = {"CT": "CT", "MR": "MR", "MRI": "MR"}.get(str(modality.value).upper())
    if known is None:
        raise modality.refused(f"is {modality.shown}, not CT or MR")
    channels = outputs[next(iter(outputs.value or ("pred",)))]["channel_def"]
    if not isinstance(channels.value, Mapping) or not channels.value:
        raise channels.refused("is missing: it names the labels")
    return known, tuple(map(str, channels.value.values()))


@dataclass
class _Before:
    """What the transforms before the network make of an image."""

    orientation: str = "IJK"
    spacing: tuple[float, ...] = ()
    intensity: Intensity = field(default_factory=Intensity)
    notes: list[str] = field(default_factory=list)


def _before(part: Part) -> _Before:
    before, image, crop = _Before(), "image", None
    if part.value is None:
        raise part.refused("is missing")
    for step in steps_of(part):
        name = step.class_among(_BEFORE)
        if not name:
            raise step.unknown_class(f"not one of {', '.join(_BEFORE)}")
        keys = [str(key.plain()) for key in step["keys"].members() if key.value is not None]
        if name == "LoadImage" and keys:
            images = [key for key in keys if key not in ("label", "labels", "mask", "seg")]
            if len(images) != 1:
                raise step["keys"].refused(f"reads {len(images)} images at once")
            image = images[0]
        elif keys and image not in keys:
            continue  # of the labels alone
        for argument in _BEFORE[name]:
            if step[argument].value not in (None, False):
                raise step[argument].refused(f"is {step[argument].shown}: it is not understood")
        if name == "CropForeground":
            crop = step
        _take(before, name, step)
    measured = before.intensity.kind in ("scale", "z-score") and not before.intensity.nonzero
    if crop is not None and measured:
        raise crop.refused("crops before intensities are measured, which changes them")
    return before


def _take(before: _Before, name: str, step: Part) -> None:
    """Add what a transform does; raises ModelError where it does not go with those before."""
    match name:
        case "Orientation":
            if len(set(before.spacing)) > 1:
                raise step.refused("comes after a spacing that differs between axes")
            if step["labels"].plain() not in (None, _STANDARD_AXES):
                raise step["labels"].refused("gives axes other letters")
            codes = step["axcodes"]
            before.orientation = "".join(codes.plain() or "")
            if sorted(before.orientation.translate(str.maketrans("LPI", "RAS"))) != list("ARS"):
                raise codes.refused(f"is {codes.shown}: one of R or L, A or P, S or I each")
        case "Spacing":
            sides = [max(0.0, side.number()) for side in step["pixdim"].members()[:3]]
            before.spacing = (*sides, *[sides[-1]] * (3 - len(sides)))
        case "ScaleIntensityRange":
            low, high = step["a_min"].number(), step["a_max"].number()
            to_low, to_high = step["b_min"].number(0), step["b_max"].number(1)
            clip = step["clip"].flag()
            _scale(before, step, Intensity("window", low, high, to_low, to_high, clip=clip))
        case "ScaleIntensity":
            to_low, to_high = step["minv"].number(0), step["maxv"].number(1)
            _scale(before, step, Intensity("scale", to_low=to_low, to_high=to_high))
        case "NormalizeIntensity":
            _scale(before, step, Intensity("z-score", nonzero=step["nonzero"].flag()))


def _scale(before: _Before, step: Part, intensity: Intensity) -> None:
    """A scale that is measured after one without clipping is the same as if it came alone."""
    earlier = before.intensity
    if not (intensity.low < intensity.high and intensity.to_low < intensity.to_high):
        raise step.refused(
            f"goes from {intensity.low:g} to {intensity.high:g}, to {intensity.to_low:g} to "
            f"{intensity.to_high:g}: the lower end comes first"
        )
    if earlier.kind != "none" and (earlier.clip or intensity.kind == "window"):
        raise step.refused(f"follows another scale ({earlier.kind})")
    if earlier.nonzero:
        before.notes.append("zeros are scaled as all other values: they are no case of their own")
    before.intensity = intensity


def _activation(part: Part) -> tuple[Literal["softmax", "sigmoid", ""], list[str]]:
    """Softmax or sigmoid by the transforms after the network, and notes on what is left out."""
    notes, is_softmax, is_sigmoid = [], False, False
    for step in steps_of(part) if part.value else ():
        name = step.class_among(_DECIDING | _LEFT_OUT | _NEUTRAL)
        if not name:
            raise step.unknown_class("which could change what the labels mean")
        if name in _LEFT_OUT:
            notes.append(f"{name} is left out: labels are the network's")
        elif name in _DECIDING:
            is_softmax |= step["softmax"].flag() or step["argmax"].flag()
            if step["threshold"].number(0.5) != 0.5:
                raise step["threshold"].refused(f"is {step['threshold'].shown}, not 0.5")
            is_sigmoid |= step["sigmoid"].flag() or step["threshold"].value is not None
    if is_softmax and is_sigmoid:
        raise part.refused("is softmax and sigmoid at once")
    return "softmax" if is_softmax else "sigmoid" if is_sigmoid else "", notes


def _window(part: Part) -> tuple[tuple[int, ...], float]:
    """Window and overlap of the inferer; () for volumes that are run as a whole."""
    if part.value is None or part.class_among(["SimpleInferer"]):
        return (), 0.25
    if not part.class_among(["SlidingWindowInferer"]):
        raise part.unknown_class("no SlidingWindowInferer and no SimpleInferer")
    overlap = part["overlap"].number(0.25)
    if not 0 <= overlap <= 0.9:
        raise part["overlap"].refused(f"is {overlap:g}, not 0 to 0.9")
    sides = [int(side.number()) for side in part["roi_size"].members()]
    sides = sides * 3 if len(sides) == 1 else sides
    if max(sides) > _MOST_SIDE:
        raise part["roi_size"].refused(f"is {max(sides)}, more than {_MOST_SIDE}")
    # A side that is left to the volume is stated as -1.
    return (tuple(sides) if len(sides) == 3 and min(sides) > 0 else ()), overlap


def _license_of(folder: Path, metadata: Config) -> str:
    """What a bundle says of its license, in a line."""
    stated = [str(metadata.fields.get(name) or "") for name in ("license", "copyright")]
    for name in _LICENSES:
        if (folder / name).is_file():
            with (folder / name).open(encoding="utf-8", errors="replace") as stream:
                stated.append(stream.readline(1000))
    text = "; ".join(dict.fromkeys(line.strip() for line in stated if line.strip()))
    clean = "".join(sign for sign in text if sign.isprintable())[:200]
    return f"its license: {clean or 'not stated'}"


def _read_weights(folder: Path) -> tuple[bytes, dict[str, Tensor]]:
    """The file of weights, and its tensors by name; code in a file is refused, not run."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(
            f"{folder.name}: neither {' nor '.join(_WEIGHTS)} is inside",
            "Download the bundle with its large files: python -m monai.bundle download.",
        )
    if path.stat().st_size > _MOST_WEIGHTS:
        raise ModelError(f"{path}: larger than {_MOST_WEIGHTS >> 30} GiB", "Use another segmenter.")
    content = path.read_bytes()
    try:
        if content[8:9] == b"{":
            return content, dict(load(content))
        stored = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as cause:
        raise ModelError(
            f"{path}: holds more than weights, which could run code; it was not read",
            _SAVE_WEIGHTS,
        ) from cause
    except (
        SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError,
        IndexError, OSError,
    ) as cause:  # fmt: skip
        raise ModelError(f"{path}: its weights cannot be read ({cause})", _SAVE_WEIGHTS) from cause
    # A checkpoint of MONAI holds the weights as "model".
    weights = stored.get("model", stored) if isinstance(stored, Mapping) else None
    if not isinstance(weights, Mapping) or not all(
        isinstance(tensor, Tensor) for tensor in weights.values()
    ):
        raise ModelError(f"{path}: holds no weights by name (a state dict)", _SAVE_WEIGHTS)
    return content, {str(name): tensor for name, tensor in weights.items()}


def _built(
    name: str, arguments: dict[str, Any], weights: Mapping[str, Tensor], bundle: str
) -> nn.Module:
    """A listed network with these weights, for use."""
    from monai.networks import nets

    if name == "SwinUNETR":
        require("einops", purpose="The network SwinUNETR")
        arguments.pop("img_size", None)  # bundles state it, and MONAI has no use for it any more
    try:
        network: nn.Module = getattr(nets, name)(**arguments)
        network.load_state_dict(dict(weights))
    except (TypeError, ValueError, RuntimeError, KeyError, IndexError, AttributeError,
            AssertionError, NotImplementedError, MemoryError) as cause:  # fmt: skip
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise ModelError(
            f"{bundle}: {name} cannot be built with its arguments and weights ({reason})",
            "Correct network_def in its configs/inference.json: channels, strides, normalization.",
        ) from cause
    return network.float().eval()

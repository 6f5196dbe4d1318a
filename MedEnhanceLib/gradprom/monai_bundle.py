"""Opens a MONAI bundle: a network of a list with its weights, and how it sees an image.

Config → network, preprocessing, inferer, postprocessing → SegmenterSpec
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Mapping
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
_INFERERS = ("SimpleInferer", "SlidingWindowInferer")
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
    "Orientation": ("as_closest_canonical", "labels"),
    "Spacing": ("diagonal", "min_pixdim", "max_pixdim"),
    "ScaleIntensityRange": (),
    "ScaleIntensity": ("factor",),
    "NormalizeIntensity": ("subtrahend", "divisor"),
    "CropForeground": (),
    "SpatialPad": (),
    "DivisiblePad": (),
}
#: What those arguments may still be: nothing, or the letters that axes have anyway.
_AS_LEFT_OUT = (None, False, [["L", "R"], ["P", "A"], ["I", "S"]])
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
    name = stated.one_of(NETWORKS)
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
    before, notes = _before(inference.part("preprocessing", "pre_transforms", "transforms"))
    after = inference.part("postprocessing", "post_transforms")
    activation, left_out = _activation(after)
    has_background = channels[0].strip().lower() in ("background", "bg")
    activation = activation or ("softmax" if has_background else "sigmoid")
    if activation == "sigmoid" and has_background:
        raise after.refused("is sigmoid, and the labels have a background: they are no channels")
    window, overlap = _window(inference.part("inferer"))
    strides = arguments.get("strides", [_MULTIPLE])
    labels = channels[1:] if activation == "softmax" else channels
    if not 0 < len(labels) <= _MOST_LABELS:
        raise metadata.part("network_data_format").refused(f"names {len(labels)} labels")
    spec = SegmenterSpec(
        modality=modality,
        labels=labels,
        activation=activation,
        multiple=math.prod(max(step) if isinstance(step, list) else step for step in strides),
        window=window,
        overlap=overlap,
        **before,
    )
    return spec, [*notes, *left_out]


def _image_and_channels(data_format: Part) -> tuple[str, tuple[str, ...]]:
    """The modality of the one image that goes in, and the names of what comes out."""
    inputs, outputs = data_format["inputs"], data_format["outputs"]
    names = list(inputs.value or ())
    if len(names) != 1 or inputs[names[0]]["num_channels"].number(1) != 1:
        raise inputs.refused("is not one image of one channel")
    modality = inputs[names[0]]["modality"]
    name = {"CT": "CT", "MR": "MR", "MRI": "MR"}.get(str(modality.value).upper())
    if name is None:
        raise modality.refused(f"is {modality.shown}, not CT or MR")
    channels = outputs[next(iter(outputs.value or ("pred",)))]["channel_def"]
    if not isinstance(channels.value, Mapping) or not channels.value:
        raise channels.refused("is missing: it names the labels")
    return name, tuple(map(str, channels.value.values()))


def _before(part: Part) -> tuple[dict[str, Any], list[str]]:
    """Orientation, spacing and intensity of the transforms before the network, and notes."""
    if part.value is None:
        raise part.refused("is missing")
    fields: dict[str, Any] = {}
    notes: list[str] = []
    image, crop = "image", None
    for step in steps_of(part):
        name = step.one_of(_BEFORE)
        keys = [str(key.plain()) for key in step["keys"].members() if key.value is not None]
        if name == "LoadImage" and keys:
            images = [key for key in keys if key not in ("label", "labels", "mask", "seg")]
            if len(images) != 1:
                raise step["keys"].refused(f"reads {len(images)} images at once")
            image = images[0]
        elif keys and image not in keys:
            continue  # of the labels alone
        for argument in _BEFORE[name]:
            if step[argument].value not in _AS_LEFT_OUT:
                raise step[argument].refused(f"is {step[argument].shown}: it is not understood")
        if name == "CropForeground":
            crop = step
        elif name == "Orientation":
            if len(set(fields.get("spacing", ()))) > 1:
                raise step.refused("comes after a spacing that differs between axes")
            fields["orientation"] = _orientation(step["axcodes"])
        elif name == "Spacing":
            sides = [max(0.0, side.number()) for side in step["pixdim"].members()[:3]]
            fields["spacing"] = (*sides, *[sides[-1]] * (3 - len(sides)))
        elif intensity := _intensity(name, step):
            earlier = fields.get("intensity", Intensity())
            # A scale that is measured after a z-score is the same as if it came alone.
            pair = (earlier.kind, intensity.kind)
            if earlier.kind != "none" and pair != ("z-score", "scale"):
                raise step.refused(f"follows another scale ({earlier.kind})")
            if earlier.nonzero:
                notes.append("zeros are scaled as all other values: they are no case of their own")
            fields["intensity"] = intensity
    intensity = fields.get("intensity", Intensity())
    if crop is not None and intensity.kind in ("scale", "z-score") and not intensity.nonzero:
        raise crop.refused("crops before intensities are measured, which changes them")
    return fields, notes


def _orientation(codes: Part) -> str:
    """Where axes point to, as R, A and S or their opposites."""
    orientation = "".join(codes.plain() or "")
    if sorted(orientation.translate(str.maketrans("LPI", "RAS"))) != list("ARS"):
        raise codes.refused(f"is {codes.shown}: one of R or L, A or P, S or I each")
    return orientation


def _intensity(name: str, step: Part) -> Intensity | None:
    """The scale of a transform; None for a transform that scales nothing."""
    if name == "NormalizeIntensity":
        return Intensity("z-score", nonzero=step["nonzero"].flag())
    if name == "ScaleIntensity":
        ends = step["minv"].number(0), step["maxv"].number(1)
        intensity = Intensity("scale", to_low=ends[0], to_high=ends[1])
    elif name == "ScaleIntensityRange":
        low, high = step["a_min"].number(), step["a_max"].number()
        to_low, to_high = step["b_min"].number(0), step["b_max"].number(1)
        intensity = Intensity("window", low, high, to_low, to_high, clip=step["clip"].flag())
    else:
        return None
    if not (intensity.low < intensity.high and intensity.to_low < intensity.to_high):
        raise step.refused(
            f"goes from {intensity.low:g} to {intensity.high:g}, to {intensity.to_low:g} to "
            f"{intensity.to_high:g}: the lower end comes first"
        )
    return intensity


def _activation(part: Part) -> tuple[Literal["softmax", "sigmoid", ""], list[str]]:
    """Softmax or sigmoid by the transforms after the network, and notes on what is left out."""
    notes, is_softmax, is_sigmoid = [], False, False
    for step in steps_of(part) if part.value else ():
        name = step.one_of(_DECIDING | _LEFT_OUT | _NEUTRAL)
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
    if part.value is None or part.one_of(_INFERERS) == "SimpleInferer":
        return (), 0.25
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
    except Exception as cause:  # damaged bytes raise anything
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
    except Exception as cause:  # each network has its own for arguments that do not fit
        reason = (str(cause).strip().splitlines() or [type(cause).__name__])[0][:200]
        raise ModelError(
            f"{bundle}: {name} cannot be built with its arguments and weights ({reason})",
            "Correct network_def in its configs/inference.json: channels, strides, normalization.",
        ) from cause
    return network.float().eval()

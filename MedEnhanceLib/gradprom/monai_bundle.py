"""Understands what a MONAI bundle states about its segmenter; see `monai_config`.

Names are looked up in lists of what is understood; the rest is refused with its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import gcd, prod
from typing import Any

from MedEnhanceLib.errors import ConfigError
from MedEnhanceLib.gradprom.monai_config import Config, Step, short, steps_of
from MedEnhanceLib.gradprom.segmenter_spec import Intensity, SegmenterSpec

#: MONAI's network classes that may be built, which run MONAI's code alone on plain arguments, and
#: what the sides of their input are multiples of; 0: derived from the arguments.
NETWORKS = {
    "AttentionUnet": 0,
    "BasicUNet": 16,
    "DynUNet": 0,
    "SegResNet": 0,
    "SegResNetDS": 0,
    "SwinUNETR": 32,
    "UNet": 0,
    "VNet": 16,
}
_FLOAT = re.compile(r"\$?(?:(?:torch|numpy|np)\.)?float(?:16|32|64)?")
_ANY: tuple[Any, ...] = ()
_NO = (False,)
#: Transforms before the network: their arguments that decide, and the values besides null that are
#: understood, where not all are.
_BEFORE: dict[str, dict[str, tuple[Any, ...]]] = {
    "LoadImage": {"dtype": _ANY},
    "EnsureChannelFirst": {"channel_dim": ("no_channel",)},
    "EnsureType": {"dtype": _ANY},
    "CastToType": {"dtype": _ANY},
    "ToTensor": {"dtype": _ANY},
    "ToDevice": {},
    "Orientation": {
        "axcodes": _ANY,
        "as_closest_canonical": _ANY,
        "labels": ([["L", "R"], ["P", "A"], ["I", "S"]],),
    },
    "Spacing": {"pixdim": _ANY, "diagonal": _NO, "min_pixdim": _NO, "max_pixdim": _NO},
    "ScaleIntensityRange": dict.fromkeys(("a_min", "a_max", "b_min", "b_max", "clip"), _ANY),
    "ScaleIntensityRangePercentiles": {
        **dict.fromkeys(("lower", "upper", "b_min", "b_max", "clip"), _ANY),
        "relative": _NO,
    },
    "ScaleIntensity": {"minv": _ANY, "maxv": _ANY, "factor": (None,)},
    "NormalizeIntensity": {"subtrahend": (None,), "divisor": (None,), "nonzero": _ANY},
    "CropForeground": {},
    "SpatialPad": {},
    "DivisiblePad": {},
}
#: What happens after the network, and cannot change which voxels belong to a label.
_AFTERWARDS = {"Invert", "SaveImage", "EnsureType", "FromMetaTensor", "ToTensor", "CopyItems"}
#: What changes labels after the network, and is left out.
_LEFT_OUT = {"KeepLargestConnectedComponent", "FillHoles", "RemoveSmallObjects"}


@dataclass(frozen=True)
class Network:
    """A class of monai.networks.nets, and its arguments."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def multiple(self) -> int:
        """What the sides of its input have to be multiples of."""
        given = self.arguments
        if self.name in ("UNet", "AttentionUnet", "DynUNet"):
            strides = given.get("strides", ())
            if self.name == "UNet":  # it leaves out what is more than its stages
                strides = strides[: len(given.get("channels", ())) - 1]
            return prod(max(one) if isinstance(one, list) else int(one) for one in strides)
        if self.name in ("SegResNet", "SegResNetDS"):
            return int(2 ** (len(given.get("blocks_down", (1,) * 4)) - 1))
        return NETWORKS[self.name]


def read_network(config: Config) -> Network:
    """The network class and its arguments; raises ModelError for a class that is not listed."""
    name, given = config.resolved("network_def", "network", "net", "model")
    config.refuse_inert(given, name)
    if not isinstance(given, Mapping) or "_target_" not in given:
        raise config.refused(name or "network_def", "states no network class (_target_)")
    target = str(given["_target_"])
    listed = {network.lower(): network for network in NETWORKS}
    network = listed.get(re.sub(r"monai\.networks\.nets\.(?:\w+\.)?", "", target).lower())
    if network is None:
        raise config.refused(
            f"{name}._target_", f"is {target!r}, which is none of {', '.join(NETWORKS)}"
        )
    arguments = {key: value for key, value in given.items() if not key.startswith("_")}
    for key, value in arguments.items():
        if "_target_" in str(value):
            raise config.refused(f"{name}.{key}", "is an object of some class: no plain value")
    return Network(network, arguments)


def read_spec(
    metadata: Config, inference: Config, network: Network | None
) -> tuple[SegmenterSpec, tuple[str, ...]]:
    """What a bundle states, and notes on what is left out.

    Args:
        metadata: configs/metadata.json.
        inference: configs/inference.json.
        network: of `read_network`; None where the file of the network contains it.

    Raises:
        ModelError: something is not understood; the message names file and field.
    """
    facts = _Facts.read(metadata)
    if facts.dimensions != 3 or (network and network.arguments.get("spatial_dims", 3) != 3):
        raise inference.refused("network_def", "takes slices; a network of volumes is needed")
    before = _preprocessing(inference)
    activation = _activation(inference, before.notes) or (
        "softmax" if facts.has_background else "sigmoid"
    )
    if activation == "sigmoid" and facts.has_background:
        raise metadata.refused(
            f"{facts.output_place}.channel_def", "has a background beside independent labels"
        )
    labels = facts.channels[1:] if activation == "softmax" else facts.channels
    window, overlap = _windows(inference)
    multiple = facts.multiple or (network.multiple if network else 1)
    fields = {
        "modality": facts.modality,
        "labels": list(labels),
        "orientation": before.orientation,
        "spacing": list(before.spacing),
        "intensity": before.intensity,
        "activation": activation,
        "multiple": gcd(multiple, *window),
        "window": list(window),
        "overlap": overlap,
    }
    return SegmenterSpec.from_json(fields), tuple(before.notes)


@dataclass(frozen=True)
class _Facts:
    """What metadata.json states about input and output of the network."""

    modality: str
    dimensions: int
    multiple: int
    channels: tuple[str, ...]
    output_place: str

    @classmethod
    def read(cls, metadata: Config) -> _Facts:
        """Raises ModelError for more than one image, and for what is missing."""
        place = "network_data_format"
        format_ = _mapping(metadata, metadata.fields.get(place), place)
        inputs = _mapping(metadata, format_.get("inputs"), f"{place}.inputs")
        outputs = _mapping(metadata, format_.get("outputs"), f"{place}.outputs")
        if len(inputs) != 1:
            raise metadata.refused(
                f"{place}.inputs", f"names {len(inputs)} inputs; a segmenter of one image is needed"
            )
        (name, given), (out, result) = next(iter(inputs.items())), next(iter(outputs.items()))
        image = _mapping(metadata, given, f"{place}.inputs.{name}")
        if image.get("num_channels", 1) != 1:
            raise metadata.refused(
                f"{place}.inputs.{name}.num_channels",
                f"is {image['num_channels']}; a segmenter of one image is needed",
            )
        modality = {"CT": "CT", "MR": "MR", "MRI": "MR"}.get(str(image.get("modality")).upper())
        if modality is None:
            raise metadata.refused(
                f"{place}.inputs.{name}.modality", f"is {image.get('modality')!r}, not CT or MR"
            )
        shape = image.get("spatial_shape")
        shape = shape if isinstance(shape, list) else [1, 1, 1]
        multiples = [re.match(r"(\d+)\s*\*\s*n", str(side)) for side in shape]
        there = f"{place}.outputs.{out}"
        result = _mapping(metadata, result, there)
        listed = _mapping(metadata, result.get("channel_def"), f"{there}.channel_def")
        channels = tuple(map(str, listed.values()))
        most = max((int(found.group(1)) for found in multiples if found), default=0)
        return cls(modality, len(shape), most, channels, there)

    @property
    def has_background(self) -> bool:
        """Whether the first channel is the background."""
        return self.channels[0].strip().lower() in ("background", "bg")


def _mapping(config: Config, given: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not given:
        raise config.refused(place, "is missing")
    return given


def _preprocessing(inference: Config) -> _Before:
    """What the transforms before the network do to an image."""
    name, given = inference.resolved("preprocessing", "pre_transforms", "transforms")
    if given is None:
        raise inference.refused("preprocessing", "is missing")
    before, image = _Before(), ""
    for step in steps_of(inference, given, name, set(_BEFORE)):
        keys = step.arguments.get("keys", [])
        inference.refuse_inert(keys, f"{step.place}.keys")
        keys = [keys] if isinstance(keys, str) else list(keys)
        if not step.name:
            raise step.refused(
                f"is {step.target!r}, which is none of {', '.join(_BEFORE)}", "_target_"
            )
        if step.name == "LoadImage":
            images = [key for key in keys if key not in ("label", "labels", "mask", "seg")]
            if len(images) > 1:
                raise step.refused(
                    f"reads {len(images)} images ({', '.join(images)}) at once", "keys"
                )
            image = images[0] if images else "image"
        elif keys and image and image not in keys:
            continue  # of the labels alone
        _refuse_arguments(step)
        before.take(step)
    before.finish()
    return before


def _refuse_arguments(step: Step) -> None:
    """Raise ModelError for the value of an argument that decides and is not understood.

    A type is compared as text: "$torch.float32" is not run.
    """
    for key, understood in _BEFORE[step.name].items():
        value = step.arguments.get(key)
        if key == "dtype":
            if value is not None and not _FLOAT.fullmatch(str(value)):
                raise step.refused(f"is {short(str(value))}, no floats", key)
            continue
        step.config.refuse_inert(value, f"{step.place}.{key}")
        if understood and value not in (None, *understood):
            raise step.refused(f"is {short(str(value))}, which is not understood", key)


@dataclass
class _Before:
    """Orientation, spacing and intensity, collected from the transforms before the network."""

    orientation: str = "IJK"
    spacing: tuple[float, ...] = ()
    intensity: Intensity = field(default_factory=Intensity)
    notes: list[str] = field(default_factory=list)
    crop: Step | None = None

    def take(self, step: Step) -> None:
        """Add one transform; raises ModelError where it does not go with those before."""
        given = step.arguments
        match step.name:
            case "Orientation":
                if len(set(self.spacing)) > 1:
                    raise step.refused("comes after a spacing that differs between axes")
                codes = given.get("axcodes") or ""
                closest = given.get("as_closest_canonical") is True
                self.orientation = "RAS" if closest else "".join(codes)
            case "Spacing":
                sides = given.get("pixdim")
                sides = sides if isinstance(sides, list) else [sides]
                numbers = [max(0.0, float(side)) for side in sides[:3]]
                self.spacing = (*numbers, *[numbers[-1]] * (3 - len(numbers)))
            case "ScaleIntensityRange":
                ends = {"low": given.get("a_min"), "high": given.get("a_max")}
                self._scale(step, {"kind": "window", **ends, **_target_range(given)})
            case "ScaleIntensityRangePercentiles":
                ends = {"low": given.get("lower"), "high": given.get("upper")}
                self._scale(step, {"kind": "percentiles", **ends, **_target_range(given)})
            case "ScaleIntensity":
                low, high = given.get("minv", 0.0), given.get("maxv", 1.0)
                self._scale(step, {"kind": "scale", "to_low": low, "to_high": high})
            case "NormalizeIntensity":
                # As in MONAI, the text "True" counts too.
                nonzero = bool(given.get("nonzero", False))
                self._scale(step, {"kind": "z-score", "nonzero": nonzero})
            case "CropForeground":
                self.crop = step
            case "SpatialPad" | "DivisiblePad":
                self.notes.append(f"{step.name} is left out: sides are filled up as needed")

    def _scale(self, step: Step, fields: dict[str, Any]) -> None:
        """A scale measured after one without clipping is the same as if it came alone."""
        before = self.intensity
        if before.kind != "none" and (before.clip or fields["kind"] == "window"):
            raise step.refused(f"follows another scale ({before.kind})")
        if before.nonzero:
            self.notes.append("zeros are scaled as all other values: they are no case of their own")
        try:
            self.intensity = Intensity.from_json(fields)
        except ConfigError as error:
            raise step.refused(f"cannot be used: {error.message}") from error

    def finish(self) -> None:
        """Check what depends on all transforms."""
        kind = self.intensity.kind
        if self.crop is None:
            return
        if kind in ("window", "none") or (kind == "z-score" and self.intensity.nonzero):
            self.notes.append("cropping to the foreground is left out: it changes no intensity")
            return
        raise self.crop.refused(
            f"crops before intensities are measured ({kind}), which changes them"
        )


def _target_range(given: Mapping[str, Any]) -> dict[str, Any]:
    """What two ends become: b_min and b_max, 0 and 1 where one is not given."""
    low, high = given.get("b_min"), given.get("b_max")
    if low is None or high is None:
        low, high = 0.0, 1.0
    return {"to_low": low, "to_high": high, "clip": bool(given.get("clip", False))}


def _activation(inference: Config, notes: list[str]) -> str:
    """Softmax or sigmoid, by the transforms after the network; "" where they do not say.

    Raises ModelError for a transform that could change labels; adds notes on what is left out.
    """
    name, given = inference.resolved("postprocessing", "post_transforms")
    known = {*_AFTERWARDS, *_LEFT_OUT, "Activations", "AsDiscrete"}
    activation = ""
    for step in steps_of(inference, given or [], name, known):
        stated, arguments = "", step.arguments
        if step.name in _AFTERWARDS:
            continue
        if step.name in _LEFT_OUT:
            notes.append(f"{step.target} is left out: labels are the network's")
            continue
        for key in ("softmax", "sigmoid", "argmax", "threshold"):
            inference.refuse_inert(arguments.get(key), f"{step.place}.{key}")
        if step.name == "Activations":
            chosen = [key for key in ("softmax", "sigmoid") if arguments.get(key) is True]
            if len(chosen) != 1:
                raise step.refused("is neither softmax nor sigmoid")
            stated = chosen[0]
        elif step.name == "AsDiscrete":
            threshold = arguments.get("threshold")
            if threshold not in (None, 0.5):
                raise step.refused(f"is {threshold!r}, not 0.5", "threshold")
            stated = "sigmoid" if threshold else ""
            stated = "softmax" if arguments.get("argmax") is True else stated
        else:
            raise step.refused(
                f"is {step.target!r}, which could change what the labels mean", "_target_"
            )
        if activation and stated not in ("", activation):
            raise step.refused(f"is {stated} after {activation}")
        activation = stated or activation
    return activation


def _windows(config: Config) -> tuple[tuple[int, ...], float]:
    """Window and overlap of the inferer; () for volumes that are run as a whole."""
    name, given = config.resolved("inferer")
    config.refuse_inert(given, name)
    if given is None:
        return (), 0.25
    if not isinstance(given, Mapping):
        raise config.refused(name, "is no object with _target_")
    target = re.sub(r"^monai\.inferers\.(?:\w+\.)*", "", str(given.get("_target_")))
    if target == "SimpleInferer":
        return (), 0.25
    if target != "SlidingWindowInferer":
        raise config.refused(
            f"{name}._target_",
            f"is {target!r}; SlidingWindowInferer and SimpleInferer are understood",
        )
    return _sides(given.get("roi_size", ())), float(given.get("overlap", 0.25))


def _sides(given: Any) -> tuple[int, ...]:
    """A window of whole numbers; () where a side is left to the volume."""
    sides = [given] * 3 if isinstance(given, int) else list(given or ())
    is_plain = len(sides) == 3 and all(isinstance(side, int) and side > 0 for side in sides)
    return tuple(sides) if is_plain else ()

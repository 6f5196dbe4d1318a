"""Reads a MONAI bundle: a network, its weights, and the transforms before and after it.

Configurations are data: nothing in them is run or loaded. References ("@name") are resolved. Python
("$…") and other files ("%…") stay text, and are refused where a value is needed; classes (_target_)
are names, which have to be in the lists below, and their arguments are plain values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedEnhanceLib.bundles.schema import FORMAT
from MedEnhanceLib.core.manifest import file_sha256
from MedEnhanceLib.errors import ModelError
from MedEnhanceLib.gradprom.monai_bundle import IMAGE, MonaiBundle
from MedEnhanceLib.io.json_input import read_json
from MedEnhanceLib.runtime.text import reason_of

#: MONAI's network classes that may be built: with plain arguments they run only MONAI's own code.
NETWORKS = (
    "AttentionUnet", "BasicUNet", "DynUNet", "SegResNet", "SegResNetDS", "SwinUNETR", "UNet", "VNet"
)  # fmt: skip
_INFERERS = ("SimpleInferer", "SlidingWindowInferer")
_MOST_LABELS = 255  # values of a byte, without the background
_WEIGHTS = ("models/model.safetensors", "models/model.pt")
_LICENSES = ("LICENSE", "docs/license.txt", "docs/LICENSE")
#: Transforms before the network: those that read the file, which are skipped, and the others.
_READING = ("LoadImage", "EnsureChannelFirst", "EnsureType", "ToTensor", "ToDevice")
_PREPROCESSING = (
    "Orientation", "Spacing", "ScaleIntensityRange", "ScaleIntensity", "NormalizeIntensity",
    "CropForeground", "SpatialPad", "DivisiblePad",
)  # fmt: skip
#: Transforms after the network: those that say how logits become labels; those that change labels,
#: which are left out with a note; and those without effect here.
_DECIDING = {"Activations", "AsDiscrete"}
_OMITTED = {"KeepLargestConnectedComponent", "FillHoles", "RemoveSmallObjects"}
_NEUTRAL = {"Invert", "SaveImage", "EnsureType", "FromMetaTensor", "ToTensor", "CopyItems"}
#: Most values of a field, with all references resolved.
_MOST_VALUES = 10_000
_REMEDY = "Change it in a copy of the bundle: docs/segmenters.md lists what is supported."


def read_monai_bundle(folder: Path) -> MonaiBundle:
    """Read the folder of a bundle; raises ModelError, which names file and field of a fault."""
    folder = folder.resolve()
    metadata = read_config(folder, "configs/metadata.json")
    if metadata.value.get("format") == FORMAT:
        raise ModelError(
            f"{folder} is a model of MedEnhance, not a MONAI bundle",
            "Name it as the model (model, --model).",
        )
    inference = read_config(folder, "configs/inference.json")
    try:
        data_format = metadata.field("network_data_format")
        network, sha256 = _network(folder, inference.field("network_def", "network"))
        modality, channels = _image_and_channels(data_format)
        before = _before(inference.field("preprocessing", "pre_transforms", "transforms"))
        has_background, omissions = _decision(
            inference.field("postprocessing", "post_transforms"),
            named=channels[0].strip().lower() in ("background", "bg"),
        )
        window, overlap = _window(inference.field("inferer"))
    except (TypeError, ValueError, LookupError, AttributeError, OverflowError) as cause:
        raise ModelError(
            f"{folder.name}: its configurations cannot be understood ({cause})",
            "Correct them as docs/segmenters.md describes them.",
        ) from cause
    labels = channels[1:] if has_background else channels
    if not 0 < len(labels) <= _MOST_LABELS:
        raise data_format.refused(f"names {len(labels)} labels")
    return MonaiBundle(
        name=folder.name,
        network=network,
        before=before,
        modality=modality,
        labels=labels,
        has_background=has_background,
        window=window,
        overlap=overlap,
        sha256=sha256,
        notes=(_license_of(folder, metadata), *omissions),
    )


def _image_and_channels(data_format: Part) -> tuple[str, tuple[str, ...]]:
    """Read the modality of the one input image, and the names of the output channels."""
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
    labels = tuple(map(str, channels.value.values()))
    if not all(map(str.isprintable, labels)):
        raise channels.refused("has a label with several lines, or signs that are not printable")
    return name, labels


def _before(part: Part) -> Any:
    """Build the transforms before the network."""
    from monai import transforms

    if part.value is None:
        raise part.refused("is missing")
    image, steps = "image", []
    for step in part.steps():
        name = step.one_of((*_READING, *_PREPROCESSING))
        keys = [str(key.plain()) for key in step["keys"].members() if key.value is not None]
        if name == "LoadImage" and keys:
            images = [key for key in keys if key not in ("label", "labels", "mask", "seg")]
            if len(images) != 1:
                raise step["keys"].refused(f"reads {len(images)} images at once")
            image = images[0]
        is_of_labels = bool(keys) and image not in keys
        if name in _READING or is_of_labels:
            continue
        arguments = step.arguments() | {"keys": [IMAGE]}
        if name == "CropForeground":
            arguments["source_key"] = IMAGE
        if name == "Orientation":
            arguments.setdefault("labels", None)  # MONAI warns of its own default
        try:
            steps.append(getattr(transforms, f"{name}d")(**arguments))
        except (TypeError, ValueError) as cause:
            raise step.refused(f"cannot be built: {reason_of(cause)}") from cause
    return transforms.Compose(steps)


def _decision(part: Part, *, named: bool) -> tuple[bool, list[str]]:
    """Read whether one channel is the background (softmax); returns also notes on omissions.

    named: whether the labels name a background, which counts if the transforms do not decide.
    """
    notes, is_softmax, is_sigmoid = [], False, False
    for step in part.steps() if part.value else ():
        name = step.one_of(_DECIDING | _OMITTED | _NEUTRAL)
        if name in _OMITTED:
            notes.append(f"{name} is left out: labels are the network's")
        elif name in _DECIDING:
            is_softmax |= step["softmax"].flag() or step["argmax"].flag()
            if step["threshold"].number(0.5) != 0.5:
                raise step["threshold"].refused(f"is {step['threshold'].shown}, not 0.5")
            is_sigmoid |= step["sigmoid"].flag() or step["threshold"].value is not None
    if is_sigmoid and (is_softmax or named):
        raise part.refused("is sigmoid, but softmax too, or the labels include a background")
    return is_softmax or (named and not is_sigmoid), notes


def _window(part: Part) -> tuple[tuple[int, ...], float]:
    """Read window and overlap of the inferer; a window () means that volumes are run as a whole."""
    if part.value is None or part.one_of(_INFERERS) == "SimpleInferer":
        return (), 0.25
    overlap = part["overlap"].number(0.25)
    if not 0 <= overlap <= 0.9:
        raise part["overlap"].refused(f"is {overlap:g}, not 0 to 0.9")
    sides = [int(side.number()) for side in part["roi_size"].members()]
    sides = sides * 3 if len(sides) == 1 else sides
    # A side of -1 means that of the volume.
    return (tuple(sides) if len(sides) == 3 and min(sides) > 0 else ()), overlap


def _license_of(folder: Path, metadata: Part) -> str:
    """State the license of a bundle in one line."""
    stated = [str(metadata[name].value or "") for name in ("license", "copyright")]
    for name in _LICENSES:
        if (folder / name).is_file():
            with (folder / name).open(encoding="utf-8", errors="replace") as stream:
                stated.append(stream.readline(1000))
    text = "; ".join(dict.fromkeys(line.strip() for line in stated if line.strip()))
    clean = "".join(sign for sign in text if sign.isprintable())[:200]
    return f"its license: {clean or 'not stated'}"


def _read_weights(folder: Path) -> tuple[str, dict[str, Tensor]]:
    """Read the hash of the weights' file, and its tensors by name; code in it is not run."""
    from safetensors.torch import load_file

    path = next((folder / name for name in _WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise ModelError(
            f"{folder.name}: neither {' nor '.join(_WEIGHTS)} is inside",
            "Download the bundle with its large files: python -m monai.bundle download.",
        )
    try:
        if path.suffix == ".safetensors":
            return file_sha256(path), load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
        # In checkpoints of MONAI the weights are under "model".
        weights = dict(stored.get("model", stored))
        if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
            raise ValueError("no state dict")
    except Exception as cause:  # noqa: BLE001 - damaged bytes raise anything
        # PyTorch's own text is left out, of tracebacks too: it advises to run the code.
        raise ModelError(
            f"{path}: its weights cannot be read without running code ({type(cause).__name__})",
            "It is damaged, or holds more than weights. Save the weights alone where it was made: "
            "torch.save(network.state_dict(), …), or as safetensors.",
        ) from None
    return file_sha256(path), weights


def _network(folder: Path, part: Part) -> tuple[nn.Module, str]:
    """Build the network with its weights, frozen; returns also their hash."""
    from monai.networks import nets

    name, arguments = part.one_of(NETWORKS), part.arguments()
    if arguments.get("spatial_dims", 3) != 3:
        raise part.refused("takes slices; a network of volumes is needed")
    if name == "SwinUNETR":  # bundles state it, but newer versions of MONAI do not take it
        arguments.pop("img_size", None)
    sha256, weights = _read_weights(folder)
    try:
        network: nn.Module = getattr(nets, name)(**arguments)
        network.load_state_dict(weights)
    except Exception as cause:  # each network class raises its own for arguments that do not fit
        raise ModelError(
            f"{folder.name}: {name} cannot be built with its arguments and weights "
            f"({reason_of(cause)})",
            "Correct network_def in its configs/inference.json: channels, strides, normalization.",
        ) from cause
    return network.float().eval().requires_grad_(False), sha256


# --- configurations as data -----------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """A value of a configuration: plain data.

    Attributes:
        place: file and field, which messages name.
    """

    place: str
    value: Any

    def __getitem__(self, key: str) -> Part:
        value = self.value.get(key) if isinstance(self.value, Mapping) else None
        return Part(f"{self.place}.{key}", value)

    def members(self) -> list[Part]:
        """List the members; a single value counts as a list of one."""
        if not isinstance(self.value, list):
            return [self]
        return [Part(f"{self.place}[{n}]", value) for n, value in enumerate(self.value)]

    def refused(self, why: str) -> ModelError:
        """Make the error for a value that is not supported."""
        return ModelError(f"{self.place} {why}", _REMEDY)

    @property
    def shown(self) -> str:
        """The value as a message quotes it."""
        text = str(self.value)
        return repr(text if len(text) <= 60 else text[:57] + "…")

    @property
    def target(self) -> str:
        """Class name (_target_) without MONAI's package."""
        return re.sub(r"^monai\.(?:\w+\.)*", "", str(self["_target_"].value))

    def one_of(self, classes: Collection[str]) -> str:
        """Return the class name without the suffix for dictionaries; ModelError if not listed."""
        for ending in ("", "Dict", "d", "D"):
            if (name := self.target.removesuffix(ending)) in classes:
                return name
        if not isinstance(self.value, Mapping):
            self.plain()  # which raises another error for code
            raise self.refused("is not an object with _target_")
        target = self["_target_"]
        raise target.refused(f"is {target.shown}, not one of {', '.join(sorted(classes))}")

    def plain(self) -> Any:
        """Return the value; raises ModelError where it holds code, another file, or an object."""
        if isinstance(self.value, Mapping):
            if "_target_" in self.value:
                raise self.refused("is an object, not a plain value")
            return {key: self[key].plain() for key in self.value}
        if isinstance(self.value, list):
            return [member.plain() for member in self.members()]
        if isinstance(self.value, str) and self.value.strip()[:1] in ("$", "%"):
            raise self.refused(f"is code or another file, {self.shown}: neither run nor read")
        return self.value

    def arguments(self) -> dict[str, Any]:
        """Return the plain arguments of an object, without those of MONAI (_target_, _mode_)."""
        return {key: self[key].plain() for key in self.value if not key.startswith("_")}

    def number(self, default: float | None = None) -> float:
        """Return a finite number; the default if there is no value."""
        value: Any = default if self.value is None else self.plain()
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value):
            raise self.refused(f"is {self.shown}, not a number")
        return float(value)

    def flag(self) -> bool:
        """Test whether the value is true; as in MONAI, the text "True" counts too."""
        return str(self.plain()).lower() == "true"

    def steps(self) -> Iterator[Part]:
        """Yield each transform of lists and of (nested) Compose, except disabled ones."""
        if isinstance(self.value, list):
            for member in self.members():
                yield from member.steps()
        elif not self["_disabled_"].flag():
            yield from self["transforms"].steps() if self.target == "Compose" else [self]

    def field(self, *names: str) -> Part:
        """Return the first of these fields that the file has, with references resolved.

        The part is empty if the file has none. Raises ModelError for an invalid reference.
        """
        name = next((name for name in names if name in self.value), names[0])
        part = Part(f"{self.place}: {name}", self.value.get(name))
        try:
            return Part(part.place, _resolved(part.value, self.value, iter(range(_MOST_VALUES))))
        except (LookupError, ValueError) as cause:
            raise part.refused(f"cannot be resolved: {cause}"[:200]) from cause
        except RecursionError as cause:
            raise part.refused("cannot be resolved: a reference is circular") from cause


def read_config(folder: Path, member: str) -> Part:
    """Read a configuration file of a bundle; raises ModelError where it cannot be read."""
    try:
        fields = read_json(folder / member)
        if not isinstance(fields, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as cause:
        raise ModelError(
            f"{folder}: {member} cannot be read ({cause})",
            "Give the folder of a MONAI bundle, unpacked, with JSON and not YAML: "
            "docs/segmenters.md shows one.",
        ) from cause
    return Part(member, fields)


def _resolved(value: Any, fields: Mapping[str, Any], allowance: Iterator[int]) -> Any:
    """Copy a value, with references ("@field::key") replaced by what they name."""
    if next(allowance, None) is None:
        raise ValueError("it is too large")
    if isinstance(value, Mapping):
        return {name: _resolved(entry, fields, allowance) for name, entry in value.items()}
    if isinstance(value, list):
        return [_resolved(entry, fields, allowance) for entry in value]
    if not (isinstance(value, str) and value.startswith("@")):
        return value
    target: Any = fields
    try:
        for key in re.split("::|#", value[1:]):
            target = target[int(key) if isinstance(target, list) else key]
    except (LookupError, TypeError, ValueError) as cause:
        raise LookupError(f"{value} names nothing") from cause
    return _resolved(target, fields, allowance)

"""Reads what a MONAI bundle states about its segmenter, as data: nothing in it is ever run.

Its configurations could name any class and contain Python. Here names are looked up in lists of
what is understood, references to other fields are followed, and the rest is refused with its place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import gcd, prod
from typing import Any

from MedEnhanceLib.errors import ConfigError, ModelError
from MedEnhanceLib.gradprom.segmenter_spec import NETWORKS, Intensity, NetworkSpec, SegmenterSpec

_OWN_SPEC = (
    "State what the segmenter expects yourself: in a JSON file beside the bundle, named as the "
    "bundle with .json (fields of SegmenterSpec), or with spec= in Python."
)
#: Formats of an output that is an image.
IMAGES = ("image", "magnitude", "hounsfield")
#: Longest chain of references, deepest nesting and most values of a field that are followed.
_DEPTH, _MOST_VALUES = 32, 10_000
#: Lists and Compose of transforms in each other: two for one Compose.
_NESTED = 6
_REFERENCE = re.compile(r"@[\w-]+(?:(?:#|::)[\w-]+)*")
#: The endings of MONAI's transforms of dictionaries.
_ENDINGS = ("Dict", "d", "D")
#: Arguments of any transform that change no value of the image.
_INDIFFERENT = {
    "_target_", "_desc_", "keys", "allow_missing_keys", "lazy", "device", "track_meta",
    "data_type", "wrap_sequence", "image_only", "reader", "ensure_channel_first", "simple_keys",
    "meta_keys", "meta_key_postfix", "meta_dict_key", "overwriting", "strict_check",
}  # fmt: skip
_FLOAT = re.compile(r"\$?(?:(?:torch|numpy|np)\.)?float(?:16|32|64)?")
#: What happens after the network, and cannot change which voxels belong to a label.
_AFTERWARDS = {"Invert", "SaveImage", "EnsureType", "FromMetaTensor", "ToTensor", "CopyItems"}
#: Sides that a network's input has to be a multiple of, where it is the same for all sizes.
_MULTIPLES = {"BasicUNet": 16, "BasicUNetPlusPlus": 16, "VNet": 16, "SwinUNETR": 32}


@dataclass(frozen=True)
class Config:
    """One configuration file: its name, for messages, and its fields."""

    file: str
    fields: Mapping[str, Any]

    def value(self, given: Any, place: str) -> Any:
        """A field with all references in it followed; raises ModelError for Python in it."""
        return self._plain(given, place, 0, iter(range(_MOST_VALUES)))

    def _plain(self, given: Any, place: str, depth: int, left: Iterator[int]) -> Any:
        if depth > _DEPTH or next(left, None) is None:
            raise self.refused(place, "refers to itself, or is too large")
        given = self.followed(given, place)
        if isinstance(given, Mapping):
            return {
                str(name): self._plain(one, f"{place}.{name}", depth + 1, left)
                for name, one in given.items()
            }
        if isinstance(given, list):
            return [
                self._plain(one, f"{place}[{index}]", depth + 1, left)
                for index, one in enumerate(given)
            ]
        return given

    def followed(self, given: Any, place: str) -> Any:
        """What a reference leads to, as it stands there; other values are returned as they are."""
        for _ in range(_DEPTH):
            if not isinstance(given, str) or given[:1] not in ("$", "%", "@"):
                return given
            if given.startswith("$"):
                raise self.refused(place, f"is Python code, {_short(given)}, which is not run")
            if not _REFERENCE.fullmatch(given):
                raise self.refused(place, f"is {_short(given)}, which refers to no field here")
            given = self._target(given, place)
        raise self.refused(place, "refers to itself, or is too large")

    def _target(self, reference: str, place: str) -> Any:
        found: Any = self.fields
        for part in re.split("#|::", reference[1:]):
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise self.refused(place, f"refers to {reference}, which is not there")
        return found

    def refused(self, place: str, why: str) -> ModelError:
        """The error for a field that is not understood."""
        return ModelError(f"{self.file}: {place} {why}", _OWN_SPEC)

    def first_of(self, *names: str) -> tuple[str, Any]:
        """The first of these fields that is there, and its name; ("", None) for none."""
        name = next((name for name in names if name in self.fields), "")
        return name, self.fields.get(name)


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")


def read_network(config: Config) -> NetworkSpec:
    """The network class and its arguments; raises ModelError for a class that is not listed."""
    name, given = config.first_of("network_def", "network", "net", "model")
    if not isinstance(given, Mapping) or "_target_" not in given:
        place = name or "network_def"
        if isinstance(given, str):
            config.value(given, place)
        raise config.refused(place, "states no network class (_target_)")
    target = str(config.value(given["_target_"], f"{name}._target_"))
    short = re.sub(r"monai\.networks\.nets\.(?:\w+\.)?", "", target)
    known = {one.lower(): one for one in NETWORKS}
    if short.lower() not in known:
        raise config.refused(
            f"{name}._target_", f"is {target!r}, which is none of {', '.join(NETWORKS)}"
        )
    arguments = {
        key: config.value(one, f"{name}.{key}")
        for key, one in given.items()
        if not key.startswith("_")
    }
    for key, one in arguments.items():
        if "_target_" in str(one):
            raise config.refused(f"{name}.{key}", "is an object of some class: no plain value")
    return NetworkSpec.from_json({"name": known[short.lower()], "arguments": arguments})


def read_spec(
    metadata: Config, inference: Config, network: NetworkSpec | None, *, restores: bool = False
) -> tuple[SegmenterSpec, tuple[str, ...]]:
    """What a bundle states, and notes on what is left out.

    Args:
        metadata: configs/metadata.json.
        inference: configs/inference.json.
        network: of `read_network`; None where the file of the network contains it.
        restores: whether it shall give an image instead of labels: one channel, "image".

    Raises:
        ModelError: something is not understood; the message names file and field.
    """
    facts = _Facts.read(metadata, restores=restores)
    dimensions = facts.dimensions
    if network is not None:
        dimensions = int(network.arguments.get("spatial_dims", dimensions))
    steps = _Preprocessing(inference)
    name, given = inference.first_of("preprocessing", "pre_transforms", "transforms")
    if given is None:
        raise inference.refused("preprocessing", "is missing")
    for place, step in _transforms(inference, given, name):
        steps.take(place, step)
    steps.finish()
    after = _Postprocessing(inference, restores=restores)
    name, given = inference.first_of("postprocessing", "post_transforms")
    for place, step in _transforms(inference, given, name):
        after.take(place, step)
    activation = after.activation or ("softmax" if facts.has_background else "sigmoid")
    if activation == "sigmoid" and facts.has_background:
        raise metadata.refused(
            f"{facts.output_place}.channel_def", "has a background beside independent labels"
        )
    labels = facts.channels[1:] if activation == "softmax" else facts.channels
    window, overlap, slices = _windows(inference, dimensions)
    orientation, spacing = steps.orientation, steps.spacing
    if dimensions == 2:
        # Here the first axis goes from slice to slice; MONAI's SliceInferer names one, else it
        # is the last of the file.
        if steps.intensity.kind in ("z-score", "scale", "percentiles"):
            steps.notes.append("intensities are measured on the volume, not slice by slice")
        order = [slices, *(axis for axis in range(3) if axis != slices)]
        orientation = "".join(orientation[axis] for axis in order)
        spacing = tuple(spacing[axis] for axis in order) if spacing else ()
    multiple = facts.multiple or (multiple_of(network) if network else 1)
    fixed = network is not None and network.name == "UNETR"
    if fixed and network is not None:
        window = window or _sides(network.arguments.get("img_size", ()), dimensions)
    fields = {
        "modality": facts.modality,
        "labels": list(labels),
        "dimensions": dimensions,
        "orientation": orientation,
        "spacing": list(spacing),
        "intensity": steps.intensity,
        "activation": activation,
        "multiple": gcd(multiple, *window),
        "window": list(window),
        "fixed": fixed,
        "overlap": overlap,
        "network": network,
    }
    try:
        return SegmenterSpec.from_json(fields), (*steps.notes, *after.notes)
    except ConfigError as error:
        raise ModelError(f"{inference.file}: {error.message}", _OWN_SPEC) from error


@dataclass(frozen=True)
class _Facts:
    """What metadata.json states about input and output of the network."""

    modality: str
    dimensions: int
    multiple: int
    channels: tuple[str, ...]
    output_place: str

    @classmethod
    def read(cls, metadata: Config, *, restores: bool) -> _Facts:
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
            given = image.get("channel_def")
            images = ", ".join(map(str, given.values())) if isinstance(given, Mapping) else ""
            raise metadata.refused(
                f"{place}.inputs.{name}.num_channels",
                f"is {image['num_channels']}{f' ({images})' if images else ''}; "
                "a segmenter of one image is needed",
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
        if restores:
            named: Mapping[str, Any] = {"0": _restored_image(metadata, result, there)}
        else:
            named = _mapping(metadata, result.get("channel_def"), f"{there}.channel_def")
        return cls(
            modality,
            len(shape),
            max((int(one.group(1)) for one in multiples if one), default=0),
            tuple(str(one) for one in named.values()),
            there,
        )

    @property
    def has_background(self) -> bool:
        """Whether the first channel is the background."""
        return self.channels[0].strip().lower() in ("background", "bg")


def _restored_image(metadata: Config, result: Mapping[str, Any], there: str) -> str:
    """The name of the one channel of a restoration; raises ModelError for any other output."""
    kind = str(result.get("format", "image")).lower()
    if kind not in IMAGES:
        raise metadata.refused(
            f"{there}.format",
            f"is {kind!r}, no image (segment runs what gives labels)",
        )
    if result.get("num_channels", 1) != 1:
        raise metadata.refused(f"{there}.num_channels", f"is {result['num_channels']}, not 1")
    return "image"


def _mapping(config: Config, given: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(given, Mapping) or not given:
        raise config.refused(place, "is missing")
    return given


def _transforms(
    config: Config, given: Any, place: str, depth: int = 0
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each transform of a (nested) Compose with its place; those that are off are left out."""
    if given is None:
        return
    if depth > _NESTED:
        raise config.refused(place, "refers to itself, or is nested too deeply")
    # Not all that is in it: arguments that do not matter may be Python.
    given = config.followed(given, place)
    if isinstance(given, list):
        for index, one in enumerate(given):
            yield from _transforms(config, one, f"{place}[{index}]", depth + 1)
        return
    if not isinstance(given, Mapping) or "_target_" not in given:
        raise config.refused(place, "is no transform (an object with _target_)")
    if config.value(given.get("_disabled_", False), f"{place}._disabled_") is True:
        return
    if _plain_name(given) == "Compose":
        yield from _transforms(
            config, given.get("transforms", []), f"{place}.transforms", depth + 1
        )
        return
    yield place, given


def _plain_name(step: Mapping[str, Any]) -> str:
    """The class of a transform without its package, where that is MONAI."""
    return re.sub(r"^monai\.transforms\.(?:\w+\.)*", "", str(step["_target_"]))


def _found(name: str, known: Mapping[str, Any] | set[str]) -> str:
    """The name in `known`, without the ending of transforms of dictionaries; "" for none."""
    stems = [name, *(name.removesuffix(ending) for ending in _ENDINGS if name.endswith(ending))]
    return next((stem for stem in stems if stem in known), "")


class _Preprocessing:
    """Orientation, spacing and intensity, collected from the transforms before the network."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.orientation, self.spacing = "IJK", tuple[float, ...]()
        self.intensity = Intensity(kind="none")
        self.notes: list[str] = []
        self._image = ""
        self._crop = ""
        self._known: dict[str, Callable[[str, Mapping[str, Any]], None]] = {
            "LoadImage": self._load,
            "EnsureChannelFirst": self._channel,
            "AddChannel": self._nothing,
            "EnsureType": self._type,
            "CastToType": self._type,
            "ToTensor": self._type,
            "ToDevice": self._nothing,
            "Orientation": self._orientation,
            "Spacing": self._spacing,
            "ScaleIntensityRange": self._window,
            "ScaleIntensityRangePercentiles": self._percentiles,
            "ScaleIntensity": self._scale,
            "NormalizeIntensity": self._normalize,
            "CropForeground": self._foreground,
            "SpatialPad": self._pad,
            "DivisiblePad": self._pad,
        }

    def take(self, place: str, step: Mapping[str, Any]) -> None:
        """Add one transform; raises ModelError for one that is not understood."""
        target = _plain_name(step)
        name = _found(target, self._known)
        if not name:
            raise self.config.refused(
                f"{place}._target_",
                f"is {step['_target_']!r}, which is none of {', '.join(self._known)}",
            )
        keys = self.config.value(step.get("keys", []), f"{place}.keys")
        keys = [keys] if isinstance(keys, str) else list(keys)
        if name == "LoadImage":
            self._image = self._one_image(place, keys)
        elif keys and self._image and self._image not in keys:
            return  # of the labels alone
        self._known[name](place, step)

    def finish(self) -> None:
        """Check what depends on all transforms."""
        kind, is_masked = self.intensity.kind, self.intensity.nonzero
        if not self._crop:
            return
        if kind in ("window", "none") or (kind == "z-score" and is_masked):
            self.notes.append("cropping to the foreground is left out: it changes no intensity")
            return
        raise self.config.refused(
            self._crop, f"crops before intensities are measured ({kind}), which changes them"
        )

    def _one_image(self, place: str, keys: list[str]) -> str:
        images = [key for key in keys if key not in ("label", "labels", "mask", "seg")]
        if len(images) > 1:
            raise self.config.refused(
                f"{place}.keys", f"reads {len(images)} images ({', '.join(images)}) at once"
            )
        return images[0] if images else "image"

    def _arguments(self, place: str, step: Mapping[str, Any], *known: str) -> dict[str, Any]:
        """The arguments that matter; raises ModelError for one that is not known."""
        for key in step:
            if key not in known and key not in _INDIFFERENT and key != "_disabled_":
                raise self.config.refused(f"{place}.{key}", "is an argument that is not understood")
        return {key: self.config.value(step[key], f"{place}.{key}") for key in known if key in step}

    def _number(self, place: str, given: Any) -> float:
        if isinstance(given, bool) or not isinstance(given, int | float):
            raise self.config.refused(place, f"is {given!r}, no number")
        return float(given)

    def _flag(self, place: str, given: Any) -> bool:
        if isinstance(given, str) and given in ("True", "False"):
            return given == "True"
        if not isinstance(given, bool):
            raise self.config.refused(place, f"is {given!r}, neither true nor false")
        return given

    def _nothing(self, place: str, step: Mapping[str, Any]) -> None:
        self._arguments(place, step)

    def _load(self, place: str, step: Mapping[str, Any]) -> None:
        given = {key: one for key, one in step.items() if key != "dtype"}
        self._arguments(place, given)
        self._type(place, step)

    def _channel(self, place: str, step: Mapping[str, Any]) -> None:
        given = self._arguments(place, step, "channel_dim")
        if given.get("channel_dim") not in (None, "no_channel"):
            raise self.config.refused(f"{place}.channel_dim", "is of images with several channels")

    def _type(self, place: str, step: Mapping[str, Any]) -> None:
        # A type is compared as text: "$torch.float32" is not run.
        given = step.get("dtype")
        if given is not None and not _FLOAT.fullmatch(str(given)):
            raise self.config.refused(f"{place}.dtype", f"is {_short(str(given))}, no floats")
        self._arguments(place, {key: one for key, one in step.items() if key != "dtype"})

    def _orientation(self, place: str, step: Mapping[str, Any]) -> None:
        given = self._arguments(place, step, "axcodes", "as_closest_canonical", "labels")
        codes = "RAS" if given.get("as_closest_canonical") is True else given.get("axcodes")
        if given.get("labels") not in (None, [["L", "R"], ["P", "A"], ["I", "S"]]):
            raise self.config.refused(f"{place}.labels", "renames the axes")
        if len(set(self.spacing)) > 1:
            raise self.config.refused(place, "comes after a spacing that differs between axes")
        self.orientation = "".join(codes) if isinstance(codes, list) else str(codes)

    def _spacing(self, place: str, step: Mapping[str, Any]) -> None:
        ignored = ("mode", "padding_mode", "align_corners", "dtype", "recompute_affine",
                   "scale_extent", "min_pixdim", "max_pixdim")  # fmt: skip
        given = {key: one for key, one in step.items() if key not in ignored}
        if step.get("min_pixdim") is not None or step.get("max_pixdim") is not None:
            raise self.config.refused(place, "keeps some spacings (min_pixdim, max_pixdim)")
        values = self._arguments(place, given, "pixdim", "diagonal")
        if values.get("diagonal") not in (None, False):
            raise self.config.refused(f"{place}.diagonal", "turns oblique volumes")
        sides = values.get("pixdim")
        sides = list(sides) if isinstance(sides, list) else [sides]
        numbers = [max(0.0, self._number(f"{place}.pixdim", one)) for one in sides[:3]]
        if not numbers:
            raise self.config.refused(f"{place}.pixdim", "is empty")
        self.spacing = (*numbers, *[numbers[-1]] * (3 - len(numbers)))

    def _window(self, place: str, step: Mapping[str, Any]) -> None:
        given = self._arguments(place, step, "a_min", "a_max", "b_min", "b_max", "clip", "dtype")
        low, high = (self._number(f"{place}.{key}", given.get(key)) for key in ("a_min", "a_max"))
        self._to(place, "window", given, low, high)

    def _percentiles(self, place: str, step: Mapping[str, Any]) -> None:
        names = ("lower", "upper", "b_min", "b_max", "clip", "relative", "channel_wise", "dtype")
        given = self._arguments(place, step, *names)
        if given.get("relative") not in (None, False):
            raise self.config.refused(f"{place}.relative", "is not understood")
        low, high = (self._number(f"{place}.{key}", given.get(key)) for key in ("lower", "upper"))
        self._to(place, "percentiles", given, low, high)

    def _to(self, place: str, kind: str, given: Mapping[str, Any], low: float, high: float) -> None:
        """What two ends become: b_min and b_max, 0 and 1 where they are not given."""
        ends = [given.get(key) for key in ("b_min", "b_max")]
        bottom, top = (0.0, 1.0) if None in ends else [self._number(place, one) for one in ends]
        clip = self._flag(f"{place}.clip", given.get("clip", False))
        fields = {"low": low, "high": high, "to_low": bottom, "to_high": top, "clip": clip}
        self._set(place, {"kind": kind, **fields})

    def _scale(self, place: str, step: Mapping[str, Any]) -> None:
        given = self._arguments(place, step, "minv", "maxv", "factor", "channel_wise", "dtype")
        if given.get("factor") is not None:
            raise self.config.refused(f"{place}.factor", "is not understood; minv and maxv are")
        low, high = (given.get(key, default) for key, default in (("minv", 0.0), ("maxv", 1.0)))
        ends = {"to_low": self._number(f"{place}.minv", low),
                "to_high": self._number(f"{place}.maxv", high)}  # fmt: skip
        self._set(place, {"kind": "scale", **ends})

    def _normalize(self, place: str, step: Mapping[str, Any]) -> None:
        names = ("subtrahend", "divisor", "nonzero", "channel_wise", "dtype")
        given = self._arguments(place, step, *names)
        nonzero = self._flag(f"{place}.nonzero", given.get("nonzero", False))
        first, second = given.get("subtrahend"), given.get("divisor")
        if first is None and second is None:
            self._set(place, {"kind": "z-score", "nonzero": nonzero})
            return
        if nonzero:
            raise self.config.refused(f"{place}.nonzero", "is not understood with a subtrahend")
        shift = self._number(f"{place}.subtrahend", first)
        divisor = self._number(f"{place}.divisor", second)
        if not divisor > 0:
            raise self.config.refused(f"{place}.divisor", f"is {divisor:g}")
        before = self.intensity
        if before.kind == "none":
            self.intensity = Intensity(kind="window", low=shift, high=shift + divisor)
        elif before.kind in ("window", "percentiles", "scale"):
            low, high = ((end - shift) / divisor for end in (before.to_low, before.to_high))
            self.intensity = replace(before, to_low=low, to_high=high)
        else:
            raise self.config.refused(place, f"follows another scale ({before.kind})")

    def _set(self, place: str, fields: dict[str, Any]) -> None:
        """A scale measured after one without clipping is the same as if it came alone."""
        before = self.intensity
        is_measured = fields["kind"] != "window"
        if before.kind != "none" and (before.clip or not is_measured):
            raise self.config.refused(place, f"follows another scale ({before.kind})")
        if before.nonzero:
            self.notes.append("zeros are scaled as all other values: they are no case of their own")
        try:
            self.intensity = Intensity.from_json(fields)
        except ConfigError as error:
            raise self.config.refused(place, f"cannot be used: {error.message}") from error

    def _foreground(self, place: str, step: Mapping[str, Any]) -> None:
        self._crop = place

    def _pad(self, place: str, step: Mapping[str, Any]) -> None:
        self.notes.append(f"{_plain_name(step)} is left out: sides are filled up as needed")


@dataclass
class _Postprocessing:
    """What the transforms after the network say about it."""

    config: Config
    restores: bool = False
    activation: str = ""
    notes: list[str] = field(default_factory=list)

    def take(self, place: str, step: Mapping[str, Any]) -> None:
        """Add one transform; raises ModelError for one that could change labels."""
        name = _plain_name(step)
        if _found(name, _AFTERWARDS):
            return
        if self.restores:
            raise self.config.refused(
                f"{place}._target_",
                f"is {step['_target_']!r}, which a restoration's intensities are not brought back "
                "through",
            )
        if _found(name, {"KeepLargestConnectedComponent", "FillHoles", "RemoveSmallObjects"}):
            self.notes.append(f"{name} is left out: labels are the network's")
        elif _found(name, {"Activations"}):
            flags = {key: step.get(key, False) for key in ("softmax", "sigmoid")}
            chosen = [
                key
                for key, one in flags.items()
                if self.config.value(one, f"{place}.{key}") is True
            ]
            if len(chosen) != 1:
                raise self.config.refused(place, "is neither softmax nor sigmoid")
            self._agree(place, chosen[0])
        elif _found(name, {"AsDiscrete"}):
            if self.config.value(step.get("argmax", False), f"{place}.argmax") is True:
                self._agree(place, "softmax")
            elif "threshold" in step:
                threshold = self.config.value(step["threshold"], f"{place}.threshold")
                if threshold != 0.5:
                    raise self.config.refused(f"{place}.threshold", f"is {threshold!r}, not 0.5")
                self._agree(place, "sigmoid")
        else:
            raise self.config.refused(
                f"{place}._target_",
                f"is {step['_target_']!r}, which could change what the labels mean",
            )

    def _agree(self, place: str, activation: str) -> None:
        if self.activation not in ("", activation):
            raise self.config.refused(place, f"is {activation} after {self.activation}")
        self.activation = activation


def _windows(config: Config, dimensions: int) -> tuple[tuple[int, ...], float, int]:
    """Window, overlap, and the axis across slices, of the inferer."""
    name, given = config.first_of("inferer")
    last = 2
    if given is None:
        return (), 0.25, last
    if not isinstance(given, Mapping):
        raise config.refused(name, "is no object with _target_")
    target = re.sub(r"^monai\.inferers\.(?:\w+\.)*", "", str(given.get("_target_")))
    if target == "SimpleInferer":
        return (), 0.25, last
    if target not in ("SlidingWindowInferer", "SliceInferer"):
        raise config.refused(
            f"{name}._target_",
            f"is {target!r}; SlidingWindowInferer, SliceInferer and SimpleInferer are understood",
        )
    roi = config.value(given.get("roi_size", ()), f"{name}.roi_size")
    overlap = config.value(given.get("overlap", 0.25), f"{name}.overlap")
    axis = config.value(given.get("spatial_dim", 0), f"{name}.spatial_dim")
    if isinstance(overlap, bool) or not isinstance(overlap, int | float) or axis not in (0, 1, 2):
        raise config.refused(f"{name}.overlap", f"is {overlap!r} (spatial_dim: {axis!r})")
    slices = axis if target == "SliceInferer" else last
    return _sides(roi, dimensions), float(overlap), slices


def _sides(given: Any, dimensions: int) -> tuple[int, ...]:
    """A window of whole numbers; () where a side is left to the volume."""
    sides = [given] * dimensions if isinstance(given, int) else list(given or ())
    is_plain = len(sides) == dimensions and all(isinstance(x, int) and x > 0 for x in sides)
    return tuple(sides) if is_plain else ()


def multiple_of(network: NetworkSpec) -> int:
    """What the sides of a network's input have to be multiples of, from its arguments."""
    name, given = network.name, network.arguments
    if name in ("UNet", "AttentionUnet", "DynUNet"):
        strides = given.get("strides", ())
        if name == "UNet":  # it leaves out what is more than its stages
            strides = strides[: len(given.get("channels", ())) - 1]
        return prod(max(one) if isinstance(one, list) else int(one) for one in strides)
    if name in ("SegResNet", "SegResNetDS"):
        return int(2 ** (len(given.get("blocks_down", (1,) * 4)) - 1))
    if name == "UNETR":
        return 16
    return 32 if name == "FlexibleUNet" else _MULTIPLES.get(name, 1)

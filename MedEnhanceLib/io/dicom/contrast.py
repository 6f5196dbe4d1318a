"""What slices at one place may differ in, and which of it makes them images of different kinds."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from MedEnhanceLib.io.dicom.slices import Slice, Slices

#: Relative: echo and inversion times, and flip angles, that differ by less are the same.
_SAME_VALUE = 0.01
#: So many places or more, each with a value of its own, are counted by it: it tells no kind.
_FEWEST_COUNTED = 4
#: Words of ImageType that tell what is shown; the others tell how it came about.
_SHOWN = frozenset((
    "M", "P", "R", "I", "MAGNITUDE", "PHASE", "REAL", "IMAGINARY", "MIXED", "PHASE MAP",
    "M_FFE", "P_FFE", "R_FFE", "I_FFE", "M_SE", "P_SE", "R_SE", "I_SE", "M_IR", "P_IR", "R_IR",
    "I_IR", "WATER", "FAT", "W", "F", "IN_PHASE", "OUT_PHASE", "OPP_PHASE", "IP", "OP",
    "ADC", "FA", "TRACEW", "T1", "T2", "T2_STAR", "R1", "R2", "R2_STAR", "T1 MAP", "T2 MAP",
    "T2 STAR MAP", "R2 MAP", "R2 STAR MAP", "ADC MAP", "T1_MAP", "T2_MAP", "ADC_MAP", "MIP",
    "MINIP",
))  # fmt: skip
#: Of a diffusion gradient, as `multiframe` tells it.
_DIRECTION = "direction"
#: Settings of which a measurement takes several on purpose.
_MEASURED = ("inversion time", "flip angle")
_SERIES_OF = (*_MEASURED, _DIRECTION)
#: What an axis of frames is called that follow each other in time.
TIME = "time"


@dataclass(frozen=True)
class Attribute:
    """Something that frames or parts may differ in, and what a value of it is called.

    makes_frames: whether slices that differ in it alone are frames of one volume.
    is_contrast: whether it makes another kind of image: then no frame holds two values of it.
    is_moment: whether it tells which phase of a cycle, or which time: then neither does one.
    is_strict: whether a value of each slice's own is a difference, too, and no noise.
    may_vary: whether frames that follow each other in something else may differ in it: a
        diffusion scan is one sequence of directions and b-values.
    """

    axis: str
    value: Callable[[Slice], str]
    called: Callable[[str], str]
    makes_frames: bool = True
    is_contrast: bool = False
    is_moment: bool = False
    is_strict: bool = False
    may_vary: bool = False

    def mixes(self, slices: Slices, groups: Mapping[str, Slices]) -> bool:
        """Whether slices of one stack are of several kinds."""
        if self.is_strict:
            return len(groups) > 1
        return len(groups.keys() - {""}) > 1 and len(groups) < len(slices)


def _shown(one: Slice) -> str:
    return "\\".join(word for word in one.image_type[2:] if word in _SHOWN)


def _number(field: str) -> Callable[[Slice], str]:
    def value(one: Slice) -> str:
        found = getattr(one, field)
        return "" if found is None else f"{found:g}"

    return value


IMAGE_TYPE = Attribute(
    "image type", lambda one: "\\".join(one.image_type), lambda value: value, makes_frames=False
)
SHOWN = Attribute(
    "image type", _shown, lambda value: value or "no such word",
    makes_frames=False, is_contrast=True, is_strict=True,
)  # fmt: skip
_STACK = Attribute(
    "stack", lambda one: one.stack, lambda v: f"stack {v}".strip(),
    makes_frames=False, is_contrast=True,
)  # fmt: skip
B_VALUE = Attribute(
    "b-value", lambda one: one.b_value, lambda v: f"b={v}" if v else "no b-value",
    is_contrast=True, is_strict=True, may_vary=True,
)  # fmt: skip
_ECHO = Attribute("echo", lambda one: one.echo, lambda v: f"echo {v}".strip(), is_contrast=True)
_MOMENTS = (
    Attribute(TIME, _number("temporal_index"), lambda v: f"phase {v}".strip(), is_moment=True),
    Attribute(TIME, _number("trigger_ms"), lambda v: f"phase {v} ms"),
    Attribute("cardiac phase", _number("heart_percent"), lambda v: f"phase {v} %", is_moment=True),
    Attribute(
        "breathing phase", _number("breath_percent"), lambda v: f"breathing {v} %", is_moment=True
    ),
)
ACQUISITION = Attribute(
    "acquisition", lambda one: one.acquisition, lambda v: f"acquisition {v}".strip()
)


def attributes_of(slices: Slices) -> tuple[Attribute, ...]:
    """Those that these slices differ in, in the order in which they are asked."""
    names = dict.fromkeys(name for one in slices for name, _ in one.settings)
    settings = [_setting(name) for name in names]
    apart = [one for one in settings if not one.makes_frames]
    series = [one for one in settings if one.makes_frames]
    everything = (
        IMAGE_TYPE, SHOWN, _STACK, *apart, B_VALUE, _ECHO, *series, *_MOMENTS, ACQUISITION
    )  # fmt: skip
    return tuple(one for one in everything if len({one.value(each) for each in slices}) > 1)


def _setting(name: str) -> Attribute:
    return Attribute(
        name,
        lambda one: dict(one.settings).get(name, ""),
        lambda value: f"{name} {value or 'not told'}",
        makes_frames=name in _SERIES_OF,
        is_contrast=True,
        may_vary=name == _DIRECTION,
    )


def with_kinds(slices: Slices) -> tuple[Slice, ...]:
    """The slices with nearly equal times as one, and EchoTime as `echo` where that must tell."""
    by_time = len({one.echo for one in slices}) == 1
    echoes = _merged({one.echo_ms for one in slices}) if by_time else {}
    series = [pair for one in slices for pair in one.settings if pair[0] in _MEASURED]
    merged = {name: _merged({v for n, v in series if n == name}) for name in _MEASURED}
    several = len(set(echoes.values())) > 1
    if not several and all(new == old for each in merged.values() for old, new in each.items()):
        return tuple(slices)
    return tuple(
        replace(
            one,
            echo=f"{echoes[one.echo_ms]} ms" if several and one.echo_ms else one.echo,
            settings=tuple((n, merged[n][v] if n in merged else v) for n, v in one.settings),
        )
        for one in slices
    )


def _merged(told: Iterable[str]) -> dict[str, str]:
    """Each value → the lowest of those that are nearly equal."""
    merged = {value: value for value in told if not _is_number(value)}
    first = np.inf
    for number, value in sorted((float(value), value) for value in told if _is_number(value)):
        if not 0 <= number - first <= _SAME_VALUE * abs(first):
            first = number
        merged[value] = f"{first:g}"
    return merged


def _is_number(told: str) -> bool:
    try:
        return bool(np.isfinite(float(told)))
    except ValueError:
        return False


def groups_by(slices: Slices, attribute: Attribute) -> dict[str, tuple[Slice, ...]]:
    """The slices of each value: without one first, then numbers in their order, then the rest."""
    groups: dict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        groups[attribute.value(one)].append(one)
    return {value: tuple(groups[value]) for value in sorted(groups, key=_natural)}


def _natural(value: str) -> tuple[float, str]:
    found = re.match(r"-?\d+(\.\d+)?", value)
    return (float(found[0]) if found else np.inf if value else -np.inf, value)


def named_groups(
    groups: Mapping[str, tuple[Slice, ...]], attribute: Attribute
) -> list[tuple[str, tuple[Slice, ...]]]:
    """Each group with what sets it apart."""
    if attribute is not IMAGE_TYPE:
        return [(attribute.called(value), group) for value, group in groups.items()]
    shared = set.intersection(*(set(value.split("\\")) for value in groups))
    return [
        ("\\".join(word for word in value.split("\\") if word not in shared) or value, group)
        for value, group in groups.items()
    ]


def are_of_one_kind(
    frames: Sequence[Slices], axis: Attribute | None, attributes: Sequence[Attribute]
) -> bool:
    """Whether no frame mixes kinds, and all show the same thing but for what `axis` tells.

    frames: of slices in the order of their places. What ImageType says first, original or
    derived, primary or secondary, makes no difference.
    """
    if any(len({one.image_type[2:] for one in here}) > 1 for here in zip(*frames, strict=True)):
        return False
    for attribute in attributes:
        values = [{attribute.value(one) for one in frame} for frame in frames]
        if attribute is axis or not (attribute.is_contrast or attribute.is_moment):
            continue
        if _counts(attribute, frames):
            continue
        if any(len(value) > 1 for value in values):
            return False
        if attribute.is_contrast and not attribute.may_vary and len(set.union(*values)) > 1:
            return False
    return True


def _counts(attribute: Attribute, frames: Sequence[Slices]) -> bool:
    """Whether it only counts: slices, the same way in each frame, or all images of the series."""
    rows = [[attribute.value(one) for one in frame] for frame in frames]
    if attribute.is_strict or len(rows[0]) < _FEWEST_COUNTED:
        return False
    everything = [value for row in rows for value in row]
    counts_slices = len(set(rows[0])) == len(rows[0]) and all(row == rows[0] for row in rows)
    return counts_slices or len(set(everything)) == len(everything)

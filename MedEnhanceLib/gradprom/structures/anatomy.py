"""Structures and tissues of label maps: which values are learned, and how scans show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from MedEnhanceLib.core.arrays import Bytes, Doubles
from MedEnhanceLib.core.labels import SIDE, Label
from MedEnhanceLib.core.options import Options, config_from_json, option
from MedEnhanceLib.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

#: Most label values, tissues and classes: painted maps are bytes, whose highest bit is the side.
_MOST = 120
AIR = "air"
#: Painted value of voxels of which no label says anything; a tissue of air besides.
UNLABELED = 128


@dataclass(frozen=True, kw_only=True)
class Tissue(Options):
    """Label values that scans show alike.

    Attributes:
        name: unique.
        values: of the label maps.
        means: intensity in each known contrast, 0 (air) to about 1; none: random alone.
        like: tissue that a random contrast may give the same intensity.
        like_share: how often.
        outside: name of the class that becomes background in results, such as "skull"; "" where
            the values are structures'.
        enlarges: whether its size varies much between patients, as that of ventricles.
        lesions: whether lesions lie within it.
    """

    name: str
    values: tuple[int, ...] = option((), help="of the label maps", low=0, high=65535)
    means: tuple[float, ...] = option((), help="intensity in each contrast", low=0, high=2)
    like: str = option("", help="tissue of a similar intensity")
    like_share: float = option(0.0, help="how often they are equal", low=0, high=1)
    outside: str = option("", help="class that becomes background")
    enlarges: bool = option(False, help="whether its size varies much")
    lesions: bool = option(False, help="whether lesions lie within it")


@dataclass(frozen=True)
class Anatomy:
    """Classes of a head, from its labels and the tissues of the maps.

    Classes are 0 (background), the structures (both sides in one), and those outside.

    Attributes:
        labels: of the result, with the values of the maps.
        tissues: that are painted; air is the first.
        merged: value of a map → value of the label that it counts as.
    """

    labels: tuple[Label, ...]
    tissues: tuple[Tissue, ...]
    merged: Mapping[int, int]

    @classmethod
    def of(
        cls,
        labels: Sequence[Label],
        tissues: Sequence[Mapping[str, Any]],
        merged: Mapping[str, int],
        values: Sequence[int],
    ) -> Anatomy:
        """Complete the tissues that a configuration states by all other values of the maps.

        Args:
            labels: of the result.
            tissues: fields of `Tissue`; a value in none is a tissue by itself.
            merged: value of a map, as text, → value of its label.
            values: of all maps.
        Raises ConfigError for too many values, and for tissues that contradict one another.
        """
        stated = [config_from_json(Tissue, dict(entry)) for entry in tissues]
        known = {value for tissue in stated for value in tissue.values}
        if sum(len(tissue.values) for tissue in stated) > len(known):
            raise ConfigError("a value is in two tissues", "State each value once in tissues.")
        merges = {int(value): label for value, label in merged.items()}
        inner = {label.value for label in labels} | set(merges)
        for value in sorted((inner | set(values)) - known - {0}):
            outside = "" if value in inner else "other"
            stated.append(Tissue(name=f"value {value}", values=(value,), outside=outside))
        air = [tissue for tissue in stated if tissue.name == AIR] or [Tissue(name=AIR)]
        stated = [air[0], *(tissue for tissue in stated if tissue.name != AIR)]
        if len(stated) > _MOST:
            raise ConfigError(
                f"the label maps have {len(stated)} tissues",
                f"Merge some in `tissues`: at most {_MOST}.",
            )
        return cls(tuple(labels), tuple(stated), merges)

    @cached_property
    def _sides(self) -> list[tuple[str, str]]:
        """Class name and side ("left", "right", "") of each label."""
        pairs = []
        names = {label.name.lower() for label in self.labels}
        for label in self.labels:
            match = SIDE.fullmatch(label.name)
            other = {"left": "right", "right": "left"}
            if (
                match
                and label.name.lower().replace(match[1].lower(), other[match[1].lower()], 1)
                in names
            ):
                pairs.append((match[2].lower(), match[1].lower()))
            else:
                pairs.append((label.name, ""))
        return pairs

    @cached_property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures, each for both sides."""
        return tuple(dict.fromkeys(name for name, _ in self._sides))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of all classes; the first is the background."""
        outside = dict.fromkeys(tissue.outside for tissue in self.tissues if tissue.outside)
        return ("background", *self.structures, *outside)

    def inner(self, shares: Tensor) -> Tensor:
        """Add up the shares [C, ...] of the structures."""
        return shares[1 : len(self.structures) + 1].sum(0)

    @property
    def has_sides(self) -> bool:
        """Whether any structure has a left and a right label: then scans are mirrored, too."""
        return any(side for _, side in self._sides)

    @cached_property
    def values(self) -> npt.NDArray[np.uint8]:
        """Label value of each class on the right, and on the left: [2, classes]."""
        table = np.zeros((2, len(self.classes)), np.uint8)
        for label, (name, side) in zip(self.labels, self._sides, strict=True):
            rows = {"left": [1], "right": [0], "": [0, 1]}[side]
            table[rows, self.classes.index(name)] = label.value
        return table

    @cached_property
    def tissue_classes(self) -> Bytes:
        """Class of each tissue."""
        by_value = dict(
            zip((label.value for label in self.labels), (n for n, _ in self._sides), strict=True)
        )
        result = np.zeros(len(self.tissues), np.uint8)
        for index, tissue in enumerate(self.tissues):
            names = {by_value.get(self.merged.get(value, value), "") for value in tissue.values}
            if tissue.outside:
                names = {tissue.outside}
            if len(names) > 1:
                raise ConfigError(
                    f"tissue {tissue.name!r} belongs to {len(names)} structures",
                    "Split it: each tissue is of one structure.",
                )
            name = names.pop() if names else ""
            result[index] = self.classes.index(name) if name else 0
        return result

    @cached_property
    def is_outside(self) -> npt.NDArray[np.bool_]:
        """Whether each tissue lies outside the structures."""
        return np.array([bool(tissue.outside) for tissue in self.tissues])

    @cached_property
    def contrasts(self) -> Doubles:
        """Mean intensities [contrasts, tissues]; NaN where a tissue states none."""
        count = max((len(tissue.means) for tissue in self.tissues), default=0)
        table = np.full((count, len(self.tissues)), np.nan)
        for index, tissue in enumerate(self.tissues):
            table[: len(tissue.means), index] = tissue.means
        return table

    def painted(self, voxels: npt.NDArray[Any]) -> Bytes:
        """Turn label values into tissue indices; the highest bit marks the left side."""
        table = np.zeros(65536, np.uint8)
        for index, tissue in enumerate(self.tissues):
            table[list(tissue.values)] = index
        left = [
            label.value
            for label, (_, side) in zip(self.labels, self._sides, strict=True)
            if side == "left"
        ]
        left += [value for value, label in self.merged.items() if label in left]
        table[left] |= 128
        result: Bytes = table[voxels]
        return result

    def to_json(self) -> dict[str, Any]:
        """Return what `Anatomy.of` takes, without labels."""
        return {
            "tissues": [tissue.to_json() for tissue in self.tissues],
            "merged": {str(value): label for value, label in self.merged.items()},
        }

"""Says whether a model was measured to be as good as another, before it replaces that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from MedEnhanceLib.bundles.schema import SLICES
from MedEnhanceLib.bundles.store import Bundle

#: Figures of a model and of the shipped one on the same images, and their unit.
Figures = tuple[float, float, str]


def default_warning(bundle: Bundle, rival: Bundle | None) -> str:
    """Say why a model should not replace another as the default; "" if nothing speaks against it.

    It is worse on the same images, or was never compared. One that ships is the reference: it may
    take the place of any that was not compared with it.
    """
    if rival is None or bundle == rival:
        return ""
    figures = _figures(bundle, rival)
    if figures is None:
        unknown = f"the model {bundle.name} was not compared with {rival.name} on the same images"
        return "" if bundle.shipped else unknown
    figure, rival_figure, unit = figures
    if round(figure, 2) >= round(rival_figure, 2):
        return ""
    return (
        f"the model {bundle.name} is worse than {rival.name} on the same images: {figure:.2f} "
        f"against {rival_figure:.2f} {unit}"
    )


def _figures(bundle: Bundle, rival: Bundle) -> Figures | None:
    """Return the same measure of both models on the same images; None without one."""
    if rival.shipped and (figures := _beside_shipped(bundle, rival)):
        return figures
    if bundle.shipped and (figures := _beside_shipped(rival, bundle)):
        return figures[1], figures[0], figures[2]
    pairs = list(_pairs(bundle.metadata, rival.metadata)) if bundle.kind == "head" else []
    if not pairs:
        return None
    figure, rival_figure = np.mean(pairs, axis=0).tolist()
    return figure, rival_figure, "(mean Dice)"


def _beside_shipped(bundle: Bundle, shipped: Bundle) -> Figures | None:
    """Return what the training of a model measured of it and of the shipped one."""
    training = bundle.metadata.get("training") or {}
    taught = bundle.metadata.get("gradprom")
    if bundle.kind == "enhancer" and isinstance(taught, Mapping):  # judged by what taught it
        has_start = (training.get("config") or {}).get("start") == shipped.name
        return _numbers(taught.get("dice"), "taught", "untaught", "(Dice)") if has_start else None
    if bundle.kind == SLICES:
        rows = bundle.metadata.get("measured") or [{}]
        return _numbers(rows[0], "restored (dB)", "shipped model (dB)", "dB (PSNR)")
    if ("view" in bundle.metadata) != ("view" in shipped.metadata):  # the set networks alone were
        return None
    return _numbers(training.get("validation"), "gain_db", "shipped_gain_db", "dB over the filter")


def _numbers(fields: Any, own: str, other: str, unit: str) -> Figures | None:
    values = [fields.get(own), fields.get(other)] if isinstance(fields, Mapping) else [None]
    return (*values, unit) if all(map(_is_number, values)) else None


def _pairs(own: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[tuple[float, float]]:
    """Yield the figures that two heads share, which were measured on the same held-out images."""
    config, others = (each.get("training", {}).get("config") or {} for each in (own, other))
    if not config.get("held_out") or config["held_out"] != others.get("held_out"):
        return
    rows = {_texts_of(row): row for row in other.get("measured", ())}
    for row in own.get("measured", ()):
        same = rows.get(_texts_of(row), {})
        for name, value in row.items():
            if _is_number(value) and _is_number(same.get(name)):
                yield value, same[name]


def _texts_of(row: Mapping[str, Any]) -> frozenset[tuple[str, str]]:
    return frozenset((name, value) for name, value in row.items() if isinstance(value, str))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""The arms: what can run here, by modality, and what cannot with the reason."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from _enhancement_data import Case
from _enhancement_peers import bm4d_ct, bm4d_mr, nlm_ct, nlm_mr

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError

#: BM4D with the σ that was added: what it could reach with a perfect estimate.
INFORMED = "BM4D, true σ"


Run = Callable[..., Volume]


@dataclass(frozen=True)
class Arm:
    """One way to enhance.

    settings: names the way and its settings; results are kept by it. slow: measured with the first
    seed only. keep: its results are kept. shaded: only where there is shading. corrected: N4
    after it makes a further arm there. informed: takes the true σ as well, where the damage is
    white noise alone.
    """

    name: str
    run: Run
    settings: str
    slow: bool = False
    keep: bool = False
    shaded: bool = False
    corrected: bool = True
    informed: bool = False

    @property
    def special(self) -> bool:
        """Measured on some kinds of damage alone, so not on lesions."""
        return self.shaded or self.informed

    def takes(self, case: Case) -> bool:
        return (case.shaded or not self.shaded) and (case.noise is not None or not self.informed)


def find_arms(modality: str, options: argparse.Namespace) -> tuple[list[Arm], list[str]]:
    """The arms for a modality, and what is missing with the reason."""
    classical, missing = _classical(modality)
    own, why = _own(modality, options)
    arms = [*classical, *own]
    if modality == "CT":
        arms = [replace(arm, corrected=False) for arm in arms]
    if options.arms:
        arms = [arm for arm in arms if arm.name in {"input", *options.arms}]
    return arms, [*missing, *why]


def _classical(modality: str) -> tuple[list[Arm], list[str]]:
    is_mr = modality == "MR"
    arms = [
        Arm("input", _unchanged, "input"),
        Arm("NLM", nlm_mr if is_mr else nlm_ct, f"NLM {modality} 1", keep=True),
    ]
    if not find_spec("bm4d"):
        return arms, ["BM4D: not installed (`pip install bm4d`; its license is non-commercial)"]
    bm4d = bm4d_mr if is_mr else bm4d_ct
    arms.append(Arm("BM4D", bm4d, f"BM4D {modality} 1", slow=True, keep=True))
    if is_mr:
        arms.append(Arm(INFORMED, bm4d_mr, "BM4D MR true 1", slow=True, keep=True, informed=True))
    return arms, []


def _own(modality: str, options: argparse.Namespace) -> tuple[list[Arm], list[str]]:
    from MedEnhanceLib.bundles.store import open_bundle

    model = options.mr_model if modality == "MR" else options.ct_model
    try:
        open_bundle(model, kind="enhancer", modality=modality)
    except MedEnhanceError as error:
        return [], [f"ours ({modality}): {error}"]

    def arm(name: str, chosen: dict[str, Any], **how: bool) -> Arm:
        run = partial(_enhanced, model=model, **chosen)
        return Arm(name, run, name, corrected=False, **how)

    arms = [arm("ours", {})]
    if modality == "MR":
        on_request = {"task": "sharpness", "correct_bias_field": True}
        arms.append(arm("ours + N4", on_request, shaded=True))
    return arms, []


def _unchanged(volume: Volume) -> Volume:
    return volume


def _enhanced(volume: Volume, **chosen: Any) -> Volume:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    return enhance(volume, EnhanceConfig(device="cpu", **chosen)).volume

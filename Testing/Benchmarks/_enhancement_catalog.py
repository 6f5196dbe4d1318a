"""The arms of a modality that can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

from _enhancement_data import Case
from _enhancement_peers import bm4d_ct, bm4d_mr, nlm_ct, nlm_mr

from MedEnhanceLib.core.volume import Volume

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
    corrected: bool = False
    informed: bool = False

    def takes(self, case: Case) -> bool:
        return (case.shaded or not self.shaded) and (case.noise is not None or not self.informed)


def find_arms(modality: str) -> list[Arm]:
    """The arms for a modality that are installed."""
    is_mr = modality == "MR"
    arms = [
        Arm("input", _unchanged, "input"),
        Arm("NLM", nlm_mr if is_mr else nlm_ct, f"NLM {modality} 1", slow=True, keep=True),
        # All of the noise, as the peers; what the default keeps: faint_lesions.py.
        Arm("ours", _enhanced if is_mr else partial(_enhanced, smooth=True), "ours"),
    ]
    if is_mr:
        on_request = partial(_enhanced, task="sharpness", correct_bias_field=True)
        arms.append(Arm("ours + N4", on_request, "ours + N4", shaded=True))
    if find_spec("bm4d"):
        bm4d = bm4d_mr if is_mr else bm4d_ct
        settings = f"BM4D {modality} 1"
        arms.append(Arm("BM4D", bm4d, settings, slow=True, keep=True, corrected=True))
        if is_mr:
            settings = "BM4D MR true 1"
            arms.append(Arm(INFORMED, bm4d_mr, settings, slow=True, keep=True, informed=True))
    return arms


def _unchanged(volume: Volume) -> Volume:
    return volume


def _enhanced(volume: Volume, **chosen: Any) -> Volume:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    return enhance(volume, EnhanceConfig(device="cpu", **chosen)).volume

"""The arms: what can run here, by modality, and what cannot with the reason."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _enhancement_cache import code_hash
from _enhancement_data import Case
from _enhancement_peers import (
    TV_CT,
    TV_MR,
    bm4d_ct,
    bm4d_mr,
    nlm_ct,
    nlm_mr,
    tv_ct,
    tv_mr,
)

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError

BLOCK_FILTER = "block filter"
#: BM4D with the σ that was added: what it could reach with a perfect estimate.
INFORMED = "BM4D, true σ"
#: The recipe at the size and budget of the trained peers.
BENCH = "HQG-Net (bench)"
PEERS = ("CycleGAN", "CUT", "paired U-Net", "Noise2Void")
#: Files whose change may change what a bundle does.
INFERENCE = tuple(
    f"MedEnhanceLib/{name}.py"
    for name in (
        *(f"hqg/{part}" for part in ("infer", "predict", "stream", "network", "bundle")),
        *(f"hqg/{part}" for part in ("bias_field", "chain", "denoise", "sharpness")),
        *(f"nets/{part}" for part in ("slices", "intensity", "blocks", "shrinkage", "precision")),
        *(f"nets/{part}" for part in ("grouped", "noise", "noise_blocks")),
    )
)


Run = Callable[..., Volume]


@dataclass(frozen=True)
class Arm:
    """One way to enhance.

    settings: names the way, its settings or weights; rows are known by it. others: the same,
    trained with further seeds; the test's seed chooses. slow: measured with few seeds only.
    keep: its results are kept. few: only on the cases that ablations are measured on. shaded:
    only where there is shading.  corrected: N4 after it makes a
    further arm there. informed: takes the true σ as well, where the damage is white noise alone.
    note: what is known of its training.
    """

    name: str
    run: Run
    settings: str
    others: tuple[tuple[Run, str], ...] = ()
    slow: bool = False
    keep: bool = False
    few: bool = False
    shaded: bool = False
    corrected: bool = True
    informed: bool = False
    note: str = ""

    def of_seed(self, seed: int) -> tuple[Run, str]:
        return ((self.run, self.settings), *self.others)[seed % (1 + len(self.others))]

    @property
    def special(self) -> bool:
        """Measured on some kinds of damage alone, so neither on lesions nor on real scans."""
        return self.few or self.shaded or self.informed

    def takes(self, case: Case) -> bool:
        return (
            (case.key or not self.few)
            and (case.shaded or not self.shaded)
            and (case.noise is not None or not self.informed)
        )


def find_arms(modality: str, options: argparse.Namespace) -> tuple[list[Arm], list[str]]:
    """The arms for a modality, and what is missing with the reason."""
    classical, missing = _classical(modality)
    trained, absent = _trained(modality, options.arms_folder)
    own, why = _own(modality, options)
    arms = [*classical, *trained, *own]
    if modality == "CT":
        arms = [replace(arm, corrected=False) for arm in arms]
    if options.arms:
        arms = [arm for arm in arms if arm.name in {"input", *options.arms}]
    return arms, [*missing, *absent, *why]


def _classical(modality: str) -> tuple[list[Arm], list[str]]:
    is_mr = modality == "MR"
    weight = TV_MR if is_mr else TV_CT
    arms = [
        Arm("input", _unchanged, "input"),
        Arm("TV", tv_mr if is_mr else tv_ct, f"TV {modality} {weight} 1"),
        Arm("NLM", nlm_mr if is_mr else nlm_ct, f"NLM {modality} 1", keep=True),
    ]
    if not find_spec("bm4d"):
        return arms, ["BM4D: not installed (`pip install bm4d`; its license is non-commercial)"]
    bm4d = bm4d_mr if is_mr else bm4d_ct
    arms.append(Arm("BM4D", bm4d, f"BM4D {modality} 1", slow=True, keep=True))
    if is_mr:
        arms.append(Arm(INFORMED, bm4d_mr, "BM4D MR true 1", slow=True, keep=True, informed=True))
    return arms, []


def _trained(modality: str, folder: Path) -> tuple[list[Arm], list[str]]:
    """Peers and ablations that were trained with one budget, with several seeds each."""
    try:
        from _trained_arms import load_arms
    except ImportError:
        return [], [f"{', '.join(PEERS)} and ablations ({modality}): no _trained_arms.py"]
    found = load_arms(folder, modality) if folder.is_dir() else {}
    arms = []
    for name, runs in found.items():
        ways = [(run, f"{name} {seed} {_weights_of(run, folder)}") for seed, run in enumerate(runs)]
        note = "; ".join(getattr(run, "note", "") for run in runs)
        few = name not in (*PEERS, BENCH)
        arms.append(Arm(name, *ways[0], tuple(ways[1:]), few=few, note=note))
    absent = [name for name in (*PEERS, BENCH) if name not in found]
    return arms, [f"{name} ({modality}): not trained in {folder.name}" for name in absent]


def _own(modality: str, options: argparse.Namespace) -> tuple[list[Arm], list[str]]:
    from MedEnhanceLib.bundles import open_bundle
    from MedEnhanceLib.hqg.bundle import open_enhancer

    model = options.mr_model if modality == "MR" else options.ct_model
    try:
        bundle = open_bundle(model, kind="enhancer", modality=modality)
        open_enhancer(bundle)
    except MedEnhanceError as error:
        return [], [f"ours ({modality}): {error}"]
    settings = f"ours {bundle.sha256} {code_hash(*INFERENCE)}"

    def arm(name: str, chosen: dict[str, Any], **how: bool) -> Arm:
        run = partial(_enhanced, model=model, **chosen)
        return Arm(name, run, f"{settings} {sorted(chosen.items())}", corrected=False, **how)

    before = partial(_block_filter, folder=bundle.folder)
    arms = [
        arm("ours", {}),
        arm("ours, full strength", {"strength": "full"}),
        Arm(BLOCK_FILTER, before, f"{settings} block filter", corrected=False),
    ]
    if modality == "MR":
        arms.append(arm("ours + N4", {"bias_correction": "n4"}, shaded=True))
    return arms, []


def _unchanged(volume: Volume) -> Volume:
    return volume


def _enhanced(volume: Volume, **chosen: Any) -> Volume:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    return enhance(volume, EnhanceConfig(device="cpu", **chosen)).volume


def _block_filter(volume: Volume, *, folder: Path) -> Volume:
    """What enhancement started from before the grouped filter, with the spectrum it had learned."""
    import torch

    from MedEnhanceLib.bundles.store import read_bundle
    from MedEnhanceLib.hqg.bundle import open_enhancer
    from MedEnhanceLib.nets.intensity import scaling_for

    scaling, model = scaling_for(volume), open_enhancer(read_bundle(folder))
    slab = torch.from_numpy(scaling.apply(volume.voxels))[None]
    rows, columns = slab.shape[-2:]
    slab = torch.nn.functional.pad(slab, (0, -columns % 16, 0, -rows % 16), mode="replicate")
    with torch.inference_mode():
        start = model.enhancer.start(slab)[0, :, :rows, :columns].numpy()
    return volume.with_voxels(scaling.undo(start))


def _weights_of(run: Run, folder: Path) -> str:
    """What an arm says of its weights; a hash of all of them where it says nothing."""
    stated = getattr(run, "fingerprint", "")
    if stated:
        return str(stated)
    return _hash_of(*sorted(folder.rglob("*.safetensors")))


@lru_cache(maxsize=512)
def _hash_of(*files: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

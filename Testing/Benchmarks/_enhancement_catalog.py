"""The arms: what can run here, by modality, and what cannot with the reason."""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _common import REPOSITORY
from _enhancement_cache import code_hash, key_of
from _enhancement_data import Case, recipe_files
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
from MedEnhanceLib.degrade import LowDose, Rician
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.io import load

MODELS = {"MR": "mr-brain", "CT": "ct-lowdose"}
#: Ours, asked to undo blur as well.
DEBLUR = "ours, deblur"
GUIDED = ("ours, cue zeroed", "ours, LQ guide", "ours, HQ guide")
#: The recipe at the size and budget of the trained peers.
BENCH = "HQG-Net (bench)"
PEERS = ("CycleGAN", "CUT", "paired U-Net", "Noise2Void")
_GUIDE_SLICES = 8
#: Files whose change may change what a bundle does.
_INFERENCE = tuple(
    f"MedEnhanceLib/{name}.py"
    for name in (
        *(f"hqg/{part}" for part in ("infer", "predict", "stream", "network", "bundle")),
        *(f"nets/{part}" for part in ("slices", "intensity", "blocks", "shrinkage", "precision")),
    )
)


Run = Callable[[Volume], Volume]


@dataclass(frozen=True)
class Arm:
    """One way to enhance.

    settings: names the way, its settings or weights; rows are known by it. others: the same,
    trained with further seeds; the test's seed chooses. slow: measured with few seeds only.
    keep: its results are kept. few: only on the cases that ablations are measured on. shaded:
    only where there is shading. blurred: only where there is blur. corrected: N4 after it makes a
    further arm there. note: what is known of its training.
    """

    name: str
    run: Run
    settings: str
    others: tuple[tuple[Run, str], ...] = ()
    slow: bool = False
    keep: bool = False
    few: bool = False
    shaded: bool = False
    blurred: bool = False
    corrected: bool = True
    note: str = ""

    def of_seed(self, seed: int) -> tuple[Run, str]:
        return ((self.run, self.settings), *self.others)[seed % (1 + len(self.others))]

    def takes(self, case: Case) -> bool:
        return (
            (case.key or not self.few)
            and (case.shaded or not self.shaded)
            and (case.blurred or not self.blurred)
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
    return [*arms, Arm("BM4D", bm4d, f"BM4D {modality} 1", slow=True, keep=True)], []


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
    settings = f"ours {bundle.sha256} {code_hash(*_INFERENCE)}"
    plain = partial(_enhanced, model=model)
    arms = [Arm("ours", plain, settings, corrected=False)]
    if modality == "MR":
        run = partial(_enhanced, model=model, bias_correction="n4")
        arms.append(Arm("ours + N4", run, f"{settings} n4", shaded=True, corrected=False))
    if bundle.deblurs:
        run = partial(_enhanced, model=model, deblur=True)
        asked = Arm(DEBLUR, run, f"{settings} deblur", blurred=True, corrected=False)
        run = partial(_enhanced, model=model, deblur=True, bias_correction="n4")
        both = replace(asked, name=f"{DEBLUR} + N4", run=run, settings=f"{settings} deblur n4")
        arms += [asked, replace(both, shaded=True)]
    zeroed, low, high = GUIDED
    guides = (
        (low, partial(low_quality_guide, modality, options.data)),
        (high, partial(first_guide, modality, options.data)),
    )
    arms.append(
        Arm(
            zeroed,
            lambda volume: _enhanced(volume, model=str(_zeroed(bundle.folder))),
            f"{settings} zeroed",
            few=True,
            corrected=False,
        )
    )
    for name, guide in guides:
        try:
            guide()
        except (FileNotFoundError, IndexError, MedEnhanceError):
            return arms, [f"{name} ({modality}): no pool beside the project"]
        arms.append(
            Arm(
                name,
                partial(_guided, model=model, guide=guide),
                f"{settings} {name}",
                few=True,
                corrected=False,
            )
        )
    return arms, []


def _unchanged(volume: Volume) -> Volume:
    return volume


def _enhanced(volume: Volume, **chosen: Any) -> Volume:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    return enhance(volume, EnhanceConfig(device="cpu", **chosen)).volume


def _guided(volume: Volume, *, model: str, guide: Callable[[], Volume]) -> Volume:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    return enhance(volume, EnhanceConfig(model=model, device="cpu"), guide=guide()).volume


def first_guide(modality: str, data: Path) -> Volume:
    return guides(modality, data)[0]


@lru_cache(maxsize=4)
def guides(modality: str, data: Path) -> tuple[Volume, ...]:
    """Ten slabs of the high-quality pool, of 8 slices each, from as many volumes as there are."""
    files = recipe_files(modality, data, "high_quality")
    found: list[Volume] = []
    for index, path in enumerate(files):
        volume = load(path, modality=modality)
        shares = range(10 // len(files) + (index < 10 % len(files)))
        for share in shares:
            middle = int(volume.shape[0] * (0.3 + 0.4 * (share + 0.5) / len(shares)))
            found.append(_slab(volume, middle))
    return tuple(found)


@lru_cache(maxsize=4)
def low_quality_guide(modality: str, data: Path) -> Volume:
    """A slab of the low-quality pool, with strong noise: what a guide should not be."""
    volume = load(recipe_files(modality, data, "low_quality")[0], modality=modality)
    slab = _slab(volume, volume.shape[0] // 2)
    noise = Rician(0.15, 99) if modality == "MR" else LowDose(3e3, 5.0, 99)
    return noise.apply(slab)


def _slab(volume: Volume, middle: int) -> Volume:
    first = max(0, min(middle - _GUIDE_SLICES // 2, volume.shape[0] - _GUIDE_SLICES))
    return replace(
        volume,
        voxels=volume.voxels[first : first + _GUIDE_SLICES],
        geometry=volume.geometry.cropped((first, 0, 0)),
        history=(),
    )


@lru_cache(maxsize=4)
def _zeroed(folder: Path) -> Path:
    """A copy of a bundle whose mean cue is zero."""
    import torch

    from MedEnhanceLib.bundles.export import export_bundle, load_tensors
    from MedEnhanceLib.bundles.store import read_bundle

    bundle = read_bundle(folder)
    target = REPOSITORY / "runs" / "enhancement-zeroed" / f"{bundle.sha256[:16]}"
    if not target.is_dir():
        staged = target.with_name(f"{target.name}.{key_of(id(target))[:8]}")
        tensors = load_tensors(bundle)
        tensors["bank.mean"] = torch.zeros_like(tensors["bank.mean"])
        fields: dict[str, Any] = {k: v for k, v in bundle.metadata.items() if k != "files"}
        export_bundle(staged, tensors, fields)
        try:
            staged.replace(target)
        except OSError:  # another process was faster
            shutil.rmtree(staged)
    return target


def _weights_of(run: Run, folder: Path) -> str:
    """What an arm says of its weights; a hash of all of them where it says nothing."""
    told = getattr(run, "fingerprint", "")
    if told:
        return str(told)
    return _hash_of(*sorted(folder.rglob("*.safetensors")))


@lru_cache(maxsize=512)
def _hash_of(*files: Path) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]

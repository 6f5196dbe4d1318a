"""Which networks are trained, which arms use them, and how an arm enhances a volume."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from _common import REPOSITORY
from _enhancement_peers import noise_in_tissue, undo_rician_bias

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError

if TYPE_CHECKING:
    from torch import Tensor

    from MedEnhanceLib.hqg.config import NetworkConfig
    from MedEnhanceLib.hqg.network import Enhancer

Floats = npt.NDArray[np.float32]
ARMS_FOLDER = REPOSITORY / "runs" / "enhancement-arms"
#: Slices that go through the network together, their halo not counted.
_SLAB = 12
#: The content vector is the mean over slabs, evenly spaced in the middle of the volume: how many.
_CONTENT_SLABS = 3
#: What decides an arm's output beside its weights; part of its fingerprint.
_INFERENCE = f"slabs of {_SLAB}, content of {_CONTENT_SLABS}"
_GRID = 32


@dataclass(frozen=True)
class Use:
    """How an arm uses a trained network.

    cue: which of its cues, "" for none. rician: whether what it gives is the mean of noisy values.
    """

    network: str
    cue: str = ""
    rician: bool = False


#: Names as in tables → what they run.
ARMS = {
    "CycleGAN": Use("cyclegan"),
    "CUT": Use("cut"),
    "Noise2Void": Use("noise2void", rician=True),
    "paired U-Net": Use("paired"),
    "HQG-Net (bench)": Use("hqg", "cue.high"),
    "LQ guide": Use("hqg", "cue.low"),
    "zero cue": Use("hqg"),
    "no guidance": Use("no-guidance"),
    "deterministic cue": Use("deterministic-cue", "cue.high"),
    "no normalization": Use("no-normalisation"),
    "no shrinkage": Use("no-shrinkage", "cue.high"),
    "wavelet toggled": Use("wavelet", "cue.high"),
    "feature toggled": Use("feature", "cue.high"),
    "identity toggled": Use("identity", "cue.high"),
    "no unpaired": Use("no-unpaired", "cue.high"),
    "published losses": Use("published", "cue.high"),
}
PEERS = ("CycleGAN", "CUT", "Noise2Void", "paired U-Net")


@dataclass(frozen=True)
class TrainedArm:
    """One seed of an arm, ready for any volume of its modality.

    stem: of its weights and record, without suffix. fingerprint: changes with what decides its
    output. family: "peer" or "ablation". note: one line for a page.
    """

    stem: Path
    use: Use
    fingerprint: str
    family: str
    note: str

    def __call__(self, volume: Volume) -> Volume:
        return enhance(self.stem, self.use, volume)


def load_arms(folder: Path, modality: str) -> dict[str, list[TrainedArm]]:
    """The arms whose networks are trained, one for each seed in order; none in an empty folder."""
    records = load_records(folder, modality)
    arms: dict[str, list[TrainedArm]] = {}
    for name, use in ARMS.items():
        for record in records:
            if record["network"] == use.network:
                arm = TrainedArm(
                    folder / modality / record["stem"],
                    use,
                    fingerprint=f"{record['sha256']} {use} {_INFERENCE}",
                    family="peer" if name in PEERS else "ablation",
                    note=f"seed {record['seed']}, {record['steps']} steps in {record['cpu_s']} "
                    f"CPU s, {record['parameters']} parameters",
                )
                arms.setdefault(arm_name(name, record), []).append(arm)
    return arms


def load_records(folder: Path, modality: str) -> list[dict[str, Any]]:
    """What is known of each trained network: seed, steps, CPU seconds, settings, its arms.

    Weights of an earlier form of the network are left out and reported: they need training again.
    """
    records = []
    for path in sorted((folder / modality).glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if not still_answers(path.with_suffix(""), record):
            print(f"{path.name}: the network's code has changed since, train it again", flush=True)
            continue
        names = [name for name, use in ARMS.items() if use.network == record["network"]]
        record["arms"] = [arm_name(name, record) for name in names]
        records.append(record | {"stem": path.stem})
    return sorted(records, key=lambda record: (record["network"], record["seed"]))


def arm_name(name: str, record: dict[str, Any]) -> str:
    """The name in tables: a loss that was toggled is named by what it became."""
    part, _, toggled = name.partition(" ")
    if toggled != "toggled":
        return name
    return f"with {part}" if record["config"]["loss"][part] == 0 else f"no {part}"


def enhance(stem: Path, use: Use, volume: Volume) -> Volume:
    """Run a trained network, `stem`.safetensors with its record `stem`.json, on a whole volume."""
    import torch

    enhancer, tensors = _opened(stem)
    cue = tensors[use.cue] if use.cue else torch.zeros(enhancer.config.cue_size)
    with torch.inference_mode():
        values = through(enhancer, cue[None], volume)
    if use.rician and volume.modality == "MR":
        values = undo_rician_bias(values, noise_in_tissue(volume.voxels.astype(np.float32)))
    return volume.with_voxels(values)


def through(enhancer: Enhancer, cue: Tensor, volume: Volume) -> Floats:
    """All slices through the network, slab by slab with as much halo as the network can see."""
    import torch
    from torch.nn.functional import pad

    from MedEnhanceLib.nets.intensity import scaling_for

    scaling = scaling_for(volume)
    scaled = torch.from_numpy(scaling.apply(volume.voxels))[None]
    depth, rows, columns = scaled.shape[1:]
    scaled = pad(scaled, (0, -columns % _GRID, 0, -rows % _GRID), mode="replicate")
    middles = np.linspace(0, depth, _CONTENT_SLABS + 2)[1:-1].astype(int)
    starts = [max(0, min(int(middle) - _SLAB // 2, depth - _SLAB)) for middle in middles]
    contents = [enhancer.content_vector(scaled[:, start : start + _SLAB]) for start in starts]
    content = torch.stack(contents).mean(dim=0)
    halo = enhancer.reach
    output = np.empty(volume.shape, np.float32)
    for first in range(0, depth, _SLAB):
        last = min(first + _SLAB, depth)
        start = max(0, first - halo)
        result = enhancer(scaled[:, start : last + halo], cue, content)
        output[first:last] = result[0, first - start : last - start, :rows, :columns].numpy()
    return scaling.undo(output)


def answers(enhancer: Enhancer) -> list[float]:
    """What a network makes of a noisy ramp: shows whether its code still means the same."""
    import torch

    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    slab = torch.linspace(0, 1, 64).expand(1, 3, 64, 64) + 0.05 * noise
    with torch.inference_mode():
        image = enhancer.eval()(slab, torch.zeros(1, enhancer.config.cue_size))
    return [round(float(value), 5) for value in image[0, 1, ::16, ::16].flatten()]


def still_answers(stem: Path, record: dict[str, Any]) -> bool:
    """Whether the weights give today what they gave when they were trained."""
    try:
        enhancer, _ = _opened(stem)
    except (RuntimeError, MedEnhanceError):
        return False
    return bool(np.allclose(answers(enhancer), record["answers"], atol=2e-3))


def _opened(stem: Path) -> tuple[Enhancer, dict[str, Tensor]]:
    from safetensors.torch import load_file

    from MedEnhanceLib.core.options import config_from_json
    from MedEnhanceLib.hqg.config import NetworkConfig

    record = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
    tensors = load_file(stem.with_suffix(".safetensors"))
    return rebuilt(
        config_from_json(NetworkConfig, record["trained_with"]["network"]), tensors
    ), tensors


def rebuilt(config: NetworkConfig, tensors: dict[str, Tensor]) -> Enhancer:
    """The enhancer among named tensors, ready for use."""
    from MedEnhanceLib.hqg.network import Enhancer

    enhancer, prefix = Enhancer(config), "enhancer."
    enhancer.load_state_dict(
        {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
    )
    return enhancer.eval()

"""How fast volumes are enhanced, in how much memory, and what of that is owed to what.

    python Testing/Benchmarks/speed.py            512×512×300, writes results
    python Testing/Benchmarks/speed.py --quick    512×512×24, writes runs/benchmarks

Every case runs in a process of its own, so that peaks of memory are its own. Cases that are
compared run one after another in one process, in turns. Time on a CPU is reported as wall time and
as CPU time, since wall time on a busy machine says more of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _common import REPOSITORY, RESULTS, SHARED_DATA, gate, write

Row = dict[str, Any]
_SIDE = 512
_THREADS = 2
_BATCHES = (1, 2, 8)
#: Slices that stages are ahead of what comes out: a stream has to be longer to show its pace.
_AHEAD = 24
_CUDA_BATCHES = (1, 4, 16, 32, 64)


def main() -> None:
    """Measure, then write what was found; or, in a child, measure one case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a thin volume, results in runs/")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--slices", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        print(json.dumps(_CASES[options.case](options.slices)))
        return
    slices = 24 if options.quick else 300
    found = {name: _in_child(name, slices) for name in _CASES}
    rows = [{"case": name, **figures} for name, figures in found.items()]
    gates = _gates(found, slices)
    folder = REPOSITORY / "runs" / "benchmarks" if options.quick else RESULTS
    write("speed", gates=gates, rows=rows, seeds=[0], folder=folder)


def _in_child(name: str, slices: int) -> Row:
    environment = {**os.environ, "OMP_NUM_THREADS": str(_THREADS)}
    command = [sys.executable, __file__, "--case", name, "--slices", str(slices)]
    print(name, flush=True)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr}")
    figures: Row = json.loads(done.stdout.splitlines()[-1])
    print(" ", figures, flush=True)
    return figures


# --- cases ----------------------------------------------------------------------------------------


def whole_volume(slices: int) -> Row:
    """A CT from its voxels to the enhanced voxels, as the library does it."""
    return _enhance("cpu", slices)


def whole_volume_cuda(slices: int) -> Row:
    """The same on a GPU, after a thin volume has warmed it up."""
    if not _has_cuda():
        return {"measured": False, "reason": "no device"}
    import torch

    _enhance("cuda", 40)
    torch.cuda.reset_peak_memory_stats()
    figures = _enhance("cuda", slices)
    return {
        **figures,
        "device": torch.cuda.get_device_name(),
        "device_peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def preview(slices: int) -> Row:
    """One slice of it on one thread: the first one of a volume, and the next."""
    import torch

    from MedEnhanceLib.hqg import EnhanceConfig, VolumeCache, enhance

    torch.set_num_threads(1)
    volume, config = _ct(slices), EnhanceConfig(model=_model(), device="cpu")
    enhance(_ct(2), config)
    cache = VolumeCache()
    figures = {}
    for which, place in (("first", slices // 2), ("next", slices // 3)):
        wall, cpu = _timed(
            lambda at=place: enhance(volume, config, slices=(at, at + 1), cache=cache)
        )
        figures |= {f"{which}_wall_s": round(wall, 2), f"{which}_cpu_s": round(cpu, 2)}
    return figures


def work(_: int) -> Row:
    """FLOP of a slice, and what share of the processor's own peak is reached with one thread."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    torch.set_num_threads(1)
    stream, _planes = _stream(batch=1, depth=_AHEAD + 4)
    with torch.inference_mode():
        stream[0]
        with FlopCounterMode(display=False) as counter:
            stream[1]
        flop = counter.get_total_flops()
        peaks = {
            name: max(_convolution(dtype), _product(dtype))
            for name, dtype in (("float32", torch.float32), ("half", torch.bfloat16))
        }
    seconds = _compared({"float32": (1, False), "half": (1, True)})
    return {
        "gflop_per_slice": round(flop / 1e9, 2),
        **{f"{name}_peak_gflops": round(peak / 1e9) for name, peak in peaks.items()},
        **{f"{name}_cpu_s_per_slice": round(seconds[name], 3) for name in peaks},
        **{f"{name}_share_of_peak": round(flop / seconds[name] / peaks[name], 3) for name in peaks},
    }


def batches(_: int) -> Row:
    """CPU seconds per slice for each batch size (half precision where it pays)."""
    import torch

    torch.set_num_threads(1)
    seconds = _compared({str(size): (size, True) for size in _BATCHES})
    return {size: round(value, 3) for size, value in seconds.items()}


def slabs(_: int) -> Row:
    """Against slabs of 16 slices, each with its halo, in one pass: what streaming saves."""
    import torch

    from MedEnhanceLib.nets.precision import inference_precision

    torch.set_num_threads(1)
    enhancer, condition = _network()
    reach = enhancer.reach
    slab = torch.rand(1, 16 + 2 * reach, _SIDE, _SIDE)
    cue = condition[:, : enhancer.config.cue_size], condition[:, enhancer.config.cue_size :]
    with torch.inference_mode(), inference_precision("cpu"):
        enhancer(slab[:, :2], *cue)
        _, cpu = _timed(lambda: enhancer(slab, *cue))
    seconds = _compared({"stream": (1, True)})["stream"]
    return {
        "slab_cpu_s_per_slice": round(cpu / 16, 3),
        "stream_cpu_s_per_slice": round(seconds, 3),
        "ratio": round(cpu / 16 / seconds, 2),
    }


def fused(_: int) -> Row:
    """oneDNN's convolution with the activation in it, against the two one after another."""
    import torch
    from torch.nn import functional as F  # noqa: N812 - the field's own short name

    torch.set_num_threads(1)
    layer = torch.nn.Conv2d(48, 48, 3, padding=1).requires_grad_(False).to(torch.bfloat16)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = torch.randn(1, 48, _SIDE // 2, _SIDE // 2).to(torch.bfloat16)
    features = features.contiguous(memory_format=torch.channels_last)
    arguments = (features, layer.weight, layer.bias, [1, 1], [1, 1], [1, 1], 1)

    def together() -> Any:
        return torch.ops.mkldnn._convolution_pointwise(*arguments, "leaky_relu", [0.2], "")

    with torch.inference_mode():
        if not torch.allclose(together(), F.leaky_relu(layer(features), 0.2), atol=0.05):
            sys.exit("the fused convolution gives other values")
        apart, one = _in_turns([lambda: F.leaky_relu(layer(features), 0.2), together], 20)
    return {"apart_ms": round(1e3 * apart, 2), "fused_ms": round(1e3 * one, 2),
            "ratio": round(apart / one, 3)}  # fmt: skip


def cuda_batches(_: int) -> Row:
    """On a GPU: slices per second for each batch size, and the share of its peak."""
    if not _has_cuda():
        return {"measured": False, "reason": "no device"}
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    stream, _planes = _stream(batch=1, depth=_AHEAD + 4, device="cuda")
    with torch.inference_mode():
        stream[0]
        with FlopCounterMode(display=False) as counter:
            stream[1]
    flop = counter.get_total_flops()
    side = 8192
    matrix = torch.randn(side, side, device="cuda", dtype=torch.float16)
    peak = 2 * side**3 / _cuda_seconds(lambda: matrix @ matrix, 10)
    figures: Row = {"gflop_per_slice": round(flop / 1e9, 2), "peak_tflops": round(peak / 1e12)}
    for size in _CUDA_BATCHES:
        seconds = _seconds_per_slice(size, half=True, device="cuda", chunks=8)
        figures[f"{size}_slices_per_s"] = round(1 / seconds)
        figures[f"{size}_share_of_peak"] = round(flop / seconds / peak, 3)
    return figures


_CASES: dict[str, Callable[[int], Row]] = {
    "whole volume": whole_volume,
    "preview": preview,
    "work": work,
    "slices at once": batches,
    "slabs": slabs,
    "fused": fused,
    "whole volume, CUDA": whole_volume_cuda,
    "slices at once, CUDA": cuda_batches,
}


# --- how ------------------------------------------------------------------------------------------


def _enhance(device: str, slices: int) -> Row:
    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    volume, config = _ct(slices), EnhanceConfig(model=_model(), device=device)
    before = _peak_gib()
    wall, cpu = _timed(lambda: enhance(volume, config))
    return {
        "voxels": "×".join(map(str, volume.shape)),
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 1),
        "peak_gib": round(_peak_gib(), 2),
        "peak_gib_before": round(before, 2),
        "threads": _THREADS,
    }


def _ct(slices: int) -> Any:
    """[slices, 512, 512] int16: a real CT mirrored and tiled, or shapes, with noise on it."""
    from MedEnhanceLib.core.geometry import Geometry
    from MedEnhanceLib.core.volume import Volume
    from MedEnhanceLib.io import load

    rng = np.random.default_rng(0)
    path = SHARED_DATA / "ct/abdomen/CT.nii.gz"
    if path.is_file():
        real = load(path, modality="CT").voxels
        shape = (slices, _SIDE, _SIDE)
        wanted = [(0, max(0, size - have)) for size, have in zip(shape, real.shape, strict=True)]
        voxels = np.pad(real, wanted, mode="symmetric")[:slices, :_SIDE, :_SIDE].astype(np.int16)
    else:
        j, i = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
        plane = np.where(j**2 + i**2 < 0.7, 40 + 100 * np.sin(9 * i) * np.cos(7 * j), -1000)
        voxels = np.repeat(plane[None].astype(np.int16), slices, axis=0)
    for plane in voxels:
        plane += rng.normal(0, 20, plane.shape).astype(np.int16)
    return Volume(voxels, Geometry((0.8, 0.8, 1.0)), modality="CT", source="benchmark")


def _model() -> str:
    """The CT model of the release; while its weights do not fit, a new network of its size."""
    import tempfile

    import torch

    from MedEnhanceLib.bundles import open_bundle
    from MedEnhanceLib.errors import ModelError
    from MedEnhanceLib.hqg.bundle import CueBank, export_enhancer, open_enhancer
    from MedEnhanceLib.hqg.config import TrainConfig
    from MedEnhanceLib.hqg.network import GuidanceEncoder

    try:
        open_enhancer(open_bundle("ct-lowdose", kind="enhancer", modality="CT"))
        return "ct-lowdose"
    except ModelError:
        folder = Path(tempfile.mkdtemp()) / "new"
        enhancer, _ = _network()
        config = TrainConfig.preset("cpu", "CT")
        bank = CueBank(torch.zeros(config.network.cue_size), torch.ones(config.network.cue_size))
        guide = GuidanceEncoder(config.network)
        return str(export_enhancer(folder, config, enhancer, guide, bank, 1.0).folder)


def _network(device: str = "cpu") -> tuple[Any, Any]:
    """An enhancer with noise for weights, which take as long as learned ones, and a condition."""
    import torch

    from MedEnhanceLib.hqg.config import TrainConfig
    from MedEnhanceLib.hqg.network import Enhancer
    from MedEnhanceLib.nets.precision import move

    torch.manual_seed(0)
    config = TrainConfig.preset("cpu", "CT").network
    enhancer = Enhancer(config).eval().requires_grad_(False)
    for parameter in enhancer.parameters():
        parameter += 0.02 * torch.randn_like(parameter)
    condition = torch.randn(1, config.cue_size + config.content_size, device=device)
    return move(enhancer, device), condition


def _stream(batch: int, depth: int, device: str = "cpu") -> tuple[Any, Any]:
    import torch

    from MedEnhanceLib.hqg.stream import Stage, enhanced

    enhancer, condition = _network(device)
    planes = torch.rand(depth, _SIDE, _SIDE, device=device)
    count = -(-depth // batch)
    chunks = Stage(lambda n: planes[n * batch : (n + 1) * batch], count=count, size=batch)
    return enhanced(enhancer, chunks, condition, depth=depth), planes


def _seconds_per_slice(batch: int, *, half: bool, device: str = "cpu", chunks: int = 3) -> float:
    """In the middle of a volume, where each stage has one chunk to compute."""
    import torch

    from MedEnhanceLib.nets.precision import inference_precision

    warm = 6
    stream, _planes = _stream(batch, batch * (warm + chunks + 1) + _AHEAD, device)
    with torch.inference_mode(), inference_precision(device, half=half):
        for chunk in range(warm if device == "cuda" else 1):
            stream[chunk]
        first = warm if device == "cuda" else 1
        if device == "cuda":
            torch.cuda.synchronize()
            began = time.perf_counter()
        else:
            began = time.process_time()
        for chunk in range(first, first + chunks):
            stream[chunk]
        if device == "cuda":
            torch.cuda.synchronize()
            return (time.perf_counter() - began) / chunks / batch
        return (time.process_time() - began) / chunks / batch


def _compared(cases: dict[str, tuple[int, bool]]) -> dict[str, float]:
    """Least CPU seconds per slice of each (slices at once, half precision), measured in turns."""
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(2):
        for name, (batch, half) in cases.items():
            chunks = 4 if batch == 1 else 1
            best[name] = min(best[name], _seconds_per_slice(batch, half=half, chunks=chunks))
    return best


def _in_turns(works: list[Callable[[], Any]], count: int) -> list[float]:
    """Least CPU seconds of each, one after another `count` times."""
    best = [float("inf")] * len(works)
    for _ in range(count):
        for place, one in enumerate(works):
            best[place] = min(best[place], _timed(one)[1])
    return best


def _convolution(dtype: Any) -> float:
    """FLOP per second of a convolution that suits the processor."""
    import torch

    layer = torch.nn.Conv2d(96, 96, 3, padding=1).requires_grad_(False).to(dtype)
    layer = layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    features = torch.randn(1, 96, 128, 128).to(dtype).contiguous(memory_format=torch.channels_last)
    (seconds,) = _in_turns([lambda: layer(features)], 20)
    return 2 * 96 * 96 * 9 * 128**2 / seconds


def _product(dtype: Any) -> float:
    """FLOP per second of a matrix product."""
    import torch

    matrix = torch.randn(1024, 1024).to(dtype)
    (seconds,) = _in_turns([lambda: matrix @ matrix], 20)
    return float(2 * 1024**3 / seconds)


def _cuda_seconds(work: Callable[[], Any], count: int) -> float:
    import torch

    work()
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        work()
    torch.cuda.synchronize()
    return (time.perf_counter() - began) / count


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _has_cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


# --- what is written ------------------------------------------------------------------------------


def _gates(found: dict[str, Row], slices: int) -> list[dict[str, Any]]:
    whole, cuda, shown = found["whole volume"], found["whole volume, CUDA"], found["preview"]
    share = slices / 300  # a thin volume has its share of the time
    seconds = cuda.get("wall_s")
    rates = [value for name, value in found["slices at once, CUDA"].items() if "per_s" in name]
    return [
        gate(f"512×512×{slices}, {_THREADS} threads: wall s", whole["wall_s"],
             f"≤ {240 * share:g}", whole["wall_s"] <= 240 * share),
        gate("the same: peak GiB", whole["peak_gib"], "≤ 6", whole["peak_gib"] <= 6),
        gate("preview of one slice, one thread: CPU s, first", shown["first_cpu_s"],
             "≤ 3", shown["first_cpu_s"] <= 3),
        gate(f"512×512×{slices}, CUDA: wall s", seconds, "≤ 2",
             seconds is not None and seconds <= 2),
        gate("CUDA: slices per second, most at once over one at once",
             max(rates) / rates[0] if rates else None, "> 1",
             bool(rates) and max(rates) > rates[0]),
    ]  # fmt: skip


if __name__ == "__main__":
    main()

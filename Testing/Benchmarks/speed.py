"""How fast volumes are enhanced, and in how much memory.

    python Testing/Benchmarks/speed.py    CT of 512×512×300, MR of 256×256×160

Every case runs in a process of its own, so that peaks of memory are its own. Cases that are
compared run one after another in one process, in turns. Time on a CPU is reported as wall time and
as CPU time, since wall time on a busy machine says more of the machine.

What networks cost depends on the vector width. Each case is measured at AVX2, which most people
have, and at the widest of the machine (`--only avx2`: at one of them); rows of widths that other
machines have stay in the table. The floor is the CPU time of one thread that SGEMM (products of
large matrices in NumPy, in turns with ours, at the same width) needs for the products of both
networks of the model ct, which are counted by their layers. Networks that need fewer products can
be below it.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from _common import (
    QUICK,
    RESULTS,
    Gate,
    Part,
    Row,
    at_most,
    commit,
    in_child,
    machine,
    most,
    run,
    timed,
)
from _speed_volumes import HEAD, SIDE, diffusion_scan, head_mr, thick_head, tiled_ct

from MedEnhanceLib import native

_SLICES, _FEW = (4, 4) if QUICK else (300, 12)
#: Slices of the head that peers get: BM4D takes minutes for all.
_PEERS = 8 if QUICK else 40
#: Slices of the head that make one, in thin slices.
_THICK = 4
#: Frames, slices, rows and columns of a diffusion scan as large as those of connectome projects.
_LARGE_DWI = (48, 6, 24, 24) if QUICK else (512, 72, 104, 104)
_THREADS, _TURNS = 2, 3
#: Rows and columns of a slice that are in sight at first.
_REGION = 128
#: What makes other libraries use a narrow width too.
_AS_NARROW = {
    "avx2": {
        "OPENBLAS_CORETYPE": "Haswell",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
    }
}
#: CPU time of a slice at AVX2 over the floor, before convolutions were computed by Winograd's
#: method. Of the head it was measured beside the floor; of thin slices it is from an EPYC's 363 CPU
#: s for the 40, whose floor follows from its CT (515 CPU s) and the 1.46 of a few slices.
_BEFORE = {"head": 0.199, "thin slices": 7.7}


def parts() -> Iterator[Part]:
    library = native.require(__name__)
    every = [width for width in library.widths if width != "plain"] or [library.width]
    # Times at AVX-512 are between those of AVX2 and of AMX: a few slices show where.
    ends = [width for width in every if width in (every[0], *native.BFLOAT_WIDTHS)]
    for name, (_case, threads) in _CASES.items():
        if QUICK and name == "thin slices":  # its network learns from the volume first
            continue
        for width in every[-1:] if QUICK else every if name == "few slices" else ends:
            also = _AS_NARROW.get(width, {})
            rows = partial(in_child, case_rows, name, width, threads=threads, **also)
            yield f"{name}, {width}", rows
    if not QUICK:
        yield "at other widths", partial(earlier_rows, every)


# --- cases ----------------------------------------------------------------------------------------


def whole_volume() -> list[Row]:
    """A CT from its voxels to the enhanced voxels, as the library does it."""
    return [_enhance(tiled_ct(_SLICES))]


def few_slices() -> list[Row]:
    """A few slices of it on one thread, in turns with the floor."""
    volume = tiled_ct(_FEW)
    _enhance(volume.crop(slice(0, 2)))  # loads what is needed
    rows = [_enhance(volume) for _ in range(_TURNS)]
    return [sorted(rows, key=lambda row: row["times_floor"])[_TURNS // 2]]


def head() -> list[Row]:
    """An MR of a head, likewise."""
    return [_enhance(head_mr())]


def diffusion() -> list[Row]:
    """A real diffusion scan, by all of its frames."""
    return [_enhance(diffusion_scan((42, 18, 102, 102)))]


def large_diffusion() -> list[Row]:
    """The same frames again and again, each with noise of its own."""
    return [_enhance(diffusion_scan(_LARGE_DWI))]


def thin_slices() -> list[Row]:
    """The head of slices four times as thick, restored."""
    return [_enhance(thick_head(_THICK), task="slices")]


def peers() -> list[Row]:
    """A slab of the head by others, in one process, each once, as in the table of enhancement."""
    from _enhancement_peers import bm4d_mr, nlm_mr

    volume = head_mr()
    first = (HEAD[0] - _PEERS) // 2
    slab = replace(volume, voxels=volume.voxels[first : first + _PEERS])
    _enhance(slab)  # loads what is needed
    arms: dict[str, Callable[[], Any]] = {
        "NLM": lambda: nlm_mr(slab), "ours": lambda: _enhance(slab),
    }  # fmt: skip
    if find_spec("bm4d"):
        arms["BM4D"] = lambda: bm4d_mr(slab)
    about = {"volume": volume.source}
    return [about | {"arm": name, "cpu_s": round(timed(work)[2], 2)} for name, work in arms.items()]


def preview() -> list[Row]:
    """The first slice that is shown of each, and what is in sight of it, on one thread.

    Then a draft of that, in a volume that was measured.
    """
    from MedEnhanceLib.denoise import EnhanceConfig, VolumeCache, enhance, measure

    rows = []
    for model, volume in (("ct", tiled_ct(_SLICES)), ("mr", head_mr())):
        config = EnhanceConfig(model=model, device="cpu")
        enhance(replace(volume, voxels=volume.voxels[:2]), config)
        place, half = len(volume.voxels) // 2, min(volume.shape[1] // 2, _REGION // 2)
        middle = volume.shape[1] // 2
        seen = (middle - half, middle + half)
        for name, region in (("slice", {}), ("region", {"rows": seen, "columns": seen})):
            part = {"slices": (place, place + 1), **region}
            _, wall, cpu = timed(partial(enhance, volume, config, **part))
            row = {"first_wall_s": round(wall, 2), "first_cpu_s": round(cpu, 2)}
            rows.append({"volume": volume.source, "model": model, "seen": name, **row})
        cache, times = VolumeCache(), list[float]()
        measure(volume, config, cache=cache)
        times.append(time.process_time())
        note = partial(_note_time, times)
        enhance(volume, config, cache=cache, on_draft=note, **part)
        row = {"draft_cpu_s": round(times[1] - times[0], 2)}
        rows.append({"volume": volume.source, "model": model, "seen": "draft", **row})
    return rows


def _note_time(times: list[float], _draft: Any) -> None:
    times.append(time.process_time())


def start() -> list[Row]:
    """Programs in processes of their own, beside imports of what they are made of."""
    import MedEnhanceLib as me  # noqa: N813 - as users write it

    with tempfile.TemporaryDirectory() as folder:
        volume, scan = head_mr().crop(slice(0, 8)), f"{folder}/scan.nii.gz"
        me.save(volume, scan)
        programs = {f"import {name}": f"import {name}" for name in ("numpy", "torch")}
        programs |= {"import": "import MedEnhanceLib"}
        main = "from MedEnhanceLib.cli.main import main; main({})".format
        programs |= {"--help": main(["--help"]), "noise of 8 slices": main(["noise", scan])}
        about = {"volume": volume.source}
        return [about | {"arm": arm, "cpu_s": _cpu_of(code)} for arm, code in programs.items()]


def one_slice() -> list[Row]:
    """A slice out of a CT that was stored without loss, by us and as JPEG XL of single slices."""
    import imagecodecs

    import MedEnhanceLib as me  # noqa: N813 - as users write it

    volume = tiled_ct(min(64, _SLICES))
    place = len(volume.voxels) // 2
    plane = (volume.voxels[place].astype(np.int32) + 4096).astype(np.uint16)
    code = imagecodecs.jpegxl_encode(plane, lossless=True, effort=7, numthreads=1)
    with tempfile.TemporaryDirectory() as folder:
        path, region = f"{folder}/a.ucv", (slice(place, place + 1),)
        me.compress(volume, path, lossless=True)
        arms: dict[str, Callable[[], Any]] = {
            "ours": partial(me.decompress, path, region=region),
            "JPEG XL effort 7": partial(imagecodecs.jpegxl_decode, code, numthreads=1),
        }
        seconds = {arm: min(timed(work)[2] for _ in range(_TURNS)) for arm, work in arms.items()}
    about = {"volume": volume.source}
    return [about | {"arm": arm, "cpu_s": round(cpu, 4)} for arm, cpu in seconds.items()]


#: Each case, and its threads.
_CASES: dict[str, tuple[Callable[[], list[Row]], int]] = {
    "whole volume": (whole_volume, _THREADS),
    "few slices": (few_slices, 1),
    "preview": (preview, 1),
    "head": (head, _THREADS),
    "diffusion": (diffusion, _THREADS),
    "large diffusion": (large_diffusion, _THREADS),
    "peers": (peers, _THREADS),
    "start": (start, 1),
    "one slice": (one_slice, 1),
    "thin slices": (thin_slices, _THREADS),
}


def case_rows(name: str, width: native.Width) -> list[Row]:
    """Rows of a case at a vector width, which replaces the widest in this process."""
    library = native.Library(native.require(__name__).path, width)
    native.find = lambda _folder: (library, f"compiled, {width}")  # type: ignore[assignment]
    case, threads = _CASES[name]
    which = {"width": width, "processor": machine().partition(",")[0], "commit": commit()}
    return [{"case": name, **which, "threads": threads, **row} for row in case()]


def earlier_rows(widths: list[native.Width]) -> list[Row]:
    """Rows of the table that were measured at other vector widths, each of its own commit."""
    path = RESULTS / "speed.json"
    rows: list[Row] = json.loads(path.read_bytes())["rows"] if path.is_file() else []
    return [row for row in rows if row["width"] not in widths]


# --- how ------------------------------------------------------------------------------------------


def _enhance(volume: Any, **fields: Any) -> Row:
    """Enhance a volume; times_floor is of a slice, over the floor of a slice of CT."""
    import MedEnhanceLib as me  # noqa: N813 - as users write it

    before, floor = _peak_gib(), floor_s(SIDE)
    result, wall, cpu = timed(lambda: me.enhance(volume, device="cpu", **fields))
    floor = (floor + floor_s(SIDE)) / 2
    return {
        "volume": volume.source,
        "voxels": "×".join(map(str, volume.shape)),
        "slices_after": result.volume.shape[-3],
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 1),
        "floor_s": round(floor, 4),
        "times_floor": round(cpu / floor / len(volume.voxels), 4),
        "peak_gib": round(_peak_gib(), 2),
        "peak_gib_before": round(before, 2),
    }


def floor_s(side: int) -> float:
    """Measure the CPU seconds of one thread that SGEMM needs for the products of a slice of CT."""
    from MedEnhanceLib.runtime.machine import blas_on_one_thread

    a = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    with blas_on_one_thread:
        cpu = statistics.median(timed(lambda: a @ a)[2] for _ in range(15))
    return cpu / len(a) ** 3 * products(side)


@cache
def products(side: int) -> float:
    """Count the multiplications of both networks of the model ct for a slice of side² pixels."""
    from MedEnhanceLib.bundles.store import open_bundle
    from MedEnhanceLib.denoise.bundle import set_weights
    from MedEnhanceLib.denoise.config import STEP
    from MedEnhanceLib.denoise.groups import network_of
    from MedEnhanceLib.scanner.corrector.slice_corrector import open_view_network

    bundle, count = open_bundle("ct", kind="enhancer", modality="CT"), 0.0
    for name, weight in open_view_network(bundle).named_parameters():
        if weight.ndim == 4:
            part, *rest = name.split(".")
            level = int(rest[0]) if rest[0].isdigit() else 0
            level += part in ("shrink", "grow")  # the lower of the two that it joins
            count += weight.numel() * (side >> level) ** 2
    guided = network_of(set_weights(bundle))
    groups, config = (side / STEP) ** 2 / STEP, guided.config
    for name, weight in guided.network.named_parameters():
        if weight.ndim == 2:
            rows = {"mix": config.width, "group.weight": 1}  # others: for each block of a group
            key = name if name in rows else name.rpartition(".")[2]
            count += weight.numel() * groups * rows.get(key, config.blocks)
    return count


def _cpu_of(code: str) -> float:
    """Measure the CPU seconds of a Python in a process of its own, the least of some turns."""
    seconds = []
    for _ in range(_TURNS):
        before = sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        seconds.append(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]) - before)
    return round(min(seconds), 3)


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- goals ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Judge the slowest processor; rows of other widths may be older, and lack a figure."""

    def figure(field: str, over: float = 1.0, **which: str) -> float | None:
        found = [row[field] for row in rows if which.items() <= row.items() and field in row]
        return round(max(found) / over, 3) if found else None

    ratios = [figure("times_floor", width=width, case="few slices") for width in ("avx2", "avx512")]
    ratios += [
        figure("times_floor", _BEFORE[case] * goal, width="avx2", case=case)
        for case, goal in (("head", 0.7), ("thin slices", 0.3))
    ]
    name = (
        f"without AMX, CPU s over the goals of CT 512×512×{_FEW} (the floor), head and thin slices "
        "(.7 and .3 of the time before Winograd's method), the largest"
    )
    why = (
        "a head is filtered at the rate of the processor's multiply-adds, with fewer to be left out"
    )
    yield at_most(name, most(ratios), 1, why)
    large = [
        figure("cpu_s", 75, width="amx", case="whole volume"),
        figure("cpu_s", 60, case="large diffusion"),
    ]
    size = "×".join(map(str, _LARGE_DWI))
    name = f"CT 512×512×300, AMX, and diffusion {size}: CPU s over 75 and 60, the larger"
    yield at_most(name, most(large), 1, "no machine with AMX was at hand since it was measured")
    yield at_most("CT 512×512×300: peak GiB", figure("peak_gib", case="whole volume"), 1.5)
    waits = [
        figure("first_cpu_s", 2.5, model="ct", seen="region"),
        figure("first_cpu_s", 2.0, model="mr", seen="region"),
        figure("draft_cpu_s", 1.5, seen="draft"),
        figure("cpu_s", 0.1, case="one slice", arm="ours"),
    ]
    name = (
        "what is in sight first of CT and MR, a draft of it, a slice of a lossless CT, one thread: "
        "CPU s over 2.5, 2, 1.5 and .1, the largest"
    )
    cone = (
        "a slice depends on a cone of slices through all stages of filter and networks, and in a "
        "file on those before it in its block; a draft is there at once"
    )
    yield at_most(name, most(waits), 1, cone)


if __name__ == "__main__":
    run("speed", __doc__, parts, gates_of, seeds=[0], child=case_rows)

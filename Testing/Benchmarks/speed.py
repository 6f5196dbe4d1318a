"""How fast volumes are enhanced, and in how much memory.

    python Testing/Benchmarks/speed.py    CT of 512×512×300, MR of 256×256×160

Every case runs in a process of its own, so that peaks of memory are its own. Cases that are
compared run one after another in one process, in turns. Time on a CPU is reported as wall time and
as CPU time, since wall time on a busy machine says more of the machine.

Networks take several times as long on a processor without AMX: rows say the vector width, and those
that were measured at another width stay in the table.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from _common import (
    QUICK,
    RESULTS,
    SHARED_DATA,
    Gate,
    Part,
    Row,
    at_most,
    commit,
    in_child,
    machine,
    run,
    timed,
)

from MedEnhanceLib import native

_SIDE, _SLICES = (64, 4) if QUICK else (512, 300)
#: Slices of the head that peers get: BM4D takes minutes for all.
_PEERS = 8 if QUICK else 40
_HEAD = (8, 64, 64) if QUICK else (160, 256, 256)
#: Slices of the head that make one, in thin slices.
_THICK = 4
_THREADS = 2
#: Rows and columns of a slice that are in sight at first.
_REGION = 128


def parts() -> Iterator[Part]:
    for name in _CASES:
        if QUICK and name == "thin slices":  # its network learns from the volume first
            continue
        yield name, lambda name=name: in_child(case_rows, name, threads=_THREADS)
    if not QUICK:
        yield "at other widths", earlier_rows


# --- cases ----------------------------------------------------------------------------------------


def whole_volume() -> list[Row]:
    """A CT from its voxels to the enhanced voxels, as the library does it."""
    return [_enhance(tiled_ct(_SLICES))]


def head() -> list[Row]:
    """An MR of a head, likewise."""
    return [_enhance(_mr())]


def diffusion() -> list[Row]:
    """A real diffusion scan, by all of its frames."""
    from _sequence_data import DWI, opened

    return [_enhance(opened(DWI))]


def thin_slices() -> list[Row]:
    """The head of slices four times as thick, restored."""
    mr = _mr()
    thick = mr.voxels.reshape(-1, _THICK, *_HEAD[1:]).mean(1).astype(np.int16)
    return [_enhance(replace(mr, voxels=thick, geometry=_geometry(_THICK)), task="slices")]


def peers() -> list[Row]:
    """A slab of the head by others, in one process, each once, as in the table of enhancement."""
    from _enhancement_peers import bm4d_mr, nlm_mr

    volume = _mr()
    first = (_HEAD[0] - _PEERS) // 2
    slab = replace(volume, voxels=volume.voxels[first : first + _PEERS])
    _enhance(slab)  # loads what is needed
    arms: dict[str, Callable[[], Any]] = {
        "NLM": lambda: nlm_mr(slab), "ours": lambda: _enhance(slab),
    }  # fmt: skip
    if find_spec("bm4d"):
        arms["BM4D"] = lambda: bm4d_mr(slab)
    return [{"arm": name, "cpu_s": round(timed(work)[2], 2)} for name, work in arms.items()]


def preview() -> list[Row]:
    """The first slice that is shown of each, and what is in sight of it, on one thread."""
    import torch

    from MedEnhanceLib.hqg import EnhanceConfig, enhance

    torch.set_num_threads(1)
    rows = []
    for model, volume in (("ct", tiled_ct(_SLICES)), ("mr", _mr())):
        config = EnhanceConfig(model=model, device="cpu")
        enhance(replace(volume, voxels=volume.voxels[:2]), config)
        place, half = len(volume.voxels) // 2, min(volume.shape[1] // 2, _REGION // 2)
        middle = volume.shape[1] // 2
        seen = (middle - half, middle + half)
        for name, region in (("slice", {}), ("region", {"rows": seen, "columns": seen})):
            part = {"slices": (place, place + 1), **region}
            _, wall, cpu = timed(partial(enhance, volume, config, **part))
            row = {"first_wall_s": round(wall, 2), "first_cpu_s": round(cpu, 2)}
            rows.append({"model": model, "seen": name, **row})
    return rows


_CASES: dict[str, Callable[[], list[Row]]] = {
    "whole volume": whole_volume,
    "preview": preview,
    "head": head,
    "diffusion": diffusion,
    "peers": peers,
    "thin slices": thin_slices,
}


def case_rows(name: str) -> list[Row]:
    """Rows of a case."""
    which = {"width": native.require(__name__).width, "processor": machine().partition(",")[0]}
    return [{"case": name, **which, "commit": commit(), **row} for row in _CASES[name]()]


def earlier_rows() -> list[Row]:
    """Rows of the table that were measured at other vector widths, each of its own commit."""
    path, width = RESULTS / "speed.json", native.require(__name__).width
    rows: list[Row] = json.loads(path.read_bytes())["rows"] if path.is_file() else []
    return [row for row in rows if row["width"] != width]


# --- how ------------------------------------------------------------------------------------------


def _enhance(volume: Any, **fields: Any) -> Row:
    import MedEnhanceLib as me  # noqa: N813 - as users write it

    before = _peak_gib()
    result, wall, cpu = timed(lambda: me.enhance(volume, device="cpu", **fields))
    return {
        "voxels": "×".join(map(str, volume.shape)),
        "slices_after": result.volume.shape[-3],
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 1),
        "peak_gib": round(_peak_gib(), 2),
        "peak_gib_before": round(before, 2),
        "threads": _THREADS,
    }


def _mr() -> Any:
    """A real MR mirrored and tiled, or shapes with noise on them."""
    return _volume("mr/studyforrest/T1.nii.gz", "MR", _HEAD, 0.0)


def tiled_ct(slices: int) -> Any:
    """[slices, 512, 512] int16: a real CT mirrored and tiled, or shapes, with noise on it."""
    return _volume("ct/abdomen/CT.nii.gz", "CT", (slices, _SIDE, _SIDE), 20.0)


def _volume(path: str, modality: str, shape: tuple[int, int, int], noise: float) -> Any:
    from MedEnhanceLib.core.volume import Volume
    from MedEnhanceLib.io import load

    rng = np.random.default_rng(0)
    if (SHARED_DATA / path).is_file():
        real = load(SHARED_DATA / path, modality=modality).voxels
        missing = [(0, max(0, size - have)) for size, have in zip(shape, real.shape, strict=True)]
        voxels = np.pad(real, missing, mode="symmetric")[: shape[0], : shape[1], : shape[2]]
        voxels = voxels.astype(np.int16)
    else:
        j, i = np.mgrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
        plane = np.where(j**2 + i**2 < 0.7, 40 + 100 * np.sin(9 * i) * np.cos(7 * j), -1000)
        voxels = np.repeat(plane[None].astype(np.int16), shape[0], axis=0)
        noise = 20.0
    for plane in voxels:
        plane += rng.normal(0, noise, plane.shape).astype(np.int16)
    return Volume(voxels, _geometry(1.0), modality=modality, source="benchmark")


def _geometry(thickness: float) -> Any:
    from MedEnhanceLib.core.geometry import Geometry

    return Geometry((0.8, 0.8, thickness))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- goals ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Judge the slowest processor."""

    def most(field: str, **which: str) -> float:
        return max(row[field] for row in rows if which.items() <= row.items())

    head, whole = most("cpu_s", case="head"), most("cpu_s", case="whole volume")
    why = (
        "without AMX the networks take most of the time, one and a half to two times as long as "
        "their arithmetic; with it work of NumPy between the stages takes a quarter"
    )
    name = "CT 512×512×300 and MR 256×256×160: CPU s over 75 and 15, the larger"
    yield at_most(name, max(whole / 75, head / 15), 1, why)
    peak = most("peak_gib", case="whole volume")
    yield at_most("CT 512×512×300: peak GiB", peak, 1.5)
    name = "what is in sight first of both, one thread: CPU s over 2.5 and 2, the larger"
    why = (
        "a slice depends on a cone of slices through all stages of filter and networks, which take "
        "most of the time; measuring the noise takes a few percent"
    )
    shown = [most("first_cpu_s", model=model, seen="region") for model in ("ct", "mr")]
    yield at_most(name, max(shown[0] / 2.5, shown[1] / 2), 1, why)


if __name__ == "__main__":
    run("speed", __doc__, parts, gates_of, seeds=[0], child=case_rows)

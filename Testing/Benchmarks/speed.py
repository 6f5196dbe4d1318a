"""How much processor time volumes take, and how much memory.

    python Testing/Benchmarks/speed.py    CT of 512×512×300, MR of 256×256×160

Every case runs in a process of its own, so that peaks of memory are its own, on one thread with
vectors of AVX2, which most people have. Cases that are compared run one after another in one
process. CPU time is reported, since wall time on a busy machine says more of the machine.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

from _common import QUICK, Gate, Part, Row, at_most, in_child, most, run, timed
from _speed_volumes import HEAD, diffusion_scan, head_mr, thick_head, tiled_ct

from MedEnhanceLib import native

_SLICES = 4 if QUICK else 300
#: Slices of the head that peers get: BM4D takes minutes for all.
_PEERS = 8 if QUICK else 20
#: Slices of the head that make one, in thin slices.
_THICK = 4
#: Rows and columns of a slice that are in sight at first.
_REGION = 128
#: What makes all libraries use this width.
_WIDTH: native.Width = "avx2"
_AS_NARROW = {
    "OPENBLAS_CORETYPE": "Haswell",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
}


def parts() -> Iterator[Part]:
    for name in _CASES:
        if QUICK and name == "thin slices":  # its network learns from the volume first
            continue
        yield name, partial(in_child, case_rows, name, threads=1, **_AS_NARROW)


# --- cases ----------------------------------------------------------------------------------------


def whole_volume() -> list[Row]:
    """A CT from its voxels to the enhanced voxels, as the library does it."""
    return [_enhance(tiled_ct(_SLICES))]


def head() -> list[Row]:
    """An MR of a head, likewise."""
    return [_enhance(head_mr())]


def diffusion() -> list[Row]:
    """A real diffusion scan, by all of its frames."""
    return [_enhance(diffusion_scan((42, 18, 102, 102)))]


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
    """The first slice that is shown of each, and what is in sight of it.

    Then a draft of that, in a volume that was measured.
    """
    from MedEnhanceLib.denoise import EnhanceConfig, VolumeCache, enhance, measure

    rows, config = [], EnhanceConfig()
    for volume in (tiled_ct(_SLICES), head_mr()):
        enhance(replace(volume, voxels=volume.voxels[:2]), config)
        place, half = len(volume.voxels) // 2, min(volume.shape[1] // 2, _REGION // 2)
        middle = volume.shape[1] // 2
        seen = (middle - half, middle + half)
        about = {"volume": volume.source, "modality": volume.modality}
        for name, region in (("slice", {}), ("region", {"rows": seen, "columns": seen})):
            part = {"slices": (place, place + 1), **region}
            cpu = timed(partial(enhance, volume, config, **part))[2]
            rows.append({**about, "seen": name, "cpu_s": round(cpu, 2)})
        cache, times = VolumeCache(), list[float]()
        measure(volume, config, cache=cache)
        times.append(time.process_time())
        note = partial(_note_time, times)
        enhance(volume, config, cache=cache, on_draft=note, **part)
        rows.append({**about, "seen": "draft", "cpu_s": round(times[1] - times[0], 2)})
    return rows


def _note_time(times: list[float], _draft: Any) -> None:
    times.append(time.process_time())


_CASES: dict[str, Callable[[], list[Row]]] = {
    "whole volume": whole_volume,
    "preview": preview,
    "head": head,
    "diffusion": diffusion,
    "peers": peers,
    "thin slices": thin_slices,
}


def case_rows(name: str) -> list[Row]:
    """Rows of a case at the vector width, which replaces the widest in this process."""
    library = native.Library(native.require(__name__).path, _WIDTH)
    native.find = lambda _folder: (library, f"compiled, {_WIDTH}")  # type: ignore[assignment]
    return [{"case": name, **row} for row in _CASES[name]()]


# --- how ------------------------------------------------------------------------------------------


def _enhance(volume: Any, **fields: Any) -> Row:
    import MedEnhanceLib as me  # noqa: N813 - as users write it

    before = _peak_gib()
    result, _, cpu = timed(lambda: me.enhance(volume, **fields))
    return {
        "volume": volume.source,
        "voxels": "×".join(map(str, volume.shape)),
        "slices_after": result.volume.shape[-3],
        "cpu_s": round(cpu, 1),
        "peak_gib": round(_peak_gib(), 2),
        "peak_gib_before": round(before, 2),
    }


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# --- goals ----------------------------------------------------------------------------------------


def gates_of(rows: list[Row]) -> Iterator[Gate]:
    """Judge memory, and what is waited for first."""

    def figure(field: str, over: float = 1.0, **which: str) -> float | None:
        known = [row[field] for row in rows if which.items() <= row.items() and field in row]
        return round(max(known) / over, 3) if known else None

    yield at_most("CT 512×512×300: peak GiB", figure("peak_gib", case="whole volume"), 1.5)
    waits = [
        figure("cpu_s", 2.5, modality="CT", seen="region"),
        figure("cpu_s", 2.0, modality="MR", seen="region"),
        figure("cpu_s", 1.5, seen="draft"),
    ]
    name = (
        "what is in sight first of CT and MR, and a draft of it: CPU s over 2.5, 2 and "
        "1.5, the largest"
    )
    yield at_most(name, most(waits), 1, "the noise of the volume is measured first")


if __name__ == "__main__":
    run("speed", __doc__, parts, gates_of, seeds=[0], child=case_rows)

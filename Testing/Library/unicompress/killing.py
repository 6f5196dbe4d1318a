"""Writers that are killed, and disks that are full: what is left in the folder afterwards.

    python killing.py kill FOLDER POINTS SEED     SIGKILL at random points of the program
    python killing.py full FOLDER POINTS SEED     a limit on the size of any file, as a full disk

One line of JSON for each point. The writer is a forked child that kills itself (see `forked`). A
program of its own, because it forks.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from Library.forked import count_events, exit_status
from Library.unicompress.conftest import noisy_waves

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError, OutputError
from MedEnhanceLib.unicompress import CompressConfig, compress, decompress

MODES: dict[str, dict[str, Any]] = {
    "lossless": {"lossless": True},
    "max_error": {"max_error": 2.0},
    "ratio": {"ratio": 5.0},
}
OLD = b"what was there before"
TEMPORARY = ".medenhance-"


def writers(volume: Volume, folder: Path) -> dict[str, tuple[Path, Callable[[], object]]]:
    """Name → the file that it writes, and what writes it."""
    paths = {name: folder / f"{name}.ucv" for name in MODES}
    configs = {name: CompressConfig(threads=1, **mode) for name, mode in MODES.items()}
    return {
        name: (path, partial(compress, volume, path, configs[name], overwrite=True))
        for name, path in paths.items()
    }


def main() -> None:
    """Run all points; a line for each."""
    what, place, points, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    folder = place / "work"
    folder.mkdir(parents=True)
    volume = Volume(noisy_waves((14, 40, 36)), modality="CT", units="HU")
    dice = random.Random(seed)
    before = volume.voxels.tobytes()
    known = writers(volume, folder)
    events = {}
    for name, (_, write) in known.items():
        write()  # the first time, much is imported
        events[name] = count_events(write)
    for point in range(points):
        name = sorted(known)[point % len(known)]
        path, write = known[name]
        shutil.rmtree(folder)
        folder.mkdir()
        exists = dice.random() < 0.5
        if exists:
            path.write_bytes(OLD)
        if what == "kill":
            event = dice.randrange(1, events[name])
            killed = exit_status(write, after=event) == -signal.SIGKILL
            outcome: dict[str, Any] = {"event": event, "killed": killed}
        else:
            outcome = _limited(write, dice.randrange(1000, 16_000))
            # Without the folder, which is another one in each run.
            outcome["says"] = outcome["says"].replace(f"{folder}{os.sep}", "")
        outcome |= _look(folder, path, exists, volume)
        outcome["source"] = "same" if volume.voxels.tobytes() == before else "changed"
        print(json.dumps({"writer": name, "exists": exists, **outcome}), flush=True)


def _limited(write: Callable[[], object], most: int) -> dict[str, Any]:
    """No file may grow beyond `most` bytes: a write past it fails as on a full disk."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        try:
            write()
            says = "written"
        except OutputError as error:
            says = f"OutputError: {error.message}"
        except BaseException as error:  # noqa: BLE001 - reported, whatever it is
            says = f"{type(error).__name__}: {error}"
        os.write(writing, says.encode()[:4000])
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as stream:
        return {"limit": most, "says": stream.read().decode(), "crashed": bool(status)}


def _look(folder: Path, path: Path, exists: bool, volume: Volume) -> dict[str, Any]:
    """What lies at `path`: "old", "new" (whole and readable), "none" or "broken"; and litter."""
    names = [entry.name for entry in folder.iterdir() if entry != path]
    if not path.exists():
        state = "broken" if exists else "none"
    elif exists and path.read_bytes() == OLD:
        state = "old"
    else:
        state = "new" if _is_whole(path, volume) else "broken"
    temporary = [name for name in names if name.startswith(TEMPORARY)]
    return {"target": state, "temporary": len(temporary), "litter": len(names) - len(temporary)}


def _is_whole(path: Path, volume: Volume) -> bool:
    try:
        back = decompress(path)
    except MedEnhanceError:
        return False
    is_lossy = path.stem != "lossless"
    return back.shape == volume.shape and (is_lossy or np.array_equal(back.voxels, volume.voxels))


if __name__ == "__main__":
    main()

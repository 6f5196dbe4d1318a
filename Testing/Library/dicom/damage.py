"""Damages real files at random and reads them; prints what came of it as one line of JSON.

python -m Library.dicom.damage SEED CASES
"""

from __future__ import annotations

import faulthandler
import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
from Library.dicom.images import of_every_syntax

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.io.dicom.load import load_dicom
from MedEnhanceLib.runtime.progress import Monitor

#: Seconds that one file of a few kilobytes may take before it counts as a hang.
_SLOWEST = 20.0
_MARKED = 132
_SIZES = (1, 2, 4, 16, 128, 512)


def damaged(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """The content with damage of one kind at a random place; half of it lies in the header."""
    data = bytearray(content)
    pixels = max(data.rfind(b"\xe0\x7f\x10\x00"), data.rfind(b"\x7f\xe0\x00\x10"))
    end = pixels if pixels > _MARKED and draw.random() < 0.5 else len(data)
    start = draw.randrange(_MARKED, end)
    stop = min(start + draw.choice(_SIZES), len(data))
    kind = draw.choice(("flip", "digit", "cut", "cut out", "zero", "overwrite", "repeat", "splice"))
    if kind == "flip":
        data[start] ^= 1 << draw.randrange(8)
    elif kind == "digit":
        digits = [at for at in range(_MARKED, end) if 48 <= data[at] < 58]
        data[draw.choice(digits or [start])] = draw.choice(b"0123456789.-eE ")
    elif kind == "cut":
        del data[start:]
    elif kind == "cut out":
        del data[start:stop]
    elif kind == "zero":
        data[start:stop] = bytes(stop - start)
    elif kind == "overwrite":
        data[start:stop] = draw.randbytes(stop - start)
    elif kind == "repeat":
        data[start:start] = data[start:stop]
    else:
        data[start:] = other[draw.randrange(len(other)) :]
    return bytes(data)


def verdict(content: bytes, original: Volume, file: Path) -> str:
    """What came of a damaged file: error, original or other; else what is wrong."""
    file.write_bytes(content)
    began = time.monotonic()
    try:
        volume = load_dicom(file, monitor=Monitor())
    except MedEnhanceError:
        volume = None
    except Exception as wrong:  # noqa: BLE001 - whatever it is, it is the finding
        return f"raised {type(wrong).__name__}: {wrong}"
    if time.monotonic() - began > _SLOWEST:
        return f"took {time.monotonic() - began:.0f} s"
    if volume is None:
        return "error"
    if np.array_equal(volume.voxels, original.voxels) and volume.geometry == original.geometry:
        return "original"
    if not np.isfinite(volume.voxels.astype(np.float64)).all():
        return "gave voxels that are no numbers"
    return "other"


def main(seed: int, cases: int) -> dict[str, object]:
    faulthandler.enable()
    warnings.simplefilter("ignore")
    images = of_every_syntax()
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.dcm"
        originals = []
        for image in images:
            file.write_bytes(image.content)
            originals.append(load_dicom(file, monitor=Monitor()))
        for case in range(cases):
            faulthandler.cancel_dump_traceback_later()
            faulthandler.dump_traceback_later(_SLOWEST * 4, exit=True)
            draw = random.Random(f"{seed} {case}")
            which = case % len(images)
            content = damaged(images[which].content, draw.choice(images).content, draw)
            found = verdict(content, originals[which], file)
            counts[found] += 1
            if found not in ("error", "original", "other"):
                wrong.append(f"{case} {images[which].name}: {found}")
    faulthandler.cancel_dump_traceback_later()
    return {"counts": dict(counts), "wrong": wrong}


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))

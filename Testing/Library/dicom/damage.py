"""Damages real files at random and reads them; prints what came of it as one line of JSON.

python -m Library.dicom.damage SEED CASES [ONLY]: ONLY is the number of one case, to look into it.
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
from collections.abc import Callable
from pathlib import Path

import numpy as np
from Library.dicom.images import Image, of_every_syntax

from MedEnhanceLib.core.volume import Volume
from MedEnhanceLib.errors import MedEnhanceError
from MedEnhanceLib.io.dicom import load_dicom
from MedEnhanceLib.runtime.progress import Monitor

#: Seconds that one file of a few kilobytes may take before it counts as a hang.
_SLOWEST = 20.0
_MARKED = 132


# ------------------------------------------------------------ damage


def flip(content: bytearray, draw: random.Random, _other: bytes) -> None:
    for _ in range(draw.choice((1, 1, 1, 2, 8))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def flip_header(content: bytearray, draw: random.Random, _other: bytes) -> None:
    content[draw.randrange(_MARKED, max(_pixels_at(content), _MARKED + 1))] ^= 1 << draw.randrange(
        8
    )


def cut(content: bytearray, draw: random.Random, _other: bytes) -> None:
    del content[draw.randrange(len(content)) :]


def cut_out(content: bytearray, draw: random.Random, _other: bytes) -> None:
    start = draw.randrange(len(content))
    del content[start : start + draw.choice((1, 2, 4, 8, 100, 512))]


def zero(content: bytearray, draw: random.Random, _other: bytes) -> None:
    start = draw.randrange(len(content))
    end = min(start + draw.choice((1, 2, 4, 16, 128, 512)), len(content))
    content[start:end] = bytes(end - start)


def overwrite(content: bytearray, draw: random.Random, _other: bytes) -> None:
    start = draw.randrange(len(content))
    end = min(start + draw.choice((1, 2, 4, 16, 128)), len(content))
    content[start:end] = draw.randbytes(end - start)


def repeat(content: bytearray, draw: random.Random, _other: bytes) -> None:
    start = draw.randrange(len(content))
    content[start:start] = content[start : start + draw.choice((1, 2, 4, 16, 512))]


def change_digit(content: bytearray, draw: random.Random, _other: bytes) -> None:
    digits = [at for at in range(_MARKED, _pixels_at(content)) if 48 <= content[at] < 58]
    if digits:
        content[draw.choice(digits)] = draw.choice(b"0123456789.-eE ")


def splice(content: bytearray, draw: random.Random, other: bytes) -> None:
    content[draw.randrange(len(content)) :] = other[draw.randrange(len(other)) :]


_DAMAGES: tuple[Callable[[bytearray, random.Random, bytes], None], ...] = (
    flip, flip_header, flip_header, flip_header, cut, cut_out, zero, overwrite, repeat,
    change_digit, splice,
)  # fmt: skip


def _pixels_at(content: bytes) -> int:
    found = max(content.rfind(b"\xe0\x7f\x10\x00"), content.rfind(b"\x7f\xe0\x00\x10"))
    return found if found > _MARKED else len(content)


# ------------------------------------------------------------ the verdict


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


def main(seed: int, cases: int, only: int | None = None) -> dict[str, object]:
    faulthandler.enable()
    faulthandler.dump_traceback_later(_SLOWEST * 4, exit=True)
    warnings.simplefilter("ignore")
    images = of_every_syntax()
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        originals = [_original(image, Path(folder) / "original.dcm") for image in images]
        file = Path(folder) / "damaged.dcm"
        for case in range(cases) if only is None else [only]:
            faulthandler.cancel_dump_traceback_later()
            faulthandler.dump_traceback_later(_SLOWEST * 4, exit=True)
            draw = random.Random(f"{seed} {case}")
            which = case % len(images)
            damage = draw.choice(_DAMAGES)
            content = bytearray(images[which].content)
            damage(content, draw, draw.choice(images).content)
            found = verdict(bytes(content), originals[which], file)
            if only is not None:
                Path("damaged.dcm").write_bytes(content)
            if found not in ("error", "original", "other"):
                wrong.append(f"{case} {images[which].name}, {damage.__name__}: {found}")
                found = "wrong"
            counts[found] += 1
            counts[f"{damage.__name__} {found}"] += 1
    faulthandler.cancel_dump_traceback_later()
    return {"counts": dict(counts), "wrong": wrong}


def _original(image: Image, file: Path) -> Volume:
    file.write_bytes(image.content)
    return load_dicom(file, monitor=Monitor())


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))

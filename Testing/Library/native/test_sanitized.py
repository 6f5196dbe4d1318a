"""The compiled codec under the sanitizers: no stream makes it read or write where it must not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from MedEnhanceLib.native import build

_CHILD = """
import sys
from pathlib import Path
import numpy as np
from MedEnhanceLib import native
from MedEnhanceLib.unicompress.codecs.predictor import coder, learned
from MedEnhanceLib.unicompress.models import shipped_model

path = Path(sys.argv[1])
network = learned.network_of(shipped_model("predictor", "CT"))
rng = np.random.default_rng(0)
cases = 0
for width in native.Library(path).widths:
    library = native.Library(path, width)
    native.require = lambda *_: library
    for shape in ((1, 2, 2), (1, 40, 3), (3, 2, 50), (5, 9, 4), (9, 33, 31)):
        for top in (1, 300, 65535):
            block = np.minimum(np.abs(rng.normal(0, top / 3, shape)), top).astype(np.uint16)
            block[:, shape[1] // 2 :] = 0
            data = coder.encode_block(block, network)
            again = coder.decode_block(data, shape, network)
            assert np.array_equal(again, block)
            for _ in range(40):
                forged = bytearray(data)
                for at in rng.integers(0, len(data), 4):
                    forged[at] = rng.integers(256)
                end = len(data) if rng.random() < 0.7 else int(rng.integers(0, len(data)))
                try:
                    coder.decode_block(bytes(forged[:end]), shape, network)
                except (ValueError, IndexError, ArithmeticError, __import__("struct").error):
                    pass
                cases += 1
print(cases)
"""


@pytest.mark.slow
def test_no_stream_leads_out_of_the_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gcc = shutil.which("gcc")
    if gcc is None or sys.platform != "linux":
        pytest.skip("gcc on Linux is needed")
    libraries = [
        subprocess.run(
            [gcc, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(Path(library).is_absolute() for library in libraries):
        pytest.skip("gcc has no sanitizers here")
    checks = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g"]
    # The other part reads no file, and takes minutes to compile so.
    monkeypatch.setattr(build, "KERNELS", {"predictor.c": build.KERNELS["predictor.c"]})
    made = build.build(tmp_path, compiler=[gcc, *checks])
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(made)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 600

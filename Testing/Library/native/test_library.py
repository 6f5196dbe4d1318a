"""The compiled library: built, found, missing; no stream leads out of its arrays."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from Library.conftest import WarningRecorder

from MedEnhanceLib import native
from MedEnhanceLib.native import build
from MedEnhanceLib.runtime.progress import Event, Monitor


def test_the_library_of_this_machine_is_found_and_described(native_path: Path) -> None:
    library = native.load(native_path.parent)
    assert "plain" in library.widths and library.width == library.widths[-1]
    assert native.describe(native_path.parent).startswith("compiled, ")


@pytest.mark.parametrize("damage", ["cut short", "of other sources"])
def test_a_damaged_or_older_library_is_not_used(
    tmp_path: Path, native_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    names = [native_path, native_path.with_suffix(".sha256"), build.HERE / "build.json"]
    for file in (*names, *build.HERE.glob("*.[ch]")):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(build, "HERE", tmp_path)
    native.Library(tmp_path / build.FILE)
    if damage == "cut short":
        (tmp_path / build.FILE).write_bytes(native_path.read_bytes()[:-3000])
    else:
        (tmp_path / "grouped.c").write_text("/* as after a pull */\n")
    assert native.load(tmp_path) is None
    assert "is damaged or older than its sources" in native.describe(tmp_path)
    if damage == "of other sources":  # as if CMake had built it from them
        assert build.main(["--digest", str(tmp_path / build.FILE)]) == 0
        native.Library(tmp_path / build.FILE)


def test_the_library_for_windows_is_of_these_sources_and_has_all_functions(
    tmp_path: Path, native_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a change in C: python -m MedEnhanceLib.native.build --windows."""
    shipped = build.HERE / "windows" / "medenhance_native.dll"
    library = shipped.read_bytes()
    assert shipped.with_suffix(".sha256").read_text().strip() == build.digest(shipped)
    assert shipped.with_suffix(".log").read_text("utf-8") == build.windows_log(shipped)
    assert library[:2] == b"MZ"
    at = int.from_bytes(library[0x3C:0x40], "little")
    assert library[at : at + 6] == b"PE\0\0\x64\x86"  # of x86_64
    for name in ("grouped", "threshold", "means", "predict", "pack", "filter_sums"):
        for width in native.WIDTHS:
            assert f"\0native_{name}_{width}\0".encode() in library
    systems = re.findall(rb"[\w.-]+\.dll", library.lower())
    assert all(each.startswith((b"api-ms-win-crt-", b"kernel32", b"medenh")) for each in systems)
    # It is found where none was built.
    (tmp_path / "windows").mkdir()
    for file in (native_path, native_path.with_suffix(".sha256")):
        shutil.copy(file, tmp_path / "windows")
    assert native.load(tmp_path) is not None
    assert build.library(tmp_path).parent.name == "windows"


def test_work_without_a_library_says_so_once_where_nobody_listens(
    tmp_path: Path, recorder: WarningRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    for monitor in (recorder.monitor, Monitor(), None):
        native.load(tmp_path, builds=False, monitor=monitor)
    (logged,) = caplog.records
    assert (logged.name, [logged.getMessage()]) == ("medenhance", recorder.warnings)
    assert "noise cannot be removed" in logged.getMessage()
    assert native.load(tmp_path, builds=False) is None
    assert logged.getMessage().endswith("python -P -m MedEnhanceLib.native.build")


def test_a_machine_without_compiler_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "compilers", lambda: iter(()))
    assert build.main(["--folder", str(tmp_path)]) == 1
    assert "python -m pip install ziglang" in capsys.readouterr().err
    assert "ziglang && python -P -m MedEnhanceLib.native.build" in native.describe(tmp_path)


def test_the_package_ziglang_builds_a_missing_library_at_its_first_use(
    tmp_path: Path, native_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(folder: Path, *, compiler: list[str]) -> None:
        assert compiler[1:] == ["-m", "ziglang", "cc"]
        for file in (native_path, native_path.with_suffix(".sha256")):
            shutil.copy(file, folder)

    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: None)
    assert native.load(tmp_path) is None
    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(build, "build", copy)
    events: list[Event] = []
    assert native.load(tmp_path, monitor=Monitor(events.append)) is not None
    stages = [event.fields["stage"] for event in events]
    assert stages == ["building the fast library, once: about a minute"]


def test_a_build_by_ziglang_that_fails_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[Path] = []

    def fail(folder: Path, *, compiler: list[str]) -> None:
        tried.append(folder)
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(native.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(build, "build", fail)
    assert [native.load(tmp_path), native.load(tmp_path)] == [None, None]
    assert tried == [tmp_path]


@pytest.mark.needs("hatchling")
def test_an_installation_brings_a_compiler_where_none_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = shutil.which("cc")
    root = build.HERE.parents[1]
    script = runpy.run_path(str(root / "hatch_build.py"))
    hook = script["NativeHook"](str(root), {}, None, None, "", "wheel")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CC", shlex.join([sys.executable, "-c", "raise SystemExit(1)"]))
    monkeypatch.setitem(sys.modules, "ziglang", None)
    assert hook.dependencies() == ["ziglang"]
    if compiler is not None:
        monkeypatch.setenv("CC", shlex.quote(compiler))
        assert hook.dependencies() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    ["x86_64-linux-gnu", "aarch64-linux-gnu", "x86_64-windows-gnu", "aarch64-windows-gnu",
     "x86_64-macos", "aarch64-macos"],
)  # fmt: skip
def test_the_sources_compile_for_every_system(tmp_path: Path, target: str) -> None:
    zig = [sys.executable, "-m", "ziglang", "cc"]
    if subprocess.run([*zig, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("ziglang is not installed: python -m pip install ziglang")
    made = build.build(tmp_path, compiler=[*zig, "-target", target])
    start = {"linux": b"\x7fELF", "windows": b"MZ", "macos": b"\xcf\xfa\xed\xfe"}
    assert made.read_bytes().startswith(start[target.split("-")[1]])


def test_the_library_for_windows_is_built_by_the_version_in_its_log_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build.metadata, "version", lambda _name: "0.16.0")
    with pytest.raises(build.BuildError, match=f"0.16.0: .* pip install ziglang=={build.ZIGLANG}"):
        build.build_for_windows(tmp_path)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_the_library_for_windows_has_the_same_bytes_in_another_folder(tmp_path: Path) -> None:
    if build.installed_ziglang() != build.ZIGLANG:
        pytest.skip(f"python -m pip install ziglang=={build.ZIGLANG}")
    build.build_for_windows(tmp_path)
    for shipped in (build.HERE / "windows").iterdir():
        assert (tmp_path / shipped.name).read_bytes() == shipped.read_bytes(), shipped.name


_CHILD = """
import sys
from pathlib import Path
import numpy as np
from MedEnhanceLib import native
from MedEnhanceLib.unicompress.codecs.predictor import coder, learned
from MedEnhanceLib.unicompress.codec_models import shipped_model

path = Path(sys.argv[1])
network = learned.network_of(shipped_model("predictor", "CT"))
rng = np.random.default_rng(0)
cases, widths = 0, native.Library(path).widths
tries = -(-40 // len(widths))
for width in widths:
    library = native.Library(path, width)
    native.require = lambda *_: library
    for shape in ((1, 2, 2), (1, 40, 3), (3, 2, 50), (5, 9, 4), (3, 33, 31)):
        for top in (1, 300, 65535):
            block = np.minimum(np.abs(rng.normal(0, top / 3, shape)), top).astype(np.uint16)
            block[:, shape[1] // 2 :] = 0
            data = coder.encode_block(block, network)
            again = coder.decode_block(data, shape, network)
            assert np.array_equal(again, block)
            for _ in range(tries):
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
    # The last level counts: to compile at -O3 takes longer than all that is checked.
    made = build.build(tmp_path, compiler=["sh", "-c", 'exec "$0" "$@" -O1', gcc, *checks])
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

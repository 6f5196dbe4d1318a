"""cmake, mostly without a compiler or a build tool: then it only configures and copies."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


class CMake:
    """The commands cmake and ctest, with the stand-in as their Slicer."""

    def __init__(self, folder: Path) -> None:
        self.cmake, self.ctest = folder / "cmake", folder / "ctest"

    def configure(
        self, source: Path, build: Path, *options: str, compiler: str = "", generator: str = ""
    ) -> str:
        """Configure; what cmake printed. Raises RuntimeError with that text if it refuses.

        compiler: of C, to build with; empty for one, and a build tool, that cannot be run.
        generator: of cmake; empty for Makefiles.
        """
        none = sys.executable
        tools = [f"-DCMAKE_CXX_COMPILER={none}", "-DCMAKE_CXX_COMPILER_FORCED=ON"]
        if compiler:
            tools += [f"-DCMAKE_C_COMPILER={compiler}"]
        else:
            tools += [f"-DCMAKE_C_COMPILER={none}", "-DCMAKE_C_COMPILER_FORCED=ON"]
            tools += [f"-DCMAKE_MAKE_PROGRAM={none}"]
        return self._run(
            self.cmake, "-S", source, "-B", build, "-G", generator or "Unix Makefiles",
            f"-DSlicer_DIR={HERE / 'SlicerStandIn'}", f"-DPython3_EXECUTABLE={sys.executable}",
            "--no-warn-unused-cli", *tools, *options,
        )  # fmt: skip

    def build(self, build: Path) -> str:
        """All that is out of date."""
        return self._run(self.cmake, "--build", build, "--config", "Release")

    def install(self, build: Path, prefix: Path, *options: str) -> str:
        """All components, as Slicer packages an extension (CPACK_MONOLITHIC_INSTALL)."""
        return self._run(self.cmake, "--install", build, "--prefix", prefix, *options)

    def tests(self, build: Path) -> str:
        """The registered tests, as ctest's JSON."""
        return self._run(self.ctest, "--test-dir", build, "--show-only=json-v1")

    def _run(self, program: Path, *arguments: object) -> str:
        command = [str(program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def cmake() -> CMake:
    """cmake of this environment (it is among the test packages), else the machine's."""
    here = str(Path(sys.executable).parent)
    for found in (shutil.which("cmake", path=here), shutil.which("cmake")):
        if found and shutil.which("ctest", path=str(Path(found).parent)):
            return CMake(Path(found).parent)
    pytest.skip("cmake is not installed: python -m pip install cmake")

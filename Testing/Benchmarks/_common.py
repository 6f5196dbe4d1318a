"""What benchmarks share: where results go, what they ran on, tables and the two files of each."""

from __future__ import annotations

import gc
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs" / "benchmarks"
#: The open volumes kept beside the project.
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def commit() -> str:
    """The commit that is checked out, with "+" where tracked files have changed since."""
    return _git("rev-parse", "--short=12", "HEAD") + (
        "+" if _git("status", "--porcelain", "--untracked-files=no") else ""
    )


def machine() -> str:
    """Processor, cores and Python, without names."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if "model name" in line), "")
    threads = os.environ.get("OMP_NUM_THREADS", "all")
    return (
        f"{model or platform.machine()}, {os.cpu_count()} cores ({threads} used by each library), "
        f"{platform.system()}, Python {platform.python_version()}"
    )


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the caller formats numbers."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def write_picture(path: Path, image: Image.Image | Path, width: int = 1600) -> None:
    """Write a JPEG of at most `width` pixels across; larger ones would swell the history."""
    from PIL import Image as Pillow

    picture = Pillow.open(image) if isinstance(image, Path) else image
    picture = picture.convert("RGB")
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)))
    picture.save(path, quality=85, optimize=True)


def peak_bytes(work: Callable[[], object]) -> int:
    """The most bytes that PyTorch's allocator held at once for what `work` does on the CPU."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    results: Any = profiler.profiler
    changes = [
        (event.start_ns(), event.nbytes())
        for event in results.kineto_results.events()
        if event.name() == "[memory]"
    ]
    held = most = 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        held += change
        most = max(most, held)
    return most


def gate(name: str, value: float | None, bound: str, passed: bool) -> dict[str, Any]:
    """One goal and whether it was reached; a value of None was not measured and fails."""
    return {"name": name, "value": value, "bound": bound, "pass": bool(passed)}


def gate_table(gates: Iterable[Mapping[str, Any]]) -> str:
    """The gates as a Markdown table."""
    return table(
        ("gate", "value", "bound", "passed"),
        (
            (
                entry["name"],
                "not measured" if entry["value"] is None else f"{entry['value']:.4g}",
                entry["bound"],
                "yes" if entry["pass"] else "**no**",
            )
            for entry in gates
        ),
    )


def write(
    name: str,
    text: str,
    *,
    gates: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    seeds: Sequence[int],
    folder: Path = DOCS,
) -> None:
    """NAME.md for people and NAME.json for programs, side by side in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", f"Testing/Benchmarks/{name}.py", *sys.argv[1:]])
    record = {
        "commit": commit(),
        "machine": machine(),
        "command": command,
        "seeds": list(seeds),
        "gates": list(gates),
        "rows": list(rows),
    }
    body = json.dumps(record, indent=1, allow_nan=False) + "\n"
    (folder / f"{name}.json").write_text(body, encoding="utf-8")
    origin = f"Written by `{command}` at {record['commit']} on {record['machine']}.\n"
    (folder / f"{name}.md").write_text(f"{text.rstrip()}\n\n{origin}", encoding="utf-8")


def fill(path: Path, name: str, text: str) -> None:
    """Write a table into a page that people wrote, between `<!-- NAME -->` and `<!-- end -->`."""
    page = path.read_text(encoding="utf-8")
    mark, end = f"<!-- {name} -->\n", "<!-- end -->"
    before, found, rest = page.partition(mark)
    if not found or end not in rest:
        raise ValueError(f"{path.name} has no place for {name!r}")
    after = rest[rest.index(end) :]
    path.write_text(f"{before}{mark}{text.strip()}\n{after}", encoding="utf-8")


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

"""What a release needs beyond building: docs/release.md has the steps.

python Testing/Packaging/release.py publish ../published    the repository of the release, with one
                                                commit a release: made or continued, and checked
python Testing/Packaging/release.py wheels dist the sdist, and a wheel for each system, by ziglang
python Testing/Packaging/release.py catalog     the entry for the index of Slicer's extensions
python Testing/Packaging/release.py licenses    what the installed package and all that it needs are
                                                licensed under; extras behind it: licenses video
"""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
#: What a clone of the published repository may take, in MiB; Slicer's index allows 100 MB.
PUBLISHED_MIB = 30
#: How the library of a wheel begins, by the start of its tag.
FORMATS = {"manylinux": b"\x7fELF", "win": b"MZ", "macosx": b"\xcf\xfa\xed\xfe"}
_SCHEMAS = "https://raw.githubusercontent.com/Slicer/Slicer/main/Schemas"
#: Of licenses that a user would have to know of: they bind what is passed on together.
STRICT = ("GPL", "GENERAL PUBLIC", "PROPRIETARY", "NOT STATED")


def publish(target: Path, repository: Path = ROOT) -> str:
    """Put the files of HEAD into another repository as one commit, with the version's tag.

    target: a clone of the published repository, or a folder that does not exist yet.
    Returns what to look at. Raises SystemExit where something is not ready; nothing is pushed.
    """
    version = runpy.run_path(str(repository / "MedEnhanceLib/_version.py"))["__version__"]
    if _git(repository, "status", "--porcelain"):
        raise SystemExit("there are changes that are not committed: commit or remove them")
    tree = _git(repository, "rev-parse", "HEAD^{tree}").decode().strip()
    if not target.exists():
        _git(repository, "init", "-q", "-b", "main", str(target.resolve()))
        _git(target, "remote", "add", "origin", json.loads(catalog())["scm_url"])
    if _git(target, "tag", "--list", f"v{version}"):
        raise SystemExit(f"v{version} is published already: raise the version")
    _git(target, "fetch", "-q", "--no-tags", str(repository.resolve()), "HEAD")
    known = subprocess.run(["git", "-C", str(target), "rev-parse", "-q", "--verify", "main"],
                           capture_output=True, text=True, check=False).stdout.split()  # fmt: skip
    parents = [word for parent in known for word in ("-p", parent)]
    message = f"MedEnhance {version}"
    commit = _git(target, "commit-tree", tree, *parents, "-m", message).decode().strip()
    _git(target, "update-ref", "refs/heads/main", commit)
    _git(target, "tag", "-a", f"v{version}", "-m", message, commit)
    # What was fetched is held by nothing now but the trees of releases.
    (target / ".git" / "FETCH_HEAD").unlink()
    _git(target, "reflog", "expire", "--expire=now", "--all")
    _git(target, "gc", "-q", "--prune=now")
    _git(target, "reset", "-q", "--hard", "main")
    mib = sum(file.stat().st_size for file in (target / ".git").rglob("*.pack")) / 2**20
    if mib > PUBLISHED_MIB:
        raise SystemExit(f"a clone takes {mib:.1f} MiB, more than {PUBLISHED_MIB}")
    count = len(_git(target, "rev-list", "main").split())
    return f"{target}: {message}, {count} commit(s), {mib:.1f} MiB; git push origin main v{version}"


def wheels(folder: Path, tags: Iterable[str] = ()) -> list[Path]:
    """Build the sdist, and from the sources a wheel for each system; their paths.

    tags: of wheels; none: all that ziglang builds (MedEnhanceLib/native/build.py).
    Raises SystemExit where a build fails, or a wheel's library is of another system.
    """
    known = runpy.run_path(str(ROOT / "MedEnhanceLib/native/build.py"))["TARGETS"]
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run([*command, "--sdist"], check=True)
    made = [*folder.glob("*.tar.gz")]
    for tag in tags or known:
        environment = os.environ | {"MEDENHANCE_WHEEL": tag}
        subprocess.run([*command, "--wheel"], env=environment, check=True)
        (wheel,) = folder.glob(f"*-{tag}.whl")
        start = next(start for name, start in FORMATS.items() if tag.startswith(name))
        with zipfile.ZipFile(wheel) as archive:
            (library,) = (n for n in archive.namelist() if re.search(r"native\.(so|dll|dylib)$", n))
            if not archive.read(library).startswith(start):
                raise SystemExit(f"{wheel.name}: {library} is of another system")
        made.append(wheel)
    return made


def catalog(revision: str = "main") -> str:
    """MedEnhance.json for Slicer's ExtensionsIndex, from the fields of CMakeLists.txt."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    stated = dict(re.findall(r'set\(EXTENSION_(\w+) "([^"]*)"\)', text))
    entry = {
        "$schema": f"{_SCHEMAS}/slicer-extension-catalog-entry-schema-v1.0.2.json#",
        "build_dependencies": [name for name in stated["DEPENDS"].split() if name != "NA"],
        "build_subdirectory": ".",
        "category": stated["CATEGORY"],
        "scm_revision": revision,
        "scm_url": stated["HOMEPAGE"],
        "tier": 1,
    }
    return json.dumps(entry, indent=2) + "\n"


def needed(
    roots: Iterable[Requirement], environments: Sequence[Mapping[str, str]] = ({},)
) -> Iterator[tuple[str, metadata.Distribution | None]]:
    """Name and distribution of all that these requirements need, each name once.

    Args:
        roots: the requirements.
        environments: values of markers that differ from those of this Python; what any of these
            environments needs counts.
    Returns:
        The distribution is None for a package that is not installed, whose needs are not known.
    """
    waiting, seen, names = [*roots], set(), set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            package = None
        if name not in names:
            names.add(name)
            yield name, package
        states = [{**place, "extra": extra} for place in environments for extra in ("", *extras)]
        for line in (package.requires if package else None) or ():
            further = Requirement(line)
            if further.marker is None or any(map(further.marker.evaluate, states)):
                waiting.append(further)


def licenses(extras: Sequence[str] = (), package: str = "medenhance") -> Iterator[tuple[str, str]]:
    """Name with version, and license, of an installed package and of all that it needs here."""
    for name, found in needed([Requirement(f"{package}[{','.join(extras)}]")]):
        if found is None:
            yield name, "NOT STATED: not installed"
        else:
            yield f"{name} {found.version}", license_of(found)


def license_of(package: metadata.Distribution) -> str:
    """The expression that a package states, else its classifiers, else the first line of a text."""
    said = package.metadata
    classified = [
        line.rpartition(" :: ")[2]
        for line in said.get_all("Classifier") or ()
        if line.startswith("License :: ") and not line.endswith("OSI Approved")
    ]
    text = (said.get("License") or "").strip().partition("\n")[0][:60]
    return said.get("License-Expression") or ", ".join(classified) or text or "NOT STATED"


def _git(repository: Path, *words: str) -> bytes:
    return subprocess.run(
        ["git", "-C", str(repository), *words], check=True, capture_output=True
    ).stdout


def main(words: Sequence[str]) -> int:
    """Run one of the commands."""
    if words[:1] == ["publish"] and len(words) == 2:
        print(publish(Path(words[1])))
        return 0
    if words[:1] == ["wheels"] and len(words) > 1:
        print(*wheels(Path(words[1]), words[2:]), sep="\n")
        return 0
    if list(words) == ["catalog"]:
        print(catalog(), end="")
        return 0
    if words[:1] == ["licenses"]:
        rows = sorted(licenses(words[1:]))
        for name, terms in rows:
            mark = "!" if any(word in terms.upper() for word in STRICT) else " "
            print(f"{mark} {name:40} {terms}")
        print(f"{len(rows)} packages; ! marks what somebody has to read")
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

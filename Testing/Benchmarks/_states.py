"""Dependencies of tables: a table of which nothing changed is not measured again."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
_SCRIPTS = "Testing/Benchmarks"
#: What scripts read or run besides what they import.
_READ = {
    "fuzz": "Testing/Library/unicompress/fuzzing.py",
    "gradprom": "docs/recipes",
    "kills": "Testing/Library/unicompress/killing.py",
    "real_ct": "Testing/Benchmarks/real_ct_scans.json",
    "segmentation": "Testing/Benchmarks/heads.json",
    "sequences": "Testing/Benchmarks/sequence_scans.json",
}
#: The module that names others by text, and where these are.
_JOBS, _KINDS = "MedEnhanceLib.jobs.job", "MedEnhanceLib.jobs.kinds."
#: In a script: it runs a command of the library, which may reach everything.
_COMMAND = '"-m"'
#: Modules that no figure depends on: sentences about a result, and this one.
_NOT_MEASURED = {"MedEnhanceLib.core.findings", "MedEnhanceLib.runtime.texts", "_states"}
_TEXTS = "texts.json"
#: The package that opens models of a kind.
_OPENERS = {"slices": "slices", "head": "gradprom", "codec": "unicompress"}
#: Fields of a model's metadata that record_in_cards.py writes, with the hashes of its files.
_WRITTEN = ("measured", "volume_interval", "files")
#: How names of reasons for missed goals begin; no row depends on them.
_REASON = "_WHY_"
#: What has a docstring; no figure depends on it.
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def state_of(name: str) -> str:
    """Hash what a table depends on, of what git knows: 16 hexadecimal digits.

    The script, all that it imports, whatever is no Python in the folders of that, and the models
    that its packages open, without their cards.
    """
    more = [_READ[name]] if name in _READ else []
    places = ["MedEnhanceLib", "Resources/models", f"{_SCRIPTS}/*.py", *more]
    listed = git("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *places)
    paths = sorted(path for path in {*listed.split("\0")} - {""} if Path(path).name != _TEXTS)
    files = [path for path in paths if (REPOSITORY / path).is_file()]
    code = _reached({_module(path): path for path in files if path.endswith(".py")}, name, more)
    folders = {path.rpartition("/")[0] for path in code} - {_SCRIPTS}
    packages = {folder.split("/")[1] for folder in folders if "/" in folder}
    digest = hashlib.sha256()
    for path in files:
        place = path.split("/")
        if place[0] == "Resources":
            counts = place[3] != "docs" and _OPENERS[_kind("/".join(place[:3]))] in packages
        else:
            counts = path in code or (
                not path.endswith(".py")
                and (path.rpartition("/")[0] in folders or path.startswith(tuple(more)))
            )
        if counts:
            content = hashlib.sha256(_content(REPOSITORY / path)).hexdigest()
            digest.update(f"{path} {content}\n".encode())
    return digest.hexdigest()[:16]


def git(*words: str) -> str:
    """What git says of the repository."""
    command = ["git", "-C", str(REPOSITORY), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _module(path: str) -> str:
    """The name by which a file is imported."""
    name = path.removesuffix(".py").removeprefix(f"{_SCRIPTS}/")
    return name.replace("/", ".").removesuffix(".__init__")


def _reached(modules: Mapping[str, str], script: str, more: Iterable[str]) -> set[str]:
    """Files that a script and further ones import, and those that these do, with themselves."""
    names = {script, *(_module(path) for path in more if path.endswith(".py"))}
    known, importable = set[str](), frozenset(modules)
    while names:
        name = names.pop()
        known.add(name)
        text = (REPOSITORY / modules[name]).read_bytes()
        imports = _imported(text, importable)
        if name == _JOBS or (name == script and _COMMAND in text.decode()):
            start = _KINDS if name == _JOBS else "MedEnhanceLib"
            imports = imports | {each for each in modules if each.startswith(start)}
        names |= imports - known - _NOT_MEASURED
    return {modules[name] for name in known}


@cache
def _imported(text: bytes, modules: frozenset[str]) -> set[str]:
    """Those of some modules that a file imports anywhere, for types as well."""
    names = set[str]()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = [f"{node.module}.{alias.name}" for alias in node.names]
            # What is no module is of the package itself.
            names |= {part if part in modules else node.module for part in parts}
    return names & modules


def _kind(folder: str) -> str:
    fields = json.loads((REPOSITORY / folder / "configs/metadata.json").read_bytes())
    return str(fields["kind"])


def _content(path: Path) -> bytes:
    """A file: Python as `_code` hashes it, metadata without what benchmarks write."""
    if path.suffix == ".py":
        return _code(path.read_bytes())
    if path.name != "metadata.json":
        return path.read_bytes()
    fields = json.loads(path.read_bytes())
    kept_fields = {key: value for key, value in fields.items() if key not in _WRITTEN}
    return json.dumps(kept_fields, sort_keys=True).encode()


@cache
def _code(text: bytes) -> bytes:
    """Hash what Python does, without comments, docstrings, help of options and reasons.

    It is kept, as files are in many tables' states.
    """
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not _is_reason(node)]
    for node in ast.walk(tree):
        if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
            del node.body[0]
        elif isinstance(node, ast.Call):
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "help"]
    return hashlib.sha256(ast.dump(tree).encode()).digest()


def _is_reason(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id.startswith(_REASON) for target in node.targets
    )

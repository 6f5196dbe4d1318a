"""Commands of pages are typed as by a new user; .ci/run does so with those of README."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
import touched
import walk_page
import yaml
from test_distributions import git

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the commands are those of a POSIX shell")
_README, _CONTRIBUTING = (
    walk_page._TYPED.findall((walk_page.ROOT / page).read_text(encoding="utf-8"))
    for page in ("README.md", "CONTRIBUTING.md")
)
_INSTALLS = re.compile(r"\S*python -m pip install -c constraints\.txt -e \S+")


_PAGE = """
<!-- not run: walk_page.py types it -->
```sh
CLONE
ls > ~/names
env > ~/variables
false | true
touch ~/later
```
"""


@pytest.mark.parametrize("clone", ["", f"git clone {walk_page.ADDRESS} && cd SlicerMedEnhance"])
def test_a_block_is_typed_in_a_clone_with_nothing_of_this_environment(
    clone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, home = tmp_path / "repository", tmp_path / "home"
    repository.mkdir()
    (repository / "page.md").write_text(_PAGE.replace("CLONE", clone))
    git(repository, "init", "-q")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "work")
    (repository / "not committed").touch()
    monkeypatch.setattr(walk_page, "ROOT", repository)
    monkeypatch.setattr(sys, "argv", ["", "page.md", "--keep", str(home), "CHOSEN=a b"])
    monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "wheels")
    assert walk_page.main() == 1  # of `false`
    assert (home / "names").read_text() == "page.md\n"
    variables = (home / "variables").read_text().splitlines()
    assert {"PIP_FIND_LINKS=wheels", f"HOME={home}", "CHOSEN=a b"} <= set(variables)
    assert not [line for line in variables if line.startswith("PYTHON")]
    assert not (home / "later").exists()


def test_slow_tests_are_those_of_the_folders_that_a_change_touches(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    for number, path in enumerate(
        ("README.md", "MedEnhanceLib/api.py", "MedEnhanceLib/slices/steps.py", "docs/a.md")
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("line\n" * number)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", "work")
    assert touched.changed(tmp_path) == ""  # nothing is older than a day
    git(tmp_path, "update-ref", "refs/remotes/origin/main", "HEAD~3")
    folders = touched.touched(touched.changed(tmp_path))
    assert folders == ["Testing/Library/slices", "Testing/Library"]
    assert touched.touched("") == touched.touched("1\t-\tdocs/a.md") == [touched.DEFAULT]


def test_readme_runs_the_demo_and_the_tests_by_one_command_each() -> None:
    demo, tests = (block.strip().splitlines()[-1] for block in _README)
    assert demo.endswith("medenhance demo") and tests.endswith("-m pytest")
    contributors = (walk_page.ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert re.findall(r"^```sh\n(.*)\n", contributors, re.M)[0] == tests
    for command in (demo, tests, *map(str.strip, _CONTRIBUTING)):
        assert re.match(r"python3 -m venv \.venv && .* install -c constraints\.txt ", command)


def test_environments_of_the_workflow_are_those_that_pages_make() -> None:
    """So .ci/run, which types these pages, has seen each of them."""
    flow = yaml.safe_load((walk_page.ROOT / ".github/workflows/tests.yml").read_text("utf-8"))
    steps = [step.get("run", "") for job in flow["jobs"].values() for step in job["steps"]]
    of_the_workflow, of_pages = (
        {re.sub(r"\S*python|[\"']", "", line) for line in _INSTALLS.findall("\n".join(lines))}
        for lines in (steps, _README + _CONTRIBUTING)
    )
    assert len(of_the_workflow) == 2 and of_the_workflow <= of_pages
    ci = (walk_page.ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "walk README.md --block 1" in ci and "walk README.md --block 2" in ci
    assert "walk CONTRIBUTING.md" in ci

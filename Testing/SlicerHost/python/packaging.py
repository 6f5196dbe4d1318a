"""Stands for slicer.packaging: it looks, and never installs.

What changes the Python it runs in raises NotImplementedError: tests put something in its place.
"""

import importlib.metadata
import tomllib
from pathlib import Path

import slicer
from packaging.requirements import Requirement


def load_requirements(path):
    lines = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def load_pyproject_dependencies(path):
    project = tomllib.loads(Path(path).read_text(encoding="utf-8"))["project"]
    return [Requirement(line) for line in project.get("dependencies", [])]


def pip_check(req, _seen=None):
    requirements = req.split() if isinstance(req, str) else req
    if isinstance(requirements, Requirement):
        requirements = [requirements]
    return all(_is_met(Requirement(str(each))) for each in requirements)


def _is_met(requirement):
    if requirement.marker is not None and not requirement.marker.evaluate():
        return True
    try:
        return importlib.metadata.version(requirement.name) in requirement.specifier
    except importlib.metadata.PackageNotFoundError:
        return False


def isPipInstallInProgress():
    return False


def pip_ensure(
    requirements,
    constraints=None,
    skip_packages=None,
    prompt_install=True,
    prompt_restart=True,
    requester=None,
    skip_in_testing=True,
    show_progress=True,
):
    if pip_check(requirements) or (skip_in_testing and slicer.app.testingEnabled()):
        return
    raise NotImplementedError("the host installs nothing")


def pip_install(
    requirements,
    constraints=None,
    no_deps_requirements=None,
    skip_packages=None,
    blocking=True,
    show_progress=True,
    requester=None,
    logCallback=None,
    completedCallback=None,
):
    raise NotImplementedError("the host installs nothing")


def pip_uninstall(requirements, blocking=True, logCallback=None, completedCallback=None):
    raise NotImplementedError("the host uninstalls nothing")

"""Stands for slicer.packaging: the host installs nothing, so tests put something in its place."""


def isPipInstallInProgress():
    return False


def pip_ensure(
    requirements, constraints=None, skip_packages=None, prompt_install=True, prompt_restart=True,
    requester=None, skip_in_testing=True, show_progress=True,
):  # fmt: skip
    raise NotImplementedError("the host installs nothing")

"""Types blocks of commands of a page as a new user would: walk_page.py README.md

Those behind a comment that names this script, each in a fresh clone of HEAD and a fresh home, or in
the clone of a kept one; a block that clones gets this repository too. Of the environment only the
path and what reaches package indexes stays, and what is stated as NAME=VALUE. Needs nothing but
Python, git and bash.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://github.com/medenhance/SlicerMedEnhance"
_TYPED = re.compile(r"^<!-- not run: [^>]*walk_page\.py[^>]*-->\n```sh\n(.*?)^```", re.S | re.M)
_REACHES_INDEXES = re.compile(r"(PIP|SSL|REQUESTS)_\w+|\w+_proxy", re.IGNORECASE)


def type_block(block: str, home: Path, variables: dict[str, str]) -> int:
    """Type the lines of a block into a shell, which ends at the first that fails.

    home: empty, or with the clone of an earlier block.
    variables: of the environment, beside those that stay.
    Returns the status of the shell.
    """
    kept = {name: text for name, text in os.environ.items() if _REACHES_INDEXES.fullmatch(name)}
    kept |= {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | variables
    # git clones the repository of this file where a page states the address of all.
    place = {"COUNT": "1", "KEY_0": f"url.{ROOT.as_uri()}.insteadOf", "VALUE_0": ADDRESS}
    kept |= {f"GIT_CONFIG_{name}": text for name, text in place.items()}
    if "git clone" not in block:
        there = (home / "SlicerMedEnhance").is_dir()
        clone = "" if there else f"git clone -q --depth 1 {ADDRESS} && "
        block = f"{clone}cd SlicerMedEnhance\n{block}"
    command = ["bash", "-e", "-o", "pipefail", "-c", block]
    return subprocess.run(command, cwd=home, env=kept, stdin=subprocess.DEVNULL).returncode


def main() -> int:
    """Type one or all of the blocks; returns the status of the first that fails."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", help="relative to the top of the repository")
    parser.add_argument("variables", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--block", type=int, metavar="N", help="this one alone, from 1")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="a home, which is kept")
    options = parser.parse_intermixed_args()
    blocks = _TYPED.findall((ROOT / options.page).read_text(encoding="utf-8"))
    for block in blocks[options.block - 1 :][:1] if options.block else blocks:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="new-user-") as folder:
            home = options.keep or Path(folder)
            home.mkdir(exist_ok=True)
            print(f"{options.page}, typed in {home}:\n{block}", flush=True)
            status = type_block(block, home, dict(each.split("=", 1) for each in options.variables))
        print(f"status {status}, {time.monotonic() - start:.0f} s", flush=True)
        if status:
            return status
    return 0 if blocks else 2


if __name__ == "__main__":
    sys.exit(main())

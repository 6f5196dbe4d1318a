"""`python -m MedEnhanceLib COMMAND`; the worker starts without the command line's own imports."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Run the command; the exit status."""
    if arguments[:1] == ["worker"]:
        from MedEnhanceLib.jobs.worker import worker

        return worker.main(arguments[1:])
    from MedEnhanceLib.cli.main import main as run_command

    return run_command(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

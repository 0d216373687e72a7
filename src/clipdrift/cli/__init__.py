"""The command line: parse, call, print. No command holds logic of its own."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point: errors a user can mend are lines on standard error and exit code 2."""
    from clipdrift.cli.app import app
    from clipdrift.cli.terminal import guarded

    sys.exit(guarded(lambda: app(prog_name="clipdrift", standalone_mode=False)))


__all__ = ["main"]

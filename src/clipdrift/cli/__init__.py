"""The command line: parse, call, print. No command holds logic of its own."""

from __future__ import annotations

import sys

from clipdrift.errors import ClipdriftError, told


def main() -> None:
    """Entry point: errors a user can mend are lines on standard error and exit code 2."""
    from clipdrift.cli.app import app

    try:
        app()
    except ClipdriftError as error:
        for line in told(error.faults):
            print(line, file=sys.stderr)
        sys.exit(2)


__all__ = ["main"]

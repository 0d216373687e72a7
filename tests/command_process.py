"""The command in a process of its own, which says at the end whether torch was imported."""

from __future__ import annotations

import os
import subprocess
import sys

CODE = (
    "import sys, clipdrift.cli\n"
    "try:\n    clipdrift.cli.main()\n"
    "finally:\n    print('torch' in sys.modules, file=sys.stderr)"
)


def command(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `clipdrift` with these words, and these variables beside those that are set."""
    return subprocess.run(
        [sys.executable, "-c", CODE, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


__all__ = ["command"]

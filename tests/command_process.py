"""The command, in a process that says at the end whether torch was imported, or in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import pytest

from clipdrift.cli import main

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


def exit_code_here(*words: object) -> int:
    """Exit code of the command in this process; what it says goes where this process says it."""
    argv = ["clipdrift", *map(str, words)]
    with patch.object(sys, "argv", argv), pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def command_here(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """As `command`, in this process: where nothing is asked of what was imported."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with patch.dict(os.environ, environment), redirect_stdout(out), redirect_stderr(err):
        code = exit_code_here(*words)
    said, told = (stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(words, code, said, told)


__all__ = ["command", "command_here", "exit_code_here"]

"""Two processes never measure one run at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from clipdrift.records.claims import claim

HOLDER = """
import pathlib, sys
from clipdrift.records.claims import claim
with claim(pathlib.Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""


def test_a_claim_excludes_other_processes_until_its_holder_dies(tmp_path: Path) -> None:
    path = tmp_path / ".locks" / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "True"
    with claim(path) as mine:
        assert not mine
    with claim(tmp_path / ".locks" / "other") as mine:
        assert mine
    holder.kill()
    holder.wait()
    with claim(path) as mine:
        assert mine


def test_a_claim_ends_with_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with claim(tmp_path / "run") as mine:
            assert mine

"""The pages of the documentation do what they say."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


def test_the_notebook_page_runs_as_it_stands(
    tmp_path: Path,
    cache_dir: Path,
    no_processes: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPDRIFT_CACHE", str(cache_dir))
    names: dict[str, object] = {}
    blocks = BLOCK.findall((ROOT / "docs" / "notebook.md").read_text())
    assert len(blocks) >= 4
    for block in blocks:
        exec(compile(block, "notebook.md", "exec"), names)
    said = capsys.readouterr().out
    assert "8 runs measured, 0 already there" in said
    assert (tmp_path / "runs/first-look/retention.html").stat().st_size > 1e6
    assert (tmp_path / "runs/first-look/report.html").exists()

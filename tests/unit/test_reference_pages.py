"""The reference pages of the documentation are what the code says today."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "function"), [("study-file.md", "study_page"), ("analysis.md", "analysis_page")]
)
def test_page_is_up_to_date(page: str, function: str) -> None:
    tool = runpy.run_path(str(ROOT / "tools" / "write_reference.py"))
    written = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert written == tool[function](), "run: python tools/write_reference.py"

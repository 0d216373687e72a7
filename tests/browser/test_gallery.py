"""A gallery in a real browser: its filters, its links, and titles that others wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accessibility import serious_faults

import clipdrift
from clipdrift.errors import StudyFolderError
from clipdrift.records import RunRecord, StudyFolder, atomic_write

pytestmark = pytest.mark.browser
HOSTILE = """"><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>{{ 7 * 7 }}"""


def folder(path: Path, records: list[RunRecord]) -> StudyFolder:
    own = StudyFolder(path)
    own.create()
    for record in records:
        atomic_write(own.record_path(record.run_id), record.to_json())
    return own


def test_studies_are_filtered_opened_and_escaped(
    make_records: Callable[..., list[RunRecord]], tmp_path: Path, chromium: Any
) -> None:
    small: dict[str, Any] = {"seeds": (1, 2), "rates": (1e-4, 1e-3), "blocks": 1}
    digits = folder(tmp_path / "a", make_records(targets=("digits",), **small))
    other = folder(tmp_path / "b", make_records(targets=("land-cover",), backbone="big", **small))
    clipdrift.bundle(
        other, tmp_path / "b.tar.xz", title=HOSTILE, licence="CC-BY-4.0", citation=HOSTILE
    )
    before = sorted(digits.path.rglob("*"))
    clipdrift.gallery(digits, tmp_path / "b.tar.xz", out=tmp_path / "site")
    assert sorted(digits.path.rglob("*")) == before
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.goto((tmp_path / "site" / "index.html").as_uri())
    shown = "[...document.querySelectorAll('.cards > li')].map((card) => card.hidden)"
    assert page.evaluate(shown) == [False, False]
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious_faults(page) == []
    page.select_option("select[name=target]", "land-cover")
    assert page.evaluate(shown) == [True, False]
    assert page.text_content(".count") == "1 of 2 studies"
    page.select_option("select[name=backbone]", "mini-clip")
    assert page.evaluate(shown) == [True, True]
    page.select_option("select[name=target]", "")
    assert page.evaluate(shown) == [False, True]
    assert page.text_content(".cards > li:nth-child(2) h2") == HOSTILE
    downloads = page.locator("a[download]")
    assert downloads.count() == 1  # no licence, no records
    assert (tmp_path / "site" / downloads.get_attribute("href")).read_bytes() == (
        tmp_path / "b.tar.xz"
    ).read_bytes()
    assert page.evaluate("window.hit ?? null") is None
    page.click(".cards > li:nth-child(1) h2 a")
    page.wait_for_selector("h1")
    assert page.url.endswith("/report.html")
    page.close()
    with pytest.raises(StudyFolderError, match="expected a new or empty folder"):
        clipdrift.gallery(digits, out=digits.path)

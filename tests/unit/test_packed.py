"""Pages made small and whole again; packed parts that are damaged, or come to too much."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from report_study import study_folder

from clipdrift.records import RunRecord
from clipdrift.report import packed as room
from clipdrift.report.packed import packed, unpacked
from clipdrift.report.page import render
from clipdrift.report.page_reader import read_page
from clipdrift.report.read import read_study


def test_a_packed_page_is_small_and_says_the_same(
    tmp_path: Path, make_records: Callable[..., list[RunRecord]]
) -> None:
    records = make_records(targets=("a\u2028b", "<tbody>x</tbody>", '"</script>'))
    page = render(read_study(study_folder(tmp_path, records)))
    small = packed(page)
    assert len(small) < len(page) / 2
    assert small.count("data-packed") > 5
    assert unpacked(small) == page
    assert read_page(small) == read_page(page)


def body(text: bytes) -> str:
    return f'<tbody data-packed="{base64.b64encode(text).decode()}"></tbody>'


@pytest.mark.parametrize(
    "text",
    [b"", b"no zlib", zlib.compress(b"cut short")[:-3], zlib.compress(b"\xff\xfe")],
    ids=["empty", "another", "cut", "no text"],
)
def test_a_damaged_part_stays_as_it_is(text: bytes) -> None:
    assert unpacked(body(text)) == body(text)


def test_a_part_that_comes_to_too_much_stays_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MOST", 1000)
    assert unpacked(body(zlib.compress(b"x" * 1001))) == body(zlib.compress(b"x" * 1001))
    assert unpacked(body(zlib.compress(b"x" * 999))) == f"<tbody>{'x' * 999}</tbody>"

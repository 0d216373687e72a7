"""The audit agrees with an untouched report and names whatever was edited, with both values."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from report_study import study_folder, write_page
from synthetic_records import synthetic_records

from clipdrift.errors import RecordError
from clipdrift.records import StudyFolder, atomic_write, read_record
from clipdrift.report import audit_report
from clipdrift.report.page_reader import read_page


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    records = synthetic_records(targets=("digits",), rates=(1e-5, 1e-4), blocks=2)
    folder = study_folder(tmp_path_factory.mktemp("study") / "study", records)
    write_page(folder)
    return folder


@pytest.fixture
def copy(reported: StudyFolder, tmp_path: Path) -> StudyFolder:
    shutil.copytree(reported.path, tmp_path / "study")
    return StudyFolder(tmp_path / "study")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def a_record_of(folder: StudyFolder) -> Path:
    return min(folder.runs_path.glob("*/record.json"))


def test_an_untouched_report_has_no_difference(reported: StudyFolder) -> None:
    assert audit_report(reported) == []


def test_an_edited_mean_is_named_with_both_values(copy: StudyFolder) -> None:
    table = copy.report_path.read_text(encoding="utf-8").split('data-table="cells"')[1]
    cell = re.search(r'data-metric="test_accuracy"[^>]*>([0-9.]+ ± [0-9.]+)<', table)
    assert cell is not None
    edit(copy.report_path, cell[0], cell[0].replace(cell[1], "99.9 ± 0.1"))
    found = audit_report(copy)
    assert [(d.number, d.ours, d.theirs) for d in found] == [
        ("test_accuracy, mean_sd", cell[1], "99.9 ± 0.1")
    ]
    assert "Test accuracy (%)" in found[0].place
    assert "99.9 ± 0.1" in str(found[0])


EDITS = [
    ("95 % CI of gap", "99 % CI of gap", "heading"),
    ("found in 80 % of studies", "found in 20 % of studies", "button"),
    (" (95 % CI ", " (97 % CI ", "answer, li"),
    ("mean ± SD over 3 runs", "mean ± SD over 9 runs", "title"),
    ('"zmin":-', '"zmin":-9', "zmin"),
    ('data-runs="0-2"', 'data-runs="3-5"', "data-runs"),
]
"""What is written in the page, what it is made into, and a word of the place that is named."""


def test_prose_tooltips_headings_figures_and_origins_are_held_too(copy: StudyFolder) -> None:
    text = copy.report_path.read_text(encoding="utf-8")
    for old, new, _ in EDITS:
        nbsp = " %" if old in text else "\u00a0%"
        edit(copy.report_path, old.replace(" %", nbsp), new.replace(" %", nbsp))
    places = [d.place for d in audit_report(copy)]
    assert len(places) == len(EDITS)
    for _, _, word in EDITS:
        assert any(word in place for place in places), (word, places)


def test_every_printed_number_is_held(copy: StudyFolder) -> None:
    """Each number in turn is edited in one page, and each is named."""
    head, style, text = copy.report_path.read_text(encoding="utf-8").partition("</style>")
    pattern = re.compile(r'(data-stat="[^"]*"[^>]*>)([^<]*\d[^<]*)(?=<)')
    expected = len(pattern.findall(text))
    atomic_write(copy.report_path, head + style + pattern.sub(r"\g<1>\g<2>7", text))
    found = audit_report(copy)
    assert expected > 300
    assert len(found) == expected
    assert all(d.theirs.removesuffix("7") for d in found)


def test_an_edited_record_is_named_by_the_numbers_it_changes(copy: StudyFolder) -> None:
    path = a_record_of(copy)
    record = read_record(path)
    record.result.test_accuracy = 0.5
    atomic_write(path, record.to_json())
    places = " ".join(d.place for d in audit_report(copy))
    for name in ("table cells", "answer, number", "table runs", "page data", "analysis.json"):
        assert name in places


def test_a_record_edited_without_its_checksum_is_missed_from_the_means(copy: StudyFolder) -> None:
    edit(a_record_of(copy), '"epoch": 1', '"epoch": 9')
    assert any("table cells" in d.place for d in audit_report(copy))


def test_edited_tables_and_analysis_are_named(copy: StudyFolder) -> None:
    edit(copy.tables_path / "cells.tex", r"\toprule", r"\bottomrule")
    edit(copy.tables_path / "paired.csv", "digits", "pets")
    analysis = json.loads(copy.analysis_path.read_text())
    analysis["cells"][0]["mean"] = 0.123
    atomic_write(copy.analysis_path, json.dumps(analysis))
    places = [d.place for d in audit_report(copy)]
    assert len(places) == 3
    assert any("analysis.json, cells [0], mean" in place for place in places)
    assert any("tables/paired.csv" in place for place in places)
    assert any("tables/cells.tex" in place for place in places)


def test_a_torn_report_is_all_difference_and_no_report_is_an_error(copy: StudyFolder) -> None:
    text = copy.report_path.read_text(encoding="utf-8")
    atomic_write(copy.report_path, text[: len(text) // 50])
    assert len(audit_report(copy)) > 50
    shutil.rmtree(copy.tables_path)
    lengths = [str(d) for d in audit_report(copy) if d.number == "length"]
    assert any(
        re.match(r"tables/cells.csv: length: expected \d+ entries, got 0", d) for d in lengths
    )
    copy.report_path.unlink()
    with pytest.raises(RecordError, match=r"expected the study's report, got nothing there\. Run"):
        audit_report(copy)


def test_the_reader_gives_numbers_their_place_and_sentences_a_mark() -> None:
    page = read_page(
        '<section id="answer"><ul><li>Keeps <span data-stat="mean" data-runs="0">51 %</span>.</li>'
        '</ul><table data-table="t"><thead><tr><th><button title="x">LR</button></th><th>Mean</th>'
        '</tr></thead><tbody><tr><th>1e-5</th><td data-stat="n" data-runs="0">3</td></tr></tbody>'
        '</table></section><script type="application/json" id="page-data">{"runs":[["a"]]}</script>'
    )
    texts = {item.label: item.text for item in page.items.values()}
    assert texts["answer, li 1"] == "Keeps #."
    assert texts["answer, number 1"] == "51 %"
    assert texts["table t, row 1 (1e-5), Mean"] == "3"
    assert page.run_ids == ["a"]

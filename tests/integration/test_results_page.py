"""A results page is what the records beside it give."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import pytest
from report_study import study_folder
from results_page import main

from clipdrift.records import RunRecord, StudyFolder

PAGE = """# A study

<!-- made: cells digits -->
<!-- end -->
Words of a person.
<!-- made: ranks digits transfer.TRANSFER.retention_pct full_ft -->
<!-- end -->
<!-- made: choice -->
<!-- end -->
<!-- made: answer digits -->
<!-- end -->
"""


@pytest.fixture
def records(make_records: Callable[..., list[RunRecord]]) -> list[RunRecord]:
    return make_records(methods=("full_ft", "lora", "third"), targets=("digits",))


@pytest.fixture
def place(records: list[RunRecord], tmp_path: Path) -> Path:
    folder: StudyFolder = study_folder(tmp_path / "study", records)
    place = tmp_path / "docs" / "page"
    assert main("pack", str(folder.path), str(place)) == 0
    place.with_suffix(".md").write_text(
        PAGE.replace("TRANSFER", next(iter(records[0].result.transfer)))
    )
    (place / "cells.csv").touch()
    return place


def test_tables_of_a_page_are_those_of_its_records(
    place: Path, records: list[RunRecord], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And their archive is the same bytes each time."""
    assert main("check", str(place)) == 1
    assert main("make", str(place)) == 0
    assert main("check", str(place)) == 0
    text = place.with_suffix(".md").read_text()
    assert "Words of a person." in text
    cell, ranked = (line.split(" | ") for line in text.splitlines() if line.startswith("| lora | "))
    lowest = min(record.learning_rate for record in records)
    own = [r for r in records if (r.method, r.learning_rate) == ("lora", lowest)]
    values = [100 * (r.result.test_accuracy or 0) for r in own]
    assert cell[1].startswith(f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}")
    assert " (" in ranked[7]
    assert "runner-up" in text
    assert "- At equal validation accuracy" in text
    made = (tmp_path / "study" / "tables" / "cells.csv").read_bytes()
    assert (place / "cells.csv").read_bytes() == made

    place.with_suffix(".md").write_text(text.replace("| lora |", "| better |", 1))
    capsys.readouterr()
    assert main("check", str(place)) == 1
    assert "page.md" in capsys.readouterr().out
    main("pack", str(tmp_path / "study"), str(tmp_path / "again" / place.name))
    archives = [folder / "records.tar.xz" for folder in (place, tmp_path / "again" / place.name)]
    same = archives[0].read_bytes() == archives[1].read_bytes()
    assert same  # apart: to show how long bytes differ takes minutes

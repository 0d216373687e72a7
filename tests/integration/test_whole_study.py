"""A part of a study is never told as the whole of it."""

from __future__ import annotations

import re
import shutil
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from report_study import write_page
from synthetic_records import synthetic_records
from typer.testing import CliRunner

from clipdrift.analysis.files import write_analysis
from clipdrift.cli.app import app
from clipdrift.records import StudyFolder, atomic_write, imported
from clipdrift.records.imported import import_runs

RUNNER = CliRunner()

pytestmark = pytest.mark.usefixtures("no_figures")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """Twelve planned runs with their records, and a report of them."""
    folder = StudyFolder(tmp_path_factory.mktemp("whole") / "out")
    folder.create()
    records = synthetic_records(targets=("digits",), rates=(1e-5, 1e-4), seeds=(1, 2, 3), blocks=2)
    assert len(records) == 12
    for record in records:
        atomic_write(folder.record_path(record.run_id), record.to_json())
    folder.write_run_ids({record.run_id: record.identity for record in records})
    write_analysis(folder)
    write_page(folder)
    return folder


@pytest.fixture
def folder(whole: StudyFolder, tmp_path: Path) -> StudyFolder:
    shutil.copytree(whole.path, tmp_path / "out")
    return StudyFolder(tmp_path / "out")


def told(command: str, folder: StudyFolder, code: int = 0) -> str:
    result = RUNNER.invoke(app, [command, str(folder.path)])
    assert result.exit_code == code, result.output
    return " ".join(result.output.split())


def page(folder: StudyFolder) -> str:
    text = re.sub(r"(?s)<(script|style).*?</\1>", "", folder.report_path.read_text())
    return " ".join(re.sub(r"<[^>]+>", " ", text).split())


def test_a_whole_study_says_nothing_of_runs_to_do(folder: StudyFolder) -> None:
    assert told("analyze", folder).startswith("12 of 12 records used: ")
    assert "to do" not in page(folder)
    assert told("audit", folder) == "Every printed number follows from the records."


def test_what_was_planned_and_is_not_there_is_named_everywhere(folder: StudyFolder) -> None:
    gone = list(folder.planned() or {})[:8]
    for run_id in gone:
        shutil.rmtree(folder.run_path(run_id))
    named = ", ".join([*gone[:3], "..."])
    assert told("report", folder).startswith("4 of 4 records used, 12 planned, 8 to do ")
    assert f"4 of 12 planned, 8 to do: {named}" in page(folder)
    assert "4 runs used of 4 , 12 planned, 8 to do" in page(folder)
    assert f"expected a record of each, got 4 of 12 planned, 8 to do: {named}" in told(
        "audit", folder, 1
    )


def test_records_that_were_swapped_are_not_taken_for_each_other(folder: StudyFolder) -> None:
    first, second = sorted(folder.planned() or {})[:2]
    one, other = folder.record_path(first), folder.record_path(second)
    texts = one.read_text(), other.read_text()
    one.write_text(texts[1])
    other.write_text(texts[0])
    assert told("analyze", folder).startswith("10 of 10 records used, 12 planned, 2 to do: ")
    audited = told("audit", folder, 1)
    assert f"{one}: record: expected the record of the run, got that of {second}" in audited
    folder.plan_path.unlink()  # as in folders of earlier imports
    records, faults = folder.records()
    assert (len(records), [fault.where for fault in faults]) == (10, [str(one), str(other)])


def test_an_import_that_was_killed_is_a_part_until_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [f"eurosat,{method},1e-4,{s},0.{9 - s}" for method in ("a", "b") for s in range(5)]
    (tmp_path / "runs.csv").write_text("\n".join(["target,method,lr,seed,acc", *rows]))
    fields = {"target": "target", "method": "method", "lr": "lr", "seed": "seed"}
    lines = [f"  {column}: {field}" for column, field in {**fields, "acc": "val_accuracy"}.items()]
    (tmp_path / "map.yaml").write_text("\n".join(["columns:", *lines]))
    given = (tmp_path / "runs.csv", tmp_path / "map.yaml", tmp_path / "out")
    write, written = atomic_write, count(1)

    def killed(path: Path, data: Any) -> None:
        if next(written) > 4:
            raise KeyboardInterrupt
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(imported, "atomic_write", killed)
        with pytest.raises(KeyboardInterrupt):
            import_runs(*given)
    folder = StudyFolder(given[2])
    assert told("analyze", folder).startswith("4 of 4 records used, 10 planned, 6 to do: ")
    folder.plan_path.write_text("{")  # by a kill at another moment
    import_runs(*given)
    assert told("status", folder) == "10 runs: 10 finished"
    assert told("report", folder).startswith("10 of 10 records used ")
    assert told("audit", folder) == "Every printed number follows from the records."

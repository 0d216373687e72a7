"""`clipdrift choose`: the words of its answers, bad input, and what the report shows of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from command_process import command, command_here
from report_study import study_folder, write_page
from synthetic_records import synthetic_records

from clipdrift.analysis.choose import choose
from clipdrift.analysis.files import schema
from clipdrift.analysis.questions.budget import DEFAULT, Budget, budget
from clipdrift.cli.choice_tables import answer
from clipdrift.errors import RecordError, SpecError
from clipdrift.records import StudyFolder
from clipdrift.report import audit_report
from clipdrift.report.page_reader import read_page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    records = synthetic_records(targets=("digits",), rates=(1e-5, 1e-4), blocks=2)
    for record in records:
        for name, reading in record.result.transfer.items():
            key = f"interpolation.0.5.transfer.{name}.retention_pct"
            record.result.extra[key] = 50 + (reading.retention_pct or 0.0) / 2
        record.result.extra["interpolation.0.5.val_accuracy"] = record.result.val_accuracy
        record.result.extra["interpolation.0.5.test_accuracy"] = record.result.test_accuracy
    return study_folder(tmp_path_factory.mktemp("choose") / "study", records)


def test_budgets_are_read_as_stated() -> None:
    assert budget() == DEFAULT
    assert budget(min_retention=95, max_retention_loss=2) == Budget(min_retention_pct=98)
    both = budget(min_accuracy=90, max_retention_loss=0.5)
    assert both.words == "accuracy of at least 90 %, retention of at least 99.5 %; most retention"
    assert (both.decides, Budget(min_retention_pct=95).decides) == ("retention", "accuracy")


def test_every_nonsense_budget_is_told_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        budget(min_accuracy=0.95, within_pp=-1, min_retention=0.95, max_retention_loss=100)
    assert [str(fault) for fault in caught.value.faults] == [
        "--min-accuracy: expected percent above 1 and up to 100, got 0.95. Write 95.",
        "--within: expected percentage points from 0 to below 100, got -1. Give points such as 1.",
        "--min-retention: expected percent of the untouched accuracy, above 1, got 0.95. Write 95.",
        (
            "--max-retention-loss: expected percentage points of retention from 0 to below 100, "
            "got 100. Give points such as 2."
        ),
    ]
    for wrong in ({"min_accuracy": float("nan")}, {"min_retention": float("inf")}):
        with pytest.raises(SpecError):
            budget(**wrong)


def test_unknown_names_are_refused_with_the_nearest(folder: StudyFolder) -> None:
    with pytest.raises(SpecError) as caught:
        choose(folder, DEFAULT, targets=["digit", "digits"], transfers=["cifar100"])
    assert [str(fault) for fault in caught.value.faults] == [
        (
            "--target: expected one of the records' names (digits), got 'digit'. "
            "Did you mean 'digits'?"
        ),
        (
            "--transfer: expected one of the records' names (cifar10, shapes100), got 'cifar100'. "
            "Did you mean 'cifar10'?"
        ),
    ]


def test_records_without_a_run_or_a_retention_are_refused(tmp_path: Path) -> None:
    records = synthetic_records(targets=("digits",), rates=(1e-5,), blocks=1)
    for record in records:
        for reading in record.result.transfer.values():
            reading.retention_pct = None
    with pytest.raises(RecordError, match="expected a retention to choose by, got transfer acc"):
        choose(study_folder(tmp_path / "a", records), DEFAULT)
    (tmp_path / "b").mkdir()
    with pytest.raises(RecordError, match="expected at least one finished run, got none"):
        choose(StudyFolder(tmp_path / "b"), DEFAULT)


def test_the_command_answers_in_words_and_as_json(folder: StudyFolder) -> None:
    done = command("choose", folder.path, "--min-retention", 80)
    assert (done.returncode, done.stderr.strip()) == (0, "False")
    assert "-> lora 0.0001 at alpha 0.5, chosen in " in done.stdout
    assert "What would change it: " in done.stdout
    assert "of others they know nothing." in re.sub(r"\s+", " ", done.stdout)
    told = json.loads(command_here("choose", folder.path, "--min-retention", 80, "--json").stdout)
    assert len(told) == 8
    assert set(told[0]) == set(schema()["properties"]["choice"]["items"]["properties"])


def test_that_none_meets_is_an_answer(folder: StudyFolder) -> None:
    done = command_here("choose", folder.path, "--min-accuracy", 99.9, "--target", "digits")
    assert done.returncode == 0
    said = re.sub(r"\s+", " ", done.stdout)
    assert (
        "-> none of 8 candidates does, in 100 % of draws of seeds; nearest miss full_ft 0.0001"
        in said
    )


def test_a_wrong_budget_is_a_line_and_exit_code_2(folder: StudyFolder) -> None:
    done = command_here("choose", folder.path, "--min-accuracy", 0.95)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0].startswith("--min-accuracy: expected percent")


def test_a_choice_that_does_not_fit_is_said(folder: StudyFolder) -> None:
    row = choose(folder, Budget(min_retention_pct=90)).rows[0]
    for fit in ("fits", "underfits", "damaged"):
        said = [
            word
            for word in ("underfits:", "damaged:")
            if word in " ".join(answer([replace(row, fit=fit)]))
        ]
        assert said == ([] if fit == "fits" else [f"{fit}:"])


def test_the_report_shows_the_choice_and_the_audit_holds_it(folder: StudyFolder) -> None:
    write_page(folder)
    assert audit_report(folder) == []
    text = folder.report_path.read_text(encoding="utf-8")
    page = read_page(text)
    said = [i.text for i in page.items.values() if i.label.startswith("choice, p")]
    assert any(re.match(r"\w+ at learning rate #", line) for line in said), said
    between = [
        item for item in page.items.values()
        if item.given.get("data-metric") == "extra.interpolation.0.5.test_accuracy"
        and item.label.startswith("table choice")
    ]  # fmt: skip
    assert between
    old = re.search(r'data-table="choice-0".*?data-stat="mean_sd"[^>]*>([^<]+)<', text, re.DOTALL)
    assert old is not None
    at = old.start(1)
    folder.report_path.write_text(text[:at] + "99.9 ± 0.1" + text[old.end(1) :], encoding="utf-8")
    found = audit_report(folder)
    assert [(d.ours, d.theirs) for d in found] == [(old[1], "99.9 ± 0.1")]

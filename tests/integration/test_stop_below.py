"""Runs that a forecast ends early: recorded as stopped, in no mean, measured whole without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from in_process import InProcess
from report_study import write_page
from stop_rule import SAVED, SPEC
from synthetic_records import synthetic_records
from tiny_study import measured, tiny
from typer.testing import CliRunner

from clipdrift.analysis.files import write_analysis
from clipdrift.cli.app import app
from clipdrift.early_warning.rule import StopRule
from clipdrift.errors import ClipdriftError
from clipdrift.records import StudyFolder, atomic_write, read_record
from clipdrift.report import audit_report
from clipdrift.report.page_reader import read_page
from clipdrift.spec import dump_spec
from clipdrift.study.measure import run_study
from clipdrift.study.status import study_status


def shown_by(*arguments: str) -> str:
    """What a command prints as it succeeds."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def stopped_study(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measured by a rule that stops the larger of two rates."""
    out = tmp_path_factory.mktemp("stopped") / "study"
    rule = StopRule(SAVED, 80.0)
    outcome = run_study(SPEC, out, executor=InProcess(), cache_dir=cache_dir, stop_rule=rule)
    assert (outcome.measured, outcome.stopped, outcome.failed) == (1, 1, {})
    again = run_study(SPEC, out, executor=InProcess(), cache_dir=cache_dir, stop_rule=rule)
    assert (again.kept, again.stopped) == (2, 0)
    return out


def test_a_stopped_run_is_recorded_with_its_forecast_and_without_result(
    stopped_study: Path,
) -> None:
    assert sorted(study_status(stopped_study).values()) == ["finished", "stopped"]
    records, faults = StudyFolder(stopped_study).records()
    assert not faults
    whole, ended = sorted(records, key=lambda record: record.learning_rate)
    assert (whole.status, whole.stopped_early) == ("finished", None)
    why = ended.stopped_early
    assert why is not None
    assert (ended.status, ended.selected_epoch, ended.files) == ("stopped", None, {})
    assert [entry.epoch for entry in ended.history] == [0, 1]
    moved = ended.history[1].drift["embedding_drift"]
    assert moved is not None
    assert why.forecast_pct == pytest.approx(max(0.0, 100 - 4000 * moved))
    assert why.high_pct == pytest.approx(why.forecast_pct + 5)
    assert (why.epoch, why.limit_pct, why.forecast_hash) == (1, 80.0, SAVED.hash)
    assert ended.reason == why.words
    assert ended.result.test_accuracy is None
    assert not ended.result.transfer


def test_stopped_runs_are_in_no_mean_and_shown_as_stopped(stopped_study: Path) -> None:
    folder = StudyFolder(stopped_study)
    analysis = write_analysis(folder)
    assert {row["learning_rate"] for row in analysis["cells"]} == {1e-6}
    (warning,) = (row for row in analysis["warnings"] if row["kind"] == "run_stopped")
    assert (warning["learning_rate"], warning["method"], warning["seed"]) == (1e-2, "lora", 7)
    write_page(folder)
    page = folder.report_path.read_text(encoding="utf-8")
    assert "Run stopped early by a forecast, in no mean" in page
    texts = {item.label: item.text for item in read_page(page).items.values()}
    shown = {
        label.rpartition(", ")[2]: text
        for label, text in texts.items()
        if label.startswith("table stopped, row 1")
    }
    assert shown["Run"] == warning["run_ids"][0]
    assert (shown["After epoch"], shown["Limit (%)"], shown["Learned from"]) == ("1", "80.0", "9")
    assert audit_report(folder) == []


def test_the_command_shows_them_and_measures_them_whole_without_the_option(
    stopped_study: Path, cache_dir: Path, tmp_path: Path, no_processes: None
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(dump_spec(SPEC))
    forecast = tmp_path / "forecast.json"
    atomic_write(forecast, SAVED.to_json())
    out = str(stopped_study)
    run = ("run", str(study), "--out", out, "--cache", str(cache_dir))
    shown = shown_by(*run, "--stop-below", "70")
    assert (
        "stopping runs whose retention on digits, forecast after epoch 1, has an upper bound "
        "(80% interval) below 70 %: learned from 9 runs" in shown
    )
    assert f"an earlier call on {out}" in shown
    assert "0 (1 stopped)" in shown
    assert "stopped" in shown_by("status", out)
    ended = next(r for r in StudyFolder(stopped_study).records()[0] if r.status == "stopped")
    shown_by(*run)
    assert not StudyFolder(stopped_study).stop_rule_path.exists()
    assert set(study_status(stopped_study).values()) == {"finished"}
    record = read_record(StudyFolder(stopped_study).record_path(ended.run_id))
    assert [entry.drift for entry in record.history[:2]] == [e.drift for e in ended.history]
    alone = tmp_path / "alone"
    run_study(tiny(learning_rates=[1e-2]), alone, executor=InProcess(), cache_dir=cache_dir)
    (other,) = StudyFolder(alone).records()[0]
    assert measured(record) == measured(other)


def study_file(folder: Path, **changes: Any) -> str:
    folder.mkdir()
    path = folder / "study.yaml"
    path.write_text(dump_spec(tiny(**changes)))
    return str(path)


def refused(*arguments: str) -> str:
    """What the command says of itself as it refuses."""
    done = CliRunner().invoke(app, arguments)
    assert isinstance(done.exception, ClipdriftError), done.output
    return str(done.exception)


def test_a_forecast_that_cannot_be_is_refused_before_anything_starts(tmp_path: Path) -> None:
    few = StudyFolder(tmp_path / "few")
    few.create()
    records = synthetic_records(rates=(1e-4,))
    for record in records:
        atomic_write(few.record_path(record.run_id), record.to_json())
    transfers = [{"name": name, "builtin": "digits"} for name in records[0].result.transfer]
    study, known = study_file(tmp_path / "a"), study_file(tmp_path / "b", transfers=transfers)
    out, here = tmp_path / "out", str(few.path)
    for file, options, words in (
        (study, ("--forecast-from", here), "--forecast-from: expected --stop-below beside it"),
        (study, ("--stop-below", "120"), "above 0 and at most 100, got 120. Give percent such as"),
        (
            study,
            ("--stop-below", "80"),
            (
                "--stop-below: expected finished runs to learn from, got a new study. Name "
                "finished studies with --forecast-from."
            ),
        ),
        (
            study,
            ("--stop-below", "80", "--forecast-from", here),
            "--stop-below: expected one of the records' names (cifar10, shapes100), got 'digits'.",
        ),
        (
            known,
            ("--stop-below", "80", "--forecast-from", here),
            (
                f"{here}: expected at least 8 cells of matched methods with drift or retention "
                "after epoch 1, a later epoch and a final retention, got 4 cells (12 of 12 "
                "finished runs). "
                "Name finished studies with --forecast-from, or run more of the grid first."
            ),
        ),
        (study, ("--stop-below", "80", "--forecast-from", f"{out}/no"), "got nothing there."),
        (study, ("--stop-below", "80", "--forecast-from", study), "got a damaged or edited file."),
    ):
        assert words in refused("run", file, "--out", str(out), *options)
        assert not out.exists()

"""A study raced for real: runs pause and go on, the log is kept, and nothing else is different."""

from __future__ import annotations

from pathlib import Path

import pytest
from in_process import InProcess
from tiny_study import measured, tiny
from typer.testing import CliRunner

from clipdrift.cli.app import app
from clipdrift.commands.racing import race
from clipdrift.errors import RecordError, SpecError
from clipdrift.records import StudyFolder, read_record
from clipdrift.records.race_log import read_race
from clipdrift.spec import dump_spec
from clipdrift.study.measure import run_study
from clipdrift.study.status import study_status
from clipdrift.study.tasks import Task

WORLD = [{"name": "world", "builtin": "world", "n_images": 60}]
SPEC = tiny(learning_rates=[1e-4, 1e-3, 1e-2], seeds=[7, 11], transfers=WORLD)


@pytest.fixture(scope="module")
def raced(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    out = tmp_path_factory.mktemp("raced") / "study"
    # So little that first readings (3 x 1/3 of a run) and two runs are all there is.
    outcome, log = race(SPEC, out, "2.4 runs", executor=InProcess(), cache_dir=cache_dir)
    assert outcome.failed == {}
    assert log.spent <= 2.4
    return StudyFolder(out)


def test_cells_are_read_early_and_some_go_on(raced: StudyFolder) -> None:
    states = study_status(raced)
    assert len(states) == 6
    assert sorted(set(states.values())) == ["finished", "stopped", "to do"]
    paused = [run_id for run_id, state in states.items() if state == "stopped"]
    record = read_record(raced.record_path(paused[0]))
    assert (record.seed, record.result.test_accuracy) == (7, None)
    assert [reading.epoch for reading in record.history] == [0, 1]
    assert record.reason == "paused after epoch 1 of 3 by a race"


def test_the_log_says_what_was_decided_and_is_sealed(raced: StudyFolder) -> None:
    log = read_race(raced)
    assert log is not None
    assert set(log.steps[0].measure.values()) == {1}
    assert log.steps[0].leaders == {}
    assert [step.measure for step in log.steps][-1] == {}
    (answer,) = log.answers.values()
    assert 0 < answer.probability <= 1
    assert log.steps[-1].leaders["land-cover"] == answer
    text = raced.race_path.read_text()
    raced.race_path.write_text(text.replace('"n_runs": 6', '"n_runs": 7'))
    with pytest.raises(RecordError, match="expected a race of version 1, got a damaged or edited"):
        read_race(raced)
    raced.race_path.write_text(text)


def test_the_same_race_again_measures_nothing_and_says_the_same(
    raced: StudyFolder, cache_dir: Path
) -> None:
    before = read_race(raced)
    outcome, log = race(SPEC, raced.path, "2.4 runs", executor=InProcess(), cache_dir=cache_dir)
    assert (outcome.measured, outcome.stopped) == (0, 0)
    assert before is not None
    assert log.answers == before.answers


def test_a_paused_run_goes_on_to_the_record_it_would_have_made(
    cache_dir: Path, tmp_path: Path
) -> None:
    rest = {"executor": InProcess(), "cache_dir": cache_dir}
    first = run_study(
        tiny(), tmp_path / "a", batches=lambda folder, runs: [[Task(runs[0], until=2)]], **rest
    )
    assert (first.measured, first.stopped) == (0, 1)
    run_study(tiny(), tmp_path / "a", **rest)
    run_study(tiny(), tmp_path / "b", **rest)
    (ours,), (whole,) = (StudyFolder(tmp_path / name).records()[0] for name in "ab")
    assert ours.timing["interruptions"] == 1
    assert measured(ours) == measured(whole)


def test_the_grid_grows_where_the_best_lies_at_its_edge(cache_dir: Path, tmp_path: Path) -> None:
    spec = tiny(learning_rates=[1e-5, 3e-5], seeds=[7], transfers=WORLD)
    # So wide a margin that the leader is right at once; the floor is met by none.
    rest = {"executor": InProcess(), "cache_dir": cache_dir}
    _, log = race(spec, tmp_path, "4 runs", margin=100.0, **rest)
    (added,) = log.rates_added.values()
    assert added[0] in {3.3e-6, 9e-5}
    assert log.spent <= 4
    kept = StudyFolder(tmp_path).read_spec()
    assert kept is not None
    assert kept.learning_rates == sorted({1e-5, 3e-5, *added})


def test_the_command_tells_the_answer_and_the_rest_copes(
    raced: StudyFolder, cache_dir: Path, tmp_path: Path, no_processes: None
) -> None:
    study = tmp_path / "tiny.yaml"
    study.write_text(dump_spec(SPEC))
    command = ["run", str(study), "--out", str(raced.path), "--cache", str(cache_dir)]
    done = CliRunner().invoke(app, [*command, "--race", "2.4 runs"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    words = " ".join(done.stdout.split())
    assert "the whole grid's answer, or within 1 points of it" in words
    assert "The race left out" in words
    for other in ("status", "choose", "audit"):
        shown = CliRunner().invoke(app, [other, str(raced.path)], env={"COLUMNS": "200"})
        assert shown.exit_code == 0, shown.output
        assert "race" in shown.stdout or other == "status"


@pytest.mark.parametrize(
    ("changes", "limit", "words"),
    [
        ({"evaluation": {"epoch_transfer_images": 0}}, "40%", "got epoch_transfer_images: 0."),
        ({"checkpoint": "paper_test_selected"}, "40%", "expected a study that chooses by valid"),
        ({}, "5%", "expected as much as a first reading of every cell takes, got 5%. That is 33%"),
    ],
)
def test_what_cannot_be_raced_is_refused(
    changes: dict[str, object], limit: str, words: str, cache_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=words):
        race(tiny(**changes), tmp_path / "no", limit, executor=InProcess(), cache_dir=cache_dir)


def test_a_floor_needs_a_race() -> None:
    done = CliRunner().invoke(app, ["run", "study.yaml", "--within", "2"])
    assert "--within: expected --race beside it, got none." in str(done.exception)

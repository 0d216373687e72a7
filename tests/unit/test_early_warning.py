"""The rule that ends runs: what it decides, on what it says nothing, and files that are not one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_records import record
from small_study import study

from clipdrift.early_warning.forecast import KEPT, SIGNALS, Line, Model, Saved
from clipdrift.early_warning.rule import (
    StopRule,
    backbone_faults,
    read_rule,
    rule_faults,
    settled,
    write_rule,
)
from clipdrift.errors import RecordError
from clipdrift.records import EpochReading, RunRecord, StudyFolder, atomic_write, read_record
from clipdrift.records.transfer import TransferReading
from clipdrift.spec import RunConfig, content_hash, expand

# One fold, one line: 100 less 50 points per unit of embedding drift; bounds 10 points around it.
LINE = Line(100.0, [0.0, 50.0, 0.0, 0.0, 0.0], 0.0, 100.0)
MODEL = Model(LINE, [LINE], [0] * 9, [10.0] * 9, [0.1] * 9, 0.1)
DRIFTS = [name for name in SIGNALS if name != KEPT]
SAVED = Saved(MODEL, 0.8, 1, DRIFTS, ["digits"], [6], ["mini-clip"], ["lora"], {"n_runs": 9})
RULE = StopRule(SAVED, 60.0)


def configs(**changes: Any) -> list[RunConfig]:
    return expand(study(**changes), precision="float32")


def lora(**changes: Any) -> RunConfig:
    return next(config for config in configs(**changes) if config.method.name == "lora")


def reading(epoch: int, drift: float | None, **other: float | None) -> EpochReading:
    values = {**dict.fromkeys(DRIFTS, 0.0), "cka_mean": 1.0, "embedding_drift": drift, **other}
    return EpochReading(epoch=epoch, step=10 * epoch, drift=values)


@pytest.mark.parametrize(("drift", "high"), [(1.0, 60.0), (1.02, 59.0), (1.5, 35.0)])
def test_the_upper_bound_decides(drift: float, high: float) -> None:
    history = [reading(0, 0.0), reading(1, drift)]
    found = RULE.verdict(lora(), "mini-clip", history)
    if high >= RULE.below_pct:
        assert found is None
        return
    assert found is not None
    assert (found.epoch, found.read_after_epoch) == (1, 1)
    assert found.high_pct == pytest.approx(high)
    assert found.low_pct == pytest.approx(high - 20)
    assert found.forecast_pct == pytest.approx(high - 10)
    assert found.forecast_hash == SAVED.hash
    assert found.words == (
        f"retention on digits forecast at {high - 10:.1f} % (80% interval {high - 20:.1f} to "
        f"{high:.1f}) after epoch 1, below the limit of 60 %"
    )


def test_retention_read_after_the_epoch_decides_where_the_forecast_reads_it() -> None:
    # 10 points of retention lost by the end for each point lost after the epoch.
    line = Line(100.0, [10.0], 0.0, 100.0)
    model = Model(line, [line], [0] * 9, [10.0] * 9, [0.1] * 9, 0.1)
    rule = StopRule(replace(SAVED, model=model, signals=[KEPT], transfers=["digits", "world"]), 60)
    for kept, other, high in ((99.0, 95.0, 60.0), (99.0, 94.0, 50.0), (94.0, None, None)):
        transfer = {
            "digits": TransferReading(accuracy=0.5, retention_pct=kept),
            "world": TransferReading(accuracy=0.5, retention_pct=other),
        }
        history = [reading(0, 0.0), EpochReading(epoch=1, step=10, transfer=transfer)]
        found = rule.verdict(lora(), "mini-clip", history)
        assert (found and found.high_pct) == (high if high and high < 60 else None)
    unread = study(transfers=[{"name": n, "builtin": "digits"} for n in ("digits", "world")],
                   evaluation={"epoch_transfer_images": 0})  # fmt: skip
    (fault,) = rule_faults(rule, unread)
    assert str(fault) == (
        "--stop-below: expected a study that reads its transfers after every epoch, as the "
        "forecast does, got epoch_transfer_images: 0. Raise it under evaluation, or learn from "
        "studies that do not read them either."
    )


def test_a_run_that_was_interrupted_later_comes_to_the_same_verdict() -> None:
    early = [reading(0, 0.0), reading(1, 1.5)]
    now = RULE.verdict(lora(), "mini-clip", early)
    later = RULE.verdict(lora(), "mini-clip", [*early, reading(2, 0.0)])
    assert now is not None
    assert later == now.model_copy(update={"epoch": 2})


@pytest.mark.parametrize(
    ("config", "backbone", "history"),
    [
        (lora(), "mini-clip", [reading(0, 0.0)]),
        (lora(), "mini-clip", [reading(0, 0.0), reading(1, None)]),
        (lora(), "mini-clip", [reading(0, 0.0), reading(1, 1.5), reading(6, 1.5)]),
        (lora(), "other-clip", [reading(0, 0.0), reading(1, 1.5)]),
        (configs()[0], "mini-clip", [reading(0, 0.0), reading(1, 1.5)]),
        (lora(schedule={"epochs": 9}), "mini-clip", [reading(0, 0.0), reading(1, 1.5)]),
        (
            lora(methods=["full_ft", {"kind": "lora", "role": "reference"}]),
            "mini-clip",
            [reading(0, 0.0), reading(1, 1.5)],
        ),
    ],
    ids=["too early", "undefined", "at its end", "backbone", "method", "length", "reference"],
)
def test_what_the_forecast_does_not_know_goes_on(
    config: RunConfig, backbone: str, history: list[EpochReading]
) -> None:
    assert RULE.verdict(config, backbone, history) is None


@pytest.mark.parametrize(
    ("below", "words"),
    [
        (0.0, "expected a retention in percent, above 0 and at most 100, got 0. Give percent"),
        (-5.0, "got -5. Give percent such as 80"),
        (100.5, "got 100.5. Give percent such as 80"),
        (float("nan"), "got nan. Give percent such as 80"),
        (0.8, "at most 100 (a fraction is none), got 0.8. Write 80"),
    ],
)
def test_a_limit_that_is_no_percentage_is_refused(below: float, words: str) -> None:
    (fault,) = rule_faults(replace(RULE, below_pct=below), study())
    assert str(fault).startswith("--stop-below: expected a retention in percent")
    assert words in str(fault)


def test_all_that_does_not_fit_the_study_is_told() -> None:
    saved = replace(SAVED, transfers=["digit"], methods=["dora"], epochs=[4])
    assert [str(fault) for fault in rule_faults(StopRule(saved, 80.0), study())] == [
        (
            "--stop-below: expected a forecast of retention on the study's transfers (digits), "
            "got 'digit'. Did you mean 'digits'?"
        ),
        (
            "--stop-below: expected a forecast that knows a matched method of the study (full_ft, "
            "lora, 6 epochs), got one of dora, 4 epochs. Learn from finished runs of the same "
            "methods and length, with --forecast-from."
        ),
    ]
    (fault,) = backbone_faults(RULE, "other")
    assert str(fault) == (
        "--stop-below: expected a forecast of the study's backbone (other), got mini-clip. Learn "
        "from finished runs of the same backbone, with --forecast-from."
    )
    assert not [*rule_faults(RULE, study()), *backbone_faults(RULE, "mini-clip")]


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    folder.create()
    return folder


def test_the_rule_lies_in_the_folder_until_it_is_taken_away(folder: StudyFolder) -> None:
    assert read_rule(folder) is None
    write_rule(folder, RULE)
    assert read_rule(folder) == RULE
    write_rule(folder, None)
    assert read_rule(folder) is None
    write_rule(folder, None)


def resealed(body: dict[str, Any]) -> str:
    body = {key: value for key, value in body.items() if key != "hash"}
    return json.dumps({**body, "hash": content_hash(body)})


@pytest.mark.parametrize(
    "harm",
    [
        *("torn", "limit edited", "limit of another type", "limit in words", "no forecast"),
        "folds that are not there",
    ],
)
def test_a_rule_that_is_not_the_one_written_is_refused(harm: str, folder: StudyFolder) -> None:
    write_rule(folder, RULE)
    path = folder.stop_rule_path
    text = path.read_text()
    body = json.loads(text)
    if harm == "torn":
        text = text[: len(text) // 2]
    elif harm == "limit edited":
        text = text.replace("60.0", "99.0")
    elif harm == "limit of another type":
        text = resealed({**body, "below_pct": [1]})
    elif harm == "limit in words":
        text = resealed({**body, "below_pct": "1e400"})
    elif harm == "no forecast":
        text = resealed({**body, "forecast": None})
    else:
        model = {**body["forecast"]["model"], "folds": [7] * 9}
        forecast = json.loads(resealed({**body["forecast"], "model": model}))
        text = resealed({**body, "forecast": forecast})
    path.write_text(text)
    with pytest.raises(RecordError, match="expected the rule by which runs are stopped, got a dam"):
        read_rule(folder)


def stopped(config: RunConfig) -> RunRecord:
    history = [reading(0, 0.0), reading(1, 1.5)]
    why = RULE.verdict(config, "mini-clip", history)
    base = RunRecord.of_run(config, "i" * 64, study="s", backbone="mini-clip", status="stopped")
    return base.model_copy(update={"history": history, "stopped_early": why})


def test_a_stopped_run_is_settled_while_the_rule_would_stop_it_again(folder: StudyFolder) -> None:
    config = lora()
    kept = stopped(config)
    atomic_write(folder.record_path(kept.run_id), kept.to_json())
    for rule, holds in (
        (RULE, True),
        (replace(RULE, below_pct=36.0), True),
        (replace(RULE, below_pct=35.0), False),
        (replace(RULE, forecast=replace(SAVED, methods=["full_ft"])), False),
        (None, False),
    ):
        assert (settled(folder, config, "i" * 64, rule) is not None) is holds
    assert settled(folder, config, "j" * 64, RULE) is None
    assert folder.finished(kept.run_id, "i" * 64) is None


def test_records_of_other_runs_do_not_name_what_they_have_not(tmp_path: Path) -> None:
    assert "stopped_early" not in record().to_json()
    kept = stopped(lora())
    atomic_write(tmp_path / "record.json", kept.to_json())
    assert read_record(tmp_path / "record.json").stopped_early == kept.stopped_early

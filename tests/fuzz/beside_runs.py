"""The log of a race, and readings of finished runs that were changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from fuzz.strategies import as_json, edited
from fuzz.target import Target
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from small_records import record

from clipdrift.analysis.questions.located import rows as edited_rows
from clipdrift.records import StudyFolder
from clipdrift.records.after import AfterReading, readings
from clipdrift.records.located import EditRow, LocatedRun, located, located_path
from clipdrift.records.race_log import Leader, RaceLog, Step, read_race
from clipdrift.spec import content_hash


def feed_race(data: bytes, folder: Path) -> None:
    study = StudyFolder(folder)
    study.race_path.write_bytes(data)
    log = read_race(study)
    assert log is not None
    assert all(map(log.words, log.answers))
    log.write(study)


def feed_reading(data: bytes, folder: Path) -> None:
    (folder / "after").mkdir()
    (folder / "after" / "one.json").write_bytes(data)
    for one in readings(StudyFolder(folder), [record()])[0]:
        assert one.to_json()
        assert one.weights


def feed_edits(data: bytes, folder: Path) -> None:
    """Edits of a run that are taken are told by the analysis."""
    run = record()
    path = located_path(StudyFolder(folder), run.run_id)
    path.parent.mkdir()
    path.write_bytes(data)
    found, _ = located(StudyFolder(folder), [run])
    effects, places = edited_rows([run], found)
    assert json.dumps([vars(row) for row in (*effects, *places)], allow_nan=False)


def edit_seeds() -> list[bytes]:
    run = record()
    more = {"dataset": "digits", "score": 0.5, "control_pp": -1.0, "moved_rel": 0.1}
    edits = [
        EditRow.model_validate({"edit": e, "of": of, "block": b, "kind": k, "change_pp": c, **more})
        for e, of, c in (("revert", "adapted", 9.0), ("graft", "untouched", -9.0))
        for b, k in ((None, "all"), (1, "block"), (1, "mlp"), (2, "block"))
    ]
    known = {"run_id": run.run_id, "run": run.identity, "identity": "i"}
    return [
        LocatedRun(**known, what=["weights"], draws=1, n_images=9, rows=edits).to_json().encode()
    ]


def race_seeds() -> list[bytes]:
    leader = Leader(method="lora", learning_rate=1e-3, alpha=1.0, probability=0.9)
    log = RaceLog(
        budget="most retention",
        limit="40%",
        margin_pp=1.0,
        probability=0.95,
        n_runs=9,
        rates_added={"pets": [1e-2]},
        steps=[Step(spent=1.0, leaders={"pets": leader}, measure={"pets-lora": 1})],
        answers={"pets": leader},
        outcome={"pets": "open"},
    )
    return [log.to_json().encode()]


def reading_seeds() -> list[bytes]:
    run = record()
    reading = AfterReading(
        name="soup",
        identity="i",
        kind="soup",
        alpha=1.0,
        backbone=run.backbone,
        target=run.target,
        method=run.method,
        role=run.role,
        learning_rate=run.learning_rate,
        seeds=[run.seed],
        runs={run.run_id: run.identity},
        result=run.result,
    )
    return [reading.to_json().encode()]


def _shaped(seeds: Callable[[], list[bytes]], seal: str) -> SearchStrategy[bytes]:
    """Edited files, most with the hash that they would need."""
    trees = [json.loads(seed) for seed in seeds()]

    def sealed(pair: tuple[Any, int]) -> bytes:
        tree, dice = pair
        if dice and isinstance(tree, dict):
            body = {key: value for key, value in tree.items() if key != seal}
            with suppress(ValueError, TypeError):  # NaN has no hash
                tree = {**body, seal: content_hash(body)}
        return as_json(tree)

    return st.tuples(edited(trees), st.integers(0, 4)).map(sealed)


TARGETS = [
    Target("race", feed_race, race_seeds, lambda: _shaped(race_seeds, "checksum")),
    Target(
        "reading after training",
        feed_reading,
        reading_seeds,
        lambda: _shaped(reading_seeds, "checksum"),
    ),
    Target("edits of a run", feed_edits, edit_seeds, lambda: _shaped(edit_seeds, "checksum")),
]
